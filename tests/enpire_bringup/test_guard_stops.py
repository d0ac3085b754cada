"""Every limit, driven against at full speed in the simulated world: the arm stops before it is passed.

What counts is what the world did. Where the controller is commanded past the guard, the same motion without the guard
passes the limit.
"""

import math

import numpy as np
import pytest

from enpire_bringup.guard import Violation
from enpire_bringup.guarded_arms import GuardedArms
from enpire_bringup.kinematics import tool_down
from enpire_bringup.state_guard import ABSURD_EFFORT, StateWatch
from guarded_world import GuardedWorld

HOME = np.array([0.0, 1.047, 1.047, 0.0, 0.0, 0.0])
ANYWHERE = {'workspace_low': (-9.0, -9.0, -9.0), 'workspace_high': (9.0, 9.0, 9.0), 'floor_height': -9.0}
FULL_SPEED = 2.0        # rad/s, joints 1 to 3 in planned moves


@pytest.fixture
def guarded(station, task):
    return lambda **limits: GuardedWorld(station, task, **limits)


def ramp(start, joint, speed, seconds, acceleration=12.0):
    """Points that bring one joint to `speed` (rad/s) and keep it there."""
    points, t = [], 0.0
    q, v = np.array(start, float), 0.0
    while t < seconds:
        t += 0.02
        v = math.copysign(min(abs(speed), abs(v) + acceleration * 0.02), speed)
        q = q.copy()
        q[joint] += 0.02 * v
        points.append((t, q))
    return points


def assert_latched(world, limit, message=''):
    """The guard has latched for this limit, the arms stand, and nothing moves them until it is cleared."""
    status = world.guard.status
    assert status.state == 'latched' and status.violation.limit == limit, status
    assert message in status.message
    world.run(0.5)
    assert np.abs(np.delete(world.velocities[-1], [6, 13])).max() < 0.05
    assert world.guard.status == status


# -- the controller is commanded past the guard

def past_the_guard(guarded, joint, speed, limits, seconds=1.5, start=HOME):
    """(world with the guard, world without) after one joint went at `speed` (rad/s) for some time."""
    worlds = []
    for deaf in (False, True):
        world = guarded(**limits)
        if not np.allclose(start, HOME):
            world.follow([(1.0, start)])
            world.run(1.5)
            assert world.guard.status.state == 'ok', world.guard.status
        world.deaf = deaf
        world.follow(ramp(world.q, joint, speed, seconds))
        world.run(seconds)
        worlds.append(world)
    return worlds


@pytest.mark.parametrize('joint, speed', [(3, 2.5), (3, -2.5), (4, 2.5), (5, -2.5), (0, FULL_SPEED)])
def test_joint_at_full_speed_stops_before_the_end_of_its_range(guarded, joint, speed):
    guard, free = past_the_guard(guarded, joint, speed, ANYWHERE, seconds=2.0)
    low, high = guard.kinematics.lower[joint], guard.kinematics.upper[joint]
    reached = np.array([p[joint] for p in guard.positions])
    assert low < reached.min() and reached.max() < high
    assert_latched(guard, 'joint_margin', 'could not stop within its range')
    unguarded = np.array([p[joint] for p in free.positions])
    assert unguarded.min() < low + 1e-3 or unguarded.max() > high - 1e-3


def test_joint_that_gains_speed_is_stopped_before_it_passes_the_limit(guarded):
    guard, free = past_the_guard(guarded, 0, 5.0, ANYWHERE, seconds=0.6)
    assert np.abs([v[0] for v in guard.velocities]).max() < guard.station.safety.max_joint_speed
    assert_latched(guard, 'max_joint_speed')
    assert np.abs([v[0] for v in free.velocities]).max() > guard.station.safety.max_joint_speed


