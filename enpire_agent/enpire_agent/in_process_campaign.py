"""A campaign whose trials run in this process, without ROS and cameras: quick enough to try a researcher out.

The same Campaign, Git repository, ledger and confined policies as on a station; trials as in_process_station.py has
them. Nothing is recorded of a trial but its ledger line, so ideas that learn from records wait in vain.
"""

from __future__ import annotations

import time
import uuid
from datetime import datetime, timezone
from pathlib import Path
from typing import Callable

from enpire_agent.campaign import Campaign
from enpire_agent.campaign_state import CampaignSettings, TrialOutcome, outcome_of_line
from enpire_agent.in_process_station import Episode, InProcessStation
from enpire_agent.ledger import Ledger
from enpire_agent.policy_session import PolicyFailure, PolicySession
from enpire_agent.recipe_repository import RecipeRepository, recipe_identity
from enpire_agent.researcher import make_researcher
from enpire_bringup.task import Task


class InProcessTrials:
    """Runs and enters trials of the recipe in a campaign's work tree."""

    def __init__(self, directory: Path, settings: CampaignSettings, station: InProcessStation, task: Task):
        self._directory, self._settings, self._station, self._task = directory, settings, station, task
        self._ledger = Ledger(directory / 'ledger.jsonl')

    def run_trial(self, kind: str, seed: int, cancelled: Callable[[], bool]) -> TrialOutcome:
        started, began = _now(), time.monotonic()
        recipe = self._directory / 'recipe'
        episode = self._episode(recipe, seed)
        settings = self._settings
        return outcome_of_line(self._ledger.append({
            'trial_id': f'{time.strftime("%Y%m%dT%H%M%S")}-{kind}-{uuid.uuid4().hex[:6]}',
            'campaign': settings.campaign, 'station': settings.station, 'task': settings.task, 'kind': kind,
            'recipe': recipe_identity(recipe), 'seed': seed, 'outcome': episode.outcome, 'reason': episode.reason,
            'env_hash': settings.env_hash, 'started': started, 'ended': _now(), 'duration': episode.duration,
            'wall_duration': round(time.monotonic() - began, 3), 'position_error': episode.position_error}))

    def _episode(self, recipe: Path, seed: int) -> Episode:
        try:
            with PolicySession(recipe, self._task, world_waits=True) as session:
                return self._station.run(_Confined(session), seed)
        except PolicyFailure as error:
            return Episode(seed, 'POLICY_ERROR', str(error), 0.0, None, None)


class _Confined:
    """A policy session as the station's episode wants it."""

    def __init__(self, session: PolicySession):
        self._session = session
        self.reset = session.reset

    def act(self, observation: dict):
        return self._session.act(observation).action


def run_campaign(directory: Path, settings: CampaignSettings, station: InProcessStation, task: Task,
                 listener) -> None:
    """Run the campaign in `directory` (runs/<campaign>/<station>) to its end, or go on with it."""
    repository = RecipeRepository.open_or_create(directory / 'recipe', settings.station, task.recipe)
    trials = InProcessTrials(directory, settings, station, task)
    Campaign(directory, settings, repository=repository, researcher=make_researcher('', task), listener=listener,
             run_trial=trials.run_trial).run()


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec='milliseconds')
