"""Where an arm's tool is and how low the arm reaches, at given joint positions: what the guard asks at every step.

Shapes are the collision shapes of the robot description, the gripper closed. "Lowest" is along z of "world".
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Sequence

import coal
import numpy as np
import pinocchio as pin

from enpire_bringup.robot_description import collision_geometry, robot_description
from enpire_bringup.station import Station


VERTICAL = 0.9999     # cosine of the angle to the vertical below which an axis is not vertical


@dataclass(frozen=True)
class Extent:
    """Tool center point (3,) in "world", and height of the lowest point of the links that rise and sink; all in m."""

    tip: np.ndarray
    lowest: float
    lowest_link: str


class ArmExtent:
    """Extent of one arm of a station. Joint vectors are in the order of the station file, rad.

    reach (n,): m that no point of the arm moves farther than, a rad of each joint.
    Keeps scratch memory: use one instance a thread.
    """

    def __init__(self, station: Station, arm_name: str):
        arm = station.arms[arm_name]
        self._model, shapes = _arm_alone(robot_description(station), arm.joints)
        self._data = self._model.createData()
        self._frame = self._model.getFrameId(arm.tcp_frame)
        joints = [self._model.getJointId(joint) for joint in arm.joints]
        self._order = np.array([self._model.joints[joint].idx_q for joint in joints])
        self.effort_limit = self._model.effortLimit[self._order]
        # A sphere, capsule, cylinder or box as its center, the half axes that it is the sum of, and a radius; the
        # radius of a cylinder counts only across its axis. A mesh as the corners of its convex hull.
        moving = [shape for shape in shapes.geometryObjects if shape.parentJoint > 0 and self._rises(shape.parentJoint)]
        parts = [(shape, *part) for shape in moving for part in _parts(shape.geometry)]
        self._links = [self._model.frames[shape.parentFrame].name for shape, *_ in parts]
        self._parent = np.array([shape.parentJoint for shape, *_ in parts])
        rotations = np.array([shape.placement.rotation for shape, *_ in parts])
        self._centers = np.array([shape.placement.act(center) for shape, center, *_ in parts])
        self._axes = np.einsum('sij,skj->ski', rotations, np.array([part[2] for part in parts]))
        self._radii = np.array([part[3] for part in parts])
        self._flat = np.array([part[4] for part in parts])
        self._cylinder_axes = rotations[:, :, 2]
        self._moving_joints = sorted({shape.parentJoint for shape in moving})
        self._rows = np.empty((self._model.njoints, 4))
        self.reach = self._joint_reach(joints)

    def at(self, q: Sequence[float]) -> Extent:
        """The extent at joint positions q (n,)."""
        full = np.empty(len(self._order))
        full[self._order] = q
        pin.forwardKinematics(self._model, self._data, full)
        rows = self._rows
        for joint in self._moving_joints:
            placement = self._data.oMi[joint]
            rows[joint, :3] = placement.rotation[2]
            rows[joint, 3] = placement.translation[2]
        tip = pin.updateFramePlacement(self._model, self._data, self._frame).translation.copy()
        down = rows[self._parent]
        z = down[:, :3]
        across = np.where(self._flat, np.sqrt(np.maximum(0.0, 1.0 - (self._cylinder_axes * z).sum(1) ** 2)), 1.0)
        lowest = (down[:, 3] + (self._centers * z).sum(1) - np.abs(np.matmul(self._axes, z[:, :, None])[:, :, 0]).sum(1)
                  - self._radii * across)
        index = int(lowest.argmin())
        return Extent(tip, float(lowest[index]), self._links[index])

    def tip_speed(self, q: Sequence[float], velocities: Sequence[float]) -> float:
        """Speed (m/s) of the tool center point at joint velocities (n,) rad/s."""
        full, speeds = np.empty(len(self._order)), np.empty(len(self._order))
        full[self._order], speeds[self._order] = q, velocities
        pin.forwardKinematics(self._model, self._data, full, speeds)
        frame = pin.getFrameVelocity(self._model, self._data, self._frame, pin.ReferenceFrame.LOCAL)
        return float(np.linalg.norm(frame.linear))

    def _rises(self, joint: int) -> bool:
        """Whether what hangs on this joint can get higher or lower: not where it only turns about the vertical."""
        if self._model.parents[joint] > 0:
            return True
        q = pin.neutral(self._model)
        jacobian = pin.computeJointJacobian(self._model, self._data, q, joint)
        axis = self._data.oMi[joint].rotation @ jacobian[3:, self._model.joints[joint].idx_v]
        return abs(axis[2]) < VERTICAL

    def _joint_reach(self, joints: list[int]) -> np.ndarray:
        sizes = np.linalg.norm(self._centers, axis=1) + np.linalg.norm(self._axes, axis=2).sum(1) + self._radii
        own = {joint: max(sizes[self._parent == joint], default=0.0) for joint in joints}
        tcp = self._model.frames[self._frame]
        own[tcp.parentJoint] = max(own[tcp.parentJoint], float(np.linalg.norm(tcp.placement.translation)))
        reach: dict[int, float] = {}
        for joint in sorted(joints, reverse=True):
            children = [child for child in reach if self._model.parents[child] == joint]
            reach[joint] = max([own[joint]] + [
                float(np.linalg.norm(self._model.jointPlacements[child].translation)) + reach[child]
                for child in children])
        return np.array([reach[joint] for joint in joints])


@lru_cache(maxsize=8)
def _arm_alone(urdf: str, joints: tuple[str, ...]) -> tuple[pin.Model, pin.GeometryModel]:
    """Model and collision shapes of a station in which only these joints move. Reading them takes 20 ms, and the
    guards of a station ask a dozen times: nobody may change them."""
    full = pin.buildModelFromXML(urdf)
    locked = [full.getJointId(name) for name in full.names[1:] if name not in joints]
    return pin.buildReducedModel(full, collision_geometry(full, urdf), locked, pin.neutral(full))


def _parts(shape) -> list[tuple[np.ndarray, np.ndarray, float, bool]]:
    """Center (3,) m, half axes (3, 3) m, radius m, and whether the radius counts only across the third axis."""
    center, point = np.zeros(3), np.zeros((3, 3))
    if isinstance(shape, coal.Sphere):
        return [(center, point, shape.radius, False)]
    if isinstance(shape, (coal.Capsule, coal.Cylinder)):
        half_axes = np.diag([0.0, 0.0, shape.halfLength])
        return [(center, half_axes, shape.radius, isinstance(shape, coal.Cylinder))]
    if isinstance(shape, coal.Box):
        return [(center, np.diag(np.asarray(shape.halfSide)), 0.0, False)]
    return [(corner, point, 0.0, False) for corner in np.array(shape.points())]
