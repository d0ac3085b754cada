"""Recipes between stations through a remote: push, fetch, adopt, and what goes wrong there."""

import os
import signal
import subprocess
import sys
import time

import pytest

from enpire_agent.git_command import RepositoryError, run_git
from enpire_agent.recipe_repository import CHERRY_PICK, MERGE, TAKE_OVER, ConflictError, RecipeRepository


@pytest.fixture
def remote(tmp_path):
    return str(tmp_path / 'remote.git')


@pytest.fixture
def make_station(tmp_path, recipe):
    return lambda name: RecipeRepository.open_or_create(tmp_path / name / 'recipe', name, recipe)


@pytest.fixture
def ours(make_station):
    return make_station('station_1')


@pytest.fixture
def peer(make_station):
    return make_station('station_2')


def _set(repository, name, value):
    text = (repository.work_tree / 'recipe.yaml').read_text()
    line = next(line for line in text.splitlines() if line.startswith(f'  {name}:'))
    repository.write({'recipe.yaml': text.replace(line, f'  {name}: {value}')})
    return repository.commit(f'{name} is {value}', {'Decision': 'keep'})


def _git(directory, *arguments):
    return subprocess.run(['git', '-c', 'safe.directory=*', *arguments], cwd=directory, capture_output=True, text=True,
                          check=True).stdout.strip()


def _offer(peer, ours, remote):
    """What the peer has is on the remote and fetched here."""
    peer.push(remote, 'c')
    ours.fetch(remote, 'c')


def test_a_peer_takes_over_exactly_the_files_that_were_measured(ours, peer, remote):
    weights = bytes(range(256))
    (peer.work_tree / 'notes').mkdir()
    (peer.work_tree / 'notes' / 'weights.bin').write_bytes(weights)
    commit = _set(peer, 'gain', 2.0)
    _set(ours, 'lead', 0.01)
    _offer(peer, ours, remote)

    adopted = ours.adopt(commit, {'Decision': 'adopt'})

    assert ours.files('HEAD') == peer.files(commit)
    assert (ours.work_tree / 'notes' / 'weights.bin').read_bytes() == weights
    assert _git(ours.work_tree, 'log', '-1', '--format=%P').split()[1] == commit
    assert adopted != commit and f'Adopted-By: {TAKE_OVER}' in ours.message(adopted)


@pytest.mark.parametrize('how', [MERGE, CHERRY_PICK])
def test_a_peers_idea_can_be_put_on_top_of_ours(ours, peer, remote, how):
    peer.write({'notes/gain.md': 'Slower is better.\n'})
    commit = peer.commit('Take notes', {})
    _set(ours, 'lead', 0.01)
    _offer(peer, ours, remote)

    ours.adopt(commit, {}, how)

    files = ours.files('HEAD')
    assert 'lead: 0.01' in files['recipe.yaml'] and files['notes/gain.md'] == 'Slower is better.\n'
    parents = _git(ours.work_tree, 'log', '-1', '--format=%P').split()
    assert (commit in parents) == (how == MERGE)


def test_picking_leaves_out_what_the_peer_did_before(ours, peer, remote):
    peer.write({'notes/first.md': 'one'})
    peer.commit('First', {})
    peer.write({'notes/second.md': 'two'})
    commit = peer.commit('Second', {})
    _offer(peer, ours, remote)
    ours.adopt(commit, {}, CHERRY_PICK)
    assert 'notes/second.md' in ours.files('HEAD') and 'notes/first.md' not in ours.files('HEAD')


@pytest.mark.parametrize('how', [MERGE, CHERRY_PICK])
def test_a_conflict_changes_nothing_and_names_the_files(ours, peer, remote, how):
    commit = _set(peer, 'gain', 2.0)
    before = _set(ours, 'gain', 3.0)
    _offer(peer, ours, remote)

    with pytest.raises(ConflictError, match='both changed recipe.yaml') as conflict:
        ours.adopt(commit, {}, how)

    assert conflict.value.files == ['recipe.yaml']
    assert ours.head == before and ours.changed_paths() == []
    assert 'Not currently' not in _git(ours.work_tree, 'status') and 'merging' not in _git(ours.work_tree, 'status')
    assert ours.adopt(commit, {}), 'taking it over as it is still works'
    assert 'gain: 2.0' in ours.files('HEAD')['recipe.yaml']


@pytest.mark.parametrize('path, text, said', [
    ('program.md', 'Do as you like.', 'may change only'), ('policy.py', 'class Policy(:', 'does not compile'),
    ('../notes/.gitattributes', '', 'outside of')])
def test_what_is_no_recipe_is_not_adopted(ours, peer, remote, path, text, said):
    before = ours.head
    with pytest.raises(RepositoryError, match=said):
        peer.write({path: text})
        commit = peer.commit('Something else', {})
        _offer(peer, ours, remote)
        ours.adopt(commit, {})
    assert ours.head == before and ours.changed_paths() == []


def test_adopting_over_uncommitted_changes_is_refused_and_changes_nothing(ours, peer, remote):
    commit = _set(peer, 'gain', 2.0)
    _offer(peer, ours, remote)
    ours.write({'notes/mine.md': 'not yet committed'})
    with pytest.raises(RepositoryError, match=r'uncommitted changes \(notes/mine.md\)'):
        ours.adopt(commit, {})
    assert (ours.work_tree / 'notes' / 'mine.md').read_text() == 'not yet committed'


def test_a_commit_that_was_never_pushed_says_so(ours, peer, remote):
    commit = _set(peer, 'gain', 2.0)
    ours.push(remote, 'c')
    with pytest.raises(RepositoryError, match='was it pushed'):
        ours.adopt(commit, {})
    with pytest.raises(RepositoryError, match='rewritten, or the commit never pushed'):
        ours.fetch_commit(commit, remote, 'c')


