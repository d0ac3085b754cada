"""A task whose world is a Gymnasium environment: what task.yaml says beyond what every task has (task.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping

from enpire_bringup.action_space import BoxSpace, DiscreteSpace, read_gym_space
from enpire_bringup.configuration import ConfigurationError, Section
from enpire_bringup.task import Task, common_parts


@dataclass(frozen=True)
class GymTerms:
    """Which environment, and what of its `info` means what.

    id: as `gymnasium.make` takes it. package: is imported before, to register the id; '' for Gymnasium's own.
    install: the command that installs it, for the error where it is missing.
    arguments: of `gymnasium.make`. success: key in `info` that is true once the task is done.
    measures: key in `info` -> what it has to exceed for that, for the verdict's checks; they decide nothing.
    """

    id: str
    package: str
    install: str
    arguments: dict
    success: str
    measures: dict[str, float]

    def checks(self, measured: Mapping[str, float]) -> list[tuple[str, bool, float, float]]:
        """(name, passed, value, limit) of what was measured."""
        return [(name, value > self.measures[name], value, self.measures[name]) for name, value in measured.items()]


@dataclass(frozen=True, kw_only=True)
class GymTask(Task):
    """observation: keys of the observation; of one that is a plain array the name that the policy gets it by."""

    gym: GymTerms
    action: BoxSpace | DiscreteSpace


def read_gym_task(top: Section) -> GymTask:
    """Raises ConfigurationError naming file, key, unit and the value expected."""
    observation = top.texts('observation')
    if not observation:
        raise top.error('observation', 'is empty; name what the policy gets')
    if 'time' in observation:
        raise top.error('observation', "names 'time', which every policy gets: s since its first step")
    task = GymTask(**common_parts(top), gym=_terms(top.section('gym')), observation=observation,
                   action=read_gym_space(top.section('action'), observation))
    top.finish()
    return task


def missing_package(task: GymTask, name: str) -> ConfigurationError:
    """The error for a world whose package is not installed, with the way out."""
    way = f'; type: {task.gym.install}' if task.gym.install else ''
    return ConfigurationError(f'{task.file}: its world needs the package {name}, which is not installed{way}')


def _terms(section: Section) -> GymTerms:
    measures = section.section('measures', default={})
    terms = GymTerms(
        id=section.text('id'), package=section.text('package', default=''),
        install=section.text('install', default=''),
        arguments=_arguments(section), success=section.text('success'),
        measures={key: measures.number(key) for key in measures.keys()})
    section.finish()
    return terms


def _arguments(section: Section) -> dict:
    arguments = section.raw('arguments', default={})
    if not isinstance(arguments, dict):
        raise section.error('arguments', 'must be a mapping of names to values')
    return arguments
