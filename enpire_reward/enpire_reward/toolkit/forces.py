"""Forces from joint efforts."""

from __future__ import annotations

import math
from collections import deque
from typing import Mapping

import numpy as np


def grip_force(efforts: Mapping[str, float], finger_joint: str) -> float:
    """Force (N) of each finger of a gripper, from `observation['joint_efforts']`; NaN when it is not measured."""
    return abs(efforts.get(finger_joint, math.nan))


class EffortBaseline:
    """What efforts change by, against the median of the last `samples`: a push, a touch, a weight that was taken up.

    Gravity and friction are in the median; so is a load that has been there for half of the samples.
    """

    def __init__(self, samples: int = 30):
        self._history: dict[str, deque[float]] = {}
        self._samples = samples

    def update(self, efforts: Mapping[str, float]) -> dict[str, float]:
        """Change of every joint's effort (N m, or N), which then counts as history; 0 at first, NaN for a NaN."""
        changes = {}
        for name, effort in efforts.items():
            history = self._history.setdefault(name, deque(maxlen=self._samples))
            changes[name] = effort - float(np.median(history)) if history else effort - effort
            if math.isfinite(effort):
                history.append(effort)
        return changes


def force_from_torques(jacobian, torques) -> np.ndarray:
    """Force (3,) in N at a point that explains joint torques (n,) in N m best, in the least-squares sense.

    jacobian (3, n): velocity of the point, m/s, a unit of each joint's velocity, rad/s. torques: without gravity, e.g.
    changes from `EffortBaseline`. A direction in which the arm cannot feel a force comes out as 0.
    """
    jacobian = np.asarray(jacobian, float)
    return np.linalg.lstsq(jacobian.T, np.asarray(torques, float), rcond=1e-6)[0]
