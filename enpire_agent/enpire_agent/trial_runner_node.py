"""Node `trial_runner`: the action `run_trial`, one recorded trial and one ledger line a goal."""

from __future__ import annotations

from pathlib import Path

from rclpy.parameter import Parameter

from enpire_agent.abandoned_trials import close_abandoned_trials
from enpire_agent.durable_file import check_free_space
from enpire_agent.frozen_environment import frozen_environment, keep_manifest
from enpire_agent.recorded_station import SECOND, RecordedStation
from enpire_agent.trial import Trial, TrialReport, make_request
from enpire_agent.trial_admission import TrialAdmission
from enpire_bringup.actions import BlockingActionServer, GoalAborted, RunningGoal
from enpire_bringup.environment import EnvironmentWatch
from enpire_bringup.node_group import run_single
from enpire_bringup.paths import runs_directory
from enpire_bringup.program_isolation import WEAK, is_weak, strongest_level
from enpire_bringup.station_node import HISTORY_QOS, StationNode
from enpire_msgs.action import RunTrial
from enpire_msgs.msg import Check, TrialResult, Verdict

LEAST_FREE = 100_000_000     # bytes on the disk of the results; a trial needs about a tenth of that

_OUTCOMES = {'abstain': Verdict.ABSTAIN, 'not_yet': Verdict.NOT_YET, 'success': Verdict.SUCCESS}


class TrialRunner(StationNode):
    """Runs one trial at a time. Results lie in `runs_directory()`/<campaign>/<namespace>/trials."""

    def __init__(self, **kwargs):
        super().__init__('trial_runner', **kwargs)
        self._frozen = frozen_environment(runs_directory(), self.task, self.station)
        self.environment = EnvironmentWatch(self.task, self.station, self._frozen.environment)
        # Time is the stamp of the joint states, which come anyway; the clock's messages need not wake this node.
        self.set_parameters([Parameter('use_sim_time', value=False)])
        self._runs = runs_directory()
        self._station_name = self.get_namespace().strip('/') or self.station.name
        self._admission = TrialAdmission(self._runs / '.stations' / self._station_name)
        self._all_entered = True     # in their ledgers: the trials that this process started
        self._enter_abandoned_trials()
        if is_weak(strongest_level()):
            self.get_logger().warning(WEAK)
        self._results = self.create_publisher(TrialResult, 'trial_results', HISTORY_QOS)
        self._trial_station = self._make_trial_station()
        self._server = BlockingActionServer(
            self, RunTrial, 'run_trial', self._run_trial,
            busy_message='a trial is running; wait for it to end or cancel it')

    def _make_trial_station(self) -> RecordedStation:
        if self.station.backend == 'gym':
            from enpire_agent.gym_trial_station import GymTrialStation as TrialStation
        else:
            from enpire_agent.trial_station import RosTrialStation as TrialStation
        return TrialStation(self)

    def _enter_abandoned_trials(self) -> None:
        for line in close_abandoned_trials(self._runs, self._station_name, mine_ended=True):
            self.get_logger().warning(f'trial {line["trial_id"]} was not finished: entered as {line["outcome"]}')

    def _run_trial(self, goal: RunningGoal) -> RunTrial.Result:
        try:
            result = self._run_and_record(goal)
        except Exception as error:
            self.get_logger().error(f'run_trial: {error}')
            raise GoalAborted(RunTrial.Result(result=TrialResult(reason=str(error) or repr(error)))) from error
        self._results.publish(result)
        return RunTrial.Result(result=result)

    def _run_and_record(self, goal: RunningGoal) -> TrialResult:
        asked, station = goal.request, self._trial_station
        self._admission.check(goal.id, asked.kind)
        recipe = Path(asked.recipe).expanduser() if asked.recipe else self.task.recipe
        request = make_request(
            self._runs, campaign=asked.campaign, station=self._station_name, task=self.task, kind=asked.kind,
            seed=asked.seed, recipe_directory=recipe.resolve(), env_hash=self._frozen.env_hash)
        check_free_space(request.directory, LEAST_FREE)
        keep_manifest(request.directory.parents[1], self._frozen)
        if not self._all_entered:
            self._enter_abandoned_trials()

        def stage(name: str, message: str) -> None:
            goal.publish_feedback(RunTrial.Feedback(stage=name, message=message))

        def start(directory: Path) -> None:
            station.begin(lambda: goal.is_cancel_requested)
            station.start_recording(directory)

        trial = Trial(request, self.task, station, stage)
        self._all_entered = False
        try:
            report = trial.run(start_recording=start, close_recording=station.close_recording)
        finally:
            station.end()
        self._all_entered = True
        self.get_logger().info(f'trial {request.trial_id}: {report.outcome}: {report.reason}')
        return result_message(report)

    def destroy_node(self) -> None:
        if hasattr(self, '_server'):
            self._trial_station.close()
            self._server.close(timeout=1.4)
            self._trial_station.end_recorder()
        super().destroy_node()


def result_message(report: TrialReport) -> TrialResult:
    """The enpire_msgs/TrialResult of a report."""
    request, verdict = report.request, report.verdict
    message = TrialResult(
        trial_id=request.trial_id, campaign=request.campaign, station=request.station, task=request.task,
        kind=request.kind, recipe=request.recipe, seed=request.seed, outcome=report.outcome, reason=report.reason,
        reset_success=report.reset_success, reset_attempts=report.reset_attempts, duration=report.duration,
        wall_duration=report.wall_duration, steps=report.steps, late_steps=report.late_steps,
        env_hash=request.env_hash, directory=str(request.directory))
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(report.end_stamp, SECOND)
    if verdict is not None:
        message.verdict = Verdict(
            task=request.task, env_hash=verdict.env_hash, outcome=_OUTCOMES[verdict.outcome], reason=verdict.reason,
            checks=[Check(name=c.name, passed=c.passed, value=c.value, limit=c.limit, unit=c.unit)
                    for c in verdict.checks])
        message.verdict.header.stamp.sec, message.verdict.header.stamp.nanosec = divmod(verdict.stamp, SECOND)
    return message


def main() -> None:
    run_single(TrialRunner)


if __name__ == '__main__':
    main()
