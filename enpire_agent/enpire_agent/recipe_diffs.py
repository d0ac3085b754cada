"""What each iteration changed, read in one go from a station's Git history and cut to a bounded size."""

from __future__ import annotations

import subprocess
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Collection, Iterator

from enpire_agent.git_command import git_environment

MAX_LINES = 300        # of one diff
MAX_WIDTH = 300        # characters of a line
_CHUNK = 64 * 1024     # bytes; of a longer line only this much is kept
_TIMEOUT = 60.0        # s of wall time for a station's whole history
_LOG = ('log', '--first-parent', '--diff-merges=first-parent', '--patch', '--no-color', '--no-ext-diff',
        '--no-textconv', '--format=%x01%H')


@dataclass
class Diff:
    """A unified diff. lines: at most MAX_LINES of at most MAX_WIDTH characters; total: how many there are."""

    lines: list[str] = field(default_factory=list)
    total: int = 0
    added: int = 0
    removed: int = 0

    def add(self, line: str, cut: bool) -> None:
        self.total += 1
        self.added += line.startswith('+') and not line.startswith('+++')
        self.removed += line.startswith('-') and not line.startswith('---')
        if len(self.lines) < MAX_LINES:
            self.lines.append(line[:MAX_WIDTH] + ('…' if cut or len(line) > MAX_WIDTH else ''))


def read_diffs(work_tree: Path | str, commits: Collection[str]) -> dict[str, Diff]:
    """The diffs of those of `commits` that are on the work tree's branch, each against its first parent.

    Empty where there is no repository, and short of what Git does not tell within _TIMEOUT.
    """
    wanted, diffs = set(commits), {}
    if not wanted or not (Path(work_tree) / '.git').exists():
        return diffs
    with _history(work_tree) as stream:
        current: Diff | None = None
        for line, cut in _lines(stream):
            if line.startswith('\x01'):
                if wanted <= diffs.keys():
                    break
                commit = line[1:].strip()
                current = diffs.setdefault(commit, Diff()) if commit in wanted else None
            elif current is not None and (line or current.lines):
                current.add(line, cut)
    return diffs


@contextmanager
def _history(work_tree: Path | str) -> Iterator[IO[bytes]]:
    """`git log` of the branch, newest first; the reader may stop anywhere. No configuration but ours is asked."""
    process = subprocess.Popen(
        ['git', '-c', 'core.fsmonitor=false', '-c', 'log.showSignature=false', *_LOG], cwd=work_tree,
        env=git_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    bound = threading.Timer(_TIMEOUT, process.kill)
    bound.start()
    try:
        yield process.stdout
    finally:
        bound.cancel()
        process.kill()
        process.stdout.close()
        process.wait()


def _lines(stream: IO[bytes]) -> Iterator[tuple[str, bool]]:
    """(line, whether its end is missing); a line longer than a chunk loses what follows."""
    while piece := stream.readline(_CHUNK):
        line, cut = piece, False
        while not piece.endswith(b'\n') and (piece := stream.readline(_CHUNK)):
            cut = True
        yield line.decode('utf-8', 'replace').rstrip('\n'), cut
