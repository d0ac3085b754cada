"""sensor_msgs/Image to and from numpy arrays: the part of cv_bridge that the suite uses."""

from __future__ import annotations

import array
import struct
import sys
from types import SimpleNamespace

import numpy as np

# encoding -> (numpy type, channels)
ENCODINGS = {
    'rgb8': (np.uint8, 3),
    'bgr8': (np.uint8, 3),
    'mono8': (np.uint8, 1),
    '16UC1': (np.uint16, 1),
    '32FC1': (np.float32, 1),
}


class ImageMessageError(ValueError):
    """An image message contradicts itself, or has an encoding that is not supported here."""


def fill_image(message, image: np.ndarray, encoding: str) -> None:
    """Put `image`, (height, width) or (height, width, 3), into a sensor_msgs/Image; leaves its header alone.

    Raises ImageMessageError when shape or type do not fit the encoding.
    """
    dtype, channels = _encoding(encoding)
    shape = (3,) if channels == 3 else ()
    if image.ndim != 2 + len(shape) or image.shape[2:] != shape or image.dtype != dtype:
        raise ImageMessageError(
            f'image of shape {image.shape} and type {image.dtype} is no {encoding}; expected '
            f'(height, width{", 3" if channels == 3 else ""}) of {np.dtype(dtype).name}')
    message.height, message.width = image.shape[:2]
    message.encoding = encoding
    message.is_bigendian = int(sys.byteorder == 'big')
    message.step = image.shape[1] * channels * image.itemsize
    data = array.array('B')
    data.frombytes(np.ascontiguousarray(image).data.cast('B'))
    message.data = data


def read_image(message, encoding: str | None = None) -> np.ndarray:
    """The pixels of a sensor_msgs/Image: (height, width) or (height, width, 3), read-only where possible.

    encoding: what the caller needs; rgb8 and bgr8 are converted into each other, None takes it as it comes.
    Raises ImageMessageError naming what is wrong.
    """
    dtype, channels = _encoding(message.encoding)
    height, width, step = message.height, message.width, message.step
    row = width * channels * np.dtype(dtype).itemsize
    if height < 1 or width < 1 or step < row or step % np.dtype(dtype).itemsize:
        raise ImageMessageError(f'{message.encoding} image of {width}x{height} has a step of {step} bytes; '
                                f'expected at least {row}')
    if len(message.data) != height * step:
        raise ImageMessageError(f'{message.encoding} image of {width}x{height} with step {step} has '
                                f'{len(message.data)} bytes; expected {height * step}')
    order = '>' if message.is_bigendian else '<'
    rows = np.frombuffer(memoryview(message.data), np.dtype(dtype).newbyteorder(order)).reshape(height, -1)
    rows = rows[:, :width * channels]
    image = rows.reshape(height, width, 3) if channels == 3 else rows
    image = image.astype(dtype, copy=False)
    if encoding is None or encoding == message.encoding:
        return image
    if {encoding, message.encoding} == {'rgb8', 'bgr8'}:
        return np.ascontiguousarray(image[:, :, ::-1])
    raise ImageMessageError(f"image is {message.encoding}; expected {encoding}")


def read_serialized_image(cdr: bytes, encoding: str | None = None) -> tuple[int, str, np.ndarray]:
    """(stamp in ns, frame, pixels) of a serialized sensor_msgs/Image, without a message object or a copy in between.

    encoding: as of `read_image`. Raises ImageMessageError.
    """
    order = '<' if cdr[1:2] == b'\1' else '>'
    at = 4      # alignment counts from behind the encapsulation, which is as long as the alignment

    def numbers(count: int) -> tuple[int, ...]:
        nonlocal at
        at += -at % 4 + 4 * count
        return struct.unpack_from(f'{order}{count}I', cdr, at - 4 * count)

    def text() -> str:
        nonlocal at
        size, = numbers(1)
        at += size
        if at > len(cdr):
            raise ValueError(f'a text of {size} bytes')
        return cdr[at - size:at - 1].decode()

    try:
        seconds, nanoseconds = numbers(2)
        frame_id = text()
        height, width = numbers(2)
        name = text()
        big_endian, at = cdr[at], at + 1
        step, size = numbers(2)
    except (struct.error, ValueError, IndexError) as error:
        raise ImageMessageError(f'{len(cdr)} bytes that are no sensor_msgs/Image ({error})') from error
    image = read_image(SimpleNamespace(encoding=name, height=height, width=width, step=step, is_bigendian=big_endian,
                                       data=memoryview(cdr)[at:at + size]), encoding)
    return seconds * 1_000_000_000 + nanoseconds, frame_id, image


def _encoding(name: str):
    if name not in ENCODINGS:
        raise ImageMessageError(
            f"image encoding '{name}' is not supported; supported: {', '.join(ENCODINGS)}")
    return ENCODINGS[name]
