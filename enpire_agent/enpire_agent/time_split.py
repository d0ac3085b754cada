"""Where the time of a campaign goes: Mean Robot Utilization (MRU) and the rest of it."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import Callable, Iterator, Mapping

RESETTING, RUNNING, TRAINING, THINKING, HELD = ACTIVITIES = ('resetting', 'running', 'training', 'thinking', 'held')


class TimeSplit:
    """A stopwatch with one hand: every moment of wall time belongs to exactly one activity.

    resetting: a trial's reset; running: the rest of a trial (policy, retreat, verdict, records); training: inside
    `training()`; held: waiting between trials while the station is held; thinking: everything else, that is the
    researcher, Git, the supervisor's own work and waiting for a station that is not ready. Safe for several threads.
    """

    def __init__(self, before: Mapping[str, float] | None = None, clock: Callable[[], float] = time.monotonic):
        """before: s of each activity in earlier sessions."""
        self._clock = clock
        self._lock = threading.Lock()
        self._totals = {activity: (before or {}).get(activity, 0.0) for activity in ACTIVITIES}
        self._activity = THINKING
        self._since = clock()

    def switch(self, activity: str) -> None:
        """From now on it is this activity."""
        with self._lock:
            self._count()
            self._activity = activity

    @contextmanager
    def during(self, activity: str) -> Iterator[None]:
        """This activity inside, the one before afterwards, whatever was switched to inside."""
        before = self._activity
        self.switch(activity)
        try:
            yield
        finally:
            self.switch(before)

    @property
    def activity(self) -> str:
        return self._activity

    @property
    def totals(self) -> dict[str, float]:
        """s of wall time of each activity so far."""
        with self._lock:
            self._count()
            return dict(self._totals)

    def _count(self) -> None:
        now = self._clock()
        self._totals[self._activity] += now - self._since
        self._since = now


def robot_utilization(split: Mapping[str, float]) -> float:
    """MRU: share of a campaign's wall time in trials and their resets, 0..1; time held counts against it."""
    total = sum(split.values())
    return (split.get(RESETTING, 0.0) + split.get(RUNNING, 0.0)) / total if total > 0 else 0.0


def token_utilization(tokens: int, split: Mapping[str, float]) -> float:
    """MTU: tokens a minute of campaign wall time."""
    total = sum(split.values())
    return 60.0 * tokens / total if total > 0 else 0.0
