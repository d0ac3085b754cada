"""The score of trials, from ledger lines and nothing else, and what `solved` means.

It imports nothing of the suite: this one file is what the frozen environment holds a score to.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Sequence

SUCCESS = 'SUCCESS'
FRESH_KINDS = 'baseline', 'gate'     # of trials on seeds that were drawn when the trial began


class ScoreError(ValueError):
    """The trials cannot be scored together."""


@dataclass(frozen=True)
class Solved:
    """Whether one recipe succeeded in `needed` of `needed` consecutive trials on fresh seeds.

    successes, trials: that run; where there is none, all trials on fresh seeds of the recipe that was tried on them last.
    recipe: whose; '' where nothing was tried on fresh seeds.
    """

    yes: bool
    needed: int
    successes: int = 0
    trials: int = 0
    recipe: str = ''

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Clopper-Pearson interval of the success rate."""
        return success_interval(self.successes, self.trials)

    @property
    def figures(self) -> str:
        """What it stands on, in words."""
        if not self.trials:
            return f'nothing was tried on fresh seeds, where {self.needed} consecutive successes are needed'
        low, high = self.interval
        return (f'{self.successes} of {self.trials}{" consecutive" if self.yes else ""} on fresh seeds, 95 % interval '
                f'{100 * low:.0f} to {100 * high:.0f} %'
                + ('' if self.yes else f', where {self.needed} consecutive are needed'))

    def __str__(self) -> str:
        return f'{"solved" if self.yes else "not solved"}: {self.figures}'


@dataclass(frozen=True)
class Score:
    """Figures of a set of trials.

    interval: 95 % Clopper-Pearson interval of the success rate. window_success: success rate over the last
    `window` consecutive trials, None before the window is full. time_to_success_s: wall time from the first
    trial's start to the end of the first full window of successes, None when there is none yet. solved: with a window
    of successes on fresh seeds.
    """

    trials: int
    successes: int
    outcomes: dict[str, int]
    window: int
    window_success: float | None
    interval: tuple[float, float]
    env_hash: str
    time_to_success_s: float | None
    solved: Solved

    @property
    def rate(self) -> float | None:
        return self.successes / self.trials if self.trials else None


def score(entries: Sequence[dict], window: int = 50) -> Score:
    """Score ledger lines in their order.

    Every started trial counts, whatever its outcome.
    Raises ScoreError when the lines were judged by more than one environment, or there is no window.
    """
    if window < 1:
        raise ScoreError(f'a window of {window} trials; expected 1 or more')
    hashes = list(dict.fromkeys(entry['env_hash'] for entry in entries))
    if len(hashes) > 1:
        other = next(entry for entry in entries if entry['env_hash'] == hashes[1])
        raise ScoreError(
            f'{len(hashes)} environments in one score: {hashes[0][:12]}... and, from trial {other["trial_id"]} on, '
            f'{hashes[1][:12]}... Task, scene, reward, reset or station were changed in between; choose one with '
            f'--env-hash')
    successes = sum(entry['outcome'] == SUCCESS for entry in entries)
    last = entries[-window:]
    return Score(
        trials=len(entries),
        successes=successes,
        outcomes=dict(Counter(entry['outcome'] for entry in entries)),
        window=window,
        window_success=(sum(e['outcome'] == SUCCESS for e in last) / window if len(entries) >= window else None),
        interval=success_interval(successes, len(entries)),
        env_hash=hashes[0] if hashes else '',
        time_to_success_s=_time_to_success(entries, window),
        solved=solved(entries, window))


def solved(entries: Sequence[dict], needed: int) -> Solved:
    """Whether a recipe solved the task, from the lines of its trials on fresh seeds alone, in their order.

    Any other outcome than a success ends a run, and so does a seed that was used before: it is not fresh.
    """
    used: set[int] = set()
    runs: dict[tuple[str, str], int] = {}
    tried: dict[tuple[str, str], list[bool]] = {}
    for entry in entries:
        fresh = entry['seed'] not in used
        used.add(entry['seed'])
        if entry['kind'] not in FRESH_KINDS:
            continue
        who = entry['station'], entry['recipe']
        success = fresh and entry['outcome'] == SUCCESS
        runs[who] = runs.get(who, 0) + 1 if success else 0
        if 0 < needed <= runs[who]:
            return Solved(True, needed, needed, needed, entry['recipe'])
        tried.setdefault(who, []).append(success)
        last = who
    if not tried:
        return Solved(False, needed)
    return Solved(False, needed, sum(tried[last]), len(tried[last]), last[1])


@lru_cache(maxsize=4096)
def success_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Clopper-Pearson interval of a success rate; (0, 1) without trials.

    Its ends are the rates at which the tail of the binomial distribution beyond what was seen has the
    probability (1 - confidence) / 2 (Clopper and Pearson, 1934).
    """
    if not 0 <= successes <= trials:
        raise ValueError(f'{successes} successes of {trials} trials')
    tail = (1 - confidence) / 2
    low = 0.0 if successes == 0 else _bisect(lambda p: probability_of_at_least(successes, trials, p) - tail)
    high = 1.0 if successes == trials else _bisect(lambda p: tail - 1 + probability_of_at_least(successes + 1, trials, p))
    return low, high


def probability_of_at_least(successes: int, trials: int, p: float) -> float:
    """Probability of `successes` or more in `trials` at rate p."""
    if p <= 0 or p >= 1:
        return float(p >= 1)
    log_p, log_q = math.log(p), math.log1p(-p)
    constant = math.lgamma(trials + 1)
    return math.fsum(
        math.exp(constant - math.lgamma(k + 1) - math.lgamma(trials - k + 1) + k * log_p + (trials - k) * log_q)
        for k in range(successes, trials + 1))


def _bisect(rising) -> float:
    """Root in [0, 1] of a rising function."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if rising(middle) > 0 else (middle, high)
    return (low + high) / 2


def _time_to_success(entries: Sequence[dict], window: int) -> float | None:
    streak = 0
    for entry in entries:
        streak = streak + 1 if entry['outcome'] == SUCCESS else 0
        if streak >= window:
            start = datetime.fromisoformat(entries[0]['started'])
            return (datetime.fromisoformat(entry['ended']) - start).total_seconds()
    return None
