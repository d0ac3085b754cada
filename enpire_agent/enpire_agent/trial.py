"""One trial: reset, run the policy, retreat, look, record. No ROS: the station is behind `TrialStation`.

Whatever happens after `started.json` was written ends in a ledger line.
"""

from __future__ import annotations

import logging
import math
import time
import traceback
import uuid
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Callable, Protocol

import numpy as np
import psutil

from enpire_agent.durable_file import without_nan
from enpire_agent.ledger import Ledger
from enpire_agent.policy_session import PolicyFailure, PolicySession
from enpire_agent.recipe import load_recipe
from enpire_agent.recipe_repository import recipe_identity
from enpire_agent.seeds import check_seed
from enpire_agent.trial_record import POLICY_LOG, RecordError, write_result, write_started
from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.task import Task

SUCCESS, FAILURE, TIMEOUT, SAFETY_STOP = 'SUCCESS', 'FAILURE', 'TIMEOUT', 'SAFETY_STOP'
RESET_FAILED, POLICY_ERROR, ABORTED, INVALID = 'RESET_FAILED', 'POLICY_ERROR', 'ABORTED', 'INVALID'
KINDS = ('search', 'gate', 'baseline', 'manual')

_log = logging.getLogger(__name__)


class TrialEnd(Exception):
    """Ends a trial with an outcome."""

    def __init__(self, outcome: str, reason: str):
        super().__init__(reason)
        self.outcome = outcome
        self.reason = reason


@dataclass(frozen=True)
class Check:
    """One condition of a verdict, see enpire_msgs/Check."""

    name: str
    passed: bool
    value: float
    limit: float
    unit: str


@dataclass(frozen=True)
class Judgement:
    """A verdict: `outcome` is "success", "not_yet" or "abstain"; stamp in ns of ROS time."""

    stamp: int
    outcome: str
    reason: str
    env_hash: str
    checks: tuple[Check, ...] = ()

    def value(self, name: str) -> float | None:
        """The measured value of a check, None where it was not measured."""
        for check in self.checks:
            if check.name == name and math.isfinite(check.value):
                return check.value
        return None


@dataclass(frozen=True)
class Step:
    """What a policy step sees: stamp (ns of ROS time), observation without `time`, verdict. hold: the action that keeps
    everything as it is, see action_space.py."""

    stamp: int
    observation: dict
    hold: np.ndarray
    verdict: Judgement | None


@dataclass(frozen=True)
class ResetReport:
    """How the reset went. tried: each attempt as enpire_msgs/ResetAttempt tells it (m, rad, s); picture: file of what
    it saw last when it gave up, or ''."""

    success: bool
    message: str
    attempts: int
    tried: tuple[dict, ...] = ()
    picture: str = ''


class TrialStation(Protocol):
    """What a trial asks of its station. Every call is bounded and may raise TrialEnd."""

    lockstep: bool

    def environment_changes(self) -> list[str]:
        """What of the environment on disk is not as it was at the station's start, a few words each."""

    def now(self) -> int:
        """ROS time in ns: the stamp of the newest joint state; -1 before the first."""

    def stop_reason(self) -> tuple[str, str] | None:
        """(outcome, reason) when the trial must end now: cancelled, or stopped by the guard."""

    def reset(self, seed: int) -> ResetReport: ...

    def go_to_start(self) -> None:
        """Close the gripper and bring its tip to where the policy starts."""

    def use_limits(self, changes: dict[str, float]) -> None:
        """Let the guard enforce the limits of station and task with these tighter ones; none: without."""

    def first_step(self) -> Step:
        """Start streaming; returns the policy's first step."""

    def next_step(self, after: int) -> Step:
        """The first policy step later than `after` (ns)."""

    def command(self, stamp: int, target: np.ndarray) -> None:
        """Answer the policy step of `stamp` (ns) with a target, as the task's action space makes it of an action."""

    def retreat(self) -> int:
        """Bring the arm out of the camera's way; returns the stamp (ns) from which on the view is clear."""

    def clear_verdict(self, after: int) -> Judgement | None:
        """A verdict that does not abstain, of a frame later than `after` (ns); None when none came in time."""

    def record_step(self, content: dict, stamp: int) -> None:
        """Hand one policy step to the episode's recorder."""


