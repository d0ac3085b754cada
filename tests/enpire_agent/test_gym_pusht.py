"""The policies for gym-pusht: what planned_pushes assumes of the package is true, and they solve what they should."""

import importlib.util
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from enpire_agent.cli import main
from enpire_bringup.paths import share_directory

EXTRA = 'gym-pusht is an optional extra and not installed; type: make extras'
gymnasium = pytest.importorskip('gymnasium', reason=EXTRA)
pytest.importorskip('gym_pusht', reason=EXTRA)

TASK = share_directory() / 'tasks' / 'gym_pusht'
LEVELS = {'state': 'state', 'keypoints': 'environment_state_agent_pos', 'pixels': 'pixels_agent_pos'}


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def planned():
    return load(TASK / 'ideas' / 'planned_pushes.py')


def observation(level, seen):
    return {'state': seen} if level == 'state' else seen


def solves(module, recipe, level, seed):
    policy = module.Policy({'parameters': yaml.safe_load(recipe.read_text())['parameters']})
    env = gymnasium.make('gym_pusht/PushT-v0', obs_type=LEVELS[level])
    seen, _ = env.reset(seed=seed)
    policy.reset(observation(level, seen))
    for _ in range(300):
        seen, _, success, _, _ = env.step(np.float32(policy.act(observation(level, seen))))
        if success:
            return True
    return False


@pytest.mark.parametrize('level', LEVELS)
def test_planned_pushes_solve_the_task_at_every_level(planned, level):
    assert solves(planned, TASK / 'ideas' / 'planned_pushes.yaml', level, seed=30001)


def test_model_predicts_where_a_push_leads(planned):
    env = gymnasium.make('gym_pusht/PushT-v0')
    state, _ = env.reset(seed=0, options={'reset_to_state': [200.0, 330.0, 256.0, 240.0, 0.3]})
    policy = planned.Policy({'parameters': yaml.safe_load(
        (TASK / 'ideas' / 'planned_pushes.yaml').read_text())['parameters']})
    pose = policy.pose({'state': state})
    targets = np.linspace(state[:2], [300.0, 280.0], 8)
    after = policy.model.pose_after(pose, state[:2], targets)
    for target in targets:
        state, _, _, _, info = env.step(target)
    assert policy.apart(pose, after) > 5.0
    assert policy.apart(policy.pose({'state': state}), after) < 1e-6
    assert planned.coverage(after) == pytest.approx(info['coverage'], abs=1e-6)


def test_pose_is_seen_in_images_to_two_units_and_a_degree_and_a_half(planned):
    env = gymnasium.make('gym_pusht/PushT-v0', obs_type='pixels_agent_pos')
    for seed in range(30010, 30016):
        seen, info = env.reset(seed=seed)
        x, y, angle = info['block_pose']
        pose = planned.Sight().look(seen['pixels'], seen['agent_pos'])
        assert np.hypot(*(pose[:2] - [x, y] - planned.rotate(planned.CENTER, angle))) < 2.0
        assert abs(planned.wrap(pose[2] - angle)) < np.radians(1.5)


def test_agent_arrives_at_rest_where_a_transfer_says(planned):
    env = gymnasium.make('gym_pusht/PushT-v0')
    start, end = np.array([60.0, 60.0]), np.array([160.0, 90.0])
    env.reset(seed=0, options={'reset_to_state': [*start, 300.0, 300.0, 0.0]})
    targets = end + planned.TARGETS[4] @ np.array([start - end, np.zeros(2)])
    for target in targets:
        state, _, _, _, info = env.step(target)
    assert state[:2] == pytest.approx(end, abs=0.01)
    assert info['vel_agent'] == pytest.approx([0.0, 0.0], abs=0.1)


def test_cloned_pushes_run_with_their_network(tmp_path):
    for source, name in (('cloned_pushes.py', 'policy.py'), ('cloned_pushes.json', 'weights.json')):
        shutil.copy(TASK / 'ideas' / source, tmp_path / name)
    module = load(tmp_path / 'policy.py')
    assert any(solves(module, TASK / 'ideas' / 'cloned_pushes.yaml', 'state', seed) for seed in range(30020, 30023))


@pytest.mark.parametrize('recipe', ['start', 'planned_pushes', 'cloned_pushes'])
def test_bench_runs_each_recipe_that_ships(recipe, capsys):
    assert main(['bench', 'gym-pusht', '--recipe', recipe, '--trials', '1', '--first-seed', '30001', '--json']) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures['trials'] == 1 and figures['recipe'] == recipe and figures['seconds_per_trial'] > 0


def test_bench_names_the_recipes_there_are(capsys):
    assert main(['bench', 'gym-pusht', '--recipe', 'magic', '--trials', '1']) == 2
    assert 'start, planned_pushes, cloned_pushes' in capsys.readouterr().err


def test_the_loop_in_the_readme_needs_nothing_of_this_project(monkeypatch, capsys):
    root = Path(__file__).resolve().parents[2]
    code = re.search(r'```python\n(import runpy.*?)```', (root / 'README.md').read_text(), re.DOTALL)[1]
    assert len(code.splitlines()) <= 12 and 'enpire_agent' not in code
    monkeypatch.chdir(root)
    exec(code.replace('range(20000, 20020)', 'range(20000, 20002)'), {})
    assert capsys.readouterr().out.split() == ['2']
