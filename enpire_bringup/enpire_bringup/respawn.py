"""When a process that ended by itself is started again, and when no more."""

from __future__ import annotations

import time
from typing import Callable

FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0     # s before the first respawn; each further one waits twice as long
HEALTHY_AFTER = 60.0                       # s that a process must run before the delays begin anew
MOST_CRASHES, CRASH_WINDOW = 8, 600.0      # this many within so many s: give up


class Respawn:
    """Counts the crashes of one process. `restarts`: how often it was started again so far."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.restarts = 0
        self._clock = clock
        self._crashes: list[float] = []
        self._in_a_row = 0
        self._started = clock()
        self._due: float | None = None

    def started(self) -> None:
        """Note a start of the process."""
        if self._due is not None:
            self.restarts += 1
            self._due = None
        self._started = self._clock()

    def crashed(self) -> float | None:
        """Note the end of the process; the delay (s) until it is to be started again, None to give up."""
        now = self._clock()
        self._crashes = [past for past in self._crashes if now - past < CRASH_WINDOW] + [now]
        if len(self._crashes) >= MOST_CRASHES:
            return None
        if now - self._started > HEALTHY_AFTER:
            self._in_a_row = 0
        delay = min(FIRST_DELAY * 2 ** self._in_a_row, LONGEST_DELAY)
        self._in_a_row += 1
        self._due = now + delay
        return delay

    @property
    def waiting(self) -> bool:
        """True from a crash until the start that follows it."""
        return self._due is not None

    @property
    def due(self) -> bool:
        """True when a crashed process is to be started now."""
        return self._due is not None and self._clock() >= self._due
