"""Servo commands of one arm: they lead the tool along its targets, and hold when in doubt."""

import math

import numpy as np
import pytest

from enpire_bringup.arm_motion import ArmMotion
from enpire_bringup.kinematics import ArmKinematics, tool_down

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
    for step in range(60):
        pose = orientation.copy()
        pose[:3, 3] = x - 0.002 * min(step, 50), y + 0.0015 * min(step, 50), z
        targets.append(pose)
    commands = stream(arm, targets)
    assert not any(command.refusal or command.violation for command in commands)
    np.testing.assert_allclose(kinematics.tip(commands[-1].positions), targets[-1][:3, 3], atol=1e-3)
    previous, last = commands[30], commands[31]
    np.testing.assert_allclose(last.velocities, (last.positions - previous.positions) / PERIOD)


def test_far_target_is_approached_no_faster_than_the_tip_may_move(arm, kinematics, station):
    commands = stream(arm, [tool_down(0.3, 0.0, 0.1, 0.0)] * 8)
    tips = np.array([kinematics.tip(HOME)] + [kinematics.tip(command.positions) for command in commands])
    steps = np.linalg.norm(np.diff(tips, axis=0), axis=1)
    assert (steps < station.safety.max_tip_speed * PERIOD).all() and steps[-1] > 0.01


def test_command_goes_on_into_a_stop_should_no_other_follow(arm):
    command = stream(arm, [tool_down(0.3, 0.0, 0.1, 0.0)] * 4)[-1]
    (first, positions, velocities), (second, rest, standing) = command.points
    assert first < second and rest == positions and np.abs(velocities).max() > 0.1 and not any(standing)


@pytest.mark.parametrize('stamp, duration', [(10.0, 0.04), (10.04, 0.03), (10.07, 0.03), (10.053, 1 / 30)])
def test_command_lasts_until_the_next_policy_step(arm, stamp, duration):
    arm.observe(stamp, HOME)
    assert arm.servo(tool_down(0.3, 0.0, 0.1, 0.0), 'world', stamp).duration == pytest.approx(duration)


@pytest.mark.parametrize('target, frame, stamp, reason', [
    (tool_down(math.nan, 0.0, 0.1, 0.0), 'world', 10.0, 'not finite'),
    (tool_down(0.3, 0.0, 0.1, 0.0), 'table', 10.0, "expected 'world'"),
    (tool_down(0.3, 0.0, 0.1, 0.0), 'world', 9.8, 'older than the joint state'),
])
def test_bad_target_holds_where_the_arm_was_sent_and_a_good_one_goes_on(arm, target, frame, stamp, reason):
    sent = stream(arm, [tool_down(0.36, 0.0, 0.38, 0.0)] * 3)[-1]
    arm.observe(10.0, sent.positions.tolist())
    held = arm.servo(target, frame, stamp)
    assert reason in held.refusal
    np.testing.assert_allclose(held.positions, sent.positions)
    np.testing.assert_allclose(held.velocities, 0)
    assert not arm.servo(tool_down(0.36, 0.0, 0.38, 0.0), 'world', 10.0).refusal


def test_target_out_of_bounds_holds_and_is_a_violation(arm):
    held = arm.servo(tool_down(0.3, 0.0, -0.1, 0.0), 'world', 10.0)
    assert held.violation.limit == 'workspace.z.low'
    np.testing.assert_allclose(held.positions, HOME)


def test_stream_that_ends_at_rest_is_no_violation(arm, kinematics):
    arm.servo(kinematics.fk(HOME), 'world', 10.0)
    assert arm.streaming
    arm.observe(10.2, HOME)
    assert arm.stream_broke_off() is None and not arm.streaming


def test_stream_that_breaks_off_in_mid_motion_is_a_violation(arm):
    command = arm.servo(tool_down(0.3, 0.0, 0.1, 0.0), 'world', 10.0)
    arm.observe(10.05, command.positions.tolist())
    assert arm.stream_broke_off() is None
    arm.observe(10.2, command.positions.tolist())
    violation = arm.stream_broke_off()
    assert violation.limit == 'stale_command' and 'no good servo target for 0.20 s in mid-motion' in str(violation)


def test_motion_starts_where_the_arm_was_sent_unless_it_is_somewhere_else(arm):
    sent = np.array(HOME) + 0.01
    arm.sent(sent)
    np.testing.assert_allclose(arm.start(), sent)
    arm.observe(11.0, [value + 0.2 for value in HOME])
    np.testing.assert_allclose(arm.start(), np.array(HOME) + 0.2)
