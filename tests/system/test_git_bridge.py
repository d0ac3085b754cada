"""git_bridge as a node: what is kept goes to the remote before the fleet hears of it, and a peer's can be adopted."""

from __future__ import annotations

import os
import signal
import time

import pytest

rclpy = pytest.importorskip('rclpy')

from rclpy.executors import SingleThreadedExecutor  # noqa: E402

from enpire_agent.bench_fleet import WARM_UP, measure  # noqa: E402
from enpire_agent.fleet_log import FleetLog  # noqa: E402
from enpire_agent.recipe_repository import RecipeRepository  # noqa: E402
from enpire_bringup.environment import environment_hash  # noqa: E402
from enpire_bringup.station_node import HISTORY_QOS  # noqa: E402
from enpire_bringup.task import load_task  # noqa: E402
from enpire_msgs.msg import Recipe  # noqa: E402
from enpire_msgs.srv import Adopt  # noqa: E402

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

TASK = load_task('push_t')


class Fleet:
    """A node that plays the supervisor and the peers, and listens to the announcements."""

    def __init__(self, station):
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=station.domain_id)
        self.node = rclpy.create_node('enpire_client_fleet', namespace=station.namespace, context=self.context)
        self.kept = self.node.create_publisher(Recipe, 'kept_recipes', HISTORY_QOS)
        self.fleet = self.node.create_publisher(Recipe, '/fleet/recipes', HISTORY_QOS)
        self.announced = []
        self.node.create_subscription(Recipe, '/fleet/recipes', self.announced.append, HISTORY_QOS)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.station = station

    def until(self, condition, what, seconds=30.0):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f'waited {seconds} s for {what}'
            self.executor.spin_once(timeout_sec=0.05)

    def call_adopt(self, commit='', service='adopt'):
        client = self.node.create_client(Adopt, service)
        self.until(client.service_is_ready, f'the service {service}')
        future = client.call_async(Adopt.Request(commit=commit))
        self.until(future.done, 'the answer of adopt')
        return future.result()


@pytest.fixture
def bridge(start_station):
    """bridge(namespace, remote) -> the Fleet of a station that has only its git_bridge; several share a domain."""
    fleets = []

    def start(namespace='station_1', remote=''):
        station = start_station(namespace=namespace, only=('git_bridge',),
                                node_parameters={'git_bridge': {'remote': str(remote)}})
        fleets.append(Fleet(station))
        return fleets[-1]

    yield start
    for fleet in fleets:
        fleet.executor.shutdown(timeout_sec=0.0)
        fleet.node.destroy_node()
        fleet.context.try_shutdown()


def recipe_of(repository, commit, env_hash='e' * 64, **changes):
    return Recipe(**{**dict(station='station_1', task='push_t', campaign='c', branch='station_1', commit=commit,
                            method='m', hypothesis='Push slower', decision='keep', trials=6, successes=5,
                            interval_low=0.36, interval_high=0.99, env_hash=env_hash), **changes})


def improved(repository):
    text = (repository.work_tree / 'recipe.yaml').read_text()
    repository.write({'recipe.yaml': text + '# slower\n'})
    return repository.commit('Push slower', {'Decision': 'keep'})


def test_a_remote_that_is_away_is_tried_again_and_nobody_hears_of_a_commit_before_it_is_there(bridge, tmp_path):
    remote = tmp_path / 'server' / 'remote.git'
    (tmp_path / 'server').write_text('not a folder yet')
    fleet = bridge(remote=remote)
    repository = RecipeRepository.open_or_create(fleet.station.runs / 'c' / 'station_1' / 'recipe', 'station_1',
                                                 TASK.recipe)
    commit = improved(repository)
    fleet.until(lambda: fleet.kept.get_subscription_count(), 'git_bridge')
    fleet.kept.publish(recipe_of(repository, commit))
    log = fleet.station.log_directory / 'research.log'
    fleet.until(lambda: 'cannot push' in log.read_text(), 'the failed push in the log')
    assert fleet.announced == []

    (tmp_path / 'server').unlink()
    (tmp_path / 'server').mkdir()
    fleet.until(lambda: fleet.announced, 'the announcement')

    (announced,) = fleet.announced
    assert (announced.commit, announced.remote) == (commit, str(remote))
    fetched = RecipeRepository.open_or_create(tmp_path / 'other', 'station_2', TASK.recipe)
    fetched.fetch(str(remote), 'c')
    assert '# slower' in fetched.files(commit)['recipe.yaml']


def test_a_kept_recipe_reaches_the_peer_which_adopts_it_and_outlives_the_process_that_announced_it(bridge, tmp_path):
    first = bridge('station_1')
    runs, env_hash = first.station.runs, environment_hash(TASK, first.station.station)
    repository = RecipeRepository.open_or_create(runs / 'c' / 'station_1' / 'recipe', 'station_1', TASK.recipe)
    commit = improved(repository)
    first.until(lambda: first.kept.get_subscription_count(), 'git_bridge')
    first.kept.publish(recipe_of(repository, commit, env_hash))
    first.until(lambda: first.announced, 'the announcement')

    os.kill(first.station.pids()['research'], signal.SIGKILL)
    second = bridge('station_2')
    ours = RecipeRepository.open_or_create(runs / 'c' / 'station_2' / 'recipe', 'station_2', TASK.recipe)
    log = FleetLog(runs / 'c' / 'station_2')
    second.until(lambda: log.entries('fetched'), 'the recipe at the peer')
    assert ours.has(commit) and log.entries('fetched')[0]['station'] == 'station_1'

    # What cannot be put on top of ours is refused, written down and changes nothing.
    (ours.work_tree / 'recipe.yaml').write_text((ours.work_tree / 'recipe.yaml').read_text() + '# faster\n')
    before = ours.commit('Push faster', {})
    refused = second.call_adopt(commit[:8], 'adopt/cherry_pick')
    assert not refused.accepted and 'both changed recipe.yaml' in refused.message
    assert ours.head == before and log.entries('conflict')[0]['commit'] == commit

    adopted = second.call_adopt()
    assert adopted.accepted, adopted.message
    assert ours.head == adopted.commit and ours.files('HEAD') == repository.files(commit)
    assert f'Adopted-From: station_1 {commit}' in ours.message(adopted.commit)

    # The two are also what the bench measures on.
    figures = measure(3, [first.station, second.station])
    assert figures['recipes'] == 3 and figures['announced_to_visible_ms']['p50'] > 1.0
    assert len(FleetLog(runs / 'bench_fleet' / 'station_2').entries('fetched')) == 3 + WARM_UP
