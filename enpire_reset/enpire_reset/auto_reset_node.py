"""Brings the task's object back to the start pose of a seed, and looks whether it is there: the action `reset`."""

from __future__ import annotations

import math

from enpire_msgs.action import Reset
from geometry_msgs.msg import PoseStamped

from enpire_bringup.actions import BlockingActionServer
from enpire_bringup.node_group import run_single
from enpire_bringup.station_node import StationNode
from enpire_reset.reset_program import ResetProgram
from enpire_reset.skills import SkillCancelled, Skills
from enpire_reset.station_robot import StationRobot


class AutoReset(StationNode):
    """Node `auto_reset`: runs the task's reset.py, at most three attempts a goal."""

    def __init__(self, **kwargs):
        super().__init__('auto_reset', **kwargs)
        self._program = ResetProgram(self.task)
        self._robot = StationRobot(self, self.station)
        self._server = BlockingActionServer(self, Reset, 'reset', self._reset,
                                            busy_message='another reset is running; wait for its end or cancel it')
        self.get_logger().info(
            f'reset program: {self.task.reset}, tolerance {self._program.tolerance[0] * 1000:.0f} mm and '
            f'{math.degrees(self._program.tolerance[1]):.0f} deg')

    def _reset(self, goal) -> Reset.Result:
        seed = goal.request.seed
        feedback = Reset.Feedback()

        def report(stage: str, attempt: int | None = None) -> None:
            feedback.stage = stage
            if attempt is not None:
                feedback.attempt = attempt
            goal.publish_feedback(feedback)

        self._robot.cancelled = lambda: goal.is_cancel_requested
        began = self.get_clock().now()
        skills = Skills(self.station, self._robot, report)
        try:
            outcome = self._program.run(skills, seed, lambda attempt: report('look', attempt))
        except SkillCancelled as error:
            return Reset.Result(success=False, message=f'cancelled: {error}', attempts=feedback.attempt)
        finally:
            self._robot.cancelled = lambda: False
        result = Reset.Result(
            success=outcome.success, message=outcome.message, attempts=outcome.attempts,
            target=self._pose(outcome.target), position_error=outcome.position_error, yaw_error=outcome.yaw_error,
            duration=(self.get_clock().now() - began).nanoseconds * 1e-9)
        if outcome.reached is not None:
            result.reached = self._pose(outcome.reached)
        log = self.get_logger().info if outcome.success else self.get_logger().warning
        log(f'seed {seed}: {"done" if outcome.success else "failed"} after {outcome.attempts} attempts in '
            f'{result.duration:.1f} s: {outcome.message}')
        return result

    def _pose(self, planar) -> PoseStamped:
        message = PoseStamped()
        message.header.frame_id = 'world'
        message.header.stamp = self.get_clock().now().to_msg()
        message.pose.position.x, message.pose.position.y = planar[0], planar[1]
        message.pose.orientation.z, message.pose.orientation.w = math.sin(planar[2] / 2), math.cos(planar[2] / 2)
        return message

    def destroy_node(self) -> None:
        if hasattr(self, '_server'):
            self._server.close(0.5)
        super().destroy_node()


def main() -> None:
    run_single(AutoReset)


if __name__ == '__main__':
    main()
