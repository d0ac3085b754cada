"""The planned half of arm_control: the actions `move_arm` and `gripper`, through the arms' controllers."""

from __future__ import annotations

import math
import threading
import time
from typing import Callable

import numpy as np
from builtin_interfaces.msg import Duration
from control_msgs.action import FollowJointTrajectory, GripperCommand
from control_msgs.msg import JointTolerance
from enpire_msgs.action import MoveArm, MoveGripper
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Path
from rclpy.action import ActionClient
from trajectory_msgs.msg import JointTrajectoryPoint

from enpire_bringup.actions import BlockingActionServer, RemoteCallCancelled, RemoteCallError, call_action
from enpire_bringup.arm_motion import ArmMotion, ServoCommand
from enpire_bringup.contact_move import CONTACT_SPEED, ContactMove, slowed_to
from enpire_bringup.guard import GuardRefusal, GuardViolation
from enpire_bringup.guarded_arms import WAY_OUT, GuardedArms
from enpire_bringup.kinematics import pose_matrix
from enpire_bringup.motion_planning import MotionPlanner, Plan, PlanningError
from enpire_bringup.path_planner import choose_path_planner
from enpire_bringup.shared_space import SharedSpace
from enpire_bringup.station_node import LATCHED_QOS, StationNode
from enpire_bringup.trajectory import JointTrajectory, standing_still

PATH_TOLERANCE = 0.3       # rad off the path at which the arm must be blocked
GOAL_TOLERANCE = 0.025     # rad: what is carried makes the arm sag
STOPPED_VELOCITY = 0.03    # rad/s
GOAL_TIME_TOLERANCE = 1.5  # s
ACCEPT_TIMEOUT = 10.0      # s of wall time in which a controller has to be there and begin to move
FEEDBACK_TIMEOUT = 10.0    # s of wall time without feedback, which comes 20 times a second: the controller is gone
GRIPPER_TIMEOUT = 30.0     # s of wall time
STATE_AGE = 1.0            # s of wall time since the newest joint state at which a move may be planned
STATE_TIMEOUT = 5.0        # s of wall time that a move waits for one
STOP_SHARE = 0.8           # of the guard's limit on the tip force that a contact-stop move may ask for
PATH_POINTS = 60           # at most, in `planned_path`
SECOND = 1_000_000_000


