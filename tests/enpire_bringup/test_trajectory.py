"""Trajectories stay within limits, begin and end at rest, and are sampled as a controller samples them."""

import math

import numpy as np
import pytest

from enpire_bringup.path_timing import along_bends
from enpire_bringup.trajectory import TrajectorySampler, along_path, one_after_another, point_to_point

VELOCITY = [2.0, 2.0, 2.0, 2.5, 2.5, 3.0]
ACCELERATION = [6.0, 6.0, 6.0, 10.0, 10.0, 12.0]
START, GOAL = [0.0, 1.0, 1.0, 0.0, 0.0, 0.0], [0.8, 0.4, 1.5, -0.5, 0.3, 2.0]


def check_limits(trajectory):
    fine = trajectory.sampler()
    times = np.arange(0, trajectory.duration, 0.002)
    velocities = np.array([fine.sample(t)[1] for t in times])
    assert (np.abs(velocities) <= np.array(VELOCITY) * 1.01).all()
    accelerations = np.diff(velocities, axis=0) / 0.002
    assert (np.abs(accelerations) <= np.array(ACCELERATION) * 1.1).all()


def test_point_to_point_arrives_at_rest_within_the_limits():
    trajectory = point_to_point(START, GOAL, VELOCITY, ACCELERATION)
    np.testing.assert_allclose(trajectory.positions[0], START, atol=1e-9)
    np.testing.assert_allclose(trajectory.positions[-1], GOAL, atol=1e-6)
    np.testing.assert_allclose(trajectory.velocities[[0, -1]], 0, atol=1e-6)
    check_limits(trajectory)
    # 2 rad at 3 rad/s take at least 0.67 s; a limit that is not used would be a slow robot.
    assert 0.67 < trajectory.duration < 1.2


def test_move_to_where_the_arm_is_stands_still():
    trajectory = point_to_point(START, START, VELOCITY, ACCELERATION)
    assert trajectory.positions.tolist() == [START] and trajectory.duration > 0


def test_numbers_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match='not all numbers are finite'):
        point_to_point(START, [math.nan] + GOAL[1:], VELOCITY, ACCELERATION)


def test_path_keeps_its_geometry_and_the_limits():
    s = np.linspace(0, 1, 60)
    path = np.array(START) + np.outer(s, np.subtract(GOAL, START)) + 0.1 * np.outer(np.sin(3 * s), np.ones(6))
    trajectory = along_path(path, VELOCITY, ACCELERATION)
    np.testing.assert_allclose(trajectory.positions[[0, -1]], path[[0, -1]], atol=1e-6)
    check_limits(trajectory)
    for q in trajectory.positions:
        assert np.linalg.norm(path - q, axis=1).min() < 0.03


def test_sampler_is_cubic_with_velocities_and_linear_without():
    cubic = TrajectorySampler([0.0, 1.0], [[0.0], [1.0]], [[0.0], [0.0]])
    assert cubic.sample(0.5) == ([0.5], [1.5])
    assert cubic.sample(0.25)[0][0] == pytest.approx(0.15625)
    linear = TrajectorySampler([0.0, 1.0], [[0.0], [1.0]], [None, None])
    assert linear.sample(0.25) == ([0.25], [1.0])


def test_sampler_stands_still_before_and_after():
    sampler = TrajectorySampler([0.5, 1.0], [[1.0], [2.0]], [[0.3], [0.3]])
    assert sampler.sample(0.0) == ([1.0], [0.0])
    assert sampler.sample(7.0) == ([2.0], [0.0])


def test_point_to_point_stays_on_the_straight_line_whatever_the_joints_limits():
    start, goal = np.array([0.0, 1.0, -0.5]), np.array([1.0, 0.7, 0.9])
    trajectory = point_to_point(start, goal, [2.0, 0.5, 3.0], [6.0, 6.0, 1.0])
    share = (trajectory.positions[:, 0] - start[0]) / (goal[0] - start[0])
    np.testing.assert_allclose(trajectory.positions, start + share[:, None] * (goal - start), atol=1e-9)
    assert (np.abs(trajectory.velocities) <= [2.0 + 1e-9, 0.5 + 1e-9, 3.0 + 1e-9]).all()
    assert (np.diff(share) >= -1e-12).all() and share[-1] == pytest.approx(1.0)


def test_bends_are_rounded_within_the_limits_and_the_ends_stay():
    corner = np.array([[0.0, 0.0], [0.8, 0.0], [0.8, 0.8]])
    trajectory = along_bends(corner, [1.0, 1.0], [3.0, 3.0], 0.12)
    np.testing.assert_allclose(trajectory.positions[[0, -1]], corner[[0, -1]], atol=1e-9)
    assert 0.01 < np.linalg.norm(trajectory.positions - corner[1], axis=1).min() < 0.06
    assert np.abs(trajectory.velocities).max() <= 1.001
    accelerations = np.diff(trajectory.velocities, axis=0) / np.diff(trajectory.times)[:, None]
    assert np.abs(accelerations).max() <= 3.3
    assert np.linalg.norm(trajectory.velocities, axis=1)[5:-5].min() > 0.2     # it does not stop at the corner


def test_trajectories_one_after_another_are_one_that_goes_on_in_time():
    first, second = point_to_point([0.0], [1.0], [1.0], [2.0]), point_to_point([1.0], [0.5], [1.0], [2.0])
    whole = one_after_another([first, second])
    assert whole.duration == pytest.approx(first.duration + second.duration)
    assert (np.diff(whole.times) > 0).all()
    assert whole.sampler().sample(first.duration)[0] == pytest.approx([1.0])
    assert whole.positions[-1] == pytest.approx([0.5])
