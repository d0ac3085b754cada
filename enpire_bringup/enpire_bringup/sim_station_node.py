"""The simulated station: physics, joint states and the clock. Logic in world.py and world_loop.py."""

from __future__ import annotations

import numpy as np
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger

from enpire_bringup.clock_record import ClockRecord
from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.control_ticks import is_policy_tick
from enpire_bringup.controller_link import ControllerLink
from enpire_bringup.node_group import run_single
from enpire_bringup.paths import runs_directory
from enpire_bringup.serialized_messages import JointStateWriter, write_numbers
from enpire_bringup.station_node import STATE_QOS, StationNode
from enpire_bringup.world import World
from enpire_bringup.world_loop import Command, CommandError, WorldLoop, read_command


class SimStation(StationNode):
    """Wraps a `World`.

    Parameters, for the start and for the service sim/reset_world: `seed`, and `object_pose` (x, y in m, yaw in rad), the
    object's start pose where it is not to be the seed's (not set, or empty).
    """

    def __init__(self, **kwargs):
        super().__init__('sim_station', **kwargs)
        # This node gives the time; it need not listen to itself.
        self.set_parameters([Parameter('use_sim_time', value=False)])
        self.declare_adjustable('seed', 0, -2**63, 2**63 - 1)
        self.declare_adjustable('object_pose', Parameter.Type.DOUBLE_ARRAY, -10.0, 10.0, 'm, m, rad')
        world = World(self.station, self.task)
        self._record = ClockRecord(runs_directory() / '.stations' / self.get_namespace().strip('/') / 'clock.json')
        earlier = self._record.continues_at()
        world.start_at(round(earlier * 1e-9 * self.station.control_rate))
        world.reset(*self._start())
        if earlier:
            self.get_logger().warning(f'ROS time goes on at {world.time:.0f} s, after the world that ran here before; '
                                      'arms and objects are at their start')
        self._camera_rates = {camera.rate for camera in self.station.cameras.values()}
        self._states = self.create_publisher(JointState, 'joint_states', STATE_QOS)
        self._clock_publisher = self.create_publisher(Clock, 'clock', STATE_QOS)
        self._world_states = self.create_publisher(Float64MultiArray, 'sim/world_state', STATE_QOS)
        self._writer = JointStateWriter(self.station.joints)
        self._failure: Exception | None = None
        self._failure_signal = self.create_guard_condition(self._raise_failure)
        self._link = ControllerLink(self.resolve_topic_name('joint_commands'), self._on_linked_command,
                                    self._on_link)
        self._loop = WorldLoop(world, self._publish, self.get_logger().warning, self._failed, self._link.streamed)
        self._commands = self.create_subscription(JointState, 'joint_commands', self._on_command, STATE_QOS)
        self._finger_joints = [arm.gripper.joint for arm in self.station.arms.values()]
        self.create_service(Trigger, 'sim/reset_world', self._on_reset)
        pace = self.station.real_time_factor
        self.get_logger().info(
            f'world: {self.task.name}, seed {self.get_parameter("seed").value}, '
            + (f'{pace:g} x the wall clock' if pace else 'lockstep'))
        self._loop.start()

    def _publish(self, world: World) -> None:
        _, position, velocity, effort = world.joint_state()
        stamp = world.stamp_ns
        self._record.note(stamp)
        due = any(is_policy_tick(world.tick, rate, self.station.control_rate) for rate in self._camera_rates)
        if due and self._world_states.get_subscription_count():
            self._world_states.publish(write_numbers(np.concatenate(([world.time], world.state()))))
        if self._clock_publisher.get_subscription_count():
            clock = Clock()
            clock.clock.sec, clock.clock.nanosec = divmod(stamp, 1_000_000_000)
            self._clock_publisher.publish(clock)
        self._states.publish(self._writer.write(stamp, position, velocity, effort))
        if self._link.connected:
            self._link.observe(stamp, position.tolist(), velocity.tolist(), effort.tolist())

    def _on_link(self) -> None:
        # One controller, not two: from here on nothing listens to the topic.
        self.destroy_subscription(self._commands)

    def _on_linked_command(self, stamp: int, positions, velocities, efforts) -> None:
        joints = self.station.joints
        forces = dict(zip(joints, efforts))
        self._loop.command(stamp, Command(
            dict(zip(joints, positions)), {joint: forces[joint] for joint in self._finger_joints},
            dict(zip(joints, velocities))))

    def _on_command(self, message: JointState) -> None:
        stamp = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
        try:
            command = read_command(self.station, message.name, message.position, message.velocity,
                                   message.effort)
        except CommandError as error:
            self.get_logger().error(f'{error}. Ignored; the joints hold', throttle_duration_sec=1.0)
            command = None
        self._loop.command(stamp, command)

    def _on_reset(self, request, response):
        try:
            seed, pose = self._start()
        except ConfigurationError as error:
            response.success, response.message = False, str(error)
            return response
        self._loop.reset_world(seed, pose)
        response.success, response.message = True, f'world reset to seed {seed}'
        return response

    def _start(self) -> tuple[int, list[float] | None]:
        """(seed, the object's pose or None: the seed's). Raises ConfigurationError for a pose of another length."""
        pose = list(self.get_parameter_or('object_pose').value or ())
        if len(pose) not in (0, 3):
            raise ConfigurationError(f"parameter 'object_pose' has {len(pose)} numbers; expected x, y in m and yaw in "
                                     "rad, or none for the seed's start pose")
        return self.get_parameter('seed').value, pose or None

    def _failed(self, error: Exception) -> None:
        self.get_logger().fatal(f'the world stopped: {error}')
        self._failure = error
        self._failure_signal.trigger()

    def _raise_failure(self) -> None:
        # Out of the executor, so that the process ends with an error.
        if self._failure is not None:
            raise self._failure

    def destroy_node(self):
        if hasattr(self, '_loop'):
            self._loop.stop()
        if hasattr(self, '_link'):
            self._link.close()
        super().destroy_node()


def main() -> None:
    run_single(SimStation)


if __name__ == '__main__':
    main()
