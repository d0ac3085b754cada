"""An executor with a short way for messages and timers: a third of what rclpy's own costs for each of them."""

from __future__ import annotations

import inspect
import time
from contextlib import ExitStack
from importlib.metadata import version
from typing import Any, Callable

from rclpy.callback_groups import CallbackGroup
from rclpy.event_handler import EventHandler
from rclpy.exceptions import InvalidHandle, TimerCancelledError
from rclpy.executors import ExternalShutdownException, ShutdownException, SingleThreadedExecutor, TimeoutException
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy

KNOWN_RCLPY = '9'      # major version of rclpy whose inner parts MessageExecutor knows
MOST_MESSAGES = 20     # of one subscription before the others get their turn
EVENT_PERIOD = 0.1     # s of wall time within which events of the middleware are told to a node that has other work


def fastest_executor(**kwargs) -> SingleThreadedExecutor:
    """A MessageExecutor where rclpy is of the version that it was written for and tested with, else rclpy's own."""
    known = version('rclpy').split('.')[0] == KNOWN_RCLPY
    return MessageExecutor(**kwargs) if known else SingleThreadedExecutor(**kwargs)


class MessageExecutor(SingleThreadedExecutor):
    """A SingleThreadedExecutor whose `spin` takes messages and timers without rclpy's tasks.

    rclpy builds a wait set for every callback, runs the callback as a coroutine and wakes itself twice around it. Here
    the wait set stays until the node's entities change. Services, clients, actions, guard conditions, tasks and
    callbacks that are coroutines go rclpy's way. (rclpy's own EventsExecutor delivers nothing in the wheels of PyPI.)
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
                waiting = _WaitingEntities(self, held)
                while not self._stale and not self._is_shutdown:
                    if waiting.serve():
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


class _WaitingEntities:
    """One wait set for everything that an executor's nodes wait for. `held` keeps the handles from being destroyed."""

    def __init__(self, executor: MessageExecutor, held: ExitStack):
        self._executor = executor
        self._context = executor.context
        nodes = executor.get_nodes()
        enter = held.enter_context
        subscriptions, timers, clients, services, self._guards, waitables = [], [], [], [], [], []
        for node in nodes:
            subscriptions += _held(node.subscriptions, enter)
            timers += _held(node.timers, enter)
            clients += _held(node.clients, enter)
            services += _held(node.services, enter)
            self._guards += _held(node.guards, enter)
            waitables += node.waitables
        self._own_guards = [guard for guard in (executor._guard, executor._sigint_gc) if guard is not None]
        for guard in self._own_guards:
            enter(guard.handle)
        self._events: list[EventHandler] = []       # of the middleware: QoS that do not match, and the like
        self._actions = []
        counts = [len(subscriptions), len(self._guards) + len(self._own_guards), len(timers), len(clients),
                  len(services), 0]
        for waitable in waitables:
            try:
                enter(waitable)
            except InvalidHandle:
                continue
            (self._events if isinstance(waitable, EventHandler) else self._actions).append(waitable)
            number = waitable.get_num_entities()
            counts = [a + b for a, b in zip(counts, (
                number.num_subscriptions, number.num_guard_conditions, number.num_timers, number.num_clients,
                number.num_services, number.num_events))]
        enter(self._context.handle)
        self._set = _rclpy.WaitSet(*counts, self._context.handle)
        self._events_due = 0.0      # monotonic s
        # A callback group lets all of its entities wait, or none: each is asked once.
        self._groups: dict[CallbackGroup, tuple[Any, list[tuple[Callable, Any]]]] = {}
        for add, entities in ((self._set.add_subscription, subscriptions), (self._set.add_timer, timers),
                              (self._set.add_client, clients), (self._set.add_service, services)):
            for entity in entities:
                self._groups.setdefault(entity.callback_group, (entity, []))[1].append((add, entity.handle))
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
        for entity in self._guards:
            wait_set.add_guard_condition(entity.handle)
        for entity in self._own_guards:
            wait_set.add_guard_condition(entity.handle)
        # To ask for each event takes as long as to take a message, and they are only told to people.
        now = time.monotonic()
        with_events = now >= self._events_due
        waitables = self._actions + self._events if with_events else self._actions
        if with_events:
            self._events_due = now + EVENT_PERIOD
        for entity in waitables:
            if entity.callback_group.can_execute(entity):
                entity.add_to_wait_set(wait_set)
        wait_set.wait(-1 if with_events else round(EVENT_PERIOD * 1e9))
        if not self._context.ok():
            raise ExternalShutdownException()
        others = self._others_are_ready(waitables)
        for pointer in wait_set.get_ready_entities('timer'):
            timer = self._plain_timers.get(pointer)
            if timer is None:
                others = True
            else:
                _call(timer)
        for pointer in wait_set.get_ready_entities('subscription'):
            subscription = self._by_pointer.get(pointer)      # else it belongs to an action client
            if subscription in self._direct:
                self._take(subscription)
            else:
                others = True
        return others

    def _others_are_ready(self, waitables) -> bool:
        wait_set = self._set
        ready = wait_set.get_ready_entities('guard_condition')
        if ready:
            for guard in self._guards:
                # The wait has reset it: rclpy's part has to learn that it was triggered.
                guard._executor_triggered |= guard.handle.pointer in ready
            return True
        return bool(wait_set.get_ready_entities('service') or wait_set.get_ready_entities('client')
                    or any(waitable.is_ready(wait_set) for waitable in waitables))

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
    alive = []
    for entity in entities:
        try:
            enter(entity.handle)
        except InvalidHandle:
            continue
        alive.append(entity)
    return alive


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
