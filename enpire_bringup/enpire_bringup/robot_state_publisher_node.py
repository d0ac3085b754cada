"""robot_description, tf and tf_static, where the real robot_state_publisher is not installed."""

from __future__ import annotations

from builtin_interfaces.msg import Time
from rclpy.clock import Clock, ClockType
from rclpy.parameter import Parameter
from std_msgs.msg import String
from tf2_msgs.msg import TFMessage

from enpire_bringup.joint_state_history import JointStateMailbox
from enpire_bringup.node_group import run_single
from enpire_bringup.robot_description import LinkTransforms, robot_description
from enpire_bringup.serialized_messages import SECOND, JointStateReader, stamp_of
from enpire_bringup.station_node import LATCHED_QOS, StationNode
from enpire_bringup.transform_messages import TF_QOS, TF_STATIC_QOS, transform_message

TF_PERIOD = 0.033    # s of wall time between two messages on tf, while somebody subscribes
LOOK_PERIOD = 0.2    # s of wall time between looks whether somebody does


class RobotStatePublisher(StationNode):
    """Publishes the station's URDF and where its links are. Cameras publish their own frames."""

    def __init__(self, **kwargs):
        super().__init__('robot_state_publisher', needs_task=False, **kwargs)
        # Stamps come with the joint states; the clock, 100 times a second, would only wake this node.
        self.set_parameters([Parameter('use_sim_time', value=False)])
        urdf = robot_description(self.station, for_viewers=True)
        self._links = LinkTransforms(urdf)
        self._states = JointStateMailbox(self)
        self._reader = JointStateReader()
        self._last: int | None = None       # stamp (ns) of the joint state published last
        self._description = self.create_publisher(String, 'robot_description', LATCHED_QOS)
        self._static = self.create_publisher(TFMessage, 'tf_static', TF_STATIC_QOS)
        self._moving = self.create_publisher(TFMessage, 'tf', TF_QOS)
        self._description.publish(String(data=urdf))
        self._static.publish(_message(self._links.fixed(), Time()))
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._publishing = None             # the timer, while somebody subscribes
        self.create_timer(LOOK_PERIOD, self._look_for_subscribers, clock=self._steady)

    def _look_for_subscribers(self) -> None:
        watched = self._moving.get_subscription_count() > 0
        if watched and self._publishing is None:
            self._publishing = self.create_timer(TF_PERIOD, self._publish, clock=self._steady)
        elif not watched and self._publishing is not None:
            self.destroy_timer(self._publishing)
            self._publishing = None

    def _publish(self) -> None:
        state = self._states.latest
        if state is None or stamp_of(state) == self._last:
            return
        self._last, names, positions, _, _ = self._reader.read(state)
        stamp = Time()
        stamp.sec, stamp.nanosec = divmod(self._last, SECOND)
        self._moving.publish(_message(self._links.moving(dict(zip(names, positions))), stamp))


def _message(transforms, stamp: Time) -> TFMessage:
    return TFMessage(transforms=[transform_message(parent, child, pose, stamp)
                                 for parent, child, pose in transforms])


def main() -> None:
    run_single(RobotStatePublisher)


if __name__ == '__main__':
    main()
