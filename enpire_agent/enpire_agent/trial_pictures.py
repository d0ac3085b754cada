"""Pictures of a recorded trial to look at, as PNG: stills, or a strip of them, each with its time. No ROS."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np

from enpire_agent.trial_record import Frame, RecordError, policy_start, read_frames

MOST_PICTURES = 24
_GAP = 4                  # pixels between the pictures of a strip
_LETTERS = 0.4            # height of the times, as OpenCV scales its font


def write_stills(trial: Path, folder: Path, count: int, width: int) -> list[Path]:
    """`count` pictures of a trial, evenly from the policy's first step to the last frame, `width` pixels wide.

    Raises RecordError when nothing of the trial was recorded.
    """
    files = []
    for time, picture in _pictures(trial, count, width):
        files.append(_write(folder / f'{trial.name}-{time:05.1f}s.png', picture))
    return files


def write_strip(trial: Path, folder: Path, count: int, width: int) -> Path:
    """`count` pictures side by side in one file, each `width` pixels wide. As `write_stills` otherwise."""
    pictures = [picture for _, picture in _pictures(trial, count, width)]
    gap = np.full((pictures[0].shape[0], _GAP, 3), 255, np.uint8)
    row = [part for picture in pictures for part in (picture, gap)][:-1]
    return _write(folder / f'{trial.name}-strip.png', np.hstack(row))


def _pictures(trial: Path, count: int, width: int) -> list[tuple[float, np.ndarray]]:
    """(s since the policy's first step, BGR picture) of `count` moments; fewer where fewer were recorded."""
    start = policy_start(trial)
    times = [frame.time for frame in read_frames(trial)]
    first = next((k for k, time in enumerate(times) if time >= start), len(times) - 1)
    begin = start if math.isfinite(start) else times[0] if times else 0.0
    wanted = dict.fromkeys(round(k) for k in np.linspace(first, len(times) - 1, min(max(count, 1), MOST_PICTURES)))
    pictures = [(max(0.0, frame.time - begin), _decoded(frame, width))
                for k, frame in enumerate(read_frames(trial)) if k in wanted and frame.jpeg]
    if not pictures:
        raise RecordError(f'{trial}: no picture was recorded in it')
    for time, picture in pictures:
        for color, thickness in (((255, 255, 255), 3), ((0, 0, 0), 1)):
            cv2.putText(picture, f'{time:.1f} s', (4, 14), cv2.FONT_HERSHEY_SIMPLEX, _LETTERS, color, thickness,
                        cv2.LINE_AA)
    height = pictures[0][1].shape[0]
    return [(time, picture if picture.shape[0] == height else cv2.resize(picture, (picture.shape[1], height)))
            for time, picture in pictures]


def _decoded(frame: Frame, width: int) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(frame.jpeg, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise RecordError(f'the frame at {frame.time:.1f} s is no picture')
    width = min(width, image.shape[1])
    return cv2.resize(image, (width, max(1, round(image.shape[0] * width / image.shape[1]))),
                      interpolation=cv2.INTER_AREA)


def _write(file: Path, picture: np.ndarray) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(file), picture):
        raise RecordError(f'{file}: cannot be written')
    return file
