"""Joint-space paths by OMPL: RRTConnect, then shortcuts. No ROS."""

from __future__ import annotations

import threading
import time

import numpy as np
from ompl import base, geometric, util

from enpire_bringup.path_planner import NoPathError, PathQuestion

# Of the space's extent; at 0.01 a path that passed still collided (reference/station_and_sim.md).
RESOLUTION = 0.0015
MAX_CHECKS = 40_000        # positions looked at in one search: the same on every machine
MAX_TIME = 20.0            # s of wall time, for a machine on which these take far too long
SHORTCUT_STEPS = 60
SMOOTHING_STEPS = 3

# OMPL's random seeds are one sequence for the whole process.
_one_at_a_time = threading.Lock()


class OmplPlanner:
    """See PathPlanner. Deterministic: what ends a search is a count of checked positions, not the time."""

    name = 'ompl'

    def plan(self, question: PathQuestion) -> np.ndarray:
        """Waypoints (m, n). Raises NoPathError."""
        with _one_at_a_time:
            level = util.getLogLevel()
            util.setLogLevel(util.LogLevel.LOG_NONE)    # it warns of seeds that are set again, which is the point
            try:
                return self._plan(question)
            finally:
                util.setLogLevel(level)

    def _plan(self, question: PathQuestion) -> np.ndarray:
        util.RNG.setSeed(question.seed % 0xFFFFFFFF + 1)
        n = len(question.start)
        space = base.RealVectorStateSpace(n)
        bounds = base.RealVectorBounds(n)
        # A start a little beyond the limits must be inside the space.
        low, high = np.minimum(question.lower, question.start), np.maximum(question.upper, question.start)
        for i in range(n):
            bounds.setLow(i, float(low[i]))
            bounds.setHigh(i, float(high[i]))
        space.setBounds(bounds)
        setup = geometric.SimpleSetup(space)
        q = np.empty(n)
        indices = range(n)
        checks = 0

        def valid(state) -> bool:
            nonlocal checks
            checks += 1
            for i in indices:
                q[i] = state[i]
            return question.free(q)

        setup.setStateValidityChecker(valid)
        information = setup.getSpaceInformation()
        information.setStateValidityCheckingResolution(RESOLUTION)
        start, goal = space.allocState(), space.allocState()
        for i in indices:
            start[i], goal[i] = float(question.start[i]), float(question.goal[i])
        setup.setStartAndGoalStates(start, goal)
        setup.setPlanner(geometric.RRTConnect(information))
        deadline = time.monotonic() + MAX_TIME
        setup.solve(base.PlannerTerminationCondition(lambda: checks > MAX_CHECKS or time.monotonic() > deadline))
        if not setup.haveExactSolutionPath():
            raise NoPathError(f'RRTConnect found no path in {checks} positions that it looked at')
        path = setup.getSolutionPath()
        simplifier = geometric.PathSimplifier(information)
        simplifier.reduceVertices(path, SHORTCUT_STEPS, SHORTCUT_STEPS // 2)
        simplifier.partialShortcutPath(path, SHORTCUT_STEPS, SHORTCUT_STEPS // 2)
        simplifier.smoothBSpline(path, SMOOTHING_STEPS)
        return np.array([[path.getState(k)[i] for i in indices] for k in range(path.getStateCount())])