@dataclass(frozen=True)
class TrialRequest:
    """What is tried. `directory`: runs/<campaign>/<station>/trials/<trial_id>; `recipe`: identity of its files."""

    trial_id: str
    campaign: str
    station: str
    task: str
    kind: str
    seed: int
    recipe_directory: Path
    recipe: str
    env_hash: str
    directory: Path

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.directory.parents[1] / 'ledger.jsonl')


def make_request(runs: Path, *, campaign: str, station: str, task: Task, kind: str, seed: int,
                 recipe_directory: Path, env_hash: str) -> TrialRequest:
    """Raises ValueError for an unknown kind, a seed of the wrong sort, or a folder that is no recipe."""
    kind, campaign = kind or 'manual', campaign or 'manual'
    if kind not in KINDS:
        raise ValueError(f"trial kind '{kind}'; expected one of {', '.join(KINDS)}")
    if Path(campaign).name != campaign or campaign.startswith('.'):
        raise ValueError(f"campaign '{campaign}' is no plain name; use letters, digits, - and _")
    check_seed(kind, seed)
    if not (recipe_directory / 'policy.py').is_file():
        raise ValueError(f'{recipe_directory}: no policy.py there; give the folder of a recipe')
    trial_id = new_trial_id(kind)
    return TrialRequest(
        trial_id=trial_id, campaign=campaign, station=station, task=task.name, kind=kind, seed=seed,
        recipe_directory=recipe_directory, recipe=recipe_identity(recipe_directory), env_hash=env_hash,
        directory=runs / campaign / station / 'trials' / trial_id)


@dataclass
class TrialReport:
    """How a trial ended; the fields of enpire_msgs/TrialResult. Durations in s."""

    request: TrialRequest
    outcome: str = ABORTED
    reason: str = ''
    reset_success: bool = False
    reset_attempts: int = 0
    duration: float = 0.0
    wall_duration: float = 0.0
    steps: int = 0
    late_steps: int = 0
    verdict: Judgement | None = None
    traceback: str = ''
    started: str = ''
    ended: str = ''
    end_stamp: int = 0
    timing: dict = field(default_factory=dict)
    reset: ResetReport | None = None
    isolation: str = ''          # what kept the policy from files that are not its own; empty: no policy ran

    def ledger_line(self) -> dict:
        """The fields of TrialResult without the verdict's checks, and the final position error in m."""
        request = self.request
        verdict = self.verdict
        return without_nan({
            'trial_id': request.trial_id, 'campaign': request.campaign, 'station': request.station,
            'task': request.task, 'kind': request.kind, 'recipe': request.recipe, 'seed': request.seed,
            'outcome': self.outcome, 'reason': self.reason, 'reset_success': self.reset_success,
            'reset_attempts': self.reset_attempts, 'duration': round(self.duration, 6),
            'wall_duration': round(self.wall_duration, 3), 'steps': self.steps, 'late_steps': self.late_steps,
            'env_hash': request.env_hash, 'isolation': self.isolation, 'directory': str(request.directory),
            'verdict': {'stamp': verdict.stamp, 'outcome': verdict.outcome, 'reason': verdict.reason,
                        'env_hash': verdict.env_hash} if verdict else None,
            'position_error': verdict.value('position') if verdict else None,
            'started': self.started, 'ended': self.ended})

    def record(self) -> dict:
        """trial.json: the ledger line's content, the verdict's checks, the reset's attempts, the policy's traceback."""
        content = self.ledger_line()
        if self.verdict:
            content['verdict']['checks'] = [asdict(check) for check in self.verdict.checks]
        if self.reset:
            content.update(reset_tried=[without_nan(attempt) for attempt in self.reset.tried],
                           reset_picture=self.reset.picture)
        return {**content, 'traceback': self.traceback, 'timing': self.timing,
                'recipe_directory': str(self.request.recipe_directory)}


