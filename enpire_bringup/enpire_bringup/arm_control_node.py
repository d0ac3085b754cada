"""Plans and streams the arms' motion, with the safety guard as the last stage before the controllers.

Offers the actions `move_arm` and `gripper` (planned_moves.py), the topics `<arm>/servo`, the topic `guard_status` and
the service `guard/clear`. Time is the stamp of the joint states.
"""

from __future__ import annotations

import sys
import time
from functools import partial

from builtin_interfaces.msg import Duration
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from geometry_msgs.msg import PoseStamped
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from enpire_bringup.arm_motion import ServoCommand
from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.guard import guard_limits
from enpire_bringup.guarded_arms import SECOND, WAY_OUT, GuardedArms, GuardStatus, ServoTarget
from enpire_bringup.kinematics import pose_matrix
from enpire_bringup.node_group import run_single
from enpire_bringup.planned_moves import PlannedMoves
from enpire_bringup.safety_limits import LIMITS, SafetyLimits, tightened
from enpire_bringup.serialized_messages import JointStateReader
from enpire_bringup.state_guard import StateWatch
from enpire_bringup.station_node import LATCHED_QOS, LATEST_QOS, STATE_QOS, StationNode

STATE_TIMEOUT = 5.0        # s of wall time without joint states before the guard says so
SWITCH_INTERVAL = 0.0005   # s for which a thread that plans keeps the interpreter while the guard waits for it
PARAMETERS = 'limits.'     # prefix of the limits' names
LEVELS = {'ok': DiagnosticStatus.OK, 'refused': DiagnosticStatus.WARN, 'silent': DiagnosticStatus.ERROR,
          'latched': DiagnosticStatus.ERROR}


