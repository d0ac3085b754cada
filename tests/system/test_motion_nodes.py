"""Arm control and trajectory controller on a simulated station, through their actions and topics."""

import contextlib
import math
import threading
import time

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy')

from control_msgs.action import FollowJointTrajectory, GripperCommand  # noqa: E402
from diagnostic_msgs.msg import DiagnosticStatus  # noqa: E402
from geometry_msgs.msg import PoseStamped  # noqa: E402
from rcl_interfaces.srv import SetParametersAtomically  # noqa: E402
from rclpy.action import ActionClient  # noqa: E402
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from sensor_msgs.msg import JointState  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint  # noqa: E402

from enpire_bringup.actions import RemoteCallCancelled, call_action, call_service  # noqa: E402
from enpire_bringup.control_ticks import is_policy_tick  # noqa: E402
from enpire_bringup.kinematics import ArmKinematics, quaternion_of, tool_down  # noqa: E402
from enpire_bringup.domain_locks import DomainReservation  # noqa: E402
from enpire_bringup.process_runner import StationProcesses  # noqa: E402
from enpire_bringup.station import load_station  # noqa: E402
from enpire_bringup.station_node import LATCHED_QOS, LATEST_QOS, STATE_QOS  # noqa: E402
from enpire_msgs.action import MoveArm  # noqa: E402

pytestmark = pytest.mark.system

NODES = {'sim_station', 'trajectory_controller', 'arm_control'}
SECOND = 1_000_000_000
STATION = load_station('yam_bimanual_sim')
SEED_WITH_T_ASIDE = 1     # the T starts at (0.33, 0.09) m: the tests stay away from there


