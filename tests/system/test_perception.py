"""Camera to verdict: the test plays the camera and the arms, with drawn images, so that the truth is known, and with
every fault that a camera has.
"""

import math
import time

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy')

from diagnostic_msgs.msg import DiagnosticStatus  # noqa: E402
from drawn_scene import drawn, landmark_shapes  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image, JointState  # noqa: E402

from enpire_bringup.camera_model import PinholeCamera  # noqa: E402
from enpire_bringup.image_messages import fill_image, read_image  # noqa: E402
from enpire_bringup.domain_locks import DomainReservation  # noqa: E402
from enpire_bringup.process_runner import StationProcesses  # noqa: E402
from enpire_bringup.station_node import HISTORY_QOS, IMAGE_QOS, STATE_QOS  # noqa: E402
from enpire_msgs.msg import ObjectPose, Verdict  # noqa: E402

pytestmark = pytest.mark.system

POSE = (0.32, -0.03, 1.1)
FRAME_NS = 33_333_333
REACHING = (0.0, 1.9, 1.5, 0.0, 0.0, 0.0)       # the left arm, its hand in the top camera's view


class FakeCamera:
    """The top camera and the joints, played by the test, and a listener to what perception and verdict say."""

    def __init__(self, station: StationProcesses):
        self.station = station
        self.item = station.task.objects['t_block']
        self.camera = station.station.cameras[self.item.camera]
        self.model = PinholeCamera.from_station(self.camera)
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=station.domain_id)
        self.node = rclpy.create_node('fake_camera', namespace=station.namespace, context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.images = self.node.create_publisher(Image, self.camera.image_topic, IMAGE_QOS)
        self.infos = self.node.create_publisher(CameraInfo, self.camera.info_topic, IMAGE_QOS)
        self.joints = self.node.create_publisher(JointState, 'joint_states', STATE_QOS)
        self.positions = dict.fromkeys(station.station.joints, 0.1)
        self.poses, self.verdicts = {}, {}
        self.pose = self.verdict = self.status = None       # the newest
        self.now = self.stamp = 100_000_000_000     # ns, of the newest joint state and of the newest image
        self.node.create_subscription(ObjectPose, 'object_poses', self._on_pose, STATE_QOS)
        self.node.create_subscription(Verdict, 'verdict', self._on_verdict, STATE_QOS)
        self.node.create_subscription(DiagnosticStatus, 'camera_status', self._on_status, HISTORY_QOS)
        self.until(lambda: self.images.get_subscription_count() and self.infos.get_subscription_count()
                   and self.joints.get_subscription_count() > 1 and self.node.count_publishers('verdict')
                   and self.node.count_publishers('object_poses'), 'perception and verdict to appear')
        self.shown = self.draw(POSE)

    def _on_pose(self, message):
        self.pose = self.poses[_nanoseconds(message.header.stamp)] = message

    def _on_verdict(self, message):
        self.verdict = self.verdicts[_nanoseconds(message.header.stamp)] = message

    def _on_status(self, message):
        self.status = message

    def until(self, condition, what, seconds=10.0):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f'waited {seconds} s for {what}; newest: {self.verdict} {self.status}'
            self.executor.spin_once(timeout_sec=0.02)

    def spin(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.02)

    def draw(self, pose) -> np.ndarray:
        return drawn(self.model, pose, landmarks=landmark_shapes())

    def pass_time(self, step=FRAME_NS):
        """The next joint state."""
        self.now += step
        joints = JointState(name=list(self.positions), position=list(self.positions.values()))
        joints.header.stamp.sec, joints.header.stamp.nanosec = divmod(self.now, 1_000_000_000)
        self.joints.publish(joints)

    def show(self, image, encoding='rgb8', step=FRAME_NS, info=None):
        """Publish one image with its camera_info and joint state; returns its stamp, ns."""
        self.pass_time(step)
        self.stamp = self.now
        return self.show_again(image, encoding, info)

    def show_again(self, image, encoding='rgb8', info=None):
        """An image with the stamp of the last one."""
        message, info = Image(), info or CameraInfo(**self.model.info())
        message.header.frame_id = self.camera.optical_frame
        for header in (message.header, info.header):
            header.stamp.sec, header.stamp.nanosec = divmod(self.stamp, 1_000_000_000)
        fill_image(message, image, encoding)
        self.infos.publish(info)
        self.images.publish(message)
        return self.stamp

    def look(self, image, encoding='rgb8', **how):
        """The pose for an image; shown again when it was lost, as best effort may."""
        for _ in range(20):
            stamp = self.show(image, encoding, **how)
            try:
                self.until(lambda: stamp in self.poses, 'its pose', seconds=1.0)
                return self.poses[stamp]
            except AssertionError:
                pass
        raise AssertionError('no image got a pose')

    def judge(self, image, encoding='rgb8', **how):
        """The verdict for an image."""
        stamp = _nanoseconds(self.look(image, encoding, **how).header.stamp)
        self.until(lambda: stamp in self.verdicts, 'its verdict', seconds=5.0)
        return self.verdicts[stamp]

    def recovers(self):
        """Good images are judged again, and nothing is said against the camera any more."""
        deadline = time.monotonic() + 10
        while self.judge(self.shown).outcome == Verdict.ABSTAIN:
            assert time.monotonic() < deadline, self.verdict
        self.until(lambda: self.status and self.status.level == DiagnosticStatus.OK, 'an OK camera_status')
        return self.pose.visible and self.verdict.outcome == Verdict.NOT_YET

    def log(self) -> str:
        return (self.station.log_directory / 'perception.log').read_text()

    def close(self):
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


def _nanoseconds(stamp) -> int:
    return stamp.sec * 1_000_000_000 + stamp.nanosec


@pytest.fixture(scope='module')
def camera(tmp_path_factory):
    reservation = DomainReservation()
    try:
        with StationProcesses(only={'camera_perception', 'success_detector'}, domain_id=reservation.domain_id,
                              runs=tmp_path_factory.mktemp('runs')) as station:
            fake = FakeCamera(station)
            # The first image may overtake its camera_info, and the reward program takes a while to start.
            assert fake.recovers()
            yield fake
            fake.close()
    finally:
        reservation.release()


def test_an_image_gets_a_pose_with_its_stamp(camera):
    pose = camera.look(camera.draw(POSE))
    assert pose.visible and not pose.occluded and pose.object_id == 't_block' and pose.header.frame_id == 'world'
    position, orientation = pose.pose.pose.position, pose.pose.pose.orientation
    assert math.hypot(position.x - POSE[0], position.y - POSE[1]) < 0.001
    assert 2 * math.atan2(orientation.z, orientation.w) == pytest.approx(POSE[2], abs=0.01)
    assert pose.residual < 0.002 and pose.visible_fraction > 0.9
    covariance = np.array(pose.pose.covariance).reshape(6, 6)
    assert 0 < covariance[0, 0] < 0.002 ** 2 and 0 < covariance[5, 5] < 0.02 ** 2
    np.testing.assert_allclose(covariance, covariance.T)


def test_a_nudged_camera_is_corrected_by_its_landmarks(camera):
    """The image comes from 4 mm and 0.4 degrees beside the calibrated pose, which would be 5 mm on the table."""
    from dataclasses import replace
    moved = camera.model.pose.copy()
    moved[:3, 3] += 0.004, 0.0, 0.0
    c, s = math.cos(math.radians(0.4)), math.sin(math.radians(0.4))
    moved[:3, :3] = np.array([(c, 0, s), (0, 1, 0), (-s, 0, c)]) @ moved[:3, :3]
    pose = camera.look(drawn(replace(camera.model, pose=moved), POSE, landmarks=landmark_shapes()))
    position = pose.pose.pose.position
    assert pose.visible and math.hypot(position.x - POSE[0], position.y - POSE[1]) < 0.001


def test_a_bgr_image_is_understood(camera):
    assert camera.look(camera.draw(POSE)[:, :, ::-1].copy(), 'bgr8').visible


def test_a_hidden_object_keeps_its_last_pose_and_is_not_visible(camera):
    camera.look(camera.draw(POSE))
    pose = camera.look(camera.draw(None))
    assert not pose.visible and pose.visible_fraction == 0.0
    assert pose.pose.pose.position.x == pytest.approx(POSE[0], abs=0.002)


def test_half_an_object_is_flagged_as_occluded(camera):
    camera.spin(0.1)
    camera.now += 2_000_000_000       # the pose of the image before helps no more
    bar = [(-0.09, 0.0), (0.09, 0.0), (0.09, 0.06), (-0.09, 0.06)]
    pose = camera.look(drawn(camera.model, POSE, [bar], landmarks=landmark_shapes()))
    assert pose.occluded and not pose.visible and pose.visible_fraction < 0.6
    assert camera.judge(camera.draw(None)).outcome == Verdict.ABSTAIN


@pytest.mark.parametrize('image, encoding, message', [
    (np.zeros((240, 320, 3), np.uint8), 'rgb8', 'image of 320x240; camera_info says 640x480'),
    (np.zeros((480, 640), np.uint8), 'mono8', 'image is mono8; expected rgb8'),
    (np.zeros((480, 640), np.uint16), '16UC1', 'image is 16UC1; expected rgb8'),
])
def test_a_wrong_image_abstains_with_the_reason_and_the_camera_stays_usable(camera, image, encoding, message):
    before = len(camera.log())
    for _ in range(3):
        assert not camera.look(image, encoding).visible
    verdict = camera.judge(image, encoding)
    assert verdict.outcome == Verdict.ABSTAIN and message in verdict.reason and 'camera top' in verdict.reason
    assert camera.status.level == DiagnosticStatus.ERROR and camera.status.message == message
    camera.until(lambda: message in camera.log()[before:], f'"{message}" in the log')
    assert camera.log()[before:].count(message) <= 3       # one a second, not one an image
    assert camera.recovers()


def test_a_camera_info_of_another_size_is_refused(camera):
    small = PinholeCamera.from_station(camera.station.station.with_camera_size(320, 240).cameras['top'])
    image = np.zeros((240, 320, 3), np.uint8)
    camera.look(image, info=CameraInfo(**small.info()))     # may overtake its camera_info
    verdict = camera.judge(image, info=CameraInfo(**small.info()))
    assert verdict.outcome == Verdict.ABSTAIN
    assert 'camera_info is for 320x240, but the station file has 640x480' in verdict.reason
    assert camera.recovers()


def test_a_silent_camera_is_named_abstains_and_recovers(camera):
    camera.look(camera.shown)
    before = len(camera.log())
    topic = f'{camera.station.namespace}/{camera.camera.image_topic}'
    said, later = camera.status, time.monotonic() + 1.5
    camera.until(lambda: time.monotonic() > later, 'a while')
    assert camera.status is said and camera.verdict.outcome == Verdict.NOT_YET     # the world stands still
    camera.until(lambda: camera.pass_time() or 'silent' in camera.verdict.reason, 'a verdict about the silence',
                 seconds=5.0)
    assert camera.verdict.outcome == Verdict.ABSTAIN and 'camera top' in camera.verdict.reason
    camera.until(lambda: not camera.pose.visible and camera.status.level == DiagnosticStatus.ERROR, 'its poses to end')
    line = next(line for line in camera.log()[before:].splitlines() if 'it is silent' in line)
    assert topic in line
    assert camera.recovers()
    camera.until(lambda: 'images came back' in camera.log()[before:], 'the end of the silence in the log')


def test_a_camera_that_sends_the_same_image_again_abstains_and_recovers(camera):
    camera.look(camera.shown)
    deadline = time.monotonic() + 5
    while 'the same image again' not in camera.verdict.reason:
        assert time.monotonic() < deadline, camera.verdict
        camera.pass_time()
        camera.show_again(camera.shown)
        camera.spin(0.05)
    assert camera.verdict.outcome == Verdict.ABSTAIN and not camera.pose.visible
    assert 'silent' in camera.verdict.reason
    assert camera.recovers()


def test_a_picture_that_stays_while_a_hand_moves_through_it_abstains_and_recovers(camera):
    """New stamps, old picture. The joints are the station's; of the hand nothing is to be seen in the picture."""
    arm = camera.station.station.arms['left']
    deadline = time.monotonic() + 15
    frames = 0
    while 'frozen' not in camera.verdict.reason:
        assert time.monotonic() < deadline, camera.verdict
        frames += 1
        camera.positions.update(zip(arm.joints, REACHING))
        camera.positions['left_joint1'] = 0.2 * math.sin(frames / 10)
        camera.judge(camera.shown)
    assert camera.verdict.outcome == Verdict.ABSTAIN and not camera.poses[camera.stamp].visible
    assert 'a hand moved' in camera.status.message
    camera.shown = camera.draw((POSE[0] + 0.01, *POSE[1:]))
    assert camera.recovers()


def test_a_resting_scene_is_no_frozen_camera(camera):
    for _ in range(20):
        assert camera.look(camera.shown).visible


def test_a_flood_of_images_delays_no_verdict_for_long(camera):
    """Ten times the camera's rate: at most twice the camera's rate is looked at, and what comes after is judged."""
    camera.look(camera.shown)
    known = len(camera.poses)
    for _ in range(150):
        camera.show(camera.shown, step=FRAME_NS // 10)
        camera.executor.spin_once(timeout_sec=0.0)
    camera.spin(0.5)
    assert len(camera.poses) - known <= 32
    assert camera.recovers()


def test_the_overlay_is_drawn_only_for_a_subscriber(camera):
    topic = f'{camera.camera.name}_camera/overlay'
    overlays = []
    assert camera.node.count_publishers(topic) == 1
    subscription = camera.node.create_subscription(Image, topic, overlays.append, IMAGE_QOS)
    image = camera.draw(POSE)
    deadline = time.monotonic() + 10
    while not overlays and time.monotonic() < deadline:
        camera.look(image)
        camera.spin(0.1)
    drawn = read_image(overlays[-1], 'rgb8')
    assert drawn.shape == image.shape and np.any(drawn != image)
    camera.node.destroy_subscription(subscription)
