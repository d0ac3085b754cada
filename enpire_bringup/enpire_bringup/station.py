"""A station as data: arms, cameras, limits and rates, read from one YAML file."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from enpire_bringup.configuration import ConfigurationError, Section, read_yaml
from enpire_bringup.gym_task import GymTask
from enpire_bringup.obstacles import Obstacle, read_obstacles
from enpire_bringup.paths import resource, share_directory
from enpire_bringup.safety_limits import SafetyLimits, read_limits
from enpire_bringup.task import Task

BACKENDS = ('sim', 'ros2_control', 'gym')


@dataclass(frozen=True)
class Gripper:
    """A parallel gripper driven by one joint. Positions in m a finger, effort in N."""

    joint: str
    closed: float
    open: float
    max_effort: float

    @property
    def opening(self) -> float:
        """The widest that it opens, m between the fingers."""
        return 2.0 * abs(self.open - self.closed)

    def width(self, position: float) -> float:
        """m between the fingers at a position of the joint; nothing is between them at `closed`."""
        return 2.0 * abs(position - self.closed)

    def position(self, width: float) -> float:
        """Position of the joint at which the fingers are `width` m apart."""
        return self.closed + math.copysign(0.5 * width, self.open - self.closed)


@dataclass(frozen=True)
class ToolFrame:
    """Where the tool center point is on a link of the robot description: m, rad.

    Its x axis points out of the gripper, its y axis is the direction in which the fingers close.
    """

    link: str
    xyz: tuple[float, float, float]
    rpy: tuple[float, float, float]


@dataclass(frozen=True)
class Arm:
    """One arm. `base_xyz` (m) and `base_rpy` (rad) place its base in the frame "world".

    model: MJCF of the simulated arm; None: it is built from the robot description.
    tool: makes the frame `tcp_frame`; None: the robot description has it.
    """

    name: str
    model: Path | None
    base_xyz: tuple[float, float, float]
    base_rpy: tuple[float, float, float]
    joints: tuple[str, ...]
    base_frame: str
    tcp_frame: str
    named: dict[str, tuple[float, ...]]
    max_velocity: tuple[float, ...]
    max_acceleration: tuple[float, ...]
    gripper: Gripper
    tool: ToolFrame | None = None

    @property
    def prefix(self) -> str:
        """Prefix of the names in `model`, and of this arm's arguments of the robot description, e.g. "left_"."""
        return f'{self.name}_'


@dataclass(frozen=True)
class Camera:
    """A pinhole camera in the frame `parent`: it sits at `position` (m) and looks at `look_at` (m)."""

    name: str
    parent: str
    position: tuple[float, float, float]
    look_at: tuple[float, float, float]
    up: tuple[float, float, float]
    width: int
    height: int
    vertical_fov: float
    rate: float

    @property
    def optical_frame(self) -> str:
        return f'{self.name}_camera_color_optical_frame'

    @property
    def image_topic(self) -> str:
        return f'{self.name}_camera/color/image_raw'

    @property
    def info_topic(self) -> str:
        return f'{self.name}_camera/color/camera_info'

    @property
    def depth_topic(self) -> str:
        """Distances, pixel by pixel those of the image (16UC1, mm)."""
        return f'{self.name}_camera/aligned_depth_to_color/image_raw'

    @property
    def depth_info_topic(self) -> str:
        return f'{self.name}_camera/aligned_depth_to_color/camera_info'


