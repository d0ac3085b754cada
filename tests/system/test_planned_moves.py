"""Two arms at once, contact stops, grippers and the planned path, on a simulated station with a block on the table."""

import threading

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy')

from nav_msgs.msg import Path  # noqa: E402
from rclpy.action import ActionClient  # noqa: E402
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor  # noqa: E402
from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: E402
from sensor_msgs.msg import JointState  # noqa: E402

from enpire_bringup.actions import call_action  # noqa: E402
from enpire_bringup.collision_model import CollisionModel  # noqa: E402
from enpire_bringup.kinematics import quaternion_of, tool_down  # noqa: E402
from enpire_bringup.domain_locks import DomainReservation  # noqa: E402
from enpire_bringup.process_runner import StationProcesses  # noqa: E402
from enpire_bringup.station import load_station, station_file  # noqa: E402
from enpire_bringup.station_node import LATCHED_QOS  # noqa: E402
from enpire_msgs.action import MoveArm, MoveGripper  # noqa: E402

pytestmark = pytest.mark.system

NODES = {'sim_station', 'trajectory_controller', 'arm_control'}
BLOCK = '\nobstacles:\n  - {name: block, size: [0.10, 0.10, 0.06], xyz: [0.30, -0.15, 0.03], rpy: [0.0, 0.0, 0.0]}\n'
SEED_WITH_T_ASIDE = 1
MIDDLE = {'left': [-0.75, 1.8, 1.047, 0.0, 0.0, 0.0], 'right': [0.75, 1.8, 1.047, 0.0, 0.0, 0.0]}


class Client:
    """The actions of a station, and all joint states that came."""

    def __init__(self, file, namespace, domain_id):
        self.station = load_station(file)
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain_id)
        self.node = rclpy.create_node('planned_moves_client', namespace=namespace, context=self.context)
        self.news = threading.Condition()
        self.states = []
        self.paths = []
        # Deep: this thread may not run for the seconds that a whole move takes, and none of its states may be missing.
        every_state = QoSProfile(depth=20000, reliability=ReliabilityPolicy.RELIABLE)
        self.node.create_subscription(JointState, 'joint_states', self._on_state, every_state)
        self.node.create_subscription(Path, 'planned_path', self._on_path, LATCHED_QOS)
        self.move_client = ActionClient(self.node, MoveArm, 'move_arm')
        self.grip_client = ActionClient(self.node, MoveGripper, 'gripper')
        executor = SingleThreadedExecutor(context=self.context)
        executor.add_node(self.node)

        def spin():
            try:
                executor.spin()
            except ExternalShutdownException:
                pass
        self.thread = threading.Thread(target=spin, daemon=True)
        self.thread.start()

    def _on_state(self, message):
        with self.news:
            self.states.append(np.array(message.position))
            self.news.notify_all()

    def _on_path(self, message):
        with self.news:
            self.paths.append(message)
            self.news.notify_all()

    def move(self, arm, pose=None, **goal):
        request = MoveArm.Goal(arm=arm, **goal)
        if pose is not None:
            position, orientation = request.pose.pose.position, request.pose.pose.orientation
            position.x, position.y, position.z = (float(value) for value in pose[:3, 3])
            orientation.x, orientation.y, orientation.z, orientation.w = quaternion_of(pose)
        return call_action(self.node, self.move_client, request, timeout=60.0)

    def joints(self, arm, joints):
        return self.move(arm, mode=MoveArm.Goal.JOINT, joints=[float(value) for value in joints])

    def grip(self, arm, width, max_force=0.0):
        return call_action(self.node, self.grip_client, MoveGripper.Goal(arm=arm, width=width, max_force=max_force),
                           timeout=30.0)

    def close(self):
        rclpy.shutdown(context=self.context)
        self.thread.join(2.0)
        self.move_client.destroy()
        self.grip_client.destroy()
        self.node.destroy_node()


@pytest.fixture(scope='module')
def station(tmp_path_factory):
    folder = tmp_path_factory.mktemp('station')
    file = folder / 'with_block.yaml'
    file.write_text(station_file('yam_bimanual_sim').read_text() + BLOCK)
    reservation = DomainReservation()
    try:
        with StationProcesses(str(file), domain_id=reservation.domain_id, only=NODES, runs=folder / 'runs',
                              node_parameters={'sim_station': {'seed': SEED_WITH_T_ASIDE}}) as processes:
            client = Client(file, processes.namespace, processes.domain_id)
            yield client
            client.close()
    finally:
        reservation.release()


