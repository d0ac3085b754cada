"""Skills believe a grasp only with width, force and a look, say what they saw, and move arms together."""

import math

import pytest

from enpire_bringup.kinematics import ArmKinematics
from enpire_reset.robot import Grip, GripEnd, Move, MoveEnd, Sighting, SkillError
from enpire_reset.skills import Skills

HOLDING = GripEnd(0.0202, 19.0, True)
LYING, ELSEWHERE = (0.3, 0.1, 0.2), (0.26, 0.1, 0.2)
HIDDEN = Sighting((math.nan,) * 3, False, 0.0)


@pytest.fixture
def make(station, task, scripted):
    def make(*sightings):
        robot = scripted(sightings)
        return Skills(station, task, robot), robot
    return make


# -- looking

def test_look_averages_yaw_across_the_turn(make):
    skills, robot = make()
    robot.look = lambda name, images, timeout: [Sighting((0.3, 0.0, yaw), True, 1.0)
                                                for yaw in (math.pi - 0.01, -math.pi + 0.03)] * 2
    assert skills.locate('t_block')[2] == pytest.approx(-math.pi + 0.01)


def test_object_that_still_moves_is_not_located(make):
    skills, robot = make()
    robot.look = lambda name, images, timeout: [Sighting((0.3 + 0.01 * i, 0.0, 0.0), True, 1.0) for i in range(images)]
    with pytest.raises(SkillError, match='does not come to rest'):
        skills.locate('t_block')


def test_object_out_of_view_and_object_partly_seen_are_told_apart(make):
    with pytest.raises(SkillError, match='nothing of its color is in view: it is covered, out of view or upside down'):
        make(HIDDEN)[0].locate('t_block')
    with pytest.raises(SkillError, match='30 % of it.*partly covered or out of view, or it stands on edge'):
        make(Sighting((math.nan,) * 3, False, 0.3))[0].locate('t_block')


def test_one_image_in_which_it_is_hidden_does_not_end_a_look(make):
    skills, _ = make(HIDDEN, LYING)
    assert skills.locate('t_block') == pytest.approx(LYING)


def test_unknown_object_is_named_with_those_there_are(make):
    with pytest.raises(SkillError, match="no object 'cup' .* there are: t_block"):
        make(LYING)[0].locate('cup')


# -- moving

def test_arms_go_home_together_and_those_at_home_stay(make, station):
    skills, robot = make()
    skills.go_home('left', 'right')
    assert [move.arm for move in robot.motions[0]] == ['left', 'right'] and len(robot.motions) == 1
    robot.at = {'right': station.arms['right'].named['home']}
    skills.go_home('left', 'right')
    assert [move.arm for move in robot.motions[1]] == ['left']


def test_gripper_opens_while_the_arm_approaches_and_closes_on_the_way_home(make, station):
    skills, robot = make()
    skills.approach('left', 0.3, 0.1, 0.1, 0.0)
    move, grip = robot.motions[0]
    assert isinstance(move, Move) and not move.straight
    assert grip == Grip('left', 2 * station.arms['left'].gripper.open)
    skills.retreat('left', 0.1)
    assert [type(motion) for motion in robot.motions[-1]] == [Move, Grip] and robot.motions[-1][1].width == 0.0


def test_long_turn_is_carried_out_in_pieces(make):
    skills, robot = make()
    skills.carry('left', 0.3, 0.1, math.radians(170))
    assert len(robot.motions) == 2 and all(move.straight for move, in robot.motions)


# -- gripping

def test_grasp_is_held_when_width_and_force_are_right(make):
    skills, robot = make()
    robot.grip = HOLDING
    assert skills.grasp('left', 0.02, 20.0) is HOLDING
    assert robot.motions[-1] == (Grip('left', 0.0, 20.0),)


@pytest.mark.parametrize('grip, reason', [
    (GripEnd(0.0, 20.0, True), '0.0 mm apart; an object of 20 mm was expected'),
    (GripEnd(0.035, 20.0, True), '35.0 mm apart; an object of 20 mm was expected'),
    (GripEnd(0.02, 4.0, True), '4.0 N were measured, at least 10.0 N expected'),
    (GripEnd(0.02, 20.0, False), 'meet no resistance'),
    (GripEnd(0.02, math.nan, True), 'nan N were measured'),
])
def test_grasp_of_nothing_or_of_something_else_is_noticed(make, grip, reason):
    skills, robot = make()
    robot.grip = grip
    with pytest.raises(SkillError, match=reason):
        skills.grasp('left', 0.02, 20.0)


