"""What perception saw, drawn into the camera's image: outline, axes, goal and a line of text."""

from __future__ import annotations

import math

import cv2
import numpy as np

from enpire_bringup.camera_model import PinholeCamera
from enpire_bringup.planar_pose import PlanarPose
from enpire_bringup.task import Goal, TaskObject

_SEEN, _NOT_SEEN, _GOAL = (255, 255, 0), (255, 140, 0), (0, 110, 0)     # RGB
_AXES = ((255, 0, 255), (0, 200, 255))
_AXIS_LENGTH = 0.05     # m
_SHIFT = 4              # fractional bits of OpenCV's coordinates


def draw_pose(image: np.ndarray, camera: PinholeCamera, item: TaskObject, found: PlanarPose,
              goal: Goal | None) -> np.ndarray:
    """A copy of the RGB image (h, w, 3) uint8 with the pose found and the goal's outline, at face height."""
    drawn = image.copy()
    if goal is not None and goal.object == item.name:
        _outline(drawn, camera, item, (goal.x, goal.y, goal.yaw), _GOAL)
    if np.all(np.isfinite(found.pose)):
        _outline(drawn, camera, item, found.pose, _SEEN if found.visible else _NOT_SEEN)
        x, y, yaw = found.pose
        ends = [(x, y)] + [(x + _AXIS_LENGTH * math.cos(yaw + turn), y + _AXIS_LENGTH * math.sin(yaw + turn))
                           for turn in (0, math.pi / 2)]
        pixels = _pixels(camera, ends, item.face_height)
        if pixels is not None:
            for end, color in zip(pixels[1:], _AXES):
                cv2.line(drawn, pixels[0], end, color, 2, cv2.LINE_AA, _SHIFT)
    _text(drawn, _describe(item, found))
    return drawn


def _describe(item: TaskObject, found: PlanarPose) -> str:
    if not found.visible:
        return f'{item.name}: {found.reason or "not visible"}'
    x, y, yaw = found.pose
    return (f'{item.name}: x {1e3 * x:.1f} y {1e3 * y:.1f} mm, yaw {math.degrees(yaw):.1f} deg, '
            f'rms {1e3 * found.residual:.1f} mm, seen {100 * found.visible_fraction:.0f} %')


def _outline(image, camera, item, pose, color) -> None:
    x, y, yaw = pose
    rotation = np.array([[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]])
    pixels = _pixels(camera, np.asarray(item.outline) @ rotation.T + (x, y), item.face_height)
    if pixels is not None:
        cv2.polylines(image, [pixels], True, color, 1, cv2.LINE_AA, _SHIFT)


def _pixels(camera, points, height) -> np.ndarray | None:
    """Fixed-point pixels (n, 2) of points (n, 2) in m, or None when one is behind the camera or far off."""
    points = np.asarray(points)
    pixels = camera.project(np.column_stack([points, np.full(len(points), height)]))
    if not np.all(np.abs(pixels) < 1e5):
        return None
    return np.round(pixels * (1 << _SHIFT)).astype(np.int32)


def _text(image, text) -> None:
    size = max(0.35, image.shape[1] / 1500)
    place = (6, image.shape[0] - 8)
    cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, (255, 255, 255), 1, cv2.LINE_AA)
