"""Fixed boxes of a station or a task that the arms must not touch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from enpire_bringup.configuration import Section


@dataclass(frozen=True)
class Obstacle:
    """A box in "world": edge lengths `size` (m), its center at `xyz` (m), turned by `rpy` (rad, as in URDF)."""

    name: str
    size: tuple[float, float, float]
    xyz: tuple[float, float, float]
    rpy: tuple[float, float, float]


def read_obstacles(top: Section) -> tuple[Obstacle, ...]:
    """The list under the key `obstacles` of a station or task file; empty when the key is absent.

    Raises ConfigurationError naming file, key and unit.
    """
    entries = top.raw('obstacles', default=[])
    if not isinstance(entries, list):
        raise top.error('obstacles', 'must be a list of boxes {name, size, xyz, rpy}')
    obstacles = tuple(_obstacle(Section(entry, top.file, f'obstacles.{i}')) for i, entry in enumerate(entries))
    names = [obstacle.name for obstacle in obstacles]
    for name in names:
        if names.count(name) > 1:
            raise top.error('obstacles', f"names '{name}' twice")
    return obstacles


def _obstacle(section: Section) -> Obstacle:
    obstacle = Obstacle(
        name=section.text('name'),
        size=section.vector('size', 3, low=0.001, high=10, unit='m'),
        xyz=section.vector('xyz', 3, low=-10, high=10, unit='m'),
        rpy=section.vector('rpy', 3, low=-2 * math.pi, high=2 * math.pi, unit='rad', default=(0.0, 0.0, 0.0)))
    section.finish()
    return obstacle
