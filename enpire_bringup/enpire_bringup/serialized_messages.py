"""Messages as they travel (CDR), for what comes a hundred times a second: no Python message objects in between."""

from __future__ import annotations

import struct
from typing import Sequence

import numpy as np

SECOND = 1_000_000_000
_LITTLE_ENDIAN = 1         # second byte of the encapsulation: plain CDR, as every ROS middleware on a PC sends it
_STAMP = struct.Struct('<iI')
_COUNT = struct.Struct('<I')
_BODY = 4                  # bytes of encapsulation; alignment counts from there


def is_plain(cdr: bytes) -> bool:
    """Whether a serialized message has its low bytes first, which all but exotic senders do."""
    return cdr[1] == _LITTLE_ENDIAN


def stamp_of(cdr: bytes) -> int:
    """header.stamp in ns of a serialized message that begins with a std_msgs/Header."""
    seconds, nanoseconds = (_STAMP.unpack_from(cdr, _BODY) if cdr[1] & 1 else struct.unpack_from('>iI', cdr, _BODY))
    return seconds * SECOND + nanoseconds


class JointStateWriter:
    """Serializes sensor_msgs/JointState messages of the same joints: only stamp and numbers are written anew."""

    def __init__(self, names: Sequence[str]):
        from rclpy.serialization import serialize_message
        from sensor_msgs.msg import JointState

        zeros = [0.0] * len(names)
        template = serialize_message(JointState(name=list(names), position=zeros, velocity=zeros, effort=zeros))
        if not is_plain(template):
            raise RuntimeError('this machine serializes messages with the high byte first, which is not supported')
        self._buffer = bytearray(template)
        self._blocks = [slice(start, start + block.size) for block, start in _Layout(template).blocks]

    def write(self, stamp_ns: int, position: np.ndarray, velocity: np.ndarray, effort: np.ndarray) -> bytes:
        """The message, for `Publisher.publish`. Arrays (n,) float64 in the order of the names."""
        buffer = self._buffer
        _STAMP.pack_into(buffer, _BODY, *divmod(stamp_ns, SECOND))
        for block, values in zip(self._blocks, (position, velocity, effort)):
            buffer[block] = values.tobytes()
        return bytes(buffer)


class ImageWriter:
    """Serializes sensor_msgs/Image messages of one camera."""

    def __init__(self, frame_id: str, height: int, width: int, encoding: str):
        from rclpy.serialization import serialize_message
        from sensor_msgs.msg import Image

        from enpire_bringup.image_messages import ENCODINGS, fill_image

        dtype, channels = ENCODINGS[encoding]
        message = Image()
        message.header.frame_id = frame_id
        self._shape = (height, width) + ((channels,) if channels > 1 else ())
        self._dtype = np.dtype(dtype)
        empty = np.zeros(self._shape, dtype)
        fill_image(message, empty, encoding)
        serialized = serialize_message(message)
        # The pixels come last, but for bytes that align the end.
        start = serialized.rindex(struct.pack('=I', empty.nbytes)) + _COUNT.size
        self._head = bytearray(serialized[:start])
        self._tail = serialized[start + empty.nbytes:]

    def write(self, stamp_ns: int, image: np.ndarray) -> bytes:
        """The message, for `Publisher.publish`. Raises ValueError for an image of another shape or type."""
        if image.shape != self._shape or image.dtype != self._dtype:
            raise ValueError(f'image of shape {image.shape} and type {image.dtype}; expected {self._shape} and '
                             f'{self._dtype}')
        _STAMP.pack_into(self._head, _BODY, *divmod(stamp_ns, SECOND))
        return b''.join((self._head, np.ascontiguousarray(image).data.cast('B'), self._tail))


_NUMBERS = struct.Struct('<4xIII4x')     # of a Float64MultiArray: no dimensions, no offset, how many numbers


def write_numbers(values: np.ndarray) -> bytes:
    """A serialized std_msgs/Float64MultiArray with `values` (n,) float64, n > 0, and no layout."""
    head = bytearray(_NUMBERS.pack(0, 0, len(values)))
    head[1] = _LITTLE_ENDIAN
    return bytes(head) + values.astype('<f8', copy=False).tobytes()


