"""A verdict for every frame of the task's camera. Logic in judge.py and observation.py."""

from __future__ import annotations

import math
import queue
import threading
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image

from enpire_bringup.camera_model import PinholeCamera
from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.image_messages import ImageMessageError, read_image
from enpire_bringup.joint_state_history import JointStateMailbox
from enpire_bringup.node_group import run_single
from enpire_bringup.object_pose_messages import read_object_pose
from enpire_bringup.paths import runs_directory
from enpire_bringup.publisher_identity import PublisherIdentity
from enpire_bringup.serialized_messages import JointStateReader
from enpire_bringup.silence_watch import SilenceWatch, WorldWatch
from enpire_bringup.station_node import HISTORY_QOS, IMAGE_QOS, STATE_QOS, EnvironmentHash, StationNode
from enpire_msgs.msg import Check, ObjectPose, Verdict
from enpire_reward.judge import Judgement, RewardJudge, abstention
from enpire_reward.observation import FrameAssembler, ObjectView

OUTCOMES = {'abstain': Verdict.ABSTAIN, 'not_yet': Verdict.NOT_YET, 'success': Verdict.SUCCESS}
LOOK_PERIOD = 0.25      # s of wall time between looks for silence
WAITING_FRAMES = 4      # that may wait for the reward program


