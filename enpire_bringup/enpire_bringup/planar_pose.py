"""Pose of an object's colored flat face in a camera image: mask, boundary, robust fit. No ROS.

The face is a known polygon at a known height, so the pose has three unknowns (x, y, yaw). Boundary points of
the color mask are put on the plane of the face and the polygon is fitted to them by Gauss-Newton on the
signed distance to the outline, from several starts. What hides a part of the face (arm, gripper, a handle)
makes boundary points *inside* the polygon: these are left out. Nothing makes face-colored points outside of
it: these count in full.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from enpire_bringup.camera_model import PinholeCamera
from enpire_bringup.task import TaskObject

# One image takes few milliseconds; OpenCV's threads would only compete with the other nodes' work.
cv2.setNumThreads(1)

STARTS = 12                    # yaws that the search begins from
START_POINTS = 96              # boundary points in the search; the final fit takes all of them
SEARCH_BANDS = (0.030, 0.030, 0.030, 0.020, 0.020, 0.012, 0.012, 0.008, 0.008)   # m, see _weights
MIN_VISIBLE_FRACTION = 0.45    # of the outline
MIN_AREA = 0.02                # of the face's area: smaller parts of the mask are noise
SAME_POSE = (0.015, math.radians(15))    # two fits closer than this are the same answer
TRACKED_POSE = (0.050, math.radians(30))   # how far an object moves between two images
PARTS_APART = 1.1              # of the face's diameter: parts farther from the largest are something else


@dataclass(frozen=True)
class PlanarPose:
    """What one image says of one object.

    pose: (3,) x, y (m), yaw (rad) in the camera model's parent frame; NaN when nothing was found.
    visible: the pose can be trusted. `reason` says why not.
    visible_fraction: share of the outline that boundary points explain, 0..1.
    residual: root mean square distance of these points from the outline, m.
    covariance: (3, 3) of the pose, m and rad.
    """

    pose: np.ndarray
    visible: bool
    visible_fraction: float
    residual: float
    covariance: np.ndarray
    reason: str = ''


def color_mask(image: np.ndarray, item: TaskObject) -> np.ndarray:
    """Pixels (h, w) uint8, 255 where an RGB image has the object's color; its hue range may wrap."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)

    def between(low: float, high: float) -> np.ndarray:
        return cv2.inRange(hsv, (low, item.saturation[0], item.value[0]),
                           (high, item.saturation[1], item.value[1]))

    low, high = item.hue
    return between(low, high) if low <= high else cv2.bitwise_or(between(low, 180), between(0, high))


def boundary_points(mask: np.ndarray) -> np.ndarray:
    """Boundary (n, 2) of a mask in pixels u, v: midway between a pixel in it and a neighbor out of it.

    (The contours of cv2.findContours run through the outermost pixels in the mask, half a pixel too far
    inside.) Where the image ends there is no boundary.
    """
    inside = mask != 0
    v, u = np.nonzero(inside[:, 1:] != inside[:, :-1])
    columns = np.column_stack([u + 0.5, v])
    v, u = np.nonzero(inside[1:] != inside[:-1])
    return np.concatenate([columns, np.column_stack([u, v + 0.5])])


