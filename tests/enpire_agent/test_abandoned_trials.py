"""A started trial cannot vanish: whatever ends its runner, and wherever, it has one line in an intact ledger."""

import json
import os
import resource
import signal

import pytest

from enpire_agent import ledger as ledger_module
from enpire_agent.abandoned_trials import close_abandoned_trials, unentered_trials
from enpire_agent.durable_file import DiskFullError, check_free_space
from enpire_agent.ledger import Ledger
from enpire_agent.trial import Trial, make_request, started_content
from enpire_agent.trial_record import write_started
from enpire_bringup.task import load_task

ENV = 'e' * 64


class ChangedStation:
    """Its environment is another one: every trial ends as INVALID at once, with all its records."""

    def environment_changes(self):
        return ['reward.py was changed']

    def now(self):
        return -1


@pytest.fixture
def request_for(tmp_path, recipe):
    def make(kind='gate', seed=7):
        return make_request(tmp_path / 'runs', campaign='c', station='station_1', task=load_task('push_t'), kind=kind,
                            seed=seed, recipe_directory=recipe, env_hash=ENV)

    return make


@pytest.fixture
def runs(tmp_path):
    return tmp_path / 'runs'


@pytest.fixture
def ledger(runs):
    return Ledger(runs / 'c' / 'station_1' / 'ledger.jsonl')


def in_child(work) -> int:
    """Run `work` in a forked process; its exit code, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_at(number: int, after: bool):
    """Let this process end by SIGKILL before or after the `number`-th step that puts something on the disk."""
    count = 0

    def stepping(real):
        def step(*args, **kwargs):
            nonlocal count
            count += 1
            if count == number and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return real(*args, **kwargs)
            finally:
                if count == number:
                    os.kill(os.getpid(), signal.SIGKILL)
        return step

    os.fsync, os.replace, os.mkdir = stepping(os.fsync), stepping(os.replace), stepping(os.mkdir)
    ledger_module._write_all = stepping(ledger_module._write_all)


@pytest.mark.parametrize('after', [False, True])
def test_sigkill_at_any_step_of_writing_loses_no_trial(runs, ledger, request_for, after):
    ended_as = []
    for number in range(1, 100):
        request = request_for()

        def work():
            killed_at(number, after)
            Trial(request, None, ChangedStation()).run()

        code = in_child(work)
        close_abandoned_trials(runs, 'station_1')
        lines = [line for line in (ledger.verify() if ledger.file.exists() else ())
                 if line['trial_id'] == request.trial_id]
        started = (request.directory / 'started.json').exists()
        completed = (request.directory / 'trial.json').exists()
        assert len(lines) == started, f'killed at step {number}'
        if started:
            assert lines[0]['outcome'] == ('INVALID' if completed else 'ABORTED')
            ended_as.append(lines[0]['outcome'])
        assert unentered_trials(ledger.file.parent) == []
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert code == 0 and number > 8, 'every step was met'
    assert {'ABORTED', 'INVALID'} == set(ended_as)


def test_a_kill_within_a_ledger_line_leaves_an_intact_ledger(runs, ledger, request_for):
    in_child(lambda: Trial(request_for(seed=1), None, ChangedStation()).run())
    request = request_for(seed=3)

    def work():
        def half(stream, content):
            stream.write(content[:len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)

        ledger_module._write_all = half
        Trial(request, None, ChangedStation()).run()

    assert in_child(work) == -signal.SIGKILL
    (line,) = close_abandoned_trials(runs, 'station_1')
    assert (line['trial_id'], line['outcome']) == (request.trial_id, 'INVALID')
    assert [entry['seed'] for entry in ledger.verify()] == [1, 3]


def test_an_abandoned_trial_is_entered_once_with_what_was_asked_for(runs, ledger, request_for):
    request = request_for()
    in_child(lambda: write_started(request.directory, started_content(request, '2026-01-01T00:00:00+00:00')))
    (line,) = close_abandoned_trials(runs, 'station_1')
    assert (line['trial_id'], line['outcome'], line['kind'], line['seed']) == (request.trial_id, 'ABORTED', 'gate', 7)
    assert ledger.verify() == [line]
    assert close_abandoned_trials(runs, 'station_1') == [], 'only once'


def test_a_trial_that_still_runs_is_left_alone(runs, request_for):
    request = request_for()
    write_started(request.directory, started_content(request, '2026-01-01T00:00:00+00:00'))
    assert [trial.running for trial in unentered_trials(request.directory.parents[1])] == [True]
    assert close_abandoned_trials(runs, 'station_1') == []
    assert len(close_abandoned_trials(runs, 'station_1', mine_ended=True)) == 1


def test_a_disk_that_fills_up_during_a_trial_is_said_clearly_and_the_trial_counts_later(runs, ledger, request_for):
    Trial(request_for(seed=1), None, ChangedStation()).run()
    before, request = ledger.file.read_bytes(), request_for(seed=3)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(DiskFullError, match=r'trial\.json: could not be written, .* MB free\); make room there'):
            Trial(request, None, ChangedStation()).run(
                start_recording=lambda directory: resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard)))
        assert close_abandoned_trials(runs, 'station_1', mine_ended=True) == [], 'there is still no room'
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert ledger.file.read_bytes() == before
    assert sorted(file.name for file in request.directory.iterdir()) == ['started.json'], 'no half files'
    assert [line['seed'] for line in close_abandoned_trials(runs, 'station_1', mine_ended=True)] == [3]
    assert [line['outcome'] for line in ledger.verify()] == ['INVALID', 'ABORTED']


def test_no_trial_begins_on_a_full_disk(tmp_path):
    check_free_space(tmp_path / 'not' / 'there' / 'yet', 1)
    with pytest.raises(DiskFullError, match=r'c: the disk is full \(.* MB free, .* MB are needed\); make room'):
        check_free_space(tmp_path / 'c', 1 << 60)


def test_a_broken_ledger_of_another_campaign_stops_nothing(runs, request_for, caplog):
    Trial(request_for(seed=1), None, ChangedStation()).run()
    broken = runs / 'b' / 'station_1'
    (broken / 'trials' / 't').mkdir(parents=True)
    (broken / 'ledger.jsonl').write_text('what is this\n')
    (broken / 'trials' / 't' / 'started.json').write_text(json.dumps({'trial_id': 't'}))
    request = request_for(seed=3)
    in_child(lambda: write_started(request.directory, started_content(request, '2026-01-01T00:00:00+00:00')))
    assert [line['seed'] for line in close_abandoned_trials(runs, 'station_1')] == [3]
    assert 'line 1 is not JSON' in caplog.text
