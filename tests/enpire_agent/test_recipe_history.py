import json

import pytest

from enpire_agent.cli import main
from enpire_agent.recipe_history import campaign_history
from enpire_agent.recipe_repository import RecipeRepository


@pytest.fixture
def campaign(make_campaign, monkeypatch):
    campaign, _, _ = make_campaign(max_iterations=3)
    state = campaign.run()
    monkeypatch.setenv('ENPIRE_RUNS', str(campaign.directory.parents[1]))
    return campaign, state


def test_git_alone_tells_what_was_tried_and_what_became_of_it(campaign, capsys):
    campaign, state = campaign
    start, *tried = campaign_history(campaign.directory.parent)

    assert start.decision == 'start' and start.commit == state.baseline.recipe
    assert [(r.commit, r.hypothesis, r.decision, r.trials, r.successes) for r in tried] == [
        (i.commit, i.hypothesis, 'keep' if i.state == 'kept' else 'revert', i.trials, i.successes)
        for i in state.iterations]
    assert all(recipe.parent_recipe and recipe.interval for recipe in tried)

    # As verbs: a list, a search, and what one changed.
    assert main(['recipes', 'c', '--decision', 'revert', '--grep', 'HIGHER GAIN']) == 0
    out = capsys.readouterr().out
    assert 'gain = 2.0' in out and 'curved' not in out and '  kept' not in out
    reverted = next(recipe for recipe in tried if 'gain = 2.0' in recipe.hypothesis)
    assert main(['recipes', '--show', reverted.commit[:8]]) == 0
    out = capsys.readouterr().out
    assert '+  gain: 2.0' in out and 'Decision: revert' in out
    assert main(['recipes', '--json']) == 0
    assert len(json.loads(capsys.readouterr().out)) == len(tried) + 1

    # What is not there, and what only looks like a commit.
    assert main(['recipes', '--grep', 'no such words']) == 1
    for commit in ('0123456', '-p', 'HEAD:policy.py'):
        assert main(['recipes', f'--show={commit}']) == 2
        assert 'no recipe' in capsys.readouterr().err


@pytest.fixture
def ours(tmp_path, recipe):
    return RecipeRepository.open_or_create(tmp_path / 'runs' / 'c' / 'station_1' / 'recipe', 'station_1', recipe)


def test_the_peers_that_were_fetched_are_listed_too(ours, tmp_path, recipe):
    peer = RecipeRepository.open_or_create(tmp_path / 'elsewhere', 'station_2', recipe)
    peer.write({'notes/why.md': 'because'})
    commit = peer.commit('Notes help', {'Station': 'station_2', 'Decision': 'keep'})
    peer.push(str(tmp_path / 'remote.git'), 'c')
    ours.fetch(str(tmp_path / 'remote.git'), 'c')

    start, of_peer = campaign_history(tmp_path / 'runs' / 'c')

    assert (start.decision, start.commit) == ('start', ours.head)
    assert (of_peer.commit, of_peer.station, of_peer.hypothesis) == (commit, 'station_2', 'Notes help')


def test_a_long_hypothesis_is_listed_whole(ours, tmp_path):
    hypothesis = 'Slow pushes keep the block from turning ' * 6
    ours.commit(hypothesis, {'Decision': 'keep'})
    assert campaign_history(tmp_path / 'runs' / 'c')[-1].hypothesis == hypothesis.strip()
