"""Trials on a Ray cluster: one that is there already, by its address, or one of this machine for as long as it takes.

A child process (ray_driver.py) speaks with the cluster, and passes on results through a pipe: whatever Ray does there
when a cluster goes away, this process hears of it in words, and within a time.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import signal
import socket
import tempfile
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Iterator, Sequence

from enpire_agent import evaluation
from enpire_agent.evaluation import EvaluationError
from enpire_agent.ray_driver import Cluster, drive

ANSWER_TIMEOUT = 5.0       # s of wall time until something answers at a cluster's address
CONNECT_TIMEOUT = 120.0    # s until the cluster has taken this machine in, or one of its own is up
END_TIMEOUT = 20.0         # s in which what was started has to end


class RayExecutor:
    """Runs trials as actors of a Ray cluster, each on one CPU of it."""

    name = 'ray'

    def __init__(self, address: str = '', workers: int = 0):
        """address: HOST:PORT of a cluster that this machine has joined (`ray start`), "auto" for the one that Ray finds
        by itself; empty: a cluster of its own, which nobody else reaches and which ends with the last trial.
        workers: 0 takes as many as there are CPUs.
        """
        self.address = address
        self.workers = workers or (0 if address else len(os.sched_getaffinity(0)))

    def run(self, job, seeds: Sequence[int]) -> Iterator[dict]:
        """Results of all seeds as they come, each with the `machine` it was run on; those whose worker was killed or
        went away with its machine are run again. `workers` is as many as there are from the first result on.

        Raises EvaluationError when Ray is not installed, the cluster does not answer, its machines have another suite,
        or workers keep being killed.
        """
        if not seeds:
            return
        if not ray_is_installed():
            raise EvaluationError('ray is not installed; type: make extras')
        if self.address:
            check_answers(self.address)
        context = multiprocessing.get_context('spawn')
        ours, theirs = context.Pipe()
        with tempfile.TemporaryDirectory(prefix='ray-', ignore_cleanup_errors=True) as folder:
            cluster = Cluster(self.address, self.workers, evaluation.MOST_LOSSES, Path(folder))
            process = context.Process(target=drive, args=(theirs, cluster, job, list(seeds)))
            process.start()
            theirs.close()
            connected = False
            try:
                connected = ours.poll(CONNECT_TIMEOUT)
                if not connected:
                    raise EvaluationError(f'{self._where} did not come up within {CONNECT_TIMEOUT:g} s; `ray status` '
                                          f'says how it is{_quoted(cluster.last_words())}')
                yield from self._results(ours, cluster)
            finally:
                ours.close()       # it sees that nobody listens, and ends
                _end(process, END_TIMEOUT if connected else 0.0)

    def _results(self, connection: Connection, cluster: Cluster) -> Iterator[dict]:
        while True:
            try:
                kind, content = connection.recv()
            except EOFError:
                raise EvaluationError(f'{self._where} went away; the same command with --name goes on'
                                      f'{_quoted(cluster.last_words())}') from None
            if kind == 'result':
                yield content
            elif kind == 'workers':
                self.workers = content
            elif kind == 'refused':
                raise EvaluationError(f'{self._where}: {content}')
            elif kind == 'raised':
                raise content
            else:
                return

    @property
    def _where(self) -> str:
        return f'the Ray cluster {self.address}' if self.address else "this machine's Ray cluster"


def ray_is_installed() -> bool:
    return importlib.util.find_spec('ray') is not None


def _end(process, patience: float) -> None:
    """Give the process of `drive` some seconds to end, then end all that is left of what it started."""
    wait([process.sentinel], patience)
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()      # it has not come to having a group of its own
    process.join()


def check_answers(address: str) -> None:
    """Raises EvaluationError, within ANSWER_TIMEOUT, when nothing answers at HOST:PORT. "auto" is Ray's to find."""
    if address == 'auto':
        return
    host, _, port = address.rpartition(':')
    if not host or not port.isdigit() or '/' in host:
        raise EvaluationError(f"'{address}' is no address of a Ray cluster; expected HOST:PORT (as `ray start --head` "
                              'prints it) or auto')
    try:
        socket.create_connection((host.strip('[]'), int(port)), timeout=ANSWER_TIMEOUT).close()
    except (OSError, OverflowError) as error:
        raise EvaluationError(f'no Ray cluster answers at {address} ({error}); start one there (`ray start --head`), '
                              f'and join it from this machine: ray start --address={address}') from None


def _quoted(text: str) -> str:
    return f': {text}' if text else ''
