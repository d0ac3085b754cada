"""What differs from one simulated world to the next: masses, friction, light, where the cameras really stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

import numpy as np

from enpire_bringup.configuration import Section

CLIP = 2.5       # standard deviations beyond which a camera's offset is cut off
_STREAM = 1      # sets these draws apart from those of start poses, which have the same seeds


@dataclass(frozen=True)
class RandomizationRanges:
    """The key `randomization` of task.yaml; zero leaves a thing as scene, arm model and station file have it.

    mass, friction: share by which an object's may be larger or smaller. brightness: the same of all light. tint: share
    by which each of red, green and blue of the light may differ. light_tilt: rad, standard deviation of the direction
    that light comes from. camera_position (m; of cameras that stand in the world: one on an arm sits in its housing),
    camera_rotation (rad): standard deviations on each axis of where a camera really is; what the nodes are told of it
    stays what the station file says.
    """

    mass: float = 0.0
    friction: float = 0.0
    brightness: float = 0.0
    tint: float = 0.0
    light_tilt: float = 0.0
    camera_position: float = 0.0
    camera_rotation: float = 0.0


def read_randomization(section: Section) -> RandomizationRanges:
    """From the section `randomization`. Raises ConfigurationError naming file, key, unit and the value expected."""
    def read(key: str, high: float, unit: str) -> float:
        return section.number(key, low=0.0, high=high, unit=unit, default=0.0)

    ranges = RandomizationRanges(
        mass=read('mass', 0.9, '(share of it)'), friction=read('friction', 0.9, '(share of it)'),
        brightness=read('brightness', 0.9, '(share of it)'), tint=read('tint', 0.5, '(share of each colour)'),
        light_tilt=read('light_tilt', 1.0, 'rad'), camera_position=read('camera_position', 0.1, 'm'),
        camera_rotation=read('camera_rotation', 0.5, 'rad'))
    section.finish()
    return ranges


@dataclass(frozen=True)
class WorldVariation:
    """What one seed gives, as arrays: mass and friction (objects,) factors of the nominal ones, light (3,) factors of
    red, green and blue, light_tilt (2,) rad about x and y, camera_offset (cameras, 3) m in the frame world,
    camera_rotation (cameras, 3) rotation vector in the camera's own frame."""

    mass: np.ndarray
    friction: np.ndarray
    light: np.ndarray
    light_tilt: np.ndarray
    camera_offset: np.ndarray
    camera_rotation: np.ndarray

    @classmethod
    def nominal(cls, objects: int, cameras: int) -> 'WorldVariation':
        return cls(np.ones(objects), np.ones(objects), np.ones(3), np.zeros(2), np.zeros((cameras, 3)),
                   np.zeros((cameras, 3)))

    @classmethod
    def draw(cls, ranges: RandomizationRanges, objects: int, standing: Sequence[bool], seed: int) -> 'WorldVariation':
        """The variation of a seed, bit for bit the same for the same seed.

        objects: how many; standing: for each camera, whether it stands in the world.
        """
        rng = np.random.default_rng(np.random.SeedSequence([seed & 0xFFFFFFFFFFFFFFFF, _STREAM]))

        def share(range_: float, *shape: int) -> np.ndarray:
            return 1.0 + rng.uniform(-1.0, 1.0, shape) * range_

        def spread(deviation: float, *shape: int) -> np.ndarray:
            return np.clip(rng.standard_normal(shape), -CLIP, CLIP) * deviation

        return cls(
            mass=share(ranges.mass, objects), friction=share(ranges.friction, objects),
            light=share(ranges.brightness, 1) * share(ranges.tint, 3), light_tilt=spread(ranges.light_tilt, 2),
            camera_offset=spread(ranges.camera_position, len(standing), 3) * np.reshape(standing, (-1, 1)),
            camera_rotation=spread(ranges.camera_rotation, len(standing), 3))

    def vector(self) -> np.ndarray:
        """All of it, (size(objects, cameras),), as a part of `World.state()`."""
        return np.concatenate([part.ravel() for part in (
            self.mass, self.friction, self.light, self.light_tilt, self.camera_offset, self.camera_rotation)])

    @staticmethod
    def size(objects: int, cameras: int) -> int:
        return 2 * objects + 5 + 6 * cameras

    @classmethod
    def from_vector(cls, vector: np.ndarray, objects: int, cameras: int) -> 'WorldVariation':
        """The inverse of `vector`."""
        ends = np.cumsum([objects, objects, 3, 2, 3 * cameras])
        mass, friction, light, tilt, offset, rotation = np.split(np.asarray(vector, float), ends)
        return cls(mass, friction, light, tilt, offset.reshape(cameras, 3), rotation.reshape(cameras, 3))
