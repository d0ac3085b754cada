"""Kinematics of one arm: exact where the arm reaches, a named error where it does not, calm at the edge."""

import math
import time

import numpy as np
import psutil
import pytest

from enpire_bringup.kinematics import (
    ArmKinematics, UnreachableError, pose_matrix, quaternion_of, tool_down)
from enpire_bringup.station import load_station

HOME = (0.0, 1.047, 1.047, 0.0, 0.0, 0.0)


@pytest.fixture(scope='module')
def left():
    return ArmKinematics(load_station('yam_bimanual_sim'), 'left')


def test_tool_is_where_the_robot_s_data_sheet_puts_it(left):
    np.testing.assert_allclose(left.tip(np.zeros(6)), [0.2552, 0.0, 0.1734], atol=1e-4)
    np.testing.assert_allclose(left.tip(HOME), [0.387, 0.0, 0.402], atol=1e-3)


def test_right_arm_is_the_left_one_beside_it(left):
    right = ArmKinematics(load_station('yam_bimanual_sim'), 'right')
    q = [0.3, 1.2, 0.9, -0.2, 0.1, 0.5]
    np.testing.assert_allclose(right.tip(q) - left.tip(q), [0.0, -0.61, 0.0], atol=1e-9)


def test_tool_down_points_down_and_closes_along_y_at_yaw_zero():
    pose = tool_down(0.3, 0.1, 0.05, 0.0)
    np.testing.assert_allclose(pose[:3, 0], [0, 0, -1], atol=1e-12)
    np.testing.assert_allclose(pose[:3, 1], [0, 1, 0], atol=1e-12)
    assert np.linalg.det(tool_down(0.3, 0.1, 0.05, 1.1)[:3, :3]) == pytest.approx(1.0)


def test_pose_and_quaternion_are_inverse():
    pose = tool_down(0.3, -0.1, 0.05, 0.7)
    np.testing.assert_allclose(pose_matrix(pose[:3, 3], quaternion_of(pose)), pose, atol=1e-12)


@pytest.mark.parametrize('position, quaternion', [
    ((math.nan, 0, 0), (0, 0, 0, 1)), ((0, 0, 0), (0, 0, 0, 0)), ((0, 0, 0), (0, math.inf, 0, 1))])
def test_numbers_that_are_no_pose_are_refused(position, quaternion):
    with pytest.raises(ValueError, match='is no pose'):
        pose_matrix(position, quaternion)


def test_every_pose_of_the_work_area_is_solved_within_tolerance_and_limits(left):
    rng = np.random.default_rng(1)
    for _ in range(100):
        pose = tool_down(rng.uniform(0.2, 0.42), rng.uniform(-0.15, 0.15), rng.choice([0.012, 0.045, 0.1]),
                         rng.uniform(-1.5, 1.5))
        q = left.ik(pose, HOME, margin=0.02)
        reached = left.fk(q)
        assert np.linalg.norm(reached[:3, 3] - pose[:3, 3]) < 3e-4
        assert np.abs(reached[:3, :3] - pose[:3, :3]).max() < 3e-3
        assert (q >= left.lower + 0.02).all() and (q <= left.upper - 0.02).all()


def test_seed_decides_between_solutions(left):
    pose = tool_down(0.3, 0.0, 0.1, 0.0)
    q = left.ik(pose, HOME)
    np.testing.assert_allclose(left.ik(pose, q + 0.05), q, atol=5e-3)


def test_unreachable_pose_names_itself_and_how_far_off_the_best_is(left):
    with pytest.raises(UnreachableError, match=r'left: pose x 0\.900 y 0\.000 z 0\.300 m .* mm and .* deg off'):
        left.ik(tool_down(0.9, 0.0, 0.3, 0.0), HOME)


def servo_along(left, targets, q):
    lower, upper = left.lower + 0.02, left.upper - 0.02
    for target in targets:
        q = left.servo_ik(target, q, lower, upper)
        assert (q >= lower).all() and (q <= upper).all()
        yield target, left.fk(q)


def test_servo_follows_a_circle_on_the_table_upright(left):
    q = left.ik(tool_down(0.45, 0.0, 0.012, 0.0), HOME)
    circle = [tool_down(0.33 + 0.12 * math.cos(a), 0.18 * math.sin(a), 0.012, 0.0)
              for a in np.linspace(0, 2 * math.pi, 200)]
    for target, reached in servo_along(left, circle, q):
        assert np.linalg.norm(reached[:3, 3] - target[:3, 3]) < 5e-4
        assert reached[2, 0] < -0.9999


def test_servo_at_the_edge_of_reach_tilts_the_tool_and_keeps_the_tip(left):
    q = left.ik(tool_down(0.4, 0.0, 0.012, 0.0), HOME)
    outward = [tool_down(x, 0.0, 0.012, 0.0) for x in np.arange(0.4, 0.62, 0.008)]
    tilts = []
    for target, reached in servo_along(left, outward, q):
        assert np.linalg.norm(reached[:3, 3] - target[:3, 3]) < 1e-3
        tilts.append(math.acos(min(1.0, -reached[2, 0])))
    assert tilts[0] < 0.01 and tilts[-1] > 0.2


def test_servo_step_takes_less_than_a_millisecond(left):
    q = left.ik(tool_down(0.3, 0.0, 0.05, 0.0), HOME)
    spent = []
    for step in range(100):
        began = time.perf_counter()
        q = left.servo_ik(tool_down(0.3 + 0.001 * step, 0.0, 0.05, 0.0), q, left.lower, left.upper)
        spent.append(time.perf_counter() - began)
    assert sorted(spent)[50] < 1e-3


def test_solutions_of_a_pose_begin_with_that_of_ik_and_there_are_none_out_of_reach(left):
    pose = tool_down(0.3, 0.1, 0.1, 0.5)
    solutions = list(left.solutions(pose, HOME))
    np.testing.assert_array_equal(solutions[0], left.ik(pose, HOME))
    for number, q in enumerate(solutions):
        np.testing.assert_allclose(left.fk(q)[:3, 3], pose[:3, 3], atol=3e-4)
        assert all(np.abs(q - other).max() > 0.05 for other in solutions[:number])
    assert list(left.solutions(tool_down(0.9, 0.0, 0.1, 0.0), HOME)) == []


def test_least_motion_vanishes_where_two_wrist_axes_align(left):
    far, near = (left.least_motion([0.0, 1.047, 1.047, 0.0, turn, 0.0]) for turn in (0.0, 1.57))
    assert far > 0.03 and near < 0.001


def test_a_quaternion_of_a_pose_turns_as_the_pose_does():
    rng = np.random.default_rng(4)
    for quaternion in (*rng.normal(size=(200, 4)), *np.eye(4), (1, 1, 0, 0), (0, 1, -1, 0), (0.7, 0, 0, 1e-9)):
        pose = pose_matrix((0.0, 0.0, 0.0), quaternion)
        found = np.array(quaternion_of(pose))
        assert np.linalg.norm(found) == pytest.approx(1.0)
        assert pose_matrix((0.0, 0.0, 0.0), found) == pytest.approx(pose, abs=1e-12)


def test_quaternions_of_poses_do_not_pile_up_in_memory():
    process, pose = psutil.Process(), np.eye(4)
    for _ in range(2000):
        quaternion_of(pose)
    before = process.memory_info().rss
    for _ in range(50_000):
        quaternion_of(pose)
    assert process.memory_info().rss - before < 1_000_000
