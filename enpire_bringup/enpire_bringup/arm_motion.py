"""Motion of one arm as arm_control sees it, without ROS: what may be planned, what a servo target turns into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

import numpy as np

from enpire_bringup.guard import ArmGuard, GuardViolation
from enpire_bringup.kinematics import ArmKinematics
from enpire_bringup.motion_planning import MotionPlanner
from enpire_bringup.safety_limits import SafetyLimits
from enpire_bringup.station import Station

SAG = 0.08                 # rad between commanded and measured joints that gravity, friction and contact explain
STANDING = 0.02            # rad/s of every commanded joint below which a stream may end without remark
LIMIT_REACHED = 0.002      # rad before a joint's hard stop at which the arm has left what any command asked for


@dataclass(frozen=True)
class ServoCommand:
    """Joint positions (n,) rad to be reached one policy period after the stamp, with velocities (n,) rad/s.

    violation: why the arm holds instead of following the target; '' when it follows.
    """

    positions: np.ndarray
    velocities: np.ndarray
    violation: str = ''


class ArmMotion:
    """One arm: its newest state, what it was last sent, and its guard. Times are s of joint state stamps."""

    def __init__(self, station: Station, arm_name: str, limits: SafetyLimits):
        self.name = arm_name
        self.arm = station.arms[arm_name]
        # Servo and planning run in different threads, and kinematics keep scratch memory.
        self._servo_kinematics = ArmKinematics(station, arm_name)
        planning_kinematics = ArmKinematics(station, arm_name)
        self._servo_guard = ArmGuard(self._servo_kinematics, limits)
        self.guard = ArmGuard(planning_kinematics, limits)
        self.planner = MotionPlanner(planning_kinematics, self.guard)
        self._period = 1.0 / station.policy_rate
        self._limits = limits
        self.positions: np.ndarray | None = None
        self.stamp = 0.0
        self._commanded: np.ndarray | None = None
        self._velocity = np.zeros(len(self.arm.joints))
        self._servo_stamp: float | None = None      # None: no stream
        low, high = self._servo_kinematics.lower + LIMIT_REACHED, self._servo_kinematics.upper - LIMIT_REACHED
        self._at_limit = False
        self._hard_limits = list(zip(self.arm.joints, low.tolist(), high.tolist()))

    def observe(self, stamp: float, positions: Sequence[float]) -> str:
        """Take in a joint state; returns '' or the joint limit that the arm has run into, once: an arm that was let
        go on must be able to come back from there."""
        self.stamp = stamp
        self.positions = positions
        for position, (joint, low, high) in zip(positions, self._hard_limits):
            if not low <= position <= high:
                known, self._at_limit = self._at_limit, True
                return '' if known else (f'{joint} is at {position:.3f} rad, at the end of its range '
                                         f'({low:.3f} to {high:.3f} rad)')
        self._at_limit = False
        return ''

    def start(self) -> np.ndarray:
        """Joint positions (n,) where the next motion begins: those last sent, or measured where they differ.

        An arm always sags a little behind its command; starting there would be a jerk.
        """
        measured = np.array(self.positions)
        if self._commanded is not None and np.abs(self._commanded - measured).max() < SAG:
            return self._commanded
        return measured

    def sent(self, positions: Sequence[float] | None) -> None:
        """Remember where a planned motion ended; None when it ended early."""
        self._commanded = None if positions is None else np.array(positions)
        self._velocity = np.zeros(len(self.arm.joints))
        self._servo_stamp = None

    def servo(self, pose: np.ndarray, frame: str, stamp: float) -> ServoCommand:
        """What to send for a streamed TCP target (4, 4); holds, saying why, where the guard refuses it."""
        previous = self.start()
        self._servo_stamp = stamp
        try:
            target = self._servo_guard.filter_servo(
                pose, frame=frame, stamp=stamp, state_stamp=self.stamp,
                previous=self._servo_kinematics.tip(previous), period=self._period)
            guard = self._servo_guard
            q = self._servo_kinematics.servo_ik(target.pose, previous, guard.lower, guard.upper)
            q = guard.limit_joint_step(q, previous, self._period)
        except GuardViolation as violation:
            return self.hold(stamp, str(violation))
        self._commanded, self._velocity = q, (q - previous) / self._period
        return ServoCommand(q, self._velocity)

    def hold(self, stamp: float, reason: str) -> ServoCommand:
        """The command that stops a stream where the arm was sent last."""
        self._commanded = self.start()
        self._velocity = np.zeros(len(self.arm.joints))
        self._servo_stamp = stamp
        return ServoCommand(self._commanded, self._velocity, reason)

    def stream_ended(self) -> str | None:
        """None while a stream goes on or there is none; once it has ended, '' or why that is a violation."""
        if self._servo_stamp is None or self.stamp - self._servo_stamp <= self._limits.stale_command:
            return None
        age = self.stamp - self._servo_stamp
        moving = np.abs(self._velocity).max() > STANDING
        self._servo_stamp = None
        self._velocity = np.zeros(len(self.arm.joints))
        if moving:
            return f'{self.name}: no servo target for {age:.2f} s in mid-motion; holding'
        return ''
