"""How many random moves the planner of arm_control finds, and how fast: in this process, without a station."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Callable

import numpy as np

from enpire_bringup.arm_task import ArmTask
from enpire_bringup.bench_jitter import JitterProbe, summary
from enpire_bringup.guard import ArmGuard, guard_limits
from enpire_bringup.motion_planning import MotionPlanner
from enpire_bringup.obstacles import Obstacle
from enpire_bringup.path_planner import choose_path_planner
from enpire_bringup.station import Station

SEED = 30_000
# Where both a post and a shelf stand in the way of an arm's work, in the frame of its base.
BOXES = (Obstacle('post', (0.06, 0.06, 0.30), (0.38, 0.12, 0.15), (0.0, 0.0, 0.0)),
         Obstacle('shelf', (0.20, 0.12, 0.02), (0.40, -0.20, 0.22), (0.0, 0.0, 0.4)))


def run(station: Station, task: ArmTask, pairs: int, report: Callable[[str], None] = lambda line: None) -> dict:
    """Figures of `pairs` moves from a random joint position to the pose of another; JSON-able.

    Both are free of collisions and in the workspace, the pairs go round the arms, the other arms are at home.
    Solved: planned, checked after timing, let through by the guard, and ending at the pose.
    with_boxes: the same with a post and a shelf in the first arm's way; jitter_ms: late wake-ups of the machine.
    """
    first = next(iter(station.arms.values()))
    boxes = tuple(replace(box, xyz=tuple(np.add(box.xyz, first.base_xyz))) for box in BOXES)
    with JitterProbe() as jitter:
        figures = measure(station, task, list(station.arms), pairs, report)
        with_boxes = measure(replace(station, obstacles=station.obstacles + boxes), task, [first.name], pairs, report)
        late = jitter.stop()
    return {**figures, 'with_boxes': with_boxes, 'jitter_ms': late}


def measure(station: Station, task: ArmTask, arms: list[str], pairs: int, report) -> dict:
    """Figures of one scene, see `run`."""
    path_planner = choose_path_planner(station, task)
    limits = guard_limits(station, task)
    guards = {arm: ArmGuard(station, arm, limits) for arm in arms}
    planners = {arm: MotionPlanner(station, task, arm, guards[arm], path_planner) for arm in arms}
    rng = np.random.default_rng(SEED)
    seconds, solved = [], 0
    for number in range(pairs):
        arm = arms[number % len(arms)]
        start, goal = (planners[arm].random_free_position(rng) for _ in range(2))
        pose = planners[arm].pose_of(goal)
        began = time.perf_counter()
        try:
            plan = planners[arm].to_pose(start, pose, 1.0)
            guards[arm].check_trajectory(plan.trajectory, start)
            reached = np.linalg.norm(plan.tips[-1] - pose[:3, 3]) < 1e-3
            reason = '' if reached else f'it ends at {plan.tips[-1].round(4).tolist()}'
        except ValueError as error:
            reason = str(error)
        seconds.append(time.perf_counter() - began)
        solved += not reason
        if reason:
            report(f'pair {number + 1} of {pairs} ({arm}) failed: {reason}')
    return {'pairs': pairs, 'solved': solved, 'planner': path_planner.name,
            'ms': summary(1e3 * np.array(seconds))}
