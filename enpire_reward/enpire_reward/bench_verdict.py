"""Latency from a camera frame to its verdict, as another process sees it, in real time.

Latency of a verdict = ROS time at which this process received it, minus its header stamp (the frame's
capture). ROS time at an instant of wall time is taken from the arrivals of `clock`: a clock message with
stamp s cannot arrive before the world's time is s, so wall time minus stamp, at its smallest within a second
around, is the offset between the two (the lower envelope: what is above it is transport and scheduling of the
clock message itself). A world that falls behind the wall clock makes latencies look longer, never shorter.

The machine's own jitter is measured meanwhile by a bare loop of 10 ms sleeps in a third process: on a machine
that wakes a sleeper 30 ms late no verdict can be expected to be faster.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import Callable

import numpy as np

LIMIT_MS = 150.0                # p99 that the suite promises
WARM_UP = 1.0                   # s of wall time before frames count
WAIT = 20.0                     # s of wall time beyond three times what the frames should take
ENVELOPE = 1.0                  # s on either side within which the smallest offset counts
PACE_TOLERANCE = 0.1            # by how much the world may run faster or slower than the wall clock
_SLEEPER = '''
import json, select, sys, time
late = []
while not select.select([sys.stdin], [], [], 0)[0]:
    start = time.perf_counter()
    time.sleep(0.01)
    late.append(1e3 * (time.perf_counter() - start) - 10.0)
print(json.dumps(late))
'''


class BenchError(RuntimeError):
    """The bench got no figures; the message says what was missing."""


@dataclass
class Arrivals:
    """What was received: clock (wall s, ROS s); verdicts (wall s, stamp s, compute s, published latency s).
    """

    clock: list[tuple[float, float]] = field(default_factory=list)
    verdicts: list[tuple[float, float, float, float]] = field(default_factory=list)


def latencies(arrivals: Arrivals) -> np.ndarray:
    """Latency (n,) in s of every verdict, by the lower envelope of the clock's arrivals."""
    clock = np.array(arrivals.clock)
    offsets = clock[:, 0] - clock[:, 1]
    result = []
    for received, stamp, _, _ in arrivals.verdicts:
        first, last = np.searchsorted(clock[:, 0], (received - ENVELOPE, received + ENVELOPE))
        near = offsets[first:last] if last > first else offsets
        result.append(received - near.min() - stamp)
    return np.array(result)


def run(frames: int = 300, *, station: str = 'yam_bimanual_sim', task: str = 'push_t', namespace: str = '',
        report: Callable[[str], None] = lambda line: None) -> dict:
    """Measure `frames` verdicts of a station started for this, in a ROS domain of its own and in real time.

    namespace: measure the station that is up there instead.
    Raises BenchError when too few verdicts come, StationError when no station can be started.
    """
    from enpire_bringup.composition import full_namespace
    from enpire_bringup.process_runner import DomainReservation, StationProcesses, environment_domain

    if namespace:
        return measure(frames, full_namespace(namespace), environment_domain())
    reservation = DomainReservation()
    try:
        report('starting a station, paced by the wall clock ...')
        with StationProcesses(station, task, real_time_factor=1.0, domain_id=reservation.domain_id,
                              report=report) as processes:
            report(f'measuring {frames} frames ...')
            return measure(frames, processes.namespace, processes.domain_id)
    finally:
        reservation.release()


def measure(frames: int, namespace: str, domain_id: int) -> dict:
    """Figures of `frames` verdicts of the station in `namespace`, which must run at the wall clock's pace."""
    sleeper = subprocess.Popen([sys.executable, '-I', '-S', '-c', _SLEEPER], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE)
    try:
        arrivals = _receive(frames, namespace, domain_id)
        late, _ = sleeper.communicate(b'\n', timeout=5)
    finally:
        if sleeper.poll() is None:
            sleeper.kill()
            sleeper.wait()
    clock = np.array(arrivals.clock)
    pace = float(np.ptp(clock[:, 1]) / np.ptp(clock[:, 0]))
    if abs(pace - 1.0) > PACE_TOLERANCE:
        raise BenchError(
            f'{namespace} ran at {pace:.2f} times the wall clock, so no latency means a thing: it was not '
            'started with --real-time-factor 1, or this machine is too busy')
    stamps = np.diff([stamp for _, stamp, _, _ in arrivals.verdicts])
    return {
        'frames': len(arrivals.verdicts),
        'latency_ms': summary(1e3 * latencies(arrivals)),
        'published_latency_ms': summary(1e3 * np.array([verdict[3] for verdict in arrivals.verdicts])),
        'compute_ms': summary(1e3 * np.array([verdict[2] for verdict in arrivals.verdicts])),
        'jitter_ms': summary(np.array(json.loads(late))),
        'frame_rate_hz': round(float(1 / np.mean(stamps)), 2),
        'pace': round(pace, 3),
        'limit_ms': LIMIT_MS,
    }


def summary(values: np.ndarray) -> dict[str, float]:
    """p50, p95, p99 and max; a percentile is a value that was measured, not one between two."""
    result = {f'p{p}': float(np.percentile(values, p, method='higher')) for p in (50, 95, 99)}
    return {name: round(value, 3) for name, value in {**result, 'max': float(np.max(values))}.items()}


def _receive(frames: int, namespace: str, domain_id: int) -> Arrivals:
    import rclpy
    from rclpy.context import Context
    from rclpy.executors import SingleThreadedExecutor
    from rosgraph_msgs.msg import Clock

    from enpire_bringup.station_node import STATE_QOS
    from enpire_msgs.msg import Verdict

    context = Context()
    rclpy.init(context=context, domain_id=domain_id)
    arrivals = Arrivals()
    started = time.monotonic()
    begin = [float('inf')]      # wall time from which verdicts count

    def on_clock(message: Clock) -> None:
        arrivals.clock.append((time.monotonic(), message.clock.sec + 1e-9 * message.clock.nanosec))

    def on_verdict(message: Verdict) -> None:
        now = time.monotonic()
        begin[0] = min(begin[0], now + WARM_UP)
        if now >= begin[0] and arrivals.clock and len(arrivals.verdicts) < frames:
            stamp = message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec
            arrivals.verdicts.append((now, stamp, message.compute, message.latency))

    node = rclpy.create_node('bench_verdict', context=context, use_global_arguments=False)
    executor = SingleThreadedExecutor(context=context)
    try:
        node.create_subscription(Clock, f'{namespace}/clock', on_clock, STATE_QOS)
        node.create_subscription(Verdict, f'{namespace}/verdict', on_verdict, STATE_QOS)
        executor.add_node(node)
        deadline = started + WAIT + 3 * frames / 30.0
        while len(arrivals.verdicts) < frames and time.monotonic() < deadline:
            executor.spin_once(timeout_sec=0.1)
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown(context=context)
    if len(arrivals.verdicts) < min(frames, 10) or len(arrivals.clock) < 10:
        raise BenchError(
            f'{namespace}: {len(arrivals.verdicts)} verdicts and {len(arrivals.clock)} clock messages in '
            f'{time.monotonic() - started:.0f} s, {frames} verdicts wanted; is the camera up?')
    return arrivals
