"""Trials and campaigns on a real simulated station, which most tests share: starting one takes longer than many a test.

The arm's reset is replaced by one that puts the world to the seed at once: what a reset does is tested elsewhere, and
here it would take most of the time. The task's reward is replaced by one that is quick to earn: the arm has to point
straight ahead, which it does not where a policy starts.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest

rclpy = pytest.importorskip('rclpy')

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue  # noqa: E402
from mcap_ros2.reader import read_ros2_messages  # noqa: E402
from rcl_interfaces.srv import SetParameters  # noqa: E402
from rclpy.duration import Duration  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from enpire_agent.campaign_state import read_campaign  # noqa: E402
from enpire_agent.campaign_progress import Progress, run_shown  # noqa: E402
from enpire_agent.ledger import Ledger  # noqa: E402
from enpire_agent.recipe_repository import RecipeRepository  # noqa: E402
from enpire_agent.report import write_report  # noqa: E402
from enpire_agent.station_client import StationClient  # noqa: E402
from enpire_agent.trial_record import read_frames, read_steps  # noqa: E402
from enpire_bringup.actions import BlockingActionServer, call_service  # noqa: E402
from enpire_bringup.domain_locks import DomainReservation  # noqa: E402
from enpire_bringup.paths import share_directory  # noqa: E402
from enpire_bringup.process_runner import StationProcesses  # noqa: E402
from enpire_bringup.station_node import HISTORY_QOS, LATCHED_QOS, STATE_QOS  # noqa: E402
from enpire_msgs.action import Reset, RunCampaign  # noqa: E402
from enpire_msgs.msg import AgentEvent, Verdict  # noqa: E402

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

PUSH_T = share_directory() / 'tasks' / 'push_t'
NODES = ('sim_station', 'trajectory_controller', 'sim_cameras', 'camera_perception', 'success_detector', 'arm_control',
         'trial_runner', 'supervisor', 'git_bridge')

REWARD = '''
class Reward:
    def __init__(self, task):
        pass

    def judge(self, observation):
        angle = abs(observation['joint_positions']['left_joint1'])
        return {'outcome': 'success' if angle < 0.3 else 'not_yet', 'reason': f'the arm points {angle:.2f} rad aside',
                'checks': [{'name': 'ahead', 'passed': angle < 0.3, 'value': angle, 'limit': 0.3, 'unit': 'rad'}]}
'''
OPTIONS = {'only': NODES, 'camera_width': 320, 'camera_height': 240}
AHEAD = 'return [0.3, 0.0]'
GATE_OF_KILLED = 13      # trials: one, two for each of five processes, and two to spare
STAY = "return observation['tip']"
CRASH = "raise RuntimeError('lost the T')"


def write_recipe(folder, act):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'recipe.yaml').write_text('method: test\nparameters: {}\n')
    (folder / 'policy.py').write_text(textwrap.dedent(f'''
        import time


        class Policy:
            def __init__(self, config):
                pass

            def reset(self, observation):
                pass

            def act(self, observation):
                {act}
        '''))
    return folder


def write_agent(folder, key_variable=''):
    """A settings file whose codex is a script that thinks for a moment and lets the arm point ahead."""
    program = folder / 'bin' / 'codex'
    program.parent.mkdir()
    program.write_text(f'''#!/bin/bash
        sleep 2
        sed -i "s/raise RuntimeError.*/{AHEAD}/" policy.py
        echo '{{"type": "thread.started", "thread_id": "t1"}}'
        echo '{{"type": "item.completed", "item": {{"id": "1", "type": "agent_message",
            "text": "Hypothesis: An arm ahead earns the reward."}}}}' | tr -d '\\n'; echo
        echo '{{"type": "turn.completed", "usage": {{"input_tokens": 1000, "cached_input_tokens": 600,
            "output_tokens": 50, "reasoning_output_tokens": 20}}}}' | tr -d '\\n'; echo
    ''')
    program.chmod(0o755)
    file = folder / 'agent.yaml'
    reach = f'key_variable: {key_variable}' if key_variable else 'endpoint: http://127.0.0.1:9'
    file.write_text(f'name: codex\nprogram: {program}\n{reach}\n')
    return str(file)


def change(text, pattern, new):
    text, count = re.subn(pattern, new, text)
    assert count == 1, pattern
    return text


def make_task(folder):
    shutil.copytree(PUSH_T, folder, ignore=shutil.ignore_patterns('__pycache__'))
    text = (folder / 'task.yaml').read_text()
    text = change(text, r'episode_timeout: [0-9.]+', 'episode_timeout: 5.0')
    text = change(text, r'max_late_steps: [0-9]+', 'max_late_steps: 5')
    (folder / 'reward.py').write_text(REWARD)
    (folder / 'task.yaml').write_text(text)
    shutil.rmtree(folder / 'recipe')
    write_recipe(folder / 'recipe', AHEAD)
    return folder


@pytest.fixture
def task(tmp_path):
    return make_task(tmp_path / 'push_t')


class InstantReset:
    """Serves `reset` for a station by its simulator's own reset."""

    def __init__(self, station):
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=station.domain_id)
        self.node = rclpy.create_node('enpire_client_reset', namespace=station.namespace, context=self.context)
        self._parameters = self.node.create_client(SetParameters, 'sim_station/set_parameters')
        self._reset_world = self.node.create_client(Trigger, 'sim/reset_world')
        self.succeeds = True
        self._server = BlockingActionServer(self.node, Reset, 'reset', self._reset, busy_message='one at a time')
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        threading.Thread(target=self._executor.spin, daemon=True).start()

    def _reset(self, goal):
        if not self.succeeds:
            return Reset.Result(success=False, message='the T is out of reach', attempts=3)
        seed = Parameter('seed', value=goal.request.seed % 2**31).to_parameter_msg()
        call_service(self.node, self._parameters, SetParameters.Request(parameters=[seed]), timeout=8)
        response = call_service(self.node, self._reset_world, Trigger.Request(), timeout=8)
        time.sleep(0.3)
        return Reset.Result(success=response.success, message=response.message, attempts=1)

    def publish_guard_status(self, state, message):
        """Says something in the guard's place, to everybody who listens to the guard."""
        publisher = self._guard_status = self.node.create_publisher(DiagnosticStatus, 'guard_status', LATCHED_QOS)
        wait_for(lambda: publisher.get_subscription_count() >= 1, 'somebody who listens to the guard')
        publisher.publish(DiagnosticStatus(name='guard', message=message, level=DiagnosticStatus.ERROR,
                                           values=[KeyValue(key='state', value=state)]))
        assert publisher.wait_for_all_acked(Duration(seconds=5))

    def close(self):
        self._executor.shutdown(timeout_sec=0.0)
        self._server.close()
        self.context.try_shutdown()


