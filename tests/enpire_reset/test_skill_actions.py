"""Every skill is an action that says which fields it reads, and refuses what it cannot use."""

import math
import re
from pathlib import Path

import pytest

pytest.importorskip('rclpy')

from geometry_msgs.msg import PoseStamped  # noqa: E402

from enpire_msgs.action import UseSkill  # noqa: E402
from enpire_reset.robot import GripEnd, SkillError  # noqa: E402
from enpire_reset.skill_actions import FIELDS, SKILL_ACTIONS, GoalRefused  # noqa: E402
from enpire_reset.skills import Skills  # noqa: E402

ACTIONS = {action.name: action for action in SKILL_ACTIONS}
DOCS = Path(__file__).parents[2] / 'docs' / 'skills.md'


def pose(x=0.3, y=0.1, z=0.0, yaw=0.0, tilt=0.0, frame='world'):
    message = PoseStamped()
    message.header.frame_id = frame
    message.pose.position.x, message.pose.position.y, message.pose.position.z = x, y, z
    message.pose.orientation.z, message.pose.orientation.w = math.sin(yaw / 2), math.cos(yaw / 2)
    message.pose.orientation.x = tilt
    return message


@pytest.fixture
def skills(station, task, scripted):
    return Skills(station, task, scripted([(0.3, 0.1, 0.2)]))


@pytest.mark.parametrize('name, fields, reason', [
    ('lift', {'arm': 'left'}, 'lift needs arm, height; height was not given'),
    ('lift', {'arm': 'left', 'height': 0.1, 'object': 't_block'}, 'lift does not use object; it reads arm, height'),
    ('lift', {'arm': 'middle', 'height': 0.1}, "no arm 'middle'; there are: left, right"),
    ('lift', {'arm': 'left', 'height': math.nan}, 'height is nan; expected a finite number'),
    ('lift', {'arm': 'left', 'height': -0.1}, 'height is -0.1; expected a finite number, at least 0'),
    ('locate', {'object': 'cup'}, "no object 'cup'; there are: t_block"),
    ('go_home', {'arm': 'left', 'pose': pose()}, 'go_home does not use pose; it reads arm'),
    ('approach', {'arm': 'left', 'height': 0.1, 'pose': pose(frame='map')}, "frame 'map'; expected 'world'"),
    ('approach', {'arm': 'left', 'height': 0.1, 'pose': pose(tilt=0.3)}, 'the pose is tilted'),
    ('approach', {'arm': 'left', 'height': 0.1, 'pose': pose(x=math.inf)}, 'is no pose'),
    ('approach', {'arm': 'left', 'height': 0.1, 'pose': pose(z=0.2)}, 'give the height in `height`'),
    ('grasp', {'arm': 'left', 'width': 0.2}, 'width is 0.2; the gripper of left goes to 0.09'),
    ('grasp', {'arm': 'left', 'width': 0.02, 'max_force': 500.0}, 'max_force is 500; the gripper of left goes to 30'),
    ('hand_over', {'arm': 'left', 'to_arm': 'left', 'pose': pose(), 'height': 0.1}, "are both 'left'; expected two arms"),
])
def test_goal_that_a_skill_cannot_use_is_refused_with_the_reason(skills, name, fields, reason):
    with pytest.raises(GoalRefused, match=re.escape(reason)):
        ACTIONS[name].read(skills, UseSkill.Goal(**fields))


def test_goal_is_read_with_what_was_given_and_nothing_else(skills):
    goal = ACTIONS['place'].read(skills, UseSkill.Goal(arm='right', height=0.04, pose=pose(0.3, -0.2, yaw=1.0)))
    assert (goal.arm, goal.height, goal.pose) == ('right', 0.04, pytest.approx((0.3, -0.2, 0.0, 1.0)))
    assert goal.object is goal.width is goal.to_arm is None


def test_place_carries_and_turns_what_is_held_to_the_pose(skills):
    end = ACTIONS['place'].use(skills, ACTIONS['place'].read(
        skills, UseSkill.Goal(arm='left', height=0.04, pose=pose(0.3, 0.2, yaw=0.5))))
    carry, down, press, release = skills.robot.motions
    assert carry[0].pose[:2, 3] == pytest.approx([0.3, 0.2]) and down[0].pose[2, 3] == pytest.approx(0.046)
    assert press[0].pose[2, 3] == pytest.approx(0.036) and press[0].stop_force > 0
    assert release[0].width == pytest.approx(skills.opening('left')) and end.grip.width == release[0].width


def test_locate_answers_with_the_object_s_pose(skills):
    end = ACTIONS['locate'].use(skills, ACTIONS['locate'].read(skills, UseSkill.Goal(object='t_block')))
    assert end.pose[:3, 3] == pytest.approx([0.3, 0.1, 0.0])
    assert math.atan2(end.pose[1, 0], end.pose[0, 0]) == pytest.approx(0.2)


def test_grasp_answers_with_width_and_force(skills):
    skills.robot.grip = GripEnd(0.02, 18.0, True)
    goal = ACTIONS['grasp'].read(skills, UseSkill.Goal(arm='left', width=0.02, height=0.04))
    assert ACTIONS['grasp'].use(skills, goal).grip == skills.robot.grip
    skills.robot.grip = GripEnd(0.0, 1.0, True)
    with pytest.raises(SkillError):
        ACTIONS['grasp'].use(skills, goal)


def test_documented_table_of_skills_is_the_real_one():
    rows = re.findall(r'^\| `skills/(\w+)` \| ([^|]*) \| ([^|]*) \|', DOCS.read_text(encoding='utf-8'), re.MULTILINE)
    documented = {name: tuple(tuple(re.findall(r'`(\w+)`', cell)) for cell in cells) for name, *cells in rows}
    assert documented == {action.name: (action.needs, action.may) for action in SKILL_ACTIONS}


def test_every_field_of_the_goal_is_read_by_some_skill():
    assert set(FIELDS) == set(UseSkill.Goal.get_fields_and_field_types())
    assert {field for action in SKILL_ACTIONS for field in action.needs + action.may} == set(FIELDS)
