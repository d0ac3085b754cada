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

from enpire_bringup.arm_task import TaskObject
from enpire_bringup.camera_model import PinholeCamera

# One image takes few milliseconds; OpenCV's threads would only compete with the other nodes' work.
cv2.setNumThreads(1)

STRIDE = 4                     # every so manieth row and column is looked at to find where the face is
STARTS = 16                    # yaws that the search begins from
START_POINTS = 64              # boundary points in the search; the final fit takes all of them
FIRST_BANDS = (0.030, 0.030, 0.030, 0.020, 0.020)   # m, see _weights: from all starts
LAST_BANDS = (0.012, 0.012, 0.008, 0.008)           # m: to the end
FINALISTS = 4                  # looked at first; the others where none of these is plain
PLAIN_FRACTION = 0.7           # of the outline; a pose that explains so much of it needs no rivals
MIN_OUTLINE_SHARE = 0.45       # seen, of a pose that can be trusted
MIN_FACE_SHARE = 0.35
MAX_OUTSIDE = 0.05             # share of the boundary points that may lie outside of the outline
MAX_DEVIATION = (0.003, math.radians(3))     # standard deviation of a pose that can be trusted
POINTS_SHARING = 2.0           # neighboring boundary points that share their error
MIN_AREA = 0.02                # of the face's area: smaller parts of the mask are noise
SAME_POSE = (0.015, math.radians(15))    # two fits closer than this are the same answer
TRACKED_POSE = (0.050, math.radians(30))   # how far an object moves between two images
PARTS_APART = 1.1              # of the face's diameter: parts farther from the largest are something else
CAMERA_UNCERTAIN = 'the pose of the camera is too uncertain'
NO_MORE = 1e-6                  # m, rad; a step that small changes nothing that a camera could tell
_LARGEST_STEP = np.array([0.05, 0.05, 0.5])  # m, m, rad


@dataclass(frozen=True)
class PlanarPose:
    """What one image says of one object.

    pose: (3,) x, y (m), yaw (rad) in the camera model's parent frame; NaN when nothing was found.
    visible: the pose can be trusted. `reason` says why not.
    occluded: a part of it was found, but too much is hidden to be trusted.
    visible_fraction: the smaller of two shares, 0..1: of the outline that boundary points explain, and of the
        face that shows its color (what stands on the face always hides a little of it).
    residual: root mean square distance of the boundary points from the outline, m.
    covariance: (3, 3) of the pose, m and rad; the camera's own uncertainty is in it where it is known.
    """

    pose: np.ndarray
    visible: bool
    visible_fraction: float
    residual: float
    covariance: np.ndarray
    reason: str = ''
    occluded: bool = False


@dataclass(frozen=True)
class _Face:
    """mask: (h, w) uint8, 255 where the face's color is; its top left pixel is `corner` (u, v) in the image.

    spacing: m on the face's plane a pixel. too_small: less than a tenth of the face's area has the color.
    """

    mask: np.ndarray
    corner: tuple[int, int]
    spacing: float
    too_small: bool


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
    columns = cv2.findNonZero(cv2.bitwise_xor(mask[:, 1:], mask[:, :-1]))
    rows = cv2.findNonZero(cv2.bitwise_xor(mask[1:], mask[:-1]))
    return np.concatenate([found[:, 0] + shift for found, shift in ((columns, (0.5, 0.0)), (rows, (0.0, 0.5)))
                           if found is not None] or [np.empty((0, 2))])


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
        cells = self._table.take(self._cells(y) * self.CELLS + self._cells(x), axis=0)
        gx, gy = cells[..., 1], cells[..., 2]
        return cells[..., 0] + gx * x + gy * y, gx, gy, cells[..., 3]

    def _cells(self, place: np.ndarray) -> np.ndarray:
        cells = (place + self.half) * (1.0 / self.cell)
        return np.minimum(np.maximum(cells, 0.0), self.CELLS - 1.0).astype(np.intp)