class PlannedMoves:
    """The actions `move_arm` and `gripper` of a node that owns `guarded`, and the topic `planned_path`.

    send(arm, command, stamp): publishes a stream command, as for GuardedArms.
    Raises ConfigurationError when the machine's planner cannot be configured for the station.
    """

    def __init__(self, node: StationNode, guarded: GuardedArms,
                 send: Callable[[str, ServoCommand, int], None]):
        self._node = node
        self._guarded = guarded
        self._send = send
        self._arms: dict[str, ArmMotion] = guarded.arms
        path_planner = choose_path_planner(node.station, node.task)
        self._planners = {name: MotionPlanner(node.station, node.task, name, arm.guard, path_planner)
                          for name, arm in guarded.arms.items()}
        self._space = SharedSpace(node.station)
        self._busy = {name: threading.Lock() for name in self._arms}
        self._gripping = {name: threading.Lock() for name in self._arms}
        self._contact: dict[str, ContactMove] = {}      # contact-stop moves that run
        self._policy_step = -1
        self._state_stamp = -1                          # ns, of the newest joint state
        self._state_heard = -math.inf                   # monotonic s, when it came
        self._news = threading.Condition()
        self._clients = {name: ActionClient(
            node, FollowJointTrajectory, f'{name}/joint_trajectory_controller/follow_joint_trajectory')
            for name in self._arms}
        self._grippers = {name: ActionClient(node, GripperCommand, f'{name}/gripper_controller/gripper_cmd')
                          for name in self._arms}
        self._paths = node.create_publisher(Path, 'planned_path', LATCHED_QOS)
        # Goals for different arms overlap; one arm runs one at a time.
        self._servers = [BlockingActionServer(node, MoveArm, 'move_arm', self._move, busy_message=None),
                         BlockingActionServer(node, MoveGripper, 'gripper', self._grip, busy_message=None)]
        node.get_logger().info(f'planner: {path_planner.name}')
        node.declare_parameter('planner', path_planner.name, ignore_override=True)      # for who wants to know

    def busy(self, name: str) -> bool:
        """Whether a planned move of this arm runs."""
        return self._busy[name].locked()

    def observe(self, stamp: int) -> None:
        """Joint states of `stamp` (ns) were taken in: the next point of every contact-stop move, at policy steps."""
        with self._news:
            if stamp != self._state_stamp:      # one that is repeated over and over is no news
                self._state_stamp, self._state_heard = stamp, time.monotonic()
                self._news.notify_all()
        step = math.floor(stamp * self._node.station.policy_rate / SECOND + 1e-6)
        if step <= self._policy_step and step > self._policy_step - 10:
            return
        self._policy_step = step
        for name, move in list(self._contact.items()):
            arm = self._arms[name]
            if self._guarded.fault:
                move.stop(f'stopped by the guard: {self._guarded.fault}')
                continue
            ended = move.finished.is_set()
            positions, velocities = move.follow(stamp, arm.positions, arm.tip_force)
            self._space.progressed(name, move.elapsed(stamp))
            if not ended:
                self._send(name, ServoCommand(positions, velocities, 1.0 / self._node.station.policy_rate), stamp)

    def close(self) -> None:
        for server in self._servers:
            server.close(0.3)

    # -- moves

    def _move(self, goal) -> MoveArm.Result:
        request = goal.request
        arm = self._arms.get(request.arm)
        if arm is None:
            return MoveArm.Result(message=f"no arm '{request.arm}'; there are: {', '.join(self._arms)}",
                                  force=math.nan)
        busy = self._busy[request.arm]
        if not busy.acquire(blocking=False):
            return MoveArm.Result(message=f'{request.arm}: another move of this arm is running; wait for its end or '
                                          'cancel it', force=math.nan)
        result = MoveArm.Result(force=math.nan)
        began = arm.stamp
        try:
            self._move_checked(goal, request, arm, result)
        except (PlanningError, GuardViolation, GuardRefusal, RemoteCallError, ValueError) as error:
            self._node.get_logger().warning(f'move_arm: {error}')
            result.success, result.message = False, str(error)
        finally:
            self._space.end(arm.name)
            busy.release()
        if arm.positions is not None:
            result.joints = [float(value) for value in arm.positions]
            result.duration = arm.stamp - began
        if arm.tip_force is not None and math.isnan(result.force):
            result.force = float(np.linalg.norm(arm.tip_force))
        return result

    def _move_checked(self, goal, request, arm: ArmMotion, result: MoveArm.Result) -> None:
        self._check_request(request, arm)
        if self._guarded.fault:
            raise PlanningError(f'the guard holds: {self._guarded.fault}; {WAY_OUT}')
        self._await_state()
        if arm.positions is None:
            raise PlanningError(f'{arm.name}: no joint state that can be used has arrived yet; is the station running?')
        start = arm.start()
        arm.sent(None)     # a servo stream ends here
        began = time.monotonic()
        plan = self._space.begin(
            arm.name, lambda positions: self._plan(request, arm, start, positions), self._present,
            lambda: 'cancelled' if goal.is_cancel_requested else self._guarded.fault,
            lambda reason: self._node.get_logger().info(f'move_arm: {reason}'))
        result.planner, result.planning_time = plan.planner, time.monotonic() - began
        arm.guard.check_trajectory(plan.trajectory, start, self._guarded.positions)
        self._publish_path(plan)
        if request.stop_force > 0.0:
            self._press(goal, arm, plan, request.stop_force, result)
        else:
            self._follow_to_end(goal, arm, plan.trajectory)
        result.success = True
        self._guarded.moved(arm.name)

    def _await_state(self) -> None:
        """Nothing is planned from where the arms were before the joint states stopped coming, or began anew."""
        with self._news:
            if not self._news.wait_for(lambda: time.monotonic() - self._state_heard < STATE_AGE, STATE_TIMEOUT):
                silent = time.monotonic() - self._state_heard
                raise PlanningError('no joint state '
                                    + (f'for {silent:.1f} s' if math.isfinite(silent) else 'has arrived yet')
                                    + '; is the station running?')

    def _check_request(self, request, arm: ArmMotion) -> None:
        goal = MoveArm.Goal
        if not 0.0 <= request.speed_scale <= 1.0:
            raise PlanningError(f'{arm.name}: speed_scale is {request.speed_scale}; expected 0 < s <= 1, or 0 for the '
                                "station's default")
        if request.mode not in (goal.JOINT, goal.POSE, goal.NAMED, goal.LINEAR):
            raise PlanningError(f'{arm.name}: mode {request.mode} is unknown; expected JOINT, POSE, NAMED or LINEAR')
        most = STOP_SHARE * arm.guard.limits.max_tip_force
        if request.stop_force and not 0.0 < request.stop_force <= most:
            raise PlanningError(f'{arm.name}: stop_force is {request.stop_force} N; expected up to {most:g} N, a '
                                "share of the guard's limit max_tip_force, or 0 for a move that ends at its goal")
        if request.stop_force and request.mode != goal.LINEAR:
            raise PlanningError(f'{arm.name}: stop_force is for mode LINEAR, which says from where the contact comes')

    def _present(self) -> list[np.ndarray]:
        """Joint positions (n,) of the station: measured, then where the arms were sent last."""
        measured = np.array(self._guarded.positions, float)
        sent = measured.copy()
        for name, arm in self._arms.items():
            sent[self._node.station.arm_slice(name)] = arm.start()
        return [measured, sent]

    def _plan(self, request, arm: ArmMotion, start: np.ndarray, positions: np.ndarray) -> Plan:
        planner = self._planners[arm.name]
        speed = request.speed_scale or 1.0
        if request.mode == MoveArm.Goal.JOINT:
            return planner.to_joints(start, request.joints, speed, positions)
        if request.mode == MoveArm.Goal.NAMED:
            return planner.to_named(start, request.named, speed, positions)
        frame = request.pose.header.frame_id
        if frame not in ('', 'world'):
            raise PlanningError(f"{arm.name}: the pose is in the frame '{frame}'; expected 'world'")
        position, orientation = request.pose.pose.position, request.pose.pose.orientation
        pose = pose_matrix((position.x, position.y, position.z),
                           (orientation.x, orientation.y, orientation.z, orientation.w))
        if request.mode == MoveArm.Goal.POSE:
            return planner.to_pose(start, pose, speed, positions)
        if not request.stop_force:
            return planner.line_to(start, pose, speed, positions)
        plan = planner.line_to(start, pose, speed, positions, pressing=True)
        return Plan(slowed_to(plan.trajectory, plan.tips, CONTACT_SPEED), plan.tips, plan.planner)

    def _publish_path(self, plan: Plan) -> None:
        message = Path()
        message.header.frame_id = 'world'
        message.header.stamp = self._node.get_clock().now().to_msg()
        for tip in plan.tips[::max(1, math.ceil(len(plan.tips) / PATH_POINTS))].tolist() + [plan.tips[-1].tolist()]:
            pose = PoseStamped(header=message.header)
            pose.pose.position.x, pose.pose.position.y, pose.pose.position.z = tip
            pose.pose.orientation.w = 1.0
            message.poses.append(pose)
        self._paths.publish(message)

    # -- through the controllers

    def _follow_to_end(self, goal, arm: ArmMotion, trajectory: JointTrajectory) -> None:
        """Raises PlanningError, with the reason, unless the arm has ended where it should."""
        outcome = self._follow(goal, arm, trajectory)
        if self._guarded.fault:
            raise PlanningError(f'stopped by the guard: {self._guarded.fault}')
        if outcome.error_code != FollowJointTrajectory.Result.SUCCESSFUL:
            raise PlanningError(outcome.error_string or f'{arm.name}: the controller failed with {outcome.error_code}')
        arm.sent(trajectory.positions[-1])

    def _follow(self, goal, arm: ArmMotion, trajectory: JointTrajectory) -> FollowJointTrajectory.Result:
        client = self._clients[arm.name]
        watch = _ControllerWatch(f'{arm.name}: {client._action_name}', client.server_is_ready)

        def on_feedback(feedback) -> None:
            watch.heard()
            done = feedback.desired.time_from_start
            elapsed = done.sec + done.nanosec / SECOND
            self._space.progressed(arm.name, elapsed)
            goal.publish_feedback(MoveArm.Feedback(progress=min(1.0, elapsed / trajectory.duration)))

        # Wall time: a loaded machine may run the world at a quarter of the wall clock's pace.
        pace = self._node.station.real_time_factor or 1.0
        bound = 10.0 + 4.0 * (trajectory.duration + GOAL_TIME_TOLERANCE) / pace
        try:
            return call_action(
                self._node, client, _trajectory_goal(arm, trajectory), timeout=bound, feedback=on_feedback,
                cancelled=lambda: goal.is_cancel_requested or bool(self._guarded.fault) or watch.lost())
        except RemoteCallCancelled as error:
            if self._guarded.fault or goal.is_cancel_requested:
                raise PlanningError(f'{arm.name}: cancelled') from error
            raise PlanningError(watch.reason) from error

    def _press(self, goal, arm: ArmMotion, plan: Plan, stop_force: float, result: MoveArm.Result) -> None:
        """Go until the tool feels `stop_force` (N). Raises PlanningError when it does not."""
        move = ContactMove(plan.trajectory, stop_force, 1.0 / self._node.station.policy_rate)
        pace = self._node.station.real_time_factor or 1.0
        deadline = time.monotonic() + 10.0 + 4.0 * plan.trajectory.duration / pace
        self._contact[arm.name] = move
        try:
            while not move.finished.wait(0.02):
                if goal.is_cancel_requested:
                    move.stop('cancelled')
                elif time.monotonic() > deadline:
                    move.stop('joint states do not come; is the station running?')
                else:
                    goal.publish_feedback(MoveArm.Feedback(
                        progress=min(1.0, move.elapsed(round(arm.stamp * SECOND)) / plan.trajectory.duration)))
        finally:
            del self._contact[arm.name]
        result.contact, result.force = move.contact, move.force
        if self._guarded.fault:
            raise PlanningError(f'stopped by the guard: {self._guarded.fault}')
        # The arm stays where it is, and the controller knows that no stream goes on.
        self._follow(goal, arm, standing_still(arm.positions))
        if not move.contact:
            raise PlanningError(f'{arm.name}: {move.reason}')

    # -- grippers

    def _grip(self, goal) -> MoveGripper.Result:
        request = goal.request
        if request.arm not in self._arms:
            return MoveGripper.Result(message=f"no arm '{request.arm}'; there are: {', '.join(self._arms)}")
        if not self._gripping[request.arm].acquire(blocking=False):
            return MoveGripper.Result(message=f'{request.arm}: another motion of this gripper is running; wait for '
                                              'its end or cancel it')
        try:
            self._await_state()
            self._guarded.check_gripper(request.arm, request.width, request.max_force)
            return self._grip_checked(goal, request)
        except (PlanningError, GuardRefusal, RemoteCallError) as error:
            self._node.get_logger().warning(f'gripper: {error}')
            return MoveGripper.Result(message=str(error))
        finally:
            self._gripping[request.arm].release()

    def _grip_checked(self, goal, request) -> MoveGripper.Result:
        command = GripperCommand.Goal()
        gripper = self._arms[request.arm].arm.gripper
        command.command.position, command.command.max_effort = gripper.position(request.width), request.max_force
        client = self._grippers[request.arm]
        watch = _ControllerWatch(f'{request.arm}: {client._action_name}', client.server_is_ready)

        def on_feedback(feedback) -> None:
            watch.heard()
            goal.publish_feedback(MoveGripper.Feedback(width=gripper.width(feedback.position), force=abs(feedback.effort)))

        try:
            outcome = call_action(
                self._node, client, command, timeout=GRIPPER_TIMEOUT, feedback=on_feedback,
                cancelled=lambda: goal.is_cancel_requested or bool(self._guarded.fault) or watch.lost())
        except RemoteCallCancelled:
            reason = (f'stopped by the guard: {self._guarded.fault}' if self._guarded.fault else
                      f'{request.arm}: cancelled' if goal.is_cancel_requested else watch.reason)
            return MoveGripper.Result(message=reason)
        result = MoveGripper.Result(width=gripper.width(outcome.position), force=abs(outcome.effort),
                                    stalled=outcome.stalled, reached=outcome.reached_goal,
                                    success=outcome.reached_goal or outcome.stalled)
        if not result.success:
            result.message = (f'{request.arm}: the gripper neither reached {request.width * 1000:.0f} mm nor stalled; '
                              f'it is at {result.width * 1000:.1f} mm')
        return result


