"""How well an object's pose is estimated: rendered images against the truth of the simulated world.

Every image has its own light, and its own camera pose, of which perception knows only the calibrated one.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace

import cv2
import mujoco
import numpy as np

from enpire_bringup.arm_task import ArmTask
from enpire_bringup.camera_model import PinholeCamera
from enpire_bringup.object_tracking import MEMORY, ObjectTracker
from enpire_bringup.randomization import RandomizationRanges
from enpire_bringup.station import Station
from enpire_bringup.world import Renderer, World

# How light and camera differ from image to image: the camera by some 2 mm and 0.2 degrees on each axis.
VARIATION = RandomizationRanges(brightness=0.4, tint=0.05, light_tilt=0.1, camera_position=0.002,
                                camera_rotation=math.radians(0.2))
PLAIN_VIEW = 0.85                   # share of the face seen from which a view counts as not occluded
OCCLUDED = 0.35                     # share of the face seen below which a view counts as occluded
SAME_DEPTH = 0.005                  # m
WRONG_POSITION = 0.005              # m; a trusted pose that is off by more is a wrong one
WRONG_YAW = math.radians(3)
_OCCLUDER = (190, 188, 184)         # RGB, about the arm's color


@dataclass
class _Figures:
    errors: list[tuple[float, float]] = field(default_factory=list)         # m, rad; inf when not visible
    normalized: list[float] = field(default_factory=list)                   # squared, over the covariance, a dimension
    compute: list[float] = field(default_factory=list)                      # s, image alone
    tracking: list[float] = field(default_factory=list)                     # s, with the pose of the image before
    hidden_by_arm: int = 0
    covered: dict[str, int] = field(default_factory=lambda: dict.fromkeys(
        ('views', 'trusted', 'trusted_wrong', 'occluded', 'occluded_flagged'), 0))


def run(station: Station, task: ArmTask, poses: int = 500, seed: int = 0) -> dict:
    """Errors over `poses` random poses of the start object in the region of the task's actions.

    Light and camera vary by VARIATION.

    `position_mm`, `yaw_deg`, `compute_ms`, `tracking_ms`: percentiles over views in which nothing hides the object,
    each image looked at by itself (tracking_ms: once more, knowing the pose). `normalized_error`: mean of the squared
    errors over the covariances that came with them, 1 when these are honest. `covered`: the same images with a random
    rectangle painted over a part of the object: how many poses were trusted and how many of these are wrong (by more
    than 5 mm or 3 degrees); in `occluded` of them most of the face is hidden, and `occluded_flagged` is the share of
    these that was not trusted.
    """
    task = replace(task, randomization=VARIATION)
    item = task.objects[task.start.object]
    world, renderer = World(station, task), Renderer(station, task)
    tracker = ObjectTracker(station.cameras[item.camera], [item], task.landmarks)
    calibrated = PinholeCamera.from_station(station.cameras[item.camera])
    tracker.calibrate(calibrated.width, calibrated.height, calibrated.info()['k'])
    rng = np.random.default_rng(seed)
    figures = _Figures()
    now = 0.0
    try:
        while len(figures.errors) < poses:
            truth = _draw_pose(rng, task)
            world.set_object_pose(item.name, *truth)
            world.randomize(int(rng.integers(2 ** 32)))
            camera = _true_camera(world, item.camera, calibrated)
            face = _face_mask(camera, item, truth)
            image, distances = renderer.look(item.camera, world.state(), color=True, depth=True)
            if _share_in_sight(distances, camera, face, item.face_height) < PLAIN_VIEW:
                figures.hidden_by_arm += 1         # the arm at home stands in the way: not a plain view
                continue
            now += 2 * MEMORY
            _measure_plain(figures, tracker, image, now, item.name, truth)
            now += 2 * MEMORY
            _measure_covered(figures.covered, tracker, image, now, face, item, truth, rng)
    finally:
        renderer.close()
    return _summary(figures) | {'camera': item.camera, 'image': f'{calibrated.width}x{calibrated.height}'}


def _true_camera(world: World, name: str, calibrated: PinholeCamera) -> PinholeCamera:
    """The camera where the world's variation put it."""
    camera = world.model.camera(name)
    rotation = np.empty(9)
    mujoco.mju_quat2Mat(rotation, camera.quat)
    pose = np.eye(4)
    # MuJoCo's camera looks along -z with y up; the optical frame looks along z with y down.
    pose[:3, :3] = rotation.reshape(3, 3) @ np.diag([1.0, -1.0, -1.0])
    pose[:3, 3] = camera.pos
    return replace(calibrated, pose=pose)


