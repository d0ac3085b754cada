"""robot_description, tf and tf_static, where the real robot_state_publisher is not installed."""

from __future__ import annotations

from builtin_interfaces.msg import Time
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from tf2_msgs.msg import TFMessage

from enpire_bringup.node_group import run_single
from enpire_bringup.robot_description import LinkTransforms, robot_description
from enpire_bringup.station_node import LATCHED_QOS, STATE_QOS, StationNode
from enpire_bringup.transform_messages import TF_QOS, TF_STATIC_QOS, transform_message

TF_PERIOD = 0.033    # s of ROS time between two messages on tf, at least


class RobotStatePublisher(StationNode):
    """Publishes the station's URDF and where its links are. Cameras publish their own frames."""

    def __init__(self, **kwargs):
        super().__init__('robot_state_publisher', needs_task=False, **kwargs)
        urdf = robot_description(self.station, for_viewers=True)
        self._links = LinkTransforms(urdf)
        self._last = float('-inf')
        self._description = self.create_publisher(String, 'robot_description', LATCHED_QOS)
        self._static = self.create_publisher(TFMessage, 'tf_static', TF_STATIC_QOS)
        self._moving = self.create_publisher(TFMessage, 'tf', TF_QOS)
        self._description.publish(String(data=urdf))
        self._static.publish(_message(self._links.fixed(), Time()))
        self.create_subscription(JointState, 'joint_states', self._on_joint_state, STATE_QOS)

    def _on_joint_state(self, message: JointState) -> None:
        stamp = message.header.stamp.sec + message.header.stamp.nanosec * 1e-9
        if self._last <= stamp < self._last + TF_PERIOD:
            return
        self._last = stamp
        positions = dict(zip(message.name, message.position))
        self._moving.publish(_message(self._links.moving(positions), message.header.stamp))


def _message(transforms, stamp: Time) -> TFMessage:
    return TFMessage(transforms=[transform_message(parent, child, pose, stamp)
                                 for parent, child, pose in transforms])


def main() -> None:
    run_single(RobotStatePublisher)


if __name__ == '__main__':
    main()
