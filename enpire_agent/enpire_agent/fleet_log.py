"""What travelled between a station and its fleet: one JSON line each in `fleet.jsonl` beside the ledger.

The events, each with `time` (s, wall clock since 1970) and `commit`:
kept (all of the recipe), push_failed, announced, fetched, missing, adopted, conflict, refused.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

FILE = 'fleet.jsonl'


class FleetLog:
    """One station's log of one campaign. What was appended survives a power cut; a torn last line is skipped."""

    def __init__(self, directory: Path | str):
        """directory: runs/<campaign>/<station>."""
        self.file = Path(directory) / FILE

    def append(self, event: str, **fields) -> dict:
        """Enter one event; it is on disk when this returns. Raises OSError."""
        entry = {'event': event, 'time': time.time(), **fields}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with open(self.file, 'ab') as stream:
            # A line of its own also after one that a power cut tore.
            start = b'\n' if stream.tell() and not self._ends_with_line() else b''
            stream.write(start + json.dumps(entry, ensure_ascii=False).encode('utf-8') + b'\n')
            stream.flush()
            os.fsync(stream.fileno())
        return entry

    def entries(self, event: str = '') -> list[dict]:
        """All events, or those of one kind, oldest first; empty when there is no log."""
        try:
            lines = self.file.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        entries = []
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and event in ('', entry.get('event')):
                entries.append(entry)
        return entries

    def _ends_with_line(self) -> bool:
        with open(self.file, 'rb') as stream:
            stream.seek(-1, os.SEEK_END)
            return stream.read(1) == b'\n'
