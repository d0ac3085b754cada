"""A simulated station in this process, for many episodes of a policy in little time. No ROS, no images.

Physics, guard, servo and trajectory controller are the station's own. Perception is replaced by its error model: the
true pose of one camera latency ago with the noise that `enpire bench perception` measures, or the last one that was
seen while the arm stands between object and camera.
"""

from __future__ import annotations

import importlib.util
import math
from collections import deque
from typing import Callable

import numpy as np
import yaml

from enpire_agent.in_process_episode import Episode, EpisodePolicy
from enpire_agent.start_places import CLEARANCE, StartPlaces
from enpire_agent.trial import Check
from enpire_bringup.arm_task import ArmTask
from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.guard import guard_limits
from enpire_bringup.guarded_arms import GuardedArms, ServoTarget
from enpire_bringup.kinematics import ArmKinematics
from enpire_bringup.station import Station
from enpire_bringup.trajectory_controller import StationMotion
from enpire_bringup.world import World

POSITION_NOISE = 1.2e-4          # m on each axis, standard deviation
YAW_NOISE = math.radians(0.02)   # rad
LEAST_OUTLINE, LEAST_FACE = 0.45, 0.35    # shares that must be seen for a pose to be trusted
_WAY_TIME = 0.5                  # s for each part of that way
_LEAD_IN = 4                     # policy steps that the tip is streamed to before the policy starts
_SETTLED_LOOK = 0.6              # s from the last step until the final verdict


class InProcessStation:
    """World, controller and guard of one station, one tick after the other.

    Raises ConfigurationError where the task's reward needs images, which are not drawn here.
    """

    def __init__(self, station: Station, task: ArmTask):
        self._station, self._task = station, task
        self._arm = station.arms[task.action.arm]
        self._slice = station.arm_slice(self._arm.name)
        self._kinematics = ArmKinematics(station, self._arm.name)
        self._world = World(station, task)
        self._reward_class = _reward_class(task)
        self._task_content = yaml.safe_load(task.file.read_text(encoding='utf-8'))
        self._places = StartPlaces(station, task, self._kinematics)
        self._points = {name: points_of(np.array(item.outline)) for name, item in task.objects.items()}
        self._in_the_way = True
        self._fault = ''
        self._guard = self._make_guard()
        self._fingers = {arm.gripper.joint for arm in station.arms.values()}

    def run(self, policy: EpisodePolicy, seed: int,
            record_step: Callable[[dict, int], None] = lambda content, stamp: None) -> Episode:
        """One episode from the start pose of `seed`; the same seed and policy give the same episode.

        record_step(content, stamp in ns): hears every policy step as the recorder of a station does (trial.py).
        """
        world, task = self._world, self._task
        world.reset(seed)
        self._noise = np.random.default_rng([seed & 0xFFFFFFFFFFFFFFFF, 1])
        self._motion = StationMotion(self._station)
        self._sent: list[tuple] = []
        self._guarded = False       # the way to the start is no part of what is tried
        reward = self._reward_class(self._task_content)
        target = self._go_to_start()
        self._guarded = self._in_the_way = True
        if self._fault:
            self._guard = self._make_guard()
            self._fault = ''
        for _ in range(_LEAD_IN):
            self._policy_step(target)
        self._trusted = {name: np.full(3, np.nan) for name in task.objects}
        views = deque([self._look()] * (task.policy.camera_latency + 1), maxlen=task.policy.camera_latency + 1)
        outcome, reason = '', ''
        steps, began, done_since = 0, world.time, None
        while not outcome:
            now = world.time - began
            views.append(self._look())
            verdict = reward.judge(self._judged(views[0], world.time))
            observation = self._observation(views[0], now)
            if verdict['outcome'] != 'success':
                done_since = None
            elif done_since is None:
                done_since = now
            if self._fault:
                outcome, reason = 'SAFETY_STOP', self._fault
            elif done_since is not None and now - done_since >= task.policy.success_hold - 1e-6:
                outcome = 'SUCCESS'
            elif now >= task.policy.episode_timeout - 1e-6:
                outcome, reason = 'TIMEOUT', verdict['reason']
            else:
                if not steps:
                    policy.reset(observation)
                action = policy.act(observation)
                target = task.action.target(action, target, target)
                record_step({'step': steps, 'time': round(now, 6), 'observation': observation, 'action': action,
                             'target': target}, world.stamp_ns)
                steps += 1
                self._policy_step(target)
        if outcome in ('SUCCESS', 'TIMEOUT'):
            self._in_the_way = False        # the arm retreats before somebody looks
            for _ in range(round(_SETTLED_LOOK * task.policy.rate)):
                self._policy_step(target)
                verdict = reward.judge(self._judged(self._look(), world.time))
            if verdict['outcome'] == 'success':
                outcome, reason = 'SUCCESS', verdict['reason']
            elif outcome == 'SUCCESS':
                outcome, reason = 'FAILURE', verdict['reason']
        return self._episode(seed, outcome, reason, now)

    def _episode(self, seed: int, outcome: str, reason: str, duration: float) -> Episode:
        goal = self._task.goal
        x, y, yaw = self._world.object_pose(goal.object)[:3]
        turn = (yaw - goal.yaw + math.pi) % (2 * math.pi) - math.pi
        tolerance, distance = self._task.tolerance, math.hypot(x - goal.x, y - goal.y)
        return Episode(seed, outcome, reason, round(duration, 3), (
            Check('position', distance <= tolerance.position, distance, tolerance.position, 'm'),
            Check('yaw', abs(turn) <= tolerance.yaw, abs(turn), tolerance.yaw, 'rad')))

    def _make_guard(self) -> GuardedArms:
        return GuardedArms(self._station, guard_limits(self._station, self._task), changed=self._hear, lockstep=True,
                           send=lambda name, command, stamp: self._sent.append((name, command, stamp)))

    def _go_to_start(self) -> np.ndarray:
        place = self._places.farthest_from(self._world.object_pose(self._task.goal.object)[:2])
        self._tick()
        for rise in (CLEARANCE, 0.0):
            joints = self._places.joints(*place, self._task.action.height + rise)
            points = [(_WAY_TIME, joints.tolist(), [0.0] * len(self._arm.joints))]
            self._motion.arms[self._arm.name].follow(self._motion.now, 0, points)
            for _ in range(round((_WAY_TIME + 0.1) / self._world.period)):
                self._tick()
        while not self._world.is_policy_tick(self._task.policy.rate):
            self._tick()
        return self._tip()

    def _policy_step(self, target: np.ndarray) -> None:
        """Answer this policy step with a target (2,) for the tip and go on to the next one."""
        self._tick(ServoTarget(self._places.tool(*target, self._task.action.height), 'world', self._world.stamp_ns))
        while not self._world.is_policy_tick(self._task.policy.rate):
            self._tick()

    def _tick(self, target: ServoTarget | None = None) -> None:
        world, motion = self._world, self._motion
        _, positions, velocities, efforts = world.joint_state()
        stamp = world.stamp_ns
        p, v, e = positions.tolist(), velocities.tolist(), efforts.tolist()
        motion.observe(stamp, p, v, e)
        if self._guarded:
            self._guard.observe(stamp, p, v, e)
        if target is not None:
            self._guard.servo(self._arm.name, target)
        for name, command, answered in self._sent:
            motion.arms[name].follow(motion.now, answered, command.points)
        self._sent.clear()
        targets, speeds, forces = motion.command(p, v)
        joints = self._station.joints
        world.step(dict(zip(joints, targets)), {j: f for j, f in zip(joints, forces) if j in self._fingers},
                   dict(zip(joints, speeds)))

    def _hear(self, status) -> None:
        if status.state == 'latched':
            self._fault = status.message

    def _tip(self) -> np.ndarray:
        return self._kinematics.tip(self._world.joint_state()[1][self._slice])[:2]

    def _look(self) -> dict[str, tuple[np.ndarray, bool]]:
        """(pose (3,), whether it is seen) of all objects as perception would give them now."""
        spread, views = (POSITION_NOISE, POSITION_NOISE, YAW_NOISE), {}
        for name in self._task.objects:
            pose = np.array(self._world.object_pose(name)[:3])
            noisy = pose + self._noise.normal(0.0, spread)
            seen = not self._in_the_way or self._is_seen(name, pose)
            if seen:
                self._trusted[name] = noisy
            views[name] = self._trusted[name], seen
        return views

    def _is_seen(self, name: str, pose: np.ndarray) -> bool:
        item, c, s = self._task.objects[name], math.cos(pose[2]), math.sin(pose[2])
        edge, face = self._points[name]
        places = np.vstack([edge, face]) @ np.array([[c, s], [-s, c]]) + pose[:2]
        points = np.column_stack([places, np.full(len(places), item.face_height)])
        seen = self._world.sees(item.camera, item.body, points)
        return bool(seen[:len(edge)].mean() >= LEAST_OUTLINE and seen[len(edge):].mean() >= LEAST_FACE)

    def _observation(self, view: dict, now: float) -> dict:
        values = {**{name: {'pose': pose, 'visible': seen} for name, (pose, seen) in view.items()},
                  'tip': self._tip(), 'joint_positions': self._world.joint_state()[1]}
        return {'time': now, **{name: values[name] for name in self._task.observation}}

    def _judged(self, view: dict, now: float) -> dict:
        objects = {name: {'pose': pose, 'visible': seen, 'occluded': not seen, 'visible_fraction': float(seen),
                          'residual': 0.0} for name, (pose, seen) in view.items()}
        names, positions, _, efforts = self._world.joint_state()
        return {'time': now, **objects, 'joint_positions': dict(zip(names, positions)),
                'joint_efforts': dict(zip(names, efforts))}


