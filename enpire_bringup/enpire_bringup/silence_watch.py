"""Notices an input that stopped. Wall time: a stopped simulation stops its clock, too."""

from __future__ import annotations

import time
from typing import Callable


class SilenceWatch:
    """Call `heard` for every message and `check` now and then.

    limit: s without a message that count as silence; first: the same before the first message ever, while the
    other nodes are still starting. repeat: s between reports of a silence that lasts.
    """

    def __init__(self, limit: float = 1.0, first: float = 10.0, repeat: float = 5.0,
                 clock: Callable[[], float] = time.monotonic):
        self._limit, self._first, self._repeat, self._clock = limit, first, repeat, clock
        self._last = self._checked = clock()
        self._heard_any = False
        self._reported: float | None = None

    def heard(self) -> float:
        """Note a message. Seconds of the silence that it ends, 0.0 when there was none worth a report."""
        now = self._clock()
        gap = now - self._last if self._reported is not None else 0.0
        self._last, self._heard_any, self._reported = now, True, None
        return gap

    @property
    def silent(self) -> bool:
        return self._clock() - self._last > (self._limit if self._heard_any else self._first)

    def check(self, paused: bool = False) -> float | None:
        """Seconds of silence when it is time to report one, else None.

        paused: nothing was to be expected since the last check; that time does not count.
        """
        now = self._clock()
        if paused:
            self._last = min(now, self._last + now - self._checked)
        self._checked = now
        if not self.silent or (self._reported is not None and now - self._reported < self._repeat):
            return None
        self._reported = now
        return now - self._last


class WorldWatch:
    """Tells whether a world in lockstep stands still: it may, for as long as somebody computes."""

    def __init__(self, lockstep: bool):
        self._lockstep = lockstep
        self._stamp: int | None = None

    def waits(self, stamp: int | None) -> bool:
        """Whether the newest joint state (its stamp, ns) is still that of the last call; never where a clock paces it."""
        before, self._stamp = self._stamp, stamp
        return self._lockstep and stamp == before
