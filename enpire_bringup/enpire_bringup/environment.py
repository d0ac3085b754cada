"""The frozen environment: one SHA-256 over everything that decides what a score means."""

from __future__ import annotations

import hashlib
from pathlib import Path

from enpire_bringup.robot_description import description_files
from enpire_bringup.station import Station
from enpire_bringup.task import Task


def environment_files(task: Task, station: Station) -> dict[str, Path]:
    """Name in the hash -> file: task, scene, reward, reset, station with everything that describes its arms.

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
    return files


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
