"""One arm gives a rod to the other in the air: first both hold it, then the giver lets go. In physics."""

import math
import shutil

import pytest

from enpire_bringup.task import load_task
from enpire_reset.robot import Grip, Move, SkillError
from enpire_reset.skills import Skills

ROD = '''      <geom name="base" class="t_solid" size="0.03 0.03 0.005" pos="0 0 0.005" mass="0.05"/>
      <geom name="rod" class="t_solid" size="0.01 0.01 0.065" pos="0 0 0.075" mass="0.06"/>
'''
TURN = math.radians(54)      # of the rod, so that its sides face both arms


@pytest.fixture(scope='module')
def robot(make_robot, station, tmp_path_factory):
    """A robot in the shipped task's scene, with a rod 20 x 20 x 140 mm that stands in the place of the object."""
    task = load_task('push_t')
    folder = shutil.copytree(task.directory, tmp_path_factory.mktemp('tasks') / 'rod')
    scene = (folder / 'scene.xml').read_text(encoding='utf-8')
    begin = scene.index('<geom', scene.index('<freejoint name="t_block"/>'))
    end = scene.index('</body>', begin)
    (folder / 'scene.xml').write_text(scene[:begin] + ROD + scene[end:], encoding='utf-8')
    return make_robot(station, load_task(folder))


@pytest.fixture
def skills(robot, station):
    """The left arm holds the rod above the table."""
    skills = Skills(station, robot.world.task, robot)
    for arm in skills.arms:
        skills.retreat(arm, 0.1)
    robot.world.set_object_pose('t_block', 0.3, 0.0, TURN)
    skills.approach('left', 0.3, 0.0, 0.17, TURN - math.pi / 2)
    skills.lower('left', 0.125)
    skills.grasp('left', 0.02, 20.0)
    skills.lift('left', 0.165)
    return skills


def test_taker_holds_the_rod_before_the_giver_lets_go(skills, robot):
    grips, run = [], robot.run

    def noting(*motions):
        ends = run(*motions)
        grips.extend((motion.arm, motion.width, end.stalled) for motion, end in zip(motions, ends)
                     if isinstance(motion, Grip))
        return ends
    robot.run = noting
    try:
        skills.hand_over('left', 'right', 0.3, -0.2, TURN - math.pi / 2, 0.10, 0.155)
    finally:
        robot.run = run
    wide = skills.opening('left')
    assert grips == [('right', wide, False), ('right', 0.0, True), ('left', 0.0, True), ('left', wide, False),
                     ('right', 0.0, True)]
    x, y, _, z, upright = robot.world.object_pose('t_block')
    assert z > 0.015 and upright > 0.99 and math.dist((x, y), (0.3, -0.2)) < 0.01
    assert skills.is_home('left') and robot.gripper_width('right') == pytest.approx(0.02, abs=0.002)
    skills.place('right', 0.08)
    assert robot.world.object_pose('t_block')[3] < 0.002


def test_giver_keeps_the_rod_when_the_taker_misses_it(skills, robot):
    run = robot.run

    def missing(*motions):
        # The taker stops short of the rod.
        return run(*(Move(motion.arm, pose=skills._before(motion.pose)) if isinstance(motion, Move) and
                     motion.arm == 'right' and motion.straight else motion for motion in motions))
    robot.run = missing
    try:
        with pytest.raises(SkillError, match='an object of 20 mm was expected between them'):
            skills.hand_over('left', 'right', 0.3, -0.2, TURN - math.pi / 2, 0.10, 0.155)
    finally:
        robot.run = run
    assert robot.world.object_pose('t_block')[3] > 0.015 and robot.gripper_width('left') < 0.022


def test_meeting_place_out_of_reach_is_refused_before_anything_moves(skills, robot):
    before = robot.now()
    with pytest.raises(SkillError, match='right cannot take anything at .* meet elsewhere'):
        skills.hand_over('left', 'right', 0.3, 0.3, 0.0, 0.10, 0.155)
    with pytest.raises(SkillError, match='left cannot rise from .* meet elsewhere'):
        skills.hand_over('left', 'right', 0.3, -0.2, TURN - math.pi / 2, 0.10, 0.25)
    assert robot.now() == before
