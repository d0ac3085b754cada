"""What `enpire status` shows of one running station."""

from __future__ import annotations

import math
import time
from importlib import import_module

import psutil
from diagnostic_msgs.msg import DiagnosticStatus

from enpire_agent.station_client import StationClient
from enpire_agent.station_results import Guard, read_guard, seconds
from enpire_agent.topic_watch import TopicWatch
from enpire_bringup.actions import RemoteCallError
from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.station import Station, load_station
from enpire_bringup.station_node import HISTORY_QOS, IMAGE_QOS, STATE_QOS
from enpire_bringup.task import load_task
from enpire_bringup.topics import Topic, station_topics

DISCOVERY = 4.0      # s of wall time
GRAPH_LOOK = 1.5     # s of wall time
STATES = ('guard_status', 'camera_status')     # topics that say something only when it changes
SETTLE = 0.3         # s of wall time after the nodes were seen, until their subscriptions are


class StationObserver:
    """Listens to one station; `state` as `running_stations()` or `stations_in_graph()` gives it.

        with StationObserver(state) as observer:
            report = observer.observe(2.0)
    """

    def __init__(self, state: dict):
        self._state = state
        self._watches: dict[str, TopicWatch] = {}
        self._ros_now: float | None = None
        self._guard: Guard | None = None
        self._cameras: dict[str, str] = {}      # what is wrong with a camera's images
        self._asleep: list[str] = []

    def __enter__(self) -> 'StationObserver':
        self._client = StationClient(self._state['namespace'], self._state['domain'])
        try:
            self._await_discovery()
            self._settings = self._parameters()
            self._station, self._topics = self._load_station()
            self._listen()
        except BaseException:
            self._client.close()
            raise
        return self

    def __exit__(self, *_) -> None:
        self._client.close()

    def observe(self, duration: float) -> dict:
        """Listen for `duration` s of wall time; plain data, with `problems` as a list of sentences."""
        processes = self._processes()
        self._look_at_cameras()
        for watch in self._watches.values():
            watch.begin(time.monotonic())
        ros_began, began = self._ros_now, time.monotonic()
        time.sleep(duration)
        now = time.monotonic()
        pace = None
        if ros_began is not None and self._ros_now is not None:
            pace = round((self._ros_now - ros_began) / (now - began), 2)
        state = {**self._state, **self._runner_state()}
        expected = [name for names in state['nodes'].values() for name in names]
        present = self._present()
        guard = self._guard
        report = {
            **{key: state[key] for key in ('namespace', 'domain', 'station', 'task', 'ready', 'pid', 'log')},
            'processes': [_usage(name, process, state) for name, process in processes],
            'nodes': sorted(present & set(expected)),
            'missing_nodes': [name for name in expected if name not in present],
            'topics': {name: watch.figures(now) for name, watch in self._watches.items()},
            'asleep': self._asleep,
            'cameras': dict(self._cameras),
            'real_time_factor': {'measured': pace, 'asked': state.get('real_time_factor')},
            'planner': self._settings.get('planner') or None,
            'safety': self._unguarded() if guard is None else 'ok' if guard.ok else guard.message,
            'guard': None if guard is None else guard.level,
            'status': _campaign(self._client.status(timeout=0.5)),
        }
        report['problems'] = problems(report)
        return report

    def _await_discovery(self) -> None:
        """Give the graph time to show every node: a participant that has just joined sees few."""
        expected = {name for names in self._state['nodes'].values() for name in names}
        end = time.monotonic() + DISCOVERY
        while time.monotonic() < end and not expected <= self._present():
            time.sleep(0.05)

    def _unguarded(self) -> str:
        return ('nothing moves here' if self._station is not None and self._station.backend == 'gym'
                else 'unknown: no guard_status')

    def _present(self) -> set[str]:
        nodes = self._client.node.get_node_names_and_namespaces()
        return {name for name, space in nodes if space == self._client.namespace}

    def _parameters(self) -> dict[str, str]:
        try:
            values = self._client.text_parameters('trial_runner', ('station', 'task'), timeout=2.0)
            if 'arm_control' in self._present():
                values |= self._client.text_parameters('arm_control', ('planner',), timeout=2.0)
            return values
        except RemoteCallError:
            return {}

    def _load_station(self) -> tuple[Station | None, dict[str, Topic]]:
        """The station and its topics by name."""
        try:
            station = load_station(self._settings.get('station') or self._state.get('station_file') or '')
            task = load_task(self._settings.get('task') or self._state['task'])
        except ConfigurationError:
            return None, {}       # a station of another machine: its files are there
        return station, {topic.name: topic for topic in station_topics(station, task)}

    def _listen(self) -> None:
        for topic in self._topics.values():
            if topic.steady or topic.name in STATES or topic.name.endswith('/servo'):
                self._watch(topic)
        time.sleep(SETTLE)

    def _look_at_cameras(self) -> None:
        """Watch the cameras that somebody listens to, by their small camera_info.

        To listen to another would make it render: what sleeps is let sleep.
        """
        self._asleep = []
        for camera in self._station.cameras.values() if self._station is not None else ():
            if camera.info_topic in self._watches:
                continue
            if self._client.node.count_subscribers(camera.image_topic):
                self._watch(self._topics[camera.info_topic])
            else:
                self._asleep.append(camera.image_topic)

    def _watch(self, topic: Topic) -> None:
        watch = self._watches[topic.name] = TopicWatch(topic.steady)
        simulated = self._station.backend == 'sim'

        def on_message(message) -> None:
            now = time.monotonic()
            if topic.name == 'clock':
                self._ros_now = seconds(message.clock)
            elif topic.name in STATES:
                self._note_state(topic.name, message)
            header = getattr(message, 'header', None)
            if header is None or topic.name == 'station_status':       # that one is stamped by the wall clock
                watch.heard(now)
                return
            stamp = seconds(header.stamp)
            if simulated and topic.name == 'joint_states':
                # It brings the time with it: the clock's own message may come a little later.
                self._ros_now = max(self._ros_now or 0.0, stamp) if stamp > (self._ros_now or 0.0) - 1.0 else stamp
            watch.heard(now, stamp, self._ros_now if simulated else time.time())

        qos = IMAGE_QOS if topic.on_demand else HISTORY_QOS if topic.latched else STATE_QOS
        self._client.node.create_subscription(message_class(topic.type), topic.name, on_message, qos)

    def _note_state(self, topic: str, message: DiagnosticStatus) -> None:
        state = read_guard(message)
        if topic == 'guard_status':
            self._guard = state
        elif state.ok:
            self._cameras.pop(message.name, None)
        else:
            self._cameras[message.name] = state.message

    def _runner_state(self) -> dict:
        """What the runner says now: restarts happen while one watches."""
        from enpire_bringup.domain_locks import running_stations

        return next((state for state in running_stations() if self._state['pid'] is not None and (
            state['pid'], state['namespace']) == (self._state['pid'], self._state['namespace'])), {})

    def _processes(self) -> list[tuple[str, psutil.Process | None]]:
        state = {**self._state, **self._runner_state()}
        processes = []
        for name in filter(None, state['nodes']):
            try:
                process = psutil.Process(state['processes'][name])
                process.cpu_percent()      # starts the measurement that `_usage` reads
            except (KeyError, psutil.NoSuchProcess):
                process = None
            processes.append((name, process))
        return processes


