"""The score of trials, from ledger lines and nothing else."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Sequence

SUCCESS = 'SUCCESS'


class ScoreError(ValueError):
    """The trials cannot be scored together."""


@dataclass(frozen=True)
class Score:
    """Figures of a set of trials.

    interval: 95 % Clopper-Pearson interval of the success rate. window_success: success rate over the last
    `window` consecutive trials, None before the window is full. time_to_success_s: wall time from the first
    trial's start to the end of the first full window of successes, None when there is none yet.
    """

    trials: int
    successes: int
    outcomes: dict[str, int]
    window: int
    window_success: float | None
    interval: tuple[float, float]
    env_hash: str
    time_to_success_s: float | None

    @property
    def rate(self) -> float | None:
        return self.successes / self.trials if self.trials else None


def score(entries: Sequence[dict], window: int = 50) -> Score:
    """Score ledger lines in their order.

    Every started trial counts, whatever its outcome.
    Raises ScoreError when the lines were judged by more than one environment.
    """
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
        time_to_success_s=_time_to_success(entries, window))


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
