"""The safety guard: the last thing before the controllers. No ROS.

It fails closed: what is stale, malformed or out of bounds is not sent, and the arm holds. Two ways in:
`check_trajectory` for planned motion, `filter_servo` for streamed tool positions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Sequence

import numpy as np

from enpire_bringup.kinematics import ArmKinematics
from enpire_bringup.safety_limits import SafetyLimits, tightened
from enpire_bringup.station import Station
from enpire_bringup.task import Task
from enpire_bringup.trajectory import JointTrajectory

SPEED_SLACK = 1.001          # numerical slack on joint speeds
POSITION_SLACK = 1e-6        # m and rad, numerical slack on bounds


class GuardViolation(ValueError):
    """A motion that the guard does not let through; the message names the limit, the value and the arm."""


def guard_limits(station: Station, task: Task | None) -> SafetyLimits:
    """The station's limits, tightened by the task's. Raises ConfigurationError where a task would loosen one."""
    if task is None:
        return station.safety
    return tightened(station.safety, task.limits, str(task.file), str(station.file))


@dataclass(frozen=True)
class ServoTarget:
    """A streamed target that may be sent: TCP pose (4, 4), and whether its step was shortened to the speed limit."""

    pose: np.ndarray
    limited: bool


class ArmGuard:
    """The guard of one arm. Lengths in m, angles in rad, times in s of ROS time."""

    def __init__(self, kinematics: ArmKinematics, limits: SafetyLimits):
        self._kinematics = kinematics
        self.limits = limits
        self.name = kinematics.arm.name
        self.lower = kinematics.lower + limits.joint_margin
        self.upper = kinematics.upper - limits.joint_margin
        self._low = np.array(limits.workspace_low)
        self._high = np.array(limits.workspace_high)

    def check_trajectory(self, trajectory: JointTrajectory, start: Sequence[float]) -> None:
        """Let a planned trajectory through that begins at the joint positions `start` (n,), or raise GuardViolation.

        An arm that is out of bounds already may come back, but nowhere farther out.
        """
        start = np.asarray(start, float)
        if not (np.isfinite(trajectory.positions).all() and np.isfinite(trajectory.velocities).all()):
            raise GuardViolation(f'{self.name}: the trajectory has numbers that are not finite')
        self._check_joints(np.vstack([start, trajectory.positions]))
        self._check_speed(trajectory, start)
        allowed = self._outside(self._kinematics.tip(start)) + POSITION_SLACK
        for time, q in zip(trajectory.times, trajectory.positions):
            tip = self._kinematics.tip(q)
            outside = self._outside(tip)
            if (outside > np.maximum(allowed, POSITION_SLACK)).any():
                raise GuardViolation(f'{self.name}: {time:.2f} s into the motion the {self._describe(tip, outside)}')
            allowed = np.minimum(allowed, outside + POSITION_SLACK)

    def _check_joints(self, positions: np.ndarray) -> None:
        excess = np.maximum(np.maximum(self.lower - positions, positions - self.upper), 0.0)
        allowed = np.vstack([excess[0], np.minimum.accumulate(excess)[:-1]])
        bad = np.argwhere(excess > allowed + POSITION_SLACK)
        if len(bad):
            row, joint = bad[0]
            raise GuardViolation(
                f'{self.name}: {self._kinematics.arm.joints[joint]} would go to {positions[row, joint]:.3f} rad; '
                f'allowed are {self.lower[joint]:.3f} to {self.upper[joint]:.3f} rad')

    def _check_speed(self, trajectory: JointTrajectory, start: np.ndarray) -> None:
        limit = self.limits.max_joint_speed * SPEED_SLACK
        times = np.concatenate([[0.0], trajectory.times])
        steps = np.diff(np.vstack([start, trajectory.positions]), axis=0)
        spans = np.diff(times)
        # The first point may be the start itself, up to what the arm sags.
        spans[0] = max(spans[0], 0.02)
        speeds = np.maximum(np.abs(steps) / spans[:, None], np.abs(trajectory.velocities))
        row, joint = np.unravel_index(np.argmax(speeds), speeds.shape)
        if not speeds[row, joint] <= limit:
            raise GuardViolation(
                f'{self.name}: {self._kinematics.arm.joints[joint]} would move at {speeds[row, joint]:.2f} rad/s; '
                f'the limit is {self.limits.max_joint_speed:g} rad/s')

    def filter_servo(self, pose: np.ndarray, *, frame: str, stamp: float, state_stamp: float,
                     previous: Sequence[float], period: float) -> ServoTarget:
        """What may be sent of a streamed TCP target, or GuardViolation, and the arm has to hold.

        pose (4, 4); stamp of the target and of the newest joint state; previous: (3,) tool position that was sent
        last. A target out of bounds, malformed or stale is refused. One that is merely too far for one `period` is
        approached along the straight line at the speed limit.
        """
        if frame not in ('', 'world'):
            raise GuardViolation(f"{self.name}: servo target in the frame '{frame}'; expected 'world'")
        if pose.shape != (4, 4) or not np.isfinite(pose).all():
            raise GuardViolation(f'{self.name}: servo target with numbers that are not finite')
        self.check_age(stamp, state_stamp)
        target = pose[:3, 3]
        outside = self._outside(target)
        previous = np.asarray(previous, float)
        # A tool that is out of bounds may be led back.
        if (outside > self._outside(previous) + POSITION_SLACK).any():
            raise GuardViolation(f'{self.name}: servo target: the {self._describe(target, outside)}')
        step = target - previous
        distance = float(np.linalg.norm(step))
        longest = self.limits.max_tip_speed * period
        if distance <= longest:
            return ServoTarget(pose, False)
        limited = pose.copy()
        limited[:3, 3] = previous + step * (longest / distance)
        return ServoTarget(limited, True)

    def check_age(self, stamp: float, state_stamp: float) -> None:
        """Raise GuardViolation when a command is stale for the state, or the state for the command."""
        if not (math.isfinite(stamp) and math.isfinite(state_stamp)):
            raise GuardViolation(f'{self.name}: servo target without a time stamp')
        if state_stamp - stamp > self.limits.stale_command:
            raise GuardViolation(
                f'{self.name}: servo target is {state_stamp - stamp:.3f} s older than the joint state; the limit is '
                f'{self.limits.stale_command:g} s')
        if stamp - state_stamp > self.limits.stale_state:
            raise GuardViolation(f'{self.name}: the joint state is {stamp - state_stamp:.3f} s older than the servo '
                                 f'target; the limit is {self.limits.stale_state:g} s')

    def limit_joint_step(self, q: np.ndarray, previous: np.ndarray, period: float) -> np.ndarray:
        """`q` (n,), or as much of the way from `previous` to it as the joint speed limit allows in one `period`.

        Raises GuardViolation when a joint would leave its range.
        """
        if not np.isfinite(q).all():
            raise GuardViolation(f'{self.name}: inverse kinematics gave numbers that are not finite')
        self._check_joints(np.vstack([previous, q]))
        largest = float(np.abs(q - previous).max())
        longest = self.limits.max_joint_speed * period
        return q if largest <= longest else previous + (q - previous) * (longest / largest)

    def _outside(self, tip: np.ndarray) -> np.ndarray:
        """How far (3,) a tool position is out of the workspace on each axis."""
        return np.maximum(np.maximum(self._low - tip, tip - self._high), 0.0)

    def _describe(self, tip: np.ndarray, outside: np.ndarray) -> str:
        axis = int(np.argmax(outside))
        return (f'tool centre point would be at {"xyz"[axis]} = {tip[axis]:.3f} m; the workspace is '
                f'{self._low[axis]:g} to {self._high[axis]:g} m')
