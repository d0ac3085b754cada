"""video.mp4 of a trial, from its recording: the policy's part, at its own speed, for any browser.

VP9 in MP4, which Chrome, Edge, Firefox and Safari (from 14 on) play; OpenCV's wheel brings the encoder. It takes about
8 ms of CPU time a frame, so nothing waits for it: the recording process makes it after the trial when the machine has
time, and who wants one that is not there yet makes it with `video_of`. episode.mcap has the frames in their full size.
"""

from __future__ import annotations

import os
from pathlib import Path

from enpire_agent.durable_file import sync_directory
from enpire_agent.trial_record import RecordError, policy_start, read_frames

VIDEO = 'video.mp4'
RATE = 10.0             # frames a second, as they are recorded while the policy runs
LEAD_IN = 0.5           # s before the policy's first step
MOST_FRAMES = 1200      # two minutes
MOST_PIXELS = 480       # on a side; the encoder's time beside the next trial grows with the area


def video_of(directory: Path | str) -> Path | None:
    """The video of a trial; made now when it is not there. None when nothing of it was filmed.

    Raises RecordError when the trial was not recorded, or the video cannot be made.
    """
    file = Path(directory) / VIDEO
    return file if file.is_file() else make_video(directory)


def make_video(directory: Path | str) -> Path | None:
    """Make the video anew; it appears whole. As `video_of` otherwise."""
    import cv2
    import numpy as np

    file = Path(directory) / VIDEO
    part = file.with_name(f'.{os.getpid()}.part.mp4')
    start = policy_start(directory) - LEAD_IN
    writer, size, written = None, (0, 0), 0
    try:
        for frame in read_frames(directory):
            image = cv2.imdecode(np.frombuffer(frame.jpeg, np.uint8), cv2.IMREAD_COLOR) if frame.jpeg else None
            if frame.time < start or image is None:
                continue
            if writer is None:
                size = _size(*image.shape[1::-1])
                writer = _open(part, size)
            if image.shape[1::-1] != size:
                image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            writer.write(image)
            written += 1
            if written == MOST_FRAMES:
                break
        if writer is None:
            return None
        writer.release()
        _publish(part, file, written)
        return file
    finally:
        if writer is not None:
            writer.release()
        part.unlink(missing_ok=True)


def _size(width: int, height: int) -> tuple[int, int]:
    """Width and height of the video of such frames, even for the encoder."""
    scale = min(1.0, MOST_PIXELS / max(width, height))
    return tuple(int(length * scale) // 2 * 2 for length in (width, height))


def _open(part: Path, size: tuple[int, int]):
    import cv2

    os.environ.setdefault('OPENCV_FFMPEG_THREADS', '1')
    writer = cv2.VideoWriter(str(part), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*'vp09'), RATE, size)
    if not writer.isOpened():
        raise RecordError(f'{part.parent}: OpenCV cannot write {VIDEO} there (VP9); is the disk full?')
    return writer


def _publish(part: Path, file: Path, frames: int) -> None:
    """Give the video its name when it is all there: OpenCV does not say that the disk was full."""
    import cv2

    reader = cv2.VideoCapture(str(part), cv2.CAP_FFMPEG)
    found = int(reader.get(cv2.CAP_PROP_FRAME_COUNT))
    reader.release()
    if found != frames:
        raise RecordError(f'{file}: {found} of {frames} frames were written; is the disk full?')
    with open(part, 'rb') as stream:
        os.fsync(stream.fileno())
    os.replace(part, file)
    sync_directory(file.parent)
