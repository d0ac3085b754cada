"""Observations (dictionaries of arrays) to and from enpire_msgs/Observation."""

from __future__ import annotations

import array
from typing import Mapping

import numpy as np

from enpire_msgs.msg import NamedArray, Observation

_KINDS = 'biuf'     # of numpy: truth values, whole numbers, floating point; nothing that has to be unpickled


class ObservationError(ValueError):
    """A message that is no dictionary of arrays; the message says why."""


def observation_message(observation: Mapping[str, np.ndarray]) -> Observation:
    """The arrays of an observation; header and step are left to the caller."""
    return Observation(arrays=[_named(name, np.asarray(values)) for name, values in observation.items()])


def read_observation(message: Observation) -> dict[str, np.ndarray]:
    """The arrays by name, each its own copy. Raises ObservationError."""
    return {entry.name: _array(entry) for entry in message.arrays}


def _named(name: str, values: np.ndarray) -> NamedArray:
    if values.dtype.kind not in _KINDS:
        raise ObservationError(f"observation '{name}' is of type {values.dtype}; expected numbers")
    data = array.array('B')
    data.frombytes(np.ascontiguousarray(values, values.dtype.newbyteorder('<')).tobytes())
    return NamedArray(name=name, dtype=values.dtype.name, shape=values.shape, data=data)


def _array(entry: NamedArray) -> np.ndarray:
    try:
        dtype = np.dtype(entry.dtype)
        if dtype.kind not in _KINDS:
            raise TypeError(f'type {entry.dtype}')
        values = np.frombuffer(memoryview(entry.data), dtype.newbyteorder('<')).reshape(tuple(entry.shape))
    except (TypeError, ValueError) as error:
        raise ObservationError(f"observation '{entry.name}' is no array: {error}") from error
    return values.astype(dtype)
