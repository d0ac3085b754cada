"""An executor with a short way for messages and timers: a third of what rclpy's own costs for each of them."""

from __future__ import annotations

import inspect
import threading
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from typing import Any, Callable, Iterator

from rclpy.callback_groups import CallbackGroup
from rclpy.event_handler import EventHandler
from rclpy.exceptions import InvalidHandle, TimerCancelledError
from rclpy.executors import ExternalShutdownException, ShutdownException, SingleThreadedExecutor, TimeoutException
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy

KNOWN_RCLPY = '9'      # major version of rclpy whose inner parts MessageExecutor knows
MOST_MESSAGES = 20     # of one subscription before the others get their turn
EVENT_PERIOD = 1.0     # s of wall time within which events of the middleware are told: only people read them


def fastest_executor(**kwargs) -> SingleThreadedExecutor:
    """A MessageExecutor where rclpy is of the version that it was written for and tested with, else rclpy's own."""
    known = version('rclpy').split('.')[0] == KNOWN_RCLPY
    return MessageExecutor(**kwargs) if known else SingleThreadedExecutor(**kwargs)


class MessageExecutor(SingleThreadedExecutor):
    """A SingleThreadedExecutor whose `spin` takes messages and timers without rclpy's tasks.

    rclpy builds a wait set for every callback, runs the callback as a coroutine and wakes itself twice around it. Here
    the wait set stays until the node's entities change. Services, clients, actions, guard conditions, tasks and
    callbacks that are coroutines go rclpy's way; all callbacks run in the thread that spins. What comes rarely is
    waited for in a thread of its own: each entity of a wait set costs about a microsecond whenever a message comes.
    (rclpy's own EventsExecutor delivers nothing in the wheels of PyPI.)
    """

    def __init__(self, **kwargs):
        self._stale = True
        self._woken = False      # a task came, or may go on
        super().__init__(**kwargs)

    def wake(self) -> None:
        self._stale = True       # an entity came or went
        self._woken = True
        super().wake()

    def create_task(self, *args, **kwargs):
        task = super().create_task(*args, **kwargs)
        # Before the guard, so that whoever takes its trigger sees the flag.
        self._woken = True
        if self._guard:      # it is gone after shutdown
            self._guard.trigger()
        return task

    def add_node(self, node) -> bool:
        self._stale = True
        return super().add_node(node)

    def remove_node(self, node) -> None:
        self._stale = True
        super().remove_node(node)

    def spin(self) -> None:
        """Serve callbacks until shutdown; what a callback raises comes out of here."""
        while self._context.ok() and not self._is_shutdown:
            self._stale = False
            with ExitStack() as held:
                rare = _RareEntities(self, held)
                waiting = _WaitingEntities(self, rare.bell, held)
                while not self._stale and not self._is_shutdown:
                    if waiting.serve():
                        with rare.stopped():
                            self._serve_others()

    def _serve_others(self) -> None:
        """All that is ready now, rclpy's way.

        A pass looks at the tasks and then takes what triggered the guard: what came in between needs another pass.
        """
        self._woken = True
        while self._woken and not self._is_shutdown:
            self._woken = False
            try:
                while True:
                    handler, _, _ = self.wait_for_ready_callbacks(0)
                    handler()
                    handler.result()
            except (TimeoutException, ShutdownException):
                pass


_KINDS = ('guard_condition', 'service', 'client', 'subscription', 'timer')     # that actions consist of, too


class _RareEntities:
    """Services, clients, actions and events of the middleware: a thread waits for them and rings `bell`, a guard
    condition, when one of them is ready. `held` keeps the handles from being destroyed, and ends the thread."""

    def __init__(self, executor: MessageExecutor, held: ExitStack):
        self._context = executor.context
        enter = held.enter_context
        clients, services, waitables = [], [], []
        for node in executor.get_nodes():
            clients += _held(node.clients, enter)
            services += _held(node.services, enter)
            waitables += [waitable for waitable in node.waitables if _is_alive(waitable, enter)]
        self._actions = [waitable for waitable in waitables if not isinstance(waitable, EventHandler)]
        self._events = [waitable for waitable in waitables if isinstance(waitable, EventHandler)]
        self.bell = _rclpy.GuardCondition(self._context.handle)
        self._call_back = _rclpy.GuardCondition(self._context.handle)      # what the thread itself is woken by
        enter(self.bell)
        enter(self._call_back)
        enter(self._context.handle)
        counts = [0, 1, 0, len(clients), len(services), 0]
        for waitable in self._actions:
            number = waitable.get_num_entities()
            counts = [a + b for a, b in zip(counts, (
                number.num_subscriptions, number.num_guard_conditions, number.num_timers, number.num_clients,
                number.num_services, number.num_events))]
        self._set = _rclpy.WaitSet(*counts, self._context.handle)
        # To wait for the events of a subscription is to be woken by its messages: they are asked now and then.
        self._event_set = _rclpy.WaitSet(0, 0, 0, 0, 0, len(self._events), self._context.handle)
        self._groups = _by_group(((self._set.add_client, clients), (self._set.add_service, services)))
        self._ending = False
        self._left_out = False                  # something whose callback group has a callback under way
        self._served = threading.Event()        # since the bell was rung
        # An action is told its places in the wait set that it was put into last: one set at a time.
        self._one_set = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True, name=f'{threading.current_thread().name} (rare)')
        self._thread.start()
        held.callback(self._end)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """While whoever spins serves all that is ready."""
        with self._one_set:
            yield
        self._served.set()
        if self._left_out:
            self._call_back.trigger_guard_condition()

    def _run(self) -> None:
        while not self._ending:
            with self._one_set:
                self._fill()
            self._set.wait(round(EVENT_PERIOD * 1e9) if self._events else -1)
            if self._ending or not self._context.ok():
                return
            ready = {kind: self._set.get_ready_entities(kind) for kind in _KINDS}
            if self._call_back.pointer in ready['guard_condition'] or not any(ready.values()) and not self._happened():
                continue
            self._served.clear()
            if self._ending:      # and said so by `served` before it was cleared
                return
            self.bell.trigger_guard_condition()
            self._served.wait()

    def _fill(self) -> None:
        wait_set, self._left_out = self._set, False
        wait_set.clear_entities()
        wait_set.add_guard_condition(self._call_back)
        for group, (entity, entries) in self._groups.items():
            if group.can_execute(entity):
                for add, handle in entries:
                    add(handle)
            else:
                self._left_out = True
        for action in self._actions:
            if action.callback_group.can_execute(action):
                action.add_to_wait_set(wait_set)
            else:
                self._left_out = True

    def _happened(self) -> bool:
        """Whether there is an event of the middleware."""
        with self._one_set:
            self._event_set.clear_entities()
            for event in self._events:
                event.add_to_wait_set(self._event_set)
            self._event_set.wait(0)
            return any([event.is_ready(self._event_set) for event in self._events])

    def _end(self) -> None:
        self._ending = True
        self._served.set()
        self._call_back.trigger_guard_condition()
        self._thread.join()