@dataclass(frozen=True)
class Station:
    """One station file. meshes: folder that the robot description may take meshes for viewers from; '' for none.

    With the backend "gym" it has no arms, cameras, safety limits nor rates: the task says which world it is.
    researcher: whom its campaigns have where nobody says: a name, or the path of a file with name and settings.
    """

    name: str
    file: Path
    description: str
    backend: str
    robot_description: Path | None
    meshes: str
    arms: dict[str, Arm]
    cameras: dict[str, Camera]
    safety: SafetyLimits | None
    policy_rate: float
    control_rate: float
    real_time_factor: float
    step_timeout: float
    obstacles: tuple[Obstacle, ...] = ()
    researcher: str = ''

    @property
    def joints(self) -> tuple[str, ...]:
        """Every joint, arm by arm, each arm's gripper joint after its arm joints."""
        return tuple(joint for arm in self.arms.values() for joint in (*arm.joints, arm.gripper.joint))

    @property
    def lockstep(self) -> bool:
        """Whether its world waits for the answer to every joint state or observation, so that wall time says nothing."""
        return self.backend == 'gym' or (self.backend == 'sim' and self.real_time_factor == 0)

    def arm_slice(self, arm_name: str) -> slice:
        """Where the joints of an arm, without its gripper's, are in `joints`."""
        arm = self.arms[arm_name]
        start = self.joints.index(arm.joints[0])
        return slice(start, start + len(arm.joints))

    def with_real_time_factor(self, factor: float) -> 'Station':
        return replace(self, real_time_factor=factor)

    def with_camera_size(self, width: int, height: int) -> 'Station':
        return replace(self, cameras={name: replace(camera, width=width, height=height)
                                      for name, camera in self.cameras.items()})


def station_file(name_or_path: str) -> Path:
    """The file of a station given by path or by the name of one that ships with the suite.

    Raises ConfigurationError listing the stations there are.
    """
    path = Path(name_or_path)
    if path.suffix in ('.yaml', '.yml'):
        if path.is_file():
            return path.resolve()
        raise ConfigurationError(f'{path}: no such station file')
    folder = share_directory() / 'config' / 'stations'
    file = folder / f'{name_or_path}.yaml'
    if file.is_file():
        return file
    known = ', '.join(sorted(f.stem for f in folder.glob('*.yaml')))
    raise ConfigurationError(
        f"no station '{name_or_path}'; known: {known}. Or give the path of a station file ending in .yaml")


def load_station(name_or_path: str | Path) -> Station:
    """Read and check a station file.

    Raises ConfigurationError naming file, key, unit and the value expected.
    """
    file = station_file(str(name_or_path))
    top = read_yaml(file)
    if top.choice('backend', BACKENDS) == 'gym':
        return _gym_station(top)
    rates = top.section('rates')
    simulation = top.section('simulation', default={})
    station = Station(
        name=file.stem,
        file=file,
        description=top.text('description', default=''),
        backend=top.choice('backend', BACKENDS),
        robot_description=_resource(top, 'robot_description'),
        meshes=top.text('meshes', default=''),
        arms={name: _arm(name, section) for name, section in top.sections('arms')},
        cameras={name: _camera(name, section) for name, section in top.sections('cameras')},
        safety=read_limits(top.section('safety')),
        policy_rate=rates.number('policy', low=1, high=100, unit='Hz'),
        control_rate=rates.number('control', low=10, high=1000, unit='Hz'),
        real_time_factor=simulation.number(
            'real_time_factor', low=0, high=100, unit='(0: lockstep, 1: wall clock)', default=0.0),
        step_timeout=simulation.number('step_timeout', low=0.01, high=60, unit='s of wall time', default=1.0),
        obstacles=read_obstacles(top),
        researcher=_researcher(top),
    )
    for section in (rates, simulation, top):
        section.finish()
    if not station.arms:
        raise top.error('arms', 'is empty; a station needs at least one arm')
    joints = station.joints
    for joint in joints:
        if joints.count(joint) > 1:
            raise top.error('arms', f"names the joint '{joint}' twice")
    return station


def _gym_station(top: Section) -> Station:
    simulation = top.section('simulation', default={})
    station = Station(
        name=top.file.stem, file=top.file, description=top.text('description', default=''), backend='gym',
        robot_description=None, meshes='', arms={}, cameras={}, safety=None, policy_rate=0.0, control_rate=0.0,
        real_time_factor=simulation.number(
            'real_time_factor', low=0, high=100, unit='(0: as fast as it can, 1: wall clock)', default=0.0),
        step_timeout=0.0, researcher=_researcher(top))
    simulation.finish()
    top.finish()
    return station