def message_class(name: str) -> type:
    """The class of a message type such as "std_msgs/msg/String"."""
    package, _, kind = name.split('/')
    return getattr(import_module(f'{package}.msg'), kind)


def stations_in_graph(domain_id: int) -> list[dict]:
    """States, as far as they can be seen, of stations that no runner of ours started, e.g. by `ros2 launch`."""
    with StationClient('enpire', domain_id) as client:
        time.sleep(GRAPH_LOOK)
        nodes = client.node.get_node_names_and_namespaces()
    spaces = sorted({space for name, space in nodes if name == 'trial_runner'})
    return [{'namespace': space, 'domain': domain_id, 'station': 'unknown', 'task': 'unknown', 'ready': True,
             'pid': None, 'log': 'the log of what started it', 'processes': {},
             'nodes': {'': sorted(name for name, other in nodes if other == space)}} for space in spaces]


def _usage(name: str, process: psutil.Process | None, state: dict) -> dict:
    usage = {'name': name, 'pid': None, 'cpu_percent': 0.0, 'memory_mb': 0,
             'restarts': state.get('restarts', {}).get(name, 0), 'given_up': state.get('given_up', {}).get(name, '')}
    try:
        if process is not None:
            usage.update(pid=process.pid, cpu_percent=process.cpu_percent(),
                         memory_mb=round(process.memory_info().rss / 1e6))
    except psutil.NoSuchProcess:
        pass
    return usage


