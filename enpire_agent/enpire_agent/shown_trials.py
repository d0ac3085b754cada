"""The best and the worst trial of a campaign, to look at: a short video and a strip of pictures."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Sequence

from enpire_agent.score import SUCCESS
from enpire_agent.station_run import StationRun
from enpire_agent.trial_record import RecordError, policy_start, read_frames

VIDEO = 'video.mp4'            # of a trial's folder
MAX_VIDEO_BYTES = 2_000_000    # of a video on the page
LEAD_IN = 0.5                  # s before the policy's first step; the reset is not shown
VIDEO_RATE = 20.0              # frames a second: recorded at 10 Hz of ROS time, shown at twice the speed
_MAX_FRAMES = 700
_STRIP_PICTURES = 5
_STRIP_WIDTH = 200             # pixels of a picture of the strip
_TRIES = 8                     # trials whose records are missing are passed over
_UNTOLD = ('RESET_FAILED', 'ABORTED', 'INVALID')   # say nothing about a recipe


@dataclass(frozen=True)
class ShownTrial:
    """A trial with its ledger line. video: of `media` type, empty when it is too large; strip: PNG."""

    title: str
    why: str
    run: StationRun
    line: dict
    video: bytes
    media: str
    pace: str
    strip: bytes


def best_and_worst(runs: Sequence[StationRun]) -> list[ShownTrial]:
    """The best and the worst trial that were filmed; fewer when fewer were."""
    trials = [(run, line) for run in runs for line in run.lines.values() if line['outcome'] not in _UNTOLD]
    shown = []
    for title, ranked in (('Best trial', _from_best(trials)), ('Worst trial', _from_worst(trials))):
        taken = [entry.line['trial_id'] for entry in shown]
        ranked = [entry for entry in ranked if entry[1]['trial_id'] not in taken]
        found = next(filter(None, (_shown(title, *entry) for entry in ranked[:_TRIES])), None)
        if found is not None:
            shown.append(found)
    return shown


def _from_best(trials: Sequence[tuple]) -> list[tuple]:
    """(run, line, why), the quickest success first; without one, what came nearest."""
    successes = [entry for entry in trials if entry[1]['outcome'] == SUCCESS]
    if successes:
        return [(run, line, 'the quickest success of all trials')
                for run, line in sorted(successes, key=lambda entry: entry[1]['duration'])]
    measured = [entry for entry in trials if entry[1].get('position_error') is not None]
    return [(run, line, 'no trial succeeded; this one ended nearest to the goal')
            for run, line in sorted(measured, key=lambda entry: entry[1]['position_error'])]


def _from_worst(trials: Sequence[tuple]) -> list[tuple]:
    """(run, line, why), the failure farthest from the goal first; without failures the slowest success."""
    failures = [entry for entry in trials if entry[1]['outcome'] != SUCCESS]
    if failures:
        return [(run, line, 'of all failures the one that ended farthest from the goal')
                for run, line in sorted(failures, key=lambda entry: -(entry[1].get('position_error') or 0.0))]
    return [(run, line, 'every trial succeeded; this one took longest')
            for run, line in sorted(trials, key=lambda entry: -entry[1]['duration'])]


def _shown(title: str, run: StationRun, line: dict, why: str) -> ShownTrial | None:
    directory = run.directory / 'trials' / line['trial_id']
    try:
        start = policy_start(directory) - LEAD_IN
        frames = [frame.jpeg for frame in read_frames(directory) if frame.time >= start]
        if not frames:
            return None
        video, media, pace = _video(directory, frames)
        return ShownTrial(title, why, run, line, video, media, pace, film_strip(frames))
    except RecordError:
        return None


def _video(directory: Path, frames: Sequence[bytes]) -> tuple[bytes, str, str]:
    """(video, media type, pace in words): what was recorded, where that is small enough, else made of the frames."""
    skip = -(-len(frames) // _MAX_FRAMES)
    video = encode_video(frames[::skip])
    pace = f'at {2 * skip} times the real speed'
    return (video if len(video) <= MAX_VIDEO_BYTES else b''), 'video/webm', pace


def encode_video(frames: Sequence[bytes], rate: float = VIDEO_RATE) -> bytes:
    """JPEG frames as a WebM video (VP8), which every browser plays; empty without frames.

    Raises RecordError when OpenCV cannot encode it.
    """
    import cv2

    images = list(_images(frames))
    if not images:
        return b''
    height, width = (size - size % 2 for size in images[0].shape[:2])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / 'video.webm'
        with _quiet():
            writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*'VP80'), rate, (width, height))
        if not writer.isOpened():
            raise RecordError('this OpenCV cannot write WebM (VP8) video')
        for image in images:
            writer.write(image[:height, :width])
        writer.release()
        return file.read_bytes()


def film_strip(frames: Sequence[bytes]) -> bytes:
    """Pictures from the first to the last frame (JPEG) side by side, as PNG; empty without frames."""
    import cv2
    import numpy as np

    if not frames:
        return b''
    chosen = [frames[round(k * (len(frames) - 1) / (_STRIP_PICTURES - 1))] for k in range(_STRIP_PICTURES)]
    pictures = []
    for image in _images(chosen):
        height = round(image.shape[0] * _STRIP_WIDTH / image.shape[1])
        pictures.append(cv2.resize(image, (_STRIP_WIDTH, height), interpolation=cv2.INTER_AREA))
        pictures.append(np.full((height, 4, 3), 255, np.uint8))
    ok, data = cv2.imencode('.png', np.hstack(pictures[:-1])) if pictures else (False, b'')
    return data.tobytes() if ok else b''


def _images(frames: Sequence[bytes]) -> Iterator:
    """Decoded frames (height, width, 3) bgr; those that are no pictures are left out."""
    import cv2
    import numpy as np

    for frame in frames:
        image = cv2.imdecode(np.frombuffer(frame, np.uint8), cv2.IMREAD_COLOR)
        if image is not None:
            yield image


@contextmanager
def _quiet():
    """Keep the terminal free of OpenCV's remark that WebM has no tag for VP8, which it then writes all the same."""
    terminal = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        os.close(nowhere)
