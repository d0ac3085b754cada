"""What every node of a station shares: its parameters, its station and task, and the QoS profiles."""

from __future__ import annotations

import array
import math
import time

from rcl_interfaces.msg import SetParametersResult
from rclpy.exceptions import InvalidParameterValueException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.environment import environment_hash
from enpire_bringup.station import Station, load_station, overridden
from enpire_bringup.task import Task, load_task


def _profile(depth: int, reliability: ReliabilityPolicy = ReliabilityPolicy.RELIABLE,
             durability: DurabilityPolicy = DurabilityPolicy.VOLATILE) -> QoSProfile:
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=reliability, durability=durability)


IMAGE_QOS = _profile(2, ReliabilityPolicy.BEST_EFFORT)
STATE_QOS = _profile(10)
LATEST_QOS = _profile(1)
LATCHED_QOS = _profile(1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
HISTORY_QOS = _profile(100, durability=DurabilityPolicy.TRANSIENT_LOCAL)


HASH_PERIOD = 1.0       # s of wall time between two looks at the environment's files


class StationNode(Node):
    """A node that knows its station and task.

    Parameters: `station` (name or file), `task` (name or folder), and the overrides `real_time_factor` (NaN: the
    station file's), `camera_width` and `camera_height` (pixels, 0: the file's). Raises ConfigurationError.

    Once the node spins, a change of any parameter is refused with the reason, except of those declared with
    `declare_adjustable`, and of these a value outside their range.
    """

    station: Station
    task: Task | None

    def __init__(self, name: str, *, needs_task: bool = True, **kwargs):
        super().__init__(name, **kwargs)
        self._adjustable_ranges: dict[str, tuple[float, float, str]] = {}
        self.add_on_set_parameters_callback(self._check_parameters)
        try:
            self.station = self._read_station()
            task_name = self.declare_parameter('task', '').value
            if needs_task and not task_name:
                raise ConfigurationError("parameter 'task' is empty; give a task's name or folder")
            self.task = load_task(task_name) if task_name else None
        except Exception:
            self.destroy_node()
            raise

    def declare_adjustable(self, name: str, default, low: float, high: float, unit: str = ''):
        """Declare a number, or a list of them, that may change while the node runs, within [low, high]; its value.

        default: a value, or a Parameter.Type for none.

        Who uses it reads it anew each time, or adds a callback of its own (`add_post_set_parameters_callback`).
        Raises ConfigurationError when the node was started with a value outside the range.
        """
        self._adjustable_ranges[name] = (low, high, unit)
        try:
            return self.declare_parameter(name, default).value
        except InvalidParameterValueException:
            raise ConfigurationError(self._out_of_range(name, self._parameter_overrides[name].value)) from None

    def _check_parameters(self, parameters) -> SetParametersResult:
        for parameter in parameters:
            reason = self._refusal(parameter)
            if reason:
                return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)

    def _refusal(self, parameter) -> str:
        """Why the node cannot take this value of this parameter; empty when it can."""
        if self.executor is None and parameter.value is None:
            return ''       # declared by its type alone
        if parameter.name in self._adjustable_ranges:
            low, high, _ = self._adjustable_ranges[parameter.name]
            value = parameter.value
            numbers = value if isinstance(value, (list, tuple, array.array)) else [value]
            taken = all(isinstance(number, (int, float)) and not isinstance(number, bool) and low <= number <= high
                        for number in numbers)
            return '' if taken else self._out_of_range(parameter.name, value)
        if self.executor is None or not self.has_parameter(parameter.name):
            return ''       # the node's own constructor declares and sets what it needs
        return (f"{self.get_name()}: parameter '{parameter.name}' cannot change while the node runs (it is "
                f'{self.get_parameter(parameter.name).value!r}); stop the station and start it with the new value')

    def _out_of_range(self, name: str, value) -> str:
        low, high, unit = self._adjustable_ranges[name]
        return (f"{self.get_name()}: parameter '{name}' is {value!r}; expected a number from {low:g} to {high:g}"
                f'{" " + unit if unit else ""}')

    def _read_station(self) -> Station:
        name = self.declare_parameter('station', '').value
        factor = self.declare_parameter('real_time_factor', math.nan).value
        width = self.declare_parameter('camera_width', 0).value
        height = self.declare_parameter('camera_height', 0).value
        if not name:
            raise ConfigurationError("parameter 'station' is empty; give a station's name or file")
        return overridden(load_station(name), factor, width, height)

    def current_env_hash(self) -> str:
        """SHA-256 (hex) of the environment as it is on disk at this moment. The first time it reads the robot's
        description, which takes a while: nodes whose figures it belongs to keep it from their start as `env_hash`."""
        if self.task is None:
            raise ConfigurationError(f'{self.get_name()} has no task, so there is no environment to hash')
        return environment_hash(self.task, self.station)


class EnvironmentHash:
    """The hash of a node's environment for what it publishes: as the files are now, read at most every HASH_PERIOD.

    Made, it reads them: `at_start`. What changes is said once.
    """

    def __init__(self, node: StationNode):
        self._node = node
        self.at_start = self._now = node.current_env_hash()
        self._read = time.monotonic()

    def now(self) -> str:
        """SHA-256 (hex), '' where the files cannot be read."""
        if time.monotonic() - self._read >= HASH_PERIOD:
            self.read()
        return self._now

    def read(self) -> None:
        """Look at the files, whenever that was done last."""
        self._read, known = time.monotonic(), self._now
        try:
            self._now = self._node.current_env_hash()
        except OSError as error:
            self._now = ''
            self._node.get_logger().error(f'the environment cannot be read: {error}', throttle_duration_sec=5.0)
        if self._now != known:
            self._node.get_logger().error(
                f'the environment was changed on disk: hash {known[:12]} became {self._now[:12] or "none"} '
                f'({self.at_start[:12]} at the start); trials that run now are INVALID')
