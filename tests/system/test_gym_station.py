"""A station whose world is a Gymnasium environment: the same trials, records, ledger and campaigns as any other."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy')
EXTRA = 'gym-pusht is an optional extra and not installed; type: make extras'
pytest.importorskip('gym_pusht', reason=EXTRA)

from mcap_ros2.reader import read_ros2_messages  # noqa: E402

from enpire_agent.campaign_state import read_campaign  # noqa: E402
from enpire_agent.idea_library import assemble_recipe, load_ideas  # noqa: E402
from enpire_agent.in_process_gym import InProcessGym  # noqa: E402
from enpire_agent.ledger import Ledger  # noqa: E402
from enpire_agent.report import write_report  # noqa: E402
from enpire_agent.station_client import StationClient  # noqa: E402
from enpire_agent.trial_record import read_frames, read_steps  # noqa: E402
from enpire_bringup.domain_locks import DomainReservation  # noqa: E402
from enpire_bringup.observation_messages import read_observation  # noqa: E402
from enpire_bringup.paths import share_directory  # noqa: E402
from enpire_bringup.process_runner import StationProcesses  # noqa: E402
from enpire_bringup.station_node import STATE_QOS  # noqa: E402
from enpire_bringup.task import load_task  # noqa: E402
from enpire_msgs.action import RunCampaign  # noqa: E402
from enpire_msgs.msg import Observation, PolicyAction, Verdict  # noqa: E402

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

GYM_PUSHT = share_directory() / 'tasks' / 'gym_pusht'
STAY = '''
import time

import numpy as np


class Policy:
    def __init__(self, config):
        self.pause = config['parameters'].get('pause', 0.0)

    def reset(self, observation):
        pass

    def act(self, observation):
        time.sleep(self.pause)
        return np.asarray(observation['state'][:2])
'''


@pytest.fixture(scope='module')
def gym_station(tmp_path_factory):
    """(station, client, task folder); the task's own recipe is one that solves it."""
    folder = tmp_path_factory.mktemp('gym')
    task = folder / 'gym_pusht'
    shutil.copytree(GYM_PUSHT, task)
    planned = next(idea for idea in load_ideas(task / 'ideas' / 'ideas.yaml') if idea.id == 'planned_pushes')
    assemble_recipe(GYM_PUSHT / 'recipe', planned.files, folder / 'planned')
    shutil.copytree(folder / 'planned', task / 'recipe', dirs_exist_ok=True)
    reservation = DomainReservation()
    with StationProcesses(task=str(task), domain_id=reservation.domain_id, runs=folder / 'runs') as station, \
            StationClient('station_1', reservation.domain_id) as client:
        yield station, client, task
    reservation.release()


def recipe(folder, **parameters):
    folder.mkdir()
    (folder / 'policy.py').write_text(STAY)
    (folder / 'recipe.yaml').write_text(f'method: stay\nparameters: {parameters or "{}"}\n')
    return str(folder)


def ledger_of(station, campaign='manual'):
    return Ledger(station.runs / campaign / 'station_1' / 'ledger.jsonl')


def test_a_trial_is_recorded_whole_and_is_that_of_the_same_seed_in_process(gym_station):
    station, client, task = gym_station
    result = client.run_trial(seed=30001, timeout=60)
    assert (result.outcome, result.late_steps) == ('SUCCESS', 0), result.reason
    assert result.reset_success and 10 < result.steps < 300
    assert result.duration == pytest.approx(result.steps / 10)
    assert [(check.name, check.passed, check.limit) for check in result.verdict.checks] == [('coverage', True, 0.95)]

    steps = list(read_steps(result.directory))
    observed = [read_observation(message.ros_msg)['state'] for message in read_ros2_messages(
        f'{result.directory}/episode.mcap', topics=['observation'])]
    assert len(observed) == result.steps + 1, 'one after the reset and one after every action'
    np.testing.assert_allclose(np.array(observed[:-1]), [step['observation']['state'] for step in steps], atol=1e-6)
    assert len(list(read_frames(result.directory))) > result.steps / 2

    class Played:
        """The recorded actions in a world of this process."""

        def reset(self, observation):
            self.left = iter(steps)

        def act(self, observation):
            step = next(self.left)
            np.testing.assert_allclose(observation['state'], step['observation']['state'], atol=1e-4)
            return np.array(step['action'])

    episode = InProcessGym(load_task(task)).run(Played(), 30001)
    assert (episode.outcome, episode.duration) == ('SUCCESS', pytest.approx(result.duration))


