"""The limits that the safety guard enforces: what they are called, in which unit, and which way is tighter.

A station file states all of them under `safety:`. A task's and a recipe's `limits:` may tighten some, never loosen one.
See docs/safety.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Mapping

from enpire_bringup.configuration import ConfigurationError, Section

AXES = 'xyz'


@dataclass(frozen=True)
class Limit:
    """One number of the limits. `low` to `high` is what it may be at all; `ceiling`: whether smaller is tighter."""

    unit: str
    low: float
    high: float
    ceiling: bool

    def is_looser(self, value: float, than: float) -> bool:
        return value > than if self.ceiling else value < than


# In the order of the fields of SafetyLimits, except for the workspace.
LIMITS = {
    'joint_margin': Limit('rad', 0.0, 1.0, ceiling=False),
    'max_joint_speed': Limit('rad/s', 0.01, 20.0, ceiling=True),
    'max_tip_speed': Limit('m/s', 0.001, 5.0, ceiling=True),
    'floor_height': Limit('m', -10.0, 10.0, ceiling=False),
    'min_arm_distance': Limit('m', 0.0, 1.0, ceiling=False),
    'max_joint_effort': Limit("of the joint's effort limit", 0.01, 1.0, ceiling=True),
    'max_tip_force': Limit('N', 0.1, 10000.0, ceiling=True),
    'stale_command': Limit('s', 0.001, 10.0, ceiling=True),
    'stale_state': Limit('s', 0.001, 10.0, ceiling=True),
    'stop_time': Limit('s', 0.001, 1.0, ceiling=False),
    **{f'workspace.{axis}.low': Limit('m', -10.0, 10.0, ceiling=False) for axis in AXES},
    **{f'workspace.{axis}.high': Limit('m', -10.0, 10.0, ceiling=True) for axis in AXES},
}


@dataclass(frozen=True)
class SafetyLimits:
    """What the guard enforces. m, rad, s, N; `workspace_low` and `workspace_high` (3,) bound every TCP in "world"."""

    joint_margin: float
    max_joint_speed: float
    max_tip_speed: float
    floor_height: float
    min_arm_distance: float
    max_joint_effort: float
    max_tip_force: float
    stale_command: float
    stale_state: float
    stop_time: float
    workspace_low: tuple[float, float, float]
    workspace_high: tuple[float, float, float]

    def values(self) -> dict[str, float]:
        """Every limit by its name in `LIMITS`."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name in LIMITS}
        for axis, low, high in zip(AXES, self.workspace_low, self.workspace_high):
            values[f'workspace.{axis}.low'], values[f'workspace.{axis}.high'] = low, high
        return values

    @classmethod
    def of(cls, values: Mapping[str, float]) -> 'SafetyLimits':
        """The limits with these values, by their names in `LIMITS`."""
        low, high = (tuple(values[f'workspace.{axis}.{end}'] for axis in AXES) for end in ('low', 'high'))
        plain = {name: value for name, value in values.items() if '.' not in name}
        return cls(**plain, workspace_low=low, workspace_high=high)


def read_limits(section: Section) -> SafetyLimits:
    """A station's `safety:`; every limit has to be there. Raises ConfigurationError naming file, key and unit."""
    values = read_changes(section)
    for name, limit in LIMITS.items():
        if name not in values:
            key = '.'.join(name.split('.')[:2])
            what = f'[low, high] in {limit.unit}' if '.' in name else f'a number in {limit.unit}'
            raise section.error(key, f'is missing; add it ({what}); docs/safety.md says what it limits')
    return SafetyLimits.of(values)


def read_changes(section: Section) -> dict[str, float]:
    """The limits that a task's or a recipe's `limits:` states, by their names in `LIMITS`.

    Written as in a station file: `{max_tip_speed: 0.3, workspace: {x: [0.2, 0.6]}}`.
    Raises ConfigurationError naming file, key and unit.
    """
    changes = {name: section.number(name, low=limit.low, high=limit.high, unit=limit.unit, default=None)
               for name, limit in LIMITS.items() if '.' not in name}
    workspace = section.section('workspace', default={})
    for axis in AXES:
        limit = LIMITS[f'workspace.{axis}.low']
        bounds = (workspace.interval(axis, low=limit.low, high=limit.high, unit=limit.unit) if axis in workspace else
                  workspace.raw(axis, default=(None, None)))
        changes[f'workspace.{axis}.low'], changes[f'workspace.{axis}.high'] = bounds
    workspace.finish()
    section.finish()
    return {name: value for name, value in changes.items() if value is not None}


def tightened(limits: SafetyLimits, changes: Mapping[str, float], source: str, bounds: str) -> SafetyLimits:
    """`limits` with `changes`, by their names in `LIMITS`.

    source, bounds: for messages, where the changes and where the limits come from, e.g. two files.
    Raises ConfigurationError when a change would loosen a limit or leave no workspace.
    """
    values = limits.values()
    for name, value in changes.items():
        limit = LIMITS.get(name)
        if limit is None:
            raise ConfigurationError(f'{source}: limits.{name} is no limit; known: {", ".join(LIMITS)}')
        if not math.isfinite(value) or not limit.low <= value <= limit.high:
            raise ConfigurationError(f'{source}: limits.{name} is {value}; expected a number from {limit.low:g} to '
                                     f'{limit.high:g} {limit.unit}')
        if limit.is_looser(value, values[name]):
            raise ConfigurationError(
                f'{source}: limits.{name} is {value:g} {limit.unit}, but {bounds} allows {values[name]:g} '
                f'{limit.unit}; limits may only be tightened')
        values[name] = float(value)
    for axis in AXES:
        low, high = values[f'workspace.{axis}.low'], values[f'workspace.{axis}.high']
        if not low < high:
            raise ConfigurationError(f'{source}: limits.workspace.{axis} leaves no room: {low:g} to {high:g} m')
    return SafetyLimits.of(values)
