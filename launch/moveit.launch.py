"""MoveIt for a station: ros2 launch enpire_bringup moveit.launch.py station:=yam_bimanual_sim namespace:=station_1

move_group plans for the groups of enpire_bringup.moveit_configuration and executes through the controllers' actions.
With hardware:=none these belong to a station that is up (`./enpire up`, station.launch.py). With mock, topic_based or
simulated a controller_manager with the same actions is started here, see description/ros2_control.xacro.
"""

import tempfile
from pathlib import Path

import yaml
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from enpire_bringup.composition import STANDARD_REMAPPINGS, full_namespace
from enpire_bringup.moveit_configuration import controller_names, moveit_parameters, ros2_controllers
from enpire_bringup.robot_description import HARDWARE, robot_description
from enpire_bringup.station import load_station

NO_HARDWARE = 'none'
ARGUMENTS = (
    ('station', 'yam_bimanual_sim', 'station: a name that ships with the suite, or a file'),
    ('namespace', 'station_1', 'namespace of the station'),
    ('hardware', NO_HARDWARE, f'{NO_HARDWARE}: a station that is up; {", ".join(HARDWARE)}: a controller_manager here'),
)


def generate_launch_description():
    return LaunchDescription([
        *(DeclareLaunchArgument(name, default_value=default, description=text,
                                choices=[NO_HARDWARE, *HARDWARE] if name == 'hardware' else None)
          for name, default, text in ARGUMENTS),
        OpaqueFunction(function=_moveit),
    ])


def _moveit(context):
    values = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    station, namespace = load_station(values['station']), full_namespace(values['namespace'])
    hardware = values['hardware']
    # A station in simulation has its own clock; mock hardware lives by the wall clock.
    clock = {'use_sim_time': hardware in ('topic_based', 'simulated') or
             (hardware == NO_HARDWARE and station.backend == 'sim')}
    actions = [_node('moveit_ros_move_group', 'move_group', namespace, [moveit_parameters(station), clock])]
    if hardware != NO_HARDWARE:
        actions += _controllers(station, namespace, hardware, clock)
    return actions


def _controllers(station, namespace, hardware, clock):
    file = Path(tempfile.mkdtemp(prefix='enpire_controllers_')) / 'ros2_controllers.yaml'
    file.write_text(yaml.safe_dump(ros2_controllers(station, namespace), sort_keys=False))
    return [
        _node('robot_state_publisher', 'robot_state_publisher', namespace,
              [{'robot_description': robot_description(station, hardware)}, clock]),
        _node('controller_manager', 'ros2_control_node', namespace, [str(file), clock]),
        Node(package='controller_manager', executable='spawner', namespace=namespace, output='both',
             arguments=[*controller_names(station, hardware),
                        '--controller-manager', f'{namespace}/controller_manager']),
    ]


def _node(package, executable, namespace, parameters):
    return Node(package=package, executable=executable, namespace=namespace, output='both', parameters=parameters,
                remappings=list(STANDARD_REMAPPINGS))
