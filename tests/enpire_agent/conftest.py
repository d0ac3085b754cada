"""A small recipe, an idea library and a campaign whose trials are made up, for tests without a robot."""

import pytest
from made_up_campaign import IDEAS, POLICY, RECIPE, FakeStation, Recorder

from enpire_agent.campaign import Campaign
from enpire_agent.campaign_state import CampaignSettings
from enpire_agent.recipe_repository import RecipeRepository
from enpire_agent.researcher import BuiltinResearcher


@pytest.fixture
def recipe(tmp_path):
    folder = tmp_path / 'task' / 'recipe'
    folder.mkdir(parents=True)
    (folder / 'recipe.yaml').write_text(RECIPE)
    (folder / 'policy.py').write_text(POLICY)
    (folder / 'train.py').write_text('def train():\n    pass\n')
    (folder / 'program.md').write_text('Push the T.\n')
    return folder


@pytest.fixture
def ideas_file(tmp_path):
    file = tmp_path / 'task' / 'ideas.yaml'
    file.parent.mkdir(exist_ok=True)
    file.write_text(IDEAS)
    return file


@pytest.fixture
def make_campaign(tmp_path, recipe, ideas_file):
    """make_campaign(**settings) -> (campaign, station, recorder); the same folder each time it is called."""

    def make(station='station_1', peers=(), researcher=None, **changes):
        directory = tmp_path / 'runs' / 'c' / station
        repository = RecipeRepository.open_or_create(directory / 'recipe', station, recipe)
        world = FakeStation(directory, directory / 'recipe')
        recorder = Recorder()
        settings = CampaignSettings(**{**dict(
            campaign='c', station=station, task='push_t', env_hash='e' * 64, search_trials=8, gate_trials=20,
            goal=0.99), **changes})
        campaign = Campaign(directory, settings, repository=repository, listener=recorder,
                            researcher=researcher or BuiltinResearcher(ideas_file), run_trial=world.run_trial,
                            peers=lambda: peers, environment_changes=lambda: world.environment_changes,
                            await_station=world.await_station)
        return campaign, world, recorder

    return make
