"""Files that are complete or absent, also after a power cut."""

from __future__ import annotations

import json
import os
from pathlib import Path


def write_durably(file: Path | str, content: bytes) -> None:
    """Write beside, fsync, rename, fsync the folder: readers see the old content or the new, never a part."""
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f'.{file.name}.{os.getpid()}.part')
    with open(beside, 'wb') as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(beside, file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_json_durably(file: Path | str, value) -> None:
    """`write_durably` of a JSON value; NaN is written as null, which every reader understands."""
    write_durably(file, (json.dumps(without_nan(value), indent=1, ensure_ascii=False) + '\n').encode('utf-8'))


def without_nan(value):
    """`value` with every float that is not finite replaced by None, at any depth."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {key: without_nan(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(entry) for entry in value]
    return value
