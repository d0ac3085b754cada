"""A robot for skills without ROS: the simulated world, the controller and the planner in one process."""

import numpy as np
import pytest

from enpire_bringup.arm_motion import ArmMotion
from enpire_bringup.guard import guard_limits
from enpire_bringup.station import load_station
from enpire_bringup.task import load_task
from enpire_bringup.trajectory_controller import Outcome, StationMotion, TrajectoryGoal
from enpire_bringup.world import World
from enpire_reset.skills import GripperState, SkillError

NOISE = 0.0006, 0.005     # m, rad: what perception is worth


class SimulatedRobot:
    """A `Robot` (see enpire_reset.skills) on a World. `before_grasp` is called once before a gripper closes."""

    def __init__(self, station, task):
        self.station = station
        self.world = World(station, task)
        self.before_grasp = None
        self._motion = StationMotion(station)
        self._arms = {name: ArmMotion(station, name, guard_limits(station, task)) for name in station.arms}
        self._noise = np.random.default_rng(0)
        self._tick()

    def _tick(self):
        _, positions, velocities, efforts = self.world.joint_state()
        positions, velocities = positions.tolist(), velocities.tolist()
        self._motion.observe(self.world.stamp_ns, positions, velocities, efforts.tolist())
        for name, arm in self._arms.items():
            start = self.station.joints.index(self.station.arms[name].joints[0])
            arm.observe(self.world.time, positions[start:start + 6])
        targets, speeds, limits = self._motion.command(positions, velocities)
        joints = self.station.joints
        fingers = [arm.gripper.joint for arm in self.station.arms.values()]
        self.world.step(dict(zip(joints, targets)), {name: limits[joints.index(name)] for name in fingers},
                        dict(zip(joints, speeds)))

    def _follow(self, name, plan):
        arm = self._arms[name]
        try:
            start = arm.start()
            trajectory = plan(arm.planner, start)
            arm.guard.check_trajectory(trajectory, start)
        except ValueError as error:
            raise SkillError(str(error)) from error
        goal = TrajectoryGoal([0.3] * 6, [0.025] * 6, [0.03] * 6, 1.5)
        points = zip(trajectory.times.tolist(), trajectory.positions.tolist(), trajectory.velocities.tolist())
        self._motion.arms[name].follow(self._motion.now, 0, list(points), goal)
        while goal.outcome is None:
            self._tick()
        if goal.outcome is not Outcome.SUCCESSFUL:
            arm.sent(None)
            raise SkillError(goal.message)
        arm.sent(trajectory.positions[-1])

    def move_to_named(self, arm, name):
        self._follow(arm, lambda planner, start: planner.to_named(start, name, 1.0))

    def move_to_pose(self, arm, pose):
        self._follow(arm, lambda planner, start: planner.to_pose(start, pose, 1.0))

    def move_straight(self, arm, pose):
        self._follow(arm, lambda planner, start: planner.line_to(start, pose, 1.0))

    def move_gripper(self, arm, position, max_effort):
        if position == self.station.arms[arm].gripper.closed and self.before_grasp:
            self.before_grasp, act = None, self.before_grasp
            act()
        gripper = self._motion.grippers[arm]
        goal = gripper.move(self._motion.now, position, max_effort)
        while not goal.finished.is_set():
            self._tick()
        return GripperState(gripper.measured[0], goal.stalled, goal.reached)

    def sightings(self, name, count, timeout):
        for _ in range(15):
            self._tick()
        x, y, yaw, _, _ = self.world.object_pose(name)
        shift = self._noise.normal(size=(count, 3)) * (NOISE[0], NOISE[0], NOISE[1])
        return [tuple(pose) for pose in np.array([x, y, yaw]) + shift]


@pytest.fixture(scope='session')
def station():
    return load_station('yam_bimanual_sim')


@pytest.fixture(scope='session')
def task():
    return load_task('push_t')


@pytest.fixture(scope='module')
def robot(station, task):
    return SimulatedRobot(station, task)
