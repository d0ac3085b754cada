"""Planned moves end where they should and touch nothing on the way, or say what is in the way."""

import math
from dataclasses import replace

import numpy as np
import pytest

from enpire_bringup.collision_model import CollisionModel
from enpire_bringup.guard import ArmGuard
from enpire_bringup.kinematics import ArmKinematics, tool_down
from enpire_bringup.motion_planning import CLEAR_HEIGHT, MotionPlanner, PlanningError
from enpire_bringup.obstacles import Obstacle
from enpire_bringup.ompl_planner import OmplPlanner

HOME = np.array([0.0, 1.047, 1.047, 0.0, 0.0, 0.0])
POST = Obstacle('post', (0.05, 0.05, 0.40), (0.36, 0.0, 0.20), (0.0, 0.0, 0.0))


def planner_of(station, arm='left'):
    return MotionPlanner(station, None, arm, ArmGuard(station, arm, station.safety), OmplPlanner())


@pytest.fixture(scope='module')
def planner(station):
    return planner_of(station)


@pytest.fixture(scope='module')
def kinematics(station):
    return ArmKinematics(station, 'left')


def positions(station, **arms):
    """Joint positions of the whole station, arms that are not named at home, grippers closed."""
    return np.concatenate([[*arms.get(name, arm.named['home']), arm.gripper.closed]
                           for name, arm in station.arms.items()])


def smallest_distance(station, plan):
    """Of any two bodies along a plan of the left arm, the right one at home."""
    bodies = CollisionModel(station)
    return min((bodies.distance(positions(station, left=q)) for q in plan.trajectory.positions),
               key=lambda near: near.distance)


def test_move_to_a_pose_ends_there(planner, kinematics):
    pose = tool_down(0.3, 0.1, 0.1, 0.5)
    plan = planner.to_pose(HOME, pose, 1.0)
    np.testing.assert_allclose(kinematics.fk(plan.trajectory.positions[-1]), pose, atol=3e-3)
    np.testing.assert_allclose(plan.tips[-1], pose[:3, 3], atol=3e-4)
    np.testing.assert_allclose(plan.trajectory.positions[0], HOME)
    assert plan.planner == 'ompl'


def test_half_speed_takes_longer(planner):
    fast, slow = (planner.to_named([0.5, *HOME[1:]], 'home', share).trajectory.duration for share in (1.0, 0.5))
    assert slow > 1.5 * fast


def test_move_to_the_edge_of_the_workspace_is_slow(station, planner, kinematics):
    def pose(room):
        return tool_down(station.safety.workspace_low[0] + room, -0.18, 0.1, -0.5)

    start = kinematics.ik(pose(0.02), HOME)
    for plan in (lambda room: planner.to_pose(HOME, pose(room), 1.0),
                 lambda room: planner.line_to(start, pose(room), 1.0)):
        assert plan(0.006).trajectory.duration > 2.0 * plan(0.034).trajectory.duration


def test_straight_line_is_straight_and_turns_evenly(planner, kinematics):
    begin, end = np.array([0.3, 0.1, 0.1]), np.array([0.3, -0.1, 0.04])
    start = kinematics.ik(tool_down(*begin, 0.5), HOME)
    plan = planner.line_to(start, tool_down(*end, -0.5), 1.0)
    direction = (end - begin) / np.linalg.norm(end - begin)
    for q in plan.trajectory.positions:
        pose = kinematics.fk(q)
        offset = pose[:3, 3] - begin
        assert np.linalg.norm(offset - direction * (offset @ direction)) < 1.5e-3
        assert pose[2, 0] < -0.999      # upright all the way
    np.testing.assert_allclose(plan.tips[-1], end, atol=1e-3)
    assert plan.planner == 'line'


# -- around what is in the way

