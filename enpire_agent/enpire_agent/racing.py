"""Racing: how many trials a candidate gets, and whether it is better than the best recipe or only lucky.

docs/research.md states the rule for people, with what it was measured to do (racing_simulation.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from statistics import median
from typing import Sequence

KEEP_AT = 0.9             # probability that the candidate is better: the 80 % interval of the difference is above zero
KEEP_AT_END = 0.8         # ... after the longest race: the 60 % interval is
DROP_BELOW = 0.5          # probability that a recipe as good as the best one would have no more successes than it has
FEWEST_TRIALS = 2         # before anything is decided
LONGEST = 4               # times the first trials that a promising candidate gets ...
FAILURES_TO_SEE = 3       # ... or as many as let the best recipe be expected to fail so often, if that is more ...
MOST_TRIALS = 100         # ... up to these
NEARER = 0.75             # share of the best recipe's median final error ...
LEAST_GAIN = 0.002        # ... and m by which a candidate has to be nearer, where successes do not tell
ERRORS_TO_COMPARE = 4     # measured final errors of either


@dataclass(frozen=True)
class Evidence:
    """Trials of one recipe. errors: final position errors in m of those where it was measured."""

    successes: int
    trials: int
    errors: tuple[float, ...] = ()

    def __str__(self) -> str:
        return f'{self.successes} of {self.trials}'


class Move(Enum):
    """What a race does next: a trial of the candidate, a trial of the best recipe, or its end."""

    TRY_CANDIDATE = 'try the candidate'
    TRY_BEST = 'try the best recipe'
    KEEP = 'keep'
    REVERT = 'revert'


@dataclass(frozen=True)
class Decision:
    """`probability`: that the candidate's success rate is higher than the best recipe's."""

    move: Move
    probability: float
    reason: str = ''

    @property
    def over(self) -> bool:
        return self.move in (Move.KEEP, Move.REVERT)


def decide(candidate: Evidence, best: Evidence, first: int, gate: int = 0) -> Decision:
    """What to do after these trials. first: trials that every candidate gets that is not hopeless before. gate: fresh
    seeds on which the gate has to be passed without a failure; 0: there is none."""
    p = probability_better(candidate.successes, candidate.trials, best.successes, best.trials)
    text = f'{candidate}, best {best}: better with probability {p:.2f}'
    if candidate.trials >= first and p > KEEP_AT:
        return Decision(Move.KEEP, p, text)
    if gate and candidate.trials >= max(first, gate) and candidate.successes == candidate.trials and (
            best.successes < best.trials and p >= 0.5):
        # More trials here would cost what the gate costs, which decides.
        return Decision(Move.KEEP, p, f'{text}; without a failure in as many trials as the gate has')
    if candidate.trials >= min(FEWEST_TRIALS, first) and probability_of_no_more(
            candidate.successes, candidate.trials, best.successes, best.trials) < DROP_BELOW:
        return Decision(Move.REVERT, p, text)
    if candidate.trials >= first and not candidate.successes:
        # Nothing promising in the trials themselves; where the best recipe has no success either, coming nearer counts.
        nearer = _nearer(candidate, best) if not best.successes else ''
        return Decision(Move.KEEP if nearer else Move.REVERT, p, nearer or f'no success in {candidate.trials} trials')
    if candidate.trials >= longest_race(best, first):
        if p > KEEP_AT_END:
            return Decision(Move.KEEP, p, text)
        nearer = _nearer(candidate, best) if p >= 0.5 else ''
        return Decision(Move.KEEP if nearer else Move.REVERT, p, f'{text}; {nearer}' if nearer
                        else f'{text}, which may be luck')
    if first <= candidate.trials and best.trials < candidate.trials:
        return Decision(Move.TRY_BEST, p)       # what is known least is what blurs the comparison
    return Decision(Move.TRY_CANDIDATE, p)


def longest_race(best: Evidence, first: int) -> int:
    """Trials after which an undecided race ends: recipes that seldom fail differ in what is seldom seen."""
    failure_rate = (best.trials - best.successes + 1) / (best.trials + 2)
    return max(LONGEST * first, min(MOST_TRIALS, math.ceil(FAILURES_TO_SEE / failure_rate)))


@lru_cache(maxsize=1 << 15)
def probability_better(successes: int, trials: int, best_successes: int, best_trials: int) -> float:
    """Probability that the first recipe has the higher success rate, both rates unknown before (uniform).

    The rates are then Beta(1 + successes, 1 + failures) distributed; the sum is the closed form of P(X > Y) for
    whole-numbered parameters.
    """
    _check_counts(successes, trials, best_successes, best_trials)
    a, b = successes + 1, trials - successes + 1
    c, d = best_successes + 1, best_trials - best_successes + 1
    return min(1.0, math.fsum(
        math.exp(_log_beta(c + i, d + b) - math.log(b + i) - _log_beta(1 + i, b) - _log_beta(c, d)) for i in range(a)))


@lru_cache(maxsize=1 << 15)
def probability_of_no_more(successes: int, trials: int, best_successes: int, best_trials: int) -> float:
    """Probability that a recipe exactly as good as the best one would have `successes` of `trials` or fewer.

    The posterior predictive p-value (Rubin 1984) of the hypothesis that the candidate is no worse: beta-binomial, for
    the best recipe's rate is Beta distributed as in `probability_better`.
    """
    _check_counts(successes, trials, best_successes, best_trials)
    c, d = best_successes + 1, best_trials - best_successes + 1
    return min(1.0, math.fsum(
        math.comb(trials, k) * math.exp(_log_beta(c + k, d + trials - k) - _log_beta(c, d))
        for k in range(successes + 1)))


def probability_lower(values: Sequence[float], others: Sequence[float]) -> float:
    """Probability that so many pairs with the lower value in `values`, or more, are no chance (Mann and Whitney, 1947).

    Normal approximation with the variance without ties; 0.5 when there is nothing to compare.
    """
    if not values or not others:
        return 0.5
    wins = sum((value < other) + 0.5 * (value == other) for value in values for other in others)
    pairs = len(values) * len(others)
    deviation = math.sqrt(pairs * (len(values) + len(others) + 1) / 12)
    return 0.5 * (1 + math.erf((wins - pairs / 2) / deviation / math.sqrt(2)))


def _nearer(candidate: Evidence, best: Evidence) -> str:
    """How much nearer to the goal the candidate ends, or '' when it is not clearly so."""
    if min(len(candidate.errors), len(best.errors)) < ERRORS_TO_COMPARE:
        return ''
    here, there = median(candidate.errors), median(best.errors)
    if here < NEARER * there and there - here > LEAST_GAIN and (
            probability_lower(candidate.errors, best.errors) > KEEP_AT):
        return f'it ends nearer: {here * 1e3:.0f} mm in the middle trial, best {there * 1e3:.0f} mm'
    return ''


def _check_counts(successes: int, trials: int, best_successes: int, best_trials: int) -> None:
    if not (0 <= successes <= trials and 0 <= best_successes <= best_trials):
        raise ValueError(f'{successes} successes of {trials} trials, {best_successes} of {best_trials}')


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
