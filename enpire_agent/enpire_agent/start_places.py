"""Where a policy starts: at the edge of the action space, the tool pointing down, far from the object. No ROS."""

from __future__ import annotations

import math
from typing import Sequence

import numpy as np

from enpire_bringup.arm_task import ArmTask
from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.kinematics import ArmKinematics, UnreachableError, tool_down
from enpire_bringup.station import Station

CLEARANCE = 0.10             # m above the policy's height for moves to and from its start


class StartPlaces:
    """The places (2,) in m where the task's arm can start.

    Raises ConfigurationError when it reaches none of those at the edge of the action space.
    """

    def __init__(self, station: Station, task: ArmTask, kinematics: ArmKinematics):
        self._arm, self._kinematics = station.arms[task.action.arm], kinematics
        self._margin = station.safety.joint_margin
        space = task.action
        self._places = [place for place in edge_places(space.low, space.high)
                        if self._is_reached(place, (space.height, space.height + CLEARANCE))]
        if not self._places:
            raise ConfigurationError(
                f'{task.file}: action.low {list(space.low)} and action.high {list(space.high)} (m): the '
                f'{self._arm.name} arm reaches no corner and no edge of that with its tool pointing down')

    def farthest_from(self, object_xy) -> np.ndarray:
        """The place farthest from an object at (2,)."""
        return farthest_place(self._places, np.asarray(object_xy))

    def tool(self, x: float, y: float, z: float) -> np.ndarray:
        """Pose (4, 4) of the tool pointing down, turned with the arm, so that the wrist stays mid-range."""
        base = self._arm.base_xyz
        return tool_down(x, y, z, math.atan2(y - base[1], x - base[0]))

    def joints(self, x: float, y: float, z: float) -> np.ndarray:
        """Joint positions (n,) rad with the tool there. Raises UnreachableError."""
        return self._kinematics.ik(self.tool(x, y, z), self._arm.named['home'], margin=self._margin)

    def _is_reached(self, place: np.ndarray, heights: Sequence[float]) -> bool:
        try:
            for z in heights:
                self.joints(*place, z)
            return True
        except UnreachableError:
            return False


def edge_places(low, high, inset: float = 0.01) -> list[np.ndarray]:
    """Corners and edge centres (2,) of the action space, `inset` m inside."""
    low, high = np.asarray(low, float) + inset, np.asarray(high, float) - inset
    middle = (low + high) / 2
    return [np.array([x, y]) for x in (low[0], middle[0], high[0]) for y in (low[1], middle[1], high[1])
            if not (x == middle[0] and y == middle[1])]


def farthest_place(places, object_xy) -> np.ndarray:
    """The place farthest from the object; the first of those that are equally far."""
    return max(places, key=lambda place: round(float(np.hypot(*(place - object_xy))), 6))
