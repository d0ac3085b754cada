"""The records of one trial: `started.json` first, `episode.mcap`, `policy.log`, and `trial.json` last.

episode.mcap is an ordinary rosbag2-readable MCAP file: ROS 2 message definitions, CDR, one channel a topic.
`policy/steps` holds one JSON text a policy step: step, observation, action, target sent, and where the target came
from (`source`: "policy", "hold_late", "hold_malformed").
"""

from __future__ import annotations

import json
import math
import os
import queue
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

import numpy as np
from mcap.reader import make_reader
from mcap.writer import CompressionType, Writer

from enpire_agent.durable_file import disk_full_explained, sync_directory, without_nan, write_json_durably
from enpire_bringup.configuration import ConfigurationError

STARTED, RESULT, EPISODE, POLICY_LOG = 'started.json', 'trial.json', 'episode.mcap', 'policy.log'
STEPS_TOPIC = 'policy/steps'
JPEG_QUALITY = 75
FRAME_WIDTH = 400          # pixels; wider frames are scaled down by a whole number, which is cheap
FRAME_PERIOD_NS = 95_000_000   # a little less than 0.1 s, so that 10 Hz come through a 30 Hz camera
_QUEUE_LENGTH = 4000
_SEPARATOR = '=' * 80
_PRIMITIVES = {'bool', 'byte', 'char', 'float32', 'float64', 'int8', 'uint8', 'int16', 'uint16', 'int32', 'uint32',
               'int64', 'uint64', 'string', 'wstring'}


class RecordError(RuntimeError):
    """A record cannot be written or read."""


def write_started(directory: Path, started: dict) -> None:
    """The first file of a trial, on disk before anything moves: a trial that has it cannot vanish."""
    with disk_full_explained(directory):
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir()
        sync_directory(directory.parent)
    write_json_durably(directory / STARTED, started)


def write_result(directory: Path, result: dict) -> None:
    """The last file of a trial; a folder without it is not complete."""
    write_json_durably(directory / RESULT, result)


def read_result(directory: Path | str) -> dict:
    """trial.json of a trial's folder. Raises ConfigurationError naming it when the trial was not completed."""
    file = Path(directory) / RESULT
    try:
        return json.loads(file.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f'{file}: no result of a completed trial there ({error})') from error


def message_definition(type_name: str) -> str:
    """The text of a message definition such as "sensor_msgs/msg/JointState" with all it is made of ("ros2msg").

    Raises RecordError when the package is not installed with its definitions.
    """
    sections: list[str] = []
    waiting, seen = [_short(type_name)], set()
    while waiting:
        name = waiting.pop(0)
        if name in seen:
            continue
        seen.add(name)
        text = _definition_file(name).read_text(encoding='utf-8')
        sections.append(text if not sections else f'{_SEPARATOR}\nMSG: {name}\n{text}')
        waiting += _parts(text, package=name.split('/')[0])
    return '\n'.join(section.rstrip('\n') + '\n' for section in sections)


def _short(type_name: str) -> str:
    package, *_, name = type_name.split('/')
    return f'{package}/{name}'


def _definition_file(name: str) -> Path:
    from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

    package, message = name.split('/')
    try:
        file = Path(get_package_share_directory(package)) / 'msg' / f'{message}.msg'
    except PackageNotFoundError as error:
        raise RecordError(f'no package {package}, so its messages cannot be recorded') from error
    if not file.is_file():
        raise RecordError(f'{file} is not installed, so {name} cannot be recorded')
    return file


def _parts(text: str, package: str) -> list[str]:
    """Message types that a definition is made of, as "package/Name"."""
    parts = []
    for line in text.splitlines():
        words = line.split('#')[0].split()
        if len(words) < 2 or '=' in words[1] or (len(words) > 2 and words[2].startswith('=')):
            continue
        base = words[0].split('[')[0].split('<')[0]
        if base and base not in _PRIMITIVES:
            parts.append(base if '/' in base else ('std_msgs/Header' if base == 'Header' else f'{package}/{base}'))
    return parts


