"""The frozen environment: one SHA-256 over everything that decides what a score means."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

from enpire_bringup.robot_description import description_files
from enpire_bringup.station import Station
from enpire_bringup.task import Task


def environment_files(task: Task, station: Station) -> dict[str, Path]:
    """Name in the hash -> file: task, scene, reward, reset, station with everything that describes its arms, scorer.

    The recipe is not part of it: it is what research changes.
    """
    files = {
        'task': task.file,
        'scene': task.scene,
        'reward': task.reward,
        'reset': task.reset,
        'station': station.file,
    }
    for file in description_files(station):
        files[f'description/{file.parent.name}/{file.name}'] = file
    for arm in station.arms.values():
        if arm.model is not None:
            files[f'model/{arm.name}'] = arm.model
    return files | scoring_files()


def scoring_files() -> dict[str, Path]:
    """Name in the hash -> file: what makes a verdict of a reward program's findings, and a score of verdicts."""
    verdict, scorer = package_folder('enpire_reward'), package_folder('enpire_agent')
    files = {f'verdict/{file.relative_to(verdict).as_posix()}': file for file in verdict.rglob('*.py')
             if not file.name.startswith('bench_')} if verdict else {}
    return files | ({'scorer/score.py': scorer / 'score.py'} if scorer else {})


def package_folder(name: str) -> Path | None:
    """Where a Python package lies, None where it is not installed; it is not imported."""
    spec = find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def environment_hash(task: Task, station: Station) -> str:
    """SHA-256 (hex) of the environment as it is on disk now, independent of where it lies.

    Recompute it at start and at every score; a change means that figures must not be compared.
    Raises OSError when a file cannot be read.
    """
    digest = hashlib.sha256()
    for name, file in sorted(environment_files(task, station).items()):
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        digest.update(f'{name}\0{content}\n'.encode())
    # What a command line may change about the station counts as well.
    for camera in station.cameras.values():
        digest.update(f'camera\0{camera.name} {camera.width}x{camera.height} {camera.rate}\n'.encode())
    return digest.hexdigest()
