"""`enpire doctor`: each check names what is wrong and what to type."""

from __future__ import annotations

import json
import math
import types
from pathlib import Path

import pytest

from enpire_agent import doctor
from enpire_agent.doctor import ERROR, OK, WARNING, Finding
from enpire_bringup.program_isolation import strongest_level


def assert_found(finding: Finding, level: str, said: str) -> None:
    assert finding.level == level, finding
    assert said in finding.text, finding.text
    assert bool(finding.way_out) == (level != OK), finding


def test_isolation_is_named_as_a_program_finds_it_and_weak_isolation_is_a_warning():
    assert_found(doctor.isolation('landlock 6+seccomp'), OK, 'landlock 6+seccomp')
    assert_found(doctor.isolation('limits+seccomp'), WARNING, 'isolation is weak')
    assert doctor.isolation_of_a_program().partition(' ')[0].partition('+')[0] == strongest_level()


@pytest.mark.parametrize('version, level', [((3, 10), ERROR), ((3, 11), OK), ((3, 12), OK), ((3, 13), ERROR)])
def test_a_python_without_wheels_is_an_error(version, level):
    assert_found(doctor.python_version(version, '/venv'), level, f'3.{version[1]} in /venv')


def loader(*missing: str):
    def load(name: str):
        if name.partition('.')[0] in missing:
            raise ImportError(f'no {name}')
        return types.SimpleNamespace(get_rmw_implementation_identifier=lambda: 'rmw_fastrtps_cpp')
    return load


def test_ros_that_cannot_be_loaded_or_lacks_messages_is_an_error():
    assert_found(doctor.ros(loader(), {}), OK, 'from wheels, rmw_fastrtps_cpp')
    assert_found(doctor.ros(loader(), {'ROS_DISTRO': 'jazzy'}), OK, 'ROS 2 jazzy')
    assert_found(doctor.ros(loader('rclpy'), {}), ERROR, 'rclpy cannot be loaded: no rclpy')
    finding = doctor.ros(loader('enpire_msgs', 'nav_msgs'), {})
    assert_found(finding, ERROR, 'message packages missing: enpire_msgs, nav_msgs')
    assert 'make setup' in finding.way_out


STATE = {'namespace': '/station_1', 'domain': 5}


def test_a_domain_with_other_peoples_nodes_is_a_warning():
    assert_found(doctor.domain(5, [], [], True), OK, '5, in which nothing answers')
    assert_found(doctor.domain(5, [STATE], ['/station_1/arm_control'], False), OK, '/station_1 of this folder runs')
    finding = doctor.domain(5, [], ['/lab/camera'], False)
    assert_found(finding, WARNING, 'nodes of somebody else: /lab/camera')
    assert 'ROS_DOMAIN_ID=6' in finding.way_out
    assert_found(doctor.domain(5, [], [], False), WARNING, 'UDP ports 8650')


def test_station_and_task_files_are_read_and_their_errors_named(tmp_path):
    finding, = doctor.station_files('yam_bimanual_sim', 'push_t')
    assert_found(finding, OK, '2 arm(s), 3 camera(s), backend sim')
    (tmp_path / 'lab.yaml').write_text('backend: sim\n')
    finding, = doctor.station_files(str(tmp_path / 'lab.yaml'), 'push_t')
    assert_found(finding, ERROR, 'lab.yaml')
    finding, = doctor.station_files('yam_bimanual_sim', 'push_q')
    assert_found(finding, ERROR, "no task 'push_q'")


def test_a_full_slow_or_locked_disk_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, 'fsync_seconds', lambda folder: 0.004)
    assert_found(doctor.disk(tmp_path, 50e9), OK, '50.0 GB free')
    assert_found(doctor.disk(tmp_path / 'not' / 'yet', 2e9), WARNING, '2.0 GB free')
    assert_found(doctor.disk(tmp_path, 1e8), ERROR, '0.1 GB free')
    monkeypatch.setattr(doctor, 'fsync_seconds', lambda folder: 0.5)
    assert_found(doctor.disk(tmp_path, 50e9), WARNING, 'fsync 500.0 ms')

    def refuse(folder):
        raise PermissionError(13, 'Permission denied')
    monkeypatch.setattr(doctor, 'fsync_seconds', refuse)
    finding = doctor.disk(tmp_path, 50e9)
    assert_found(finding, ERROR, 'cannot write to')
    assert 'ENPIRE_RUNS' in finding.way_out


def test_a_taken_port_comes_with_another():
    assert_found(doctor.ports(8080, True), OK, '8080 is free')
    finding = doctor.ports(8080, False)
    assert_found(finding, WARNING, '8080')
    assert finding.way_out == './enpire view --port 8081'


GOOD_CLOCK = {'synchronized': True, 'offset': 1e-4}


