"""sensor_msgs/Image to and from numpy arrays: the part of cv_bridge that the suite uses."""

from __future__ import annotations

import array
import sys

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


def _encoding(name: str):
    if name not in ENCODINGS:
        raise ImageMessageError(
            f"image encoding '{name}' is not supported; supported: {', '.join(ENCODINGS)}")
    return ENCODINGS[name]
