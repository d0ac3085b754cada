"""Starting, watching and ending a station's processes, with small nodes in the place of the station's own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import rclpy

from enpire_bringup import process_runner, respawn
from enpire_bringup.composition import NodeSpec, ProcessSpec
from enpire_bringup.domain_locks import DomainReservation, StationError, domain_is_used, running_stations
from enpire_bringup.process_runner import Fleet, StationProcesses

pytestmark = pytest.mark.system

NODES = '''
import subprocess
import time
from pathlib import Path

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import JointState

from enpire_bringup.configuration import ConfigurationError


class World(Node):
    def __init__(self, **kwargs):
        super().__init__('sim_station', **kwargs)
        publisher = self.create_publisher(JointState, 'joint_states', 10)
        self.create_timer(0.05, lambda: publisher.publish(JointState()), clock=Clock(clock_type=ClockType.STEADY_TIME))


class SilentWorld(Node):
    def __init__(self, **kwargs):
        super().__init__('sim_station', **kwargs)


class Quiet(Node):
    def __init__(self, **kwargs):
        super().__init__('quiet', **kwargs)


class Refusing(Node):
    def __init__(self, **kwargs):
        super().__init__('refusing', **kwargs)
        raise ConfigurationError('task.yaml: goal.xy is missing; add it')


class Stubborn(Node):
    """Never returns from its callback, and has a child that ignores polite signals."""

    def __init__(self, **kwargs):
        super().__init__('stubborn', **kwargs)
        self.child = subprocess.Popen(['bash', '-c', 'trap "" INT TERM; sleep 1000 & wait; sleep 1000'],
                                      start_new_session=True)
        self.create_timer(0.01, self.block, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def block(self):
        while True:
            time.sleep(1)


class Hopeless(Node):
    """Crashes once there is a reason, and then after every start."""

    def __init__(self, **kwargs):
        super().__init__('hopeless', **kwargs)
        self.create_timer(0.05, self.look, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def look(self):
        if Path(__file__).with_name('reason').exists():
            1 / 0


class Misconfigured(Node):
    """Starts once; then its configuration is broken."""

    def __init__(self, **kwargs):
        super().__init__('misconfigured', **kwargs)
        started = Path(__file__).with_name('started')
        if started.exists():
            raise ConfigurationError('lab.yaml: rates.policy is missing; add it')
        started.touch()


class Crashing(Node):
    """Crashes once, soon after its first start."""

    def __init__(self, **kwargs):
        super().__init__('crashing', **kwargs)
        self.create_timer(0.3, self.crash, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def crash(self):
        crashed = Path(__file__).with_name('crashed')
        if not crashed.exists():
            crashed.touch()
            1 / 0
'''


@pytest.fixture
def small_station(tmp_path, monkeypatch, ros_domain):
    """small_station(*classes, **options): StationProcesses with one process a class, not started."""
    (tmp_path / 'small_nodes.py').write_text(NODES)
    monkeypatch.setenv('PYTHONPATH', f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    stations = []

    def make(*classes: str, **options) -> StationProcesses:
        def processes(_station, _task, namespace, **_):
            names = ['sim_station' if 'World' in name else name.lower() for name in classes]
            return [ProcessSpec(name, (NodeSpec('none', name, name, f'/{namespace}', f'small_nodes:{class_name}'),))
                    for name, class_name in zip(names, classes)]

        monkeypatch.setattr(process_runner, 'station_processes', processes)
        stations.append(StationProcesses(**{'runs': tmp_path / 'runs', **options}))
        return stations[-1]

    yield make
    for station in stations:
        station.stop()


def family_of(station: StationProcesses) -> list[psutil.Process]:
    processes = [psutil.Process(pid) for pid in station.pids().values()]
    return processes + [child for process in processes for child in process.children(recursive=True)]


def is_alive(process: psutil.Process) -> bool:
    """False also for one that has ended and that a container's init has not reaped."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for(condition, seconds: float, what: str):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.05)
    pytest.fail(f'waited {seconds} s in vain for {what}')


def test_a_station_is_up_when_its_nodes_are_there_and_ends_without_a_trace(small_station):
    with small_station('World', 'Quiet') as station:
        assert set(station.pids()) == {'sim_station', 'quiet'}
        state, = [state for state in running_stations() if state['pid'] == os.getpid()]
        assert state['ready'] and state['namespace'] == '/station_1'
        processes = family_of(station)
    assert not [process for process in processes if is_alive(process)]
    assert not [state for state in running_stations() if state['pid'] == os.getpid()]


def test_blocked_nodes_and_their_children_end_within_5_s(small_station):
    with small_station('World', 'Stubborn') as station:
        processes = family_of(station)
        assert len(processes) >= 4
        began = time.monotonic()
    assert time.monotonic() - began < 5.0
    assert not [process for process in processes if is_alive(process)]


def test_a_node_that_refuses_its_configuration_ends_the_start_with_its_own_words(small_station):
    station = small_station('World', 'Refusing')
    with pytest.raises(StationError, match='^refusing: task.yaml: goal.xy is missing; add it$'):
        station.__enter__()
    assert not station.pids()


def test_a_crashed_node_is_reported_and_started_again(small_station):
    lines = []
    with small_station('World', 'Crashing', report=lines.append) as station:
        wait_for(lambda: any('started again' in line for line in lines), 20, 'the second start')
        assert any('crashing ended with exit code 1; starting it again in 0.5 s' in line for line in lines)
        assert any('ZeroDivisionError' in line for line in lines)
        assert 'sim_station' in station.pids()