@pytest.mark.parametrize('joint, speed, limits, limit', [
    (0, FULL_SPEED, {'workspace_high': (0.7, 0.2, 0.7)}, 'workspace.y.high'),
    (0, -FULL_SPEED, {'workspace_low': (0.1, -0.2, 0.005)}, 'workspace.y.low'),
    (0, FULL_SPEED, {'workspace_low': (0.25, -0.95, 0.003)}, 'workspace.x.low'),
    (2, -FULL_SPEED, {'workspace_low': (0.1, -0.95, 0.2)}, 'workspace.z.low'),
])
def test_tool_at_full_speed_stops_inside_the_workspace(guarded, joint, speed, limits, limit):
    guard, free = past_the_guard(guarded, joint, speed, limits)
    low, high = np.array(guard.station.safety.workspace_low), np.array(guard.station.safety.workspace_high)
    assert (guard.tips >= low).all() and (guard.tips <= high).all()
    assert_latched(guard, limit, 'the workspace is')
    assert (free.tips < low).any() or (free.tips > high).any()


def test_arm_at_full_speed_stops_above_the_floor(guarded):
    limits = {**ANYWHERE, 'floor_height': 0.035}
    guard, free = past_the_guard(guarded, 2, -FULL_SPEED, limits)
    assert_latched(guard, 'floor_height', 'the floor is 0.035 m')
    assert guard.lowest() >= 0.035 > free.lowest()


def test_arms_at_full_speed_towards_each_other_stop_at_their_least_distance(guarded):
    stretched = np.array([0.0, 1.9, 1.0, 0.6, 0.0, 0.0])
    distances = []
    for deaf in (False, True):
        world = guarded(**ANYWHERE, max_tip_force=9000.0)
        for name in ('left', 'right'):
            world.follow([(1.0, stretched)], arm=name)
        world.run(1.5)
        world.deaf = deaf
        world.follow(ramp(stretched, 0, -FULL_SPEED, 1.0), arm='left')
        world.follow(ramp(stretched, 0, FULL_SPEED, 1.0), arm='right')
        world.run(1.0)
        distances.append(world.arm_distance())
        if not deaf:
            assert_latched(world, 'min_arm_distance', 'the arms keep 30 mm')
    assert distances[0] >= world.station.safety.min_arm_distance > distances[1]


def press(world, speed):
    """Servo straight down onto the table and on, at `speed` (m/s)."""
    world.run(3.0, servo=tool_down(0.3, -0.12, 0.06, 0.0))
    world.run(2.5, servo=lambda t: tool_down(0.3, -0.12, max(-0.2, 0.06 - speed * t), 0.0))


@pytest.mark.parametrize('speed', [0.1, 0.35])
def test_effort_of_a_blocked_arm_stays_below_its_limit(guarded, speed):
    share, largest = 0.65, []
    for limits in ({'max_joint_effort': share}, {'max_joint_effort': 1.0}):
        world = guarded(**ANYWHERE, max_tip_force=9000.0, max_joint_speed=15.0, **limits)
        press(world, speed)
        largest.append(np.abs([e[:6] for e in world.efforts]).max(0) / [28.0, 28.0, 28.0, 10.0, 10.0, 10.0])
        if limits['max_joint_effort'] == share:
            assert_latched(world, 'max_joint_effort', 'would pass its limit of')
    assert largest[0].max() < share < largest[1].max()


@pytest.mark.parametrize('speed', [0.1, 0.35])
def test_tool_that_presses_stays_below_the_limit_of_its_force(guarded, speed):
    """The first 20 ms of an impact are over before anybody knows; what counts is the force that lasts."""
    lasting = []
    for limit in (25.0, 9000.0):
        world = guarded(**ANYWHERE, max_tip_force=limit)
        press(world, speed)
        lasting.append(max(map(min, zip(world.forces, world.forces[1:], world.forces[2:]))))
        if limit < 9000.0:
            assert_latched(world, 'max_tip_force', 'would pass its limit of 25 N')
            assert world.forces[-1] < 5.0
    assert lasting[0] < 25.0 < lasting[1]


def test_guard_stops_the_arm_again_when_somebody_goes_on_commanding_it(guarded):
    world = guarded(workspace_high=(0.7, 0.2, 0.7))
    for step in range(60):      # a stream at 30 Hz that knows nothing of the guard
        world.follow([(1 / 30, world.q + [1.0 / 30, 0, 0, 0, 0, 0])])
        for _ in range(3):
            world.tick()
    assert max(tip[1] for tip in world.tips) < 0.2
    assert_latched(world, 'workspace.y.high')


