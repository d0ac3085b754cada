"""Forward and inverse kinematics of one arm, from the station's robot description.

Poses are 4x4 matrices of the tool centre point (TCP) in "world": m, and a rotation whose x axis points out of the
gripper and whose y axis is the direction in which the fingers close. Joint vectors are in the order of the station
file, rad.
"""

from __future__ import annotations

import math
from typing import Iterator, Sequence

import numpy as np
import pinocchio as pin

from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.robot_description import robot_description
from enpire_bringup.station import Arm, Station

POSITION_TOLERANCE = 2e-4      # m
ROTATION_TOLERANCE = 2e-3      # rad
MAX_ITERATIONS = 80
MAX_STEP = 0.4                 # rad, any joint, an iteration
DIFFERENT = 0.05               # rad, any joint, between two solutions of one pose
TURN_LENGTH = 0.1              # m that a turn of 1 rad counts as, where turns and moves are compared
LEAST_DAMPING = 1e-6           # of the solver for whole poses
DAMPING = 0.05                 # the same, a unit of squared error (m and rad)
STALLED = 12
SERVO_ITERATIONS = 3
SERVO_POSITION_DAMPING = 1e-3  # m/rad: keeps the servo calm beside a singularity
SERVO_ROTATION_DAMPING = 0.1   # rad/rad
SERVO_MAX_STEP = 0.1           # rad, any joint, an iteration: the arm bends little enough for a linear step
SERVO_MAX_ROTATION_STEP = 0.03


class UnreachableError(ValueError):
    """No joint position puts the tool where it was asked to be; the message names pose and residual."""


def pose_matrix(position: Sequence[float], quaternion: Sequence[float]) -> np.ndarray:
    """Pose (4, 4) from a position (3,) m and a quaternion (x, y, z, w) of any length but zero.

    Raises ValueError when a number is not finite or the quaternion is zero.
    """
    values = np.array([*position, *quaternion], float)
    norm = np.linalg.norm(values[3:])
    if not np.isfinite(values).all() or norm < 1e-6:
        raise ValueError(f'position {values[:3].tolist()} with quaternion {values[3:].tolist()} is no pose')
    x, y, z, w = values[3:] / norm
    pose = np.eye(4)
    pose[:3, :3] = pin.Quaternion(w, x, y, z).matrix()
    pose[:3, 3] = values[:3]
    return pose


def quaternion_of(pose: np.ndarray) -> tuple[float, float, float, float]:
    """(x, y, z, w) of the rotation of a pose (4, 4)."""
    # Not by pinocchio.Quaternion(matrix): each of those loses 80 bytes for good, a night's tf half a gigabyte.
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = pose[:3, :3].tolist()
    # The largest of the four, so that nothing is divided by a small number (Shepperd's method).
    squares = (1 + xx - yy - zz, 1 - xx + yy - zz, 1 - xx - yy + zz, 1 + xx + yy + zz)
    largest = squares.index(max(squares))
    four = (
        (squares[0], xy + yx, xz + zx, zy - yz),
        (xy + yx, squares[1], yz + zy, xz - zx),
        (xz + zx, yz + zy, squares[2], yx - xy),
        (zy - yz, xz - zx, yx - xy, squares[3]))[largest]
    norm = math.sqrt(sum(value * value for value in four))
    x, y, z, w = (value / norm for value in four)
    return x, y, z, w


def tool_down(x: float, y: float, z: float, yaw: float) -> np.ndarray:
    """TCP pose (4, 4) in "world" with the tool pointing straight down.

    x, y, z in m; yaw in rad turns the tool about the vertical, at 0 the fingers close along the world's y axis.
    """
    c, s = math.cos(yaw), math.sin(yaw)
    return np.array([[0.0, -s, c, x], [0.0, c, s, y], [-1.0, 0.0, 0.0, z], [0.0, 0.0, 0.0, 1.0]])


