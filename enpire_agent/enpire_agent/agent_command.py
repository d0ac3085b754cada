"""The command `enpire` for the tools of a coding agent, which have neither the suite's environment nor its folder."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from enpire_agent.agent_place import CAMPAIGN, RECIPE, STATION, TASK, Place
from enpire_agent.durable_file import write_durably

# What the suite needs of the environment that it was started in; none of it is a secret.
_PASSED_ON = ('AMENT_PREFIX_PATH', 'LD_LIBRARY_PATH', 'ROS_DISTRO', 'ROS_DOMAIN_ID', 'ROS_AUTOMATIC_DISCOVERY_RANGE',
              'ROS_STATIC_PEERS', 'RMW_IMPLEMENTATION', 'FASTDDS_DEFAULT_PROFILES_FILE', 'ENPIRE_PAPERS', 'MUJOCO_GL',
              'OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS')


def write_command(folder: Path, place: Place, task: str) -> Path:
    """Write `enpire` into `folder`; it works about `place` wherever it is typed. Returns the file.

    task: name or folder.
    """
    variables = {name: os.environ[name] for name in _PASSED_ON if os.environ.get(name)}
    variables.update({'PYTHONPATH': os.pathsep.join(path for path in sys.path if path), CAMPAIGN: place.campaign,
                      STATION: place.station, RECIPE: str(place.recipe), TASK: task,
                      'ENPIRE_RUNS': str(place.directory.parents[1]), 'PYTHONDONTWRITEBYTECODE': '1'})
    lines = ['#!/bin/sh', *(f'export {name}={shlex.quote(value)}' for name, value in variables.items()),
             f'exec {shlex.quote(sys.executable)} -m enpire_agent.cli "$@"', '']
    file = folder / 'enpire'
    folder.mkdir(parents=True, exist_ok=True)
    write_durably(file, '\n'.join(lines).encode())
    file.chmod(0o755)
    return file


def needed_files(results: Path) -> tuple[Path, ...]:
    """What the command reads of this machine: Python's and ROS's search paths.

    Not the current folder, which Python puts there, and none that `results` or somebody's home folder lie in.
    """
    listed = [*sys.path, *(path for name in ('AMENT_PREFIX_PATH', 'LD_LIBRARY_PATH', 'FASTDDS_DEFAULT_PROFILES_FILE')
                           for path in os.environ.get(name, '').split(os.pathsep))]
    found = dict.fromkeys([*(Path(path).resolve() for path in listed if path and Path(path).exists()),
                           *_linked_folders()])
    private = results.resolve(), Path.home().resolve()
    return tuple(path for path in found
                 if path != Path.cwd() and not any(folder.is_relative_to(path) for folder in private))


def _linked_folders() -> list[Path]:
    """Folders that a symlink install of the messages leads to: colcon leaves the libraries in its build folder."""
    from ament_index_python.packages import PackageNotFoundError, get_package_prefix

    try:
        prefix = Path(get_package_prefix('enpire_msgs'))
    except PackageNotFoundError:
        return []
    files = [Path(place, name) for place, _, names in os.walk(prefix) for name in names
             if name.endswith(('.py', '.so'))]
    return sorted({file.resolve().parent for file in files if file.is_symlink() and file.exists()})
