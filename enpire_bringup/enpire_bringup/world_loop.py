"""The tick loop of the simulated world: publish the state, wait for its command, step, keep the pace."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, field
from typing import Callable, Mapping, Sequence

from enpire_bringup.station import Station
from enpire_bringup.world import World

IDLE_AFTER = 0.3          # s of world time without a changed command
FREE_PACE = 4.0           # times the wall clock in lockstep while nobody streams: who watches a move can follow that
ANSWER_MARGIN = 0.25      # s on top of step_timeout: the controller's own bound has to pass first
START_PATIENCE = 10.0     # s of wall time that the first command may take before somebody should know
MAX_LAG = 0.1             # s behind the wall clock that a paced world makes up for; in lockstep nothing is made up for


class CommandError(ValueError):
    """A joint command that the world does not carry out."""


@dataclass(frozen=True)
class Command:
    """Targets of one joint command: rad and m, N, rad/s."""

    positions: Mapping[str, float] = field(default_factory=dict)
    efforts: Mapping[str, float] = field(default_factory=dict)
    velocities: Mapping[str, float] = field(default_factory=dict)


def read_command(station: Station, names: Sequence[str], positions: Sequence[float],
                 velocities: Sequence[float] = (), efforts: Sequence[float] = ()) -> Command:
    """The command in the fields of a sensor_msgs/JointState.

    Velocities are those of the targets. An effort counts for gripper joints, as their force limit; 0 or NaN
    leaves the limit as it is. Raises CommandError naming the joint.
    """
    if len(names) != len(positions) or any(len(v) not in (0, len(names)) for v in (velocities, efforts)):
        raise CommandError(
            f'joint command with {len(names)} names, {len(positions)} positions, {len(velocities)} velocities '
            f'and {len(efforts)} efforts; expected as many of each, or none')
    known = set(station.joints)
    for i, name in enumerate(names):
        if name not in known:
            raise CommandError(f"joint command for '{name}', which this station does not have; known: "
                               + ', '.join(station.joints))
        if not math.isfinite(positions[i]):
            raise CommandError(f'joint command of {positions[i]} for {name}; expected a finite position')
        if len(velocities) and not math.isfinite(velocities[i]):
            raise CommandError(
                f'joint command with velocity {velocities[i]} for {name}; expected a finite one')
    grippers = {arm.gripper.joint for arm in station.arms.values()}
    return Command(
        positions={name: float(p) for name, p in zip(names, positions)},
        efforts={name: float(e) for name, e in zip(names, efforts)
                 if name in grippers and math.isfinite(e) and e > 0},
        velocities={name: float(v) for name, v in zip(names, velocities)})


class WorldLoop:
    """Runs a world in a thread of its own.

    publish(world): called at every tick before the world steps; must not block.
    warn(text): called when a command did not come in time, once until one comes again.
    failed(error): called in the loop's thread when the world cannot go on; the loop has ended then.
    streamed(): whether a policy streams to the controller, which then waits for each of its steps.

    real_time_factor 0 is lockstep: each tick waits for the command that answers it, see docs/architecture.md.
    """

    def __init__(self, world: World, publish: Callable[[World], None], warn: Callable[[str], None],
                 failed: Callable[[Exception], None], streamed: Callable[[], bool] = lambda: False):
        self._world = world
        self._publish = publish
        self._warn = warn
        self._failed = failed
        self._streamed = streamed
        station = world.station
        self._lockstep = station.real_time_factor == 0
        self._tick_duration = world.period / (station.real_time_factor or 1.0)
        self._patience = station.step_timeout + ANSWER_MARGIN
        self._condition = threading.Condition()
        self._command = Command()
        self._answered = -1          # stamp (ns) of the newest command
        self._commands = 0           # how many came
        self._restarts = 0
        self._reset_at = 0           # ns of world time at which the newest reset ended
        self._changed_at = 0         # ns of world time at which the command last changed
        self._stopping = False
        self._next_tick = 0.0        # monotonic s
        self._thread = threading.Thread(target=self._run, name='world loop', daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the loop; returns when it has ended (at most 1 s)."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout=1.0)

    def command(self, stamp_ns: int, command: Command | None) -> None:
        """The answer to the state of `stamp_ns`; None: it says nothing usable, so the last one holds."""
        with self._condition:
            if 0 < stamp_ns < self._reset_at:
                return      # on its way while the world was reset: it leads to where the arms were before
            # A stamp from the future answers the present and nothing more: the world has to wait again.
            self._answered = max(self._answered, min(stamp_ns, self._world.stamp_ns))
            self._commands += 1
            if command is not None and command != self._command:
                self._command = command
                self._changed_at = self._world.stamp_ns
            self._condition.notify_all()

    def reset_world(self, seed: int, object_pose: Sequence[float] | None = None) -> None:
        """Put the world back to `seed` (see World.reset), between two ticks; the commands so far no longer hold."""
        with self._condition:
            self._world.reset(seed, object_pose)
            self._command = Command()
            self._changed_at = self._reset_at = self._world.stamp_ns
            self._restarts += 1
            self._condition.notify_all()

    def _run(self) -> None:
        try:
            self._next_tick = started = time.monotonic()
            present = self._commands > 0   # whether somebody answers; the world does not wait for nobody
            while not self._stopping:
                with self._condition:
                    if started and not present and time.monotonic() > started + START_PATIENCE:
                        self._warn_of_silence(START_PATIENCE)
                        started = None
                    restarts = self._restarts
                    stamp = self._world.stamp_ns
                    before = self._commands
                    self._publish(self._world)
                    if self._lockstep and present:
                        present = self._wait_for_answer(stamp, restarts)
                    if not self._lockstep:
                        self._keep_pace(restarts, self._tick_duration, MAX_LAG)
                    elif not present or self._idle():
                        self._keep_pace(restarts, self._tick_duration, 0.0)
                    elif not self._streamed():
                        self._keep_pace(restarts, self._tick_duration / FREE_PACE, 0.0)
                    else:
                        self._next_tick = time.monotonic()
                    if not present:
                        present = self._commands > before
                        started = None if present else started
                    if self._restarts == restarts and not self._stopping:
                        command = self._command
                        self._world.step(command.positions, command.efforts, command.velocities)
        except Exception as error:
            if not self._stopping:
                self._failed(error)

    def _idle(self) -> bool:
        return self._world.stamp_ns - self._changed_at >= IDLE_AFTER * 1e9

    def _wait_for_answer(self, stamp: int, restarts: int) -> bool:
        """Whether the command for `stamp` came in time."""
        done = self._condition.wait_for(
            lambda: self._answered >= stamp or self._stopping or self._restarts != restarts, self._patience)
        if not done:
            self._warn_of_silence(self._patience)
        return done

    def _warn_of_silence(self, waited: float) -> None:
        self._warn(f'no joint command for the state of {self._world.stamp_ns * 1e-9:.2f} s within {waited:.2f} '
                   's; the world goes on with the last one, at the pace of the wall clock. '
                   'Is the trajectory controller running?')

    def _keep_pace(self, restarts: int, tick_duration: float, max_lag: float) -> None:
        now = time.monotonic()
        self._next_tick += tick_duration
        if now > self._next_tick + max_lag:
            self._next_tick = now
            return
        # Commands may come in while this waits: the condition is released.
        self._condition.wait_for(lambda: self._stopping or self._restarts != restarts,
                                 max(0.0, self._next_tick - now))
