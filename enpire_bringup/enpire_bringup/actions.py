"""Actions and services for nodes that must never block their executor.

The serving side runs every goal in a thread of its own, the executor only sees the end of it. The calling side
is for such threads: it waits, with a bound, and says what it waited for. All bounds here are wall time: they
protect a program from a peer that is gone, which has nothing to do with the clock of a simulated world.
"""

from __future__ import annotations

import threading
import time
from typing import Any, Callable
from uuid import uuid4

from action_msgs.msg import GoalStatus
from rclpy.action import ActionClient, ActionServer, CancelResponse, GoalResponse
from rclpy.action.client import ClientGoalHandle
from rclpy.client import Client
from rclpy.node import Node
from rclpy.task import Future
from unique_identifier_msgs.msg import UUID

POLL_PERIOD = 0.02     # s between looks at a peer that announces nothing
SETTLE_TIME = 0.2      # s after a peer was discovered: it may not have discovered this side yet
RESEND_PERIOD = 3.0    # s without an answer after which an action request is sent again
MADE_WITHIN = 10.0     # s that an executor gets to make a client
CANCEL_TIMEOUT = 2.0   # s that a remote goal gets to stop after its cancellation


class RemoteCallError(RuntimeError):
    """An action or service did not answer as expected; the message names it and what was waited for."""


class RemoteCallRejected(RemoteCallError):
    """The action's server does not take the goal, as a rule because another one runs."""


class RemoteCallCancelled(RemoteCallError):
    """The caller's own `cancelled` said stop."""


class GoalAborted(Exception):
    """Raised by `execute` to end a goal as aborted with a result that says more than a message."""

    def __init__(self, result: Any):
        super().__init__(_failure_text(result))
        self.result = result


class RunningGoal:
    """What `execute` sees of its goal."""

    def __init__(self, handle, closing: threading.Event):
        self._handle = handle
        self._closing = closing

    @property
    def request(self):
        return self._handle.request

    @property
    def id(self) -> bytes:
        """16 bytes, as its client chose them."""
        return bytes(self._handle.goal_id.uuid)

    @property
    def is_cancel_requested(self) -> bool:
        """True when the client asked for it, and when the node is going down."""
        return self._closing.is_set() or self._handle.is_cancel_requested

    def publish_feedback(self, feedback) -> None:
        if not self._closing.is_set():
            self._handle.publish_feedback(feedback)


class BlockingActionServer:
    """An action whose goals run in worker threads.

    execute: called as `execute(goal: RunningGoal) -> result` in a thread. The goal ends
      - canceled, when cancellation was asked for before `execute` returned;
      - aborted, when `execute` raised (the text goes into the result's `message` or `error_string`), when it
        raised GoalAborted (its result is sent), or when the result has a field `success` that is false;
      - succeeded otherwise.
    busy_message: why a second goal is rejected while one runs; None lets goals overlap, and `execute` has to
      settle which of them goes on.
    """

    def __init__(self, node: Node, action_type, name: str, execute: Callable[[RunningGoal], Any], *,
                 busy_message: str | None):
        self._node = node
        self._name = name
        self._result_type = action_type.Result
        self._execute = execute
        self._busy_message = busy_message
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._running = 0
        self._threads: set[threading.Thread] = set()
        self._server = ActionServer(
            node, action_type, name, self._run,
            goal_callback=self._accept, cancel_callback=lambda _: CancelResponse.ACCEPT)

    def _accept(self, _request) -> GoalResponse:
        with self._lock:
            if self._closing.is_set():
                return GoalResponse.REJECT
            if self._running and self._busy_message is not None:
                self._node.get_logger().warning(f'{self._name}: goal rejected: {self._busy_message}')
                return GoalResponse.REJECT
            self._running += 1
        return GoalResponse.ACCEPT

    async def _run(self, handle):
        done = Future()
        thread = threading.Thread(target=self._work, args=(handle, done), name=self._name, daemon=True)
        self._threads.add(thread)
        thread.start()
        # A pending future costs the executor one look for each time it wakes up; it does not spin.
        state, result = await done
        self._threads.discard(thread)
        # The client may cancel up to this line; from here on the state is final.
        if handle.is_cancel_requested:
            handle.canceled()
        elif state == 'succeeded':
            handle.succeed()
        else:
            handle.abort()
        return result

    def _work(self, handle, done: Future) -> None:
        try:
            result = self._execute(RunningGoal(handle, self._closing))
            state = 'succeeded' if getattr(result, 'success', True) else 'aborted'
        except GoalAborted as aborted:
            state, result = 'aborted', aborted.result
        except Exception as error:
            state, result = 'aborted', self._failure(error)
        finally:
            # Free before the client hears of the end, so that its next goal is not rejected as one too many.
            with self._lock:
                self._running -= 1
        done.set_result((state, result))
        executor = self._node.executor
        if executor is not None:
            executor.wake()

    def _failure(self, error: Exception):
        text = str(error) or type(error).__name__
        if not self._closing.is_set():
            self._node.get_logger().error(f'{self._name}: {text}')
        result = self._result_type()
        for field in ('message', 'error_string'):
            if hasattr(result, field):
                setattr(result, field, text)
        if hasattr(result, 'error_code'):
            result.error_code = -1
        return result

    def close(self, timeout: float = 1.0) -> None:
        """Ask the running goals to stop and wait for them at most `timeout` seconds."""
        if self._closing.is_set():
            return
        self._closing.set()
        deadline = time.monotonic() + timeout
        for thread in list(self._threads):
            thread.join(max(0.0, deadline - time.monotonic()))
        self._server.destroy()


