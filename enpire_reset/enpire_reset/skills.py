"""What a reset program can do with a robot: look, move, grasp, place, push, hand over. No ROS.

Every skill blocks until it is done, is bounded, and raises SkillError saying which skill failed and why. Poses are
in the frame "world": x, y, z in m, yaw in rad. Unless it leans or is level, the tool points straight down.
"""

from __future__ import annotations

import math

import numpy as np

from enpire_reset.geometry import boundary, extent, moved_to, tool_pose, tool_yaw, wrap
from enpire_reset.manipulation import Manipulation
from enpire_reset.robot import Grip, Move, SkillError

LEANS = tuple(math.radians(lean) for lean in (0, 12, 24, 36))    # rad, of a tool that has to reach farther
CLEARANCE = 0.030             # m beside an object, where the tool comes down
FINGER_HALF_WIDTH = 0.013     # m: the edge of a leaning or pushing finger
PUSH_FORCE = 20.0             # N at which a push has met something that does not give way
LONGEST_PUSH = 0.40           # m
TAKING = tuple(math.radians(lean) for lean in (90, 75, 60))    # rad, lean of the taker's tool: level, or from above
STANDOFF = 0.07               # m before the object, from where the taker's tool comes
RISES = (0.10, 0.05, 0.02)    # m that a gripper rises when it has given something away: the first within reach


