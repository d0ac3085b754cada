"""A task that arms do with objects on a table: what task.yaml says beyond what every task has (task.py)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from enpire_bringup.action_space import TipSpace, read_tip_space
from enpire_bringup.configuration import ConfigurationError, Section
from enpire_bringup.obstacles import Obstacle, read_obstacles
from enpire_bringup.randomization import RandomizationRanges, read_randomization
from enpire_bringup.safety_limits import read_changes
from enpire_bringup.task import Task, common_parts, load_task

OBSERVATIONS = ('tip', 'joint_positions')


@dataclass(frozen=True)
class TaskObject:
    """An object that perception looks for.

    outline: polygon of the visible face in the body frame, shape (n, 2), m, counter-clockwise.
    face_height: height of that face above the table, m.
    hue, saturation, value: inclusive OpenCV HSV ranges; a hue range may wrap (low > high).
    """

    name: str
    body: str
    camera: str
    outline: tuple[tuple[float, float], ...]
    face_height: float
    hue: tuple[float, float]
    saturation: tuple[float, float]
    value: tuple[float, float]


@dataclass(frozen=True)
class Landmarks:
    """Black dots on the table, each in a white square twice as wide, by which perception finds how cameras stand.

    positions: centers in "world", shape (n, 2), m; diameter of a dot, m.
    """

    positions: tuple[tuple[float, float], ...]
    diameter: float


@dataclass(frozen=True)
class Goal:
    """Goal pose of one object in "world": x, y in m, yaw in rad."""

    object: str
    x: float
    y: float
    yaw: float


@dataclass(frozen=True)
class Tolerance:
    """What counts as reached: m, rad, and s for which the object must lie still."""

    position: float
    yaw: float
    still: float


@dataclass(frozen=True)
class StartRegion:
    """Where a reset puts the object: intervals in m and rad, and the least distance from the goal in m."""

    object: str
    x: tuple[float, float]
    y: tuple[float, float]
    yaw: tuple[float, float]
    min_goal_distance: float


@dataclass(frozen=True, kw_only=True)
class ArmTask(Task):
    """One task folder."""

    scene: Path
    reward: Path
    reset: Path
    objects: dict[str, TaskObject]
    landmarks: Landmarks | None
    goal: Goal
    tolerance: Tolerance
    start: StartRegion
    action: TipSpace
    limits: dict[str, float]     # what the task tightens, by the names of safety_limits.LIMITS
    obstacles: tuple[Obstacle, ...] = ()
    randomization: RandomizationRanges = RandomizationRanges()

    def start_pose(self, seed: int) -> tuple[float, float, float]:
        """Start pose (x, y in m, yaw in rad) of the start object for a seed; the same for the same seed."""
        rng = np.random.default_rng(np.random.SeedSequence([seed & 0xFFFFFFFFFFFFFFFF]))
        start = self.start
        while True:
            x, y, yaw = (float(rng.uniform(*bounds)) for bounds in (start.x, start.y, start.yaw))
            if math.hypot(x - self.goal.x, y - self.goal.y) >= start.min_goal_distance:
                return x, y, yaw


def load_arm_task(name_or_path: str | Path) -> ArmTask:
    """`load_task` for what needs arms and objects. Raises ConfigurationError for any other task, too."""
    task = load_task(name_or_path)
    if not isinstance(task, ArmTask):
        raise ConfigurationError(f'{task.file}: its world is a Gymnasium environment, without arms and objects; give a '
                                 'task for arms, such as push_t')
    return task


def read_arm_task(top: Section) -> ArmTask:
    """Raises ConfigurationError naming file, key, unit and the value expected."""
    objects = {name: _object(name, section) for name, section in top.sections('objects')}
    task = ArmTask(
        **common_parts(top),
        scene=_file(top, 'scene', 'scene.xml'),
        reward=_file(top, 'reward', 'reward.py'),
        reset=_file(top, 'reset', 'reset.py'),
        objects=objects,
        landmarks=_landmarks(top.section('landmarks')) if 'landmarks' in top else None,
        goal=_goal(top.section('goal'), objects),
        tolerance=_tolerance(top.section('tolerance')),
        start=_start(top.section('start'), objects),
        observation=_observation(top, objects),
        action=read_tip_space(top.section('action')),
        limits=read_changes(top.section('limits', default={})),
        obstacles=read_obstacles(top),
        randomization=read_randomization(top.section('randomization', default={})),
    )
    top.finish()
    _check_start(top, task)
    return task


def _file(top: Section, key: str, default: str) -> Path:
    path = top.file.parent / top.text(key, default=default)
    if not path.is_file():
        raise top.error(key, f"is '{path.name}': no such file in {path.parent}")
    return path


def _object(name: str, section: Section) -> TaskObject:
    colour = section.section('colour')
    result = TaskObject(
        name=name,
        body=section.text('body', default=name),
        camera=section.text('camera'),
        outline=section.points('outline', 2, unit='m'),
        face_height=section.number('face_height', low=0, high=2, unit='m'),
        hue=colour.vector('hue', 2, low=0, high=180),
        saturation=colour.interval('saturation', low=0, high=255),
        value=colour.interval('value', low=0, high=255),
    )
    colour.finish()
    section.finish()
    if len(result.outline) < 3:
        raise section.error('outline', f'has {len(result.outline)} points; a polygon needs at least 3')
    return result


def _landmarks(section: Section) -> Landmarks:
    result = Landmarks(positions=section.points('positions', 2, unit='m'),
                       diameter=section.number('diameter', low=0.002, high=0.2, unit='m'))
    section.finish()
    if len(result.positions) < 4:
        raise section.error('positions', f'has {len(result.positions)} points; a camera needs at least 4, and more '
                                         'where arms may hide some')
    return result


def _known_object(section: Section, objects: dict[str, TaskObject]) -> str:
    return section.choice('object', tuple(objects))


def _goal(section: Section, objects) -> Goal:
    x, y = section.vector('xy', 2, unit='m')
    goal = Goal(_known_object(section, objects), x, y,
                section.number('yaw', low=-2 * math.pi, high=2 * math.pi, unit='rad'))
    section.finish()
    return goal


def _tolerance(section: Section) -> Tolerance:
    tolerance = Tolerance(
        position=section.number('position', low=1e-4, high=1, unit='m'),
        yaw=section.number('yaw', low=1e-3, high=math.pi, unit='rad'),
        still=section.number('still', low=0, high=10, unit='s'))
    section.finish()
    return tolerance


def _start(section: Section, objects) -> StartRegion:
    start = StartRegion(
        object=_known_object(section, objects),
        x=section.interval('x', unit='m'),
        y=section.interval('y', unit='m'),
        yaw=section.interval('yaw', low=-2 * math.pi, high=2 * math.pi, unit='rad'),
        min_goal_distance=section.number('min_goal_distance', low=0, high=1, unit='m', default=0.0))
    section.finish()
    return start


def _check_start(top: Section, task: ArmTask) -> None:
    start, goal = task.start, task.goal
    farthest = max(math.hypot(x - goal.x, y - goal.y) for x in start.x for y in start.y)
    if farthest <= start.min_goal_distance:
        raise top.error('start.min_goal_distance',
                        f'is {start.min_goal_distance} m, but no point of the region is farther than '
                        f'{farthest:.3f} m from the goal; make it smaller or the region larger')


def _observation(top: Section, objects) -> tuple[str, ...]:
    names = top.texts('observation')
    known = (*objects, *OBSERVATIONS)
    for name in names:
        if name not in known:
            raise top.error('observation', f"names '{name}'; known: {', '.join(known)}")
    return names
