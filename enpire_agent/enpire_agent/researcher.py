"""Researchers: given what is known about a recipe, propose the next edit. The built-in one needs no model."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Collection, ContextManager, Iterator, Mapping, Protocol, Sequence

from enpire_agent.agent_turn import Tokens, TurnResult
from enpire_agent.idea_library import Idea, load_ideas
from enpire_agent.parameter_search import suggest
from enpire_agent.recipe import load_recipe, with_parameters
from enpire_agent.training import TRAINER, WEIGHTS, TrainingError, train
from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.task import Task

_EXPLORATION = 0.8   # weight of trying families that were tried little, against those that helped
_REFINEMENT = 0.5    # bonus of an idea that builds on one that was kept
_KNOWN_WEIGHT = 2    # ideas that what an earlier campaign tried of a family counts as, at most


@dataclass(frozen=True)
class Edit:
    """One proposed change: a falsifiable hypothesis and the files that test it (None deletes a file)."""

    hypothesis: str
    method: str
    files: Mapping[str, str | None]
    origin: str                       # 'idea:<id>#<variant or name=value,...>' or 'adopt:<station>/<commit>'
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

    best_interval: 95 % interval of the success rate of the recipe that lies in `recipe`. peer_history: what peers tried
    for this task in this environment. built_on: origins of what was kept on the way to the recipe, by peers, too.
    read_peer: fetches a peer's recipe and gives the edit that leads to its files. spend_tokens: to be called as a model
    uses tokens; turn_ended: at each end of a coding agent's turn. training(): a context for the time that is spent on
    training. cancelled(): whether to stop thinking. pause(seconds, why): waits while a model is away, and in any case
    while the station is held, and says whether to go on. tell: what the researcher does, for people; log: what went wrong.
    """

    recipe: Path
    task: str
    env_hash: str
    best_interval: tuple[float, float]
    history: Sequence[Tried] = ()
    peers: Sequence[PeerRecipe] = ()
    peer_history: Sequence[Tried] = ()
    built_on: Collection[str] = ()
    iterations_left: int | None = None
    trials_left: int | None = None
    tokens_left: int | None = None
    read_peer: Callable[[PeerRecipe], Mapping[str, str | None]] | None = None
    spend_tokens: Callable[[Tokens], None] = lambda tokens: None
    turn_ended: Callable[[TurnResult], None] = lambda result: None
    training: Callable[[], ContextManager] = nullcontext
    cancelled: Callable[[], bool] = lambda: False
    pause: Callable[[float, str], bool] = lambda seconds, why: False
    tell: Callable[[str], None] = lambda text: None
    log: Callable[[str], None] = lambda text: None


class Researcher(Protocol):
    """Anything that proposes edits: the built-in one, a coding agent, a person.

    One that thinks for minutes, and not on the station's processors, says so by `thinks_elsewhere = True`: it is asked
    in a thread of its own while trials go on (campaign_thinking.py).
    """

    name: str

    def propose(self, context: Context) -> Edit | None:
        """The next edit, or None when nothing is left to try."""


