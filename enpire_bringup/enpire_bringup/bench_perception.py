"""How well an object's pose is estimated: rendered images against the truth of the simulated world."""

from __future__ import annotations

import math
import time

import cv2
import numpy as np

from enpire_bringup.camera_model import PinholeCamera
from enpire_bringup.planar_pose import PlanarPoseEstimator, color_mask
from enpire_bringup.station import Station
from enpire_bringup.task import Task
from enpire_bringup.world import Renderer, World

WRONG_POSITION = 0.005              # m; a trusted pose that is off by more is a wrong one
WRONG_YAW = math.radians(3)
_OCCLUDER = (190, 188, 184)         # RGB, about the arm's color


def run(station: Station, task: Task, poses: int = 500, seed: int = 0) -> dict:
    """Errors over random poses of the start object in the region of the task's actions.

    `position_mm`, `yaw_deg`, `compute_ms`: percentiles over plain views, the arms at home and out of the
    picture of the object. `occluded`: the same images with a random rectangle painted over a part of the
    object: how many were flagged as not visible, how many of the trusted poses are wrong (by more than 5 mm
    or 3 degrees), and how many views of which at most 30 % is hidden were trusted all the same.
    """
    item = task.objects[task.start.object]
    world, renderer = World(station, task), Renderer(station, task)
    camera = PinholeCamera.from_station(station.cameras[item.camera])
    estimator = PlanarPoseEstimator(item)
    rng = np.random.default_rng(seed)
    errors, compute, unseen = [], [], 0
    occluded = {'views': 0, 'flagged': 0, 'trusted': 0, 'trusted_wrong': 0, 'slightly_hidden': 0,
                'slightly_hidden_trusted': 0}
    try:
        for _ in range(poses):
            truth = _draw_pose(rng, task)
            world.set_object_pose(item.name, *truth)
            image = renderer.render(item.camera, world.state())
            plain = _face_mask(camera, item, truth)
            if _share_seen(image, plain, item) < 0.85:
                unseen += 1         # the arm at home stands in the way: not a plain view
                continue
            started = time.perf_counter()
            found = estimator.estimate(image, camera)
            compute.append(time.perf_counter() - started)
            errors.append(_error(found, truth) if found.visible else (math.inf, math.inf))
            _count_occluded(occluded, estimator, camera, image, plain, truth, rng)
    finally:
        renderer.close()
    position, yaw = np.array(errors).T
    return {
        'poses': len(errors), 'hidden_by_arm': unseen, 'camera': item.camera,
        'image': f'{camera.width}x{camera.height}', 'not_visible': int(np.isinf(position).sum()),
        'position_mm': _percentiles(1e3 * position), 'yaw_deg': _percentiles(np.degrees(yaw)),
        'compute_ms': _percentiles(1e3 * np.array(compute)),
        'occluded_flagged': occluded['flagged'], 'occluded': occluded,
    }


def _draw_pose(rng, task: Task) -> tuple[float, float, float]:
    low, high = task.action.low, task.action.high
    margin = 0.05
    return (rng.uniform(low[0] + margin, high[0] - margin), rng.uniform(low[1] + margin, high[1] - margin),
            rng.uniform(-math.pi, math.pi))


def _face_mask(camera: PinholeCamera, item, pose) -> np.ndarray:
    """Pixels (h, w) uint8 of the object's face, were nothing in front of it."""
    x, y, yaw = pose
    rotation = np.array([[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]])
    corners = np.asarray(item.outline) @ rotation.T + (x, y)
    pixels = camera.project(np.column_stack([corners, np.full(len(corners), item.face_height)]))
    mask = np.zeros((camera.height, camera.width), np.uint8)
    cv2.fillPoly(mask, [np.round(pixels * 16).astype(np.int32)], 255, shift=4)
    return mask


def _share_seen(image, face, item) -> float:
    # fillPoly paints the rim, too.
    face = cv2.erode(face, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))
    seen = cv2.bitwise_and(color_mask(image, item), face)
    return cv2.countNonZero(seen) / max(1, cv2.countNonZero(face))


def _count_occluded(counts, estimator, camera, image, face, truth, rng) -> None:
    v, u = np.nonzero(face)
    k = rng.integers(len(u))
    extent = max(np.ptp(u), np.ptp(v))
    size = (float(extent * rng.uniform(0.2, 0.8)), float(extent * rng.uniform(0.3, 1.5)))
    box = cv2.boxPoints(((float(u[k]), float(v[k])), size, float(rng.uniform(0, 180))))
    image = image.copy()
    cv2.fillPoly(image, [np.round(box).astype(np.int32)], _OCCLUDER)
    share = _share_seen(image, face, estimator.item)
    found = estimator.estimate(image, camera)
    counts['views'] += 1
    slightly = share > 0.70
    counts['slightly_hidden'] += slightly
    if not found.visible:
        counts['flagged'] += 1
        return
    counts['trusted'] += 1
    counts['slightly_hidden_trusted'] += slightly
    position, yaw = _error(found, truth)
    counts['trusted_wrong'] += position > WRONG_POSITION or yaw > WRONG_YAW


def _error(found, truth) -> tuple[float, float]:
    """(m, rad)"""
    return (math.hypot(found.pose[0] - truth[0], found.pose[1] - truth[1]),
            abs(math.remainder(found.pose[2] - truth[2], 2 * math.pi)))


def _percentiles(values) -> dict:
    return {f'p{p}': round(float(np.percentile(values, p, method='higher')), 3) for p in (50, 99)} | {
        'max': round(float(np.max(values)), 3)}
