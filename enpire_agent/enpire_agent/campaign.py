"""A campaign: measure the starting recipe, search for a better one, until the best passes the gate on fresh seeds.

No ROS here: the trial function, the researcher and the listener are given. Everything that was decided is in
`campaign.json` before the next thing happens, and every trial is in the ledger, so a campaign that was stopped at
any moment goes on where it was.
"""

from __future__ import annotations

import threading
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Callable, Sequence

from enpire_agent.agent_turn import Tokens, TurnResult
from enpire_agent.campaign_budget import CampaignBudget
from enpire_agent.campaign_race import CampaignRace
from enpire_agent.campaign_state import (BASELINE, GATE, KEPT, REVERTED, RUNNING, SEARCH, Best, CampaignSettings,
                                         CampaignState, Iteration, Measurement, Turn, read_campaign)
from enpire_agent.campaign_thinking import CampaignThinking
from enpire_agent.campaign_trials import (SAYS_NOTHING, CampaignError, CampaignStopped, CampaignTrials, Listener,
                                          RunTrial)
from enpire_agent.ledger import Ledger
from enpire_agent.recipe import load_recipe, static_check
from enpire_agent.recipe_history import origins_behind, tried_by_peers
from enpire_agent.recipe_repository import RecipeRepository, RepositoryError
from enpire_agent.researcher import Context, PeerRecipe, Researcher, Tried
from enpire_agent.score import success_interval
from enpire_agent.shown_recipe import ShownRecipe
from enpire_agent.station_hold import StationHold
from enpire_agent.time_split import RESETTING, RUNNING as RUNNING_TRIAL, TRAINING, TimeSplit
from enpire_bringup.configuration import ConfigurationError

__all__ = ['Campaign', 'CampaignError', 'CampaignStopped']

RESEARCHER = 'researcher'        # kind of the event that says what a coding agent does
_INTERRUPTED_GATES = 3           # attempts at the gate of one recipe that something else than the recipe may end
_REMOTE_ANSWERS = 10.0           # s of wall time that a peer's remote gets within the campaign's own time ...
_ASK_REMOTE_AGAIN = 60.0         # ... and s after which one that did not answer is asked again


