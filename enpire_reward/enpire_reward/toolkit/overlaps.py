"""How much of one polygon lies on another: exact, for any simple polygons."""

from __future__ import annotations

import numpy as np


def polygon_area(polygon) -> float:
    """Area of a simple polygon (n, 2), in its units squared; positive whichever way it runs."""
    return abs(_signed_area(np.asarray(polygon, float)))


def intersection_area(a, b) -> float:
    """Area that two simple polygons (n, 2) have in common. Raises ValueError for fewer than 3 corners."""
    return float(sum(_convex_area(_clipped(one, other)) for one in _triangles(a) for other in _triangles(b)))


def coverage(polygon, goal) -> float:
    """Share of the goal, 0..1, that the polygon covers: what Push-T papers report as coverage."""
    return min(1.0, intersection_area(polygon, goal) / polygon_area(goal))


def _signed_area(points: np.ndarray) -> float:
    x, y = points.T
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) / 2)


def _convex_area(points: list) -> float:
    return abs(_signed_area(np.array(points))) if len(points) > 2 else 0.0


def _triangles(polygon) -> list[np.ndarray]:
    """A simple polygon cut into triangles, counter-clockwise, by clipping ears."""
    points = np.asarray(polygon, float)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3:
        raise ValueError(f'a polygon of shape {points.shape}; expected (n, 2) with n of at least 3')
    rest = list(points if _signed_area(points) > 0 else points[::-1])
    triangles = []
    while len(rest) > 3:
        ear = next((i for i in range(len(rest)) if _is_ear(rest, i)), None)
        if ear is None:
            break       # what is left has no area
        triangles.append(np.array([rest[ear - 1], rest[ear], rest[(ear + 1) % len(rest)]]))
        del rest[ear]
    return triangles + [np.array(rest[:3])]


def _is_ear(points: list, i: int) -> bool:
    a, b, c = points[i - 1], points[i], points[(i + 1) % len(points)]
    if _turn(a, b, c) <= 0:
        return False
    return not any(_turn(a, b, p) >= 0 and _turn(b, c, p) >= 0 and _turn(c, a, p) >= 0
                   for p in points if not any(np.array_equal(p, corner) for corner in (a, b, c)))


def _turn(a, b, c) -> float:
    """Positive where a, b, c turn to the left."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _clipped(subject, clip) -> list:
    """Corners of what two convex polygons, counter-clockwise, have in common (Sutherland and Hodgman)."""
    corners = list(subject)
    for start, end in zip(clip, np.roll(clip, -1, axis=0)):
        before, corners = corners, []
        for i, point in enumerate(before):
            last = before[i - 1]
            side, last_side = _turn(start, end, point), _turn(start, end, last)
            if (side >= 0) != (last_side >= 0):
                corners.append(last + (point - last) * (last_side / (last_side - side)))
            if side >= 0:
                corners.append(point)
        if not corners:
            break
    return corners
