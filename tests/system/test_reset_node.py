"""The reset action on a simulated station: the arm puts the T where the seed wants it, seen by the camera."""

import threading
import time

import pytest

rclpy = pytest.importorskip('rclpy')

from rclpy.action import ActionClient  # noqa: E402
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor  # noqa: E402

from enpire_bringup.actions import RemoteCallCancelled, call_action  # noqa: E402
from enpire_bringup.task import load_task  # noqa: E402
from enpire_msgs.action import Reset  # noqa: E402
from enpire_reset.bench_reset import NODES, measure  # noqa: E402

pytestmark = pytest.mark.system


def test_three_resets_in_a_row_put_the_t_at_the_seed_s_start_pose(start_station):
    station = start_station(only=NODES)
    figures = measure(3, station.namespace, station.domain_id)
    assert figures['succeeded'] == 3, figures['failures']
    assert figures['position_mm']['max'] < 12.0 and figures['yaw_deg']['max'] < 8.0


@pytest.fixture
def call_reset(start_station):
    closing = []

    def start(**options):
        station = start_station(**options)
        context = rclpy.Context()
        rclpy.init(context=context, domain_id=station.domain_id)
        node = rclpy.create_node('reset_client', namespace=station.namespace, context=context)
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)

        def spin():
            try:
                executor.spin()
            except ExternalShutdownException:
                pass
        thread = threading.Thread(target=spin, daemon=True)
        thread.start()
        client = ActionClient(node, Reset, 'reset')
        closing.append((context, node, thread, client))
        return lambda seed, **call: call_action(node, client, Reset.Goal(seed=seed), **{'timeout': 60.0, **call})
    yield start
    for context, node, thread, client in closing:
        rclpy.shutdown(context=context)
        thread.join(2.0)
        client.destroy()
        node.destroy_node()


def test_cancelled_reset_ends_and_the_next_one_succeeds(call_reset):
    reset = call_reset(only=NODES)
    stages = []
    with pytest.raises(RemoteCallCancelled):
        reset(5, feedback=lambda feedback: stages.append(feedback.stage), cancelled=lambda: 'lower' in stages)
    result = reset(6)
    assert result.success, result.message
    start = load_task('push_t').start_pose(6)
    assert result.target.pose.position.x == pytest.approx(start[0])
    assert result.reached.pose.position.x == pytest.approx(start[0], abs=0.012)
    assert result.position_error < 0.012 and result.duration > 0


def test_reset_without_a_camera_is_a_named_failure_in_bounded_time(call_reset):
    reset = call_reset(only={'sim_station', 'trajectory_controller', 'arm_control', 'auto_reset'})
    began = time.monotonic()
    result = reset(5, timeout=100.0)
    assert not result.success and result.attempts == 1
    assert 't_block was visible in 0 of 0 images' in result.message
    assert 'do the camera and camera_perception run?' in result.message
    assert time.monotonic() - began < 60.0
