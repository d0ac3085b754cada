"""The process that speaks with a Ray cluster, and the workers there. Only ray_executor.py starts it.

Ray is told to try nothing again by itself: who runs which seed is decided here, so that each gives one result.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections import deque
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Iterator

from enpire_agent.evaluation import EvaluationError
from enpire_agent.job_files import PACKAGES, differences, loaded_modules

WORKER_TIMEOUT = 120.0         # s of wall time until the first worker is ready
MOST_NAMED = 5                 # differences between two machines that an error lists
_LOOK = 0.5                    # s between looks whether somebody still wants the results
OBJECT_STORE = 80 << 20       # bytes, nearly the least that Ray takes; what is sent here is far smaller
# Ray says nothing to its makers, and the cluster of this machine is of no use to others on its network.
SETTINGS = {'RAY_USAGE_STATS_ENABLED': '0'}
OWN_CLUSTER = {'RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER': '0',      # Ray's name for: on the loopback interface only
                'RAY_AUTH_MODE': 'token'}


@dataclass(frozen=True)
class Cluster:
    """Which cluster: its address (empty: one of its own), workers (0: one a CPU), how many of these may be lost, and
    the folder for what Ray writes on this machine."""

    address: str
    workers: int
    most_losses: int
    folder: Path

    @property
    def log(self) -> Path:
        return self.folder / 'driver.log'

    def last_words(self) -> str:
        """The end of the last line that Ray printed here."""
        lines = self.log.read_text(errors='replace').split('\n') if self.log.exists() else []
        return next((line.strip() for line in reversed(lines) if line.strip()), '')[-300:]


def drive(connection: Connection, cluster: Cluster, job, seeds: list[int]) -> None:
    """Run the job's seeds on the cluster; sends ('workers', number), ('result', dict) and, at the end, ('done', None),
    ('refused', words) or ('raised', exception). Ends early when nobody listens at the other end any more.
    """
    os.setpgrp()      # Ctrl-C is for the process that listens; and all that Ray starts here can be ended at once
    log = os.open(cluster.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(SETTINGS)
    if not cluster.address:
        os.environ.update(OWN_CLUSTER, RAY_AUTH_TOKEN=secrets.token_hex(32))
    try:
        import ray

        try:
            _connect(cluster)
            workers = cluster.workers or max(1, int(ray.cluster_resources().get('CPU', 1)))
            connection.send(('workers', workers))
            for result in Workers(job, seeds, workers, cluster.most_losses).results():
                if connection.poll():
                    return
                if result is not None:
                    connection.send(('result', result))
            connection.send(('done', None))
        finally:
            ray.shutdown()
            if connection.poll():      # nobody is there any more who would remove it
                shutil.rmtree(cluster.folder, ignore_errors=True)
    except (BrokenPipeError, ConnectionResetError):
        pass
    except EvaluationError as error:
        connection.send(('refused', str(error)))
    except Exception as error:
        connection.send(('raised', error))


def _connect(cluster: Cluster) -> None:
    import ray

    quiet = {'log_to_driver': False, 'configure_logging': False}
    try:
        if cluster.address:
            ray.init(cluster.address, **quiet)
        else:
            ray.init('local', num_cpus=cluster.workers, include_dashboard=False, object_store_memory=OBJECT_STORE,
                     _temp_dir=str(cluster.folder), **quiet)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        # What is wrong, a token for one, is in what Ray printed rather than in what it raised.
        raise EvaluationError(' '.join((_one_line(error), cluster.last_words())).strip()) from error


class Workers:
    """Actors that run the seeds of a job. A seed is with one worker at a time, until its result is here."""

    def __init__(self, job, seeds: list[int], count: int, most_losses: int):
        """count: of workers; most_losses: how many may be lost, or as many as there are, where these are more."""
        import ray

        self._ray = ray
        self._job = job
        self._left = deque(seeds)
        self._most_losses = max(most_losses, count)
        self._losses = 0
        self._here: dict[tuple[str, ...], dict[str, str]] = {}      # this machine's fingerprint, by modules
        self._packed = ray.put((type(job), job.pack()))
        self._actor = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(Worker)
        self._starting: dict = {}     # what a worker is going to say of itself -> worker
        self._running: dict = {}      # result to come -> (worker, seed)
        for _ in range(min(count, len(seeds))):
            self._start()

    def results(self) -> Iterator[dict | None]:
        """The result of each seed once, and None whenever there is nothing new for a moment. Raises EvaluationError."""
        heard = time.monotonic()
        while self._left or self._running:
            ready, _ = self._ray.wait([*self._starting, *self._running], num_returns=1, timeout=_LOOK)
            if ready:
                heard = time.monotonic()
            elif not self._running and time.monotonic() - heard > WORKER_TIMEOUT:
                raise EvaluationError(f'no worker started within {WORKER_TIMEOUT:g} s; {self._free_cpus()} of its CPUs '
                                      'are free, and each worker takes one')
            yield self._heard(ready[0]) if ready else None

    def _heard(self, reference) -> dict | None:
        """What one answer means: a result, or None: a worker that is ready now, or was lost."""
        worker, seed = self._running.pop(reference, None) or (self._starting.pop(reference), None)
        try:
            answer = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            self._lose(worker, seed, error)
            return None
        if seed is None:
            self._check(*answer)
        if self._left:
            seed_next = self._left.popleft()
            self._running[worker.run.remote(seed_next)] = worker, seed_next
        return answer if seed is not None else None

    def _start(self) -> None:
        worker = self._actor.remote()
        self._starting[worker.begin.remote(self._packed)] = worker

    def _lose(self, worker, seed: int | None, error: Exception) -> None:
        """A worker gave no answer: somebody else gets its seed. Raises what is no loss but a fault of its own."""
        if 'No module named' in str(error):
            raise EvaluationError('one of its machines cannot load this suite: install it there as well, in the Python '
                                  f'that runs Ray ({_last_line(error)})')
        cause = getattr(error, 'cause', None)
        if isinstance(error, self._ray.exceptions.RayTaskError):
            raise cause if _is_ours(cause) else EvaluationError(_one_line(error))
        self._ray.kill(worker)        # one that is only out of reach must not go on
        if seed is not None:
            self._left.appendleft(seed)
        self._losses += 1
        if self._losses > self._most_losses:
            raise EvaluationError(f'{self._losses} workers were killed (out of memory?) or went away; run it with '
                                  f'fewer workers ({_one_line(error)})')
        if self._left:
            self._start()

    def _check(self, machine: str, modules: tuple[str, ...], there: dict[str, str]) -> None:
        """Raises EvaluationError when a machine would not give the same results as this one."""
        if modules not in self._here:
            self._here[modules] = self._job.fingerprint(modules)
        different = differences(there, self._here[modules])
        if different:
            more = f' and {len(different) - MOST_NAMED} more' if len(different) > MOST_NAMED else ''
            raise EvaluationError(f'the machine {machine} may give other results than this one: '
                                  f'{"; ".join(different[:MOST_NAMED])}{more}. Install the same suite and the same '
                                  'versions on both')

    def _free_cpus(self) -> str:
        total, free = (resources().get('CPU', 0) for resources in
                       (self._ray.cluster_resources, self._ray.available_resources))
        return f'{free:g} of {total:g}'


class Worker:
    """Runs trials in a process of the cluster, with files of its own, so that no disk has to be shared."""

    def begin(self, packed: tuple) -> tuple[str, tuple[str, ...], dict[str, str]]:
        """Get ready; (name of the machine, the suite's modules that run there, what its results depend on)."""
        kind, content = packed
        self._job = kind.unpack(content, _passing_folder())
        modules = loaded_modules()
        return socket.gethostname(), modules, self._job.fingerprint(modules)

    def run(self, seed: int) -> dict:
        return {**self._job.run(seed), 'machine': socket.gethostname()}


def _passing_folder() -> Path:
    """A new folder that goes with this process, however that ends."""
    # Ray ends a worker and its children without a word, at any moment. So the folder is made by the very process that
    # removes it, no child of this one, when this process's end of a pipe closes, which nothing ever closes here.
    awaited, _ = os.pipe()
    made = subprocess.run(
        ['sh', '-c', 'exec 3<&0; folder=$(mktemp -d "$0/enpire-trials-XXXXXX") || exit\n'
                     '(read _ <&3; rm -rf -- "$folder") > /dev/null & printf %s "$folder"', tempfile.gettempdir()],
        check=True, stdin=awaited, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
    os.close(awaited)
    return Path(os.fsdecode(made.stdout))


def _is_ours(cause) -> bool:
    """Whether it is an exception that whoever listens can read: of this suite, or of Python."""
    return type(cause).__module__.partition('.')[0] in ('builtins', *PACKAGES)


def _last_line(error: Exception) -> str:
    return next(line.strip() for line in reversed(str(error).split('\n')) if 'No module named' in line)


def _one_line(error: Exception) -> str:
    return ' '.join(str(error).split())[:500]
