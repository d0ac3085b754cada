"""Rates, ages and latencies of topics, from what arrives while one listens. No ROS."""

from __future__ import annotations

import numpy as np


class TopicWatch:
    """Arrivals on one topic. steady: it flows at all times, so that silence is a problem."""

    def __init__(self, steady: bool = False):
        self.steady = steady
        self.begin(0.0)
        self._last: float | None = None

    def begin(self, now: float) -> None:
        """Count from now (s of wall time) on."""
        self._since = now
        self._count = 0
        self._latencies: list[float] = []

    def heard(self, now: float, stamp: float | None = None, ros_now: float | None = None) -> None:
        """Note a message that arrived at `now` (s of wall time), stamped at `stamp` while ROS time was `ros_now` (s)."""
        self._last = now
        self._count += 1
        if stamp is not None and ros_now is not None:
            self._latencies.append(max(0.0, ros_now - stamp))

    def figures(self, now: float) -> dict:
        """rate (Hz of wall time), age (s, None before the first message), latency_ms (p50 and max, or None)."""
        latency = None
        if self._latencies:
            latency = {'p50': round(1e3 * float(np.median(self._latencies)), 1),
                       'max': round(1e3 * max(self._latencies), 1)}
        return {'rate': round(self._count / max(now - self._since, 1e-9), 1),
                'age': None if self._last is None else round(max(0.0, now - self._last), 3),
                'latency_ms': latency, 'silent': self.steady and self._count == 0}
