"""The manifest of a frozen environment: which files decide what a score means, signed, and whether they still do.

`runs/environments/<task>-<station>-<place>.json` is what a station of that task and station file has to find on disk
when it starts. It is written by `enpire env freeze`, or by the first station that starts. Beside the trials of each
campaign lies the manifest of their environment, `environments/<env_hash>.json`, which their score goes by.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from enpire_agent.durable_file import write_json_durably
from enpire_agent.signing_key import SigningError, check_signature, signed
from enpire_bringup.environment import Environment, EnvironmentFile, read_environment, scorer_files
from enpire_bringup.station import Station
from enpire_bringup.task import Task

FOLDER = 'environments'
_VERSION = 1


class EnvironmentChanged(RuntimeError):
    """The environment on disk is not the frozen one, or its manifest cannot be trusted; the message says what."""


@dataclass(frozen=True)
class Manifest:
    """A frozen environment. frozen: when, ISO 8601, UTC; signer: public key, hex."""

    task: str
    task_directory: Path
    station_file: Path
    frozen: str
    environment: Environment
    signer: str = ''

    @property
    def env_hash(self) -> str:
        return self.environment.env_hash

    def content(self) -> dict:
        """What is signed."""
        return {
            'version': _VERSION, 'task': self.task, 'task_directory': str(self.task_directory),
            'station_file': str(self.station_file), 'frozen': self.frozen, 'env_hash': self.env_hash,
            'cameras': list(self.environment.cameras),
            'files': [{'name': file.name, 'path': str(file.path), 'sha256': file.sha256, 'size': file.size}
                      for file in self.environment.files]}

    def write(self, file: Path) -> None:
        """Sign it and write it. Raises SigningError, DiskFullError."""
        write_json_durably(file, signed(self.content()))


def manifest_file(runs: Path, task: Task, station: Station) -> Path:
    """Where the manifest of this task folder and station file lies."""
    place = hashlib.sha256(f'{task.directory}\0{station.file}'.encode()).hexdigest()[:8]
    return runs / FOLDER / f'{task.name}-{station.file.stem}-{place}.json'


def freeze(runs: Path, task: Task, station: Station) -> Manifest:
    """Take the environment as it is on disk now for the one that counts, and write its manifest."""
    manifest = Manifest(task.name, task.directory, station.file,
                        datetime.now(timezone.utc).isoformat(timespec='seconds'), read_environment(task, station))
    manifest.write(manifest_file(runs, task, station))
    return manifest


def read_manifest(file: Path) -> Manifest:
    """Read a manifest and check its signature. Raises EnvironmentChanged; FileNotFoundError when there is none."""
    try:
        content = json.loads(file.read_text(encoding='utf-8'))
        check_signature(content, file)
        manifest = Manifest(
            content['task'], Path(content['task_directory']), Path(content['station_file']), content['frozen'],
            Environment(tuple(EnvironmentFile(entry['name'], Path(entry['path']), entry['sha256'], entry['size'])
                              for entry in content['files']), tuple(content['cameras'])), content['signer'])
    except SigningError as error:
        raise EnvironmentChanged(str(error)) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EnvironmentChanged(f'{file}: is no manifest of an environment ({error!r})') from error
    return manifest


def frozen_environment(runs: Path, task: Task, station: Station) -> Manifest:
    """The manifest that this task and station are held to, written now where there is none yet.

    Cameras are as the station was started: their size may differ from one start to the next, and the hash with it.
    Raises EnvironmentChanged naming the files that are not as they were frozen, OSError when one cannot be read.
    """
    file = manifest_file(runs, task, station)
    try:
        manifest = read_manifest(file)
    except FileNotFoundError:
        return freeze(runs, task, station)
    now = read_environment(task, station)
    changes = Environment(manifest.environment.files, now.cameras).changes(now)
    if changes:
        raise EnvironmentChanged(
            f'the environment is not the one that was frozen on {manifest.frozen} ({file}): {"; ".join(changes)}. '
            f'Put that back; or, if it is meant: ./enpire env freeze --task {task.directory} --station '
            f'{station.file}, and begin new campaigns, for figures of two environments do not mix')
    return Manifest(manifest.task, manifest.task_directory, manifest.station_file, manifest.frozen, now,
                    manifest.signer)


def keep_manifest(directory: Path, manifest: Manifest) -> None:
    """Leave the manifest with the trials of a campaign's station, `directory`: runs/<campaign>/<station>."""
    file = _kept_manifest(directory, manifest.env_hash)
    if not file.exists():
        manifest.write(file)


def check_scored(directory: Path, env_hash: str, *, any_scorer: bool = False) -> str:
    """Whether trials of a campaign's station were made in an environment that was frozen, and with which scorer.

    Returns a remark where the score has to be read with one; raises EnvironmentChanged where the manifest was
    tampered with, or the scorer installed now is not the frozen one (any_scorer: a remark as well).
    """
    file = _kept_manifest(directory, env_hash)
    try:
        manifest = read_manifest(file)
    except FileNotFoundError:
        return f'unproven         {file} is not there: nobody can tell in which environment these trials were made'
    if manifest.env_hash != env_hash:
        raise EnvironmentChanged(f'{file}: is the manifest of environment {manifest.env_hash[:12]}..., not of this one')
    frozen = {entry.name: entry.sha256 for entry in manifest.environment.files}
    changed = [str(path) for name, path in scorer_files().items()
               if frozen.get(name) != hashlib.sha256(path.read_bytes()).hexdigest()]
    if not changed:
        return ''
    said = f'{", ".join(changed)}: not as when these trials were made ({file})'
    if not any_scorer:
        raise EnvironmentChanged(f'{said}. Put that back, or score with the version of the suite that made them; '
                                 '--any-scorer computes it all the same')
    return f'another scorer   {said}'


def _kept_manifest(directory: Path, env_hash: str) -> Path:
    return directory / FOLDER / f'{env_hash}.json'
