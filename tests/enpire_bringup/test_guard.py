"""The guard fails closed: nothing stale, malformed, too fast or out of bounds gets through."""

import math
from dataclasses import replace

import numpy as np
import pytest

from enpire_bringup.guard import ArmGuard, GuardRefusal, GuardViolation
from enpire_bringup.kinematics import ArmKinematics, tool_down
from enpire_bringup.trajectory import JointTrajectory, point_to_point

HOME = np.array([0.0, 1.047, 1.047, 0.0, 0.0, 0.0])
PERIOD = 1 / 30


@pytest.fixture(scope='module')
def kinematics(station):
    return ArmKinematics(station, 'left')


@pytest.fixture(scope='module')
def guard(station):
    return ArmGuard(station, 'left', station.safety)


def move(start, goal, speed=1.0):
    return point_to_point(start, goal, [2.0 * speed] * 6, [6.0] * 6)


def servo(guard, pose, **changes):
    return guard.filter_servo(pose, **{'frame': 'world', 'stamp': 5.0, 'state_stamp': 5.0, 'period': PERIOD,
                                       'previous': tool_down(0.3, 0.0, 0.05, 0.0), 'velocity': np.zeros(3), **changes})


# -- planned motion

def test_move_within_all_limits_passes(guard):
    guard.check_trajectory(move(HOME, HOME + 0.2), HOME)


def test_joint_beyond_its_range_less_the_margin_is_named(guard):
    goal = HOME.copy()
    goal[3] = 1.56     # the range ends at 1.571, the margin is 0.02
    with pytest.raises(GuardViolation, match=r'left_joint4 would go to 1\.55. rad; allowed are -1\.673 to 1\.551'):
        guard.check_trajectory(move(HOME, goal), HOME)


def test_joint_faster_than_the_limit_is_named(guard):
    fast = point_to_point(HOME, HOME + [0.9, 0, 0, 0, 0, 0], [4.0] * 6, [60.0] * 6)
    with pytest.raises(GuardViolation, match=r'left_joint1 would move at .* rad/s; the limit is 3 rad/s'):
        guard.check_trajectory(fast, HOME)


def test_first_point_far_from_the_start_is_too_fast(guard):
    trajectory = move(HOME, HOME + 0.2)
    with pytest.raises(GuardViolation, match='would move at'):
        guard.check_trajectory(trajectory, HOME - 0.5)


def test_tool_that_leaves_the_workspace_on_the_way_is_refused(guard, kinematics):
    below = kinematics.ik(tool_down(0.3, 0.0, 0.001, 0.0), HOME)
    with pytest.raises(GuardViolation, match=r'tool center point would be at z = 0\.00. m, the workspace is 0\.003'):
        guard.check_trajectory(move(HOME, below), HOME)


def test_numbers_that_are_not_finite_are_refused(guard):
    trajectory = move(HOME, HOME + 0.2)
    broken = replace(trajectory, positions=np.full_like(trajectory.positions, math.nan))
    with pytest.raises(GuardRefusal, match='not finite'):
        guard.check_trajectory(broken, HOME)


def test_arm_out_of_bounds_may_come_back_but_not_go_farther(guard, kinematics):
    outside = kinematics.ik(tool_down(0.3, 0.0, 0.003, 0.0), HOME)
    guard.check_trajectory(move(outside, HOME), outside)
    farther = kinematics.ik(tool_down(0.3, 0.0, 0.001, 0.0), outside)
    with pytest.raises(GuardViolation, match='workspace'):
        guard.check_trajectory(move(outside, farther), outside)


def test_joint_beyond_its_margin_may_come_back(guard):
    stuck = HOME.copy()
    stuck[3] = 1.56
    guard.check_trajectory(move(stuck, HOME), stuck)
    back = JointTrajectory(np.array([0.1]), stuck[None] + [0, 0, 0, 0.005, 0, 0], np.zeros((1, 6)))
    with pytest.raises(GuardViolation, match='left_joint4'):
        guard.check_trajectory(back, stuck)


# -- servo

def test_near_target_passes_unchanged(guard):
    pose = tool_down(0.302, 0.0, 0.05, 0.0)
    np.testing.assert_allclose(servo(guard, pose), pose)