@contextlib.contextmanager
def clients_of(station):
    """(client, reset) of a station that is up."""
    with contextlib.closing(InstantReset(station)) as reset, StationClient(station.name, station.domain_id) as client:
        yield client, reset


@contextlib.contextmanager
def running_station(folder, episode_timeout):
    """(station, client, reset, task's folder)"""
    task = make_task(folder / 'push_t')
    text = (task / 'task.yaml').read_text()
    (task / 'task.yaml').write_text(change(text, 'episode_timeout: 5.0', f'episode_timeout: {episode_timeout}'))
    reservation = DomainReservation()
    try:
        with StationProcesses(task=str(task), domain_id=reservation.domain_id, runs=folder / 'runs',
                              **OPTIONS) as station, clients_of(station) as (client, reset):
            yield station, client, reset, task
    finally:
        reservation.release()


@pytest.fixture(scope='module')
def _shared_station(tmp_path_factory):
    with running_station(tmp_path_factory.mktemp('research'), 5.0) as running:
        yield running


@pytest.fixture(scope='module')
def _patient_station(tmp_path_factory):
    with running_station(tmp_path_factory.mktemp('trials'), 60.0) as running:
        yield running


@pytest.fixture
def patient_station(_patient_station):
    """(station, client, reset, task's folder); an episode may take long. Use a campaign of your own."""
    write_recipe(_patient_station[-1] / 'recipe', AHEAD)
    return _patient_station


@pytest.fixture
def shared_station(_shared_station):
    """(station, client, task's folder), the recipe and the ideas as they were; use a campaign of your own."""
    task = _shared_station[-1]
    for folder in (task / 'recipe', task / 'ideas'):
        shutil.rmtree(folder)
    shutil.copytree(PUSH_T / 'ideas', task / 'ideas', ignore=shutil.ignore_patterns('__pycache__'))
    write_recipe(task / 'recipe', AHEAD)
    station, client, _, task = _shared_station
    return station, client, task


def ledger_of(station, campaign='manual'):
    return Ledger(station.runs / campaign / station.name / 'ledger.jsonl')


