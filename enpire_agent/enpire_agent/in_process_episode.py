"""Episodes in worlds of this process, without ROS: what every kind of world takes and gives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Callable, Protocol

from enpire_agent.policy_session import PolicySession
from enpire_agent.trial import Check
from enpire_bringup.composition import check_fit
from enpire_bringup.gym_task import GymTask
from enpire_bringup.station import Station
from enpire_bringup.task import Task


class EpisodePolicy(Protocol):
    """What an episode asks of a policy."""

    def reset(self, observation: dict) -> None: ...

    def act(self, observation: dict): ...


class ConfinedPolicy:
    """A policy session as an episode wants it."""

    def __init__(self, session: PolicySession):
        self._session = session
        self.reset = session.reset

    def act(self, observation: dict):
        return self._session.act(observation).action


@dataclass(frozen=True)
class Episode:
    """One episode: outcome as in trial.py, s of the world's time, and what was measured at its end."""

    seed: int
    outcome: str
    reason: str
    duration: float
    checks: tuple[Check, ...] = ()

    @property
    def position_error(self) -> float | None:
        """m; None where it was not measured."""
        value = next((check.value for check in self.checks if check.name == 'position'), math.nan)
        return value if math.isfinite(value) else None


class InProcessWorld(Protocol):
    """A station and its task in this process."""

    def run(self, policy: EpisodePolicy, seed: int,
            record_step: Callable[[dict, int], None] = lambda content, stamp: None) -> Episode:
        """One episode from the start of `seed`; the same seed and policy give the same episode.

        record_step(content, stamp in ns): hears every policy step as the recorder of a station does (trial.py).
        """


def make_in_process(station: Station, task: Task) -> InProcessWorld:
    """Raises ConfigurationError where station and task do not fit, or the world cannot be made here."""
    check_fit(station, task)
    if isinstance(task, GymTask):
        from enpire_agent.in_process_gym import InProcessGym

        return InProcessGym(task)
    from enpire_agent.in_process_station import InProcessStation

    return InProcessStation(station, task)
