"""The starting recipe of Push-T is weak but not hopeless, and its idea library holds what solves the task.

Rolled out in the simulated world without ROS and with true poses, so that only the policies are judged.
"""

import importlib.util
import math

import numpy as np
import pytest
import yaml

from enpire_agent.researcher import load_ideas
from enpire_bringup.kinematics import ArmKinematics, tool_down
from enpire_bringup.station import load_station
from enpire_bringup.task import load_task
from enpire_bringup.world import World

STATION, TASK = load_station('yam_bimanual_sim'), load_task('push_t')
IDEAS = TASK.directory / 'ideas'
MARGIN = 0.02   # rad


@pytest.fixture(scope='module')
def bench():
    return World(STATION, TASK), ArmKinematics(STATION, TASK.action.arm)


def rollout(bench, policy_file, recipe_file, seed):
    """(solved, seconds) of one episode."""
    world, kinematics = bench
    joints = STATION.arms[TASK.action.arm].joints
    policy = load_policy(policy_file, recipe_file)
    world.reset(seed)

    def positions():
        names, values, _, _ = world.joint_state()
        return np.array([dict(zip(names, values))[joint] for joint in joints])

    lower, upper = kinematics.lower + MARGIN, kinematics.upper - MARGIN
    target = farthest_corner(world.object_pose('t_block'))
    q = positions()
    for height in (0.1, TASK.action.height):
        pose, start = tool_down(*target, height, 0.0), q
        for _ in range(100):
            q = kinematics.servo_ik(pose, q, lower, upper)
        for share in np.linspace(0, 1, 100):
            world.step(dict(zip(joints, start + share * (q - start))))
    still = 0
    for step in range(int(TASK.policy.episode_timeout * TASK.policy.rate)):
        before = np.array(world.object_pose('t_block')[:3])
        observation = {'time': step / TASK.policy.rate, 't_block': {'pose': before, 'visible': True},
                       'tip': kinematics.tip(positions())[:2], 'joint_positions': positions()}
        if step == 0:
            policy.reset(observation)
        move = np.clip(policy.act(observation), TASK.action.low, TASK.action.high) - target
        target = target + move * min(1.0, TASK.action.max_step / max(np.hypot(*move), 1e-9))
        following = kinematics.servo_ik(tool_down(*target, TASK.action.height, 0.0), q, lower, upper)
        ticks = 4 if step % 3 == 0 else 3
        for tick in range(ticks):
            share = (tick + 1) / ticks
            world.step(dict(zip(joints, q + share * (following - q))), None,
                       dict(zip(joints, (following - q) * TASK.policy.rate)))
        q = following
        after = np.array(world.object_pose('t_block')[:3])
        still = still + 1 if at_goal(after) and np.hypot(*(after - before)[:2]) < 5e-4 else 0
        if still >= TASK.tolerance.still * TASK.policy.rate:
            return True, step / TASK.policy.rate
    return False, TASK.policy.episode_timeout


def load_policy(policy_file, recipe_file):
    spec = importlib.util.spec_from_file_location('policy_under_test', policy_file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Policy({**yaml.safe_load(recipe_file.read_text()), 'task': yaml.safe_load(TASK.file.read_text())})


def farthest_corner(pose):
    corners = np.array([[x, y] for x in (TASK.action.low[0], TASK.action.high[0])
                        for y in (TASK.action.low[1], TASK.action.high[1])])
    return corners[np.argmax(np.hypot(*(corners - pose[:2]).T))]


def at_goal(pose):
    yaw = (pose[2] - TASK.goal.yaw + math.pi) % (2 * math.pi) - math.pi
    return (math.hypot(pose[0] - TASK.goal.x, pose[1] - TASK.goal.y) <= TASK.tolerance.position
            and abs(yaw) <= TASK.tolerance.yaw)


def test_motion_model_solves_fresh_starts(bench):
    solved = [rollout(bench, IDEAS / 'motion_model.py', IDEAS / 'motion_model.yaml', 1000 + seed)[0]
              for seed in range(12)]
    assert sum(solved) >= 11


def test_starting_recipe_solves_some_but_not_half(bench):
    solved = [rollout(bench, TASK.recipe / 'policy.py', TASK.recipe / 'recipe.yaml', 1000 + seed)[0]
              for seed in range(20)]
    assert 1 <= sum(solved) <= 10


def test_every_idea_reads_and_names_files_that_compile():
    for idea in load_ideas(IDEAS / 'ideas.yaml'):
        for name, file in idea.files.items():
            if name.endswith('.py'):
                compile(file.read_text(), str(file), 'exec')