class SuccessDetector(StationNode):
    """Runs the task's reward program on every frame.

    The executor's thread collects messages; one further thread asks the program, so that nothing that the
    program does can keep messages waiting.
    """

    def __init__(self, **kwargs):
        super().__init__('success_detector', **kwargs)
        self._environment = EnvironmentHash(self)
        # In simulation a joint state comes with every tick of the clock: their stamps are this node's time, and 100
        # clock messages a second need not wake it.
        self._simulated = self.get_parameter('use_sim_time').value
        self.set_parameters([Parameter('use_sim_time', value=False)])
        self._camera = self._task_camera()
        self._last_stamp = 0
        self._failing = ''
        self._camera_problem = ''       # what camera_perception says of the task's camera
        self._joint_states = JointStateMailbox(self)
        self._joint_reader = JointStateReader()
        self._pose_stamps: dict[str, int] = {}
        names = {True: [], False: []}
        for item in self.task.objects.values():
            names[item.camera == self._camera.name].append(item.name)
        self._frames = FrameAssembler(tuple(names[True]), tuple(names[False]))
        self._verdicts = self.create_publisher(Verdict, 'verdict', STATE_QOS)
        self._watch = SilenceWatch(repeat=1.0)
        self._world = WorldWatch(self.station.lockstep)
        self._image_subscriptions = {}
        model = PinholeCamera.from_station(self._camera)
        self._camera_model = {'k': np.array(model.info()['k']), 'pose': model.pose}
        log = runs_directory() / '.stations' / self.get_namespace().strip('/') / 'log' / 'reward_program.log'
        self._judge = RewardJudge(self.task.reward, self.task.file, log_file=log)
        self._queue: queue.Queue[tuple[int, dict[str, Any]] | None] = queue.Queue(WAITING_FRAMES)
        self._worker = threading.Thread(target=self._work, name='reward', daemon=True)
        self._worker.start()
        self._perception = PublisherIdentity(self, 'object_poses', 'camera_perception')
        self.create_subscription(ObjectPose, 'object_poses', self._on_pose, STATE_QOS, raw=True)
        self.create_subscription(DiagnosticStatus, 'camera_status', self._on_camera_status, HISTORY_QOS)
        self.create_timer(LOOK_PERIOD, self._look, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _task_camera(self):
        name = self.task.objects[self.task.goal.object].camera
        if name not in self.station.cameras:
            raise ConfigurationError(f"{self.task.file}: objects.{self.task.goal.object}.camera is '{name}'; "
                                     f"{self.station.file} has {', '.join(self.station.cameras)}")
        return self.station.cameras[name]

    # ---- messages ----

    def _on_camera_status(self, message: DiagnosticStatus) -> None:
        if message.name == self._camera.name:
            self._camera_problem = message.message if message.level == DiagnosticStatus.ERROR else ''

    def _on_pose(self, data: bytes, info: dict) -> None:
        if not self._perception.accepts(info):
            if self._perception.intruder:
                self.get_logger().error(f'{self._perception.intruder}; what it says is dropped',
                                        throttle_duration_sec=5.0)
            return
        found = read_object_pose(data)
        if found.stamp == self._pose_stamps.get(found.object_id):
            return      # of an image that was judged already: camera_perception has no newer one
        self._pose_stamps[found.object_id] = found.stamp
        silence = self._watch.heard()
        if silence:
            self.get_logger().info(f'object poses came back after {silence:.1f} s')
        self._frames.add_pose(found.stamp, found.object_id, ObjectView(
            found.pose, found.visible, found.residual, found.occluded, found.visible_fraction))
        self._try(found.stamp)

    def _on_image(self, kind: str, message: Image) -> None:
        try:
            image = read_image(message, 'rgb8') if kind == 'image' else _meters(message)
        except ImageMessageError as error:
            self.get_logger().error(f'{self._topics[kind]}: {error}', throttle_duration_sec=1.0)
            return
        stamp = _nanoseconds(message.header.stamp)
        self._frames.add_image(stamp, kind, image)
        self._try(stamp)

    @property
    def _topics(self) -> dict[str, str]:
        return {'image': self._camera.image_topic, 'depth': self._camera.depth_topic}

    def _try(self, stamp: int) -> None:
        """Judge the frame of `stamp` when all of it has come."""
        kinds = self._judge.image_kinds
        observation = self._frames.take(stamp, kinds)
        if observation is None:
            return
        if kinds:
            observation['camera'] = self._camera_model
        for lost in self._frames.overtaken(stamp):
            self._publish(lost, abstention('a part of this frame was lost on its way'))
        if self._camera_problem and not observation[self.task.goal.object]['visible']:
            self._publish(stamp, abstention(f'camera {self._camera.name}: {self._camera_problem}', failed=False))
            return
        joints = self._joints(stamp)
        positions = joints['joint_positions']
        unusable = [name for name in self.station.joints if not math.isfinite(positions.get(name, math.nan))]
        if unusable:
            self._publish(stamp, abstention(f'no position of {", ".join(unusable)} in joint_states'))
            return
        observation.update(joints)
        try:
            self._queue.put_nowait((stamp, observation))
        except queue.Full:
            self._publish(stamp, abstention(
                f'{WAITING_FRAMES} frames already wait for {self.task.reward.name}'))

    def _joints(self, stamp: int) -> dict[str, dict[str, float]]:
        known = self._joint_states.at(stamp)
        if known is None:
            return {'joint_positions': {}, 'joint_efforts': {}}
        _, names, positions, _, efforts = self._joint_reader.read(known[1])
        return {'joint_positions': dict(zip(names, positions)), 'joint_efforts': dict(zip(names, efforts))}

    def _look(self) -> None:
        """Silence, and whether the program wants images."""
        for kind in self._judge.image_kinds:
            if kind not in self._image_subscriptions:
                self._image_subscriptions[kind] = self.create_subscription(
                    Image, self._topics[kind], partial(self._on_image, kind), IMAGE_QOS)
        # A world that waits for its policy takes no pictures.
        silence = self._watch.check(self._world.waits(self._joint_states.newest))
        if silence is not None:
            reason = (self._camera_problem
                      or f'it is silent: no object pose for {silence:.1f} s ({self._silence_reason()})')
            self._publish(self._last_stamp, abstention(f'camera {self._camera.name}: {reason}', failed=False))

    def _silence_reason(self) -> str:
        image = self.resolve_topic_name(self._camera.image_topic)
        if not self.count_publishers('object_poses'):
            return 'nobody publishes object_poses; is camera_perception running?'
        if not self.count_publishers(image):
            return f'nobody publishes {image}; is the camera running?'
        return f'{image} has a publisher that sends nothing, or nothing that camera_perception can use'

    # ---- verdicts ----

    def _work(self) -> None:
        while (frame := self._queue.get()) is not None:
            stamp, observation = frame
            self._publish(stamp, self._judge.judge(observation))

    def _publish(self, stamp: int, judgement: Judgement) -> None:
        if not self.context.ok():
            return
        self._report(judgement)
        self._last_stamp = max(stamp, self._last_stamp)
        message = Verdict(
            task=self.task.name, env_hash=self._environment.now(), outcome=OUTCOMES[judgement.outcome],
            reason=judgement.reason, compute=judgement.compute,
            checks=[Check(**asdict(check)) for check in judgement.checks])
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 1_000_000_000)
        message.header.frame_id = self._camera.optical_frame
        message.latency = 1e-9 * (self._now() - stamp)
        self._verdicts.publish(message)

    def _report(self, judgement: Judgement) -> None:
        """Say once that the reward program fails, and once that it works again."""
        if judgement.failed and self._judge.problem:
            if judgement.reason != self._failing:
                self.get_logger().error(f'{judgement.reason}; verdicts abstain until it works')
            self._failing = judgement.reason
        elif not judgement.failed and self._failing:
            self.get_logger().info(f'{self.task.reward.name} works')
            self._failing = ''

    def _now(self) -> int:
        """ROS time, ns."""
        if self._simulated:
            return self._joint_states.newest or 0
        return self.get_clock().now().nanoseconds

    def destroy_node(self):
        if hasattr(self, '_worker'):
            while True:
                try:
                    self._queue.put_nowait(None)
                    break
                except queue.Full:
                    try:
                        self._queue.get_nowait()
                    except queue.Empty:
                        pass
            self._worker.join(0.3)
            self._judge.close()
        super().destroy_node()


def _meters(message: Image) -> np.ndarray:
    """A depth image in m, float32; 0 where nothing was measured. Raises ImageMessageError."""
    depth = read_image(message)
    if message.encoding == '16UC1':
        return depth.astype(np.float32) * np.float32(0.001)
    if message.encoding == '32FC1':
        return np.nan_to_num(depth, nan=0.0, posinf=0.0, neginf=0.0)
    raise ImageMessageError(f'depth image is {message.encoding}; expected 16UC1 (mm) or 32FC1 (m)')


def _nanoseconds(stamp) -> int:
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def main() -> None:
    run_single(SuccessDetector)


if __name__ == '__main__':
    main()
