"""Force on an arm's tool, estimated from the efforts of its joints. No ROS.

The motors give tau, the arm's own motion needs tau_model = RNEA(q, v, a), which includes gravity. What is missing,
tau_model - tau, comes from outside; a force f on the tool center point does J^T f of it, J (3, n) being the tool's
translational Jacobian. So f = pinv(J^T) (tau_model - tau), the least-squares force: one that acts elsewhere on the arm
is seen as the force on the tool that comes nearest to it.
"""

from __future__ import annotations

from typing import Sequence

import numpy as np
import pinocchio as pin

from enpire_bringup.robot_description import robot_description
from enpire_bringup.station import Station

BLIND = 0.05               # m/rad: no force is seen along directions in which joints move the tool less than this
ACCELERATION_TIME = 0.03   # s over which the velocities' differences are averaged


class TipForce:
    """Estimator of one arm; joint vectors (n,) are in the station file's order, the gripper's joint left out.

    Keeps scratch memory and the last velocities: one instance for one stream of joint states.
    """

    def __init__(self, station: Station, arm_name: str):
        arm = station.arms[arm_name]
        full = pin.buildModelFromXML(robot_description(station))
        locked = [full.getJointId(name) for name in full.names[1:] if name not in arm.joints]
        self._model = pin.buildReducedModel(full, locked, pin.neutral(full))
        self._data = self._model.createData()
        self._frame = self._model.getFrameId(arm.tcp_frame)
        self._order = np.array([self._model.joints[self._model.getJointId(j)].idx_q for j in arm.joints])
        self._q, self._v, self._a, self._tau = np.zeros((4, len(self._order)))
        self._last: tuple[float, np.ndarray] | None = None
        self._acceleration = np.zeros(len(self._order))

    def observe(self, stamp: float, positions: Sequence[float], velocities: Sequence[float],
                efforts: Sequence[float]) -> np.ndarray:
        """Force (3,) N on the tool in "world" for the joint state of time `stamp` (s); accelerations are those of
        the velocities seen before. NaN when a number of the state is not finite."""
        velocities = np.asarray(velocities, float)
        if self._last is not None:
            span = stamp - self._last[0]
            if 0.0 < span < ACCELERATION_TIME * 3:
                gain = min(1.0, span / ACCELERATION_TIME)
                self._acceleration += gain * ((velocities - self._last[1]) / span - self._acceleration)
            elif span != 0.0:
                self._acceleration[:] = 0.0
        if not np.isfinite(self._acceleration).all():
            self._acceleration[:] = 0.0
        self._last = stamp, velocities
        return self.estimate(positions, velocities, efforts, self._acceleration)

    def estimate(self, positions: Sequence[float], velocities: Sequence[float], efforts: Sequence[float],
                 accelerations: Sequence[float]) -> np.ndarray:
        """Force (3,) N on the tool in "world"; rad, rad/s, N m, rad/s^2. NaN when a number is not finite."""
        order = self._order
        self._q[order], self._v[order], self._a[order] = positions, velocities, accelerations
        self._tau[order] = efforts
        if not (np.isfinite(self._q).all() and np.isfinite(self._v).all() and np.isfinite(self._tau).all()):
            return np.full(3, np.nan)
        outside = pin.rnea(self._model, self._data, self._q, self._v, self._a) - self._tau
        jacobian = pin.computeFrameJacobian(self._model, self._data, self._q, self._frame,
                                            pin.LOCAL_WORLD_ALIGNED)[:3]
        directions, sizes, joints = np.linalg.svd(jacobian, full_matrices=False)
        seen = np.divide(1.0, sizes, out=np.zeros(3), where=sizes > BLIND)
        return directions @ (seen * (joints @ outside))
