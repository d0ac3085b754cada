"""Which pixels of an image belong to something: masks (h, w) uint8, 255 where they do."""

from __future__ import annotations

import cv2
import numpy as np


def color_mask(image: np.ndarray, hue, saturation=(60, 255), value=(40, 255)) -> np.ndarray:
    """Pixels of an RGB image (h, w, 3) uint8 with a color. Ranges are inclusive, as OpenCV counts: hue 0 to 180, the
    others 0 to 255. A hue range may wrap: (170, 10) is red.
    """
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)

    def between(low, high):
        return cv2.inRange(hsv, (low, saturation[0], value[0]), (high, saturation[1], value[1]))

    low, high = hue
    return between(low, high) if low <= high else cv2.bitwise_or(between(low, 180), between(0, high))


def gray_mask(image: np.ndarray, low: int = 0, high: int = 255) -> np.ndarray:
    """Pixels of an RGB (h, w, 3) or gray (h, w) uint8 image whose brightness is in [low, high]."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image
    return cv2.inRange(gray, low, high)


def polygon_mask(shape, polygon) -> np.ndarray:
    """Pixels inside a polygon (n, 2) of pixels u, v; shape: (h, w) of the mask."""
    mask = np.zeros(shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.round(16 * np.asarray(polygon, float)).astype(np.int32)], 255, shift=4)
    return mask


def without_specks(mask: np.ndarray, area: int) -> np.ndarray:
    """The mask without the connected parts that are smaller than `area` pixels."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    keep = stats[:, cv2.CC_STAT_AREA] >= area
    keep[0] = False
    return (255 * keep).astype(np.uint8)[labels]


def mask_share(mask: np.ndarray, region: np.ndarray) -> float:
    """Share of the pixels of `region` that are in `mask`, 0..1; 0 for an empty region."""
    size = cv2.countNonZero(region)
    return cv2.countNonZero(cv2.bitwise_and(mask, region)) / size if size else 0.0
