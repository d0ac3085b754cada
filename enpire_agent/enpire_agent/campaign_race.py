"""The trials of one hypothesis: its race against the best recipe and, when it won, the regression gate."""

from __future__ import annotations

from collections import Counter
from typing import Callable, Sequence

from enpire_agent.campaign_budget import CampaignBudget
from enpire_agent.campaign_state import KEPT, SEARCH, CampaignState, Iteration, TrialOutcome
from enpire_agent.campaign_trials import SAYS_NOTHING, CampaignTrials, Listener
from enpire_agent.racing import Decision, Evidence, Move, decide
from enpire_agent.regression import end_without_trials, mended_text, next_step, regression_seeds
from enpire_agent.seeds import search_seeds
from enpire_agent.shown_recipe import ShownRecipe

_POLICY_ERRORS_TO_STOP = 2       # consecutive; then the edit is broken, more trials teach nothing


class CampaignRace:
    """Runs and decides races. save: writes the campaign's state; called whenever something is known."""

    def __init__(self, state: CampaignState, trials: CampaignTrials, budget: CampaignBudget, shown: ShownRecipe,
                 listener: Listener, save: Callable[[], None]):
        self._state = state
        self._listener = listener
        self._trials = trials
        self._budget = budget
        self._shown = shown
        self._save = save

    def run(self, iteration: Iteration) -> tuple[bool, str]:
        """Returns (keep, why)."""
        if not iteration.won:
            won, reason = self._race(iteration)
            if not won:
                return False, reason
            # From here on the ledger alone would not tell the trials of the race from those on earlier failures.
            iteration.won = reason
            self._save()
        return self._pass_regression_gate(iteration)

    def _race(self, iteration: Iteration) -> tuple[bool, str]:
        """Trials of the candidate, and of the best recipe where that one is known less, until racing.decide knows."""
        state = self._state
        trials = self._known_trials(iteration)
        while True:
            best = self.evidence_of_best()
            decision = decide(_evidence(trials), best, state.settings.search_trials,
                              state.settings.gate_trials)
            self._note(iteration, trials, best, decision)
            if decision.over:
                return decision.move is Move.KEEP, decision.reason
            last = [trial.outcome for trial in trials[-_POLICY_ERRORS_TO_STOP:]]
            if last == ['POLICY_ERROR'] * _POLICY_ERRORS_TO_STOP:
                return False, f'{iteration.successes} of {iteration.trials}: given up, {trials[-1].reason}'
            spent = self._budget.no_room_for_trials(1) if trials else ''
            if spent:
                return False, f'{decision.reason or _evidence(trials)}: undecided when {spent}'
            if decision.move is Move.TRY_BEST:
                state.best.add(self.try_best())
            else:
                self._shown.candidate(iteration)
                trials.append(self._trials.search(iteration.recipe, self._seed(len(trials))))

    def _pass_regression_gate(self, iteration: Iteration) -> tuple[bool, str]:
        """Trials where recipes that were best before the present one failed, until regression.next_step knows.

        They are no part of the race: seeds on which a recipe failed are harder than others.
        """
        *earlier, names_of_best = self._names_of_bests()
        seeds = list(regression_seeds([self._failures(names) for names in earlier]))
        candidate, best = self._trials.search_results({iteration.recipe}), self._trials.search_results(names_of_best)
        mended, spent, begun = self._mended(iteration, candidate), '', False
        while not (step := next_step(seeds, candidate, best)).over:
            spent = self._budget.no_room_for_trials(1)
            if spent:
                step = end_without_trials(seeds, candidate, best)
                break
            if not begun:
                begun = True
                self._listener.event('trials', iteration.number, f'{iteration.won}; now where earlier best recipes '
                                                                 f'failed, up to {len(seeds)} seeds')
            if step.move is Move.TRY_BEST:
                known, trial = best, self._trials.search(self._shown.best(), step.seed)
            else:
                self._shown.candidate(iteration)
                known, trial = candidate, self._trials.search(iteration.recipe, step.seed)
            if trial.outcome in SAYS_NOTHING:
                seeds.remove(step.seed)
            else:
                known[step.seed] = trial.success
        said = (iteration.won, mended, step.reason, spent and f'not tried on all of them: {spent}')
        return step.move is Move.KEEP, '; '.join(text for text in said if text)

    def try_best(self) -> TrialOutcome:
        """The best recipe's trial on the next search seed; it counts once it is added to what is known of it."""
        recipe = self._shown.best()
        return self._trials.search(recipe, self._seed(len(self._state.best.results)))

    def evidence_of_best(self) -> Evidence:
        """All that is known of the best recipe on this station: search seeds, baseline, attempts at the gate."""
        state, best = self._state, self._state.best
        fresh = [measured for measured in (state.baseline, *state.attempts) if measured.recipe == best.commit]
        results = list(best.results.values())
        return Evidence(
            sum(success for success, _ in results) + sum(measured.successes for measured in fresh),
            len(results) + sum(measured.trials for measured in fresh),
            tuple(error for error in (*(error for _, error in results),
                                      *(error for measured in fresh for error in measured.position_errors))
                  if error is not None))

    def _mended(self, iteration: Iteration, candidate: dict[int, bool]) -> str:
        """What the race showed where the best recipe failed."""
        raced = {seed: candidate[seed] for seed in iteration.seeds if seed in candidate}
        return mended_text(raced, {int(seed): success for seed, (success, _) in self._state.best.results.items()})

    def _names_of_bests(self) -> list[set[str]]:
        """Of every recipe that was ever best what trials call it, the present best recipe last."""
        kept = [iteration for iteration in self._state.iterations if iteration.state == KEPT]
        return [{self._state.baseline.recipe}, *({iteration.recipe, iteration.commit} for iteration in kept)]

    def _failures(self, names: set[str]) -> list[int]:
        """Search seeds on which a recipe failed, in the order in which it met them."""
        return [seed for seed, success in self._trials.search_results(names).items() if not success]

    def _known_trials(self, iteration: Iteration) -> list[TrialOutcome]:
        """Trials of the candidate that the ledger knows, from the first seed on without a gap."""
        trials: list[TrialOutcome] = []
        while iteration.recipe:
            said = [trial for trial in self._trials.known(SEARCH, self._seed(len(trials)), iteration.recipe)
                    if trial.outcome not in SAYS_NOTHING]
            if not said:
                break
            trials.append(said[0])
        return trials

    def _note(self, iteration: Iteration, trials: list[TrialOutcome], best: Evidence, decision: Decision) -> None:
        iteration.before, iteration.probability = str(best), decision.probability
        iteration.seeds = [trial.seed for trial in trials]
        iteration.trial_ids = [trial.trial_id for trial in trials]
        iteration.outcomes = dict(Counter(trial.outcome for trial in trials))
        iteration.trials, iteration.successes = len(trials), sum(trial.success for trial in trials)
        errors = _evidence(trials).errors
        iteration.position_error = sum(errors) / len(errors) if errors else None
        self._save()

    def _seed(self, index: int) -> int:
        """Every recipe meets the same search seeds in the same order."""
        return search_seeds(self._state.settings.campaign, 1, first=index)[0]


def _evidence(trials: Sequence[TrialOutcome]) -> Evidence:
    return Evidence(sum(trial.success for trial in trials), len(trials),
                    tuple(trial.position_error for trial in trials if trial.position_error is not None))
