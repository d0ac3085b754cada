"""Many trials of one recipe at once, in worlds without ROS and cameras (in_process_station.py), on all cores.

An executor has a `name`, the number of its `workers`, and `run(job, seeds)`, which gives results as they come: the one
here runs processes of this machine, that of ray_executor.py those of a Ray cluster. The same stream of seeds gives the
same results, however many workers there are. An evaluation that was interrupted goes on under its name: seeds that are
in its ledger are not run again.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterable, Iterator, Sequence

from enpire_agent import job_files
from enpire_agent.evaluation_progress import EvaluationProgress
from enpire_agent.frozen_environment import frozen_environment, keep_manifest
from enpire_agent.ledger import Ledger
from enpire_agent.recipe_repository import recipe_identity
from enpire_agent.seeds import evaluation_seeds
from enpire_agent.trial import new_trial_id, utc_now
from enpire_bringup.station import load_station
from enpire_bringup.task import load_task

LENIENCY = 2.0          # times a step's deadline: where every core has a world, the same step takes more CPU time
MOST_LOSSES = 10        # workers that may be killed before the evaluation gives up
STATION = 'in_process'


class EvaluationError(RuntimeError):
    """The evaluation cannot be done, or not go on; the message says why and what to do."""


@dataclass(frozen=True)
class Job:
    """What a worker needs to run a trial: folders of recipe and task, file of the station."""

    recipe: str
    task: str
    station: str

    def run(self, seed: int) -> dict:
        """One trial: the fields of its ledger line that depend on the seed. Worlds are kept between trials."""
        from enpire_agent.in_process_episode import ConfinedPolicy, Episode
        from enpire_agent.policy_session import PolicyFailure, PolicySession

        task, station = _world(self.task, self.station)
        started, began = utc_now(), time.monotonic()
        ran = {'isolation': '', 'steps': 0, 'late_steps': 0}
        try:
            with PolicySession(self.recipe, task, world_waits=True, leniency=LENIENCY) as session:
                try:
                    episode = station.run(ConfinedPolicy(session), seed)
                finally:
                    ran = {'isolation': session.isolation, 'steps': session.steps, 'late_steps': session.late_steps}
        except PolicyFailure as failure:
            episode = Episode(seed, 'POLICY_ERROR', str(failure), 0.0)
        return {'seed': seed, 'outcome': episode.outcome, 'reason': episode.reason, 'duration': episode.duration,
                'position_error': episode.position_error, 'wall_duration': round(time.monotonic() - began, 3),
                'started': started, 'ended': utc_now(), **ran}

    def pack(self) -> job_files.JobFiles:
        """Everything that a machine without these files needs. Raises JobFilesError."""
        return job_files.read_job_files(Path(self.recipe), load_task(self.task), load_station(self.station))

    @classmethod
    def unpack(cls, packed: job_files.JobFiles, folder: Path) -> Job:
        """The job of `pack`, with its files in an empty folder of this machine; its world is ready then."""
        job = cls(*packed.unpack(folder))
        _world(job.task, job.station)
        return job

    def fingerprint(self, modules: Iterable[str]) -> dict[str, str]:
        """What has to be the same on two machines for the same results, name -> version or SHA-256.

        modules: of the suite, those that run the job.
        """
        return {**job_files.environment_fingerprint(load_task(self.task), load_station(self.station)),
                **job_files.suite_fingerprint(modules)}


class LocalExecutor:
    """Runs trials in processes of this machine."""

    name = 'local'

    def __init__(self, workers: int = 0):
        """workers: 0 takes as many as there are cores."""
        self.workers = workers or len(os.sched_getaffinity(0))

    def run(self, job: Job, seeds: Sequence[int]) -> Iterator[dict]:
        """Results of all seeds as they come; those whose worker was killed are run again.

        Raises EvaluationError when workers keep being killed.
        """
        left, losses = list(seeds), 0
        while left:
            done = []
            try:
                for result in self._run_pool(job, left):
                    done.append(result['seed'])
                    yield result
            except BrokenProcessPool:
                losses += 1
                if losses > MOST_LOSSES:
                    raise EvaluationError(f'{losses} workers were killed (out of memory?); run it with fewer workers') \
                        from None
            finished = set(done)
            left = [seed for seed in left if seed not in finished]

    def _run_pool(self, job: Job, seeds: Sequence[int]) -> Iterator[dict]:
        # Not forked: what runs in this process may hold locks.
        with ProcessPoolExecutor(min(self.workers, len(seeds)), multiprocessing.get_context('spawn')) as pool:
            try:
                waiting: set[Future] = {pool.submit(job.run, seed) for seed in seeds}
                while waiting:
                    ready, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in ready:
                        yield future.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


def evaluate(recipe: Path, *, runs: Path, name: str, stream: str, trials: int, executor, task: str, station: str,
             progress: Callable[[EvaluationProgress], None] = lambda progress: None) -> Ledger:
    """Run `trials` trials on the seeds of `stream` into the ledger runs/<name>/in_process/ledger.jsonl.

    progress: hears how far it is after every trial. Raises EvaluationError, ConfigurationError, EnvironmentChanged,
    JobFilesError.
    """
    asked, where = load_task(task), load_station(station)
    if not (recipe / 'policy.py').is_file():
        raise EvaluationError(f'{recipe}: no policy.py there; give the folder of a recipe')
    manifest = frozen_environment(runs, asked, where)
    ledger = Ledger(runs / name / STATION / 'ledger.jsonl')
    identity, seeds = recipe_identity(recipe), evaluation_seeds(stream, trials)
    known = {line['seed'] for line in ledger.verify()} if ledger.file.exists() else set()
    for line in ledger.entries() if known else ():
        if (line['recipe'], line['env_hash']) != (identity, manifest.env_hash):
            raise EvaluationError(f'{ledger.file}: is of recipe {line["recipe"][:16]} in environment '
                                  f'{line["env_hash"][:12]}...; choose another --name')
    keep_manifest(ledger.file.parent, manifest)
    left = [seed for seed in seeds if seed not in known]
    began, succeeded = time.monotonic(), 0
    job = Job(str(recipe), str(asked.directory), str(where.file))
    with closing(executor.run(job, left)) as results:      # however this ends, it ends what the executor started
        for number, result in enumerate(results, 1):
            ledger.append({
                'trial_id': new_trial_id('manual'), 'campaign': name,
                'station': STATION, 'task': asked.name, 'kind': 'manual', 'recipe': identity,
                'env_hash': manifest.env_hash, 'simulation': executor.name, **result})
            succeeded += result['outcome'] == 'SUCCESS'
            progress(EvaluationProgress(number, len(left), succeeded, time.monotonic() - began))
    return ledger


_worlds: dict[tuple[str, str], tuple] = {}


def _world(task: str, station: str) -> tuple:
    from enpire_agent.in_process_episode import make_in_process

    key = task, station
    if key not in _worlds:
        loaded = load_task(task)
        _worlds[key] = loaded, make_in_process(load_station(station), loaded)
    return _worlds[key]
