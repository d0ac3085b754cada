"""A campaign: measure the starting recipe, search for a better one, measure the best on fresh seeds.

No ROS here: the trial function, the researcher and the listener are given. Everything that was decided is in
`campaign.json` before the next thing happens, and every trial is in the ledger, so a campaign that was stopped at
any moment goes on where it was.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from dataclasses import asdict, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Callable, Protocol, Sequence

from enpire_agent.campaign_state import (BASELINE, GATE, KEPT, REVERTED, RUNNING, SEARCH, Best, CampaignSettings,
                                         CampaignState, Iteration, Measurement, TrialOutcome, outcome_of_line,
                                         read_campaign)
from enpire_agent.ledger import Ledger
from enpire_agent.recipe import load_recipe, static_check
from enpire_agent.recipe_repository import RecipeRepository, RepositoryError
from enpire_agent.researcher import Context, PeerRecipe, Researcher, Tried
from enpire_agent.score import probability_of_at_least, success_interval
from enpire_agent.seeds import gate_seeds, search_seeds
from enpire_bringup.configuration import ConfigurationError

_RESET_FAILURES_TO_HOLD = 3
_TRIES_PER_SEARCH_SEED = 3       # a reset that failed, or a stop, says nothing about the recipe
_SAYS_NOTHING = ('RESET_FAILED', 'ABORTED')
_POLICY_ERRORS_TO_STOP = 2       # consecutive; then the edit is broken, more trials teach nothing
_CLEARLY_NEARER = 0.75           # share of the incumbent's mean final position error ...
_LEAST_GAIN = 0.002              # ... and m by which it has to be lower at equal successes
_RECENT_TRIALS = 12
_SPEED_OF_A_BETTER_RECIPE = 0.6  # of the wall time of a trial
_LUCK = 0.3                      # probability of at least so many successes at the old rate that is not luck
_UNKNOWN_TRIAL_TIME = 15.0       # s of wall time, for the first estimate of the time left
_REMOTE_ANSWERS = 10.0           # s of wall time that a peer's remote gets within the campaign's own time ...
_ASK_REMOTE_AGAIN = 60.0         # ... and s after which one that did not answer is asked again


class CampaignError(RuntimeError):
    """The campaign cannot go on; the message says why and what to do."""


class CampaignStopped(RuntimeError):
    """Somebody asked it to stop; it can be resumed."""


class Listener(Protocol):
    """Hears what a campaign does. Called from the campaign's thread."""

    def event(self, kind: str, iteration: int, text: str, commit: str = '') -> None: ...

    def kept(self, recipe: Best, decision: str, parent: str, env_hash: str) -> None: ...


RunTrial = Callable[[str, int, Callable[[], bool]], TrialOutcome]