class Outline:
    """A simple polygon (n, 2), m, counter-clockwise, and distances to it."""

    def __init__(self, points):
        self.points = np.asarray(points, float)
        following = np.roll(self.points, -1, axis=0)
        self.edges = following - self.points
        self.lengths = np.linalg.norm(self.edges, axis=1)
        self.perimeter = float(self.lengths.sum())
        self.along = np.concatenate([[0.0], np.cumsum(self.lengths)[:-1]])
        direction = self.edges / self.lengths[:, None]
        self.normals = np.column_stack([direction[:, 1], -direction[:, 0]])     # outward
        before = np.roll(direction, 1, axis=0)
        self.convex = before[:, 0] * direction[:, 1] - before[:, 1] * direction[:, 0] > 0
        cross = self.points[:, 0] * following[:, 1] - following[:, 0] * self.points[:, 1]
        self.area = float(cross.sum() / 2)
        self.centroid = ((self.points + following) * cross[:, None]).sum(axis=0) / (6 * self.area)
        self.diameter = float(np.max(np.linalg.norm(self.points[:, None] - self.points[None], axis=2)))

    def signed_distance(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For points (..., 2): distance (m, positive outside), gradient (..., 2), place on it (m)."""
        offset = points[..., None, :] - self.points                            # (..., edge, 2)
        t = np.clip((offset * self.edges).sum(-1) / self.lengths ** 2, 0.0, 1.0)
        away = offset - t[..., None] * self.edges
        squared = (away * away).sum(-1)
        nearest = squared.argmin(-1)[..., None]
        t = np.take_along_axis(t, nearest, -1)[..., 0]
        away = np.take_along_axis(away, nearest[..., None], -2)[..., 0, :]
        distance = np.sqrt(np.take_along_axis(squared, nearest, -1)[..., 0])
        nearest = nearest[..., 0]
        normal = self.normals[nearest]
        # Nearest to a corner: outside when the corner is convex, inside when it is reflex.
        corner = np.where(t <= 0.0, nearest, (nearest + 1) % len(self.points))
        at_corner = (t <= 0.0) | (t >= 1.0)
        outside = np.where(at_corner, self.convex[corner], (away * normal).sum(-1) > 0)
        sign = np.where(outside, 1.0, -1.0)
        far = at_corner & (distance > 1e-9)
        from_corner = sign[..., None] * away / np.maximum(distance, 1e-9)[..., None]
        gradient = np.where(far[..., None], from_corner, normal)
        return sign * distance, gradient, self.along[nearest] + t * self.lengths[nearest]


class DistanceTable:
    """`Outline.signed_distance` on a grid, ten times faster: a look-up and one step along the gradient.

    Exact but within a cell of where the nearest edge changes (corners, the medial axis).
    """

    CELLS = 300     # a side

    def __init__(self, outline: Outline):
        self.half = 1.5 * outline.diameter          # m; beyond it, distances go on along the gradient
        self.cell = 2 * self.half / self.CELLS
        axis = (np.arange(self.CELLS) + 0.5) * self.cell - self.half
        x, y = np.meshgrid(axis, axis)
        distance, gradient, along = outline.signed_distance(np.stack([x, y], axis=-1).reshape(-1, 2))
        gx, gy = gradient[:, 0], gradient[:, 1]
        # distance(p) = table[0] + gx * px + gy * py near the cell
        self._table = np.stack([distance - gx * x.ravel() - gy * y.ravel(), gx, gy, along], axis=1)

    def look_up(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Signed distance (m), its gradient's x and y, place on the outline (m), each of x's shape."""
        column = np.clip(((x + self.half) / self.cell).astype(int), 0, self.CELLS - 1)
        row = np.clip(((y + self.half) / self.cell).astype(int), 0, self.CELLS - 1)
        constant, gx, gy, along = np.moveaxis(self._table[row * self.CELLS + column], -1, 0)
        return constant + gx * x + gy * y, gx, gy, along


class PlanarPoseEstimator:
    """Finds one object of a task; keeps nothing between images."""

    def __init__(self, item: TaskObject):
        self.item = item
        self.outline = Outline(item.outline)
        if self.outline.area <= 0:
            raise ValueError(f"object '{item.name}': its outline runs clockwise; give it counter-clockwise")
        self._distances = DistanceTable(self.outline)

    def estimate(self, image: np.ndarray, camera: PinholeCamera,
                 near: np.ndarray | None = None) -> PlanarPose:
        """The object's pose in an RGB image (h, w, 3) uint8.

        camera: its pose is in the frame of the result, with z up from the table.
        near: a pose (3,) of a moment ago. It saves the search, and it decides where half of the face is
        hidden and two poses would explain the rest. A plain view of the face always overrules it.
        """
        if image.shape != (camera.height, camera.width, 3):
            raise ValueError(f'image of shape {image.shape}; expected {(camera.height, camera.width, 3)}')
        pixels, spacing = self._boundary(image, camera)
        if pixels is None:
            return _nothing('no part of the image has its color')
        points = camera.back_project_to_plane(pixels, self.item.face_height)
        points = points[np.isfinite(points).all(axis=1)]
        if len(points) < 8:
            return _nothing('too few pixels have its color')
        band = 2.5 * spacing
        if near is not None and np.all(np.isfinite(near)):
            tracked = self._refine(np.asarray(near, float)[None], points, band)[0]
            explained = self._explained(tracked, points, band)
            cost = self._cost(tracked[None], points, band)[0]
            if explained > 0.85 and cost < 0.15:
                return self._judge(tracked, [], points, spacing, near)
        fits = self._search(points, spacing, near)
        cost = self._cost(fits, points, band)
        order = np.argsort(cost)
        best = fits[order[0]]
        rivals = [(fits[i], cost[i]) for i in order[1:]
                  if not _close(fits[i], best, SAME_POSE) and cost[i] < 1.5 * cost[order[0]] + 0.05]
        return self._judge(best, rivals, points, spacing, near)

    # ---- image ----

    def _boundary(self, image, camera) -> tuple[np.ndarray | None, float]:
        """Boundary pixels (n, 2) of the parts of the mask that belong to the face, and m a pixel there."""
        mask = color_mask(image, self.item)
        # Only the part of the image that has the color at all, and a pixel around it, is worth labeling.
        left, top, width, height = cv2.boundingRect(mask)
        if not width:
            return None, 0.0
        left, top = max(0, left - 1), max(0, top - 1)
        mask = mask[top:top + height + 2, left:left + width + 2]
        count, labels, stats, centers = cv2.connectedComponentsWithStats(mask, connectivity=8)
        areas = stats[1:, cv2.CC_STAT_AREA]
        largest = int(areas.argmax()) + 1
        center = centers[largest]
        around = camera.back_project_to_plane(
            center + np.array([(left, top), (left + 1, top), (left, top + 1)]), self.item.face_height)
        spans = around[1:] - around[0]
        spacing = math.sqrt(abs(spans[0, 0] * spans[1, 1] - spans[0, 1] * spans[1, 0]))
        if not math.isfinite(spacing) or spacing <= 0:
            return None, 0.0
        expected = self.outline.area / spacing ** 2
        reach = PARTS_APART * self.outline.diameter / spacing
        keep = [label for label in range(1, count)
                if areas[label - 1] >= max(4, MIN_AREA * expected)
                and np.linalg.norm(centers[label] - center) <= reach]
        if not keep or areas[[label - 1 for label in keep]].sum() < 0.1 * expected:
            return None, spacing
        chosen = labels == keep[0]
        for label in keep[1:]:
            chosen |= labels == label
        return boundary_points(chosen) + (left, top), spacing

    # ---- fit ----

    def _search(self, points, spacing, near) -> np.ndarray:
        """Fits (s, 3) from all starts."""
        some = points[np.linspace(0, len(points) - 1, min(START_POINTS, len(points))).astype(int)]
        yaws = np.arange(STARTS) * (2 * math.pi / STARTS)
        # The middle of what is seen, on the middle of the face: off by centimeters where much is hidden.
        middle = (points.min(axis=0) + points.max(axis=0)) / 2
        poses = np.column_stack([np.tile(middle, (STARTS, 1)) - _rotated(self.outline.centroid, yaws), yaws])
        if near is not None and np.all(np.isfinite(near)):
            poses = np.vstack([poses, near])
        for band in SEARCH_BANDS:
            poses = self._step(poses, some, max(band, 2.5 * spacing))
        return self._refine(poses, some, 2.5 * spacing, steps=3)

    def _refine(self, poses, points, band, steps=5) -> np.ndarray:
        for _ in range(steps):
            poses = self._step(poses, points, band)
        return poses

    def _residuals(self, poses, points):
        """Signed distances (s, n) of points (n, 2) for poses (s, 3), Jacobian (s, n, 3), places (s, n)."""
        cos, sin = np.cos(poses[:, 2])[:, None], np.sin(poses[:, 2])[:, None]
        dx, dy = points[None, :, 0] - poses[:, 0:1], points[None, :, 1] - poses[:, 1:2]
        x, y = cos * dx + sin * dy, cos * dy - sin * dx
        distance, gx, gy, along = self._distances.look_up(x, y)
        jacobian = np.stack([sin * gy - cos * gx, -sin * gx - cos * gy, gx * y - gy * x], axis=-1)
        return distance, jacobian, along

    def _step(self, poses, points, band) -> np.ndarray:
        distance, jacobian, _ = self._residuals(poses, points)
        weighted = jacobian * _weights(distance, band)[..., None]
        transposed = weighted.transpose(0, 2, 1)
        normal = transposed @ jacobian
        # Damping: 1 % of a point's weight keeps a direction that nothing holds from running away.
        scale = np.array([1.0, 1.0, (self.outline.diameter / 2) ** 2])
        normal += np.diag(0.01 * scale)
        change = np.linalg.solve(normal, -(transposed @ distance[..., None]))[..., 0]
        limit = 0.05
        change[:, :2] = np.clip(change[:, :2], -limit, limit)
        change[:, 2] = np.clip(change[:, 2], -0.5, 0.5)
        return poses + change

    def _cost(self, poses, points, band) -> np.ndarray:
        """Mean square distance in units of `band`, (s,): at most 1 for a point inside, 9 outside."""
        distance = self._residuals(poses, points)[0] / band
        return np.minimum(distance ** 2, np.where(distance > 0, 9.0, 1.0)).mean(axis=1)

    def _explained(self, pose, points, band) -> float:
        """Share of the outline with boundary points close to it, 0..1."""
        distance, _, along = self._residuals(pose[None], points)
        bins = max(8, int(self.outline.perimeter / max(0.004, 0.8 * band)))
        near = along[0][np.abs(distance[0]) < band]
        filled = np.unique((near / self.outline.perimeter * bins).astype(int) % bins)
        return len(filled) / bins

    # ---- verdict ----

    def _judge(self, best, rivals, points, spacing, near) -> PlanarPose:
        band = 2.5 * spacing
        pose = self._refine(best[None], points, band)[0]
        tracked = near is not None and _close(pose, near, TRACKED_POSE)
        if rivals and near is not None and not tracked:
            followed = [rival for rival, _ in rivals if _close(rival, near, TRACKED_POSE)]
            if followed:
                pose, tracked = self._refine(followed[0][None], points, band)[0], True
        distance, jacobian, _ = self._residuals(pose[None], points)
        distance, jacobian = distance[0], jacobian[0]
        fitted = np.abs(distance) < band
        if fitted.sum() < 8:
            return _nothing('what has its color does not look like its outline')
        residual = float(np.sqrt(np.mean(distance[fitted] ** 2)))
        fraction = self._explained(pose, points, band)
        # Neighboring points share their errors: count one in two. A pixel is never better than its rounding.
        variance = 2.0 * max(residual, spacing / math.sqrt(12)) ** 2
        information = jacobian[fitted].T @ jacobian[fitted] + np.diag([1e-3, 1e-3, 1e-6])
        covariance = variance * np.linalg.inv(information)
        pose = np.array([pose[0], pose[1], math.remainder(pose[2], 2 * math.pi)])
        reason = ''
        outside = float(np.mean(distance > band))
        if outside > 0.05:
            reason = f'{100 * outside:.0f} % of its color lies outside of its outline'
        elif fraction < MIN_VISIBLE_FRACTION:
            reason = f'only {100 * fraction:.0f} % of its outline is seen'
        elif math.sqrt(covariance[:2, :2].trace()) > 0.003 or math.sqrt(covariance[2, 2]) > math.radians(3):
            reason = 'what is seen of its outline does not fix its pose'
        elif rivals and not tracked:
            reason = 'what is seen of it fits two poses'
        return PlanarPose(pose, not reason, fraction, residual, covariance, reason)


def _weights(distance: np.ndarray, band: float) -> np.ndarray:
    """Inside the polygon Tukey's: nothing beyond `band` m, the edge of what hides the face. Outside Huber's.
    """
    ratio = distance / band
    inside = np.square(1.0 - np.minimum(ratio * ratio, 1.0))
    outside = np.minimum(1.0, 0.5 / np.maximum(ratio, 1e-9))
    return np.where(distance > 0, outside, inside)


def _rotated(point: np.ndarray, yaws: np.ndarray) -> np.ndarray:
    cos, sin = np.cos(yaws), np.sin(yaws)
    return np.column_stack([cos * point[0] - sin * point[1], sin * point[0] + cos * point[1]])


def _close(a: np.ndarray, b: np.ndarray, within: tuple[float, float]) -> bool:
    return (math.hypot(a[0] - b[0], a[1] - b[1]) < within[0]
            and abs(math.remainder(a[2] - b[2], 2 * math.pi)) < within[1])


def _nothing(reason: str) -> PlanarPose:
    return PlanarPose(np.full(3, np.nan), False, 0.0, math.nan, np.full((3, 3), np.nan), reason)
