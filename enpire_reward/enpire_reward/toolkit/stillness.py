"""For how long nothing moved."""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from enpire_reward.toolkit.poses import pose_difference


class StillnessTracker:
    """For how long a planar pose has not moved.

    position (m) and yaw (rad): a change below both counts as no motion. gap (s): when no pose came for
    longer, or time went backwards, the count begins anew: nobody knows what happened meanwhile.
    """

    def __init__(self, position: float = 0.002, yaw: float = math.radians(1), gap: float = 0.2):
        self.position = position
        self.yaw = yaw
        self.gap = gap
        self._poses: deque[tuple[float, np.ndarray]] = deque()

    def update(self, time: float, pose) -> float:
        """Seconds up to `time` in which every pose lay within the limits of this one."""
        if self._poses and not 0 <= time - self._poses[-1][0] <= self.gap:
            self._poses.clear()
        self._poses.append((time, np.array(pose, float)))
        # Drop up to the newest pose that differs; what was dropped once cannot matter again but for drift,
        # which comparing with the newest pose sees.
        for index in range(len(self._poses) - 1, -1, -1):
            distance, turn = pose_difference(self._poses[index][1], pose)
            if not (distance < self.position and turn < self.yaw):
                for _ in range(index + 1):
                    self._poses.popleft()
                break
        while len(self._poses) > 1000:
            self._poses.popleft()
        return round(time - self._poses[0][0], 6)     # stamps in ns, as floats, miss 0.3 s by a hair


def changed_share(before: np.ndarray, after: np.ndarray, difference: int = 25) -> float:
    """Share of pixels, 0..1, that changed by more than `difference` gray levels in any channel.

    Images (h, w) or (h, w, 3) uint8 of the same shape. Raises ValueError for two shapes.
    """
    if before.shape != after.shape:
        raise ValueError(f'images of shape {before.shape} and {after.shape}; expected the same')
    changed = np.abs(before.astype(np.int16) - after) > difference
    return float(np.mean(changed.any(axis=2) if changed.ndim == 3 else changed))
