"""The station as a trial sees it, over ROS topics and actions. Used from a trial's worker thread."""

from __future__ import annotations

import math
import time
from collections import deque
from typing import Callable

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.action import ActionClient
from rclpy.parameter import Parameter
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from enpire_agent.recorded_station import SECOND, RecordedStation, judgement_of
from enpire_agent.start_places import CLEARANCE, StartPlaces
from enpire_agent.trial import ABORTED, POLICY_ERROR, RESET_FAILED, SAFETY_STOP, Judgement, Step
from enpire_agent.trial import TrialEnd
from enpire_bringup.actions import call_action, call_service
from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.guard import guard_limits
from enpire_bringup.kinematics import ArmKinematics, quaternion_of
from enpire_bringup.object_pose_messages import read_object_pose
from enpire_bringup.safety_limits import tightened
from enpire_bringup.serialized_messages import JointStateReader, stamp_of
from enpire_bringup.station_node import LATCHED_QOS, LATEST_QOS, STATE_QOS, StationNode
from enpire_msgs.action import MoveArm, MoveGripper
from enpire_msgs.msg import ObjectPose, Verdict

# Bounds in s of wall time.
MOVE_BOUND = 60.0
GRIPPER_BOUND = 30.0
TIME_JUMP = 2.2              # s of ROS time between two joint states; a world that was reset goes on 1.0 to 2.01 s later
STATE_SILENCE = 8.0          # without a joint state: the station is gone
VIEW_SILENCE = 5.0           # without an object pose or a verdict: the camera or what looks at it is gone
VERDICT_TRAILS = 1           # policy steps behind the object poses: the reward program then judges while the world goes on
VIEW_WAIT_LOCKSTEP = 2.0     # for the view of one step; then the step goes on with the view before
VIEW_WAIT_REAL_TIME = 0.004
LOOK_BOUND = 8.0             # for a verdict with a clear view
CLEAR_BOUND = 5.0            # for the arms to stand, so that the guard can be cleared
STATUS_BOUND = 1.0           # for the guard's status to follow when it was cleared

LONGEST_BACKLOG = 3          # policy steps of a lockstep world that are answered one after the other
STEPS_TO_BE_IN_STEP = 3      # consecutive policy steps answered in time before the policy starts
RISES = (CLEARANCE, 0.07, 0.05)   # m that the arm rises after a trial; the first that it can
CLOSING_FORCE = 15.0         # N
SETTLED_LOOK = 0.6           # s of ROS time after the retreat until "not yet" is believed: the object must lie still
REFUSED_STEPS = 30           # consecutive policy steps whose targets the guard refused end a trial

def step_number(stamp: int, rate: float) -> int:
    """Number of the step of `rate` (Hz) that is under way at `stamp` (ns)."""
    return math.floor(stamp * rate / SECOND + 1e-6)


