"""The simulated world as a plain class: resets, steps, contacts, errors."""

import math

import numpy as np
import pytest

from enpire_bringup.control_ticks import is_policy_tick
from enpire_bringup.kinematics import ArmKinematics, tool_down
from enpire_bringup.world import World, WorldError


@pytest.fixture
def world(station, task):
    return World(station, task)


class Tool:
    """Moves the left TCP, tool down, along straight lines."""

    def __init__(self, world):
        self.world = world
        self.arm = world.station.arms['left']
        self.kinematics = ArmKinematics(world.station, 'left')
        self.joints = np.array(self.arm.named['home'])
        self.finger = 0.0
        self.effort = 20.0
        self.at = None

    def go(self, x, y, z, yaw=0.0, seconds=1.0):
        start = self.at or (x, y, z, yaw)
        steps = round(seconds / self.world.period)
        for i in range(1, steps + 1):
            s = i / steps
            point = [(1 - s) * a + s * b for a, b in zip(start, (x, y, z, yaw))]
            self.joints = self.kinematics.ik(tool_down(*point), self.joints)
            self.step()
        self.at = (x, y, z, yaw)

    def grip(self, finger, seconds=0.6):
        self.finger = finger
        for _ in range(round(seconds / self.world.period)):
            self.step()

    def step(self):
        targets = dict(zip(self.arm.joints, self.joints))
        targets[self.arm.gripper.joint] = self.finger
        self.world.step(targets, {self.arm.gripper.joint: self.effort})


def test_reset_is_bit_reproducible_whatever_happened_before(station, task):
    fresh, used = World(station, task), World(station, task)
    tool = Tool(used)
    tool.go(0.33, -0.12, 0.012)
    tool.go(0.33, 0.05, 0.012)
    tool.effort = 3.0
    tool.grip(0.02, 0.1)
    for seed in (3, 12345678901):
        fresh.reset(seed)
        used.reset(seed)
        assert used.state().tobytes() == fresh.state().tobytes()
        assert used.tick % round(station.control_rate) == 0


def test_same_commands_give_the_same_states_bit_for_bit(station, task):
    states = []
    for _ in range(2):
        world = World(station, task)
        world.reset(7)
        for i in range(300):
            world.step({'left_joint2': 1.047 + 0.4 * math.sin(0.02 * i), 'left_joint1': 0.003 * i},
                       {'left_finger_joint': 10.0})
        states.append(world.state().tobytes())
    assert states[0] == states[1]


def test_reset_puts_the_block_at_the_start_pose_of_the_seed(world, task):
    for seed in range(5):
        world.reset(seed)
        x, y, yaw, z, upright = world.object_pose('t_block')
        assert (x, y, yaw) == pytest.approx(task.start_pose(seed), abs=1e-5)
        assert abs(z) < 1e-4 and upright > 0.99999


def test_arms_hold_home_against_gravity_with_efforts_within_the_limits(world, station):
    for _ in range(200):
        world.step({})
    names, positions, velocities, efforts = world.joint_state()
    assert names == station.joints
    for arm in station.arms.values():
        index = [names.index(joint) for joint in arm.joints]
        assert positions[index] == pytest.approx(arm.named['home'], abs=2e-3)
    assert np.abs(velocities).max() < 1e-3
    assert abs(efforts[names.index('left_joint3')]) > 3.0   # it carries the forearm


def test_torques_are_clipped_to_the_motors_limits(world):
    world.step({'left_joint2': 3.6, 'left_joint4': -1.69})
    efforts = dict(zip(*(world.joint_state()[i] for i in (0, 3))))
    assert efforts['left_joint2'] == pytest.approx(28.0)
    assert efforts['left_joint4'] == pytest.approx(-10.0)


def test_target_velocity_keeps_the_arm_from_trailing(station, task):
    lag = []
    for with_velocity in (False, True):
        world = World(station, task)
        for i in range(100):
            target = 0.5 * world.period * (i + 1)
            world.step({'left_joint1': target}, velocities={'left_joint1': 0.5} if with_velocity else None)
        lag.append(target - world.joint_state()[1][0])
    assert lag[0] > 0.02 > 0.006 > abs(lag[1])


def test_closed_gripper_pushes_the_block_without_tipping_it(world):
    world.set_object_pose('t_block', 0.33, 0.0, 0.3)
    tool = Tool(world)
    tool.go(0.30, -0.14, 0.10)
    tool.go(0.30, -0.14, 0.012)
    before = world.object_pose('t_block')
    assert before[:3] == pytest.approx((0.33, 0.0, 0.3), abs=1e-4)
    tool.go(0.30, 0.06, 0.012, seconds=2.0)
    for _ in range(10):
        tool.go(0.30, 0.06, 0.012, seconds=0.05)
        x, y, yaw, z, upright = world.object_pose('t_block')
        assert upright > 0.9999 and abs(z) < 1e-3
    moved = math.hypot(x - before[0], y - before[1]) + 0.05 * abs(yaw - before[2])
    assert moved > 0.02
    tool.go(0.30, 0.06, 0.012, seconds=2.0)
    assert world.object_pose('t_block')[:3] == pytest.approx((x, y, yaw), abs=1e-3), 'it comes to rest'


