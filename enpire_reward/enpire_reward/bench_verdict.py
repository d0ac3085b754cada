"""Latency from a camera frame to its verdict, as another process sees it, in real time.

The setting: the whole station, paced by the wall clock, and a process that looks at every camera (640x480; the top one
at 30 Hz, the wrists at 10 Hz in the shipped station).

Latency of a verdict = ROS time at which this process received it, minus its header stamp (the frame's
capture). ROS time at an instant of wall time is taken from the arrivals of `clock`: a clock message with
stamp s cannot arrive before the world's time is s, so wall time minus stamp, at its smallest within a second
around, is the offset between the two (the lower envelope: what is above it is transport and scheduling of the
clock message itself). A world that falls behind the wall clock makes latencies look longer, never shorter.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import Callable

import numpy as np

from enpire_bringup.bench_jitter import JitterProbe, summary

LATENCY_LIMIT_MS, COMPUTE_LIMIT_MS = 50.0, 15.0     # p99 that the suite promises
WARM_UP = 2.0                   # s of wall time before frames count
WAIT = 20.0                     # s of wall time beyond three times what the frames should take
ENVELOPE = 1.0                  # s on either side within which the smallest offset counts
PACE_TOLERANCE = 0.1            # by how much the world may run faster or slower than the wall clock


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


def run(frames: int = 300, *, station: str = 'yam_bimanual_sim', task: str = 'push_t',
        report: Callable[[str], None] = lambda line: None) -> dict:
    """Measure `frames` verdicts of the station that is up in real time, else of one started for this.

    Raises BenchError when too few verdicts come, StationError when no station can be started.
    """
    from enpire_bringup.bench_station import bench_station
    from enpire_bringup.station import load_station

    topics = [camera.image_topic for camera in load_station(station).cameras.values()]
    with bench_station('verdict', station, task, real_time_factor=1.0, report=report) as bench:
        report(f'measuring {frames} frames ...')
        return measure(frames, bench.namespace, bench.domain_id, topics)


def measure(frames: int, namespace: str, domain_id: int, image_topics: list[str]) -> dict:
    """Figures of `frames` verdicts of the station in `namespace`, which must run at the wall clock's pace.

    image_topics: what another process looks at meanwhile.
    """
    viewers = subprocess.Popen([sys.executable, '-m', 'enpire_bringup.bench_viewers', namespace, str(domain_id),
                                *image_topics], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        # Frames that nobody else looks at yet cost less.
        looked_at = bool(select.select([viewers.stdout], [], [], WAIT)[0])
        if looked_at:
            viewers.stdout.readline()
        with JitterProbe() as probe:
            arrivals = _receive(frames, namespace, domain_id)
            jitter = probe.stop()
        seen = json.loads(viewers.communicate(b'\n', timeout=10)[0].splitlines()[-1])
    finally:
        if viewers.poll() is None:
            viewers.kill()
            viewers.wait()
    if not looked_at:
        raise BenchError(f'{", ".join(topic for topic, view in seen.items() if not view["frames"])}: no image came to '
                         f'another process within {WAIT:g} s; are all cameras up?')
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
        'compute_ms': summary(1e3 * np.array([verdict[2] for verdict in arrivals.verdicts])),
        'published_latency_ms': summary(1e3 * np.array([verdict[3] for verdict in arrivals.verdicts])),
        'jitter_ms': jitter,
        'frame_rate_hz': round(float(1 / np.mean(stamps)), 2),
        'cameras': seen,
        'pace': round(pace, 3),
        'limits_ms': {'latency': LATENCY_LIMIT_MS, 'compute': COMPUTE_LIMIT_MS},
    }


def _receive(frames: int, namespace: str, domain_id: int) -> Arrivals:
    from rosgraph_msgs.msg import Clock

    from enpire_bringup.bench_station import station_node
    from enpire_bringup.station_node import STATE_QOS
    from enpire_msgs.msg import Verdict

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

    with station_node('bench_verdict', namespace, domain_id) as node:
        node.create_subscription(Clock, 'clock', on_clock, STATE_QOS)
        node.create_subscription(Verdict, 'verdict', on_verdict, STATE_QOS)
        deadline = started + WAIT + 3 * frames / 30.0
        while len(arrivals.verdicts) < frames and time.monotonic() < deadline:
            time.sleep(0.1)
    if len(arrivals.verdicts) < min(frames, 10) or len(arrivals.clock) < 10:
        raise BenchError(
            f'{namespace}: {len(arrivals.verdicts)} verdicts and {len(arrivals.clock)} clock messages in '
            f'{time.monotonic() - started:.0f} s, {frames} verdicts wanted; is the camera up?')
    return arrivals