class ArmKinematics:
    """Kinematics of one arm of a station.

    Keeps scratch memory: use one instance a thread. Raises ConfigurationError when the robot description lacks a
    joint or the TCP frame that the station file names.
    """

    def __init__(self, station: Station, arm_name: str):
        arm = station.arms[arm_name]
        self.arm = arm
        full = pin.buildModelFromXML(robot_description(station))
        _check_names(full, station, arm)
        keep = set(arm.joints)
        locked = [full.getJointId(name) for name in full.names[1:] if name not in keep]
        self._model = pin.buildReducedModel(full, locked, pin.neutral(full))
        self._data = self._model.createData()
        self._frame = self._model.getFrameId(arm.tcp_frame)
        # The station file's order may differ from the URDF's.
        self._order = np.array([self._model.joints[self._model.getJointId(j)].idx_q for j in arm.joints])
        self.lower = self._model.lowerPositionLimit[self._order]
        self.upper = self._model.upperPositionLimit[self._order]

    @property
    def n(self) -> int:
        return len(self._order)

    def fk(self, q: Sequence[float]) -> np.ndarray:
        """Pose (4, 4) of the TCP in "world" at the joint positions q (n,)."""
        return np.asarray(self._placement(np.asarray(q, float)).homogeneous)

    def tip(self, q: Sequence[float]) -> np.ndarray:
        """Position (3,) of the TCP in "world"."""
        return self._placement(np.asarray(q, float)).translation.copy()

    def frame_pose(self, q: Sequence[float], frame: str) -> np.ndarray:
        """Pose (4, 4) in "world" of a frame of this arm at the joint positions q (n,), e.g. a camera's parent link.

        Raises ValueError for a frame that the robot description does not have.
        """
        if not self._model.existFrame(frame):
            raise ValueError(f"no frame '{frame}' in the robot description")
        self._placement(np.asarray(q, float))
        return np.asarray(pin.updateFramePlacement(self._model, self._data, self._model.getFrameId(frame)).homogeneous)

    def _placement(self, q: np.ndarray) -> pin.SE3:
        full = np.empty(self.n)
        full[self._order] = q
        pin.forwardKinematics(self._model, self._data, full)
        return pin.updateFramePlacement(self._model, self._data, self._frame)

    def _jacobian(self, q: np.ndarray, reference) -> np.ndarray:
        full = np.empty(self.n)
        full[self._order] = q
        jacobian = pin.computeFrameJacobian(self._model, self._data, full, self._frame, reference)
        return jacobian[:, self._order]

    def ik(self, pose: np.ndarray, seed: Sequence[float], *, margin: float = 0.0, restarts: int = 5) -> np.ndarray:
        """Joint positions (n,) that put the TCP at `pose` (4, 4), at least `margin` rad inside the joint limits.

        Tries `seed` first, so that the nearest solution is found where there are several. restarts: from how many
        random positions it is tried when all else failed; most of the time that an unreachable pose takes.
        Raises UnreachableError.
        """
        target = pin.SE3(np.asarray(pose, float))
        lower, upper = self.lower + margin, self.upper - margin
        best, best_residual = None, math.inf
        for start in self._seeds(pose, np.asarray(seed, float), restarts):
            q, residual = self._solve(target, np.clip(start, lower, upper), lower, upper)
            if residual is None:
                return q
            if residual[0] + 0.1 * residual[1] < best_residual:
                best, best_residual = residual, residual[0] + 0.1 * residual[1]
        x, y, z = target.translation
        tool = target.rotation[:, 0]
        raise UnreachableError(
            f'{self.arm.name}: pose x {x:.3f} y {y:.3f} z {z:.3f} m with the tool along ({tool[0]:.2f}, {tool[1]:.2f},'
            f' {tool[2]:.2f}) is out of reach: the nearest found is {best[0] * 1000:.1f} mm and '
            f'{math.degrees(best[1]):.1f} deg off')

    def solutions(self, pose: np.ndarray, seed: Sequence[float], *, margin: float = 0.0, restarts: int = 30
                  ) -> Iterator[np.ndarray]:
        """All different joint positions (n,) for a TCP pose (4, 4) that can be found, as `ik` finds the first.

        Ends without any when the pose is out of reach.
        """
        target = pin.SE3(np.asarray(pose, float))
        lower, upper = self.lower + margin, self.upper - margin
        found: list[np.ndarray] = []
        for start in self._seeds(pose, np.asarray(seed, float), restarts):
            q, residual = self._solve(target, np.clip(start, lower, upper), lower, upper)
            if residual is None and all(np.abs(q - other).max() > DIFFERENT for other in found):
                found.append(q)
                yield q

    def least_motion(self, q: Sequence[float]) -> float:
        """How far the tool moves at least for a unit of joint motion, in the direction in which it moves least.

        m/rad, a turn of 1 rad counting as TURN_LENGTH m; 0 at a singularity.
        """
        jacobian = self._jacobian(np.asarray(q, float), pin.LOCAL_WORLD_ALIGNED)
        jacobian[3:] *= TURN_LENGTH
        return float(np.linalg.svd(jacobian, compute_uv=False)[-1])

    def _seeds(self, pose: np.ndarray, seed: np.ndarray, restarts: int):
        yield seed
        home = np.asarray(self.arm.named['home'], float)
        toward = home.copy()
        base = np.asarray(self.arm.base_xyz)
        toward[0] = math.atan2(pose[1, 3] - base[1], pose[0, 3] - base[0]) - self.arm.base_rpy[2]
        yield toward
        yield home
        rng = np.random.default_rng(0)
        for _ in range(restarts):
            yield rng.uniform(self.lower, self.upper)

    def _solve(self, target: pin.SE3, q: np.ndarray, lower: np.ndarray, upper: np.ndarray):
        """Damped Gauss-Newton with an active set at the joint limits: (q, None) or (q, residual (m, rad)).

        Gives up after STALLED steps that did not halve the squared error.
        """
        best, best_at = math.inf, 0
        for iteration in range(MAX_ITERATIONS):
            placement = self._placement(q)
            difference = placement.actInv(target)
            error = pin.log6(difference).vector
            distance = float(np.linalg.norm(placement.translation - target.translation))
            angle = float(np.linalg.norm(pin.log3(difference.rotation)))
            if distance < POSITION_TOLERANCE and angle < ROTATION_TOLERANCE:
                return q, None
            squared = float(error @ error)
            if squared < 0.5 * best:
                best, best_at = squared, iteration
            elif iteration - best_at > STALLED:
                break
            jacobian = pin.Jlog6(difference.inverse()) @ self._jacobian(q, pin.LOCAL)
            # Without error no damping: near a singularity that is what ends at the pose and not beside it.
            step = _limited_step(jacobian, error, q, lower, upper, LEAST_DAMPING + DAMPING * min(1.0, squared))
            largest = np.abs(step).max()
            if largest < 1e-7:
                break
            q = np.clip(q + step * min(1.0, MAX_STEP / largest), lower, upper)
        return q, (distance, angle)

    def servo_ik(self, pose: np.ndarray, q: Sequence[float], lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
        """Joint positions (n,) near q (n,) that bring the TCP to `pose` (4, 4): a few steps, well below 1 ms.

        The position comes first; the orientation takes what freedom is left. So at the edge of reach the tool tilts
        and the tip stays on its target. Joints stay within lower and upper (n,).
        """
        q = np.clip(np.asarray(q, float), lower, upper)
        target = np.asarray(pose, float)
        for _ in range(SERVO_ITERATIONS):
            placement = self._placement(q)
            position_error = target[:3, 3] - placement.translation
            rotation_error = placement.rotation @ pin.log3(placement.rotation.T @ target[:3, :3])
            if np.abs(position_error).max() < POSITION_TOLERANCE and np.abs(rotation_error).max() < ROTATION_TOLERANCE:
                break
            jacobian = self._jacobian(q, pin.LOCAL_WORLD_ALIGNED)
            for _ in range(3):
                step = _prioritized_step(jacobian, position_error, rotation_error)
                blocked = ((q <= lower) & (step < -1e-9)) | ((q >= upper) & (step > 1e-9))
                if not blocked.any():
                    break
                jacobian[:, blocked] = 0.0
            q = np.clip(q + step, lower, upper)
        return q


def _limited_step(jacobian, error, q, lower, upper, damping) -> np.ndarray:
    """Least-squares step for jacobian @ step = error that does not push against a joint limit."""
    free = np.ones(len(q), bool)
    for _ in range(3):
        columns = jacobian[:, free]
        step = np.zeros(len(q))
        step[free] = np.linalg.solve(columns.T @ columns + damping * np.eye(columns.shape[1]), columns.T @ error)
        blocked = free & (((q <= lower + 1e-9) & (step < 0)) | ((q >= upper - 1e-9) & (step > 0)))
        if not blocked.any():
            break
        free &= ~blocked
        if not free.any():
            return np.zeros(len(q))
    return step


def _prioritized_step(jacobian, position_error, rotation_error) -> np.ndarray:
    """Step (n,) that serves the position and, in the null space of that, the rotation."""
    position, rotation = jacobian[:3], jacobian[3:]
    inverse = position.T @ np.linalg.inv(position @ position.T + SERVO_POSITION_DAMPING**2 * np.eye(3))
    step = inverse @ position_error
    free = rotation - (rotation @ inverse) @ position     # rotation @ (I - inverse @ position)
    remaining = rotation_error - rotation @ step
    gain = free.T @ np.linalg.inv(free @ free.T + SERVO_ROTATION_DAMPING**2 * np.eye(3))
    secondary = _shortened(gain @ remaining, SERVO_MAX_ROTATION_STEP)
    # What the damping of the first task leaks into the position is taken out again.
    return _shortened(step + secondary - inverse @ (position @ secondary), SERVO_MAX_STEP)


def _shortened(step: np.ndarray, limit: float) -> np.ndarray:
    largest = np.abs(step).max()
    return step * (limit / largest) if largest > limit else step


def _check_names(model: pin.Model, station: Station, arm: Arm) -> None:
    joints = list(model.names)[1:]
    for joint in arm.joints:
        if joint not in joints:
            raise ConfigurationError(
                f"{station.file}: arms.{arm.name}.joints names '{joint}', which {station.robot_description} does not "
                f'have; it has {", ".join(joints)}')
    if not model.existFrame(arm.tcp_frame):
        raise ConfigurationError(f"{station.file}: arms.{arm.name}.tcp_frame is '{arm.tcp_frame}', no frame of "
                                 f'{station.robot_description}')
