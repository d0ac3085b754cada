import os
import subprocess
import time

import pytest

from enpire_agent.recipe import files_hash
from enpire_agent.git_command import RepositoryError
from enpire_agent.recipe_repository import RecipeRepository, recipe_identity


@pytest.fixture
def repository(tmp_path, recipe):
    return RecipeRepository.open_or_create(tmp_path / 'a' / 'recipe', 'station_1', recipe)


def _change(repository, gain):
    text = (repository.work_tree / 'recipe.yaml').read_text()
    repository.write({'recipe.yaml': text.replace('gain: 1.0', f'gain: {gain}')})


def test_stations_with_the_same_recipe_share_their_first_commit(tmp_path, recipe, repository):
    other = RecipeRepository.open_or_create(tmp_path / 'b' / 'recipe', 'station_2', recipe)
    assert other.head == repository.head
    assert (repository.branch, other.branch) == ('station_1', 'station_2')


def test_works_without_any_configuration_of_the_user(tmp_path, recipe, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path / 'nobody'))
    monkeypatch.setenv('GIT_CONFIG_NOSYSTEM', '1')
    for name in ('EMAIL', 'GIT_CONFIG_GLOBAL', 'GIT_AUTHOR_NAME', 'GIT_AUTHOR_EMAIL'):
        monkeypatch.delenv(name, raising=False)
    repository = RecipeRepository.open_or_create(tmp_path / 'a' / 'recipe', 'station_1', recipe)
    _change(repository, 2.0)
    repository.commit('More gain', {})
    repository.push(str(tmp_path / 'remote.git'), 'c')
    assert not (tmp_path / 'nobody').exists()


def test_the_work_tree_of_another_user_is_no_obstacle(tmp_path, recipe, repository):
    if os.getuid() != 0:
        pytest.skip('only root can give a folder away')
    _change(repository, 2.0)
    repository.commit('More gain', {})
    subprocess.run(['chown', '-R', '12345', str(repository.work_tree)], check=True)
    again = RecipeRepository(repository.work_tree)
    again.push(str(tmp_path / 'remote.git'), 'c')
    subprocess.run(['chown', '-R', '12345', str(tmp_path / 'remote.git')], check=True)
    again.fetch(str(tmp_path / 'remote.git'), 'c')


def test_nothing_that_the_user_configured_counts(tmp_path, recipe, monkeypatch):
    home = tmp_path / 'home'
    (home / '.config' / 'git').mkdir(parents=True)
    (home / '.config' / 'git' / 'ignore').write_text('*.yaml\nnotes/\n')
    hooks = home / 'hooks'
    hooks.mkdir()
    for name in ('pre-commit', 'commit-msg', 'post-checkout', 'pre-push', 'reference-transaction'):
        (hooks / name).write_text('#!/bin/sh\nexit 1\n')
        (hooks / name).chmod(0o755)
    (home / '.gitconfig').write_text(
        f'[core]\n\thooksPath = {hooks}\n\tautocrlf = true\n[commit]\n\tgpgSign = true\n[user]\n\tsigningKey = none\n'
        '[color]\n\tui = always\n[log]\n\tshowSignature = true\n[push]\n\tgpgSign = true\n[merge]\n\tff = only\n'
        '[diff]\n\tnoprefix = true\n')
    monkeypatch.setenv('HOME', str(home))
    monkeypatch.delenv('GIT_CONFIG_GLOBAL', raising=False)
    monkeypatch.delenv('XDG_CONFIG_HOME', raising=False)
    # As when a hook of another repository starts it.
    for name, value in (('GIT_DIR', str(tmp_path / 'elsewhere')), ('GIT_INDEX_FILE', str(tmp_path / 'index')),
                        ('GIT_AUTHOR_DATE', 'never'), ('GIT_CONFIG_COUNT', '1'), ('GIT_CONFIG_KEY_0', 'color.ui'),
                        ('GIT_CONFIG_VALUE_0', 'always')):
        monkeypatch.setenv(name, value)

    repository = RecipeRepository.open_or_create(tmp_path / 'a' / 'recipe', 'station_1', recipe)
    _change(repository, 2.0)
    repository.write({'notes/gain.md': 'Twice is better.\n'})
    commit = repository.commit('More gain', {'Iteration': 1})
    repository.push(str(tmp_path / 'remote.git'), 'c')
    repository.revert(commit)

    assert set(repository.files(commit)) >= {'notes/gain.md', 'recipe.yaml'}
    assert repository.iteration_commit(1) == commit and repository.is_reverted(commit)
    assert 'gain: 2.0' in repository.files(commit)['recipe.yaml']
    assert 'gain: 1.0' in repository.files('HEAD')['recipe.yaml']


