"""Trajectories stay within limits, begin and end at rest, and are sampled as a controller samples them."""

import math

import numpy as np
import pytest

from enpire_bringup.trajectory import TrajectorySampler, along_path, point_to_point

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
