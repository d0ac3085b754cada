"""Node `gym_station`: a Gymnasium environment as the world of a station.

It shows an observation after every reset and every action, with a verdict of the same stamp, and a picture while
somebody looks. The environment itself stays in this process: who wants something done sends an action.
"""

from __future__ import annotations

import math
import secrets
import time
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTime

import numpy as np
from builtin_interfaces.msg import Time as Stamp
from rclpy.serialization import deserialize_message
from rclpy.time import Time
from sensor_msgs.msg import Image

from enpire_bringup.actions import BlockingActionServer, RunningGoal
from enpire_bringup.gym_world import GymStep, GymWorld
from enpire_bringup.image_messages import fill_image
from enpire_bringup.node_group import run_single
from enpire_bringup.observation_messages import observation_message
from enpire_bringup.publisher_identity import PublisherIdentity
from enpire_bringup.station_node import IMAGE_QOS, STATE_QOS, EnvironmentHash, StationNode
from enpire_bringup.topics import VIEW_TOPIC
from enpire_msgs.action import Reset
from enpire_msgs.msg import Check, Observation, PolicyAction, ResetAttempt, Verdict

SECOND = 1_000_000_000
RESET_BOUND = 120.0     # s of wall time for the environment's own reset
FRAME = 'view'


class GymStation(StationNode):
    """Serves the action `reset`, takes `policy_action`, gives `observation`, `verdict` and the view."""

    def __init__(self, **kwargs):
        super().__init__('gym_station', **kwargs)
        self._period = round(SECOND / self.task.policy.rate)
        self._pace = self.station.real_time_factor
        self._episode, self._seed, self._stamp, self._due = 0, 0, 0, 0.0
        self._environment = EnvironmentHash(self)
        self._observations = self.create_publisher(Observation, 'observation', STATE_QOS)
        self._verdicts = self.create_publisher(Verdict, 'verdict', STATE_QOS)
        self._view = self.create_publisher(Image, VIEW_TOPIC, IMAGE_QOS)
        # What draws may be bound to the thread that made it, so the environment has one of its own.
        self._thread = ThreadPoolExecutor(1, 'world')
        try:
            self._world = self._thread.submit(GymWorld, self.task, drawn=True).result()
        except Exception:
            self._thread.shutdown(wait=False)
            self.destroy_node()
            raise
        self._actor = PublisherIdentity(self, 'policy_action', 'trial_runner')
        self.create_subscription(PolicyAction, 'policy_action', self._on_action, STATE_QOS, raw=True)
        self._server = BlockingActionServer(self, Reset, 'reset', self._reset,
                                            busy_message='a reset is running; wait for its end')
        self.get_logger().info(f'world: {self.task.gym.id} {self.task.gym.arguments}')

    # --- reset ---

    def _reset(self, goal: RunningGoal) -> Reset.Result:
        goal.publish_feedback(Reset.Feedback(stage='reset', attempt=1))
        began = time.monotonic()
        try:
            self._thread.submit(self._begin, goal.request.seed).result(RESET_BOUND)
        except NotInTime:
            raise RuntimeError(f'{self.task.gym.id} took more than {RESET_BOUND:.0f} s for its reset') from None
        except Exception as error:      # whatever an environment raises
            self.get_logger().error(f'reset with seed {goal.request.seed}: {error!r}')
            raise RuntimeError(f'{self.task.gym.id} cannot reset with seed {goal.request.seed}: {error!r}') from error
        attempt = ResetAttempt(success=True, reason="the environment's own reset", duration=time.monotonic() - began,
                               position_error=math.nan, yaw_error=math.nan)
        return Reset.Result(success=True, message=attempt.reason, attempts=1, tried=[attempt],
                            duration=attempt.duration, position_error=math.nan, yaw_error=math.nan)

    def _begin(self, seed: int) -> None:
        step = self._world.reset(seed)
        self._episode, self._seed = secrets.randbits(63), seed
        self._environment.read()       # an episode begins with a look at the files
        # Time that a world ran ahead of the clock is not taken back: every stamp is later than the one before.
        self._stamp = max(self._stamp + SECOND, self.get_clock().now().nanoseconds)
        self._due = time.monotonic()
        self._show(step, 0.0)

    # --- steps ---

    def _on_action(self, data: bytes, info: dict) -> None:
        if not self._actor.accepts(info):
            if self._actor.intruder:
                self.get_logger().error(f'{self._actor.intruder}; its actions are ignored', throttle_duration_sec=5.0)
            return
        self._thread.submit(self._act, deserialize_message(data, PolicyAction)).add_done_callback(self._report)

    def _act(self, action: PolicyAction) -> None:
        answers = action.header.stamp.sec * SECOND + action.header.stamp.nanosec
        if (action.episode, answers) != (self._episode, self._stamp):
            return      # of an episode that is over, or twice the same
        began = time.monotonic()
        step = self._world.step(np.array(action.values))
        compute = time.monotonic() - began
        self._stamp += self._period
        if self._pace:
            self._due = max(self._due + self._period / SECOND / self._pace, began)
            time.sleep(max(0.0, self._due - time.monotonic()))
        self._show(step, compute)

    def _report(self, done: Future) -> None:
        error = done.exception()
        if error is not None:
            self.get_logger().error(f'{self.task.gym.id} failed in a step: {error!r}; the episode ends here')

    def _show(self, step: GymStep, compute: float) -> None:
        stamp = Time(nanoseconds=self._stamp).to_msg()
        if self._view.get_subscription_count():
            self._draw(stamp)
        self._verdicts.publish(self._verdict(step, stamp, compute))
        message = observation_message(step.observation)
        message.header.stamp = stamp
        message.episode, message.seed, message.step = self._episode, self._seed, step.number
        message.reward, message.terminated, message.truncated = step.reward, step.terminated, step.truncated
        self._observations.publish(message)

    def _draw(self, stamp: Stamp) -> None:
        image = self._world.image()
        if image is None:
            return
        message = Image()
        message.header.frame_id = FRAME
        message.header.stamp = stamp
        fill_image(message, image, 'rgb8')
        self._view.publish(message)

    def _verdict(self, step: GymStep, stamp: Stamp, compute: float) -> Verdict:
        checks = [Check(name=name, passed=passed, value=value, limit=limit)
                  for name, passed, value, limit in self.task.gym.checks(step.measures)]
        said = ', '.join(f'{check.name} {check.value:.3g} of {check.limit:g}' for check in checks)
        message = Verdict(
            task=self.task.name, env_hash=self._environment.now(), checks=checks, compute=compute,
            outcome=Verdict.SUCCESS if step.success else Verdict.NOT_YET,
            reason=f'{"done" if step.success else "not done"} by the environment\'s own measure'
                   f'{": " if said else ""}{said}')
        message.header.frame_id = FRAME
        message.header.stamp = stamp
        return message

    def destroy_node(self):
        if hasattr(self, '_server'):
            self._server.close(timeout=1.0)
            self._thread.submit(self._world.close)
            self._thread.shutdown(wait=False)
        super().destroy_node()


def main() -> None:
    run_single(GymStation)


if __name__ == '__main__':
    main()