def points_of(outline: np.ndarray, spacing: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, 2) along a polygon and (k, 2) within it, about `spacing` m apart."""
    edge = []
    for start, end in zip(outline, np.roll(outline, -1, axis=0)):
        count = max(1, round(float(np.hypot(*(end - start))) / spacing))
        edge += [start + (end - start) * share for share in np.arange(count) / count]
    low, high = outline.min(axis=0), outline.max(axis=0)
    grid = np.array([[x, y] for x in np.arange(low[0] + spacing / 2, high[0], spacing)
                     for y in np.arange(low[1] + spacing / 2, high[1], spacing)])
    a, b = outline, np.roll(outline, -1, axis=0)
    over = (a[:, 1] > grid[:, None, 1]) != (b[:, 1] > grid[:, None, 1])
    rise = np.where(a[:, 1] == b[:, 1], 1.0, b[:, 1] - a[:, 1])
    crossing = a[:, 0] + (grid[:, None, 1] - a[:, 1]) / rise * (b[:, 0] - a[:, 0])
    inside = np.sum(over & (grid[:, None, 0] < crossing), axis=1) % 2 == 1
    return np.array(edge), grid[inside]


def _reward_class(task: ArmTask):
    spec = importlib.util.spec_from_file_location(f'reward_of_{task.name}', task.reward)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if getattr(module.Reward, 'USES_IMAGE', False) or getattr(module.Reward, 'USES_DEPTH', False):
        raise ConfigurationError(f'{task.reward}: this reward looks at images, which are not drawn in-process; run '
                                 'trials on a station')
    return module.Reward
