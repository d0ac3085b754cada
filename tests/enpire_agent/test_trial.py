import json
import math
import re
import shutil
import textwrap
from dataclasses import replace

import numpy as np
import pytest

from enpire_agent.ledger import Ledger
from enpire_agent.policy_session import PolicySession, read_action
from enpire_agent.start_places import edge_places, farthest_place
from enpire_agent.trial import ABORTED, Check, Judgement, ResetReport, Step, Trial, TrialEnd, make_request
from enpire_bringup.paths import share_directory
from enpire_bringup.task import load_task

ENV = 'e' * 64
PERIOD = 33_333_333   # ns


@pytest.fixture
def task(tmp_path):
    folder = tmp_path / 'push_t'
    shutil.copytree(share_directory() / 'tasks' / 'push_t', folder)
    text = (folder / 'task.yaml').read_text()
    for key, value in (('episode_timeout', 1.0), ('success_hold', 0.0), ('max_late_steps', 5)):
        text, count = re.subn(rf'{key}: [0-9.]+', f'{key}: {value}', text)
        assert count == 1
    (folder / 'task.yaml').write_text(text)
    return load_task(folder)


class FakeStation:
    """The tip goes where it is sent; the task is done when it is within 2 cm of `target`."""

    lockstep = False

    def __init__(self, task, target=(0.3, 0.0)):
        self.tip = np.array([0.2, -0.1])
        self.target = np.array(target)
        self.task = task
        self.stamp = 0
        self.commands, self.steps = [], []
        self.changes = []
        self.verdict_hash = ENV
        self.stop_at, self.stop = None, ('ABORTED', 'cancelled')
        self.reset_report = ResetReport(True, '', 1)
        self.final = None
        self.retreated = False
        self.limits = []          # every set of limits that was asked for, and at which stage
        self.too_loose = ''

    def environment_changes(self):
        return self.changes

    def now(self):
        return self.stamp

    def stop_reason(self):
        return self.stop if self.stop_at is not None and len(self.commands) >= self.stop_at else None

    def reset(self, seed):
        return self.reset_report

    def go_to_start(self):
        pass

    def use_limits(self, changes):
        if changes and self.too_loose:
            raise TrialEnd('POLICY_ERROR', self.too_loose)
        self.limits.append((changes, len(self.commands)))

    def first_step(self):
        return self.next_step(-1)

    def next_step(self, after):
        self.stamp += PERIOD
        observation = {'t_block': {'pose': np.zeros(3), 'visible': True}, 'tip': self.tip,
                       'joint_positions': np.zeros(14)}
        return Step(self.stamp, observation, self.tip, self._verdict(self.stamp - PERIOD))

    def _verdict(self, stamp):
        distance = float(np.hypot(*(self.tip - self.target)))
        return Judgement(stamp, 'success' if distance < 0.02 else 'not_yet', f'{distance:.3f} m away',
                         self.verdict_hash, (Check('position', distance < 0.02, distance, 0.02, 'm'),))

    def command(self, stamp, target):
        self.commands.append((stamp, target))
        self.tip = target

    def retreat(self):
        self.retreated = True
        return self.stamp

    def clear_verdict(self, after):
        return self.final or self._verdict(after + PERIOD)

    def record_step(self, content, stamp):
        self.steps.append(content)


def _policy(tmp_path, act='return [0.3, 0.0]', top='', init='pass'):
    folder = tmp_path / 'recipe'
    folder.mkdir(exist_ok=True)
    (folder / 'recipe.yaml').write_text('method: test\nparameters: {}\n')
    (folder / 'policy.py').write_text(textwrap.dedent(f'''
        import os, time
        import numpy as np
        {top}
        class Policy:
            def __init__(self, config):
                {init}
            def reset(self, observation):
                self.count = 0
            def act(self, observation):
                self.count += 1
                {act}
        '''))
    return folder


