"""What a trajectory controller does on every joint state, without ROS: follow trajectories, move grippers, hold.

Time is the stamp of the joint states, in integer nanoseconds, so it means the same in simulation and on a robot.
Not thread-safe, except that `TrajectoryGoal.finished` and `GripperGoal.finished` may be waited for anywhere.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from enum import Enum
from typing import Sequence

from enpire_bringup.station import Arm, Gripper, Station
from enpire_bringup.trajectory import TrajectorySampler

SECOND = 1_000_000_000
STREAMING_WINDOW = SECOND // 5        # ns after a streamed trajectory in which the next one is expected
JUMP = 0.35                           # rad between two states that no motion explains: the world was put elsewhere
MISSING = 0.3                         # s without joint states after which nobody knows what the arms did meanwhile
LONGEST_LEAP = 0.1                    # rad to the first point of a goal, beyond which it may not be faster than
LEAP_SPEED = 10.0                     # rad/s
GRIPPER_TOLERANCE = 0.0015            # m a finger
STALL_VELOCITY = 0.002                # m/s
STALL_TIME = 0.12                     # s below that velocity before a finger counts as stalled
GRIPPER_TIMEOUT = 4.0                 # s of joint state time


class Outcome(Enum):
    """How a trajectory goal ended; the values are the error codes of FollowJointTrajectory."""

    SUCCESSFUL = 0
    INVALID_GOAL = -1
    INVALID_JOINTS = -2
    OLD_HEADER_TIMESTAMP = -3
    PATH_TOLERANCE_VIOLATED = -4
    GOAL_TOLERANCE_VIOLATED = -5


class InvalidTrajectory(ValueError):
    """A trajectory that cannot be followed; `outcome` says which kind."""

    def __init__(self, outcome: Outcome, message: str):
        super().__init__(message)
        self.outcome = outcome


@dataclass
class TrajectoryGoal:
    """Tolerances of a goal (rad, rad/s, s; by position in the arm's joints; 0: not checked) and its end."""

    path_tolerance: Sequence[float]
    goal_tolerance: Sequence[float]
    stopped_velocity: Sequence[float]
    goal_time_tolerance: float
    finished: threading.Event = field(default_factory=threading.Event)
    outcome: Outcome | None = None
    message: str = ''

    def finish(self, outcome: Outcome, message: str = '') -> None:
        if self.outcome is None:
            self.outcome, self.message = outcome, message
            self.finished.set()


class ArmTrajectory:
    """Follows at most one trajectory with the joints of one arm, and holds still otherwise."""

    def __init__(self, arm: Arm):
        self.arm = arm
        self.desired: list[float] | None = None      # positions last commanded
        self.desired_velocity = [0.0] * len(arm.joints)
        self.streamed_at: int | None = None          # ns, stamp of the newest streamed trajectory; None: no stream
        self._heard_at = 0                           # ns, the time at which it came
        self.goal: TrajectoryGoal | None = None
        self._sampler: TrajectorySampler | None = None
        self._start = 0
        self._still = [0.0] * len(arm.joints)

    @property
    def moving(self) -> bool:
        return self._sampler is not None

    def follow(self, now: int, stamp: int, points: Sequence[tuple[float, Sequence[float], Sequence[float] | None]],
               goal: TrajectoryGoal | None = None) -> None:
        """Replace whatever runs by a trajectory; the way to its first point starts where the arm is sent now.

        now, stamp: ns, of the newest joint state and of the trajectory's start (0: now).
        points: (s from the start, positions, velocities or None) in the arm's joint order.
        Raises InvalidTrajectory; then the trajectory that runs goes on.
        """
        if self.desired is None:
            raise InvalidTrajectory(Outcome.INVALID_GOAL, 'no joint state has arrived yet, so nothing can move')
        self._check(points)
        start = stamp or now
        elapsed = (now - start) / SECOND
        ahead = [point for point in points if point[0] > elapsed]
        if not ahead:
            if goal is not None and len(points) > 1:
                raise InvalidTrajectory(
                    Outcome.OLD_HEADER_TIMESTAMP,
                    f'the trajectory ended {elapsed - points[-1][0]:.3f} s before the newest joint state')
            ahead = [(elapsed + 1e-3, points[-1][1], None)]
        if goal is not None:
            self._check_beginning(ahead[0][0] - elapsed, ahead[0][1])
        self._end_goal(Outcome.INVALID_GOAL, 'replaced by a new trajectory')
        times = [elapsed] + [point[0] for point in ahead]
        positions = [self.desired] + [point[1] for point in ahead]
        velocities = [self.desired_velocity] + [point[2] for point in ahead]
        self._sampler = TrajectorySampler(times, positions, velocities)
        self._start = start
        self.goal = goal

    def _check_beginning(self, seconds: float, positions: Sequence[float]) -> None:
        """Who planned from an old state would have the arm leap to where it was then."""
        for joint, target, present in zip(self.arm.joints, positions, self.desired):
            leap = abs(target - present)
            if leap > LONGEST_LEAP and leap > seconds * LEAP_SPEED:
                raise InvalidTrajectory(Outcome.INVALID_GOAL,
                                        f'{joint} is sent to {present:.3f} rad, but the trajectory begins at '
                                        f'{target:.3f} rad, {seconds:.3f} s later; plan it from the newest joint state')

    def _check(self, points) -> None:
        if not points:
            raise InvalidTrajectory(Outcome.INVALID_GOAL, 'the trajectory has no points')
        n = len(self.arm.joints)
        last = -1.0
        for time, positions, velocities in points:
            if len(positions) != n or (velocities is not None and len(velocities) != n):
                raise InvalidTrajectory(Outcome.INVALID_JOINTS,
                                        f'a point has {len(positions)} positions, the trajectory {n} joints')
            if not _all_finite(positions) or (velocities is not None and not _all_finite(velocities)):
                raise InvalidTrajectory(Outcome.INVALID_GOAL, f'the point at {time:.3f} s has a number that is not '
                                                              'finite')
            if time <= last:
                raise InvalidTrajectory(Outcome.INVALID_GOAL,
                                        f'time_from_start does not increase: {last:.3f} s, then {time:.3f} s')
            last = time

    def start_at(self, positions: Sequence[float], message: str) -> None:
        """Forget what ran and hold at measured positions."""
        self._end_goal(Outcome.INVALID_GOAL, message)
        self._sampler = None
        self.streamed_at = None
        self.desired = list(positions)
        self.desired_velocity = self._still

    def heard(self, now: int, stamp: int) -> None:
        """A streamed trajectory that answers the state of `stamp` came at `now` (ns)."""
        self.streamed_at, self._heard_at = stamp, now

    def awaits(self, stamp: int) -> bool:
        """Whether the stream goes on and its trajectory for `stamp` (ns) has not come yet.

        One that comes late keeps the stream alive: the world has to wait for who is behind, or nobody catches up.
        """
        if self.streamed_at is None or self.streamed_at >= stamp:
            return False
        if stamp - self._heard_at > STREAMING_WINDOW:
            self.streamed_at = None
        return self.streamed_at is not None

    def hold(self, message: str) -> None:
        """Stay where the arm is sent now."""
        self._end_goal(Outcome.INVALID_GOAL, message)
        self._sampler = None
        self.desired_velocity = self._still

    def _end_goal(self, outcome: Outcome, message: str) -> None:
        if self.goal is not None:
            self.goal.finish(outcome, message)
            self.goal = None

    def advance(self, now: int, ahead: int, positions: Sequence[float], velocities: Sequence[float]) -> None:
        """Judge the running goal by the state measured at `now` (ns) and set what is commanded for now + `ahead`."""
        sampler = self._sampler
        if sampler is None:
            return
        elapsed = (now - self._start) / SECOND
        if self.goal is not None:
            self._judge(elapsed, sampler, positions, velocities)
            if self._sampler is None:
                return
        self.desired, self.desired_velocity = sampler.sample(elapsed + ahead / SECOND)
        if self.goal is None and elapsed >= sampler.duration:
            self._sampler = None

    def _judge(self, elapsed, sampler, positions, velocities) -> None:
        goal = self.goal
        if elapsed < sampler.duration:
            expected = self.desired     # for this very instant: it was commanded one period ago
            for i, tolerance in enumerate(goal.path_tolerance):
                if tolerance > 0 and abs(positions[i] - expected[i]) > tolerance:
                    # Hold where the arm is, not where it was sent: something is in the way there.
                    self._finish_at(list(positions), Outcome.PATH_TOLERANCE_VIOLATED,
                                    f'{self.arm.joints[i]} is {abs(positions[i] - expected[i]):.3f} rad off its '
                                    f'path, more than the tolerance of {tolerance:.3f} rad; is the arm blocked?')
                    return
            return
        final = sampler.positions[-1]
        missed = None
        for i, tolerance in enumerate(goal.goal_tolerance):
            if tolerance > 0 and abs(positions[i] - final[i]) > tolerance:
                missed = f'{self.arm.joints[i]} is {abs(positions[i] - final[i]):.4f} rad from its goal, more than ' \
                         f'the tolerance of {tolerance:.4f} rad'
                break
            speed = goal.stopped_velocity[i]
            if speed > 0 and abs(velocities[i]) > speed:
                missed = f'{self.arm.joints[i]} still moves at {abs(velocities[i]):.3f} rad/s, more than the ' \
                         f'tolerance of {speed:.3f} rad/s'
                break
        if missed is None:
            self._finish_at(final, Outcome.SUCCESSFUL, '')
        elif goal.goal_time_tolerance > 0 and elapsed > sampler.duration + goal.goal_time_tolerance:
            self._finish_at(list(positions), Outcome.GOAL_TOLERANCE_VIOLATED,
                            f'{missed}, {elapsed - sampler.duration:.2f} s after the end of the trajectory')

    def _finish_at(self, positions, outcome, message) -> None:
        self.desired, self.desired_velocity = positions, self._still
        self._end_goal(outcome, message)
        self._sampler = None

    def progress(self, now: int) -> tuple[float, list[float], list[float], int]:
        """(s since the start, desired positions, desired velocities, index of the point headed for)."""
        if self._sampler is None:
            return 0.0, self.desired, self.desired_velocity, 0
        elapsed = (now - self._start) / SECOND
        # The first point of the sampler is where the arm came from, not one of the goal's.
        return elapsed, self.desired, self.desired_velocity, max(0, self._sampler.index(elapsed) - 1)


@dataclass
class GripperGoal:
    """A gripper goal (m a finger, N) and its end."""

    position: float
    max_effort: float
    started: int
    slow_since: int | None = None
    finished: threading.Event = field(default_factory=threading.Event)
    reached: bool = False
    stalled: bool = False
    message: str = ''

    def finish(self, *, reached: bool = False, stalled: bool = False, message: str = '') -> None:
        if not self.finished.is_set():
            self.reached, self.stalled, self.message = reached, stalled, message
            self.finished.set()


class GripperMotion:
    """Moves one gripper with limited force, and notices when it is there or something stops it."""

    def __init__(self, gripper: Gripper):
        self.gripper = gripper
        self.position: float | None = None      # commanded, m a finger
        self.effort = gripper.max_effort        # force limit, N
        self.measured = (0.0, 0.0, 0.0)         # position m, velocity m/s, effort N
        self.goal: GripperGoal | None = None

    def move(self, now: int, position: float, max_effort: float) -> GripperGoal:
        """Start a motion; one that runs ends as replaced. max_effort 0 means the station file's.

        Raises ValueError for a position out of the gripper's range or an effort that is not finite.
        """
        low, high = sorted((self.gripper.closed, self.gripper.open))
        if not low - 1e-6 <= position <= high + 1e-6:     # also refuses NaN
            raise ValueError(f'gripper position {position} m is out of range; expected {low} to {high} m a finger')
        if not 0 <= max_effort < float('inf'):
            raise ValueError(f'gripper effort {max_effort} N; expected a number from 0 (the station file\'s) upward')
        if self.goal is not None:
            self.goal.finish(message='replaced by a new gripper command')
        self.position = position
        self.effort = min(max_effort or self.gripper.max_effort, self.gripper.max_effort)
        self.goal = GripperGoal(position, self.effort, now)
        return self.goal

    def start_at(self, position: float, message: str) -> None:
        """Forget what ran and hold at the measured position."""
        if self.goal is not None:
            self.goal.finish(message=message)
            self.goal = None
        self.position = position
        self.effort = self.gripper.max_effort

    def stop(self, message: str) -> None:
        self.start_at(self.measured[0], message)

    def advance(self, now: int, position: float, velocity: float, effort: float) -> None:
        """Judge the running goal by a measured state."""
        self.measured = (position, velocity, effort)
        goal = self.goal
        if goal is None:
            return
        near = abs(position - goal.position) < GRIPPER_TOLERANCE
        slow = abs(velocity) < STALL_VELOCITY
        if not slow:
            goal.slow_since = None
        elif goal.slow_since is None:
            goal.slow_since = now
        if near and slow:
            goal.finish(reached=True)
        elif slow and now - goal.slow_since > STALL_TIME * SECOND:
            goal.finish(stalled=True)
        elif now - goal.started > GRIPPER_TIMEOUT * SECOND:
            goal.finish(message=f'the gripper was still moving after {GRIPPER_TIMEOUT:g} s')
        if goal.finished.is_set():
            self.goal = None


class StationMotion:
    """The trajectories and grippers of all arms of a station: one answer to every joint state."""

    def __init__(self, station: Station):
        self.joints = station.joints
        self.arms = {name: ArmTrajectory(arm) for name, arm in station.arms.items()}
        self.grippers = {name: GripperMotion(arm.gripper) for name, arm in station.arms.items()}
        self.now: int | None = None                  # ns, stamp of the newest joint state
        self._period = round(SECOND / station.control_rate)
        self._parts = []
        start = 0
        for name, arm in station.arms.items():
            end = start + len(arm.joints)
            self._parts.append((self.arms[name], self.grippers[name], start, end))
            start = end + 1
        self._last: Sequence[float] | None = None

    def observe(self, stamp: int, positions: Sequence[float], velocities: Sequence[float],
                efforts: Sequence[float]) -> str | None:
        """Take in a joint state (in the order of Station.joints; ns, rad, m).

        Returns why everything was stopped and holds now, or None.
        """
        if not _all_finite(positions):
            return self._hold_blindly(stamp, positions)
        reset = self._discontinuity(stamp, positions)
        self.now = stamp
        self._last = positions
        if reset is not None:
            for arm, gripper, start, end in self._parts:
                arm.start_at(positions[start:end], reset)
                gripper.start_at(positions[end], reset)
                gripper.measured = positions[end], velocities[end], efforts[end]
            return reset
        for _, gripper, _, end in self._parts:
            gripper.advance(stamp, positions[end], velocities[end], efforts[end])
        return None

    def _hold_blindly(self, stamp, positions) -> str:
        self.now = stamp
        joint = next(name for name, value in zip(self.joints, positions) if not _all_finite([value]))
        reason = f'{joint} is reported at a position that is not finite'
        for arm, gripper, _, _ in self._parts:
            arm.hold(reason)
            if gripper.position is not None:
                gripper.start_at(gripper.position, reason)
        return reason

    @property
    def ready(self) -> bool:
        """Whether there is anything to command: a first measured state."""
        return self._last is not None

    def _discontinuity(self, stamp, positions) -> str | None:
        if self._last is None:
            return 'the first joint state'
        if stamp <= self.now:
            return 'joint states went back in time'
        gap = (stamp - self.now) / SECOND
        if gap > MISSING:
            return f'joint states were missing for {gap:.2f} s'
        for name, old, new in zip(self.joints, self._last, positions):
            if abs(new - old) > JUMP:
                return f'{name} went from {old:.3f} to {new:.3f} rad between two joint states'
        return None

    @property
    def streamed(self) -> bool:
        """Whether an arm is being streamed to."""
        return any([arm.streamed_at is not None for arm in self.arms.values()])

    def awaits(self, stamp: int) -> bool:
        """Whether an arm is being streamed to whose trajectory for `stamp` (ns) has not come yet."""
        return any([arm.awaits(stamp) for arm in self.arms.values()])

    def command(self, positions: Sequence[float], velocities: Sequence[float]
                ) -> tuple[list[float], list[float], list[float]]:
        """(positions, velocities, efforts) that answer the state taken in last, in the order of Station.joints.

        Efforts are the force limits (N) of the finger joints, 0 for all others.
        """
        targets: list[float] = []
        speeds: list[float] = []
        efforts: list[float] = []
        for arm, gripper, start, end in self._parts:
            arm.advance(self.now, self._period, positions[start:end], velocities[start:end])
            targets += arm.desired
            targets.append(gripper.position)
            speeds += arm.desired_velocity
            speeds.append(0.0)
            efforts += arm._still
            efforts.append(gripper.effort)
        return targets, speeds, efforts


def _all_finite(values: Sequence[float]) -> bool:
    return all(-1e300 < value < 1e300 for value in values)
