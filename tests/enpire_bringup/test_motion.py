"""Plans and servo commands of one arm: they end where they should, or say why not, and hold when in doubt."""

import math

import numpy as np
import pytest

from enpire_bringup.arm_motion import ArmMotion
from enpire_bringup.kinematics import ArmKinematics, tool_down
from enpire_bringup.motion_planning import PlanningError

HOME = [0.0, 1.047, 1.047, 0.0, 0.0, 0.0]
PERIOD = 1 / 30


@pytest.fixture(scope='module')
def kinematics(station):
    return ArmKinematics(station, 'left')


@pytest.fixture
def arm(station):
    arm = ArmMotion(station, 'left', station.safety)
    arm.observe(10.0, HOME)
    return arm


# -- planning

def test_move_to_a_pose_ends_there(arm, kinematics):
    pose = tool_down(0.3, 0.1, 0.1, 0.5)
    trajectory = arm.planner.to_pose(HOME, pose, 1.0)
    np.testing.assert_allclose(kinematics.fk(trajectory.positions[-1]), pose, atol=3e-3)


def test_straight_line_is_straight_and_turns_evenly(arm, kinematics):
    begin, end = np.array([0.3, 0.1, 0.1]), np.array([0.3, -0.1, 0.04])
    start = kinematics.ik(tool_down(*begin, 0.5), HOME)
    trajectory = arm.planner.line_to(start, tool_down(*end, -0.5), 1.0)
    direction = (end - begin) / np.linalg.norm(end - begin)
    for q in trajectory.positions:
        pose = kinematics.fk(q)
        offset = pose[:3, 3] - begin
        assert np.linalg.norm(offset - direction * (offset @ direction)) < 1.5e-3
        assert pose[2, 0] < -0.999      # upright all the way
    np.testing.assert_allclose(kinematics.tip(trajectory.positions[-1]), end, atol=1e-3)


def test_half_speed_takes_longer(arm):
    fast, slow = (arm.planner.to_named([0.5, *HOME[1:]], 'home', share).duration for share in (1.0, 0.5))
    assert slow > 1.5 * fast


@pytest.mark.parametrize('plan, reason', [
    (lambda planner: planner.to_pose(HOME, tool_down(0.9, 0, 0.1, 0), 1.0), 'out of reach'),
    (lambda planner: planner.line_to(HOME, tool_down(0.9, 0, 0.1, 0), 1.0), 'out of reach'),
    (lambda planner: planner.to_named(HOME, 'hom', 1.0), "no named position 'hom'; there are: home"),
    (lambda planner: planner.to_joints(HOME, [0.0] * 3, 1.0), '3 joint positions; expected 6: left_joint1'),
    (lambda planner: planner.to_joints(HOME, [math.nan] * 6, 1.0), 'finite'),
])
def test_impossible_motion_says_why(arm, plan, reason):
    with pytest.raises(PlanningError, match=reason):
        plan(arm.planner)


# -- servo

def stream(arm, targets, stamp=10.0):
    """Commands for targets one policy period apart, of an arm that follows exactly."""
    commands = []
    for target in targets:
        command = arm.servo(target, 'world', stamp)
        commands.append(command)
        stamp += PERIOD
        arm.observe(stamp, command.positions.tolist())
    return commands


def test_stream_leads_the_tool_along_its_targets(arm, kinematics):
    x, y, z = kinematics.tip(HOME)
    orientation = kinematics.fk(HOME)
    targets = []
    for step in range(30):
        pose = orientation.copy()
        pose[:3, 3] = x - 0.004 * step, y + 0.003 * step, z
        targets.append(pose)
    commands = stream(arm, targets)
    assert not any(command.violation for command in commands)
    np.testing.assert_allclose(kinematics.tip(commands[-1].positions), targets[-1][:3, 3], atol=1e-3)
    previous, last = commands[-2], commands[-1]
    np.testing.assert_allclose(last.velocities, (last.positions - previous.positions) / PERIOD)


def test_far_target_is_approached_no_faster_than_the_tip_may_move(arm, kinematics, station):
    commands = stream(arm, [tool_down(0.3, 0.0, 0.1, 0.0)] * 5)
    tips = np.array([kinematics.tip(HOME)] + [kinematics.tip(command.positions) for command in commands])
    steps = np.linalg.norm(np.diff(tips, axis=0), axis=1)
    assert (steps < station.safety.max_tip_speed * PERIOD * 1.05).all() and steps[-1] > 0.01


@pytest.mark.parametrize('target, frame, stamp, reason', [
    (tool_down(0.3, 0.0, -0.1, 0.0), 'world', 10.0, 'workspace'),
    (tool_down(math.nan, 0.0, 0.1, 0.0), 'world', 10.0, 'not finite'),
    (tool_down(0.3, 0.0, 0.1, 0.0), 'table', 10.0, "expected 'world'"),
    (tool_down(0.3, 0.0, 0.1, 0.0), 'world', 9.8, 'older than the joint state'),
])
def test_bad_target_holds_where_the_arm_was_sent_and_a_good_one_goes_on(arm, target, frame, stamp, reason):
    sent = stream(arm, [tool_down(0.36, 0.0, 0.38, 0.0)] * 3)[-1]
    arm.observe(10.0, sent.positions.tolist())
    held = arm.servo(target, frame, stamp)
    assert reason in held.violation
    np.testing.assert_allclose(held.positions, sent.positions)
    np.testing.assert_allclose(held.velocities, 0)
    assert not arm.servo(tool_down(0.36, 0.0, 0.38, 0.0), 'world', 10.0).violation


def test_stream_that_ends_at_rest_is_no_violation(arm, kinematics):
    arm.servo(kinematics.fk(HOME), 'world', 10.0)
    assert arm.stream_ended() is None
    arm.observe(10.2, HOME)
    assert arm.stream_ended() == ''
    assert arm.stream_ended() is None


def test_stream_that_breaks_off_in_mid_motion_is_a_violation(arm):
    command = arm.servo(tool_down(0.3, 0.0, 0.1, 0.0), 'world', 10.0)
    arm.observe(10.05, command.positions.tolist())
    assert arm.stream_ended() is None
    arm.observe(10.2, command.positions.tolist())
    assert 'no servo target for 0.20 s in mid-motion; holding' in arm.stream_ended()


def test_motion_starts_where_the_arm_was_sent_unless_it_is_somewhere_else(arm):
    sent = np.array(HOME) + 0.01
    arm.sent(sent)
    np.testing.assert_allclose(arm.start(), sent)
    arm.observe(11.0, [value + 0.2 for value in HOME])
    np.testing.assert_allclose(arm.start(), np.array(HOME) + 0.2)


def test_arm_at_the_end_of_a_joint_s_range_is_reported_when_it_gets_there(arm):
    at_the_end = [*HOME[:3], 1.571, 0.0, 0.0]
    assert arm.observe(10.0, HOME) == ''
    assert 'left_joint4 is at 1.571 rad, at the end of its range' in arm.observe(10.1, at_the_end)
    assert arm.observe(10.2, at_the_end) == ''
    assert arm.observe(10.3, HOME) == ''
    assert arm.observe(10.4, at_the_end) != ''
