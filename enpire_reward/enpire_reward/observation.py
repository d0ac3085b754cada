"""What a reward program is shown of one capture stamp. No ROS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

WAITING = 8         # stamps whose frame is not complete yet


@dataclass(frozen=True)
class ObjectView:
    """pose (3,): x, y (m), yaw (rad) in world; the last trusted one or NaN when not visible. residual: m.

    occluded: a part of it is seen, too little to be trusted. visible_fraction: 0..1, how much.
    """

    pose: np.ndarray
    visible: bool
    residual: float
    occluded: bool = False
    visible_fraction: float = 0.0

    def plain(self) -> dict[str, Any]:
        return {'pose': self.pose, 'visible': self.visible, 'residual': self.residual, 'occluded': self.occluded,
                'visible_fraction': self.visible_fraction}


class FrameAssembler:
    """Puts together what belongs to one capture stamp (ns).

    objects: names of the objects that the task's camera sees; a frame is complete when each has its pose.
    others: objects of other cameras; their newest pose is taken as it is.
    """

    def __init__(self, objects: tuple[str, ...], others: tuple[str, ...] = ()):
        self._objects = objects
        self._poses: dict[int, dict[str, ObjectView]] = {}
        self._latest = {name: ObjectView(np.full(3, np.nan), False, np.nan) for name in others}
        self._images: dict[int, dict[str, np.ndarray]] = {}

    def add_pose(self, stamp: int, name: str, view: ObjectView) -> None:
        if name in self._objects:
            self._poses.setdefault(stamp, {})[name] = view
            self._trim(self._poses)
        elif name in self._latest:
            self._latest[name] = view

    def add_image(self, stamp: int, kind: str, image: np.ndarray) -> None:
        """kind: its key in the observation, "image" or "depth"."""
        self._images.setdefault(stamp, {})[kind] = image
        self._trim(self._images)

    @staticmethod
    def _trim(entries: dict) -> None:
        while len(entries) > WAITING:
            del entries[min(entries)]

    def take(self, stamp: int, kinds: tuple[str, ...] = ()) -> dict[str, Any] | None:
        """The observation of `stamp` without joints, once all of it is there; it is handed out once.

        kinds: of images that belong to it.
        """
        poses = self._poses.get(stamp, {})
        images = self._images.get(stamp, {})
        if len(poses) < len(self._objects) or not all(kind in images for kind in kinds):
            return None
        observation = {'time': stamp * 1e-9}
        observation.update((name, view.plain()) for name, view in {**self._latest, **poses}.items())
        observation.update((kind, images[kind]) for kind in kinds)
        self._images.pop(stamp, None)
        del self._poses[stamp]
        return observation

    def overtaken(self, stamp: int) -> list[int]:
        """Stamps before `stamp` that wait in vain: messages come in order. They are dropped."""
        old = sorted(known for known in self._poses if known < stamp)
        for known in old:
            del self._poses[known]
        for known in [known for known in self._images if known < stamp]:
            del self._images[known]
        return old
