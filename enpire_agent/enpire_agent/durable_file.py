"""Files that are complete or absent, also after a power cut, and one clear error where the disk is full."""

from __future__ import annotations

import errno
import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_MEGABYTE = 1_000_000


class DiskFullError(OSError):
    """Something could not be written for want of space; the message says what, where, and what to do."""


@contextmanager
def disk_full_explained(file: Path | str) -> Iterator[None]:
    """Raise DiskFullError for `file` where the system says that the disk, the quota or the file's limit is full."""
    try:
        yield
    except DiskFullError:
        raise
    except OSError as error:
        if error.errno not in _FULL:
            raise
        file = Path(file)
        raise DiskFullError(f'{file}: could not be written, {error.strerror.lower()} ({_free(file.parent)}); make room '
                            f'there (old campaigns are folders of their own), then run the same again') from error


def check_free_space(directory: Path | str, least: int) -> None:
    """Raise DiskFullError when fewer than `least` bytes are free where `directory` is or will be."""
    directory = Path(directory)
    if _free_bytes(directory) < least:
        raise DiskFullError(f'{directory}: the disk is full ({_free(directory)}, {least / _MEGABYTE:.0f} MB are '
                            f'needed); make room there (old campaigns are folders of their own), then run the same '
                            f'again')


def write_durably(file: Path | str, content: bytes) -> None:
    """Write beside, fsync, rename, fsync the folder: readers see the old content or the new, never a part.

    Raises DiskFullError, and leaves nothing beside then.
    """
    file = Path(file)
    beside = file.with_name(f'.{file.name}.{os.getpid()}.part')
    with disk_full_explained(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(beside, 'wb') as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(beside, file)
        except OSError:
            beside.unlink(missing_ok=True)
            raise
        sync_directory(file.parent)


def write_json_durably(file: Path | str, value) -> None:
    """`write_durably` of a JSON value; NaN is written as null, which every reader understands."""
    write_durably(file, (json.dumps(without_nan(value), indent=1, ensure_ascii=False) + '\n').encode('utf-8'))


def sync_directory(directory: Path | str) -> None:
    """fsync a folder: a file or folder made in it is then still there after a power cut."""
    folder = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def without_nan(value):
    """`value` with every float that is not finite replaced by None, at any depth."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {key: without_nan(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(entry) for entry in value]
    return value


def _free_bytes(directory: Path) -> int:
    place = directory.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def _free(directory: Path) -> str:
    return f'{_free_bytes(directory) / _MEGABYTE:.1f} MB free'
