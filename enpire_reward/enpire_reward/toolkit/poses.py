"""Planar poses: x, y (m), yaw (rad) on the table."""

from __future__ import annotations

import math

import numpy as np


def angle_difference(a: float, b: float) -> float:
    """a - b, rad, brought to (-pi, pi]."""
    return math.pi - (math.pi - (a - b)) % (2 * math.pi)


def pose_difference(pose, goal) -> tuple[float, float]:
    """Distance (m) and absolute yaw difference (rad, 0 to pi) of two planar poses x, y (m), yaw (rad)."""
    return math.hypot(pose[0] - goal[0], pose[1] - goal[1]), abs(angle_difference(pose[2], goal[2]))


def placed(polygon, pose) -> np.ndarray:
    """Corners (n, 2), m, of a polygon given in an object's own frame, with the object at `pose`."""
    c, s = math.cos(pose[2]), math.sin(pose[2])
    return np.asarray(polygon, float) @ np.array([[c, s], [-s, c]]) + (pose[0], pose[1])


def pose_of_contour(points) -> tuple[float, float, float]:
    """Center (of area) and direction of the long axis of a filled contour (n, 2), in its units.

    The angle is in (-pi/2, pi/2]: a long thing looks the same from both ends. A round thing has no direction: 0.
    Raises ValueError for a contour without area.
    """
    # Area moments of a polygon, by Green's theorem.
    points = np.asarray(points, float)
    middle = points.mean(axis=0)
    (x, y), (u, v) = (points - middle).T, (np.roll(points, -1, axis=0) - middle).T
    cross = x * v - u * y
    area = cross.sum() / 2
    if abs(area) < 1e-12:
        raise ValueError(f'a contour of {len(points)} points without area has no pose')
    cx, cy = ((x + u) * cross).sum() / (6 * area), ((y + v) * cross).sum() / (6 * area)
    xx = ((x * x + x * u + u * u) * cross).sum() / (12 * area) - cx * cx
    yy = ((y * y + y * v + v * v) * cross).sum() / (12 * area) - cy * cy
    xy = ((x * v + 2 * x * y + 2 * u * v + u * y) * cross).sum() / (24 * area) - cx * cy
    round_ = math.hypot(xx - yy, 2 * xy) < 1e-6 * (xx + yy)
    angle = 0.0 if round_ else 0.5 * math.atan2(2 * xy, xx - yy)
    return float(cx + middle[0]), float(cy + middle[1]), angle
