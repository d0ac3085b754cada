"""The guard fails closed: nothing stale, malformed, too fast or out of bounds gets through."""

import math
from dataclasses import replace

import numpy as np
import pytest

from enpire_bringup.guard import ArmGuard, GuardViolation
from enpire_bringup.kinematics import ArmKinematics, tool_down
from enpire_bringup.trajectory import JointTrajectory, point_to_point

HOME = np.array([0.0, 1.047, 1.047, 0.0, 0.0, 0.0])
PERIOD = 1 / 30


@pytest.fixture(scope='module')
def kinematics(station):
    return ArmKinematics(station, 'left')


@pytest.fixture(scope='module')
def guard(station, kinematics):
    return ArmGuard(kinematics, station.safety)


def move(start, goal, speed=1.0):
    return point_to_point(start, goal, [2.0 * speed] * 6, [6.0] * 6)


def servo(guard, pose, **changes):
    return guard.filter_servo(pose, **{'frame': 'world', 'stamp': 5.0, 'state_stamp': 5.0,
                                       'previous': [0.3, 0.0, 0.05], 'period': PERIOD, **changes})


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
    with pytest.raises(GuardViolation, match=r'tool centre point would be at z = 0\.00. m; the workspace is 0\.005'):
        guard.check_trajectory(move(HOME, below), HOME)


def test_numbers_that_are_not_finite_are_refused(guard):
    trajectory = move(HOME, HOME + 0.2)
    broken = replace(trajectory, positions=np.full_like(trajectory.positions, math.nan))
    with pytest.raises(GuardViolation, match='not finite'):
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
    pose = tool_down(0.305, 0.0, 0.05, 0.0)
    target = servo(guard, pose)
    assert not target.limited and target.pose is pose


def test_far_target_is_approached_at_the_speed_limit(guard, station):
    target = servo(guard, tool_down(0.4, 0.0, 0.05, 0.3))
    assert target.limited
    np.testing.assert_allclose(target.pose[:3, 3], [0.3 + station.safety.max_tip_speed * PERIOD, 0.0, 0.05])
    np.testing.assert_allclose(target.pose[:3, :3], tool_down(0, 0, 0, 0.3)[:3, :3])


@pytest.mark.parametrize('changes, reason', [
    ({'pose': tool_down(0.3, 0.0, 0.001, 0.0)}, r'z = 0\.001 m; the workspace is 0\.005 to 0\.7 m'),
    ({'pose': tool_down(0.3, 0.4, 0.05, 0.0)}, r'y = 0\.400 m'),
    ({'pose': tool_down(math.nan, 0.0, 0.05, 0.0)}, 'not finite'),
    ({'frame': 'left_base_link'}, "frame 'left_base_link'; expected 'world'"),
    ({'stamp': 4.8}, r'0\.200 s older than the joint state; the limit is 0\.1 s'),
    ({'state_stamp': 4.9}, r'joint state is 0\.100 s older than the servo target; the limit is 0\.05 s'),
    ({'stamp': math.nan}, 'without a time stamp'),
])
def test_bad_target_is_a_hold_with_a_reason(guard, changes, reason):
    with pytest.raises(GuardViolation, match=reason):
        servo(guard, changes.pop('pose', tool_down(0.305, 0.0, 0.05, 0.0)), **changes)


def test_tool_out_of_bounds_may_be_led_back_by_servo(guard):
    servo(guard, tool_down(0.3, 0.0, 0.004, 0.0), previous=[0.3, 0.0, 0.002])
    with pytest.raises(GuardViolation, match='workspace'):
        servo(guard, tool_down(0.3, 0.0, 0.001, 0.0), previous=[0.3, 0.0, 0.002])


def test_joint_step_is_limited_to_the_joint_speed(guard, station):
    q = guard.limit_joint_step(HOME + [0.5, 0.1, 0, 0, 0, 0], HOME, PERIOD)
    longest = station.safety.max_joint_speed * PERIOD
    np.testing.assert_allclose(q - HOME, np.array([1.0, 0.2, 0, 0, 0, 0]) * longest)
