"""One station: ros2 launch enpire_bringup station.launch.py task:=push_t namespace:=station_1

Which nodes it has and how they share processes is stated in enpire_bringup.composition; `enpire up` starts the same.
"""

import os
from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, EmitEvent, LogInfo, OpaqueFunction
from launch.events import Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from enpire_bringup.composition import STANDARD_REMAPPINGS, full_namespace, is_installed, station_processes
from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.node_group import NOT_MADE
from enpire_bringup.paths import runs_directory
from enpire_bringup.process_environment import image_environment, prepare_environment
from enpire_bringup.rviz_configuration import write_rviz_configuration
from enpire_bringup.station import default_station, load_station, researcher_name
from enpire_bringup.task import load_task

ARGUMENTS = (
    ('station', '', 'station: a name that ships with the suite, or a file; empty: the one that goes with the task'),
    ('task', 'push_t', 'task: a name that ships with the suite, or a folder'),
    ('namespace', 'station_1', 'namespace of the station'),
    ('real_time_factor', 'nan', "0: lockstep, 1: wall clock, nan: the station file's"),
    ('remote', '', "Git repository that kept recipes travel through; empty: a bare one in the campaign's folder"),
    ('researcher', '', "builtin, codex, claude_code, kimi_code or a settings file; empty: the station file's"),
    ('rviz', 'false', 'true: show the station in RViz'),
)


def generate_launch_description():
    return LaunchDescription([
        *(DeclareLaunchArgument(name, default_value=default, description=text) for name, default, text in ARGUMENTS),
        OpaqueFunction(function=_station),
    ])


def _station(context):
    values = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    prepare_environment()
    task = load_task(values['task'])
    station = load_station(values['station'] or default_station(task))
    processes = station_processes(station, task, values['namespace'],
                                  real_time_factor=_number('real_time_factor', values['real_time_factor']),
                                  node_parameters={
                                      'git_bridge': {'remote': values['remote']},
                                      'supervisor': {'researcher': researcher_name(values['researcher'], Path.cwd())}})
    actions = [_process(spec) for spec in processes]
    if values['rviz'].lower() in ('true', '1', 'yes'):
        actions.append(_rviz(station, task, full_namespace(values['namespace'])))
    return actions


def _process(spec):
    if spec.is_group:
        return Node(package='enpire_bringup', executable='node_group', output='both',
                    arguments=['--nodes', spec.nodes_json(), '--parent', str(os.getpid())],
                    additional_env=image_environment() if spec.publishes_images else {},
                    respawn=True, respawn_delay=2.0, on_exit=_on_exit)
    node = spec.nodes[0]
    return Node(package=node.package, executable=node.executable, name=node.name, namespace=node.namespace,
                parameters=[dict(node.parameters)], remappings=list(node.remappings), output='both',
                respawn=True, respawn_delay=2.0)


def _on_exit(event, context):
    """A process that refuses its configuration would refuse it again: end the launch instead."""
    if event.returncode == NOT_MADE and not context.is_shutdown:
        return [LogInfo(msg='a node could not be made; the line that begins with "enpire:" above says why'),
                EmitEvent(event=Shutdown(reason='a node could not be made'))]
    return None


def _rviz(station, task, namespace):
    if not station.arms:
        raise ConfigurationError(f'{station.file} has no arms for RViz to show; start it without rviz:=true')
    if not is_installed('rviz2'):
        raise ConfigurationError('rviz:=true, but rviz2 is not installed; sudo apt-get install ros-$ROS_DISTRO-rviz2')
    folder = runs_directory() / '.stations' / namespace.strip('/')
    file = write_rviz_configuration(station, task, folder / 'station.rviz')
    return Node(package='rviz2', executable='rviz2', name='rviz', namespace=namespace, arguments=['-d', str(file)],
                parameters=[{'use_sim_time': station.backend == 'sim'}], remappings=list(STANDARD_REMAPPINGS),
                output='both')


def _number(name, text):
    try:
        return float(text)
    except ValueError:
        raise ConfigurationError(f"launch argument {name} is '{text}'; expected a number") from None
