"""Moves of several arms at once that cannot meet: who goes where, and who waits. No ROS.

A move is planned clear of everything that the other arms occupy: where they are, where they were sent, and every place
on the rest of their running trajectories, whenever they may be there. So an arm may be slow, stop, or be cancelled on
its way, and is still not met. Where that leaves no way, the later move waits until the other arm has ended its own.
"""

from __future__ import annotations

import threading
import time
from typing import Callable, Sequence

import numpy as np

from enpire_bringup.arm_extent import ArmExtent
from enpire_bringup.motion_planning import Plan, PlanningError
from enpire_bringup.path_planner import NoPathError
from enpire_bringup.station import Station
from enpire_bringup.trajectory import JointTrajectory

SPACING = 0.02             # m that any point of an arm moves at most between two looks at its way
BEHIND = 0.3               # s by which the place of a running arm may be behind what was heard of it
LONGEST_WAIT = 60.0        # s of wall time that a move waits for others
POLL_PERIOD = 0.1          # s between looks whether the waiting move was cancelled


class SharedSpace:
    """The arms of one station. Thread-safe."""

    def __init__(self, station: Station):
        self._slices = {name: station.arm_slice(name) for name in station.arms}
        self._reach = {name: ArmExtent(station, name).reach for name in station.arms}
        self._planning = threading.Lock()           # planning and entering what was planned is one step
        self._changed = threading.Condition()
        self._running: dict[str, JointTrajectory] = {}
        self._elapsed: dict[str, float] = {}        # s since the start; written by the executor, which must not wait

    def begin(self, arm: str, plan: Callable[[np.ndarray], Plan],
              present: Callable[[], Sequence[np.ndarray]], cancelled: Callable[[], str],
              waits: Callable[[str], None] = lambda reason: None) -> Plan:
        """Plan a move of `arm` and enter it as running, in one step.

        plan(positions (k, n)): joint positions of the whole station that it has to keep clear of, the present ones
        first. present: joint positions (n,) of the whole station at which it may be now, measured first.
        cancelled: '' or why the wait for another arm is to end. waits(reason): the move begins to wait.
        Raises what `plan` raises, and PlanningError when the wait ends.
        """
        deadline = time.monotonic() + LONGEST_WAIT
        told = False
        while True:
            with self._planning:
                others = sorted(self._running.keys() - {arm})
                try:
                    result = plan(self.occupied(arm, present()))
                    with self._changed:
                        self._elapsed[arm] = 0.0
                        self._running[arm] = result.trajectory
                    return result
                except (PlanningError, NoPathError) as raised:
                    if not others:
                        raise
                    error = raised
            if not told:
                waits(f'{arm} waits for the move of {" and ".join(others)} to end: {error}')
                told = True
            self._wait(others, error, deadline, cancelled)

    def _wait(self, others: list[str], error: Exception, deadline: float, cancelled: Callable[[], str]) -> None:
        """Until one of the other arms has ended its move. Raises PlanningError."""
        with self._changed:
            while set(others) <= self._running.keys():
                reason = cancelled()
                if not reason and time.monotonic() > deadline:
                    reason = f'that move did not end within {LONGEST_WAIT:g} s'
                if reason:
                    raise PlanningError(f'{error} (it waited for the move of {" and ".join(others)}: {reason})'
                                        ) from error
                self._changed.wait(POLL_PERIOD)

    def progressed(self, arm: str, elapsed: float) -> None:
        """The running move of an arm is `elapsed` s after its start."""
        self._elapsed[arm] = elapsed

    def end(self, arm: str) -> None:
        """The move of an arm has ended, and it stands."""
        with self._changed:
            self._running.pop(arm, None)
            self._changed.notify_all()

    def occupied(self, arm: str, present: Sequence[np.ndarray]) -> np.ndarray:
        """Joint positions (k, n) of the whole station that `arm` has to keep clear of, the present ones first."""
        rows = [np.array(positions, float) for positions in present]
        for name, trajectory in list(self._running.items()):
            if name == arm:
                continue
            begin = int(np.searchsorted(trajectory.times, self._elapsed[name] - BEHIND))
            for q in self._places(name, trajectory.positions[min(begin, len(trajectory.times) - 1):]):
                row = rows[0].copy()
                row[self._slices[name]] = q
                rows.append(row)
        return np.array(rows)

    def _places(self, arm: str, path: np.ndarray) -> np.ndarray:
        """Points (k, n) of a path, no point of the arm moving farther than SPACING between two of them."""
        lengths = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(path, axis=0)) @ self._reach[arm])])
        at = np.linspace(0.0, lengths[-1], max(2, int(np.ceil(lengths[-1] / SPACING)) + 1))
        return np.column_stack([np.interp(at, lengths, column) for column in path.T])