def _run(tmp_path, task, station, recipe, kind='manual', seed=1):
    request = make_request(tmp_path / 'runs', campaign='c', station='station_1', task=task, kind=kind, seed=seed,
                           recipe_directory=recipe, env_hash=ENV)
    report = Trial(request, task, station).run()
    lines = Ledger(tmp_path / 'runs' / 'c' / 'station_1' / 'ledger.jsonl').verify()
    assert lines[-1]['outcome'] == report.outcome
    assert json.loads((request.directory / 'trial.json').read_text())['outcome'] == report.outcome
    return report


def test_a_policy_that_reaches_the_goal_succeeds(tmp_path, task):
    station = FakeStation(task)
    report = _run(tmp_path, task, station, _policy(tmp_path))
    assert (report.outcome, report.late_steps) == ('SUCCESS', 0)
    assert report.verdict.value('position') < 0.02
    steps = np.diff([target for _, target in station.commands], axis=0)
    assert np.hypot(*steps.T).max() <= task.action.max_step + 1e-9
    assert all(step['source'] == 'policy' for step in station.steps)


def test_each_policy_step_is_answered_once_with_its_own_stamp(tmp_path, task):
    station = FakeStation(task)
    report = _run(tmp_path, task, station, _policy(tmp_path))
    assert [stamp for stamp, _ in station.commands] == [PERIOD * (k + 1) for k in range(report.steps)]


def test_a_policy_that_does_nothing_runs_out_of_time(tmp_path, task):
    report = _run(tmp_path, task, FakeStation(task), _policy(tmp_path, "return observation['tip']"))
    assert report.outcome == 'TIMEOUT' and 'not done within 1 s' in report.reason
    assert report.duration == pytest.approx(1.0, abs=0.05)


def test_an_episode_ends_by_success_that_lasts(tmp_path, task, monkeypatch):
    monkeypatch.setattr(FakeStation, 'lockstep', True)      # no step is late here
    lasting = replace(task, policy=replace(task.policy, success_hold=0.2))
    at_once, later = (_run(tmp_path, terms, FakeStation(terms), _policy(tmp_path)) for terms in (task, lasting))
    assert later.outcome == 'SUCCESS' and later.steps == at_once.steps + 6
    passing = _policy(tmp_path, 'return [0.5, 0.0]')
    assert _run(tmp_path, lasting, FakeStation(task, target=(0.25, -0.07)), passing).outcome == 'TIMEOUT'


def test_success_is_decided_by_the_look_after_the_retreat(tmp_path, task):
    station = FakeStation(task)
    station.final = Judgement(10**12, 'not_yet', 'it slipped away', ENV)
    report = _run(tmp_path, task, station, _policy(tmp_path))
    assert report.outcome == 'FAILURE' and 'it slipped away' in report.reason and station.retreated


def test_without_a_clear_view_there_is_no_success(tmp_path, task):
    station = FakeStation(task)
    station.clear_verdict = lambda after: None
    assert _run(tmp_path, task, station, _policy(tmp_path)).outcome == 'FAILURE'


@pytest.mark.parametrize('act, said', [
    ('return [float("nan"), 0.0]', 'expected finite numbers'),
    ('return [0.3]', r'shape \(1,\)'),
    ('return "left"', 'act() returned str'),
    ('return None', 'act() returned'),
    ('time.sleep(60)', 'did not answer within'),
])
def test_no_valid_action_is_a_hold_that_counts_and_ends_the_trial(tmp_path, task, act, said):
    station = FakeStation(task)
    report = _run(tmp_path, task, station, _policy(tmp_path, act))
    assert report.outcome == 'POLICY_ERROR' and report.late_steps == 5
    assert said.replace('\\', '') in report.reason
    assert station.retreated
    assert all(np.allclose(target, [0.2, -0.1]) for _, target in station.commands), 'a hold is no guess'
    assert all(step['source'].startswith('hold') and step['action'] is None for step in station.steps)


def test_one_bad_step_is_held_and_the_policy_goes_on(tmp_path, task):
    act = 'return [float("nan"), 0.0] if self.count == 3 else [0.3, 0.0]'
    station = FakeStation(task)
    report = _run(tmp_path, task, station, _policy(tmp_path, act))
    assert (report.outcome, report.late_steps) == ('SUCCESS', 1)
    assert [step['source'] for step in station.steps[:4]] == ['policy', 'policy', 'hold_malformed', 'policy']


