"""Reset program of Push-T: carry the T by its handle to the start pose of a seed.

The handle is a 20 x 20 mm post on the T's origin, from 30 to 60 mm above the table; so there are four ways to grasp it.
"""

import math

from enpire_reset.skills import SkillError, wrap

TOLERANCE = (0.012, math.radians(8))   # m, rad: how near the start pose the T has to lie

HANDLE_WIDTH = 0.020      # m
GRASP_HEIGHT = 0.037      # m, of the finger tips: clear of the T's face, 23 mm of the handle between the fingers
SAFE_HEIGHT = 0.080       # m, finger tips pass over the handle, and what is carried over the table
FINGER_HALF_WIDTH = 0.013 # m
FORCE = 20.0              # N
LEANS = tuple(math.radians(lean) for lean in (0, 12, 24, 36))
NEAR = 0.36               # m from the arm's base, where the tool is at ease


def reset(skills, task, seed):
    """Bring the T to `task.start_pose(seed)`. Raises SkillError."""
    arm = task.action.arm
    name = task.start.object
    target = task.start_pose(seed)
    skills.open_gripper(arm)
    pose = pull_near(skills, arm, name, skills.locate(name))
    for turn_first in (False, True):
        grasp = choose_grasp(skills, arm, pose, target)
        if grasp is not None:
            break
        if turn_first:
            raise SkillError(f'the handle at ({pose[0]:.3f}, {pose[1]:.3f}) m cannot be grasped so that it gets to '
                             f'({target[0]:.3f}, {target[1]:.3f}) m with a turn of '
                             f'{math.degrees(wrap(target[2] - pose[2])):.0f} deg')
        # The wrist cannot turn that far in one grasp: half of it first.
        halfway = pose[0], pose[1], pose[2] + wrap(target[2] - pose[2]) / 2
        move_t(skills, arm, pose, halfway, choose_grasp(skills, arm, pose, halfway))
        skills.go_home(arm)
        pose = skills.locate(name)
    move_t(skills, arm, pose, target, grasp)
    skills.go_home(arm)
    skills.close_gripper(arm)


def choose_grasp(skills, arm, pose, target):
    """Yaw of the tool at the handle with the least turned wrist at both ends, or None."""
    turn = wrap(target[2] - pose[2])
    best = None
    for quarter in range(4):
        yaw = pose[2] + quarter * math.pi / 2
        # The first joint points the arm at the T, the last one adds what is missing.
        pick, place = skills.bearing(arm, *pose[:2]), skills.bearing(arm, *target[:2])
        first = wrap(yaw - pick)
        yaw = first + pick
        twist = max(abs(first), abs(yaw + turn - place))
        if best is not None and twist >= best[0]:
            continue
        # Beyond half a turn the wrist would have to come from the other side.
        if twist < math.pi and all(
                skills.can_reach(arm, x, y, height, angle) for x, y, angle in
                ((*pose[:2], yaw), (*target[:2], yaw + turn)) for height in (GRASP_HEIGHT, SAFE_HEIGHT)):
            best = twist, yaw
    return None if best is None else best[1]


def move_t(skills, arm, pose, target, yaw):
    """Grasp the T at `pose` with the tool at `yaw`, and put it at `target`."""
    if yaw is None:
        raise SkillError(f'the handle at ({pose[0]:.3f}, {pose[1]:.3f}) m is out of reach')
    pick_up(skills, arm, pose, yaw, 0.0)
    try:
        skills.lift(arm, SAFE_HEIGHT)
        skills.carry(arm, target[0], target[1], wrap(target[2] - pose[2]))
    finally:
        # Also when the way there failed: what is left in the fingers would be dropped from home.
        skills.place(arm, GRASP_HEIGHT)
        skills.lift(arm, SAFE_HEIGHT)


def pick_up(skills, arm, pose, yaw, lean):
    skills.move_above(arm, pose[0], pose[1], SAFE_HEIGHT, yaw, lean)
    # Leaning fingers stand on their lower edge.
    skills.lower(arm, GRASP_HEIGHT + FINGER_HALF_WIDTH * math.sin(lean))
    try:
        skills.grasp(arm, HANDLE_WIDTH, FORCE)
    except SkillError:
        skills.open_gripper(arm)
        skills.retreat(arm, SAFE_HEIGHT)
        raise


def pull_near(skills, arm, name, pose):
    """Where the T is beyond the reach of an upright tool, grasp it leaning and drag it nearer; the pose after that."""
    x, y, yaw = pose
    bearing = skills.bearing(arm, x, y)
    # Of the four ways, the one whose closing direction is most nearly across the arm.
    across = min((yaw + quarter * math.pi / 2 for quarter in range(4)), key=lambda a: abs(wrap(a - bearing)))
    across = bearing + wrap(across - bearing)
    for lean in LEANS:
        if all(skills.can_reach(arm, x, y, height, across, lean) for height in (GRASP_HEIGHT, SAFE_HEIGHT)):
            break
    else:
        raise SkillError(f'the T at ({x:.3f}, {y:.3f}) m is out of reach of {arm}; put it nearer by hand')
    if lean == 0.0:
        return pose
    pick_up(skills, arm, pose, across, lean)
    distance = math.hypot(x, y)
    skills.carry(arm, x * NEAR / distance, y * NEAR / distance, 0.0)
    skills.open_gripper(arm)
    skills.retreat(arm, SAFE_HEIGHT)
    return skills.locate(name)
