"""Heights above the table from the depth image of a camera that looks at it."""

from __future__ import annotations

import numpy as np


def height_map(depth: np.ndarray, k, pose) -> np.ndarray:
    """Height (h, w) in m above the plane z = 0 of what each pixel shows; NaN where nothing was measured.

    depth (h, w): m along the camera's view; 0, NaN or infinite where nothing was measured. k: the nine numbers of
    camera_info, row by row. pose (4, 4): of the optical frame (x right, y down, z forward) in a frame with z up from
    the table.
    """
    k, pose = np.asarray(k, float).reshape(3, 3), np.asarray(pose, float)
    rows, columns = np.indices(depth.shape)
    across = pose[2, 0] * (columns - k[0, 2]) / k[0, 0] + pose[2, 1] * (rows - k[1, 2]) / k[1, 1] + pose[2, 2]
    measured = np.where(np.isfinite(depth) & (depth > 0), depth, np.nan)
    return pose[2, 3] + across * measured


def height_in(height: np.ndarray, mask: np.ndarray, percentile: float = 50.0) -> float:
    """Height (m) of what a mask shows: the median, or another percentile of its pixels; NaN when none was measured."""
    values = height[(mask > 0) & np.isfinite(height)]
    return float(np.percentile(values, percentile)) if len(values) else float('nan')
