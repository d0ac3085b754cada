"""How fast evaluations run, and what a second worker gives: processes of this machine, and a Ray cluster of its own."""

from __future__ import annotations

import os
import resource
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Sequence

from enpire_agent.bench_trials import strong_recipe
from enpire_agent.evaluation import Job, LocalExecutor
from enpire_agent.ray_executor import RayExecutor, ray_is_installed
from enpire_agent.seeds import evaluation_seeds
from enpire_bringup.station import load_station
from enpire_bringup.task import load_task

EXECUTORS = {'local': lambda workers: LocalExecutor(workers), 'ray': lambda workers: RayExecutor(workers=workers)}
STREAM = 'bench'
RESULT = 'outcome', 'duration', 'position_error', 'late_steps'


@dataclass(frozen=True)
class TimedJob(Job):
    """Says what each trial took, its policy's process included."""

    def run(self, seed: int) -> dict:
        before = _cpu_time()
        result = super().run(seed)
        return {**result, 'cpu_time': _cpu_time() - before}


def run(trials: int, *, executors: Sequence[str] = ('local', 'ray'), workers: int = 2, recipe: str = '',
        station: str = 'yam_bimanual_sim', task: str = 'push_t',
        report: Callable[[str], None] = lambda line: None) -> dict:
    """Figures of the same seeds with one worker and with `workers`, by each of the EXECUTORS named; JSON-able.

    Ray is left out where it is not installed. Raises EvaluationError, ConfigurationError.
    """
    if 'ray' in executors and not ray_is_installed():
        report('without Ray, which is not installed; type: make extras')
        executors = [name for name in executors if name != 'ray']
    asked = load_task(task)
    with tempfile.TemporaryDirectory(prefix='enpire_bench_') as folder:
        path, name = (Path(recipe), recipe) if recipe else strong_recipe(asked, Path(folder) / 'recipe')
        job = TimedJob(str(path), str(asked.directory), str(load_station(station).file))
        measured = []
        for executor in executors:
            for count in dict.fromkeys((1, workers)):
                measured.append(_measured(EXECUTORS[executor](count), job, evaluation_seeds(STREAM, trials)))
                report(_said(measured[-1]))
    return {'trials': trials, 'recipe': name, 'cores': len(os.sched_getaffinity(0)), **figures_of(measured)}


@dataclass(frozen=True)
class Measured:
    """One evaluation. start: s until its first trial began, then `seconds` until its last one ended; CPU s of a trial;
    results by seed, without what depends on how fast a machine is."""

    executor: str
    workers: int
    start: float
    seconds: float
    cpu_time: float
    results: dict[int, dict]

    @property
    def rate(self) -> float:
        """Trials a second."""
        return len(self.results) / self.seconds


def figures_of(measured: Sequence[Measured]) -> dict:
    """Rates of all, what more workers gave of what they could (scaling_efficiency), seeds whose results were not the
    same in all of them, and how many steps were held because the policy was late, which is what makes them differ."""
    alone = {one.executor: one.rate for one in measured if one.workers == 1}
    return {
        'runs': [{'executor': one.executor, 'workers': one.workers, 'trials_per_s': round(one.rate, 3),
                  'cpu_s_per_trial': round(one.cpu_time, 3), 'start_s': round(one.start, 2),
                  'seconds': round(one.seconds, 2),
                  'late_steps': sum(result['late_steps'] for result in one.results.values())} for one in measured],
        'scaling_efficiency': {one.executor: round(one.rate / alone[one.executor] / one.workers, 3)
                               for one in measured if one.workers > 1},
        'successes': sum(result['outcome'] == 'SUCCESS' for result in measured[0].results.values()),
        'different': sorted({seed for one in measured for seed, result in one.results.items()
                             if result != measured[0].results[seed]})}


def _measured(executor, job: Job, seeds: Sequence[int]) -> Measured:
    asked, began, results, cpu_time = time.monotonic(), 0.0, {}, 0.0
    with closing(executor.run(job, seeds)) as coming:
        for result in coming:
            ended = time.monotonic()
            began = began or ended - result['wall_duration']
            results[result['seed']] = {key: result[key] for key in RESULT}
            cpu_time += result['cpu_time'] / len(seeds)
    return Measured(executor.name, executor.workers, began - asked, ended - began, cpu_time, results)


def _said(one: Measured) -> str:
    return (f'{one.executor} with {one.workers} worker{"s" if one.workers > 1 else ""}: {len(one.results)} trials in '
            f'{one.seconds:.1f} s')


def _cpu_time() -> float:
    """s of this process and of its children that have ended."""
    return sum(usage.ru_utime + usage.ru_stime for usage in
               map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))
