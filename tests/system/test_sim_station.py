"""The simulated station as nodes: joint states, clock, cameras on demand, bad commands, a clean end."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from array import array

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy')

from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image, JointState  # noqa: E402
from std_msgs.msg import Float64MultiArray, String  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402

from enpire_bringup.image_messages import read_image  # noqa: E402
from enpire_bringup.station import load_station  # noqa: E402
from enpire_bringup.station_node import IMAGE_QOS, LATCHED_QOS, STATE_QOS  # noqa: E402

pytestmark = pytest.mark.system

NAMESPACE = f'/sim_station_test_{os.getpid()}'
NODE_GROUP = [sys.executable, '-m', 'enpire_bringup.node_group', '--nodes']
HOME = (0.0, 1.047, 1.047, 0.0, 0.0, 0.0, 0.0) * 2


def start(*nodes, **parameters):
    """A node_group process with nodes given as "module:Class"."""
    common = {'station': 'yam_bimanual_sim', 'task': 'push_t', 'use_sim_time': True, **parameters}
    remappings = [['/clock', 'clock'], ['/tf', 'tf'], ['/tf_static', 'tf_static']]
    entries = [{'class': f'enpire_bringup.{node}', 'name': node.split('_node:')[0], 'namespace': NAMESPACE,
                'parameters': common, 'remappings': remappings} for node in nodes]
    return subprocess.Popen([*NODE_GROUP, json.dumps(entries), '--parent', str(os.getpid())],
                            stderr=subprocess.PIPE, text=True)


def end(process):
    """(seconds that it took to end after SIGINT, exit code, stderr)."""
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    try:
        _, log = process.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        _, log = process.communicate()
    return time.monotonic() - begun, process.returncode, log


class Client:
    """Answers every joint state, as the trajectory controller does, and remembers what it received."""

    def __init__(self):
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node('client', namespace=NAMESPACE, context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.received = {}
        self.counts = {}
        self.targets = list(HOME)
        self.stale_targets = []     # of the next commands, sent once each
        self._commands = self.node.create_publisher(JointState, 'joint_commands', STATE_QOS)
        self.subscribe(JointState, 'joint_states', STATE_QOS, self._answer)

    def subscribe(self, kind, topic, qos, then=None):
        def keep(message):
            self.received[topic] = message
            self.counts[topic] = self.counts.get(topic, 0) + 1
            if then:
                then(message)
        return self.node.create_subscription(kind, topic, keep, qos)

    def _answer(self, state):
        command = JointState(name=state.name, position=array('d', self.targets))
        if self.stale_targets:
            command = self.stale_targets.pop(0)
        command.header.stamp = state.header.stamp
        self._commands.publish(command)

    def until(self, condition, what, seconds=15.0):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f'waited {seconds} s for {what}; received {self.counts}'
            self.executor.spin_once(timeout_sec=0.05)

    def next(self, topic, count=1, seconds=15.0):
        first = self.counts.get(topic, 0)
        self.until(lambda: self.counts.get(topic, 0) >= first + count, f'{count} messages on {topic}',
                   seconds)
        return self.received[topic]

    def call(self, service, seconds=10.0):
        client = self.node.create_client(Trigger, service)
        self.until(client.service_is_ready, service)
        future = client.call_async(Trigger.Request())
        self.until(future.done, f'the answer of {service}', seconds)
        return future.result()

    def close(self):
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture(scope='module')
def processes():
    running = [start('sim_station_node:SimStation'),
               start('sim_cameras_node:SimCameras', 'robot_state_publisher_node:RobotStatePublisher',
                     camera_width=320, camera_height=240)]
    yield running
    for process in running:
        if process.poll() is None:
            end(process)


@pytest.fixture
def client(processes):
    client = Client()
    yield client
    client.close()


def seconds(stamp):
    return stamp.sec + stamp.nanosec * 1e-9


def test_joint_states_come_with_efforts_and_the_clock_at_every_tick(client):
    client.subscribe(Clock, 'clock', STATE_QOS)
    station = load_station('yam_bimanual_sim')
    stamps = []
    client.subscribe(JointState, 'joint_states', STATE_QOS, lambda m: stamps.append(seconds(m.header.stamp)))
    state = client.next('joint_states', 100)
    assert tuple(state.name) == station.joints
    assert len(state.position) == len(state.velocity) == len(state.effort) == len(station.joints)
    assert list(state.position) == pytest.approx(HOME, abs=3e-3)
    assert abs(state.effort[2]) > 3.0
    assert np.diff(stamps) == pytest.approx(0.01, abs=1e-6), 'no tick is missing'
    client.next('clock')
    now = seconds(client.received['joint_states'].header.stamp)
    assert seconds(client.received['clock'].clock) == pytest.approx(now, abs=0.05)


def test_the_arm_follows_its_commands_faster_than_the_wall_clock(client):
    client.next('joint_states')
    begun, first = time.monotonic(), seconds(client.received['joint_states'].header.stamp)
    for i in range(300):
        client.targets[0] = 0.3 * math.sin(i / 50)
        client.next('joint_states')
    now = seconds(client.received['joint_states'].header.stamp)
    assert client.received['joint_states'].position[0] == pytest.approx(0.3 * math.sin(299 / 50), abs=0.05)
    assert (now - first) / (time.monotonic() - begun) > 1.0
    client.targets[0] = 0.0


def test_only_cameras_that_somebody_looks_at_are_drawn(client):
    client.next('joint_states', 100)
    station = load_station('yam_bimanual_sim')
    states_topic = f'{NAMESPACE}/sim/world_state'
    client.until(lambda: client.node.count_subscribers(states_topic) == 0, 'nobody to look at the cameras')
    top = station.cameras['top']
    image_subscription = client.subscribe(Image, top.image_topic, IMAGE_QOS)
    client.subscribe(CameraInfo, top.info_topic, IMAGE_QOS)
    image = client.next(top.image_topic, 5)
    info = client.next(top.info_topic)
    assert image.header.frame_id == top.optical_frame and read_image(image, 'rgb8').shape == (240, 320, 3)
    assert read_image(image).std() > 10
    assert (info.width, info.height) == (320, 240) and info.k[2] == pytest.approx(159.5)
    assert client.node.count_publishers(f'{NAMESPACE}/{station.cameras["left_wrist"].image_topic}') == 1
    assert client.node.count_subscribers(states_topic) == 1
    client.node.destroy_subscription(image_subscription)


def test_a_camera_info_without_an_image_is_given_too(client):
    topic = load_station('yam_bimanual_sim').cameras['right_wrist'].info_topic
    client.subscribe(CameraInfo, topic, IMAGE_QOS)
    assert client.next(topic).header.frame_id == 'right_wrist_camera_color_optical_frame'


def test_depth_comes_aligned_with_the_image_once_somebody_wants_it(client):
    top = load_station('yam_bimanual_sim').cameras['top']
    client.subscribe(Image, top.depth_topic, IMAGE_QOS)
    client.subscribe(CameraInfo, top.depth_info_topic, IMAGE_QOS)
    message = client.next(top.depth_topic)
    depth = read_image(message, '16UC1')
    assert depth.shape == (240, 320) and message.header.frame_id == top.optical_frame
    # mm: the camera stands half a meter above the table and looks down at a slant
    assert 400 < np.median(depth) < 1000 and depth.max() < 10_000
    assert client.next(top.depth_info_topic).k[2] == pytest.approx(159.5)


def test_transforms_lead_from_world_to_every_camera_and_tcp(client):
    parents = {}

    def learn(message):
        for transform in message.transforms:
            parents[transform.child_frame_id] = transform.header.frame_id

    client.subscribe(TFMessage, 'tf', 10, learn)
    latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    client.subscribe(TFMessage, 'tf_static', latched, learn)
    client.subscribe(String, 'robot_description', LATCHED_QOS)
    frames = ['left_tcp', 'right_tcp', 'top_camera_color_optical_frame',
              'right_wrist_camera_color_optical_frame']

    def complete(frame):
        while frame in parents:
            frame = parents[frame]
        return frame == 'world'

    client.until(lambda: all(map(complete, frames)) and 'robot_description' in client.received,
                 'a tree of transforms and a robot description')
    assert '<robot' in client.received['robot_description'].data


def test_commands_that_make_no_sense_are_ignored_and_the_joints_hold(client):
    client.next('joint_states', 10)
    for i in range(20):
        client.stale_targets += [JointState(name=['left_joint1'], position=array('d', [math.nan])),
                                 JointState(name=['elbow'], position=array('d', [1.0])),
                                 JointState(name=['left_joint1'], position=array('d', []))]
    state = client.next('joint_states', 100)
    assert not client.stale_targets
    assert list(state.position) == pytest.approx(HOME, abs=5e-3)


def test_reset_world_puts_arms_and_block_back(client):
    client.subscribe(Float64MultiArray, 'sim/world_state', STATE_QOS)
    client.targets[0] = 0.5
    client.next('joint_states', 150)
    assert client.received['joint_states'].position[0] == pytest.approx(0.5, abs=0.02)
    client.targets[0] = 0.0
    response = client.call('sim/reset_world')
    assert response.success and 'seed 0' in response.message
    client.next('joint_states', 3)
    assert client.received['joint_states'].position[0] == pytest.approx(0.0, abs=3e-3)
    assert np.isfinite(client.next('sim/world_state').data).all()


def test_sigint_ends_the_processes_at_once(processes):
    for process in reversed(processes):
        took, code, log = end(process)
        assert took < 2.0 and code == 0, log
        assert 'Traceback' not in log
    assert log.count('Ignored; the joints hold') >= 1, 'the bad commands were reported'
    assert log.count('Ignored; the joints hold') < 20, 'but not each of them'


FAILING = """
import sys
from rclpy.parameter import Parameter
from enpire_bringup.node_group import NodeGroup
from enpire_bringup.sim_station_node import SimStation
from enpire_bringup.world import World, WorldError

