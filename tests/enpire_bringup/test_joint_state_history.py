"""Joint states that wait until somebody asks for them."""

from __future__ import annotations

import time

import pytest

from enpire_bringup.joint_state_history import HISTORY, JointStateHistory

rclpy = pytest.importorskip('rclpy')

from rclpy.signals import SignalHandlerOptions  # noqa: E402
from sensor_msgs.msg import JointState  # noqa: E402

from enpire_bringup.joint_state_history import JointStateMailbox  # noqa: E402
from enpire_bringup.message_executor import fastest_executor  # noqa: E402
from enpire_bringup.serialized_messages import JointStateReader  # noqa: E402
from enpire_bringup.station_node import STATE_QOS  # noqa: E402

MS = 1_000_000


def test_the_joint_state_of_the_time_is_taken_not_the_newest():
    states = JointStateHistory()
    for stamp in (90, 100, 110, 120):
        states.add(stamp * MS, stamp)
    assert states.at(105 * MS) == (100 * MS, 100)
    assert states.at(100 * MS) == (100 * MS, 100)
    assert states.at(80 * MS) is None
    states.add(5 * MS, 'anew')
    assert states.at(100 * MS) == (5 * MS, 'anew') and states.newest == 5 * MS


def test_what_is_kept_is_bounded():
    states = JointStateHistory()
    for stamp in range(10 * HISTORY):
        states.add(stamp, stamp)
    assert states.at(9 * HISTORY - 1) is None and states.newest == 10 * HISTORY - 1


@pytest.fixture
def nodes():
    context = rclpy.Context()
    rclpy.init(args=[], context=context, signal_handler_options=SignalHandlerOptions.NO)
    made = [rclpy.create_node(name, context=context) for name in ('reader', 'writer')]
    yield made
    for node in made:
        node.destroy_node()
    context.try_shutdown()


def test_a_mailbox_has_what_came_and_wakes_nobody(nodes):
    reader, writer = nodes
    states = JointStateMailbox(reader)
    publisher = writer.create_publisher(JointState, 'joint_states', STATE_QOS)
    wait_until(lambda: publisher.get_subscription_count())
    for n in range(1, 2 * HISTORY):
        message = JointState(name=['a'], position=[float(n)])
        message.header.stamp.nanosec = n * MS
        publisher.publish(message)
        if n % 5 == 0:      # in steps that the writer's history has room for
            wait_until(lambda: states.newest == n * MS)
    wait_until(lambda: states.newest == (2 * HISTORY - 1) * MS)
    stamp, data = states.at(100 * MS + MS // 2)
    assert stamp == 100 * MS and JointStateReader().read(data)[2] == (100.0,)
    assert states.at(0) is None


def test_an_executor_serves_the_node_without_taking_its_joint_states(nodes):
    reader, writer = nodes
    states = JointStateMailbox(reader)
    publisher = writer.create_publisher(JointState, 'joint_states', STATE_QOS)
    executor = fastest_executor(context=reader.context)
    executor.add_node(reader)
    wait_until(lambda: publisher.get_subscription_count())
    for _ in range(3):
        publisher.publish(JointState(name=['a'], position=[1.0]))
    calls = []
    timer = reader.create_timer(0.01, lambda: calls.append(1) or (len(calls) > 20 and executor.shutdown(timeout_sec=0)))
    executor.spin()
    timer.destroy()
    assert len(calls) > 20
    wait_until(lambda: states.newest == 0)


def wait_until(condition, within: float = 10.0) -> None:
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)
