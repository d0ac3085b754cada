"""arm_control with a controller that is absent, refuses, is slow, goes silent or goes away: bounded, with the reason."""

import threading
import time

import pytest

rclpy = pytest.importorskip('rclpy')

from control_msgs.action import FollowJointTrajectory  # noqa: E402
from rclpy.action import ActionClient, ActionServer, CancelResponse, GoalResponse  # noqa: E402
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from sensor_msgs.msg import JointState  # noqa: E402

from enpire_bringup import planned_moves  # noqa: E402
from enpire_bringup.actions import call_action  # noqa: E402
from enpire_bringup.arm_control_node import ArmControl  # noqa: E402
from enpire_bringup.domain_locks import DomainReservation  # noqa: E402
from enpire_bringup.station import load_station  # noqa: E402
from enpire_bringup.station_node import STATE_QOS  # noqa: E402
from enpire_msgs.action import MoveArm  # noqa: E402

pytestmark = pytest.mark.system

STATION = load_station('yam_bimanual_sim')
TIMEOUT = 1.0       # s in which the controller has to begin, and between two signs of life
DISCOVERY = 0.7     # s in which a server that was just found finds its client; an answer before that is lost
AWAY = 0.3          # rad that joint 1 is away from home


class Controller:
    """A trajectory controller that follows no trajectory, in a context of its own, so that it can go away."""

    def __init__(self, domain_id, behavior):
        self.behavior = behavior
        self.began = threading.Event()
        self.canceled = threading.Event()
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain_id)
        self.node = rclpy.create_node('fake_controller', namespace='/station_1', context=self.context)
        self.server = ActionServer(
            self.node, FollowJointTrajectory, 'left/joint_trajectory_controller/follow_joint_trajectory', self._execute,
            goal_callback=self._accept, cancel_callback=self._cancel)
        self.thread = spin_in_thread(self.node, self.context)

    def _accept(self, _):
        if self.behavior == 'refuses':
            return GoalResponse.REJECT
        if self.behavior == 'is slow':
            time.sleep(3.0 * TIMEOUT)
        return GoalResponse.ACCEPT

    def _cancel(self, _):
        self.canceled.set()
        return CancelResponse.ACCEPT

    async def _execute(self, handle):
        self.began.set()
        handle.publish_feedback(FollowJointTrajectory.Feedback())
        if self.behavior == 'follows':
            handle.succeed()
            return FollowJointTrajectory.Result()
        if self.behavior == 'fails':
            handle.abort()
            return FollowJointTrajectory.Result(error_code=-4, error_string='left_joint1 is 0.400 rad off its path')
        await rclpy.task.Future()       # never a sign of life again

    def close(self):
        if self.context.ok():
            rclpy.shutdown(context=self.context)
            self.thread.join(5.0)
            self.server.destroy()
            self.node.destroy_node()


def spin_in_thread(node, context):
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)

    def spin():
        try:
            executor.spin()
        except ExternalShutdownException:
            pass
    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    return thread


class Station:
    """arm_control and a client of it; joint states say that the left arm stands AWAY from home."""

    def __init__(self, domain_id):
        self.domain_id = domain_id
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain_id)
        self.arm_control = ArmControl(namespace='/station_1', context=self.context, parameter_overrides=[
            Parameter('station', value=STATION.name), Parameter('task', value='push_t')])
        self.client_node = rclpy.create_node('client', namespace='/station_1', context=self.context)
        self.client = ActionClient(self.client_node, MoveArm, 'move_arm')
        self.states = self.client_node.create_publisher(JointState, 'joint_states', STATE_QOS)
        self.client_node.create_timer(0.02, self._publish_state)
        self.stamp = 0
        self.threads = [spin_in_thread(node, self.context) for node in (self.arm_control, self.client_node)]
        deadline = time.monotonic() + 10.0
        while self.arm_control._guarded.positions is None:
            assert time.monotonic() < deadline, 'no joint state arrived'
            time.sleep(0.02)

    def _publish_state(self):
        self.stamp += 20_000_000
        positions = [value for arm in STATION.arms.values() for value in (*arm.named['home'], arm.gripper.closed)]
        positions[0] += AWAY
        message = JointState(name=list(STATION.joints), position=positions, velocity=[0.0] * len(positions),
                             effort=[0.0] * len(positions))
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(self.stamp, 1_000_000_000)
        self.states.publish(message)

    def go_home(self):
        began = time.monotonic()
        result = call_action(self.client_node, self.client,
                             MoveArm.Goal(arm='left', mode=MoveArm.Goal.NAMED, named='home'), timeout=20.0)
        return result, time.monotonic() - began

    def close(self):
        rclpy.shutdown(context=self.context)
        for thread in self.threads:
            thread.join(2.0)
        self.client.destroy()
        self.client_node.destroy_node()
        self.arm_control.destroy_node()


