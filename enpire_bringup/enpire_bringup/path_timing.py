"""Joint paths with corners, timed by TOPP-RA.

Beside `trajectory.py`, because TOPP-RA loads a library for plots, which takes most of a second: only who plans waits for
it.
"""

from __future__ import annotations

import math
from typing import Sequence

import numpy as np
import toppra

from enpire_bringup.trajectory import JointTrajectory, sample_times, standing_still

KNOT_SPACING = 0.04           # rad between the knots of the spline that TOPP-RA follows
MIN_GRID = 40                 # points at which TOPP-RA looks at the limits


def along_bends(waypoints: np.ndarray, max_velocity: Sequence[float], max_acceleration: Sequence[float],
                corner: float) -> JointTrajectory:
    """From rest to rest along a joint path with corners, as fast as the limits allow (TOPP-RA).

    waypoints (m, n) rad; corner: rad along the path, before and after a corner, in which it is rounded. So the motion
    leaves the path there, and whoever asked for it has to check it again. Raises ValueError when there is no such
    motion.
    """
    path = _rounded(_resampled(np.asarray(waypoints, float), KNOT_SPACING), max(1, round(corner / KNOT_SPACING)))
    knots = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    kept = np.concatenate([[True], np.diff(knots) > 1e-9])
    path, knots = path[kept], knots[kept]
    if len(path) < 3 or knots[-1] < 1e-6:
        return standing_still(path[-1])
    velocity, acceleration = (np.outer(limit, (-1.0, 1.0)) for limit in (max_velocity, max_acceleration))
    limits = [toppra.constraint.JointVelocityConstraint(velocity),
              toppra.constraint.JointAccelerationConstraint(
                  acceleration, discretization_scheme=toppra.constraint.DiscretizationType.Interpolation)]
    grid = np.linspace(0.0, knots[-1], max(MIN_GRID, 2 * len(knots)))
    solver = toppra.algorithm.TOPPRA(limits, toppra.SplineInterpolator(knots, path), gridpoints=grid,
                                     solver_wrapper='seidel', parametrizer='ParametrizeConstAccel')
    solution = solver.compute_trajectory(0.0, 0.0)
    if solution is None:
        raise ValueError('TOPP-RA found no timing for the path within the limits on velocity and acceleration')
    times = sample_times(solution.duration)
    positions, velocities = solution(times), solution(times, 1)
    velocities[0] = velocities[-1] = 0.0
    return JointTrajectory(times, positions, velocities)


def _resampled(waypoints: np.ndarray, spacing: float) -> np.ndarray:
    """Points about `spacing` rad apart along the straight lines between waypoints (m, n)."""
    lengths = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(waypoints, axis=0), axis=1))])
    at = np.linspace(0.0, lengths[-1], max(3, math.ceil(lengths[-1] / spacing) + 1))
    return np.column_stack([np.interp(at, lengths, column) for column in waypoints.T])


def _rounded(path: np.ndarray, half_width: int) -> np.ndarray:
    """Mean over 2 `half_width` + 1 points of an evenly spaced path (m, n), its ends kept in place and direction."""
    half_width = min(half_width, (len(path) - 1) // 2)
    # Continued beyond both ends by their point reflections, so that the mean at an end is the end.
    before = 2.0 * path[0] - path[half_width:0:-1]
    after = 2.0 * path[-1] - path[-2:-half_width - 2:-1]
    sums = np.cumsum(np.vstack([np.zeros(path.shape[1]), before, path, after]), axis=0)
    width = 2 * half_width + 1
    return (sums[width:] - sums[:-width]) / width
