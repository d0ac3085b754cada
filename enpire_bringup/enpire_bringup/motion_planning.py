"""Plans the moves of one arm free of collisions: to joint positions, to a pose, along a straight line. No ROS.

A joint-space move takes the first of these that is free:

1. the straight line in joint space,
2. the path of the path planner (OMPL or MoveIt) around what is in the way.

Where the tool would sweep over the table lower than CLEAR_HEIGHT, away from where it starts and ends, it first rises
straight up, and comes straight down at the end: objects stand there. A path with corners is timed by TOPP-RA, which
rounds them; a straight one by a jerk-limited profile. What comes out is looked at again, densely, before it is sent.
The same question has the same answer.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from itertools import chain, islice
from typing import Iterable, Sequence

import numpy as np
import pinocchio as pin

from enpire_bringup.arm_extent import ArmExtent
from enpire_bringup.arm_task import ArmTask
from enpire_bringup.collision_model import ArmScene, Clearance
from enpire_bringup.guard import INSET, ArmGuard
from enpire_bringup.kinematics import ArmKinematics, UnreachableError
from enpire_bringup.path_planner import NoPathError, PathPlanner, PathQuestion
from enpire_bringup.path_timing import along_bends
from enpire_bringup.station import Station
from enpire_bringup.trajectory import JointTrajectory, along_path, one_after_another, point_to_point, standing_still

LINE = 'line'              # what plans straight lines of the tool
LINE_STEP = 0.004          # m between the waypoints of a straight line
LINE_TURN = 0.03           # rad between them
LARGEST_JOINT_STEP = 0.25  # rad between two waypoints: more is a jump to another solution
SINGULAR = 0.004           # m/rad (see ArmKinematics.least_motion) below which a straight line is refused

CLEAR_HEIGHT = 0.08        # m over the table: what stands there is lower
SIDEWAYS = 0.02            # m beside its start and end that a tool may move lower than that

PLANNED = 0.010            # m kept from everything but the table while planning
CHECKED = 0.005            # m kept when the timed motion is looked at again: rounded corners come nearer
SELF = 0.005               # m between links of one arm: their shapes are larger than they are
PRESSED = 0.03             # m that a contact-stop move may go into a box that it is to touch
BOBBING = 0.015            # m from the edge of the workspace within which a move is slow: quick ones bob by 9 mm
AT_EDGE = 2.5              # times as long on its way then
EDGE = 0.001               # m kept from the edge of the workspace while planning
START_SLACK = 0.0005       # m nearer than at its start that a motion may come which begins too near
CHECK_STEP = 0.010         # m that any point of the arm moves between two looks: no more than twice CHECKED
SEARCHES = 3               # paths that are searched for until one stays free when it is looked at densely
GOALS = 4                  # joint solutions of a pose that are tried
ROOM = 0.15                # rad more than the guard's margin that the goal of a move keeps from joint limits where it can
SWEEP_LOOKS = 30           # positions of a motion at which it is asked whether it sweeps over the table
CORNERS = (0.12, 0.04)     # rad along the path by which corners are rounded, the first that stays free


class PlanningError(ValueError):
    """There is no such motion; the message says why and what would help."""


@dataclass(frozen=True)
class Plan:
    """A motion, the tool's positions (m, 3) along it in "world", and what planned it."""

    trajectory: JointTrajectory
    tips: np.ndarray
    planner: str


