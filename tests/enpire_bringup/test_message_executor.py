"""The executor of all nodes serves what rclpy's serves: in one process, over the middleware of this machine."""

import os
import threading
import time

import pytest

rclpy = pytest.importorskip('rclpy')

from rclpy.callback_groups import CallbackGroup  # noqa: E402
from rclpy.clock import Clock, ClockType  # noqa: E402
from rclpy.event_handler import SubscriptionEventCallbacks  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: E402
from std_msgs.msg import Int32  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from enpire_bringup.message_executor import MOST_MESSAGES, MessageExecutor, fastest_executor  # noqa: E402


class Spun:
    """A node that a MessageExecutor spins in a thread; `crash` holds what came out of `spin`."""

    def __init__(self):
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node(f'spun_{os.getpid()}', context=self.context)
        self.executor = MessageExecutor(context=self.context)
        self.crash = None
        self.thread = threading.Thread(target=self._spin, daemon=True)

    def _spin(self):
        try:
            self.executor.spin()
        except Exception as error:
            self.crash = error

    def __enter__(self):
        self.executor.add_node(self.node)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.executor.shutdown(timeout_sec=0.0)
        self.thread.join(5.0)
        assert not self.thread.is_alive(), 'a shutdown ends the spinning'
        self.node.destroy_node()
        self.context.try_shutdown()

    def until(self, condition, seconds=10.0):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f'waited {seconds} s'
            time.sleep(0.002)


@pytest.mark.parametrize('rclpy_version, used', [('9.1.2', MessageExecutor), ('7.1.4', SingleThreadedExecutor),
                                                 ('10.0.1', SingleThreadedExecutor)])
def test_a_version_of_rclpy_that_nobody_tried_gets_rclpys_own_executor(monkeypatch, rclpy_version, used):
    monkeypatch.setattr('enpire_bringup.message_executor.version', lambda package: rclpy_version)
    context = rclpy.Context()
    rclpy.init(context=context)
    executor = fastest_executor(context=context)
    assert type(executor) is used
    executor.shutdown()
    context.try_shutdown()


@pytest.fixture
def spun():
    with Spun() as running:
        yield running


def test_every_message_of_a_burst_comes_in_order_whether_read_or_raw(spun):
    read, raw = [], []
    publisher = spun.node.create_publisher(Int32, 'numbers', 100)
    spun.node.create_subscription(Int32, 'numbers', lambda message: read.append(message.data), 100)
    spun.node.create_subscription(Int32, 'numbers', raw.append, 100, raw=True)
    spun.until(lambda: publisher.get_subscription_count() == 2)
    for i in range(3 * MOST_MESSAGES):
        publisher.publish(Int32(data=i))
    spun.until(lambda: len(read) == len(raw) == 3 * MOST_MESSAGES)
    assert read == list(range(3 * MOST_MESSAGES)) and all(isinstance(data, bytes) for data in raw)


def test_timers_tick_and_stop_when_they_are_cancelled(spun):
    ticks = []
    timer = spun.node.create_timer(0.01, lambda: ticks.append(1), clock=Clock(clock_type=ClockType.STEADY_TIME))
    spun.until(lambda: len(ticks) >= 5)
    timer.cancel()
    time.sleep(0.05)
    seen = len(ticks)
    time.sleep(0.1)
    assert len(ticks) == seen


def test_services_and_clients_answer_each_other(spun):
    spun.node.create_service(Trigger, 'ask', lambda request, response: Trigger.Response(success=True, message='yes'))
    client = spun.node.create_client(Trigger, 'ask')
    spun.until(client.service_is_ready)
    future = client.call_async(Trigger.Request())
    spun.until(future.done)
    assert future.result().message == 'yes'


def test_tasks_coroutines_and_guard_conditions_run(spun):
    done = []

    async def answer():
        done.append('coroutine')

    guard = spun.node.create_guard_condition(lambda: done.append('guard'))
    spun.executor.create_task(lambda: done.append('first'))
    spun.executor.create_task(lambda: done.append('second'))
    spun.executor.create_task(answer)
    guard.trigger()
    spun.until(lambda: sorted(done) == ['coroutine', 'first', 'guard', 'second'])


def test_what_a_callback_ends_is_served_no_more_and_what_it_begins_is_served(spun):
    first, second = [], []
    publisher = spun.node.create_publisher(Int32, 'numbers', 100)

    def on_first(message):
        first.append(message.data)
        spun.node.destroy_subscription(subscription)
        spun.node.create_subscription(Int32, 'more', lambda m: second.append(m.data), 10)

    subscription = spun.node.create_subscription(Int32, 'numbers', on_first, 100)
    more = spun.node.create_publisher(Int32, 'more', 10)
    spun.until(lambda: publisher.get_subscription_count() == 1)
    for i in range(5):
        publisher.publish(Int32(data=i))
    spun.until(lambda: more.get_subscription_count() == 1)
    more.publish(Int32(data=7))
    spun.until(lambda: second == [7])
    assert first == [0] and publisher.get_subscription_count() == 0


def test_a_group_that_may_not_run_keeps_its_messages(spun):
    class Closed(CallbackGroup):
        open = False

        def can_execute(self, entity):
            return self.open

        def beginning_execution(self, entity):
            return self.open

        def ending_execution(self, entity):
            pass

    group, got, others = Closed(), [], []
    publisher = spun.node.create_publisher(Int32, 'numbers', 10)
    spun.node.create_subscription(Int32, 'numbers', lambda m: got.append(m.data), 10, callback_group=group)
    spun.node.create_subscription(Int32, 'numbers', lambda m: others.append(m.data), 10)
    spun.until(lambda: publisher.get_subscription_count() == 2)
    publisher.publish(Int32(data=1))
    spun.until(lambda: others == [1])
    assert not got
    group.open = True
    spun.executor.wake()
    spun.until(lambda: got == [1])


@pytest.mark.parametrize('busy', [True, False])
def test_events_of_the_middleware_are_told_to_a_busy_and_to_an_idle_node(spun, busy):
    told = []
    if busy:
        spun.node.create_timer(0.005, lambda: None)
    spun.node.create_subscription(Int32, 'numbers', lambda m: None, QoSProfile(depth=1),
                                  event_callbacks=SubscriptionEventCallbacks(incompatible_qos=told.append))
    spun.node.create_publisher(Int32, 'numbers', QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT))
    spun.until(lambda: told)


def test_an_error_in_a_callback_comes_out_of_spin():
    with Spun() as spun:
        def fail(_):
            raise ValueError('broken')

        publisher = spun.node.create_publisher(Int32, 'numbers', 10)
        spun.node.create_subscription(Int32, 'numbers', fail, 10)
        spun.until(lambda: publisher.get_subscription_count() == 1)
        publisher.publish(Int32(data=1))
        spun.until(lambda: spun.crash is not None)
        assert str(spun.crash) == 'broken'


def test_an_idle_node_uses_no_processor(spun):
    time.sleep(0.5)
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.1