@pytest.mark.parametrize('world_waits, act, late', [
    (True, 'time.sleep(0.04); return [0.3, 0.0]', False),       # a busy machine
    (False, 'time.sleep(0.04); return [0.3, 0.0]', True),
    (True, 'end = time.thread_time() + 0.03\n                while time.thread_time() < end: pass\n'
           '                return [0.3, 0.0]', True),
])
def test_where_the_world_waits_the_deadline_is_cpu_time(tmp_path, task, world_waits, act, late):
    station = FakeStation(task)
    station.lockstep = world_waits
    report = _run(tmp_path, task, station, _policy(tmp_path, act))
    assert report.outcome == ('POLICY_ERROR' if late else 'SUCCESS')
    assert ('ms of CPU time, the deadline is 25 ms' in report.reason) == (world_waits and late)


def test_an_evaluation_gives_a_step_more_cpu_time_than_a_station(tmp_path, task):
    burn = ('end = time.process_time() + 0.3\n                while time.process_time() < end: pass\n'
            '                return [0.3, 0.0]')
    slow = replace(task, policy=replace(task.policy, deadline=0.2))
    for leniency, source in ((1.0, 'hold_late'), (2.0, 'policy')):
        with PolicySession(_policy(tmp_path, act=burn), slow, world_waits=True, leniency=leniency) as session:
            session.reset({'time': 0.0})
            assert session.act({'time': 0.0}).source == source


def test_a_late_action_is_dropped_and_not_executed_later(tmp_path, task):
    act = 'time.sleep(0.06 if self.count == 2 else 0); return [0.5, 0.2] if self.count == 2 else observation["tip"]'
    station = FakeStation(task)
    report = _run(tmp_path, task, station, _policy(tmp_path, act))
    assert report.late_steps >= 1
    assert all(np.allclose(target, [0.2, -0.1]) for _, target in station.commands)


@pytest.mark.parametrize('changes, said', [
    ({'act': 'raise RuntimeError("lost it")'}, 'lost it'),
    ({'act': 'os._exit(3)'}, 'exited with code 3'),
    ({'init': 'raise ValueError("no such parameter")'}, 'no such parameter'),
    ({'top': 'import no_such_module'}, 'no_such_module'),
    ({'top': 'def broken(:'}, 'invalid syntax'),
])
def test_a_policy_that_fails_is_a_policy_error_with_its_reason(tmp_path, task, changes, said):
    report = _run(tmp_path, task, FakeStation(task), _policy(tmp_path, **changes))
    assert report.outcome == 'POLICY_ERROR' and said in report.reason


@pytest.mark.parametrize('changes, where, said', [
    ({'act': 'return 1 / 0'}, 'return 1 / 0', 'ZeroDivisionError'),
    ({'act': 'time.sleep(60)'}, 'time.sleep(60)', 'the station stopped it: no answer in time'),
    ({'act': 'while True: pass'}, 'while True: pass', 'the station stopped it: no answer in time'),
    ({'act': 'os.fork(); return [0.3, 0.0]'}, 'os.fork()', 'PermissionError'),
    ({'init': 'print("x" * 2_000_000); time.sleep(9)'}, 'in __init__', 'it printed more than 1 MB'),
    ({'act': 'self.kept = bytearray(3 << 30); return [0.3, 0.0]'}, 'bytearray(3 << 30)', 'MemoryError'),
])
def test_a_policy_that_misbehaves_is_a_policy_error_with_its_traceback(tmp_path, task, changes, where, said):
    report = _run(tmp_path, task, FakeStation(task), _policy(tmp_path, **changes))
    record = json.loads((report.request.directory / 'trial.json').read_text())
    assert report.outcome == 'POLICY_ERROR'
    assert where in record['traceback'] and said in record['traceback']


