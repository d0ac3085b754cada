"""The skills as actions: which fields of a goal each one reads, what it refuses, and what it answers. No ROS.

docs/skills.md is the same as a table for people.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Callable, Sequence

import numpy as np

from enpire_reset.geometry import tool_yaw, wrap
from enpire_reset.robot import GripEnd, SkillError
from enpire_reset.skills import Skills

FIELDS = ('arm', 'object', 'pose', 'height', 'width', 'max_force', 'to_arm')
_UPRIGHT = 1e-3      # of a quaternion's x and y: the pose turns about the vertical only


class GoalRefused(SkillError):
    """A goal that the skill cannot use; the message names the field and what was expected."""


@dataclass(frozen=True)
class SkillGoal:
    """The fields of a goal; None where one was not given. pose: x, y, z (m), yaw (rad)."""

    arm: str | None = None
    object: str | None = None
    pose: tuple[float, float, float, float] | None = None
    height: float | None = None
    width: float | None = None
    max_force: float | None = None
    to_arm: str | None = None


@dataclass(frozen=True)
class SkillEnd:
    """What a skill answers. pose (4, 4): of the tool, or of the object seen."""

    pose: np.ndarray
    grip: GripEnd | None = None


@dataclass(frozen=True)
class SkillAction:
    """One action. needs, may: the fields of the goal that it needs, and that it may be given."""

    name: str
    needs: tuple[str, ...]
    may: tuple[str, ...]
    use: Callable[[Skills, SkillGoal], SkillEnd]

    def read(self, skills: Skills, request: Any) -> SkillGoal:
        """The goal in a message with the fields of enpire_msgs/UseSkill. Raises GoalRefused."""
        goal = read_goal(request)
        given = [field for field in FIELDS if getattr(goal, field) is not None]
        for field in self.needs:
            if field not in given:
                raise GoalRefused(f'skills/{self.name} needs {_listed(self.needs)}; {field} was not given')
        for field in given:
            if field not in self.needs + self.may:
                raise GoalRefused(f'skills/{self.name} does not use {field}; it reads '
                                  f'{_listed(self.needs + self.may)}')
        self._check(skills, goal)
        return goal

    def _check(self, skills: Skills, goal: SkillGoal) -> None:
        for field, known in (('arm', skills.arms), ('to_arm', skills.arms), ('object', list(skills.task.objects))):
            name = getattr(goal, field)
            if name is not None and name not in known:
                raise GoalRefused(f"skills/{self.name}: no {field} '{name}'; there are: {', '.join(known)}")
        if goal.arm is None:
            return
        if goal.arm == goal.to_arm:
            raise GoalRefused(f"skills/{self.name}: arm and to_arm are both '{goal.arm}'; expected two arms")
        for field, high in (('width', skills.opening(goal.arm)),
                            ('max_force', skills.station.arms[goal.arm].gripper.max_effort)):
            value = getattr(goal, field)
            if value is not None and value > high:
                raise GoalRefused(f'skills/{self.name}: {field} is {value:g}; the gripper of {goal.arm} goes to '
                                  f'{high:g}')
        if goal.pose is not None and goal.pose[2] and self.name != 'hand_over':
            raise GoalRefused(f'skills/{self.name}: pose.position.z is {goal.pose[2]:g}; give the height in `height` '
                              'and leave z at 0')


def read_goal(request: Any) -> SkillGoal:
    """Raises GoalRefused for numbers that are not finite, negative lengths and poses that are not upright."""
    numbers = {}
    for field in ('height', 'width', 'max_force'):
        value = getattr(request, field)
        if not (math.isfinite(value) and value >= 0):
            raise GoalRefused(f'{field} is {value}; expected a finite number, at least 0')
        numbers[field] = value or None
    return SkillGoal(request.arm or None, request.object or None, _pose(request.pose), to_arm=request.to_arm or None,
                     **numbers)


def _pose(stamped: Any) -> tuple[float, float, float, float] | None:
    """None for a pose that was left as it comes: no frame, at the origin, not turned."""
    frame, place, turn = stamped.header.frame_id, stamped.pose.position, stamped.pose.orientation
    position, quaternion = (place.x, place.y, place.z), (turn.x, turn.y, turn.z, turn.w)
    if not frame and not any(position) and quaternion[:3] == (0.0, 0.0, 0.0):
        return None
    if frame not in ('', 'world'):
        raise GoalRefused(f"the pose is in the frame '{frame}'; expected 'world'")
    norm = math.sqrt(sum(value * value for value in quaternion))
    if not all(map(math.isfinite, position)) or not (math.isfinite(norm) and norm > 1e-6):
        raise GoalRefused(f'position {list(position)} with quaternion {list(quaternion)} is no pose')
    if max(abs(turn.x), abs(turn.y)) > _UPRIGHT * norm:
        raise GoalRefused('the pose is tilted; expected a turn about the vertical, that is x and y of its quaternion 0')
    return (*position, 2.0 * math.atan2(turn.z, turn.w))


def _listed(fields: Sequence[str]) -> str:
    return ', '.join(fields) or 'nothing'


# -- what each action does

def _go_home(skills: Skills, goal: SkillGoal) -> SkillEnd:
    arms = [goal.arm] if goal.arm else skills.arms
    skills.go_home(*arms)
    return SkillEnd(skills.tool(arms[0]))


def _locate(skills: Skills, goal: SkillGoal) -> SkillEnd:
    return _seen(skills.locate(goal.object))


def _find(skills: Skills, goal: SkillGoal) -> SkillEnd:
    return _seen(skills.find(goal.object))


def _approach(skills: Skills, goal: SkillGoal) -> SkillEnd:
    x, y, _, yaw = goal.pose
    skills.approach(goal.arm, x, y, goal.height, yaw)
    return SkillEnd(skills.tool(goal.arm))


def _grasp(skills: Skills, goal: SkillGoal) -> SkillEnd:
    if goal.height is not None:
        skills.lower(goal.arm, goal.height)
    grip = skills.grasp(goal.arm, goal.width, goal.max_force or 0.0, goal.object or '')
    return SkillEnd(skills.tool(goal.arm), grip)


def _lift(skills: Skills, goal: SkillGoal) -> SkillEnd:
    grip = skills.lift(goal.arm, goal.height)
    return SkillEnd(skills.tool(goal.arm), grip)


def _place(skills: Skills, goal: SkillGoal) -> SkillEnd:
    if goal.pose is not None:
        x, y, _, yaw = goal.pose
        skills.carry(goal.arm, x, y, wrap(yaw - tool_yaw(skills.tool(goal.arm))))
    grip = skills.place(goal.arm, goal.height)
    return SkillEnd(skills.tool(goal.arm), grip)


def _push(skills: Skills, goal: SkillGoal) -> SkillEnd:
    return _seen(skills.push(goal.arm, goal.object, goal.pose[0], goal.pose[1], goal.height))


def _hand_over(skills: Skills, goal: SkillGoal) -> SkillEnd:
    x, y, z, yaw = goal.pose
    if z:
        skills.hand_over(goal.arm, goal.to_arm, x, y, yaw, goal.height, z)
    else:
        skills.hand_over_on_table(goal.arm, goal.to_arm, x, y, yaw, goal.height)
    return SkillEnd(skills.tool(goal.to_arm))


def _retreat_and_look(skills: Skills, goal: SkillGoal) -> SkillEnd:
    return _seen(skills.retreat_and_look(goal.arm, goal.height, goal.object))


def _seen(planar: tuple[float, float, float]) -> SkillEnd:
    x, y, yaw = planar
    pose = np.eye(4)
    pose[:2, :2] = [[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]]
    pose[:2, 3] = x, y
    return SkillEnd(pose)


SKILL_ACTIONS = (
    SkillAction('go_home', (), ('arm',), _go_home),
    SkillAction('locate', ('object',), (), _locate),
    SkillAction('find', ('object',), (), _find),
    SkillAction('approach', ('arm', 'pose', 'height'), (), _approach),
    SkillAction('grasp', ('arm', 'width'), ('height', 'max_force', 'object'), _grasp),
    SkillAction('lift', ('arm', 'height'), (), _lift),
    SkillAction('place', ('arm', 'height'), ('pose',), _place),
    SkillAction('push', ('arm', 'object', 'pose', 'height'), (), _push),
    SkillAction('hand_over', ('arm', 'to_arm', 'pose', 'height'), (), _hand_over),
    SkillAction('retreat_and_look', ('arm', 'object', 'height'), (), _retreat_and_look),
)
