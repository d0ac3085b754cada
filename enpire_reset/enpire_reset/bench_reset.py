"""How often, how fast and how well a station resets its scene, through the action `reset`."""

from __future__ import annotations

import math
import os
import threading
import time
from typing import Callable

import numpy as np

FIRST_SEED = 20_000
RESET_BOUND = 120.0       # s of wall time for one reset
NODES = ('sim_station', 'trajectory_controller', 'arm_control', 'sim_cameras', 'camera_perception', 'auto_reset')


def run(n: int = 20, *, station: str = 'yam_bimanual_sim', task: str = 'push_t',
        report: Callable[[str], None] = lambda line: None) -> dict:
    """Start a station of its own and reset it for `n` seeds in a row; the figures, JSON-able.

    Each reset begins with the object where the one before left it. Success is what auto_reset saw. Raises
    StationError and ConfigurationError when the station does not start.
    """
    from enpire_bringup.process_runner import DomainReservation, StationProcesses

    reservation = DomainReservation()
    try:
        with StationProcesses(station, task, f'reset_bench_{os.getpid()}', domain_id=reservation.domain_id,
                              only=NODES, report=report) as processes:
            return measure(n, processes.namespace, processes.domain_id, report)
    finally:
        reservation.release()


def measure(n: int, namespace: str, domain_id: int, report: Callable[[str], None] = lambda line: None) -> dict:
    """The same on a station that is up."""
    import rclpy
    from rclpy.action import ActionClient
    from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

    from enpire_bringup.actions import RemoteCallError, call_action
    from enpire_msgs.action import Reset

    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain_id)
    node = rclpy.create_node('reset_bench', namespace=namespace, context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)

    def spin():
        try:
            executor.spin()
        except ExternalShutdownException:
            pass

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    client = ActionClient(node, Reset, 'reset')
    results = []
    try:
        for seed in range(FIRST_SEED, FIRST_SEED + n):
            began = time.monotonic()
            try:
                result = call_action(node, client, Reset.Goal(seed=seed), timeout=RESET_BOUND)
            except RemoteCallError as error:
                result = Reset.Result(success=False, message=str(error), position_error=math.nan, yaw_error=math.nan)
            results.append((result, time.monotonic() - began))
            report(f'reset {len(results)} of {n}: {"done" if result.success else "FAILED"} in {result.duration:.1f} s, '
                   f'{result.message}')
    finally:
        rclpy.shutdown(context=context)
        thread.join(timeout=2.0)
        client.destroy()
        node.destroy_node()
    return figures(results)


def figures(results: list[tuple]) -> dict:
    """Figures of (Reset.Result, s of wall time) pairs."""
    good = [(result, wall) for result, wall in results if result.success]

    def spread(values) -> dict[str, float | None]:
        if not good:
            return {'p50': None, 'max': None}
        return {'p50': round(float(np.median(values)), 2), 'max': round(float(max(values)), 2)}

    return {
        'resets': len(results),
        'succeeded': len(good),
        'in_one_attempt': sum(result.attempts <= 1 for result, _ in good),
        'duration_s': spread([result.duration for result, _ in good]),
        'wall_s': spread([wall for _, wall in good]),
        'position_mm': spread([1000 * result.position_error for result, _ in good]),
        'yaw_deg': spread([math.degrees(result.yaw_error) for result, _ in good]),
        'failures': [result.message for result, _ in results if not result.success],
    }
