"""The launch files start the nodes of the one definition. Runs where ROS 2's launch is installed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from enpire_bringup.composition import station_processes
from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.station import load_station
from enpire_bringup.task import load_task

LAUNCH = Path(__file__).resolve().parents[2] / 'launch'


@pytest.mark.parametrize('name', ['station.launch.py', 'fleet.launch.py', 'moveit.launch.py'])
def test_launch_file_is_valid_python(name):
    compile((LAUNCH / name).read_text(), name, 'exec')


def test_the_package_installs_the_launch_files():
    assert (LAUNCH.parent / 'enpire_bringup' / 'launch').resolve() == LAUNCH


@pytest.fixture
def actions_of(monkeypatch):
    """actions_of(file, **arguments): the actions that the launch file's function gives for these arguments."""
    reason = 'ROS 2 launch is not installed (the wheels do not have it); launch files run on a full ROS 2 machine'
    launch = pytest.importorskip('launch', reason=reason)
    pytest.importorskip('launch_ros', reason=reason)
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    def run(name: str, **arguments: str):
        context = launch.LaunchContext()
        description = PythonLaunchDescriptionSource(str(LAUNCH / name)).get_launch_description(context)
        context.launch_configurations.update(arguments)
        for entity in description.entities:
            if isinstance(entity, launch.actions.DeclareLaunchArgument):
                entity.execute(context)
        function, = [entity for entity in description.entities
                     if isinstance(entity, launch.actions.OpaqueFunction)]
        return function.execute(context), context
    return run


def group_entries(actions) -> list[dict]:
    """The nodes that the node_group processes among `actions` are told to run."""
    entries = []
    for action in actions:
        if action.node_executable == 'node_group':
            words = [''.join(part.text for part in word) for word in action.cmd if all(hasattr(p, 'text') for p in word)]
            entries += json.loads(words[words.index('--nodes') + 1])
    return entries


def test_station_launch_starts_every_node_of_the_definition(actions_of):
    remote = 'ssh://lab/recipes.git'
    actions, _ = actions_of('station.launch.py', namespace='lab_1', real_time_factor='1.0', remote=remote,
                            researcher='codex')
    processes = station_processes(load_station('yam_bimanual_sim'), load_task('push_t'), 'lab_1', real_time_factor=1.0,
                                  node_parameters={'git_bridge': {'remote': remote},
                                                   'supervisor': {'researcher': 'codex'}})
    expected = [node.entry() for spec in processes if spec.is_group for node in spec.nodes]
    assert group_entries(actions) == expected
    assert len(actions) == len(processes)


def test_fleet_launch_starts_a_station_for_each_namespace(actions_of):
    actions, context = actions_of('fleet.launch.py', stations='3')
    assert [dict(action.launch_arguments)['namespace'] for action in actions] == ['station_1', 'station_2', 'station_3']


@pytest.mark.parametrize('name, arguments, said', [
    ('station.launch.py', {'task': 'push_q'}, "no task 'push_q'"),
    ('station.launch.py', {'real_time_factor': 'fast'}, "real_time_factor is 'fast'"),
    ('station.launch.py', {'rviz': 'true'}, 'rviz2 is not installed'),
    ('fleet.launch.py', {'stations': 'many'}, "stations is 'many'"),
])
def test_bad_launch_arguments_are_named(actions_of, name, arguments, said):
    if 'rviz' in arguments:
        from enpire_bringup.composition import is_installed
        if is_installed('rviz2'):
            pytest.skip('rviz2 is installed here')
    with pytest.raises(ConfigurationError, match=said):
        actions_of(name, **arguments)


def test_moveit_launch_starts_a_controller_manager_only_where_hardware_is_asked_for(actions_of):
    actions, _ = actions_of('moveit.launch.py', namespace='lab')
    assert [action.node_executable for action in actions] == ['move_group']
    actions, _ = actions_of('moveit.launch.py', namespace='lab', hardware='mock')
    assert {'move_group', 'robot_state_publisher', 'ros2_control_node', 'spawner'} == {
        action.node_executable for action in actions}
