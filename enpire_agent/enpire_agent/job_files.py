"""What a machine elsewhere needs to run trials: the files of recipe, task and station, and the suite as it is here."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable

from enpire_bringup.environment import environment_files, read_environment
from enpire_bringup.station import Station
from enpire_bringup.task import Task

MOST_BYTES = 64 << 20      # of all files of a job
PACKAGES = ('enpire_agent', 'enpire_bringup', 'enpire_reward', 'enpire_reset')
# Whose versions decide about what a world does, where they are installed.
_DISTRIBUTIONS = ('gym-pusht', 'gymnasium', 'mujoco', 'numpy', 'pin', 'pymunk', 'scipy')
_SKIPPED = ('.git', '__pycache__')


class JobFilesError(RuntimeError):
    """A job cannot be sent to other machines; the message names the file and the way out."""


@dataclass(frozen=True)
class JobFiles:
    """The files of a job: path -> content; `recipe`, `task` and `station` say where in them these are."""

    files: dict[str, bytes]
    recipe: str
    task: str
    station: str

    def unpack(self, folder: Path) -> tuple[str, str, str]:
        """Write them into an empty folder; the places there of recipe, task and station."""
        for name, content in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return str(folder / self.recipe), str(folder / self.task), str(folder / self.station)


def read_job_files(recipe: Path, task: Task, station: Station) -> JobFiles:
    """The whole folders of recipe and task, and the station file with what it names in its own folder.

    What the station file names elsewhere comes with the suite, and is installed where trials are run. Raises
    JobFilesError for links in the recipe, which could lead to files that its policy may not read, and for more than
    MOST_BYTES.
    """
    places = {f'recipe/{name}': file for name, file in _files_in(recipe)}
    for file in places.values():
        if file.is_symlink():
            raise JobFilesError(f'{file} is a link; other machines get files only: put the file itself there')
    places |= {f'task/{task.name}/{name}': file for name, file in _files_in(task.directory)}
    # The folder's name is part of the environment's hash.
    beside = station.file.parent
    places |= {f'station/{beside.name}/{file.relative_to(beside)}': file for file in _station_files(task, station)
               if file.is_relative_to(beside)}
    size = sum(file.stat().st_size for file in places.values())
    if size > MOST_BYTES:
        raise JobFilesError(f'{recipe}, {task.directory} and {station.file} have {size >> 20} MB of files; other '
                            f'machines get at most {MOST_BYTES >> 20} MB: move what no trial needs out of these folders')
    return JobFiles({name: file.read_bytes() for name, file in places.items()}, 'recipe', f'task/{task.name}',
                    f'station/{beside.name}/{station.file.name}')


def _files_in(folder: Path) -> list[tuple[str, Path]]:
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in _SKIPPED]
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        found += [Path(place) / name for name in (*names, *links)]
    return [(file.relative_to(folder).as_posix(), file) for file in sorted(found)]


def _station_files(task: Task, station: Station) -> set[Path]:
    """The station file and all that describes its arms: MJCF and robot description with what these draw in."""
    return {file for name, file in environment_files(task, station).items()
            if name.partition('/')[0] in ('station', 'description', 'model')}


def loaded_modules() -> tuple[str, ...]:
    """Names of the suite's modules that this process has loaded."""
    return tuple(sorted(name for name in list(sys.modules) if name.partition('.')[0] in PACKAGES))


def suite_fingerprint(modules: Iterable[str]) -> dict[str, str]:
    """Version of Python and of what computes a world, SHA-256 of the files of the suite's modules named; by name."""
    versions = {name: version for name in _DISTRIBUTIONS if (version := _version(name))}
    return {'Python': platform.python_version(), **versions, **{name: _module_hash(name) for name in modules}}


def environment_fingerprint(task: Task, station: Station) -> dict[str, str]:
    """SHA-256 of every file of the environment, by its name in the environment's hash."""
    return {file.name: file.sha256 for file in read_environment(task, station).files}


def differences(there: dict[str, str], here: dict[str, str]) -> list[str]:
    """In which parts another machine's fingerprint differs from this one's, a few words each; empty: in none."""
    return [f'{name} is {_said(there.get(name))} there, {_said(here.get(name))} here'
            for name in sorted(there.keys() | here.keys()) if there.get(name) != here.get(name)]


def _said(value: str | None) -> str:
    if value is None:
        return 'missing'
    return f'{value[:8]}...' if len(value) == 64 else value


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ''


def _module_hash(name: str) -> str:
    try:
        spec = importlib.util.find_spec(name)
        return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()
    except (ImportError, AttributeError, TypeError, OSError):
        return 'missing'
