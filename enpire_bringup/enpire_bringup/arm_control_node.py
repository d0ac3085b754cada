"""Plans and streams the arms' motion, with the safety guard as the last stage before the controllers.

Offers the action `move_arm`, the topics `<arm>/servo`, the topic `guard_status` and the service `guard/clear`.
Time is the stamp of the joint states.
"""

from __future__ import annotations

import threading
import time
from functools import partial

import numpy as np
from builtin_interfaces.msg import Duration
from control_msgs.action import FollowJointTrajectory
from control_msgs.msg import JointTolerance
from diagnostic_msgs.msg import DiagnosticStatus
from enpire_msgs.action import MoveArm
from geometry_msgs.msg import PoseStamped
from rclpy.action import ActionClient
from rclpy.clock import Clock, ClockType
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory as TrajectoryMessage
from trajectory_msgs.msg import JointTrajectoryPoint

from enpire_bringup.actions import BlockingActionServer, RemoteCallCancelled, RemoteCallError, call_action
from enpire_bringup.arm_motion import ArmMotion
from enpire_bringup.guard import GuardViolation, guard_limits
from enpire_bringup.kinematics import pose_matrix
from enpire_bringup.motion_planning import PLANNER, PlanningError
from enpire_bringup.node_group import run_single
from enpire_bringup.station_node import LATCHED_QOS, LATEST_QOS, STATE_QOS, StationNode
from enpire_bringup.trajectory import JointTrajectory