class Client:
    """What a person at the station's topics and actions sees."""

    def __init__(self, station):
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=station.domain_id)
        self.node = rclpy.create_node('motion_client', namespace=station.namespace, context=self.context)
        self.news = threading.Condition()
        self.state = None
        self.guard = []
        self.node.create_subscription(JointState, 'joint_states', self._on_state, STATE_QOS)
        self.node.create_subscription(DiagnosticStatus, 'guard_status', self._on_guard, LATCHED_QOS)
        self.servo = self.node.create_publisher(PoseStamped, 'left/servo', LATEST_QOS)
        self.move_client = ActionClient(self.node, MoveArm, 'move_arm')
        self.follow_client = ActionClient(self.node, FollowJointTrajectory,
                                          'left/joint_trajectory_controller/follow_joint_trajectory')
        self.gripper_client = ActionClient(self.node, GripperCommand, 'left/gripper_controller/gripper_cmd')
        self.limits_client = self.node.create_client(SetParametersAtomically, 'arm_control/set_parameters_atomically')
        self.clear_client = self.node.create_client(Trigger, 'guard/clear')
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.thread = threading.Thread(target=self._spin, daemon=True)
        self.thread.start()
        self.kinematics = ArmKinematics(STATION, 'left')
        self.until(lambda: self.state is not None and self.guard and self.guard[-1][0] == DiagnosticStatus.OK
                   and self.servo.get_subscription_count(), 'the station to be ready')

    def _spin(self):
        try:
            self.executor.spin()
        except ExternalShutdownException:
            pass

    def _on_state(self, message):
        with self.news:
            self.state = message
            self.news.notify_all()

    def _on_guard(self, message):
        with self.news:
            self.guard.append((message.level, message.message))
            self.values = {entry.key: entry.value for entry in message.values}
            self.news.notify_all()

    def until(self, condition, what, seconds=15.0):
        with self.news:
            assert self.news.wait_for(condition, seconds), f'waited {seconds} s for {what}; guard: {self.guard[-3:]}'

    @property
    def stamp(self):
        return self.state.header.stamp.sec * SECOND + self.state.header.stamp.nanosec

    @property
    def tip(self):
        return self.kinematics.tip(self.state.position[:6])

    def move(self, arm='left', **goal):
        if 'pose' in goal:
            goal['pose'] = stamped(goal['pose'])
        return call_action(self.node, self.move_client, MoveArm.Goal(arm=arm, **goal), timeout=30.0)

    def grip(self, position, effort=10.0):
        goal = GripperCommand.Goal()
        goal.command.position, goal.command.max_effort = position, effort
        return call_action(self.node, self.gripper_client, goal, timeout=20.0)

    def set_limit(self, name, value):
        request = SetParametersAtomically.Request(parameters=[
            Parameter(f'limits.{name}', value=value).to_parameter_msg()])
        return call_service(self.node, self.limits_client, request, timeout=5.0).result

    def clear(self):
        return call_service(self.node, self.clear_client, Trigger.Request(), timeout=5.0)

    def until_latched(self, reason):
        self.until(lambda: self.guard[-1][0] == DiagnosticStatus.ERROR and reason in self.guard[-1][1],
                   f'the guard to latch: {reason}')

    def until_cleared(self):
        """Clear as soon as the arms stand."""
        deadline = time.monotonic() + 10.0
        while not self.clear().success:
            assert time.monotonic() < deadline, f'the guard cannot be cleared: {self.guard[-1]}'
            time.sleep(0.05)
        self.until(lambda: self.guard[-1][0] == DiagnosticStatus.OK, 'a contented guard')

    def next_policy_step(self, after):
        """Stamp (ns) of a policy tick later than `after`, the message with it."""
        with self.news:
            assert self.news.wait_for(
                lambda: self.stamp > after and is_policy_tick(self.stamp // (SECOND // 100), 30.0, 100.0), 5.0), \
                'the world stands still'
            return self.stamp, self.state

    def close(self):
        rclpy.shutdown(context=self.context)
        self.thread.join(2.0)
        for action in (self.move_client, self.follow_client, self.gripper_client):
            action.destroy()
        self.node.destroy_node()


def stamped(pose, stamp=None, frame='world'):
    message = PoseStamped()
    message.header.frame_id = frame
    if stamp is not None:
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, SECOND)
    position, orientation = message.pose.position, message.pose.orientation
    position.x, position.y, position.z = (float(value) for value in pose[:3, 3])
    orientation.x, orientation.y, orientation.z, orientation.w = quaternion_of(pose)
    return message


@contextlib.contextmanager
def running_client(tmp_path, **options):
    reservation = DomainReservation()
    try:
        with StationProcesses(domain_id=reservation.domain_id, only=NODES, runs=tmp_path,
                              node_parameters={'sim_station': {'seed': SEED_WITH_T_ASIDE}}, **options) as station:
            client = Client(station)
            try:
                yield client
            finally:
                client.close()
    finally:
        reservation.release()


@pytest.fixture(scope='module')
def station_client(tmp_path_factory):
    with running_client(tmp_path_factory.mktemp('runs')) as client:
        yield client


@pytest.fixture
def client(station_client):
    """A lockstep station with both arms at home; starting one takes longer than most of these tests."""
    station_client.until_cleared()
    for arm in STATION.arms:
        result = station_client.move(arm=arm, mode=MoveArm.Goal.NAMED, named='home')
        assert result.success, result.message
    del station_client.guard[:-1]
    return station_client


def test_moves_end_where_they_should_and_impossible_ones_leave_the_station_usable(client):
    goal = MoveArm.Goal
    result = client.move(mode=goal.POSE, pose=tool_down(0.30, -0.10, 0.10, 0.3))
    assert result.success and result.duration > 0.3, result.message
    np.testing.assert_allclose(client.kinematics.tip(result.joints), [0.30, -0.10, 0.10], atol=4e-3)
    result = client.move(mode=goal.LINEAR, pose=tool_down(0.30, -0.10, 0.03, 0.3))
    assert result.success, result.message
    np.testing.assert_allclose(client.kinematics.tip(result.joints), [0.30, -0.10, 0.03], atol=4e-3)

    for refused, reason in (
            (dict(mode=goal.POSE, pose=tool_down(0.9, 0.0, 0.1, 0.0)), 'out of reach'),
            (dict(mode=goal.LINEAR, pose=tool_down(0.30, -0.10, 0.001, 0.3)), 'the workspace is 0.0'),
            (dict(mode=goal.NAMED, named='nowhere'), "no named position 'nowhere'; there are: home"),
            (dict(mode=goal.JOINT, joints=[0.0, 1.0]), '2 joint positions; expected 6'),
            (dict(mode=goal.NAMED, named='home', speed_scale=3.0), 'speed_scale is 3.0'),
            (dict(arm='middle', mode=goal.NAMED, named='home'), "no arm 'middle'; there are: left, right")):
        result = client.move(**refused)
        assert not result.success and reason in result.message

    result = client.move(mode=goal.NAMED, named='home')
    assert result.success, result.message
    np.testing.assert_allclose(result.joints, STATION.arms['left'].named['home'], atol=0.03)


def test_both_arms_move_at_once_and_one_arm_runs_one_move(client):
    results = {}

    def move(key, arm, joint1):
        joints = [joint1, *STATION.arms[arm].named['home'][1:]]
        results[key] = client.move(arm=arm, mode=MoveArm.Goal.JOINT, joints=joints, speed_scale=0.2)
    threads = [threading.Thread(target=move, args=arguments)
               for arguments in (('left', 'left', 0.6), ('right', 'right', -0.6), ('again', 'left', 0.3))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20.0)
    assert results['right'].success
    assert sorted((results['left'].success, results['again'].success)) == [False, True]
    refused = next(result for result in results.values() if not result.success)
    assert 'another move of this arm is running' in refused.message


def test_cancelled_move_stops_the_arm_on_its_way(client):
    began = client.stamp
    with pytest.raises(RemoteCallCancelled):
        result = call_action(client.node, client.move_client,
                    MoveArm.Goal(arm='left', mode=MoveArm.Goal.JOINT, speed_scale=0.05,
                                 joints=[0.9, *STATION.arms['left'].named['home'][1:]]),
                    timeout=30.0, cancelled=lambda: client.stamp - began > SECOND)
        pytest.fail(f'the move was not cancelled: {result}')
    where = client.state.position[0]
    assert where < 0.8
    settled = client.stamp + SECOND
    client.until(lambda: client.stamp > settled, 'a second to pass')
    assert abs(client.state.velocity[0]) < 0.02
    assert client.move(mode=MoveArm.Goal.NAMED, named='home').success


def test_follow_joint_trajectory_behaves_as_the_real_controller(client):
    joints = list(STATION.arms['left'].joints)
    goal = FollowJointTrajectory.Goal()
    goal.trajectory.joint_names = joints[::-1]       # any order
    home = list(STATION.arms['left'].named['home'])
    target = [0.2, *home[1:]]
    point = JointTrajectoryPoint(positions=target[::-1], velocities=[0.0] * 6)
    point.time_from_start.sec = 1
    goal.trajectory.points = [point]
    feedback = []
    result = call_action(client.node, client.follow_client, goal, timeout=20.0, feedback=feedback.append)
    assert result.error_code == FollowJointTrajectory.Result.SUCCESSFUL, result.error_string
    assert feedback and list(feedback[0].joint_names) == joints and len(feedback[0].error.positions) == 6
    assert client.state.position[0] == pytest.approx(0.2, abs=0.05)

    goal.trajectory.joint_names = ['left_joint1', 'elbow']
    result = call_action(client.node, client.follow_client, goal, timeout=20.0)
    assert result.error_code == FollowJointTrajectory.Result.INVALID_JOINTS
    assert "'elbow'" in result.error_string and 'left_joint6' in result.error_string


def test_gripper_opens_closes_and_refuses_what_it_cannot_do(client):
    opened = client.grip(STATION.arms['left'].gripper.open)
    assert opened.reached_goal and not opened.stalled
    assert opened.position == pytest.approx(STATION.arms['left'].gripper.open, abs=2e-3)
    assert client.grip(0.0).reached_goal
    refused = client.grip(0.5)
    assert not refused.reached_goal and not refused.stalled


def test_arm_on_its_way_out_of_a_joint_s_range_latches_the_guard_until_it_is_cleared(client):
    # Straight to the controller, past the guard: something pushes the arm where no command of ours sends it.
    joints = list(STATION.arms['left'].joints)
    point = JointTrajectoryPoint(positions=[0.0, 1.047, 1.047, 1.65, 0.0, 0.0])
    point.time_from_start.sec = 1
    publisher = client.node.create_publisher(
        JointTrajectory, 'left/joint_trajectory_controller/joint_trajectory', LATEST_QOS)
    deadline = time.monotonic() + 5.0
    while not publisher.get_subscription_count():
        assert time.monotonic() < deadline, 'the controller does not listen'
        time.sleep(0.02)
    publisher.publish(JointTrajectory(joint_names=joints, points=[point]))
    client.until_latched('could not stop within its range of -1.693 to 1.571 rad')
    assert 'left_joint4 is at 1.' in client.guard[-1][1]

    refused = client.move(mode=MoveArm.Goal.NAMED, named='home')
    assert not refused.success and 'call the service guard/clear' in refused.message
    client.until_cleared()
    result = client.move(mode=MoveArm.Goal.NAMED, named='home')
    assert result.success, result.message
    client.node.destroy_publisher(publisher)


def stream_a_circle(client):
    """Gaps between the stamps answered, in policy periods, and distances (m) of the tip from its targets."""
    start = np.array([0.28, -0.12, 0.05])
    assert client.move(mode=MoveArm.Goal.POSE, pose=tool_down(*start, 0.0)).success
    stamp, period = client.stamp, SECOND / 30
    gaps, lags = [], []
    for step in range(90):
        after, (stamp, state) = stamp, client.next_policy_step(stamp)
        gaps.append((stamp - after) / period)
        angle = 2 * math.pi * step / 90
        target = start + 0.06 * np.array([1 - math.cos(angle), math.sin(angle), 0.0])
        lags.append(np.linalg.norm(client.kinematics.tip(state.position[:6]) - target))
        client.servo.publish(stamped(tool_down(*target, 0.0), stamp))
    assert abs(client.tip[2] - 0.05) < 4e-3
    return gaps, lags


def test_servo_stream_in_lockstep_misses_no_policy_step_however_slow_the_client(client):
    gaps, lags = stream_a_circle(client)
    assert max(gaps[5:]) < 1.3
    assert max(lags[10:]) < 0.020
    assert all(level == DiagnosticStatus.OK for level, _ in client.guard), client.guard


def test_servo_stream_in_real_time_leads_the_tip(tmp_path):
    with running_client(tmp_path, real_time_factor=1.0) as client:
        _, lags = stream_a_circle(client)
        # A machine that stalls makes the arm hold meanwhile; most of the time it follows.
        assert np.median(lags[10:]) < 0.030


def test_bad_servo_targets_hold_with_a_reason_and_good_ones_go_on(client):
    assert client.move(mode=MoveArm.Goal.POSE, pose=tool_down(0.28, -0.12, 0.05, 0.0)).success
    good = tool_down(0.28, -0.12, 0.05, 0.0)
    nan = good.copy()
    nan[0, 3] = math.nan
    stamp = client.stamp
    for pose, frame, reason in ((nan, 'world', 'is no pose'), (good, 'left_base_link', "expected 'world'")):
        stamp, _ = client.next_policy_step(stamp)
        client.servo.publish(stamped(pose, stamp, frame))
        client.until(lambda: client.guard[-1][0] == DiagnosticStatus.WARN and reason in client.guard[-1][1], reason)
        stamp, _ = client.next_policy_step(stamp)
        client.servo.publish(stamped(good, stamp))
        client.until(lambda: client.guard[-1][0] == DiagnosticStatus.OK, 'the guard to be content again')
    np.testing.assert_allclose(client.tip, [0.28, -0.12, 0.05], atol=4e-3)


def test_servo_target_out_of_the_workspace_latches_the_guard(client):
    assert client.move(mode=MoveArm.Goal.POSE, pose=tool_down(0.28, -0.12, 0.05, 0.0)).success
    where = client.tip
    stamp, _ = client.next_policy_step(client.stamp)
    client.servo.publish(stamped(tool_down(0.28, -0.12, 0.001, 0.0), stamp))
    client.until_latched('the workspace is 0.003 to 0.7 m')
    stamp, _ = client.next_policy_step(stamp)
    client.servo.publish(stamped(tool_down(0.28, -0.12, 0.06, 0.0), stamp))     # a good one changes nothing
    assert not client.move(mode=MoveArm.Goal.NAMED, named='home').success
    assert client.guard[-1][0] == DiagnosticStatus.ERROR
    np.testing.assert_allclose(client.tip, where, atol=4e-3)
    client.until_cleared()


def test_limits_can_be_tightened_while_the_station_runs_and_put_back_but_not_loosened(client):
    safety = STATION.safety
    low, high = safety.workspace_low[2], safety.workspace_high[2]
    assert client.move(mode=MoveArm.Goal.POSE, pose=tool_down(0.28, -0.12, 0.20, 0.0)).success
    for name, value, reason in (('workspace.z.high', high + 0.1, 'only be tightened'),
                                ('max_tip_force', safety.max_tip_force * 2, 'only be tightened'),
                                ('max_tip_force', math.nan, 'expected a number'),
                                ('workspace.z.low', high, 'leaves no room'),
                                ('max_tip_speed', 'fast', 'Wrong parameter type')):
        result = client.set_limit(name, value)
        assert not result.successful and reason in result.reason, (name, result)
    assert client.set_limit('workspace.z.low', 0.15).successful
    refused = client.move(mode=MoveArm.Goal.LINEAR, pose=tool_down(0.28, -0.12, 0.10, 0.0))
    assert not refused.success and '0.15' in refused.message
    stamp, _ = client.next_policy_step(client.stamp)
    client.servo.publish(stamped(tool_down(0.28, -0.12, 0.14, 0.0), stamp))
    client.until_latched('z = 0.140 m, the workspace is 0.15 to 0.7 m')
    assert client.values['limit'] == 'workspace.z.low' and float(client.values['bound']) == 0.15
    assert client.set_limit('workspace.z.low', low).successful
    client.until_cleared()
    assert client.move(mode=MoveArm.Goal.LINEAR, pose=tool_down(0.28, -0.12, 0.10, 0.0)).success


def test_joint_states_that_lack_a_joint_or_hold_no_number_latch_the_guard(client):
    states = client.node.create_publisher(JointState, 'joint_states', STATE_QOS)
    settled = client.stamp + SECOND // 2
    client.until(lambda: client.stamp > settled, 'the publisher to be known')
    for what, reason in (('joint', 'joint_states lack left_joint3'), ('effort', 'the effort of left_joint3 is nan'),
                         ('position', 'the position of left_joint3 is nan')):
        state = client.state
        names, values = list(state.name), {key: list(getattr(state, key)) for key in ('position', 'velocity', 'effort')}
        if what == 'joint':
            for entries in (names, *values.values()):
                del entries[2]
        else:
            values[what][2] = math.nan
        broken = JointState(header=state.header, name=names, **values)
        # Newer than any that can have come by the time it arrives.
        broken.header.stamp.sec, broken.header.stamp.nanosec = divmod(client.stamp + SECOND // 5, SECOND)
        states.publish(broken)
        client.until_latched(reason)
        client.until_cleared()
    client.node.destroy_publisher(states)


def test_floods_of_targets_states_and_clears_leave_the_stream_in_step(client):
    start = np.array([0.28, -0.12, 0.05])
    assert client.move(mode=MoveArm.Goal.POSE, pose=tool_down(*start, 0.0)).success
    states = client.node.create_publisher(JointState, 'joint_states', STATE_QOS)
    stamp = client.stamp
    for step in range(15):
        stamp, state = client.next_policy_step(stamp)
        target = start + [0.0, -0.004 * step, 0.0]
        for _ in range(20):
            client.servo.publish(stamped(tool_down(*target, 0.0), stamp))
        for _ in range(20):
            states.publish(state)
        client.clear_client.call_async(Trigger.Request())
    client.node.destroy_publisher(states)
    assert client.guard[-1][0] == DiagnosticStatus.OK, client.guard[-3:]
    assert np.linalg.norm(client.tip - target) < 0.03


def test_stream_that_stops_in_mid_motion_latches_and_the_world_goes_on(client):
    assert client.move(mode=MoveArm.Goal.POSE, pose=tool_down(0.28, -0.12, 0.05, 0.0)).success
    stamp = client.stamp
    for step in range(10):
        stamp, _ = client.next_policy_step(stamp)
        client.servo.publish(stamped(tool_down(0.28, -0.12 + 0.008 * step, 0.05, 0.0), stamp))
    client.until_latched('no good servo target for')
    later = client.stamp + SECOND
    began = time.monotonic()
    client.until(lambda: client.stamp > later, 'a second of world time')
    assert time.monotonic() - began < 5.0
    assert np.abs(client.state.velocity[:6]).max() < 0.02
    client.until_cleared()
    assert client.move(mode=MoveArm.Goal.NAMED, named='home').success

