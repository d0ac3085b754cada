"""enpire_msgs/ObjectPose as it travels (CDR): one comes with each camera image, and several nodes read it.

A Python message object with its 36 covariances costs as much as finding the pose in half of an image.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np

from enpire_bringup.serialized_messages import SECOND, is_plain, stamp_of

_BODY = 4                              # bytes of encapsulation; alignment counts from there
_STAMP = struct.Struct('<iI')
_SIZE = struct.Struct('<I')
_FLAGS = struct.Struct('<??')          # visible, occluded
_NUMBERS = struct.Struct('<45d')       # visible_fraction, residual, position, quaternion x y z w, covariance (6, 6)
_READ = struct.Struct('<9d')           # those before the covariance
_PLANAR = np.array([0, 1, 5, 6, 7, 11, 30, 31, 35])     # x, y, yaw by x, y, yaw in the covariance


@dataclass(frozen=True)
class PoseReading:
    """What an ObjectPose says of an object on the table. stamp: ns. pose (3,): x, y (m), yaw (rad, -pi to pi)."""

    stamp: int
    object_id: str
    pose: np.ndarray
    visible: bool
    occluded: bool
    visible_fraction: float
    residual: float


class ObjectPoseWriter:
    """Serializes the ObjectPose messages of one object, in the frame "world"."""

    def __init__(self, object_id: str):
        from rclpy.serialization import serialize_message

        from enpire_msgs.msg import ObjectPose

        template = ObjectPose(object_id=object_id)
        template.header.frame_id = 'world'
        self._buffer = bytearray(serialize_message(template))
        _, self._flags, self._numbers = _places(self._buffer)

    def write(self, stamp: int, pose: np.ndarray, covariance: np.ndarray, *, visible: bool, occluded: bool,
              visible_fraction: float, residual: float) -> bytes:
        """The message, for `Publisher.publish`.

        stamp: ns; pose (3,): x, y (m), yaw (rad), with its covariance (3, 3); the other axes have none: the object lies
        on the table.
        """
        buffer = self._buffer
        x, y, yaw = pose.tolist()
        full = np.zeros(36)
        full[_PLANAR] = covariance.ravel()
        _STAMP.pack_into(buffer, _BODY, *divmod(stamp, SECOND))
        _FLAGS.pack_into(buffer, self._flags, visible, occluded)
        _NUMBERS.pack_into(buffer, self._numbers, visible_fraction, residual, x, y, 0.0, 0.0, 0.0, math.sin(yaw / 2),
                           math.cos(yaw / 2), *full.tolist())
        return bytes(buffer)


def read_object_pose(cdr: bytes) -> PoseReading:
    """What a serialized ObjectPose says. Raises ValueError for what is none."""
    if not is_plain(cdr):
        cdr = _as_plain(cdr)
    try:
        name, flags, numbers = _places(cdr)
        visible, occluded = _FLAGS.unpack_from(cdr, flags)
        fraction, residual, x, y, _, qx, qy, qz, qw = _READ.unpack_from(cdr, numbers)
        object_id = bytes(cdr[name]).decode()
    except (struct.error, UnicodeDecodeError) as error:
        raise ValueError(f'no enpire_msgs/ObjectPose: {error}') from error
    yaw = math.atan2(2.0 * (qw * qz + qx * qy), 1.0 - 2.0 * (qy * qy + qz * qz))
    return PoseReading(stamp_of(cdr), object_id, np.array([x, y, yaw]), visible, occluded, fraction, residual)


def _places(cdr) -> tuple[slice, int, int]:
    """Where object_id, the flags and the numbers lie."""
    at = _BODY + _STAMP.size
    at += _SIZE.size + _SIZE.unpack_from(cdr, at)[0]                    # frame_id
    at += -(at - _BODY) % _SIZE.size
    name = at + _SIZE.size
    flags = name + _SIZE.unpack_from(cdr, at)[0]
    numbers = flags + _FLAGS.size
    return slice(name, flags - 1), flags, numbers + -(numbers - _BODY) % 8


def _as_plain(cdr: bytes) -> bytes:
    from rclpy.serialization import deserialize_message, serialize_message

    from enpire_msgs.msg import ObjectPose

    return serialize_message(deserialize_message(cdr, ObjectPose))
