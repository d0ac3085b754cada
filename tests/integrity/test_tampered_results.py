"""What somebody with write access does to results behind the station's back: found at the next score, trial or start."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from enpire_agent import frozen_environment
from enpire_agent.abandoned_trials import close_abandoned_trials
from enpire_agent.frozen_environment import EnvironmentChanged, read_manifest
from enpire_agent.ledger import Ledger, LedgerError, canonical, line_hash
from enpire_agent.recipe_repository import CommitMissingError, RecipeRepository
from enpire_agent.scored_trials import scored_trials
from enpire_agent.seeds import check_seed
from enpire_bringup.environment import Environment, EnvironmentWatch, scorer_files
from enpire_bringup.station import load_station
from enpire_bringup.task import load_task


@pytest.fixture
def copy(untouched, tmp_path) -> Path:
    """runs/ of the campaign, to be tampered with."""
    shutil.copytree(untouched.runs, tmp_path / 'runs')
    return tmp_path / 'runs'


def rewrite(ledger: Path, change) -> None:
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    change(lines)
    ledger.write_bytes(b''.join(canonical(line) + b'\n' for line in lines))


def say_success(lines: list) -> None:
    lines[2]['outcome'] = 'SUCCESS'


def say_success_with_a_hash(lines: list) -> None:
    say_success(lines)
    lines[2]['hash'] = line_hash(lines[2])


def leave_out_a_failure(lines: list) -> None:
    del lines[2]


def repeat_a_success(lines: list) -> None:
    lines.append({**lines[1], 'previous': lines[-1]['hash']})
    lines[-1]['hash'] = line_hash(lines[-1])


@pytest.mark.parametrize('change, said', [
    (say_success, 'line 3'), (say_success_with_a_hash, 'line 4 does not follow line 3'),
    (leave_out_a_failure, 'line 3 does not follow line 2'),
    (repeat_a_success, 'line 7 enters trial .* which line 2 has entered already')])
def test_changed_ledger_gives_no_score_and_the_line_is_named(copy, change, said):
    ledger = copy / 'c' / 'station_1' / 'ledger.jsonl'
    rewrite(ledger, change)
    with pytest.raises(LedgerError, match=said):
        scored_trials([Ledger(ledger)])


def test_copied_trial_is_not_entered(copy, caplog):
    """A record of a success under a new name: with its own name inside, or with one that only started.json has."""
    trials = copy / 'c' / 'station_1' / 'trials'
    shutil.copytree(trials / '20260101T000001-station_1', trials / 'new')
    shutil.copytree(trials / '20260101T000001-station_1', trials / 'newer')
    started = json.loads((trials / 'newer' / 'started.json').read_text())
    (trials / 'newer' / 'started.json').write_text(json.dumps({**started, 'trial_id': 'newer'}))
    line, = close_abandoned_trials(copy, 'station_1')
    assert (line['trial_id'], line['outcome']) == ('newer', 'ABORTED')
    assert 'was copied here' in caplog.text and 'is of trial 20260101T000001-station_1' in caplog.text


@pytest.mark.parametrize('name', ['reward', 'reset', 'task'])
def test_changed_environment_is_named_at_the_next_trial(untouched, tmp_path, name):
    shutil.copytree(untouched.task.directory, tmp_path / 'push_t')
    frozen = read_manifest(untouched.manifest).environment
    task = load_task(tmp_path / 'push_t')
    start = Environment(tuple(file for file in frozen.files), frozen.cameras)
    watch = EnvironmentWatch(task, load_station('yam_bimanual_sim'), start)
    assert watch.changes() == []
    file = getattr(task, 'file' if name == 'task' else name)
    file.write_text(file.read_text() + '\n# kinder\n')
    change, = watch.changes()
    assert f'({name}) was changed' in change


def test_changed_manifest_gives_no_score(copy):
    file, = (copy / 'c' / 'station_1' / 'environments').glob('*.json')
    file.write_text(file.read_text().replace('"cameras"', '"cameras "'))
    with pytest.raises(EnvironmentChanged, match='changed after it was signed'):
        scored_trials([Ledger(copy / 'c' / 'station_1' / 'ledger.jsonl')])


def test_manifest_that_somebody_else_signed_gives_no_score(copy, tmp_path):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(EnvironmentChanged, match='signed by another key'):
        patch.setenv('ENPIRE_SIGNING_KEY', str(tmp_path / 'another_key'))
        scored_trials([Ledger(copy / 'c' / 'station_1' / 'ledger.jsonl')])


def test_another_scorer_gives_no_score(copy, tmp_path):
    kinder = tmp_path / 'score.py'
    kinder.write_text(next(iter(scorer_files().values())).read_text() + '# kinder\n')
    with (pytest.MonkeyPatch.context() as patch,
          pytest.raises(EnvironmentChanged, match='not as when these trials were made')):
        patch.setattr(frozen_environment, 'scorer_files', lambda: {'scorer/score.py': kinder})
        scored_trials([Ledger(copy / 'c' / 'station_1' / 'ledger.jsonl')])


def test_known_seeds_cannot_be_those_of_a_gate():
    with pytest.raises(ValueError, match='A gate trial uses odd seeds'):
        check_seed('gate', 1234)


def test_words_of_a_hypothesis_become_no_trailers(copy):
    ours = RecipeRepository(copy / 'c' / 'station_1' / 'recipe')
    commit = ours.commit('Push\n\nSuccesses: 99', {'Method': 'push\nDecision: keep', 'Successes': 1})
    assert ours.message(commit).strip().splitlines() == [
        'Push Successes: 99', '', 'Method: push Decision: keep', 'Successes: 1']
    ours.close()


def git(directory: Path, *arguments: str) -> None:
    subprocess.run(['git', '-c', 'safe.directory=*', *arguments], cwd=directory, check=True, capture_output=True, text=True)


def test_force_push_of_a_peers_branch_is_refused_and_a_branch_rewritten_on_disk_is_named(untouched, copy):
    remote = copy / 'c' / 'remote.git'
    ours = RecipeRepository(copy / 'c' / 'station_1' / 'recipe')
    with pytest.raises(subprocess.CalledProcessError) as caught:
        git(ours.work_tree, 'push', '--force', str(remote), f'{ours.head}:refs/heads/c/station_2')
    assert 'denying non-fast-forward' in caught.value.stderr
    git(remote, 'update-ref', 'refs/heads/c/station_2', ours.head)
    git(remote, 'gc', '--quiet', '--prune=now')
    with pytest.raises(CommitMissingError, match='the branch was rewritten'):
        ours.fetch_commit(untouched.commit, str(remote), 'c')
    ours.close()
    theirs = RecipeRepository(copy / 'c' / 'station_2' / 'recipe')
    assert theirs.push(str(remote), 'c') != 'c/station_2', 'what is there is not overwritten; ours gets a branch of its own'
    theirs.close()