# -- through the guard: servo

@pytest.mark.parametrize('end, limits', [
    ((0.3, 0.6, 0.2), {'workspace_high': (0.7, 0.2, 0.7)}), ((0.3, -0.12, -0.2), {}), ((0.9, 0.0, 0.2), {}),
])
def test_servo_at_full_speed_towards_the_outside_stops_inside(guarded, end, limits):
    world = guarded(**limits)
    begin = np.array([0.3, -0.12, 0.2])
    world.run(3.0, servo=tool_down(*begin, 0.0))
    way, length = np.array(end) - begin, np.linalg.norm(np.array(end) - begin)
    # A target that runs ahead, as fast as the tool may go, right through the border.
    world.run(3.0, servo=lambda t: tool_down(*(begin + way * min(1.0, 0.36 * t / length)), 0.0))
    safety = world.station.safety
    tips = np.array(world.tips)
    assert (tips >= safety.workspace_low).all() and (tips <= safety.workspace_high).all()
    assert_latched(world, world.guard.status.violation.limit, 'the workspace is')


def test_servo_towards_the_floor_stops_above_it(guarded):
    world = guarded(**{**ANYWHERE, 'floor_height': 0.05})
    world.run(3.0, servo=tool_down(0.3, -0.12, 0.2, 0.0))
    world.run(2.0, servo=tool_down(0.3, -0.12, 0.0, 0.0))
    assert_latched(world, 'floor_height', 'the floor is 0.05 m')
    assert world.lowest() >= 0.05


def test_servo_towards_the_other_arm_stops_before_it(guarded):
    world = guarded(**ANYWHERE, min_arm_distance=0.1)
    world.run(3.0, servo=tool_down(0.35, -0.2, 0.35, 0.0))
    world.run(3.0, servo=tool_down(0.35, -0.6, 0.35, 0.0))
    assert_latched(world, 'min_arm_distance')
    assert world.arm_distance() >= 0.1


def test_servo_to_wild_targets_keeps_every_speed_below_its_limit(guarded):
    world = guarded()
    world.run(3.0, servo=tool_down(0.3, -0.1, 0.2, 0.0))
    ends = [(0.45, 0.1, 0.1), (0.2, -0.2, 0.3), (0.4, -0.2, 0.15), (0.25, 0.2, 0.25)]
    for end in ends:
        world.run(0.7, servo=tool_down(*end, math.atan2(end[1], end[0])))
    assert world.guard.status.state == 'ok', world.guard.status
    speeds = np.linalg.norm(np.diff(world.tips, axis=0), axis=1) / 0.01
    assert 0.5 * world.station.safety.max_tip_speed < speeds.max() < world.station.safety.max_tip_speed
    assert np.abs(world.velocities).max() < world.station.safety.max_joint_speed


def test_servo_near_the_border_of_workspace_and_floor_goes_on(guarded):
    """What a policy of Push-T does: quick steps at 12 mm above the table, right up to the edges of its box."""
    world = guarded()
    world.run(3.0, servo=tool_down(0.3, -0.1, 0.1, 0.0))
    world.run(1.5, servo=tool_down(0.3, -0.1, 0.012, 0.0))
    corners = [np.array(c) for c in ((0.15, -0.24), (0.15, 0.24), (0.48, 0.2), (0.48, -0.2), (0.3, 0.0))]
    target = np.array([0.3, -0.1])
    for corner in corners:
        while np.linalg.norm(corner - target) > 1e-6:
            step = corner - target
            target = target + step * min(1.0, 0.010 / np.linalg.norm(step))
            for _ in range(3):
                world.tick(tool_down(*target, 0.012, math.atan2(target[1], target[0])))
    assert world.guard.status.state == 'ok', world.guard.status


