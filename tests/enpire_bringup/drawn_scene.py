"""Images of the shipped task's object that are drawn here, so that the truth is known."""

from __future__ import annotations

import math

import cv2
import numpy as np

from enpire_bringup.camera_model import PinholeCamera
from enpire_bringup.station import load_station
from enpire_bringup.task import load_task

TASK = load_task('push_t')
ITEM = TASK.objects['t_block']
STATION = load_station('yam_bimanual_sim')
RED, TABLE, ARM = (220, 18, 15), (120, 120, 118), (190, 188, 184)
SCALE = 4       # drawn this much larger, then the middles of the pixels are taken: no edge is moved

# What hides a part of it, in the object's frame, m
HANDLE = [(-0.014, -0.014), (0.014, -0.014), (0.014, 0.014), (-0.014, 0.014)]
BAR = [(-0.09, 0.0), (0.09, 0.0), (0.09, 0.06), (-0.09, 0.06)]
STEM = [(-0.03, -0.11), (0.03, -0.11), (0.03, 0.0125), (-0.03, 0.0125)]


def camera(width=640, height=480) -> PinholeCamera:
    return PinholeCamera.from_station(STATION.with_camera_size(width, height).cameras[ITEM.camera])


def landmark_shapes() -> list[tuple[np.ndarray, tuple[int, int, int]]]:
    """(polygon (n, 2) on the table, color) of the task's landmarks: white squares, black dots."""
    turns = np.linspace(0, 2 * math.pi, 32, endpoint=False)
    dot = TASK.landmarks.diameter / 2 * np.column_stack([np.cos(turns), np.sin(turns)])
    square = TASK.landmarks.diameter * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
    return [(shape + center, color) for center in TASK.landmarks.positions
            for shape, color in ((square, (240, 240, 240)), (dot, (8, 8, 8)))]


def polygon_pixels(view, points, height) -> np.ndarray:
    pixels = view.project(np.column_stack([points, np.full(len(points), height)]))
    return np.round((pixels + 0.5) * SCALE * 16).astype(np.int32)


def placed(points, pose) -> np.ndarray:
    x, y, yaw = pose
    rotation = np.array([[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]])
    return np.asarray(points) @ rotation.T + (x, y)


def drawn(view, pose, occluders=(), table=TABLE, extra=(), landmarks=()) -> np.ndarray:
    """An image of the T at `pose`; occluders: polygons in the T's frame; extra: (polygon in world, color) at the
    height of its face; landmarks: the same on the table.
    """
    large = np.full((view.height * SCALE, view.width * SCALE, 3), table, np.uint8)
    for points, color in landmarks:
        cv2.fillPoly(large, [polygon_pixels(view, points, 0.0)], color, shift=4)
    shapes = [(placed(ITEM.outline, pose), RED)] if pose is not None else []
    shapes += [(placed(shape, pose), ARM) for shape in occluders] + list(extra)
    for points, color in shapes:
        cv2.fillPoly(large, [polygon_pixels(view, points, ITEM.face_height)], color, shift=4)
    return np.ascontiguousarray(large[SCALE // 2::SCALE, SCALE // 2::SCALE])


def errors(found, pose) -> tuple[float, float]:
    """m, rad"""
    return (math.hypot(found.pose[0] - pose[0], found.pose[1] - pose[1]),
            abs(math.remainder(found.pose[2] - pose[2], 2 * math.pi)))
