"""Parts for reward programs (`reward.py` of a task). Plain Python and numpy: no ROS, no files.

    from enpire_reward.toolkit import StillnessTracker, abstain, check, judged, pose_difference
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np


def angle_difference(a: float, b: float) -> float:
    """a - b, rad, brought to (-pi, pi]."""
    return math.pi - (math.pi - (a - b)) % (2 * math.pi)


def pose_difference(pose, goal) -> tuple[float, float]:
    """Distance (m) and absolute yaw difference (rad, 0 to pi) of two planar poses x, y (m), yaw (rad)."""
    return math.hypot(pose[0] - goal[0], pose[1] - goal[1]), abs(angle_difference(pose[2], goal[2]))


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


def check(name: str, value: float, limit: float, unit: str = '', *, at_least: bool = False,
          detail: str = '') -> dict:
    """One named condition: passed when value <= limit (or >= limit with `at_least`). NaN does not pass."""
    passed = value >= limit if at_least else value <= limit
    return {'name': name, 'passed': bool(passed), 'value': float(value), 'limit': float(limit), 'unit': unit,
            'detail': detail}


def judged(checks: list[dict], *, done: str = 'done') -> dict:
    """"success" when every check passed, else "not_yet" with the first that did not in the reason."""
    for entry in checks:
        if not entry['passed']:
            unit = f' {entry["unit"]}' if entry['unit'] else ''
            return {'outcome': 'not_yet', 'checks': checks,
                    'reason': entry['detail'] or f'{entry["name"]} is {entry["value"]:.4g}{unit}, '
                                                 f'limit {entry["limit"]:.4g}{unit}'}
    return {'outcome': 'success', 'checks': checks, 'reason': done}


def abstain(reason: str, checks: list[dict] | None = None) -> dict:
    """Not to be judged now."""
    return {'outcome': 'abstain', 'checks': checks or [], 'reason': reason}
