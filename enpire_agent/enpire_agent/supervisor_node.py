"""Node `supervisor`: the action `run_campaign`, the services `hold` and `resume`, and the station's status."""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path

from rclpy.action import ActionClient
from rclpy.clock import Clock, ClockType
from rclpy.parameter import Parameter
from diagnostic_msgs.msg import DiagnosticStatus

from enpire_agent.campaign import RESEARCHER, Campaign, CampaignError, CampaignStopped
from enpire_agent.campaign_state import (TRIALS_WHILE_THINKING, Best, CampaignSettings, CampaignState, TrialOutcome,
                                         outcome_of_line)
from enpire_agent.durable_file import DiskFullError
from enpire_agent.frozen_environment import frozen_environment
from enpire_agent.ledger import Ledger
from enpire_agent.peer_recipes import PeerRecipes
from enpire_agent.recipe import load_recipe
from enpire_agent.recipe_remote import check_campaign_name
from enpire_agent.recipe_repository import RecipeRepository, RepositoryError
from enpire_agent.researchers import choose_researcher, make_researcher, read_researcher
from enpire_agent.station_hold import StationHold
from enpire_agent.station_watch import StationWatch
from enpire_agent.time_split import HELD, RESETTING, RUNNING, THINKING, TRAINING, robot_utilization, token_utilization
from enpire_agent.trial_admission import HOLD, TrialTickets
from enpire_bringup.actions import (BlockingActionServer, GoalAborted, RemoteCallCancelled, RemoteCallError,
                                    RemoteCallRejected, RunningGoal, call_action)
from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.environment import EnvironmentWatch
from enpire_bringup.node_group import run_single
from enpire_bringup.paths import runs_directory
from enpire_bringup.station_node import HISTORY_QOS, LATCHED_QOS, StationNode
from enpire_msgs.action import RunCampaign, RunTrial
from enpire_msgs.msg import AgentEvent, Recipe, StationStatus
from enpire_msgs.srv import Hold, Resume

STATUS_PERIOD = 1.0        # s of wall time
TRIAL_BOUND = 1200.0       # s of wall time for a trial, reset included
RUNNER_AWAY = 60.0         # s of wall time that a trial runner that died gets to come back and enter its trial
CANCELLED_BOUND = 30.0     # s of wall time that a cancelled trial gets to retreat and end
STATION_AWAY = 120.0       # s of wall time that parts of the station get to come back before a person is asked
RUNNER_BUSY = 600.0        # s of wall time that somebody else's trial is waited for

AGENT_EVENTS_PERIOD = 5.0  # s of wall time between two events of what a coding agent says and runs

STATES = {RESETTING: StationStatus.RESETTING, RUNNING: StationStatus.RUNNING, TRAINING: StationStatus.TRAINING,
          THINKING: StationStatus.THINKING, HELD: StationStatus.HELD}
WAY_OUT = 'look at the station, put right what is wrong, then type: ./enpire resume'      # of a hold


