"""A campaign whose trials run in this process, without ROS and cameras: quick enough to try a researcher out.

The same Campaign, Git repository, ledger and confined policies as on a station; trials as in_process_station.py and
in_process_gym.py have them. Their records have the policy's steps, of which ideas that train learn, and no pictures.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Callable

from enpire_agent.abandoned_trials import close_abandoned_trials
from enpire_agent.campaign import Campaign
from enpire_agent.campaign_state import CampaignSettings, TrialOutcome, outcome_of_line
from enpire_agent.episode_writer import EpisodeWriter
from enpire_agent.in_process_episode import ConfinedPolicy, Episode, InProcessWorld
from enpire_agent.policy_session import PolicyFailure, PolicySession
from enpire_agent.recipe_repository import RecipeRepository
from enpire_agent.researcher import BuiltinResearcher
from enpire_agent.trial import (POLICY_ERROR, SUCCESS, Judgement, TrialReport, TrialRequest, make_request,
                                started_content, utc_now)
from enpire_agent.trial_record import write_result, write_started
from enpire_bringup.task import Task


class InProcessTrials:
    """Runs, records and enters trials of the recipe in a campaign's work tree."""

    def __init__(self, directory: Path, settings: CampaignSettings, station: InProcessWorld, task: Task):
        self._directory, self._settings, self._station, self._task = directory, settings, station, task

    def run_trial(self, kind: str, seed: int, cancelled: Callable[[], bool]) -> TrialOutcome:
        settings, began = self._settings, time.monotonic()
        request = make_request(
            self._directory.parents[1], campaign=settings.campaign, station=settings.station, task=self._task,
            kind=kind, seed=seed, recipe_directory=self._directory / 'recipe', env_hash=settings.env_hash)
        report = TrialReport(request, started=utc_now(), reset_success=True)
        write_started(request.directory, started_content(request, report.started))
        writer = EpisodeWriter(request.directory)
        try:
            self._run(request, report, writer)
        except PolicyFailure as failure:
            report.outcome, report.reason, report.traceback = POLICY_ERROR, str(failure), failure.traceback
        writer.close()
        report.ended, report.wall_duration = utc_now(), time.monotonic() - began
        write_result(request.directory, report.record())
        return outcome_of_line(request.ledger.append(report.ledger_line()))

    def _run(self, request: TrialRequest, report: TrialReport, writer: EpisodeWriter) -> None:
        """Raises PolicyFailure."""
        with PolicySession(request.recipe_directory, self._task, world_waits=True) as session:
            report.isolation = session.isolation
            try:
                episode = self._station.run(ConfinedPolicy(session), request.seed, writer.step)
            finally:
                report.steps, report.late_steps = session.steps, session.late_steps
        report.outcome, report.reason, report.duration = episode.outcome, episode.reason, episode.duration
        report.verdict = self._judgement(episode)

    def _judgement(self, episode: Episode) -> Judgement:
        """What was measured at the end, in the form of a verdict."""
        return Judgement(0, 'success' if episode.outcome == SUCCESS else 'not_yet', episode.reason,
                         self._settings.env_hash, episode.checks)


def run_campaign(directory: Path, settings: CampaignSettings, station: InProcessWorld, task: Task,
                 listener) -> None:
    """Run the campaign in `directory` (runs/<campaign>/<station>) to its end, or go on with it."""
    close_abandoned_trials(directory.parents[1], settings.station, mine_ended=True)
    repository = RecipeRepository.open_or_create(directory / 'recipe', settings.station, task.recipe)
    trials = InProcessTrials(directory, settings, station, task)
    Campaign(directory, settings, repository=repository, researcher=BuiltinResearcher(task.ideas, task),
             listener=listener, run_trial=trials.run_trial).run()
