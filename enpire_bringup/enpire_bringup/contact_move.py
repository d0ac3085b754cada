"""A slow straight move that ends where the tool feels a force, commanded point by point. No ROS.

The points are streamed at policy steps, so in lockstep the world waits for each of them: the arm stops within one step
of the joint state in which the force was there, however busy the machine is.
"""

from __future__ import annotations

import math
import threading

import numpy as np

from enpire_bringup.trajectory import JointTrajectory

CONTACT_SPEED = 0.03       # m/s of the tool
SETTLING = 0.4             # s after the end of the way in which a contact still counts
SECOND = 1_000_000_000


def slowed_to(trajectory: JointTrajectory, tips: np.ndarray, speed: float) -> JointTrajectory:
    """The same way, no faster than `speed` (m/s) for the tool, whose positions (m, 3) along it are `tips`."""
    speeds = np.linalg.norm(np.diff(tips, axis=0), axis=1) / np.diff(trajectory.times, prepend=0.0)[1:]
    return trajectory.slowed(max(1.0, float(speeds.max(initial=0.0)) / speed))


class ContactMove:
    """Goes along a trajectory until the force on the tool has grown by `stop_force` (N) since the start.

    period: s between two points. `finished` is set when the way has ended; then `contact` says whether it ended at the
    force, and `force` is the force (N, NaN: not known) that was felt last.
    """

    def __init__(self, trajectory: JointTrajectory, stop_force: float, period: float):
        self._sampler = trajectory.sampler()
        self._stop_force = stop_force
        self._period = period
        self._start: int | None = None
        self._at_rest: np.ndarray | None = None      # force before the move: the weight of what is carried, and errors
        self.finished = threading.Event()
        self.contact = False
        self.reason = ''                             # why it ended without contact
        self.force = math.nan

    def elapsed(self, stamp: int) -> float:
        """s since the first joint state, at the joint state of `stamp` (ns)."""
        return 0.0 if self._start is None else (stamp - self._start) / SECOND

    def follow(self, stamp: int, positions: np.ndarray, tip_force: np.ndarray | None
               ) -> tuple[np.ndarray, np.ndarray]:
        """Joint positions and velocities (n,) to be reached one period after the joint state of `stamp` (ns).

        positions: measured (n,) rad; tip_force: estimated (3,) N. A force that is not known ends the move.
        """
        if self._start is None:
            self._start, self._at_rest = stamp, tip_force
        if self.finished.is_set() or self._ends(stamp, tip_force):
            self.finished.set()
            return np.asarray(positions, float), np.zeros(len(positions))
        q, velocities = self._sampler.sample(self.elapsed(stamp) + self._period)
        return np.array(q), np.array(velocities)

    def stop(self, reason: str) -> None:
        """End without contact."""
        if not self.finished.is_set():
            self.reason = reason
            self.finished.set()

    def _ends(self, stamp: int, tip_force: np.ndarray | None) -> bool:
        if tip_force is None or self._at_rest is None or not np.isfinite(tip_force).all():
            self.force = math.nan
            self.reason = 'the force on the tool cannot be estimated: efforts are missing from joint_states'
            return True
        self.force = float(np.linalg.norm(tip_force - self._at_rest))
        self.contact = self.force >= self._stop_force
        if not self.contact and self.elapsed(stamp) > self._sampler.duration + SETTLING:
            self.reason = (f'there was no contact of {self._stop_force:g} N on the way; the force at its end was '
                           f'{self.force:.1f} N')
            return True
        return self.contact