class Trial:
    """Runs one trial on a station and leaves its records."""

    def __init__(self, request: TrialRequest, task: Task, station: TrialStation,
                 stage: Callable[[str, str], None] = lambda name, message: None):
        self.request = request
        self._task = task
        self._station = station
        self._stage = stage
        self._done_since: int | None = None      # stamp in ns of the first of the verdicts that have been success
        self.report = TrialReport(request)

    def run(self, close_recording: Callable[[], None] = lambda: None,
            start_recording: Callable[[Path], None] = lambda directory: None) -> TrialReport:
        """Run it. Raises only when the records themselves cannot be written (disk full, no permission)."""
        report, begun, begun_ros = self.report, time.monotonic(), self._station.now()
        report.started = utc_now()
        write_started(self.request.directory, started_content(self.request, report.started))
        try:
            start_recording(self.request.directory)
            self._run()
        except TrialEnd as end:
            report.outcome, report.reason = end.outcome, end.reason
        except PolicyFailure as failure:
            report.outcome, report.reason, report.traceback = POLICY_ERROR, str(failure), failure.traceback
        except Exception as error:
            _log.exception('trial %s', self.request.trial_id)
            report.outcome, report.reason = ABORTED, f'the trial runner failed: {error!r}'
            report.traceback = traceback.format_exc()
        self._stage('record', report.outcome)
        try:
            close_recording()
        except RecordError as error:
            _log.error('trial %s: %s', self.request.trial_id, error)
            report.reason += f' (no recording: {error})'
        self._check_environment_at_end()
        report.ended, report.wall_duration = utc_now(), time.monotonic() - begun
        if begun_ros >= 0:
            self._note_pace((self._station.now() - begun_ros) * 1e-9)
        write_result(self.request.directory, report.record())
        self.request.ledger.append(report.ledger_line())
        return report

    def _note_pace(self, ros_duration: float) -> None:
        """How many seconds of ROS time went by in one of wall time: in the whole trial, and while the policy ran."""
        report, timing = self.report, self.report.timing
        timing.update(ros_duration=round(ros_duration, 3), pace=round(ros_duration / report.wall_duration, 2))
        if timing.get('policy_wall'):
            timing['policy_pace'] = round(report.duration / timing['policy_wall'], 2)

    def _run(self) -> None:
        self._check_environment('before the trial')
        limits = self._recipe_limits()
        if limits:     # what is refused is refused before anything moves
            self._station.use_limits(limits)
            self._station.use_limits({})
        # Loading the policy first: a recipe that does not even load moves nothing.
        with PolicySession(self.request.recipe_directory, self._task, world_waits=self._station.lockstep,
                           log_file=self.request.directory / POLICY_LOG) as policy:
            self.report.isolation = policy.isolation
            self._reset()
            self._station.go_to_start()
            self._stage('policy', 'the policy runs')
            try:
                end = self._run_policy(policy, limits)
            finally:
                self.report.steps, self.report.late_steps = policy.steps, policy.late_steps
        self._judge(end)

    def _reset(self) -> None:
        self._stage('reset', f'seed {self.request.seed}')
        began = time.monotonic()
        self._raise_if_stopped()
        self.report.reset = reset = self._station.reset(self.request.seed)
        self.report.timing['reset_wall'] = round(time.monotonic() - began, 3)
        self.report.reset_success, self.report.reset_attempts = reset.success, reset.attempts
        if not reset.success:
            self._raise_if_stopped()
            raise TrialEnd(RESET_FAILED, reset.message)

    def _run_policy(self, policy: PolicySession, limits: dict[str, float]) -> TrialEnd:
        """Policy steps until something ends them; the end is returned, a policy's failure raised."""
        station, report, space = self._station, self.report, self._task.action
        station.use_limits(limits)
        step = station.first_step()
        first, target = step.stamp, step.hold
        began = time.monotonic()
        compute = waited = 0.0
        try:
            policy.reset({**step.observation, 'time': 0.0})
            while True:
                report.duration = (step.stamp - first) * 1e-9
                report.end_stamp = step.stamp
                end = self._end_of(step, first)
                if end is not None:
                    return end
                decision = policy.act({**step.observation, 'time': report.duration})
                target = space.target(decision.action, target, step.hold)
                station.command(step.stamp, target)
                station.record_step({
                    'step': policy.steps - 1, 'time': round(report.duration, 6), 'observation': step.observation,
                    'action': decision.action, 'target': target, 'source': decision.source,
                    'compute': round(decision.compute, 6)}, step.stamp)
                compute += decision.compute
                asked = time.monotonic()
                step = station.next_step(after=step.stamp)
                waited += time.monotonic() - asked
        except TrialEnd as end:
            return end
        except PolicyFailure:
            # The arm must not stay in the way of the next trial because a policy failed.
            self._retreat()
            raise
        finally:
            report.timing.update(policy_wall=round(time.monotonic() - began, 3), policy_compute=round(compute, 3),
                                 waited_for_station=round(waited, 3))

    def _recipe_limits(self) -> dict[str, float]:
        if not (self.request.recipe_directory / 'recipe.yaml').is_file():
            return {}
        try:
            return load_recipe(self.request.recipe_directory).limits
        except ConfigurationError as error:
            raise TrialEnd(POLICY_ERROR, str(error)) from error

    def _end_of(self, step: Step, first: int) -> TrialEnd | None:
        stop = self._station.stop_reason()
        if stop is not None:
            return TrialEnd(*stop)
        verdict = step.verdict
        if verdict is not None and verdict.stamp > first:
            self._check_verdict(verdict)
            if verdict.outcome != 'success':
                self._done_since = None
            elif self._done_since is None:
                self._done_since = verdict.stamp
            # What is done by a hair, or only for a moment, would not be found done after the retreat.
            if self._done_since is not None and (
                    (verdict.stamp - self._done_since) * 1e-9 >= self._task.policy.success_hold - 1e-6):
                return TrialEnd(SUCCESS, verdict.reason)
        if self.report.duration >= self._task.policy.episode_timeout - 1e-6:
            return TrialEnd(TIMEOUT, f'not done within {self._task.policy.episode_timeout:g} s')
        return None

    def _judge(self, end: TrialEnd) -> None:
        """Retreat, then look: with a clear view it is decided whether the task is done."""
        self._stage('verdict', 'the arm retreats')
        began = time.monotonic()
        clear_from = self._retreat()
        if end.outcome in (SUCCESS, TIMEOUT):
            if clear_from is None:
                end = TrialEnd(FAILURE, 'the arm could not retreat, so nobody could look')
            else:
                end = self._final_look(end, clear_from)
        self.report.timing['verdict_wall'] = round(time.monotonic() - began, 3)
        raise end

    def _final_look(self, end: TrialEnd, clear_from: int) -> TrialEnd:
        verdict = self._station.clear_verdict(after=clear_from)
        if verdict is None:
            return TrialEnd(FAILURE, f'{end.reason}; but nobody could look: no verdict after the arm had retreated')
        self._check_verdict(verdict)
        self.report.verdict = verdict
        if verdict.outcome == 'success':
            return TrialEnd(SUCCESS, verdict.reason)
        if end.outcome == SUCCESS:
            return TrialEnd(FAILURE, f'it looked done, but not after the arm had retreated: {verdict.reason}')
        return TrialEnd(TIMEOUT, f'{end.reason}: {verdict.reason}')

    def _retreat(self) -> int | None:
        try:
            self._station.use_limits({})
            return self._station.retreat()
        except TrialEnd as end:
            _log.warning('trial %s: retreat: %s', self.request.trial_id, end.reason)
            return None

    def _raise_if_stopped(self) -> None:
        stop = self._station.stop_reason()
        if stop is not None:
            raise TrialEnd(*stop)

    def _check_environment(self, when: str) -> None:
        changes = self._station.environment_changes()
        if changes:
            raise TrialEnd(INVALID, f'the environment was changed {when}: {"; ".join(changes)}; put that back, or '
                                    'freeze it anew (./enpire env freeze) and start the station anew')

    def _check_environment_at_end(self) -> None:
        if self.report.outcome == INVALID:
            return
        try:
            self._check_environment('during the trial')
        except TrialEnd as end:
            self.report.outcome, self.report.reason = end.outcome, end.reason

    def _check_verdict(self, verdict: Judgement) -> None:
        if verdict.env_hash != self.request.env_hash:
            raise TrialEnd(INVALID, f'the verdict is of another environment ({verdict.env_hash[:12]}...) than this '
                                    f'trial ({self.request.env_hash[:12]}...); start the station anew')


def started_content(request: TrialRequest, started: str) -> dict:
    """started.json: what an abandoned trial's ledger line is made of, and the process that runs it."""
    process = psutil.Process()
    return {'trial_id': request.trial_id, 'campaign': request.campaign, 'station': request.station,
            'task': request.task, 'kind': request.kind, 'recipe': request.recipe, 'seed': request.seed,
            'env_hash': request.env_hash, 'directory': str(request.directory), 'started': started,
            'process': {'pid': process.pid, 'create_time': process.create_time()}}


def new_trial_id(kind: str) -> str:
    """A name that no other trial has, in the order of time."""
    return f'{datetime.now(timezone.utc):%Y%m%dT%H%M%S}-{kind}-{uuid.uuid4().hex[:6]}'


def utc_now() -> str:
    """The time as ledger lines and trial.json have it: ISO 8601, UTC."""
    return datetime.now(timezone.utc).isoformat(timespec='milliseconds')
