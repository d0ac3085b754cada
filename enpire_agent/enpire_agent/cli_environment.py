"""Verbs about the frozen environment: env freeze, show, verify."""

from __future__ import annotations

import json

from enpire_agent.cli_station import STATION_HELP


def add_verbs(verbs) -> None:
    environment = verbs.add_parser('env', help='the frozen environment: what decides what a score means')
    kinds = environment.add_subparsers(title='what to do', metavar='WHAT', required=True)
    for name, run, text in (
            ('freeze', run_freeze, 'take task, reward, reset, scene, limits, station and scorer as they are on disk now'),
            ('verify', run_verify, 'whether they are still as they were frozen; names the files that are not'),
            ('show', run_show, 'the manifest')):
        verb = kinds.add_parser(name, help=text)
        verb.add_argument('--station', default=None, metavar='NAME', help=STATION_HELP)
        verb.add_argument('--task', default='push_t', metavar='NAME', help='name or folder')
        verb.set_defaults(run=run)
        if run is run_show:
            verb.add_argument('--json', action='store_true', help='as JSON')


def _asked(options) -> tuple:
    """(folder of runs, task, station)"""
    from enpire_bringup.paths import runs_directory
    from enpire_bringup.station import load_station
    from enpire_bringup.task import load_task

    return runs_directory(), load_task(options.task), load_station(options.station)


def run_freeze(options) -> int:
    from enpire_agent.frozen_environment import EnvironmentChanged, freeze, manifest_file, read_manifest

    asked = _asked(options)
    file = manifest_file(*asked)
    try:
        before = read_manifest(file)
    except (FileNotFoundError, EnvironmentChanged):
        before = None
    manifest = freeze(*asked)
    print(f'{file}: {len(manifest.environment.files)} files frozen, environment {manifest.env_hash[:12]}...')
    for change in before.environment.changes(manifest.environment) if before else []:
        print(f'        {change}')
    return 0


def run_verify(options) -> int:
    from enpire_agent.frozen_environment import manifest_file, read_manifest
    from enpire_bringup.environment import read_environment

    runs, task, station = _asked(options)
    file = manifest_file(runs, task, station)
    if not file.exists():
        print(f'{file}: not there, nothing was frozen yet; ./enpire env freeze, or the first start, does it')
        return 1
    manifest = read_manifest(file)
    changes = manifest.environment.changes(read_environment(task, station))
    print(f'{file}: frozen {manifest.frozen}, signature holds, '
          + (f'{len(changes)} changes' if changes else f'{len(manifest.environment.files)} files as they were frozen'))
    for change in changes:
        print(f'        {change}')
    return 1 if changes else 0


def run_show(options) -> int:
    from enpire_agent.frozen_environment import manifest_file, read_manifest
    from enpire_bringup.configuration import ConfigurationError

    file = manifest_file(*_asked(options))
    try:
        manifest = read_manifest(file)
    except FileNotFoundError:
        raise ConfigurationError(f'{file}: not there, nothing was frozen yet; type: ./enpire env freeze') from None
    if options.json:
        print(json.dumps(manifest.content()))
        return 0
    print(f'{file}\nfrozen {manifest.frozen}, signed by {manifest.signer[:16]}...\nenvironment {manifest.env_hash}')
    for entry in manifest.environment.files:
        print(f'{entry.sha256[:12]}  {entry.size:>8}  {entry.name:32}  {entry.path}')
    for camera in manifest.environment.cameras:
        print(f'camera {camera} Hz')
    return 0