class PlanarPoseEstimator:
    """Finds one object of a task; keeps nothing between images."""

    def __init__(self, item: TaskObject):
        self.item = item
        self.outline = Outline(item.outline)
        if self.outline.area <= 0:
            raise ValueError(f"object '{item.name}': its outline runs clockwise; give it counter-clockwise")
        self._distances = DistanceTable(self.outline)
        self._damping = 0.01 * np.diag([1.0, 1.0, (self.outline.diameter / 2) ** 2])

    def estimate(self, image: np.ndarray, camera: PinholeCamera, near: np.ndarray | None = None,
                 camera_covariance: np.ndarray | None = None) -> PlanarPose:
        """The object's pose in an RGB image (h, w, 3) uint8.

        camera: its pose is in the frame of the result, with z up from the table.
        near: a pose (3,) of a moment ago. It saves the search, and it decides where half of the face is
        hidden and two poses would explain the rest. A plain view of the face always overrules it.
        camera_covariance: (6, 6) of the camera's pose as in `extrinsic_refinement`; None: it is known exactly.
        """
        if image.shape != (camera.height, camera.width, 3):
            raise ValueError(f'image of shape {image.shape}; expected {(camera.height, camera.width, 3)}')
        face = self._face(image, camera)
        if face is None:
            return nothing_found('no part of the image has its color')
        points = camera.back_project_to_plane(boundary_points(face.mask) + face.corner, self.item.face_height)
        points = points[np.isfinite(points).all(axis=1)]
        if face.too_small or len(points) < 8:
            return nothing_found('too few pixels have its color', occluded=True)
        return self._judge(*self._fit(points, face.spacing, near), points, face, camera, near, camera_covariance)

    # ---- image ----

    def _face(self, image, camera) -> _Face | None:
        """The parts of the image that have the object's color and lie together, or None without any."""
        region = self._region(image, camera)
        if region is None:
            return None
        left, top, right, bottom = region
        mask = color_mask(image[top:bottom, left:right], self.item)
        whole = self._in_one_piece(mask, (left, top), camera)
        if whole is not None:
            return whole
        count, labels, stats, centers = cv2.connectedComponentsWithStats(mask, connectivity=8)
        if count < 2:
            return None
        areas, centers = stats[1:, cv2.CC_STAT_AREA], centers[1:] + (left, top)
        center = centers[areas.argmax()]
        spacing = camera.pixel_width_on_plane(center, self.item.face_height)
        if spacing is None:
            return None
        expected = self.outline.area / spacing ** 2
        together = np.linalg.norm(centers - center, axis=1) <= PARTS_APART * self.outline.diameter / spacing
        keep = together & (areas >= max(4, MIN_AREA * expected))
        too_small = not keep.any() or areas[keep].sum() < 0.1 * expected
        if not keep.all():
            mask = np.concatenate([[0], 255 * keep]).astype(np.uint8)[labels]
        return _Face(mask, (left, top), spacing, too_small)

    def _in_one_piece(self, mask, corner, camera) -> _Face | None:
        """The face when its color has one part only, as it mostly has: to number parts takes ten times as long."""
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        if len(contours) != 1:
            return None
        moments = cv2.moments(mask, binaryImage=True)
        area = moments['m00']
        spacing = camera.pixel_width_on_plane(
            (moments['m10'] / area + corner[0], moments['m01'] / area + corner[1]), self.item.face_height)
        if spacing is None or area < 0.1 * self.outline.area / spacing ** 2:
            return None
        return _Face(mask, corner, spacing, False)

    def _region(self, image, camera) -> tuple[int, int, int, int] | None:
        """Left, top, right, bottom (pixels) around all that may be the face, from every STRIDE-th pixel."""
        coarse = color_mask(cv2.resize(image, None, fx=1 / STRIDE, fy=1 / STRIDE, interpolation=cv2.INTER_NEAREST),
                            self.item)
        contours, _ = cv2.findContours(coarse, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        if len(contours) == 1:
            around = np.array(cv2.boundingRect(contours[0]))
            return self._with_margin(around[:2], around[:2] + around[2:], camera)
        count, _, stats, centers = cv2.connectedComponentsWithStats(coarse, connectivity=8)
        if count < 2:
            return None
        stats, centers = stats[1:], STRIDE * centers[1:]
        center = centers[stats[:, cv2.CC_STAT_AREA].argmax()]
        spacing = camera.pixel_width_on_plane(center, self.item.face_height)
        if spacing is None:
            return None
        together = np.linalg.norm(centers - center, axis=1) <= PARTS_APART * self.outline.diameter / spacing
        corners = stats[together, :2]
        return self._with_margin(corners.min(axis=0), (corners + stats[together, 2:4]).max(axis=0), camera)

    @staticmethod
    def _with_margin(low, high, camera) -> tuple[int, int, int, int]:
        (left, top), (right, bottom) = STRIDE * low - STRIDE, STRIDE * high + STRIDE
        return max(0, int(left)), max(0, int(top)), min(camera.width, int(right)), min(camera.height, int(bottom))

    def _face_share(self, pose, face: _Face, camera) -> float:
        """Share of the face at `pose` that shows its color, 0..1."""
        corners = _rotated(self.outline.points, pose[2]) + pose[:2]
        pixels = camera.project(np.column_stack([corners, np.full(len(corners), self.item.face_height)]))
        pixels = (pixels - face.corner).astype(np.float32)
        if not np.all(np.abs(pixels) < 1e5):
            return 0.0
        expected = np.zeros_like(face.mask)
        cv2.fillPoly(expected, [np.round(16 * pixels).astype(np.int32)], 255, shift=4)
        seen = cv2.countNonZero(cv2.bitwise_and(expected, face.mask))
        return min(1.0, seen / max(1.0, cv2.contourArea(pixels)))

    # ---- fit ----

    def _fit(self, points, spacing, near) -> tuple[np.ndarray, list[np.ndarray], tuple]:
        """The best pose (3,) for boundary points (n, 2), other poses that explain them nearly as well, and the residuals of
        the best."""
        band = 2.5 * spacing
        if near is not None and np.all(np.isfinite(near)):
            tracked = self._refine(np.asarray(near, float)[None], points, band)[0]
            residuals = self._residuals_of(tracked, points)
            if self._is_plain(residuals, band):
                return tracked, [], residuals
        some = points[np.linspace(0, len(points) - 1, min(START_POINTS, len(points))).astype(int)]
        narrowest = 2.5 * spacing
        starts = self._search(points, some, narrowest, near)
        fits = np.empty((0, 3))
        for those in (starts[:FINALISTS], starts[FINALISTS:]):
            fits = np.concatenate([fits, self._finish(those, some, narrowest)])
            cost = self._cost(fits, points, band)
            best = self._refine(fits[cost.argmin()][None], points, band)[0]
            residuals = self._residuals_of(best, points)
            if self._is_plain(residuals, band):
                return best, [], residuals
        order = np.argsort(cost, kind='stable')
        return best, [fits[i] for i in order[1:] if not _close(fits[i], best, SAME_POSE)
                      and cost[i] < 1.5 * cost[order[0]] + 0.05], residuals

    def _is_plain(self, residuals, band) -> bool:
        """Whether most of the outline has boundary, and little boundary lies outside: no wrong pose does that."""
        distance, _, along = residuals
        return self._explained(distance, along, band) > PLAIN_FRACTION and np.mean(distance > band) < MAX_OUTSIDE

    def _search(self, points, some, narrowest, near) -> np.ndarray:
        """Poses (s, 3) that all starts lead to, roughly, by `some` of the points; what fits best comes first."""
        yaws = np.arange(STARTS) * (2 * math.pi / STARTS)
        # The middle of what is seen, on the middle of the face: off by centimeters where much is hidden.
        middle = (points.min(axis=0) + points.max(axis=0)) / 2
        poses = np.column_stack([middle - _rotated(self.outline.centroid, yaws), yaws])
        if near is not None and np.all(np.isfinite(near)):
            poses = np.vstack([poses, near])
        for band in FIRST_BANDS:
            poses = self._step(poses, some, max(band, narrowest))
        return poses[np.argsort(self._cost(poses, some, max(FIRST_BANDS[-1], narrowest)), kind='stable')]

    def _finish(self, poses, some, narrowest) -> np.ndarray:
        """The fits (s, 3) that such poses lead to in the end."""
        for band in LAST_BANDS:
            poses = self._step(poses, some, max(band, narrowest))
        return self._refine(poses, some, narrowest, steps=3)

    def _refine(self, poses, points, band, steps=4) -> np.ndarray:
        for _ in range(steps):
            before, poses = poses, self._step(poses, points, band)
            if np.abs(poses - before).max() < NO_MORE:
                break
        return poses

    def _residuals(self, poses, points):
        """Signed distances (s, n) of points (n, 2) for poses (s, 3), Jacobian (s, 3, n), places (s, n)."""
        yaws = poses[:, 2:]
        cos, sin = np.cos(yaws), np.sin(yaws)
        dx, dy = points[:, 0] - poses[:, 0:1], points[:, 1] - poses[:, 1:2]
        x, y = cos * dx + sin * dy, cos * dy - sin * dx
        distance, gx, gy, along = self._distances.look_up(x, y)
        jacobian = np.empty((len(poses), 3, len(points)))
        np.subtract(sin * gy, cos * gx, out=jacobian[:, 0])
        np.subtract(-sin * gx, cos * gy, out=jacobian[:, 1])
        np.subtract(gx * y, gy * x, out=jacobian[:, 2])
        return distance, jacobian, along

    def _residuals_of(self, pose, points):
        """The same of one pose (3,): (n,), (3, n), (n,)."""
        return tuple(part[0] for part in self._residuals(pose[None], points))

    def _step(self, poses, points, band) -> np.ndarray:
        distance, jacobian, _ = self._residuals(poses, points)
        weighted = jacobian * _weights(distance, band)[:, None]
        # Damping: 1 % of a point's weight keeps a direction that nothing holds from running away.
        normal = weighted @ jacobian.transpose(0, 2, 1) + self._damping
        change = np.linalg.solve(normal, -(weighted @ distance[..., None]))[..., 0]
        return poses + np.minimum(np.maximum(change, -_LARGEST_STEP), _LARGEST_STEP)

    def _cost(self, poses, points, band) -> np.ndarray:
        """Mean square distance in units of `band`, (s,): at most 1 for a point inside, 9 outside."""
        distance = self._residuals(poses, points)[0] / band
        return np.minimum(distance ** 2, np.where(distance > 0, 9.0, 1.0)).mean(axis=1)

    def _explained(self, distance, along, band) -> float:
        """Share of the outline with boundary points closer to it than `band`, 0..1."""
        bins = max(8, int(self.outline.perimeter / max(0.004, 0.8 * band)))
        near = along[np.abs(distance) < band]
        filled = np.zeros(bins, bool)
        filled[(near / self.outline.perimeter * bins).astype(int) % bins] = True
        return int(filled.sum()) / bins

    # ---- verdict ----

    def _judge(self, pose, rivals, residuals, points, face, camera, near, camera_covariance) -> PlanarPose:
        band = 2.5 * face.spacing
        tracked = near is not None and _close(pose, near, TRACKED_POSE)
        if rivals and near is not None and not tracked:
            followed = [rival for rival in rivals if _close(rival, near, TRACKED_POSE)]
            if followed:
                pose, tracked = self._refine(followed[0][None], points, band)[0], True
                residuals = self._residuals_of(pose, points)
        distance, jacobian, along = residuals
        fitted = np.abs(distance) < band
        if fitted.sum() < 8:
            return nothing_found('what has its color does not look like its outline')
        residual = float(np.sqrt(np.mean(distance[fitted] ** 2)))
        fraction = self._explained(distance, along, band)
        pose = np.array([pose[0], pose[1], math.remainder(pose[2], 2 * math.pi)])
        face_share = self._face_share(pose, face, camera)
        covariance = self._covariance(pose, jacobian[:, fitted], residual, face.spacing, camera, camera_covariance)
        reason, occluded = '', True
        outside = float(np.mean(distance > band))
        if outside > MAX_OUTSIDE:
            reason, occluded = f'{100 * outside:.0f} % of its color lies outside of its outline', False
        elif fraction < MIN_OUTLINE_SHARE:
            reason = f'only {100 * fraction:.0f} % of its outline is seen'
        elif face_share < MIN_FACE_SHARE:
            reason = f'only {100 * face_share:.0f} % of its face is seen'
        elif rivals and not tracked:
            reason = 'what is seen of it fits two poses'
        elif not _is_fixed(covariance):
            if camera_covariance is None or not _is_fixed(covariance, without=self._from_camera(
                    pose, camera, camera_covariance)):
                reason = 'what is seen of its outline does not fix its pose'
            else:
                reason, occluded = CAMERA_UNCERTAIN, False
        return PlanarPose(pose, not reason, min(fraction, face_share), residual, covariance, reason,
                          bool(reason) and occluded)

    def _covariance(self, pose, jacobian, residual, spacing, camera, camera_covariance) -> np.ndarray:
        # Neighboring points share their errors: POINTS_SHARING count as one. A pixel is no better than its rounding.
        variance = POINTS_SHARING * max(residual, spacing / math.sqrt(12)) ** 2
        covariance = variance * np.linalg.inv(jacobian @ jacobian.T + np.diag([1e-3, 1e-3, 1e-6]))
        if camera_covariance is not None:
            covariance = covariance + self._from_camera(pose, camera, camera_covariance)
        return covariance

    def _from_camera(self, pose, camera, camera_covariance) -> np.ndarray:
        """What the camera's uncertainty makes of the pose: covariance (3, 3)."""
        corners = _rotated(self.outline.points, pose[2])
        heights = np.full(len(corners), self.item.face_height)
        shifts = camera.plane_shifts(np.column_stack([corners + pose[:2], heights]))        # (n, 2, 6)
        # The rigid motion about the object's origin that is nearest to the corners' shifts.
        rigid = np.zeros((len(corners), 2, 3))
        rigid[:, 0, 0] = rigid[:, 1, 1] = 1.0
        rigid[:, 0, 2], rigid[:, 1, 2] = -corners[:, 1], corners[:, 0]
        rigid = rigid.reshape(-1, 3)
        moved = np.linalg.solve(rigid.T @ rigid, rigid.T @ shifts.reshape(-1, 6))
        return moved @ camera_covariance @ moved.T


def nothing_found(reason: str, occluded: bool = False) -> PlanarPose:
    return PlanarPose(np.full(3, np.nan), False, 0.0, math.nan, np.full((3, 3), np.nan), reason, occluded)


def _is_fixed(covariance: np.ndarray, without: np.ndarray | float = 0.0) -> bool:
    rest = covariance - without
    return math.sqrt(rest[0, 0] + rest[1, 1]) <= MAX_DEVIATION[0] and math.sqrt(rest[2, 2]) <= MAX_DEVIATION[1]


def _weights(distance: np.ndarray, band: float) -> np.ndarray:
    """Inside the polygon Tukey's: nothing beyond `band` m, the edge of what hides the face. Outside Huber's.
    """
    ratio = distance / band
    inside = np.square(1.0 - np.minimum(ratio * ratio, 1.0))
    outside = np.minimum(1.0, 0.5 / np.maximum(ratio, 1e-9))
    return np.where(distance > 0, outside, inside)


def _rotated(points: np.ndarray, yaws) -> np.ndarray:
    """Points (n, 2) or one (2,), turned by one yaw or by each of yaws (n,)."""
    cos, sin = np.cos(yaws), np.sin(yaws)
    x, y = points[..., 0], points[..., 1]
    return np.stack([cos * x - sin * y, sin * x + cos * y], axis=-1)


def _close(a: np.ndarray, b: np.ndarray, within: tuple[float, float]) -> bool:
    return (math.hypot(a[0] - b[0], a[1] - b[1]) < within[0]
            and abs(math.remainder(a[2] - b[2], 2 * math.pi)) < within[1])