class Skills(Manipulation):
    """All skills on one station; see the layers `Looking` and `Manipulation` for the simpler ones."""

    def retreat_and_look(self, arm: str, height: float, name: str) -> tuple[float, float, float]:
        """Up to `height`, home with a closed gripper, and the pose (x, y, yaw) of the object seen then."""
        self.retreat(arm, height)
        return self.locate(name)

    def push(self, arm: str, name: str, x: float, y: float, height: float) -> tuple[float, float, float]:
        """Push an object straight towards (x, y) with the closed gripper's tip at `height`; the pose seen after it.

        The tip goes behind the object and through to where the object's near side would be at (x, y). The object may
        turn on the way. Raises SkillError, also when the way is longer than LONGEST_PUSH.
        """
        self.go_home(*self.arms)
        px, py, yaw = self.locate(name)
        distance, direction = math.hypot(x - px, y - py), math.atan2(y - py, x - px)
        if distance > LONGEST_PUSH:
            raise SkillError(f'push: ({x:.3f}, {y:.3f}) m is {distance:.2f} m from {name}; at most {LONGEST_PUSH:g} m '
                             'are pushed at a time')
        self.report('push')
        outline, backward = self.task.objects[name].outline, direction + math.pi
        u = np.array([math.cos(direction), math.sin(direction)])
        behind = np.array([px, py]) - (extent(outline, yaw, backward) + FINGER_HALF_WIDTH + CLEARANCE) * u
        end = np.array([x, y]) - (boundary(outline, yaw, backward) + FINGER_HALF_WIDTH) * u
        above = self.task.objects[name].face_height + 2 * CLEARANCE
        turn = self.heading(arm, *behind)
        lean = self._lean_for(arm, [(behind, height), (behind, above), (end, height), (end, above)], turn)
        height += FINGER_HALF_WIDTH * math.sin(lean)      # leaning fingers stand on their lower edge
        self._go(Move(arm, pose=tool_pose(*behind, above, turn, lean)), Grip(arm, 0.0))
        self._change_height(arm, height)
        goal = moved_to(self.tool(arm), *end)
        try:
            met = self._go(Move(arm, pose=goal, straight=True, stop_force=PUSH_FORCE))[0].force
        except SkillError:
            # Nothing was met on the whole way: that is how a push should end.
            if not self.is_at(arm, goal):
                raise
            met = 0.0
        finally:
            self.retreat(arm, above)
        if met:
            raise SkillError(f'push: {name} does not give way: the tool met {met:.0f} N')
        return self.locate(name)

    def _lean_for(self, arm: str, places, turn: float) -> float:
        for lean in LEANS:
            if all(self.can_reach(arm, *place, height, turn, lean) for place, height in places):
                return lean
        (x, y), _ = places[-1]
        raise SkillError(f'push: the way to ({x:.3f}, {y:.3f}) m is out of reach of {arm}')

    def hand_over(self, arm: str, to_arm: str, x: float, y: float, yaw: float, height: float,
                  tool_height: float) -> None:
        """What `arm` holds is taken over by `to_arm` in the air, at (x, y): first both hold it, then `arm` lets go.

        The giver's tool comes to `tool_height` with its fingers closing across `yaw`; the taker's comes from the side
        and grasps at `height`, far enough below that the grippers keep clear of each other.
        """
        held = self._held_by(arm)
        taking = self._taking_pose(to_arm, x, y, height, yaw)
        rise = next((rise for rise in RISES if self.can_reach(arm, x, y, tool_height + rise, yaw)), None)
        if rise is None:
            raise SkillError(f'hand_over: {arm} cannot rise from ({x:.3f}, {y:.3f}, {tool_height:.3f}) m when it has '
                             'let go; meet elsewhere')
        self._move_held(arm, x, y, yaw, tool_height)
        self.report('hand over')
        away = self._before(taking)
        self._go(Move(to_arm, pose=away), Grip(to_arm, self.opening(to_arm)))
        self._go(Move(to_arm, pose=taking, straight=True))
        try:
            self.grasp(to_arm, held.width, held.max_force)
            self.check_held(arm)
        except SkillError:
            self.open_gripper(to_arm)
            self._go(Move(to_arm, pose=away, straight=True))
            raise
        self.open_gripper(arm)
        self._change_height(arm, tool_height + rise)
        self.go_home(arm)
        self.check_held(to_arm)

    def hand_over_on_table(self, arm: str, to_arm: str, x: float, y: float, yaw: float, height: float) -> None:
        """What `arm` holds is put down at (x, y) with its tool at `height`, and taken there by `to_arm`.

        For what is too small for two grippers at once.
        """
        held = self._held_by(arm)
        above = self.tool(arm)[2, 3]
        self._move_held(arm, x, y, yaw, above)
        self.report('hand over')
        self.place(arm, height)
        self.retreat(arm, above)
        forward = self.heading(to_arm, x, y)
        taken = min((yaw, yaw + math.pi), key=lambda angle: abs(wrap(angle - forward)))
        taken = forward + wrap(taken - forward)
        self.approach(to_arm, x, y, above, taken)
        self.lower(to_arm, height)
        try:
            self.grasp(to_arm, held.width, held.max_force)
        except SkillError:
            self.open_gripper(to_arm)
            self.retreat(to_arm, above)
            raise
        self.lift(to_arm, above)

    def _held_by(self, arm: str):
        if arm not in self._held:
            raise SkillError(f'hand_over: {arm} holds nothing; grasp first')
        return self._held[arm]

    def _move_held(self, arm: str, x: float, y: float, yaw: float, height: float) -> None:
        self.carry(arm, x, y, wrap(yaw - tool_yaw(self.tool(arm))))
        self._change_height(arm, height)

    def _taking_pose(self, arm: str, x: float, y: float, height: float, yaw: float) -> np.ndarray:
        """Pose (4, 4) of the taker's tool, square to the giver's fingers, as level and as little turned as can be."""
        forward = self.heading(arm, x, y)
        headings = sorted((forward + wrap(yaw + quarter * math.pi / 2 - forward) for quarter in range(4)),
                          key=lambda heading: abs(heading - forward))
        for lean in TAKING:
            for heading in headings:
                pose = tool_pose(x, y, height, heading, lean)
                if self.reaches(arm, pose) and self.reaches(arm, self._before(pose)):
                    return pose
        raise SkillError(f'hand_over: {arm} cannot take anything at ({x:.3f}, {y:.3f}, {height:.3f}) m; meet elsewhere')

    @staticmethod
    def _before(pose: np.ndarray) -> np.ndarray:
        """`pose` (4, 4) drawn back along the tool."""
        back = pose.copy()
        back[:3, 3] -= STANDOFF * pose[:3, 0]
        return back
