"""A station whose world is a Gymnasium environment, as a trial sees it. Used from a trial's worker thread."""

from __future__ import annotations

import time
from typing import Callable

import numpy as np
from rclpy.serialization import deserialize_message

from enpire_agent.recorded_station import SECOND, RecordedStation, judgement_of
from enpire_agent.trial import ABORTED, FAILURE, POLICY_ERROR, RESET_FAILED, TIMEOUT, Judgement, ResetReport, Step
from enpire_agent.trial import TrialEnd
from enpire_bringup.observation_messages import ObservationError, read_observation
from enpire_bringup.station_node import STATE_QOS, StationNode
from enpire_bringup.topics import VIEW_TOPIC
from enpire_msgs.msg import Observation, PolicyAction, Verdict

SILENCE = 15.0       # s of wall time without the answer to an action: the world is gone, or hangs
RESEND = 2.0         # s of wall time after which an action is sent again: the world drops those of strangers, as every
                     # node is to it until the graph has told who that is
DISCOVERY = 10.0     # s of wall time for the world and this side to know of each other
WORLD = 'gym_station'


class GymTrialStation(RecordedStation):
    """Implements `trial.TrialStation` with the topics of gym_station. The world waits for every action."""

    lockstep = True

    def __init__(self, node: StationNode):
        super().__init__(node, dict.fromkeys(('observation', 'verdict'), WORLD))
        self._episode: int | None = None
        self._shown: Observation | None = None
        self._verdict: Judgement | None = None
        self._last_stamp = -1
        self._seed = 0
        self._replaced = ''
        node.create_subscription(Observation, 'observation', self._on_observation, STATE_QOS, raw=True)
        node.create_subscription(Verdict, 'verdict', self._on_verdict, STATE_QOS, raw=True)
        self._actions = node.create_publisher(PolicyAction, 'policy_action', STATE_QOS)
        self._film(VIEW_TOPIC)

    # --- life of a trial ---

    def begin(self, cancelled: Callable[[], bool]) -> None:
        """Forget the last trial and listen."""
        with self._news:
            self._begin(cancelled)
            self._episode, self._shown, self._verdict, self._replaced = None, None, None, ''

    def use_limits(self, changes: dict[str, float]) -> None:
        if changes:
            raise TrialEnd(POLICY_ERROR, f'recipe.yaml: limits ({", ".join(changes)}) are for arms; this world has none')

    # --- what a trial asks ---

    def now(self) -> int:
        return -1       # the time of an episode is its own

    def stop_reason(self) -> tuple[str, str] | None:
        ended = self._ended_from_outside()
        if ended is not None:
            return ended
        with self._news:
            shown, verdict = self._shown, self._verdict
            if self._replaced:
                return ABORTED, self._replaced
        done = verdict is not None and verdict.outcome == 'success'
        if shown is None or done or not (shown.terminated or shown.truncated):
            return None
        return ((FAILURE, 'the environment ended the episode: terminated') if shown.terminated
                else (TIMEOUT, 'the environment ended the episode: its time is over'))

    def reset(self, seed: int) -> ResetReport:
        self._wait(self._is_discovered, DISCOVERY, RESET_FAILED, f'{WORLD} to appear')
        self._seed = seed
        report = super().reset(seed)
        if report.success:
            # What it shows was sent before the answer, but by another way.
            self._wait(lambda: self._shown is not None and self._judged(), SILENCE, RESET_FAILED,
                       'the first observation and its verdict')
        return report

    def go_to_start(self) -> None:
        """The environment's reset has put everything where it begins."""

    def first_step(self) -> Step:
        self._film_all()
        return self._step()

    def next_step(self, after: int) -> Step:
        self._wait(lambda: self._last_stamp > after and self._judged(), SILENCE, ABORTED,
                   'the observation after an action, with its verdict', lambda: self._actions.publish(self._sent))
        return self._step()

    def command(self, stamp: int, target: np.ndarray) -> None:
        message = PolicyAction(episode=self._episode, values=np.asarray(target, float).tolist())
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, SECOND)
        self._sent = message
        self._actions.publish(message)

    def retreat(self) -> int:
        return self._last_stamp - 1      # nothing is in the way

    def clear_verdict(self, after: int) -> Judgement | None:
        with self._news:
            return self._verdict

    # --- waiting ---

    def _step(self) -> Step:
        with self._news:
            shown, verdict, stamp = self._shown, self._verdict, self._last_stamp
        try:
            observation = read_observation(shown)
            hold = self._task.action.hold_in(observation)
        except (ObservationError, KeyError, ValueError) as error:
            raise TrialEnd(ABORTED, f'the world shows what the task does not say: {error}') from error
        return Step(stamp, observation, hold, verdict)

    def _is_discovered(self) -> bool:
        return bool(self._actions.get_subscription_count()) and all(
            publisher.is_there for publisher in self._publishers.values())

    def _wait(self, there: Callable[[], bool], bound: float, outcome: str, what: str,
              again: Callable[[], None] = lambda: None) -> None:
        """again: called every RESEND s."""
        begun = time.monotonic()
        deadline, asked = begun + bound, begun
        with self._news:
            while not there():
                self._raise_if_closing()
                if self._replaced or self._cancelled():
                    raise TrialEnd(ABORTED, self._replaced or 'cancelled')
                if time.monotonic() > deadline:
                    raise TrialEnd(outcome, f'waited {bound:g} s in vain for {what}; the log of {WORLD} says why')
                if time.monotonic() - asked > RESEND:
                    asked = time.monotonic()
                    again()
                self._news.wait(0.1)

    def _judged(self) -> bool:
        """With `_news` held."""
        return self._verdict is not None and self._verdict.stamp == self._last_stamp

    # --- callbacks, in the executor's thread ---

    def _on_observation(self, data: bytes, info: dict) -> None:
        if not (self._publishers['observation'].accepts(info) and self._active):
            return
        message = deserialize_message(data, Observation)
        stamp = message.header.stamp.sec * SECOND + message.header.stamp.nanosec
        with self._news:
            if self._episode is None and (message.step or message.seed != self._seed):
                return      # of the episode before
            if self._episode not in (None, message.episode):
                self._replaced = 'somebody else reset the world under the trial, or it was started anew'
            else:
                self._episode, self._shown, self._last_stamp = message.episode, message, stamp
            self._news.notify_all()
        self._recorder.message('observation', 'enpire_msgs/msg/Observation', data, stamp)
        self._record_image(stamp)

    def _on_verdict(self, data: bytes, info: dict) -> None:
        if not (self._publishers['verdict'].accepts(info) and self._active):
            return
        judgement = judgement_of(deserialize_message(data, Verdict))
        with self._news:
            self._verdict = judgement
            self._news.notify_all()
        self._recorder.message('verdict', 'enpire_msgs/msg/Verdict', data, judgement.stamp)
