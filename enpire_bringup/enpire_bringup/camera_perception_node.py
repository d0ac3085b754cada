"""Object poses from camera images: one ObjectPose for each image and object. Logic in planar_pose.py."""

from __future__ import annotations

import math
import time

import numpy as np
from rclpy.clock import Clock, ClockType
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image

from enpire_bringup.camera_model import PinholeCamera, optical_pose
from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.image_messages import ImageMessageError, fill_image, read_image
from enpire_bringup.node_group import run_single
from enpire_bringup.planar_pose import PlanarPose, PlanarPoseEstimator
from enpire_bringup.pose_overlay import draw_pose
from enpire_bringup.silence_watch import SilenceWatch
from enpire_bringup.station import Camera
from enpire_bringup.station_node import IMAGE_QOS, STATE_QOS, StationNode
from enpire_msgs.msg import ObjectPose

MEMORY = 0.5            # s for which the last trusted pose helps with the next image
SILENCE_CHECK = 0.25    # s of wall time
INFO_WAIT = 1.0         # s of wall time from the first image, in which camera_info may still come


class CameraPerception(StationNode):
    """Subscribes only to the cameras that see an object of the task."""

    def __init__(self, **kwargs):
        super().__init__('camera_perception', **kwargs)
        # Stamps come with the images: the clock, 100 times a second, would only wake this node.
        self.set_parameters([Parameter('use_sim_time', value=False)])
        self._poses = self.create_publisher(ObjectPose, 'object_poses', STATE_QOS)
        try:
            self._views = [_CameraView(self, camera) for camera in self._task_cameras()]
        except Exception:
            self.destroy_node()
            raise
        self.create_timer(SILENCE_CHECK, self._look_for_silence,
                          clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _task_cameras(self) -> list[Camera]:
        cameras = {}
        for item in self.task.objects.values():
            key = f'{self.task.file}: objects.{item.name}.camera'
            if item.camera not in self.station.cameras:
                raise ConfigurationError(f"{key} is '{item.camera}'; {self.station.file} has "
                                         f"{', '.join(self.station.cameras)}")
            camera = self.station.cameras[item.camera]
            if camera.parent != 'world':
                raise ConfigurationError(f"{key} is '{item.camera}', which moves with {camera.parent}; "
                                         'expected a camera that stands in the frame world')
            cameras[camera.name] = camera
        return list(cameras.values())

    def publish_pose(self, message: ObjectPose) -> None:
        self._poses.publish(message)

    def _look_for_silence(self) -> None:
        for view in self._views:
            view.look_for_silence()


class _CameraView:
    """One camera and the objects that it sees."""

    def __init__(self, node: CameraPerception, camera: Camera):
        self._node = node
        self._camera = camera
        self._pose = optical_pose(camera)
        self._model: PinholeCamera | None = None
        self._problem = f'no camera_info on {node.resolve_topic_name(camera.info_topic)}'
        self._first_image = math.inf
        self._complained: dict[str, float] = {}
        self._objects = [_TrackedObject(item) for item in node.task.objects.values()
                         if item.camera == camera.name]
        self._watch = SilenceWatch()
        self._topic = node.resolve_topic_name(camera.image_topic)
        self._overlay = node.create_publisher(Image, f'{camera.name}_camera/overlay', IMAGE_QOS)
        node.create_subscription(CameraInfo, camera.info_topic, self._on_info, IMAGE_QOS)
        node.create_subscription(Image, camera.image_topic, self._on_image, IMAGE_QOS)

    def _on_info(self, message: CameraInfo) -> None:
        try:
            self._model = PinholeCamera.from_info(message.width, message.height, message.k, self._pose)
        except ValueError as error:
            self._model, self._problem = None, str(error)

    def _on_image(self, message: Image) -> None:
        silence = self._watch.heard()
        if silence:
            self._node.get_logger().info(
                f'camera {self._camera.name}: images came back after {silence:.1f} s')
        stamp = message.header.stamp
        seconds = stamp.sec + 1e-9 * stamp.nanosec
        image = self._readable(message)
        if image is None:
            seen = [(tracked, _unseen(self._problem)) for tracked in self._objects]
        else:
            seen = [(tracked, tracked.look(image, self._model, seconds)) for tracked in self._objects]
        for tracked, found in seen:
            self._node.publish_pose(tracked.message(stamp, found))
        if image is not None and self._overlay.get_subscription_count():
            for tracked, found in seen:
                image = draw_pose(image, self._model, tracked.item, found, self._node.task.goal)
            overlay = Image(header=message.header)
            fill_image(overlay, image, 'rgb8')
            self._overlay.publish(overlay)

    def _readable(self, message: Image) -> np.ndarray | None:
        """The image in RGB, or None with one error a second that says what is wrong."""
        try:
            if self._model is None:
                raise ImageMessageError(self._problem)
            image = read_image(message, 'rgb8')
            expected = (self._model.height, self._model.width)
            if image.shape[:2] != expected:
                raise ImageMessageError(f'image of {image.shape[1]}x{image.shape[0]}; camera_info says '
                                        f'{expected[1]}x{expected[0]}')
            return image
        except ImageMessageError as error:
            self._problem = str(error)
            now = time.monotonic()
            self._first_image = min(self._first_image, now)
            if self._model is None and now - self._first_image < INFO_WAIT:
                return None     # the first camera_info follows its image
            self._complain(self._problem, now)
            return None

    def _complain(self, problem: str, now: float) -> None:
        """Log each problem at most once a second."""
        if now - self._complained.get(problem, -math.inf) >= 1.0:
            self._complained[problem] = now
            self._node.get_logger().error(f'{self._topic}: {problem}; its objects count as not visible')

    def look_for_silence(self) -> None:
        silence = self._watch.check()
        if silence is not None:
            publishers = self._node.count_publishers(self._topic)
            why = 'it has no publisher' if not publishers else f'its {publishers} publisher(s) send nothing'
            self._node.get_logger().warning(
                f'camera {self._camera.name} is silent: no image on {self._topic} for {silence:.1f} s '
                f'({why}); object poses stop until it comes back')


class _TrackedObject:
    """One object: its estimator and the last pose that could be trusted."""

    def __init__(self, item):
        self.item = item
        self._estimator = PlanarPoseEstimator(item)
        self._trusted = np.full(3, np.nan)
        self._trusted_time = -math.inf

    def look(self, image, model, time: float) -> PlanarPose:
        recent = 0 <= time - self._trusted_time <= MEMORY
        found = self._estimator.estimate(image, model, near=self._trusted if recent else None)
        if found.visible:
            self._trusted, self._trusted_time = found.pose, time
        return found

    def message(self, stamp, found: PlanarPose) -> ObjectPose:
        """The contract's message: a pose that is not visible is the last trusted one, or NaN."""
        message = ObjectPose(object_id=self.item.name, visible=found.visible,
                             visible_fraction=float(found.visible_fraction), residual=float(found.residual))
        message.header.stamp = stamp
        message.header.frame_id = 'world'
        x, y, yaw = (float(value) for value in (found.pose if found.visible else self._trusted))
        pose = message.pose.pose
        pose.position.x, pose.position.y, pose.position.z = x, y, 0.0
        pose.orientation.z, pose.orientation.w = math.sin(yaw / 2), math.cos(yaw / 2)
        covariance = np.zeros((6, 6))
        planar = [0, 1, 5]      # x, y, yaw of x y z roll pitch yaw; the rest is known: it lies on the table
        covariance[np.ix_(planar, planar)] = found.covariance if found.visible else math.nan
        message.pose.covariance = covariance.ravel()
        return message


def _unseen(reason: str) -> PlanarPose:
    return PlanarPose(np.full(3, np.nan), False, 0.0, math.nan, np.full((3, 3), np.nan), reason)


def main() -> None:
    run_single(CameraPerception)


if __name__ == '__main__':
    main()
