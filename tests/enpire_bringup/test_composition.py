"""The one definition of which nodes a station has."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import rclpy.node

from enpire_bringup import composition
from enpire_bringup.composition import station_namespaces, station_processes
from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.node_group import load_class

ROOT = Path(__file__).resolve().parents[2]
NODES = {'sim_station', 'trajectory_controller', 'sim_cameras', 'camera_perception', 'success_detector',
         'arm_control', 'auto_reset', 'station_markers', 'robot_state_publisher', 'trial_runner', 'supervisor', 'git_bridge'}


def nodes_of(processes):
    return {node.name: node for process in processes for node in process.nodes}


def test_a_simulated_station_has_every_node_of_the_graph_once(station, task):
    processes = station_processes(station, task, 'station_1', real_state_publisher=False)
    names = [node.name for process in processes for node in process.nodes]
    assert sorted(names) == sorted(NODES)


def test_rendering_and_agent_work_stay_out_of_the_control_loops_process(station, task):
    processes = station_processes(station, task, 'station_1', real_state_publisher=False)
    together = {node.name: process.name for process in processes for node in process.nodes}
    assert together['sim_cameras'] != together['sim_station']
    assert together['trial_runner'] != together['sim_station']


def test_every_node_can_be_loaded_and_is_an_executable_of_its_package(station, task):
    scripts = {package: (ROOT / package / 'setup.py').read_text()
               for package in ('enpire_bringup', 'enpire_reward', 'enpire_reset', 'enpire_agent')}
    for node in nodes_of(station_processes(station, task, 'station_1', real_state_publisher=False)).values():
        assert load_class(node.node_class).__name__ == node.node_class.partition(':')[2]
        module = node.node_class.partition(':')[0]
        assert f"'{node.executable} = {module}:main'" in scripts[node.package]


def test_no_node_hides_an_attribute_of_rclpys_node(station, task):
    """rclpy keeps its state in attributes like `_clients`: one of the same name breaks the node at run time."""
    taken = set(dir(rclpy.node.Node)) | set(re.findall(r'self\.(_\w+)', inspect.getsource(rclpy.node)))
    allowed = {'__init__', 'destroy_node'}
    for node in nodes_of(station_processes(station, task, 'station_1', real_state_publisher=False)).values():
        source = inspect.getsource(load_class(node.node_class))
        own = set(re.findall(r'self\.(\w+)\s*(?::[^=\n]+)?=[^=]', source)) | set(re.findall(r'    def (\w+)\(', source))
        assert own & taken <= allowed, node.node_class


def test_names_are_relative_to_the_namespace(station, task):
    for node in nodes_of(station_processes(station, task, 'lab/station_7')).values():
        assert node.full_name == f'/lab/station_7/{node.name}'
        assert dict(node.remappings) == {'/clock': 'clock', '/tf': 'tf', '/tf_static': 'tf_static'}


def test_overrides_reach_every_node(station, task):
    processes = station_processes(station, task, 'station_1', real_time_factor=2.0, camera_width=320,
                                  camera_height=240, real_state_publisher=False)
    for node in nodes_of(processes).values():
        assert node.parameters['real_time_factor'] == 2.0
        assert (node.parameters['camera_width'], node.parameters['camera_height']) == (320, 240)
        assert node.parameters['use_sim_time'] is True
        assert node.parameters['station'] == str(station.file)
        assert node.parameters['task'] == str(task.directory)


def test_a_parameter_for_one_node_reaches_that_node_only(station, task):
    nodes = nodes_of(station_processes(station, task, 'station_1', node_parameters={'sim_station': {'seed': 5}}))
    assert nodes['sim_station'].parameters['seed'] == 5
    assert 'seed' not in nodes['arm_control'].parameters


def test_a_parameter_for_an_unknown_node_is_refused(station, task):
    with pytest.raises(ConfigurationError, match="no node 'sim_statoin'.*sim_station"):
        station_processes(station, task, 'station_1', node_parameters={'sim_statoin': {'seed': 5}})


@pytest.mark.parametrize('backend', ['ros2_control'])
def test_a_backend_of_a_later_version_is_refused_by_name(station, task, backend):
    with pytest.raises(ConfigurationError, match=f"backend is '{backend}'.*later version"):
        station_processes(replace(station, backend=backend), task, 'station_1')


@pytest.mark.parametrize('namespace', ['', '/', 'station 1', '1st', 'a//b', 'station-1'])
def test_a_bad_namespace_is_refused(station, task, namespace):
    with pytest.raises(ConfigurationError, match='no ROS namespace'):
        station_processes(station, task, namespace)


def test_the_installed_state_publisher_takes_the_place_of_ours(station, task):
    nodes = nodes_of(station_processes(station, task, 'station_1', real_state_publisher=True))
    node = nodes['robot_state_publisher']
    assert (node.package, node.node_class) == ('robot_state_publisher', '')
    assert node.parameters['robot_description'].lstrip().startswith('<?xml')


def test_an_absent_package_is_not_a_capability():
    assert not composition.is_installed('no_such_package')
    assert composition.is_installed('enpire_msgs')


def test_process_description_survives_json(station, task):
    for process in station_processes(station, task, 'station_1', real_state_publisher=False):
        entries = json.loads(process.nodes_json())
        assert [entry['name'] for entry in entries] == [node.name for node in process.nodes]


def test_fleet_namespaces():
    assert station_namespaces(3) == ['station_1', 'station_2', 'station_3']
    with pytest.raises(ConfigurationError, match='number of stations is 0'):
        station_namespaces(0)
