"""Between pixels and places on the table, for a camera without distortion.

k: the nine numbers of camera_info, row by row. pose (4, 4): of the optical frame (x right, y down, z forward) in a
frame with z up from the table. Both are in `observation['camera']`.
"""

from __future__ import annotations

import numpy as np


def on_table(pixels, k, pose, height: float = 0.0) -> np.ndarray:
    """x, y (n, 2), m, of what pixels (n, 2) u, v show, if it lies `height` m above the table; NaN where the ray does
    not get there."""
    k, pose = np.asarray(k, float).reshape(3, 3), np.asarray(pose, float)
    pixels = np.asarray(pixels, float).reshape(-1, 2)
    rays = np.column_stack([(pixels - k[:2, 2]) / k[[0, 1], [0, 1]], np.ones(len(pixels))]) @ pose[:3, :3].T
    with np.errstate(divide='ignore', invalid='ignore'):
        distance = (height - pose[2, 3]) / rays[:, 2]
    distance = np.where(np.isfinite(distance) & (distance > 0), distance, np.nan)
    return pose[:2, 3] + distance[:, None] * rays[:, :2]


def to_pixels(points, k, pose) -> np.ndarray:
    """Pixels (n, 2) u, v of points (n, 3) in m; NaN for points behind the camera."""
    k, pose = np.asarray(k, float).reshape(3, 3), np.asarray(pose, float)
    local = (np.asarray(points, float).reshape(-1, 3) - pose[:3, 3]) @ pose[:3, :3]
    depth = np.where(local[:, 2] > 1e-9, local[:, 2], np.nan)
    return local[:, :2] / depth[:, None] * k[[0, 1], [0, 1]] + k[:2, 2]
