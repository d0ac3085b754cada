"""How far a station's ROS time has come, on disk: a world that is started again goes on from there, never back to 0."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import psutil

WRITE_PERIOD = 0.5          # s of wall time between two records
MARGIN = 2.0                # s of ROS time beyond the newest record, times how fast the world ran: what it may not hold


class ClockRecord:
    """The record of one station in `file`, for one run of it: until what keeps its processes up (the parent) ends.

    Times are stamps in ns of ROS time.
    """

    def __init__(self, file: Path):
        self._file = file
        self._written = -1.0     # monotonic s
        self._pace = 1.0         # ROS s a wall s, at its fastest since the start
        self._last: tuple[float, int] | None = None

    def continues_at(self) -> int:
        """A time that the world before this one cannot have reached; 0 when it was kept up by somebody else."""
        try:
            record = json.loads(self._file.read_text())
            if record['run'] != _run():
                return 0
            return int(record['stamp'] + MARGIN * max(1.0, record['pace']) * 1e9)
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    def note(self, stamp: int) -> None:
        """Record the time now and then; call it at every tick."""
        now = time.monotonic()
        if now - self._written < WRITE_PERIOD:
            return
        if self._last is not None:
            self._pace = max(self._pace, (stamp - self._last[1]) * 1e-9 / (now - self._last[0]))
        self._written, self._last = now, (now, stamp)
        beside = self._file.with_name(f'.{self._file.name}.part')
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text(json.dumps({'stamp': stamp, 'pace': self._pace, 'run': _run()}))
            os.replace(beside, self._file)
        except OSError:
            pass     # a full disk must not stop the world; other parts say that it is full


def _run() -> list:
    """What tells one run of a station from another: the process that keeps its processes up, and when that began."""
    parent = os.getppid()
    try:
        return [parent, psutil.Process(parent).create_time()]
    except psutil.Error:
        return [parent, 0.0]
