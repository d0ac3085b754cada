"""Station and task files: what is wrong with one is said in one line that names file, key, unit and expectation."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.station import load_station, station_file
from enpire_bringup.task import load_task, task_directory

MISSING = object()


def change(values: dict, key: str, value) -> None:
    """Set, or delete for MISSING, the entry that the dotted `key` names."""
    *parents, last = key.split('.')
    for parent in parents:
        values = values[parent]
    if value is MISSING:
        del values[last]
    else:
        values[last] = value


@pytest.fixture
def station_with(tmp_path):
    """station_with(key, value): the shipped station file with one entry changed."""
    def write(key: str, value) -> Path:
        values = yaml.safe_load(station_file('yam_bimanual_sim').read_text())
        change(values, key, value)
        file = tmp_path / 'my_station.yaml'
        file.write_text(yaml.safe_dump(values))
        return file
    return write


@pytest.fixture
def task_with(tmp_path):
    """task_with(key, value): a copy of the shipped task with one entry of task.yaml changed."""
    folder = tmp_path / 'my_task'
    shutil.copytree(task_directory('push_t'), folder)

    def write(key: str, value) -> Path:
        values = yaml.safe_load((folder / 'task.yaml').read_text())
        change(values, key, value)
        (folder / 'task.yaml').write_text(yaml.safe_dump(values))
        return folder
    return write


def message_of(load, source) -> str:
    with pytest.raises(ConfigurationError) as error:
        load(source)
    assert '\n' not in str(error.value)
    return str(error.value)


def test_the_shipped_station_and_task_load():
    station, task = load_station('yam_bimanual_sim'), load_task('push_t')
    assert list(station.arms) == ['left', 'right']
    assert task.action.arm in station.arms
    assert all(item.camera in station.cameras for item in task.objects.values())


@pytest.mark.parametrize('key, value, said', [
    ('arms.left.max_velocity', MISSING, ('arms.left.max_velocity', 'is missing', 'rad/s')),
    ('safety.stale_state', MISSING, ('safety.stale_state', 'is missing', ' s)')),
    ('backend', 'real', ('backend', "'real'", 'sim, ros2_control, gym')),
    ('safety.max_tip_speed', 50, ('safety.max_tip_speed', '50', 'out of range', 'm/s')),
    ('safety.max_tip_speed', 'fast', ('safety.max_tip_speed', "'fast'", 'm/s')),
    ('safety.max_tip_speed', float('nan'), ('safety.max_tip_speed', 'nan', 'm/s')),
    ('safety.workspace.x', [0.7, 0.1], ('safety.workspace.x', 'smaller')),
    ('rates.policy', 0, ('rates.policy', 'out of range', 'Hz')),
    ('simulation.real_time_factor', -1, ('simulation.real_time_factor', 'out of range', 'lockstep')),
    ('cameras.top.widht', 640, ('cameras.top', 'widht')),
    ('cameras.top.width', 640.5, ('cameras.top.width', '640.5', 'whole number')),
    ('arms.left.model', 'nowhere.xml', ('arms.left.model', 'nowhere.xml', 'no such file')),
    ('arms.left.named', {'rest': [0] * 6}, ('arms.left.named.home', 'is missing', 'rad')),
    ('arms.left.named.home', [0, 1], ('arms.left.named.home', 'list of 6 numbers', 'rad')),
    ('arms.right.joints', [f'left_joint{i}' for i in range(1, 7)], ('arms', 'left_joint1', 'twice')),
    ('arms', {}, ('arms', 'at least one arm')),
    ('arms', 'none', ('arms', 'mapping')),
])
def test_wrong_station_entry_is_named(station_with, key, value, said):
    file = station_with(key, value)
    message = message_of(load_station, file)
    for part in (str(file), *said):
        assert part in message


@pytest.mark.parametrize('key, value, said', [
    ('goal.xy', MISSING, ('goal.xy', 'is missing')),
    ('tolerance.position', 0, ('tolerance.position', 'out of range', ' m')),
    ('tolerance.yaw', '5 degrees', ('tolerance.yaw', "'5 degrees'", 'rad')),
    ('policy.deadline', -1, ('policy.deadline', 'out of range', ' s')),
    ('policy.rate', MISSING, ('policy.rate', 'is missing', 'Hz')),
    ('start.x', [0.4, 0.3], ('start.x', 'smaller')),
    ('start.min_goal_distance', 0.9, ('start.min_goal_distance', 'no point of the region')),
    ('action.type', 'joint', ('action.type', "'joint'", 'tip_xy')),
    ('action.low', [0.9, 0.9], ('action.low', 'not below high')),
    ('observation', ['t_block', 'weather'], ('observation', "'weather'", 'tip')),
    ('reward', 'judge.py', ('reward', 'judge.py', 'no such file')),
    ('goal.object', 'cup', ('goal.object', "'cup'", 't_block')),
    ('campaign.success_windw', 3, ('campaign', 'success_windw')),
])
def test_wrong_task_entry_is_named(task_with, key, value, said):
    folder = task_with(key, value)
    message = message_of(load_task, folder)
    for part in (str(folder / 'task.yaml'), *said):
        assert part in message


def test_unknown_station_lists_the_known_ones():
    message = message_of(load_station, 'yam_trimanual')
    assert 'yam_trimanual' in message and 'yam_bimanual_sim' in message


def test_unknown_task_lists_the_known_ones():
    message = message_of(load_task, 'push_q')
    assert 'push_q' in message and 'push_t' in message


def test_absent_station_file_is_named(tmp_path):
    assert str(tmp_path / 'lab.yaml') in message_of(load_station, tmp_path / 'lab.yaml')


def test_broken_yaml_is_located(tmp_path):
    file = tmp_path / 'lab.yaml'
    file.write_text('backend: sim\narms: {left: [\n')
    message = message_of(load_station, file)
    assert str(file) in message and 'line' in message


def test_file_that_is_no_mapping_is_refused(tmp_path):
    file = tmp_path / 'lab.yaml'
    file.write_text('- sim\n')
    assert 'mapping' in message_of(load_station, file)
