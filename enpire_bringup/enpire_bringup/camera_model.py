"""Pinhole cameras: where a camera of the station file stands, and what it sees where. No ROS, no renderer."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.station import Camera


def optical_pose(camera: Camera) -> np.ndarray:
    """Pose (4, 4) of the camera's optical frame (x right, y down, z forward) in the frame `camera.parent`.

    Raises ConfigurationError when position, look_at and up do not span a view.
    """
    position, look_at, up = (np.asarray(v, float) for v in (camera.position, camera.look_at, camera.up))
    forward = look_at - position
    right = np.cross(forward, up)
    if np.linalg.norm(forward) < 1e-6 or np.linalg.norm(right) < 1e-6 * np.linalg.norm(forward):
        raise ConfigurationError(
            f'camera {camera.name}: look_at {list(camera.look_at)} must differ from position '
            f'{list(camera.position)}, and up {list(camera.up)} must not point along the view')
    forward /= np.linalg.norm(forward)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.column_stack([right, np.cross(forward, right), forward])
    pose[:3, 3] = position
    return pose


@dataclass(frozen=True)
class PinholeCamera:
    """An ideal camera. Pixels (u, v) grow to the right and down; the top left pixel's center is (0, 0).

    fx, fy, cx, cy in pixels; pose (4, 4): optical frame (x right, y down, z forward) in a parent frame, which
    is the frame of all points below.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    pose: np.ndarray

    @classmethod
    def from_station(cls, camera: Camera) -> 'PinholeCamera':
        """The camera of a station file; `pose` is in the frame `camera.parent`. Square pixels."""
        focal = camera.height / (2.0 * math.tan(camera.vertical_fov / 2.0))
        return cls(camera.width, camera.height, focal, focal,
                   (camera.width - 1) / 2.0, (camera.height - 1) / 2.0, optical_pose(camera))

    @classmethod
    def from_info(cls, width: int, height: int, k, pose: np.ndarray) -> 'PinholeCamera':
        """From the fields of a sensor_msgs/CameraInfo (k: 9 numbers, row by row) and a pose (4, 4)."""
        k = np.asarray(k, float).reshape(3, 3)
        if not (np.all(np.isfinite(k)) and k[0, 0] > 0 and k[1, 1] > 0):
            raise ValueError(f'camera_info: k is {k.ravel().tolist()}; the camera is not calibrated')
        return cls(int(width), int(height), k[0, 0], k[1, 1], k[0, 2], k[1, 2], np.asarray(pose, float))

    def at(self, parent_pose: np.ndarray) -> 'PinholeCamera':
        """The same camera expressed in the frame in which `parent_pose` (4, 4) is given."""
        return PinholeCamera(self.width, self.height, self.fx, self.fy, self.cx, self.cy,
                             np.asarray(parent_pose, float) @ self.pose)

    def info(self) -> dict:
        """The fields of a sensor_msgs/CameraInfo without its header: an undistorted camera."""
        return {
            'width': self.width, 'height': self.height, 'distortion_model': 'plumb_bob', 'd': [0.0] * 5,
            'k': [self.fx, 0.0, self.cx, 0.0, self.fy, self.cy, 0.0, 0.0, 1.0],
            'r': [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
            'p': [self.fx, 0.0, self.cx, 0.0, 0.0, self.fy, self.cy, 0.0, 0.0, 0.0, 1.0, 0.0],
        }

    def project(self, points) -> np.ndarray:
        """Pixels (n, 2) of points (n, 3) in m. Points behind the camera give NaN."""
        points = np.asarray(points, float).reshape(-1, 3)
        local = (points - self.pose[:3, 3]) @ self.pose[:3, :3]
        depth = np.where(local[:, 2] > 1e-9, local[:, 2], np.nan)
        return np.column_stack([self.fx * local[:, 0] / depth + self.cx,
                                self.fy * local[:, 1] / depth + self.cy])

    def back_project_to_plane(self, pixels, z: float) -> np.ndarray:
        """Points (n, 2) x, y in m where the rays of pixels (n, 2) meet the plane at height `z` (m).

        A ray that does not meet the plane in front of the camera gives NaN.
        """
        pixels = np.asarray(pixels, float).reshape(-1, 2)
        rays = np.column_stack([(pixels[:, 0] - self.cx) / self.fx, (pixels[:, 1] - self.cy) / self.fy,
                                np.ones(len(pixels))]) @ self.pose[:3, :3].T
        with np.errstate(divide='ignore', invalid='ignore'):
            distance = (z - self.pose[2, 3]) / rays[:, 2]
        distance = np.where(np.isfinite(distance) & (distance > 0), distance, np.nan)
        return self.pose[:2, 3] + distance[:, None] * rays[:, :2]

    def pixel_width_on_plane(self, pixel, z: float) -> float | None:
        """Meters that the pixel (u, v) is wide on the plane at height `z` (m): the root of its area there.

        None where its ray does not meet the plane in front of the camera.
        """
        right, down, forward = self.pose[2, :3].tolist()
        slope = (pixel[0] - self.cx) / self.fx * right + (pixel[1] - self.cy) / self.fy * down + forward
        distance = z - float(self.pose[2, 3])
        if slope == 0 or not 0 < distance / slope < math.inf:
            return None
        return abs(distance) / math.sqrt(abs(slope) ** 3 * self.fx * self.fy)

    def plane_shifts(self, points) -> np.ndarray:
        """How points (n, 3), back-projected to planes at their own heights, move with the camera: (n, 2, 6).

        x, y (m) a unit of the camera's motion: translation (m), then rotation about its center (rad), both
        along the axes of the parent frame.
        """
        rays = np.asarray(points, float).reshape(-1, 3) - self.pose[:3, 3]
        x, y, z = rays.T
        zero, one = np.zeros(len(rays)), np.ones(len(rays))
        # The ray's end moves by translation + rotation x ray, and then along the ray back to its plane.
        motion = np.array([[one, zero, zero, zero, z, -y],
                           [zero, one, zero, -z, zero, x],
                           [zero, zero, one, y, -x, zero]]).transpose(2, 0, 1)
        return motion[:, :2] - (rays[:, :2] / z[:, None])[:, :, None] * motion[:, 2:3]
