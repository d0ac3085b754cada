from enpire_agent import bench_evaluate
from enpire_agent.bench_evaluate import Measured, figures_of, run
from enpire_agent.cli import main
from evaluated_jobs import short_push_t

LATE = {'outcome': 'TIMEOUT', 'late_steps': 2}


def measured(executor, workers, seconds, **changes):
    results = {seed: {'outcome': 'SUCCESS', 'late_steps': 0} for seed in range(10)}
    return Measured(executor, workers, 2.0, seconds, 0.5, {**results, **changes.get('results', {})})


def test_efficiency_is_the_gain_over_one_worker_as_a_share_of_the_workers():
    figures = figures_of([measured('local', 1, 10.0), measured('local', 2, 5.0), measured('ray', 1, 10.0),
                          measured('ray', 2, 8.0)])
    assert figures['scaling_efficiency'] == {'local': 1.0, 'ray': 0.625}
    assert [part['trials_per_s'] for part in figures['runs']] == [1.0, 2.0, 1.0, 1.25]
    assert figures['successes'] == 10 and not figures['different']


def test_another_result_of_a_seed_is_noticed():
    figures = figures_of([measured('local', 1, 10.0), measured('ray', 1, 10.0, results={3: LATE})])
    assert figures['different'] == [3] and figures['scaling_efficiency'] == {}


class InProcess:
    """An executor without processes."""

    name = 'local'

    def __init__(self, workers):
        self.workers = workers

    def run(self, job, seeds):
        yield from map(job.run, seeds)


def test_the_bench_runs_the_same_seeds_with_one_worker_and_with_more(tmp_path, monkeypatch):
    monkeypatch.setitem(bench_evaluate.EXECUTORS, 'local', InProcess)
    monkeypatch.setattr(bench_evaluate, 'ray_is_installed', lambda: False)
    said = []
    figures = run(2, task=str(short_push_t(tmp_path)), report=said.append)
    assert [(part['executor'], part['workers']) for part in figures['runs']] == [('local', 1), ('local', 2)]
    assert all(part['cpu_s_per_trial'] > 0 and part['start_s'] >= 0 for part in figures['runs'])
    assert not figures['different'] and figures['recipe'] == 'motion_model'
    assert 'without Ray' in said[0] and '2 trials in' in said[-1]


def test_on_the_command_line_other_results_are_a_failure(monkeypatch, capsys):
    monkeypatch.setattr(bench_evaluate, 'run', lambda *args, **options: {
        'trials': 10, 'recipe': 'r', **figures_of([measured('local', 1, 10.0), measured('local', 2, 5.0)])})
    assert main(['bench', 'evaluate', '--executor', 'local']) == 0
    out = capsys.readouterr().out
    assert 'local    2 workers    2.00 trials/s' in out and 'scaling efficiency from 1 to 2 workers: 100%' in out
    monkeypatch.setattr(bench_evaluate, 'run', lambda *args, **options: {
        'trials': 10, 'recipe': 'r', **figures_of([measured('local', 1, 10.0),
                                                   measured('local', 2, 5.0, results={3: LATE})])})
    assert main(['bench', 'evaluate']) == 1
    assert 'NOT the same result each time: 1 seeds; 2 steps were held' in capsys.readouterr().out