def test_stream_that_breaks_off_in_mid_motion_stops_and_latches(guarded):
    world = guarded()
    world.run(3.0, servo=tool_down(0.3, -0.1, 0.2, 0.0))
    world.run(0.5, servo=tool_down(0.3, 0.2, 0.2, 0.0))
    broke_off = world.tips[-1]
    world.run(0.15)
    assert_latched(world, 'stale_command', 'no good servo target for')
    assert np.linalg.norm(world.tips[-1] - broke_off) < 0.36 * (1 / 30 + 0.05 + 0.1)
    assert world.guard.status.violation.bound == world.station.safety.stale_command


# -- readings that cannot be trusted

def spoiled(index, value, which):
    """What the guard is told: one value of positions (0), velocities (1) or efforts (2) replaced, or all left out."""
    def spoil(state):
        state = [list(values) for values in state]
        if value is None:
            state[which] = []
        else:
            state[which][index] = value
        return state
    return spoil


@pytest.mark.parametrize('which, value, limit', [
    (0, math.nan, 'missing position'), (1, math.nan, 'missing velocity'), (2, math.nan, 'missing effort'),
    (2, None, 'missing effort'), (1, None, 'missing velocity'), (2, math.inf, 'missing effort'),
    (2, -1.01 * ABSURD_EFFORT * 28.0, 'absurd effort'),
])
def test_reading_that_cannot_be_trusted_stops_a_moving_arm_until_it_is_good_and_cleared(guarded, which, value, limit):
    world = guarded()
    world.follow(ramp(HOME, 0, 1.0, 1.0))
    world.run(0.4)
    world.blind = spoiled(2, value, which)
    world.tick()
    assert_latched(world, limit)
    assert world.positions[-1][0] < 0.45
    cleared, reason = world.clear()
    if limit.startswith('missing'):
        assert not cleared and 'repair that first' in reason
    world.blind = lambda state: state
    world.tick()
    cleared, reason = world.clear()
    assert cleared, reason
    world.run(0.2)
    assert world.guard.status.state == 'ok'


def test_stale_state_stops_a_moving_arm(guarded):
    world = guarded()
    world.follow(ramp(HOME, 0, 1.0, 2.0))
    world.run(0.4)
    world.deaf = True
    watch, now = StateWatch(world.station.safety.stale_state), 100.0
    watch.arrived(now)
    while (age := watch.look(now)) is None:
        now += watch.period
        world.run(0.02)
        assert now < 100.1
    world.guard.stale(age)
    stopped_at = world.positions[-1][0]
    world.run(0.3)
    world.deaf = False
    assert abs(world.positions[-1][0] - stopped_at) < 0.12
    assert_latched(world, 'stale_state', 'no joint state for 0.0')


def test_resting_arm_needs_no_fresh_state(guarded):
    world = guarded()
    world.run(0.3)
    world.guard.stale(0.2)
    assert world.guard.status.state == 'ok'


def test_process_that_was_not_let_run_takes_no_state_for_stale():
    watch = StateWatch(0.05)
    watch.arrived(10.0)
    assert watch.look(10.4) is None       # the first look after 0.4 s in which nothing ran, states wait in the queue
    watch.arrived(10.4)
    ages = [watch.look(10.4 + look * watch.period) for look in range(1, 5)]
    assert ages[:3] == [None] * 3 and ages[3] == pytest.approx(4 * watch.period)
    watch.arrived(11.0)
    # Late looks follow one another more quickly than a third of the limit.
    assert [watch.look(time) for time in (11.03, 11.031, 11.034, 11.049)] == [None] * 4
    assert watch.look(11.051) == pytest.approx(0.051)


# -- clear, floods and a world that starts again

def test_clear_is_refused_while_an_arm_moves_and_lets_an_arm_come_back(guarded):
    world = guarded(workspace_high=(0.7, 0.2, 0.7))
    world.follow(ramp(HOME, 0, FULL_SPEED, 1.0))
    world.run(2.0, until=lambda: world.guard.fault)
    cleared, reason = world.clear()
    assert not cleared and 'left still moves' in reason
    world.run(0.5)
    reason = world.guard.fault
    assert world.clear() == (True, f'cleared: {reason}')
    world.follow([(0.5, HOME)])
    world.run(1.0)
    assert world.guard.status.state == 'ok' and world.clear() == (True, 'nothing to clear')


