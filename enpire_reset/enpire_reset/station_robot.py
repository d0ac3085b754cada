"""The station's arms and eyes for skills, through its actions and topics."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from typing import Callable

import numpy as np
from control_msgs.action import GripperCommand
from enpire_msgs.action import MoveArm
from enpire_msgs.msg import ObjectPose
from geometry_msgs.msg import PoseStamped
from rclpy.action import ActionClient
from rclpy.node import Node

from enpire_bringup.actions import RemoteCallCancelled, RemoteCallError, call_action
from enpire_bringup.kinematics import quaternion_of
from enpire_bringup.station import Station
from enpire_bringup.station_node import STATE_QOS
from enpire_reset.skills import GripperState, SkillCancelled, SkillError

MOVE_TIMEOUT = 60.0       # s of wall time; arm_control has tighter bounds of its own
GRIPPER_TIMEOUT = 30.0    # s of wall time
KEPT = 64                 # object poses kept


class StationRobot:
    """A `Robot` (see skills.py) on a running station. `cancelled()` ends what runs, with SkillCancelled.

    For worker threads only; the node's executor has to spin in another thread.
    """

    def __init__(self, node: Node, station: Station):
        self.cancelled: Callable[[], bool] = lambda: False
        self._node = node
        self._move = ActionClient(node, MoveArm, 'move_arm')
        self._grippers = {name: ActionClient(node, GripperCommand, f'{name}/gripper_controller/gripper_cmd')
                          for name in station.arms}
        self._poses: deque[ObjectPose] = deque(maxlen=KEPT)
        self._seen = threading.Condition()
        node.create_subscription(ObjectPose, 'object_poses', self._on_pose, STATE_QOS)

    def move_to_named(self, arm: str, name: str) -> None:
        self._move_arm(MoveArm.Goal(arm=arm, mode=MoveArm.Goal.NAMED, named=name))

    def move_to_pose(self, arm: str, pose: np.ndarray) -> None:
        self._move_arm(MoveArm.Goal(arm=arm, mode=MoveArm.Goal.POSE, pose=_stamped(pose)))

    def move_straight(self, arm: str, pose: np.ndarray) -> None:
        self._move_arm(MoveArm.Goal(arm=arm, mode=MoveArm.Goal.LINEAR, pose=_stamped(pose)))

    def _move_arm(self, goal: MoveArm.Goal) -> None:
        result = self._call(self._move, goal, MOVE_TIMEOUT)
        if not result.success:
            raise SkillError(f'move_arm: {result.message}')

    def move_gripper(self, arm: str, position: float, max_effort: float) -> GripperState:
        goal = GripperCommand.Goal()
        goal.command.position, goal.command.max_effort = position, max_effort
        result = self._call(self._grippers[arm], goal, GRIPPER_TIMEOUT)
        if not (result.reached_goal or result.stalled):
            raise SkillError(f'gripper of {arm}: neither reached {position:.4f} m nor stalled; it is at '
                             f'{result.position:.4f} m a finger')
        return GripperState(result.position, result.stalled, result.reached_goal)

    def _call(self, client: ActionClient, goal, timeout: float):
        try:
            return call_action(self._node, client, goal, timeout=timeout, cancelled=self.cancelled)
        except RemoteCallCancelled as error:
            raise SkillCancelled(str(error)) from error
        except RemoteCallError as error:
            raise SkillError(str(error)) from error

    def sightings(self, name: str, count: int, timeout: float) -> list[tuple[float, float, float]]:
        """See `Robot`. Images count that were taken after this call began, by their stamps."""
        since = self._node.get_clock().now().nanoseconds
        deadline = time.monotonic() + timeout
        while True:
            with self._seen:
                fresh = [pose for pose in self._poses if pose.object_id == name and _stamp(pose) > since]
                visible = [pose for pose in fresh if pose.visible]
                if len(visible) >= count:
                    return [_planar(pose) for pose in visible[-count:]]
                if self.cancelled():
                    raise SkillCancelled('cancelled while looking')
                left = deadline - time.monotonic()
                if left <= 0:
                    raise SkillError(
                        f'locate: {name} was visible in {len(visible)} of {len(fresh)} images within {timeout:g} s, '
                        f'{count} are needed; ' + ('is the camera covered, or the object out of view?' if fresh else
                                                   'do the camera and camera_perception run?'))
                self._seen.wait(min(left, 0.1))

    def _on_pose(self, message: ObjectPose) -> None:
        with self._seen:
            self._poses.append(message)
            self._seen.notify_all()


def _stamp(message: ObjectPose) -> int:
    return message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec


def _planar(message: ObjectPose) -> tuple[float, float, float]:
    pose = message.pose.pose
    return pose.position.x, pose.position.y, 2.0 * math.atan2(pose.orientation.z, pose.orientation.w)


def _stamped(pose: np.ndarray) -> PoseStamped:
    message = PoseStamped()
    message.header.frame_id = 'world'
    position, orientation = message.pose.position, message.pose.orientation
    position.x, position.y, position.z = (float(value) for value in pose[:3, 3])
    orientation.x, orientation.y, orientation.z, orientation.w = quaternion_of(pose)
    return message
