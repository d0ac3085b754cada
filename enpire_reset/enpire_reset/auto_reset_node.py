"""Brings the task's object back to the start pose of a seed, and looks whether it is there: the action `reset`.

Offers every skill that it uses as an action of its own, too: skills/go_home, skills/locate, ...; see docs/skills.md.
"""

from __future__ import annotations

import math
import threading
from functools import partial
from typing import Callable

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image

from enpire_bringup.actions import BlockingActionServer, RemoteCallError, RunningGoal, call_service
from enpire_bringup.image_messages import ImageMessageError, fill_image, read_image
from enpire_bringup.kinematics import quaternion_of
from enpire_bringup.node_group import run_single
from enpire_bringup.paths import runs_directory
from enpire_bringup.station_node import LATCHED_QOS, StationNode
from enpire_msgs.action import Reset, UseSkill
from enpire_msgs.msg import ResetAttempt
from enpire_msgs.srv import Hold
from enpire_reset.reset_program import Attempt, ResetOutcome, ResetProgram
from enpire_reset.reset_record import ResetRecord, captioned
from enpire_reset.robot import SkillCancelled, SkillError
from enpire_reset.skill_actions import SKILL_ACTIONS, SkillAction
from enpire_reset.skills import Skills
from enpire_reset.station_robot import StationRobot

PICTURE_TIMEOUT = 2.0     # s of wall time for the picture of what was seen
HOLD_TIMEOUT = 5.0        # s of wall time


