"""The ledger: one JSON line a trial, append-only, each line carrying the hash of the line before.

The score reads nothing else. A changed, removed or reordered line breaks the chain, and `verify` names it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from enpire_agent.durable_file import disk_full_explained, sync_directory, write_durably

FIRST = '0' * 64   # `previous` of the first line
_TAIL = 1 << 16     # bytes that are read at a time to find the last line

_log = logging.getLogger(__name__)


class LedgerError(ValueError):
    """The ledger's chain is broken, or a line cannot be entered."""


def canonical(entry: dict) -> bytes:
    """The one JSON text of `entry` that is hashed: sorted keys, no spaces, UTF-8.

    Raises LedgerError for a value that JSON cannot hold (NaN among them).
    """
    try:
        text = json.dumps(entry, sort_keys=True, separators=(',', ':'), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise LedgerError(f'a ledger line cannot hold this value: {error}') from error
    return text.encode('utf-8')


def line_hash(entry: dict) -> str:
    """SHA-256 (hex) of the line's canonical JSON without its own `hash`."""
    return hashlib.sha256(canonical({k: v for k, v in entry.items() if k != 'hash'})).hexdigest()


class Ledger:
    """One `ledger.jsonl`. Safe for several processes: every append holds the file's lock."""

    def __init__(self, file: Path | str):
        self.file = Path(file)

    def append(self, entry: dict) -> dict:
        """Enter one trial; returns the line with `previous` and `hash`, on disk (fsync) when this returns.

        A torn last line (power cut while writing) is moved aside to `ledger.jsonl.torn-...` first.
        Raises LedgerError when the last line is not what its hash says, or when `entry` is not JSON, and
        DiskFullError; the ledger is as it was then.
        """
        with disk_full_explained(self.file):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self._locked() as stream:
                self._move_torn_line_aside(stream)
                end = stream.seek(0, os.SEEK_END)
                last = self._last_line(stream, end)
                line = {**entry, 'previous': self._checked(last, 'the last line')['hash'] if last else FIRST}
                line['hash'] = line_hash(line)
                try:
                    _write_all(stream, canonical(line) + b'\n')
                    os.fsync(stream.fileno())
                except OSError:
                    stream.truncate(end)      # a part of a line would be of no use to anybody
                    raise
                if end == 0:
                    sync_directory(self.file.parent)
        return line

    def entries(self) -> list[dict]:
        """All complete lines, unverified (see `verify`); empty when there is no ledger yet."""
        try:
            content = self.file.read_bytes()
        except FileNotFoundError:
            return []
        complete = content[:content.rfind(b'\n') + 1]
        return [self._parsed(line, f'line {number}') for number, line in enumerate(complete.splitlines(), 1)]

    def verify(self) -> list[dict]:
        """Walk the chain and return its lines.

        Raises LedgerError naming the first bad line.
        """
        try:
            content = self.file.read_bytes()
        except FileNotFoundError as error:
            raise LedgerError(f'{self.file}: no ledger there; run a trial first') from error
        if content and not content.endswith(b'\n'):
            number = content.count(b'\n') + 1
            raise LedgerError(f'{self.file}: line {number} is torn (no end of line): a write was cut off. The next '
                              f'trial moves it aside')
        previous, entries, entered = FIRST, [], {}
        for number, line in enumerate(content.splitlines(), 1):
            entry = self._checked(line, f'line {number}')
            if entry.get('previous') != previous:
                raise LedgerError(
                    f'{self.file}: line {number} does not follow line {number - 1}: its `previous` is '
                    f'{str(entry.get("previous"))[:12]}..., expected {previous[:12]}... (a line was removed, '
                    f'added or reordered here)')
            if entry.get('trial_id') in entered:
                raise LedgerError(f'{self.file}: line {number} enters trial {entry["trial_id"]}, which line '
                                  f'{entered[entry["trial_id"]]} has entered already: somebody added one of them')
            if 'trial_id' in entry:
                entered[entry['trial_id']] = number
            previous = entry['hash']
            entries.append(entry)
        return entries

    @contextmanager
    def _locked(self) -> Iterator:
        with open(self.file, 'a+b', buffering=0) as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield stream

    @staticmethod
    def _last_line(stream, end: int) -> bytes:
        """The last complete line of a file of `end` bytes that ends with one; empty for an empty file."""
        tail, start = b'', end
        while start > 0 and b'\n' not in tail[:-1]:
            size = min(_TAIL, start)
            start -= size
            stream.seek(start)
            tail = stream.read(size) + tail
        return tail[:-1].rpartition(b'\n')[2]

    def _move_torn_line_aside(self, stream) -> None:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - 1))
        if size == 0 or stream.read(1) == b'\n':
            return
        stream.seek(0)
        content = stream.read()
        end = content.rfind(b'\n') + 1
        aside = self.file.with_name(f'{self.file.name}.torn-{time.strftime("%Y%m%dT%H%M%S")}-{os.getpid()}')
        write_durably(aside, content[end:])
        stream.truncate(end)
        _log.error('%s: the last line was torn (%d bytes, a write was cut off); moved aside to %s',
                   self.file, len(content) - end, aside)

    def _parsed(self, line: bytes, place: str) -> dict:
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise LedgerError(f'{self.file}: {place} is not JSON ({error})') from error
        if not isinstance(entry, dict):
            raise LedgerError(f'{self.file}: {place} is not a mapping')
        return entry

    def _checked(self, line: bytes, place: str) -> dict:
        entry = self._parsed(line, place)
        if entry.get('hash') != line_hash(entry):
            raise LedgerError(f'{self.file}: {place} (trial {entry.get("trial_id", "?")}) was changed: '
                              f'its content does not give its hash')
        return entry


def _write_all(stream, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[stream.write(view):]