class BuiltinResearcher:
    """Works through a library of ideas; deterministic, needs no model and no network.

    A better recipe of a peer comes first. Then the idea with the best priority: how often its family helped so
    far, a bonus for families tried little (upper confidence bound) and for ideas that build on a kept one, and
    the library's order between equals. What was tried is never tried again; where an idea searches for parameters, what
    was tried tells where to look next. What peers tried is evidence like its own, but may be tried again; what helped
    one of them comes early, as it was set there. What an earlier campaign found out about a family of ideas counts as
    little as two ideas that were tried: it decides who comes first, until there are results.
    """

    name = 'builtin'

    def __init__(self, ideas_file: Path | str, task: Task | None = None,
                 knowledge: Mapping[str, tuple[int, int]] = {}):
        """task: for ideas that train; they are left out without one. knowledge: family -> (ideas of it that were kept,
        ideas that were tried) of an earlier campaign, knowledge.Knowledge.families.

        Raises ConfigurationError when the library cannot be read.
        """
        self._ideas = load_ideas(ideas_file)
        self._task = task
        self._knowledge = knowledge
        self._barren: dict[str, int] = {}      # id of an idea that gave no edit -> iterations there were then

    def propose(self, context: Context) -> Edit | None:
        return self._adoption(context) or self._next_idea(context)

    def candidates_left(self, context: Context) -> int:
        """How many proposals there could still be, for the estimate of the time left."""
        return sum(self._open_settings(idea, context) for idea in self._open_ideas(context))

    # --- peers ---

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

    # --- ideas ---

    def _next_idea(self, context: Context) -> Edit | None:
        for idea in sorted(self._open_ideas(context), key=lambda idea: -self._priority(idea, context)):
            edit = self._edit_of(idea, context)
            if edit is not None:
                return edit
            self._barren[idea.id] = len(context.history)
        return None

    def _open_ideas(self, context: Context) -> list[Idea]:
        kept = {_idea_id(origin) for origin in context.built_on} | {
            _idea_id(entry.origin) for entry in context.history if entry.kept}
        return [idea for idea in self._ideas
                if all(required in kept for required in idea.requires) and self._fits(idea, context)
                and self._open_settings(idea, context)]

    def _fits(self, idea: Idea, context: Context) -> bool:
        """Whether the idea can change the recipe as it is now: parameters of one method mean nothing to another."""
        if self._barren.get(idea.id) == len(context.history) or (idea.trains and self._task is None):
            return False
        method = load_recipe(context.recipe).method
        return bool(idea.files) or idea.family == method or all(other.family != method for other in self._ideas)

    def _open_settings(self, idea: Idea, context: Context) -> int:
        """How many settings of an idea may still be tried."""
        if idea.ranges:
            return max(0, idea.attempts - len({entry.origin for entry in _of_idea(idea, context.history)}))
        done = _done(context)
        return sum(_origin(idea, number) not in done for number in range(len(idea.variants)))

    def _priority(self, idea: Idea, context: Context) -> float:
        family = {other.id for other in self._ideas if other.family == idea.family}
        everything = [*context.history, *context.peer_history]
        results = [entry.kept for entry in everything if _idea_id(entry.origin) in family]
        kept, tried = self._knowledge.get(idea.family, (0, 0))
        weight = min(1.0, _KNOWN_WEIGHT / tried) if tried else 0.0
        helped = (sum(results) + weight * kept + 1) / (len(results) + weight * tried + 2)
        exploration = _EXPLORATION * math.sqrt(math.log(len(everything) + 1) / (len(results) + 1))
        builds = (idea.requires or any(entry.kept for entry in _of_idea(idea, context.history))
                  or any(self._kept_by_peers(idea, context)))
        refinement = _REFINEMENT if builds else 0.0
        failed = sum(not entry.kept for entry in _of_idea(idea, everything))
        return helped + exploration + refinement - 0.2 * failed

    def _edit_of(self, idea: Idea, context: Context) -> Edit | None:
        """The next edit of an idea, or None when the recipe is like that already, or nothing can be learned yet."""
        for setting, origin in self._settings(idea, context):
            files = _changes(idea, setting, context.recipe)
            if idea.trains:
                weights = self._weights(idea, files, context)
                if weights is None:
                    return None
                files[WEIGHTS] = weights
            if files:
                return Edit(_hypothesis(idea, setting), idea.family, files, origin)
        return None

    def _settings(self, idea: Idea, context: Context) -> Iterator[tuple[Mapping, str]]:
        """(setting, origin) of what may be tried next, the best first."""
        of_peers = _of_idea(idea, context.peer_history)
        yield from self._kept_by_peers(idea, context)
        if not idea.ranges:
            done, failed = _done(context), Counter(entry.origin for entry in of_peers if not entry.kept)
            numbers = [n for n in range(len(idea.variants)) if _origin(idea, n) not in done]
            for number in sorted(numbers, key=lambda n: failed[_origin(idea, n)]):
                yield idea.variants[number], _origin(idea, number)
            return
        # What the recipe has now, perhaps from a peer, is a result as well.
        parameters = load_recipe(context.recipe).parameters
        results = [({key: parameters.get(key) for key in idea.ranges}, sum(context.best_interval) / 2)]
        results += [(_setting_of(entry.origin), entry.successes / entry.trials)
                    for entry in [*_of_idea(idea, context.history), *of_peers] if entry.trials]
        setting = suggest(idea.id, idea.ranges, results)
        if setting is not None:
            yield setting, _origin(idea, ','.join(f'{key}={value}' for key, value in setting.items()))

    def _kept_by_peers(self, idea: Idea, context: Context) -> Iterator[tuple[Mapping, str]]:
        """(setting, origin) of what helped a peer and was not tried here: it may help this station's recipe, too."""
        known = {_origin(idea, number): variant for number, variant in enumerate(idea.variants)}
        kept = {entry.origin for entry in _of_idea(idea, context.peer_history) if entry.kept} - _done(context)
        for origin in sorted(kept):
            setting = _setting_of(origin) if idea.ranges else known.get(origin)
            if setting is not None and all(bounds.holds(setting.get(key)) for key, bounds in idea.ranges.items()):
                yield {key: setting[key] for key in idea.ranges} or setting, origin

    def _weights(self, idea: Idea, files: Mapping[str, str], context: Context) -> str | None:
        """weights.json as the recipe with these changes learns it from what the campaign has recorded."""
        with tempfile.TemporaryDirectory(prefix='enpire-train-') as folder, context.training():
            recipe = Path(folder) / 'recipe'
            shutil.copytree(context.recipe, recipe, ignore=shutil.ignore_patterns('.git', '__pycache__'))
            for name, text in files.items():
                (recipe / name).write_text(text, encoding='utf-8')
            if not (recipe / TRAINER).is_file():
                return None
            try:
                return train(recipe, self._task, context.recipe.parent / 'trials')
            except TrainingError as error:
                context.log(f'{idea.id} has to wait: {error}')
                return None