def diverge(self, *_):
    raise WorldError('physics diverged at 0.020 s of the world')

World.step = diverge
parameters = [Parameter('station', value='yam_bimanual_sim'), Parameter('task', value='push_t'),
              Parameter('real_time_factor', value=1.0)]
make = lambda: SimStation(namespace=sys.argv[1], parameter_overrides=parameters)
sys.exit(NodeGroup().run([('sim_station', make)], []))
"""


def test_a_world_that_diverges_ends_its_process_with_an_error():
    run = subprocess.run([sys.executable, '-c', FAILING, f'{NAMESPACE}_failing'],
                         capture_output=True, text=True, timeout=30)
    assert run.returncode == 1
    assert 'the world stopped: physics diverged at 0.020 s of the world' in run.stderr


def test_a_camera_process_without_opengl_says_what_to_install():
    entry = {'class': 'enpire_bringup.sim_cameras_node:SimCameras', 'name': 'sim_cameras',
             'namespace': NAMESPACE, 'parameters': {'station': 'yam_bimanual_sim', 'task': 'push_t'}}
    without = {**os.environ, 'MUJOCO_GL': 'egl', '__EGL_VENDOR_LIBRARY_FILENAMES': '/dev/null'}
    process = subprocess.run([*NODE_GROUP, json.dumps([entry])], env=without, capture_output=True, text=True,
                             timeout=30)
    assert process.returncode == 2
    assert 'apt-get install -y libosmesa6' in process.stderr
