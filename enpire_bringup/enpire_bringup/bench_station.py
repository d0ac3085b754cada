"""What the benches share: a station to measure, the one that is up or one of their own, and a node to talk to it."""

from __future__ import annotations

import math
import os
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Callable, Collection, Iterator, Mapping


@dataclass(frozen=True)
class BenchStation:
    """A station that is up. `pids`: process id by process name. `started`: whether it was started for the bench."""

    namespace: str
    domain_id: int
    pids: Mapping[str, int]
    started: bool


@contextmanager
def bench_station(name: str, station: str, task: str, *, only: Collection[str] | None = None,
                  real_time_factor: float = math.nan, use_running: bool = True,
                  report: Callable[[str], None] = lambda line: None) -> Iterator[BenchStation]:
    """The running station of this station file, task and pace, else one started for the bench and ended after it.

    name: the bench's, for the namespace of a station of its own. only: the nodes that the bench needs. use_running:
    False where anything else that runs would spoil the figures. Raises StationError and ConfigurationError.
    """
    from enpire_bringup.domain_locks import DomainReservation
    from enpire_bringup.process_runner import StationProcesses

    running = _running(station, task, only, real_time_factor) if use_running else None
    if running is not None:
        report(f'measuring {running.namespace}, which is up')
        yield running
        return
    reservation = DomainReservation()
    try:
        report('starting a station ...')
        with StationProcesses(station, task, f'{name}_bench_{os.getpid()}', domain_id=reservation.domain_id, only=only,
                              real_time_factor=real_time_factor, report=report) as processes:
            yield BenchStation(processes.namespace, processes.domain_id, processes.pids(), True)
    finally:
        reservation.release()


def _running(station: str, task: str, only: Collection[str] | None, real_time_factor: float) -> BenchStation | None:
    """The first station of this user that is up and has what the bench needs."""
    from enpire_bringup.domain_locks import running_stations
    from enpire_bringup.station import load_station, overridden
    from enpire_bringup.task import load_task

    wanted = overridden(load_station(station), real_time_factor)
    for state in running_stations():
        nodes = {node for names in state.get('nodes', {}).values() for node in names}
        if (state.get('ready') and state['station_file'] == str(wanted.file)
                and state['task'] == load_task(task).name and state['real_time_factor'] == wanted.real_time_factor
                and set(only or ()) <= nodes
                and os.environ.get('ROS_DOMAIN_ID', str(state['domain'])) == str(state['domain'])):
            return BenchStation(state['namespace'], state['domain'], state['processes'], False)
    return None


@contextmanager
def station_node(name: str, namespace: str, domain_id: int) -> Iterator[Any]:
    """A node in `namespace`, spun in a thread of its own, in a context that ends with the block."""
    import rclpy
    from rclpy.executors import ExternalShutdownException
    from rclpy.signals import SignalHandlerOptions

    from enpire_bringup.actions import destroy_actions
    from enpire_bringup.message_executor import fastest_executor
    from enpire_bringup.process_environment import prepare_environment

    prepare_environment()
    context = rclpy.Context()
    rclpy.init(args=[], context=context, domain_id=domain_id, signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node(name, namespace=namespace, context=context, use_global_arguments=False,
                             start_parameter_services=False, enable_rosout=False)
    executor = fastest_executor(context=context)
    executor.add_node(node)

    def spin() -> None:
        try:
            executor.spin()
        except ExternalShutdownException:
            pass

    thread = threading.Thread(target=spin, name=f'spin {name}', daemon=True)
    thread.start()
    try:
        yield node
    finally:
        executor.shutdown(timeout_sec=0.0)
        thread.join(timeout=2.0)
        destroy_actions(node)
        node.destroy_node()
        context.try_shutdown()