class ArmControl(StationNode):
    """Node `arm_control`; see the module's text and docs/architecture.md.

    Parameters `limits.<name>` (names in safety_limits.LIMITS): what the guard enforces now, at first the limits of
    station and task. They can be tightened while the node runs, and put back, never loosened.
    """

    def __init__(self, **kwargs):
        super().__init__('arm_control', **kwargs)
        # The stamps of the joint states are the only time here; the clock topic would be work for nothing.
        self.set_parameters([Parameter('use_sim_time', value=False)])
        self._base_limits = guard_limits(self.station, self.task)
        self._status = self.create_publisher(DiagnosticStatus, 'guard_status', LATCHED_QOS)
        self._streams = {name: self.create_publisher(
            JointTrajectory, f'{name}/joint_trajectory_controller/joint_trajectory', LATEST_QOS)
            for name in self.station.arms}
        paced = not self.station.lockstep
        self._guarded = GuardedArms(self.station, self._base_limits, send=self._send, changed=self._publish_status,
                                    busy=lambda name: self._moves.busy(name), lockstep=not paced)
        self._declare_limits()
        self._reader = JointStateReader()
        self._names: tuple[str, ...] | None = None
        self._order: list[int] | None = None       # None: as in Station.joints
        self._newest = -SECOND                     # ns, stamp of the newest joint state
        self._arrival = time.monotonic()           # of that one

        # Before the servo topics: of what is ready together, the state comes first.
        self.create_subscription(JointState, 'joint_states', self._on_state, STATE_QOS, raw=True)
        for name in self.station.arms:
            self.create_subscription(PoseStamped, f'{name}/servo', partial(self._on_servo, name), LATEST_QOS)
        self.create_service(Trigger, 'guard/clear', self._on_clear)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0, self._look_for_silence, clock=steady)
        # In lockstep the world stands still for as long as somebody computes: there, no state is no news.
        pace = self.station.real_time_factor if self.station.backend == 'sim' else 1.0
        self._watch = StateWatch(self._base_limits.stale_state / pace) if paced else None
        if self._watch is not None:
            # Each time that the guard lets go of the interpreter, in the midst of a joint state, a planner takes it;
            # with Python's own 5 ms states are looked at ten times a second while a path is searched.
            sys.setswitchinterval(SWITCH_INTERVAL)
            self.create_timer(self._watch.period, self._look_for_stale_state, clock=steady)
        self._moves = PlannedMoves(self, self._guarded, send=self._send)
        self._publish_status(self._guarded.status)
        limits = self._base_limits
        self.get_logger().info(f'workspace {limits.workspace_low} to {limits.workspace_high} m, floor at '
                               f'{limits.floor_height:g} m, servo up to {limits.max_tip_speed:g} m/s')

    # -- limits

    def _declare_limits(self) -> None:
        values = self._base_limits.values()
        for name, limit in LIMITS.items():
            low, high = (limit.low, values[name]) if limit.ceiling else (values[name], limit.high)
            self.declare_adjustable(PARAMETERS + name, values[name], low, high,
                                    f'{limit.unit}; limits can only be tightened below those of station and task')
        self._use_limits([])
        self.add_on_set_parameters_callback(self._check_limits)
        self.add_post_set_parameters_callback(self._use_limits)

    def _wanted_limits(self, parameters) -> SafetyLimits:
        values = {name: self.get_parameter(PARAMETERS + name).value for name in LIMITS}
        values |= {parameter.name.removeprefix(PARAMETERS): parameter.value for parameter in parameters
                   if parameter.name.startswith(PARAMETERS)}
        return tightened(self._base_limits, values, 'arm_control', 'the station')

    def _check_limits(self, parameters) -> SetParametersResult:
        if not all(isinstance(parameter.value, float) for parameter in parameters
                   if parameter.name.startswith(PARAMETERS)):
            return SetParametersResult(successful=True)      # the check of every parameter's type and range refuses it
        try:
            self._wanted_limits(parameters)
        except ConfigurationError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _use_limits(self, parameters) -> None:
        limits = self._wanted_limits(parameters)
        if limits != self._guarded.limits:
            self._guarded.limits = limits
            changed = ', '.join(f'{name} {value:g}' for name, value in limits.values().items()
                                if value != self._base_limits.values()[name])
            self.get_logger().info(f'guard: limits are now tighter: {changed}' if changed else
                                   'guard: the limits are those of station and task again')

    # -- joint states

    def _on_state(self, data: bytes) -> None:
        stamp, names, *values = self._reader.read(data)
        # A state that is repeated over and over is no news; one from long before is of another world.
        if not self._newest - SECOND < stamp <= self._newest:
            self._newest, self._arrival = stamp, time.monotonic()
            if self._watch is not None:
                self._watch.arrived(self._arrival)
        if names is not self._names and not self._find_joints(names):
            return
        if self._order is not None:
            # An array that is too short is left as it is: the guard says so.
            values = [[array[i] for i in self._order] if len(array) == len(names) else array for array in values]
        self._guarded.observe(stamp, *values)
        self._moves.observe(stamp)

    def _find_joints(self, names: tuple[str, ...]) -> bool:
        missing = [joint for joint in self.station.joints if joint not in names]
        if missing:
            self._guarded.lacks(missing)
            return False
        self._order = None if names == self.station.joints else [names.index(joint) for joint in self.station.joints]
        self._names = names
        return True

    def _look_for_silence(self) -> None:
        if time.monotonic() - self._arrival > STATE_TIMEOUT:
            self._guarded.silent(f'no joint states for more than {STATE_TIMEOUT:g} s; is the station running?')

    def _look_for_stale_state(self) -> None:
        age = self._watch.look(time.monotonic())
        if age is not None:
            self._guarded.stale(age)

    # -- servo

    def _on_servo(self, name: str, message: PoseStamped) -> None:
        stamp = message.header.stamp.sec * SECOND + message.header.stamp.nanosec
        position, orientation = message.pose.position, message.pose.orientation
        try:
            pose = pose_matrix((position.x, position.y, position.z),
                               (orientation.x, orientation.y, orientation.z, orientation.w))
        except ValueError as error:
            self._guarded.malformed(name, stamp, f'{name}: servo target: {error}')
            return
        self._guarded.servo(name, ServoTarget(pose, message.header.frame_id, stamp))

    def _send(self, name: str, command: ServoCommand, stamp: int) -> None:
        message = JointTrajectory(joint_names=list(self.station.arms[name].joints), points=[
            JointTrajectoryPoint(positions=positions, velocities=velocities, time_from_start=_duration(seconds))
            for seconds, positions, velocities in command.points])
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, SECOND)
        self._streams[name].publish(message)

    # -- status

    def _publish_status(self, status: GuardStatus) -> None:
        message = status.message
        values = {'state': status.state}
        if status.state == 'latched':
            violation = status.violation
            self.get_logger().error(f'guard: {message}; everything holds: {WAY_OUT}')
            values |= {'limit': violation.limit, 'arm': violation.arm, 'value': f'{violation.value:g}',
                       'bound': f'{violation.bound:g}', 'unit': violation.unit, 'way_out': WAY_OUT}
        elif status.state == 'refused':
            self.get_logger().warning(f'guard: {message}', throttle_duration_sec=1.0)
        self._status.publish(DiagnosticStatus(
            name='guard', hardware_id=self.station.name, message=message, level=LEVELS[status.state],
            values=[KeyValue(key=key, value=value) for key, value in values.items()]))

    def _on_clear(self, request, response):
        response.success, response.message = self._guarded.clear()
        self.get_logger().info(f'guard: {response.message}')
        return response

    def destroy_node(self) -> None:
        if hasattr(self, '_moves'):
            self._moves.close()
        super().destroy_node()


def _duration(seconds: float) -> Duration:
    sec, nanosec = divmod(round(seconds * SECOND), SECOND)
    return Duration(sec=sec, nanosec=nanosec)


def main() -> None:
    run_single(ArmControl)


if __name__ == '__main__':
    main()