class Campaign:
    """Runs one campaign of one station in the folder `directory` (runs/<campaign>/<station>).

    run_trial(kind, seed, cancelled): one trial of the recipe in the work tree; it is in the ledger when this
    returns. peers: recipes that peers announced so far. environment_changes: what of the environment on disk is not as
    it was. hold: why nothing may begin at the moment. await_station(cancelled): waits, with a bound, until the station
    can run a trial; returns what is missing, or ''.
    """

    def __init__(self, directory: Path | str, settings: CampaignSettings, *, repository: RecipeRepository,
                 researcher: Researcher, run_trial: RunTrial, listener: Listener,
                 peers: Callable[[], Sequence[PeerRecipe]] = tuple,
                 environment_changes: Callable[[], list[str]] = list, hold: StationHold | None = None,
                 await_station: Callable[[Callable[[], bool]], str] = lambda cancelled: ''):
        """Raises ConfigurationError when the folder holds a campaign of another environment or task."""
        self.directory = Path(directory)
        self._repository = repository
        self._researcher = researcher
        self._listener = listener
        self._peers = peers
        self._file = self.directory / 'campaign.json'
        self._hold = hold or StationHold()
        self._saving = threading.Lock()
        self._candidates_left: int | None = None                    # hypotheses after the current one, where known
        self._ask_again: dict[str, float] = {}                      # remote -> time.monotonic()
        self.state = self._load(settings)
        self.time_split = TimeSplit(self.state.time_split)
        self._trials = CampaignTrials(
            self.state, Ledger(self.directory / 'ledger.jsonl'), self.time_split, run_trial=run_trial,
            hold=self._hold, listener=listener, save=self._save,
            environment_changes=environment_changes, await_station=await_station)
        self._budget = CampaignBudget(self.state, lambda: self.elapsed, lambda: self._trials.usual_time)
        self._shown = ShownRecipe(repository)
        self._race = CampaignRace(self.state, self._trials, self._budget, self._shown, listener,
                                  self._save)
        self._thinking = CampaignThinking(self.state, self._trials, self._budget, self._race, self._hold, listener,
                                          self._saving, self._save)

    # --- control and looks, from any thread ---

    def resume(self) -> None:
        self._trials.resume()

    def stop(self) -> None:
        """Cancel the current trial and end; the campaign can be resumed later."""
        self._trials.stop()

    def trial_stage(self, stage: str) -> None:
        """What the running trial does: 'reset', or something else."""
        if self.time_split.activity in (RESETTING, RUNNING_TRIAL):
            self.time_split.switch(RESETTING if stage == 'reset' else RUNNING_TRIAL)

    @property
    def hold_reason(self) -> str:
        """Why it is held, or '' (it may still be finishing its current trial)."""
        return self._hold.reason

    @property
    def holding(self) -> bool:
        """Whether it waits between two trials, and so nothing moves until `resume()` or `stop()`."""
        return self._trials.holding

    @property
    def thinker(self) -> str:
        """The researcher that thinks while trials of the best recipe go on, or ''."""
        return self._thinking.thinker

    @property
    def elapsed(self) -> float:
        """s of wall time that this campaign ran, earlier sessions included."""
        return sum(self.time_split.totals.values())

    @property
    def remaining(self) -> float:
        """Estimated s of wall time until the end."""
        return self._budget.remaining(self._candidates_left)

    # --- the campaign ---

    def run(self) -> CampaignState:
        """Run until the gate is passed or the budget is spent.

        Raises CampaignStopped after `stop`, CampaignError when the station cannot go on with it. An environment that
        was changed under it holds the station.
        """
        state = self.state
        if state.finished:
            return state
        self._trials.checkpoint()
        if state.phase == BASELINE:
            self._run_baseline()
        while not state.finished:
            if state.phase == SEARCH:
                self._run_search()
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
        if state.finished and state.settings != settings:
            raise ConfigurationError(f'{self._file}: this campaign is finished ({state.finished}); choose another '
                                     f'campaign name')
        # Budgets and goal may be changed by a resume; what was drawn already stays.
        state.settings = settings
        if not state.finished:
            state.researcher = self._researcher.name
        return state

    # --- baseline ---

    def _run_baseline(self) -> None:
        state, settings = self.state, self.state.settings
        root = self._repository.identity() if state.baseline is None else state.baseline.recipe
        if state.baseline is None:
            state.baseline = self._known_baseline(root) or Measurement(root, settings.gate_trials)
            self._save()
        method = load_recipe(self._repository.work_tree).method
        if not state.baseline.source:
            self._listener.event(BASELINE, 0, f'measuring the starting recipe on {state.baseline.planned} fresh seeds')
            # What peers announced may arrive after the first trials have begun; those stay in the ledger.
            while not state.baseline.done:
                known = self._known_baseline(root)
                if known is not None:
                    state.baseline = known
                    self._save()
                    break
                self._trials.measure(state.baseline, BASELINE)
        if state.baseline.source:
            self._listener.event(BASELINE, 0, f'{state.baseline.source} measured this starting recipe: '
                                              f'{state.baseline}')
        state.best = Best(root, method, 'the starting recipe', state.baseline.trials, state.baseline.successes)
        state.phase = SEARCH
        self._save()
        self._listener.event('trials', 0, f'starting recipe: {state.baseline} on fresh seeds', root)
        if not state.baseline.source:
            self._listener.kept(state.best, BASELINE, '', settings.env_hash)

    def _known_baseline(self, root: str) -> Measurement | None:
        """A peer's measurement of the very same starting recipe in the same environment need not be repeated."""
        settings = self.state.settings
        for peer in self._peers():
            if (peer.decision == BASELINE and peer.commit == root and peer.env_hash == settings.env_hash
                    and peer.task == settings.task and peer.trials >= settings.gate_trials):
                return Measurement(root, trials=peer.trials, successes=peer.successes, source=peer.station)
        return None

    # --- search ---

    def _run_search(self) -> None:
        """Hypotheses until the best recipe is worth the gate, or until nothing more can be tried."""
        state = self.state
        while True:
            self._trials.checkpoint()
            unfinished = state.iterations and state.iterations[-1].state == RUNNING
            if not unfinished:
                promising = self._goal_reached()
                state.search_ended = '' if promising else self._budget.spent()
                if promising or state.search_ended:
                    break
            iteration = state.iterations[-1] if unfinished else self._next_iteration()
            if iteration is None:
                promising, state.search_ended = '', self._budget.spent() or 'the researcher has nothing left to try'
                break
            self._run_iteration(iteration)
        text = f'the search ends: {state.search_ended}' if state.search_ended else promising
        self._listener.event('done' if state.search_ended else GATE, len(state.iterations), text, state.best.commit)
        state.phase = GATE
        self._save()

    def _goal_reached(self) -> str:
        """Why the best recipe is worth the gate, which it has not tried yet; or ''."""
        settings, best = self.state.settings, self.state.best
        if any(attempt.recipe == best.commit for attempt in self.state.attempts):
            return ''
        if not best.iteration:      # its attempt at the gate was the baseline; search seeds cannot say more
            baseline = self.state.baseline
            return f'the recipe it starts from passes the gate: {baseline}' if baseline.passed else ''
        results = [success for success, _ in best.results.values()]
        if len(results) >= settings.search_trials and sum(results) >= settings.goal * len(results):
            return f'the goal of {settings.goal:.0%} is reached on the search seeds'
        return ''

    def _next_iteration(self) -> Iteration | None:
        state = self.state
        number = len(state.iterations) + 1
        self._shown.best()
        context = self._context()
        edit = self._thinking.propose(self._researcher, context)
        if edit is None:
            return None
        # Asked here and not when somebody looks: a researcher reads the work tree, which changes during a race.
        estimate = getattr(self._researcher, 'candidates_left', None)
        self._candidates_left = max(0, estimate(context) - 1) if estimate is not None else None
        iteration = Iteration(
            number=number, hypothesis=edit.hypothesis, method=edit.method, origin=edit.origin,
            files=dict(edit.files), parent=state.best.commit, adopts=edit.adopts, started=_now())
        state.iterations.append(iteration)
        self._save()
        self._listener.event('hypothesis', number, edit.hypothesis)
        return iteration

    def _context(self) -> Context:
        state, settings = self.state, self.state.settings
        best = self._race.evidence_of_best()
        return Context(
            recipe=self._repository.work_tree, task=settings.task, env_hash=settings.env_hash,
            best_interval=success_interval(best.successes, best.trials),
            history=[Tried(i.origin, i.method, i.state == KEPT, i.trials, i.successes) for i in state.iterations],
            peers=[peer for peer in self._peers() if peer.station != settings.station],
            peer_history=tried_by_peers(self._repository.work_tree, settings.task, settings.env_hash),
            built_on=origins_behind(self._repository.work_tree),
            iterations_left=settings.max_iterations - len(state.iterations) if settings.max_iterations else None,
            trials_left=settings.max_trials - state.trials if settings.max_trials else None,
            tokens_left=max(0, settings.max_tokens - state.tokens) if settings.max_tokens else None,
            read_peer=self._read_peer, spend_tokens=self._spend_tokens, turn_ended=self._note_turn,
            training=lambda: self.time_split.during(TRAINING),
            tell=lambda text: self._listener.event(RESEARCHER, len(state.iterations) + 1, text),
            log=lambda text: self._listener.event('error', len(state.iterations), text))

    def _spend_tokens(self, tokens: Tokens) -> None:
        with self._saving:
            self.state.input_tokens += tokens.input
            self.state.cached_tokens += tokens.cached
            self.state.output_tokens += tokens.output
            self.state.reasoning_tokens += tokens.reasoning
        self._save()

    def _note_turn(self, result: TurnResult) -> None:
        tokens = result.tokens
        turn = Turn(len(self.state.iterations) + 1, self._researcher.name, result.outcome, tokens.input, tokens.cached,
                    tokens.output, tokens.reasoning, result.cost, result.tools, round(result.duration, 3))
        with self._saving:
            self.state.turns.append(turn)
        self._save()

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

    # --- one iteration ---

    def _run_iteration(self, iteration: Iteration) -> None:
        """Test one hypothesis and decide; goes on where a stop or crash interrupted it."""
        committed = self._repository.iteration_commit(iteration.number)
        if committed:
            trailers = _trailers(self._repository.message(committed))
            kept, reason = trailers.get('Decision') == 'keep', trailers.get('Reason', '')
        else:
            kept, reason = self._try(iteration)
        self._finish(iteration, kept, reason, committed)

    def _try(self, iteration: Iteration) -> tuple[bool, str]:
        """(keep, why)."""
        try:
            self._shown.candidate(iteration)
            static_check(self._repository.work_tree, list(iteration.files))
        except (ConfigurationError, RepositoryError) as error:
            return False, f'not tried: {error}'
        if not iteration.recipe:
            iteration.recipe = self._repository.identity()
            self._save()
        self._listener.event('edit', iteration.number, f'changes {", ".join(iteration.files)}')
        kept, reason = self._race.run(iteration)
        self._shown.candidate(iteration)
        return kept, reason

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
        self._shown.forget()
        iteration.state, iteration.ended = KEPT if kept else REVERTED, _now()
        if kept:
            self._set_best(iteration)
        self._save()
        kind = ('adopt' if iteration.adopts else 'keep') if kept else 'revert'
        self._listener.event(kind, iteration.number, reason, iteration.commit)
        if kept:
            self._listener.kept(state.best, 'keep', iteration.parent, settings.env_hash)

    def _set_best(self, iteration: Iteration) -> None:
        state = self.state
        state.best = Best(iteration.commit, iteration.method, iteration.hypothesis, iteration=iteration.number,
                          adopted_from=_adopted_from(iteration))
        for trial in self._trials.of_ids(iteration.trial_ids):
            state.best.add(trial)
        if state.gate is not None:      # an attempt of the recipe before
            state.gates.append(state.gate)
            state.gate = None

    # --- gate ---

    def _run_gate(self) -> None:
        """Fresh seeds until the first that does not succeed; to the end when nothing else can be tried any more."""
        state = self.state
        if not self._own_work():
            self._finish_campaign(self._end_without_gate())
            return
        if state.gate is None:
            self._begin_attempt()
        self._shown.best()
        self._listener.event(GATE, len(state.iterations), f'measuring the best recipe on {state.gate.planned} fresh '
                                                          f'seeds', state.best.commit)
        while not state.gate.done:
            trial = self._trials.measure(state.gate, GATE)
            if trial.success or state.search_ended:
                continue
            state.search_ended = self._budget.spent()
            if state.search_ended:
                continue
            text = f'{state.gate}, then {trial.outcome}: {trial.reason}'
            if trial.outcome in SAYS_NOTHING and self._attempts_of_best() < _INTERRUPTED_GATES:
                self._listener.event(GATE, len(state.iterations), f'{text}; once more from the beginning')
                state.gates.append(state.gate)
                self._begin_attempt()
                continue
            self._listener.event(GATE, len(state.iterations), f'the gate is not passed ({text}); the search goes on',
                                 state.best.commit)
            state.phase = SEARCH
            self._save()
            return
        state.best.trials, state.best.successes = state.gate.trials, state.gate.successes
        self._listener.kept(state.best, 'keep', state.baseline.recipe, state.settings.env_hash)
        self._finish_campaign(f'{self._trials.solved()}; the starting recipe had {state.baseline}')

    def _end_without_gate(self) -> str:
        """How it ends where this station has no recipe of its own to try at the gate."""
        best, baseline = self.state.best, self.state.baseline
        if best.adopted_from:
            return f'the best recipe is that of {best.adopted_from}'
        if baseline.passed and baseline.source:
            return f'the recipe it starts from passed the gate of {baseline.source}: {baseline}'
        return f'{self._trials.solved()}; ' + ('the recipe it starts from' if baseline.passed
                                               else 'no hypothesis was kept')

    def _begin_attempt(self) -> None:
        self.state.gate = Measurement(self.state.best.commit, self.state.settings.gate_trials)
        self._save()

    def _attempts_of_best(self) -> int:
        return sum(attempt.recipe == self.state.best.commit for attempt in self.state.attempts)

    def _finish_campaign(self, text: str) -> None:
        self.state.finished = text
        self._save()
        self._listener.event('done', len(self.state.iterations), text, self.state.best.commit)

    def _own_work(self) -> bool:
        """Whether the best recipe is one that only this station can vouch for."""
        best = self.state.best
        return bool(best and best.iteration and not best.adopted_from)

    def _save(self) -> None:
        with self._saving:
            self.state.time_split = self.time_split.totals
            self.state.write(self._file)


def _trailers(message: str) -> dict[str, str]:
    return dict(line.split(': ', 1) for line in message.splitlines() if ': ' in line)


def _adopted_from(iteration: Iteration) -> str:
    return iteration.origin.removeprefix('adopt:').split('/')[0] if iteration.adopts else ''


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec='milliseconds')
