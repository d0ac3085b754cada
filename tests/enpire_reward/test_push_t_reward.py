"""What Push-T's reward program says, asked directly and through its child process."""

import importlib.util
import math

import numpy as np
import pytest
import yaml

from enpire_bringup.task import load_task
from enpire_reward.judge import read_judgement
from enpire_reward.observation import ObjectView
from enpire_reward.toolkit import StillnessTracker, angle_difference, check, judged, pose_difference

TASK = load_task('push_t')
GOAL = np.array([TASK.goal.x, TASK.goal.y, TASK.goal.yaw])
FRAME = 1 / 30


@pytest.fixture
def reward():
    spec = importlib.util.spec_from_file_location('push_t_reward', TASK.reward)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Reward(yaml.safe_load(TASK.file.read_text()))


def seen(time, pose, visible=True):
    t_block = ObjectView(np.asarray(pose, float), visible, 0.0005, not visible, 1.0 if visible else 0.3).plain()
    return {'time': time, 't_block': t_block, 'joint_positions': {}, 'joint_efforts': {}}


def run(reward, poses):
    """Outcomes of consecutive frames."""
    return [reward.judge(seen(10 + n * FRAME, *(pose if isinstance(pose, tuple) else (pose,))))
            for n, pose in enumerate(poses)]


def test_a_t_that_lies_on_the_goal_is_success_after_the_still_time(reward):
    verdicts = run(reward, [GOAL] * 15)
    outcomes = [verdict['outcome'] for verdict in verdicts]
    first = outcomes.index('success')
    assert outcomes[:first] == ['not_yet'] * first and set(outcomes[first:]) == {'success'}
    assert first * FRAME == pytest.approx(TASK.tolerance.still, abs=FRAME)
    assert {check['name'] for check in verdicts[-1]['checks']} == {'view', 'position', 'yaw', 'still'}


def test_moving_t_is_not_success(reward):
    # 24 mm/s, all of it within tolerance
    sliding = [GOAL + (0.0008 * n - 0.008, 0, 0) for n in range(20)]
    assert all(verdict['outcome'] == 'not_yet' for verdict in run(reward, sliding))


def test_turning_t_is_not_success(reward):
    turning = [GOAL + (0, 0, math.radians(0.4) * (n - 10)) for n in range(20)]
    assert all(verdict['outcome'] == 'not_yet' for verdict in run(reward, turning))


@pytest.mark.parametrize('offset', [(0.011, 0, 0), (0, -0.011, 0), (0, 0, 0.09), (0, 0, math.pi)])
def test_a_t_beside_the_goal_is_not_success(reward, offset):
    verdict = run(reward, [GOAL + offset] * 30)[-1]
    assert verdict['outcome'] == 'not_yet' and 'limit' in verdict['reason']


@pytest.mark.parametrize('offset', [(0.007, 0.006, 0), (0, 0, -0.085), (0, 0, 2 * math.pi)])
def test_a_t_within_tolerance_is_success(reward, offset):
    assert run(reward, [GOAL + offset] * 30)[-1]['outcome'] == 'success'


def test_hidden_t_abstains(reward):
    """Also when its last trusted pose lies on the goal."""
    verdict = run(reward, [GOAL] * 20 + [(GOAL, False)])[-1]
    assert verdict['outcome'] == 'abstain' and not verdict['checks'][0]['passed']
    assert '30 % of it is seen' in verdict['reason']


def test_a_gap_in_the_view_begins_the_still_time_anew(reward):
    for n in range(10):
        reward.judge(seen(10 + n * FRAME, GOAL))
    assert reward.judge(seen(13.0, GOAL))['outcome'] == 'not_yet'


def test_time_that_goes_back_begins_the_still_time_anew(reward):
    run(reward, [GOAL] * 20)
    assert reward.judge(seen(2.0, GOAL))['outcome'] == 'not_yet'


def test_measurement_noise_is_no_motion(reward):
    rng = np.random.default_rng(0)
    noisy = [GOAL + rng.normal(0, (0.0003, 0.0003, math.radians(0.1))) for _ in range(30)]
    assert run(reward, noisy)[-1]['outcome'] == 'success'


def test_its_answers_are_judgements(reward):
    for verdict in run(reward, [GOAL] * 12 + [(GOAL, False)]):
        read_judgement(verdict, 'reward.py')


def test_angles_wrap():
    assert angle_difference(math.pi - 0.1, -math.pi + 0.1) == pytest.approx(-0.2)
    assert angle_difference(7.0, 7.0 + 4 * math.pi) == pytest.approx(0.0)
    assert pose_difference((0, 0, 3.1), (0.003, 0.004, -3.1)) == pytest.approx((0.005, 2 * math.pi - 6.2))


def test_slow_drift_counts_as_motion_in_time():
    tracker = StillnessTracker(position=0.002)
    still = [tracker.update(n * FRAME, (0.0002 * n, 0, 0)) for n in range(100)]      # 6 mm/s
    assert max(still) < 0.35


def test_nan_does_not_pass_a_check():
    assert not check('position', math.nan, 0.01)['passed']
    assert not check('still', math.nan, 0.01, at_least=True)['passed']
    assert judged([check('position', math.nan, 0.01)])['outcome'] == 'not_yet'
