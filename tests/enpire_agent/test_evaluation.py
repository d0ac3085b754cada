"""Many trials at once: the same results on any number of workers, none lost, none run twice."""

import io
import json

import pytest

from enpire_agent.cli import main
from enpire_agent.evaluation import EvaluationError, Job, LocalExecutor, evaluate
from enpire_agent.evaluation_progress import EvaluationProgress, ProgressBar
from enpire_agent.seeds import evaluation_seeds
from evaluated_jobs import DeadlyJob, short_push_t

STATION = 'yam_bimanual_sim'


@pytest.fixture
def task(tmp_path):
    return short_push_t(tmp_path)


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
    def interrupt(progress):
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


def test_an_address_without_ray_is_refused(task, capsys):
    assert main(['evaluate', str(task / 'recipe'), '--task', str(task), '--address', 'lab:6379']) == 2
    assert capsys.readouterr().err == 'enpire: --address is of a Ray cluster; add --executor ray\n'


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_on_a_terminal_is_one_line_with_a_bar(monkeypatch):
    monkeypatch.setenv('COLUMNS', '120')
    stream = Terminal()
    bar = ProgressBar(stream)
    for done in (10, 20):
        bar.show(EvaluationProgress(done, 20, done - 1, done / 2))
    half, whole = stream.getvalue().split('\r\x1b[K')[1:]
    assert half == '[############------------]  50 % 10 of 20 trials, 9 succeeded, 2.00 trials/s, left 0:05'
    assert whole.endswith('left 0:00\n') and '100 %' in whole
    monkeypatch.setenv('COLUMNS', '40')
    bar.show(EvaluationProgress(1, 20, 1, 1.0))
    assert len(stream.getvalue().rpartition('\x1b[K')[2]) == 39, 'a line that wraps would not be replaced'


def test_progress_in_a_file_is_a_line_now_and_then_and_the_last_one():
    stream = io.StringIO()
    bar = ProgressBar(stream)
    for done in (1, 2, 3):
        bar.show(EvaluationProgress(done, 3, 0, float(done)))
    assert [line.split(',')[0] for line in stream.getvalue().splitlines()] == ['1 of 3 trials', '3 of 3 trials']