class MotionPlanner:
    """Planner of one arm. Speeds are shares (0, 1] of the station's planning limits.

    Every move takes `positions`: joint positions (k, n) of the whole station in the order of `Station.joints`, the
    first the present ones. The other arms are kept clear of wherever one of them has them; None: at home.
    """

    def __init__(self, station: Station, task: ArmTask | None, arm_name: str, guard: ArmGuard, path_planner: PathPlanner):
        self._station = station
        self._task = task
        self._arm = station.arms[arm_name]
        self._guard = guard
        self._path_planner = path_planner
        self._kinematics = ArmKinematics(station, arm_name)
        self._reach = ArmExtent(station, arm_name).reach
        self._home = np.concatenate([[*arm.named['home'], arm.gripper.closed] for arm in station.arms.values()])

    # -- moves

    def to_joints(self, start: Sequence[float], goal: Sequence[float], speed: float,
                  positions: Sequence[Sequence[float]] | None = None) -> Plan:
        """Joint-space move. Raises PlanningError."""
        arm = self._arm
        if len(goal) != len(arm.joints):
            raise PlanningError(f'{arm.name}: {len(goal)} joint positions; expected {len(arm.joints)}: '
                                + ', '.join(arm.joints))
        return self._to_first(start, [np.asarray(goal, float)], speed, positions)

    def to_named(self, start: Sequence[float], name: str, speed: float,
                 positions: Sequence[Sequence[float]] | None = None) -> Plan:
        """Joint-space move to a named position of the station file. Raises PlanningError."""
        arm = self._arm
        if name not in arm.named:
            raise PlanningError(f"{arm.name}: no named position '{name}'; there are: {', '.join(arm.named)}")
        return self.to_joints(start, arm.named[name], speed, positions)

    def to_pose(self, start: Sequence[float], pose: np.ndarray, speed: float,
                positions: Sequence[Sequence[float]] | None = None) -> Plan:
        """Joint-space move to a TCP pose (4, 4). Raises PlanningError."""
        # What follows at the pose, a servo stream for one, needs room in every joint: near a limit only where it must be.
        goals = chain(islice(self._kinematics.solutions(pose, start, margin=self._margin + ROOM, restarts=3), GOALS),
                      islice(self._kinematics.solutions(pose, start, margin=self._margin), GOALS))
        plan = self._to_first(start, goals, speed, positions)
        if plan is None:
            self._solve(pose, start)     # raises, saying how far off the nearest is
        return plan

    def line_to(self, start: Sequence[float], pose: np.ndarray, speed: float,
                positions: Sequence[Sequence[float]] | None = None, *, pressing: bool = False) -> Plan:
        """Straight line of the tool to a TCP pose (4, 4), turning evenly. Raises PlanningError.

        pressing: the tool may run into boxes, by PRESSED at most: something else stops it there.
        """
        start = np.asarray(start, float)
        waypoints = self._line(start, pose)
        look = self._look(positions, CHECKED, pressing)
        look.begin_at(start)
        reason = look.path_reason(waypoints)
        if reason is not None:
            raise PlanningError(f'{self._arm.name}: on the straight line {reason}; use a joint-space move, or move '
                                'away what is there')
        trajectory = along_path(waypoints, *self._limits(speed))
        return self._plan(trajectory, LINE)

    def pose_of(self, q: Sequence[float]) -> np.ndarray:
        """TCP pose (4, 4) at the joint positions q (n,)."""
        return self._kinematics.fk(q)

    def random_free_position(self, rng: np.random.Generator) -> np.ndarray:
        """Joint positions (n,) at which a move may start and end, the other arms at home."""
        look = self._look(None, PLANNED)
        while True:
            q = rng.uniform(self._guard.lower, self._guard.upper)
            if look.free(q):
                return q

    # -- joint-space moves

    def _to_first(self, start: Sequence[float], goals: Iterable[np.ndarray], speed: float, positions) -> Plan | None:
        """To the first of the goals (n,) that can be reached; None when there are no goals. Raises PlanningError."""
        start = np.asarray(start, float)
        look, after = self._look(positions, PLANNED), self._look(positions, CHECKED)
        look.begin_at(start)
        after.begin_at(start)
        refusal = None
        for goal in goals:
            try:
                return self._plan(self._join(start, goal, look, after, speed), self._path_planner.name)
            except (PlanningError, NoPathError) as error:
                refusal = refusal or error
        if refusal is not None:
            raise PlanningError(f'{self._arm.name}: {refusal}') from refusal
        return None

    def _join(self, start, goal, look: '_Look', after: '_Look', speed: float) -> JointTrajectory:
        """A timed and checked motion. Raises PlanningError or NoPathError."""
        if not (np.isfinite(start).all() and np.isfinite(goal).all()):
            raise PlanningError(f'cannot plan from {start.tolist()} to {goal.tolist()}: not all numbers are finite')
        if np.abs(goal - start).max() < 1e-6:
            return standing_still(goal)
        look.allow_tip(goal, after)
        reason = look.reason(goal)
        if reason is not None:
            raise PlanningError(f'at the goal {reason}; choose another goal, or move away what is there')
        if self._sweeps(np.linspace(start, goal, SWEEP_LOOKS)):
            try:
                return self._joined(start, goal, self._rise(start, look), self._rise(goal, look)[::-1], look, after,
                                    speed)
            except (PlanningError, NoPathError):
                pass    # better to sweep than to stay
        return self._joined(start, goal, [], [], look, after, speed)

    def _joined(self, start, goal, up: list[np.ndarray], down: list[np.ndarray], look, after, speed
                ) -> JointTrajectory:
        """The motion by way of the waypoints `up` from the start and `down` to the goal."""
        begin, end = (up[-1] if up else start), (down[0] if down else goal)
        before = [np.array([start, *up])] if up else []
        behind = [np.array([*down, goal])] if down else []
        straight = np.array([begin, end])
        reason = look.path_reason(straight)
        if reason is None:
            try:
                return self._timed([*before, straight, *behind], after, speed)
            except PlanningError as error:
                reason = str(error)
        for attempt in range(SEARCHES):
            try:
                path = self._path_planner.plan(PathQuestion(
                    self._arm.name, self._arm.joints, begin, end, self._guard.lower, self._guard.upper, look.free,
                    look.present, _seed(start, goal) + attempt))
                return self._timed([*before, path, *behind], after, speed)
            except PlanningError as error:      # the planner looks less densely than we do
                missed = error
            except NoPathError as error:
                missed = error
                break
        raise PlanningError(f'straight to the goal {reason}, and around it: {missed}; move away what is there, or go '
                            'by way of another position')

    def _timed(self, parts: list[np.ndarray], after: '_Look', speed: float) -> JointTrajectory:
        """The parts (m, n) of a path as one motion that is free; corners are rounded where that stays free."""
        limits = self._limits(speed)
        if len(parts) == 1 and len(parts[0]) == 2:
            trajectory = point_to_point(*parts[0], *limits)
            after.check_path(trajectory.positions)
            return trajectory
        whole = np.vstack([parts[0], *(part[1:] for part in parts[1:])])
        for corner in CORNERS:
            trajectory = along_bends(whole, *limits, corner)
            if after.path_reason(trajectory.positions) is None:
                return trajectory
        # At rest in each corner, exactly on the path.
        trajectory = one_after_another([point_to_point(begin, end, *limits) for part in parts
                                        for begin, end in _straight_pieces(part)])
        after.check_path(trajectory.positions)
        return trajectory

    def _sweeps(self, path: np.ndarray) -> bool:
        """Whether the tool moves low over the table away from where the path (m, n) starts and ends."""
        tips = np.array([self._kinematics.tip(q) for q in path])
        beside = np.minimum(*(np.linalg.norm(tips[:, :2] - tips[end, :2], axis=1) for end in (0, -1)))
        return bool(((tips[:, 2] < CLEAR_HEIGHT - 1e-3) & (beside > SIDEWAYS)).any())

    def _rise(self, q: np.ndarray, look: '_Look') -> list[np.ndarray]:
        """Waypoints straight up from q to CLEAR_HEIGHT, as far as they are free; q itself left out."""
        pose = self._kinematics.fk(q)
        missing = CLEAR_HEIGHT - pose[2, 3]
        waypoints: list[np.ndarray] = []
        steps = math.ceil(missing / LINE_STEP)
        for step in range(1, steps + 1):
            above = pose.copy()
            above[2, 3] += missing * step / steps
            previous = waypoints[-1] if waypoints else q
            try:
                following = self._kinematics.ik(above, previous, margin=self._margin)
            except UnreachableError:
                break
            if np.abs(following - previous).max() > LARGEST_JOINT_STEP or not look.free(following):
                break
            waypoints.append(following)
        return waypoints

    # -- straight lines

    def _line(self, start: np.ndarray, pose: np.ndarray) -> np.ndarray:
        """Joint waypoints (m, n) along the straight line of the tool. Raises PlanningError."""
        begin, end = pin.SE3(self._kinematics.fk(start)), pin.SE3(pose)
        distance = float(np.linalg.norm(end.translation - begin.translation))
        turn = pin.log3(begin.rotation.T @ end.rotation)
        steps = max(2, math.ceil(max(distance / LINE_STEP, float(np.linalg.norm(turn)) / LINE_TURN)))
        waypoints = [start]
        for share in np.linspace(0.0, 1.0, steps + 1)[1:]:
            waypoint = np.eye(4)
            waypoint[:3, 3] = begin.translation + share * (end.translation - begin.translation)
            waypoint[:3, :3] = begin.rotation @ pin.exp3(share * turn)
            q = self._solve(waypoint, waypoints[-1])
            joint = int(np.argmax(np.abs(q - waypoints[-1])))
            refused = f'{self._arm.name}: no straight line to there: {share * 100:.0f} % along it'
            if abs(q[joint] - waypoints[-1][joint]) > LARGEST_JOINT_STEP:
                raise PlanningError(
                    f'{refused} {self._arm.joints[joint]} would have to jump by '
                    f'{abs(q[joint] - waypoints[-1][joint]):.2f} rad; use a joint-space move')
            if self._kinematics.least_motion(q) < min(SINGULAR, self._kinematics.least_motion(waypoints[-1])):
                raise PlanningError(f'{refused} the arm would be at a singularity, where it cannot follow in every '
                                    'direction; use a joint-space move')
            waypoints.append(q)
        return np.array(waypoints)

    def _solve(self, pose: np.ndarray, seed: Sequence[float]) -> np.ndarray:
        try:
            return self._kinematics.ik(pose, seed, margin=self._margin)
        except UnreachableError as error:
            raise PlanningError(str(error)) from error

    # -- limits

    @property
    def _margin(self) -> float:
        return self._guard.limits.joint_margin + 1e-4

    def _limits(self, speed: float) -> tuple[list[float], list[float]]:
        # The same motion, slowed down as a whole.
        velocity = np.minimum(self._arm.max_velocity, self._guard.commanded_joint_speed)
        return (speed * velocity).tolist(), (speed * speed * np.array(self._arm.max_acceleration)).tolist()

    def _look(self, positions, clearance: float, pressing: bool = False) -> '_Look':
        limits = self._guard.limits
        positions = [self._home] if positions is None else positions
        scene = ArmScene(self._station, self._task, self._arm.name, positions,
                         Clearance(arms=limits.min_arm_distance + INSET + clearance, self=SELF, table=clearance,
                                   tool_table=limits.floor_height + INSET, boxes=clearance,
                                   tool_boxes=-PRESSED if pressing else clearance))
        present = dict(zip(self._station.joints, np.asarray(positions[0], float).tolist()))
        inset = INSET + (EDGE if clearance > CHECKED else 0.0)
        return _Look(scene, present, self._kinematics, self._reach, np.array(limits.workspace_low) + inset,
                     np.array(limits.workspace_high) - inset)

    def _plan(self, trajectory: JointTrajectory, planner: str) -> Plan:
        tips = np.array([self._kinematics.tip(q) for q in trajectory.positions])
        if self._room(tips) < BOBBING:
            trajectory = trajectory.slowed(AT_EDGE)
        return Plan(trajectory, tips, planner)

    def _room(self, tips: np.ndarray) -> float:
        """m from the tool's positions (m, 3) to the sides and the top of the workspace; work is done at its bottom."""
        limits = self._guard.limits
        return float(min((tips[:, :2] - limits.workspace_low[:2]).min(), (limits.workspace_high - tips).min()))


