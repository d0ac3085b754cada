"""Search score and gate score side by side: what recipes did on the seeds that chose them, and on fresh ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

from enpire_agent.campaign_state import SEARCH, Iteration, Measurement
from enpire_agent.campaign_trials import SAYS_NOTHING
from enpire_agent.score import SUCCESS, Solved, solved, success_interval
from enpire_agent.station_run import StationRun, best_run, origin_name

MOST_ATTEMPTS = 6     # at the gate, of each station


@dataclass(frozen=True)
class Share:
    """Successes of trials. note: what a reader has to know beside them."""

    successes: int
    trials: int
    note: str = ''

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Clopper-Pearson."""
        return success_interval(self.successes, self.trials)


@dataclass(frozen=True)
class Compared:
    """One recipe; None where it was not tried."""

    name: str
    search: Share | None
    fresh: Share | None
    is_best: bool = False


def compared(run: StationRun) -> list[Compared]:
    """The starting recipe, those that did not pass the gate, and the best one of a station."""
    rows, baseline, best = [], run.baseline, run.state.best
    if baseline is not None and not baseline.source:
        rows.append(Compared('starting recipe', _of_lines(run, baseline.recipe),
                             Share(baseline.successes, baseline.trials)))
    iterations = {iteration.commit: iteration for iteration in run.state.iterations if iteration.commit}
    ended_early = [attempt for attempt in run.attempts if attempt is not run.gate and attempt.recipe in iterations]
    for attempt in ended_early[-MOST_ATTEMPTS:]:
        iteration = iterations[attempt.recipe]
        rows.append(Compared(_name(iteration), Share(iteration.successes, iteration.trials),
                             Share(attempt.successes, attempt.trials, 'ended by its first failure')))
    last = iterations.get(best.commit) if best is not None else None
    if last is not None and (run.gate is not None or last.commit not in {attempt.recipe for attempt in ended_early}):
        results = [success for success, _ in best.results.values()]
        search = Share(sum(results), len(results)) if results else Share(last.successes, last.trials)
        rows.append(Compared(f'best recipe, {_name(last)}', search, _of_gate(run.gate), is_best=True))
    return rows


def remark(rows: Sequence[Compared]) -> str:
    """What the two scores of the best recipe say together; '' before there are both."""
    best = next((row for row in rows if row.is_best and row.search and row.search.trials and row.fresh), None)
    if best is None:
        return ''
    if best.fresh.interval[1] < best.search.interval[0]:
        return ('On fresh seeds the best recipe does worse than on those that chose it, by more than luck: the gate is '
                'what counts.')
    if best.search.interval[1] < best.fresh.interval[0]:
        return 'On fresh seeds the best recipe does even better than in the search.'
    return 'Nothing tells that the best recipe does worse on fresh seeds than in the search: the intervals overlap.'


def solved_by(runs: Sequence[StationRun]) -> Solved:
    """Whether a station solved the task; else what the best of them did on fresh seeds."""
    best = best_run(list(runs))
    results = [(solved(list(run.lines.values()), run.state.settings.gate_trials), run is best) for run in runs]
    return max(results, key=lambda result: (result[0].yes, result[1], result[0].trials > 0))[0]


def _of_lines(run: StationRun, recipe: str) -> Share | None:
    outcomes = [line['outcome'] for line in run.lines.values()
                if (line['kind'], line['recipe']) == (SEARCH, recipe) and line['outcome'] not in SAYS_NOTHING]
    return Share(outcomes.count(SUCCESS), len(outcomes)) if outcomes else None


def _of_gate(gate: Measurement | None) -> Share | None:
    return Share(gate.successes, gate.trials) if gate is not None else None


def _name(iteration: Iteration) -> str:
    return f'iteration {iteration.number}, {origin_name(iteration)}'