def _measure_plain(figures: _Figures, tracker: ObjectTracker, image, now: float, name: str, truth) -> None:
    for times in (figures.compute, figures.tracking):
        started = time.perf_counter()
        found = tracker.look(image, now).poses[name]
        times.append(time.perf_counter() - started)
        if times is figures.compute:
            figures.errors.append(_error(found, truth) if found.visible else (math.inf, math.inf))
            if found.visible:
                error = found.pose - truth
                error[2] = math.remainder(error[2], 2 * math.pi)
                figures.normalized.append(float(error @ np.linalg.solve(found.covariance, error)) / 3)


def _measure_covered(counts: dict[str, int], tracker: ObjectTracker, image, now, face, item, truth, rng) -> None:
    v, u = np.nonzero(face)
    k = rng.integers(len(u))
    extent = max(np.ptp(u), np.ptp(v))
    size = (float(extent * rng.uniform(0.2, 0.9)), float(extent * rng.uniform(0.3, 1.6)))
    box = [np.round(cv2.boxPoints(((float(u[k]), float(v[k])), size, float(rng.uniform(0, 180))))).astype(np.int32)]
    image, uncovered = image.copy(), face.copy()
    cv2.fillPoly(image, box, _OCCLUDER)
    cv2.fillPoly(uncovered, box, 0)
    occluded = cv2.countNonZero(uncovered) < OCCLUDED * cv2.countNonZero(face)
    found = tracker.look(image, now).poses[item.name]
    counts['views'] += 1
    counts['occluded'] += occluded
    if not found.visible:
        counts['occluded_flagged'] += occluded
        return
    counts['trusted'] += 1
    position, yaw = _error(found, truth)
    counts['trusted_wrong'] += position > WRONG_POSITION or yaw > WRONG_YAW


def _summary(figures: _Figures) -> dict:
    position, yaw = np.array(figures.errors).T
    covered = dict(figures.covered)
    flagged = covered.pop('occluded_flagged')
    return {
        'poses': len(figures.errors), 'hidden_by_arm': figures.hidden_by_arm,
        'not_visible': int(np.isinf(position).sum()),
        'position_mm': _percentiles(1e3 * position), 'yaw_deg': _percentiles(np.degrees(yaw)),
        'normalized_error': round(float(np.mean(figures.normalized)), 2) if figures.normalized else None,
        'compute_ms': _percentiles(1e3 * np.array(figures.compute)),
        'tracking_ms': _percentiles(1e3 * np.array(figures.tracking)),
        'occluded_flagged': round(flagged / covered['occluded'], 4) if covered['occluded'] else None,
        'covered': covered,
    }


def _draw_pose(rng, task: ArmTask) -> tuple[float, float, float]:
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


def _share_in_sight(distances: np.ndarray, camera: PinholeCamera, face: np.ndarray, height: float) -> float:
    """Share of the pixels of the face that are as far away (m, along the view) as the plane it lies in."""
    # fillPoly paints the rim, too.
    v, u = np.nonzero(cv2.erode(face, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))))
    points = camera.back_project_to_plane(np.column_stack([u, v]), height)
    expected = (np.column_stack([points, np.full(len(points), height)]) - camera.pose[:3, 3]) @ camera.pose[:3, 2]
    return float(np.mean(np.abs(distances[v, u] - expected) < SAME_DEPTH)) if len(u) else 0.0


def _error(found, truth) -> tuple[float, float]:
    """(m, rad)"""
    return (math.hypot(found.pose[0] - truth[0], found.pose[1] - truth[1]),
            abs(math.remainder(found.pose[2] - truth[2], 2 * math.pi)))


def _percentiles(values) -> dict:
    return {f'p{p}': round(float(np.percentile(values, p, method='higher')), 3) for p in (50, 99)} | {
        'max': round(float(np.max(values)), 3)}