def test_object_that_slips_out_on_the_way_up_is_noticed(make):
    skills, robot = make()
    robot.grip = HOLDING
    skills.grasp('left', 0.02, 20.0)
    robot.grip = GripEnd(0.001, 20.0, True)
    with pytest.raises(SkillError, match='1.0 mm apart'):
        skills.lift('left', 0.1)
    robot.motions.clear()
    skills.lift('left', 0.1)
    assert len(robot.motions) == 1      # nothing is held any more, so there is nothing to squeeze


@pytest.mark.parametrize('seen, lifted', [(LYING, False), (ELSEWHERE, True), (HIDDEN, True)])
def test_object_that_still_lies_where_it_was_has_not_been_lifted(make, seen, lifted):
    skills, robot = make(LYING, seen)
    skills.locate('t_block')
    robot.grip = HOLDING
    skills.grasp('left', 0.02, 20.0, 't_block')
    if lifted:
        assert skills.lift('left', 0.1) is HOLDING
    else:
        with pytest.raises(SkillError, match='t_block still lies where it was'):
            skills.lift('left', 0.1)


def test_what_is_still_held_is_put_down_where_it_was_grasped(make):
    skills, robot = make()
    robot.grip = HOLDING
    skills.grasp('left', 0.02, 20.0)
    height = skills.tool('left')[2, 3]
    robot.motions.clear()
    skills.put_down()
    assert robot.motions[0][0].pose[2, 3] == pytest.approx(height, abs=0.01) and robot.motions[2][0].width > 0.09
    robot.motions.clear()
    skills.put_down()
    assert not robot.motions


def test_gripper_that_does_not_close_before_a_trial_is_reported(make):
    skills, robot = make()
    robot.width, robot.grip = 0.02, HOLDING
    with pytest.raises(SkillError, match='left does not close: something 20 mm wide is between its fingers'):
        skills.close_grippers()


# -- handing over and pushing

def test_hand_over_of_nothing_is_refused(make):
    with pytest.raises(SkillError, match='left holds nothing; grasp first'):
        make()[0].hand_over('left', 'right', 0.35, -0.3, 0.0, 0.2, 0.3)


def test_push_beyond_its_longest_way_is_refused(make):
    with pytest.raises(SkillError, match='at most 0.4 m are pushed at a time'):
        make((0.2, 0.2, 0.0))[0].push('left', 't_block', 0.3, -0.3, 0.015)


def test_push_comes_down_behind_the_object_and_ends_at_its_near_side(make, station):
    skills, robot = make((0.30, 0.10, 0.0), (0.30, 0.0, 0.0))
    kinematics, home = ArmKinematics(station, 'left'), station.arms['left'].named['home']
    robot.solve = lambda arm, pose: kinematics.ik(pose, home)
    skills.push('left', 't_block', 0.30, 0.0, 0.015)
    above, down, along = [motions[0].pose[:3, 3] for motions in robot.motions[1:4]]
    # The T's bar reaches 47.5 mm behind its origin, half a finger and 30 mm of clearance are added.
    assert above == pytest.approx([0.30, 0.10 + 0.0475 + 0.013 + 0.030, 0.09])
    assert down == pytest.approx([*above[:2], 0.015])
    assert along == pytest.approx([0.30, 0.0475 + 0.013, 0.015])
    assert robot.motions[3][0].stop_force > 0


def test_object_that_does_not_give_way_to_a_push_is_reported(make, station):
    skills, robot = make((0.30, 0.10, 0.0))
    kinematics, home = ArmKinematics(station, 'left'), station.arms['left'].named['home']
    robot.solve = lambda arm, pose: kinematics.ik(pose, home)
    robot.met = MoveEnd(True, 21.0)
    with pytest.raises(SkillError, match='t_block does not give way: the tool met 21 N'):
        skills.push('left', 't_block', 0.30, 0.0, 0.015)
    assert robot.motions[-1][0].named == 'home'
