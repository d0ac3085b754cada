"""Frames between a station and a program in a child process: a JSON header and the raw bytes of numpy arrays.

A frame is `<I` length of the header, the header (UTF-8 JSON), then the arrays' bytes one after the other.
Nothing is unpickled or evaluated, and every size is checked before memory is taken, so a frame from a program
that nobody trusts can be read.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np

MAX_HEADER = 1 << 20        # bytes
MAX_ARRAYS = 64 << 20       # bytes, all arrays of a frame together
_LENGTH = struct.Struct('<I')
_ARRAY = '__array__'
_DTYPES = {np.dtype(code).str for code in '?bBhHiIqQefd'}


class FrameError(ValueError):
    """A frame cannot be written or read; the message says why."""


def encode(header: dict, value: Any) -> bytes:
    """One frame with the fields of `header` and `value` under the key "value".

    value: None, bool, int, float (NaN and infinity too), str, lists, tuples (which arrive as lists), dicts
    with text keys, numpy scalars, and numeric numpy arrays of any shape.
    Raises FrameError for anything else, naming its type.
    """
    arrays: list[np.ndarray] = []
    body = {**header, 'value': _plain(value, arrays, 0),
            'arrays': [{'dtype': array.dtype.str, 'shape': array.shape} for array in arrays]}
    text = json.dumps(body).encode()
    if len(text) > MAX_HEADER:
        raise FrameError(f'{len(text)} bytes of values besides arrays; at most {MAX_HEADER}')
    if sum(array.nbytes for array in arrays) > MAX_ARRAYS:
        raise FrameError(f'{sum(array.nbytes for array in arrays)} bytes of arrays; at most {MAX_ARRAYS}')
    return b''.join((_LENGTH.pack(len(text)), text, *(array.tobytes() for array in arrays)))


def _plain(value: Any, arrays: list[np.ndarray], depth: int) -> Any:
    if depth > 32:
        raise FrameError('values nested deeper than 32 levels')
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.ndarray):
        if value.dtype.newbyteorder('<').str not in _DTYPES:
            raise FrameError(f'an array of {value.dtype}, which cannot be sent; make it numeric')
        arrays.append(np.ascontiguousarray(value, dtype=value.dtype.newbyteorder('<')).reshape(value.shape))
        return {_ARRAY: len(arrays) - 1}
    if isinstance(value, np.generic):
        return _plain(value.item(), arrays, depth + 1)
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise FrameError(f'a dict with the key {key!r}; keys must be texts')
        return {key: _plain(entry, arrays, depth + 1) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry, arrays, depth + 1) for entry in value]
    raise FrameError(f'a {type(value).__name__}, which cannot be sent; '
                     'use numbers, texts, lists, dicts, arrays')


class FrameReader:
    """Takes bytes as they come and gives back whole frames.

    Raises FrameError from `next` when the bytes are no frame; the stream is then of no further use.
    """

    def __init__(self):
        self._buffer = bytearray()
        self._header: dict | None = None
        self._size = 0          # bytes of the whole frame once its header is known
        self._offset = 0        # where its arrays begin

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next(self) -> dict | None:
        """The next whole frame (header fields and "value"), or None until more bytes came."""
        if self._header is None and not self._read_header():
            return None
        if len(self._buffer) < self._size:
            return None
        frame, self._header = self._header, None
        arrays, offset = [], self._offset
        for dtype, shape, size in frame.pop('arrays'):
            # bytearray slices are copies: the array owns its memory and may be written to.
            arrays.append(np.frombuffer(self._buffer[offset:offset + size], dtype=dtype).reshape(shape))
            offset += size
        del self._buffer[:self._size]
        try:
            frame['value'] = _restored(frame.get('value'), arrays)
        except RecursionError as error:
            raise FrameError('values nested too deep') from error
        return frame

    def _read_header(self) -> bool:
        if len(self._buffer) < _LENGTH.size:
            return False
        length, = _LENGTH.unpack_from(self._buffer)
        if length > MAX_HEADER:
            raise FrameError(f'a header of {length} bytes; at most {MAX_HEADER}')
        if len(self._buffer) < _LENGTH.size + length:
            return False
        try:
            header = json.loads(self._buffer[_LENGTH.size:_LENGTH.size + length])
            header['arrays'] = [_array_shape(entry) for entry in header['arrays']]
        except FrameError:
            raise
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise FrameError(f'a header that is no frame ({type(error).__name__}: {error})') from error
        total = sum(size for _, _, size in header['arrays'])
        if total > MAX_ARRAYS:
            raise FrameError(f'{total} bytes of arrays; at most {MAX_ARRAYS}')
        self._header = header
        self._offset = _LENGTH.size + length
        self._size = self._offset + total
        return True


def _array_shape(entry: dict) -> tuple[str, tuple[int, ...], int]:
    dtype, shape = entry['dtype'], entry['shape']
    if dtype not in _DTYPES:
        raise FrameError(f'an array of {dtype!r}')
    if len(shape) > 8 or not all(type(n) is int and 0 <= n <= MAX_ARRAYS for n in shape):
        raise FrameError(f'an array of shape {shape}')
    size = np.dtype(dtype).itemsize
    for n in shape:
        size *= n
    return dtype, tuple(shape), size


def _restored(value: Any, arrays: list[np.ndarray]) -> Any:
    if isinstance(value, dict):
        if len(value) == 1 and _ARRAY in value:
            index = value[_ARRAY]
            if type(index) is not int or not 0 <= index < len(arrays):
                raise FrameError(f'array {index!r} of {len(arrays)}')
            return arrays[index]
        return {key: _restored(entry, arrays) for key, entry in value.items()}
    if isinstance(value, list):
        return [_restored(entry, arrays) for entry in value]
    return value
