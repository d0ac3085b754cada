"""The trajectory controller follows, tolerates, preempts and holds as joint_trajectory_controller does."""

import math

import pytest

from enpire_bringup.station import load_station
from enpire_bringup.trajectory_controller import (
    SECOND, ArmTrajectory, GripperMotion, InvalidTrajectory, Outcome, StationMotion, TrajectoryGoal)

TICK = SECOND // 100
STILL = [0.0] * 6


@pytest.fixture(scope='module')
def station():
    return load_station('yam_bimanual_sim')


@pytest.fixture
def arm(station):
    arm = ArmTrajectory(station.arms['left'])
    arm.start_at([0.0] * 6, '')
    return arm


def goal(path=0.0, final=0.0, velocity=0.0, time=0.0):
    return TrajectoryGoal([path] * 6, [final] * 6, [velocity] * 6, time)


def line(duration=1.0, distance=1.0):
    return [(duration, [distance] * 6, None)]


def run(arm, ticks, first=1, measured=None):
    """Ticks of an arm that is where it was sent (or `measured`); the commands."""
    commands = []
    for tick in range(first, first + ticks):
        arm.advance(tick * TICK, TICK, measured or arm.desired, STILL)
        commands.append(arm.desired[0])
    return commands


def test_command_is_for_the_end_of_the_tick_and_reaches_the_goal(arm):
    running = goal()
    arm.follow(0, 0, line(), running)
    commands = run(arm, 50, first=0)
    assert commands[0] == pytest.approx(0.01) and commands[49] == pytest.approx(0.5)
    assert running.outcome is None
    run(arm, 51, first=50)
    assert running.outcome is Outcome.SUCCESSFUL and running.finished.is_set()
    assert arm.desired == [1.0] * 6 and not arm.moving


def test_new_trajectory_starts_where_the_arm_is_sent_and_ends_the_old_goal(arm):
    first = goal()
    arm.follow(0, 0, line(), first)
    run(arm, 50, first=0)
    arm.follow(50 * TICK, 0, line(distance=0.0), goal())
    assert first.outcome is Outcome.INVALID_GOAL and 'replaced' in first.message
    assert run(arm, 1, first=50)[0] == pytest.approx(0.5, abs=0.02)


def test_path_tolerance_stops_the_arm_where_it_is(arm):
    running = goal(path=0.1)
    arm.follow(0, 0, line(), running)
    run(arm, 10, first=0)
    run(arm, 20, first=10, measured=[0.05] * 6)
    assert running.outcome is Outcome.PATH_TOLERANCE_VIOLATED
    assert 'left_joint1' in running.message and '0.100 rad' in running.message
    assert arm.desired == [0.05] * 6


def test_goal_tolerance_waits_and_then_fails_with_the_joint_and_the_distance(arm):
    running = goal(final=0.01, time=0.5)
    arm.follow(0, 0, line(), running)
    run(arm, 120, measured=[0.97] * 6)
    assert running.outcome is None
    run(arm, 40, first=121, measured=[0.97] * 6)
    assert running.outcome is Outcome.GOAL_TOLERANCE_VIOLATED
    assert 'left_joint1 is 0.0300 rad from its goal' in running.message


def test_goal_waits_for_the_arm_to_stop(arm):
    running = goal(final=0.05, velocity=0.05, time=2.0)
    arm.follow(0, 0, line(), running)
    for tick in range(130):
        arm.advance(tick * TICK, TICK, arm.desired, [0.2] * 6)
    assert running.outcome is None
    arm.advance(131 * TICK, TICK, arm.desired, STILL)
    assert running.outcome is Outcome.SUCCESSFUL


