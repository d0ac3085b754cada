"""All arms of a station behind the safety guard: joint states and servo targets in, stream commands out. No ROS.

A refused target is a hold that ends with the next good one. A violation stops every arm and latches until `clear`.
Time is the stamp of the joint states, in integer nanoseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Sequence

import numpy as np

from enpire_bringup.arm_motion import ArmMotion, ServoCommand
from enpire_bringup.guard import GuardRefusal, Violation
from enpire_bringup.safety_limits import SafetyLimits
from enpire_bringup.state_guard import StateGuard, Stop
from enpire_bringup.station import Station

SECOND = 1_000_000_000
LONGEST_AHEAD = 1.0     # s that a target may be ahead of the joint states where the world waits for its answer
STILL_MOVING = 0.15     # rad/s of a stopped arm at which it is told again to stop
WAY_OUT = 'call the service guard/clear when that is resolved'


@dataclass(frozen=True)
class ServoTarget:
    """A streamed target: TCP pose (4, 4), m, in `frame`, that answers the joint state of `stamp` (ns)."""

    pose: np.ndarray
    frame: str
    stamp: int


@dataclass(frozen=True)
class GuardStatus:
    """What the guard says. state: "ok", "refused" (ends with the next good target), "silent" (joint states are
    away), "latched" (a violation; until clear)."""

    state: str
    message: str
    violation: Violation | None = None


class GuardedArms:
    """Arms by name, and the guard's state.

    send(arm, command, stamp): publishes a stream command; stamp (ns) of the state it answers, 0: at once.
    changed(status): called when the status is another one.
    busy(arm): whether a planned move of this arm runs; servo targets are refused then.
    lockstep: the world waits for answers, so a target may be ahead of the joint states that are on their way.
    """

    def __init__(self, station: Station, limits: SafetyLimits, *, send: Callable[[str, ServoCommand, int], None],
                 changed: Callable[[GuardStatus], None], busy: Callable[[str], bool] = lambda name: False,
                 lockstep: bool = False):
        self._station = station
        self.arms = {name: ArmMotion(station, name, limits) for name in station.arms}
        self._watch = StateGuard(station, limits)
        self._limits = limits
        self._slices = {name: station.arm_slice(name) for name in station.arms}
        self._send, self._changed, self._busy = send, changed, busy
        self._lockstep = lockstep
        self._stamp: int | None = None
        self._latched: Violation | None = None
        self._unusable = ''                                # why the newest state cannot be used
        self._silence = 'no joint state has arrived yet'
        self._refusals = dict.fromkeys(station.arms, '')
        self._early: dict[str, ServoTarget] = {}           # targets whose joint state has not arrived yet
        self._answered: dict[str, int] = {}                # stamp of the newest target
        self._stopping: dict[str, Stop] = {}              # where the arms were stopped
        self._status = GuardStatus('silent', self._silence)

    # -- what it knows

    @property
    def status(self) -> GuardStatus:
        return self._status

    @property
    def fault(self) -> str:
        """Why everything holds until `clear`; empty when it does not."""
        return str(self._latched) if self._latched is not None else ''

    @property
    def positions(self) -> np.ndarray | None:
        """(n,) of all joints of the station in the newest usable state."""
        return self._watch.positions

    @property
    def limits(self) -> SafetyLimits:
        return self._limits

    @limits.setter
    def limits(self, limits: SafetyLimits) -> None:
        self._limits = self._watch.limits = limits
        for arm in self.arms.values():
            arm.limits = limits

    # -- joint states

    def observe(self, stamp: int, positions: Sequence[float], velocities: Sequence[float],
                efforts: Sequence[float]) -> None:
        """Take in a joint state, in the order of Station.joints; rad, rad/s, N m (m and N for grippers)."""
        if self._stamp is not None and stamp <= self._stamp:
            if stamp > self._stamp - SECOND:
                return      # repeated, or overtaken on the way
            self._start_again()
        self._stamp = stamp
        now = stamp / SECOND
        streaming = [name for name, arm in self.arms.items() if arm.streaming]
        violation = self._watch.observe(now, positions, velocities, efforts, streaming)
        self._unusable = str(violation) if violation is not None and violation.limit.startswith('missing') else ''
        if self._unusable:
            self._latch(violation)
            return
        for name, arm in self.arms.items():
            arm.observe(now, positions[self._slices[name]])
            arm.tip_force = self._watch.tip_force(name)
        if self._silence:
            self._silence = ''
            self._publish()
        if violation is not None:
            self._latch(violation)
        if self._latched is not None:
            self._keep_stopped()
        self._serve_streams(stamp)

    def _start_again(self) -> None:
        """The clock went back, so this is another world: nothing of the old one goes on."""
        self._early.clear()
        self._answered.clear()
        self._watch.allow_present()
        for arm in self.arms.values():
            arm.sent(None)

    def _serve_streams(self, stamp: int) -> None:
        for name, arm in self.arms.items():
            early = self._early.get(name)
            if early is not None and early.stamp <= stamp:
                self._answer(name, self._early.pop(name))
            broken = arm.stream_broke_off()
            if broken is not None:
                self._latch(broken)

    def lacks(self, missing: Sequence[str]) -> None:
        """A joint state came that says nothing of these joints."""
        self._unusable = f'joint_states lack {", ".join(missing)}'
        self._latch(Violation('missing joint', '', self._unusable))

    def stale(self, age: float) -> None:
        """The newest joint state is `age` s old, and more should have come."""
        if any(not self._watch.standing(name) for name in self.arms) or any(
                arm.streaming or self._busy(name) for name, arm in self.arms.items()):
            self._latch(Violation('stale_state', '', f'no joint state for {age:.3f} s while an arm moves; the limit '
                                  f'is {self._limits.stale_state:g} s', age, self._limits.stale_state, 's'))

    def silent(self, reason: str) -> None:
        """Joint states stay away; ends when they are back."""
        self._silence = reason
        self._publish()

    # -- servo

    def servo(self, name: str, target: ServoTarget) -> None:
        """A streamed target of an arm. At most one answers a joint state; more of them are dropped unseen."""
        if self._stamp is None or self._watch.positions is None:
            return
        if target.stamp <= self._answered.get(name, -1):
            return
        ahead = (target.stamp - self._stamp) / SECOND
        if 0.0 < ahead <= (LONGEST_AHEAD if self._lockstep else self._limits.stale_state):
            # Joint states come several times as often: a target may overtake the ones that lead up to its own.
            self._early[name] = target
            return
        self._answer(name, target)

    def malformed(self, name: str, stamp: int, reason: str) -> None:
        """A streamed target that cannot even be read: a hold."""
        if self._watch.positions is not None:
            self._reply(name, self.arms[name].hold(refusal=reason), stamp)

    def _answer(self, name: str, target: ServoTarget) -> None:
        if self._busy(name):
            self._refuse(name, f'{name}: servo target while a planned move runs; ignored')
            return
        arm = self.arms[name]
        if self._latched is not None:
            self._reply(name, self._stop_command(name), target.stamp)
        else:
            self._reply(name, arm.servo(target.pose, target.frame, target.stamp / SECOND, self._watch.positions),
                        target.stamp)

    def _reply(self, name: str, command: ServoCommand, stamp: int) -> None:
        # A hold is sent as well: in lockstep the world waits for an answer to every servo target.
        ahead = stamp > self._stamp
        self._send(name, command, 0 if ahead else stamp)
        if not ahead:
            self._answered[name] = stamp
        if command.violation is not None:
            self._latch(command.violation)
        elif self._latched is None:
            self._refuse(name, command.refusal)

    def _refuse(self, name: str, reason: str) -> None:
        if self._refusals[name] != reason:
            self._refusals[name] = reason
            self._publish()

    def moved(self, name: str) -> None:
        """A planned move of an arm has ended well: what was refused before is past."""
        self._refuse(name, '')

    def check_gripper(self, name: str, width: float, max_force: float) -> None:
        """Raise GuardRefusal for a gripper command that is malformed, beyond the gripper, while all holds, or while
        joint states are away.

        width (m between the fingers) and max_force (N on each finger; 0: the station file's).
        """
        gripper = self._station.arms[name].gripper
        if self._latched is not None:
            raise GuardRefusal(f'the guard holds: {self.fault}; {WAY_OUT}')
        if self._silence:
            raise GuardRefusal(f'{name}: no gripper moves unseen: {self._silence}')
        if not -1e-6 <= width <= gripper.opening + 1e-6:
            raise GuardRefusal(f'{name}: gripper width {width} m; expected 0 to {gripper.opening:g} m between the '
                               'fingers')
        if not 0.0 <= max_force <= gripper.max_effort:
            raise GuardRefusal(f'{name}: gripper force {max_force} N; expected up to {gripper.max_effort:g} N, or 0 '
                               "for the station file's")

    # -- stopping

    def _latch(self, violation: Violation) -> None:
        """Stop everything until `clear`. Only the first violation is told: others are what follows from it."""
        if self._latched is not None:
            return
        if self._watch.positions is None:
            # Nothing has moved yet that could be stopped, and drivers come up one after the other.
            self.silent(str(violation))
            return
        self._latched = violation
        self._refusals = dict.fromkeys(self._refusals, '')
        self._early.clear()
        for name in self.arms:
            self._stop(name)
        self._publish()

    def _stop(self, name: str) -> None:
        stop = self._watch.stop(name)
        if stop is None:
            return
        arm = self.arms[name]
        if self._watch.standing(name) and not self._latched.presses and arm.positions is not None:
            # Where it was sent: an arm that is sent to where it hangs sinks each time.
            stop = Stop(arm.start(), stop.duration)
        self._stopping[name] = stop
        arm.sent(stop.positions)
        self._send(name, self._stop_command(name), 0)

    def _stop_command(self, name: str) -> ServoCommand:
        stop = self._stopping[name]
        return ServoCommand(stop.positions, np.zeros(len(stop.positions)), stop.duration)

    def _keep_stopped(self) -> None:
        """Say it again as long as an arm moves: somebody else may command it."""
        for name in self._stopping:
            if float(np.abs(self._watch.velocities[self._slices[name]]).max()) > STILL_MOVING:
                self._send(name, self._stop_command(name), 0)

    def clear(self) -> tuple[bool, str]:
        """(whether everything may go on, what was cleared or why not). Refused while the cause can be seen to last."""
        if self._latched is None:
            return True, 'nothing to clear'
        if self._unusable:
            return False, f'not cleared: {self._unusable}; repair that first'
        moving = [name for name in self.arms if not self._watch.standing(name)]
        if moving:
            return False, f'not cleared: {", ".join(moving)} still moves; call guard/clear again when it stands'
        message = f'cleared: {self.fault}'
        self._latched = None
        self._stopping.clear()
        self._watch.allow_present()
        self._publish()
        return True, message

    def _publish(self) -> None:
        refusal = next(filter(None, self._refusals.values()), '')
        if self._latched is not None:
            status = GuardStatus('latched', self.fault, self._latched)
        elif self._silence:
            status = GuardStatus('silent', self._silence)
        else:
            status = GuardStatus('refused', refusal) if refusal else GuardStatus('ok', 'ok')
        if status != self._status:
            self._status = status
            self._changed(status)