def action_client(node: Node, action_type, name: str) -> ActionClient:
    """An ActionClient of a node that spins in another thread, made in that thread; at once where it does not spin.

    rclpy enters an action client into the node's list before it is complete: an executor that looks at it in this moment
    dies of an AttributeError. Raises RemoteCallError when the executor does not get to it within MADE_WITHIN.
    """
    if node.executor is None:
        return ActionClient(node, action_type, name)
    made: list[ActionClient] = []
    done = threading.Event()

    def make() -> None:
        made.append(ActionClient(node, action_type, name))
        done.set()
    node.executor.create_task(make)
    if not done.wait(MADE_WITHIN):
        raise RemoteCallError(f'action {_resolved(node, name)}: {node.get_name()} does not spin, so it cannot call it')
    return made[0]


def destroy_actions(node: Node) -> None:
    """End a node's action clients and servers; its executor must not spin any more.

    `destroy_node` leaves them, and with them the node stays in the graph for as long as somebody holds one of them.
    """
    for waitable in list(node.waitables):
        if isinstance(waitable, (ActionClient, ActionServer)):
            waitable.destroy()


def call_action(node: Node, client: ActionClient, goal, *, timeout: float,
                feedback: Callable[[Any], None] | None = None,
                cancelled: Callable[[], bool] | None = None, goal_id: bytes | None = None):
    """Send a goal and wait for its result message, at most `timeout` seconds of wall time in all.

    For worker threads only; the node's executor has to spin in another thread. A goal that was aborted returns
    its result, too: look at its `success` or `error_code`. `feedback` gets each feedback message (in the
    executor's thread); `cancelled` is asked a few times a second. goal_id: 16 bytes that no goal had; None: random ones.
    Raises RemoteCallError when the server is absent or does not answer in time, RemoteCallRejected, and
    RemoteCallCancelled when `cancelled` returned true; in both cases a goal already sent is cancelled.
    """
    name = f'action {_resolved(node, client._action_name)}'
    started = time.monotonic()
    wait = _Wait(node, name, started + timeout, started, cancelled)
    wait.until(client.server_is_ready, 'its server to appear')

    on_feedback = (lambda message: feedback(message.feedback)) if feedback else None
    uuid = UUID(uuid=list(goal_id or uuid4().bytes))
    handle = ClientGoalHandle(client, uuid, None)
    requests: list[Future] = []

    def request() -> Future:
        requests.append(_in_executor(node, lambda: client.send_goal_async(goal, on_feedback, uuid)))
        return requests[-1]

    try:
        handle, repeated = wait.answer(request, 'the goal to be accepted')
        if handle.accepted or repeated:
            # Of two requests for one goal the second is refused as a duplicate; whether the goal runs, the result says.
            response, _ = wait.answer(handle.get_result_async, 'the result')
    except RemoteCallError:
        for future in requests:
            if not future.done():
                future.add_done_callback(_cancel_late)
        _cancel(node, handle)
        raise
    if handle.accepted and response.status == GoalStatus.STATUS_UNKNOWN:
        raise RemoteCallError(f'{name}: its server was started anew and no longer knows the goal')
    if not handle.accepted and (not repeated or response.status == GoalStatus.STATUS_UNKNOWN):
        raise RemoteCallRejected(f'{name}: the goal was rejected; the log of its server says why')
    return response.result


