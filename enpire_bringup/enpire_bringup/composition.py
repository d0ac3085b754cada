"""Which nodes a station consists of, and which process each runs in: the one definition.

The process runner (`enpire up`) and the launch files both read it.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any, Mapping

from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.gym_task import GymTask
from enpire_bringup.station import Station, default_station, overridden
from enpire_bringup.task import Task

STANDARD_REMAPPINGS = (('/clock', 'clock'), ('/tf', 'tf'), ('/tf_static', 'tf_static'))


@dataclass(frozen=True)
class NodeSpec:
    """One node. `node_class` is "module:Class"; empty for a foreign executable, which gets a process of its own."""

    package: str
    executable: str
    name: str
    namespace: str
    node_class: str = ''
    parameters: Mapping[str, Any] = field(default_factory=dict)
    remappings: tuple[tuple[str, str], ...] = STANDARD_REMAPPINGS

    @property
    def full_name(self) -> str:
        return f'{self.namespace}/{self.name}'

    def entry(self) -> dict:
        """What node_group reads; see `enpire_bringup.node_group`."""
        return {'class': self.node_class, 'name': self.name, 'namespace': self.namespace,
                'parameters': dict(self.parameters), 'remappings': [list(pair) for pair in self.remappings]}


@dataclass(frozen=True)
class ProcessSpec:
    """One process: several nodes of ours in a `node_group`, or one foreign executable.

    publishes_images: needs a large shared-memory segment.
    """

    name: str
    nodes: tuple[NodeSpec, ...]
    publishes_images: bool = False

    @property
    def is_group(self) -> bool:
        return all(node.node_class for node in self.nodes)

    def nodes_json(self) -> str:
        """The argument of `node_group --nodes`."""
        return json.dumps([node.entry() for node in self.nodes])


# process -> (package, executable, class) of its nodes; a node is named after its executable.
_WORLD = (
    ('enpire_bringup', 'sim_station', 'enpire_bringup.sim_station_node:SimStation'),
    ('enpire_bringup', 'trajectory_controller', 'enpire_bringup.trajectory_controller_node:TrajectoryController'),
)
_CAMERAS = (
    ('enpire_bringup', 'sim_cameras', 'enpire_bringup.sim_cameras_node:SimCameras'),
)
_PERCEPTION = (
    ('enpire_bringup', 'camera_perception', 'enpire_bringup.camera_perception_node:CameraPerception'),
    ('enpire_reward', 'success_detector', 'enpire_reward.success_detector_node:SuccessDetector'),
)
_MOTION = (
    ('enpire_bringup', 'arm_control', 'enpire_bringup.arm_control_node:ArmControl'),
    ('enpire_reset', 'auto_reset', 'enpire_reset.auto_reset_node:AutoReset'),
    ('enpire_bringup', 'station_markers', 'enpire_bringup.station_markers_node:StationMarkers'),
)
_GYM_WORLD = (
    ('enpire_bringup', 'gym_station', 'enpire_bringup.gym_station_node:GymStation'),
)
_OWN_STATE_PUBLISHER = (
    ('enpire_bringup', 'robot_state_publisher', 'enpire_bringup.robot_state_publisher_node:RobotStatePublisher'),
)
_RESEARCH = (
    ('enpire_agent', 'trial_runner', 'enpire_agent.trial_runner_node:TrialRunner'),
    ('enpire_agent', 'supervisor', 'enpire_agent.supervisor_node:Supervisor'),
    ('enpire_agent', 'git_bridge', 'enpire_agent.git_bridge_node:GitBridge'),
)


def station_processes(station: Station, task: Task, namespace: str, *, real_time_factor: float = math.nan,
                      camera_width: int = 0, camera_height: int = 0,
                      node_parameters: Mapping[str, Mapping[str, Any]] | None = None,
                      real_state_publisher: bool | None = None) -> list[ProcessSpec]:
    """The processes of one station in `namespace` (e.g. "station_1").

    real_time_factor (NaN), camera_width and camera_height (0): overrides of the station file.
    node_parameters: further parameters by node name.
    real_state_publisher: use the robot_state_publisher package; None looks whether it is installed.
    Raises ConfigurationError for a backend that this version does not drive, a bad namespace, a bad override or an
    unknown node.
    """
    namespace = full_namespace(namespace)
    check_fit(station, task)
    overridden(station, real_time_factor, camera_width, camera_height)     # refuses bad values before any process runs
    if real_state_publisher is None and station.backend == 'sim':
        real_state_publisher = is_installed('robot_state_publisher')
    common = {'station': str(station.file), 'task': str(task.directory), 'use_sim_time': station.backend == 'sim',
              'real_time_factor': float(real_time_factor), 'camera_width': camera_width,
              'camera_height': camera_height}
    extra = dict(node_parameters or {})

    def process(name: str, entries, publishes_images: bool = False) -> ProcessSpec:
        return ProcessSpec(name, tuple(
            NodeSpec(package, executable, executable, namespace, node_class,
                     {**common, **extra.pop(executable, {})})
            for package, executable, node_class in entries), publishes_images)

    motion = _MOTION if real_state_publisher else _MOTION + _OWN_STATE_PUBLISHER
    if station.backend == 'gym':
        processes = [process('world', _GYM_WORLD, publishes_images=True), process('research', _RESEARCH)]
    else:
        processes = [process('world', _WORLD), process('cameras', _CAMERAS, publishes_images=True),
                     process('perception', _PERCEPTION),
                     process('motion', motion), process('research', _RESEARCH)]
    if real_state_publisher and station.backend == 'sim':
        from enpire_bringup.robot_description import robot_description

        processes.append(ProcessSpec('state_publisher', (NodeSpec(
            'robot_state_publisher', 'robot_state_publisher', 'robot_state_publisher', namespace,
            parameters={'robot_description': robot_description(station, for_viewers=True),
                        'use_sim_time': common['use_sim_time']}),)))
    if extra:
        known = ', '.join(node.name for spec in processes for node in spec.nodes)
        raise ConfigurationError(f"no node '{next(iter(extra))}' in the station; there are: {known}")
    return processes


def check_fit(station: Station, task: Task) -> None:
    """Raises ConfigurationError for a backend that this version does not drive, or a task of another kind of world."""
    if station.backend not in ('sim', 'gym'):
        raise ConfigurationError(
            f"{station.file}: backend is '{station.backend}', which comes with a later version; this one drives "
            "stations with 'backend: sim' and 'backend: gym'")
    if (station.backend == 'gym') != isinstance(task, GymTask):
        raise ConfigurationError(
            f"{task.file}: the task's world is {'a Gymnasium environment' if isinstance(task, GymTask) else 'one of arms'}"
            f", but {station.file} has 'backend: {station.backend}'; take --station {default_station(task)}")


def station_namespaces(count: int) -> list[str]:
    """Namespaces of a fleet: station_1 ... station_<count>. Raises ConfigurationError below 1 or above 64."""
    if not 1 <= count <= 64:
        raise ConfigurationError(f'the number of stations is {count}; expected 1 to 64')
    return [f'station_{i}' for i in range(1, count + 1)]


def full_namespace(namespace: str) -> str:
    """`namespace` with its leading slash. Raises ConfigurationError when it is no ROS namespace."""
    name = namespace.strip('/')
    if not re.fullmatch(r'[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*', name):
        raise ConfigurationError(f"'{namespace}' is no ROS namespace; use letters, digits and _, e.g. station_1")
    return f'/{name}'


def is_installed(package: str) -> bool:
    """Whether a ROS package is in the ament index (a capability look-up; made once, at start)."""
    from ament_index_python.packages import PackageNotFoundError, get_package_prefix

    try:
        get_package_prefix(package)
    except PackageNotFoundError:
        return False
    return True
