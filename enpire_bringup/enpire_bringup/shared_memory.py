"""Shared memory that killed processes left behind: Fast DDS removes its own segments only at a proper end."""

from __future__ import annotations

import fcntl
import os
import re
import time
from pathlib import Path

SETTLED_AFTER = 5.0      # s; a younger segment may not have its lock yet
_SEGMENT = re.compile(r'fastdds_[0-9a-f]{16}')


def remove_dead_segments(folder: Path = Path('/dev/shm')) -> int:
    """Remove segments whose process is gone; returns the bytes that this freed.

    Each segment has a file with the suffix "_el" that its process keeps locked. Segments of other users stay.
    """
    freed = 0
    for lock in folder.glob('fastdds_*_el'):
        segment = lock.with_name(lock.name.removesuffix('_el'))
        if not _SEGMENT.fullmatch(segment.name):
            continue
        try:
            if time.time() - lock.stat().st_mtime < SETTLED_AFTER or _is_locked(lock):
                continue
            if segment.exists():
                size = segment.stat().st_size
                segment.unlink()
                freed += size
            lock.unlink()
        except OSError:      # somebody else's, or already gone
            continue
    return freed


def _is_locked(file: Path) -> bool:
    descriptor = os.open(file, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
