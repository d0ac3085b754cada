"""What a policy returns, and what the station makes of it: the parts of task.yaml's `action` by its `type`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from enpire_bringup.configuration import Section


class ActionSpace(Protocol):
    """Actions are float64 arrays (size,)."""

    @property
    def size(self) -> int:
        """Numbers in an action."""

    @property
    def meaning(self) -> str:
        """Of these numbers, in words, for errors."""

    def target(self, action: np.ndarray | None, previous: np.ndarray, hold: np.ndarray) -> np.ndarray:
        """What the station is told (size,): the action made admissible; where there is none, what holds still.

        previous: what it was told last. hold: what keeps everything as it is now, as the station says.
        """


@dataclass(frozen=True)
class TipSpace:
    """`tip_xy`: target (x, y) in m of the closed gripper's tip at `height` above the table, at most `max_step` m from
    the one before."""

    arm: str
    low: tuple[float, ...]
    high: tuple[float, ...]
    height: float
    max_step: float

    size = 2
    meaning = 'x, y in m'

    def target(self, action: np.ndarray | None, previous: np.ndarray, hold: np.ndarray) -> np.ndarray:
        if action is None:
            return previous
        wanted = np.clip(action, self.low, self.high)
        way = wanted - previous
        length = float(np.hypot(*way))
        return wanted if length <= self.max_step else previous + way * (self.max_step / length)


@dataclass(frozen=True)
class BoxSpace:
    """`box`: numbers in [low, high] each. hold: ("zeros", 0), or the key in the observation and the first index there of
    the numbers that, told back, leave everything where it is."""

    low: tuple[float, ...]
    high: tuple[float, ...]
    hold: tuple[str, int]

    @property
    def size(self) -> int:
        return len(self.low)

    @property
    def meaning(self) -> str:
        return f'each from {min(self.low):g} to {max(self.high):g}'

    def target(self, action: np.ndarray | None, previous: np.ndarray, hold: np.ndarray) -> np.ndarray:
        return np.clip(hold if action is None else action, self.low, self.high)

    def hold_in(self, observation: dict) -> np.ndarray:
        """What holds still (size,) where this is observed. Raises KeyError, ValueError where it is not there."""
        key, first = self.hold
        if key == ZEROS:
            return np.zeros(self.size)
        values = np.asarray(observation[key], float).ravel()[first:first + self.size]
        if len(values) != self.size:
            raise ValueError(f"'{key}' has no {self.size} numbers from {first} on")
        return values


@dataclass(frozen=True)
class DiscreteSpace:
    """`discrete`: one whole number from 0 to count - 1. hold: the one that does nothing."""

    count: int
    hold: int

    size = 1

    @property
    def meaning(self) -> str:
        return f'a whole number from 0 to {self.count - 1}'

    def target(self, action: np.ndarray | None, previous: np.ndarray, hold: np.ndarray) -> np.ndarray:
        return np.clip(np.rint(hold if action is None else action), 0, self.count - 1)

    def hold_in(self, observation: dict) -> np.ndarray:
        return np.array([float(self.hold)])


ZEROS = 'zeros'


def read_tip_space(section: Section) -> TipSpace:
    """`action` of a task for arms."""
    section.choice('type', ('tip_xy',))
    action = TipSpace(
        arm=section.text('arm'),
        low=section.vector('low', 2, unit='m'),
        high=section.vector('high', 2, unit='m'),
        height=section.number('height', low=0, high=2, unit='m'),
        max_step=section.number('max_step', low=1e-4, high=0.1, unit='m a policy step'))
    section.finish()
    _check_bounds(section, action.low, action.high)
    return action


def read_gym_space(section: Section, observation: tuple[str, ...]) -> BoxSpace | DiscreteSpace:
    """`action` of a task whose world is a Gymnasium environment."""
    if section.choice('type', ('box', 'discrete')) == 'discrete':
        count = section.integer('count', low=2, high=100000)
        action = DiscreteSpace(count, section.integer('hold', low=0, high=count - 1))
        section.finish()
        return action
    low = section.vector('low')
    action = BoxSpace(low=low, high=section.vector('high', len(low)), hold=_hold(section, observation))
    section.finish()
    _check_bounds(section, action.low, action.high)
    return action


def _hold(section: Section, observation: tuple[str, ...]) -> tuple[str, int]:
    if section.raw('hold') == ZEROS:
        return ZEROS, 0
    hold = section.section('hold')
    place = hold.choice('observation', observation), hold.integer('first', low=0, high=100000, default=0)
    hold.finish()
    return place


def _check_bounds(section: Section, low: tuple[float, ...], high: tuple[float, ...]) -> None:
    if not low or not all(a < b for a, b in zip(low, high)):
        raise section.error('low', f'is {list(low)}, not below high {list(high)}')