def call_service(node: Node, client: Client, request, *, timeout: float):
    """Call a service and wait for its response, at most `timeout` seconds of wall time in all.

    For worker threads only. Raises RemoteCallError when the service is absent or does not answer in time.
    """
    started = time.monotonic()
    wait = _Wait(node, f'service {_resolved(node, client.srv_name)}', started + timeout, started, None)
    wait.until(client.service_is_ready, 'its server to appear')
    future = client.call_async(request)
    try:
        return wait.result(future, 'the response')
    except RemoteCallError:
        client.remove_pending_request(future)
        raise


class _Wait:
    """Bounded waits of one call, with one deadline."""

    def __init__(self, node, name, deadline, started, cancelled):
        self._node = node
        self._name = name
        self._deadline = deadline
        self._started = started
        self._cancelled = cancelled or (lambda: False)

    def until(self, ready: Callable[[], bool], what: str) -> None:
        if ready():
            return
        while not ready():
            self._check(what)
            time.sleep(POLL_PERIOD)
        time.sleep(SETTLE_TIME)

    def answer(self, request: Callable[[], Future], what: str) -> tuple[Any, bool]:
        """What the future of `request()` gives, and whether the request had to be repeated.

        A request that gets no answer is repeated, ever less often: while two processes discover each other, a server
        may know a client's requests before it can reach the client.
        """
        done = threading.Event()
        futures = []
        period, due = RESEND_PERIOD, 0.0
        while True:
            now = time.monotonic()
            if now >= due:
                due, period = now + period, 2.0 * period
                future = request()
                futures.append(future)
                future.add_done_callback(lambda _: done.set())
            if done.wait(min(0.05, max(0.001, self._deadline - now))):
                return next(f for f in futures if f.done()).result(), len(futures) > 1
            self._check(what)

    def result(self, future: Future, what: str):
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        while not done.wait(min(0.05, max(0.001, self._deadline - time.monotonic()))):
            self._check(what)
        return future.result()

    def _check(self, what: str) -> None:
        if not self._node.context.ok():
            raise RemoteCallError(f'{self._name}: shutting down while waiting for {what}')
        if self._cancelled():
            raise RemoteCallCancelled(f'{self._name}: cancelled while waiting for {what}')
        now = time.monotonic()
        if now > self._deadline:
            raise RemoteCallError(
                f'{self._name}: waited {now - self._started:.1f} s for {what}, in vain')


def _in_executor(node: Node, request: Callable[[], Future]) -> Future:
    """Start a request in the executor's thread; a future of its answer.

    send_goal_async of rclpy 9 replaces its own future by a second one without a lock: from another thread, an answer
    that comes between the two is lost.
    """
    answer = Future()

    def forward(future: Future) -> None:
        if future.exception() is not None:
            answer.set_exception(future.exception())
        else:
            answer.set_result(future.result())

    def run() -> None:
        try:
            request().add_done_callback(forward)
        except Exception as error:   # it belongs to the caller, not to the executor
            answer.set_exception(error)

    executor = node.executor
    if executor is None:
        raise RemoteCallError(f'{node.get_name()} is not spinning, so it cannot call anything')
    executor.create_task(run)
    return answer


def _cancel(node: Node, handle: ClientGoalHandle) -> None:
    """Cancel a goal, and give it a moment to end."""
    if not node.context.ok():
        return
    done = threading.Event()
    handle.get_result_async().add_done_callback(lambda _: done.set())
    handle.cancel_goal_async()
    done.wait(CANCEL_TIMEOUT)


def _cancel_late(acceptance: Future) -> None:
    """Cancel a goal that a slow server accepts when nobody waits for it any more."""
    if acceptance.exception() is None and acceptance.result().accepted:
        acceptance.result().cancel_goal_async()


def _failure_text(result) -> str:
    return getattr(result, 'message', '') or getattr(result, 'error_string', '') or 'the goal failed'


def _resolved(node: Node, name: str) -> str:
    return name if name.startswith('/') else f'{node.get_namespace().rstrip("/")}/{name}'
