"""What people see of a station besides its arms: limits, goal, objects, verdict, as simple shapes in "world". No ROS.

RViz (`station_markers`) and the browser (`enpire view`) draw the same shapes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
import pinocchio

from enpire_bringup.arm_task import ArmTask, TaskObject
from enpire_bringup.guard import guard_limits
from enpire_bringup.station import Station

Color = tuple[float, float, float, float]     # red, green, blue, opacity: 0 to 1

GOAL: Color = (0.1, 0.7, 0.25, 1.0)
SEEN: Color = (0.9, 0.2, 0.7, 1.0)
NOT_SEEN: Color = (1.0, 0.45, 0.0, 0.6)
START: Color = (0.5, 0.6, 0.9, 0.6)
LIMIT: Color = (0.9, 0.3, 0.3, 0.8)
FLOOR: Color = (0.9, 0.3, 0.3, 0.08)
OBSTACLE: Color = (0.55, 0.55, 0.6, 0.6)
WHITE: Color = (1.0, 1.0, 1.0, 1.0)
OUTCOME_COLORS = {'success': GOAL, 'not_yet': WHITE, 'abstain': NOT_SEEN}
GUARD_COLORS = {'ok': GOAL, 'warning': NOT_SEEN, 'error': LIMIT}

SIGMAS = 3.0            # standard deviations that a covariance ellipse shows
SMALLEST_ELLIPSE = 0.002     # m; a better estimate is drawn as large as this, so that one sees it
_ELLIPSE_POINTS = 32


@dataclass(frozen=True)
class Lines:
    """Separate lines: points (n, 2, 3) m."""

    name: str
    points: np.ndarray
    color: Color
    width: float = 0.003


@dataclass(frozen=True)
class Box:
    """A box of edge lengths `size` (3,) m at `pose` (4, 4)."""

    name: str
    size: tuple[float, float, float]
    pose: np.ndarray
    color: Color


@dataclass(frozen=True)
class Label:
    """Text that faces the viewer, at `position` (3,) m, letters `height` m high."""

    name: str
    position: tuple[float, float, float]
    text: str
    color: Color
    height: float = 0.022


def fixed_shapes(station: Station, task: ArmTask) -> list[Lines | Box]:
    """What does not move: workspace and floor of the guard, goal, start region, obstacles."""
    limits = guard_limits(station, task)
    low, high = np.array(limits.workspace_low), np.array(limits.workspace_high)
    goal = task.objects[task.goal.object]
    height = goal.face_height
    (x0, x1), (y0, y1) = task.start.x, task.start.y
    corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    floor = np.eye(4)
    floor[:3, 3] = [*(low[:2] + high[:2]) / 2, limits.floor_height - 0.001]     # below what is drawn on the table
    shapes = [
        Lines('workspace', box_edges(low, high), LIMIT, 0.002),
        Box('floor', (high[0] - low[0], high[1] - low[1], 0.0005), floor, FLOOR),
        Lines('goal', ring(placed(goal, (task.goal.x, task.goal.y, task.goal.yaw)), height), GOAL, 0.004),
        Lines('start', ring(corners, 0.001), START, 0.002)]
    for obstacle in (*station.obstacles, *task.obstacles):
        pose = np.eye(4)
        pose[:3, :3] = pinocchio.rpy.rpyToMatrix(*obstacle.rpy)
        pose[:3, 3] = obstacle.xyz
        shapes.append(Box(f'obstacle {obstacle.name}', obstacle.size, pose, OBSTACLE))
    return shapes


def object_shapes(item: TaskObject, pose: np.ndarray, covariance: np.ndarray, visible: bool) -> list[Lines]:
    """An object's outline at `pose` (3,) x, y, yaw, and how sure perception is: covariance (3, 3) of the same.

    Empty while nothing is known of it.
    """
    if not np.all(np.isfinite(pose)):
        return []
    color = SEEN if visible else NOT_SEEN
    shapes = [Lines(f'object {item.name}', ring(placed(item, pose), item.face_height), color, 0.004)]
    if visible and np.all(np.isfinite(covariance)):
        shapes.append(Lines(f'covariance {item.name}', ring(ellipse(pose[:2], covariance[:2, :2]),
                                                            item.face_height + 0.001), color, 0.0015))
    return shapes


def verdict_label(station: Station, task: ArmTask, outcome: str, reason: str) -> Label:
    """outcome: "success", "not_yet" or "abstain"."""
    return Label('verdict', _label_position(station, task, 0.06), verdict_text(outcome, reason),
                 OUTCOME_COLORS[outcome])


def guard_label(station: Station, task: ArmTask, level: str, message: str) -> Label:
    """level: "ok", "warning" or "error"."""
    text = 'guard: ok' if level == 'ok' else f'guard {"holds" if level == "error" else "warns"}: {message}'
    return Label('guard', _label_position(station, task, 0.02), text, GUARD_COLORS[level])


def verdict_text(outcome: str, reason: str) -> str:
    return f'{outcome.replace("_", " ").upper()}: {reason}' if reason else outcome.replace('_', ' ').upper()


def _label_position(station: Station, task: ArmTask, above: float) -> tuple[float, float, float]:
    limits = guard_limits(station, task)
    return (task.goal.x, task.goal.y, limits.workspace_high[2] + above)


def placed(item: TaskObject, pose) -> np.ndarray:
    """The outline (n, 2) m of an object at x, y, yaw."""
    x, y, yaw = pose
    rotation = np.array([[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]])
    return np.asarray(item.outline) @ rotation.T + (x, y)


def ring(points: np.ndarray, height: float) -> np.ndarray:
    """The closed line (n, 2, 3) through points (n, 2), m, at a height."""
    corners = np.column_stack([points, np.full(len(points), height)])
    return np.stack([corners, np.roll(corners, -1, axis=0)], axis=1)


def box_edges(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The twelve edges (12, 2, 3) of a box between two corners, m."""
    corners = list(product((0, 1), repeat=3))
    edges = [(a, b) for a in corners for b in corners if a < b and sum(i != j for i, j in zip(a, b)) == 1]
    return np.array([[np.where(corner, high, low) for corner in edge] for edge in edges])


def ellipse(center, covariance: np.ndarray) -> np.ndarray:
    """Points (n, 2) on the ellipse of SIGMAS standard deviations of a covariance (2, 2) m^2."""
    values, vectors = np.linalg.eigh(covariance)
    radii = np.maximum(SIGMAS * np.sqrt(np.maximum(values, 0.0)), SMALLEST_ELLIPSE)
    angles = np.linspace(0, 2 * math.pi, _ELLIPSE_POINTS, endpoint=False)
    return np.asarray(center) + (np.column_stack([np.cos(angles), np.sin(angles)]) * radii) @ vectors.T
