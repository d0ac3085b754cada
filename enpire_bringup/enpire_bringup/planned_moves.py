"""The planned half of arm_control: the action `move_arm`, through the arms' trajectory controllers."""

from __future__ import annotations

import threading
from typing import Callable

import numpy as np
from builtin_interfaces.msg import Duration
from control_msgs.action import FollowJointTrajectory
from control_msgs.msg import JointTolerance
from enpire_msgs.action import MoveArm
from rclpy.action import ActionClient
from trajectory_msgs.msg import JointTrajectoryPoint

from enpire_bringup.actions import BlockingActionServer, RemoteCallCancelled, RemoteCallError, call_action
from enpire_bringup.arm_motion import ArmMotion
from enpire_bringup.guard import GuardViolation
from enpire_bringup.kinematics import pose_matrix
from enpire_bringup.motion_planning import PLANNER, PlanningError
from enpire_bringup.station_node import StationNode
from enpire_bringup.trajectory import JointTrajectory

PATH_TOLERANCE = 0.3       # rad off the path at which the arm must be blocked
GOAL_TOLERANCE = 0.025     # rad: what is carried makes the arm sag
STOPPED_VELOCITY = 0.03    # rad/s
GOAL_TIME_TOLERANCE = 1.5  # s
SECOND = 1_000_000_000


class PlannedMoves:
    """The action `move_arm` of a node that owns `arms`.

    held: why the guard lets nothing through, '' when it does; asked often, also in mid-motion.
    moved: called with the name of an arm that has ended a move well.
    """

    def __init__(self, node: StationNode, arms: dict[str, ArmMotion], *, held: Callable[[], str],
                 moved: Callable[[str], None]):
        self._node = node
        self._arms = arms
        self._held = held
        self._moved = moved
        self._busy: dict[str, threading.Lock] = {name: threading.Lock() for name in arms}
        self._clients = {
            name: ActionClient(node, FollowJointTrajectory, f'{name}/joint_trajectory_controller/follow_joint_trajectory')
            for name in arms}
        node.get_logger().info(f'planner: {PLANNER}')
        # Goals for different arms overlap; one arm runs one at a time.
        self._server = BlockingActionServer(node, MoveArm, 'move_arm', self._move, busy_message=None)

    def busy(self, name: str) -> bool:
        """Whether a planned move of this arm runs."""
        return self._busy[name].locked()

    def close(self) -> None:
        self._server.close(0.3)

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
            self._node.get_logger().warning(f'move_arm: {error}')
            return self._result(arm, False, str(error))
        finally:
            busy.release()

    def _move_checked(self, goal, request, arm: ArmMotion) -> MoveArm.Result:
        if self._held():
            return self._result(arm, False, f'the guard holds: {self._held()}; call guard/clear when that is resolved')
        if arm.positions is None:
            return MoveArm.Result(message=f'{arm.name}: no joint state has arrived yet; is the station running?')
        began = arm.stamp
        start = arm.start()
        trajectory = self._plan(request, arm, start)
        arm.guard.check_trajectory(trajectory, start)
        arm.sent(None)
        result = self._follow(goal, arm, trajectory)
        if self._held():
            return self._result(arm, False, f'stopped by the guard: {self._held()}', began)
        if result.error_code != FollowJointTrajectory.Result.SUCCESSFUL:
            return self._result(arm, False, result.error_string or f'the controller failed with {result.error_code}',
                                began)
        arm.sent(trajectory.positions[-1])
        self._moved(arm.name)
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
        pace = self._node.station.real_time_factor or 1.0
        bound = 10.0 + 4.0 * (trajectory.duration + GOAL_TIME_TOLERANCE) / pace
        try:
            return call_action(self._node, self._clients[arm.name], message, timeout=bound, feedback=on_feedback,
                               cancelled=lambda: goal.is_cancel_requested or bool(self._held()))
        except RemoteCallCancelled:
            return FollowJointTrajectory.Result(
                error_code=FollowJointTrajectory.Result.INVALID_GOAL, error_string=f'{arm.name}: cancelled')

    def _result(self, arm: ArmMotion, success: bool, message: str, began: float | None = None) -> MoveArm.Result:
        positions = [float(value) for value in arm.positions] if arm.positions is not None else []
        return MoveArm.Result(success=success, message=message, joints=positions,
                              duration=arm.stamp - began if began is not None else 0.0)


def _duration(seconds: float) -> Duration:
    sec, nanosec = divmod(round(seconds * SECOND), SECOND)
    return Duration(sec=sec, nanosec=nanosec)
