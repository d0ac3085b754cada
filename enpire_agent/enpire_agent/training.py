"""A recipe's train.py at work: recorded trials in, weights out.

train.py defines `class Trainer: __init__(self, config)`, config as the policy gets it, and `train(self, trials)`, which
returns values for weights.json beside it: numbers, texts, lists and dicts. trials: one dict a recorded trial, the
oldest first, with `outcome`, `time` (n,) s, `target` (n, size), and what the policy observed (n, ...) under its names: of
an object its pose (n, 3) m, m, rad. Arrays come as a row of numbers a step; large ones, such as pictures, do not.
It runs confined as a policy does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Sequence

import numpy as np

from enpire_agent.policy_session import policy_config
from enpire_agent.trial_record import RESULT, RecordError, read_result, read_steps
from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.program_process import ProgramFailure, ProgramProcess
from enpire_bringup.task import Task

TRAINER, WEIGHTS = 'train.py', 'weights.json'
START_TIMEOUT = 20.0      # s of wall time
TRAIN_TIMEOUT = 120.0     # s of wall time
MOST_TRIALS = 80          # the newest; more would not go through the pipe at once
LARGEST_WEIGHTS = 1 << 20    # bytes of JSON, for they are committed with the recipe


class TrainingError(RuntimeError):
    """train.py gave no weights; the message says why."""


def train(recipe: Path | str, task: Task, trials: Path | str) -> str:
    """The text of the weights.json that the recipe's train.py makes of the trials recorded in the folder `trials`.

    Raises TrainingError.
    """
    recipe = Path(recipe)
    examples = recorded_trials(trials, task)
    if not examples:
        raise TrainingError(f'{trials}: no trial is recorded there yet, so there is nothing to learn from')
    try:
        with ProgramProcess(recipe / TRAINER, 'Trainer', policy_config(recipe, task),
                            start_timeout=START_TIMEOUT) as trainer:
            weights = trainer.call('train', examples, timeout=TRAIN_TIMEOUT)
    except (ProgramFailure, ConfigurationError, ValueError) as error:
        raise TrainingError(f'{TRAINER}: {error}') from error
    try:
        text = json.dumps(weights, default=_plain, allow_nan=False) + '\n'
    except (TypeError, ValueError) as error:
        raise TrainingError(f'{TRAINER}: train() returned what {WEIGHTS} cannot hold ({error})') from error
    if len(text) > LARGEST_WEIGHTS:
        raise TrainingError(f'{TRAINER}: {len(text)} bytes of weights; at most {LARGEST_WEIGHTS}')
    return text


def recorded_trials(folder: Path | str, task: Task) -> list[dict]:
    """The newest completed trials below `folder`, as train() gets them."""
    examples = []
    for file in sorted(Path(folder).glob(f'*/{RESULT}'))[-MOST_TRIALS:]:
        try:
            outcome, steps = read_result(file.parent)['outcome'], list(read_steps(file.parent))
        except (ConfigurationError, RecordError, KeyError, ValueError):
            continue        # a trial that ended before its policy began, or whose record is damaged
        if steps:
            examples.append(_example(outcome, steps, task.observation))
    return examples


def _example(outcome: str, steps: list[dict], observation: Sequence[str]) -> dict:
    return {'outcome': outcome, 'time': _array([step['time'] for step in steps]),
            'target': _array([step['target'] for step in steps]),
            **{name: _array([_values(step, name) for step in steps]) for name in observation
               if all(_values(step, name) is not None for step in steps)}}


def _values(step: dict, name: str) -> list | None:
    """The numbers of one observed thing, of an object its pose; None where they are not in the record of the step."""
    observed = step['observation'].get(name)
    return observed.get('pose') if isinstance(observed, dict) else observed


def _array(values: list) -> np.ndarray:
    return np.array(values, dtype=float)


def _plain(value):
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f'{type(value).__name__}')
