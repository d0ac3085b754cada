"""A robot for skills without ROS: the simulated world, the controller and the planner in one process."""

import math

import numpy as np
import pytest

from enpire_bringup.arm_motion import ArmMotion
from enpire_bringup.contact_move import CONTACT_SPEED, slowed_to
from enpire_bringup.guard import guard_limits
from enpire_bringup.motion_planning import MotionPlanner
from enpire_bringup.path_planner import choose_path_planner
from enpire_bringup.station import load_station
from enpire_bringup.task import load_task
from enpire_bringup.tip_force import TipForce
from enpire_bringup.trajectory_controller import Outcome, StationMotion, TrajectoryGoal
from enpire_bringup.world import Renderer, World
from enpire_reset.robot import GripEnd, Move, MoveEnd, Sighting, SkillError

NOISE = 0.0006, 0.005     # m, rad: what perception is worth


class SimulatedRobot:
    """A `Robot` (see enpire_reset.robot) on a World.

    before_grasp: called once before a gripper closes with a force of its own. sees(x, y): where the task's camera
    sees objects; None: everywhere.
    """

    def __init__(self, station, task):
        self.station = station
        self.world = World(station, task)
        self.before_grasp = None
        self.sees = None
        self._renderer = None
        self._motion = StationMotion(station)
        self._arms = {name: ArmMotion(station, name, guard_limits(station, task)) for name in station.arms}
        path_planner = choose_path_planner(station, task)
        self._planners = {name: MotionPlanner(station, task, name, arm.guard, path_planner)
                          for name, arm in self._arms.items()}
        self._noise = np.random.default_rng(0)
        self._tick()

    def _tick(self):
        _, positions, velocities, efforts = self.world.joint_state()
        positions, velocities = positions.tolist(), velocities.tolist()
        self._motion.observe(self.world.stamp_ns, positions, velocities, efforts.tolist())
        for name, arm in self._arms.items():
            start = self.station.joints.index(self.station.arms[name].joints[0])
            arm.observe(self.world.time, positions[start:start + len(arm.arm.joints)])
        targets, speeds, limits = self._motion.command(positions, velocities)
        joints = self.station.joints
        fingers = [arm.gripper.joint for arm in self.station.arms.values()]
        self.world.step(dict(zip(joints, targets)), {name: limits[joints.index(name)] for name in fingers},
                        dict(zip(joints, speeds)))

    def run(self, *motions):
        ends = [self._begin_move(motion) if isinstance(motion, Move) else self._begin_grip(motion)
                for motion in motions]
        while not all(end.over() for end in ends):
            self._tick()
        return [end.result() for end in ends]

    def _begin_move(self, move):
        arm = self._arms[move.arm]
        try:
            start = arm.start()
            plan = self._plan(self._planners[move.arm], start, move)
            trajectory = slowed_to(plan.trajectory, plan.tips, CONTACT_SPEED) if move.stop_force else plan.trajectory
            arm.guard.check_trajectory(trajectory, start)
        except ValueError as error:
            raise SkillError(str(error)) from error
        n = len(start)
        goal = TrajectoryGoal([0.3] * n, [0.025] * n, [0.03] * n, 1.5)
        points = zip(trajectory.times.tolist(), trajectory.positions.tolist(), trajectory.velocities.tolist())
        self._motion.arms[move.arm].follow(self._motion.now, 0, list(points), goal)

        felt = _Feeling(self, move) if move.stop_force else None

        def over():
            if felt and felt.contact():
                self._motion.arms[move.arm].start_at(self.joints(move.arm).tolist(), 'contact')
            return goal.outcome is not None

        def result():
            if felt and felt.touched:
                arm.sent(None)
                return MoveEnd(True, felt.force)
            if felt or goal.outcome is not Outcome.SUCCESSFUL:
                arm.sent(None)
                raise SkillError(goal.message or 'there was no contact')
            arm.sent(trajectory.positions[-1])
            return MoveEnd()
        return _Running(over, result)

    @staticmethod
    def _plan(planner, start, move):
        if move.pose is None:
            return planner.to_named(start, move.named, 1.0)
        return (planner.line_to if move.straight else planner.to_pose)(start, move.pose, 1.0)

    def _begin_grip(self, grip):
        if grip.width == 0.0 and grip.max_force and self.before_grasp:
            self.before_grasp, act = None, self.before_grasp
            act()
        gripper = self._motion.grippers[grip.arm]
        goal = gripper.move(self._motion.now, grip.width / 2, grip.max_force)
        return _Running(goal.finished.is_set,
                        lambda: GripEnd(2 * gripper.measured[0], abs(gripper.measured[2]), goal.stalled))

    def now(self):
        return self.world.time

    def joints(self, arm):
        return np.array(self._arms[arm].positions)

    def gripper_width(self, arm):
        return 2 * self._motion.grippers[arm].measured[0]

    def look(self, name, images, timeout):
        for _ in range(15):
            self._tick()
        x, y, yaw, z, upright = self.world.object_pose(name)
        in_view = self.sees is None or self.sees(x, y)
        if z > 0.005 or upright < 0.99 or not in_view:
            return [Sighting((math.nan,) * 3, False, 0.0)] * images
        shift = self._noise.normal(size=(images, 3)) * (NOISE[0], NOISE[0], NOISE[1])
        return [Sighting(tuple(pose), True, 1.0) for pose in np.array([x, y, yaw]) + shift]

    def turn_over(self, name):
        """Put an object that lies flat upside down."""
        data, start = self.world._data, self.world._object(name)
        data.qpos[start + 2:start + 7] = 0.065, 0.0, 1.0, 0.0, 0.0

    def photograph(self, camera, timeout):
        if self._renderer is None:
            self._renderer = Renderer(self.station, self.world.task)
        return self._renderer.render(camera, self.world.state())


