"""camera_perception as a node: the test plays the camera with drawn images, so the truth is known."""

import math
import time

import cv2
import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy')

from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image  # noqa: E402

from enpire_bringup.camera_model import PinholeCamera  # noqa: E402
from enpire_bringup.image_messages import fill_image, read_image  # noqa: E402
from enpire_bringup.process_runner import DomainReservation, StationProcesses  # noqa: E402
from enpire_bringup.station_node import IMAGE_QOS, STATE_QOS  # noqa: E402
from enpire_msgs.msg import ObjectPose  # noqa: E402

pytestmark = pytest.mark.system

POSE = (0.32, -0.03, 1.1)
PERIOD = 1 / 30


class FakeCamera:
    """The top camera, played by the test, and a listener to what perception says."""

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
        self.poses = {}
        self.stamp = 100
        self.node.create_subscription(ObjectPose, 'object_poses', self._on_pose, STATE_QOS)
        self.until(lambda: self.images.get_subscription_count() and self.infos.get_subscription_count()
                   and self.node.count_publishers('object_poses'), 'camera_perception to appear')

    def _on_pose(self, message):
        self.poses[message.header.stamp.sec] = message

    def until(self, condition, what, seconds=10.0):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f'waited {seconds} s for {what}'
            self.executor.spin_once(timeout_sec=0.02)

    def spin(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.02)

    def draw(self, pose) -> np.ndarray:
        image = np.full((self.model.height, self.model.width, 3), (120, 120, 118), np.uint8)
        if pose is not None:
            x, y, yaw = pose
            rotation = np.array([[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]])
            points = np.asarray(self.item.outline) @ rotation.T + (x, y)
            heights = np.full(len(points), self.item.face_height)
            pixels = self.model.project(np.column_stack([points, heights]))
            cv2.fillPoly(image, [np.round(pixels * 16).astype(np.int32)], (220, 18, 15), shift=4)
        return image

    def show(self, image, encoding='rgb8', with_info=True):
        """Publish one image; returns its stamp (whole seconds, so that stamps are easy to compare)."""
        self.stamp += 1
        message, info = Image(), CameraInfo(**self.model.info())
        message.header.frame_id = self.camera.optical_frame
        message.header.stamp.sec = info.header.stamp.sec = self.stamp
        fill_image(message, image, encoding)
        if with_info:
            self.infos.publish(info)
        self.images.publish(message)
        return self.stamp

    def look(self, image, encoding='rgb8'):
        """The pose for an image; shown again when it was lost, as best effort may."""
        for _ in range(20):
            stamp = self.show(image, encoding)
            try:
                self.until(lambda: stamp in self.poses, 'its pose', seconds=1.0)
                return self.poses[stamp]
            except AssertionError:
                pass
        raise AssertionError('no image got a pose')

    def log(self) -> str:
        return (self.station.log_directory / 'perception.log').read_text()

    def close(self):
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture(scope='module')
def camera(tmp_path_factory):
    reservation = DomainReservation()
    try:
        with StationProcesses(only={'camera_perception'}, domain_id=reservation.domain_id,
                              runs=tmp_path_factory.mktemp('runs')) as station:
            fake = FakeCamera(station)
            # The first image may overtake its camera_info.
            fake.until(lambda: fake.look(fake.draw(POSE)).visible, 'a first visible pose')
            yield fake
            fake.close()
    finally:
        reservation.release()


def test_an_image_gets_a_pose_with_its_stamp(camera):
    pose = camera.look(camera.draw(POSE))
    assert pose.visible and pose.object_id == 't_block' and pose.header.frame_id == 'world'
    position, orientation = pose.pose.pose.position, pose.pose.pose.orientation
    assert math.hypot(position.x - POSE[0], position.y - POSE[1]) < 0.002
    assert 2 * math.atan2(orientation.z, orientation.w) == pytest.approx(POSE[2], abs=0.02)
    assert pose.residual < 0.002 and pose.visible_fraction > 0.9
    covariance = np.array(pose.pose.covariance).reshape(6, 6)
    assert 0 < covariance[0, 0] < 0.002 ** 2 and 0 < covariance[5, 5] < 0.02 ** 2
    np.testing.assert_allclose(covariance, covariance.T)


def test_a_bgr_image_is_understood(camera):
    assert camera.look(camera.draw(POSE)[:, :, ::-1].copy(), 'bgr8').visible


def test_a_hidden_object_keeps_its_last_pose_and_is_not_visible(camera):
    camera.look(camera.draw(POSE))
    pose = camera.look(camera.draw(None))
    assert not pose.visible and pose.visible_fraction == 0.0
    assert pose.pose.pose.position.x == pytest.approx(POSE[0], abs=0.002)


@pytest.mark.parametrize('image, encoding, message', [
    (np.zeros((240, 320, 3), np.uint8), 'rgb8', 'image of 320x240; camera_info says 640x480'),
    (np.zeros((480, 640), np.uint8), 'mono8', 'image is mono8; expected rgb8'),
])
def test_a_wrong_image_is_one_clear_error_and_the_camera_stays_usable(camera, image, encoding, message):
    before = len(camera.log())
    for _ in range(3):
        assert not camera.look(image, encoding).visible
    camera.until(lambda: message in camera.log()[before:], f'"{message}" in the log')
    assert camera.log()[before:].count(message) <= 2       # one a second, not one an image
    assert camera.look(camera.draw(POSE)).visible


def test_a_camera_that_stops_is_named_and_recovers(camera):
    camera.look(camera.draw(POSE))
    before = len(camera.log())
    topic = f'{camera.station.namespace}/{camera.camera.image_topic}'
    camera.until(lambda: 'is silent' in camera.log()[before:], 'a warning', seconds=4.0)
    warning = next(line for line in camera.log()[before:].splitlines() if 'is silent' in line)
    assert 'WARN' in warning and topic in warning
    assert camera.look(camera.draw(POSE)).visible
    camera.until(lambda: 'images came back' in camera.log()[before:], 'the end of the silence in the log')


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
