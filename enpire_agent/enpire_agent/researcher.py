"""Researchers: given what is known about a recipe, propose the next edit. The built-in one needs no model."""

from __future__ import annotations

import itertools
import math
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, ContextManager, Mapping, Protocol, Sequence

from enpire_agent.recipe import load_recipe, with_parameters
from enpire_bringup.configuration import ConfigurationError, Section, read_yaml

_EXPLORATION = 0.8   # weight of trying families that were tried little, against those that helped
_REFINEMENT = 0.5    # bonus of an idea that builds on one that was kept


@dataclass(frozen=True)
class Edit:
    """One proposed change: a falsifiable hypothesis and the files that test it (None deletes a file)."""

    hypothesis: str
    method: str
    files: Mapping[str, str | None]
    origin: str                       # 'idea:<id>#<variant>' or 'adopt:<station>/<commit>'
    adopts: str = ''                  # a peer's commit that is taken over


@dataclass(frozen=True)
class PeerRecipe:
    """A recipe that a peer announced, with its figures in the search."""

    station: str
    commit: str
    task: str
    env_hash: str
    remote: str
    method: str
    hypothesis: str
    decision: str
    trials: int
    successes: int
    interval: tuple[float, float]


@dataclass(frozen=True)
class Tried:
    """One finished iteration, as a researcher may know it."""

    origin: str
    method: str
    kept: bool
    trials: int
    successes: int


@dataclass(frozen=True)
class Context:
    """What a researcher knows when it is asked.

    best_interval: 95 % interval of the success rate of the recipe that lies in `recipe`.
    read_peer: fetches a peer's recipe and gives the edit that leads to its files. spend_tokens(input, output): to be
    called as a model uses tokens. training(): a context for the time that is spent on training.
    """

    recipe: Path
    task: str
    env_hash: str
    best_interval: tuple[float, float]
    history: Sequence[Tried] = ()
    peers: Sequence[PeerRecipe] = ()
    iterations_left: int | None = None
    trials_left: int | None = None
    tokens_left: int | None = None
    read_peer: Callable[[PeerRecipe], Mapping[str, str | None]] | None = None
    spend_tokens: Callable[[int, int], None] = lambda input_tokens, output_tokens: None
    training: Callable[[], ContextManager] = nullcontext
    log: Callable[[str], None] = lambda text: None


class Researcher(Protocol):
    """Anything that proposes edits: the built-in one, a coding agent, a person."""

    name: str

    def propose(self, context: Context) -> Edit | None:
        """The next edit, or None when nothing is left to try."""


@dataclass(frozen=True)
class Idea:
    """One entry of ideas.yaml. `variants`: parameter settings to try, each a full set of values."""

    id: str
    family: str
    hypothesis: str
    variants: tuple[dict, ...]
    files: Mapping[str, Path] = field(default_factory=dict)
    requires: tuple[str, ...] = ()