class Campaign:
    """Runs one campaign of one station in the folder `directory` (runs/<campaign>/<station>).

    run_trial(kind, seed, cancelled): one trial of the recipe in the work tree; it is in the ledger when this
    returns. peers: recipes that peers announced so far. current_env_hash: SHA-256 of the environment as it is on
    disk now.
    """

    def __init__(self, directory: Path | str, settings: CampaignSettings, *, repository: RecipeRepository,
                 researcher: Researcher, run_trial: RunTrial, listener: Listener,
                 peers: Callable[[], Sequence[PeerRecipe]] = tuple,
                 current_env_hash: Callable[[], str] | None = None):
        """Raises ConfigurationError when the folder holds a campaign of another environment or task."""
        self.directory = Path(directory)
        self._repository = repository
        self._researcher = researcher
        self._run_trial = run_trial
        self._listener = listener
        self._peers = peers
        self._current_env_hash = current_env_hash or (lambda: settings.env_hash)
        self._ledger = Ledger(self.directory / 'ledger.jsonl')
        self._file = self.directory / 'campaign.json'
        self._control = threading.Condition()
        self._hold_reason = ''
        self._holding = False
        self._stopping = False
        self._reset_failures = 0
        self._ask_again: dict[str, float] = {}                      # remote -> time.monotonic()
        self._session_started = time.monotonic()
        self._recent: deque[float] = deque(maxlen=_RECENT_TRIALS)   # s of wall time
        self.state = self._load(settings)
        self._elapsed_before = self.state.elapsed

    # --- control, from any thread ---

    def hold(self, reason: str) -> None:
        """Stop after the current trial and wait."""
        with self._control:
            self._hold_reason = reason or 'held by request'

    def resume(self) -> None:
        with self._control:
            self._hold_reason = ''
            self._reset_failures = 0
            self._control.notify_all()

    def stop(self) -> None:
        """Cancel the current trial and end; the campaign can be resumed later."""
        with self._control:
            self._stopping = True
            self._control.notify_all()

    @property
    def hold_reason(self) -> str:
        """Why it is held, or '' (it may still be finishing its current trial)."""
        return self._hold_reason

    @property
    def holding(self) -> bool:
        """Whether it waits between two trials, and so nothing moves until `resume()` or `stop()`."""
        return self._holding

    @property
    def elapsed(self) -> float:
        """s of wall time that this campaign ran, earlier sessions included."""
        return self._elapsed_before + time.monotonic() - self._session_started

    @property
    def remaining(self) -> float:
        """Estimated s of wall time until the end."""
        if self.state.finished:
            return 0.0
        trial = self._trial_time()
        gate = self._gate_trials_left() * trial
        baseline = 0.0
        if self.state.phase == BASELINE:
            measured = self.state.baseline
            baseline = (self.state.settings.gate_trials - (measured.trials if measured else 0)) * trial
        search = self._search_trials_left() * trial if self.state.phase != GATE else 0.0
        if self.state.settings.max_duration:
            search = min(search, max(0.0, self.state.settings.max_duration - self.elapsed - gate - baseline))
        return baseline + search + gate

    # --- the campaign ---

    def run(self) -> CampaignState:
        """Run to the goal or the budget.

        Raises CampaignStopped after `stop`, CampaignError when the environment changed under it.
        """
        state = self.state
        if state.finished:
            return state
        self._check_environment()
        if state.phase == BASELINE:
            self._run_baseline()
        if state.phase == SEARCH:
            self._run_search()
        if state.phase == GATE:
            self._run_gate()
        return state

    def _load(self, settings: CampaignSettings) -> CampaignState:
        if not self._file.is_file():
            return CampaignState(settings, self._researcher.name, _now())
        state = read_campaign(self._file)
        for key in ('campaign', 'station', 'task', 'env_hash'):
            before, now = getattr(state.settings, key), getattr(settings, key)
            if before != now:
                raise ConfigurationError(
                    f'{self._file}: this campaign has {key} {before}, now it is {now}. Its figures would not be '
                    f'comparable: choose another campaign name, or restore what was changed')
        changed = {f.name: getattr(settings, f.name) for f in fields(settings)}
        if state.finished and asdict(state.settings) != changed:
            raise ConfigurationError(f'{self._file}: this campaign is finished ({state.finished}); choose another '
                                     f'campaign name')
        # Budgets and goal may be changed by a resume; what was drawn already stays.
        state.settings = settings
        # A trial may have been entered after the last state was written: the ledger is right.
        trials = [outcome_of_line(line) for line in self._ledger.entries()]
        state.trials, state.successes = len(trials), sum(trial.success for trial in trials)
        state.busy = sum(trial.wall_duration for trial in trials)
        self._recent.extend(trial.wall_duration for trial in trials)
        return state

    def _run_baseline(self) -> None:
        state, settings = self.state, self.state.settings
        root = self._repository.identity() if state.baseline is None else state.baseline.recipe
        if state.baseline is None:
            state.baseline = self._known_baseline(root) or Measurement(root, gate_seeds(settings.gate_trials))
            self._save()
        method = load_recipe(self._repository.work_tree).method
        if not state.baseline.source:
            self._listener.event(BASELINE, 0, f'measuring the starting recipe on {len(state.baseline.seeds)} fresh '
                                              f'seeds')
            # What peers announced may arrive after the first trials have begun; those stay in the ledger.
            while state.baseline.trials < len(state.baseline.seeds):
                known = self._known_baseline(root)
                if known is not None:
                    state.baseline = known
                    self._save()
                    break
                self._measure_next(state.baseline, BASELINE)
        if state.baseline.source:
            self._listener.event(BASELINE, 0, f'{state.baseline.source} measured this starting recipe: '
                                              f'{state.baseline.successes}/{state.baseline.trials}')
        state.best = Best(root, method, 'the starting recipe', state.baseline.trials, state.baseline.successes)
        state.phase = SEARCH
        self._save()
        self._listener.event('trials', 0, f'starting recipe: {_share(state.baseline)} on fresh seeds', root)
        if not state.baseline.source:
            self._listener.kept(state.best, BASELINE, '', settings.env_hash)

    def _known_baseline(self, root: str) -> Measurement | None:
        """A peer's measurement of the very same starting recipe in the same environment need not be repeated."""
        settings = self.state.settings
        for peer in self._peers():
            if (peer.decision == BASELINE and peer.commit == root and peer.env_hash == settings.env_hash
                    and peer.task == settings.task and peer.trials >= settings.gate_trials):
                return Measurement(root, [], [], {}, peer.trials, peer.successes, source=peer.station)
        return None

    def _run_search(self) -> None:
        state = self.state
        while True:
            self._checkpoint()
            unfinished = state.iterations and state.iterations[-1].state == RUNNING
            why = '' if unfinished else self._search_is_over()
            if why:
                break
            iteration = state.iterations[-1] if unfinished else self._next_iteration()
            if iteration is None:
                why = 'the researcher has nothing left to try'
                break
            self._run_iteration(iteration)
        self._listener.event('done', len(state.iterations), f'the search ends: {why}', state.best.commit)
        state.phase = GATE
        self._save()

    def _search_is_over(self) -> str:
        state, settings = self.state, self.state.settings
        best = state.best
        results = [result[0] for result in best.results.values()]
        if len(results) >= settings.search_trials and sum(results) >= settings.goal * len(results):
            return f'the goal of {settings.goal:.0%} is reached on the search seeds'
        if not results and best.trials and best.successes >= settings.goal * best.trials:
            return f'the goal of {settings.goal:.0%} is reached by the recipe it starts from'
        if settings.max_iterations and len(state.iterations) >= settings.max_iterations:
            return f'the budget of {settings.max_iterations} iterations is spent'
        ahead = settings.search_trials + settings.gate_trials
        if settings.max_trials and state.trials + ahead > settings.max_trials:
            return f'the budget of {settings.max_trials} trials has no room for another iteration and the gate'
        # A recipe that is still to be found will be faster than the one that runs into the timeout.
        gate = settings.gate_trials * (1.0 if self._own_work() else _SPEED_OF_A_BETTER_RECIPE)
        reserve = (gate + settings.search_trials / 2) * self._trial_time()
        if settings.max_duration and self.elapsed + reserve > settings.max_duration:
            return f'the budget of {settings.max_duration:.0f} s has no room for another iteration and the gate'
        return ''

    def _next_iteration(self) -> Iteration | None:
        state, settings = self.state, self.state.settings
        number = len(state.iterations) + 1
        edit = self._researcher.propose(self._context())
        if edit is None:
            return None
        iteration = Iteration(
            number=number, hypothesis=edit.hypothesis, method=edit.method, origin=edit.origin,
            files=dict(edit.files), parent=state.best.commit, adopts=edit.adopts,
            seeds=search_seeds(settings.campaign, settings.search_trials), started=_now())
        state.iterations.append(iteration)
        self._save()
        self._listener.event('hypothesis', number, edit.hypothesis)
        return iteration

    def _context(self) -> Context:
        state, settings = self.state, self.state.settings
        return Context(
            recipe=self._repository.work_tree, task=settings.task, env_hash=settings.env_hash,
            best_interval=state.best.interval,
            history=[Tried(i.origin, i.method, i.state == KEPT, i.trials, i.successes) for i in state.iterations],
            peers=[peer for peer in self._peers() if peer.station != settings.station],
            iterations_left=settings.max_iterations - len(state.iterations) if settings.max_iterations else None,
            trials_left=settings.max_trials - state.trials if settings.max_trials else None,
            read_peer=self._read_peer,
            log=lambda text: self._listener.event('error', len(state.iterations), text))

    def _read_peer(self, peer: PeerRecipe) -> dict[str, str | None]:
        """Files that differ from the peer's. git_bridge has fetched them, as a rule; else the remote gets one chance a
        minute, so that one which is away does not keep the station from its trials."""
        if not self._repository.has(peer.commit):
            if time.monotonic() < self._ask_again.get(peer.remote, 0.0):
                raise RepositoryError(f'{peer.remote} was away a moment ago')
            self._ask_again[peer.remote] = time.monotonic() + _ASK_REMOTE_AGAIN
            self._repository.fetch_commit(peer.commit, peer.remote, self.state.settings.campaign, _REMOTE_ANSWERS)
            del self._ask_again[peer.remote]
        return self._repository.edit_towards(peer.commit)

    def _run_iteration(self, iteration: Iteration) -> None:
        """Test one hypothesis and decide; goes on where a stop or crash interrupted it."""
        committed = self._repository.iteration_commit(iteration.number)
        kept, reason = False, self._put_edit(iteration) if not committed else ''
        if not reason:
            trials = self._race(iteration)
            kept, reason = self._decide(iteration, trials)
        self._finish(iteration, kept, reason, committed)

    def _put_edit(self, iteration: Iteration) -> str:
        """The edit in the work tree; returns why it cannot be tried, or ''."""
        self._repository.discard()
        try:
            if iteration.adopts:
                self._repository.put_files_of(iteration.adopts)     # byte by byte what the peer measured
            else:
                self._repository.write(iteration.files)
            static_check(self._repository.work_tree, list(iteration.files))
        except (ConfigurationError, RepositoryError) as error:
            return f'not tried: {error}'
        if not iteration.recipe:
            iteration.recipe = self._repository.identity()
            self._save()
        self._listener.event('edit', iteration.number, f'changes {", ".join(iteration.files)}')
        return ''

    def _race(self, iteration: Iteration) -> list[TrialOutcome]:
        """Trials of the candidate, given up once it cannot reach what it has to."""
        iteration.before, iteration.to_reach, enough = self._bar(iteration)
        trials: list[TrialOutcome] = []
        errors = 0
        for number, seed in enumerate(iteration.seeds):
            trials.append(self._search_trial(iteration.recipe, seed))
            iteration.trial_ids = [trial.trial_id for trial in trials]
            iteration.outcomes = dict(Counter(trial.outcome for trial in trials))
            iteration.trials, iteration.successes = len(trials), sum(trial.success for trial in trials)
            self._save()
            errors = errors + 1 if trials[-1].outcome == 'POLICY_ERROR' else 0
            remaining = len(iteration.seeds) - number - 1
            if errors >= _POLICY_ERRORS_TO_STOP or iteration.successes + remaining < enough:
                break
        iteration.position_error = _mean([trial.position_error for trial in trials])
        return trials

    def _bar(self, iteration: Iteration) -> tuple[str, int, int]:
        """What the best recipe did (for people), successes that beat it, and successes that it is still worth a trial.

        A recipe that won an iteration was tried on the same seeds: the comparison is paired, and with as many successes
        the nearer one wins. The starting recipe has its rate on many fresh seeds: there it takes more than luck.
        """
        best, n = self.state.best, len(iteration.seeds)
        paired = self._paired_results(iteration)
        if paired:
            before = sum(success for success, _ in paired)
            return f'{before} of {n}', before + 1, before
        rate = best.successes / best.trials if best.trials else 0.0
        to_reach = next((successes for successes in range(1, n + 1)
                         if probability_of_at_least(successes, n, rate) < _LUCK), n + 1)
        return f'{best.successes} of {best.trials}', to_reach, to_reach

    def _paired_results(self, iteration: Iteration) -> list:
        """The best recipe's [success, final position error in m] on the iteration's seeds; empty when incomplete."""
        results = self.state.best.results
        if not all(str(seed) in results for seed in iteration.seeds):
            return []
        return [results[str(seed)] for seed in iteration.seeds]

    def _decide(self, iteration: Iteration, trials: list[TrialOutcome]) -> tuple[bool, str]:
        """(keep, why)."""
        n, successes = len(iteration.seeds), iteration.successes
        text = f'{successes} of {len(trials)}, before {iteration.before}'
        if len(trials) < n:
            if successes + n - len(trials) < iteration.to_reach:
                return False, f'{text}: cannot do better any more'
            return False, f'{text}: given up, {trials[-1].reason}'
        if successes >= iteration.to_reach:
            return True, text
        paired = self._paired_results(iteration)
        if paired and successes == iteration.to_reach - 1:
            error, error_before = iteration.position_error, _mean([error for _, error in paired])
            if error is not None and error_before is not None:
                nearer = error < _CLEARLY_NEARER * error_before and error_before - error > _LEAST_GAIN
                return nearer, (f'{text}; mean final distance {error * 1e3:.0f} mm, before '
                                f'{error_before * 1e3:.0f} mm')
        return False, text if paired or not successes else f'{text}: no more than luck'

    def _finish(self, iteration: Iteration, kept: bool, reason: str, committed: str) -> None:
        state, settings = self.state, self.state.settings
        low, high = success_interval(iteration.successes, iteration.trials)
        iteration.reason = reason
        iteration.commit = committed or self._repository.commit(iteration.hypothesis, {
            'Task': settings.task, 'Station': settings.station, 'Iteration': iteration.number,
            'Method': iteration.method, 'Origin': iteration.origin, 'Env-Hash': settings.env_hash,
            'Recipe-Hash': iteration.recipe, 'Trials': iteration.trials, 'Successes': iteration.successes,
            'Interval': f'{low:.3f}..{high:.3f}', 'Decision': 'keep' if kept else 'revert', 'Reason': reason,
            'Parent-Recipe': iteration.parent,
        }, second_parent=iteration.adopts if kept and iteration.adopts else None)
        if not kept and not self._repository.is_reverted(iteration.commit):
            self._repository.revert(iteration.commit)
        iteration.state, iteration.ended = KEPT if kept else REVERTED, _now()
        if kept:
            results = {str(seed): list(result) for seed, result in self._results_of(iteration).items()}
            state.best = Best(iteration.commit, iteration.method, iteration.hypothesis, iteration.trials,
                              iteration.successes, iteration.number, _adopted_from(iteration), results,
                              list(iteration.trial_ids))
        self._save()
        kind = ('adopt' if iteration.adopts else 'keep') if kept else 'revert'
        self._listener.event(kind, iteration.number, reason, iteration.commit)
        if kept:
            self._listener.kept(state.best, 'keep', iteration.parent, settings.env_hash)

    def _results_of(self, iteration: Iteration) -> dict[int, tuple]:
        """Seed -> (success, final position error in m) of an iteration's trials."""
        wanted = set(iteration.trial_ids)
        results = {}
        for line in self._ledger.entries():
            if line['trial_id'] in wanted:
                trial = outcome_of_line(line)
                results[trial.seed] = (trial.success, trial.position_error)
        return results

    def _run_gate(self) -> None:
        state, settings = self.state, self.state.settings
        if not self._own_work():
            state.finished = (f'the best recipe is that of {state.best.adopted_from}' if state.best.adopted_from
                              else 'no hypothesis was kept')
            self._save()
            self._listener.event('done', len(state.iterations), state.finished, state.best.commit)
            return
        if state.gate is None:
            state.gate = Measurement(state.best.commit, gate_seeds(settings.gate_trials))
            self._save()
        self._repository.discard()
        self._listener.event(GATE, len(state.iterations), f'measuring the best recipe on {len(state.gate.seeds)} '
                                                          f'fresh seeds', state.best.commit)
        self._measure(state.gate, GATE)
        state.best.trials, state.best.successes = state.gate.trials, state.gate.successes
        state.finished = (f'{_share(state.gate)} on fresh seeds, the starting recipe had '
                          f'{state.baseline.successes}/{state.baseline.trials}')
        self._save()
        self._listener.kept(state.best, 'keep', state.baseline.recipe, settings.env_hash)
        self._listener.event('done', len(state.iterations), state.finished, state.best.commit)

    def _own_work(self) -> bool:
        """Whether the best recipe is one that only this station can vouch for."""
        best = self.state.best
        return bool(best and best.iteration and not best.adopted_from)

    # --- trials ---

    def _measure(self, measurement: Measurement, kind: str) -> None:
        """Every started trial counts here, whatever its outcome."""
        while measurement.trials < len(measurement.seeds):
            self._measure_next(measurement, kind)

    def _measure_next(self, measurement: Measurement, kind: str) -> None:
        seed = measurement.seeds[measurement.trials]
        known = self._in_ledger(kind, seed, measurement.recipe)
        measurement.add(known[0] if known else self._trial(kind, seed))
        self._save()

    def _search_trial(self, recipe: str, seed: int) -> TrialOutcome:
        known = self._in_ledger(SEARCH, seed, recipe)
        while True:
            said = [trial for trial in known if trial.outcome not in _SAYS_NOTHING]
            if said:
                return said[0]
            if len(known) >= _TRIES_PER_SEARCH_SEED:
                return known[-1]
            known.append(self._trial(SEARCH, seed))

    def _in_ledger(self, kind: str, seed: int, recipe: str) -> list[TrialOutcome]:
        return [outcome_of_line(line) for line in self._ledger.entries()
                if (line['kind'], line['seed'], line['recipe']) == (kind, seed, recipe)]

    def _trial(self, kind: str, seed: int) -> TrialOutcome:
        self._checkpoint()
        trial = self._run_trial(kind, seed, lambda: self._stopping)
        state = self.state
        state.trials += 1
        state.successes += trial.success
        state.busy += trial.wall_duration
        self._recent.append(trial.wall_duration)
        if trial.outcome == 'INVALID':
            raise CampaignError(f'trial {trial.trial_id} is INVALID: {trial.reason}')
        if self._stopping:
            self._save()
            raise CampaignStopped('stopped during a trial')
        self._reset_failures = self._reset_failures + 1 if trial.outcome == 'RESET_FAILED' else 0
        if self._reset_failures >= _RESET_FAILURES_TO_HOLD:
            self.hold(f'{self._reset_failures} resets failed one after the other ({trial.reason}); look at the '
                      f'station, then `enpire resume`')
        return trial

    def _checkpoint(self) -> None:
        """Between trials: wait while held, stop when asked, see whether the environment is still the same."""
        with self._control:
            if self._hold_reason and not self._stopping:
                self._listener.event('hold', len(self.state.iterations), self._hold_reason)
                self._holding = True
                while self._hold_reason and not self._stopping:
                    self._control.wait(timeout=0.5)
                self._holding = False
            if self._stopping:
                raise CampaignStopped('stopped by request; run it again under the same name to go on')
        self._check_environment()

    def _check_environment(self) -> None:
        now, before = self._current_env_hash(), self.state.settings.env_hash
        if now != before:
            raise CampaignError(
                f'the environment changed under the campaign: it started with {before[:12]}..., now it is '
                f'{now[:12]}...; restore task, scene, reward, reset and station files, or start a new campaign')

    # --- estimates and state ---

    def _trial_time(self) -> float:
        """s of wall time; of the newest trials, because better recipes are faster."""
        return sum(self._recent) / len(self._recent) if self._recent else _UNKNOWN_TRIAL_TIME

    def _gate_trials_left(self) -> int:
        state = self.state
        if state.phase == GATE and not self._own_work():
            return 0
        return state.settings.gate_trials - (state.gate.trials if state.gate else 0)

    def _search_trials_left(self) -> float:
        state, settings = self.state, self.state.settings
        estimate = getattr(self._researcher, 'candidates_left', None)
        if state.best is not None and estimate is not None:
            iterations = estimate(self._context())
        else:
            iterations = settings.max_iterations or 5
        if settings.max_iterations:
            iterations = min(iterations, settings.max_iterations - len(state.iterations))
        left = iterations * settings.search_trials
        if state.iterations and state.iterations[-1].state == RUNNING:
            left += len(state.iterations[-1].seeds) - state.iterations[-1].trials
        if settings.max_trials:
            left = min(left, settings.max_trials - state.trials - settings.gate_trials)
        return max(0, left)

    def _save(self) -> None:
        self.state.elapsed = self.elapsed
        self.state.write(self._file)


def _adopted_from(iteration: Iteration) -> str:
    return iteration.origin.removeprefix('adopt:').split('/')[0] if iteration.adopts else ''


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return sum(known) / len(known) if known else None


def _share(measurement: Measurement) -> str:
    return f'{measurement.successes}/{measurement.trials}'


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec='milliseconds')
