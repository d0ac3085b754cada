import os
import subprocess

import pytest

from enpire_agent.recipe import files_hash
from enpire_agent.recipe_repository import RecipeRepository, RepositoryError, recipe_identity


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
    repository.push(str(tmp_path / 'remote.git'))
    assert not (tmp_path / 'nobody').exists()


def test_the_work_tree_of_another_user_is_no_obstacle(tmp_path, recipe, repository):
    if os.getuid() != 0:
        pytest.skip('only root can give a folder away')
    _change(repository, 2.0)
    repository.commit('More gain', {})
    subprocess.run(['chown', '-R', '12345', str(repository.work_tree)], check=True)
    again = RecipeRepository(repository.work_tree)
    again.push(str(tmp_path / 'remote.git'))
    subprocess.run(['chown', '-R', '12345', str(tmp_path / 'remote.git')], check=True)
    again.fetch(str(tmp_path / 'remote.git'))


def test_a_commit_carries_hypothesis_and_trailers(repository):
    _change(repository, 2.0)
    commit = repository.commit('More gain pushes\nfarther', {'Trials': 6, 'Decision': 'keep'})
    trailers = subprocess.run(['git', 'log', '-1', '--format=%s|%(trailers:key=Trials,valueonly,separator=)', commit],
                              cwd=repository.work_tree, capture_output=True, text=True, check=True).stdout
    assert trailers.strip() == 'More gain pushes farther|6'
    assert '+  gain: 2.0' in repository.diff(commit)


def test_a_reverted_idea_stays_findable(repository):
    before = repository.head
    _change(repository, 2.0)
    commit = repository.commit('More gain', {'Iteration': 1})
    repository.revert(commit)
    assert 'gain: 1.0' in (repository.work_tree / 'recipe.yaml').read_text()
    assert repository.iteration_commit(1) == commit
    assert repository.is_reverted(commit)
    assert repository.identity() == before, 'the same files are the same recipe'


def test_identity_is_the_commit_or_the_hash_of_the_files(repository, recipe):
    assert recipe_identity(repository.work_tree) == repository.head
    assert recipe_identity(recipe) == files_hash(recipe)
    _change(repository, 2.0)
    assert recipe_identity(repository.work_tree) == files_hash(repository.work_tree)
    assert recipe_identity(repository.work_tree) != files_hash(recipe)


def test_a_peer_takes_over_exactly_the_files_that_were_measured(tmp_path, recipe, repository):
    remote = str(tmp_path / 'remote.git')
    peer = RecipeRepository.open_or_create(tmp_path / 'b' / 'recipe', 'station_2', recipe)
    _change(repository, 2.0)
    repository.write({'notes/gain.md': 'Twice is better.\n'})
    commit = repository.commit('More gain', {})
    repository.push(remote)

    peer.fetch(remote)
    adopted = peer.take_over(commit, {'Decision': 'adopt'})

    assert peer.files('HEAD') == repository.files(commit)
    assert adopted != commit
    parents = subprocess.run(['git', 'log', '-1', '--format=%P'], cwd=peer.work_tree, capture_output=True,
                             text=True, check=True).stdout.split()
    assert parents[1] == commit


def test_adopting_over_uncommitted_changes_is_refused_and_changes_nothing(tmp_path, recipe, repository):
    peer = RecipeRepository.open_or_create(tmp_path / 'b' / 'recipe', 'station_2', recipe)
    _change(repository, 2.0)
    commit = repository.commit('More gain', {})
    repository.push(str(tmp_path / 'remote.git'))
    peer.fetch(str(tmp_path / 'remote.git'))
    _change(peer, 5.0)
    with pytest.raises(RepositoryError, match=r'uncommitted changes \(recipe.yaml\)'):
        peer.take_over(commit, {})
    assert 'gain: 5.0' in (peer.work_tree / 'recipe.yaml').read_text()


def test_adopting_a_commit_that_was_never_pushed_says_so(repository):
    with pytest.raises(RepositoryError, match='is not in .*was it pushed'):
        repository.take_over('1' * 40, {})


def test_a_remote_that_is_away_is_one_clear_error(tmp_path, repository):
    (tmp_path / 'remote.git').write_text('not a repository')
    with pytest.raises(RepositoryError, match='git push .* failed: '):
        repository.push(str(tmp_path / 'remote.git'))


def test_an_edit_cannot_leave_the_work_tree_or_touch_git(repository):
    for path in ('../elsewhere.py', '/tmp/enpire_elsewhere.py', '.git/config'):
        with pytest.raises(RepositoryError, match='outside of'):
            repository.write({path: 'x'})