class AutoReset(StationNode):
    """Node `auto_reset`: runs the task's reset.py, at most three attempts a goal, or a skill; one thing at a time."""

    def __init__(self, **kwargs):
        super().__init__('auto_reset', **kwargs)
        # The joint states' stamps are the time here; the clock topic would be work for nothing.
        self.set_parameters([Parameter('use_sim_time', value=False)])
        self._program = ResetProgram(self.task)
        self._robot = StationRobot(self, self.station)
        self._skills = Skills(self.station, self.task, self._robot)
        self._record = ResetRecord(runs_directory() / 'resets' / (self.get_namespace().strip('/') or self.station.name))
        self._last_view = self.create_publisher(Image, 'reset/last_view', LATCHED_QOS)
        self._hold = self.create_client(Hold, 'hold')
        self._turn = threading.Lock()
        self._running = ''
        self._servers = [self._serve(Reset, 'reset', self._reset)]
        self._servers += [self._serve(UseSkill, f'skills/{action.name}', partial(self._use_skill, action))
                          for action in SKILL_ACTIONS]
        self.get_logger().info(
            f'reset program: {self.task.reset}, tolerance {self._program.tolerance[0] * 1000:.0f} mm and '
            f'{math.degrees(self._program.tolerance[1]):.0f} deg')

    def _serve(self, action_type, name: str, execute: Callable) -> BlockingActionServer:
        return BlockingActionServer(self, action_type, name, partial(self._in_turn, name, execute), busy_message=None)

    def _in_turn(self, name: str, execute: Callable, goal: RunningGoal):
        """One goal at a time over all actions: they move the same arms."""
        if not self._turn.acquire(blocking=False):
            raise SkillError(f'{self._running} is running; wait for its end or cancel it')
        try:
            self._running = name
            self._robot.cancelled = lambda: goal.is_cancel_requested
            return execute(goal)
        finally:
            self._robot.cancelled = lambda: False
            self._turn.release()

    # -- the action `reset`

    def _reset(self, goal: RunningGoal) -> Reset.Result:
        seed = goal.request.seed
        feedback = Reset.Feedback()

        def report(stage: str) -> None:
            feedback.stage = stage
            goal.publish_feedback(feedback)

        def begin_attempt(attempt: int) -> None:
            feedback.attempt = attempt
            report('look')

        self._skills.report = report
        began = self._robot.now()
        try:
            outcome = self._program.run(self._skills, seed, begin_attempt)
        except SkillCancelled as error:
            return Reset.Result(success=False, message=f'cancelled: {error}', attempts=feedback.attempt)
        duration = self._robot.now() - began
        picture = '' if outcome.success else self._give_up(seed, outcome)
        self._record.append(seed, outcome, duration, picture)
        summary = (f'seed {seed}: {"done" if outcome.success else "failed"} after {len(outcome.attempts)} attempts in '
                   f'{duration:.1f} s: {outcome.message}')
        # rclpy refuses two severities from one line of code.
        if outcome.success:
            self.get_logger().info(summary)
        else:
            self.get_logger().warning(summary)
        return Reset.Result(
            success=outcome.success, message=outcome.message, attempts=len(outcome.attempts),
            tried=[self._attempt(attempt) for attempt in outcome.attempts], target=self._planar(outcome.target),
            reached=self._planar(outcome.reached), position_error=outcome.position_error, yaw_error=outcome.yaw_error,
            duration=duration, picture=picture)

    def _attempt(self, attempt: Attempt) -> ResetAttempt:
        return ResetAttempt(
            success=attempt.success, reason=attempt.reason, before=self._planar(attempt.before),
            after=self._planar(attempt.after), position_error=attempt.position_error, yaw_error=attempt.yaw_error,
            duration=attempt.duration)

    # -- giving up

    def _give_up(self, seed: int, outcome: ResetOutcome) -> str:
        """Show what the camera sees and have the station hold; the path of the picture, '' where there is none."""
        reason = f'the reset for seed {seed} gave up after {len(outcome.attempts)} attempts: {outcome.message}'
        picture = self._show(seed, reason)
        self._hold_station(f'{reason}; picture: {picture or "none, no camera answered"}')
        return picture

    def _show(self, seed: int, reason: str) -> str:
        camera = self.station.cameras[self.task.objects[self.task.start.object].camera]
        try:
            # The overlay says what perception made of the image; without perception the bare image has to do.
            message = (self._robot.image(f'{camera.name}_camera/overlay', PICTURE_TIMEOUT)
                       or self._robot.image(camera.image_topic, PICTURE_TIMEOUT))
            if message is None:
                return ''
            image = captioned(read_image(message, 'rgb8'), reason)
            shown = Image(header=message.header)
            fill_image(shown, image, 'rgb8')
            self._last_view.publish(shown)
            return str(self._record.save_picture(seed, image))
        except (SkillError, ImageMessageError, OSError) as error:
            self.get_logger().error(f'no picture of what was seen: {error}')
            return ''

    def _hold_station(self, reason: str) -> None:
        if not self._hold.service_is_ready():
            self.get_logger().warning('no supervisor is running that could hold the station')
            return
        try:
            call_service(self, self._hold, Hold.Request(reason=reason), timeout=HOLD_TIMEOUT)
        except RemoteCallError as error:
            self.get_logger().error(f'the station was not held: {error}')

    # -- the actions skills/...

    def _use_skill(self, action: SkillAction, goal: RunningGoal) -> UseSkill.Result:
        result = UseSkill.Result(width=math.nan, force=math.nan, pose=self._planar(None))
        self._skills.report = lambda stage: goal.publish_feedback(UseSkill.Feedback(stage=stage))
        try:
            began = self._robot.now()
            try:
                end = action.use(self._skills, action.read(self._skills, goal.request))
            finally:
                result.duration = self._robot.now() - began
        except SkillError as error:
            self.get_logger().warning(f'skills/{action.name}: {error}')
            result.message = str(error)
            return result
        result.success, result.pose = True, self._posed(end.pose)
        if end.grip is not None:
            result.width, result.force, result.stalled = end.grip.width, end.grip.force, end.grip.stalled
        return result

    # -- messages

    def _planar(self, planar: tuple[float, float, float] | None) -> PoseStamped:
        """A planar pose on the table, NaN for None."""
        x, y, yaw = planar if planar is not None else (math.nan,) * 3
        message = self._stamped()
        message.pose.position.x, message.pose.position.y = x, y
        message.pose.orientation.z, message.pose.orientation.w = math.sin(yaw / 2), math.cos(yaw / 2)
        return message

    def _posed(self, pose: np.ndarray) -> PoseStamped:
        message = self._stamped()
        position, orientation = message.pose.position, message.pose.orientation
        position.x, position.y, position.z = (float(value) for value in pose[:3, 3])
        orientation.x, orientation.y, orientation.z, orientation.w = quaternion_of(pose)
        return message

    def _stamped(self) -> PoseStamped:
        message = PoseStamped()
        message.header.frame_id = 'world'
        seconds = self._robot.now()
        message.header.stamp.sec, message.header.stamp.nanosec = int(seconds), int(seconds % 1.0 * 1e9)
        return message

    def destroy_node(self) -> None:
        for server in getattr(self, '_servers', ()):
            server.close(0.5)
        super().destroy_node()


def main() -> None:
    run_single(AutoReset)


if __name__ == '__main__':
    main()
