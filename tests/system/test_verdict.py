"""success_detector as a node: poses and joint states come from the test, the reward program is the test's
own.
"""

import math
import shutil
import time

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy')

from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from sensor_msgs.msg import Image, JointState  # noqa: E402

from enpire_bringup.domain_locks import DomainReservation  # noqa: E402
from enpire_bringup.environment import environment_hash  # noqa: E402
from enpire_bringup.image_messages import fill_image  # noqa: E402
from enpire_bringup.process_runner import StationProcesses  # noqa: E402
from enpire_bringup.station_node import IMAGE_QOS, STATE_QOS  # noqa: E402
from enpire_bringup.task import load_task  # noqa: E402
from enpire_msgs.msg import ObjectPose, Verdict  # noqa: E402

pytestmark = pytest.mark.system

TASK = load_task('push_t')
GOAL = (TASK.goal.x, TASK.goal.y, TASK.goal.yaw)
ELSEWHERE = (0.28, -0.08, 2.0)
FRAME_NS = 33_333_333


class Perception:
    """Plays camera_perception and the joint states, and collects verdicts by stamp (ns)."""

    def __init__(self, station):
        self.station = station
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=station.domain_id)
        self.node = rclpy.create_node('camera_perception', namespace=station.namespace, context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.poses = self.node.create_publisher(ObjectPose, 'object_poses', STATE_QOS)
        self.joints = self.node.create_publisher(JointState, 'joint_states', STATE_QOS)
        self.images = self.node.create_publisher(Image, 'top_camera/color/image_raw', IMAGE_QOS)
        self.depths = self.node.create_publisher(Image, 'top_camera/aligned_depth_to_color/image_raw', IMAGE_QOS)
        self.joint_positions = dict.fromkeys(station.station.joints, 0.25)
        self.verdicts = {}
        self.newest = None
        self.stamp = 10_000_000_000
        self.node.create_subscription(Verdict, 'verdict', self._on_verdict, STATE_QOS)
        self.until(lambda: self.poses.get_subscription_count() and self.joints.get_subscription_count()
                   and self.node.count_publishers('verdict'), 'success_detector to appear')
        self.until(self._is_heard, 'success_detector to know whose poses these are')

    def _is_heard(self):
        self.send(self.poses, image=np.zeros((48, 64, 3), np.uint8), depth=np.zeros((48, 64), np.uint16))
        return self.newest is not None

    def _on_verdict(self, message):
        self.newest = message
        self.verdicts[message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec] = message

    def until(self, condition, what, seconds=10.0):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f'waited {seconds} s for {what}; newest: {self.newest}'
            self.executor.spin_once(timeout_sec=0.02)

    def publish_joint_state(self):
        """The next one; ROS time goes on by a frame."""
        self.stamp += FRAME_NS
        state = JointState(name=list(self.joint_positions), position=list(self.joint_positions.values()),
                           velocity=[0.0] * len(self.joint_positions), effort=[1.5] * len(self.joint_positions))
        state.header.stamp.sec, state.header.stamp.nanosec = divmod(self.stamp, 1_000_000_000)
        self.joints.publish(state)
        return state

    def show(self, pose=ELSEWHERE, visible=True, image=None, depth=None):
        """One frame; returns its verdict."""
        self.send(self.poses, pose, visible, image, depth)
        stamp = self.stamp
        self.until(lambda: stamp in self.verdicts, 'the verdict of a frame', seconds=3.0)
        return self.verdicts[stamp]

    def send(self, poses, pose=ELSEWHERE, visible=True, image=None, depth=None):
        """A frame's joint state, images, and pose by the publisher `poses`."""
        state = self.publish_joint_state()
        for picture, encoding, publisher in ((image, 'rgb8', self.images), (depth, '16UC1', self.depths)):
            if picture is not None:
                message = Image(header=state.header)
                fill_image(message, picture, encoding)
                publisher.publish(message)
        message = ObjectPose(header=state.header, object_id='t_block', visible=visible, residual=0.0005)
        message.pose.pose.position.x, message.pose.pose.position.y = pose[:2]
        message.pose.pose.orientation.z = math.sin(pose[2] / 2)
        message.pose.pose.orientation.w = math.cos(pose[2] / 2)
        poses.publish(message)

    def show_until(self, condition, what, seconds=10.0, **frame):
        """Frames at about their rate until a verdict meets the condition; returns it."""
        deadline = time.monotonic() + seconds
        while True:
            verdict = self.show(**frame)
            if condition(verdict):
                return verdict
            assert time.monotonic() < deadline, f'waited {seconds} s for {what}; newest verdict: {verdict}'
            time.sleep(0.02)

    def close(self):
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture
def detector(start_station, tmp_path):
    """detector(source of reward.py or None) -> a Perception with a success_detector; .task_folder is its own
    copy.
    """
    opened = []

    def start(reward=None) -> Perception:
        folder = tmp_path / 'push_t'
        shutil.copytree(TASK.directory, folder)
        if reward is not None:
            (folder / 'reward.py').write_text(reward)
        perception = Perception(start_station(task=str(folder), only={'success_detector'}))
        perception.task_folder = folder
        opened.append(perception)
        return perception

    yield start
    for perception in opened:
        perception.close()


@pytest.fixture(scope='module')
def push_t_detector(tmp_path_factory):
    """A Perception with the success_detector of a copy of Push-T, for tests that leave both as they were."""
    folder = tmp_path_factory.mktemp('detector')
    shutil.copytree(TASK.directory, folder / 'push_t')
    reservation = DomainReservation()
    try:
        with StationProcesses(task=str(folder / 'push_t'), only={'success_detector'}, runs=folder / 'runs',
                              domain_id=reservation.domain_id) as station:
            perception = Perception(station)
            perception.task_folder = folder / 'push_t'
            yield perception
            perception.close()
    finally:
        reservation.release()


def reward(body: str, head: str = '') -> str:
    lines = '\n'.join(f'        {line}' for line in body.splitlines())
    return f'import time\n{head}\nclass Reward:\n    def __init__(self, task): pass\n' \
           f'    def judge(self, o):\n{lines}\n'


WAIT = "return {'outcome': 'not_yet', 'reason': 'judged'}"


def judged(verdict) -> bool:
    return verdict.outcome != Verdict.ABSTAIN


def test_every_frame_gets_its_verdict_and_a_t_on_the_goal_is_success(push_t_detector):
    perception = push_t_detector
    verdict = perception.show_until(judged, 'the reward program to start')
    assert verdict.outcome == Verdict.NOT_YET and verdict.task == 'push_t'
    assert verdict.header.frame_id == 'top_camera_color_optical_frame'
    assert verdict.env_hash == environment_hash(load_task(perception.task_folder), perception.station.station)
    assert 0 < verdict.compute < 0.15 and 0 <= verdict.latency < 0.15
    assert {check.name: check.passed for check in verdict.checks}['position'] is False
    success = perception.show_until(lambda v: v.outcome == Verdict.SUCCESS, 'success', pose=GOAL)
    assert all(check.passed for check in success.checks)
    assert perception.show(GOAL, visible=False).outcome == Verdict.ABSTAIN
    assert perception.show(ELSEWHERE).outcome == Verdict.NOT_YET


def test_poses_that_somebody_else_publishes_are_no_poses(detector):
    perception = detector()
    perception.show_until(judged, 'the reward program to start')
    rogue = rclpy.create_node('rogue', namespace=perception.station.namespace, context=perception.context)
    poses = rogue.create_publisher(ObjectPose, 'object_poses', STATE_QOS)
    perception.until(lambda: poses.get_subscription_count(), 'success_detector to hear the rogue')
    for _ in range(10):
        perception.send(poses, pose=GOAL)
        rogues = perception.stamp
        assert perception.show().outcome == Verdict.NOT_YET
        assert rogues not in perception.verdicts
    rogue.destroy_node()


def test_a_hanging_reward_program_abstains_in_time_and_comes_back(detector):
    perception = detector(reward("if o['t_block']['visible'] is False:\n    time.sleep(60)\n" + WAIT))
    perception.show_until(judged, 'the reward program to start')
    started = time.monotonic()
    verdict = perception.show(visible=False)
    assert time.monotonic() - started < 1.0
    assert verdict.outcome == Verdict.ABSTAIN and 'did not answer within 150 ms' in verdict.reason
    perception.show_until(judged, 'the reward program to come back')


@pytest.mark.parametrize('body, reason', [
    ("raise RuntimeError('lost')", 'reward.py:6: judge(): RuntimeError: lost'),
    ("return {'outcome': float('nan')}", 'returned the outcome nan'),
])
def test_a_failing_reward_program_abstains_with_the_reason(detector, body, reason):
    perception = detector(reward(body))
    verdict = perception.show_until(lambda v: reason in v.reason, f'"{reason}"')
    assert verdict.outcome == Verdict.ABSTAIN
    assert not perception.station.given_up()
    (perception.task_folder / 'reward.py').write_text(reward(WAIT))
    perception.show_until(judged, 'the mended reward program')


def test_a_reward_program_that_does_not_compile_abstains_on_every_frame(detector):
    perception = detector('class Reward:\n    def judge(self\n')
    perception.show_until(lambda v: 'reward.py:2: SyntaxError' in v.reason, 'the syntax error in a verdict')
    for _ in range(5):
        verdict = perception.show(GOAL)
        assert verdict.outcome == Verdict.ABSTAIN and 'SyntaxError' in verdict.reason
    assert set(perception.station.pids()) == {'perception'}


def test_tampering_with_the_environment_shows_in_the_verdict(push_t_detector):
    perception = push_t_detector
    before = perception.show_until(judged, 'the reward program to start').env_hash
    program = perception.task_folder / 'reward.py'
    text = program.read_text()
    program.write_text(text + '# easier now\n')
    perception.show_until(lambda v: v.env_hash != before, 'another hash')
    program.write_text(text)
    perception.show_until(lambda v: v.env_hash == before, 'the hash of the program as it was')


def test_a_silent_camera_gives_an_abstaining_verdict(push_t_detector):
    perception = push_t_detector
    perception.show_until(judged, 'the reward program to start')
    shown, later = perception.newest, time.monotonic() + 1.5
    perception.until(lambda: time.monotonic() > later, 'a while')
    assert perception.newest is shown       # a world that waits for its policy takes no pictures
    perception.until(lambda: perception.publish_joint_state() and 'silent' in perception.newest.reason,
                     'a verdict about the silence', seconds=4.0)
    assert perception.newest.outcome == Verdict.ABSTAIN
    assert 'camera top: it is silent' in perception.newest.reason and 'image_raw' in perception.newest.reason
    assert perception.show().outcome == Verdict.NOT_YET


def test_a_program_that_uses_images_gets_those_of_the_frame(detector):
    """Color, depth in m, and by which camera they were taken."""
    perception = detector(reward("look = o['image'][0, 0, 0], round(float(o['depth'][0, 0]), 3), o['camera']['k'][2]\n"
                                 "return {'outcome': 'not_yet', 'reason': '%d %g %g' % look}",
                                 head='USES_IMAGE = USES_DEPTH = True'))
    perception.until(lambda: perception.images.get_subscription_count() and perception.depths.get_subscription_count(),
                     'the subscriptions to images')
    time.sleep(0.3)
    for value in (10, 200):
        image = np.full((480, 640, 3), value, np.uint8)
        perception.show_until(lambda v: v.reason == f'{value} 0.5 319.5', f'the value {value}', image=image,
                              depth=np.full((480, 640), 500, np.uint16))


def test_the_program_sees_the_joints(detector):
    perception = detector(reward("p, e = o['joint_positions'], o['joint_efforts']\n"
                                 "reason = f\"{p['left_joint3']} {e['right_joint1']}\"\n"
                                 "return {'outcome': 'not_yet', 'reason': reason}"))
    verdict = perception.show_until(judged, 'the reward program to start')
    assert verdict.reason == '0.25 1.5'


def test_joint_states_without_a_joint_or_with_nan_abstain_and_name_it(push_t_detector):
    perception = push_t_detector
    perception.show_until(judged, 'the reward program to start')
    perception.joint_positions['right_joint2'] = math.nan
    del perception.joint_positions['left_joint1']
    verdict = perception.show_until(lambda v: not judged(v), 'an abstention')
    assert verdict.reason == 'no position of left_joint1, right_joint2 in joint_states'
    perception.joint_positions = dict.fromkeys(perception.station.station.joints, 0.25)
    perception.show_until(judged, 'complete joint states')


def test_camera_to_verdict_in_the_simulated_station(start_station):
    """World, cameras, perception and verdict together: the T is seen where the world put it."""
    station = start_station(only={'sim_station', 'trajectory_controller', 'sim_cameras', 'camera_perception',
                                  'success_detector'}, real_time_factor=1.0)
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=station.domain_id)
    node = rclpy.create_node('listener', namespace=station.namespace, context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    try:
        received = {}
        node.create_subscription(ObjectPose, 'object_poses', lambda m: received.update(pose=m), STATE_QOS)
        node.create_subscription(Verdict, 'verdict', lambda m: received.update(verdict=m), STATE_QOS)
        deadline = time.monotonic() + 20
        while not ('pose' in received and 'verdict' in received and judged(received['verdict'])):
            assert time.monotonic() < deadline, received
            executor.spin_once(timeout_sec=0.1)
        x, y, yaw = station.task.start_pose(0)
        pose = received['pose'].pose.pose
        assert received['pose'].visible
        assert math.hypot(pose.position.x - x, pose.position.y - y) < 0.002
        turn = 2 * math.atan2(pose.orientation.z, pose.orientation.w) - yaw
        assert abs(math.remainder(turn, 2 * math.pi)) < math.radians(1)
        assert received['verdict'].outcome == Verdict.NOT_YET
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown(context=context)
