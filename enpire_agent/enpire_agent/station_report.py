"""What `enpire status` shows of one running station."""

from __future__ import annotations

import math
import time

import psutil
from diagnostic_msgs.msg import DiagnosticStatus
from enpire_msgs.msg import ObjectPose, Verdict
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState

from enpire_agent.station_client import StationClient
from enpire_bringup.station_node import LATCHED_QOS, STATE_QOS

DISCOVERY = 4.0      # s of wall time
GRAPH_LOOK = 1.5     # s of wall time

# Camera images are not among them: to look at them would make the cameras render.
_WATCHED = (('clock', Clock), ('joint_states', JointState), ('joint_commands', JointState),
            ('object_poses', ObjectPose), ('verdict', Verdict))


def observe_station(state: dict, duration: float) -> dict:
    """Listen to a station for `duration` s of wall time; `state` as `running_stations()` gives it.

    Returns plain data: namespace, domain, task, station, ready, processes, nodes, missing_nodes, topics, safety,
    campaign.
    """
    arrivals: dict[str, list[float]] = {name: [] for name, _ in _WATCHED}
    guard: list[DiagnosticStatus] = []
    with StationClient(state['namespace'], state['domain']) as station:
        for name, kind in _WATCHED:
            station.node.create_subscription(
                kind, name, lambda _, name=name: arrivals[name].append(time.monotonic()), STATE_QOS)
        station.node.create_subscription(DiagnosticStatus, 'guard_status', guard.append, LATCHED_QOS)
        _await_discovery(station, state)
        processes = _processes(state)
        for times in arrivals.values():
            times.clear()
        time.sleep(duration)
        now = time.monotonic()
        status = station.status(timeout=0.5)
        present = _present(station)
    expected = _expected(state)
    return {
        **{key: state[key] for key in ('namespace', 'domain', 'station', 'task', 'ready', 'pid', 'log')},
        'processes': [_usage(name, process) for name, process in processes],
        'nodes': sorted(present & set(expected)),
        'missing_nodes': [name for name in expected if name not in present],
        'topics': {name: _topic(times, now, duration) for name, times in arrivals.items()},
        'safety': _safety(guard),
        'status': _campaign(status),
    }


def stations_in_graph(domain_id: int) -> list[dict]:
    """States, as far as they can be seen, of stations that no runner of ours started, e.g. by `ros2 launch`."""
    with StationClient('enpire', domain_id) as client:
        time.sleep(GRAPH_LOOK)
        nodes = client.node.get_node_names_and_namespaces()
    spaces = sorted({space for name, space in nodes if name == 'trial_runner'})
    return [{'namespace': space, 'domain': domain_id, 'station': 'unknown', 'task': 'unknown', 'ready': True,
             'pid': None, 'log': 'the log of what started it', 'processes': {},
             'nodes': {'': sorted(name for name, other in nodes if other == space)}} for space in spaces]


def _await_discovery(station: StationClient, state: dict) -> None:
    """Give the graph up to DISCOVERY s to show every node: a participant that has just joined sees few."""
    end = time.monotonic() + DISCOVERY
    while time.monotonic() < end and not set(_expected(state)) <= _present(station):
        time.sleep(0.05)


def _expected(state: dict) -> list[str]:
    return [name for names in state['nodes'].values() for name in names]


def _present(station: StationClient) -> set[str]:
    return {name for name, space in station.node.get_node_names_and_namespaces() if space == station.namespace}


def _processes(state: dict) -> list[tuple[str, psutil.Process | None]]:
    processes = []
    for name in filter(None, state['nodes']):
        try:
            process = psutil.Process(state['processes'][name])
            process.cpu_percent()      # starts the measurement that `_usage` reads
        except (KeyError, psutil.NoSuchProcess):
            process = None
        processes.append((name, process))
    return processes


def _usage(name: str, process: psutil.Process | None) -> dict:
    try:
        if process is not None:
            return {'name': name, 'pid': process.pid, 'cpu_percent': process.cpu_percent(),
                    'memory_mb': round(process.memory_info().rss / 1e6)}
    except psutil.NoSuchProcess:
        pass
    return {'name': name, 'pid': None, 'cpu_percent': 0.0, 'memory_mb': 0}


def _topic(times: list[float], now: float, duration: float) -> dict:
    return {'rate': round(len(times) / duration, 1), 'age': round(now - times[-1], 3) if times else None}


def _safety(guard: list[DiagnosticStatus]) -> str:
    if not guard:
        return 'unknown: no guard_status'
    return 'ok' if guard[-1].level == DiagnosticStatus.OK else guard[-1].message


def _campaign(status) -> dict | None:
    if status is None:
        return None
    fields = ('state', 'campaign', 'phase', 'iteration', 'hypothesis', 'best_recipe', 'best_trials',
              'best_successes', 'trials', 'successes', 'elapsed', 'remaining', 'message')
    values = {field: getattr(status, field) for field in fields}
    values['remaining'] = None if math.isnan(values['remaining']) else values['remaining']
    return values


def status_text(report: dict) -> str:
    """The report as lines for a terminal."""
    lines = [f"{report['namespace']}  {'up' if report['ready'] else 'starting'}: task {report['task']}, station "
             f"{report['station']}, ROS domain {report['domain']}, "
             f"{'runner ' + str(report['pid']) if report['pid'] else 'not started by enpire up'}"]
    for process in report['processes']:
        usage = (f"{process['cpu_percent']:5.0f} % CPU {process['memory_mb']:5d} MB  pid {process['pid']}"
                 if process['pid'] else f"not running; see {report['log']}")
        lines.append(f"  process  {process['name']:<16} {usage}")
    total = len(report['nodes']) + len(report['missing_nodes'])
    missing = f"; missing: {', '.join(report['missing_nodes'])}" if report['missing_nodes'] else ''
    lines.append(f"  nodes    {len(report['nodes'])} of {total}{missing}")
    for name, topic in report['topics'].items():
        age = 'no message' if topic['age'] is None else f"{topic['rate']:6.1f} Hz, last {topic['age'] * 1000:.0f} ms ago"
        lines.append(f'  topic    {name:<16} {age}')
    lines.append(f"  safety   {report['safety']}")
    status = report['status']
    if status is None:
        lines.append('  state    unknown: no station_status')
        return '\n'.join(lines)
    lines.append(f"  state    {status['state']} {status['message']}".rstrip())
    if status['campaign']:
        left = '' if status['remaining'] is None else f", about {status['remaining'] / 60:.0f} min left"
        lines.append(f"  campaign {status['campaign']}: {status['phase']}, iteration {status['iteration']}, "
                     f"{status['successes']} of {status['trials']} trials succeeded{left}")
        if status['hypothesis']:
            lines.append(f"           {status['hypothesis']}")
    return '\n'.join(lines)