class _Running:
    """A motion that has begun."""

    def __init__(self, over, result):
        self.over = over
        self.result = result


class _Feeling:
    """The force on a tool, grown since a motion began."""

    def __init__(self, robot, move):
        self._robot, self._move = robot, move
        self._tip_force = TipForce(robot.station, move.arm)
        self._at_rest = self._measured()
        self.touched, self.force = False, 0.0

    def contact(self):
        if not self.touched:
            self.force = float(np.linalg.norm(self._measured() - self._at_rest))
            self.touched = self.force >= self._move.stop_force
        return self.touched

    def _measured(self):
        robot = self._robot
        _, positions, velocities, efforts = robot.world.joint_state()
        joints = robot.station.arms[self._move.arm].joints
        start = robot.station.joints.index(joints[0])
        part = slice(start, start + len(joints))
        return self._tip_force.observe(robot.world.time, positions[part], velocities[part], efforts[part])


class Scripted:
    """A robot that sees what the script says: planar poses, Sightings or errors, the last one over and over.

    It notes what it is asked to do in `motions`, a list of motions for every call, and every gripper ends as `grip`.
    Its arms stay `at` their joint positions, unless solve(arm, pose) says where a pose brings them. `met`: how
    contact-stop moves end; None: without contact.
    """

    def __init__(self, sightings=()):
        self.seen = list(sightings)
        self.motions = []
        self.grip = None
        self.width = 0.0
        self.at = {}
        self.solve = None
        self.met = None
        self.time = 0.0

    def run(self, *motions):
        self.motions.append(motions)
        return [self._end(motion) for motion in motions]

    def _end(self, motion):
        if isinstance(motion, Move):
            if self.solve and motion.pose is not None:
                self.at[motion.arm] = self.solve(motion.arm, motion.pose)
            if motion.stop_force and self.met is None:
                raise SkillError('there was no contact')
            return self.met if motion.stop_force else MoveEnd()
        return self.grip or GripEnd(motion.width, 0.0, False)

    def joints(self, arm):
        return np.asarray(self.at.get(arm, np.full(6, 0.1)))

    def gripper_width(self, arm):
        return self.width

    def now(self):
        self.time += 1.0
        return self.time

    def look(self, name, images, timeout):
        seen = self.seen.pop(0) if len(self.seen) > 1 else self.seen[0]
        if isinstance(seen, Exception):
            raise seen
        return [seen if isinstance(seen, Sighting) else Sighting(seen, True, 1.0)] * images


@pytest.fixture(scope='session')
def station():
    return load_station('yam_bimanual_sim')


@pytest.fixture(scope='session')
def task():
    return load_task('push_t')


@pytest.fixture(scope='session')
def make_robot():
    """make_robot(station, task) -> a SimulatedRobot."""
    return SimulatedRobot


@pytest.fixture(scope='module')
def robot(make_robot, station, task):
    return make_robot(station, task)


@pytest.fixture
def scripted():
    """scripted(sightings) -> a Scripted robot."""
    return Scripted