def test_move_goes_around_a_post_that_the_straight_way_would_hit(station):
    station = replace(station, obstacles=(POST,))
    planner = planner_of(station)
    start, goal = ([turn, 1.9, 1.3, -0.3, 0.0, 0.0] for turn in (0.5, -0.5))
    straight = [np.add(start, share * np.subtract(goal, start)) for share in np.linspace(0, 1, 50)]
    assert any(CollisionModel(station).in_collision(positions(station, left=q)) for q in straight)
    plan = planner.to_joints(start, goal, 1.0)
    near = smallest_distance(station, plan)
    assert near.distance > 0.003, near
    np.testing.assert_allclose(plan.trajectory.positions[-1], goal, atol=1e-9)
    limits = np.array(station.arms['left'].max_velocity), np.array(station.arms['left'].max_acceleration)
    assert (np.abs(plan.trajectory.velocities) <= limits[0] * 1.001).all()
    accelerations = np.diff(plan.trajectory.velocities, axis=0) / np.diff(plan.trajectory.times)[:, None]
    assert (np.abs(accelerations) <= limits[1] * 1.1).all()


def test_same_question_has_the_same_answer_whatever_was_asked_before(station):
    station = replace(station, obstacles=(POST,))
    start, goal = ([turn, 1.9, 1.3, -0.3, 0.0, 0.0] for turn in (0.5, -0.5))
    planner = planner_of(station)
    first = planner.to_joints(start, goal, 1.0)
    planner.to_joints(goal, [0.6, *goal[1:]], 1.0)
    for other in (planner, planner_of(station)):
        again = other.to_joints(start, goal, 1.0)
        np.testing.assert_array_equal(again.trajectory.positions, first.trajectory.positions)
        np.testing.assert_array_equal(again.trajectory.times, first.trajectory.times)


def test_random_moves_are_found_and_touch_nothing(station):
    """A small `enpire bench planning`, between boxes, looked at by the exact distances."""
    station = replace(station, obstacles=(POST, Obstacle('shelf', (0.2, 0.12, 0.02), (0.40, -0.2, 0.22), (0, 0, 0.4))))
    planner = planner_of(station)
    rng = np.random.default_rng(4)
    for _ in range(8):
        start, goal = (planner.random_free_position(rng) for _ in range(2))
        plan = planner.to_pose(start, planner.pose_of(goal), 1.0)
        near = smallest_distance(station, plan)
        assert near.distance > 0.002, near
        np.testing.assert_allclose(plan.tips[-1], planner.pose_of(goal)[:3, 3], atol=1e-3)


# -- low over the table

def sideways_while_low(plan):
    """How far beside its start and its end the tool goes lower than CLEAR_HEIGHT."""
    low = plan.tips[plan.tips[:, 2] < CLEAR_HEIGHT - 0.012]
    return max(min(np.linalg.norm(tip[:2] - plan.tips[end][:2]) for end in (0, -1)) for tip in low)


def test_tool_rises_before_it_goes_home_and_comes_down_where_it_is_to_work(planner, kinematics):
    low, elsewhere = (kinematics.ik(tool_down(*place, 0.012, 0.2), HOME) for place in ((0.30, -0.10), (0.33, 0.15)))
    for plan in (planner.to_named(low, 'home', 1.0), planner.to_pose(HOME, tool_down(0.33, 0.15, 0.012, 0.2), 1.0),
                 planner.to_joints(low, elsewhere, 1.0)):
        assert sideways_while_low(plan) < 0.02
        assert plan.tips[:, 2].min() > 0.011


def test_small_move_low_over_the_table_stays_low(planner, kinematics):
    low = kinematics.ik(tool_down(0.30, -0.10, 0.012, 0.2), HOME)
    plan = planner.to_pose(low, tool_down(0.32, -0.09, 0.012, 0.2), 1.0)
    assert plan.tips[:, 2].max() < 0.02


# -- two arms

def test_way_of_the_other_arm_is_kept_clear(station, planner):
    """The right arm may be anywhere on its way; the left one goes around it or says that it cannot."""
    inward = [0.75, 1.8, 1.047, 0.0, 0.0, 0.0]
    crossing = [positions(station, right=np.add(HOME, share * np.subtract(inward, HOME)))
                for share in np.linspace(0.0, 1.0, 30)]
    with pytest.raises(PlanningError, match='at the goal left_.* (touches|comes within .* mm of) right_'):
        planner.to_joints(HOME, [-0.75, 1.8, 1.047, 0.0, 0.0, 0.0], 1.0, crossing)
    plan = planner.to_joints(HOME, [0.3, 1.8, 1.047, 0.0, 0.0, 0.0], 1.0, crossing)
    bodies = CollisionModel(station)
    for q in plan.trajectory.positions[::3]:
        for other in crossing[::3]:
            whole = other.copy()
            whole[:6] = q
            assert bodies.arm_distance(whole).distance > station.safety.min_arm_distance


