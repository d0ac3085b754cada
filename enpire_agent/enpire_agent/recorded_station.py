"""What every kind of station does for a trial: its reset, its recording, and who else may have a say in it.

Used from a trial's worker thread; messages come in the executor's thread.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Callable, Mapping

from rclpy.action import ActionClient
from sensor_msgs.msg import Image

from enpire_agent.episode_recorder import EpisodeRecorder
from enpire_agent.trial import ABORTED, INVALID, RESET_FAILED, Check, Judgement, ResetReport, TrialEnd
from enpire_bringup.actions import RemoteCallCancelled, RemoteCallError, RemoteCallRejected, call_action
from enpire_bringup.polled_topic import PolledTopic
from enpire_bringup.publisher_identity import PublisherIdentity
from enpire_bringup.station_node import IMAGE_QOS, StationNode
from enpire_msgs.action import Reset
from enpire_msgs.msg import Verdict

SECOND = 1_000_000_000

# Bounds in s of wall time.
RESET_BOUND = 300.0
RESET_BUSY = 60.0            # that a reset of an earlier trial is waited for

# s of ROS time between two recorded images, a little less so that 10 and 2 Hz come through a 30 Hz camera.
FRAME_PERIOD = 0.095
FRAME_PERIOD_IN_RESET = 0.495

_OUTCOMES = {Verdict.ABSTAIN: 'abstain', Verdict.NOT_YET: 'not_yet', Verdict.SUCCESS: 'success'}


class RecordedStation:
    """The common part of what implements `trial.TrialStation`.

    publishers: topic -> the node that alone has a say there, '' for whoever was first.
    """

    def __init__(self, node: StationNode, publishers: Mapping[str, str]):
        self._node = node
        self._task = node.task
        self._news = threading.Condition()
        self._active = False
        self._recorder = EpisodeRecorder()
        self._film_period = FRAME_PERIOD
        self._filmed = -SECOND                      # ns, of the newest recorded image
        self._image_topic, self._images = '', None
        self._cancelled: Callable[[], bool] = lambda: False
        self._closing = False
        self._publishers = {topic: PublisherIdentity(node, topic, publisher) for topic, publisher in publishers.items()}
        self._reset_client = ActionClient(node, Reset, 'reset')

    # --- life of a trial ---

    def _begin(self, cancelled: Callable[[], bool]) -> None:
        """With `_news` held."""
        self._cancelled = cancelled
        for publisher in self._publishers.values():
            publisher.forget_intruder()
        self._active = True

    def start_recording(self, directory: Path) -> None:
        self._film_period, self._filmed = FRAME_PERIOD_IN_RESET, -SECOND
        self._recorder.begin(directory)

    def close_recording(self) -> None:
        self._recorder.end(timeout=1.0 if self._closing else 10.0)
        if self._recorder.remark:
            self._node.get_logger().warning(f'the recording is not complete: {self._recorder.remark}')

    def end(self) -> None:
        with self._news:
            self._active = False

    def close(self) -> None:
        """The node goes down: everything that waits ends."""
        with self._news:
            self._closing = True
            self._news.notify_all()

    def end_recorder(self) -> None:
        """After `close`, when no trial runs any more."""
        self._recorder.close()

    # --- what a trial asks ---

    def environment_changes(self) -> list[str]:
        return self._node.environment.changes()

    def stop_reason(self) -> tuple[str, str] | None:
        return self._ended_from_outside()

    def reset(self, seed: int) -> ResetReport:
        result = self._call(lambda: self._call_reset(Reset.Goal(seed=seed)), RESET_FAILED)
        tried = tuple({'success': bool(attempt.success), 'reason': attempt.reason, 'duration': attempt.duration,
                       'position_error': attempt.position_error, 'yaw_error': attempt.yaw_error}
                      for attempt in result.tried)
        return ResetReport(bool(result.success), result.message, int(result.attempts), tried, result.picture)

    def record_step(self, content: dict, stamp: int) -> None:
        self._recorder.step(content, stamp)

    # --- for the kinds of stations ---

    def _call_reset(self, goal: Reset.Goal) -> Reset.Result:
        busy_until = time.monotonic() + RESET_BUSY
        while True:
            try:
                return call_action(self._node, self._reset_client, goal, timeout=RESET_BOUND,
                                   cancelled=self._is_stopped)
            except RemoteCallRejected:
                # The reset of a trial that was cut off may still be on its way to its end.
                if time.monotonic() > busy_until or self._is_stopped():
                    raise
                time.sleep(0.2)

    def _ended_from_outside(self) -> tuple[str, str] | None:
        """(outcome, reason) where somebody stopped the trial, or somebody else has a say in it."""
        if self._closing:
            return ABORTED, 'the trial runner was stopped'
        if self._cancelled():
            return ABORTED, 'cancelled'
        intruder = next((publisher.intruder for publisher in self._publishers.values() if publisher.intruder), '')
        return (INVALID, f'{intruder}; find out who that is and end it') if intruder else None

    def _is_stopped(self) -> bool:
        return self._closing or self._cancelled()

    def _raise_if_closing(self) -> None:
        if self._closing:
            raise TrialEnd(ABORTED, 'the trial runner was stopped')

    def _call(self, call, outcome: str):
        try:
            return call()
        except RemoteCallCancelled as error:
            raise TrialEnd(*(self.stop_reason() or (ABORTED, str(error)))) from error
        except RemoteCallError as error:
            raise TrialEnd(outcome, str(error)) from error

    # --- pictures ---

    def _film(self, image_topic: str) -> None:
        """Record the images of this topic; few of them while the reset runs."""
        self._image_topic = image_topic
        # Of 30 camera images a second 10 are recorded; the others would cost 3 ms of Python each for nothing.
        self._images = PolledTopic(self._node, Image, image_topic, IMAGE_QOS)

    def _film_all(self) -> None:
        self._film_period = FRAME_PERIOD

    def _record_image(self, stamp: int) -> None:
        """Record the newest camera image when one is due."""
        if stamp - self._filmed < self._film_period * SECOND:
            return
        data = self._images.newest()
        if data is not None:
            self._filmed = stamp
            self._recorder.image(f'{self._image_topic}/compressed', data)


def judgement_of(message: Verdict) -> Judgement:
    stamp = message.header.stamp
    return Judgement(stamp.sec * SECOND + stamp.nanosec, _OUTCOMES.get(message.outcome, 'abstain'), message.reason,
                     message.env_hash, tuple(Check(c.name, c.passed, c.value, c.limit, c.unit)
                                             for c in message.checks))
