"""A campaign with each real program as its researcher: trials are made up, all else is as on a station."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_up_campaign import POLICY, RECIPE, FakeStation, Recorder
from mock_model import load_scenario

from enpire_agent.agent_researcher import AgentResearcher
from enpire_agent.campaign import Campaign
from enpire_agent.campaign_state import CampaignSettings
from enpire_agent.campaign_trials import CampaignStopped
from enpire_agent.recipe_repository import RecipeRepository

pytestmark = [pytest.mark.agents, pytest.mark.timeout(300)]

SCENARIO = Path(__file__).parent / 'scenarios' / 'three_iterations.yaml'


@pytest.fixture
def recipe(tmp_path):
    folder = tmp_path / 'task'
    folder.mkdir()
    for name, text in (('recipe.yaml', RECIPE), ('policy.py', POLICY), ('program.md', 'Push the T.\n')):
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize('name', ['codex', 'claude_code', 'kimi_code'])
def test_three_iterations_with_a_kill_in_between_keep_what_helps_and_count_every_token(real_agent, recipe, tmp_path,
                                                                                       name):
    agent, model = real_agent(name, load_scenario(SCENARIO))
    directory, workspace = tmp_path / 'runs' / 'c' / 'station_1', tmp_path / 'workspace'
    model.work_tree = workspace / 'recipe'
    settings = CampaignSettings(campaign='c', station='station_1', task='push_t', env_hash='e' * 64, search_trials=8,
                                gate_trials=20, goal=1.0, max_iterations=3,
                                trials_while_thinking=0)      # the kill comes at a trial of a candidate

    def start():
        """What a station does at its start: everything is found again on disk."""
        repository = RecipeRepository.open_or_create(directory / 'recipe', 'station_1', recipe)
        station = FakeStation(directory, directory / 'recipe')
        campaign = Campaign(directory, settings, repository=repository, listener=Recorder(),
                            researcher=AgentResearcher(agent, workspace), run_trial=station.run_trial, peers=tuple,
                            environment_changes=list, await_station=station.await_station)
        return campaign, station

    first, station = start()
    # The first iteration is done, and trials of the second run.
    station.before_trial = lambda _: first.stop() if model.given >= 7 else None
    with pytest.raises(CampaignStopped):
        first.run()
    assert model.given == 7
    state = start()[0].run()
    assert [iteration.state for iteration in state.iterations] == ['reverted', 'kept', 'kept']
    assert [iteration.hypothesis for iteration in state.iterations] == [
        'A higher gain pushes farther.', 'A curved approach does not touch the block early.',
        'Leading the contact compensates the delay.']
    assert [iteration.origin for iteration in state.iterations] == [f'{name}:{n}' for n in (1, 2, 3)]
    assert 'lead: 0.01' in (directory / 'recipe' / 'recipe.yaml').read_text()
    # The agent's tools have the station's verbs, about this campaign.
    seen = str(model.requests[-1].body)
    assert all(said in seen for said in ('c/station_1: ', 'older ones)', 'have the same files', 'trials succeeded')), seen
    # One conversation, in which the agent was told what came of its edits; tokens as the model reported them.
    assert 'You are the researcher' in str(model.requests[-1].body) and 'reverted' in str(model.requests[-1].body)
    assert (state.input_tokens, state.output_tokens) == (model.usage().input, model.usage().output)