def test_a_killed_process_is_started_again(small_station):
    lines = []
    with small_station('World', 'Quiet', report=lines.append) as station:
        killed = station.pids()['quiet']
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: station.pids().get('quiet', killed) != killed, 10, 'another process')
        assert any('quiet was killed by signal 9' in line for line in lines)
        assert wait_for(lambda: station.restarts()['quiet'] == 1, 5, 'the count')
        state, = [state for state in running_stations() if state['pid'] == os.getpid()]
        assert state['restarts'] == {'sim_station': 0, 'quiet': 1} and state['given_up'] == {}
        log = (station.log_directory / 'runner.log').read_text()
        assert 'quiet was killed by signal 9; starting it again in 0.5 s' in log


def test_a_process_that_keeps_crashing_is_given_up_loudly_and_the_rest_goes_on(small_station, tmp_path, monkeypatch):
    monkeypatch.setattr(respawn, 'FIRST_DELAY', 0.1)
    monkeypatch.setattr(respawn, 'MOST_CRASHES', 3)
    monkeypatch.setattr(process_runner, 'REMINDER_PERIOD', 0.5)
    lines = []
    with small_station('World', 'Hopeless', report=lines.append) as station:
        (tmp_path / 'reason').touch()
        wait_for(lambda: any('still without the process hopeless' in line for line in lines), 30, 'a reminder')
        assert [line.partition('again in ')[2].partition(';')[0] for line in lines if 'starting it again' in line] == [
            '0.1 s', '0.2 s']
        assert any('process hopeless is given up: it ended with exit code 1' in line for line in lines)
        assert station.restarts()['hopeless'] == 2 and "'enpire down'" in station.given_up()['hopeless']
        assert set(station.pids()) == {'sim_station'}


def test_a_process_whose_configuration_broke_is_not_started_again_and_again(small_station):
    lines = []
    with small_station('World', 'Misconfigured', report=lines.append) as station:
        os.kill(station.pids()['misconfigured'], signal.SIGKILL)
        wait_for(lambda: station.given_up(), 20, 'the end of the attempts')
        assert station.given_up()['misconfigured'].startswith(
            'misconfigured: lab.yaml: rates.policy is missing; add it; see ')
        assert sum('started again' in line for line in lines) == 1
        assert set(station.pids()) == {'sim_station'}


def test_a_second_station_in_the_namespace_is_refused_and_the_first_goes_on(small_station):
    with small_station('World') as first:
        with pytest.raises(StationError, match=r'^/station_1 already runs in ROS domain \d+ \(process \d+\)'):
            small_station('World').start()
        with small_station('World', namespace='station_2'):
            assert first.pids() and len(running_stations()) >= 2


def test_a_namespace_taken_by_foreign_nodes_is_refused(small_station, ros_domain):
    context = rclpy.Context()
    rclpy.init(args=[], context=context, domain_id=ros_domain)
    node = rclpy.create_node('somebody', namespace='/station_1', context=context)
    try:
        with pytest.raises(StationError, match='already has the nodes somebody'):
            small_station('World').start()
    finally:
        node.destroy_node()
        context.try_shutdown()


def test_waiting_for_a_station_says_what_is_missing(small_station):
    station = small_station('SilentWorld')
    station.start()

    def missing():
        with pytest.raises(StationError, match='after 1 s still waiting for ') as refused:
            station.wait_ready(timeout=1.0)
        return str(refused.value).partition(' still waiting for ')[2]

    wait_for(lambda: missing().startswith('a message on /station_1/joint_states;'), 30, 'a node that publishes nothing')


def test_stations_of_a_fleet_end_together(small_station):
    with Fleet([small_station('World', 'Stubborn', namespace=f'station_{i}') for i in (1, 2, 3)]) as fleet:
        processes = [process for station in fleet.stations for process in family_of(station)]
        began = time.monotonic()
    assert time.monotonic() - began < 5.0
    assert not [process for process in processes if is_alive(process)]


def test_processes_end_when_their_runner_is_killed(tmp_path, small_station):
    small_station('World')      # writes the nodes' module and sets the environment
    script = tmp_path / 'runner.py'
    script.write_text('''
import time
from enpire_bringup import process_runner
from enpire_bringup.composition import NodeSpec, ProcessSpec
process_runner.station_processes = lambda *_, **__: [
    ProcessSpec(name, (NodeSpec('none', name, name, '/station_1', f'small_nodes:{cls}'),))
    for name, cls in (('sim_station', 'World'), ('quiet', 'Quiet'))]
with process_runner.StationProcesses(runs='runs') as station:
    print(*station.pids().values(), flush=True)
    time.sleep(1000)
''')
    runner = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    try:
        processes = [psutil.Process(int(pid)) for pid in runner.stdout.readline().split()]
        assert len(processes) == 2
    finally:
        runner.kill()
        runner.wait()
        runner.stdout.close()
    wait_for(lambda: not [process for process in processes if is_alive(process)], 5, 'the end of its processes')


def test_domains_in_use_are_not_given_away(small_station, ros_domain):
    with small_station('World'):
        other = DomainReservation()
        try:
            assert other.domain_id != ros_domain
            assert domain_is_used(ros_domain)
        finally:
            other.release()


def test_logs_lie_in_the_runs_folder(small_station, tmp_path):
    with small_station('World') as station:
        assert station.log_directory == Path(tmp_path / 'runs' / '.stations' / 'station_1' / 'log')
        assert 'node_group: ready' in (station.log_directory / 'sim_station.log').read_text()