class Supervisor(StationNode):
    """Runs one campaign at a time; wall time throughout.

    Parameters: `researcher` (a name, or a settings file; empty: the station file's) of campaigns that name none,
    `trials_while_thinking` (of a best recipe, at most; 0: none), which may change while the node runs.
    """

    def __init__(self, **kwargs):
        super().__init__('supervisor', **kwargs)
        self._frozen = frozen_environment(runs_directory(), self.task, self.station)
        self.set_parameters([Parameter('use_sim_time', value=False)])
        self._runs = runs_directory()
        self._station_name = self.get_namespace().strip('/') or self.station.name
        self._campaign: Campaign | None = None
        self._closing = False
        self._error = ''
        self._researcher = self.declare_parameter('researcher', '').value or self.station.researcher
        try:
            read_researcher(self._researcher)
        except ConfigurationError:
            self.destroy_node()
            raise
        self.declare_adjustable('trials_while_thinking', TRIALS_WHILE_THINKING, 0, 100_000)
        self._told_tokens = (0, 0)   # of the running campaign, in the events so far
        self._telling = threading.Lock()
        self._agent_told = -AGENT_EVENTS_PERIOD   # time.monotonic()
        self._safety = 'unknown'
        own = self._runs / '.stations' / self._station_name
        self._hold = StationHold(own / HOLD)
        self._tickets = TrialTickets(own)
        if self._hold.reason:
            self.get_logger().warning(f'held since before this start: {self._hold.reason}')
        self._peers = PeerRecipes(self._station_name)
        self._status = self.create_publisher(StationStatus, 'station_status', LATCHED_QOS)
        self._events = self.create_publisher(AgentEvent, 'agent_events', HISTORY_QOS)
        self._kept = self.create_publisher(Recipe, 'kept_recipes', HISTORY_QOS)
        self.create_subscription(Recipe, '/fleet/recipes', self._on_recipe, HISTORY_QOS)
        self.create_subscription(DiagnosticStatus, 'guard_status', self._on_guard, LATCHED_QOS)
        self.create_service(Hold, 'hold', self._on_hold)
        self.create_service(Resume, 'resume', self._on_resume)
        self._watch = StationWatch(self)
        self._run_trial = ActionClient(self, RunTrial, 'run_trial')
        self._server = BlockingActionServer(
            self, RunCampaign, 'run_campaign', self._run_campaign,
            busy_message='a campaign is running; wait for it to end or cancel it')
        self.create_timer(STATUS_PERIOD, self._publish_status, clock=Clock(clock_type=ClockType.STEADY_TIME))

    # --- the action ---

    def _run_campaign(self, goal: RunningGoal) -> RunCampaign.Result:
        asked = goal.request
        self._error = ''
        try:
            campaign = self._make_campaign(asked)
        except (ConfigurationError, RepositoryError, ValueError, OSError) as error:
            self._error = str(error)
            raise
        self._told_tokens = (campaign.state.input_tokens, campaign.state.output_tokens)
        self._campaign, self._goal = campaign, goal
        try:
            self._tickets.begin(asked.campaign)
            state = campaign.run()
            return _result(state, True, state.finished)
        except CampaignStopped as stopped:
            return _result(campaign.state, False, str(stopped))
        except (CampaignError, RepositoryError, ConfigurationError, DiskFullError) as error:
            self._error = str(error)
            self._listen(campaign).event('error', len(campaign.state.iterations), str(error))
            raise GoalAborted(_result(campaign.state, False, str(error))) from error
        finally:
            self._tickets.end()
            self._campaign = None

    def _make_campaign(self, asked) -> Campaign:
        name, terms = asked.campaign, self.task.campaign
        check_campaign_name(name)
        if not 0 <= asked.goal <= 1:
            raise ValueError(f'goal is {asked.goal}; expected a success rate from 0 to 1, or 0 for the task\'s')
        directory = self._runs / name / self._station_name
        researcher = make_researcher(choose_researcher(asked.researcher, self._researcher), self.task, runs=self._runs,
                                     station=self._station_name, directory=directory)
        start = load_recipe(Path(asked.recipe) if asked.recipe else self.task.recipe)
        repository = RecipeRepository.open_or_create(directory / 'recipe', self._station_name, start.directory)
        settings = CampaignSettings(
            campaign=name, station=self._station_name, task=self.task.name, env_hash=self._frozen.env_hash,
            search_trials=asked.search_trials or terms.search_trials,
            gate_trials=asked.gate_trials or terms.success_window, goal=asked.goal or terms.goal,
            max_iterations=asked.max_iterations, max_trials=asked.max_trials, max_duration=asked.max_duration,
            max_tokens=asked.max_tokens, trials_while_thinking=self.get_parameter('trials_while_thinking').value)
        return Campaign(
            directory, settings, repository=repository, researcher=researcher, listener=_Listener(self, settings),
            run_trial=lambda kind, seed, stopped: self._trial(settings, repository, kind, seed, stopped),
            peers=lambda: self._peers.of_campaign(name),
            environment_changes=EnvironmentWatch(self.task, self.station, self._frozen.environment).changes,
            hold=self._hold, await_station=self._await_station)

    # --- trials ---

    def _trial(self, settings: CampaignSettings, repository: RecipeRepository, kind: str, seed: int,
               stopped) -> TrialOutcome:
        """One trial through the trial runner; its ledger line is what counts."""
        goal = RunTrial.Goal(recipe=str(repository.work_tree), campaign=settings.campaign, kind=kind, seed=seed)
        ledger = Ledger(self._runs / settings.campaign / settings.station / 'ledger.jsonl')
        known = len(ledger.entries())

        def line() -> dict | None:
            return next((entry for entry in ledger.entries()[known:]
                         if (entry['kind'], entry['seed']) == (kind, seed)), None)

        def cancelled() -> bool:
            if self._goal.is_cancel_requested:
                self._campaign.stop()
            return stopped()

        busy_until = time.monotonic() + RUNNER_BUSY
        # The line may come while the runner is busy: of this very trial, cancelled a moment ago.
        while line() is None:
            try:
                answer = call_action(self, self._run_trial, goal, timeout=TRIAL_BOUND, cancelled=cancelled,
                                     feedback=self._on_trial_feedback, goal_id=self._tickets.issue())
                if line() is None:
                    raise CampaignError(answer.result.reason or 'the trial runner did not enter the trial in the '
                                                                'ledger; its log says why')
                break
            except RemoteCallCancelled as error:
                self._await_end_of_cancelled_trial(line)
                raise CampaignStopped(str(error)) from error
            except RemoteCallError as error:
                # A runner that died enters its trial when it starts again; one that is busy rejects the goal.
                if line() is None and isinstance(error, RemoteCallRejected) and time.monotonic() < busy_until:
                    self._wait(0.5, cancelled)
                    continue
                self.get_logger().error(f'{error}; waiting for the trial runner to come back')
                deadline = time.monotonic() + RUNNER_AWAY
                while line() is None:
                    if time.monotonic() > deadline:
                        raise CampaignError(f'{error}; the trial runner did not come back within '
                                            f'{RUNNER_AWAY:.0f} s') from error
                    self._wait(0.2, cancelled)
                break
        return outcome_of_line(line())

    def _await_station(self, stopped) -> str:
        return self._watch.await_ready(STATION_AWAY, lambda: stopped() or self._goal.is_cancel_requested)

    def _await_end_of_cancelled_trial(self, line) -> None:
        """Until it is in the ledger, so that a campaign resumed at once knows of it."""
        deadline = time.monotonic() + CANCELLED_BOUND
        while line() is None and time.monotonic() < deadline and not self._closing:
            time.sleep(0.1)

    def _wait(self, seconds: float, cancelled) -> None:
        if cancelled():
            raise CampaignStopped('stopped while waiting for the trial runner')
        time.sleep(seconds)

    def _on_trial_feedback(self, feedback: RunTrial.Feedback) -> None:
        campaign = self._campaign
        if campaign is not None:
            campaign.trial_stage(feedback.stage)

    # --- status and control, in the executor's thread ---

    def _publish_status(self) -> None:
        status = self._status_message()
        self._status.publish(status)
        campaign = self._campaign
        if campaign is not None:
            if self._goal.is_cancel_requested:
                campaign.stop()
            self._goal.publish_feedback(RunCampaign.Feedback(status=status))

    def _status_message(self) -> StationStatus:
        status = StationStatus(station=self._station_name, task=self.task.name, state=StationStatus.IDLE,
                               remaining=math.nan, safety=self._safety, message=self._error)
        status.header.stamp = Clock(clock_type=ClockType.SYSTEM_TIME).now().to_msg()
        campaign = self._campaign
        if campaign is None:
            if self._hold.reason:
                status.state, status.message = StationStatus.HELD, f'{self._hold.reason}; {WAY_OUT}'
            elif self._error:
                status.state = StationStatus.ERROR
            return status
        state, best = campaign.state, campaign.state.best
        split = campaign.time_split.totals
        status.state = STATES[campaign.time_split.activity]
        status.campaign, status.phase = state.settings.campaign, state.phase
        status.iteration = len(state.iterations)
        running = state.iterations[-1] if state.iterations and state.phase == 'search' else None
        if running is not None:
            status.hypothesis = running.hypothesis
        if best is not None:
            status.best_recipe, status.best_trials, status.best_successes = best.commit, best.trials, best.successes
        status.trials, status.successes = state.trials, state.successes
        status.elapsed, status.remaining = sum(split.values()), campaign.remaining
        status.robot_utilization = robot_utilization(split)
        status.token_utilization = token_utilization(state.tokens, split)
        status.message = (f'{campaign.thinker} thinks; {len(best.results)} trials of the best recipe on search seeds'
                          if campaign.thinker else progress_text(state))
        if campaign.hold_reason:
            status.message = f'{campaign.hold_reason}; {WAY_OUT}'
        return status

    def _on_hold(self, request: Hold.Request, response: Hold.Response) -> Hold.Response:
        reason = request.reason or 'held by request'
        self._hold.set(reason)
        response.accepted = True
        response.message = 'holding after the current trial' if self._campaign else 'holding; nothing is running'
        return response

    def _on_resume(self, request: Resume.Request, response: Resume.Response) -> Resume.Response:
        campaign = self._campaign
        response.accepted = bool(self._hold.reason)
        response.message = 'going on' if response.accepted else 'it was not held'
        if campaign is not None:
            campaign.resume()
        self._hold.clear()
        return response

    def _on_recipe(self, message: Recipe) -> None:
        self._peers.add(message)

    def _on_guard(self, message: DiagnosticStatus) -> None:
        level = message.level[0] if isinstance(message.level, bytes) else int(message.level)
        self._safety = message.message if level >= 2 else 'ok'

    def _listen(self, campaign: Campaign) -> '_Listener':
        return _Listener(self, campaign.state.settings)

    def publish_event(self, settings: CampaignSettings, kind: str, iteration: int, text: str, commit: str) -> None:
        self.get_logger().info(f'{settings.campaign} {iteration} {kind}: {text}')
        if kind == RESEARCHER:
            # The topic's history is short: what an agent says may not push out what became of its edits.
            now = time.monotonic()
            if now - self._agent_told < AGENT_EVENTS_PERIOD:
                return
            self._agent_told = now
        event = AgentEvent(station=settings.station, campaign=settings.campaign, iteration=iteration, kind=kind,
                           researcher=self._campaign.state.researcher if self._campaign else '', text=text,
                           commit=commit)
        event.input_tokens, event.output_tokens = self._tokens_since_last_event()
        event.header.stamp = Clock(clock_type=ClockType.SYSTEM_TIME).now().to_msg()
        self._events.publish(event)

    def _tokens_since_last_event(self) -> tuple[int, int]:
        campaign = self._campaign
        if campaign is None:
            return 0, 0
        with self._telling:      # the campaign's thread and the researcher's tell
            told, now = self._told_tokens, (campaign.state.input_tokens, campaign.state.output_tokens)
            self._told_tokens = now
        return now[0] - told[0], now[1] - told[1]

    def publish_kept(self, settings: CampaignSettings, recipe: Best, decision: str, parent: str) -> None:
        low, high = recipe.interval
        message = Recipe(
            station=settings.station, task=settings.task, campaign=settings.campaign, branch=settings.station,
            commit=recipe.commit, parent=parent, method=recipe.method, hypothesis=recipe.hypothesis,
            decision=decision, trials=recipe.trials, successes=recipe.successes, interval_low=low,
            interval_high=high, env_hash=settings.env_hash)
        message.header.stamp = Clock(clock_type=ClockType.SYSTEM_TIME).now().to_msg()
        self._kept.publish(message)

    def destroy_node(self) -> None:
        if hasattr(self, '_server'):
            self._closing = True
            campaign = self._campaign
            if campaign is not None:
                campaign.stop()
            self._server.close(timeout=1.2)
            # Who takes a station down and up again has looked; only a process that was killed must remember.
            self._hold.clear()
        super().destroy_node()


