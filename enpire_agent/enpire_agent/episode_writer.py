"""Writes a trial's episode.mcap in the calling process. No ROS: messages come and go as CDR bytes."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
from mcap.writer import CompressionType, Writer

from enpire_agent.durable_file import disk_full_explained, sync_directory
from enpire_agent.message_definition import message_definition
from enpire_agent.recorded_messages import compressed_image, step_message
from enpire_agent.trial_record import EPISODE, STEPS_TOPIC, RecordError
from enpire_bringup.image_messages import read_serialized_image

JPEG_QUALITY = 75
FRAME_WIDTH = 400          # pixels; wider frames are scaled down by a whole number, which is cheap


class EpisodeWriter:
    """One episode.mcap; it appears under its name when `close` has finished it.

    Stamps are ROS time in ns. Every method may raise OSError or RecordError; `discard` then leaves nothing behind.
    """

    def __init__(self, directory: Path | str):
        self._file = Path(directory) / EPISODE
        self._part = self._file.with_name(f'{EPISODE}.part')
        self._channels: dict[str, int] = {}
        self._stream = open(self._part, 'wb')
        self._writer = Writer(self._stream, compression=CompressionType.LZ4)
        self._writer.start(profile='ros2', library='enpire')

    def message(self, topic: str, type_name: str, cdr: bytes, stamp: int) -> None:
        """Record a message, e.g. of type "sensor_msgs/msg/JointState"."""
        channel = self._channels.get(topic)
        if channel is None:
            schema = self._writer.register_schema(name=type_name, encoding='ros2msg',
                                                  data=message_definition(type_name).encode())
            channel = self._channels[topic] = self._writer.register_channel(
                topic=topic, message_encoding='cdr', schema_id=schema)
        self._writer.add_message(channel, log_time=stamp, publish_time=stamp, data=cdr)

    def step(self, content: dict, stamp: int) -> None:
        """Record one policy step, see trial_record.py."""
        self.message(STEPS_TOPIC, 'std_msgs/msg/String', step_message(content), stamp)

    def image(self, topic: str, cdr: bytes) -> None:
        """Record a serialized sensor_msgs/Image as sensor_msgs/CompressedImage. Raises ImageMessageError."""
        stamp, frame_id, image = read_serialized_image(cdr, 'rgb8')
        self.frame(topic, image, frame_id, stamp)

    def frame(self, topic: str, image: np.ndarray, frame_id: str, stamp: int) -> None:
        """Record an image (height, width, 3) uint8 rgb as sensor_msgs/CompressedImage."""
        height, width = image.shape[:2]
        factor = -(-width // FRAME_WIDTH)
        if factor > 1:
            image = cv2.resize(image, (width // factor, height // factor), interpolation=cv2.INTER_AREA)
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        ok, jpeg = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        if not ok:
            raise RecordError('OpenCV cannot encode the image as JPEG')
        self.message(topic, 'sensor_msgs/msg/CompressedImage', compressed_image(jpeg.tobytes(), frame_id, stamp), stamp)

    def close(self) -> None:
        """Finish the file, on disk when this returns."""
        with disk_full_explained(self._file):
            self._writer.finish()
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._stream.close()
            os.replace(self._part, self._file)
            sync_directory(self._file.parent)

    def discard(self) -> None:
        """Give up: what was written so far goes, and with it the room that it took."""
        try:
            self._stream.close()
        except OSError:
            pass      # of what was not written yet
        self._part.unlink(missing_ok=True)