@pytest.mark.parametrize('act', [
    'open({ledger!r}, "a").write("{{}}"); return [0.3, 0.0]', 'open({ledger!r}).read(); return [0.3, 0.0]',
    'open({reward!r}, "a").write("# kinder"); return [0.3, 0.0]'])
def test_a_policy_reaches_neither_ledger_nor_reward(tmp_path, task, act):
    from enpire_bringup.program_confinement import landlock_version

    if landlock_version() < 1:
        pytest.skip('this kernel has no Landlock')
    first = _run(tmp_path, task, FakeStation(task), _policy(tmp_path))
    ledger = tmp_path / 'runs' / 'c' / 'station_1' / 'ledger.jsonl'
    before, reward = ledger.read_bytes(), task.reward.read_bytes()
    act = act.format(ledger=str(ledger), reward=str(task.reward))
    report = _run(tmp_path, task, FakeStation(task), _policy(tmp_path, act))
    assert report.outcome == 'POLICY_ERROR' and 'PermissionError' in report.reason
    assert ledger.read_bytes().startswith(before) and task.reward.read_bytes() == reward
    isolation = json.loads((report.request.directory / 'trial.json').read_text())['isolation']
    assert isolation == first.isolation and isolation.startswith('landlock')
    assert json.loads(ledger.read_text().splitlines()[0])['isolation'] == isolation


def test_a_trial_says_how_fast_ros_time_went_by(tmp_path, task):
    station = FakeStation(task)
    report = _run(tmp_path, task, station, _policy(tmp_path))
    timing = report.record()['timing']
    assert timing['ros_duration'] == pytest.approx(station.stamp * 1e-9, abs=1e-3)
    assert timing['pace'] == pytest.approx(timing['ros_duration'] / report.wall_duration, abs=0.01)
    assert timing['policy_pace'] == pytest.approx(report.duration / timing['policy_wall'], abs=0.01)


def test_a_failed_reset_is_recorded_apart_and_the_policy_does_not_run(tmp_path, task):
    station = FakeStation(task)
    slipped = {'success': False, 'reason': 'the T slipped', 'duration': 7.5, 'position_error': math.nan,
               'yaw_error': 0.2}
    station.reset_report = ResetReport(False, 'could not grasp', 3, (slipped,) * 3, '/runs/resets/seen.png')
    report = _run(tmp_path, task, station, _policy(tmp_path))
    assert (report.outcome, report.reset_success, report.reset_attempts) == ('RESET_FAILED', False, 3)
    kept = json.loads((report.request.directory / 'trial.json').read_text())
    assert kept['reset_tried'] == [{**slipped, 'position_error': None}] * 3
    assert kept['reset_picture'] == '/runs/resets/seen.png'
    assert station.commands == []


@pytest.mark.parametrize('outcome, reason', [('ABORTED', 'cancelled'), ('SAFETY_STOP', 'left: too fast')])
def test_a_stop_ends_the_trial_and_the_arm_retreats(tmp_path, task, outcome, reason):
    station = FakeStation(task)
    station.stop_at, station.stop = 3, (outcome, reason)
    report = _run(tmp_path, task, station, _policy(tmp_path))
    assert (report.outcome, report.reason) == (outcome, reason)
    assert len(station.commands) == 3 and station.retreated


def test_limits_of_the_recipe_hold_while_its_policy_runs_and_no_longer(tmp_path, task):
    station, recipe = FakeStation(task), _policy(tmp_path)
    (recipe / 'recipe.yaml').write_text('method: test\nparameters: {}\nlimits: {max_tip_speed: 0.2}\n')
    station.stop_at, station.stop = 3, ('SAFETY_STOP', 'left: too fast')
    _run(tmp_path, task, station, recipe)
    tight = {'max_tip_speed': 0.2}
    assert station.limits == [(tight, 0), ({}, 0), (tight, 0), ({}, 3)]


