"""A coding agent's process: its output line by line, bounds on what it and its tools take, and the end of all of them.

A tool that an agent runs may be in a session of its own, or have left its parents behind. So every process that is
started here carries a mark in its environment, by which all that it started is found.
"""

from __future__ import annotations

import os
import queue
import resource
import signal
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Mapping, Sequence

import psutil

MARK = 'ENPIRE_AGENT_TURN'
LONGEST_LINE = 8 << 20         # bytes; what is longer is no event
MOST_SAID = 64 << 10           # bytes kept of what it writes for people, the last ones
LARGEST_FILE = 2 << 30         # bytes
_QUEUED_LINES = 10_000         # lines that are not looked at yet; then the program waits
_LOOK_PERIOD = 1.0             # s between two looks at what it takes
_SIGNAL_AFTER = ((0.0, signal.SIGINT), (2.0, signal.SIGTERM), (4.0, signal.SIGKILL))    # s after end()
_GONE_WITHIN = 2.0             # s that killed processes get to be gone
_READER_WITHIN = 2.0           # s in which the rest of the output is read


class Excess(RuntimeError):
    """The program or its tools take more than they may; the message says what."""


@dataclass(frozen=True)
class ProcessLimits:
    """What a program may take with all its tools: processes, bytes of memory, bytes in the folders it writes to."""

    processes: int = 200
    memory: float = 8e9
    disk: float = 5e9


class AgentProcess:
    """A running program. watched: the folders whose growth counts.

    owner: whose program it is, at most one at a time. What an earlier one has left, because its supervisor was killed,
    is ended first.
    """

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str], limits: ProcessLimits,
                 owner: str, watched: Sequence[Path] = ()):
        self._mark = f'{MARK}={owner}'.encode()
        self._process: subprocess.Popen | None = None
        self._kill({})
        self._limits = limits
        self._watched = watched
        self._size_before = sum(_size(folder) for folder in watched)
        self._next_look = time.monotonic() + _LOOK_PERIOD
        self._lines: queue.Queue[bytes] = queue.Queue()
        self._said = b''
        self._process = subprocess.Popen(
            command, cwd=folder, env={**environment, MARK: owner}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE))
        resource.prlimit(self._process.pid, resource.RLIMIT_CORE, (0, 0))
        self._threads = [threading.Thread(target=self._read_lines, daemon=True),
                         threading.Thread(target=self._read_said, daemon=True)]
        for thread in self._threads:
            thread.start()

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def returncode(self) -> int | None:
        return self._process.poll()

    def said(self) -> str:
        """The end of what it wrote for people."""
        return self._said.decode(errors='replace')

    def lines(self, wait: float = 0.0) -> Iterator[bytes]:
        """Lines of output that have come; waits up to `wait` s for the first."""
        try:
            yield self._lines.get(timeout=wait) if wait else self._lines.get_nowait()
            while True:
                yield self._lines.get_nowait()
        except queue.Empty:
            pass

    def check_limits(self) -> None:
        """Raises Excess; looks once a second."""
        if time.monotonic() < self._next_look:
            return
        family = self.family()
        if len(family) > self._limits.processes:
            raise Excess(f'{len(family)} processes; at most {self._limits.processes}')
        memory = sum(_memory(process) for process in family)
        if memory > self._limits.memory:
            raise Excess(f'{memory / 1e6:.0f} MB of memory; at most {self._limits.memory / 1e6:.0f} MB')
        grown = sum(_size(folder) for folder in self._watched) - self._size_before
        if grown > self._limits.disk:
            raise Excess(f'{grown / 1e6:.0f} MB written; at most {self._limits.disk / 1e6:.0f} MB')
        self._next_look = time.monotonic() + _LOOK_PERIOD

    def family(self) -> list[psutil.Process]:
        """The program and everything that it started and that lives."""
        found: dict[int, psutil.Process] = {}
        for pid in psutil.pids():
            if self._is_marked(pid):
                with suppress(psutil.NoSuchProcess):
                    found[pid] = psutil.Process(pid)
        if self._process is not None:
            with suppress(psutil.NoSuchProcess):
                # Also who has cleared its environment, as long as its parents are there.
                root = psutil.Process(self._process.pid)
                found.update((process.pid, process) for process in [root, *root.children(recursive=True)])
        return [process for process in found.values() if _lives(process)]

    def end(self) -> None:
        """End the program and all that it started, at once where it has ended by itself. Callable twice."""
        family = {process.pid: process for process in self.family()}
        start = time.monotonic()
        for after, number in _SIGNAL_AFTER:
            while not self.ended and time.monotonic() < start + after:
                time.sleep(0.02)
            if not self.ended:
                family.update((process.pid, process) for process in self.family())
                self._process.send_signal(number)
        self._kill(family)
        with suppress(subprocess.TimeoutExpired):      # it hangs in the kernel
            self._process.wait(_GONE_WITHIN)
        for thread in self._threads:
            thread.join(_READER_WITHIN)

    def _kill(self, family: dict[int, psutil.Process]) -> None:
        end = time.monotonic() + _GONE_WITHIN
        # Again and again: a process may start another while the list is made.
        while True:
            family.update((process.pid, process) for process in self.family())
            living = [process for process in family.values() if _lives(process)]
            for process in living:
                with suppress(psutil.Error):
                    process.kill()      # psutil compares start times, so a reused pid is never hit
            if not living or time.monotonic() > end:
                break
            time.sleep(0.02)

    def _is_marked(self, pid: int) -> bool:
        try:
            with open(f'/proc/{pid}/environ', 'rb') as environment:
                return self._mark in environment.read().split(b'\0')
        except OSError:
            return False        # it is gone, or somebody else's

    def _read_lines(self) -> None:
        with self._process.stdout as stream:
            while line := stream.readline(LONGEST_LINE):
                if not line.endswith(b'\n') and len(line) == LONGEST_LINE:
                    while (rest := stream.readline(LONGEST_LINE)) and not rest.endswith(b'\n'):
                        pass
                    continue
                while self._lines.qsize() > _QUEUED_LINES and not self.ended:
                    time.sleep(0.01)
                self._lines.put(line)

    def _read_said(self) -> None:
        with self._process.stderr as stream:
            while part := stream.read1(1 << 16):
                self._said = (self._said + part)[-MOST_SAID:]


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _memory(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.Error:
        return 0


def _size(folder: Path) -> int:
    """Bytes of the files below a folder."""
    total, folders = 0, [folder]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(Path(entry.path))
                    else:
                        total += entry.stat(follow_symlinks=False).st_size
        except OSError:
            continue        # it went away
    return total
