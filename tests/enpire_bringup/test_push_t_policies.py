"""The starting recipe of Push-T is weak but not hopeless, and its idea library holds what solves the task."""

import importlib.util
import json

import numpy as np
import pytest

from enpire_agent.idea_library import load_ideas
from enpire_agent.in_process_station import InProcessStation
from enpire_agent.policy_session import policy_config
from enpire_bringup.station import load_station
from enpire_bringup.task import load_task

STATION, TASK = load_station('yam_bimanual_sim'), load_task('push_t')
IDEAS = TASK.directory / 'ideas'


@pytest.fixture(scope='module')
def station():
    return InProcessStation(STATION, TASK)


def episodes(station, recipe, seeds):
    return [station.run(make_policy(recipe), seed) for seed in seeds]


def load(file):
    spec = importlib.util.spec_from_file_location(f'{file.stem}_under_test', file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_policy(recipe):
    return load(recipe / 'policy.py').Policy(policy_config(recipe, TASK))


def recipe_of(idea_id, tmp_path):
    """The recipe folder that an idea of the library makes of the starting recipe."""
    idea = next(idea for idea in load_ideas(IDEAS / 'ideas.yaml') if idea.id == idea_id)
    for name, file in idea.files.items():
        (tmp_path / name).write_text(file.read_text())
    return tmp_path


def test_motion_model_solves_fresh_starts(station, tmp_path):
    found = episodes(station, recipe_of('motion_model', tmp_path), range(1000, 1006))
    assert sum(episode.outcome == 'SUCCESS' for episode in found) >= 5, found


class Watched:
    """A policy whose observations are kept, as a record keeps them."""

    def __init__(self, policy):
        self._policy = policy
        self.poses, self.tips = [], []

    def reset(self, observation):
        self._policy.reset(observation)

    def act(self, observation):
        self.poses.append(observation['t_block']['pose'])
        self.tips.append(observation['tip'])
        return self._policy.act(observation)


@pytest.fixture(scope='module')
def beginning(station):
    """(episodes, what a trainer gets of them) of the starting recipe."""
    found, trials = [], []
    for seed in range(1000, 1010):
        watched = Watched(make_policy(TASK.recipe))
        found.append(station.run(watched, seed))
        trials.append({'t_block': np.array(watched.poses), 'tip': np.array(watched.tips)})
    return found, trials


def test_starting_recipe_solves_some_but_not_half(beginning):
    found, _ = beginning
    assert 1 <= sum(episode.outcome == 'SUCCESS' for episode in found) <= 5, found


def test_pushes_learned_from_the_starting_recipe_solve_more_than_it_does(station, beginning, tmp_path):
    recipe = recipe_of('recorded_pushes', tmp_path)
    weights = load(recipe / 'train.py').Trainer(policy_config(recipe, TASK)).train(beginning[1])
    (recipe / 'weights.json').write_text(json.dumps({name: array.tolist() for name, array in weights.items()}))
    found = episodes(station, recipe, range(2000, 2005))
    assert sum(episode.outcome == 'SUCCESS' for episode in found) >= 3, found


def test_the_same_seed_gives_the_same_episode(station, beginning):
    assert episodes(station, TASK.recipe, [1003]) == [beginning[0][3]]


def test_every_idea_reads_and_names_files_that_compile():
    for idea in load_ideas(IDEAS / 'ideas.yaml'):
        for name, file in idea.files.items():
            if name.endswith('.py'):
                compile(file.read_text(), str(file), 'exec')