def test_gripper_lifts_turns_and_holds_the_block_by_its_handle(world):
    world.set_object_pose('t_block', 0.30, 0.05, 0.8)
    tool = Tool(world)
    tool.finger = 0.045
    tool.go(0.30, 0.05, 0.11, 0.8)
    tool.go(0.30, 0.05, 0.043, 0.8)
    tool.grip(0.0)
    tool.go(0.30, 0.05, 0.10, 0.8)
    tool.go(0.34, -0.08, 0.10, 1.8, seconds=1.5)
    tool.grip(0.0, 2.0)   # the wrist trails its target by 0.15 s
    held = world.object_pose('t_block')
    assert held[3] > 0.045 and held[4] > 0.999
    tool.grip(0.0, 3.0)
    assert world.object_pose('t_block') == pytest.approx(held, abs=0.003), 'it slips out of the fingers'
    tool.go(0.34, -0.08, 0.0435, 1.8)
    tool.grip(0.045, 0.3)
    tool.go(0.34, -0.08, 0.11, 1.8)
    x, y, yaw, z, upright = world.object_pose('t_block')
    assert (x, y) == pytest.approx((0.34, -0.08), abs=0.005) and abs(z) < 1e-3
    assert yaw == pytest.approx(1.8, abs=0.05)


def test_gripper_never_presses_harder_than_its_force_limit(world):
    world.set_object_pose('t_block', 0.30, 0.05, 0.0)
    tool = Tool(world)
    tool.finger = 0.045
    tool.go(0.30, 0.05, 0.11)
    tool.go(0.30, 0.05, 0.043)
    for limit in (5.0, 12.0):
        tool.effort = limit
        tool.grip(0.0)
        names, positions, _, efforts = world.joint_state()
        finger = names.index('left_finger_joint')
        assert positions[finger] == pytest.approx(0.010, abs=0.001), 'half the width of the handle'
        assert efforts[finger] == pytest.approx(-limit, abs=1.0)


def test_arm_does_not_go_through_the_table(world):
    tool = Tool(world)
    tool.go(0.35, -0.2, 0.05)
    tool.go(0.35, -0.2, -0.05)
    assert world.frame_pose('left_tcp')[2, 3] > -0.001


def test_set_state_continues_exactly_where_state_was_taken(station, task):
    first, second = World(station, task), World(station, task)
    tool = Tool(first)
    tool.go(0.30, -0.1, 0.012, seconds=0.7)
    second.set_state(first.state())
    for world in (first, second):
        for _ in range(50):
            world.step({'left_joint1': 0.2}, {'left_finger_joint': 20.0})
    assert first.state().tobytes() == second.state().tobytes()


@pytest.mark.parametrize('targets, efforts, message', [
    ({'left_joint7': 0.0}, {}, "no joint 'left_joint7'; known: left_joint1"),
    ({'left_joint1': math.nan}, {}, 'target of left_joint1 is nan'),
    ({}, {'left_joint1': 3.0}, "'left_joint1' has no force limit; joints that do: left_finger_joint"),
    ({}, {'left_finger_joint': -1.0}, 'force limit of left_finger_joint is -1.0'),
])
def test_commands_that_make_no_sense_are_errors(world, targets, efforts, message):
    with pytest.raises(WorldError, match=message):
        world.step(targets, efforts)


def test_diverging_physics_is_an_error_and_a_reset_recovers(world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = world.state()
    world._data.qvel[0] = 1e12
    with pytest.raises(WorldError, match='physics diverged at .* reset the world'):
        world.step({})
    world.reset(0)
    world.step({})
    assert np.isfinite(world.state()).all() and world.state().shape == before.shape
    assert not list(tmp_path.iterdir()), 'MuJoCo leaves no log file behind'


def test_state_of_another_world_is_an_error(world):
    with pytest.raises(WorldError, match=r'world state of shape \(3,\)'):
        world.set_state(np.zeros(3))


@pytest.mark.parametrize('rate', [1, 7, 10, 15, 24, 30, 33, 60, 90, 100])
def test_steps_begin_at_the_rounded_up_ticks(rate):
    expected = {math.ceil(k * 100 / rate - 1e-9) for k in range(10 * rate)}
    assert {tick for tick in range(1000) if is_policy_tick(tick, rate, 100)} == expected


def test_policy_ticks_are_those_of_the_contract(world):
    ticks = []
    for _ in range(20):
        if world.is_policy_tick(30.0):
            ticks.append(world.tick)
        world.step({})
    assert ticks == [0, 4, 7, 10, 14, 17]
    assert world.stamp_ns == 200_000_000


def test_what_stands_between_hides_a_point_from_a_camera(world):
    world.reset(1)
    x, y, _, _, _ = world.object_pose('t_block')
    face, below_the_table = (x, y, 0.03), (x, y, -0.1)
    assert world.sees('top', 't_block', np.array([face, below_the_table])).tolist() == [True, False]
