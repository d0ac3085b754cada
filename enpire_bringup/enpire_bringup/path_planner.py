"""Planning of joint-space paths around obstacles: what a planner is asked, and which planners there are. No ROS.

moveit_py is used where it is installed, OMPL everywhere else; both answer the same question, and whoever asks checks
the answer again.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Callable, Mapping, Protocol

import numpy as np

from enpire_bringup.arm_task import ArmTask
from enpire_bringup.station import Station


class NoPathError(ValueError):
    """The planner found no path; the message says what it tried."""


@dataclass(frozen=True)
class PathQuestion:
    """A path of one arm from `start` to `goal` (n,) rad within `lower` and `upper` (n,), all of it `free`.

    free(q (n,)) says whether the arm may be at q; joints: their names; present: positions by name of all joints of the
    station; seed: the same question with the same seed has the same answer.
    """

    arm: str
    joints: tuple[str, ...]
    start: np.ndarray
    goal: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    free: Callable[[np.ndarray], bool]
    present: Mapping[str, float]
    seed: int


class PathPlanner(Protocol):
    """name: what MoveArm's result and the log call it."""

    name: str

    def plan(self, question: PathQuestion) -> np.ndarray:
        """Waypoints (m, n), the first the start, the last the goal. Raises NoPathError."""


def choose_path_planner(station: Station, task: ArmTask | None = None) -> PathPlanner:
    """The planner of this machine."""
    if importlib.util.find_spec('moveit') is not None and importlib.util.find_spec('moveit.planning') is not None:
        from enpire_bringup.moveit_planner import MoveItPlanner

        return MoveItPlanner(station, task)
    from enpire_bringup.ompl_planner import OmplPlanner

    return OmplPlanner()