def test_time_that_is_over_a_policy_that_fails_and_limits_end_as_they_should(gym_station, tmp_path):
    _, client, _ = gym_station
    over = client.run_trial(recipe(tmp_path / 'stay'), seed=2, timeout=60)
    assert (over.outcome, over.steps, over.duration) == ('TIMEOUT', 300, pytest.approx(30.0)), over.reason
    (tmp_path / 'stay' / 'policy.py').write_text(STAY.replace("observation['state'][:2]", '1.0'))
    wrong = client.run_trial(str(tmp_path / 'stay'), seed=2, timeout=60)
    assert wrong.outcome == 'POLICY_ERROR' and 'expected (2,)' in wrong.reason
    (tmp_path / 'stay' / 'recipe.yaml').write_text('method: stay\nparameters: {}\nlimits: {max_tip_speed: 0.1}\n')
    limited = client.run_trial(str(tmp_path / 'stay'), seed=2, timeout=60)
    assert limited.outcome == 'POLICY_ERROR' and 'limits (max_tip_speed)' in limited.reason


def test_nobody_else_says_success_or_acts_and_a_changed_environment_is_found(gym_station, tmp_path):
    station, client, task = gym_station
    said = client.node.create_publisher(Verdict, 'verdict', STATE_QOS)
    ended = threading.Event()

    def publish():
        while not ended.wait(0.02):
            said.publish(Verdict(outcome=Verdict.SUCCESS))

    thread = threading.Thread(target=publish, daemon=True)
    thread.start()
    try:
        injected = client.run_trial(recipe(tmp_path / 'slow', pause=0.01), seed=2, timeout=60)
    finally:
        ended.set()
        thread.join()
        client.node.destroy_publisher(said)
    assert (injected.outcome, 'verdict as well' in injected.reason) == ('INVALID', True), injected.reason

    acted = client.node.create_publisher(PolicyAction, 'policy_action', STATE_QOS)
    message, shown = PolicyAction(values=[0.0, 0.0]), []

    def answer(observation):
        shown.append(observation)
        message.header.stamp, message.episode = observation.header.stamp, observation.episode
        acted.publish(message)

    listener = client.run_in_executor(
        lambda: client.node.create_subscription(Observation, 'observation', answer, STATE_QOS))
    try:
        other = client.run_trial(str(tmp_path / 'slow'), seed=2, timeout=60)
    finally:
        client.run_in_executor(lambda: client.node.destroy_subscription(listener))
        client.node.destroy_publisher(acted)
    start, end = (read_observation(shown[i])['state'][:2] for i in (0, -1))
    assert len(shown) > 100 and other.outcome == 'TIMEOUT'
    assert np.hypot(*(end - start)) < 10.0, 'the agent stayed, nobody else moved it'

    text = (task / 'task.yaml').read_text()
    (task / 'task.yaml').write_text(text.replace('coverage: 0.95', 'coverage: 0.5'))
    tampered = client.run_trial(seed=30001, timeout=60)
    (task / 'task.yaml').write_text(text)
    assert tampered.outcome == 'INVALID' and 'task.yaml' in tampered.reason
    assert client.run_trial(seed=30001, timeout=60).outcome == 'SUCCESS'
    ledger_of(station).verify()


def test_a_world_that_is_killed_costs_its_trial_and_comes_back(gym_station, tmp_path):
    station, client, _ = gym_station
    results, acting = [], threading.Event()
    slow = recipe(tmp_path / 'slow', pause=0.05)

    def hear(feedback):
        if feedback.stage == 'policy':
            acting.set()

    trial = threading.Thread(target=lambda: results.append(client.run_trial(slow, seed=2, timeout=120, feedback=hear)))
    trial.start()
    assert acting.wait(30), 'the policy runs'
    os.kill(station.pids()['world'], signal.SIGKILL)
    trial.join(120)
    assert results and results[0].outcome == 'ABORTED', results
    assert 'in vain' in results[0].reason or 'reset the world' in results[0].reason
    deadline = time.monotonic() + 60
    while (result := client.run_trial(seed=30001, timeout=60)).outcome != 'SUCCESS' and time.monotonic() < deadline:
        time.sleep(0.5)
    assert result.outcome == 'SUCCESS', result.reason


def test_a_campaign_passes_the_gate_and_has_a_report(gym_station):
    station, client, _ = gym_station
    result = client.run_campaign(RunCampaign.Goal(campaign='pusht', max_iterations=1, gate_trials=3), timeout=200)
    assert result.success, result.message
    state = read_campaign(station.runs / 'pusht' / 'station_1' / 'campaign.json')
    assert state.baseline.passed and state.finished.startswith('solved: 3 of 3')
    page = write_report(station.runs / 'pusht')
    assert 'pusht' in page.read_text()
    assert ledger_of(station, 'pusht').verify()