def test_stamp_in_the_past_skips_the_points_that_are_over(arm):
    arm.follow(SECOND, SECOND // 2, [(0.25, [5.0] * 6, None), (1.0, [1.0] * 6, None)])
    assert run(arm, 1, first=100)[0] == pytest.approx(0.02)   # 10 ms of the 0.5 s that are left


def test_trajectory_that_is_over_already_is_refused_for_a_goal(arm):
    points = [(0.1, [1.0] * 6, None), (0.2, [1.0] * 6, None)]
    with pytest.raises(InvalidTrajectory, match='ended 0.800 s before') as error:
        arm.follow(2 * SECOND, SECOND, points, goal())
    assert error.value.outcome is Outcome.OLD_HEADER_TIMESTAMP


@pytest.mark.parametrize('points, message', [
    ([], 'no points'),
    ([(1.0, [1.0] * 5, None)], '5 positions'),
    ([(1.0, [math.nan] * 6, None)], 'not finite'),
    ([(1.0, [1.0] * 6, [math.inf] * 6)], 'not finite'),
    ([(1.0, [1.0] * 6, None), (1.0, [2.0] * 6, None)], 'does not increase'),
])
def test_broken_trajectory_is_refused_and_the_running_one_goes_on(arm, points, message):
    running = goal()
    arm.follow(0, 0, line(), running)
    with pytest.raises(InvalidTrajectory, match=message):
        arm.follow(TICK, 0, points, goal())
    run(arm, 110)
    assert running.outcome is Outcome.SUCCESSFUL


def test_nothing_moves_before_the_first_joint_state(station):
    with pytest.raises(InvalidTrajectory, match='no joint state'):
        ArmTrajectory(station.arms['left']).follow(0, 0, line())


# -- the whole station

def state(station, value=0.1):
    n = len(station.joints)
    return [value] * n, [0.0] * n, [0.0] * n


def test_first_command_is_what_was_measured(station):
    motion = StationMotion(station)
    positions, velocities, efforts = state(station, 0.02)
    assert 'first' in motion.observe(0, positions, velocities, efforts)
    commanded, _, limits = motion.command(positions, velocities)
    assert commanded == positions
    finger = station.joints.index('left_finger_joint')
    assert limits[finger] == station.arms['left'].gripper.max_effort and limits[0] == 0.0


@pytest.mark.parametrize('stamp, value, reason', [
    (TICK, 0.9, 'went from 0.100 to 0.900 rad'), (SECOND, 0.1, 'missing for 1.00 s'), (-TICK, 0.1, 'back in time')])
def test_discontinuity_ends_goals_and_holds_where_the_arms_are(station, stamp, value, reason):
    motion = StationMotion(station)
    motion.observe(0, *state(station))
    motion.observe(SECOND // 100, *state(station))
    running = goal()
    motion.arms['right'].follow(motion.now, 0, line(), running)
    measured = state(station, value)
    assert reason in motion.observe(SECOND // 100 + stamp, *measured)
    assert running.outcome is Outcome.INVALID_GOAL
    assert motion.command(*measured[:2])[0] == measured[0]


def test_state_that_is_not_finite_ends_goals_and_holds_where_the_arms_were_sent(station):
    motion = StationMotion(station)
    broken = state(station, math.nan)
    motion.observe(0, *broken)
    assert not motion.ready
    motion.observe(TICK, *state(station))
    running = goal()
    motion.arms['left'].follow(motion.now, 0, line(), running)
    assert 'left_joint1 is reported at a position that is not finite' in motion.observe(2 * TICK, *broken)
    assert running.outcome is Outcome.INVALID_GOAL
    assert motion.command(*broken[:2])[0] == state(station)[0]


def test_streamed_arm_is_awaited_until_its_trajectory_comes_or_the_stream_ends(station):
    motion = StationMotion(station)
    motion.observe(0, *state(station))
    assert not motion.awaits(0)
    motion.arms['left'].follow(0, 0, line())
    motion.arms['left'].heard(0, 0)
    assert not motion.awaits(0)
    assert motion.awaits(4 * TICK)
    motion.arms['left'].heard(4 * TICK, 4 * TICK)
    assert not motion.awaits(4 * TICK)
    assert not motion.awaits(25 * TICK)     # 0.21 s later the stream has ended


def test_the_world_waits_for_a_stream_that_is_behind_so_that_it_can_catch_up(station):
    arm = StationMotion(station).arms['left']
    arm.heard(100 * TICK, 50 * TICK)        # an answer to a state half a second old
    assert arm.awaits(104 * TICK)
    arm.heard(104 * TICK, 104 * TICK)
    assert not arm.awaits(104 * TICK)


def test_a_goal_that_was_planned_from_somewhere_else_is_refused_and_the_arm_stays(station):
    motion = StationMotion(station)
    motion.observe(0, *state(station))
    arm = motion.arms['left']
    there = [value + 0.5 for value in arm.desired]
    with pytest.raises(InvalidTrajectory, match='left_joint1 is sent to 0.100 rad, but the trajectory begins at 0.600'):
        arm.follow(0, 0, [(0.01, there, None), (1.0, there, None)], goal())
    assert arm.goal is None and not arm.moving


# -- grippers

@pytest.fixture
def gripper(station):
    gripper = GripperMotion(station.arms['left'].gripper)
    gripper.start_at(0.0, '')
    return gripper


def test_gripper_that_arrives_has_reached_its_goal(gripper):
    running = gripper.move(0, 0.04, 10.0)
    gripper.advance(TICK, 0.02, 0.2, 0.0)
    assert not running.finished.is_set()
    gripper.advance(2 * TICK, 0.0395, 0.0, 0.0)
    assert running.reached and not running.stalled


def test_gripper_that_something_stops_is_stalled(gripper):
    running = gripper.move(0, 0.0, 10.0)
    for tick in range(1, 30):
        gripper.advance(tick * TICK, 0.01, 0.0, -10.0)
    assert running.stalled and not running.reached
    assert gripper.position == 0.0 and gripper.effort == 10.0     # it goes on holding


def test_gripper_that_never_settles_is_bounded(gripper):
    running = gripper.move(0, 0.04, 10.0)
    for tick in range(1, 450):
        gripper.advance(tick * TICK, 0.02, 0.1, 0.0)
    assert running.finished.is_set() and 'still moving after 4 s' in running.message


@pytest.mark.parametrize('position, effort', [(0.2, 1.0), (-0.01, 1.0), (math.nan, 1.0), (0.01, math.nan), (0.01, -1)])
def test_gripper_refuses_what_it_cannot_do(gripper, position, effort):
    with pytest.raises(ValueError, match='expected'):
        gripper.move(0, position, effort)


def test_gripper_force_is_limited_to_the_station_s(gripper):
    gripper.move(0, 0.0, 500.0)
    assert gripper.effort == 30.0
