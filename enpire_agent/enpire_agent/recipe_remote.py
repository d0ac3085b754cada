"""Push to and fetch from a campaign's remote: a path on this machine or any Git URL."""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path

from enpire_agent.git_command import RepositoryError, run_git

# Of a remote that is created here: no branch of a station is ever rewritten, and every commit can be asked for.
_CONFIGURATION = '''[core]
	hooksPath = /dev/null
[gc]
	auto = 0
[receive]
	denyNonFastForwards = true
	denyDeletes = true
[uploadpack]
	allowAnySHA1InWant = true
'''
_NAME = re.compile(r'[A-Za-z0-9_][A-Za-z0-9_.-]*')
_LEFT_LOCK = 120.0      # s after which a lock in a local remote was left by a push that was killed


def push(work_tree: Path, remote: str, branch: str, commit: str, timeout: float) -> str:
    """Push `commit` as `branch`; returns the branch's name there, which is another one where somebody rewrote it.

    A local remote that does not exist yet is created, in a folder that does. Raises RepositoryError.
    """
    check_remote(remote)
    if is_local(remote):
        if not Path(remote).exists():
            _create(Path(remote), branch)
        _clear_left_lock(Path(remote) / 'refs' / 'heads' / f'{branch}.lock')
    try:
        run_git(work_tree, 'push', '--quiet', '--porcelain', '--', remote, f'{commit}:refs/heads/{branch}',
                timeout=timeout)
        return branch
    except RepositoryError as error:
        if '[rejected]' not in str(error):
            raise
    other = f'{branch}-{commit[:10]}'
    run_git(work_tree, 'push', '--quiet', '--', remote, f'{commit}:refs/heads/{other}', timeout=timeout)
    return other


def fetch(work_tree: Path, remote: str, what: str, timeout: float, lock: int) -> None:
    """Fetch a refspec or a commit. Raises RepositoryError."""
    check_remote(remote)
    run_git(work_tree, 'fetch', '--quiet', '--no-tags', '--no-write-fetch-head', '--', remote, what, timeout=timeout,
            lock=lock)


def absolute_remote(remote: str) -> str:
    """`remote` as every folder means it: a path from here made absolute, a URL as it is. Raises RepositoryError."""
    check_remote(remote)
    return os.path.abspath(os.path.expanduser(remote)) if is_local(remote) else remote


def is_local(remote: str) -> bool:
    return '://' not in remote and not ('@' in remote and ':' in remote)


def check_remote(remote: str) -> None:
    """Raises RepositoryError for a remote that Git would take for an option or a program to run.

    Peers announce where they push to, and nobody knows who may write on a network.
    """
    if not remote or remote.startswith('-') or '::' in remote.split('/')[0]:
        raise RepositoryError(f"'{remote}' is no Git remote; expected a path or a URL")


def check_campaign_name(name: str) -> None:
    """A campaign's name is a folder, and the first part of its branches on a remote. Raises ValueError."""
    if not _NAME.fullmatch(name) or '..' in name or name.endswith(('.lock', '.')):
        raise ValueError(f"campaign '{name}' is no plain name; use letters, digits, - and _")


def _create(remote: Path, branch: str) -> None:
    """A bare repository, complete or absent."""
    if not remote.parent.is_dir():
        raise RepositoryError(f'the remote {remote} is not there, and no folder {remote.parent} to create it in')
    beside = remote.with_name(f'.{remote.name}.{os.getpid()}.part')
    try:
        run_git(remote.parent, 'init', '--quiet', '--bare', '--template=', f'--initial-branch={branch}', str(beside))
        with open(beside / 'config', 'a') as file:
            file.write(_CONFIGURATION)
        os.rename(beside, remote)
    except OSError as error:
        if not remote.exists():      # else a peer was faster
            raise RepositoryError(f'cannot create the remote {remote}: {error}') from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _clear_left_lock(lock: Path) -> None:
    try:
        if time.time() - lock.stat().st_mtime > _LEFT_LOCK:
            lock.unlink(missing_ok=True)
    except OSError:
        pass