class _Look:
    """Where the arm may be: free of collisions, its tool in the workspace.

    present: positions by name of all joints of the station; reach (n,): m that no point of the arm moves farther
    than, a rad of each joint; low, high (3,) m in "world".
    """

    def __init__(self, scene: ArmScene, present: dict[str, float], kinematics: ArmKinematics, reach: np.ndarray,
                 low: np.ndarray, high: np.ndarray):
        self.present = present
        self._scene = scene
        self._reach = reach
        self._kinematics = kinematics
        self._low, self._high = low, high

    def begin_at(self, q: np.ndarray) -> None:
        """A motion that begins too near to something, or outside, may come from there, but go nowhere farther."""
        if self._scene.in_collision(q):
            self._scene.allow_present_distances(q, START_SLACK)
        self._include(self._kinematics.tip(q))

    def allow_tip(self, q: np.ndarray, wider: '_Look') -> None:
        """Let the tool be where it is at q, as far as another look does: a goal may be at the workspace's edge."""
        self._include(np.clip(self._kinematics.tip(q), wider._low, wider._high))

    def _include(self, tip: np.ndarray) -> None:
        self._low, self._high = np.minimum(self._low, tip - 1e-6), np.maximum(self._high, tip + 1e-6)

    def free(self, q: np.ndarray) -> bool:
        tip = self._kinematics.tip(q)
        return bool((tip >= self._low).all() and (tip <= self._high).all()) and not self._scene.in_collision(q)

    def reason(self, q: np.ndarray) -> str | None:
        """None where the arm may be; otherwise what is wrong there."""
        if self.free(q):
            return None
        tip = self._kinematics.tip(q)
        outside = np.maximum(self._low - tip, tip - self._high)
        axis = int(np.argmax(outside))
        if outside[axis] > 0.0:
            return (f'the tool center point would be at {"xyz"[axis]} = {tip[axis]:.3f} m; the workspace is '
                    f'{self._low[axis]:g} to {self._high[axis]:g} m')
        near = self._scene.too_near(q)
        return str(near[0]) if near else 'the arm comes too near to something'

    def path_reason(self, path: np.ndarray) -> str | None:
        """None where the whole path (m, n) of straight pieces is free; otherwise what is wrong first."""
        for begin, end in zip(path[:-1], path[1:]):
            outside = self._leaves_workspace(begin, end)
            if outside is not None:
                return self.reason(outside)
        for q in self._dense(path):
            if self._scene.in_collision(q):
                return self.reason(q)
        return None

    def _leaves_workspace(self, begin: np.ndarray, end: np.ndarray) -> np.ndarray | None:
        """The first q on the straight line in joint space whose tool is outside. The farther inside it is, the farther
        the arm may move until the next look; the last millimeter is looked at in steps of 2 EDGE."""
        length = float(np.abs(end - begin) @ self._reach)
        share = 0.0
        while True:
            q = begin + share * (end - begin)
            tip = self._kinematics.tip(q)
            room = min((tip - self._low).min(), (self._high - tip).min())
            if room < 0.0:
                return q
            if share >= 1.0 or length == 0.0:
                return None
            share = min(1.0, share + max(2.0 * EDGE, room) / length)

    def check_path(self, path: np.ndarray) -> None:
        """Raise PlanningError unless the whole path (m, n) is free."""
        reason = self.path_reason(path)
        if reason is not None:
            raise PlanningError(f'on the way {reason}')

    def _dense(self, path: np.ndarray) -> Iterable[np.ndarray]:
        """Points of a path, no point of the arm moving farther than CHECK_STEP between two of them."""
        yield path[0]
        for begin, end in zip(path[:-1], path[1:]):
            steps = max(1, math.ceil(np.abs(end - begin) @ self._reach / CHECK_STEP))
            for step in range(1, steps + 1):
                yield begin + (end - begin) * (step / steps)


def _straight_pieces(waypoints: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(begin, end) for begin, end in zip(waypoints[:-1], waypoints[1:]) if np.abs(end - begin).max() > 1e-6]


def _seed(start: np.ndarray, goal: np.ndarray) -> int:
    """The same for the same question, to a tenth of a milliradian."""
    return zlib.crc32(np.round(np.concatenate([start, goal]), 4).tobytes())
