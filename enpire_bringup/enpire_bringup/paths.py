"""Where the suite's files are: shipped data, and results."""

from __future__ import annotations

import os
from pathlib import Path


def share_directory() -> Path:
    """The folder with `config`, `tasks`, `description` and `rviz` of enpire_bringup."""
    source = Path(__file__).resolve().parents[1]
    if (source / 'package.xml').is_file():
        # Run from the sources (also through colcon's symlink install): edits and new tasks count at once.
        return source
    from ament_index_python.packages import get_package_share_directory
    return Path(get_package_share_directory('enpire_bringup'))


def runs_directory() -> Path:
    """Where campaigns are written: $ENPIRE_RUNS, else `runs` in the current folder."""
    return Path(os.environ.get('ENPIRE_RUNS') or 'runs').resolve()
