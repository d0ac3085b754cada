"""`./enpire up, status, down` on a real simulated station, and what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from enpire_bringup.domain_locks import running_stations

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

ROOT = Path(__file__).resolve().parents[2]
READY_WITHIN = 90.0


@pytest.fixture
def command(ros_domain, tmp_path):
    """command(*arguments) -> Popen of ./enpire in a ROS domain and results folder of its own; ends with the test."""
    environment = {**os.environ, 'ENPIRE_RUNS': str(tmp_path / 'runs')}
    started = []

    def start(*arguments: str) -> subprocess.Popen:
        started.append(subprocess.Popen([str(ROOT / 'enpire'), *arguments], env=environment, cwd=tmp_path, text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True))
        return started[-1]

    yield start
    if any(state['domain'] == ros_domain for state in running_stations()):
        start('down').communicate(timeout=20)
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until_up(runner: subprocess.Popen) -> list[psutil.Process]:
    """Read the runner's output until its station is up; the runner's processes."""
    end = time.monotonic() + READY_WITHIN
    said = []
    while time.monotonic() < end:
        line = runner.stdout.readline()
        said.append(line)
        if ' up after ' in line:
            return psutil.Process(runner.pid).children(recursive=True)
        if not line:
            break
    pytest.fail('the station did not come up: ' + ''.join(said))


def assert_gone(processes: list[psutil.Process], seconds: float) -> None:
    end = time.monotonic() + seconds
    while alive := [process for process in processes if is_alive(process)]:
        if time.monotonic() > end:
            pytest.fail(f'still alive after {seconds} s: {alive}')
        time.sleep(0.05)


def test_up_status_down_leaves_no_process(command):
    up = command('up', '--detach')
    output, _ = up.communicate(timeout=READY_WITHIN)
    assert up.returncode == 0, output
    assert 'station_1 up after' in output

    status = command('status', '--json')
    output, _ = status.communicate(timeout=30)
    report, = json.loads(output)
    assert report['ready'] and not report['missing_nodes']
    assert len(report['nodes']) == 12
    assert report['topics']['joint_states']['rate'] > 10
    assert report['safety'] == 'ok'
    processes = [psutil.Process(entry['pid']) for entry in report['processes']] + [psutil.Process(report['pid'])]
    assert len(processes) == 6

    text, _ = command('status').communicate(timeout=30)
    assert '/station_1  up: task push_t' in text and 'nodes    12 of 12' in text

    began = time.monotonic()
    down = command('down')
    output, _ = down.communicate(timeout=20)
    assert down.returncode == 0 and '/station_1 down' in output
    assert time.monotonic() - began < 6.0
    assert_gone(processes, 1.0)


def test_a_second_station_in_the_namespace_is_refused_the_first_stays_usable_and_ends_by_ctrl_c_within_5_s(command):
    runner = command('up')
    processes = wait_until_up(runner)
    assert len(processes) >= 5

    second = command('up')
    output, _ = second.communicate(timeout=30)
    assert second.returncode == 2
    errors = [line for line in output.splitlines() if 'already runs' in line]
    assert len(errors) == 1 and errors[0].startswith('enpire: /station_1 already runs in ROS domain')
    assert 'Traceback' not in output
    output, _ = command('status', '--json').communicate(timeout=30)
    assert not json.loads(output)[0]['missing_nodes']

    began = time.monotonic()
    os.killpg(runner.pid, signal.SIGINT)
    runner.wait(timeout=10)
    assert_gone(processes, 0.1)
    assert time.monotonic() - began < 5.0
    assert runner.returncode == 130


@pytest.mark.parametrize('after', [0.2, 1.5, 3.0])
def test_ctrl_c_during_the_start_ends_every_process_within_5_s(command, after):
    runner = command('up')
    time.sleep(after)
    processes = psutil.Process(runner.pid).children(recursive=True)
    began = time.monotonic()
    os.killpg(runner.pid, signal.SIGINT)
    runner.wait(timeout=10)
    assert_gone(processes, 0.1)
    assert time.monotonic() - began < 5.0


@pytest.mark.parametrize('arguments, said', [
    (('--task', 'push_q'), "no task 'push_q'; known: gym_pusht, "),
    (('--station', 'lab_z'), "no station 'lab_z'; known: gym, panda_sim, yam_bimanual_sim"),
    (('--station', '/nowhere/lab.yaml'), '/nowhere/lab.yaml: no such station file'),
    (('--stations', '0'), 'the number of stations is 0; expected 1 to 64'),
    (('--real-time-factor', '-1'), 'real_time_factor'),
    (('--camera-size', '10x10'), '64 to 4096'),
    (('--namespace', 'a b'), "'a b' is no ROS namespace"),
])
def test_bad_options_end_in_one_clear_line(command, arguments, said):
    process = command('up', *arguments)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    errors = [line for line in output.splitlines() if not line.startswith('enpire: starting')]
    assert len(errors) == 1 and errors[0].startswith('enpire: ') and said in errors[0]


def test_help_comes_at_once(command):
    began = time.monotonic()
    output, _ = command('--help').communicate(timeout=10)
    assert time.monotonic() - began < 2.0
    for verb in ('up', 'down', 'status', 'reset', 'home', 'trial'):
        assert f'\n    {verb} ' in output
    assert 'missing because of errors' not in output