def wait_for(condition, what, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f'waited {seconds} s for {what}'
        time.sleep(0.05)


def in_background(call):
    """Runs `call` in a thread; returns a list that gets its result or exception, and the thread."""
    outcome = []

    def work():
        try:
            outcome.append(call())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return outcome, thread


@contextlib.contextmanager
def somebody_says_success(client, verdict):
    """A node that is not the success detector publishes verdicts, too."""
    publisher, ended = client.node.create_publisher(Verdict, 'verdict', STATE_QOS), threading.Event()

    def publish():
        while not ended.wait(0.05):
            publisher.publish(verdict)

    thread = threading.Thread(target=publish, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        client.node.destroy_publisher(publisher)


def test_trials_good_and_bad_leave_complete_records_and_a_usable_station(patient_station, tmp_path):
    station, client, reset, task = patient_station

    # What the guard of a station that just comes up says stops no trial.
    reset.publish_guard_status('silent', 'no joint state has arrived yet')
    good = client.run_trial(seed=2, timeout=60)
    assert good.outcome == 'SUCCESS', good.reason
    assert good.reset_success and good.late_steps == 0 and good.steps > 15
    assert [check.name for check in good.verdict.checks] == ['ahead']
    stamps = [m.log_time_ns for m in read_ros2_messages(f'{good.directory}/episode.mcap', topics=['joint_states'])]
    assert stamps == sorted(stamps) and len(stamps) > good.steps
    assert len(list(read_frames(good.directory))) >= 5
    wait_for((Path(good.directory) / 'video.mp4').exists, 'the video', seconds=30.0)
    steps = list(read_steps(good.directory))
    assert [step['step'] for step in steps] == list(range(len(steps))) and len(steps) == good.steps
    assert all(step['source'] == 'policy' for step in steps)
    # One answer a policy step, none left out: 30 Hz on the grid of 100 Hz.
    assert steps[-1]['time'] == pytest.approx((good.steps - 1) / 30, abs=0.011)

    bad = {CRASH: ('POLICY_ERROR', 'lost the T'), "return [float('nan'), 0.0]": ('POLICY_ERROR', 'finite'),
           'return [0.3]': ('POLICY_ERROR', 'shape (1,)'), 'time.sleep(100)': ('POLICY_ERROR', 'did not answer'),
           '1 +': ('POLICY_ERROR', 'SyntaxError')}
    for number, (act, (outcome, said)) in enumerate(bad.items()):
        result = client.run_trial(str(write_recipe(tmp_path / f'bad_{number}', act)), seed=2, timeout=60)
        assert (result.outcome, said in result.reason) == (outcome, True), result.reason

    reset.succeeds = False
    failed = client.run_trial(seed=4, timeout=60)
    assert (failed.outcome, failed.reset_success, failed.reset_attempts) == ('RESET_FAILED', False, 3)
    reset.succeeds = True

    with somebody_says_success(client, good.verdict):
        injected = client.run_trial(seed=2, timeout=60)
    assert (injected.outcome, 'verdict as well' in injected.reason) == ('INVALID', True), injected.reason

    (task / 'reward.py').write_text(REWARD + '\n# looks kinder now\n')
    tampered = client.run_trial(seed=2, timeout=60)
    (task / 'reward.py').write_text(REWARD)
    client.listen(Verdict, 'verdict', STATE_QOS, timeout=10.0, accept=lambda verdict: verdict.env_hash == good.env_hash)
    assert tampered.outcome == 'INVALID' and 'environment was changed' in tampered.reason

    lines = ledger_of(station).verify()
    assert [line['outcome'] for line in lines] == ['SUCCESS', *['POLICY_ERROR'] * 5, 'RESET_FAILED', 'INVALID',
                                                    'INVALID']
    assert len({line['env_hash'] for line in lines}) == 1


def test_interrupted_trials_count(patient_station, tmp_path):
    station, client, _, task = patient_station
    write_recipe(task / 'recipe', STAY)
    campaign = 'interrupted'
    trials = station.runs / campaign / 'station_1' / 'trials'

    def running_trial():
        """The trial whose policy runs now."""
        running = [file.parent for file in trials.glob('*/episode.mcap.part')
                   if not (file.parent / 'trial.json').exists()]
        return running[0] if running and (running[0] / 'policy.log').exists() else None

    # A camera that stops: one reason that names it, and the station goes on when it is back.
    outcome, thread = in_background(lambda: client.run_trial(seed=2, campaign=campaign, timeout=90))
    wait_for(running_trial, 'a running policy')
    time.sleep(1.5)
    os.kill(station.pids()['cameras'], signal.SIGSTOP)
    try:
        thread.join(60)
    finally:
        os.kill(station.pids()['cameras'], signal.SIGCONT)
    assert outcome[0].outcome == 'ABORTED' and 'camera' in outcome[0].reason, outcome

    # The trial runner is killed: its trial is in the ledger when it is back, and only once.
    outcome, thread = in_background(lambda: client.run_trial(seed=4, campaign=campaign, timeout=90))
    wait_for(running_trial, 'a running policy')
    trial = running_trial()
    killed = station.pids()['research']
    children = psutil.Process(killed).children(recursive=True)
    os.kill(killed, signal.SIGKILL)
    ledger = ledger_of(station, campaign)
    wait_for(lambda: len(ledger.entries()) == 2, 'the killed trial in the ledger')
    line = ledger.verify()[-1]
    assert (line['trial_id'], line['outcome'], line['seed']) == (trial.name, 'ABORTED', 4)
    wait_for(lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children),
             "the policy's process to end")
    assert not (trial / 'trial.json').exists()

    again = None
    end = time.monotonic() + 30
    while again is None:
        try:
            again = client.run_trial(str(write_recipe(tmp_path / 'crash', CRASH)), seed=6, campaign=campaign,
                                     timeout=60)
        except RuntimeError:
            assert time.monotonic() < end
    assert again.outcome == 'POLICY_ERROR'
    assert len(ledger.verify()) == 3


def test_a_campaign_improves_tells_a_second_station_and_reports(shared_station, start_station):
    station, client, task = shared_station
    write_recipe(task / 'recipe', CRASH)
    write_recipe(task / 'ideas', AHEAD)
    (task / 'ideas' / 'ideas.yaml').write_text(textwrap.dedent('''
        ideas:
          - {id: worse, family: other, hypothesis: Doing nothing at all may be enough, files: {policy.py: worse.py}}
          - id: stay
            family: calm
            hypothesis: A policy that does not crash gets somewhere
            files: {policy.py: policy.py}
        '''))
    (task / 'ideas' / 'worse.py').write_text('class Policy(:\n')
    statuses, campaign = [], 'improve'
    goal = RunCampaign.Goal(campaign=campaign, search_trials=1, gate_trials=2)

    result = client.run_campaign(goal, timeout=150, feedback=lambda message: statuses.append(message.status))

    assert result.success, result.message
    assert (result.baseline_successes, result.baseline_trials) == (0, 2)
    assert (result.gate_successes, result.gate_trials) == (2, 2)
    state = read_campaign(station.runs / campaign / 'station_1' / 'campaign.json')
    assert [(i.origin, i.state) for i in state.iterations] == [('idea:worse#0', 'reverted'), ('idea:stay#0', 'kept')]
    assert {status.phase for status in statuses} >= {'baseline', 'search', 'gate'} - {'baseline'}
    assert any('does not crash' in status.hypothesis for status in statuses)
    assert result.trials == len(ledger_of(station, campaign).verify())

    # The same name again: finished, and no trial is run twice.
    again = client.run_campaign(goal, timeout=60)
    assert again.message == result.message and again.trials == result.trials

    second = start_station(task=str(task), namespace='station_2', domain_id=station.domain_id, runs=station.runs,
                           **OPTIONS)
    with clients_of(second) as (client_2, _):
        adopted = client_2.run_campaign(RunCampaign.Goal(campaign=campaign, search_trials=1, gate_trials=2,
                                                         max_iterations=1), timeout=120)
    assert adopted.success and adopted.trials == 1, adopted.message
    state_2 = read_campaign(station.runs / campaign / 'station_2' / 'campaign.json')
    assert state_2.best.adopted_from == 'station_1' and state_2.baseline.source == 'station_1'
    repositories = [RecipeRepository(station.runs / campaign / name / 'recipe') for name in ('station_1', 'station_2')]
    assert repositories[0].files(state.best.commit) == repositories[1].files('HEAD')

    page = write_report(station.runs / campaign).read_text()
    assert 'A policy that does not crash gets somewhere' in page and 'station_2' in page
    assert page.count('data:video/mp4;base64,') >= 1


def test_a_coding_agent_improves_a_recipe_while_the_station_tries_the_best_one(shared_station, tmp_path):
    station, client, task = shared_station
    write_recipe(task / 'recipe', CRASH)
    said, heard = [], client.node.create_subscription(AgentEvent, 'agent_events', lambda event: said.append(event),
                                                      HISTORY_QOS)
    result = client.run_campaign(RunCampaign.Goal(
        campaign='agent', researcher=write_agent(tmp_path), max_iterations=1, search_trials=2, gate_trials=2),
        timeout=150)
    client.node.destroy_subscription(heard)
    assert result.success, result.message
    state = read_campaign(station.runs / 'agent' / station.name / 'campaign.json')
    iteration, = state.iterations
    assert (iteration.state, iteration.hypothesis) == ('kept', 'An arm ahead earns the reward.')
    assert (state.researcher, state.gate.passed, state.tokens_to_success) == ('codex', True, 1050)
    assert [(turn.cached_tokens, turn.reasoning_tokens) for turn in state.turns] == [(600, 20)]
    # The robot was not idle while it thought: the starting recipe has trials of the search, too.
    kinds = [line['kind'] for line in ledger_of(station, 'agent').verify() if line['recipe'] == state.baseline.recipe]
    assert set(kinds) == {'baseline', 'search'}
    of_campaign = [event for event in said if event.campaign == 'agent']
    assert {event.researcher for event in of_campaign} == {'codex'}
    assert any(event.kind == 'researcher' and 'An arm ahead' in event.text for event in of_campaign)
    assert sum(event.input_tokens + event.output_tokens for event in of_campaign) == 1050


def test_hold_stops_between_trials_and_cancel_ends_a_campaign_that_can_be_resumed(shared_station):
    station, client, _ = shared_station
    # A recipe that always succeeds would be raced for long.
    goal = RunCampaign.Goal(campaign='held', search_trials=2, gate_trials=3, max_trials=12)
    stop = threading.Event()
    outcome, thread = in_background(lambda: client.run_campaign(goal, timeout=150, cancelled=stop.is_set))
    ledger = ledger_of(station, 'held')
    wait_for(lambda: len(ledger.entries()) == 1, 'the first trial')
    assert client.hold('a person at the table').accepted
    wait_for(lambda: client.status().state == 'HELD', 'the hold')
    count = len(ledger.entries())
    assert client.status().message.startswith('a person at the table')
    # Nobody gets a trial past the campaign, and nobody but the campaign one that decides.
    for kind, said in (('manual', 'the campaign held runs here'), ('gate', 'one that a campaign asks for')):
        with pytest.raises(RuntimeError, match=said):
            client.run_trial(seed=3, campaign='held', kind=kind, timeout=30)
    started = ledger.file.parent / 'trials'
    held = list(started.glob('*'))
    time.sleep(1.0)      # five times as long as from the end of a trial to the beginning of the next
    assert len(ledger.entries()) == count and list(started.glob('*')) == held
    assert client.resume().accepted
    wait_for(lambda: len(ledger.entries()) > count, 'a trial after the hold')
    stop.set()
    thread.join(30)
    assert not thread.is_alive()
    trial_count = json.loads((station.runs / 'held' / 'station_1' / 'campaign.json').read_text())['baseline']['trials']
    assert 1 <= trial_count
    wait_for(lambda: client.status().state == 'IDLE', 'the campaign to end')

    assert client.hold('a person at the table').accepted
    with pytest.raises(RuntimeError, match='held: a person at the table; ./enpire resume'):
        client.run_trial(seed=2, campaign='held', timeout=30)
    assert client.resume().accepted

    result = client.run_campaign(goal, timeout=150)
    assert result.success and result.baseline_trials == 3
    # What was cancelled counts, and says nothing about a recipe: only that may be there a second time.
    said = [(line['kind'], line['seed'], line['recipe']) for line in ledger.verify() if line['outcome'] != 'ABORTED']
    assert len(set(said)) == len(said)


def test_what_makes_no_sense_is_refused_with_its_reason_and_the_station_stays_usable(start_station, task, tmp_path):
    station = start_station(task=str(task), only=('supervisor', 'git_bridge'))
    with StationClient(station.name, station.domain_id) as client:
        response = client.adopt('1234567')
        assert not response.accepted and 'no peer has announced a recipe yet' in response.message
        for changes, said in (({'recipe': str(tmp_path)}, 'no policy.py there'), ({'campaign': '../up'}, 'no plain name'),
                              ({'researcher': 'oracle'}, "no researcher 'oracle'; known: builtin"),
                              ({'researcher': write_agent(tmp_path, 'ENPIRE_NO_SUCH_KEY')}, 'no key and no login'),
                              ({'goal': 1.5}, 'goal is 1.5')):
            result = client.run_campaign(RunCampaign.Goal(**{'campaign': 'c', **changes}), timeout=30)
            assert not result.success and said in result.message, result.message
        assert not (station.runs / 'c').exists()


def test_a_full_disk_stops_a_campaign_with_a_clear_error_and_an_intact_ledger(shared_station):
    station, client, _ = shared_station
    disk = station.runs / 'full'
    disk.mkdir()
    mount = ['mount', '-t', 'tmpfs', '-o', 'size=160m', 'small_disk', str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip('a small disk cannot be mounted here')
    try:
        goal = RunCampaign.Goal(campaign='full', search_trials=1, gate_trials=2)
        outcome, thread = in_background(lambda: client.run_campaign(goal, timeout=90))
        ledger = ledger_of(station, 'full')
        wait_for(lambda: any((disk / 'station_1' / 'trials').glob('*/policy.log')), 'a running trial')
        with open(disk / 'somebody_elses', 'wb') as filler:
            filler.write(bytes(100 << 20))
        thread.join(60)
        assert not outcome[0].success
        assert f'{disk}' in outcome[0].message and 'the disk is full' in outcome[0].message, outcome[0].message
        wait_for(lambda: client.status().state == 'ERROR', 'the error in the status')
        entered = ledger.verify()
        assert len(entered) == len(list((disk / 'station_1' / 'trials').glob('*/started.json'))) >= 1

        (disk / 'somebody_elses').unlink()
        assert client.run_campaign(goal, timeout=90).baseline_trials == 2, 'it goes on when there is room'
        assert [line['trial_id'] for line in ledger.verify()[:len(entered)]] == [line['trial_id'] for line in entered]
    finally:
        subprocess.run(['umount', '--lazy', str(disk)], check=True)


def test_a_campaign_goes_on_when_each_process_of_the_station_is_killed_in_turn(shared_station):
    station, client, task = shared_station
    (task / 'ideas' / 'broken.py').write_text('class Policy(:\n')
    (task / 'ideas' / 'ideas.yaml').write_text(
        'ideas:\n  - {id: broken, family: other, hypothesis: It may work, files: {policy.py: broken.py}}\n')
    goal = RunCampaign.Goal(campaign='killed', search_trials=1, gate_trials=GATE_OF_KILLED)
    shown = io.StringIO()
    outcome, thread = in_background(lambda: run_shown(client, goal, Progress(shown)))
    ledger = ledger_of(station, 'killed')
    trials = station.runs / 'killed' / 'station_1' / 'trials'

    def lines(since=0):
        return ledger.entries()[since:]

    def trial_runs():
        known = {line['trial_id'] for line in lines()}
        return any((folder / 'policy.log').exists() and folder.name not in known for folder in trials.glob('*'))

    wait_for(lambda: lines() or outcome, 'the first trial')
    for process in list(station.pids()):
        wait_for(lambda: trial_runs() or outcome, 'a running trial')
        assert not outcome, (process, outcome, shown.getvalue())
        before = len(lines())
        if process == 'research':
            assert client.hold('a person at the table').accepted
        killed = time.time()
        os.kill(station.pids()[process], signal.SIGKILL)
        if process == 'research':
            # The supervisor that comes back resumes the campaign, and is still held.
            wait_for(lambda: client.status().header.stamp.sec > killed and client.status().campaign == 'killed'
                     and client.status().state == 'HELD', 'the hold')
            assert client.status().message.startswith('a person at the table') and not trial_runs()
            client.resume()
        # The first line may be the trial that was running.
        wait_for(lambda: any(line['outcome'] == 'SUCCESS' for line in lines(before + 1)),
                 f'a trial after {process} was killed')
        lost = [line['reason'] for line in lines(before) if line['outcome'] != 'SUCCESS']
        assert len(lost) <= 1, (process, lost)
    thread.join(90)

    assert not thread.is_alive() and outcome[0].success, (outcome, shown.getvalue())
    assert 'resuming the campaign' in shown.getvalue()
    entered = ledger.verify()
    said = [(line['kind'], line['seed'], line['recipe']) for line in entered]
    assert len(set(said)) == len(said) == outcome[0].baseline_trials == GATE_OF_KILLED, 'none is repeated, none is left out'
    assert {line['trial_id'] for line in entered} == {file.parent.name for file in trials.glob('*/started.json')}
