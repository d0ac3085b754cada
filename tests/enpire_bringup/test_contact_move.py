"""A contact-stop move ends at its force, at its end, or with the reason, and is never fast."""

import math
from dataclasses import replace

import numpy as np
import pytest

from enpire_bringup.contact_move import CONTACT_SPEED, ContactMove, slowed_to
from enpire_bringup.guard import ArmGuard
from enpire_bringup.kinematics import tool_down
from enpire_bringup.motion_planning import MotionPlanner
from enpire_bringup.obstacles import Obstacle
from enpire_bringup.ompl_planner import OmplPlanner
from enpire_bringup.tip_force import TipForce
from enpire_bringup.trajectory import JointTrajectory
from enpire_bringup.world import World

BLOCK = Obstacle('block', (0.10, 0.10, 0.06), (0.30, -0.15, 0.03), (0.0, 0.0, 0.0))
SECOND = 1_000_000_000
STEP = SECOND // 30
HOME = np.array([0.0, 1.047, 1.047, 0.0, 0.0, 0.0])
TRAJECTORY = JointTrajectory(np.array([0.0, 1.0]), np.array([[0.0], [1.0]]), np.zeros((2, 1)))


def follow(move, forces):
    """Positions commanded for tip forces (N along z) at one policy step each."""
    return [move.follow(number * STEP, np.array([0.5]), np.array([0.0, 0.0, force]) if force is not None else None)[0][0]
            for number, force in enumerate(forces)]


def test_move_ends_at_the_step_in_which_the_force_is_there_and_stays_where_the_arm_is():
    move = ContactMove(TRAJECTORY, 5.0, 1 / 30)
    commanded = follow(move, [0.0, 1.0, 4.9, 5.1])
    assert move.contact and move.finished.is_set() and move.force == pytest.approx(5.1)
    assert 0.0 < commanded[0] < commanded[1] < commanded[2] and commanded[3] == 0.5


def test_weight_that_is_carried_is_no_contact():
    move = ContactMove(TRAJECTORY, 5.0, 1 / 30)
    follow(move, [-8.0, -8.5, -9.0])
    assert not move.finished.is_set()
    follow(move, [-2.9])
    assert move.contact and move.force == pytest.approx(5.1)


def test_end_of_the_way_without_contact_says_so():
    move = ContactMove(TRAJECTORY, 5.0, 1 / 30)
    commanded = follow(move, [0.0] * 50)
    assert move.finished.is_set() and not move.contact and 'no contact of 5 N' in move.reason
    assert max(commanded) == pytest.approx(1.0)


@pytest.mark.parametrize('reading', [None, math.nan])
def test_force_that_is_not_known_ends_the_move(reading):
    move = ContactMove(TRAJECTORY, 5.0, 1 / 30)
    follow(move, [0.0, 0.0, reading])
    assert move.finished.is_set() and not move.contact and 'cannot be estimated' in move.reason
    assert math.isnan(move.force)


def test_way_is_slowed_to_the_speed_of_contacts(station):
    planner = MotionPlanner(station, None, 'left', ArmGuard(station, 'left', station.safety), OmplPlanner())
    plan = planner.line_to(HOME, _lower(planner.pose_of(HOME), 0.1), 1.0)
    slow = slowed_to(plan.trajectory, plan.tips, CONTACT_SPEED)
    speeds = np.linalg.norm(np.diff(plan.tips, axis=0), axis=1) / np.diff(slow.times)
    assert speeds.max() == pytest.approx(CONTACT_SPEED, rel=1e-6)
    assert slow.duration > 0.1 / CONTACT_SPEED


def _lower(pose, distance):
    pose[2, 3] -= distance
    return pose


def test_tool_stops_at_the_force_on_a_block_in_the_simulated_world(station, task):
    """Straight down on a block, point by point as arm_control streams it."""
    station = replace(station, obstacles=(BLOCK,))
    world = World(station, task)
    world.reset(1)
    planner = MotionPlanner(station, task, 'left', ArmGuard(station, 'left', station.safety), OmplPlanner())
    joints = station.arms['left'].joints
    force = TipForce(station, 'left')

    def step(command, velocities=None):
        world.step(dict(zip(joints, command)), velocities=dict(zip(joints, velocities)) if velocities is not None
                   else None)
        _, q, v, efforts = (values[:6] for values in world.joint_state())
        return q, force.observe(world.time, q, v, efforts)

    above = planner.to_pose(HOME, tool_down(0.30, -0.15, 0.10, 0.0), 1.0).trajectory
    sampler = above.sampler()
    for t in np.arange(0.0, above.duration + 0.5, world.period):
        q, felt = step(*sampler.sample(t))
    plan = planner.line_to(above.positions[-1], tool_down(0.30, -0.15, 0.045, 0.0), 1.0, pressing=True)
    move = ContactMove(slowed_to(plan.trajectory, plan.tips, CONTACT_SPEED), 8.0, 1 / 30)
    command, most = q, 0.0
    for tick in range(1200):
        if world.is_policy_tick(30.0):
            command, velocities = move.follow(world.stamp_ns, q, felt)
        q, felt = step(command)
        most = max(most, float(np.linalg.norm(felt)))
        if move.finished.is_set():
            break
    assert move.contact and 8.0 <= move.force < 13.0
    tip = planner.pose_of(q)[2, 3]
    assert 0.055 < tip < 0.064
    for _ in range(60):
        q, felt = step(command)
        most = max(most, float(np.linalg.norm(felt)))
    assert most < 14.0 and np.linalg.norm(felt) < 8.0
