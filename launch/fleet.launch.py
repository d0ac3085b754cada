"""Several stations: ros2 launch enpire_bringup fleet.launch.py stations:=2

Each is station.launch.py in a namespace of its own: station_1, station_2, ...
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

from enpire_bringup.composition import station_namespaces
from enpire_bringup.configuration import ConfigurationError

STATION_LAUNCH = Path(__file__).resolve().parent / 'station.launch.py'
ARGUMENTS = (
    ('stations', '2', 'how many stations'),
    ('station', '', 'station: a name that ships with the suite, or a file; empty: the one that goes with the task'),
    ('task', 'push_t', 'task: a name that ships with the suite, or a folder'),
    ('real_time_factor', 'nan', "0: lockstep, 1: wall clock, nan: the station file's"),
    ('remote', '', "Git repository that kept recipes travel through; empty: a bare one in the campaign's folder"),
    ('researcher', '', "builtin, codex, claude_code, kimi_code or a settings file; empty: the station file's"),
)


def generate_launch_description():
    return LaunchDescription([
        *(DeclareLaunchArgument(name, default_value=default, description=text) for name, default, text in ARGUMENTS),
        OpaqueFunction(function=_fleet),
    ])


def _fleet(context):
    values = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    if not values['stations'].isdigit():
        raise ConfigurationError(f"launch argument stations is '{values['stations']}'; expected a whole number")
    shared = {name: values[name] for name in ('station', 'task', 'real_time_factor', 'remote', 'researcher')}
    return [IncludeLaunchDescription(PythonLaunchDescriptionSource(str(STATION_LAUNCH)),
                                     launch_arguments={**shared, 'namespace': namespace}.items())
            for namespace in station_namespaces(int(values['stations']))]
