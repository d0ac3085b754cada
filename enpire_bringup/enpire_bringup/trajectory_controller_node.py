"""Executes trajectories where ros2_control is absent: answers every joint state with joint commands.

Offers what joint_trajectory_controller and gripper_action_controller offer for each arm: the action
`<arm>/joint_trajectory_controller/follow_joint_trajectory`, the topic
`<arm>/joint_trajectory_controller/joint_trajectory` and the action `<arm>/gripper_controller/gripper_cmd`.
"""

from __future__ import annotations

import threading
import time
from array import array
from functools import partial

from control_msgs.action import FollowJointTrajectory, GripperCommand
from rclpy.clock import Clock, ClockType
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from enpire_bringup.actions import BlockingActionServer, GoalAborted
from enpire_bringup.control_ticks import is_policy_tick
from enpire_bringup.controller_link import find_link
from enpire_bringup.node_group import run_single
from enpire_bringup.station_node import LATEST_QOS, STATE_QOS, StationNode
from enpire_bringup.trajectory_controller import (
    SECOND, InvalidTrajectory, Outcome, StationMotion, TrajectoryGoal)

FEEDBACK_PERIOD = 0.05    # s of wall time between two feedback messages
LATE_CHECK_PERIOD = 0.02  # s of wall time between looks at an answer that waits for a streamed trajectory


