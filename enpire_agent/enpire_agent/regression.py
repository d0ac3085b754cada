"""The regression gate: whether a recipe that won its race fails again where earlier best recipes failed.

Every recipe that was ever best leaves the search seeds on which it failed. The race has shown that the candidate is
better in all; here it must not lose what was mended on the way. docs/research.md states the rule for people, with what
it was measured to do (racing_simulation.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping, Sequence

from enpire_agent.racing import Move
from enpire_agent.score import success_interval

MOST_SEEDS = 24      # of the newest failures: most of them were met in the races, and older ones are mended or too hard


@dataclass(frozen=True)
class Step:
    """What the gate does next. seed: of the trial to run, None at the end. reason: what was found; '' without seeds."""

    move: Move
    seed: int | None = None
    reason: str = ''

    @property
    def over(self) -> bool:
        return self.seed is None


def regression_seeds(failures: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The seeds of the gate, newest first. failures: of every recipe that was best before the present one, in order.

    Those of the present best recipe are left out: nobody can be worse than it there, and to choose seeds by the
    failures of one of the two that are compared would favor the other. They count from the next best recipe on.
    """
    newest_first = (seed for seeds in reversed(failures) for seed in reversed(seeds))
    return tuple(dict.fromkeys(newest_first))[:MOST_SEEDS]


def next_step(seeds: Sequence[int], candidate: Mapping[int, bool], best: Mapping[int, bool]) -> Step:
    """What to do with what is known of both: seed -> success. Trials that cannot change the end are not asked for."""
    lost, won = _differences(seeds, candidate, best, unknown_candidate=False, unknown_best=True)
    if not is_worse(lost, won):
        return Step(Move.KEEP, reason=_solved(seeds, candidate, best))
    lost, won = _differences(seeds, candidate, best, unknown_candidate=True, unknown_best=False)
    if is_worse(lost, won):
        return Step(Move.REVERT, reason=_lost(seeds, candidate, best))
    untried = [seed for seed in seeds if seed not in candidate]
    if untried:
        return Step(Move.TRY_CANDIDATE, untried[0])
    # Where the candidate failed, the best recipe's trial says more.
    return Step(Move.TRY_BEST, min((seed for seed in seeds if seed not in best), key=lambda seed: candidate[seed]))


def end_without_trials(seeds: Sequence[int], candidate: Mapping[int, bool], best: Mapping[int, bool]) -> Step:
    """The gate's end by what is known where no more trials can be run."""
    known = [seed for seed in seeds if seed in candidate and seed in best]
    return next_step(known, candidate, best)


def is_worse(lost: int, won: int) -> bool:
    """Whether a recipe that failed on `lost` seeds where the other succeeded, and the reverse on `won`, is worse.

    It is where the 95 % Clopper-Pearson interval of its share of the seeds on which they differ lies below one half:
    McNemar's test (1947) in its exact form. Of two recipes that are equally good at most 2.5 % are called worse.
    """
    return success_interval(won, won + lost)[1] < 0.5


def mended_text(candidate: Mapping[int, bool], best: Mapping[int, bool]) -> str:
    """What became of the best recipe's own failures, as far as the race met them; '' without any."""
    met = [candidate[seed] for seed, success in best.items() if not success and seed in candidate]
    return f'where the best recipe failed it solves {sum(met)} of {len(met)}' if met else ''


def _differences(seeds: Sequence[int], candidate: Mapping[int, bool], best: Mapping[int, bool], *,
                 unknown_candidate: bool, unknown_best: bool) -> tuple[int, int]:
    """(lost, won), with untried seeds taken to end as given."""
    pairs = [(candidate.get(seed, unknown_candidate), best.get(seed, unknown_best)) for seed in seeds]
    return sum(there and not here for here, there in pairs), sum(here and not there for here, there in pairs)


def _solved(seeds: Sequence[int], candidate: Mapping[int, bool], best: Mapping[int, bool]) -> str:
    known = [seed for seed in seeds if seed in candidate and seed in best]
    here, there = (sum(results[seed] for seed in known) for results in (candidate, best))
    return (f'where earlier best recipes failed it solves {here} of {len(known)}, the best recipe {there}' if known
            else '')


def _lost(seeds: Sequence[int], candidate: Mapping[int, bool], best: Mapping[int, bool]) -> str:
    again = [seed for seed in seeds if best.get(seed) and candidate.get(seed) is False]
    return (f'{_solved(seeds, candidate, best)}: worse beyond the 95 % interval, fails again on seeds '
            f'{", ".join(map(str, again))}')
