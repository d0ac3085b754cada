"""Moves the arms, with the safety guard as the last stage before the controllers.

Offers the topics `<arm>/servo`, the topic `guard_status`, the service `guard/clear` and, through planned_moves.py, the
action `move_arm`. Time is the stamp of the joint states.
"""

from __future__ import annotations

import time
from functools import partial

from builtin_interfaces.msg import Duration
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from rclpy.clock import Clock, ClockType
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory as TrajectoryMessage
from trajectory_msgs.msg import JointTrajectoryPoint

from enpire_bringup.arm_motion import ArmMotion
from enpire_bringup.guard import guard_limits
from enpire_bringup.kinematics import pose_matrix
from enpire_bringup.node_group import run_single
from enpire_bringup.planned_moves import PlannedMoves
from enpire_bringup.station_node import LATCHED_QOS, LATEST_QOS, STATE_QOS, StationNode

STATE_TIMEOUT = 5.0        # s of wall time without joint states before the guard says so
SECOND = 1_000_000_000


class ArmControl(StationNode):
    """Node `arm_control`; see the module's text and docs/architecture.md."""

    def __init__(self, **kwargs):
        super().__init__('arm_control', **kwargs)
        # The stamps of the joint states are the only time here; the clock topic would be work for nothing.
        self.set_parameters([Parameter('use_sim_time', value=False)])
        limits = guard_limits(self.station, self.task)
        self._arms = {name: ArmMotion(self.station, name, limits) for name in self.station.arms}
        self._latched = ''
        self._violations = {name: '' for name in self._arms}
        self._early: dict[str, PoseStamped] = {}    # servo targets whose joint state has not arrived yet
        self._silence = 'no joint state has arrived yet'
        self._state_arrival = time.monotonic()
        self._waiting: dict[str, PoseStamped] = {}     # servo targets that came before the state they answer
        self._index: dict[str, list[int]] = {}
        self._names: list[str] | None = None
        self._period = _duration(1.0 / self.station.policy_rate)

        self._status = self.create_publisher(DiagnosticStatus, 'guard_status', LATCHED_QOS)
        self._published: tuple | None = None
        self._streams = {name: self.create_publisher(
            TrajectoryMessage, f'{name}/joint_trajectory_controller/joint_trajectory', LATEST_QOS)
            for name in self._arms}
        # Before the servo topics: of what is ready together, the state comes first.
        self.create_subscription(JointState, 'joint_states', self._on_state, STATE_QOS)
        for name in self._arms:
            self.create_subscription(PoseStamped, f'{name}/servo', partial(self._on_servo, name), LATEST_QOS)
        self.create_service(Trigger, 'guard/clear', self._on_clear)
        self.create_timer(1.0, self._watch_states, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._moves = PlannedMoves(self, self._arms, held=lambda: self._latched,
                                   moved=lambda name: self._set_violation(name, ''))
        self._publish_status()
        self.get_logger().info(f'workspace {limits.workspace_low} to {limits.workspace_high} m, '
                               f'servo up to {limits.max_tip_speed:g} m/s')

    # -- states and status

    def _on_state(self, message: JointState) -> None:
        self._state_arrival = time.monotonic()
        if message.name != self._names and not self._find_joints(message.name):
            return
        stamp = _seconds(message)
        positions = message.position
        for name, arm in self._arms.items():
            reached = arm.observe(stamp, [positions[i] for i in self._index[name]])
            if reached and not self._latched:
                self._latch(f'{name}: {reached}')
            early = self._early.get(name)
            if early is not None and early.header.stamp.sec + early.header.stamp.nanosec / SECOND <= stamp:
                self._on_servo(name, self._early.pop(name))
            ended = arm.stream_ended()
            if ended is not None:
                self._violations[name] = ended
                self._publish_status(note='servo stream ended')
        for name in [name for name, target in self._waiting.items() if _seconds(target) <= stamp]:
            self._servo(name, self._waiting.pop(name))
        if self._silence:
            self._silence = ''
            self._publish_status()

    def _find_joints(self, names) -> bool:
        missing = [joint for joint in self.station.joints if joint not in names]
        if missing:
            self._silence = f'joint_states lack {", ".join(missing)}'
            self._publish_status()
            return False
        self._names = list(names)
        self._index = {name: [self._names.index(joint) for joint in arm.arm.joints]
                       for name, arm in self._arms.items()}
        return True

    def _watch_states(self) -> None:
        age = time.monotonic() - self._state_arrival
        if age > STATE_TIMEOUT:
            self._silence = f'no joint states for more than {STATE_TIMEOUT:g} s; is the station running?'
            self._publish_status()

    def _latch(self, reason: str) -> None:
        """Stop everything until guard/clear."""
        self._latched = reason
        self.get_logger().error(f'guard: {reason}; everything holds until the service guard/clear is called')
        for name in self._arms:
            if self._arms[name].positions is not None:
                self._send(name, self._arms[name].hold(self._arms[name].stamp, reason))
        self._publish_status()

    def _on_clear(self, request, response):
        response.success = True
        response.message = f'cleared: {self._latched}' if self._latched else 'nothing to clear'
        self._latched = ''
        self._violations = dict.fromkeys(self._violations, '')
        self._publish_status()
        return response

    def _publish_status(self, note: str = '') -> None:
        violation = next(filter(None, self._violations.values()), '')
        reason = self._latched or self._silence or violation
        # A target that was refused ends by itself with the next good one; the others need a person or a node back.
        level = (DiagnosticStatus.ERROR if self._latched or self._silence else
                 DiagnosticStatus.WARN if violation else DiagnosticStatus.OK)
        message = DiagnosticStatus(name='guard', hardware_id=self.station.name, message=reason or note or 'ok',
                                   level=level)
        if (message.level, message.message) != self._published:
            self._published = message.level, message.message
            self._status.publish(message)

    # -- servo

    def _on_servo(self, name: str, message: PoseStamped) -> None:
        arm = self._arms[name]
        stamp = message.header.stamp.sec + message.header.stamp.nanosec / SECOND
        if arm.positions is None:
            return
        if stamp > arm.stamp:
            # Joint states come five times as often: a target may overtake the ones that lead up to its own.
            self._early[name] = message
            return
        if self._moves.busy(name):
            self._set_violation(name, f'{name}: servo target while a planned move runs; ignored')
            return
        if self._latched:
            command = arm.hold(stamp, self._latched)
        else:
            position, orientation = message.pose.position, message.pose.orientation
            try:
                pose = pose_matrix((position.x, position.y, position.z),
                                   (orientation.x, orientation.y, orientation.z, orientation.w))
                command = arm.servo(pose, message.header.frame_id, stamp)
            except ValueError as error:
                command = arm.hold(stamp, f'{name}: servo target: {error}')
        # A hold is sent as well: in lockstep the world waits for an answer to every servo target.
        self._send(name, command, message.header.stamp)
        self._set_violation(name, command.violation)

    def _set_violation(self, name: str, reason: str) -> None:
        if reason and reason != self._violations[name]:
            self.get_logger().warning(f'guard: {reason}', throttle_duration_sec=1.0)
        self._violations[name] = reason
        self._publish_status()

    def _send(self, name: str, command, stamp=None) -> None:
        point = JointTrajectoryPoint(positions=command.positions.tolist(), velocities=command.velocities.tolist(),
                                     time_from_start=self._period)
        message = TrajectoryMessage(joint_names=list(self._arms[name].arm.joints), points=[point])
        if stamp is not None:
            message.header.stamp = stamp
        self._streams[name].publish(message)

    def destroy_node(self) -> None:
        if hasattr(self, '_moves'):
            self._moves.close()
        super().destroy_node()


def _seconds(message) -> float:
    return message.header.stamp.sec + message.header.stamp.nanosec / SECOND


def _duration(seconds: float) -> Duration:
    sec, nanosec = divmod(round(seconds * SECOND), SECOND)
    return Duration(sec=sec, nanosec=nanosec)


def main() -> None:
    run_single(ArmControl)


if __name__ == '__main__':
    main()
