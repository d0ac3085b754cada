"""Trials of the best recipe while a researcher thinks: robot time is never idle because a model takes minutes.

They are on the search seeds that every recipe meets, so each of them is evidence in the races to come, and sharpens
most where it is needed: what a candidate is held against. The work tree holds the best recipe all the while, so a
researcher that copies it meanwhile copies whole files.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Callable

from enpire_agent.campaign_budget import CampaignBudget
from enpire_agent.campaign_race import CampaignRace
from enpire_agent.campaign_state import CampaignState
from enpire_agent.campaign_trials import CampaignStopped, CampaignTrials, Listener
from enpire_agent.researcher import Context, Edit, Researcher
from enpire_agent.score import success_interval
from enpire_agent.station_hold import StationHold

NARROW = 0.1          # width of the 95 % interval of the best recipe's success rate from which on more says little
ENDS_WITHIN = 30.0    # s of wall time that a researcher gets to end when it is told to
_LOOK = 0.2           # s of wall time


class CampaignThinking:
    """Asks researchers. changing: lock of the campaign's state, which this thread and the researcher's change.

    save: writes the campaign's state.
    """

    def __init__(self, state: CampaignState, trials: CampaignTrials, budget: CampaignBudget, race: CampaignRace,
                 hold: StationHold, listener: Listener, changing: threading.Lock, save: Callable[[], None]):
        self._state, self._trials, self._budget, self._race = state, trials, budget, race
        self._hold, self._listener, self._changing, self._save = hold, listener, changing, save
        self._thinker = ''

    @property
    def thinker(self) -> str:
        """Who thinks while trials go on, or ''."""
        return self._thinker

    def propose(self, researcher: Researcher, context: Context) -> Edit | None:
        """What `researcher.propose` gives. Raises what it raises, and CampaignStopped when the campaign is stopped.

        None also where the time is spent before the researcher has come to an end.
        """
        if not getattr(researcher, 'thinks_elsewhere', False):
            return researcher.propose(context)
        ending = threading.Event()
        thought = _Thought(researcher, replace(
            context, cancelled=lambda: self._over(ending),
            pause=lambda seconds, why: self._pause(seconds, why, ending)))
        self._thinker, gathered = researcher.name, 0
        try:
            while not thought.ended.is_set():
                if self._hold.reason or self._trials.stopping:
                    self._trials.checkpoint()
                elif self._worth_a_trial():
                    trial = self._race.try_best()
                    with self._changing:
                        self._state.best.add(trial)
                    self._save()
                    gathered += 1
                else:
                    thought.ended.wait(_LOOK)
        finally:
            ending.set()
            ended, self._thinker = thought.ended.wait(ENDS_WITHIN), ''
            if gathered:
                self._tell_gathered(gathered, researcher.name)
            if not ended:
                context.log(f'{researcher.name} did not end within {ENDS_WITHIN:.0f} s')
        try:
            return thought.result()
        except CampaignStopped:
            if self._trials.stopping or not self._no_room():
                raise
            return None

    def _worth_a_trial(self) -> bool:
        """Whether one more trial of the best recipe would tell something, and leaves room for the next hypothesis."""
        settings = self._state.settings
        # Where trials are counted they are for candidates: no more than a candidate has first.
        most = settings.trials_while_thinking
        most = min(most, settings.search_trials) if settings.max_trials else most
        if len(self._state.best.results) >= most:
            return False
        evidence = self._race.evidence_of_best()
        low, high = success_interval(evidence.successes, evidence.trials) if evidence.trials else (0.0, 1.0)
        return high - low > NARROW and not self._budget.no_room_for_trials(settings.search_trials + 1)

    def _no_room(self) -> str:
        return self._budget.no_room_for_trials(self._state.settings.search_trials)

    def _over(self, ending: threading.Event) -> bool:
        return ending.is_set() or self._trials.stopping or bool(self._no_room())

    def _pause(self, seconds: float, why: str, ending: threading.Event) -> bool:
        """Wait while a model is away, and as long as the station is held; False when there is nothing to wait for."""
        if seconds:
            self._listener.event('error', len(self._state.iterations), f'{why}; once more in {seconds:.0f} s')
        until = time.monotonic() + seconds
        while time.monotonic() < until or self._hold.reason:
            if self._over(ending):
                return False
            ending.wait(_LOOK)
        return not self._over(ending)

    def _tell_gathered(self, gathered: int, name: str) -> None:
        self._listener.event('trials', len(self._state.iterations),
                             f'{gathered} trials of the best recipe while {name} was thinking: it has '
                             f'{self._race.evidence_of_best()} now')


class _Thought:
    """One call of `propose` in a thread of its own."""

    def __init__(self, researcher: Researcher, context: Context):
        self.ended = threading.Event()
        self._edit: Edit | None = None
        self._error: BaseException | None = None
        threading.Thread(target=self._think, args=(researcher, context), name=f'think {researcher.name}',
                         daemon=True).start()

    def _think(self, researcher: Researcher, context: Context) -> None:
        try:
            self._edit = researcher.propose(context)
        except BaseException as error:
            self._error = error
        finally:
            self.ended.set()

    def result(self) -> Edit | None:
        if self._error is not None:
            raise self._error
        return self._edit