class RosTrialStation(RecordedStation):
    """Implements `trial.TrialStation` with the topics and actions of a station of arms and cameras."""

    def __init__(self, node: StationNode):
        super().__init__(node, {'joint_states': '', 'object_poses': 'camera_perception', 'verdict': 'success_detector'})
        self._station = node.station
        self._arm = node.station.arms[node.task.action.arm]
        self._kinematics = ArmKinematics(node.station, self._arm.name)
        self.lockstep = node.station.lockstep
        self._objects = tuple(name for name in node.task.observation if name in node.task.objects)
        self._start_places = StartPlaces(node.station, node.task, self._kinematics)
        camera = node.station.cameras[node.task.objects[node.task.goal.object].camera]
        self._camera = camera
        self._tick = SECOND / node.station.control_rate

        self._last_stamp = -1
        self._state_heard = time.monotonic()
        self._view_heard: dict[str, float] = {}     # object or 'verdict' -> wall time of its newest message
        self._steps: deque = deque(maxlen=64)       # (stamp, positions) of the policy steps
        self._joint_states = JointStateReader()
        self._poses: dict[str, deque] = {name: deque(maxlen=32) for name in self._objects}
        self._verdicts: deque[Judgement] = deque(maxlen=64)
        self._limits: dict[str, float] | None = None      # that the guard enforces; None: nobody knows
        self.guard_fault = ''
        self._guard_refuses = ''
        self._refused_steps = 0
        self._time_jump = 0.0           # s
        self._start = np.full(2, math.nan)          # m, of the tip, where the policy starts

        node.create_subscription(JointState, 'joint_states', self._on_joint_state, STATE_QOS, raw=True)
        node.create_subscription(ObjectPose, 'object_poses', self._on_pose, STATE_QOS, raw=True)
        node.create_subscription(Verdict, 'verdict', self._on_verdict, STATE_QOS, raw=True)
        node.create_subscription(DiagnosticStatus, 'guard_status', self._on_guard, LATCHED_QOS)
        self._film(camera.image_topic)
        self._servo = node.create_publisher(PoseStamped, f'{self._arm.name}/servo', LATEST_QOS)
        self._move_client = ActionClient(node, MoveArm, 'move_arm')
        self._gripper_client = ActionClient(node, MoveGripper, 'gripper')
        self._clear_client = node.create_client(Trigger, 'guard/clear')
        self._limits_client = node.create_client(SetParametersAtomically, 'arm_control/set_parameters_atomically')

    # --- life of a trial ---

    def begin(self, cancelled: Callable[[], bool]) -> None:
        """Forget the last trial and listen."""
        with self._news:
            self._begin(cancelled)
            self._refused_steps = 0
            self._time_jump = 0.0
            self._steps.clear()
            self._verdicts.clear()
            for poses in self._poses.values():
                poses.clear()
            self._state_heard = time.monotonic()
            self._view_heard = dict.fromkeys((*self._objects, 'verdict'), self._state_heard)
        if self.guard_fault:
            # The fault of an earlier motion, which its own trial has recorded; a new one comes at the first move.
            self._node.get_logger().warning(f'clearing the guard before a trial: {self.guard_fault}')
            self._clear_guard()
        self.use_limits({})

    def _clear_guard(self) -> None:
        deadline = time.monotonic() + CLEAR_BOUND
        while True:
            response = self._call(lambda: call_service(self._node, self._clear_client, Trigger.Request(), timeout=5.0),
                                  SAFETY_STOP)
            with self._news:
                # The status comes by another way than the answer, and after it.
                if response.success and self._news.wait_for(lambda: not self.guard_fault, STATUS_BOUND):
                    return
            if self._closing or time.monotonic() > deadline:
                raise TrialEnd(SAFETY_STOP, self.guard_fault if response.success else response.message)
            time.sleep(0.1)      # an arm may still be coming to rest

    def use_limits(self, changes: dict[str, float]) -> None:
        base = guard_limits(self._station, self._task)
        try:
            values = tightened(base, changes, 'recipe.yaml', f'{self._task.file} with {self._station.file}').values()
        except ConfigurationError as error:
            raise TrialEnd(POLICY_ERROR, str(error)) from error
        if values == self._limits:
            return
        request = SetParametersAtomically.Request(parameters=[
            Parameter(f'limits.{name}', value=value).to_parameter_msg() for name, value in values.items()])
        # Whatever comes of it, it is not what it was.
        self._limits = None
        result = self._call(lambda: call_service(self._node, self._limits_client, request, timeout=5.0), ABORTED).result
        if not result.successful:
            raise TrialEnd(ABORTED, f'the guard does not take the limits: {result.reason}')
        self._limits = values

    # --- what a trial asks ---

    def now(self) -> int:
        return self._last_stamp

    def stop_reason(self) -> tuple[str, str] | None:
        ended = self._ended_from_outside()
        if ended is not None:
            return ended
        if self._time_jump:
            return ABORTED, (f'ROS time jumped by {self._time_jump:.1f} s under the trial: the world or the '
                             'driver was started anew, or the trial runner stood still')
        if self.guard_fault:
            return SAFETY_STOP, self.guard_fault
        if self._refused_steps >= REFUSED_STEPS:
            return SAFETY_STOP, f'{self._refused_steps} targets in a row were refused: {self._guard_refuses}'
        return None

    def go_to_start(self) -> None:
        grip = MoveGripper.Goal(arm=self._arm.name, width=0.0,
                                max_force=min(CLOSING_FORCE, self._arm.gripper.max_effort))
        result = self._call(lambda: call_action(self._node, self._gripper_client, grip, timeout=GRIPPER_BOUND,
                                                cancelled=self._is_stopped), RESET_FAILED)
        if not result.success:
            raise TrialEnd(*((SAFETY_STOP, self.guard_fault) if self.guard_fault else (RESET_FAILED, result.message)))
        height = self._task.action.height
        x, y = self._start = np.array(self._start_places.farthest_from(self._object_position()))
        self._move(self._tip_goal(MoveArm.Goal.POSE, x, y, height + CLEARANCE))
        self._move(self._tip_goal(MoveArm.Goal.LINEAR, x, y, height))

    def first_step(self) -> Step:
        """Hold the tip until the world keeps step with the answers.

        Before the first target nobody waits for one: a lockstep world has gone on by the time the answer is there, on a
        busy machine so far that the guard takes the stream for broken off. That is no violation while the arm stands,
        so the targets are where it was sent, not where it is, which gravity makes another place.
        """
        self._film_all()
        after, in_step = self._last_stamp, 0
        deadline = time.monotonic() + STATE_SILENCE
        rate = self._task.policy.rate
        while in_step < STEPS_TO_BE_IN_STEP:
            stamp, _ = self._wait_for_state(after, newest=True)
            in_step = in_step + 1 if step_number(stamp, rate) == step_number(after, rate) + 1 else 0
            self.command(stamp, self._start)
            after = stamp
            if time.monotonic() > deadline:
                raise TrialEnd(ABORTED, f'the station did not keep step with the policy within {STATE_SILENCE:g} s')
        self._refused_steps = 0     # the first targets were late, as said
        return self.next_step(after)

    def next_step(self, after: int) -> Step:
        stamp, positions = self._wait_for_state(after)
        period = SECOND / self._task.policy.rate
        limit = stamp - round(self._task.policy.camera_latency * period) + self._tick - 1
        judged = limit - round(VERDICT_TRAILS * period)
        self._wait_for_view(limit, judged)
        with self._news:
            views = {name: _newest(poses, limit) for name, poses in self._poses.items()}
            verdict = _newest(self._verdicts, judged, lambda judgement: judgement.stamp)
        arm = [positions[self._station.joints.index(joint)] for joint in self._arm.joints]
        tip = self._kinematics.tip(arm)[:2]
        observation = {}
        for name in self._task.observation:
            if name in self._poses:
                view = views[name]
                observation[name] = {'pose': view[1] if view else np.full(3, math.nan),
                                     'visible': bool(view and view[2])}
        if 'tip' in self._task.observation:
            observation['tip'] = tip
        if 'joint_positions' in self._task.observation:
            observation['joint_positions'] = np.array(positions)
        return Step(stamp, observation, tip, verdict)

    def command(self, stamp: int, target: np.ndarray) -> None:
        message = self._tip_pose(target[0], target[1], self._task.action.height)
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, SECOND)
        self._refused_steps = self._refused_steps + 1 if self._guard_refuses else 0
        self._servo.publish(message)

    def retreat(self) -> int:
        if self._closing:
            raise TrialEnd(ABORTED, 'the trial runner was stopped')
        x, y = self._tip_now()
        home = MoveArm.Goal(arm=self._arm.name, mode=MoveArm.Goal.NAMED, named='home')
        # Straight up, so that nothing is pushed on the way; at the far edge of its reach the arm rises less.
        for height in RISES:
            try:
                self._move(self._tip_goal(MoveArm.Goal.LINEAR, x, y, self._task.action.height + height),
                           even_if_cancelled=True)
                break
            except TrialEnd as end:
                if height == RISES[-1]:
                    self._node.get_logger().warning(f'the arm retreats without rising first: {end.reason}')
        self._move(home, even_if_cancelled=True)
        return self._last_stamp

    def clear_verdict(self, after: int) -> Judgement | None:
        settled = after + round(SETTLED_LOOK * SECOND)
        deadline = time.monotonic() + LOOK_BOUND
        last = None
        with self._news:
            while time.monotonic() < deadline and not self._closing:
                for verdict in self._verdicts:
                    if verdict.stamp > after and verdict.outcome != 'abstain':
                        last = verdict
                        if verdict.outcome == 'success':
                            return verdict
                # An object that was hidden until now, or moves, is not judged yet: it may turn out to lie still.
                if last is not None and last.stamp >= settled and not _only_unsettled(last):
                    return last
                self._news.wait(0.1)
        return last

    # --- waiting ---

    def _wait_for_state(self, after: int, newest: bool = False) -> tuple[int, list[float]]:
        """The state of the first policy step after a stamp; where the world does not wait, of the newest."""
        newest = newest or not self.lockstep
        with self._news:
            while True:
                # The world gave up waiting for somebody who did not get to run; what was missed is past.
                newest = newest or (len(self._steps) > LONGEST_BACKLOG and self._steps[-1 - LONGEST_BACKLOG][0] > after)
                for stamp, positions in (reversed(self._steps) if newest else self._steps):
                    if stamp > after:
                        return stamp, positions
                self._raise_if_closing()
                silent = time.monotonic() - self._state_heard
                if silent > STATE_SILENCE:
                    raise TrialEnd(ABORTED, f'no joint states for {silent:.1f} s; is the station running?')
                self._news.wait(0.1)

    def _wait_for_view(self, limit: float, judged: float) -> None:
        """Until the objects in the camera's newest frame before `limit` (ns) were located, and that before `judged` was
        judged, within the step's bound."""
        wanted = step_number(limit, self._camera.rate), step_number(judged, self._camera.rate)
        deadline = time.monotonic() + (VIEW_WAIT_LOCKSTEP if self.lockstep else VIEW_WAIT_REAL_TIME)
        with self._news:
            while not self._view_is_there(*wanted):
                self._raise_if_closing()
                now = time.monotonic()
                quiet = min(self._view_heard, key=self._view_heard.get)
                if now - self._view_heard[quiet] > VIEW_SILENCE:
                    topic = quiet if quiet == 'verdict' else f'object_poses ({quiet})'
                    raise TrialEnd(ABORTED, f'{topic} is silent for {now - self._view_heard[quiet]:.1f} s; is the '
                                            f'{self._camera.name} camera working?')
                if now >= deadline:
                    return
                self._news.wait(max(0.001, min(0.1, deadline - now)))

    def _view_is_there(self, located: int, judged: int) -> bool:
        rate = self._camera.rate
        return (all(poses and step_number(poses[-1][0], rate) >= located for poses in self._poses.values())
                and bool(self._verdicts) and step_number(self._verdicts[-1].stamp, rate) >= judged)

    def _is_stopped(self) -> bool:
        return super()._is_stopped() or self._time_jump != 0.0

    # --- moving ---

    def _move(self, goal: MoveArm.Goal, even_if_cancelled: bool = False) -> None:
        cancelled = (lambda: self._closing) if even_if_cancelled else self._is_stopped
        result = self._call(lambda: call_action(self._node, self._move_client, goal, timeout=MOVE_BOUND,
                                                cancelled=cancelled), RESET_FAILED)
        if not result.success:
            if self.guard_fault:
                raise TrialEnd(SAFETY_STOP, self.guard_fault)
            raise TrialEnd(RESET_FAILED, result.message)

    def _tip_goal(self, mode: int, x: float, y: float, z: float) -> MoveArm.Goal:
        return MoveArm.Goal(arm=self._arm.name, mode=mode, pose=self._tip_pose(x, y, z))

    def _tip_pose(self, x: float, y: float, z: float) -> PoseStamped:
        pose = self._start_places.tool(x, y, z)
        message = PoseStamped()
        message.header.frame_id = 'world'
        position, orientation = message.pose.position, message.pose.orientation
        position.x, position.y, position.z = float(x), float(y), float(z)
        orientation.x, orientation.y, orientation.z, orientation.w = quaternion_of(pose)
        return message

    def _tip_now(self) -> np.ndarray:
        with self._news:
            if not self._steps:
                raise TrialEnd(ABORTED, 'no joint state has arrived')
            positions = self._steps[-1][1]
        return self._kinematics.tip([positions[self._station.joints.index(j)] for j in self._arm.joints])[:2]

    def _object_position(self) -> np.ndarray:
        deadline = time.monotonic() + VIEW_SILENCE
        poses = self._poses[self._task.goal.object]
        with self._news:
            while time.monotonic() < deadline and not self._closing:
                for _, pose, visible in reversed(poses):
                    if visible and np.isfinite(pose).all():
                        return pose[:2]
                self._news.wait(0.1)
        raise TrialEnd(RESET_FAILED, f'{self._task.goal.object} is not seen after the reset')

    # --- callbacks, in the executor's thread ---

    def _on_joint_state(self, data: bytes, info: dict) -> None:
        if not self._publishers['joint_states'].accepts(info):
            return
        stamp = stamp_of(data)
        previous, self._last_stamp = self._last_stamp, stamp
        self._state_heard = time.monotonic()
        rate = self._task.policy.rate
        if self._active and previous >= 0 and not 0 <= stamp - previous <= TIME_JUMP * SECOND:
            self._time_jump = (stamp - previous) / SECOND
        if not self._active or step_number(stamp, rate) <= step_number(previous, rate):
            return
        _, names, measured, *_ = self._joint_states.read(data)
        known = dict(zip(names, measured))
        missing = [joint for joint in self._station.joints if joint not in known]
        if missing:
            self._node.get_logger().error(f'joint_states lack {", ".join(missing)}', throttle_duration_sec=5.0)
            return
        positions = [known[joint] for joint in self._station.joints]
        with self._news:
            self._steps.append((stamp, positions))
            self._news.notify_all()
        self._recorder.message('joint_states', 'sensor_msgs/msg/JointState', data, stamp)
        self._record_image(stamp)

    def _on_pose(self, data: bytes, info: dict) -> None:
        if not (self._active and self._publishers['object_poses'].accepts(info)):
            return
        found = read_object_pose(data)
        poses = self._poses.get(found.object_id)
        if poses is not None:
            with self._news:
                self._view_heard[found.object_id] = time.monotonic()
                poses.append((found.stamp, found.pose, found.visible))
                self._news.notify_all()
        self._recorder.message('object_poses', 'enpire_msgs/msg/ObjectPose', data, found.stamp)

    def _on_verdict(self, data: bytes, info: dict) -> None:
        if not (self._active and self._publishers['verdict'].accepts(info)):
            return
        judgement = judgement_of(deserialize_message(data, Verdict))
        with self._news:
            self._view_heard['verdict'] = time.monotonic()
            self._verdicts.append(judgement)
            self._news.notify_all()
        self._recorder.message('verdict', 'enpire_msgs/msg/Verdict', data, judgement.stamp)

    def _on_guard(self, message: DiagnosticStatus) -> None:
        state = next((entry.value for entry in message.values if entry.key == 'state'), '')
        # A guard that is silent has not stopped anything: a station that comes up waits for its first joint state, and
        # joint states that stay away end a trial by its own bounds.
        with self._news:
            self.guard_fault = message.message if state == 'latched' else ''
            self._guard_refuses = message.message if state == 'refused' else ''
            self._news.notify_all()


def _only_unsettled(verdict: Judgement) -> bool:
    """Whether nothing but the time that the object has lain still is missing."""
    failed = [check.name for check in verdict.checks if not check.passed]
    return failed == ['still']


def _newest(entries, limit: float, stamp=lambda entry: entry[0]):
    for entry in reversed(entries):
        if stamp(entry) <= limit:
            return entry
    return None
