"""Planar poses and tool poses of skills. Lengths in m, angles in rad, frame "world"."""

from __future__ import annotations

import math
from typing import Sequence

import numpy as np

from enpire_bringup.kinematics import tool_down


def wrap(angle: float) -> float:
    """The same angle in (-pi, pi]."""
    return math.atan2(math.sin(angle), math.cos(angle))


def pose_error(pose: Sequence[float], target: Sequence[float]) -> tuple[float, float]:
    """Distance (m) and angle (rad, positive) between two planar poses (x, y, yaw)."""
    return math.hypot(pose[0] - target[0], pose[1] - target[1]), abs(wrap(pose[2] - target[2]))


def tool_pose(x: float, y: float, height: float, yaw: float, lean: float = 0.0) -> np.ndarray:
    """TCP pose (4, 4) with the tool pointing down; at yaw 0 the fingers close along y.

    lean turns the tool about its closing direction, so that it points outward; it reaches farther so.
    """
    pose = tool_down(x, y, height, yaw)
    c, s = math.cos(lean), math.sin(lean)
    pose[:3, :3] = pose[:3, :3] @ np.array([[c, 0.0, -s], [0.0, 1.0, 0.0], [s, 0.0, c]])
    return pose


def turned(pose: np.ndarray, angle: float) -> np.ndarray:
    """`pose` (4, 4) turned about the vertical through its origin."""
    c, s = math.cos(angle), math.sin(angle)
    result = np.array(pose, float)
    result[:3, :3] = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]]) @ result[:3, :3]
    return result


def moved_to(pose: np.ndarray, x: float | None = None, y: float | None = None,
             height: float | None = None) -> np.ndarray:
    """`pose` (4, 4) with the coordinates that are given."""
    result = np.array(pose, float)
    for axis, value in enumerate((x, y, height)):
        if value is not None:
            result[axis, 3] = value
    return result


def extent(outline: Sequence[Sequence[float]], yaw: float, direction: float) -> float:
    """How far (m) a polygon (n, 2) turned by `yaw` reaches from its origin along `direction`."""
    along = direction - yaw
    return max(math.cos(along) * x + math.sin(along) * y for x, y in outline)


def boundary(outline: Sequence[Sequence[float]], yaw: float, direction: float) -> float:
    """How far (m) it is from the origin of a polygon (n, 2) turned by `yaw` to where it ends along `direction`."""
    along = direction - yaw
    c, s = math.cos(along), math.sin(along)
    points = [(c * x + s * y, c * y - s * x) for x, y in outline]      # the first axis along the direction
    crossings = [x + (other - x) * y / (y - beside) for (x, y), (other, beside) in zip(points, points[1:] + points[:1])
                 if (y > 0.0) != (beside > 0.0)]
    return max(crossings)


def tool_yaw(pose: np.ndarray) -> float:
    """Direction of a TCP pose (4, 4) about the vertical: 0 where the fingers close along y."""
    return math.atan2(-pose[0, 1], pose[1, 1])