# -- what cannot be

@pytest.mark.parametrize('plan, reason', [
    (lambda planner: planner.to_pose(HOME, tool_down(0.9, 0, 0.1, 0), 1.0), 'out of reach'),
    (lambda planner: planner.line_to(HOME, tool_down(0.9, 0, 0.1, 0), 1.0), 'out of reach'),
    (lambda planner: planner.to_pose(HOME, tool_down(0.3, 0, 0.003, 0), 1.0), 'at z = 0.003 m; the workspace is'),
    (lambda planner: planner.to_joints(HOME, [0, 0.2, 3.1, 0.5, 0, 0], 1.0), 'at the goal .* choose another goal'),
    (lambda planner: planner.to_named(HOME, 'hom', 1.0), "no named position 'hom'; there are: home"),
    (lambda planner: planner.to_joints(HOME, [0.0] * 3, 1.0), '3 joint positions; expected 6: left_joint1'),
    (lambda planner: planner.to_joints(HOME, [math.nan] * 6, 1.0), 'finite'),
])
def test_impossible_motion_says_why(planner, plan, reason):
    with pytest.raises(PlanningError, match=reason):
        plan(planner)


def test_goal_in_a_box_and_line_through_it_name_the_box(station, kinematics):
    planner = planner_of(replace(station, obstacles=(POST,)))
    with pytest.raises(PlanningError, match='at the goal left_.* touches box post; choose another goal'):
        planner.to_pose(HOME, tool_down(0.36, 0.0, 0.1, 0.0), 1.0)
    start = kinematics.ik(tool_down(0.30, 0.15, 0.1, 0.0), HOME)
    with pytest.raises(PlanningError, match='on the straight line left_.* box post; use a joint-space move'):
        planner.line_to(start, tool_down(0.36, -0.15, 0.1, 0.0), 1.0)


def test_line_that_presses_may_run_into_a_box_a_little(station, kinematics):
    planner = planner_of(replace(station, obstacles=(Obstacle('block', (0.1, 0.1, 0.06), (0.33, 0.1, 0.03), (0, 0, 0)),)))
    start = kinematics.ik(tool_down(0.33, 0.1, 0.1, 0.0), HOME)
    with pytest.raises(PlanningError, match='finger.* box block'):
        planner.line_to(start, tool_down(0.33, 0.1, 0.05, 0.0), 1.0)
    plan = planner.line_to(start, tool_down(0.33, 0.1, 0.05, 0.0), 1.0, pressing=True)
    assert plan.tips[-1][2] == pytest.approx(0.05, abs=1e-3)
    with pytest.raises(PlanningError, match='finger.* box block'):
        planner.line_to(start, tool_down(0.33, 0.1, 0.02, 0.0), 1.0, pressing=True)


def test_line_into_a_singularity_is_refused(planner):
    """Where joint 5 is turned by a quarter, two wrist axes of this arm align."""
    start, end = ([0.3, 1.4, 1.3, 0.0, turn, 0.0] for turn in (1.2, 1.545))
    with pytest.raises(PlanningError, match='along it the arm would be at a singularity.*use a joint-space move'):
        planner.line_to(start, planner.pose_of(end), 1.0)
    planner.to_joints(start, end, 1.0)


def test_motion_may_begin_too_near_to_a_box_and_leads_away_from_it(station, kinematics):
    planner = planner_of(replace(station, obstacles=(POST,)))
    touching = kinematics.ik(tool_down(0.36, 0.046, 0.1, 0.0), HOME)
    plan = planner.to_pose(touching, tool_down(0.36, 0.15, 0.1, 0.0), 1.0)
    assert plan.tips[-1][1] == pytest.approx(0.15, abs=1e-3)
