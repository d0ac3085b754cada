"""How fast a lockstep station runs while a policy streams to it: policy steps a second, with cameras and without.

The client here does what a trial does, but for the policy itself: one servo target for each policy step, after the
joint state of that step and, with cameras, the object poses of the frame that the task's camera_latency allows to wait
for and the verdict of the step before it.
"""

from __future__ import annotations

import math
import threading
import time
from typing import Callable

from enpire_bringup.serialized_messages import SECOND, stamp_of

MOTION_NODES = ('sim_station', 'trajectory_controller', 'arm_control')
CAMERA_NODES = (*MOTION_NODES, 'sim_cameras', 'camera_perception', 'success_detector')
LEAST_PACE = 4.0            # times real time with cameras that the suite promises
LEAST_STEPS_PER_S = 300.0   # without cameras
WARM_UP = 60                # policy steps before those that count
FIRST_STEP_BOUND = 20.0     # s of wall time until the first policy step is answered
STEP_BOUND = 10.0           # s of wall time for any other
REST_STEPS = 15             # policy steps for which the target stands still at the end
RADIUS = 0.02               # m of the circle that the tool is led along
CIRCLE_STEPS = 90           # policy steps of one turn


class BenchError(RuntimeError):
    """The bench got no figures; the message says what was missing."""


def run(steps: int = 600, *, station: str = 'yam_bimanual_sim', task: str = 'push_t',
        report: Callable[[str], None] = lambda line: None) -> dict:
    """Figures of `steps` policy steps with cameras, and as many without; JSON-able.

    With cameras a station that is up in lockstep is measured; without, always one of the bench's own, since on a
    station that has cameras somebody looks at them. Raises BenchError when the stream does not get through.
    """
    from enpire_bringup.bench_station import bench_station

    figures = {}
    for key, nodes in (('with_cameras', CAMERA_NODES), ('without', MOTION_NODES)):
        with bench_station('lockstep', station, task, only=nodes, real_time_factor=0.0,
                           use_running=nodes is CAMERA_NODES, report=report) as bench:
            report(f'streaming {steps} policy steps {key.replace("_", " ")} ...')
            figures[key] = measure(steps, bench, station, task, cameras=nodes is CAMERA_NODES)
    return figures


def measure(steps: int, bench, station: str, task: str, *, cameras: bool) -> dict:
    """Figures of one stream to the station `bench` (a BenchStation), which must run in lockstep."""
    import psutil

    from enpire_bringup.bench_station import station_node
    from enpire_bringup.station import load_station
    from enpire_bringup.task import load_task

    processes = {name: psutil.Process(pid) for name, pid in bench.pids.items()}
    with station_node('lockstep_bench', bench.namespace, bench.domain_id) as node:
        stream = ServoStream(node, load_station(station), load_task(task), cameras=cameras)
        stream.wait_for(WARM_UP)
        busy = {name: _cpu(process) for name, process in processes.items()}
        began, first_step, first_stamp = time.monotonic(), stream.steps, stream.stamp
        stream.wait_for(first_step + steps)
        wall, counted, seconds = time.monotonic() - began, stream.steps - first_step, stream.stamp - first_stamp
        busy = {name: _cpu(process) - busy[name] for name, process in processes.items()}
        stream.come_to_rest()
    return {
        'steps': counted,
        'cameras': [f'{c.name} {c.width}x{c.height}' for c in stream.cameras],
        'steps_per_s': round(counted / wall, 1),
        'realtime_factor': round(seconds / SECOND / wall, 2),
        'missed_steps': max(0, round(seconds / SECOND * load_station(station).policy_rate) - counted),
        'cpu_ms_per_step': {name: round(1e3 * seconds / counted, 2) for name, seconds in busy.items()},
    }


def _cpu(process) -> float:
    """s of CPU time that a process and its children have used."""
    times = [process.cpu_times()] + [child.cpu_times() for child in process.children(recursive=True)]
    return sum(t.user + t.system for t in times)


