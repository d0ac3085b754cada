"""Motion of one arm as arm_control sees it, without ROS: what may be planned, what a servo target turns into."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Sequence

import numpy as np

from enpire_bringup.control_ticks import is_policy_tick
from enpire_bringup.guard import ArmGuard, GuardRefusal, GuardViolation, Violation
from enpire_bringup.kinematics import ArmKinematics
from enpire_bringup.safety_limits import SafetyLimits
from enpire_bringup.station import Station

SAG = 0.08                 # rad between commanded and measured joints that gravity, friction and contact explain
REST_TIME = 0.05           # s after a command's end in which an arm that gets no further one comes to rest
STANDING = 0.02            # rad/s of every commanded joint below which a stream may end without remark


@dataclass(frozen=True)
class ServoCommand:
    """Joint positions (n,) rad to be reached `duration` s after the stamp, with velocities (n,) rad/s.

    An arm that gets no further command comes to rest there.
    Where the arm holds instead of following the target: refusal says why, or violation, after which all has to stop.
    """

    positions: np.ndarray
    velocities: np.ndarray
    duration: float
    refusal: str = ''
    violation: Violation | None = None

    @property
    def points(self) -> list[tuple[float, list[float], list[float]]]:
        """(s after the stamp, positions, velocities) of the trajectory for the controller."""
        points = [(self.duration, self.positions.tolist(), self.velocities.tolist())]
        if self.velocities.any():
            # Else the controller would stand still for the tick in which the next command is on its way.
            points.append((self.duration + REST_TIME, self.positions.tolist(), [0.0] * len(self.positions)))
        return points


class ArmMotion:
    """One arm: its newest state, what it was last sent, and its guard. Times are s of joint state stamps."""

    def __init__(self, station: Station, arm_name: str, limits: SafetyLimits):
        self.name = arm_name
        self.arm = station.arms[arm_name]
        # Servo and planning run in different threads, and kinematics and guard keep scratch memory.
        self._servo_kinematics = ArmKinematics(station, arm_name)
        self._servo_guard = ArmGuard(station, arm_name, limits)
        self.guard = ArmGuard(station, arm_name, limits)
        self.planner = None
        self._policy_rate, self._control_rate = station.policy_rate, station.control_rate
        self._limits = limits
        self.positions: np.ndarray | None = None
        self.stamp = 0.0
        self.tip_force: np.ndarray | None = None    # (3,) N in "world", estimated
        self._last: ServoCommand | None = None      # what the arm was sent; None: nobody knows
        self._tip_velocity = np.zeros(3)            # m/s of that command
        self._servo_stamp: float | None = None      # of the newest target that was followed; None: no stream
        self._in_motion = False                     # whether that one moved the arm

    @property
    def limits(self) -> SafetyLimits:
        return self._limits

    @limits.setter
    def limits(self, limits: SafetyLimits) -> None:
        self._limits = self.guard.limits = self._servo_guard.limits = limits

    @property
    def streaming(self) -> bool:
        """Whether servo targets drive this arm."""
        return self._servo_stamp is not None

    def observe(self, stamp: float, positions: Sequence[float]) -> None:
        """Take in a joint state, (n,) rad."""
        self.stamp = stamp
        self.positions = positions

    def start(self) -> np.ndarray:
        """Joint positions (n,) where the next motion begins: those last sent, or measured where they differ.

        An arm always sags a little behind its command; starting there would be a jerk.
        """
        measured = np.array(self.positions)
        if self._last is not None and np.abs(self._last.positions - measured).max() < SAG:
            return self._last.positions
        return measured

    def sent(self, positions: Sequence[float] | None) -> None:
        """Remember where a planned motion ended; None when it ended early, or begins. Ends a stream."""
        self._last = None
        if positions is not None:
            self._last = ServoCommand(np.array(positions), np.zeros(len(self.arm.joints)), 0.0)
        self._tip_velocity = np.zeros(3)
        self._servo_stamp = None

    def servo(self, pose: np.ndarray, frame: str, stamp: float, positions: np.ndarray | None = None) -> ServoCommand:
        """What to send for a streamed TCP target (4, 4); holds, saying why, where the guard does not let it through.

        positions: of all joints of the station, for the distance to the other arms.
        """
        previous = self.start()
        following = self._last is not None and previous is self._last.positions
        velocity = self._last.velocities if following else np.zeros(len(previous))
        guard = self._servo_guard
        tool = self._servo_kinematics.fk(previous)
        period = self._time_to_next(stamp)
        try:
            target = guard.filter_servo(pose, frame=frame, stamp=stamp, state_stamp=self.stamp, previous=tool,
                                        velocity=self._tip_velocity, period=period)
            q = self._servo_kinematics.servo_ik(target, previous, *guard.step_bounds(previous, velocity, period))
            q = guard.limit_step(q, previous, self._tip_velocity, period, positions)
        except GuardRefusal as refusal:
            return self.hold(refusal=str(refusal))
        except GuardViolation as error:
            return self.hold(violation=error.violation)
        velocity = (q - previous) / period
        self._tip_velocity = (self._servo_kinematics.tip(q) - tool[:3, 3]) / period
        self._servo_stamp, self._in_motion = stamp, bool(np.abs(velocity).max() > STANDING)
        self._last = ServoCommand(q, velocity, period)
        return self._last

    def _time_to_next(self, stamp: float) -> float:
        """s until the next policy step: a whole number of control ticks where states come on that grid."""
        tick = round(stamp * self._control_rate)
        if not is_policy_tick(tick, self._policy_rate, self._control_rate):
            return 1.0 / self._policy_rate
        later = tick + 1
        while not is_policy_tick(later, self._policy_rate, self._control_rate):
            later += 1
        return (later - tick) / self._control_rate

    def hold(self, refusal: str = '', violation: Violation | None = None) -> ServoCommand:
        """The command that brings a stream to rest from where the arm was sent last."""
        start = self.start()
        self._last = ServoCommand(start, np.zeros(len(start)), 1.0 / self._policy_rate)
        self._tip_velocity = np.zeros(3)
        return replace(self._last, refusal=refusal, violation=violation)

    def stream_broke_off(self) -> Violation | None:
        """Notice the end of a stream: no target for longer than `stale_command`. In mid-motion that is a violation."""
        if self._servo_stamp is None or self.stamp - self._servo_stamp <= self._limits.stale_command:
            return None
        age = self.stamp - self._servo_stamp
        self._servo_stamp = None
        self._tip_velocity = np.zeros(3)
        if self._last is not None:
            self._last = ServoCommand(self._last.positions, np.zeros(len(self.arm.joints)), 0.0)
        if not self._in_motion:
            return None
        return Violation('stale_command', self.name, f'no good servo target for {age:.2f} s in mid-motion',
                         age, self._limits.stale_command, 's')