class EpisodeRecorder:
    """Writes episode.mcap in a thread of its own, so that the policy's steps do not wait for the disk.

    Stamps are ROS time in nanoseconds. `close` finishes the file; it appears under its name only then.
    """

    def __init__(self, directory: Path):
        self._part = directory / f'{EPISODE}.part'
        self._file = directory / EPISODE
        self._queue: queue.Queue = queue.Queue(_QUEUE_LENGTH)
        self._channels: dict[str, int] = {}
        self._stream = open(self._part, 'wb')
        self._writer = Writer(self._stream, compression=CompressionType.LZ4)
        self._writer.start(profile='ros2', library='enpire')
        self._last_frame: dict[str, int] = {}
        self._error: Exception | None = None
        self.dropped = 0
        self._thread = threading.Thread(target=self._work, name='episode recorder', daemon=True)
        self._thread.start()

    def message(self, topic: str, message, stamp: int) -> None:
        """Record a ROS message, or its CDR bytes given as (type name, bytes)."""
        self._put((topic, message, stamp))

    def step(self, content: dict, stamp: int) -> None:
        """Record one policy step."""
        from std_msgs.msg import String

        self.message(STEPS_TOPIC, String(data=json.dumps(without_nan(content), separators=(',', ':'))), stamp)

    def wants_frame(self, topic: str, stamp: int) -> bool:
        """Whether a camera image of `stamp` is due; the caller then hands it over with `frame`."""
        return stamp - self._last_frame.get(topic, -FRAME_PERIOD_NS) >= FRAME_PERIOD_NS

    def frame(self, topic: str, image: np.ndarray, frame_id: str, stamp: int) -> None:
        """Record an image (height, width, 3) rgb as sensor_msgs/CompressedImage."""
        self._last_frame[topic] = stamp
        self._put((topic, (image, frame_id), stamp))

    def close(self, timeout: float = 10.0) -> None:
        """Finish the file. Raises RecordError when it could not be written, within `timeout` s of wall time."""
        try:
            self._queue.put(None, timeout=timeout)
        except queue.Full:
            pass
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise RecordError(f'{self._file}: not written within {timeout} s; is the disk busy?')
        if self._error is not None:
            raise RecordError(f'{self._file}: could not be written: {self._error}') from self._error
        os.replace(self._part, self._file)

    def _put(self, entry) -> None:
        try:
            self._queue.put_nowait(entry)
        except queue.Full:
            self.dropped += 1

    def _work(self) -> None:
        try:
            while (entry := self._queue.get()) is not None:
                if self._error is None:
                    self._write(*entry)
            self._writer.finish()
            self._stream.flush()
            os.fsync(self._stream.fileno())
        except Exception as error:
            self._error = self._error or error
        finally:
            self._stream.close()

    def _write(self, topic: str, message, stamp: int) -> None:
        from rclpy.serialization import serialize_message

        try:
            if isinstance(message, tuple) and isinstance(message[0], np.ndarray):
                message = _compressed(message[0], message[1], stamp)
            if isinstance(message, tuple):
                type_name, data = message
            else:
                type_name, data = _type_name(message), serialize_message(message)
            if topic not in self._channels:
                schema = self._writer.register_schema(
                    name=type_name, encoding='ros2msg', data=message_definition(type_name).encode())
                self._channels[topic] = self._writer.register_channel(
                    topic=topic, message_encoding='cdr', schema_id=schema)
            self._writer.add_message(self._channels[topic], log_time=stamp, publish_time=stamp, data=data)
        except Exception as error:
            self._error = error


def _type_name(message) -> str:
    package, kind, *_ = type(message).__module__.split('.')
    return f'{package}/{kind}/{type(message).__name__}'


def _compressed(image: np.ndarray, frame_id: str, stamp: int):
    import cv2
    from sensor_msgs.msg import CompressedImage

    height, width = image.shape[:2]
    factor = -(-width // FRAME_WIDTH)
    if factor > 1:
        image = cv2.resize(image, (width // factor, height // factor), interpolation=cv2.INTER_AREA)
    ok, data = cv2.imencode('.jpg', cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not ok:
        raise RecordError('OpenCV cannot encode the image as JPEG')
    message = CompressedImage(format='rgb8; jpeg compressed bgr8')
    message.header.frame_id = frame_id
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 1_000_000_000)
    message.data.frombytes(data.tobytes())
    return message


@dataclass(frozen=True)
class Frame:
    """One recorded camera image: seconds of ROS time and JPEG bytes."""

    time: float
    jpeg: bytes


def read_frames(directory: Path | str, topic_end: str = 'image_raw/compressed') -> Iterator[Frame]:
    """The camera frames of a trial in their order; needs no ROS.

    Raises RecordError when the trial has no episode.mcap.
    """
    file = Path(directory) / EPISODE
    try:
        with open(file, 'rb') as stream:
            for _, channel, message in make_reader(stream).iter_messages():
                if channel.topic.endswith(topic_end):
                    yield Frame(message.log_time * 1e-9, _jpeg_of(message.data))
    except OSError as error:
        raise RecordError(f'{file}: cannot be read ({error.strerror})') from error


def policy_start(directory: Path | str) -> float:
    """Seconds of ROS time of the policy's first step; -inf when it did not run. Raises RecordError as read_frames."""
    file = Path(directory) / EPISODE
    try:
        with open(file, 'rb') as stream:
            for _, _, message in make_reader(stream).iter_messages(topics=[STEPS_TOPIC]):
                return message.log_time * 1e-9
    except OSError as error:
        raise RecordError(f'{file}: cannot be read ({error.strerror})') from error
    return -math.inf


def _jpeg_of(cdr: bytes) -> bytes:
    """The data of a serialized sensor_msgs/CompressedImage: its JPEG begins with FF D8 FF and runs to the end."""
    start = cdr.find(b'\xff\xd8\xff')
    if start < 0:
        raise RecordError('a recorded image is not JPEG')
    return cdr[start:]


def read_steps(directory: Path | str) -> Iterator[dict]:
    """The policy steps of a trial (see the module's text); needs no ROS."""
    file = Path(directory) / EPISODE
    try:
        with open(file, 'rb') as stream:
            for _, channel, message in make_reader(stream).iter_messages(topics=[STEPS_TOPIC]):
                # CDR of a string: 4 bytes of encapsulation, 4 of length, the text, a zero.
                length = int.from_bytes(message.data[4:8], 'little')
                yield json.loads(message.data[8:8 + length - 1])
    except OSError as error:
        raise RecordError(f'{file}: cannot be read ({error.strerror})') from error
