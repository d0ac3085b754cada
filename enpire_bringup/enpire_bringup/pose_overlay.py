"""What perception saw, drawn into the camera's image: outline, axes, goal, landmarks and lines of text."""

from __future__ import annotations

import math
from typing import Sequence

import cv2
import numpy as np

from enpire_bringup.arm_task import Goal, TaskObject
from enpire_bringup.object_tracking import Look
from enpire_bringup.planar_pose import PlanarPose

_SEEN, _NOT_SEEN, _GOAL = (255, 255, 0), (255, 140, 0), (0, 110, 0)     # RGB
_LANDMARK = (0, 255, 0)
_AXES = ((255, 0, 255), (0, 200, 255))
_AXIS_LENGTH = 0.05     # m
_SHIFT = 4              # fractional bits of OpenCV's coordinates
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_LEAST_TEXT = 0.35      # of the font's own size: smaller cannot be read
_TEXT_MARGIN = 6        # pixels


def draw_look(image: np.ndarray, look: Look, items: Sequence[TaskObject], goal: Goal | None) -> np.ndarray:
    """A copy of the RGB image (h, w, 3) uint8 with the landmarks and poses found, and the goal's outline."""
    drawn = image.copy()
    lines = []
    for item in items:
        found = look.poses[item.name]
        lines.append(_describe(item, found))
        if look.camera is None:
            continue
        if goal is not None and goal.object == item.name:
            _outline(drawn, look.camera, item, (goal.x, goal.y, goal.yaw), _GOAL)
        if np.all(np.isfinite(found.pose)):
            _pose(drawn, look.camera, item, found)
    if look.landmarks is not None:
        for u, v in np.round(look.landmarks).astype(int).tolist():
            cv2.drawMarker(drawn, (u, v), _LANDMARK, cv2.MARKER_CROSS, 9, 1)
        lines.append(look.problem or f'{len(look.landmarks)} landmarks')
    size = max(_LEAST_TEXT, image.shape[1] / 1500)
    rows = [row for line in lines for row in wrapped(line, size, image.shape[1] - 2 * _TEXT_MARGIN)]
    for number, row in enumerate(reversed(rows)):
        _text(drawn, row, number, size)
    return drawn


def wrapped(text: str, size: float, width: int) -> list[str]:
    """The text in rows that are at most `width` pixels wide at this font size; a word alone may be wider."""
    rows: list[str] = []
    for word in text.split():
        longer = f'{rows[-1]} {word}' if rows else word
        if rows and cv2.getTextSize(longer, _FONT, size, 1)[0][0] <= width:
            rows[-1] = longer
        else:
            rows.append(word)
    return rows


def _pose(image, camera, item, found) -> None:
    _outline(image, camera, item, found.pose, _SEEN if found.visible else _NOT_SEEN)
    x, y, yaw = found.pose
    ends = [(x, y)] + [(x + _AXIS_LENGTH * math.cos(yaw + turn), y + _AXIS_LENGTH * math.sin(yaw + turn))
                       for turn in (0, math.pi / 2)]
    pixels = _pixels(camera, ends, item.face_height)
    if pixels is not None:
        for end, color in zip(pixels[1:], _AXES):
            cv2.line(image, pixels[0], end, color, 2, cv2.LINE_AA, _SHIFT)


def _describe(item: TaskObject, found: PlanarPose) -> str:
    if not found.visible:
        state = 'occluded' if found.occluded else 'not visible'
        return f'{item.name}: {state}: {found.reason}'
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


def _text(image, text, row, size) -> None:
    """`row` 0 is the lowest."""
    place = (_TEXT_MARGIN, image.shape[0] - 8 - round(36 * size) * row)
    cv2.putText(image, text, place, _FONT, size, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.putText(image, text, place, _FONT, size, (255, 255, 255), 1, cv2.LINE_AA)
