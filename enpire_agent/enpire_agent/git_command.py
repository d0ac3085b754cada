"""Git commands that are bounded, and that nothing configures but the campaign.

GitPython reads the objects of a recipe repository (recipe_repository.py); the commands run here, because a bound has to
end whatever a command started (GitPython's asks pgrep or ps for it, and waits for pipes that a detached child holds),
and because of the environment only additions can be handed to GitPython.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Iterable, Iterator

_CONFIGURATION = Path(__file__).with_name('templates') / 'git.config'
# A repository's own configuration counts more than the file, and a recipe's author may have written to it.
_OVERRIDES = ('-c', 'core.hooksPath=/dev/null', '-c', 'core.fsmonitor=false', '-c', 'commit.gpgSign=false',
              '-c', 'log.showSignature=false', '-c', 'color.ui=false', '-c', 'protocol.ext.allow=never')
_ALLOWED = ('GIT_SSH', 'GIT_SSH_COMMAND', 'GIT_SSH_VARIANT', 'GIT_ASKPASS', 'GIT_SSL_CAINFO', 'GIT_SSL_CAPATH',
            'GIT_PROXY_COMMAND', 'GIT_EXEC_PATH')    # how a remote is reached
_SSH = 'ssh -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=10 -o ServerAliveCountMax=3'
_LOCAL_TIMEOUT = 20.0    # s of wall time
_FOREIGN_LOCK = 2.0      # s of wall time that a lock is left alone which no command of ours can have
_ENDS_WITHIN = 1.0       # s of wall time that a killed command gets to be gone


class RepositoryError(RuntimeError):
    """Git could not do it; the work tree is as it was before."""


def git_environment(git_dir: Path | None = None) -> dict[str, str]:
    """The environment of a Git command; with `git_dir`, one that names that repository."""
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith('GIT_') or name in _ALLOWED}
    environment.update(GIT_CONFIG_GLOBAL=str(_CONFIGURATION), GIT_CONFIG_NOSYSTEM='1', GIT_TERMINAL_PROMPT='0',
                       GIT_OPTIONAL_LOCKS='0', GIT_EDITOR='true', LC_ALL='C')
    environment.setdefault('GIT_SSH_COMMAND', _SSH)
    if git_dir is not None:
        environment['GIT_DIR'] = str(git_dir)
    return environment


def run_git(directory: Path, *arguments: str, timeout: float = _LOCAL_TIMEOUT, lock: int | None = None,
            **environment: str) -> str:
    """Run one Git command in `directory`; returns what it printed, without the last line's end.

    timeout: s of wall time, after which the command and all it started is killed. lock: file descriptor that it
    inherits, see `exclusive`. environment: further variables. Raises RepositoryError with what Git said.
    """
    what = f'git {arguments[0]} in {directory}'
    try:
        process = subprocess.Popen(
            ['git', *_OVERRIDES, *arguments], cwd=directory, env={**git_environment(), **environment},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding='utf-8',
            errors='replace', start_new_session=True, pass_fds=() if lock is None else (lock,))
    except OSError as error:
        raise RepositoryError(f'{what} cannot start: {error}') from error
    try:
        printed, said = process.communicate(timeout=timeout)
    except BaseException as error:
        _end(process)
        if isinstance(error, subprocess.TimeoutExpired):
            raise RepositoryError(f'{what} did not end within {timeout:g} s and was killed') from None
        raise
    if process.returncode:
        raise RepositoryError(f'{what} failed: {" ".join((said + " " + printed).split()) or process.returncode}')
    return printed.removesuffix('\n')


@contextmanager
def exclusive(file: Path, locks: Iterable[Path], timeout: float) -> Iterator[int]:
    """Hold `file` against every other process of ours that writes the same part of a repository.

    The descriptor that it gives is handed on to the Git command, so a command outlives its killed parent and still
    holds it. Who has it knows that `locks`, Git's own lock files, were left by commands that were killed, and removes
    them. Raises RepositoryError when `file` is not free within `timeout` s of wall time.
    """
    deadline = time.monotonic() + timeout
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise RepositoryError(f'{file}: another Git command held it for {timeout:g} s') from None
                time.sleep(0.01)
        for lock in locks:
            _clear(lock)
        yield descriptor
    finally:
        os.close(descriptor)


def _clear(lock: Path) -> None:
    try:
        age = time.time() - lock.stat().st_mtime
        if age < _FOREIGN_LOCK:
            time.sleep(_FOREIGN_LOCK - max(0.0, age))      # a person's or an agent's Git is done by then
        lock.unlink(missing_ok=True)
    except FileNotFoundError:
        pass


def _end(process: subprocess.Popen) -> None:
    """Kill the command and all it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    for pipe in (process.stdout, process.stderr):
        pipe.close()
    try:
        process.wait(_ENDS_WITHIN)
    except subprocess.TimeoutExpired:
        pass      # it hangs in the kernel, e.g. on a file server that is away
