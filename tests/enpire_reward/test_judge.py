"""Reward programs that fail in every way, and the judge that does not."""

import math
import re
import time

import numpy as np
import pytest
import yaml

from enpire_bringup.task import load_task
from enpire_reward import judge as judge_module
from enpire_reward.judge import NonsenseError, RewardJudge, read_judgement
from enpire_reward.observation import ObjectView

TASK = load_task('push_t')
OBSERVATION = {'time': 1.0, 't_block': ObjectView(np.zeros(3), True, 0.0).plain(),
               'joint_positions': {}, 'joint_efforts': {}}


@pytest.fixture
def start(tmp_path, monkeypatch):
    monkeypatch.setattr(judge_module, 'BACKOFF', (0.05, 0.4))
    judges = []

    def make(source: str, **options) -> RewardJudge:
        file = tmp_path / 'reward.py'
        file.write_text(source)
        judges.append(RewardJudge(file, TASK.file, **options))
        return judges[-1]

    yield make
    for judge in judges:
        judge.close()


def program(body: str) -> str:
    lines = '\n'.join(f'        {line}' for line in body.splitlines())
    return f'import os, time\nclass Reward:\n    def __init__(self, task):\n        self.n = 0\n' \
           f'    def judge(self, o):\n        self.n += 1\n{lines}\n'


def until(condition, timeout=5.0):
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


GOOD = program("return {'outcome': 'not_yet', 'reason': 'wait', 'checks': []}")


def test_the_shipped_reward_program_judges(tmp_path):
    judge = RewardJudge(TASK.reward, TASK.file)
    try:
        until(lambda: judge.ready)
        judgement = judge.judge(OBSERVATION)
        assert judgement.outcome == 'not_yet'
        assert {check.name for check in judgement.checks} >= {'position', 'yaw', 'still'}
        assert 0 < judgement.compute < 0.1
    finally:
        judge.close()


def test_it_gets_the_task_as_it_was_written(start):
    judge = start('class Reward:\n    def __init__(self, task): self.task = task\n'
                  '    def judge(self, o):\n'
                  "        return {'outcome': 'not_yet', 'reason': str(self.task['goal']['xy'])}\n")
    until(lambda: judge.ready)
    assert judge.judge(OBSERVATION).reason == str(yaml.safe_load(TASK.file.read_text())['goal']['xy'])


@pytest.mark.parametrize('body, reason', [
    ("raise ValueError('no idea')", r'reward\.py:8: judge\(\): ValueError: no idea'),
    ('return None', 'returned None; expected a dict'),
    ("return float('nan')", 'returned nan; expected a dict'),
    ("return {'outcome': 'victory'}", "outcome 'victory'; expected one of success, not_yet, abstain"),
    ("return {'outcome': float('nan')}", 'outcome nan'),
    ("return {'outcome': True}", 'outcome True'),
    ("return {'outcome': 'success', 'checks': [{'name': 'yaw', 'passed': True, 'value': float('nan')}]}",
     'NaN'),
    ("return {'outcome': 'success', 'checks': [{'name': 'yaw', 'passed': False, 'value': 1.0}]}",
     'did not pass'),
    ("return {'outcome': 'not_yet', 'checks': [{'name': 'yaw', 'passed': 1}]}", "'passed' is 1"),
    ("return {'outcome': 'not_yet', 'checks': 'all'}", 'expected a list'),
    ("return {'outcome': 'not_yet', 'reason': 3}", 'expected a text'),
    ('return {1, 2}', 'a set, which cannot be sent'),
    ('os._exit(3)', 'exited with code 3'),
    ('return o["no_such_key"]', r'reward\.py:8: judge\(\): KeyError'),
])
def test_a_failing_reward_program_abstains_and_comes_back(start, body, reason):
    """It fails on its second frame; the first frame after each restart is judged."""
    judge = start(program("if self.n < 2: return {'outcome': 'not_yet'}\n" + body))
    for _ in range(2):
        until(lambda: judge.ready)
        assert judge.judge(OBSERVATION).outcome == 'not_yet'
        started = time.monotonic()
        judgement = judge.judge(OBSERVATION)
        assert time.monotonic() - started < 0.5
        assert judgement.outcome == 'abstain' and judgement.failed
        assert re.search(reason, judgement.reason), judgement.reason
        assert judge.judge(OBSERVATION).outcome == 'abstain'


def test_a_hanging_program_costs_its_budget_once_and_is_replaced(start):
    judge = start(program("if self.n < 2: return {'outcome': 'not_yet'}\nwhile True: pass"))
    until(lambda: judge.ready)
    assert judge.judge(OBSERVATION).outcome == 'not_yet'
    started = time.monotonic()
    judgement = judge.judge(OBSERVATION)
    assert judgement.outcome == 'abstain' and 'did not answer within 150 ms' in judgement.reason
    busy = judge.judge(OBSERVATION)
    assert busy.outcome == 'abstain' and 'still busy' in busy.reason
    assert time.monotonic() - started < 0.5
    until(lambda: 'did not answer for 1 s' in judge.judge(OBSERVATION).reason)
    until(lambda: judge.judge(OBSERVATION).outcome == 'not_yet')


def test_a_late_program_keeps_what_it_knows(start):
    judge = start(program('time.sleep(0.3 if self.n == 2 else 0)\n'
                          "return {'outcome': 'not_yet', 'reason': str(self.n)}"))
    until(lambda: judge.ready)
    assert judge.judge(OBSERVATION).reason == '1'
    assert judge.judge(OBSERVATION).outcome == 'abstain'
    outcomes = []
    until(lambda: outcomes.append(judge.judge(OBSERVATION)) or outcomes[-1].outcome == 'not_yet')
    assert outcomes[-1].reason == '3'       # neither restarted nor asked twice


def test_a_program_that_does_not_compile_abstains_until_it_is_mended(start, tmp_path):
    judge = start('class Reward:\n    def judge(self\n')
    until(lambda: 'SyntaxError' in judge.problem)
    judgement = judge.judge(OBSERVATION)
    assert judgement.outcome == 'abstain' and 'reward.py:2: SyntaxError' in judgement.reason
    (tmp_path / 'reward.py').write_text(GOOD)
    until(lambda: judge.ready)
    assert judge.judge(OBSERVATION).outcome == 'not_yet'


def test_restarts_come_ever_more_slowly(start):
    starts = []
    start('raise ValueError', on_start=lambda: starts.append(time.monotonic()))
    until(lambda: len(starts) >= 5, timeout=10)
    gaps = np.diff(starts)
    assert gaps[3] > 3 * 0.05


def test_success_needs_every_check_to_pass():
    good = {'name': 'yaw', 'passed': True, 'value': 0.01, 'limit': 0.08, 'unit': 'rad'}
    assert read_judgement({'outcome': 'success', 'checks': [good]}, 'reward.py').outcome == 'success'
    with pytest.raises(NonsenseError, match="its check 'yaw' did not pass"):
        read_judgement({'outcome': 'success', 'checks': [good, {**good, 'passed': False}]}, 'reward.py')


def test_an_unmeasured_check_is_nan_and_does_not_pass():
    unmeasured = {'outcome': 'abstain', 'checks': [{'name': 'yaw', 'passed': False}]}
    judgement = read_judgement(unmeasured, 'reward.py')
    assert math.isnan(judgement.checks[0].value)


def test_long_texts_are_cut():
    assert len(read_judgement({'outcome': 'not_yet', 'reason': 'x' * 10_000}, 'reward.py').reason) == 500