@pytest.mark.parametrize('limits, too_loose, reason', [
    ('{max_tip_speed: 0.9}', 'recipe.yaml: limits.max_tip_speed is 0.9 m/s; limits may only be tightened', 'tightened'),
    ('{max_tip_sped: 0.2}', '', 'limits.max_tip_sped is not a known key'),
])
def test_recipe_that_would_loosen_a_limit_is_a_policy_error_and_nothing_moves(tmp_path, task, limits, too_loose,
                                                                              reason):
    station, recipe = FakeStation(task), _policy(tmp_path)
    (recipe / 'recipe.yaml').write_text(f'method: test\nparameters: {{}}\nlimits: {limits}\n')
    station.too_loose = too_loose
    report = _run(tmp_path, task, station, recipe)
    assert report.outcome == 'POLICY_ERROR' and reason in report.reason
    assert not station.commands and not report.reset_success


def test_an_environment_changed_before_the_trial_makes_it_invalid_and_nothing_moves(tmp_path, task):
    station = FakeStation(task)
    station.changes = ['reward.py was changed']
    report = _run(tmp_path, task, station, _policy(tmp_path))
    assert report.outcome == 'INVALID' and 'changed before the trial: reward.py' in report.reason
    assert station.commands == []


def test_tampered_reward_invalidates_trial(tmp_path, task):
    station = FakeStation(task)
    real = station.command

    def command(stamp, target):
        station.changes = ['reward.py was changed']
        real(stamp, target)

    station.command = command
    report = _run(tmp_path, task, station, _policy(tmp_path))
    assert report.outcome == 'INVALID' and 'changed during the trial: reward.py' in report.reason


def test_a_verdict_of_another_environment_invalidates_the_trial(tmp_path, task):
    station = FakeStation(task)
    station.verdict_hash = 'f' * 64
    report = _run(tmp_path, task, station, _policy(tmp_path))
    assert report.outcome == 'INVALID' and 'another environment' in report.reason


def test_a_camera_that_stops_ends_the_trial_with_its_reason(tmp_path, task):
    station = FakeStation(task)
    real = station.next_step

    def next_step(after):
        if len(station.commands) == 4:
            raise TrialEnd(ABORTED, 'no verdict for 2.1 s; is the top camera working?')
        return real(after)

    station.next_step = next_step
    report = _run(tmp_path, task, station, _policy(tmp_path))
    assert report.outcome == 'ABORTED' and 'camera' in report.reason


def test_a_fault_of_the_runner_itself_still_counts_the_trial(tmp_path, task):
    station = FakeStation(task)
    station.command = lambda stamp, target: 1 / 0
    report = _run(tmp_path, task, station, _policy(tmp_path))
    assert report.outcome == 'ABORTED' and 'ZeroDivisionError' in report.reason


@pytest.mark.parametrize('changes, said', [
    ({'kind': 'search', 'seed': 3}, 'belong to the gate'), ({'kind': 'fun'}, "trial kind 'fun'"),
    ({'campaign': '../x'}, 'no plain name')])
def test_a_request_that_makes_no_sense_is_refused_before_it_counts(tmp_path, task, changes, said):
    with pytest.raises(ValueError, match=said):
        make_request(tmp_path / 'runs', **{**dict(
            campaign='c', station='station_1', task=task, kind='manual', seed=1,
            recipe_directory=_policy(tmp_path), env_hash=ENV), **changes})
    assert not (tmp_path / 'runs').exists()


def test_actions_are_clipped_to_the_action_space_and_step(task):
    space, start, here = task.action, np.array([0.3, 0.0]), np.array([0.2, 0.1])
    assert np.hypot(*(space.target(np.array([9.0, 9.0]), start, here) - start)) == pytest.approx(space.max_step)
    edge = np.array([space.high[0] - 0.001, 0.0])
    assert space.target(np.array([9.0, 0.0]), edge, here)[0] == space.high[0]
    assert space.target(None, start, here) is start, 'an arm holds where it was sent, not where it sags to'
    assert read_action([1, 2], space)[0].tolist() == [1.0, 2.0]


def test_the_start_is_the_free_place_farthest_from_the_object():
    places = edge_places((0.0, 0.0), (1.0, 1.0), inset=0.0)
    assert len(places) == 8
    assert farthest_place(places, np.array([0.1, 0.1])).tolist() == [1.0, 1.0]
