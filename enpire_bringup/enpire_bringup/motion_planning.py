"""Plans the moves of one arm: to joint positions, to a pose, along a straight line. No ROS."""

from __future__ import annotations

import math
from typing import Sequence

import numpy as np
import pinocchio as pin

from enpire_bringup.guard import ArmGuard
from enpire_bringup.kinematics import ArmKinematics, UnreachableError
from enpire_bringup.trajectory import JointTrajectory, along_path, point_to_point

PLANNER = 'ruckig + damped inverse kinematics'
LINE_STEP = 0.004          # m between the waypoints of a straight line
LINE_TURN = 0.03           # rad between them
LARGEST_JOINT_STEP = 0.25  # rad between two waypoints: more is a jump to another solution


class PlanningError(ValueError):
    """There is no such motion; the message says why and what would help."""


class MotionPlanner:
    """Planner of one arm. Speeds are shares (0, 1] of the station's planning limits."""

    def __init__(self, kinematics: ArmKinematics, guard: ArmGuard):
        self._kinematics = kinematics
        self._guard = guard
        arm = kinematics.arm
        self._velocity = np.minimum(arm.max_velocity, guard.limits.max_joint_speed)
        self._acceleration = np.array(arm.max_acceleration)

    def to_joints(self, start: Sequence[float], goal: Sequence[float], speed: float) -> JointTrajectory:
        """Joint-space move. Raises PlanningError."""
        arm = self._kinematics.arm
        if len(goal) != len(arm.joints):
            raise PlanningError(f'{arm.name}: {len(goal)} joint positions; expected {len(arm.joints)}: '
                                + ', '.join(arm.joints))
        try:
            return point_to_point(start, goal, *self._limits(speed))
        except ValueError as error:
            raise PlanningError(f'{arm.name}: {error}') from error

    def to_named(self, start: Sequence[float], name: str, speed: float) -> JointTrajectory:
        """Joint-space move to a named position of the station file. Raises PlanningError."""
        arm = self._kinematics.arm
        if name not in arm.named:
            raise PlanningError(f"{arm.name}: no named position '{name}'; there are: {', '.join(arm.named)}")
        return self.to_joints(start, arm.named[name], speed)

    def to_pose(self, start: Sequence[float], pose: np.ndarray, speed: float) -> JointTrajectory:
        """Joint-space move to a TCP pose (4, 4). Raises PlanningError when it is out of reach."""
        return self.to_joints(start, self._solve(pose, start), speed)

    def line_to(self, start: Sequence[float], pose: np.ndarray, speed: float) -> JointTrajectory:
        """Straight line of the tool to a TCP pose (4, 4), turning evenly. Raises PlanningError."""
        begin, end = pin.SE3(self._kinematics.fk(start)), pin.SE3(pose)
        distance = float(np.linalg.norm(end.translation - begin.translation))
        turn = pin.log3(begin.rotation.T @ end.rotation)
        steps = max(2, math.ceil(max(distance / LINE_STEP, float(np.linalg.norm(turn)) / LINE_TURN)))
        waypoints = [np.asarray(start, float)]
        for share in np.linspace(0.0, 1.0, steps + 1)[1:]:
            waypoint = np.eye(4)
            waypoint[:3, 3] = begin.translation + share * (end.translation - begin.translation)
            waypoint[:3, :3] = begin.rotation @ pin.exp3(share * turn)
            q = self._solve(waypoint, waypoints[-1])
            joint = int(np.argmax(np.abs(q - waypoints[-1])))
            if abs(q[joint] - waypoints[-1][joint]) > LARGEST_JOINT_STEP:
                raise PlanningError(
                    f'{self._kinematics.arm.name}: no straight line to there: {share * 100:.0f} % along it '
                    f'{self._kinematics.arm.joints[joint]} would have to jump by '
                    f'{abs(q[joint] - waypoints[-1][joint]):.2f} rad; use a joint-space move')
            waypoints.append(q)
        return along_path(np.array(waypoints), *self._limits(speed))

    def _solve(self, pose: np.ndarray, seed: Sequence[float]) -> np.ndarray:
        try:
            return self._kinematics.ik(pose, seed, margin=self._guard.limits.joint_margin + 1e-4)
        except UnreachableError as error:
            raise PlanningError(str(error)) from error

    def _limits(self, speed: float) -> tuple[list[float], list[float]]:
        # The same motion, slowed down as a whole.
        return (speed * self._velocity).tolist(), (speed * speed * self._acceleration).tolist()
