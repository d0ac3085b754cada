"""The benches measure what they say, on what they start."""

import json
import subprocess
import sys

import pytest

pytest.importorskip('rclpy')

from enpire_bringup import bench_lockstep  # noqa: E402
from enpire_bringup.bench_station import BenchStation  # noqa: E402
from enpire_bringup.domain_locks import DomainReservation  # noqa: E402
from enpire_bringup.process_runner import StationProcesses  # noqa: E402
from enpire_reward.bench_verdict import BenchError, measure  # noqa: E402

pytestmark = pytest.mark.system

NODES = {'sim_station', 'trajectory_controller', 'sim_cameras', 'camera_perception', 'success_detector'}


def bench(*arguments):
    return subprocess.run([sys.executable, '-m', 'enpire_agent.cli', 'bench', *arguments],
                          capture_output=True, text=True, timeout=90)


def test_verdict_latency_is_measured_from_another_process(start_station):
    station = start_station(only=NODES, real_time_factor=1.0)
    topics = [camera.image_topic for camera in station.station.cameras.values()]
    figures = measure(60, station.namespace, station.domain_id, topics)
    assert figures['frames'] == 60
    for key in ('latency_ms', 'compute_ms', 'jitter_ms'):
        values = [figures[key][name] for name in ('p50', 'p95', 'p99', 'max')]
        assert values == sorted(values)
    # A frame takes rendering, perception and the reward program: less than that would be a wrong measurement.
    assert 5.0 < figures['latency_ms']['p50'] < 300.0
    assert figures['latency_ms']['p50'] > figures['compute_ms']['p50']
    assert figures['pace'] == pytest.approx(1.0, abs=0.2)
    # Every camera was looked at by a process of its own, in the size of the station file.
    assert {seen['size'] for seen in figures['cameras'].values()} == {'640x480'}
    assert set(figures['cameras']) == set(topics) and all(seen['frames'] for seen in figures['cameras'].values())


def test_perception_bench_ends_with_one_json_line():
    done = bench('perception', '--poses', '12', '--json')
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures['poses'] == 12 and figures['not_visible'] == 0
    assert figures['position_mm']['p50'] < 1.5 and figures['yaw_deg']['p50'] < 0.5
    assert figures['position_mm']['p99'] < 4 and figures['yaw_deg']['p99'] < 1.5
    assert figures['covered']['trusted_wrong'] == 0 and figures['occluded_flagged'] in (1.0, None)


@pytest.mark.parametrize('arguments, message', [
    (['perception', '--poses', '0'], "'0' is no count"),
    (['perception', '--task', 'no_such_task'], "no task 'no_such_task'; known: gym_pusht, "),
    (['perception', '--camera-size', 'big'], "--camera-size is 'big'"),
])
def test_bad_options_are_one_clear_line(arguments, message):
    done = bench(*arguments)
    assert done.returncode == 2 and message in done.stderr and 'Traceback' not in done.stderr


@pytest.fixture(scope='module')
def station_without_cameras(tmp_path_factory):
    reservation = DomainReservation()
    try:
        with StationProcesses(only=bench_lockstep.MOTION_NODES, real_time_factor=0.0, domain_id=reservation.domain_id,
                              runs=tmp_path_factory.mktemp('runs')) as station:
            yield station
    finally:
        reservation.release()


def test_a_station_without_verdicts_is_said_to_have_none(station_without_cameras, monkeypatch):
    monkeypatch.setattr('enpire_reward.bench_verdict.WAIT', 3.0)
    station = station_without_cameras
    with pytest.raises(BenchError, match='0 verdicts and [0-9]+ clock messages'):
        measure(1, station.namespace, station.domain_id, [])


def test_lockstep_bench_answers_every_policy_step_and_lets_the_arm_rest(station_without_cameras):
    station = station_without_cameras
    up = BenchStation(station.namespace, station.domain_id, station.pids(), True)
    figures = bench_lockstep.measure(90, up, 'yam_bimanual_sim', 'push_t', cameras=False)
    assert figures['steps'] >= 90 and figures['missed_steps'] == 0 and figures['cameras'] == []
    assert figures['realtime_factor'] == pytest.approx(figures['steps_per_s'] / 30.0, rel=0.1)
    assert set(figures['cpu_ms_per_step']) == {'world', 'motion'}
    log = (station.log_directory / 'motion.log').read_text()
    assert 'holds' not in log, 'the guard has nothing against the end of the stream'
