"""A task as data: one folder with task.yaml, scene, reward program, reset program and recipe."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from enpire_bringup.configuration import ConfigurationError, Section, read_yaml
from enpire_bringup.obstacles import Obstacle, read_obstacles
from enpire_bringup.paths import share_directory
from enpire_bringup.randomization import RandomizationRanges, read_randomization
from enpire_bringup.safety_limits import read_changes

ACTION_TYPES = ('tip_xy',)
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


@dataclass(frozen=True)
class PolicyTerms:
    """Rate (Hz), deadline a step (s; wall time, in lockstep CPU time), episode timeout (s), for how long (s) verdicts
    have to be success until the episode ends by it, and what ends a trial as POLICY_ERROR."""

    rate: float
    deadline: float
    episode_timeout: float
    success_hold: float
    max_late_steps: int
    camera_latency: int


@dataclass(frozen=True)
class ActionSpace:
    """What a policy returns. `tip_xy`: target (x, y) in m of the closed gripper's tip at `height` above the table."""

    type: str
    arm: str
    low: tuple[float, ...]
    high: tuple[float, ...]
    height: float
    max_step: float


@dataclass(frozen=True)
class CampaignTerms:
    """success_window: consecutive successes that solve the task; search_trials: trials a hypothesis gets."""

    success_window: int
    search_trials: int
    goal: float


@dataclass(frozen=True)
class Task:
    """One task folder."""

    name: str
    directory: Path
    objective: str
    scene: Path
    reward: Path
    reset: Path
    recipe: Path
    objects: dict[str, TaskObject]
    landmarks: Landmarks | None
    goal: Goal
    tolerance: Tolerance
    start: StartRegion
    policy: PolicyTerms
    observation: tuple[str, ...]
    action: ActionSpace
    limits: dict[str, float]     # what the task tightens, by the names of safety_limits.LIMITS
    campaign: CampaignTerms
    obstacles: tuple[Obstacle, ...] = ()
    randomization: RandomizationRanges = RandomizationRanges()

    @property
    def file(self) -> Path:
        return self.directory / 'task.yaml'

    def start_pose(self, seed: int) -> tuple[float, float, float]:
        """Start pose (x, y in m, yaw in rad) of the start object for a seed; the same for the same seed."""
        rng = np.random.default_rng(np.random.SeedSequence([seed & 0xFFFFFFFFFFFFFFFF]))
        start = self.start
        while True:
            x, y, yaw = (float(rng.uniform(*bounds)) for bounds in (start.x, start.y, start.yaw))
            if math.hypot(x - self.goal.x, y - self.goal.y) >= start.min_goal_distance:
                return x, y, yaw


def task_directory(name_or_path: str) -> Path:
    """The folder of a task given by path or by the name of one that ships with the suite.

    Raises ConfigurationError listing the tasks there are.
    """
    folder = share_directory() / 'tasks'
    for path in (Path(name_or_path), folder / name_or_path):
        if (path / 'task.yaml').is_file():
            return path.resolve()
    known = ', '.join(sorted(f.parent.name for f in folder.glob('*/task.yaml')))
    raise ConfigurationError(
        f"no task '{name_or_path}'; known: {known}. Or give the path of a folder with a task.yaml")


def load_task(name_or_path: str | Path) -> Task:
    """Read and check a task folder.

    Raises ConfigurationError naming file, key, unit and the value expected.
    """
    directory = task_directory(str(name_or_path))
    top = read_yaml(directory / 'task.yaml')
    objects = {name: _object(name, section) for name, section in top.sections('objects')}
    task = Task(
        name=directory.name,
        directory=directory,
        objective=top.text('objective'),
        scene=_file(top, 'scene', 'scene.xml'),
        reward=_file(top, 'reward', 'reward.py'),
        reset=_file(top, 'reset', 'reset.py'),
        recipe=directory / top.text('recipe', default='recipe'),
        objects=objects,
        landmarks=_landmarks(top.section('landmarks')) if 'landmarks' in top else None,
        goal=_goal(top.section('goal'), objects),
        tolerance=_tolerance(top.section('tolerance')),
        start=_start(top.section('start'), objects),
        policy=_policy(top.section('policy')),
        observation=_observation(top, objects),
        action=_action(top.section('action')),
        limits=read_changes(top.section('limits', default={})),
        campaign=_campaign(top.section('campaign')),
        obstacles=read_obstacles(top),
        randomization=read_randomization(top.section('randomization', default={})),
    )
    top.finish()
    if not task.recipe.is_dir():
        raise top.error('recipe', f"is '{task.recipe.name}': no such folder in {directory}")
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


def _check_start(top: Section, task: Task) -> None:
    start, goal = task.start, task.goal
    farthest = max(math.hypot(x - goal.x, y - goal.y) for x in start.x for y in start.y)
    if farthest <= start.min_goal_distance:
        raise top.error('start.min_goal_distance',
                        f'is {start.min_goal_distance} m, but no point of the region is farther than '
                        f'{farthest:.3f} m from the goal; make it smaller or the region larger')


def _policy(section: Section) -> PolicyTerms:
    policy = PolicyTerms(
        rate=section.number('rate', low=1, high=100, unit='Hz'),
        deadline=section.number('deadline', low=0.001, high=10, unit='s'),
        episode_timeout=section.number('episode_timeout', low=0.1, high=3600, unit='s'),
        success_hold=section.number('success_hold', low=0, high=60, unit='s', default=0.0),
        max_late_steps=section.integer('max_late_steps', low=1, high=100000),
        camera_latency=section.integer('camera_latency', low=0, high=10, default=0))
    section.finish()
    return policy


def _observation(top: Section, objects) -> tuple[str, ...]:
    names = top.texts('observation')
    known = (*objects, *OBSERVATIONS)
    for name in names:
        if name not in known:
            raise top.error('observation', f"names '{name}'; known: {', '.join(known)}")
    return names


def _action(section: Section) -> ActionSpace:
    action = ActionSpace(
        type=section.choice('type', ACTION_TYPES),
        arm=section.text('arm'),
        low=section.vector('low', 2, unit='m'),
        high=section.vector('high', 2, unit='m'),
        height=section.number('height', low=0, high=2, unit='m'),
        max_step=section.number('max_step', low=1e-4, high=0.1, unit='m a policy step'))
    section.finish()
    if not all(low < high for low, high in zip(action.low, action.high)):
        raise section.error('low', f'is {list(action.low)}, not below high {list(action.high)}')
    return action


def _campaign(section: Section) -> CampaignTerms:
    campaign = CampaignTerms(
        success_window=section.integer('success_window', low=1, high=10000),
        search_trials=section.integer('search_trials', low=1, high=1000),
        goal=section.number('goal', low=0, high=1))
    section.finish()
    return campaign
