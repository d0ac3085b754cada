"""What is kept of every reset: a line in resets.jsonl, and a picture where it gave up. No ROS."""

from __future__ import annotations

import json
import math
import os
import textwrap
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

import cv2
import numpy as np

from enpire_reset.reset_program import ResetOutcome

RECORD = 'resets.jsonl'
_LINE_HEIGHT = 20     # pixels, in a picture 640 wide


class ResetRecord:
    """The folder of one station's resets, e.g. runs/resets/station_1."""

    def __init__(self, directory: Path):
        self._directory = directory

    def append(self, seed: int, outcome: ResetOutcome, duration: float, picture: str) -> None:
        """Enter one reset with all its attempts; on disk when this returns."""
        line = {'time': _now(), 'seed': seed, **asdict(outcome), 'duration': duration, 'picture': picture}
        self._directory.mkdir(parents=True, exist_ok=True)
        with open(self._directory / RECORD, 'a', encoding='utf-8') as stream:
            stream.write(json.dumps(_without_nan(line)) + '\n')
            stream.flush()
            os.fsync(stream.fileno())

    def save_picture(self, seed: int, image: np.ndarray) -> Path:
        """Write an RGB image as PNG, complete or not at all; its absolute path."""
        self._directory.mkdir(parents=True, exist_ok=True)
        file = (self._directory / f'{_now().replace(":", "")}_seed{seed}.png').resolve()
        beside = file.with_suffix('.part')
        _, data = cv2.imencode('.png', cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        beside.write_bytes(data.tobytes())
        os.replace(beside, file)
        return file


def captioned(image: np.ndarray, text: str) -> np.ndarray:
    """An RGB image (h, w, 3) uint8 under a band with `text` in it."""
    width = image.shape[1]
    scale = max(0.35, width / 1400)
    lines = textwrap.wrap(text, max(20, int(width / (18 * scale))))
    height = round(_LINE_HEIGHT * max(0.6, width / 640))
    band = np.full((height * len(lines) + height // 2, width, 3), 24, np.uint8)
    for i, line in enumerate(lines):
        cv2.putText(band, line, (6, height * (i + 1) - height // 4), cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255),
                    1, cv2.LINE_AA)
    return np.vstack([band, image])


def _now() -> str:
    return datetime.now(timezone.utc).strftime('%Y-%m-%dT%H:%M:%S.%fZ')


def _without_nan(value):
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
