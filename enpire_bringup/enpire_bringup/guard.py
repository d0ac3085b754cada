"""The safety guard of one arm's commands: the last thing before the controllers. No ROS.

It fails closed. Two ways in: `check_trajectory` for planned motion, `filter_servo` and `limit_step` for streamed tool
positions. What the arms really do is watched by state_guard.py. Every limit and reaction: docs/safety.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Sequence

import numpy as np
import pinocchio as pin

from enpire_bringup.arm_extent import ArmExtent, Extent
from enpire_bringup.arm_task import ArmTask
from enpire_bringup.collision_model import CollisionModel, Proximity
from enpire_bringup.kinematics import ArmKinematics
from enpire_bringup.safety_limits import AXES, SafetyLimits, tightened
from enpire_bringup.station import Station
from enpire_bringup.trajectory import JointTrajectory

REACTION = 0.03              # s from a measured state to the moment at which its arm begins to stop
COMMANDED_SPEED = 0.75       # share of the limit of joint speed that commands use, peaks included: an arm overshoots
COMMANDED_TIP_SPEED = 0.5    # share of the limit of tip speed: there the overshoots of several joints add up
LARGEST_TIP_GAIN = 4.0       # m/s^2 by which a stream may speed its tool up
INSET = 0.002                # m that commands keep from the limits in space, for the same reason
POSITION_SLACK = 1e-6        # m and rad, numerical slack on bounds
SPEED_SLACK = 1.001          # numerical slack on speeds
COMMAND_RESERVE = 0.08       # s that commands leave on top of REACTION, so that what is measured has room
FASTEST_TURN = 1.5           # rad/s of a streamed tool: wrist and shoulder lag differently, which adds to its speed
RANGE_RESERVE = 0.3          # s more that a joint takes to get to the end of its range
MOST_PAST_STEPS = 5          # steps in a row that end past a limit, each shortened, before that is a violation
ENOUGH = 0.1                 # m above its limit of the distance between the arms that need no closer look
SHORTENED = 0.9              # of the share of a step that seems to leave room to stop


class GuardRefusal(ValueError):
    """A command that is not carried out: malformed, late, or impossible. Nothing has left its limits."""


@dataclass(frozen=True)
class Violation:
    """A limit that an arm was about to pass; `limit` as in safety_limits.LIMITS, or what could not be measured."""

    limit: str
    arm: str
    message: str
    value: float = math.nan
    bound: float = math.nan
    unit: str = ''

    @property
    def presses(self) -> bool:
        """Whether the arm presses against something, so that it must not be sent to where it was sent before."""
        return 'effort' in self.limit or 'force' in self.limit

    def __str__(self) -> str:
        return f'{self.arm}: {self.message}' if self.arm else self.message


class GuardViolation(ValueError):
    """A command that would take an arm past a limit."""

    def __init__(self, violation: Violation):
        super().__init__(str(violation))
        self.violation = violation


def guard_limits(station: Station, task: ArmTask | None) -> SafetyLimits:
    """The station's limits, tightened by the task's. Raises ConfigurationError where a task would loosen one."""
    if task is None:
        return station.safety
    return tightened(station.safety, task.limits, str(task.file), str(station.file))


def station_reach(station: Station) -> np.ndarray:
    """(n,) m that no point of an arm moves farther than, a rad (a gripper: a m) of each of `Station.joints`."""
    reach = np.ones(len(station.joints))
    for name in station.arms:
        reach[station.arm_slice(name)] = ArmExtent(station, name).reach
    return reach


class SpaceLimits:
    """How far one arm is past its limits in space: workspace box and floor. Negative is inside, m."""

    def __init__(self, arm_name: str, limits: SafetyLimits):
        self.arm = arm_name
        self._limits = limits
        self._low, self._high = np.array(limits.workspace_low), np.array(limits.workspace_high)

    def excess(self, extent: Extent) -> np.ndarray:
        """(7,) m: below the workspace on x, y, z, above it on x, y, z, below the floor."""
        return np.concatenate([self._low - extent.tip, extent.tip - self._high,
                               [self._limits.floor_height - extent.lowest]])

    def violation(self, index: int, extent: Extent, kept: float = 0.0) -> Violation:
        """The violation of one entry of `excess`; kept: m that the extent had to keep from the limits."""
        less = f', of which commands keep {kept * 1000:g} mm' if kept else ''
        if index == 6:
            bound = self._limits.floor_height
            return Violation('floor_height', self.arm, f'{extent.lowest_link} would be at z = {extent.lowest:.4f} '
                             f'm, the floor is {bound:g} m{less}', extent.lowest, bound, 'm')
        axis, end = index % 3, 'low' if index < 3 else 'high'
        value, low, high = float(extent.tip[axis]), float(self._low[axis]), float(self._high[axis])
        return Violation(f'workspace.{AXES[axis]}.{end}', self.arm,
                         f'tool center point would be at {AXES[axis]} = {value:.3f} m, the workspace is {low:g} to '
                         f'{high:g} m{less}', value, low if index < 3 else high, 'm')


def distance_violation(arm: str, proximity: Proximity, limits: SafetyLimits) -> Violation:
    return Violation('min_arm_distance', arm, f'{proximity}; the arms keep {limits.min_arm_distance * 1000:g} mm',
                     proximity.distance, limits.min_arm_distance, 'm')


class ArmGuard:
    """The guard of one arm's commands. Lengths in m, angles in rad, times in s of ROS time.

    Keeps scratch memory: use one instance a thread. `limits` may be replaced at any time.
    """

    def __init__(self, station: Station, arm_name: str, limits: SafetyLimits):
        self.name = arm_name
        self._arm = station.arms[arm_name]
        self._extent = ArmExtent(station, arm_name)
        self._collisions = CollisionModel(station) if len(station.arms) > 1 else None
        self._slice = station.arm_slice(arm_name)
        self._reach = station_reach(station)
        self._kinematics = ArmKinematics(station, arm_name)
        self._range = self._kinematics.lower, self._kinematics.upper
        self._past_steps = 0
        self.limits = limits

    @property
    def limits(self) -> SafetyLimits:
        return self._limits

    @limits.setter
    def limits(self, limits: SafetyLimits) -> None:
        self._limits = limits
        self._space = SpaceLimits(self.name, limits)
        self.lower, self.upper = (self._range[0] + limits.joint_margin, self._range[1] - limits.joint_margin)
        self._low = np.array(limits.workspace_low) + INSET
        self._high = np.array(limits.workspace_high) - INSET
        self._looked_at: np.ndarray | None = None    # joints of the station at the last look at the limits in space
        self._room = 0.0                             # m that any point of any arm may move from there
        self._distance_at: np.ndarray | None = None  # the same for the distance between the arms, which takes long
        self._proximity: Proximity | None = None

    @property
    def commanded_joint_speed(self) -> float:
        """rad/s that a command may ask of any joint."""
        return COMMANDED_SPEED * self._limits.max_joint_speed

    # -- planned motion

    def check_trajectory(self, trajectory: JointTrajectory, start: Sequence[float],
                         positions: np.ndarray | None = None) -> None:
        """Let a planned trajectory through that begins at the joint positions `start` (n,), or raise GuardViolation.

        positions: of all joints of the station, for the distance to the other arms where they are now.
        An arm that is out of bounds already may come back, but nowhere farther out.
        """
        start = np.asarray(start, float)
        if not (np.isfinite(trajectory.positions).all() and np.isfinite(trajectory.velocities).all()):
            raise GuardRefusal(f'{self.name}: the trajectory has numbers that are not finite')
        self._check_joints(np.vstack([start, trajectory.positions]))
        self._check_speed(trajectory, start)
        allowed = np.maximum(self._excess(start, positions)[0], 0.0)
        for q in trajectory.positions:
            if self._has_room(q, positions):
                continue
            excess, describe = self._excess(q, positions)
            self._raise_if_past(excess, allowed, describe)
            allowed = np.minimum(allowed, np.maximum(excess, 0.0))

    def _check_joints(self, positions: np.ndarray) -> None:
        excess = np.maximum(np.maximum(self.lower - positions, positions - self.upper), 0.0)
        allowed = np.vstack([excess[0], np.minimum.accumulate(excess)[:-1]])
        bad = np.argwhere(excess > allowed + POSITION_SLACK)
        if len(bad):
            row, joint = bad[0]
            value, low, high = float(positions[row, joint]), float(self.lower[joint]), float(self.upper[joint])
            raise GuardViolation(Violation(
                'joint_margin', self.name, f'{self._arm.joints[joint]} would go to {value:.3f} rad; allowed are '
                f'{low:.3f} to {high:.3f} rad', value, low if value < low else high, 'rad'))

    def _check_speed(self, trajectory: JointTrajectory, start: np.ndarray) -> None:
        limit = self._limits.max_joint_speed
        times = np.concatenate([[0.0], trajectory.times])
        steps = np.diff(np.vstack([start, trajectory.positions]), axis=0)
        spans = np.diff(times)
        # The first point may be the start itself, up to what the arm sags.
        spans[0] = max(spans[0], 0.02)
        speeds = np.maximum(np.abs(steps) / spans[:, None], np.abs(trajectory.velocities))
        row, joint = np.unravel_index(np.argmax(speeds), speeds.shape)
        if not speeds[row, joint] <= limit * SPEED_SLACK:
            value = float(speeds[row, joint])
            raise GuardViolation(Violation('max_joint_speed', self.name, f'{self._arm.joints[joint]} would move at '
                                           f'{value:.2f} rad/s; the limit is {limit:g} rad/s', value, limit, 'rad/s'))

    # -- servo

    def filter_servo(self, pose: np.ndarray, *, frame: str, stamp: float, state_stamp: float,
                     previous: np.ndarray, velocity: np.ndarray, period: float) -> np.ndarray:
        """The TCP pose (4, 4) to go for in this period, of a streamed one.

        pose (4, 4); stamp of the target and of the newest joint state; previous: tool pose (4, 4) that was sent last,
        and velocity (3,) m/s of the step to there. A target that is too far for one `period` is approached along the
        straight line at the speed limit.
        Raises GuardRefusal for a malformed or stale target, GuardViolation for one out of the workspace.
        """
        if frame not in ('', 'world'):
            raise GuardRefusal(f"{self.name}: servo target in the frame '{frame}'; expected 'world'")
        if pose.shape != (4, 4) or not np.isfinite(pose).all():
            raise GuardRefusal(f'{self.name}: servo target with numbers that are not finite')
        self._check_age(stamp, state_stamp)
        wanted = pose.copy()
        begin = previous[:3, 3]
        wanted[:3, 3] = begin + self._shortened(self._within_workspace(pose[:3, 3], begin) - begin, velocity, period)
        turn = pin.log3(previous[:3, :3].T @ pose[:3, :3])
        angle = float(np.linalg.norm(turn))
        if angle > FASTEST_TURN * period:
            wanted[:3, :3] = previous[:3, :3] @ pin.exp3(turn * (FASTEST_TURN * period / angle))
        return wanted

    def _shortened(self, step: np.ndarray, velocity: np.ndarray, period: float) -> np.ndarray:
        """A step (3,) m of the tool after one with `velocity` (3,) m/s, shortened to what its speed may be."""
        distance = float(np.linalg.norm(step))
        if distance == 0.0:
            return step
        # Between two points the controller's cubic exceeds the mean speed by a third of its change.
        along = float(velocity @ step) / distance
        fastest = min(0.75 * COMMANDED_TIP_SPEED * self._limits.max_tip_speed + 0.25 * along,
                      max(0.0, along) + LARGEST_TIP_GAIN * period)
        return step * min(1.0, max(0.0, fastest) * period / distance)

    def _within_workspace(self, target: np.ndarray, previous: np.ndarray) -> np.ndarray:
        """`target` (3,), a little inside; raises GuardViolation for one outside, but a tool may be led back."""
        limits = self._limits
        low = np.minimum(np.array(limits.workspace_low), previous)
        high = np.maximum(np.array(limits.workspace_high), previous)
        outside = np.maximum(low - target, target - high)
        axis = int(np.argmax(outside))
        if outside[axis] > POSITION_SLACK:
            below = target[axis] < low[axis]
            raise GuardViolation(self._space.violation(axis if below else axis + 3, Extent(target, math.inf, '')))
        return np.clip(target, np.minimum(self._low, previous), np.maximum(self._high, previous))

    def _check_age(self, stamp: float, state_stamp: float) -> None:
        limits = self._limits
        if not (math.isfinite(stamp) and math.isfinite(state_stamp)):
            raise GuardRefusal(f'{self.name}: servo target without a time stamp')
        if state_stamp - stamp > limits.stale_command:
            raise GuardRefusal(
                f'{self.name}: servo target is {state_stamp - stamp:.3f} s older than the joint state; the limit is '
                f'{limits.stale_command:g} s')
        if stamp - state_stamp > limits.stale_state:
            raise GuardRefusal(f'{self.name}: the joint state is {stamp - state_stamp:.3f} s older than the servo '
                               f'target; the limit is {limits.stale_state:g} s')

    def limit_step(self, q: np.ndarray, previous: np.ndarray, tip_velocity: np.ndarray, period: float,
                   positions: np.ndarray | None = None) -> np.ndarray:
        """`q` (n,), or as much of the way from `previous` to it as is safe in one `period`.

        tip_velocity (3,) m/s of the step that led to `previous`. The arm must be able to stop from there within its
        limits, the other arms standing where `positions` (all joints of the station) says. Raises GuardViolation
        where `q` itself is out of them, several times in a row.
        """
        if not np.isfinite(q).all():
            raise GuardRefusal(f'{self.name}: inverse kinematics gave numbers that are not finite')
        self._check_joints(np.vstack([previous, q]))
        step = q - previous
        way = self._kinematics.tip(q) - self._kinematics.tip(previous)
        shortened = self._shortened(way, tip_velocity, period)
        if shortened is not way:
            step = step * min(1.0, float(np.linalg.norm(shortened) / np.linalg.norm(way)))
        stop = self._stop(previous, step, period)
        if self._in_range(stop, previous) and (
                self._has_room(stop, positions) or (self._excess(stop, positions)[0] <= 0.0).all()):
            self._past_steps = 0
            return previous + step
        now = self._excess(previous, positions)[0]
        allowed = np.maximum(now, 0.0)
        excess, describe = self._excess(previous + step, positions)
        # A solver on its way may cut a corner for a step or two; who goes on asking for it means it.
        self._past_steps = self._past_steps + 1 if (excess > allowed + INSET).any() else 0
        if self._past_steps >= MOST_PAST_STEPS:
            self._raise_if_past(excess, allowed, describe)
        return previous + self._share_with_room(previous, step, period, now, allowed, positions) * step

    def _share_with_room(self, previous, step, period, now, allowed, positions) -> float:
        """How much of a step, 0 to 1, leaves room to stop within the limits; now (8,): how far `previous` is past
        them."""
        share = 1.0
        for _ in range(4):
            stop = self._stop(previous, share * step, period)
            past = self._excess(stop, positions)[0]
            if (past <= allowed + POSITION_SLACK).all() and self._in_range(stop, previous):
                return share
            # As if the way to each limit were as long as it seems from the two ends of this step.
            steeper = past > allowed
            seems = (allowed - now)[steeper] / np.maximum((past - now)[steeper], 1e-9)
            share *= SHORTENED * float(np.clip(min(seems, default=0.5), 0.0, 1.0))
        return 0.0

    def step_bounds(self, previous: np.ndarray, velocity: np.ndarray, period: float) -> tuple[np.ndarray, np.ndarray]:
        """Joint positions (n,), (n,) between which one step may end: no joint is too fast, all can stop in their range.

        velocity (n,) rad/s of the step that led to `previous`.
        """
        share = period / (period + self._stopping_time + RANGE_RESERVE)
        # As for the tool, 4/3 of this step's speed less 1/3 of the last one's is the peak.
        fastest = COMMANDED_SPEED * self._limits.max_joint_speed
        backward, forward = (0.75 * period * (fastest + turn * velocity / 3.0) for turn in (-1.0, 1.0))
        return (np.maximum(self.lower, previous - np.clip(share * (previous - self.lower), 0.0, backward)),
                np.minimum(self.upper, previous + np.clip(share * (self.upper - previous), 0.0, forward)))

    def _stop(self, previous: np.ndarray, step: np.ndarray, period: float) -> np.ndarray:
        """How far (n,) the arm would go if it had to stop after this step."""
        return previous + step * (1.0 + self._stopping_time / period)

    @property
    def _stopping_time(self) -> float:
        return REACTION + self._limits.stop_time + COMMAND_RESERVE

    def _in_range(self, q: np.ndarray, previous: np.ndarray) -> bool:
        low, high = self._range
        return bool(((q >= np.minimum(low, previous)) & (q <= np.maximum(high, previous))).all())

    def _has_room(self, q: np.ndarray, positions: np.ndarray | None) -> bool:
        """Whether no limit in space can have been passed since it was last looked at; False: it is time to look."""
        if self._looked_at is None:
            return False
        return float(np.abs(self._all_joints(q, positions) - self._looked_at) @ self._reach) < self._room

    # -- limits in space

    def _excess(self, q: np.ndarray, positions: np.ndarray | None):
        """((8,) m past each limit in space, negative inside; function that makes the violation of an entry)."""
        joints = self._all_joints(q, positions)
        extent = self._extent.at(q)
        excess = np.empty(8)
        excess[:7] = self._space.excess(extent)
        excess[7] = self._distance_excess(joints) if positions is not None else -math.inf
        excess += INSET
        proximity = self._proximity
        self._looked_at, self._room = joints, float(-excess.max())

        def describe(index: int) -> Violation:
            if index == 7:
                return distance_violation(self.name, proximity, self._limits)
            return self._space.violation(index, extent, INSET)
        return excess, describe

    def _distance_excess(self, joints: np.ndarray) -> float:
        """m by which the arms are too near to each other, or a bound of it where that is enough to see that they are
        not."""
        if self._collisions is None:
            return -math.inf
        if self._distance_at is not None:
            room = self._proximity.distance - float(np.abs(joints - self._distance_at) @ self._reach)
            if room > self._limits.min_arm_distance + ENOUGH:
                return self._limits.min_arm_distance - room
        self._proximity, self._distance_at = self._collisions.arm_distance(joints), joints
        return self._limits.min_arm_distance - self._proximity.distance

    def _all_joints(self, q: np.ndarray, positions: np.ndarray | None) -> np.ndarray:
        joints = np.zeros(len(self._reach)) if positions is None else positions.copy()
        joints[self._slice] = q
        return joints

    def _raise_if_past(self, excess: np.ndarray, allowed: np.ndarray, describe) -> None:
        past = excess - allowed
        index = int(np.argmax(past))
        if past[index] > POSITION_SLACK:
            raise GuardViolation(describe(index))
