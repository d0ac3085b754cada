"""Node `station_markers`: limits, goal, objects and verdict for RViz. Which shapes: station_scene.py."""

from __future__ import annotations

import math

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Point
from rclpy.clock import Clock, ClockType
from rclpy.parameter import Parameter
from std_msgs.msg import ColorRGBA
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import Marker, MarkerArray

from enpire_bringup.node_group import run_single
from enpire_bringup.station_node import LATCHED_QOS, STATE_QOS, StationNode
from enpire_bringup.station_scene import (Box, Label, Lines, fixed_shapes, guard_label, object_shapes, verdict_label)
from enpire_bringup.transform_messages import TF_QOS, transform_message
from enpire_msgs.msg import ObjectPose, Verdict

PERIOD = 0.2       # s of wall time between two messages
OUTCOMES = {Verdict.ABSTAIN: 'abstain', Verdict.NOT_YET: 'not_yet', Verdict.SUCCESS: 'success'}
LEVELS = {DiagnosticStatus.OK: 'ok', DiagnosticStatus.WARN: 'warning'}


class StationMarkers(StationNode):
    """Publishes `markers` while somebody looks at them, and the objects' frames on tf; else it listens to nothing."""

    def __init__(self, **kwargs):
        super().__init__('station_markers', **kwargs)
        self.set_parameters([Parameter('use_sim_time', value=False)])
        self._fixed = fixed_shapes(self.station, self.task)
        self._poses: dict[str, ObjectPose] = {}
        self._verdict: Verdict | None = None
        self._guard: DiagnosticStatus | None = None
        self._inputs: list = []
        self._shown: set[str] = set()
        self._markers = self.create_publisher(MarkerArray, 'markers', LATCHED_QOS)
        self._tf = self.create_publisher(TFMessage, 'tf', TF_QOS)
        self.create_timer(PERIOD, self._publish, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _publish(self) -> None:
        watched = self._markers.get_subscription_count() > 0
        if watched != bool(self._inputs):
            self._listen() if watched else self._stop_listening()
        if not watched:
            return
        shapes = self._fixed + self._moving_shapes()
        names = {shape.name for shape in shapes}
        gone = [Marker(ns=name, action=Marker.DELETE) for name in self._shown - names]
        for marker in gone:
            marker.header.frame_id = 'world'
        self._shown = names
        self._markers.publish(MarkerArray(markers=[marker_message(shape) for shape in shapes] + gone))
        transforms = [transform_message('world', name, _matrix(message), message.header.stamp)
                      for name, message in self._poses.items() if message.visible]
        if transforms:
            self._tf.publish(TFMessage(transforms=transforms))

    def _moving_shapes(self) -> list:
        shapes = []
        for name, message in self._poses.items():
            covariance = np.array(message.pose.covariance).reshape(6, 6)[np.ix_([0, 1, 5], [0, 1, 5])]
            shapes += object_shapes(self.task.objects[name], _planar(message), covariance, message.visible)
        if self._verdict is not None:
            shapes.append(verdict_label(self.station, self.task, OUTCOMES[self._verdict.outcome],
                                        self._verdict.reason))
        if self._guard is not None:
            shapes.append(guard_label(self.station, self.task, LEVELS.get(self._guard.level, 'error'),
                                      self._guard.message))
        return shapes

    def _listen(self) -> None:
        self._inputs = [
            self.create_subscription(ObjectPose, 'object_poses', self._on_pose, STATE_QOS),
            self.create_subscription(Verdict, 'verdict', self._on_verdict, STATE_QOS),
            self.create_subscription(DiagnosticStatus, 'guard_status', self._on_guard, LATCHED_QOS)]

    def _stop_listening(self) -> None:
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self._inputs = []

    def _on_pose(self, message: ObjectPose) -> None:
        if message.object_id in self.task.objects:
            self._poses[message.object_id] = message

    def _on_verdict(self, message: Verdict) -> None:
        self._verdict = message

    def _on_guard(self, message: DiagnosticStatus) -> None:
        self._guard = message


def _planar(message: ObjectPose) -> np.ndarray:
    pose = message.pose.pose
    return np.array([pose.position.x, pose.position.y, 2 * math.atan2(pose.orientation.z, pose.orientation.w)])


def _matrix(message: ObjectPose) -> np.ndarray:
    x, y, yaw = _planar(message)
    pose = np.eye(4)
    pose[:2, :2] = [[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]]
    pose[:2, 3] = x, y
    return pose


def marker_message(shape: Lines | Box | Label) -> Marker:
    """One marker in "world"; its namespace is the shape's name."""
    marker = Marker(ns=shape.name, action=Marker.ADD, frame_locked=True)
    marker.header.frame_id = 'world'
    marker.color = ColorRGBA(**dict(zip('rgba', shape.color)))
    marker.pose.orientation.w = 1.0
    if isinstance(shape, Lines):
        marker.type, marker.scale.x = Marker.LINE_LIST, shape.width
        marker.points = [Point(x=x, y=y, z=z) for x, y, z in shape.points.reshape(-1, 3).tolist()]
    elif isinstance(shape, Box):
        marker.type = Marker.CUBE
        marker.scale.x, marker.scale.y, marker.scale.z = map(float, shape.size)
        transform = transform_message('world', shape.name, shape.pose, marker.header.stamp).transform
        position, translation = marker.pose.position, transform.translation
        position.x, position.y, position.z = translation.x, translation.y, translation.z
        marker.pose.orientation = transform.rotation
    else:
        marker.type, marker.scale.z, marker.text = Marker.TEXT_VIEW_FACING, shape.height, shape.text
        position = marker.pose.position
        position.x, position.y, position.z = map(float, shape.position)
    return marker


def main() -> None:
    run_single(StationMarkers)


if __name__ == '__main__':
    main()