def test_campaigns_share_a_remote_without_meeting(ours, peer, remote, recipe, tmp_path):
    assert ours.push(remote, 'monday') == 'monday/station_1'
    other = RecipeRepository.open_or_create(tmp_path / 'tuesday' / 'recipe', 'station_1', recipe)
    _set(other, 'gain', 2.0)
    assert other.push(remote, 'tuesday') == 'tuesday/station_1'
    peer.fetch(remote, 'monday')
    assert _git(peer.work_tree, 'branch', '-r', '--format=%(refname:short)') == 'fleet/station_1'


def test_our_branch_rewritten_on_the_remote_costs_neither_their_work_nor_ours(ours, peer, remote):
    ours.push(remote, 'c')
    _set(peer, 'gain', 2.0)
    theirs = _set(peer, 'gain', 3.0)
    _git(peer.work_tree, 'push', '--force', '--quiet', remote, 'HEAD:refs/heads/c/station_1')
    commit = _set(ours, 'gain', 4.0)

    branch = ours.push(remote, 'c')

    assert branch == f'c/station_1-{commit[:10]}'
    assert _git(remote, 'rev-parse', 'refs/heads/c/station_1') == theirs
    peer.fetch(remote, 'c')
    assert peer.has(commit)


def test_a_peers_branch_that_was_rewritten_is_followed_and_what_was_fetched_stays(ours, peer, remote):
    first = _set(peer, 'gain', 2.0)
    _offer(peer, ours, remote)
    _git(peer.work_tree, 'reset', '--quiet', '--hard', 'HEAD^')
    second = _set(peer, 'gain', 3.0)
    _git(remote, 'config', 'receive.denyNonFastForwards', 'false')
    _git(peer.work_tree, 'push', '--force', '--quiet', remote, 'HEAD:refs/heads/c/station_2')

    ours.fetch(remote, 'c')
    ours.adopt(second, {})
    ours.adopt(first, {})

    assert 'gain: 2.0' in ours.files('HEAD')['recipe.yaml']


def test_nobody_can_rewrite_a_branch_of_the_campaigns_own_remote(ours, remote):
    _set(ours, 'gain', 2.0)
    ours.push(remote, 'c')
    _git(ours.work_tree, 'reset', '--quiet', '--hard', 'HEAD^')
    _set(ours, 'gain', 3.0)
    with pytest.raises(subprocess.CalledProcessError):
        _git(ours.work_tree, 'push', '--force', '--quiet', remote, 'HEAD:refs/heads/c/station_1')


def test_a_remote_that_is_away_is_one_clear_error(ours, tmp_path):
    (tmp_path / 'file').write_text('not a repository')
    for remote in (tmp_path / 'file', tmp_path / 'not mounted' / 'remote.git', tmp_path / 'file' / 'remote.git'):
        with pytest.raises(RepositoryError, match='git push .* failed: |and no folder'):
            ours.push(str(remote), 'c')
    assert not (tmp_path / 'not mounted').exists()


@pytest.mark.parametrize('remote', ['--upload-pack=touch {}', 'ext::sh -c "touch {}"', ''])
def test_a_remote_that_a_peer_announces_runs_nothing(ours, tmp_path, remote):
    with pytest.raises(RepositoryError, match='no Git remote'):
        ours.fetch_commit('1' * 40, remote.format(tmp_path / 'ran'), 'c')
    assert not (tmp_path / 'ran').exists()


def test_a_git_process_that_hangs_ends_with_all_it_started(ours, peer, remote, tmp_path, monkeypatch):
    """The remote is reached through a program that never answers, and starts another that holds its output."""
    program = tmp_path / 'ssh'
    program.write_text(f'#!/bin/sh\nsleep 300 &\necho $! >> {tmp_path}/pids\necho $$ >> {tmp_path}/pids\nwait\n')
    program.chmod(0o755)
    monkeypatch.setenv('GIT_SSH_COMMAND', str(program))
    began = time.monotonic()
    with pytest.raises(RepositoryError, match='did not end within 0.5 s and was killed'):
        ours.fetch('ssh://robot@lab.invalid/remote.git', 'c', timeout=0.5)
    assert time.monotonic() - began < 10
    for pid in (tmp_path / 'pids').read_text().split():
        deadline = time.monotonic() + 10
        while os.path.exists(f'/proc/{pid}') and 'Z' not in open(f'/proc/{pid}/stat').read():
            assert time.monotonic() < deadline, f'process {pid} was left behind'
            time.sleep(0.02)
    _offer(peer, ours, remote)      # and the next one is not kept waiting


def test_a_fetch_that_hangs_keeps_no_commit_waiting(ours, tmp_path, monkeypatch):
    program = tmp_path / 'ssh'
    program.write_text(f'#!/bin/sh\ntouch {tmp_path}/asked\nexec sleep 300\n')
    program.chmod(0o755)
    process = subprocess.Popen(
        [sys.executable, '-c', 'import sys; from enpire_agent.recipe_repository import RecipeRepository; '
         f'RecipeRepository(sys.argv[1]).fetch("ssh://lab.invalid/r.git", "c", 20)', str(ours.work_tree)],
        env={**os.environ, 'GIT_SSH_COMMAND': str(program)}, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while not (tmp_path / 'asked').exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert _set(ours, 'gain', 2.0) == ours.head
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGINT)      # so that it ends its Git, too
        process.wait(20)


def test_run_git_says_what_failed(tmp_path):
    with pytest.raises(RepositoryError, match='git status in .* failed: .*not a git repository'):
        run_git(tmp_path, 'status')