@pytest.fixture
def at_home(station):
    for arm in station.station.arms:
        result = station.move(arm, mode=MoveArm.Goal.NAMED, named='home')
        assert result.success, result.message
    return station


def at_once(*calls):
    """The results of calls that run at the same time."""
    results = [None] * len(calls)

    def run(number):
        results[number] = calls[number]()
    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90.0)
    return results


def test_two_arms_that_want_the_same_place_never_touch(at_home):
    """The right arm leaves the middle while the left one wants to go there, and back."""
    station = at_home
    home = {arm: station.station.arms[arm].named['home'] for arm in MIDDLE}
    assert station.joints('right', MIDDLE['right']).success
    station.states.clear()
    out, into = at_once(lambda: station.joints('right', home['right']), lambda: station.joints('left', MIDDLE['left']))
    assert out.success, out.message
    if not into.success:        # it came first, when the other arm still stood there
        assert 'at the goal left_' in into.message and 'right_' in into.message
        assert station.joints('left', MIDDLE['left']).success
    refused = station.joints('right', MIDDLE['right'])
    assert not refused.success and 'at the goal right_' in refused.message
    back, over = at_once(lambda: station.joints('left', home['left']), lambda: station.joints('right', MIDDLE['right']))
    assert back.success, back.message
    assert over.success or 'at the goal right_' in over.message
    bodies = CollisionModel(station.station)

    def moved(arm):      # from home to the middle or back
        return np.ptp(np.array(station.states)[:, station.station.arm_slice(arm)], axis=0).max() > 0.7
    with station.news:
        assert station.news.wait_for(lambda: all(moved(arm) for arm in MIDDLE), 30.0), 'the states show both on their way'
        states = np.array(station.states)
    assert min(bodies.arm_distance(q).distance for q in states[::5]) > station.station.safety.min_arm_distance


def test_contact_stop_ends_on_the_block_and_without_one_says_so(at_home):
    station = at_home
    above = tool_down(0.30, -0.15, 0.10, 0.0)
    assert station.move('left', above, mode=MoveArm.Goal.POSE).success
    plain = station.move('left', tool_down(0.30, -0.15, 0.045, 0.0), mode=MoveArm.Goal.LINEAR)
    assert not plain.success and 'box block' in plain.message
    result = station.move('left', tool_down(0.30, -0.15, 0.045, 0.0), mode=MoveArm.Goal.LINEAR, stop_force=6.0)
    assert result.success and result.contact, result.message
    assert 6.0 <= result.force < 12.0 and result.planner == 'line'
    assert station.move('left', above, mode=MoveArm.Goal.LINEAR).success
    result = station.move('left', tool_down(0.30, -0.15, 0.08, 0.0), mode=MoveArm.Goal.LINEAR, stop_force=6.0)
    assert not result.success and not result.contact and 'no contact of 6 N' in result.message
    for goal, reason in ((dict(mode=MoveArm.Goal.LINEAR, stop_force=100.0), 'max_tip_force'),
                         (dict(mode=MoveArm.Goal.POSE, stop_force=5.0), 'is for mode LINEAR')):
        refused = station.move('left', above, **goal)
        assert not refused.success and reason in refused.message


def test_gripper_says_how_wide_how_strong_and_whether_it_stalled(at_home):
    station = at_home
    opened = station.grip('left', 0.09)
    assert opened.success and opened.reached and not opened.stalled
    assert opened.width == pytest.approx(0.09, abs=0.004)
    # The block is 100 mm wide, the fingers open to 94 mm: they close on nothing but each other.
    closed = station.grip('left', 0.0, 8.0)
    assert closed.success and closed.width < 0.004 and closed.force <= 8.5
    for arm, width, force, reason in (('left', 0.5, 0.0, 'gripper width'), ('left', 0.02, 1000.0, 'gripper force'),
                                      ('middle', 0.02, 0.0, "no arm 'middle'")):
        refused = station.grip(arm, width, force)
        assert not refused.success and reason in refused.message


def test_path_of_a_planned_move_is_published(at_home):
    station = at_home
    station.paths.clear()
    assert station.move('left', tool_down(0.30, 0.10, 0.15, 0.0), mode=MoveArm.Goal.POSE).success
    with station.news:
        assert station.news.wait_for(lambda: station.paths, 5.0)
    path = station.paths[-1]
    assert path.header.frame_id == 'world' and 5 < len(path.poses) <= 61
    end = path.poses[-1].pose.position
    assert (end.x, end.y, end.z) == pytest.approx((0.30, 0.10, 0.15), abs=1e-3)
