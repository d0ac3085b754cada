"""What a campaign may still spend, and how long it will take."""

from __future__ import annotations

from typing import Callable

from enpire_agent.campaign_state import BASELINE, GATE, RUNNING, CampaignState

SPEED_OF_A_BETTER_RECIPE = 0.6   # of the wall time of a trial, while the recipe that runs into the timeout is the best
TRIALS_OF_A_HYPOTHESIS = 1.5     # times the first trials, before any iteration has said how many it takes
UNKNOWN_ITERATIONS = 5


class CampaignBudget:
    """Looks at a campaign's state. elapsed: s of wall time so far; trial_time: s of wall time of a usual trial."""

    def __init__(self, state: CampaignState, elapsed: Callable[[], float], trial_time: Callable[[], float]):
        self._state = state
        self._elapsed = elapsed
        self._trial_time = trial_time

    def spent(self) -> str:
        """Which budget has no room for another iteration and the gate behind it; '' while every one has."""
        state, settings = self._state, self._state.settings
        if settings.max_iterations and len(state.iterations) >= settings.max_iterations:
            return f'the budget of {settings.max_iterations} iterations is spent'
        if settings.max_tokens and state.tokens >= settings.max_tokens:
            return f'the budget of {settings.max_tokens} tokens is spent'
        return self.no_room_for_trials(settings.search_trials)

    def no_room_for_trials(self, trials: int) -> str:
        """Which budget has no room for so many trials of a search and the gate behind them; '' while every one has."""
        state, settings = self._state, self._state.settings
        if settings.max_trials and state.trials + trials + settings.gate_trials > settings.max_trials:
            return f'the budget of {settings.max_trials} trials has no room for more and the gate'
        # A recipe that is still to be found will be faster than the one that runs into the timeout; and half of the
        # hypotheses are given up half-way.
        gate = settings.gate_trials * (1.0 if state.best.iteration else SPEED_OF_A_BETTER_RECIPE)
        if settings.max_duration and self._elapsed() + (gate + trials / 2) * self._trial_time() > settings.max_duration:
            return f'the budget of {settings.max_duration:.0f} s has no room for more and the gate'
        return ''

    def remaining(self, candidates: int | None) -> float:
        """Estimated s of wall time until the end. candidates: hypotheses that the researcher still has, where known."""
        state, settings = self._state, self._state.settings
        if state.finished:
            return 0.0
        trial = self._trial_time()
        gate = self._gate_trials_left() * trial
        baseline = 0.0
        if state.phase == BASELINE:
            baseline = (settings.gate_trials - (state.baseline.trials if state.baseline else 0)) * trial
        search = self._search_trials_left(candidates) * trial if state.phase != GATE else 0.0
        if settings.max_duration:
            search = min(search, max(0.0, settings.max_duration - self._elapsed() - gate - baseline))
        return baseline + search + gate

    def _gate_trials_left(self) -> int:
        state = self._state
        if state.phase == GATE and not (state.best.iteration and not state.best.adopted_from):
            return 0
        return state.settings.gate_trials - (state.gate.trials if state.gate else 0)

    def _search_trials_left(self, candidates: int | None) -> float:
        state, settings = self._state, self._state.settings
        iterations = candidates if candidates is not None else settings.max_iterations or UNKNOWN_ITERATIONS
        if settings.max_iterations:
            iterations = min(iterations, settings.max_iterations - len(state.iterations))
        done = [iteration.trials for iteration in state.iterations if iteration.state != RUNNING]
        usual = sum(done) / len(done) if done else TRIALS_OF_A_HYPOTHESIS * settings.search_trials
        left = iterations * usual
        if state.iterations and state.iterations[-1].state == RUNNING:
            left += max(1.0, usual - state.iterations[-1].trials)
        if settings.max_trials:
            left = min(left, settings.max_trials - state.trials - settings.gate_trials)
        return max(0.0, left)
