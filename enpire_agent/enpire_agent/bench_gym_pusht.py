"""A recipe in the bare loop of the package gym-pusht: 300 steps, one attempt a seed, its own reset and success."""

from __future__ import annotations

import importlib.util
import tempfile
import time
import warnings
from pathlib import Path
from typing import Callable

import numpy as np
import yaml

from enpire_agent.idea_library import assemble_recipe, load_ideas
from enpire_bringup.paths import share_directory

LEVELS = {'state': 'state', 'keypoints': 'environment_state_agent_pos', 'pixels': 'pixels_agent_pos'}
STEP = 0.1           # s of the package's time


class BenchError(RuntimeError):
    """The bench cannot be run; the message says what is missing."""


def run(recipe: str, *, level: str, trials: int, first_seed: int,
        report: Callable[[str], None] = lambda text: None) -> dict:
    """{trials, successes, seconds_per_trial, recipe, ...}: CPU s of the policy a trial, its making excluded.

    recipe: a folder with policy.py and recipe.yaml, "start" (the task's starting recipe), or the name of a method in the
    task's idea library. The policy gets observations and returns actions; it never has the environment.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')       # pygame's, about setuptools
            import gym_pusht  # noqa: F401 (registers the environment)
            import gymnasium
    except ImportError as error:
        raise BenchError(f'{error.name} is not installed; type: make extras') from error
    computing, steps, failed = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        policy = make_policy(recipe, Path(folder))
        env = gymnasium.make('gym_pusht/PushT-v0', obs_type=LEVELS[level])
        for number, seed in enumerate(range(first_seed, first_seed + trials), 1):
            success, count, seconds = _trial(env, policy, seed, level)
            computing.append(seconds)
            steps.append(count)
            if not success:
                failed.append(seed)
            report(f'{number} of {trials} trials, {number - len(failed)} succeeded')
    return {'trials': trials, 'successes': trials - len(failed),
            'seconds_per_trial': round(float(np.mean(computing)), 4),
            'median_seconds': round(float(np.median(computing)), 4), 'mean_steps': round(float(np.mean(steps)), 1),
            'recipe': recipe, 'level': level, 'first_seed': first_seed, 'failed_seeds': failed}


def make_policy(recipe: str, folder: Path):
    """The policy of a recipe, see `run`; `folder` is where the files of an idea are put together."""
    if not (Path(recipe) / 'policy.py').is_file():
        _assemble(recipe, folder)
    else:
        folder = Path(recipe)
    spec = importlib.util.spec_from_file_location('policy', folder / 'policy.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    content = yaml.safe_load((folder / 'recipe.yaml').read_text(encoding='utf-8'))
    return module.Policy({'method': content['method'], 'parameters': content['parameters']})


def _assemble(method: str, folder: Path) -> None:
    task = share_directory() / 'tasks' / 'gym_pusht'
    files = {'start': {}} | {idea.family: idea.files for idea in load_ideas(task / 'ideas' / 'ideas.yaml') if idea.files}
    if method not in files:
        raise BenchError(f"no recipe '{method}'; give a folder with policy.py, or one of {', '.join(files)}")
    assemble_recipe(task / 'recipe', files[method], folder)


def _trial(env, policy, seed: int, level: str) -> tuple[bool, int, float]:
    """(success, steps, CPU s of the policy)"""
    seen, _ = env.reset(seed=seed)
    computing, steps, success, truncated = 0.0, 0, False, False
    while not (success or truncated):
        observation = {**({'state': seen} if level == 'state' else seen), 'time': STEP * steps}
        before = time.thread_time()
        if not steps:
            policy.reset(observation)
        action = policy.act(observation)
        computing += time.thread_time() - before
        seen, _, success, truncated, _ = env.step(np.clip(np.asarray(action, np.float32), 0.0, 512.0))
        steps += 1
    return bool(success), steps, computing
