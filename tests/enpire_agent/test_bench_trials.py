import json

import pytest

from enpire_agent.bench_trials import BenchError, figures_of, strong_recipe
from enpire_agent.recipe import load_recipe
from enpire_bringup.task import load_task


def trial(policy_pace, pace, outcome='SUCCESS'):
    timing = {'policy_pace': policy_pace, 'pace': pace, 'reset_wall': 2.0, 'policy_wall': 4.0, 'verdict_wall': 1.0}
    return {'outcome': outcome, 'reason': 'done', 'wall_duration': 8.0, 'timing': timing}


def test_figures_are_medians_over_the_trials_in_which_the_policy_ran():
    failed = {'outcome': 'RESET_FAILED', 'reason': 'no T', 'wall_duration': 3.0, 'timing': {'pace': 3.0}}
    figures = figures_of([trial(4.0, 3.0), trial(5.0, 3.5, 'TIMEOUT'), trial(4.4, 3.1), failed])
    assert figures['policy_pace'] == {'median': 4.4, 'slowest': 4.0, 'fastest': 5.0}
    assert figures['pace']['median'] == 3.1 and figures['wall_s']['whole'] == 8.0
    assert figures['outcomes'] == {'SUCCESS': 2, 'TIMEOUT': 1, 'RESET_FAILED': 1}
    json.dumps(figures)


def test_no_trial_with_a_policy_is_an_error_that_says_why():
    with pytest.raises(BenchError, match='RESET_FAILED: no T'):
        figures_of([{'outcome': 'RESET_FAILED', 'reason': 'no T', 'wall_duration': 3.0, 'timing': {}}])


def test_the_bench_runs_a_whole_policy_of_the_idea_library(tmp_path):
    task = load_task('push_t')
    recipe, name = strong_recipe(task, tmp_path / 'recipe')
    assert load_recipe(recipe).method == name != load_recipe(task.recipe).method