def default_station(task: Task) -> str:
    """The station that ships with the suite for a task, where nobody names one."""
    return 'gym' if isinstance(task, GymTask) else 'yam_bimanual_sim'


def overridden(station: Station, real_time_factor: float = math.nan, camera_width: int = 0,
               camera_height: int = 0) -> Station:
    """`station` with the overrides that are set. Raises ConfigurationError naming the parameter."""
    if not math.isnan(real_time_factor):
        if not 0 <= real_time_factor <= 100:
            raise ConfigurationError(f"parameter 'real_time_factor' is {real_time_factor}; expected a number from 0 "
                                     '(lockstep) to 100, 1 being the wall clock')
        station = station.with_real_time_factor(real_time_factor)
    if camera_width or camera_height:
        if not (64 <= camera_width <= 4096 and 48 <= camera_height <= 4096):
            raise ConfigurationError(
                f"parameters 'camera_width' and 'camera_height' are {camera_width} and {camera_height}; expected "
                'both, 64 to 4096 by 48 to 4096 pixels, or both 0 for the size in the station file')
        station = station.with_camera_size(camera_width, camera_height)
    return station


def researcher_name(text: str, beside: Path) -> str:
    """A researcher's name as it is; the path of a settings file (.yaml), relative to the folder `beside`, in full."""
    return str((beside / text).resolve()) if text.endswith(('.yaml', '.yml')) else text


def _researcher(top: Section) -> str:
    return researcher_name(top.text('researcher', default=''), top.file.resolve().parent)


def _resource(section: Section, key: str) -> Path:
    try:
        return resource(section.text(key), section.file.parent)
    except ConfigurationError as error:
        raise section.error(key, str(error)) from None


def _arm(name: str, section: Section) -> Arm:
    base = section.section('base')
    gripper = section.section('gripper')
    joints = section.texts('joints')
    named = section.section('named', default={})
    n = len(joints)
    arm = Arm(
        name=name,
        model=_resource(section, 'model') if 'model' in section else None,
        base_xyz=base.vector('xyz', 3, unit='m'),
        base_rpy=base.vector('rpy', 3, unit='rad'),
        joints=joints,
        base_frame=section.text('base_frame'),
        tcp_frame=section.text('tcp_frame'),
        named={key: named.vector(key, n, unit='rad') for key in named.keys()},
        max_velocity=section.vector('max_velocity', n, low=0.01, high=20, unit='rad/s'),
        max_acceleration=section.vector('max_acceleration', n, low=0.01, high=200, unit='rad/s^2'),
        gripper=Gripper(
            joint=gripper.text('joint'),
            closed=gripper.number('closed', low=-1, high=10, unit='m a finger'),
            open=gripper.number('open', low=-1, high=10, unit='m a finger'),
            max_effort=gripper.number('max_effort', low=0.1, high=1000, unit='N')),
        tool=_tool_frame(section.section('tcp')) if 'tcp' in section else None,
    )
    for part in (base, gripper, section):
        part.finish()
    if 'home' not in arm.named:
        raise section.error('named.home', f'is missing; add it (a list of {n} numbers in rad)')
    return arm


def _tool_frame(section: Section) -> ToolFrame:
    tool = ToolFrame(section.text('link'), section.vector('xyz', 3, unit='m', default=(0.0, 0.0, 0.0)),
                     section.vector('rpy', 3, unit='rad', default=(0.0, 0.0, 0.0)))
    section.finish()
    return tool


def _camera(name: str, section: Section) -> Camera:
    camera = Camera(
        name=name,
        parent=section.text('parent'),
        position=section.vector('position', 3, unit='m'),
        look_at=section.vector('look_at', 3, unit='m'),
        up=section.vector('up', 3),
        width=section.integer('width', low=64, high=4096),
        height=section.integer('height', low=48, high=4096),
        vertical_fov=section.number('vertical_fov', low=0.1, high=2.8, unit='rad'),
        rate=section.number('rate', low=0.1, high=200, unit='Hz'),
    )
    section.finish()
    return camera
