"""A running station for a program or a notebook: no ROS needed to use it.

    from enpire_agent import Station

    with Station('station_1') as station:
        station.home()
        station.reset(seed=7)
        trial = station.trial(seed=7)
        print(trial.outcome, trial.reason)
"""

from __future__ import annotations

import math
import time
from typing import Callable, Sequence

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from enpire_msgs.action import MoveArm, MoveGripper, RunCampaign, UseSkill
from enpire_msgs.msg import ObjectPose, Verdict
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import Image, JointState

from enpire_agent.local_stations import choose_station
from enpire_agent.station_client import StationClient
from enpire_agent.station_results import (Campaign, Grip, Guard, Joints, Move, ObjectView, ResetResult, SkillResult,
                                          StationCallError, Status, Trial, VerdictView, read_grip, read_guard,
                                          read_joints, read_move, read_object, read_reset, read_trial, read_verdict,
                                          same_fields)
from enpire_bringup.actions import RemoteCallError
from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.image_messages import ImageMessageError, read_image
from enpire_bringup.kinematics import pose_matrix, quaternion_of
from enpire_bringup.robot_description import LinkTransforms, robot_description
from enpire_bringup.station import load_station
from enpire_bringup.station_node import IMAGE_QOS, LATCHED_QOS, STATE_QOS
from enpire_bringup.task import load_task

LISTENS = 5.0      # s of wall time within which a message is expected
RETRY = 0.2        # s of wall time between two requests of the same


