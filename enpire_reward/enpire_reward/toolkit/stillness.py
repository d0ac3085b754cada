"""For how long nothing moved."""

from __future__ import annotations

import math

import numpy as np

KEPT = 1000     # poses that are kept at least


class StillnessTracker:
    """For how long a planar pose has not moved.

    position (m) and yaw (rad): a change below both counts as no motion. gap (s): when no pose came for
    longer, or time went backwards, the count begins anew: nobody knows what happened meanwhile.
    """

    def __init__(self, position: float = 0.002, yaw: float = math.radians(1), gap: float = 0.2):
        self.position = position
        self.yaw = yaw
        self.gap = gap
        self._seen = np.empty((2 * KEPT, 4))       # time, x, y, yaw: the poses that count, oldest first
        self._count = 0

    def update(self, time: float, pose) -> float:
        """Seconds up to `time` in which every pose lay within the limits of this one."""
        if self._count and not 0 <= time - self._seen[self._count - 1, 0] <= self.gap:
            self._count = 0
        if self._count == 2 * KEPT:
            self._keep_from(KEPT)
        self._seen[self._count] = time, *pose
        self._count += 1
        # Drop up to the newest pose that differs; what was dropped once cannot matter again but for drift, which
        # comparing with the newest pose sees.
        away = self._seen[:self._count, 1:] - self._seen[self._count - 1, 1:]
        turn = np.abs(away[:, 2] - 2 * math.pi * np.round(away[:, 2] / (2 * math.pi)))
        same = (np.hypot(away[:, 0], away[:, 1]) < self.position) & (turn < self.yaw)
        if not same.all():
            self._keep_from(self._count - int(same[::-1].argmin()))
        return round(time - self._seen[0, 0], 6) if self._count else 0.0    # stamps in ns, as floats, miss 0.3 s by a hair

    def _keep_from(self, first: int) -> None:
        self._seen[:self._count - first] = self._seen[first:self._count].copy()
        self._count -= first


def changed_share(before: np.ndarray, after: np.ndarray, difference: int = 25) -> float:
    """Share of pixels, 0..1, that changed by more than `difference` gray levels in any channel.

    Images (h, w) or (h, w, 3) uint8 of the same shape. Raises ValueError for two shapes.
    """
    if before.shape != after.shape:
        raise ValueError(f'images of shape {before.shape} and {after.shape}; expected the same')
    changed = np.abs(before.astype(np.int16) - after) > difference
    return float(np.mean(changed.any(axis=2) if changed.ndim == 3 else changed))
