import time

import numpy as np
import pytest

from enpire_bringup.bench_jitter import JitterProbe, summary
from enpire_reward.bench_verdict import Arrivals, latencies


def test_latency_is_found_under_a_jittering_clock():
    """Clock messages come 0 to 20 ms late; the true offset between wall and ROS time is 1000 s."""
    rng = np.random.default_rng(0)
    clock = [(1000 + n * 0.01 + rng.exponential(0.004), n * 0.01) for n in range(1000)]
    truth = rng.uniform(0.015, 0.060, 200)
    verdicts = [(1000 + n / 30 + truth[n], n / 30, 0.001, 0.0) for n in range(200)]
    assert latencies(Arrivals(sorted(clock), verdicts)) == pytest.approx(truth, abs=0.001)


def test_a_percentile_is_a_measured_value():
    assert summary(np.arange(1.0, 101.0)) == {'p50': 51.0, 'p95': 96.0, 'p99': 100.0, 'max': 100.0}


def test_the_jitter_probe_measures_late_wake_ups():
    with JitterProbe() as probe:
        time.sleep(0.3)
        late = probe.stop()
    assert list(late) == ['p50', 'p95', 'p99', 'max']
    assert 0 <= late['p50'] <= late['max'] < 10_000
