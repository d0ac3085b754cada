"""The trials of a campaign: one after the other, held and stopped between them, none run twice."""

from __future__ import annotations

import threading
from collections import deque
from typing import Callable, Collection, Protocol

from enpire_agent.campaign_state import SEARCH, Best, CampaignState, Measurement, TrialOutcome, outcome_of_line
from enpire_agent.ledger import Ledger
from enpire_agent.score import Solved, solved
from enpire_agent.seeds import gate_seed
from enpire_agent.station_hold import StationHold
from enpire_agent.time_split import HELD, RUNNING, TimeSplit

RESET_FAILURES_TO_HOLD = 3
TRIES_PER_SEARCH_SEED = 3        # a reset that failed, or a stop, says nothing about the recipe
SAYS_NOTHING = ('RESET_FAILED', 'ABORTED', 'INVALID')
RECENT_TRIALS = 12
UNKNOWN_TRIAL_TIME = 15.0        # s of wall time, for the first estimate of the time left
HOLD_LOOK = 0.5                  # s of wall time between looks while held

# (kind, seed, cancelled) -> the trial, which is in the ledger when this returns
RunTrial = Callable[[str, int, Callable[[], bool]], TrialOutcome]


class CampaignError(RuntimeError):
    """The campaign cannot go on; the message says why and what to do."""


class CampaignStopped(RuntimeError):
    """Somebody asked it to stop; it can be resumed."""


class Listener(Protocol):
    """Hears what a campaign does. Called from the campaign's thread."""

    def event(self, kind: str, iteration: int, text: str, commit: str = '') -> None: ...

    def kept(self, recipe: Best, decision: str, parent: str, env_hash: str) -> None: ...