@pytest.fixture(scope='module')
def station():
    reservation = DomainReservation()
    station = Station(reservation.domain_id)
    yield station
    station.close()
    reservation.release()


@pytest.fixture
def controller(station, monkeypatch):
    monkeypatch.setattr(planned_moves, 'ACCEPT_TIMEOUT', TIMEOUT)
    monkeypatch.setattr(planned_moves, 'FEEDBACK_TIMEOUT', TIMEOUT)
    started = []

    client = station.arm_control._moves._clients['left']

    def wait_until_ready_is(ready):
        deadline = time.monotonic() + 10.0
        while client.server_is_ready() != ready:
            assert time.monotonic() < deadline, f'the controller is {"not there" if ready else "still there"}'
            time.sleep(0.05)

    def start(behavior):
        started.append(Controller(station.domain_id, behavior))
        wait_until_ready_is(True)
        time.sleep(DISCOVERY)
        return started[-1]
    yield start
    for controller in started:
        controller.close()
    wait_until_ready_is(False)


def test_absent_controller_is_named_within_its_bound(station, controller):
    result, seconds = station.go_home()
    assert not result.success and 'did not begin within 1 s; is the controller running?' in result.message
    assert 'left/joint_trajectory_controller/follow_joint_trajectory' in result.message
    assert seconds < 10 * TIMEOUT


def test_refusal_of_the_controller_is_told_and_the_next_move_goes_on(station, controller):
    fake = controller('refuses')
    result, _ = station.go_home()
    assert not result.success and 'the goal was rejected' in result.message
    fake.behavior = 'follows'
    result, _ = station.go_home()
    assert result.success, result.message


def test_failure_of_the_controller_comes_with_its_own_words(station, controller):
    controller('fails')
    result, _ = station.go_home()
    assert not result.success and result.message == 'left_joint1 is 0.400 rad off its path'


def test_goal_that_a_slow_controller_accepts_too_late_is_cancelled(station, controller):
    fake = controller('is slow')
    result, _ = station.go_home()
    assert not result.success and 'did not begin within 1 s' in result.message
    assert fake.began.wait(10.0), 'the goal was never accepted'
    assert fake.canceled.wait(10.0), 'the late goal was not cancelled'


def test_controller_that_goes_silent_in_mid_motion_is_given_up_and_its_goal_cancelled(station, controller):
    fake = controller('goes silent')
    result, seconds = station.go_home()
    assert fake.began.is_set()
    assert not result.success and 'went silent in mid-motion' in result.message
    assert 'nobody knows whether the arm moves' in result.message
    assert fake.canceled.wait(10.0)
    assert seconds < 15 * TIMEOUT


def test_controller_that_goes_away_in_mid_motion_is_noticed(station, controller, monkeypatch):
    monkeypatch.setattr(planned_moves, 'FEEDBACK_TIMEOUT', 30.0)
    fake = controller('goes away')
    results = []
    thread = threading.Thread(target=lambda: results.append(station.go_home()[0]))
    thread.start()
    assert fake.began.wait(10.0)
    fake.close()
    thread.join(15.0)
    assert results and not results[0].success
    assert 'is gone in mid-motion; the arm holds what it was sent last' in results[0].message
    controller('follows')
    result, _ = station.go_home()
    assert result.success, result.message