def load_ideas(file: Path | str) -> tuple[Idea, ...]:
    """Read a task's idea library: `ideas`, a list of mappings.

    `set` gives recipe parameters values or lists of alternatives; alternatives of several parameters are combined.
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


def _idea(section: Section) -> Idea:
    settings = section.raw('set', default={})
    if not isinstance(settings, dict):
        raise section.error('set', 'must be a mapping of recipe parameters to values or lists of alternatives')
    files = section.raw('files', default={})
    paths = {}
    for name, source in files.items():
        paths[name] = section.file.parent / str(source)
        if not paths[name].is_file():
            raise section.error(f'files.{name}', f'is {source}: no such file in {section.file.parent}')
    if not settings and not paths:
        raise section.error('set', 'is missing, and so is files: the idea changes nothing')
    alternatives = [value if isinstance(value, list) else [value] for value in settings.values()]
    idea = Idea(
        id=section.text('id'),
        family=section.text('family'),
        hypothesis=section.text('hypothesis'),
        variants=tuple(dict(zip(settings, values)) for values in itertools.product(*alternatives)),
        files=paths,
        requires=section.texts('requires', default=()))
    section.finish()
    return idea


class BuiltinResearcher:
    """Works through a library of ideas; deterministic, needs no model and no network.

    A better recipe of a peer comes first. Then the idea with the best priority: how often its family helped so
    far, a bonus for families tried little (upper confidence bound) and for ideas that build on a kept one, and
    the library's order between equals. What was tried is never tried again on the same recipe.
    """

    name = 'builtin'

    def __init__(self, ideas_file: Path | str):
        """Raises ConfigurationError when the library cannot be read."""
        self._ideas = load_ideas(ideas_file)

    def propose(self, context: Context) -> Edit | None:
        return self._adoption(context) or self._next_idea(context)

    def candidates_left(self, context: Context) -> int:
        """How many proposals there could still be, for the estimate of the time left."""
        return len(self._open_variants(context))

    def _adoption(self, context: Context) -> Edit | None:
        tried = {entry.origin for entry in context.history}
        better = [peer for peer in context.peers
                  if peer.task == context.task and peer.env_hash == context.env_hash
                  and peer.interval[0] > context.best_interval[0] and _adoption_origin(peer) not in tried]
        for peer in sorted(better, key=lambda peer: -peer.interval[0]):
            try:
                files = context.read_peer(peer)
            except RuntimeError as error:
                context.log(f'cannot adopt {peer.commit[:10]} of {peer.station}: {error}')
                continue
            if files:
                return Edit(
                    hypothesis=f'{peer.station} had {peer.successes} successes of {peer.trials} with its recipe '
                               f'"{peer.hypothesis}"; it does as well here',
                    method=peer.method, files=files, origin=_adoption_origin(peer), adopts=peer.commit)
        return None

    def _next_idea(self, context: Context) -> Edit | None:
        for idea, number in sorted(self._open_variants(context),
                                   key=lambda entry: -self._priority(entry[0], entry[1], context)):
            edit = _edit(idea, number, context.recipe)
            if edit is not None:
                return edit
        return None

    def _open_variants(self, context: Context) -> list[tuple[Idea, int]]:
        tried = {entry.origin for entry in context.history}
        kept = _kept_ideas(context.history)
        return [(idea, number) for idea in self._ideas if all(required in kept for required in idea.requires)
                for number in range(len(idea.variants)) if _idea_origin(idea, number) not in tried]

    def _priority(self, idea: Idea, variant: int, context: Context) -> float:
        family = {other.id for other in self._ideas if other.family == idea.family}
        results = [entry.kept for entry in context.history if _idea_id(entry.origin) in family]
        own = [entry.kept for entry in context.history if _idea_id(entry.origin) == idea.id]
        helped = (sum(results) + 1) / (len(results) + 2)
        exploration = _EXPLORATION * math.sqrt(math.log(len(context.history) + 1) / (len(results) + 1))
        refinement = _REFINEMENT if idea.requires or any(own) else 0.0
        return helped + exploration + refinement - 0.2 * own.count(False)


def _edit(idea: Idea, variant: int, recipe_directory: Path) -> Edit | None:
    """The edit of an idea's variant, or None when the recipe is like that already."""
    recipe = load_recipe(recipe_directory)
    files = {}
    for name, source in idea.files.items():
        content = source.read_text(encoding='utf-8')
        target = recipe_directory / name
        if not target.is_file() or target.read_text(encoding='utf-8') != content:
            files[name] = content
    values = {k: v for k, v in idea.variants[variant].items() if recipe.parameters.get(k) != v}
    if values:
        text = files.get('recipe.yaml') or (recipe_directory / 'recipe.yaml').read_text(encoding='utf-8')
        files['recipe.yaml'] = with_parameters(text, values)
    if not files:
        return None
    hypothesis = idea.hypothesis
    if len(idea.variants) > 1:
        hypothesis += ' (' + ', '.join(f'{k} = {v}' for k, v in idea.variants[variant].items()) + ')'
    return Edit(hypothesis, idea.family, files, _idea_origin(idea, variant))


def _idea_origin(idea: Idea, variant: int) -> str:
    return f'idea:{idea.id}#{variant}'


def _idea_id(origin: str) -> str:
    return origin.removeprefix('idea:').split('#')[0] if origin.startswith('idea:') else ''


def _adoption_origin(peer: PeerRecipe) -> str:
    return f'adopt:{peer.station}/{peer.commit}'


def _kept_ideas(history: Sequence[Tried]) -> set[str]:
    return {_idea_id(entry.origin) for entry in history if entry.kept}


def make_researcher(name: str, ideas_file: Path) -> Researcher:
    """The researcher called `name`. Raises ConfigurationError listing those there are."""
    if name in ('', BuiltinResearcher.name):
        return BuiltinResearcher(ideas_file)
    raise ConfigurationError(f"no researcher '{name}'; known: {BuiltinResearcher.name}")
