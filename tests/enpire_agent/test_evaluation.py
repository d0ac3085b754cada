"""Many trials at once: the same results on any number of workers, none lost, none run twice."""

import json
import os
import re
import shutil
import signal

import pytest

from enpire_agent.cli import main
from enpire_agent.evaluation import EvaluationError, Job, LocalExecutor, evaluate
from enpire_agent.seeds import evaluation_seeds
from enpire_bringup.paths import share_directory

STATION = 'yam_bimanual_sim'


@pytest.fixture
def task(tmp_path):
    """Push-T with very short episodes."""
    shutil.copytree(share_directory() / 'tasks' / 'push_t', tmp_path / 'push_t')
    file = tmp_path / 'push_t' / 'task.yaml'
    text, count = re.subn(r'episode_timeout: [0-9.]+', 'episode_timeout: 0.3', file.read_text())
    assert count == 1
    file.write_text(text)
    return tmp_path / 'push_t'


def results_of(ledger):
    return {line['seed']: (line['outcome'], line['position_error'], line['duration']) for line in ledger.verify()}


def run(task, tmp_path, name='e', trials=3, workers=1, executor=None, recipe=None):
    return evaluate(recipe or task / 'recipe', runs=tmp_path / 'runs', name=name, stream='s', trials=trials,
                    executor=executor or LocalExecutor(workers), task=str(task), station=STATION)


def test_the_same_seeds_give_the_same_results_on_any_number_of_workers(task, tmp_path):
    one, two = run(task, tmp_path, 'one'), run(task, tmp_path, 'two', workers=2)
    assert results_of(one) == results_of(two)
    assert set(results_of(one)) == set(evaluation_seeds('s', 3))
    assert all(line['simulation'] == 'local' and line['kind'] == 'manual' for line in one.verify())
    assert len({error for _, error, _ in results_of(one).values()}) == 3, 'every seed starts elsewhere'


def test_an_interrupted_evaluation_goes_on_and_one_of_another_recipe_is_refused(task, tmp_path):
    def interrupt(text):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(task / 'recipe', runs=tmp_path / 'runs', name='e', stream='s', trials=2, executor=LocalExecutor(1),
                 task=str(task), station=STATION, progress=interrupt)
    ledger = run(task, tmp_path, trials=2)
    seeds = [line['seed'] for line in ledger.verify()]
    assert sorted(seeds) == sorted(evaluation_seeds('s', 2))
    (task / 'recipe' / 'policy.py').write_text((task / 'recipe' / 'policy.py').read_text() + '# better\n')
    with pytest.raises(EvaluationError, match='choose another --name'):
        run(task, tmp_path)
    with pytest.raises(EvaluationError, match='no policy.py there'):
        run(task, tmp_path, 'f', recipe=tmp_path)


class DeadlyJob:
    """Kills its worker once for each marked seed, the first time."""

    def __init__(self, folder, deadly):
        self.folder, self.deadly = folder, deadly

    def run(self, seed):
        mark = self.folder / str(seed)
        if seed in self.deadly and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return {'seed': seed}


def test_the_trials_of_a_killed_worker_are_run_again(tmp_path):
    results = [result['seed'] for result in LocalExecutor(2).run(DeadlyJob(tmp_path, {2, 5}), list(range(6)))]
    assert sorted(results) == list(range(6))


def test_workers_that_keep_being_killed_end_it_with_words(tmp_path, monkeypatch):
    monkeypatch.setattr('enpire_agent.evaluation.MOST_LOSSES', 1)
    with pytest.raises(EvaluationError, match='2 workers were killed'):
        list(LocalExecutor(1).run(DeadlyJob(tmp_path, {0, 1, 2}), list(range(3))))


def test_a_policy_that_fails_is_a_trial_as_well(task, tmp_path):
    (task / 'recipe' / 'policy.py').write_text('class Policy:\n    def __init__(self, config):\n        1 / 0\n')
    assert Job(str(task / 'recipe'), str(task), STATION).run(1)['outcome'] == 'POLICY_ERROR'


def test_on_the_command_line(task, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('ENPIRE_RUNS', str(tmp_path / 'runs'))
    assert main(['evaluate', str(task / 'recipe'), '--task', str(task), '--trials', '1', '--workers', '1',
                 '--seeds', 's', '--json']) == 0
    captured = capsys.readouterr()
    figures = json.loads(captured.out)
    assert figures['trials'] == 1 and figures['seeds'] == 's' and figures['workers'] == 1
    assert 'of 1 trials' in captured.err and 'trials/s, left' in captured.err
    assert main(['score', 'evaluation-s']) == 0
    assert '1 trials succeeded' in capsys.readouterr().out