@pytest.mark.parametrize('state, late, level, said', [
    (GOOD_CLOCK, 0.0005, OK, 'follows time servers'),
    (None, 0.0005, OK, 'timers wake'),
    ({'synchronized': False, 'offset': 0.0}, 0.0005, OK, 'only for a fleet'),
    (GOOD_CLOCK, 0.05, WARNING, 'pacing will stutter'),
    ({'synchronized': True, 'offset': -0.3}, 0.0005, WARNING, '-0.300 s off'),
])
def test_late_timers_and_a_wrong_clock_are_warnings(state, late, level, said):
    finding = doctor.clocks(state, [late] * 100)
    assert finding.level == level and said in finding.text
    assert math.isclose(finding.figures['late_ms']['p99'], 1e3 * late)


@pytest.mark.parametrize('cores, load, memory, level, said', [
    (2, 0.3, 8e9, OK, '2 core(s)'), (1, 0.3, 8e9, WARNING, 'needs two cores'),
    (2, 5.0, 8e9, WARNING, 'busy'), (8, 5.0, 5e8, ERROR, '0.5 GB of memory')])
def test_a_small_or_busy_machine_is_named(cores, load, memory, level, said):
    assert_found(doctor.machine(cores, load, memory), level, said)


@pytest.mark.parametrize('free, level, said', [(1e9, OK, '1000 MB'), (1e6, WARNING, 'only 1 MB'), (None, WARNING, 'no /dev/shm')])
def test_too_little_shared_memory_is_a_warning(free, level, said):
    assert_found(doctor.shared_memory(free), level, said)


def test_git_has_to_be_there_and_not_too_old():
    assert_found(doctor.git(''), ERROR, 'git is not installed')
    assert_found(doctor.git('git version 2.25.1\n'), ERROR, '2.30 or later')
    assert_found(doctor.git('git version 2.39.5 (Apple Git-154)\n'), OK, '2.39; recipes are committed in the name of')
    assert_found(doctor.git(doctor.git_version()), OK, 'in the name of the station')


def test_cameras_of_a_station_that_rests_need_devices_only_where_they_are_real(tmp_path, monkeypatch):
    assert_found(doctor.resting_cameras('yam_bimanual_sim', []), OK, 'simulated')
    from dataclasses import replace

    from enpire_bringup import station
    real = replace(station.load_station('yam_bimanual_sim'), backend='ros2_control')
    monkeypatch.setattr(station, 'load_station', lambda name: real)
    assert_found(doctor.resting_cameras('lab', [Path('/dev/video0')]), ERROR, '3 cameras, but 1 video devices')
    devices = [Path(f'/dev/video{i}') for i in range(3)]
    assert_found(doctor.resting_cameras('lab', devices), OK, '/dev/video2')


def test_a_silent_camera_of_a_running_station_is_an_error():
    assert_found(doctor.camera_images('/station_1', {'top': 0.1, 'side': 0.2}), OK, 'an image of each of top, side')
    assert_found(doctor.camera_images('/station_1', {'top': 0.1, 'side': 'waited 5 s in vain'}), ERROR,
                 'side: waited 5 s in vain')


@pytest.mark.parametrize('probed, level, said', [
    ({'backend': 'osmesa', 'width': 640, 'height': 480, 'frame_ms': 7.0, 'step_ms': 0.1}, OK, 'osmesa: a frame of 640x480'),
    ({'backend': 'osmesa', 'width': 640, 'height': 480, 'frame_ms': 90.0, 'step_ms': 0.1}, WARNING, 'too slow for 30 Hz'),
    ({'error': 'drawing with MUJOCO_GL=egl failed: no display'}, ERROR, 'no display')])
def test_slow_and_broken_drawing_are_told_apart(probed, level, said):
    assert_found(doctor.world(probed), level, said)


def test_a_broken_gl_library_ends_only_the_probe(monkeypatch):
    monkeypatch.setenv('MUJOCO_GL', 'no_such_backend')
    probed = doctor.probe_world('yam_bimanual_sim', 'push_t')
    assert 'no_such_backend' in probed['error']


def test_a_world_that_cannot_be_built_is_told_from_broken_gl(tmp_path):
    probed = doctor.probe_world(str(tmp_path / 'none.yaml'), 'push_t')
    assert 'the world cannot be built' in probed['error'] and 'none.yaml' in probed['error']


def test_a_check_that_breaks_lets_the_others_go_on():
    def broken():
        raise RuntimeError('no graph')
    finding, = doctor._guarded('ROS domain', broken)
    assert_found(finding, ERROR, 'could not be checked: no graph')


def test_text_and_json_tell_the_same():
    findings = [Finding('git', OK, 'there'), Finding('disk', WARNING, 'low', 'make room'), Finding('ROS', ERROR, 'gone', 'make setup')]
    text = doctor.findings_text(findings)
    assert 'ERROR    ROS               gone' in text and '-> make room' in text
    assert text.endswith('not ready: 1 error(s), 1 warning(s)')
    summary = json.loads(json.dumps(doctor.findings_json(findings)))
    assert not summary['ready'] and [check['level'] for check in summary['checks']] == [OK, WARNING, ERROR]
    assert doctor.findings_text(findings[:2]).endswith('ready, with 1 warning(s)')
    assert doctor.findings_json(findings[:2])['ready']
