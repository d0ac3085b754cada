"""Bounded calls to a running station's actions, services and topics, in ROS messages.

`Station` (remote_station.py) is the same for people: plain values instead of messages.
"""

from __future__ import annotations

import threading
import time
from typing import Any, Callable, Sequence

import rclpy
from enpire_msgs.action import MoveArm, MoveGripper, Reset, RunCampaign, RunTrial, UseSkill
from enpire_msgs.msg import StationStatus, TrialResult
from enpire_msgs.srv import Adopt, Hold, Resume
from rcl_interfaces.srv import GetParameters
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from std_srvs.srv import Trigger

from enpire_bringup.actions import RemoteCallError, action_client, call_action, call_service, destroy_actions
from enpire_bringup.composition import full_namespace
from enpire_bringup.process_environment import environment_domain, prepare_environment
from enpire_bringup.station_node import LATCHED_QOS

APPEARS_WITHIN = 5.0     # s of wall time that a station's server gets to be discovered


class StationClient:
    """Talks to the station in `namespace`. domain_id: None takes $ROS_DOMAIN_ID.

    Every call is bounded by a `timeout` in s of wall time and raises RemoteCallError saying what it waited for.
    """

    def __init__(self, namespace: str = 'station_1', domain_id: int | None = None):
        prepare_environment()
        self.namespace = full_namespace(namespace)
        self.domain_id = environment_domain() if domain_id is None else domain_id
        self.context = rclpy.Context()
        rclpy.init(args=[], context=self.context, domain_id=self.domain_id,
                   signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node(f'enpire_client_{id(self) % 100000}', namespace=self.namespace,
                                      context=self.context, use_global_arguments=False,
                                      start_parameter_services=False, enable_rosout=False)
        self._status: StationStatus | None = None
        self.node.create_subscription(StationStatus, 'station_status', self._on_status, LATCHED_QOS)
        self._clients: dict[str, Any] = {}
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def __enter__(self) -> 'StationClient':
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        self._executor.shutdown(timeout_sec=0.0)
        self._thread.join(timeout=1.0)
        destroy_actions(self.node)
        self.node.destroy_node()
        self.context.try_shutdown()

    def reset(self, seed: int, *, timeout: float = 600.0, feedback: Callable | None = None) -> Reset.Result:
        """Bring the task's objects to the start state of `seed`."""
        return self._act(Reset, 'reset', Reset.Goal(seed=seed), timeout, feedback)

    def run_trial(self, recipe: str = '', seed: int = 0, *, campaign: str = '', kind: str = '',
                  timeout: float = 1200.0, feedback: Callable | None = None) -> TrialResult:
        """Reset, run the recipe's policy, judge, record.

        Raises RemoteCallError with the runner's reason when that did not run or could not record the trial.
        """
        goal = RunTrial.Goal(recipe=recipe, campaign=campaign, kind=kind, seed=seed)
        result = self._act(RunTrial, 'run_trial', goal, timeout, feedback).result
        if not result.outcome:
            raise RemoteCallError(f'run_trial: {result.reason or "failed; the log of trial_runner says why"}')
        return result

    def move_arm(self, goal: MoveArm.Goal, *, timeout: float = 120.0) -> MoveArm.Result:
        return self._act(MoveArm, 'move_arm', goal, timeout, None)

    def move_gripper(self, goal: MoveGripper.Goal, *, timeout: float = 30.0) -> MoveGripper.Result:
        return self._act(MoveGripper, 'gripper', goal, timeout, None)

    def use_skill(self, name: str, goal: UseSkill.Goal, *, timeout: float = 300.0,
                  feedback: Callable | None = None) -> UseSkill.Result:
        return self._act(UseSkill, f'skills/{name}', goal, timeout, feedback)

    def run_campaign(self, goal: RunCampaign.Goal, *, timeout: float, feedback: Callable | None = None,
                     cancelled: Callable[[], bool] | None = None) -> RunCampaign.Result:
        """Improve a recipe until the goal or a budget is reached."""
        return self._act(RunCampaign, 'run_campaign', goal, timeout, feedback, cancelled)

    def hold(self, reason: str = 'asked for') -> Hold.Response:
        """Stop after the current trial and hold until `resume()`."""
        return self._call(Hold, 'hold', Hold.Request(reason=reason))

    def resume(self) -> Resume.Response:
        return self._call(Resume, 'resume', Resume.Request())

    def adopt(self, commit: str = '', *, how: str = '', timeout: float = 60.0) -> Adopt.Response:
        """Take over a recipe announced by a peer (empty: the best one), or `how` "merge" or "cherry_pick" it on ours."""
        return self._call(Adopt, f'adopt/{how}' if how else 'adopt', Adopt.Request(commit=commit), timeout)

    def clear_guard(self) -> Trigger.Response:
        """Let the arms move again after a violation that the guard latched."""
        return self._call(Trigger, 'guard/clear', Trigger.Request())

    def files(self) -> tuple[str, str]:
        """Paths of the station file and the task folder that the station runs."""
        values = self.text_parameters('trial_runner', ('station', 'task'))
        return values['station'], values['task']

    def text_parameters(self, node: str, names: Sequence[str], timeout: float = 10.0) -> dict[str, str]:
        """Parameters of one of the station's nodes; those that it does not have, or that are no text, are empty."""
        values = {}
        for name in names:      # one by one: a single unknown name would leave the answer empty
            response = self._call(GetParameters, f'{node}/get_parameters', GetParameters.Request(names=[name]), timeout)
            values[name] = response.values[0].string_value if response.values else ''
        return values

    def listen(self, message_type, topic: str, qos, *, timeout: float, accept: Callable[[Any], bool] | None = None):
        """The next message on a topic that `accept` takes; raises RemoteCallError after `timeout` s of wall time."""
        got: list = []
        done = threading.Event()

        def on_message(message) -> None:
            if not got and (accept is None or accept(message)):
                got.append(message)
                done.set()

        # In the executor's thread: it must not look at a subscription that is being made or taken away.
        subscription = self.run_in_executor(lambda: self.node.create_subscription(message_type, topic, on_message, qos))
        try:
            if not done.wait(timeout):
                publishers = self.node.count_publishers(topic)
                raise RemoteCallError(
                    f'{self.namespace}/{topic}: waited {timeout:g} s in vain for a message, of '
                    + (f'{publishers} publisher(s)' if publishers else
                       f"which nobody is a publisher in ROS domain {self.domain_id}; 'enpire status' shows what runs"))
            return got[0]
        finally:
            self.run_in_executor(lambda: self.node.destroy_subscription(subscription))

    def run_in_executor(self, work: Callable[[], Any], timeout: float = 5.0):
        done = threading.Event()
        future = self._executor.create_task(work)
        future.add_done_callback(lambda _: done.set())
        if not done.wait(timeout):
            raise RemoteCallError(f'the client of {self.namespace} is closed or stuck')
        return future.result()

    def status(self, timeout: float = 3.0, *, newer: bool = False) -> StationStatus | None:
        """The station's last status, or with `newer` the next one; None when none came within `timeout` s."""
        before = self._status if newer else None
        end = time.monotonic() + timeout
        while self._status is before and time.monotonic() < end:
            time.sleep(0.02)
        return self._status if self._status is not before else None

    def _on_status(self, status: StationStatus) -> None:
        self._status = status

    def _act(self, action_type, name: str, goal, timeout: float, feedback, cancelled=None):
        client = self._client(name, lambda: action_client(self.node, action_type, name))
        self._await_server(name, client.server_is_ready)
        return call_action(self.node, client, goal, timeout=timeout, feedback=feedback, cancelled=cancelled)

    def _call(self, service_type, name: str, request, timeout: float = 10.0):
        client = self._client(name, lambda: self.node.create_client(service_type, name))
        self._await_server(name, client.service_is_ready)
        return call_service(self.node, client, request, timeout=timeout)

    def _client(self, name: str, make: Callable[[], Any]):
        if name not in self._clients:
            self._clients[name] = make()
        return self._clients[name]

    def _await_server(self, name: str, ready: Callable[[], bool]) -> None:
        end = time.monotonic() + APPEARS_WITHIN
        while not ready():
            if time.monotonic() > end:
                raise RemoteCallError(
                    f"nobody offers {self.namespace}/{name} in ROS domain {self.domain_id}; is the station up? "
                    "'enpire status' shows what runs, 'enpire up' starts a station")
            time.sleep(0.02)

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except (ExternalShutdownException, RuntimeError):
            if self.context.ok():
                raise
