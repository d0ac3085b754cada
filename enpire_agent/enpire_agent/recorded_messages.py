"""The messages that a recording adds, as they lie in it (CDR): a policy step, a compressed image. No ROS."""

from __future__ import annotations

import json
import struct

import numpy as np

from enpire_agent.durable_file import without_nan

_CDR = b'\0\1\0\0'        # encapsulation: plain CDR, low byte first
_LENGTH = struct.Struct('<I')
_SECOND = 1_000_000_000
MOST_NUMBERS = 1024       # of an array in a step


def step_message(content: dict) -> bytes:
    """A std_msgs/String with `content` as JSON; arrays become lists, to the sixth decimal, and NaN becomes null. Of arrays
    with more than MOST_NUMBERS only the shape is kept: such are recorded as messages of their own."""
    try:
        text = json.dumps(content, separators=(',', ':'), default=_numbers, allow_nan=False)
    except ValueError:
        text = json.dumps(without_nan(json.loads(json.dumps(content, default=_numbers))), separators=(',', ':'))
    return _CDR + _text(text)


def _numbers(array: np.ndarray) -> list[float] | dict:
    if array.size > MOST_NUMBERS:
        return {'shape': list(array.shape)}
    return [round(float(value), 6) for value in array.ravel().tolist()]


def step_of(message: bytes) -> dict:
    """What `step_message` was given."""
    length, = _LENGTH.unpack_from(message, len(_CDR))
    return json.loads(message[8:8 + length - 1])


def compressed_image(jpeg: bytes, frame_id: str, stamp: int) -> bytes:
    """A sensor_msgs/CompressedImage of a color image; stamp in ns."""
    message = struct.pack('<iI', *divmod(stamp, _SECOND))
    for text in (frame_id, 'rgb8; jpeg compressed bgr8'):
        message = _aligned(message) + _text(text)
    return _CDR + _aligned(message) + _LENGTH.pack(len(jpeg)) + jpeg


def jpeg_of(message: bytes) -> bytes:
    """The data of a serialized sensor_msgs/CompressedImage; empty when it is no JPEG."""
    start = message.find(b'\xff\xd8\xff')      # a JPEG begins so, and runs to the end
    return message[start:] if start >= 0 else b''


def _text(text: str) -> bytes:
    data = text.encode() + b'\0'
    return _LENGTH.pack(len(data)) + data


def _aligned(message: bytes) -> bytes:
    return message + bytes(-len(message) % 4)