class ServoStream:
    """Answers every policy step with the next target on a circle, from the node's executor thread."""

    def __init__(self, node, station, task, *, cameras: bool):
        from enpire_msgs.msg import ObjectPose, Verdict
        from geometry_msgs.msg import PoseStamped
        from sensor_msgs.msg import JointState

        from enpire_bringup.kinematics import ArmKinematics, quaternion_of
        from enpire_bringup.station_node import LATEST_QOS, STATE_QOS

        self._kinematics = ArmKinematics(station, task.action.arm)
        self._quaternion_of = quaternion_of
        self._station, self._arm = station, station.arms[task.action.arm]
        self._latency = task.policy.camera_latency
        self._rate = task.policy.rate
        self._camera_rate = station.cameras[task.objects[task.goal.object].camera].rate
        self._tick = round(SECOND / station.control_rate)
        self._objects = set(task.objects) if cameras else set()
        self.cameras = [station.cameras[name] for name in sorted({task.objects[item].camera for item in self._objects})]
        self._views = dict.fromkeys((*self._objects, 'verdict') if cameras else (), -1)
        self._trails = {name: round(SECOND / self._rate) if name == 'verdict' else 0 for name in self._views}     # ns
        self._target = PoseStamped()
        self._target.header.frame_id = 'world'
        self._center = None
        self._pending: int | None = None      # stamp (ns) of the step that waits for its view
        self._last = -1
        self._resting_at: int | None = None   # the step whose target is kept
        self.steps = 0
        self.stamp = 0                        # ns, of the step answered last
        self._news = threading.Condition()
        self._servo = node.create_publisher(PoseStamped, f'{self._arm.name}/servo', LATEST_QOS)
        if cameras:
            node.create_subscription(ObjectPose, 'object_poses', self._on_pose, STATE_QOS, raw=True)
            node.create_subscription(Verdict, 'verdict', self._on_verdict, STATE_QOS, raw=True)
        node.create_subscription(JointState, 'joint_states', self._on_state, STATE_QOS, raw=True)

    def wait_for(self, steps: int) -> None:
        """Until `steps` were answered. Raises BenchError when one takes too long."""
        with self._news:
            while self.steps < steps:
                if not self._news.wait(STEP_BOUND if self.steps else FIRST_STEP_BOUND):
                    missing = ', '.join(name for name, step in self._views.items() if step < 0)
                    raise BenchError(f'the stream stands still after {self.steps} policy steps'
                                     + (f'; nothing came of: {missing}' if missing else ''))

    def come_to_rest(self) -> None:
        """Let the arm stand still, so that the guard has nothing against the end of the stream."""
        self._resting_at = self.steps
        self.wait_for(self.steps + REST_STEPS)

    def _on_state(self, data: bytes) -> None:
        stamp = stamp_of(data)
        step = _step(stamp, self._rate)
        if step <= self._last:
            return
        self._last = step
        if self._center is None and not self._begin(data):
            return
        self._pending = stamp
        self._answer()

    def _begin(self, data: bytes) -> bool:
        from rclpy.serialization import deserialize_message
        from sensor_msgs.msg import JointState

        state = deserialize_message(data, JointState)
        positions = dict(zip(state.name, state.position))
        pose = self._kinematics.fk([positions[joint] for joint in self._arm.joints])
        self._center = pose[:3, 3] - (RADIUS, 0.0, 0.0)
        orientation = self._target.pose.orientation
        orientation.x, orientation.y, orientation.z, orientation.w = self._quaternion_of(pose)
        return True

    def _on_pose(self, data: bytes) -> None:
        # Messages of every object in turn: the newest stamp stands for all once each has been seen.
        stamp = stamp_of(data)
        for name in self._objects:
            self._views[name] = _step(stamp, self._camera_rate)
        self._answer()

    def _on_verdict(self, data: bytes) -> None:
        self._views['verdict'] = _step(stamp_of(data), self._camera_rate)
        self._answer()

    def _answer(self) -> None:
        """Answer the step that waits, if all that it waits for is there."""
        if self._pending is None:
            return
        limit = self._pending - round(self._latency / self._rate * SECOND) + self._tick - 1
        if any(view < _step(limit - self._trails[name], self._camera_rate) for name, view in self._views.items()):
            return
        stamp, self._pending = self._pending, None
        angle = 2 * math.pi * (self.steps if self._resting_at is None else self._resting_at) / CIRCLE_STEPS
        target = self._target
        target.header.stamp.sec, target.header.stamp.nanosec = divmod(stamp, SECOND)
        position = target.pose.position
        position.x = float(self._center[0] + RADIUS * math.cos(angle))
        position.y = float(self._center[1] + RADIUS * math.sin(angle))
        position.z = float(self._center[2])
        self._servo.publish(target)
        with self._news:
            self.steps, self.stamp = self.steps + 1, stamp
            self._news.notify_all()


def _step(stamp: int, rate: float) -> int:
    """Number of the step of `rate` (Hz) that is under way at `stamp` (ns)."""
    return math.floor(stamp * rate / SECOND + 1e-6)