class TrajectoryController(StationNode):
    """Node `trajectory_controller`; see the module's text and docs/architecture.md."""

    def __init__(self, **kwargs):
        super().__init__('trajectory_controller', needs_task=False, **kwargs)
        # The stamps of the joint states are the only time here; the clock topic would be work for nothing.
        self.set_parameters([Parameter('use_sim_time', value=False)])
        self._motion = StationMotion(self.station)
        self._lock = threading.Lock()            # of _motion and _state: goals run in threads of their own
        self._lockstep = self.station.lockstep
        self._tick_ns = round(SECOND / self.station.control_rate)
        self._state: tuple | None = None
        self._stamp = 0                          # ns, of _state
        self._answer_due: float | None = None    # wall time by which the state taken in last is answered anyway
        self._late_answers = 0
        self._command = JointState(name=list(self.station.joints))
        self._commands = self.create_publisher(JointState, 'joint_commands', STATE_QOS)
        self._link = find_link(self._commands.topic_name)
        self._servers = []
        for name, arm in self.station.arms.items():
            controller = f'{name}/joint_trajectory_controller'
            self.create_subscription(JointTrajectory, f'{controller}/joint_trajectory',
                                     partial(self._on_trajectory, name), LATEST_QOS)
            # A new trajectory replaces the one that runs, as joint_trajectory_controller does it.
            self._servers.append(BlockingActionServer(
                self, FollowJointTrajectory, f'{controller}/follow_joint_trajectory',
                partial(self._follow, name), busy_message=None))
            self._servers.append(BlockingActionServer(
                self, GripperCommand, f'{name}/gripper_controller/gripper_cmd',
                partial(self._move_gripper, name), busy_message=None))
        # The answer to a state must not wait for simulated time: that stands still until the answer.
        if self._lockstep:
            self.create_timer(LATE_CHECK_PERIOD, self._answer_if_late, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._order: list[int] | None = None
        self._names: list[str] | None = None
        if self._link is None:
            self.create_subscription(JointState, 'joint_states', self._on_state, STATE_QOS)
        else:
            self._link.connect(self._observe, lambda: self._motion.streamed)
        self.get_logger().info('joint states from: ' + ('the topic' if self._link is None else 'the world in this process'))

    # -- the control loop

    def _on_state(self, message: JointState) -> None:
        stamp = message.header.stamp.sec * SECOND + message.header.stamp.nanosec
        order = self._joint_order(message.name)
        if order is None:
            return
        if order == 'same':
            state = message.position, message.velocity, message.effort
        else:
            state = tuple([values[i] for i in order] for values in
                          (message.position, message.velocity, message.effort))
        self._observe(stamp, *state)

    def _observe(self, stamp: int, *state) -> None:
        """Take in a state (ns; positions, velocities, efforts in the order of the station's joints) and answer it."""
        with self._lock:
            stopped, command = self._take_in(stamp, state)
        if command is not None:
            self._send(command)
        if stopped is not None:
            self.get_logger().info(f'holding where the arms are: {stopped}', throttle_duration_sec=1.0)

    def _take_in(self, stamp: int, state) -> tuple:
        self._state, self._stamp = state, stamp
        stopped = self._motion.observe(stamp, *state)
        if not self._motion.ready:
            return stopped, None
        if (self._lockstep and self._motion.awaits(stamp)
                and is_policy_tick(stamp // self._tick_ns, self.station.policy_rate, self.station.control_rate)):
            self._answer_due = time.monotonic() + self.station.step_timeout
            return stopped, None
        return stopped, self._answer()

    def _joint_order(self, names):
        """'same', or the index in the message of each of the station's joints; None when one is missing."""
        if names == self._names:
            return self._order
        joints = list(self.station.joints)
        missing = [joint for joint in joints if joint not in names]
        if missing:
            self.get_logger().error(f'joint_states lack {", ".join(missing)}: not answered, so the arms hold',
                                    throttle_duration_sec=5.0)
            return None
        self._names = list(names)
        self._order = 'same' if self._names == joints else [self._names.index(joint) for joint in joints]
        return self._order

    def _answer(self) -> tuple:
        """(stamp, positions, velocities, efforts) that answer the newest state. To be sent without the lock: the world
        calls `_observe` under a lock of its own."""
        self._answer_due = None
        return self._stamp, *self._motion.command(self._state[0], self._state[1])

    def _send(self, command: tuple) -> None:
        stamp, positions, velocities, efforts = command
        if self._link is not None:
            self._link.command(stamp, positions, velocities, efforts)
            if not self._commands.get_subscription_count():
                return
        message = self._command
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, SECOND)
        message.position = array('d', positions)
        message.velocity = array('d', velocities)
        message.effort = array('d', efforts)
        self._commands.publish(message)

    def _answer_if_waited_for(self) -> tuple | None:
        """The answer to a state that waited for the stream, when nothing is left to wait for."""
        if self._answer_due is not None and not self._motion.awaits(self._motion.now):
            return self._answer()
        return None

    def _answer_if_late(self) -> None:
        with self._lock:
            if self._answer_due is None or time.monotonic() < self._answer_due:
                return
            # One miss must not cost a timeout a step: streaming begins again with the next trajectory.
            for arm in self._motion.arms.values():
                arm.streamed_at = None
            command = self._answer()
        self._send(command)
        self._late_answers += 1
        self.get_logger().warning(
            f'no streamed trajectory for a policy step within {self.station.step_timeout:g} s '
            f'({self._late_answers} so far): the arm goes on with what it had', throttle_duration_sec=5.0)

    # -- trajectories

    def _on_trajectory(self, name: str, message: JointTrajectory) -> None:
        arm = self._motion.arms[name]
        stamp = message.header.stamp.sec * SECOND + message.header.stamp.nanosec
        try:
            points = _points(message, arm.arm.joints)
            with self._lock:
                arm.follow(self._motion.now, stamp, points)
                if stamp:
                    arm.heard(self._motion.now, stamp)
                else:
                    arm.streamed_at = None      # it answers no state: a hold, after which nothing has to follow
                command = self._answer_if_waited_for()
            if command is not None:
                self._send(command)
        except InvalidTrajectory as error:
            self.get_logger().error(f'{name}: streamed trajectory ignored: {error}', throttle_duration_sec=1.0)

    def _follow(self, name: str, handle):
        arm = self._motion.arms[name]
        request = handle.request
        joints = arm.arm.joints
        try:
            goal = _goal(request, joints)
            points = _points(request.trajectory, joints)
            stamp = request.trajectory.header.stamp
            with self._lock:
                arm.follow(self._motion.now, stamp.sec * SECOND + stamp.nanosec, points, goal)
                arm.streamed_at = None
                # The stream has ended: a policy step that waits for its next trajectory waits in vain.
                command = self._answer_if_waited_for()
            if command is not None:
                self._send(command)
        except InvalidTrajectory as error:
            raise GoalAborted(_result(error.outcome, f'{name}: {error}')) from error
        while not goal.finished.wait(FEEDBACK_PERIOD):
            if handle.is_cancel_requested:
                with self._lock:
                    if arm.goal is goal:
                        arm.hold('cancelled')
                break
            handle.publish_feedback(self._feedback(arm))
        result = _result(goal.outcome, f'{name}: {goal.message}' if goal.message else '')
        if goal.outcome is not Outcome.SUCCESSFUL:
            raise GoalAborted(result)
        return result

    def _feedback(self, arm) -> FollowJointTrajectory.Feedback:
        feedback = FollowJointTrajectory.Feedback(joint_names=list(arm.arm.joints))
        start = self.station.joints.index(arm.arm.joints[0])
        with self._lock:
            elapsed, positions, velocities, index = arm.progress(self._motion.now)
            actual = self._state[0][start:start + len(positions)]
            feedback.header.stamp.sec, feedback.header.stamp.nanosec = divmod(self._stamp, SECOND)
        feedback.index = index
        feedback.desired.positions, feedback.desired.velocities = positions, velocities
        feedback.actual.positions = list(actual)
        feedback.error.positions = [a - b for a, b in zip(positions, actual)]
        elapsed_ns = max(0, round(elapsed * SECOND))
        for point in (feedback.desired, feedback.actual, feedback.error):
            point.time_from_start.sec, point.time_from_start.nanosec = divmod(elapsed_ns, SECOND)
        return feedback

    # -- grippers

    def _move_gripper(self, name: str, handle):
        motion = self._motion.grippers[name]
        command = handle.request.command
        with self._lock:
            if self._motion.now is None:
                raise RuntimeError(f'{name}: no joint state has arrived yet, so the gripper cannot move')
            goal = motion.move(self._motion.now, command.position, command.max_effort)
        while not goal.finished.wait(FEEDBACK_PERIOD):
            if handle.is_cancel_requested:
                with self._lock:
                    if motion.goal is goal:
                        motion.stop('cancelled')
                break
            position, _, effort = motion.measured
            handle.publish_feedback(GripperCommand.Feedback(position=position, effort=effort))
        position, _, effort = motion.measured
        result = GripperCommand.Result(position=position, effort=effort, stalled=goal.stalled,
                                       reached_goal=goal.reached)
        if goal.message:
            self.get_logger().warning(f'{name}: gripper: {goal.message}')
            raise GoalAborted(result)
        return result

    def destroy_node(self) -> None:
        if self._link is not None:
            self._link.close()
        for server in self._servers:
            server.close(0.3)
        super().destroy_node()


def _goal(request: FollowJointTrajectory.Goal, joints) -> TrajectoryGoal:
    path = _tolerances(request.path_tolerance, joints, 'path_tolerance')
    goal = _tolerances(request.goal_tolerance, joints, 'goal_tolerance')
    bound = request.goal_time_tolerance
    return TrajectoryGoal([t[0] for t in path], [t[0] for t in goal], [t[1] for t in goal],
                          bound.sec + bound.nanosec / SECOND)


def _tolerances(messages, joints, what: str) -> list[tuple[float, float]]:
    """(position, velocity) for each joint; 0 where nothing is to be checked."""
    values = {joint: (0.0, 0.0) for joint in joints}
    for tolerance in messages:
        if tolerance.name not in values:
            raise InvalidTrajectory(Outcome.INVALID_JOINTS, f"{what} names '{tolerance.name}'; the joints are "
                                                            + ', '.join(joints))
        values[tolerance.name] = tolerance.position, tolerance.velocity
    return [values[joint] for joint in joints]


def _points(message: JointTrajectory, joints) -> list[tuple]:
    """The points in the order of `joints`; every joint of the arm has to be named."""
    names = list(message.joint_names)
    if sorted(names) != sorted(joints):
        raise InvalidTrajectory(Outcome.INVALID_JOINTS,
                                f'joint_names are {names}; expected each of {", ".join(joints)} once')
    order = None if names == list(joints) else [names.index(joint) for joint in joints]
    points = []
    for point in message.points:
        if len(point.positions) != len(names) or (point.velocities and len(point.velocities) != len(names)):
            raise InvalidTrajectory(Outcome.INVALID_JOINTS,
                                    f'a point has {len(point.positions)} positions and {len(point.velocities)} '
                                    f'velocities for {len(names)} joints')
        positions = list(point.positions)
        velocities = list(point.velocities) if point.velocities else None
        if order is not None:
            positions = [positions[i] for i in order]
            velocities = [velocities[i] for i in order] if velocities is not None else None
        points.append((point.time_from_start.sec + point.time_from_start.nanosec / SECOND, positions, velocities))
    return points


def _result(outcome: Outcome, message: str) -> FollowJointTrajectory.Result:
    return FollowJointTrajectory.Result(error_code=outcome.value, error_string=message)


def main() -> None:
    run_single(TrajectoryController)


if __name__ == '__main__':
    main()
