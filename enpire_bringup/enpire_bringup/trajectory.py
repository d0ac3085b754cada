"""Joint trajectories: sampling as a joint trajectory controller does it, and time parameterization.

Times are seconds from the start of a trajectory, positions rad, velocities rad/s, one column a joint.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import Sequence

import numpy as np
import ruckig

SAMPLE_PERIOD = 0.02          # s between the points of a planned trajectory
JERK_TIME = 0.08              # s in which a planned move builds up its full acceleration
ACCELERATION_SHARE = 0.5      # of the limit for each of the two causes of acceleration along a path: curve, speed


@dataclass(frozen=True)
class JointTrajectory:
    """times (m,) increasing, positions (m, n), velocities (m, n)."""

    times: np.ndarray
    positions: np.ndarray
    velocities: np.ndarray

    @property
    def duration(self) -> float:
        return float(self.times[-1])

    def slowed(self, factor: float) -> 'JointTrajectory':
        """The same way, `factor` times as long on it."""
        return JointTrajectory(self.times * factor, self.positions, self.velocities / factor)

    def sampler(self) -> 'TrajectorySampler':
        return TrajectorySampler(self.times.tolist(), self.positions.tolist(), self.velocities.tolist())


class TrajectorySampler:
    """Positions and velocities of a trajectory at any time; plain lists, because it runs in the control loop.

    Between two points with velocities the interpolation is cubic, otherwise linear, as joint_trajectory_controller
    does it. Before the first and after the last point the trajectory stands still.
    """

    def __init__(self, times: Sequence[float], positions: Sequence[Sequence[float]],
                 velocities: Sequence[Sequence[float] | None]):
        self.times = list(times)
        self.positions = [list(point) for point in positions]
        self.velocities = [list(point) if point is not None else None for point in velocities]
        self._still = [0.0] * len(self.positions[0])

    @property
    def duration(self) -> float:
        return self.times[-1]

    def index(self, time: float) -> int:
        """Index of the point that the trajectory is heading for."""
        return min(bisect_right(self.times, time), len(self.times) - 1)

    def sample(self, time: float) -> tuple[list[float], list[float]]:
        """(positions, velocities) at `time` seconds from the start."""
        times = self.times
        if time >= times[-1]:
            return self.positions[-1], self._still
        if time <= times[0]:
            return self.positions[0], self._still
        i = bisect_right(times, time) - 1
        span = times[i + 1] - times[i]
        u = (time - times[i]) / span
        p0, p1 = self.positions[i], self.positions[i + 1]
        v0, v1 = self.velocities[i], self.velocities[i + 1]
        if v0 is None or v1 is None:
            return ([a + u * (b - a) for a, b in zip(p0, p1)], [(b - a) / span for a, b in zip(p0, p1)])
        # Cubic Hermite basis and its derivative
        uu = u * u
        h01 = uu * (3.0 - 2.0 * u)
        h00 = 1.0 - h01
        h10 = span * u * (1.0 - u) * (1.0 - u)
        h11 = span * uu * (u - 1.0)
        d01 = 6.0 * u * (1.0 - u) / span
        d10 = (1.0 - u) * (1.0 - 3.0 * u)
        d11 = u * (3.0 * u - 2.0)
        positions = [h00 * a + h01 * b + h10 * va + h11 * vb for a, b, va, vb in zip(p0, p1, v0, v1)]
        velocities = [d01 * (b - a) + d10 * va + d11 * vb for a, b, va, vb in zip(p0, p1, v0, v1)]
        return positions, velocities


def standing_still(positions: Sequence[float]) -> JointTrajectory:
    """A trajectory of one point, for a move whose start is its goal."""
    point = np.asarray(positions, float)[None, :]
    return JointTrajectory(np.array([SAMPLE_PERIOD]), point, np.zeros_like(point))


def point_to_point(start: Sequence[float], goal: Sequence[float], max_velocity: Sequence[float],
                   max_acceleration: Sequence[float]) -> JointTrajectory:
    """The fastest jerk-limited move from rest to rest along the straight line in joint space.

    start, goal (n,) rad; max_velocity (n,) rad/s; max_acceleration (n,) rad/s^2. Raises ValueError when the inputs
    are not finite.
    """
    start, goal = np.asarray(start, float), np.asarray(goal, float)
    if not (np.isfinite(start).all() and np.isfinite(goal).all()):
        raise ValueError(f'cannot plan from {start.tolist()} to {goal.tolist()}: not all numbers are finite')
    if np.abs(goal - start).max() < 1e-6:
        return standing_still(goal)
    way = goal - start
    # One profile for all joints, as fast as the slowest of them: several would leave the line.
    with np.errstate(divide='ignore'):
        speed, gain = ((np.asarray(limit, float) / np.abs(way)).min() for limit in (max_velocity, max_acceleration))
    solution = _time_optimal([0.0], [1.0], [speed], [gain])
    times = sample_times(solution.duration)
    along, rate, _ = (np.array(values)[:, 0] for values in zip(*(solution.at_time(float(t)) for t in times)))
    return JointTrajectory(times, start + along[:, None] * way, rate[:, None] * way)


def _time_optimal(start, goal, max_velocity, max_acceleration) -> ruckig.Trajectory:
    n = len(start)
    problem = ruckig.InputParameter(n)
    problem.current_position, problem.target_position = list(start), list(goal)
    problem.max_velocity = list(max_velocity)
    problem.max_acceleration = list(max_acceleration)
    problem.max_jerk = [a / JERK_TIME for a in max_acceleration]
    solution = ruckig.Trajectory(n)
    outcome = ruckig.Ruckig(n).calculate(problem, solution)
    if outcome not in (ruckig.Result.Working, ruckig.Result.Finished):
        raise ValueError(f'ruckig found no trajectory from {list(start)} to {list(goal)}: {outcome}')
    return solution


def along_path(waypoints: np.ndarray, max_velocity: Sequence[float],
               max_acceleration: Sequence[float]) -> JointTrajectory:
    """From rest to rest along a dense joint path, the path's geometry kept.

    waypoints (m, n) rad, evenly spaced along the path. One bound on speed and one on acceleration along the path
    respect the joint limits everywhere on it: simple, and not the fastest where a path bends a lot.
    """
    waypoints = np.asarray(waypoints, float)
    if len(waypoints) < 2 or np.abs(np.diff(waypoints, axis=0)).sum() < 1e-6:
        return standing_still(waypoints[-1])
    path = np.linspace(0.0, 1.0, len(waypoints))
    slope = np.gradient(waypoints, path, axis=0)
    curvature = np.gradient(slope, path, axis=0)
    velocity, acceleration = np.asarray(max_velocity, float), np.asarray(max_acceleration, float)
    with np.errstate(divide='ignore'):
        steepest, bent = np.abs(slope).max(axis=0), np.abs(curvature).max(axis=0)
        speed = min((velocity / steepest).min(), math.sqrt((ACCELERATION_SHARE * acceleration / bent).min()))
        gain = ((1.0 - ACCELERATION_SHARE) * acceleration / steepest).min()
    along = _time_optimal([0.0], [1.0], [speed], [gain])
    times = sample_times(along.duration)
    samples = [along.at_time(float(t)) for t in times]
    s, s_dot = np.array([sample[0][0] for sample in samples]), np.array([sample[1][0] for sample in samples])
    positions = np.column_stack([np.interp(s, path, column) for column in waypoints.T])
    velocities = np.column_stack([np.interp(s, path, column) for column in slope.T]) * s_dot[:, None]
    velocities[0] = velocities[-1] = 0.0
    return JointTrajectory(times, positions, velocities)


def one_after_another(parts: Sequence[JointTrajectory]) -> JointTrajectory:
    """Trajectories from rest to rest, each beginning where the one before ends, as one."""
    starts = np.concatenate([[0.0], np.cumsum([part.duration for part in parts])])
    kept = [slice(1 if number else 0, None) for number in range(len(parts))]
    return JointTrajectory(np.concatenate([part.times[keep] + start
                                           for part, keep, start in zip(parts, kept, starts)]),
                           np.concatenate([part.positions[keep] for part, keep in zip(parts, kept)]),
                           np.concatenate([part.velocities[keep] for part, keep in zip(parts, kept)]))


def sample_times(duration: float) -> np.ndarray:
    """Times from 0 to `duration`, about SAMPLE_PERIOD apart."""
    return np.linspace(0.0, duration, max(2, math.ceil(duration / SAMPLE_PERIOD) + 1))
