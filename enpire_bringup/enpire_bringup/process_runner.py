"""Starts a station's processes, watches them and stops them: what `enpire up`, `make demo` and tests use.

    with StationProcesses(task='push_t', namespace='station_1', real_time_factor=0.0) as station:
        ...                      # every node is up and joint states flow

Where ROS 2's launch is installed, `launch/station.launch.py` starts the same processes.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Collection, Mapping, Sequence

import psutil

from enpire_bringup.composition import NodeSpec, ProcessSpec, full_namespace, station_processes
from enpire_bringup.domain_locks import (
    LockFile, StationError, domain_is_used, lock_path, only_this_machine_counts)
from enpire_bringup.node_group import NOT_MADE, READY_LINE
from enpire_bringup.paths import runs_directory, share_directory
from enpire_bringup.process_environment import environment_domain, image_environment, prepare_environment
from enpire_bringup.respawn import CRASH_WINDOW, MOST_CRASHES, Respawn
from enpire_bringup.shared_memory import remove_dead_segments
from enpire_bringup.station import default_station, load_station, overridden
from enpire_bringup.task import load_task

READY_WITHIN = 60.0            # s of wall time
GRAPH_LOOK = 1.0               # s that a look at who else is in the namespace takes
SIGNAL_AFTER = ((0.0, signal.SIGINT), (2.2, signal.SIGTERM), (3.5, signal.SIGKILL))   # s after stop()
REMINDER_PERIOD = 60.0         # s between two reminders that a process is missing for good
_POLL = 0.1


class StationProcesses:
    """The processes of one station.

    station, task: names or paths; no station: the one that goes with the task. namespace: e.g. "station_1". real_time_factor (NaN), camera_width, camera_height
    (pixels, 0): overrides of the station file. domain_id: None takes $ROS_DOMAIN_ID. only: names of the nodes to
    start, None for all. node_parameters: further parameters by node name. report: called with one line for people
    at each event (from another thread); `runner.log` beside the nodes' logs keeps these lines with their times.
    runs: where results and logs go; None: `runs_directory()`. Raises ConfigurationError for bad configuration.

    A process that crashes is started again, ever later (`respawn.py`). One that crashes too often, or that refuses its
    configuration when it is started again, stays away: the rest of the station goes on, without it nothing of its
    kind happens, and the runner says so every minute.
    """

    def __init__(self, station: str = '', task: str = 'push_t', namespace: str = 'station_1', *,
                 real_time_factor: float = math.nan, camera_width: int = 0, camera_height: int = 0,
                 domain_id: int | None = None, only: Collection[str] | None = None,
                 node_parameters: Mapping[str, Mapping[str, Any]] | None = None,
                 runs: Path | str | None = None, report: Callable[[str], None] | None = None):
        prepare_environment()
        self.namespace = full_namespace(namespace)
        self.name = self.namespace.strip('/')
        self.domain_id = environment_domain() if domain_id is None else domain_id
        self.task = load_task(task)
        self.station = load_station(station or default_station(self.task))
        self.runs = Path(runs).resolve() if runs is not None else runs_directory()
        self.real_time_factor = overridden(self.station, real_time_factor).real_time_factor
        self.log_directory = self.runs / '.stations' / self.name / 'log'
        specs = station_processes(self.station, self.task, namespace, real_time_factor=real_time_factor,
                                  camera_width=camera_width, camera_height=camera_height,
                                  node_parameters=node_parameters)
        self.specs = [spec for spec in (_only(spec, only) for spec in specs) if spec.nodes]
        self._tell = report or (lambda line: print(f'enpire: {line}', file=sys.stderr, flush=True))
        self._lock = LockFile(lock_path(self.domain_id, self.name))
        self._children: list[_Child] = []
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()
        self._ready = False

    def __enter__(self) -> 'StationProcesses':
        try:
            self.start()
            self.wait_ready()
        except BaseException:      # also Ctrl-C: nothing may stay behind
            self.stop()
            raise
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    @property
    def nodes(self) -> list[NodeSpec]:
        return [node for spec in self.specs for node in spec.nodes]

    def pids(self) -> dict[str, int]:
        """Process id by process name, of the processes that live."""
        return {child.spec.name: child.process.pid for child in self._children if child.is_alive()}

    def restarts(self) -> dict[str, int]:
        """How often each process was started again, by process name."""
        return {child.spec.name: child.respawn.restarts for child in self._children}

    def given_up(self) -> dict[str, str]:
        """Why a process is not started any more, by process name; empty when all is well."""
        return {child.spec.name: child.given_up for child in self._children if child.given_up}

    def start(self) -> None:
        """Start every process. Raises StationError when the namespace is taken."""
        self._ready = False
        if not self._lock.acquire(self._state()):
            raise StationError(f'{self.namespace} already runs {_describe(self._lock.read())}; stop it with '
                               "'enpire down', or use another namespace or ROS_DOMAIN_ID")
        try:
            self._refuse_taken_namespace()
        except BaseException:
            self._lock.release()
            raise
        remove_dead_segments()
        self.log_directory.mkdir(parents=True, exist_ok=True)
        self._children = [_Child(spec, self.log_directory) for spec in self.specs]
        self._ending.clear()
        # One thread starts every process and lives as long as they do: a child is told to end when the thread that
        # started it ends (PR_SET_PDEATHSIG).
        self._thread = threading.Thread(target=self._supervise, name=f'processes {self.name}', daemon=True)
        self._thread.start()

    def wait_ready(self, timeout: float = READY_WITHIN) -> None:
        """Wait until every node is in the graph and joint states flow.

        Raises StationError saying what is missing after `timeout` s of wall time, or which node cannot start.
        """
        deadline = time.monotonic() + timeout
        wants_joints = any(node.name == 'sim_station' for node in self.nodes)
        with _GraphWatch(self.domain_id, f'{self.namespace}/joint_states' if wants_joints else None) as watch:
            while missing := self._missing(watch):
                self._raise_if_given_up()
                if time.monotonic() > deadline:
                    raise StationError(f'{self.namespace}: after {timeout:.0f} s still waiting for {missing}; '
                                       f'see {self.log_directory}')
                watch.spin(_POLL)
        self._ready = True
        self._lock.write(self._state())

    def begin_stop(self) -> None:
        """Start what `stop()` waits for."""
        self._ending.set()

    def stop(self) -> None:
        """End every process, and the processes they started, within 5 s. Callable twice."""
        self.begin_stop()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._lock.release()

    def _state(self) -> dict:
        return {'pid': os.getpid(), 'domain': self.domain_id, 'namespace': self.namespace, 'ready': self._ready,
                'share': str(share_directory()), 'station': self.station.name,
                'station_file': str(self.station.file), 'task': self.task.name, 'log': str(self.log_directory),
                'runs': str(self.runs), 'processes': self.pids(), 'restarts': self.restarts(), 'given_up': self.given_up(),
                'real_time_factor': self.real_time_factor,
                'nodes': {spec.name: [node.name for node in spec.nodes] for spec in self.specs}}

    def _missing(self, watch: '_GraphWatch') -> str:
        """What of a ready station is not there yet, for people; empty when all is."""
        waiting = [child.spec.name for child in self._children if not child.says_ready()]
        return f'the nodes of {", ".join(waiting)}' if waiting else ', '.join(watch.missing(self.nodes))

    def _refuse_taken_namespace(self) -> None:
        if only_this_machine_counts() and not domain_is_used(self.domain_id):
            return      # nobody there who could have the namespace
        with _GraphWatch(self.domain_id) as watch:
            end = time.monotonic() + GRAPH_LOOK
            while time.monotonic() < end:
                watch.spin(_POLL)
                # A client (`enpire status` in another terminal) talks to a station and is none.
                taken = {name for name in watch.nodes_in(self.namespace) if not name.startswith('enpire_client_')}
                if taken:
                    raise StationError(
                        f"{self.namespace} in ROS domain {self.domain_id} already has the nodes "
                        f"{', '.join(sorted(taken))}, started by something else; stop that, or use another "
                        'namespace or ROS_DOMAIN_ID')

    def _raise_if_given_up(self) -> None:
        for child in self._children:
            if child.given_up:
                raise StationError(child.last_words() or f'process {child.spec.name}: {child.given_up}')

    def _supervise(self) -> None:
        for child in self._children:
            child.start(self._child_environment())
        reminder = time.monotonic() + REMINDER_PERIOD
        while not self._ending.wait(_POLL):
            for child in self._children:
                for line in child.warnings():
                    self._report(f'{self.name} {child.spec.name}: {line}')
                message = child.revive(self._child_environment)
                if message:
                    self._report(f'{self.namespace}: {message}')
                    self._lock.write(self._state())
            if time.monotonic() >= reminder:
                reminder += REMINDER_PERIOD
                for name, why in self.given_up().items():
                    self._report(f'{self.namespace}: still without the process {name}: {why}')
        _end([child.process for child in self._children if child.process is not None])

    def _report(self, line: str) -> None:
        with (self.log_directory / 'runner.log').open('a') as log:
            log.write(f'{time.strftime("%Y-%m-%dT%H:%M:%S%z")} {line}\n')
        self._tell(line)

    def _child_environment(self) -> dict[str, str]:
        return {**os.environ, 'ROS_DOMAIN_ID': str(self.domain_id), 'ENPIRE_RUNS': str(self.runs),
                'ROS_LOG_DIR': str(self.log_directory / 'ros')}


class Fleet:
    """Several stations that start and end together."""

    def __init__(self, stations: Sequence[StationProcesses]):
        self.stations = list(stations)

    def __enter__(self) -> 'Fleet':
        try:
            for station in self.stations:
                station.start()
            for station in self.stations:
                station.wait_ready(READY_WITHIN * (1 + len(self.stations) / 4))
        except BaseException:      # also Ctrl-C: nothing may stay behind
            self._stop()
            raise
        return self

    def __exit__(self, *_) -> None:
        self._stop()

    def _stop(self) -> None:
        for station in self.stations:
            station.begin_stop()
        for station in self.stations:
            station.stop()


class _Child:
    """One process of the station, started again when it crashes.

    given_up: why it is not started again any more.
    """

    def __init__(self, spec: ProcessSpec, log_directory: Path):
        self.spec = spec
        self.log = log_directory / f'{spec.name}.log'
        self.process: subprocess.Popen | None = None
        self.given_up = ''
        self.respawn = Respawn()
        self._read_from = 0
        self._said_ready = False

    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self, environment: dict[str, str]) -> None:
        if self.spec.publishes_images:
            environment = {**environment, **image_environment()}
        if self.process is None:
            self.log.unlink(missing_ok=True)       # of an earlier run
        with self.log.open('ab') as log:
            self._read_from = log.tell()
            # A group of its own: Ctrl-C in the terminal reaches only the runner, which ends all in order.
            self.process = subprocess.Popen(self._command(), env=environment, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=subprocess.STDOUT, start_new_session=True)
        self.respawn.started()

    def _command(self) -> list[str]:
        if self.spec.is_group:
            return [sys.executable, '-m', 'enpire_bringup.node_group', '--parent', str(os.getpid()),
                    '--nodes', self.spec.nodes_json()]
        return _foreign_command(self.spec.nodes[0], self.log.with_suffix('.yaml'))

    def says_ready(self) -> bool:
        """Whether all nodes of the process are made. A foreign executable cannot tell: then whether it lives."""
        if not self.spec.is_group:
            return self.is_alive()
        return self._said_ready

    def warnings(self) -> list[str]:
        """New lines of the log that a person should see."""
        try:
            with self.log.open('rb') as log:
                log.seek(self._read_from)
                text = log.read()
        except FileNotFoundError:
            return []
        complete = text.rfind(b'\n') + 1
        self._read_from += complete
        lines = text[:complete].decode(errors='replace').splitlines()
        self._said_ready |= any(READY_LINE in line for line in lines)
        return [line for line in lines if '[ERROR]' in line or '[FATAL]' in line or line.startswith('enpire:')]

    def last_words(self) -> str:
        """The last line that says why the process could not start."""
        lines = self.log.read_text(errors='replace').splitlines() if self.log.exists() else []
        said = [line.removeprefix('enpire: ') for line in lines if line.startswith('enpire: ')]
        return said[-1] if said else ''

    def revive(self, environment: Callable[[], dict[str, str]]) -> str:
        """Start a crashed process again when its time has come; returns one line when something happened."""
        if self.process is None or self.is_alive() or self.given_up:
            return ''
        if not self.respawn.waiting:
            return self._crashed(self.process.returncode)
        if self.respawn.due:
            self.start(environment())
            return f'process {self.spec.name} started again (restart {self.respawn.restarts})'
        return ''

    def _crashed(self, code: int) -> str:
        if code == NOT_MADE:      # it would not be made the next time either
            self.given_up = (f'{self.last_words() or "it cannot start"}; see {self.log}. Mend that, then '
                             "'enpire down' and 'enpire up'")
            return f'process {self.spec.name} cannot start: {self.given_up}'
        delay = self.respawn.crashed()
        how = f'was killed by signal {-code}' if code < 0 else f'ended with exit code {code}'
        if delay is None:
            self.given_up = (f'it {how}, the {MOST_CRASHES}th time within {CRASH_WINDOW / 60:.0f} min; see {self.log}. '
                             "Mend that, then 'enpire down' and 'enpire up'")
            return f'process {self.spec.name} is given up: {self.given_up}'
        return f'process {self.spec.name} {how}; starting it again in {delay:g} s; see {self.log}'


def _only(spec: ProcessSpec, only: Collection[str] | None) -> ProcessSpec:
    if only is None:
        return spec
    return replace(spec, nodes=tuple(node for node in spec.nodes if node.name in only))


def _foreign_command(node: NodeSpec, parameter_file: Path) -> list[str]:
    import yaml
    from ament_index_python.packages import get_package_prefix

    parameter_file.write_text(yaml.safe_dump({node.full_name: {'ros__parameters': dict(node.parameters)}}))
    executable = Path(get_package_prefix(node.package)) / 'lib' / node.package / node.executable
    arguments = ['-r', f'__node:={node.name}', '-r', f'__ns:={node.namespace}', '--params-file', str(parameter_file)]
    for old, new in node.remappings:
        arguments += ['-r', f'{old}:={new}']
    return [str(executable), '--ros-args', *arguments]


def _end(processes: list[subprocess.Popen]) -> None:
    """Signal the processes in growing severity until they and all their descendants are gone."""
    family = _family(processes)
    start = time.monotonic()
    for after, number in SIGNAL_AFTER:
        while time.monotonic() < start + after and any(process.poll() is None for process in processes):
            time.sleep(0.02)
        for process in processes:
            if process.poll() is None:
                family = family | _family([process])
                process.send_signal(number)
    for process in processes:
        process.wait(timeout=1.0)
    for member in family:
        try:
            member.kill()       # psutil compares start times, so a reused pid is never hit
        except psutil.NoSuchProcess:
            pass
    end = time.monotonic() + 0.5
    while any(_is_alive(member) for member in family) and time.monotonic() < end:
        time.sleep(0.02)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _family(processes: list[subprocess.Popen]) -> set[psutil.Process]:
    family: set[psutil.Process] = set()
    for process in processes:
        try:
            family |= set(psutil.Process(process.pid).children(recursive=True))
        except psutil.NoSuchProcess:
            pass
    return family


class _GraphWatch:
    """A short-lived participant that looks at the graph of one domain."""

    def __init__(self, domain_id: int, joint_state_topic: str | None = None):
        self._domain_id = domain_id
        self._topic = joint_state_topic
        self._subscription = None
        self._got_joint_state = False

    def __enter__(self) -> '_GraphWatch':
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.signals import SignalHandlerOptions

        self._context = rclpy.Context()
        rclpy.init(args=[], context=self._context, domain_id=self._domain_id,
                   signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node(f'_enpire_runner_{os.getpid()}', context=self._context, enable_rosout=False,
                                       start_parameter_services=False, use_global_arguments=False)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        return self

    def __exit__(self, *_) -> None:
        self._executor.shutdown(timeout_sec=1.0)
        self._node.destroy_node()
        self._context.try_shutdown()

    def _on_joint_state(self, _) -> None:
        self._got_joint_state = True

    def spin(self, duration: float) -> None:
        """Take what arrives during `duration` s."""
        end = time.monotonic() + duration
        while (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)

    def nodes_in(self, namespace: str) -> set[str]:
        return {name for name, space in self._node.get_node_names_and_namespaces()
                if space == namespace or space.startswith(f'{namespace}/')}

    def missing(self, nodes: list[NodeSpec]) -> list[str]:
        """What of a ready station is not there yet; joint states are listened for from the first call on."""
        if self._topic and self._subscription is None:
            from sensor_msgs.msg import JointState

            self._subscription = self._node.create_subscription(JointState, self._topic, self._on_joint_state, 10)
        seen = set(self._node.get_node_names_and_namespaces())
        missing = [f'node {node.name}' for node in nodes if (node.name, node.namespace) not in seen]
        if self._topic and not self._got_joint_state:
            missing.append(f'a message on {self._topic}')
        return missing


def _describe(state: dict) -> str:
    return f"in ROS domain {state.get('domain')} (process {state.get('pid')})" if state else 'on this machine'
