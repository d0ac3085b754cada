"""What a rule of keeping and reverting does, measured on made-up recipes whose true success rates are known.

`python -m enpire_agent.racing_simulation` prints the tables of docs/research.md.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from functools import lru_cache
from statistics import NormalDist, mean
from typing import Callable, Sequence

from enpire_agent.racing import Evidence, Move, decide
from enpire_agent.regression import next_step, regression_seeds

DIFFICULTY = 0.8     # standard deviation of how much harder one start pose is than another, on the logit scale
WORSE = 0.1          # on the logit scale: what is worse by more than this was kept by mistake


@dataclass
class BernoulliRecipe:
    """A recipe that succeeds at random: `skill` is the logit of its success rate on a start pose of mean difficulty.

    fresh: successes and trials on seeds that no other recipe sees, as of a baseline. aside: results of the regression
    gate, on seeds that are no fair sample. former: the best recipe before it.
    """

    skill: float
    results: dict[int, bool] = field(default_factory=dict)
    fresh: tuple[int, int] = (0, 0)
    aside: dict[int, bool] = field(default_factory=dict)
    former: 'BernoulliRecipe | None' = None

    @property
    def evidence(self) -> Evidence:
        return Evidence(sum(self.results.values()) + self.fresh[0], len(self.results) + self.fresh[1])

    @property
    def all_results(self) -> dict[int, bool]:
        return {**self.results, **self.aside}

    @property
    def failures(self) -> list[int]:
        return [seed for seed, success in self.all_results.items() if not success]


class BernoulliStation:
    """Start poses of differing difficulty; the same recipe on the same seed always ends the same way."""

    def __init__(self, rng: random.Random, difficulty: float = DIFFICULTY):
        self.rng = rng
        self.trials = 0
        self._difficulty = difficulty
        self._poses: dict[int, float] = {}

    def trial(self, recipe: BernoulliRecipe, seed: int, aside: bool = False) -> bool:
        known = recipe.all_results
        if seed not in known:
            pose = self._poses.setdefault(seed, self.rng.gauss(0, self._difficulty))
            known[seed] = self.rng.random() < _sigmoid(recipe.skill + pose)
            self.trials += 1
        (recipe.aside if aside else recipe.results)[seed] = known[seed]
        return known[seed]

    def measure(self, recipe: BernoulliRecipe, trials: int) -> None:
        """Fresh trials, not counted."""
        successes = sum(self.rng.random() < _sigmoid(recipe.skill + self.rng.gauss(0, self._difficulty))
                        for _ in range(trials))
        recipe.fresh = successes, trials


# (station, best, candidate) -> whether the candidate is kept
Rule = Callable[[BernoulliStation, BernoulliRecipe, BernoulliRecipe], bool]


def racing(first: int, gate: int = 50) -> Rule:
    """The rule of racing.py. gate: its seeds; 0: what the rule would be without a gate."""
    def rule(station: BernoulliStation, best: BernoulliRecipe, candidate: BernoulliRecipe) -> bool:
        while True:
            move = decide(candidate.evidence, best.evidence, first, gate).move
            if move in (Move.KEEP, Move.REVERT):
                return move is Move.KEEP
            recipe = candidate if move is Move.TRY_CANDIDATE else best
            station.trial(recipe, next(seed for seed in range(10**6) if seed not in recipe.results))
    return rule


def fixed_number(trials: int) -> Rule:
    """What is usually done: a fixed number of trials on the same seeds, kept with one success more; given up when it
    cannot get there. Against a starting recipe measured elsewhere: more successes than its rate lets expect."""
    def rule(station: BernoulliStation, best: BernoulliRecipe, candidate: BernoulliRecipe) -> bool:
        if all(seed in best.results for seed in range(trials)):
            to_reach = sum(best.results[seed] for seed in range(trials)) + 1
        else:
            to_reach = math.floor(trials * best.fresh[0] / max(1, best.fresh[1])) + 1
        successes = 0
        for seed in range(trials):
            successes += station.trial(candidate, seed)
            if successes + trials - seed - 1 < to_reach:
                return False
        return successes >= to_reach
    return rule


@dataclass
class Winners:
    """Candidates that won their race, those of them that the regression gate reverted, and the trials that it took."""

    number: int = 0
    reverted: int = 0
    trials: int = 0


def gated(rule: Rule, winners: Winners) -> Rule:
    """A rule with the regression gate of regression.py behind it, which counts in `winners`."""
    def both(station: BernoulliStation, best: BernoulliRecipe, candidate: BernoulliRecipe) -> bool:
        if not rule(station, best, candidate):
            return False
        before, earlier, former = station.trials, [], best.former
        while former is not None:
            earlier.insert(0, former.failures)
            former = former.former
        passed = pass_gate(station, regression_seeds(earlier), candidate, best)
        winners.number, winners.reverted = winners.number + 1, winners.reverted + (not passed)
        winners.trials += station.trials - before
        return passed
    return both


def pass_gate(station: BernoulliStation, seeds: Sequence[int], candidate: BernoulliRecipe,
              best: BernoulliRecipe) -> bool:
    """The regression gate on these seeds."""
    while not (step := next_step(seeds, candidate.all_results, best.all_results)).over:
        station.trial(candidate if step.move is Move.TRY_CANDIDATE else best, step.seed, aside=True)
    return step.move is Move.KEEP


def gate_rate(seeds: int, best_rate: float, candidate_rate: float, *, repeats: int = 1000) -> 'KeepRate':
    """How often the regression gate keeps a winner, by the rates of success on its seeds, which neither has met."""
    kept, trials = 0, 0
    for repeat in range(repeats):
        station = BernoulliStation(random.Random(repeat), difficulty=0.0)
        recipes = BernoulliRecipe(_logit(candidate_rate)), BernoulliRecipe(_logit(best_rate))
        kept += pass_gate(station, range(seeds), *recipes)
        trials += station.trials
    return KeepRate(kept / repeats, trials / repeats)


@dataclass(frozen=True)
class KeepRate:
    kept: float       # share of candidates
    trials: float     # in the mean, those of the best recipe included


def keep_rate(rule: Rule, best_rate: float, candidate_rate: float, *, best_trials: int, baseline: int = 0,
              repeats: int = 500) -> KeepRate:
    """How often a candidate of a known rate is kept, where all start poses are alike.

    best_trials, baseline: search trials and trials on fresh seeds that the best recipe has already.
    """
    kept, trials = 0, 0
    for repeat in range(repeats):
        station = BernoulliStation(random.Random(repeat), difficulty=0.0)
        best, candidate = BernoulliRecipe(_logit(best_rate)), BernoulliRecipe(_logit(candidate_rate))
        for seed in range(best_trials):
            station.trial(best, seed)
        station.measure(best, baseline)
        station.trials = 0
        kept += rule(station, best, candidate)
        trials += station.trials
    return KeepRate(kept / repeats, trials / repeats)


@dataclass(frozen=True)
class Climb:
    rate: float           # true success rate at the end, mean of all campaigns
    low: float            # ... that nine campaigns of ten reach
    iterations: float     # a campaign
    kept: float           # a campaign
    worse: float          # share of the kept that were worse than what they replaced


def hill_climb(rule: Rule, trials: int, *, repeats: int = 200, start: float = -1.0, baseline: int = 20) -> Climb:
    """Campaigns of `trials` search trials from a recipe with skill `start`; the better it is, the harder to improve."""
    rates, iterations, kept, worse = [], 0, 0, 0
    for repeat in range(repeats):
        station = BernoulliStation(random.Random(repeat))
        best = BernoulliRecipe(start)
        station.measure(best, baseline)
        while station.trials < trials:
            iterations += 1
            change = _idea(station.rng) - 0.15 * max(0.0, best.skill - start)
            candidate = BernoulliRecipe(best.skill + change, former=best)
            if rule(station, best, candidate):
                kept += 1
                worse += change < -WORSE
                best = candidate
        rates.append(true_rate(best.skill))
    rates.sort()
    return Climb(mean(rates), rates[repeats // 10], iterations / repeats, kept / repeats, worse / max(1, kept))


@lru_cache(maxsize=4096)
def true_rate(skill: float) -> float:
    """Success rate over all start poses."""
    return mean(_sigmoid(skill + DIFFICULTY * pose) for pose in _POSES)


_POSES = [NormalDist().inv_cdf((i + 0.5) / 41) for i in range(41)]


def _idea(rng: random.Random) -> float:
    """Change of skill by a hypothesis: many harm, many do nothing, some help, few are what was looked for."""
    kind = rng.random()
    if kind < 0.40:
        return rng.gauss(-1.0, 0.6)
    if kind < 0.75:
        return rng.gauss(0.0, 0.2)
    return rng.gauss(0.6, 0.3) if kind < 0.95 else rng.gauss(2.0, 0.5)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def _logit(rate: float) -> float:
    return math.log(rate / (1 - rate)) if rate < 1 else math.inf


# (best, candidate)
_GATE_RATES = (0.5, 0.5), (0.7, 0.7), (0.9, 0.9), (0.9, 0.7), (0.9, 0.5), (0.9, 0.3), (0.9, 0.1), (0.5, 0.1)


def main() -> None:
    rules = {'6 trials, 1 more': fixed_number(6), '12 trials, 1 more': fixed_number(12), 'racing, first 6': racing(6),
             'racing, first 4': racing(4)}
    print('kept (trials), by the true rates of candidate and best recipe, which had as many trials as the rule gives')
    pairs = [(best, best + change) for best in (0.3, 0.6, 0.85) for change in (-0.2, -0.1, 0.0, 0.1, 0.3)
             if best + change < 1]
    _print_keep_rates(rules, pairs, baseline=0)
    print('... and 50 on fresh seeds')
    _print_keep_rates(rules, [(0.95, 0.7), (0.95, 0.85), (0.98, 0.95), (0.95, 0.95), (0.95, 0.98), (0.95, 1.0)],
                      baseline=50)
    for start, baseline, lengths in ((-1.0, 20, (60, 150, 400)), (_logit(0.95), 50, (150, 400, 1000))):
        print(f'campaigns from {100 * true_rate(start):.0f} %: true rate at the end (nine of ten reach), hypotheses '
              'tried, kept, share of those that were worse')
        for name, rule in rules.items():
            climbs = [(trials, hill_climb(rule, trials, start=start, baseline=baseline)) for trials in lengths]
            print(f'{name:>20s} ' + ' | '.join(
                f'{trials} trials: {100 * c.rate:.1f} % ({100 * c.low:.1f} %), {c.iterations:.0f} tried, {c.kept:.1f} '
                f'kept, {100 * c.worse:.0f} % worse' for trials, c in climbs))
    for start, baseline, trials in ((-1.0, 20, 400), (_logit(0.95), 50, 1000)):
        winners = Winners()
        climb = hill_climb(gated(racing(6), winners), trials, start=start, baseline=baseline)
        print(f'with the regression gate, {trials} trials: {100 * climb.rate:.1f} % ({100 * climb.low:.1f} %), '
              f'{winners.reverted} of {winners.number} winners reverted, {winners.trials / winners.number:.2f} trials '
              'each')
    print('the regression gate: winners reverted (trials), by the rates of candidate and best recipe on its seeds')
    for seeds in (6, 12, 24):
        cells = [gate_rate(seeds, best, candidate) for best, candidate in _GATE_RATES]
        print(f'{seeds:>14d} seeds ' + ' '.join(
            f'{100 * c:.0f}/{100 * b:.0f}: {100 * (1 - cell.kept):.1f} % ({cell.trials:.0f})'
            for (b, c), cell in zip(_GATE_RATES, cells)))


def _print_keep_rates(rules: dict[str, Rule], pairs: list[tuple[float, float]], baseline: int) -> None:
    print(f'{"candidate/best":>20s} ' + ' '.join(f'{100 * c:.0f}/{100 * b:.0f}'.rjust(11) for b, c in pairs))
    for name, rule in rules.items():
        trials = 12 if '12' in name else 6
        cells = [keep_rate(rule, best, candidate, best_trials=trials, baseline=baseline) for best, candidate in pairs]
        print(f'{name:>20s} ' + ' '.join(f'{100 * c.kept:.0f} % ({c.trials:.0f})'.rjust(11) for c in cells))


if __name__ == '__main__':
    main()
