"""Trials on a Ray cluster: the results are this machine's, none is lost, none comes twice, and nothing stays behind."""

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from enpire_agent.cli import main
from enpire_agent.evaluation import EvaluationError, Job, evaluate
from enpire_agent.ray_driver import OBJECT_STORE, OWN_CLUSTER, SETTINGS
from enpire_agent.ray_executor import RayExecutor
from enpire_agent.seeds import evaluation_seeds
from evaluated_jobs import DeadlyJob, ForeignJob, PatientJob, PlainJob, UnknownJob, short_push_t

STATION = 'yam_bimanual_sim'
SEEN = 'outcome', 'position_error', 'duration', 'isolation', 'steps'

needs_ray = pytest.mark.skipif(find_spec('ray') is None, reason='ray is not installed; type: make extras')
# `ray start` would leave processes that only `ray stop` ends, with all others of this user.
CLUSTER = f'''
import sys, ray
ray.init('local', num_cpus=2, include_dashboard=False, object_store_memory={OBJECT_STORE}, log_to_driver=False,
         _temp_dir=sys.argv[1])
print(ray.get_runtime_context().gcs_address, flush=True)
input()
'''


@pytest.fixture(scope='module')
def address():
    """Of a cluster with two CPUs that is there before and after."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix='ray-') as folder:
        for name, value in {**SETTINGS, **OWN_CLUSTER, 'RAY_AUTH_TOKEN': secrets.token_hex(32)}.items():
            patch.setenv(name, value)
        patch.setenv('PYTHONPATH', str(Path(__file__).parent), prepend=os.pathsep)      # the jobs below
        with subprocess.Popen([sys.executable, '-c', CLUSTER, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True) as process:
            try:
                yield process.stdout.readline().strip()
                assert process.poll() is None, 'the cluster was ended'
            finally:
                process.stdin.close()
                process.wait(30)


@pytest.fixture
def task(tmp_path):
    return short_push_t(tmp_path)


def results_of(lines):
    return {line['seed']: tuple(line[key] for key in SEEN) for line in lines}


def run(executor, task, tmp_path, trials):
    return evaluate(task / 'recipe', runs=tmp_path / 'runs', name='e', stream='s', trials=trials, executor=executor,
                    task=str(task), station=STATION)


@needs_ray
def test_the_same_seeds_give_the_results_of_this_machine(address, task, tmp_path):
    executor = RayExecutor(address)
    lines = run(executor, task, tmp_path, 4).verify()
    job = Job(str(task / 'recipe'), str(task), STATION)
    assert results_of(lines) == results_of(job.run(seed) for seed in evaluation_seeds('s', 4))
    assert {line['simulation'] for line in lines} == {'ray'}
    assert {line['machine'] for line in lines} == {socket.gethostname()}
    assert executor.workers == 2, 'one for each CPU of the cluster'


class Killing:
    """A Ray executor; the worker that reports the first result is killed, and only then the others may go on."""

    name = 'ray'

    def __init__(self, address, file):
        self.executor, self.file, self.killed = RayExecutor(address), file, 0

    def run(self, job, seeds):
        for result in self.executor.run(job, seeds):
            if not self.killed:
                self.killed = result['process']
                os.kill(self.killed, 9)
                self.file.touch()
            yield {**result, 'reason': '', 'started': '', 'ended': ''}


@needs_ray
def test_a_killed_worker_s_trial_is_run_again_and_each_seed_is_in_the_ledger_once(address, task, tmp_path, monkeypatch):
    killing = Killing(address, tmp_path / 'go on')
    monkeypatch.setattr('enpire_agent.evaluation.Job', lambda *places: PatientJob(killing.file))
    lines = run(killing, task, tmp_path, 6).verify()
    assert sorted(line['seed'] for line in lines) == sorted(evaluation_seeds('s', 6))
    assert [line['process'] for line in lines].count(killing.killed) == 1, 'it was killed in its second trial'
    workers = {line['process']: Path(line['folder']) for line in lines}
    assert _in_time(lambda: not any(map(_runs, workers))), 'the cluster stays, the workers do not'
    assert _in_time(lambda: not any(folder.exists() for folder in workers.values())), 'nor their files'


def _runs(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _in_time(holds, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not (held := holds()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return held


@needs_ray
def test_workers_that_keep_being_killed_end_it_with_words(address, tmp_path, monkeypatch):
    monkeypatch.setattr('enpire_agent.evaluation.MOST_LOSSES', 1)
    with pytest.raises(EvaluationError, match='2 workers were killed .* or went away'):
        list(RayExecutor(address, 1).run(DeadlyJob(tmp_path, {0, 1, 2}), list(range(3))))


@needs_ray
@pytest.mark.parametrize('job, said', [
    (ForeignJob(), 'may give other results than this one: world.py is b there, a here. Install the same suite'),
    (UnknownJob(), "cannot load this suite: install it there as well.*No module named 'enpire_elsewhere'")])
def test_a_machine_with_another_suite_or_none_is_refused(address, job, said):
    with pytest.raises(EvaluationError, match=said):
        list(RayExecutor(address).run(job, [1]))


@needs_ray
def test_on_the_command_line_with_a_cluster_of_its_own(task, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv('ENPIRE_RUNS', str(tmp_path / 'runs'))
    before = set(psutil.Process().children(recursive=True))
    assert main(['evaluate', str(task / 'recipe'), '--task', str(task), '--trials', '1', '--workers', '1',
                 '--seeds', 's', '--executor', 'ray']) == 0
    said = capfd.readouterr()
    assert '0 of 1 simulated trials succeeded' in said.out and '1 workers' in said.out
    assert said.err.startswith('1 of 1 trials, 0 succeeded') and said.err.count('\n') == 1, 'Ray itself says nothing'
    left = set(psutil.Process().children(recursive=True)) - before
    assert all('resource_tracker' in ' '.join(process.cmdline()) for process in left)


def test_without_ray_one_line_says_how_to_get_it(task, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('ENPIRE_RUNS', str(tmp_path / 'runs'))
    monkeypatch.setitem(sys.modules, 'ray', None)
    assert main(['evaluate', str(task / 'recipe'), '--task', str(task), '--executor', 'ray']) == 2
    assert capsys.readouterr().err == 'enpire: ray is not installed; type: make extras\n'


@needs_ray
def test_an_address_where_nothing_or_something_else_answers_is_said_in_time(monkeypatch):
    monkeypatch.setattr('enpire_agent.ray_executor.CONNECT_TIMEOUT', 1.0)
    with socket.socket() as other:
        other.bind(('127.0.0.1', 0))
        address = f'127.0.0.1:{other.getsockname()[1]}'
        with pytest.raises(EvaluationError, match=f'no Ray cluster answers at {address} .* --address={address}'):
            list(RayExecutor(address).run(PlainJob(), [1]))
        other.listen()
        with pytest.raises(EvaluationError, match=f'the Ray cluster {address} did not come up within 1 s'):
            list(RayExecutor(address).run(PlainJob(), [1]))
    for wrong in ('lab', 'ray://lab:10001', ':6379'):
        with pytest.raises(EvaluationError, match='is no address of a Ray cluster; expected HOST:PORT'):
            list(RayExecutor(wrong).run(PlainJob(), [1]))