class _Listener:
    """Hands what a campaign says to the node's topics."""

    def __init__(self, node: Supervisor, settings: CampaignSettings):
        self._node = node
        self._settings = settings

    def event(self, kind: str, iteration: int, text: str, commit: str = '') -> None:
        self._node.publish_event(self._settings, kind, iteration, text, commit)

    def kept(self, recipe: Best, decision: str, parent: str, env_hash: str) -> None:
        self._node.publish_kept(self._settings, recipe, decision, parent)


def progress_text(state: CampaignState) -> str:
    """What is being measured and how far it is."""
    if state.phase == 'search':
        running = state.iterations[-1] if state.iterations and state.iterations[-1].state == 'running' else None
        if running is None:
            return 'choosing the next hypothesis'
        if running.won:
            return 'won its race; looking where earlier best recipes failed'
        best = f', the best recipe {running.before}' if running.before else ''
        return f'{running.successes} of {running.trials} so far{best}'
    measured = state.baseline if state.phase == 'baseline' else state.gate
    if measured is None:
        return 'preparing'
    return f'{measured.successes} of {measured.trials} so far, {measured.planned} planned'


def _result(state: CampaignState, success: bool, message: str) -> RunCampaign.Result:
    baseline, gate = state.baseline, state.gate
    return RunCampaign.Result(
        success=success, message=message, best_recipe=state.best.commit if state.best else '',
        baseline_trials=baseline.trials if baseline else 0, baseline_successes=baseline.successes if baseline else 0,
        gate_trials=gate.trials if gate else 0, gate_successes=gate.successes if gate else 0,
        iterations=len(state.iterations), trials=state.trials)


def main() -> None:
    run_single(Supervisor)


if __name__ == '__main__':
    main()
