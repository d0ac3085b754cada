"""Where a camera really stands, from landmarks printed on the table. No ROS.

A camera is never exactly where the station file says: a mount gives way, a calibration is a few millimeters off, and
at half a meter 0.5 degrees are 4 mm on the table. Landmarks are black dots, each in the middle of a white square
twice as wide, at known places on the table. Each image corrects the camera's pose for itself, by a Gauss-Newton fit
of the dots' reprojection with the calibrated pose as prior; so what is found does not depend on the images before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

from enpire_bringup.arm_task import Landmarks
from enpire_bringup.camera_model import PinholeCamera

# How far a mounted and calibrated camera may be off: standard deviations, and what is refused.
PRIOR_DEVIATION = (0.005, math.radians(0.5))     # m and rad an axis
LARGEST_CORRECTION = (0.015, math.radians(1.5))  # m, rad
PIXEL_DEVIATION = 0.25      # of a dot's center, pixels
OUTLIER = 1.5               # pixels; a dot that is farther off is something else, or partly hidden
MIN_SEEN = 3                # dots; fewer cannot confirm each other
MIN_CONTRAST = 40           # gray levels between dot and square
AREA_TOLERANCE = (0.6, 1.5)  # of the area that the dot should have
MIN_PIXELS = 12             # of a dot; smaller ones cannot be told from noise


@dataclass(frozen=True)
class RefinedCamera:
    """camera: with the corrected pose. covariance (6, 6) of it: translation (m), rotation about its center (rad), along
    the axes of the camera's parent frame. seen (n, 2): pixels of the dots that were used, of `count` in the task.
    problem: why the correction failed and `camera` is the calibrated one; empty when it did not.
    """

    camera: PinholeCamera
    covariance: np.ndarray
    seen: np.ndarray
    count: int
    problem: str = ''


class ExtrinsicRefinement:
    """Corrects the pose of one camera.

    What it finds in an image does not depend on the images before; but where the pixels around a dot are what they were,
    bit by bit, it does not look for the dot again.
    """

    def __init__(self, landmarks: Landmarks):
        self._radius = landmarks.diameter / 2
        self._points = np.column_stack([landmarks.positions, np.zeros(len(landmarks.positions))])
        self._camera: PinholeCamera | None = None
        self._windows: list[tuple[tuple[int, int, int, int], float] | None] = []
        self._shifts = np.empty((0, 2))
        self._pictures: list[bytes] = []        # of the windows when they were last looked into
        self._pixels = np.empty((0, 2))         # of the dots in these pictures
        self._refined: RefinedCamera | None = None      # by these pixels

    def refine(self, image: np.ndarray, camera: PinholeCamera) -> RefinedCamera:
        """Find the dots in an RGB image (h, w, 3) uint8 and correct `camera`, whose pose is the calibrated one."""
        if camera is not self._camera:
            self._camera, self._windows = camera, list(self._make_windows(camera))
            self._shifts = self._center_shifts(camera)
            self._pictures = [b''] * len(self._windows)
            self._pixels = np.full((len(self._windows), 2), np.nan)
            self._refined = None
        if self._find_dots(image) or self._refined is None:
            self._refined = self._fit_dots(camera, self._pixels - self._shifts)
        return self._refined

    def _find_dots(self, image: np.ndarray) -> bool:
        """Whether any dot is elsewhere than in the image before."""
        moved = False
        for index, window in enumerate(self._windows):
            if window is None:
                continue
            (left, top, right, bottom), area = window
            crop = image[top:bottom, left:right]
            picture = crop.tobytes()
            if picture == self._pictures[index]:
                continue
            self._pictures[index] = picture
            u, v = _find_dot(crop, area)
            found = left + u, top + v
            moved = moved or not np.array_equal(found, self._pixels[index], equal_nan=True)
            self._pixels[index] = found
        return moved

    def _fit_dots(self, camera: PinholeCamera, pixels: np.ndarray) -> RefinedCamera:
        """`camera` with the pose that pixels (n, 2), NaN where a dot was not found, give it."""
        used = np.isfinite(pixels[:, 0])
        while True:
            if used.sum() < MIN_SEEN:
                return self._unrefined(camera, f'only {used.sum()} of {len(used)} landmarks are seen')
            refined, covariance = _fit(camera, self._points[used], pixels[used])
            error = np.linalg.norm(refined.project(self._points) - pixels, axis=1)
            error[~used] = 0.0
            if error.max() <= OUTLIER:
                break
            used[error.argmax()] = False
        shift = float(np.linalg.norm(refined.pose[:3, 3] - camera.pose[:3, 3]))
        turn = _angle(refined.pose[:3, :3] @ camera.pose[:3, :3].T)
        if shift > LARGEST_CORRECTION[0] or turn > LARGEST_CORRECTION[1]:
            return self._unrefined(camera, f'the landmarks say that the camera stands {1e3 * shift:.0f} mm and '
                                           f'{math.degrees(turn):.1f} deg from its calibrated pose; calibrate it anew')
        return RefinedCamera(refined, covariance, pixels[used], len(used))

    def _unrefined(self, camera: PinholeCamera, problem: str) -> RefinedCamera:
        return RefinedCamera(camera, np.linalg.inv(_PRIOR), np.empty((0, 2)), len(self._points), problem)

    def _center_shifts(self, camera: PinholeCamera) -> np.ndarray:
        """By how many pixels (n, 2) the middle of a dot's picture lies beside the picture of its middle."""
        angles = np.arange(32) * (2 * math.pi / 32)
        rim = self._radius * np.column_stack([np.cos(angles), np.sin(angles), np.zeros(32)])
        shifts = np.zeros((len(self._points), 2))
        for index, point in enumerate(self._points):
            center, *outline = camera.project(np.vstack([point, point + rim]))
            if self._windows[index]:
                moments = cv2.moments((np.array(outline) - center).astype(np.float32))
                shifts[index] = moments['m10'] / moments['m00'], moments['m01'] / moments['m00']
        return shifts

    def _make_windows(self, camera: PinholeCamera):
        """For each dot: (left, top, right, bottom) in which it may be, area in pixels; None when not in the image."""
        offsets = self._radius * np.array([(0, 0), (1, 0), (0, 1)])
        corners = (self._points[:, None, :2] + offsets).reshape(-1, 2)
        pixels = camera.project(np.column_stack([corners, np.zeros(len(corners))])).reshape(-1, 3, 2)
        distance = np.linalg.norm(self._points - camera.pose[:3, 3], axis=1)
        for (center, a, b), away in zip(pixels, distance):
            if not np.all(np.isfinite([center, a, b])):
                yield None
                continue
            (ax, ay), (bx, by) = a - center, b - center
            area = math.pi * abs(ax * by - ay * bx)
            # A window has room for the white square's half and for the largest correction.
            radius = camera.fx * self._radius / away
            reach = 1.5 * radius + camera.fx * (LARGEST_CORRECTION[0] / 2 / away + LARGEST_CORRECTION[1] / 2)
            left, top = np.floor(center - reach).astype(int)
            right, bottom = np.ceil(center + reach).astype(int) + 1
            inside = left >= 0 and top >= 0 and right <= camera.width and bottom <= camera.height
            yield ((int(left), int(top), int(right), int(bottom)), area) if inside and area >= MIN_PIXELS else None


