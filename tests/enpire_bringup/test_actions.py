"""Blocking goals never block the executor, and every wait is bounded and says what it waited for."""

import threading
import time

import pytest
import rclpy
from enpire_msgs.action import MoveArm
from rclpy.action import ActionClient
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from std_srvs.srv import Trigger

from enpire_bringup import actions
from enpire_bringup.actions import (
    BlockingActionServer, GoalAborted, RemoteCallCancelled, RemoteCallError, action_client, call_action, call_service)


class Peers:
    """A serving node and a calling node, each with an executor in its own thread, as node_group runs them."""

    def __init__(self):
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.server = rclpy.create_node('server', context=self.context)
        self.caller = rclpy.create_node('caller', context=self.context)
        self.client = ActionClient(self.caller, MoveArm, 'move_arm')
        self._servers = []
        self._threads = []
        for node in (self.server, self.caller):
            executor = SingleThreadedExecutor(context=self.context)
            executor.add_node(node)
            thread = threading.Thread(target=_spin, args=(executor,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def serve(self, execute, busy_message='one at a time'):
        server = BlockingActionServer(self.server, MoveArm, 'move_arm', execute, busy_message=busy_message)
        self._servers.append(server)
        return server

    def call(self, **options):
        return call_action(self.caller, self.client, MoveArm.Goal(), **{'timeout': 5.0, **options})

    def close(self):
        # Else the next test would still discover this server.
        for server in self._servers:
            server.close()
        rclpy.shutdown(context=self.context)
        for thread in self._threads:
            thread.join(2.0)
            assert not thread.is_alive()
        self.client.destroy()
        self.server.destroy_node()
        self.caller.destroy_node()


def _spin(executor):
    try:
        executor.spin()
    except ExternalShutdownException:
        pass


@pytest.fixture
def peers():
    peers = Peers()
    yield peers
    peers.close()


def test_action_client_of_a_spinning_node_is_made_by_its_executor(peers, monkeypatch):
    makers = []
    monkeypatch.setattr(actions, 'ActionClient',
                        lambda *args: makers.append(threading.current_thread()) or ActionClient(*args))
    peers.serve(lambda goal: MoveArm.Result(success=True))
    client = action_client(peers.caller, MoveArm, 'move_arm')
    assert makers == [peers._threads[1]]
    assert call_action(peers.caller, client, MoveArm.Goal(), timeout=5.0).success
    client.destroy()


def test_result_and_feedback_reach_the_caller(peers):
    def execute(goal):
        goal.publish_feedback(MoveArm.Feedback(progress=0.5))
        return MoveArm.Result(success=True, message='there')
    peers.serve(execute)
    seen = []
    result = peers.call(feedback=lambda message: seen.append(message.progress))
    assert (result.success, result.message) == (True, 'there')
    assert seen == [0.5]


def test_executor_stays_free_while_a_goal_runs_and_the_end_wakes_it(peers):
    release = threading.Event()
    ticks = []
    peers.server.create_service(Trigger, 'ping', lambda request, response: ticks.append(1) or response)
    ping = peers.caller.create_client(Trigger, 'ping')

    def execute(goal):
        assert release.wait(5.0)
        return MoveArm.Result(success=True)
    peers.serve(execute)
    results = []
    caller = threading.Thread(target=lambda: results.append((peers.call(), time.monotonic())))
    caller.start()
    call_service(peers.caller, ping, Trigger.Request(), timeout=5.0)
    assert ticks == [1] and not results
    released = time.monotonic()
    release.set()
    caller.join(5.0)
    # Nothing else happens on the server's node: without a wake-up the result would never leave.
    assert results and results[0][1] - released < 0.5


def test_exception_becomes_an_aborted_goal_with_its_text(peers):
    def execute(goal):
        raise ValueError('joint7 does not exist')
    peers.serve(execute)
    result = peers.call()
    assert not result.success
    assert result.message == 'joint7 does not exist'


def test_goal_aborted_sends_its_own_result(peers):
    def execute(goal):
        raise GoalAborted(MoveArm.Result(success=False, message='stalled', duration=2.0))
    peers.serve(execute)
    assert peers.call().duration == 2.0


def test_second_goal_is_rejected_while_one_runs_and_accepted_afterwards(peers):
    started, release = threading.Event(), threading.Event()

    def execute(goal):
        started.set()
        assert release.wait(5.0)
        return MoveArm.Result(success=True)
    peers.serve(execute)
    first = threading.Thread(target=peers.call)
    first.start()
    assert started.wait(5.0)
    with pytest.raises(RemoteCallError, match='rejected'):
        peers.call()
    release.set()
    first.join(5.0)
    assert peers.call().success


def test_cancel_reaches_the_running_goal(peers):
    ended = threading.Event()

    def execute(goal):
        while not goal.is_cancel_requested:
            time.sleep(0.005)
        ended.set()
        return MoveArm.Result(success=False, message='stopped')
    peers.serve(execute)
    calls = []
    with pytest.raises(RemoteCallCancelled, match='move_arm.*cancelled while waiting for the result'):
        peers.call(cancelled=lambda: calls.append(1) or len(calls) > 3)
    assert ended.wait(1.0)


def test_late_result_is_a_named_timeout_and_the_goal_is_cancelled(peers):
    ended = threading.Event()

    def execute(goal):
        while not goal.is_cancel_requested:
            time.sleep(0.005)
        ended.set()
        return MoveArm.Result()
    peers.serve(execute)
    with pytest.raises(RemoteCallError, match=r'/move_arm: waited 0\.\d s for the result'):
        peers.call(timeout=0.4)
    assert ended.wait(1.0)


def test_absent_server_is_named_with_the_time_waited(peers):
    with pytest.raises(RemoteCallError, match=r'action /move_arm: waited 0\.3 s for its server'):
        peers.call(timeout=0.3)
    absent = peers.caller.create_client(Trigger, 'absent')
    with pytest.raises(RemoteCallError, match='service /absent: .*its server'):
        call_service(peers.caller, absent, Trigger.Request(), timeout=0.1)


def test_close_stops_a_running_goal(peers):
    started = threading.Event()

    def execute(goal):
        started.set()
        while not goal.is_cancel_requested:
            time.sleep(0.005)
        return MoveArm.Result(message='closing')
    server = peers.serve(execute)
    with pytest.raises(RemoteCallError):
        peers.call(timeout=0.3, cancelled=started.is_set)
    began = time.monotonic()
    server.close()
    assert time.monotonic() - began < 1.0


def test_goal_whose_acceptance_got_lost_is_sent_again_and_runs_once(peers, monkeypatch):
    monkeypatch.setattr(actions, 'RESEND_PERIOD', 0.3)
    runs = []

    def execute(goal):
        runs.append(1)
        time.sleep(0.6)
        return MoveArm.Result(success=True)
    server = peers.serve(execute)
    handle = server._server._handle
    lost = []

    class LosesFirstAnswer:
        """What happens while two processes discover each other."""

        def __getattr__(self, name):
            return getattr(handle, name)

        def send_goal_response(self, *answer):
            if lost:
                handle.send_goal_response(*answer)
            lost.append(1)
    server._server._handle = LosesFirstAnswer()
    assert peers.call().success
    assert (len(lost), len(runs)) == (2, 1)
    server._server._handle = handle


def test_a_server_that_was_started_anew_ends_the_call_long_before_its_timeout(peers, monkeypatch):
    monkeypatch.setattr(actions, 'RESEND_PERIOD', 0.3)
    started, end = threading.Event(), threading.Event()

    def execute(_):
        started.set()
        end.wait(10)
        return MoveArm.Result()
    first = peers.serve(execute)

    def start_anew():
        started.wait(5)
        first._server.destroy()
        peers._servers.remove(first)
        peers.serve(execute)
    threading.Thread(target=start_anew, daemon=True).start()
    with pytest.raises(RemoteCallError, match='started anew and no longer knows the goal'):
        peers.call(timeout=20)
    end.set()


def test_a_hundred_goals_in_a_row_all_get_their_results(peers):
    peers.serve(lambda goal: MoveArm.Result(success=True))
    began = time.monotonic()
    for _ in range(100):
        assert peers.call().success
    assert time.monotonic() - began < 30.0