class Station:
    """Verbs of one running station; blocking, and bounded by `timeout` in s of wall time.

    name: its namespace; empty for the only one that `enpire up` runs from this folder. domain: ROS domain; None takes
    that of the running station, else $ROS_DOMAIN_ID.

    Every verb returns its result or raises StationCallError, in one line that says what to do. A move, a grip or a
    skill that did not succeed raises, too, with its result in the error's `result`; how resets, trials and campaigns
    ended is their result, good or bad. `client` is the same station in ROS messages.
    """

    def __init__(self, name: str = '', *, domain: int | None = None):
        with _clear_words():
            namespace, found = choose_station(name or None) if domain is None else (name or 'station_1', domain)
            self.client = StationClient(namespace, found)
        self._files = None

    def __enter__(self) -> 'Station':
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        self.client.close()

    @property
    def name(self) -> str:
        return self.client.namespace.strip('/')

    @property
    def domain(self) -> int:
        return self.client.domain_id

    def need_arms(self) -> None:
        """Raises StationCallError where the station has none: its world is a Gymnasium environment."""
        if not self.config.arms:
            raise StationCallError(f'{self.client.namespace} has no arms, its world is {self.task.gym.id}; look at the '
                                   "topic view_camera/color/image_raw, or at its trials' videos")

    @property
    def config(self):
        """The station file's content (enpire_bringup.station.Station): arms, cameras, limits."""
        return self._configuration()[0]

    @property
    def task(self):
        """The task's content (enpire_bringup.task.Task): objects, goal, tolerances."""
        return self._configuration()[1]

    # --- looking ---

    def status(self, timeout: float = LISTENS) -> Status:
        """The next of the station's own reports, which come once a second."""
        message = self.client.status(timeout, newer=True)
        if message is None:
            raise StationCallError(f"{self.client.namespace}: no station_status within {timeout:g} s in ROS domain "
                                   f"{self.client.domain_id}; is the station up? 'enpire status' shows what runs")
        return same_fields(Status, message)

    def guard(self, timeout: float = LISTENS) -> Guard:
        return read_guard(self._listen(DiagnosticStatus, 'guard_status', LATCHED_QOS, timeout))

    def joints(self, timeout: float = LISTENS) -> Joints:
        return read_joints(self._listen(JointState, 'joint_states', STATE_QOS, timeout))

    def tip(self, arm: str, timeout: float = LISTENS) -> np.ndarray:
        """Pose (4, 4) of an arm's tool center point in "world"."""
        frame = self._arm(arm).tcp_frame
        joints = self.joints(timeout)
        return self._links.pose(frame, dict(zip(joints.names, joints.position)))

    def verdict(self, timeout: float = LISTENS) -> VerdictView:
        """The next verdict."""
        return read_verdict(self._listen(Verdict, 'verdict', STATE_QOS, timeout))

    def object_pose(self, name: str, timeout: float = LISTENS) -> ObjectView:
        """What perception says next of an object of the task."""
        if name not in self.task.objects:
            raise StationCallError(f"no object '{name}' in the task {self.task.name}; there are: "
                                   f"{', '.join(self.task.objects)}")
        return read_object(self._listen(ObjectPose, 'object_poses', STATE_QOS, timeout,
                                        lambda message: message.object_id == name))

    def image(self, camera: str, *, overlay: bool = False, timeout: float = LISTENS) -> np.ndarray:
        """The next color image (height, width, 3) uint8 RGB of a camera; overlay: with what perception saw in it."""
        if camera not in self.config.cameras:
            raise StationCallError(f"no camera '{camera}'; there are: {', '.join(self.config.cameras)}")
        topic = f'{camera}_camera/overlay' if overlay else self.config.cameras[camera].image_topic
        with _clear_words():
            return read_image(self._listen(Image, topic, IMAGE_QOS, timeout), 'rgb8').copy()

    # --- moving ---

    def home(self, arm: str = '', *, timeout: float = 120.0) -> dict[str, Move]:
        """Move one arm, or each in turn, to its "home"; the moves by arm."""
        self.need_arms()
        return {each: self.move(each, named='home', timeout=timeout) for each in ([arm] if arm else self.config.arms)}

    def move(self, arm: str, *, named: str = '', joints: Sequence[float] | None = None, pose=None,
             straight: bool = False, speed: float = 1.0, stop_force: float = 0.0, timeout: float = 120.0) -> Move:
        """Move an arm to a named target of the station file, to `joints` (n,) rad, or its tool center point to `pose`.

        pose: (4, 4), or (7,) x, y, z in m and a quaternion x, y, z, w, in "world". straight: on a straight line.
        speed: share of the station's limits, 0 < s <= 1. stop_force: N, > 0 ends the move at contact.
        """
        targets = [named != '', joints is not None, pose is not None]
        if sum(targets) != 1:
            raise StationCallError(f'move of {arm}: give exactly one of named, joints and pose')
        if not 0 < speed <= 1:
            raise StationCallError(f'move of {arm}: speed is {speed}; expected a share of the limits, 0 < s <= 1')
        goal = MoveArm.Goal(arm=arm, named=named, speed_scale=float(speed), stop_force=float(stop_force))
        if joints is not None:
            goal.mode, goal.joints = MoveArm.Goal.JOINT, [float(value) for value in joints]
        elif pose is not None:
            goal.mode, goal.pose = MoveArm.Goal.LINEAR if straight else MoveArm.Goal.POSE, stamped_pose(pose)
        else:
            goal.mode = MoveArm.Goal.NAMED
        with _clear_words():
            result = read_move(self.client.move_arm(goal, timeout=timeout))
        return _succeeded(result, f'move of {arm}')

    def grip(self, arm: str, width: float = 0.0, *, force: float = 0.0, timeout: float = 30.0) -> Grip:
        """Close or open a gripper to `width` (m between the fingers) with at most `force` (N; 0: the station's)."""
        with _clear_words():
            result = read_grip(self.client.move_gripper(
                MoveGripper.Goal(arm=arm, width=float(width), max_force=float(force)), timeout=timeout))
        return _succeeded(result, f'gripper of {arm}')

    def skill(self, name: str, *, arm: str = '', object: str = '', pose=None, height: float = 0.0, width: float = 0.0,
              force: float = 0.0, to_arm: str = '', timeout: float = 300.0) -> SkillResult:
        """Use one skill alone, e.g. "locate" or "grasp"; docs/skills.md says which fields each reads."""
        goal = UseSkill.Goal(arm=arm, object=object, height=float(height), width=float(width), max_force=float(force),
                             to_arm=to_arm)
        if pose is not None:
            goal.pose = stamped_pose(pose)
        with _clear_words():
            message = self.client.use_skill(name, goal, timeout=timeout)
        position, q = message.pose.pose.position, message.pose.pose.orientation
        try:
            matrix = pose_matrix((position.x, position.y, position.z), (q.x, q.y, q.z, q.w))
        except ValueError:
            matrix = np.full((4, 4), math.nan)      # the skill found none
        return _succeeded(same_fields(SkillResult, message, pose=matrix), f'skill {name}')

    # --- the job ---

    def reset(self, seed: int = 0, *, timeout: float = 600.0,
              progress: Callable[[str], None] | None = None) -> ResetResult:
        """Bring the task's objects to the start state of `seed`; progress gets the name of each stage."""
        with _clear_words():
            return read_reset(self.client.reset(seed, timeout=timeout, feedback=_stages(progress)))

    def trial(self, recipe: str = '', seed: int = 0, *, campaign: str = '', timeout: float = 1200.0,
              progress: Callable[[str], None] | None = None) -> Trial:
        """Reset, run a recipe's policy (a folder; empty: the task's own), judge, record."""
        with _clear_words():
            return read_trial(self.client.run_trial(recipe, seed, campaign=campaign, timeout=timeout,
                                                     feedback=_stages(progress)))

    def campaign(self, name: str, *, minutes: float, recipe: str = '', researcher: str = '', trials: int = 0,
                 iterations: int = 0, tokens: int = 0, gate_trials: int = 0, search_trials: int = 0,
                 goal: float = 0.0) -> Campaign:
        """Improve a recipe until the goal or a budget is reached; resumes the campaign of that name.

        minutes: of wall time for the search; what follows it gets as much again and an hour. Zeros: the task's.
        """
        request = RunCampaign.Goal(campaign=name, recipe=recipe, researcher=researcher, max_iterations=iterations,
                                   max_trials=trials, max_duration=60.0 * minutes, max_tokens=tokens,
                                   search_trials=search_trials, gate_trials=gate_trials, goal=float(goal))
        with _clear_words():
            return same_fields(Campaign, self.client.run_campaign(request, timeout=120.0 * minutes + 3600.0))

    # --- in charge ---

    def hold(self, reason: str = 'asked for') -> str:
        """Stop after the current trial and hold until `resume()`; the station's answer."""
        return self._answer(lambda: self.client.hold(reason))

    def resume(self) -> str:
        return self._answer(self.client.resume)

    def clear_guard(self, timeout: float = LISTENS) -> str:
        """Let the arms move again after a violation that the guard latched; what was cleared.

        The guard clears only what stands still: it is asked again for `timeout` s of wall time.
        """
        end = time.monotonic() + timeout
        while True:
            try:
                return self._answer(self.client.clear_guard)
            except StationCallError:
                if time.monotonic() > end:
                    raise
                time.sleep(RETRY)

    def adopt(self, commit: str = '', how: str = '') -> str:
        """Take over a recipe announced by a peer (empty: the best one); the station's answer.

        how: "merge" puts what the peer changed on top of ours, "cherry_pick" only what this commit changed.
        """
        return self._answer(lambda: self.client.adopt(commit, how=how))

    # --- inside ---

    def _configuration(self):
        if self._files is None:
            with _clear_words():
                station, task = self.client.files()
                self._files = load_station(station), load_task(task)
        return self._files

    @property
    def _links(self) -> LinkTransforms:
        with _clear_words():
            return LinkTransforms(robot_description(self.config))

    def _arm(self, name: str):
        if name not in self.config.arms:
            raise StationCallError(f"no arm '{name}'; there are: {', '.join(self.config.arms)}")
        return self.config.arms[name]

    def _listen(self, message_type, topic: str, qos, timeout: float, accept=None):
        with _clear_words():
            return self.client.listen(message_type, topic, qos, timeout=timeout, accept=accept)

    @staticmethod
    def _answer(call) -> str:
        with _clear_words():
            response = call()
        if not getattr(response, 'accepted', getattr(response, 'success', True)):
            raise StationCallError(response.message)
        return response.message