class _WaitingEntities:
    """One wait set for the messages, timers and guard conditions of an executor's nodes, and for `bell`.
    `held` keeps the handles from being destroyed."""

    def __init__(self, executor: MessageExecutor, bell, held: ExitStack):
        self._executor = executor
        self._context = executor.context
        enter = held.enter_context
        subscriptions, timers, self._guards = [], [], []
        for node in executor.get_nodes():
            subscriptions += _held(node.subscriptions, enter)
            timers += _held(node.timers, enter)
            self._guards += _held(node.guards, enter)
        # They are gone once the executor was shut down.
        own = [guard.handle for guard in (executor._guard, executor._sigint_gc)
               if guard is not None and _is_alive(guard.handle, enter)]
        self._guard_handles = [guard.handle for guard in self._guards] + own + [bell]
        enter(self._context.handle)
        self._set = _rclpy.WaitSet(len(subscriptions), len(self._guard_handles), len(timers), 0, 0, 0,
                                   self._context.handle)
        self._groups = _by_group(((self._set.add_subscription, subscriptions), (self._set.add_timer, timers)))
        self._by_pointer = {entity.handle.pointer: entity for entity in subscriptions}
        self._direct = {entity for entity in subscriptions if not inspect.iscoroutinefunction(entity.callback)}
        self._plain_timers = {timer.handle.pointer: timer for timer in timers if _is_plain(timer.callback)}

    def serve(self) -> bool:
        """Wait until something is ready, and serve messages and timers; whether anything else is ready, too."""
        wait_set = self._set
        wait_set.clear_entities()
        for group, (entity, entries) in self._groups.items():
            if group.can_execute(entity):
                for add, handle in entries:
                    add(handle)
        for handle in self._guard_handles:
            wait_set.add_guard_condition(handle)
        wait_set.wait(-1)
        if not self._context.ok():
            raise ExternalShutdownException()
        others = False
        rung = wait_set.get_ready_entities('guard_condition')
        if rung:
            for guard in self._guards:
                # The wait has reset it: rclpy's part has to learn that it was triggered.
                guard._executor_triggered |= guard.handle.pointer in rung
            others = True
        for pointer in wait_set.get_ready_entities('timer'):
            timer = self._plain_timers.get(pointer)
            if timer is None:
                others = True
            else:
                _call(timer)
        for pointer in wait_set.get_ready_entities('subscription'):
            subscription = self._by_pointer[pointer]
            if subscription in self._direct:
                self._take(subscription)
            else:
                others = True
        return others

    def _take(self, subscription) -> None:
        executor = self._executor
        take, kind, raw = subscription.handle.take_message, subscription.msg_type, subscription.raw
        message_only = subscription._callback_type is subscription.CallbackType.MessageOnly
        callback = subscription.callback
        for _ in range(MOST_MESSAGES):
            # What a callback before this one did may have ended the subscription.
            if executor._stale or executor._is_shutdown:
                return
            taken = take(kind, raw)
            if taken is None:
                return
            callback(taken[0]) if message_only else callback(*taken)


def _held(entities, enter) -> list:
    """The entities that are not destroyed yet; they stay until the executor lets go of them."""
    return [entity for entity in entities if _is_alive(entity.handle, enter)]


def _is_alive(handle, enter) -> bool:
    try:
        enter(handle)
    except InvalidHandle:
        return False
    return True


def _by_group(kinds) -> dict[CallbackGroup, tuple[Any, list[tuple[Callable, Any]]]]:
    """Group -> (one of its entities, what adds each of them to a wait set with its handle), of (adds, entities) each.

    A callback group lets all of its entities wait, or none: it is asked once.
    """
    groups: dict[CallbackGroup, tuple[Any, list[tuple[Callable, Any]]]] = {}
    for add, entities in kinds:
        for entity in entities:
            groups.setdefault(entity.callback_group, (entity, []))[1].append((add, entity.handle))
    return groups


def _is_plain(callback) -> bool:
    return not inspect.iscoroutinefunction(callback) and not inspect.signature(callback).parameters


def _call(timer) -> None:
    try:
        if not timer.handle.is_timer_ready():
            return
        timer.handle.call_timer_with_info()
    except TimerCancelledError:
        return
    timer.callback()