def _find_dot(picture: np.ndarray, area: float) -> tuple[float, float]:
    """Center (u, v) of the black dot of `area` pixels in an RGB picture; NaN when nothing there looks like one."""
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    low, high, _, _ = cv2.minMaxLoc(cv2.blur(gray, (3, 3)))
    if high - low < MIN_CONTRAST:
        return math.nan, math.nan
    # Nearer to the dot than to the square: whatever gray the table has, it lies outside of the square.
    _, dark = cv2.threshold(gray, low + 0.35 * (high - low), 255, cv2.THRESH_BINARY_INV)
    _, _, stats, _ = cv2.connectedComponentsWithStats(dark, connectivity=4)
    height, width = gray.shape
    for x, y, w, h, pixels in stats[1:].tolist():
        if not AREA_TOLERANCE[0] * area < pixels < AREA_TOLERANCE[1] * area:
            continue
        # The square shows around it as wide as the dot's radius, but for a pixel that the dot's edge takes.
        margin = 2 if min(w, h) >= 8 else 1
        if x < margin or y < margin or x + w > width - margin or y + h > height - margin:
            continue
        fill = pixels / (w * h)         # pi / 4 for an ellipse along the axes, less for one across them
        if not 0.5 < fill < 0.95:
            continue
        around = gray[y - margin:y + h + margin, x - margin:x + w + margin]
        rim = min(around[0].min(), around[-1].min(), around[:, 0].min(), around[:, -1].min())
        if rim < low + 0.65 * (high - low):
            continue                    # no white square around it
        # subtract saturates at 0, so what is brighter than the square's mean does not count
        moments = cv2.moments(cv2.subtract(high, around))
        u, v = moments['m10'] / moments['m00'], moments['m01'] / moments['m00']
        return x - margin + u, y - margin + v
    return math.nan, math.nan


_PRIOR = np.diag([PRIOR_DEVIATION[0] ** -2] * 3 + [PRIOR_DEVIATION[1] ** -2] * 3)


def _fit(camera: PinholeCamera, points: np.ndarray, pixels: np.ndarray) -> tuple[PinholeCamera, np.ndarray]:
    """The camera at the pose that explains pixels (n, 2) of points (n, 3) best, and the covariance (6, 6)."""
    total = np.zeros(6)         # translation m, rotation vector rad: from the calibrated pose
    moved = camera
    for _ in range(3):
        rotation = moved.pose[:3, :3]
        rays = points - moved.pose[:3, 3]
        x, y, z = (rays @ rotation).T      # in the camera's frame
        error = pixels - np.column_stack([moved.fx * x / z + moved.cx, moved.fy * y / z + moved.cy])
        # d(x, y, z) = -R^T (translation + rotation x ray)
        zero = np.zeros(len(rays))
        cross = np.array([[zero, rays[:, 2], -rays[:, 1]], [-rays[:, 2], zero, rays[:, 0]],
                          [rays[:, 1], -rays[:, 0], zero]]).transpose(2, 0, 1)      # of rotation x ray
        motion = -rotation.T @ np.concatenate([np.broadcast_to(np.eye(3), cross.shape), cross], axis=2)
        jacobian = np.stack([moved.fx * (motion[:, 0] - (x / z)[:, None] * motion[:, 2]) / z[:, None],
                             moved.fy * (motion[:, 1] - (y / z)[:, None] * motion[:, 2]) / z[:, None]], axis=1)
        jacobian = jacobian.reshape(-1, 6) / PIXEL_DEVIATION
        information = jacobian.T @ jacobian + _PRIOR
        total = total + np.linalg.solve(information, jacobian.T @ error.ravel() / PIXEL_DEVIATION - _PRIOR @ total)
        pose = camera.pose.copy()
        pose[:3, :3] = cv2.Rodrigues(total[3:])[0] @ camera.pose[:3, :3]
        pose[:3, 3] += total[:3]
        moved = replace(camera, pose=pose)
    return moved, np.linalg.inv(information)


def _angle(rotation: np.ndarray) -> float:
    """Of a rotation matrix, rad."""
    return math.acos(min(1.0, max(-1.0, (np.trace(rotation) - 1) / 2)))