def test_what_a_killed_command_left_does_not_stop_the_next(repository):
    git_dir = repository.work_tree / '.git'
    old = time.time() - 60
    for lock in ('index.lock', 'HEAD.lock', 'refs/heads/station_1.lock'):
        (git_dir / lock).touch()
        os.utime(git_dir / lock, (old, old))
    _change(repository, 2.0)
    commit = RecipeRepository.open_or_create(repository.work_tree, 'station_1', 'unused').commit('More gain', {})
    assert repository.head == commit


def test_a_repository_that_was_not_begun_completely_is_begun_again(tmp_path, recipe, repository):
    for left in ('.git/objects', '.git/refs/heads', 'notes'):
        work_tree = tmp_path / left.replace('/', '_')
        (work_tree / left).mkdir(parents=True)
        assert RecipeRepository.open_or_create(work_tree, 'station_1', recipe).head == repository.head


def test_a_commit_carries_hypothesis_and_trailers(repository):
    _change(repository, 2.0)
    commit = repository.commit('More gain pushes\nfarther', {'Trials': 6, 'Decision': 'keep'})
    trailers = subprocess.run(['git', 'log', '-1', '--format=%s|%(trailers:key=Trials,valueonly,separator=)', commit],
                              cwd=repository.work_tree, capture_output=True, text=True, check=True).stdout
    assert trailers.strip() == 'More gain pushes farther|6'
    assert '  gain: 2.0' in repository.files(commit)['recipe.yaml']


def test_a_reverted_idea_stays_findable(repository):
    before = repository.head
    _change(repository, 2.0)
    commit = repository.commit('More gain', {'Iteration': 1})
    repository.revert(commit)
    assert 'gain: 1.0' in (repository.work_tree / 'recipe.yaml').read_text()
    assert repository.iteration_commit(1) == commit
    assert repository.is_reverted(commit)
    assert repository.identity() == before, 'the same files are the same recipe'


def test_a_long_hypothesis_is_whole_in_the_message_and_short_in_its_first_line(repository):
    hypothesis = 'Pushing slower near the goal ' + 'and slower still ' * 12 + 'keeps the T from sliding past it'
    message = repository.message(repository.commit(hypothesis, {'Decision': 'keep'}))
    assert hypothesis in message and len(message.splitlines()[0]) <= 120
    assert repository.iteration_commit(1) == ''


def test_a_hypothesis_in_odd_words_is_taken_for_nothing_else(repository):
    first = repository.commit('Plain', {'Iteration': 1})
    second = repository.commit('Iteration: 1', {'Iteration': 2})
    third = repository.commit('# -x --amend', {'Iteration': 3, 'Reason': 'Iteration: 1\nIteration: 1'})
    assert [repository.iteration_commit(number) for number in (1, 2, 3, 4)] == [first, second, third, '']
    assert repository.message(third).startswith('# -x --amend\n')


def test_an_edit_that_changed_nothing_can_be_reverted(repository):
    commit = repository.commit('Out of bounds', {'Iteration': 1, 'Decision': 'revert'})
    repository.revert(commit)
    assert repository.is_reverted(commit) and repository.changed_paths() == []


def test_identity_is_the_commit_or_the_hash_of_the_files(repository, recipe):
    assert recipe_identity(repository.work_tree) == repository.head
    assert recipe_identity(recipe) == files_hash(recipe)
    _change(repository, 2.0)
    assert recipe_identity(repository.work_tree) == files_hash(repository.work_tree)
    assert recipe_identity(repository.work_tree) != files_hash(recipe)


def test_an_edit_cannot_leave_the_work_tree_or_touch_git(repository):
    for path in ('../elsewhere.py', '/tmp/enpire_elsewhere.py', '.git/config', 'notes/../.git/config',
                 'notes/.git/config', 'notes/../policy.py', 'notes/.GIT/config'):
        with pytest.raises(RepositoryError, match='outside of'):
            repository.write({path: 'x'})
