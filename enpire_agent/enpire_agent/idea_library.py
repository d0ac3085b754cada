"""The idea library of a task: what the built-in researcher may try, each idea with a sentence of hypothesis."""

from __future__ import annotations

import itertools
import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Mapping

from enpire_bringup.configuration import Section, read_yaml

_ATTEMPTS = 4        # settings that a search over ranges may try, where the library does not say


@dataclass(frozen=True)
class Range:
    """Between which values a recipe parameter is searched for; whole numbers where both bounds are."""

    low: float
    high: float

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def holds(self, value: object) -> bool:
        """Whether it is a value between the bounds."""
        number = isinstance(value, int if self.whole else (int, float)) and not isinstance(value, bool)
        return number and self.low <= value <= self.high


@dataclass(frozen=True)
class Idea:
    """One entry of ideas.yaml.

    variants: parameter settings to try, each a full set of values. ranges: parameters that are searched for instead,
    in at most `attempts` settings. trains: whether the recipe's train.py makes its weights anew from recorded trials.
    """

    id: str
    family: str
    hypothesis: str
    variants: tuple[dict, ...]
    ranges: Mapping[str, Range] = field(default_factory=dict)
    attempts: int = 0
    files: Mapping[str, Path] = field(default_factory=dict)
    trains: bool = False
    requires: tuple[str, ...] = ()


def load_ideas(file: Path | str) -> tuple[Idea, ...]:
    """Read a task's idea library: `ideas`, a list of mappings.

    `set` gives recipe parameters values or lists of alternatives; alternatives of several parameters are combined.
    `search` gives them a range [low, high] instead, `attempts` how many settings of it may be tried. `train: true` has
    the recipe's train.py make new weights.
    Raises ConfigurationError naming file and key.
    """
    top = read_yaml(Path(file))
    entries = top.raw('ideas')
    top.finish()
    if not isinstance(entries, list):
        raise top.error('ideas', 'must be a list of ideas')
    ideas = tuple(_idea(Section(entry, top.file, f'ideas[{i}]')) for i, entry in enumerate(entries))
    ids = [idea.id for idea in ideas]
    for number, idea in enumerate(ideas):
        if ids.count(idea.id) > 1:
            raise top.error(f'ideas[{number}].id', f"'{idea.id}' is there twice")
        for required in idea.requires:
            if required not in ids:
                raise top.error(f'ideas[{number}].requires', f"names '{required}', which is no idea here")
    return ideas


def assemble_recipe(start: Path, files: Mapping[str, Path], folder: Path) -> None:
    """The recipe of an idea in `folder`, made anew where it is missing: the starting recipe with the idea's files."""
    shutil.copytree(start, folder, dirs_exist_ok=True)
    for name, source in files.items():
        shutil.copyfile(source, folder / name)



def _idea(section: Section) -> Idea:
    settings = section.raw('set', default={})
    if not isinstance(settings, dict):
        raise section.error('set', 'must be a mapping of recipe parameters to values or lists of alternatives')
    ranges = {name: _range(section, name, bounds) for name, bounds in section.raw('search', default={}).items()}
    if settings and ranges:
        raise section.error('search', 'stands beside set; make two ideas of it')
    files = section.raw('files', default={})
    paths = {}
    for name, source in files.items():
        paths[name] = section.file.parent / str(source)
        if not paths[name].is_file():
            raise section.error(f'files.{name}', f'is {source}: no such file in {section.file.parent}')
    trains = section.flag('train', default=False)
    if not (settings or ranges or paths or trains):
        raise section.error('set', 'is missing, and so are search, files and train: the idea changes nothing')
    alternatives = [value if isinstance(value, list) else [value] for value in settings.values()]
    idea = Idea(
        id=section.text('id'),
        family=section.text('family'),
        hypothesis=section.text('hypothesis'),
        variants=tuple(dict(zip(settings, values)) for values in itertools.product(*alternatives)),
        ranges=ranges,
        attempts=section.integer('attempts', low=1, high=1000, default=_ATTEMPTS) if ranges else 0,
        files=paths,
        trains=trains,
        requires=section.texts('requires', default=()))
    section.finish()
    return idea


def _range(section: Section, name: str, bounds) -> Range:
    numbers = isinstance(bounds, list) and len(bounds) == 2 and all(
        isinstance(bound, (int, float)) and not isinstance(bound, bool) and math.isfinite(bound) for bound in bounds)
    if not numbers or not bounds[0] < bounds[1]:
        raise section.error(f'search.{name}', f'is {bounds!r}; expected [low, high], two numbers')
    return Range(*bounds)
