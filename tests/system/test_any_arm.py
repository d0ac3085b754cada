"""A station with another arm, from a URDF in a Python package, runs a Push-T trial through the same nodes."""

import shutil

import pytest

pytest.importorskip('rclpy')

from enpire_agent.station_client import StationClient  # noqa: E402
from enpire_bringup.task import load_task  # noqa: E402

pytestmark = pytest.mark.system

SEED = 4


def strong_recipe(task, folder):
    """The task's own strongest idea as a recipe."""
    shutil.copytree(task.recipe, folder)
    shutil.copy(task.directory / 'ideas' / 'motion_model.py', folder / 'policy.py')
    shutil.copy(task.directory / 'ideas' / 'motion_model.yaml', folder / 'recipe.yaml')
    return folder


def test_a_station_with_another_arm_resets_runs_the_policy_and_judges(start_station, tmp_path):
    task = load_task('push_t')
    station = start_station(station='panda_sim')
    with StationClient(station.namespace, station.domain_id) as client:
        trial = client.run_trial(str(strong_recipe(task, tmp_path / 'strong')), SEED, timeout=120.0)
    assert trial.outcome in ('SUCCESS', 'TIMEOUT'), f'{trial.outcome}: {trial.reason}'
    assert trial.reset_success and trial.late_steps == 0
    assert trial.steps > 30 and {check.name for check in trial.verdict.checks} >= {'view', 'position', 'yaw'}
