"""How fast whole lockstep trials run: reset, policy, retreat, verdict and records, with the cameras that they need."""

from __future__ import annotations

import statistics
import tempfile
from collections import Counter
from pathlib import Path
from typing import Callable, Iterable

from enpire_agent.idea_library import assemble_recipe, load_ideas
from enpire_agent.trial_record import read_result
from enpire_bringup.task import Task, load_task

LEAST_PACE = 4.0      # times real time that the suite promises while the policy runs
CAMPAIGN = 'bench_trials'


class BenchError(RuntimeError):
    """The bench got no figures; the message says what was missing."""


def run(trials: int, *, station: str = 'yam_bimanual_sim', task: str = 'push_t',
        report: Callable[[str], None] = lambda line: None) -> dict:
    """Figures of `trials` recorded trials on a station of the bench's own, JSON-able. Raises BenchError."""
    from enpire_agent.remote_station import Station
    from enpire_bringup.domain_locks import DomainReservation
    from enpire_bringup.process_runner import StationProcesses

    reservation = DomainReservation()
    try:
        with tempfile.TemporaryDirectory(prefix='enpire_bench_') as folder:
            recipe, name = strong_recipe(load_task(task), Path(folder) / 'recipe')
            report('starting a station ...')
            with (StationProcesses(station, task, CAMPAIGN, domain_id=reservation.domain_id, real_time_factor=0.0,
                                   runs=folder, report=report) as processes,
                  Station(processes.name, domain=processes.domain_id) as client):
                results = []
                for number in range(trials):
                    trial = client.trial(str(recipe), seed=2 * number, campaign=CAMPAIGN)
                    results.append(read_result(trial.directory))
                    report(f'trial {number + 1} of {trials}: {trial.outcome}, '
                           f'{results[-1]["timing"].get("policy_pace", "no policy ran")} x real time')
        return {'trials': trials, 'recipe': name, **figures_of(results)}
    finally:
        reservation.release()


def strong_recipe(task: Task, folder: Path) -> tuple[Path, str]:
    """(a recipe in `folder`, its name): the first of the idea library that is a whole policy and needs no training.

    Where there is none: the task's own recipe.
    """
    for idea in load_ideas(task.ideas) if task.ideas.is_file() else ():
        if 'policy.py' in idea.files and not idea.trains:
            assemble_recipe(task.recipe, idea.files, folder)
            return folder, idea.id
    assemble_recipe(task.recipe, {}, folder)
    return folder, 'the starting recipe'


def figures_of(results: Iterable[dict]) -> dict:
    """Figures of trials, each as its trial.json says. Raises BenchError when in none of them the policy ran."""
    results = list(results)
    ran = [result for result in results if 'policy_pace' in result['timing']]
    if not ran:
        raise BenchError(f'the policy never ran; the last trial: {results[-1]["outcome"]}: {results[-1]["reason"]}')
    timings = [result['timing'] for result in ran]

    def spread(key: str) -> dict[str, float]:
        values = [timing[key] for timing in timings]
        return {'median': round(statistics.median(values), 2), 'slowest': min(values), 'fastest': max(values)}

    def median(values) -> float:
        return round(statistics.median(values), 2)

    return {
        'outcomes': dict(Counter(result['outcome'] for result in results)),
        'policy_pace': spread('policy_pace'),
        'pace': spread('pace'),
        'wall_s': {'reset': median(timing['reset_wall'] for timing in timings),
                   'policy': median(timing['policy_wall'] for timing in timings),
                   'verdict': median(timing.get('verdict_wall', 0.0) for timing in timings),
                   'whole': median(result['wall_duration'] for result in ran)}}