class _ControllerWatch:
    """Notices a controller that is not there, does not begin, or goes silent in mid-motion."""

    def __init__(self, name: str, is_ready: Callable[[], bool]):
        self._name = name
        self._is_ready = is_ready
        self._began = self._heard_at = time.monotonic()
        self._heard = False
        self.reason = ''

    def heard(self) -> None:
        """Feedback came."""
        self._heard, self._heard_at = True, time.monotonic()

    def lost(self) -> bool:
        """Whether to give up; then `reason` says why and what to do."""
        now = time.monotonic()
        if self._heard and now - self._heard_at > FEEDBACK_TIMEOUT:
            self.reason = (f'{self._name} went silent in mid-motion {now - self._heard_at:.1f} s ago; nobody knows '
                           'whether the arm moves. Start the controller again, then move on')
        elif self._heard and not self._is_ready():
            self.reason = (f'{self._name} is gone in mid-motion; the arm holds what it was sent last. Start the '
                           'controller again, then move on')
        elif not self._heard and now - self._began > ACCEPT_TIMEOUT:
            self.reason = (f'{self._name} did not begin within {ACCEPT_TIMEOUT:g} s; is the controller running? The '
                           'goal is cancelled, also when it is accepted later')
        return bool(self.reason)


def _trajectory_goal(arm: ArmMotion, trajectory: JointTrajectory) -> FollowJointTrajectory.Goal:
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
    return message


def _duration(seconds: float) -> Duration:
    sec, nanosec = divmod(round(seconds * SECOND), SECOND)
    return Duration(sec=sec, nanosec=nanosec)