def test_flood_of_clears_lets_no_arm_out(guarded):
    world = guarded(workspace_high=(0.7, 0.2, 0.7))
    for _ in range(12):
        world.follow(ramp(world.q, 0, FULL_SPEED, 0.3))
        for _ in range(30):
            world.tick()
            for _ in range(10):
                world.clear()
    assert max(tip[1] for tip in world.tips) < 0.2


def test_flood_of_targets_and_of_repeated_states_changes_nothing(guarded):
    world = guarded()
    plain = guarded()
    for step in range(90):
        for each, times in ((world, 20), (plain, 1)):
            each.tick(tool_down(0.3, -0.1, 0.2, 0.0))
            for _ in range(times - 1):
                each.repeat_last()
    np.testing.assert_array_equal(world.positions[-1], plain.positions[-1])
    assert world.guard.status.state == 'ok'


def test_world_that_starts_again_ends_what_went_on(guarded):
    world = guarded()
    world.run(0.4, servo=tool_down(0.3, 0.2, 0.2, 0.0))
    stamp = world.world.stamp_ns
    state = [values[-1].tolist() for values in (world.positions, world.velocities, world.efforts)]
    world.guard.observe(stamp - 5_000_000_000, *state)
    assert not world.guard.arms['left'].streaming
    world.guard.observe(stamp - 4_990_000_000, *state)
    assert world.guard.status.state == 'ok'


def test_missing_joint_latches_and_says_which(guarded):
    world = guarded()
    world.guard.lacks(['left_joint3', 'right_joint1'])
    assert_latched(world, 'missing joint', 'joint_states lack left_joint3, right_joint1')


def test_incomplete_states_before_the_first_good_one_are_only_said(station, guarded):
    world = guarded()
    guard = GuardedArms(station, station.safety, send=lambda *command: None, changed=lambda status: None)
    guard.lacks(['left_joint3'])
    assert guard.status.state == 'silent' and 'left_joint3' in guard.status.message
    guard.observe(10**10, *(values[-1].tolist() for values in (world.positions, world.velocities, world.efforts)))
    assert guard.status.state == 'ok'


def test_tightened_limits_hold_at_once_and_can_be_put_back(guarded):
    world = guarded()
    limits = world.guard.limits
    world.guard.limits = type(limits).of({**limits.values(), 'workspace.z.high': 0.3, 'workspace.x.high': 0.3})
    world.run(0.3)
    assert world.guard.status.state == 'ok'      # the arm is out of them, and stays where it is
    world.run(1.0, servo=tool_down(0.35, 0.0, 0.35, 0.0))
    assert_latched(world, world.guard.status.violation.limit, 'the workspace is')
    world.guard.limits = limits
    world.clear()
    world.run(1.0, servo=tool_down(0.35, 0.0, 0.35, 0.0))
    assert world.guard.status.state == 'ok', world.guard.status


def test_violation_tells_a_machine_what_it_tells_a_person(guarded):
    world = guarded(workspace_high=(0.7, 0.2, 0.7))
    world.follow(ramp(HOME, 0, FULL_SPEED, 1.0))
    world.run(1.0)
    violation = world.guard.status.violation
    assert isinstance(violation, Violation)
    assert (violation.arm, violation.bound, violation.unit) == ('left', 0.2, 'm') and violation.value > 0.2


def test_arm_that_came_back_inside_may_not_go_out_again(guarded):
    world = guarded(workspace_high=(0.7, 0.35, 0.7))
    world.deaf = True
    world.follow([(1.0, HOME + [1.2, 0, 0, 0, 0, 0])])
    world.run(1.5)
    world.deaf = False
    world.run(0.2)
    assert_latched(world, 'workspace.y.high')      # it was put outside, nobody saw how
    assert world.clear()[0]
    world.follow([(1.0, HOME)])
    world.run(1.5)
    assert world.tips[-1][1] < 0.1 and world.guard.status.state == 'ok', world.guard.status
    passed = len(world.tips)
    world.follow(ramp(world.q, 0, FULL_SPEED, 1.0))
    world.run(1.5)
    assert_latched(world, 'workspace.y.high')
    assert max(tip[1] for tip in world.tips[passed:]) < 0.35
