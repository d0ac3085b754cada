"""How often, how fast and how well a station resets its scene, through the action `reset`."""

from __future__ import annotations

import math
import time
from typing import Callable, Sequence

import numpy as np

from enpire_reset.geometry import wrap

FIRST_SEED = 20_000
RESET_BOUND = 240.0       # s of wall time for one reset
PUSH_BOUND = 120.0        # s of wall time for one push
FARTHER = 0.12            # m beyond the action space that an object is pushed
REACH = 0.50              # m from an arm's base
TURNS = 16                # seeds from which one that turns the object around is chosen
NODES = ('sim_station', 'trajectory_controller', 'arm_control', 'sim_cameras', 'camera_perception', 'auto_reset')


def run(n: int = 50, *, hard: bool = False, station: str = 'yam_bimanual_sim', task: str = 'push_t',
        report: Callable[[str], None] = lambda line: None) -> dict:
    """Reset the station that is up, else one of its own, for `n` seeds in a row; the figures, JSON-able.

    Each reset begins with the object where the one before left it. With `hard`, the task's arm first pushes it to the
    border of its reach or of the camera's view, towards the other arm among others, and eight of sixteen resets have
    to turn it around by about 180 degrees. Success is what auto_reset saw. Raises StationError and ConfigurationError
    when the station does not start.
    """
    from enpire_bringup.bench_station import bench_station

    with bench_station('reset', station, task, only=NODES, report=report) as bench:
        return measure(n, bench.namespace, bench.domain_id, hard=hard, station=station, task=task, report=report)


def measure(n: int, namespace: str, domain_id: int, *, hard: bool = False, station: str = 'yam_bimanual_sim',
            task: str = 'push_t', report: Callable[[str], None] = lambda line: None) -> dict:
    """The same on a station that is up."""
    from enpire_bringup.actions import RemoteCallError, action_client, call_action
    from enpire_bringup.bench_station import station_node
    from enpire_bringup.station import load_station
    from enpire_bringup.task import load_task
    from enpire_msgs.action import Reset, UseSkill

    terms, places = load_task(task), hard_places(load_station(station), load_task(task))
    results = []
    with station_node('reset_bench', namespace, domain_id) as node:
        client = action_client(node, Reset, 'reset')
        push = action_client(node, UseSkill, 'skills/push')
        for seed in range(FIRST_SEED, FIRST_SEED + n):
            if hard:
                pushed = push_away(lambda goal: call_action(node, push, goal, timeout=PUSH_BOUND), terms,
                                   places[seed % 8], report)
                if pushed is not None and seed // 8 % 2:
                    turn = pushed.pose.pose.orientation
                    seed = turning_seed(terms, seed, 2.0 * math.atan2(turn.z, turn.w))
            began = time.monotonic()
            try:
                result = call_action(node, client, Reset.Goal(seed=seed), timeout=RESET_BOUND)
            except RemoteCallError as error:
                result = Reset.Result(success=False, message=str(error), position_error=math.nan, yaw_error=math.nan)
            results.append((result, time.monotonic() - began))
            report(f'reset {len(results)} of {n}: {"done" if result.success else "FAILED"} in {result.duration:.1f} s '
                   f'and {result.attempts} attempts, {result.message}')
    return figures(results)


def push_away(push: Callable, terms, way: Sequence[tuple[float, float]], report: Callable[[str], None]):
    """Have the task's arm push the object to one place (x, y) after the other; the result of the last push, or None
    when that failed.

    push: sends a UseSkill goal and returns its result.
    """
    from enpire_msgs.action import UseSkill

    said = []
    for x, y in way:
        goal = UseSkill.Goal(arm=terms.action.arm, object=terms.start.object, height=terms.action.height)
        goal.pose.header.frame_id = 'world'
        goal.pose.pose.position.x, goal.pose.pose.position.y = x, y
        pushed = push(goal)
        where = pushed.pose.pose.position
        said.append(f'to ({where.x:.2f}, {where.y:.2f}) m' if pushed.success else pushed.message)
    report('pushed ' + ', then '.join(said))
    return pushed if pushed.success else None


def turning_seed(terms, number: int, yaw: float) -> int:
    """Of TURNS seeds, others for every number, the one whose start pose is turned from `yaw` (rad) most."""
    seeds = range(TURNS * number, TURNS * (number + 1))
    return max(seeds, key=lambda seed: abs(wrap(terms.start_pose(seed)[2] - yaw)))


def hard_places(station, task) -> list[list[tuple[float, float]]]:
    """For each of the eight sides and corners of the action space (tip_xy): a place (x, y) there, and another one
    beyond where that is in the workspace and within REACH of an arm: what is lost once stays lost."""
    low, high = np.array(task.action.low), np.array(task.action.high)
    workspace = np.array(station.safety.workspace_low[:2]), np.array(station.safety.workspace_high[:2])
    bases = [arm.base_xyz[:2] for arm in station.arms.values()]
    places = []
    for turn in range(8):
        outward = np.round([math.cos(turn * math.pi / 4), math.sin(turn * math.pi / 4)])
        edge = (low + high) / 2 + outward * (high - low) / 2
        beyond = edge + FARTHER * outward
        reached = (workspace[0] <= beyond).all() and (beyond <= workspace[1]).all() and any(
            math.dist(beyond, base) < REACH for base in bases)
        places.append([tuple(edge.tolist())] + ([tuple(beyond.tolist())] if reached else []))
    return places


def figures(results: list[tuple]) -> dict:
    """Figures of (Reset.Result, s of wall time) pairs. `seconds` are of ROS time, of the resets that succeeded."""
    good = [(result, wall) for result, wall in results if result.success]

    def spread(values) -> dict[str, float | None]:
        values = [value for value in values if math.isfinite(value)]
        return {f'p{share}': round(float(np.percentile(values, share)), 2) if values else None for share in (50, 95)}

    return {
        'n': len(results),
        'succeeded': len(good),
        'attempts_mean': round(float(np.mean([result.attempts for result, _ in results])), 3),
        'seconds': spread([result.duration for result, _ in good]),
        'wall_seconds': spread([wall for _, wall in good]),
        'position_mm': spread([1000 * result.position_error for result, _ in good]),
        'yaw_deg': spread([math.degrees(result.yaw_error) for result, _ in good]),
        'failures': [result.message for result, _ in results if not result.success],
    }
