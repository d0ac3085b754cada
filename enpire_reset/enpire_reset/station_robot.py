"""The station's arms and eyes for skills, through its actions and topics."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Callable

import numpy as np
from enpire_msgs.action import MoveArm, MoveGripper
from enpire_msgs.msg import ObjectPose
from geometry_msgs.msg import PoseStamped
from rclpy.action import ActionClient
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile
from sensor_msgs.msg import Image

from enpire_bringup.actions import RemoteCallCancelled, RemoteCallError, call_action
from enpire_bringup.image_messages import ImageMessageError, read_image
from enpire_bringup.joint_state_history import JointStateMailbox
from enpire_bringup.kinematics import quaternion_of
from enpire_bringup.object_pose_messages import PoseReading, read_object_pose
from enpire_bringup.polled_topic import PolledTopic
from enpire_bringup.serialized_messages import SECOND, JointStateReader, stamp_of
from enpire_bringup.station import Station
from enpire_bringup.station_node import IMAGE_QOS
from enpire_reset.robot import CameraSilent, Grip, GripEnd, Move, MoveEnd, Sighting, SkillCancelled, SkillError

MOVE_TIMEOUT = 60.0       # s of wall time; arm_control has tighter bounds of its own
GRIPPER_TIMEOUT = 30.0    # s of wall time
STATE_TIMEOUT = 5.0       # s of wall time for the first joint state
POSE_CHECK = 0.01         # s of wall time between looks for a new object pose, while one is waited for
KEPT = 64                 # object poses that wait until a skill looks


class StationRobot:
    """A `Robot` (see robot.py) on a running station. `cancelled()` ends what runs, with SkillCancelled.

    For worker threads only; the node's executor has to spin in another thread. Its time is the stamp of the newest
    joint state: the node needs no clock.
    """

    def __init__(self, node: Node, station: Station):
        self.cancelled: Callable[[], bool] = lambda: False
        self._node = node
        self._station = station
        self._move = ActionClient(node, MoveArm, 'move_arm')
        self._grip = ActionClient(node, MoveGripper, 'gripper')
        # One motion for each arm and each gripper may run at a time.
        self._threads = ThreadPoolExecutor(2 * len(station.arms), thread_name_prefix='motion')
        # Looked at when a skill looks: 30 poses a second need not wake the node while a policy runs.
        self._poses = PolledTopic(node, ObjectPose, 'object_poses',
                                  QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=KEPT))
        self._states = JointStateMailbox(node)
        self._reader = JointStateReader()
        self._news = threading.Condition()

    # -- motions

    def run(self, *motions: Move | Grip) -> list[MoveEnd | GripEnd]:
        """See `Robot`. What still runs when another motion fails goes on to its own end."""
        if len(motions) == 1:
            return [self._run(motions[0])]
        futures = [self._threads.submit(self._run, motion) for motion in motions]
        errors = [error for future in futures if (error := future.exception()) is not None]
        if errors:
            raise next((error for error in errors if isinstance(error, SkillCancelled)), errors[0])
        return [future.result() for future in futures]

    def _run(self, motion: Move | Grip) -> MoveEnd | GripEnd:
        return self._move_arm(motion) if isinstance(motion, Move) else self._move_gripper(motion)

    def _move_arm(self, motion: Move) -> MoveEnd:
        goal = MoveArm.Goal(arm=motion.arm, stop_force=motion.stop_force)
        if motion.pose is None:
            goal.mode, goal.named = MoveArm.Goal.NAMED, motion.named
        else:
            goal.mode = MoveArm.Goal.LINEAR if motion.straight else MoveArm.Goal.POSE
            goal.pose = _stamped(motion.pose)
        result = self._call(self._move, goal, MOVE_TIMEOUT)
        if not result.success:
            raise SkillError(f'move_arm: {result.message}')
        return MoveEnd(result.contact, result.force)

    def _move_gripper(self, motion: Grip) -> GripEnd:
        goal = MoveGripper.Goal(arm=motion.arm, width=motion.width, max_force=motion.max_force)
        result = self._call(self._grip, goal, GRIPPER_TIMEOUT)
        if not result.success:
            raise SkillError(f'gripper: {result.message}')
        return GripEnd(result.width, result.force, result.stalled)

    def _call(self, client: ActionClient, goal, timeout: float):
        try:
            return call_action(self._node, client, goal, timeout=timeout, cancelled=self.cancelled)
        except RemoteCallCancelled as error:
            raise SkillCancelled(str(error)) from error
        except RemoteCallError as error:
            raise SkillError(str(error)) from error

    # -- senses

    def now(self) -> float:
        return stamp_of(self._newest_state()) / SECOND

    def joints(self, arm: str) -> np.ndarray:
        return np.array(self._positions(self._station.arms[arm].joints))

    def gripper_width(self, arm: str) -> float:
        gripper = self._station.arms[arm].gripper
        return gripper.width(self._positions([gripper.joint])[0])

    def _positions(self, joints) -> list[float]:
        _, names, positions, _, _ = self._reader.read(self._newest_state())
        missing = [joint for joint in joints if joint not in names]
        if missing or len(positions) != len(names):
            raise SkillError(f'joint_states lack {", ".join(missing) or "positions"}')
        return [positions[names.index(joint)] for joint in joints]

    def _newest_state(self) -> bytes:
        if not self._wait_for(lambda: self._states.newest is not None, STATE_TIMEOUT):
            raise SkillError(f'no joint state came within {STATE_TIMEOUT:g} s; is the station running?')
        return self._states.latest

    def look(self, name: str, images: int, timeout: float) -> list[Sighting]:
        """See `Robot`. Images count that were taken after this call began, by their stamps."""
        since = stamp_of(self._newest_state())
        fresh: list[PoseReading] = []

        def enough() -> bool:
            poses = [read_object_pose(data) for data in self._poses.take() if stamp_of(data) > since]
            fresh.extend(pose for pose in poses if pose.object_id == name)
            return len(fresh) >= images
        if not self._wait_for(enough, timeout, POSE_CHECK):
            raise CameraSilent(f'locate: {len(fresh)} of {images} images with {name} or without it came within '
                               f'{timeout:g} s; do the camera and camera_perception run?')
        return [Sighting(tuple(found.pose.tolist()), found.visible, found.visible_fraction)
                for found in fresh[-images:]]

    def photograph(self, camera: str, timeout: float) -> np.ndarray:
        topic = self._station.cameras[camera].image_topic
        message = self.image(topic, timeout)
        if message is None:
            raise CameraSilent(f'no image came on {self._node.resolve_topic_name(topic)} within {timeout:g} s; does '
                               f'the camera {camera} run?')
        try:
            return read_image(message, 'rgb8')
        except ImageMessageError as error:
            raise SkillError(f'camera {camera}: {error}') from error

    def image(self, topic: str, timeout: float) -> Image | None:
        """The next image on a topic taken from now on, or None. Nobody listens there between two calls: cameras and
        overlays cost nothing then."""
        since = self._states.newest or 0
        images: list[Image] = []

        def on_image(message: Image) -> None:
            if _nanoseconds(message) > since:
                with self._news:
                    images.append(message)
                    self._news.notify_all()
        subscription = self._node.create_subscription(Image, topic, on_image, IMAGE_QOS)
        try:
            self._wait_for(lambda: images, timeout)
        finally:
            self._node.destroy_subscription(subscription)
        return images[-1] if images else None

    def _wait_for(self, condition: Callable[[], bool], timeout: float, period: float = 0.1) -> bool:
        """Whether the condition came true within `timeout` s; asked every `period` s, and when there is news."""
        deadline = time.monotonic() + timeout
        with self._news:
            while not condition():
                if self.cancelled():
                    raise SkillCancelled('cancelled while looking')
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._news.wait(min(left, period))
        return True


def _nanoseconds(message) -> int:
    return message.header.stamp.sec * SECOND + message.header.stamp.nanosec


def _stamped(pose: np.ndarray) -> PoseStamped:
    message = PoseStamped()
    message.header.frame_id = 'world'
    position, orientation = message.pose.position, message.pose.orientation
    position.x, position.y, position.z = (float(value) for value in pose[:3, 3])
    orientation.x, orientation.y, orientation.z, orientation.w = quaternion_of(pose)
    return message
