"""The environment of a task on a station: every file that decides what a score means, and one SHA-256 over all."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from enpire_bringup.gym_task import GymTask, missing_package
from enpire_bringup.model_files import model_files
from enpire_bringup.robot_description import description_files
from enpire_bringup.station import Station
from enpire_bringup.task import Task


def environment_files(task: Task, station: Station) -> dict[str, Path]:
    """Name in the hash -> file: task, scene, reward, reset, station with everything that describes its arms, scorer; of
    a Gymnasium environment the package that it comes from, in the place of scene, reward and reset.

    The recipe is not part of it: it is what research changes. Raises ConfigurationError where that package is missing.
    """
    if isinstance(task, GymTask):
        return {'task': task.file, 'station': station.file} | _world_files(task) | scoring_files()
    files = {
        'task': task.file,
        'scene': task.scene,
        'reward': task.reward,
        'reset': task.reset,
        'station': station.file,
    }
    for file in description_files(station):
        files[f'description/{file.parent.name}/{file.name}'] = file
    files |= _drawn_in('scene', task.scene)
    for arm in station.arms.values():
        if arm.model is not None:
            files[f'model/{arm.name}'] = arm.model
            files |= _drawn_in(f'model/{arm.name}', arm.model)
    return files | scoring_files()


def _drawn_in(name: str, model: Path) -> dict[str, Path]:
    """Name in the hash -> file: what a MuJoCo model draws in."""
    return {f'{name}/{os.path.relpath(file, model.resolve().parent)}': file for file in model_files(model)[1:]}


def _world_files(task: GymTask) -> dict[str, Path]:
    """Name in the hash -> file: the Python files of the environment's package, and what says of it when it is done."""
    name = task.gym.package or 'gymnasium'
    folder = package_folder(name)
    if folder is None:
        raise missing_package(task, name)
    files = {f'world/{name}/{file.relative_to(folder).as_posix()}': file for file in folder.rglob('*.py')}
    for part in ('gym_world.py', 'gym_station_node.py'):
        files[f'world/{part}'] = Path(__file__).with_name(part)
    return files


def scoring_files() -> dict[str, Path]:
    """Name in the hash -> file: what makes a verdict of a reward program's findings, and a score of verdicts."""
    verdict = package_folder('enpire_reward')
    files = {f'verdict/{file.relative_to(verdict).as_posix()}': file for file in verdict.rglob('*.py')
             if not file.name.startswith('bench_')} if verdict else {}
    return files | scorer_files()


def scorer_files() -> dict[str, Path]:
    """Name in the hash -> file: what makes a score of ledger lines."""
    scorer = package_folder('enpire_agent')
    return {'scorer/score.py': scorer / 'score.py'} if scorer else {}


def package_folder(name: str) -> Path | None:
    """Where a Python package lies, None where it is not installed; it is not imported."""
    spec = find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


@dataclass(frozen=True)
class EnvironmentFile:
    """One file as it was read: its name in the hash, where it lies, SHA-256 (hex), bytes."""

    name: str
    path: Path
    sha256: str
    size: int


@dataclass(frozen=True)
class Environment:
    """Content of an environment at one moment. cameras: what a command line may change about the station,
    "<name> <width>x<height> <rate>" each."""

    files: tuple[EnvironmentFile, ...]
    cameras: tuple[str, ...]

    @property
    def env_hash(self) -> str:
        """SHA-256 (hex) of all of it, independent of where it lies."""
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(f'{file.name}\0{file.sha256}\n'.encode())
        for camera in self.cameras:
            digest.update(f'camera\0{camera}\n'.encode())
        return digest.hexdigest()

    def changes(self, now: Environment) -> list[str]:
        """What is different `now`, a few words each that name file or camera; empty when nothing is."""
        mine, theirs = ({file.name: file for file in environment.files} for environment in (self, now))
        said = [f'{file.path} ({name}) {_difference(file, theirs.get(name))}' for name, file in mine.items()
                if name not in theirs or theirs[name].sha256 != file.sha256]
        said += [f'{file.path} ({name}) was added' for name, file in theirs.items() if name not in mine]
        return said + [f'camera {camera} is another one' for camera in now.cameras if camera not in self.cameras]


def _difference(before: EnvironmentFile, now: EnvironmentFile | None) -> str:
    return 'is gone' if now is None else f'was changed ({before.size} bytes before, {now.size} now)'


def read_environment(task: Task, station: Station) -> Environment:
    """The environment as it is on disk now. Raises OSError when a file cannot be read."""
    files = []
    for name, path in sorted(environment_files(task, station).items()):
        content = path.read_bytes()
        files.append(EnvironmentFile(name, path, hashlib.sha256(content).hexdigest(), len(content)))
    return Environment(tuple(files), tuple(f'{camera.name} {camera.width}x{camera.height} {camera.rate}'
                                           for camera in station.cameras.values()))


class EnvironmentWatch:
    """Whether the environment on disk is still the one of a node's start."""

    def __init__(self, task: Task, station: Station, start: Environment):
        self._task, self._station, self._start = task, station, start

    def changes(self) -> list[str]:
        """`Environment.changes` since the start; a file that cannot be read has changed."""
        try:
            return self._start.changes(read_environment(self._task, self._station))
        except OSError as error:
            return [f'{error.filename or error} cannot be read']


def environment_hash(task: Task, station: Station) -> str:
    """`Environment.env_hash` of the environment as it is on disk now.

    Recompute it at start and at every score; a change means that figures must not be compared.
    Raises OSError when a file cannot be read.
    """
    return read_environment(task, station).env_hash
