"""Reset program of Push-T: carry the T by its handle to the start pose of a seed.

The handle is a 20 x 20 mm post on the T's origin, from 30 to 60 mm above the table; so there are four ways to grasp it.
"""

import math

from enpire_reset.geometry import wrap
from enpire_reset.robot import SkillError
from enpire_reset.skills import FINGER_HALF_WIDTH, LEANS

TOLERANCE = (0.012, math.radians(8))   # m, rad: how near the start pose the T has to lie

HANDLE_WIDTH = 0.020      # m
GRASP_HEIGHT = 0.037      # m, of the finger tips: clear of the T's face, 23 mm of the handle between the fingers
SAFE_HEIGHT = 0.080       # m, finger tips pass over the handle, and what is carried over the table
FORCE = 20.0              # N
STEPS = 20                # places tried on the way from the target to the T


def reset(skills, task, seed):
    """Bring the T to `task.start_pose(seed)`. Raises SkillError."""
    arm = task.action.arm
    name = task.start.object
    target = task.start_pose(seed)
    pose = bring_near(skills, arm, name, skills.find(name), target)
    grasp = choose_grasp(skills, arm, pose, target)
    if grasp is None:
        # The wrist cannot turn that far in one grasp: half of it first.
        halfway = pose[0], pose[1], pose[2] + wrap(target[2] - pose[2]) / 2
        move_t(skills, arm, name, pose, halfway, choose_grasp(skills, arm, pose, halfway))
        pose = skills.locate(name)
        grasp = choose_grasp(skills, arm, pose, target)
    if grasp is None:
        raise SkillError(f'the handle at ({pose[0]:.3f}, {pose[1]:.3f}) m cannot be grasped so that it gets to '
                         f'({target[0]:.3f}, {target[1]:.3f}) m with a turn of '
                         f'{math.degrees(wrap(target[2] - pose[2])):.0f} deg')
    move_t(skills, arm, name, pose, target, grasp)


def bring_near(skills, arm, name, pose, target):
    """Where an upright tool of `arm` does not reach the T, one that can brings it nearer; the pose after that."""
    if upright(skills, arm, pose):
        return pose
    reached = False
    for carrier in sorted(skills.arms, key=lambda other: skills.distance(other, *pose[:2])):
        yaw = most_across(skills, carrier, pose)
        for lean in LEANS:
            if not reaches(skills, carrier, pose, yaw, lean):
                continue
            reached = True
            for step in range(STEPS):
                share = step / STEPS
                place = tuple(target[i] + share * (pose[i] - target[i]) for i in (0, 1)) + (pose[2],)
                if reaches(skills, carrier, place, yaw, lean) and upright(skills, arm, place):
                    move_t(skills, carrier, name, pose, place, yaw, lean)
                    return skills.locate(name)
    problem = 'cannot be brought from there to where it belongs' if reached else \
        f'is out of reach of {" and ".join(skills.arms)}'
    raise SkillError(f'the T at ({pose[0]:.3f}, {pose[1]:.3f}) m {problem}; put it nearer by hand')


def upright(skills, arm, pose):
    """Whether the handle of a T at `pose` can be grasped from straight above, in one of the four ways."""
    return any(reaches(skills, arm, pose, most_across(skills, arm, pose) + quarter * math.pi / 2)
               for quarter in (0, 1, -1))


def reaches(skills, arm, pose, yaw, lean=0.0):
    return all(skills.can_reach(arm, pose[0], pose[1], height, yaw, lean) for height in (GRASP_HEIGHT, SAFE_HEIGHT))


def most_across(skills, arm, pose):
    """Of the four ways to grasp, the yaw of the tool whose closing direction is most nearly across the arm."""
    forward = skills.heading(arm, *pose[:2])
    return min((forward + wrap(pose[2] + quarter * math.pi / 2 - forward) for quarter in range(4)),
               key=lambda yaw: abs(yaw - forward))


def choose_grasp(skills, arm, pose, target):
    """Yaw of the tool at the handle with the least turned wrist at both ends, or None."""
    turn = wrap(target[2] - pose[2])
    # The first joint points the arm at the T, the last one adds what is missing.
    pick, place = skills.heading(arm, *pose[:2]), skills.heading(arm, *target[:2])
    ways = []
    for quarter in range(4):
        yaw = pick + wrap(pose[2] + quarter * math.pi / 2 - pick)
        twist = max(abs(yaw - pick), abs(yaw + turn - place))
        if twist < math.pi:     # beyond half a turn the wrist would have to come from the other side
            ways.append((twist, yaw))
    for _, yaw in sorted(ways):
        if (reaches(skills, arm, pose, yaw) and reaches(skills, arm, target, yaw + turn) and
                skills.can_carry(arm, (*pose[:2], yaw), (*target[:2], yaw + turn), SAFE_HEIGHT)):
            return yaw
    return None


def move_t(skills, arm, name, pose, target, yaw, lean=0.0):
    """Grasp the T at `pose` with the tool at `yaw`, put it at `target`, and go home."""
    if yaw is None:
        raise SkillError(f'the handle at ({pose[0]:.3f}, {pose[1]:.3f}) m is out of reach')
    # Leaning fingers stand on their lower edge.
    height = GRASP_HEIGHT + FINGER_HALF_WIDTH * math.sin(lean)
    skills.approach(arm, pose[0], pose[1], SAFE_HEIGHT, yaw, lean)
    skills.lower(arm, height)
    try:
        skills.grasp(arm, HANDLE_WIDTH, FORCE, name)
    except SkillError:
        skills.open_gripper(arm)
        skills.retreat(arm, SAFE_HEIGHT)
        raise
    try:
        skills.lift(arm, SAFE_HEIGHT)
        skills.carry(arm, target[0], target[1], wrap(target[2] - pose[2]))
    finally:
        # Also when the way there failed: what is left in the fingers would be dropped from home.
        skills.place(arm, height)
        skills.retreat(arm, SAFE_HEIGHT)