def test_far_target_is_approached_along_the_straight_line_ever_faster_up_to_the_speed_limit(guard, station):
    begin, end = tool_down(0.3, 0.0, 0.05, 0.0), tool_down(0.6, 0.0, 0.05, 0.0)
    speeds, velocity = [], np.zeros(3)
    for _ in range(8):
        target = servo(guard, end, previous=begin, velocity=velocity)
        np.testing.assert_allclose(target[1:3, 3], [0.0, 0.05])
        velocity, begin = (target[:3, 3] - begin[:3, 3]) / PERIOD, target
        speeds.append(velocity[0])
    assert np.diff(speeds).min() >= -1e-9 and speeds[0] < 0.5 * speeds[-1]
    assert 0.4 * station.safety.max_tip_speed < speeds[-1] < station.safety.max_tip_speed


def test_far_orientation_is_approached_too(guard):
    target = servo(guard, tool_down(0.3, 0.0, 0.05, 2.0))
    assert 0.0 < np.arccos((np.trace(target[:3, :3].T @ tool_down(0.3, 0.0, 0.05, 0.0)[:3, :3]) - 1) / 2) < 0.1


@pytest.mark.parametrize('changes, reason', [
    ({'pose': tool_down(math.nan, 0.0, 0.05, 0.0)}, 'not finite'),
    ({'frame': 'left_base_link'}, "frame 'left_base_link'; expected 'world'"),
    ({'stamp': 4.8}, r'0\.200 s older than the joint state; the limit is 0\.1 s'),
    ({'state_stamp': 4.9}, r'joint state is 0\.100 s older than the servo target; the limit is 0\.05 s'),
    ({'stamp': math.nan}, 'without a time stamp'),
])
def test_malformed_or_late_target_is_refused_with_a_reason(guard, changes, reason):
    with pytest.raises(GuardRefusal, match=reason):
        servo(guard, changes.pop('pose', tool_down(0.305, 0.0, 0.05, 0.0)), **changes)


@pytest.mark.parametrize('pose, limit, reason', [
    (tool_down(0.3, 0.0, 0.001, 0.0), 'workspace.z.low', r'z = 0\.001 m, the workspace is 0\.003 to 0\.7 m'),
    (tool_down(0.3, 0.4, 0.05, 0.0), 'workspace.y.high', r'y = 0\.400 m'),
])
def test_target_out_of_the_workspace_is_a_violation(guard, pose, limit, reason):
    with pytest.raises(GuardViolation, match=reason) as caught:
        servo(guard, pose)
    assert caught.value.violation.limit == limit and caught.value.violation.arm == 'left'


def test_target_on_the_border_of_the_workspace_is_no_violation(guard, station):
    border = station.safety.workspace_high[1]
    target = servo(guard, tool_down(0.3, border, 0.05, 0.0), previous=tool_down(0.3, border - 0.005, 0.05, 0.0))
    assert border - 0.005 < target[1, 3] < border


def test_tool_out_of_bounds_may_be_led_back_by_servo(guard):
    servo(guard, tool_down(0.3, 0.0, 0.004, 0.0), previous=tool_down(0.3, 0.0, 0.002, 0.0))
    with pytest.raises(GuardViolation, match='workspace'):
        servo(guard, tool_down(0.3, 0.0, 0.001, 0.0), previous=tool_down(0.3, 0.0, 0.002, 0.0))


def test_joint_step_keeps_below_the_speed_limit_and_its_peak(guard, station):
    limit = station.safety.max_joint_speed * PERIOD
    low, high = guard.step_bounds(HOME, np.zeros(6), PERIOD)
    assert (high - HOME <= 0.75 * limit).all() and (high - HOME)[0] > 0.5 * limit
    faster = guard.step_bounds(HOME, np.full(6, 2.0), PERIOD)[1]
    assert (faster >= high).all() and faster[0] > high[0] and (faster - HOME <= limit).all()


def test_joint_beside_the_end_of_its_range_goes_there_ever_slower(guard):
    q, velocity, steps = HOME.copy(), np.zeros(6), []
    for _ in range(200):
        bound = guard.step_bounds(q, velocity, PERIOD)[1][3]
        steps.append(bound - q[3])
        q[3] = bound
        velocity[3] = steps[-1] / PERIOD
    assert q[3] == pytest.approx(guard.upper[3], abs=1e-3) and q[3] <= guard.upper[3]
    assert steps[-1] < 1e-3 and (np.diff(steps[20:]) <= 1e-9).all()
