"""Outlines of the parts of a mask."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Contour:
    """The outline of one connected part. points (n, 2): pixels u, v around it; area: pixels, holes not counted;
    center: u, v of its middle; box: left, top, width, height.
    """

    points: np.ndarray
    area: float
    center: tuple[float, float]
    box: tuple[int, int, int, int]

    def polygon(self, tolerance: float = 2.0) -> np.ndarray:
        """Its corners (n, 2): no point of the contour is farther from this polygon than `tolerance` pixels."""
        return cv2.approxPolyDP(self.points.astype(np.float32), tolerance, True)[:, 0]


def find_contours(mask: np.ndarray, area: float = 1.0) -> list[Contour]:
    """The parts of a mask (h, w) of at least `area` pixels, the largest first."""
    count, labels, stats, centers = cv2.connectedComponentsWithStats(mask, connectivity=8)
    found = []
    for label in range(1, count):
        left, top, width, height, pixels = stats[label].tolist()
        if pixels < area:
            continue
        part = np.uint8(labels[top:top + height, left:left + width] == label)
        outlines, _ = cv2.findContours(part, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        points = max(outlines, key=len)[:, 0] + np.array([left, top])
        found.append(Contour(points, float(pixels), tuple(centers[label].tolist()), (left, top, width, height)))
    return sorted(found, key=lambda contour: -contour.area)


def largest_contour(mask: np.ndarray, area: float = 1.0) -> Contour | None:
    """The largest part of a mask, or None when there is none of `area` pixels."""
    return next(iter(find_contours(mask, area)), None)
