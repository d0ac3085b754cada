"""The starting recipe of Push-T is weak but not hopeless, and its idea library holds what solves the task."""

import importlib.util

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


def make_policy(recipe):
    spec = importlib.util.spec_from_file_location('policy_under_test', recipe / 'policy.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Policy(policy_config(recipe, TASK))


def recipe_of(idea_id, tmp_path):
    """The recipe folder that an idea of the library makes of the starting recipe."""
    idea = next(idea for idea in load_ideas(IDEAS / 'ideas.yaml') if idea.id == idea_id)
    for name, file in idea.files.items():
        (tmp_path / name).write_text(file.read_text())
    return tmp_path


def test_motion_model_solves_fresh_starts(station, tmp_path):
    found = episodes(station, recipe_of('motion_model', tmp_path), range(1000, 1006))
    assert sum(episode.outcome == 'SUCCESS' for episode in found) >= 5, found


def test_starting_recipe_solves_some_but_not_half(station):
    found = episodes(station, TASK.recipe, range(1000, 1010))
    assert 1 <= sum(episode.outcome == 'SUCCESS' for episode in found) <= 5, found


def test_the_same_seed_gives_the_same_episode(station):
    first, second = (episodes(station, TASK.recipe, [7])[0] for _ in range(2))
    assert first == second


def test_every_idea_reads_and_names_files_that_compile():
    for idea in load_ideas(IDEAS / 'ideas.yaml'):
        for name, file in idea.files.items():
            if name.endswith('.py'):
                compile(file.read_text(), str(file), 'exec')
