"""How long a recipe takes from its announcement until the peers have it.

The setting: the research process (trial runner, supervisor, git_bridge) of two or more stations and one remote, a bare
repository on this machine's disk. The bench plays the first station's supervisor: it commits a change to the recipe and
says on `kept_recipes` that it was kept.

* kept to announced: until the announcement's stamp. The commit is pushed in between, so it grows with the remote.
* announced to visible: from the announcement's stamp until the last of the peers has entered the recipe as fetched: its
  files lie in the peer's repository, where its researcher may adopt them and `enpire recipes` lists them.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Callable, Sequence

import numpy as np

from enpire_agent.fleet_log import FleetLog
from enpire_agent.recipe_repository import RecipeRepository
from enpire_bringup.bench_jitter import JitterProbe, summary
from enpire_bringup.bench_station import station_node
from enpire_bringup.environment import environment_hash

VISIBLE_LIMIT_MS = 1000.0     # p99 that the suite promises
NODES = ('trial_runner', 'supervisor', 'git_bridge')
CAMPAIGN = 'bench_fleet'
WARM_UP = 3                   # recipes that do not count: the first push creates the remote
WAIT = 60.0                   # s of wall time that a recipe gets to be everywhere
_POLL = 0.005                 # s of wall time


class BenchError(RuntimeError):
    """The bench got no figures; the message says what was missing."""


def run(recipes: int = 200, stations: int = 2, *, station: str = 'yam_bimanual_sim', task: str = 'push_t',
        report: Callable[[str], None] = lambda line: None) -> dict:
    """Figures of `recipes` recipes that the first of `stations` stations keeps, JSON-able. Raises BenchError."""
    from enpire_bringup.composition import station_namespaces
    from enpire_bringup.domain_locks import DomainReservation
    from enpire_bringup.process_runner import StationProcesses

    reservation = DomainReservation()
    try:
        with tempfile.TemporaryDirectory(prefix='enpire_bench_') as folder, ExitStack() as stack:
            report(f'starting the research process of {stations} stations ...')
            fleet = [stack.enter_context(StationProcesses(
                station, task, namespace, domain_id=reservation.domain_id, only=NODES, runs=folder, report=report))
                for namespace in station_namespaces(stations)]
            return measure(recipes, fleet, report)
    finally:
        reservation.release()


def measure(recipes: int, fleet: Sequence, report: Callable[[str], None] = lambda line: None) -> dict:
    """The same on stations (StationProcesses) that are up, share a ROS domain and a folder of runs."""
    from enpire_bringup.station_node import HISTORY_QOS
    from enpire_msgs.msg import Recipe

    first = fleet[0]
    directories = [first.runs / CAMPAIGN / station.name for station in fleet]
    repositories = [RecipeRepository.open_or_create(directory / 'recipe', directory.name, first.task.recipe)
                    for directory in directories]
    env_hash = environment_hash(first.task, first.station)
    announced: dict[str, float] = {}

    def on_recipe(message: Recipe) -> None:
        announced[message.commit] = message.header.stamp.sec + message.header.stamp.nanosec * 1e-9

    with station_node('fleet_bench', first.namespace, first.domain_id) as node:
        kept = node.create_publisher(Recipe, 'kept_recipes', HISTORY_QOS)
        node.create_subscription(Recipe, '/fleet/recipes', on_recipe, HISTORY_QOS)
        _await(lambda: kept.get_subscription_count() and len(fleet) == sum(
            info.node_name == 'git_bridge' for info in node.get_subscriptions_info_by_topic('/fleet/recipes')),
            'the stations to find each other')
        report(f'keeping {recipes} recipes ...')
        push, travel = [], []
        with JitterProbe() as jitter:
            for number in range(WARM_UP + recipes):
                commit = _improve(repositories[0], number)
                began = time.time()
                kept.publish(Recipe(
                    station=first.name, task=first.task.name, campaign=CAMPAIGN, branch=first.name, commit=commit,
                    method='bench', hypothesis=f'Recipe {number}', decision='keep', trials=1, successes=1,
                    interval_low=0.025, interval_high=1.0, env_hash=env_hash))
                arrived = [_await(lambda: _fetched(directory, commit), f'recipe {number} at {directory.name}')
                           for directory in directories[1:]]
                stamp = _await(lambda: announced.get(commit), f'the announcement of recipe {number}')
                if number >= WARM_UP:
                    push.append(stamp - began)
                    travel.append(max(arrived) - stamp)
            late = jitter.stop()
    return {'recipes': recipes, 'stations': len(fleet), 'kept_to_announced_ms': summary(1e3 * np.array(push)),
            'announced_to_visible_ms': summary(1e3 * np.array(travel)), 'jitter_ms': late}


def _improve(repository: RecipeRepository, number: int) -> str:
    repository.write({'notes/bench.md': f'Recipe {number}\n'})
    return repository.commit(f'Recipe {number}', {'Decision': 'keep'})


def _fetched(directory: Path, commit: str) -> float | None:
    """When the station entered the commit as fetched, s since 1970; None while it has not."""
    return next((entry['time'] for entry in reversed(FleetLog(directory).entries('fetched'))
                 if entry['commit'] == commit), None)


def _await(condition: Callable, what: str):
    deadline = time.monotonic() + WAIT
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise BenchError(f'waited {WAIT:.0f} s in vain for {what}')
        time.sleep(_POLL)
    return value