class _clear_words:
    """Turns what can go wrong underneath into StationCallError."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, error, _) -> None:
        if isinstance(error, (RemoteCallError, ConfigurationError, ImageMessageError)):
            raise StationCallError(str(error)) from error


def stamped_pose(pose) -> PoseStamped:
    """A geometry_msgs/PoseStamped in "world" of (4, 4), or of (7,) x, y, z in m and a quaternion x, y, z, w.

    Raises StationCallError when it is neither.
    """
    values = np.asarray(pose, float)
    if values.shape == (4, 4):
        if not np.isfinite(values).all():
            raise StationCallError('the pose has numbers that are not finite; expected (4, 4), or (7,) with finite ones')
        values = np.array([*values[:3, 3], *quaternion_of(values)])
    if values.shape != (7,) or not np.isfinite(values).all():
        raise StationCallError(f'a pose of shape {np.shape(pose)} is none; expected (4, 4), or (7,) x, y, z in m and a '
                               'quaternion x, y, z, w, all finite')
    message = PoseStamped()
    message.header.frame_id = 'world'
    position, orientation = message.pose.position, message.pose.orientation
    position.x, position.y, position.z = values[:3].tolist()
    orientation.x, orientation.y, orientation.z, orientation.w = values[3:].tolist()
    return message


def _succeeded(result, what: str):
    if not result.success:
        raise StationCallError(f'{what}: {result.message or "it failed and said no reason"}', result)
    return result


def _stages(progress: Callable[[str], None] | None):
    """A feedback callback that tells each new stage once."""
    if progress is None:
        return None
    last = ['']

    def on_feedback(feedback) -> None:
        if feedback.stage != last[0]:
            last[0] = feedback.stage
            progress(feedback.stage)
    return on_feedback
