"""Looks whether a simulated station fits a task, before anything is started: `enpire check`. No ROS.

Everything that is read is read as the nodes do it, so what is wrong in a file is named. Then: does the arm hold itself
up, is it at home within its limits, where can it work upright, does the camera see where the object begins.
"""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from enpire_bringup.arm_task import ArmTask, load_arm_task
from enpire_bringup.camera_model import PinholeCamera
from enpire_bringup.collision_model import CollisionModel
from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.kinematics import ArmKinematics, UnreachableError, tool_down
from enpire_bringup.station import Arm, Station, load_station
from enpire_bringup.world import Renderer, World, WorldError

HOLD = 1.0               # s that the arms have to hold themselves up
SAG = 0.02               # rad that a joint may sag in it
GRID = 7                 # places looked at along each side of the action space
MOST_UNREACHABLE = 0.15  # share of them that the arm may leave out


@dataclass(frozen=True)
class StationFinding:
    """One thing that was looked at: what is said about it, and what to change where it is not good."""

    what: str
    good: bool
    says: str
    change: str = ''

    def __str__(self) -> str:
        advice = f'\n{"":9}-> {self.change}' if not self.good else ''
        return f'{"ok" if self.good else "problem":8} {self.what:22} {self.says}{advice}'


def check_station(station: Station, task: ArmTask) -> list[StationFinding]:
    """What was found. Raises ConfigurationError for files that do not fit together."""
    world = World(station, task)
    findings = [_holds_up(arm, world) for arm in station.arms.values()]
    findings += [_home(station, arm, CollisionModel(station, task)) for arm in station.arms.values()]
    findings.append(_reach(station, task))
    findings.append(_view(station, task))
    return findings


def _holds_up(arm: Arm, world: World) -> StationFinding:
    world.reset(0)
    for _ in range(round(HOLD / world.period)):
        world.step({})
    names, positions, _, _ = world.joint_state()
    sag = {joint: abs(positions[names.index(joint)] - home) for joint, home in zip(arm.joints, arm.named['home'])}
    worst = max(sag, key=sag.get)
    return StationFinding(f'{arm.name}: simulation', sag[worst] <= SAG,
                          f'{worst} is {sag[worst]:.4f} rad from home after {HOLD:g} s; {SAG} rad are allowed',
                          'see masses and effort limits in the robot description, and whether links overlap at home')


def _home(station: Station, arm: Arm, collisions: CollisionModel) -> StationFinding:
    kinematics = ArmKinematics(station, arm.name)
    home, limits = np.array(arm.named['home']), station.safety
    tip = kinematics.tip(home)
    outside = [f'{axis} = {value:.3f} m' for axis, value, low, high in
               zip('xyz', tip, limits.workspace_low, limits.workspace_high) if not low <= value <= high]
    at_limit = [joint for joint, q, low, high in zip(arm.joints, home, kinematics.lower, kinematics.upper)
                if not low + limits.joint_margin <= q <= high - limits.joint_margin]
    nearest = collisions.distance([value for other in station.arms.values()
                                   for value in (*other.named['home'], other.gripper.closed)])
    problems = ([f'the tool is out of the workspace: {", ".join(outside)}'] if outside else []) + (
        [f'at the end of their range: {", ".join(at_limit)}'] if at_limit else []) + (
        [str(nearest)] if nearest.distance <= 0.0 else [])
    return StationFinding(f'{arm.name}: home', not problems, '; '.join(problems) or
                          f'tool at ({tip[0]:.3f}, {tip[1]:.3f}, {tip[2]:.3f}) m, '
                          f'{nearest.distance * 1000:.0f} mm free',
                          f'change arms.{arm.name}.named.home, or safety.workspace')


def _reach(station: Station, task: ArmTask) -> StationFinding:
    space = task.action
    arm = station.arms.get(space.arm)
    if arm is None:
        raise ConfigurationError(f"{task.file}: action.arm is '{space.arm}', but {station.file} has only: "
                                 f'{", ".join(station.arms)}')
    kinematics, collisions = ArmKinematics(station, arm.name), CollisionModel(station, task)
    others = {other.name: (*other.named['home'], other.gripper.closed) for other in station.arms.values()}
    places = list(itertools.product(*(np.linspace(low, high, GRID) for low, high in zip(space.low, space.high))))
    lost = []
    for x, y in places:
        yaw = np.arctan2(y - arm.base_xyz[1], x - arm.base_xyz[0])
        try:
            q = kinematics.ik(tool_down(x, y, space.height, yaw), arm.named['home'], margin=station.safety.joint_margin)
        except UnreachableError:
            lost.append((x, y))
            continue
        joints = {**others, arm.name: (*q, arm.gripper.closed)}
        nearest = collisions.distance([value for name in station.arms for value in joints[name]])
        if nearest.distance <= 0.0:
            lost.append((x, y))
    where = ', '.join(f'({x:.2f}, {y:.2f})' for x, y in lost[:4]) + (' ...' if len(lost) > 4 else '')
    return StationFinding(f'{arm.name}: reach', len(lost) <= MOST_UNREACHABLE * len(places),
                          f'the tool reaches {len(places) - len(lost)} of {len(places)} places of the action space, '
                          'pointing down' + (f'; not {where} m' if lost else ''),
                          f'move arms.{arm.name}.base, or give the task another action space')


def _view(station: Station, task: ArmTask) -> StationFinding:
    item, start = task.objects[task.start.object], task.start
    camera = station.cameras.get(item.camera)
    if camera is None:
        raise ConfigurationError(f"{task.file}: objects.{item.name}.camera is '{item.camera}', but {station.file} "
                                 f'has only: {", ".join(station.cameras) or "none"}')
    if camera.parent != 'world':
        return StationFinding(f'{camera.name}: view', True, f'moves with {camera.parent}: not looked at')
    corners = np.array([(x, y, item.face_height) for x, y in itertools.product(start.x, start.y)])
    pixels = PinholeCamera.from_station(camera).project(corners)
    inside = [bool(0 <= u < camera.width and 0 <= v < camera.height) for u, v in pixels]      # NaN behind the camera
    return StationFinding(f'{camera.name}: view', all(inside),
                          f'{sum(inside)} of 4 corners of the region where {item.name} begins are in the image',
                          f'change position, look_at or vertical_fov of cameras.{camera.name}')


def save_pictures(station: Station, task: ArmTask, folder: Path) -> list[Path]:
    """What each camera sees with the arms at home and the objects at the start pose of seed 0, as PNG files."""
    import cv2

    world, renderer = World(station, task), Renderer(station, task)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name in station.cameras:
        files.append(folder / f'{name}.png')
        cv2.imwrite(str(files[-1]), renderer.render(name, world.state())[:, :, ::-1])
    renderer.close()
    return files


def run(station_name: str, task_name: str, pictures: str = '') -> int:
    """Print the findings; the exit status: 0 when all is good, 1 with a problem, 2 when a file does not read.

    pictures: folder for what every camera sees; '' for none.
    """
    try:
        station, task = load_station(station_name), load_arm_task(task_name)
        findings = check_station(station, task)
        for finding in findings:
            print(finding)
        for file in save_pictures(station, task, Path(pictures)) if pictures else ():
            print(f'picture  {file}')
    except (ConfigurationError, WorldError) as error:
        print(f'problem  {error}', file=sys.stderr)
        return 2
    return 0 if all(finding.good for finding in findings) else 1
