"""Object poses from camera images: one ObjectPose for each image and object.

Logic in object_tracking.py (poses) and image_watch.py (images that are no news).
"""

from __future__ import annotations

import math
import time

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image

from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.image_messages import ImageMessageError, fill_image, read_serialized_image
from enpire_bringup.image_watch import FrameGate, FrozenPictureWatch, HandMotion
from enpire_bringup.joint_state_history import JointStateMailbox
from enpire_bringup.node_group import run_single
from enpire_bringup.object_pose_messages import ObjectPoseWriter
from enpire_bringup.object_tracking import ImageError, Look, ObjectTracker
from enpire_bringup.pose_overlay import draw_look
from enpire_bringup.serialized_messages import SECOND, JointStateReader, stamp_of
from enpire_bringup.silence_watch import SilenceWatch, WorldWatch
from enpire_bringup.station import Camera
from enpire_bringup.station_node import HISTORY_QOS, IMAGE_QOS, STATE_QOS, StationNode
from enpire_msgs.msg import ObjectPose

SILENCE_CHECK = 0.25    # s of wall time
INFO_WAIT = 1.0         # s of wall time from the first image, in which camera_info may still come


class CameraPerception(StationNode):
    """Subscribes only to the cameras that see an object of the task."""

    def __init__(self, **kwargs):
        super().__init__('camera_perception', **kwargs)
        # Stamps come with the images: the clock, 100 times a second, would only wake this node.
        self.set_parameters([Parameter('use_sim_time', value=False)])
        self._poses = self.create_publisher(ObjectPose, 'object_poses', STATE_QOS)
        self._status = self.create_publisher(DiagnosticStatus, 'camera_status', HISTORY_QOS)
        self._world = WorldWatch(self.station.lockstep)
        self.joint_states = JointStateMailbox(self)      # asked when a picture does not change
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

    def publish_pose(self, message: bytes) -> None:
        """message: a serialized ObjectPose."""
        self._poses.publish(message)

    def publish_status(self, message: DiagnosticStatus) -> None:
        self._status.publish(message)

    def _look_for_silence(self) -> None:
        # A world that waits for its policy takes no pictures.
        paused = self._world.waits(self.joint_states.newest)
        for view in self._views:
            view.look_for_silence(paused)


class _CameraView:
    """One camera and the objects that it sees.

    Whatever is wrong with its images, its objects are not visible, `camera_status` says why, and the first good
    image ends it.
    """

    def __init__(self, node: CameraPerception, camera: Camera):
        self._node = node
        self._camera = camera
        items = [item for item in node.task.objects.values() if item.camera == camera.name]
        self._tracker = ObjectTracker(camera, items, node.task.landmarks)
        self._writers = {item.name: ObjectPoseWriter(item.name) for item in items}
        self._gate = FrameGate(camera.rate)
        self._silence = SilenceWatch()
        self._frozen = FrozenPictureWatch(_between_messages(HandMotion(node.station, camera)), node.joint_states)
        self._topic = node.resolve_topic_name(camera.image_topic)
        self._problem = f'no camera_info on {node.resolve_topic_name(camera.info_topic)}'
        self._first_image = math.inf    # monotonic s
        self._info_came = False
        self._newest: int | None = None     # stamp (ns) of the newest image
        self._said: str | None = None
        self._said_time = -math.inf
        self._overlay = node.create_publisher(Image, f'{camera.name}_camera/overlay', IMAGE_QOS)
        node.create_subscription(CameraInfo, camera.info_topic, self._on_info, IMAGE_QOS)
        # Raw: a message object of an image costs as much as a fifth of looking at it.
        node.create_subscription(Image, camera.image_topic, self._on_image, IMAGE_QOS, raw=True)
        self._say('')

    def _on_info(self, message: CameraInfo) -> None:
        self._info_came = True
        try:
            self._tracker.calibrate(message.width, message.height, message.k)
        except ImageError as error:
            self._problem = str(error)

    def _on_image(self, data: bytes) -> None:
        stamp = stamp_of(data)
        if not self._gate.admits(stamp):
            return
        gap = self._silence.heard()
        if gap:
            self._node.get_logger().info(f'camera {self._camera.name}: images came back after {gap:.1f} s')
        self._newest = stamp
        frame, image, problem = self._readable(data)
        if not problem:
            look = self._tracker.look(image, 1e-9 * stamp)
            if self._frozen.look(image, stamp):
                problem = 'the picture is frozen: a hand moved through it, and nothing in it changed'
        if problem:
            look = self._tracker.blind(problem)
            now = time.monotonic()
            self._first_image = min(self._first_image, now)
            if self._info_came or now - self._first_image >= INFO_WAIT:
                self._say(problem)      # before that, the first camera_info may still follow its image
        else:
            self._say('')
        self._publish_poses(stamp, look)
        if image is not None and self._overlay.get_subscription_count():
            overlay = Image()
            overlay.header.frame_id = frame
            overlay.header.stamp.sec, overlay.header.stamp.nanosec = divmod(stamp, SECOND)
            fill_image(overlay, draw_look(image, look, self._tracker.items, self._node.task.goal), 'rgb8')
            self._overlay.publish(overlay)

    def _readable(self, data: bytes) -> tuple[str, np.ndarray | None, str]:
        """(frame, the image in RGB or None, what is wrong with it)."""
        if self._tracker.calibrated is None:
            return '', None, self._problem
        try:
            _, frame, image = read_serialized_image(data, 'rgb8')
            self._tracker.check(image)
        except (ImageMessageError, ImageError) as error:
            return '', None, str(error)
        return frame, image, ''

    def _publish_poses(self, stamp: int, look: Look) -> None:
        for name, found in look.poses.items():
            # A pose that is not visible is the last trusted one, or NaN.
            pose, covariance = ((found.pose, found.covariance) if found.visible else
                                (self._tracker.trusted[name], np.full((3, 3), np.nan)))
            self._node.publish_pose(self._writers[name].write(
                stamp, pose, covariance, visible=found.visible, occluded=found.occluded,
                visible_fraction=found.visible_fraction, residual=found.residual))

    def _say(self, problem: str) -> None:
        """Tell `camera_status` and the log, once and then each second while it lasts."""
        now = time.monotonic()
        if problem == self._said and (not problem or now - self._said_time < 1.0):
            return
        if problem and now - self._said_time >= 1.0:
            self._node.get_logger().error(f'{self._topic}: {problem}; its objects count as not visible')
        self._said, self._said_time = problem, now if problem else -math.inf
        self._node.publish_status(DiagnosticStatus(
            level=DiagnosticStatus.ERROR if problem else DiagnosticStatus.OK, name=self._camera.name,
            message=problem, hardware_id=self._topic))

    def look_for_silence(self, paused: bool) -> None:
        silence = self._silence.check(paused)
        if silence is None:
            return
        publishers = self._node.count_publishers(self._topic)
        if self._gate.repeated:
            why = f'{self._gate.repeated} times the same image again'
        else:
            why = 'it has no publisher' if not publishers else f'its {publishers} publisher(s) send nothing'
        problem = f'it is silent: no new image for {silence:.1f} s ({why})'
        self._say(problem)
        if self._newest is not None:
            self._publish_poses(self._newest, self._tracker.blind(problem))


def _between_messages(motion: HandMotion):
    """`motion` of two serialized JointState messages."""
    reader = JointStateReader()

    def positions(data: bytes) -> dict[str, float]:
        _, names, values, _, _ = reader.read(data)
        return dict(zip(names, values))

    return lambda before, now: motion(positions(before), positions(now))


def main() -> None:
    run_single(CameraPerception)


if __name__ == '__main__':
    main()
