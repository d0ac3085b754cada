"""A running station from a program's point of view: verbs that read like the job.

    with StationClient('station_1') as station:
        station.move_arm('left', named='home')
        station.reset(seed=7)
        result = station.run_trial(recipe='runs/demo/station_1/recipe', seed=7)
"""

from __future__ import annotations

import threading
import time
from typing import Any, Callable, Sequence

import rclpy
from enpire_msgs.action import MoveArm, Reset, RunCampaign, RunTrial
from enpire_msgs.msg import StationStatus, TrialResult
from enpire_msgs.srv import Adopt, Hold, Resume
from rclpy.action import ActionClient
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from enpire_bringup.actions import RemoteCallError, call_action, call_service
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
        self.node.destroy_node()
        self.context.try_shutdown()

    def reset(self, seed: int, *, timeout: float = 600.0, feedback: Callable | None = None) -> Reset.Result:
        """Bring the task's objects to the start state of `seed`."""
        return self._act(Reset, 'reset', Reset.Goal(seed=seed), timeout, feedback)

    def run_trial(self, recipe: str = '', seed: int = 0, *, campaign: str = '', kind: str = '',
                  timeout: float = 1200.0, feedback: Callable | None = None) -> TrialResult:
        """Reset, run the recipe's policy, judge, record."""
        goal = RunTrial.Goal(recipe=recipe, campaign=campaign, kind=kind, seed=seed)
        return self._act(RunTrial, 'run_trial', goal, timeout, feedback).result

    def move_arm(self, arm: str, *, named: str = '', joints: Sequence[float] = (), speed_scale: float = 0.0,
                 timeout: float = 120.0) -> MoveArm.Result:
        """Move an arm to a named target of the station file, or to `joints` (rad)."""
        mode = MoveArm.Goal.NAMED if named else MoveArm.Goal.JOINT
        goal = MoveArm.Goal(arm=arm, mode=mode, named=named, joints=list(joints), speed_scale=speed_scale)
        return self._act(MoveArm, 'move_arm', goal, timeout, None)

    def run_campaign(self, goal: RunCampaign.Goal, *, timeout: float, feedback: Callable | None = None,
                     cancelled: Callable[[], bool] | None = None) -> RunCampaign.Result:
        """Improve a recipe until the goal or a budget is reached."""
        return self._act(RunCampaign, 'run_campaign', goal, timeout, feedback, cancelled)

    def hold(self, reason: str = 'asked for') -> Hold.Response:
        """Stop after the current trial and hold until `resume()`."""
        return self._call(Hold, 'hold', Hold.Request(reason=reason))

    def resume(self) -> Resume.Response:
        return self._call(Resume, 'resume', Resume.Request())

    def adopt(self, commit: str = '', *, timeout: float = 60.0) -> Adopt.Response:
        """Take over a recipe announced by a peer; empty: the best one announced."""
        return self._call(Adopt, 'adopt', Adopt.Request(commit=commit), timeout)

    def status(self, timeout: float = 3.0) -> StationStatus | None:
        """The station's last status; None when none came within `timeout` s."""
        end = time.monotonic() + timeout
        while self._status is None and time.monotonic() < end:
            time.sleep(0.02)
        return self._status

    def _on_status(self, status: StationStatus) -> None:
        self._status = status

    def _act(self, action_type, name: str, goal, timeout: float, feedback, cancelled=None):
        client = self._client(name, lambda: ActionClient(self.node, action_type, name))
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