def read_numbers(cdr: bytes) -> np.ndarray:
    """The numbers (n,), read-only, of what `write_numbers` wrote. Raises ValueError for another message."""
    if len(cdr) < _NUMBERS.size or not is_plain(cdr):
        raise ValueError(f'a message of {len(cdr)} bytes is no std_msgs/Float64MultiArray without layout')
    dimensions, offset, count = _NUMBERS.unpack_from(cdr)
    if dimensions or offset or len(cdr) < _NUMBERS.size + 8 * count:
        raise ValueError(f'std_msgs/Float64MultiArray with {dimensions} dimensions and {count} numbers in {len(cdr)} '
                         'bytes; expected numbers alone')
    return np.frombuffer(cdr, '<f8', count, _NUMBERS.size)


class JointStateReader:
    """Reads serialized sensor_msgs/JointState messages: names and layout are looked at only when they change."""

    def __init__(self):
        self._layout: _Layout | None = None
        self._names: tuple[str, ...] = ()

    def read(self, cdr: bytes) -> tuple[int, tuple[str, ...], tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
        """(stamp in ns, names, positions, velocities, efforts); an array that was left empty is ().

        `names` is the same object until the names change. Raises ValueError for what is no JointState.
        """
        if not is_plain(cdr):
            return self._read_otherwise(cdr)
        if self._layout is None or not self._layout.fits(cdr):
            self._layout = _Layout(cdr)
            self._remember(self._layout.names)
        seconds, nanoseconds = _STAMP.unpack_from(cdr, _BODY)
        position, velocity, effort = [block.unpack_from(cdr, start) for block, start in self._layout.blocks]
        return seconds * SECOND + nanoseconds, self._names, position, velocity, effort

    def _remember(self, names: tuple[str, ...]) -> None:
        if names != self._names:
            self._names = names

    def _read_otherwise(self, cdr: bytes):
        from rclpy.serialization import deserialize_message
        from sensor_msgs.msg import JointState

        message = deserialize_message(cdr, JointState)
        stamp = message.header.stamp
        self._remember(tuple(message.name))
        return (stamp.sec * SECOND + stamp.nanosec, self._names, tuple(message.position), tuple(message.velocity),
                tuple(message.effort))


class _Layout:
    """Where the parts of a serialized JointState lie. Raises ValueError for what is none.

    blocks: (format, offset) of positions, velocities and efforts.
    """

    def __init__(self, cdr: bytes):
        self._cdr = cdr
        self._at = _BODY + _STAMP.size
        self._fixed: list[tuple[slice, bytes]] = []     # without the bytes that align: these may hold anything
        try:
            self._string()
            self.names = tuple(self._string() for _ in range(self._count()))
            self.blocks = [self._doubles() for _ in range(3)]
        except (struct.error, UnicodeDecodeError) as error:
            raise ValueError(f'no sensor_msgs/JointState: {error}') from error
        if self._at > len(cdr):
            raise ValueError(f'a sensor_msgs/JointState of {len(cdr)} bytes that says it has {self._at}')
        del self._cdr

    def fits(self, cdr: bytes) -> bool:
        """Whether a message has the same names, and as many numbers in the same places."""
        return len(cdr) >= self._at and all([cdr[part] == content for part, content in self._fixed])

    def _count(self) -> int:
        at = self._align(4)
        self._at += _COUNT.size
        self._keep(at)
        return _COUNT.unpack_from(self._cdr, at)[0]

    def _string(self) -> str:
        size, start = self._count(), self._at
        self._at += size
        if self._at > len(self._cdr):
            raise struct.error(f'a string of {size} bytes in a message of {len(self._cdr)}')
        self._keep(start)
        return self._cdr[start:self._at - 1].decode()

    def _doubles(self) -> tuple[struct.Struct, int]:
        count = self._count()
        block = struct.Struct(f'<{count}d')
        start = self._align(8) if count else self._at
        self._at += block.size
        return block, start

    def _align(self, size: int) -> int:
        self._at += -(self._at - _BODY) % size
        return self._at

    def _keep(self, start: int) -> None:
        self._fixed.append((slice(start, self._at), self._cdr[start:self._at]))