def _changes(idea: Idea, setting: Mapping, recipe_directory: Path) -> dict[str, str]:
    """File -> content, of the files that differ from the recipe as it is."""
    recipe = load_recipe(recipe_directory)
    files = {}
    for name, source in idea.files.items():
        content = source.read_text(encoding='utf-8')
        target = recipe_directory / name
        if not target.is_file() or target.read_text(encoding='utf-8') != content:
            files[name] = content
    values = {k: v for k, v in setting.items() if recipe.parameters.get(k) != v}
    if values:
        text = files.get('recipe.yaml') or (recipe_directory / 'recipe.yaml').read_text(encoding='utf-8')
        files['recipe.yaml'] = with_parameters(text, values)
    return files


def _hypothesis(idea: Idea, setting: Mapping) -> str:
    if not idea.ranges and len(idea.variants) < 2:
        return idea.hypothesis
    return f'{idea.hypothesis} (' + ', '.join(f'{key} = {value}' for key, value in setting.items()) + ')'


def _origin(idea: Idea, setting: int | str) -> str:
    return f'idea:{idea.id}#{setting}'


def _done(context: Context) -> set[str]:
    """Origins that need no trial any more: tried here, or part of the recipe."""
    return {entry.origin for entry in context.history} | set(context.built_on)


def _of_idea(idea: Idea, history: Sequence[Tried]) -> list[Tried]:
    return [entry for entry in history if _idea_id(entry.origin) == idea.id]


def _idea_id(origin: str) -> str:
    return origin.removeprefix('idea:').split('#')[0] if origin.startswith('idea:') else ''


def _setting_of(origin: str) -> dict[str, float | str]:
    """The setting that the origin of a search names; a peer's may be of any values."""
    pairs = [pair.partition('=') for pair in origin.partition('#')[2].split(',')]
    return {key: _number(value) for key, _, value in pairs}


def _number(text: str) -> float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def _adoption_origin(peer: PeerRecipe) -> str:
    return f'adopt:{peer.station}/{peer.commit}'
