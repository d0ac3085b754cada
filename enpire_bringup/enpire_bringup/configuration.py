"""Reading YAML files into typed values, with errors written for the person who edits the file.

Every error names the file, the key, the value found, what was expected and its unit.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Iterator, Sequence

import yaml


class ConfigurationError(ValueError):
    """A configuration file is missing, unreadable or says something impossible."""


_REQUIRED = object()
# libyaml's reads the same eight times as fast, and every node of a station reads its station and its task.
_LOADER = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)


class Section:
    """One mapping of a YAML file; hands out checked values and remembers which keys were read.

    Call `finish()` when all keys were read: a key nobody asked for is most often a typing error.
    """

    def __init__(self, values: Any, file: Path, key: str = ''):
        self.file = Path(file)
        self.key = key
        if not isinstance(values, dict):
            raise ConfigurationError(
                f'{self.file}: {key or "the file"} must be a mapping of keys to values, '
                f'found {_describe(values)}')
        self._values = values
        self._read: set[str] = set()

    def _path(self, key: str) -> str:
        return f'{self.key}.{key}' if self.key else str(key)

    def error(self, key: str, message: str) -> ConfigurationError:
        """A `ConfigurationError` that names this file and `key`."""
        return ConfigurationError(f'{self.file}: {self._path(key)} {message}')

    def _get(self, key: str, default: Any, expected: str) -> Any:
        self._read.add(key)
        if key in self._values and self._values[key] is not None:
            return self._values[key]
        if default is _REQUIRED:
            raise self.error(key, f'is missing; add it ({expected})')
        return default

    def __contains__(self, key: str) -> bool:
        return self._values.get(key) is not None

    def keys(self) -> list[str]:
        return [str(key) for key in self._values]

    def number(self, key: str, *, low: float = -math.inf, high: float = math.inf, unit: str = '',
               default: Any = _REQUIRED) -> float:
        """A finite float in [low, high]."""
        expected = _expected_number(low, high, unit)
        value = self._get(key, default, expected)
        if value is None:
            return value
        return self._number(key, value, low, high, expected)

    def _number(self, key, value, low, high, expected) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise self.error(key, f'is {_describe(value)}; expected {expected}')
        if not low <= value <= high:
            raise self.error(key, f'is {value}, out of range; expected {expected}')
        return float(value)

    def integer(self, key: str, *, low: int = -2**63, high: int = 2**63 - 1,
                default: Any = _REQUIRED) -> int:
        expected = f'a whole number from {low} to {high}'
        value = self._get(key, default, expected)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error(key, f'is {_describe(value)}; expected {expected}')
        if not low <= value <= high:
            raise self.error(key, f'is {value}, out of range; expected {expected}')
        return value

    def flag(self, key: str, *, default: Any = _REQUIRED) -> bool:
        value = self._get(key, default, 'true or false')
        if not isinstance(value, bool):
            raise self.error(key, f'is {_describe(value)}; expected true or false')
        return value

    def text(self, key: str, *, default: Any = _REQUIRED) -> str:
        value = self._get(key, default, 'a text')
        if value is None:
            return value
        if not isinstance(value, str):
            raise self.error(key, f'is {_describe(value)}; expected a text')
        return value

    def choice(self, key: str, options: Sequence[str], *, default: Any = _REQUIRED) -> str:
        value = self._get(key, default, 'one of ' + ', '.join(options))
        if value not in options:
            raise self.error(key, f'is {_describe(value)}; expected one of ' + ', '.join(options))
        return value

    def vector(self, key: str, length: int | None = None, *, low: float = -math.inf,
               high: float = math.inf, unit: str = '', default: Any = _REQUIRED) -> tuple[float, ...]:
        """A list of finite floats, of `length` entries where given."""
        size = f'{length} numbers' if length is not None else 'numbers'
        expected = f'a list of {size}, each {_expected_number(low, high, unit)}'
        value = self._get(key, default, expected)
        if value is None:
            return value
        if not isinstance(value, (list, tuple)) or (length is not None and len(value) != length):
            raise self.error(key, f'is {_describe(value)}; expected {expected}')
        return tuple(self._number(key, entry, low, high, expected) for entry in value)

    def interval(self, key: str, *, low: float = -math.inf, high: float = math.inf, unit: str = '',
                 default: Any = _REQUIRED) -> tuple[float, float]:
        """[lower, upper] with lower < upper."""
        lower, upper = self.vector(key, 2, low=low, high=high, unit=unit, default=default)
        if not lower < upper:
            raise self.error(key, f'is [{lower}, {upper}]; the first number must be the smaller one')
        return lower, upper

    def points(self, key: str, dimension: int, *, unit: str = '') -> tuple[tuple[float, ...], ...]:
        """A list of points with `dimension` coordinates each."""
        value = self._get(key, _REQUIRED, f'a list of points with {dimension} coordinates')
        if not isinstance(value, list) or not value:
            raise self.error(key, f'is {_describe(value)}; expected a list of points')
        points = Section({str(i): point for i, point in enumerate(value)}, self.file, self._path(key))
        return tuple(points.vector(str(i), dimension, unit=unit) for i in range(len(value)))

    def texts(self, key: str, *, default: Any = _REQUIRED) -> tuple[str, ...]:
        value = self._get(key, default, 'a list of texts')
        if not isinstance(value, (list, tuple)) or not all(isinstance(entry, str) for entry in value):
            raise self.error(key, f'is {_describe(value)}; expected a list of texts')
        return tuple(value)

    def section(self, key: str, *, default: Any = _REQUIRED) -> 'Section':
        value = self._get(key, default, 'a mapping')
        return Section(value, self.file, self._path(key))

    def sections(self, key: str) -> Iterator[tuple[str, 'Section']]:
        """(name, section) for each entry of the mapping under `key`."""
        parent = self.section(key)
        for name in parent.keys():
            yield name, parent.section(name)

    def raw(self, key: str, *, default: Any = _REQUIRED) -> Any:
        """The value as YAML gave it, for sections that belong to somebody else (e.g. a reward program)."""
        return self._get(key, default, 'a value')

    def finish(self) -> None:
        """Raise for keys that nothing read."""
        unknown = [key for key in self.keys() if key not in self._read]
        if unknown:
            raise self.error(unknown[0], 'is not a known key here; known keys: '
                             + ', '.join(sorted(self._read)))


def read_yaml(file: Path) -> Section:
    """The top mapping of a YAML file.

    Raises ConfigurationError when the file is missing or is not YAML.
    """
    file = Path(file)
    try:
        text = file.read_text(encoding='utf-8')
    except OSError as error:
        raise ConfigurationError(f'{file}: cannot be read ({error.strerror})') from error
    try:
        values = yaml.load(text, _LOADER)
    except yaml.YAMLError as error:
        mark = getattr(error, 'problem_mark', None)
        place = f' line {mark.line + 1}, column {mark.column + 1}' if mark else ''
        raise ConfigurationError(
            f'{file}:{place} is not valid YAML ({getattr(error, "problem", error)})') from error
    return Section(values, file)


def _expected_number(low: float, high: float, unit: str) -> str:
    suffix = f' {unit}' if unit else ''
    if math.isinf(low) and math.isinf(high):
        return f'a number in{suffix}' if unit else 'a number'
    if math.isinf(high):
        return f'a number of at least {low}{suffix}'
    if math.isinf(low):
        return f'a number of at most {high}{suffix}'
    return f'a number from {low} to {high}{suffix}'


def _describe(value: Any) -> str:
    if value is None:
        return 'empty'
    if isinstance(value, str):
        return f"the text '{value}'"
    if isinstance(value, dict):
        return 'a mapping'
    if isinstance(value, list):
        return f'a list of {len(value)}'
    return str(value)