def _campaign(status) -> dict | None:
    if status is None:
        return None
    fields = ('state', 'campaign', 'phase', 'iteration', 'hypothesis', 'best_recipe', 'best_trials',
              'best_successes', 'trials', 'successes', 'elapsed', 'remaining', 'robot_utilization', 'token_utilization',
              'message')
    values = {field: getattr(status, field) for field in fields}
    values['remaining'] = None if math.isnan(values['remaining']) else values['remaining']
    return values


def problems(report: dict) -> list[str]:
    """What a person should look at, worst first."""
    found = []
    for process in report['processes']:
        if process['given_up']:
            found.append(f"process {process['name']} is missing for good: {process['given_up']}")
        elif process['pid'] is None:
            found.append(f"process {process['name']} is not running; see {report['log']}")
    if report['missing_nodes']:
        found.append(f"nodes missing: {', '.join(report['missing_nodes'])}")
    silent = [name for name, topic in report['topics'].items() if topic['silent']]
    if silent:
        found.append(f"nothing arrives on {', '.join(silent)}")
    found += [f'camera {name}: {why}' for name, why in report['cameras'].items()]
    if report['guard'] == 'error':
        found.append(f"the guard holds: {report['safety']}; when that is resolved: ./enpire clear")
    if report['status'] and report['status']['state'] in ('HELD', 'ERROR'):
        found.append(f"the station says {report['status']['state']}: {report['status']['message']}")
    return found


def status_text(report: dict) -> str:
    """The report as lines for a terminal."""
    lines = [f"{report['namespace']}  {'up' if report['ready'] else 'starting'}: task {report['task']}, station "
             f"{report['station']}, ROS domain {report['domain']}, "
             f"{'runner ' + str(report['pid']) if report['pid'] else 'not started by enpire up'}"]
    for process in report['processes']:
        usage = (f"{process['cpu_percent']:5.0f} % CPU {process['memory_mb']:5d} MB  pid {process['pid']}"
                 if process['pid'] else 'not running')
        restarts = f", restarted {process['restarts']}x" if process['restarts'] else ''
        lines.append(f"  process  {process['name']:<28} {usage}{restarts}")
    total = len(report['nodes']) + len(report['missing_nodes'])
    missing = f"; missing: {', '.join(report['missing_nodes'])}" if report['missing_nodes'] else ''
    lines.append(f"  nodes    {len(report['nodes'])} of {total}{missing}")
    for name, topic in report['topics'].items():
        if name in STATES:      # told below
            continue
        lines.append(f'  topic    {name:<28} {_topic_text(topic)}')
    for name in report['asleep']:
        lines.append(f'  topic    {name:<28} asleep: nobody subscribes')
    pace = report['real_time_factor']
    if pace['measured'] is not None:
        asked = {None: '', 0.0: ', lockstep'}.get(pace['asked'], f", asked for {pace['asked']:g}"
                                                  if pace['asked'] else '')
        lines.append(f"  time     {pace['measured']:.2f} x real time{asked}")
    if report['planner']:
        lines.append(f"  planner  {report['planner']}")
    lines.append(f"  safety   {report['safety']}")
    lines += _status_lines(report['status'])
    lines += [f'  !        {problem}' for problem in report['problems']]
    return '\n'.join(lines)


def _topic_text(topic: dict) -> str:
    if topic['age'] is None:
        return 'no message'
    latency = topic['latency_ms']
    late = f", latency {latency['p50']:.0f} ms, at most {latency['max']:.0f}" if latency else ''
    return f"{topic['rate']:6.1f} Hz, last {topic['age'] * 1000:.0f} ms ago{late}"


def _status_lines(status: dict | None) -> list[str]:
    if status is None:
        return ['  state    unknown: no station_status']
    lines = [f"  state    {status['state']} {status['message']}".rstrip()]
    if status['campaign']:
        left = '' if status['remaining'] is None else f", about {status['remaining'] / 60:.0f} min left"
        lines.append(f"  campaign {status['campaign']}: {status['phase']}, iteration {status['iteration']}, "
                     f"{status['successes']} of {status['trials']} trials succeeded{left}")
        if status['hypothesis']:
            lines.append(f"           {status['hypothesis']}")
        best = (f"best recipe {status['best_recipe'][:10]}: {status['best_successes']} of {status['best_trials']}; "
                if status['best_recipe'] else '')
        lines.append(f"           {best}MRU {100 * status['robot_utilization']:.0f} %, "
                     f"MTU {status['token_utilization']:.0f} tokens a minute")
    return lines