PATH_TOLERANCE = 0.3       # rad off the path at which the arm must be blocked
GOAL_TOLERANCE = 0.025     # rad: what is carried makes the arm sag
STOPPED_VELOCITY = 0.03    # rad/s
GOAL_TIME_TOLERANCE = 1.5  # s
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
        self._busy: dict[str, threading.Lock] = {name: threading.Lock() for name in self._arms}
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
        self._action_clients = {}
        self._streams = {}
        for name in self._arms:
            controller = f'{name}/joint_trajectory_controller'
            self._action_clients[name] = ActionClient(self, FollowJointTrajectory, f'{controller}/follow_joint_trajectory')
            self._streams[name] = self.create_publisher(TrajectoryMessage, f'{controller}/joint_trajectory',
                                                        LATEST_QOS)
        # Before the servo topics: of what is ready together, the state comes first.
        self.create_subscription(JointState, 'joint_states', self._on_state, STATE_QOS)
        for name in self._arms:
            self.create_subscription(PoseStamped, f'{name}/servo', partial(self._on_servo, name), LATEST_QOS)
        self.create_service(Trigger, 'guard/clear', self._on_clear)
        self.create_timer(1.0, self._watch_states, clock=Clock(clock_type=ClockType.STEADY_TIME))
        # Goals for different arms overlap; one arm runs one at a time.
        self._server = BlockingActionServer(self, MoveArm, 'move_arm', self._move, busy_message=None)
        self._publish_status()
        self.get_logger().info(f'planner: {PLANNER}; workspace {limits.workspace_low} to {limits.workspace_high} m, '
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
        if self._busy[name].locked():
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

    # -- planned moves

    def _move(self, goal) -> MoveArm.Result:
        request = goal.request
        arm = self._arms.get(request.arm)
        if arm is None:
            return MoveArm.Result(message=f"no arm '{request.arm}'; there are: {', '.join(self._arms)}")
        busy = self._busy[request.arm]
        if not busy.acquire(blocking=False):
            return MoveArm.Result(message=f'{request.arm}: another move of this arm is running; wait for its end or '
                                          'cancel it')
        try:
            return self._move_checked(goal, request, arm)
        except (PlanningError, GuardViolation, RemoteCallError, ValueError) as error:
            self.get_logger().warning(f'move_arm: {error}')
            return self._result(arm, False, str(error))
        finally:
            busy.release()

    def _move_checked(self, goal, request, arm: ArmMotion) -> MoveArm.Result:
        if self._latched:
            return self._result(arm, False, f'the guard holds: {self._latched}; call guard/clear when that is resolved')
        if arm.positions is None:
            return MoveArm.Result(message=f'{arm.name}: no joint state has arrived yet; is the station running?')
        began = arm.stamp
        start = arm.start()
        trajectory = self._plan(request, arm, start)
        arm.guard.check_trajectory(trajectory, start)
        arm.sent(None)
        result = self._follow(goal, arm, trajectory)
        if self._latched:
            return self._result(arm, False, f'stopped by the guard: {self._latched}', began)
        if result.error_code != FollowJointTrajectory.Result.SUCCESSFUL:
            return self._result(arm, False, result.error_string or f'the controller failed with {result.error_code}',
                                began)
        arm.sent(trajectory.positions[-1])
        self._set_violation(arm.name, '')
        return self._result(arm, True, '', began)

    def _plan(self, request, arm: ArmMotion, start: np.ndarray) -> JointTrajectory:
        speed = request.speed_scale or 1.0
        if not 0 < speed <= 1:
            raise PlanningError(f'{arm.name}: speed_scale is {request.speed_scale}; expected 0 < s <= 1, or 0 for the '
                                "station's default")
        if request.mode == MoveArm.Goal.JOINT:
            return arm.planner.to_joints(start, request.joints, speed)
        if request.mode == MoveArm.Goal.NAMED:
            return arm.planner.to_named(start, request.named, speed)
        if request.mode not in (MoveArm.Goal.POSE, MoveArm.Goal.LINEAR):
            raise PlanningError(f'{arm.name}: mode {request.mode} is unknown; expected JOINT, POSE, NAMED or LINEAR')
        frame = request.pose.header.frame_id
        if frame not in ('', 'world'):
            raise PlanningError(f"{arm.name}: the pose is in the frame '{frame}'; expected 'world'")
        position, orientation = request.pose.pose.position, request.pose.pose.orientation
        pose = pose_matrix((position.x, position.y, position.z),
                           (orientation.x, orientation.y, orientation.z, orientation.w))
        plan = arm.planner.to_pose if request.mode == MoveArm.Goal.POSE else arm.planner.line_to
        return plan(start, pose, speed)

    def _follow(self, goal, arm: ArmMotion, trajectory: JointTrajectory) -> FollowJointTrajectory.Result:
        message = FollowJointTrajectory.Goal()
        joints = arm.arm.joints
        message.trajectory.joint_names = list(joints)
        message.trajectory.points = [
            JointTrajectoryPoint(positions=positions, velocities=velocities, time_from_start=_duration(seconds))
            for seconds, positions, velocities in zip(trajectory.times.tolist(), trajectory.positions.tolist(),
                                                      trajectory.velocities.tolist())]
        message.path_tolerance = [JointTolerance(name=joint, position=PATH_TOLERANCE) for joint in joints]
        message.goal_tolerance = [JointTolerance(name=joint, position=GOAL_TOLERANCE, velocity=STOPPED_VELOCITY)
                                  for joint in joints]
        message.goal_time_tolerance = _duration(GOAL_TIME_TOLERANCE)

        def on_feedback(feedback) -> None:
            done = feedback.desired.time_from_start
            share = (done.sec + done.nanosec / SECOND) / trajectory.duration
            goal.publish_feedback(MoveArm.Feedback(progress=min(1.0, share)))

        # Wall time: a loaded machine may run the world at a quarter of the wall clock's pace.
        pace = self.station.real_time_factor or 1.0
        bound = 10.0 + 4.0 * (trajectory.duration + GOAL_TIME_TOLERANCE) / pace
        try:
            return call_action(self, self._action_clients[arm.name], message, timeout=bound, feedback=on_feedback,
                               cancelled=lambda: goal.is_cancel_requested or bool(self._latched))
        except RemoteCallCancelled:
            return FollowJointTrajectory.Result(
                error_code=FollowJointTrajectory.Result.INVALID_GOAL, error_string=f'{arm.name}: cancelled')

    def _result(self, arm: ArmMotion, success: bool, message: str, began: float | None = None) -> MoveArm.Result:
        positions = [float(value) for value in arm.positions] if arm.positions is not None else []
        return MoveArm.Result(success=success, message=message, joints=positions,
                              duration=arm.stamp - began if began is not None else 0.0)

    def destroy_node(self) -> None:
        if hasattr(self, '_server'):
            self._server.close(0.3)
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
