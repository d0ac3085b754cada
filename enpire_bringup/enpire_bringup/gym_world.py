"""A Gymnasium environment as a station's world: one episode after the other. No ROS.

What is its own stays its own: the reset, the physics, when a task is done and when an episode is over. This class says
what of it a station hears, as task.yaml maps it (gym_task.py).
"""

from __future__ import annotations

import importlib
import os
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from enpire_bringup.action_space import DiscreteSpace
from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.gym_task import GymTask, missing_package


@dataclass(frozen=True)
class GymStep:
    """What the environment showed after `number` actions. measures: those of task.yaml that it said, by name.

    terminated, truncated: as Gymnasium has them, the episode's own end; truncated when its time is over.
    """

    number: int
    observation: dict[str, np.ndarray]
    success: bool = False
    measures: dict[str, float] = field(default_factory=dict)
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False

    @property
    def over(self) -> bool:
        return self.terminated or self.truncated


class GymWorld:
    """The environment of a task. drawn: whether `image` will be asked for.

    Raises ConfigurationError naming task.yaml and key where the environment is not installed, or is another one than the
    file says.
    """

    def __init__(self, task: GymTask, *, drawn: bool = False):
        self._task = task
        self._discrete = isinstance(task.action, DiscreteSpace)
        self._env = _make(task, drawn)
        self._drawn = drawn
        self._plain = not hasattr(self._env.observation_space, 'spaces')
        self._check_spaces()
        self._number, self._open = 0, False
        self._check_said()

    def reset(self, seed: int) -> GymStep:
        """Begin the episode of a seed, which is the environment's own."""
        seen, said = self._env.reset(seed=seed)
        self._number, self._open = 0, True
        return self._step(seen, said)

    def step(self, action: np.ndarray) -> GymStep:
        """One step with an action (size,). Raises RuntimeError when no episode is under way."""
        if not self._open:
            raise RuntimeError('the episode is over; reset the world first')
        if self._discrete:
            given: Any = int(action[0])
        else:
            space = self._env.action_space
            given = np.asarray(action, space.dtype).reshape(space.shape)
        seen, reward, terminated, truncated, said = self._env.step(given)
        self._number += 1
        self._open = not (terminated or truncated)
        return self._step(seen, said, reward=float(reward), terminated=bool(terminated), truncated=bool(truncated))

    def image(self) -> np.ndarray | None:
        """The scene (height, width, 3) uint8 as the environment draws it; None where it cannot, or was not to be drawn."""
        image = self._env.render() if self._drawn and self._env.render_mode == 'rgb_array' else None
        return None if image is None else np.ascontiguousarray(image, np.uint8)

    def close(self) -> None:
        self._env.close()

    def _step(self, seen, said: dict, **more) -> GymStep:
        terms = self._task.gym
        observation = {self._task.observation[0]: np.asarray(seen)} if self._plain else {
            name: np.asarray(seen[name]) for name in self._task.observation}
        measures = {name: float(said[name]) for name in terms.measures if name in said}
        return GymStep(self._number, observation, success=bool(said.get(terms.success, False)), measures=measures, **more)

    def _check_spaces(self) -> None:
        import gymnasium

        task, space, actions = self._task, self._env.observation_space, self._env.action_space
        if self._plain:
            if not isinstance(space, gymnasium.spaces.Box):
                raise self._error('gym.id', f'has observations of {type(space).__name__}; known are arrays (Box), and '
                                            'dictionaries (Dict) of them')
            if len(task.observation) != 1:
                raise self._error('observation', f'names {len(task.observation)} things, but the observation is one '
                                                 'array: give it one name')
        else:
            for name in task.observation:
                if not isinstance(space.spaces.get(name), gymnasium.spaces.Box):
                    arrays = [key for key, part in space.spaces.items() if isinstance(part, gymnasium.spaces.Box)]
                    raise self._error('observation', f"names '{name}'; the environment has {', '.join(arrays)}")
        if self._discrete:
            if not isinstance(actions, gymnasium.spaces.Discrete) or actions.start or actions.n != task.action.count:
                raise self._error('action', f'is discrete with {task.action.count} actions; the environment has {actions}')
            return
        if not isinstance(actions, gymnasium.spaces.Box) or actions.low.size != task.action.size:
            raise self._error('action', f'is a box of {task.action.size} numbers; the environment has {actions}')
        if (np.any(actions.low.ravel() > task.action.low) or np.any(actions.high.ravel() < task.action.high)):
            raise self._error('action', f'is wider than what the environment takes, {actions}')

    def _check_said(self) -> None:
        """One step tells what `info` has."""
        first = self.reset(0)
        try:
            hold = self._task.action.hold_in(first.observation)
        except (KeyError, ValueError) as error:
            raise self._error('action.hold', f'does not fit the observation: {error}') from None
        said = self._env.step(int(hold[0]) if self._discrete else np.asarray(
            hold, self._env.action_space.dtype).reshape(self._env.action_space.shape))[4]
        self._open = False
        terms = self._task.gym
        for key, name in (('gym.success', terms.success), *(('gym.measures', name) for name in terms.measures)):
            if name not in said:
                raise self._error(key, f"names '{name}', which the environment's info does not have; it has "
                                       f'{", ".join(said) or "nothing"}')

    def _error(self, key: str, message: str) -> ConfigurationError:
        return ConfigurationError(f'{self._task.file}: {key} {message}')


def _make(task: GymTask, drawn: bool):
    terms = task.gym
    os.environ.setdefault('PYGAME_HIDE_SUPPORT_PROMPT', '1')
    os.environ.setdefault('SDL_VIDEODRIVER', 'dummy')      # no display is needed, nor looked for
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')                # of what it imports, at every start
            import gymnasium

            if terms.package:
                importlib.import_module(terms.package)
            mode = {'render_mode': 'rgb_array'} if drawn and _draws(gymnasium.spec(terms.id)) else {}
            return gymnasium.make(terms.id, disable_env_checker=True, **mode, **terms.arguments)
    except ImportError as error:
        raise missing_package(task, error.name or terms.package or 'gymnasium') from error
    except Exception as error:      # whatever an environment raises when it is made
        raise ConfigurationError(f'{task.file}: gym.id {terms.id} cannot be made: {error}') from error


def _draws(spec) -> bool:
    """Whether the environment says that it can draw itself into an array."""
    entry = spec.entry_point
    if isinstance(entry, str):
        module, _, name = entry.partition(':')
        entry = getattr(importlib.import_module(module), name)
    return 'rgb_array' in getattr(entry, 'metadata', {}).get('render_modes', ())
