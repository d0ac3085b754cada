"""What skills need of a station: motions, eyes and a clock. No ROS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Union

import numpy as np


class SkillError(RuntimeError):
    """A skill could not do its work."""


class SkillCancelled(SkillError):
    """Somebody asked to stop."""


class CameraSilent(SkillError):
    """No images come, so nobody knows what is to be seen."""


@dataclass(frozen=True)
class Move:
    """A motion of one arm: to the named position `named`, or of the tool centre point to `pose` (4, 4) in "world".

    straight: along a straight line.
    stop_force: N; above 0 it is a slow motion that ends where the tool meets that much force, and fails where it does
        not.
    """

    arm: str
    named: str = ''
    pose: np.ndarray | None = None
    straight: bool = False
    stop_force: float = 0.0


@dataclass(frozen=True)
class Grip:
    """A motion of one gripper to `width` (m between the fingers) with at most `max_force` (N; 0: the station's)."""

    arm: str
    width: float
    max_force: float = 0.0


@dataclass(frozen=True)
class MoveEnd:
    """How a `Move` ended. contact: at its `stop_force`; force: N, estimated at the tool, NaN where nobody knows."""

    contact: bool = False
    force: float = float('nan')


@dataclass(frozen=True)
class GripEnd:
    """How a `Grip` ended. width: m between the fingers; force: N; stalled: something stopped the fingers."""

    width: float
    force: float
    stalled: bool


@dataclass(frozen=True)
class Sighting:
    """What one image says of an object. pose: x, y (m), yaw (rad); fraction: share of its outline seen."""

    pose: tuple[float, float, float]
    visible: bool
    fraction: float


class Robot(Protocol):
    """A station's arms and eyes. Every method that waits is bounded; all raise SkillError."""

    def run(self, *motions: Union[Move, Grip]) -> list[Union[MoveEnd, GripEnd]]:
        """Start all motions together and wait for the end of all. Raises SkillError when one of them failed."""

    def joints(self, arm: str) -> np.ndarray:
        """Measured joint positions (n,), rad."""

    def gripper_width(self, arm: str) -> float:
        """Measured width between the fingers, m."""

    def look(self, name: str, images: int, timeout: float) -> list[Sighting]:
        """What the next `images` images, taken from now on, say of an object of the task. Raises CameraSilent."""

    def photograph(self, camera: str, timeout: float) -> np.ndarray:
        """The next image (h, w, 3) uint8 RGB that a camera of the station takes from now on. Raises CameraSilent."""

    def now(self) -> float:
        """s of ROS time."""