class CampaignTrials:
    """Runs trials of the recipe in the work tree, looks known ones up in the ledger, and waits while held.

    save: writes the campaign's state; called after every trial. await_station(cancelled): waits until the station can
    run a trial and returns '', or why it cannot.
    """

    def __init__(self, state: CampaignState, ledger: Ledger, time_split: TimeSplit, *, run_trial: RunTrial,
                 hold: StationHold, listener: Listener, save: Callable[[], None],
                 environment_changes: Callable[[], list[str]], await_station: Callable[[Callable[[], bool]], str]):
        self._state = state
        self._ledger = ledger
        self._time = time_split
        self._run_trial = run_trial
        self._hold = hold
        self._listener = listener
        self._save = save
        self._environment_changes = environment_changes
        self._await_station = await_station
        self._doubtful = True        # whether the station may not be able to run a trial
        self._stopping = threading.Event()
        self._reset_failures = 0
        # A trial may have been entered after the last state was written: the ledger is right.
        trials = [outcome_of_line(line) for line in ledger.entries()]
        state.trials, state.successes = len(trials), sum(trial.success for trial in trials)
        self._recent = deque((trial.wall_duration for trial in trials), maxlen=RECENT_TRIALS)   # s of wall time

    # --- control, from any thread ---

    def resume(self) -> None:
        self._reset_failures = 0
        self._hold.clear()

    def stop(self) -> None:
        """Cancel the current trial; the next checkpoint raises CampaignStopped."""
        self._stopping.set()
        self._hold.wake()

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    @property
    def holding(self) -> bool:
        """Whether it waits between two trials, so that nothing moves until `resume()` or `stop()`."""
        return self._time.activity == HELD

    @property
    def usual_time(self) -> float:
        """s of wall time of a trial; of the newest ones, because better recipes are faster."""
        return sum(self._recent) / len(self._recent) if self._recent else UNKNOWN_TRIAL_TIME

    # --- trials ---

    def measure(self, measurement: Measurement, kind: str) -> TrialOutcome:
        """The next trial of a measurement; every started one counts here, whatever its outcome.

        Nobody can know its seed before: it is drawn now.
        """
        if measurement.drawn is None:
            self.checkpoint()
            measurement.drawn = gate_seed()
            self._save()
        known = self.known(kind, measurement.drawn, measurement.recipe)
        trial = known[0] if known else self._trial(kind, measurement.drawn)
        measurement.add(trial)
        self._save()
        return trial

    def search(self, recipe: str, seed: int) -> TrialOutcome:
        """The trial of a recipe on a search seed that says something about it; what says nothing is tried again."""
        known = self.known(SEARCH, seed, recipe)
        while True:
            said = [trial for trial in known if trial.outcome not in SAYS_NOTHING]
            if said:
                return said[0]
            if len(known) >= TRIES_PER_SEARCH_SEED:
                return known[-1]
            known.append(self._trial(SEARCH, seed))

    def known(self, kind: str, seed: int, recipe: str) -> list[TrialOutcome]:
        """Trials that are in the ledger, in their order."""
        return [outcome_of_line(line) for line in self._ledger.entries()
                if (line['kind'], line['seed'], line['recipe']) == (kind, seed, recipe)]

    def search_results(self, recipes: Collection[str]) -> dict[int, bool]:
        """Search seed -> whether a recipe of these names succeeded, of all its trials that say something about it."""
        results: dict[int, bool] = {}
        for line in self._ledger.entries():
            trial = outcome_of_line(line)
            if trial.kind == SEARCH and trial.recipe in recipes and trial.outcome not in SAYS_NOTHING:
                results.setdefault(trial.seed, trial.success)
        return results

    def solved(self) -> Solved:
        """Whether a recipe of this campaign has solved its task so far."""
        return solved(self._ledger.entries(), self._state.settings.gate_trials)

    def of_ids(self, trial_ids: list[str]) -> list[TrialOutcome]:
        wanted = set(trial_ids)
        return [outcome_of_line(line) for line in self._ledger.entries() if line['trial_id'] in wanted]

    def checkpoint(self) -> None:
        """Between trials: wait while held, also because the environment is not the same any more; stop when asked."""
        self._hold_where_environment_changed()
        while self._hold.reason and not self._stopping.is_set():
            self._listener.event('hold', len(self._state.iterations), self._hold.reason)
            with self._time.during(HELD):
                while self._hold.reason and not self._stopping.is_set():
                    self._hold.wait(HOLD_LOOK)
            self._hold_where_environment_changed()
        if self._stopping.is_set():
            raise CampaignStopped('stopped by request; run it again under the same name to go on')

    def _hold_where_environment_changed(self) -> None:
        changes = [] if self._hold.reason else self._environment_changes()
        if changes:
            self._hold.set(f'the environment was changed under the campaign: {"; ".join(changes)}; put that back and '
                           'resume, or cancel the campaign')

    def _make_sure_of_station(self) -> None:
        """After a trial that the recipe did not end: what was killed gets the time to come back."""
        while self._doubtful:
            missing = self._await_station(self._stopping.is_set)
            self._doubtful = bool(missing)
            if missing:
                self._hold.set(f'the station cannot run a trial: {missing}; see ./enpire status')
            self.checkpoint()

    def _trial(self, kind: str, seed: int) -> TrialOutcome:
        self.checkpoint()
        self._make_sure_of_station()
        with self._time.during(RUNNING):
            trial = self._run_trial(kind, seed, self._stopping.is_set)
        state = self._state
        state.trials += 1
        state.successes += trial.success
        self._recent.append(trial.wall_duration)
        self._doubtful = trial.outcome in SAYS_NOTHING
        if trial.outcome == 'INVALID':
            self._hold.set(f'trial {trial.trial_id} is INVALID: {trial.reason}')
        if self._stopping.is_set():
            self._save()
            raise CampaignStopped('stopped during a trial')
        self._reset_failures = self._reset_failures + 1 if trial.outcome == 'RESET_FAILED' else 0
        if self._reset_failures >= RESET_FAILURES_TO_HOLD:
            self._hold.set(f'{self._reset_failures} resets failed one after the other ({trial.reason})')
        return trial
