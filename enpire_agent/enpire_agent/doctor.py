"""Looks whether this machine can run a station: what `enpire doctor` shows.

Every check is a function of its inputs that returns one Finding; none of them needs another to have succeeded.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Callable, Iterable, Mapping

OK, WARNING, ERROR = 'ok', 'warning', 'error'

PYTHONS = ((3, 11), (3, 12))
MESSAGE_PACKAGES = ('enpire_msgs', 'control_msgs', 'tf2_msgs', 'sensor_msgs', 'nav_msgs', 'visualization_msgs',
                    'diagnostic_msgs', 'trajectory_msgs')
LOW_DISK, NO_DISK = 5e9, 5e8             # bytes
SLOW_FSYNC = 0.2                         # s for a ledger line
LOW_MEMORY = 2e9                         # bytes
STATION_SHARED_MEMORY = 64e6             # bytes in /dev/shm that a station's image segments need
LATE_TIMER = 0.010                       # s: a third of a camera's period
SLOW_FRAME = 0.030                       # s: one period of a 30 Hz camera
LARGE_SKEW = 0.05                        # s off the time servers; a fleet compares wall clocks
OLDEST_GIT = (2, 30)
WORLD_WITHIN = 60.0                      # s of wall time for the world's probe
IMAGES_WITHIN = 5.0                      # s of wall time for every camera of a running station
_STA_UNSYNC, _TIME_ERROR = 0x40, 5       # sys/timex.h


@dataclass(frozen=True)
class Finding:
    """What one check found. way_out: what to type or do; empty when all is well. figures: the numbers behind it."""

    check: str
    level: str
    text: str
    way_out: str = ''
    figures: Mapping[str, Any] = field(default_factory=dict)


def examine(station: str, task: str, view_port: int, domain_states: Iterable[dict]) -> list[Finding]:
    """Every check, in an order that a person can work through. station, task: names or paths.

    domain_states: the stations of this folder that run, as `running_stations()` gives them.
    """
    from enpire_bringup.paths import runs_directory
    from enpire_bringup.process_environment import environment_domain, prepare_environment

    prepare_environment()
    states = list(domain_states)
    probe = _Background(lambda: probe_world(station, task))      # the slowest, beside all the others
    jitter = timer_lateness()
    findings = [python_version(sys.version_info[:2], sys.prefix), ros(importlib.import_module)]
    findings += _guarded('ROS domain', lambda: [_domain(environment_domain(), states)])
    findings += station_files(station, task)
    findings += [
        disk(runs_directory(), shutil.disk_usage(_existing(runs_directory())).free),
        ports(view_port, _tcp_port_is_free(view_port)),
        clocks(_clock_state(), jitter),
        *_guarded('machine', _machine), shared_memory(_free_bytes(Path('/dev/shm'))),
        *_guarded('isolation', lambda: [isolation(isolation_of_a_program())]),
        git(git_version()), *_guarded('coding agents', lambda: _agents(states, station))]
    for state in states:
        findings += _guarded('cameras', lambda state=state: [running_cameras(state)])
    if not states:
        findings += _guarded('cameras', lambda: [resting_cameras(station, list(Path('/dev').glob('video*')))])
    return findings + [world(probe.result())]


def python_version(version: tuple[int, int], prefix: str) -> Finding:
    text = f'{version[0]}.{version[1]} in {prefix}'
    if version in PYTHONS:
        return Finding('Python', OK, text)
    known = ' or '.join(f'{major}.{minor}' for major, minor in PYTHONS)
    return Finding('Python', ERROR, f'{text}; the ROS 2 wheels need {known}',
                   'sudo apt-get install -y python3.11 python3.11-venv python3.11-dev; rm -rf .venv; make setup')


def ros(load: Callable[[str], Any], environment: Mapping[str, str] = os.environ) -> Finding:
    """load: imports a module by name."""
    try:
        load('rclpy')
        implementation = load('rclpy.utilities').get_rmw_implementation_identifier()
    except Exception as error:      # also what a broken library raises
        return Finding('ROS', ERROR, f'rclpy cannot be loaded: {error}',
                       'make setup (a ROS 2 that is sourced must be Jazzy or later)')
    missing = []
    for package in MESSAGE_PACKAGES:
        try:
            load(f'{package}.msg')
        except Exception:
            missing.append(package)
    if missing:
        return Finding('ROS', ERROR, f"message packages missing: {', '.join(missing)}", 'rm -rf build install; make setup')
    source = f"ROS 2 {environment['ROS_DISTRO']}" if environment.get('ROS_DISTRO') else 'ROS 2 from wheels'
    reach = environment.get('ROS_AUTOMATIC_DISCOVERY_RANGE', 'SUBNET')
    return Finding('ROS', OK, f'{source}, {implementation}, discovery range {reach}, all messages there',
                   figures={'rmw': implementation, 'discovery_range': reach})


def domain(number: int, states: list[dict], nodes: list[str], ports_free: bool) -> Finding:
    """nodes: full names of the nodes that answer in the domain. ports_free: nobody has the domain's UDP ports."""
    figures = {'domain': number, 'nodes': len(nodes)}
    here = [state['namespace'] for state in states if state['domain'] == number]
    foreign = [name for name in nodes if not any(name.startswith(f'{space}/') for space in here)]
    if here:
        return Finding('ROS domain', OK, f"{number}, in which {', '.join(here)} of this folder runs", figures=figures)
    if foreign:
        return Finding('ROS domain', WARNING, f'{number} has nodes of somebody else: {", ".join(sorted(foreign)[:5])}',
                       f'export ROS_DOMAIN_ID={number + 1 if number < 100 else 1}, unless they are yours', figures)
    if not ports_free:
        return Finding('ROS domain', WARNING, f'{number}: something that is no ROS node has its UDP ports '
                       f'{7400 + 250 * number} and following', f'export ROS_DOMAIN_ID={number + 1 if number < 100 else 1}',
                       figures)
    return Finding('ROS domain', OK, f'{number}, in which nothing answers', figures=figures)


def station_files(station: str, task: str) -> list[Finding]:
    """Whether the files can be read, agree, and every arm has kinematics that reach its home position."""
    from enpire_bringup.configuration import ConfigurationError

    name = f'{station} with {task}'
    try:
        from enpire_bringup.composition import check_fit
        from enpire_bringup.guard import guard_limits
        from enpire_bringup.gym_task import GymTask
        from enpire_bringup.robot_description import LinkTransforms, robot_description
        from enpire_bringup.station import load_station
        from enpire_bringup.task import load_task

        loaded, loaded_task = load_station(station), load_task(task)
        if isinstance(loaded_task, GymTask):
            check_fit(loaded, loaded_task)
            return [Finding('station and task', OK, f'{loaded.name}: world {loaded_task.gym.id}, backend gym; task '
                                                    f'{loaded_task.name}')]
        guard_limits(loaded, loaded_task)
        links = LinkTransforms(robot_description(loaded))
        for arm in loaded.arms.values():
            links.pose(arm.tcp_frame, dict(zip(arm.joints, arm.named['home'])))
    except (ConfigurationError, KeyError, ValueError) as error:
        return [Finding('station and task', ERROR, f'{name}: {error}', 'mend the file and key that it names')]
    except Exception as error:
        return [Finding('station and task', ERROR, f'{name}: {error!r}', 'make setup')]
    return [Finding('station and task', OK,
                    f"{loaded.name}: {len(loaded.arms)} arm(s), {len(loaded.cameras)} camera(s), backend "
                    f'{loaded.backend}; task {loaded_task.name}')]


def disk(folder: Path, free: float) -> Finding:
    """Space where results go, and how long a ledger line takes to be safe on it."""
    try:
        seconds = fsync_seconds(_existing(folder))
    except OSError as error:
        return Finding('disk', ERROR, f'cannot write to {folder}: {error.strerror}',
                       'export ENPIRE_RUNS=<a folder that you may write to>')
    figures = {'free_gb': round(free / 1e9, 1), 'fsync_ms': round(1e3 * seconds, 1)}
    text = f"{figures['free_gb']} GB free in {folder}, fsync {figures['fsync_ms']} ms"
    if free < NO_DISK:
        return Finding('disk', ERROR, text, 'make room, or export ENPIRE_RUNS=<folder on another disk>', figures)
    if free < LOW_DISK:
        return Finding('disk', WARNING, f'{text}; a night of trials needs more', 'make room (old folders of runs/)',
                       figures)
    if seconds > SLOW_FSYNC:
        return Finding('disk', WARNING, f'{text}, which slows every trial', 'export ENPIRE_RUNS=<folder on a local disk>',
                       figures)
    return Finding('disk', OK, text, figures=figures)


def ports(view_port: int, view_is_free: bool) -> Finding:
    if view_is_free:
        return Finding('ports', OK, f'port {view_port} is free for ./enpire view')
    return Finding('ports', WARNING, f'port {view_port}, which ./enpire view uses, is taken',
                   f'./enpire view --port {view_port + 1}')


def clocks(state: dict | None, lateness: list[float]) -> Finding:
    """state: {synchronized, offset s, error s} of the system clock, None where unknown. lateness: s, of short sleeps."""
    worst = sorted(lateness)[int(0.99 * (len(lateness) - 1))]
    figures = {'late_ms': {'p50': round(1e3 * statistics.median(lateness), 2), 'p99': round(1e3 * worst, 2)}}
    text = f"timers wake {figures['late_ms']['p50']} ms late, p99 {figures['late_ms']['p99']} ms"
    if state is not None:
        figures.update(state)
        text += '; wall clock ' + ('follows time servers' if state['synchronized'] else 'follows no time server')
    if worst > LATE_TIMER:
        return Finding('clocks', WARNING, f'{text}: real-time pacing will stutter',
                       'end other work on this machine, or run in lockstep (--real-time-factor 0)', figures)
    if state is not None and abs(state['offset']) > LARGE_SKEW:
        return Finding('clocks', WARNING, f"{text}, {state['offset']:.3f} s off", 'sudo chronyc makestep', figures)
    if state is not None and not state['synchronized']:
        return Finding('clocks', OK, f'{text}; that matters only for a fleet on several machines', figures=figures)
    return Finding('clocks', OK, text, figures=figures)


def machine(cores: int, load: float, memory: float) -> Finding:
    """cores; load: running tasks over the last minute; memory: bytes available."""
    figures = {'cores': cores, 'load': round(load, 2), 'memory_gb': round(memory / 1e9, 1)}
    text = f"{cores} core(s), load {figures['load']}, {figures['memory_gb']} GB of memory available"
    if memory < LOW_MEMORY:
        return Finding('machine', ERROR, f'{text}; a station takes 1 GB', 'end other programs', figures)
    if cores < 2:
        return Finding('machine', WARNING, f'{text}; real time needs two cores', './enpire up --real-time-factor 0',
                       figures)
    if load > cores:
        return Finding('machine', WARNING, f'{text}: busy', 'wait, or end other work, before measuring anything', figures)
    return Finding('machine', OK, text, figures=figures)


def shared_memory(free: float | None) -> Finding:
    """free: bytes in /dev/shm, None where there is none."""
    if free is None:
        return Finding('shared memory', WARNING, 'there is no /dev/shm; images go over the network stack, slowly',
                       'mount it: sudo mount -t tmpfs tmpfs /dev/shm')
    figures = {'free_mb': round(free / 1e6)}
    if free < STATION_SHARED_MEMORY:
        return Finding('shared memory', WARNING, f"only {figures['free_mb']} MB free in /dev/shm; images need "
                       f'{STATION_SHARED_MEMORY / 1e6:.0f} MB', 'in a container: docker run --shm-size=1g; else remove '
                       'what killed programs left: rm /dev/shm/fastdds_*', figures)
    return Finding('shared memory', OK, f"{figures['free_mb']} MB free in /dev/shm", figures=figures)


def isolation(level: str) -> Finding:
    """level: what keeps a program here, as it is recorded of a policy (program_isolation.py)."""
    from enpire_bringup.program_isolation import WEAK, is_weak

    figures = {'level': level}
    if is_weak(level):
        said, _, way_out = WEAK.partition(' Way out: ')
        return Finding('isolation', WARNING, f'{level}: {said}', way_out, figures)
    return Finding('isolation', OK, f'{level}: policies and training code reach no results and no other process',
                   figures=figures)


def isolation_of_a_program() -> str:
    """What in fact holds one that is run now."""
    from enpire_bringup.program_process import ProgramProcess

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, 'probe.py')
        file.write_text('class Probe:\n    def __init__(self, config):\n        pass\n', encoding='utf-8')
        with ProgramProcess(file, 'Probe', {}) as program:
            return program.isolation


def git(version: str) -> Finding:
    """version: what `git --version` prints, empty where there is no git."""
    number = re.search(r'(\d+)\.(\d+)', version)
    if number is None:
        return Finding('git', ERROR, 'git is not installed; recipes live in Git', 'sudo apt-get install -y git')
    if tuple(map(int, number.groups())) < OLDEST_GIT:
        return Finding('git', ERROR, f'git {number[0]} is too old for the recipes; {OLDEST_GIT[0]}.{OLDEST_GIT[1]} or '
                                     'later is needed', 'sudo apt-get install -y git')
    return Finding('git', OK, f'{number[0]}; recipes are committed in the name of the station, whatever is configured')


def resting_cameras(station: str, devices: list[Path]) -> Finding:
    """The cameras of a station that does not run. devices: /dev/video*."""
    from enpire_bringup.station import load_station

    loaded = load_station(station)
    names = ', '.join(loaded.cameras)
    if loaded.backend == 'gym':
        return Finding('cameras', OK, 'none: the world draws itself')
    if loaded.backend == 'sim':
        return Finding('cameras', OK, f'{names}: simulated; with a station up this looks at their images')
    if len(devices) < len(loaded.cameras):
        return Finding('cameras', ERROR, f'{names}: {len(loaded.cameras)} cameras, but {len(devices)} video devices',
                       'ls -l /dev/video*; check cables and the driver of the cameras')
    return Finding('cameras', OK, f"{names}; devices: {', '.join(map(str, sorted(devices)))}")


def running_cameras(state: dict) -> Finding:
    """Whether images of every camera of a running station come."""
    from enpire_agent.remote_station import Station, StationCallError

    waited: dict[str, float | str] = {}
    with Station(state['namespace'], domain=state['domain']) as station:
        def look(camera: str) -> None:
            began = time.monotonic()
            try:
                station.image(camera, timeout=IMAGES_WITHIN)
                waited[camera] = round(time.monotonic() - began, 2)
            except StationCallError as error:
                waited[camera] = str(error)

        threads = [threading.Thread(target=look, args=(camera,)) for camera in station.config.cameras]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(2 * IMAGES_WITHIN)
    return camera_images(state['namespace'], waited)


def camera_images(namespace: str, waited: Mapping[str, float | str]) -> Finding:
    """waited: by camera, s until an image came, or why none did."""
    silent = {camera: reason for camera, reason in waited.items() if isinstance(reason, str)}
    if silent:
        return Finding('cameras', ERROR, '; '.join(f'{camera}: {reason}' for camera, reason in silent.items()),
                       "./enpire status; see the log of the process 'cameras' that it names")
    return Finding('cameras', OK, f'{namespace}: an image of each of {", ".join(waited)}', figures=dict(waited))


def world(probed: dict) -> Finding:
    """probed: what `probe_world` gives."""
    if 'error' in probed:
        return Finding('world and GL', ERROR, probed['error'], probed.get('way_out') or
                       'sudo apt-get install -y libosmesa6, or export MUJOCO_GL=egl on a machine with a GPU')
    text = (f"{probed['backend']}: a frame of {probed['width']}x{probed['height']} in {probed['frame_ms']:.1f} ms; "
            f"a step of physics in {probed['step_ms']:.2f} ms")
    if probed['frame_ms'] > 1e3 * SLOW_FRAME:
        return Finding('world and GL', WARNING, f'{text}, too slow for 30 Hz in real time',
                       './enpire up --camera-size 320x240, or --real-time-factor 0', probed)
    return Finding('world and GL', OK, text, figures=probed)


def probe_world(station: str, task: str) -> dict:
    """Build the world and draw a frame in a process of its own: a broken GL library ends the whole process.

    Returns backend, width, height, frame_ms, step_ms, or error (and way_out).
    """
    code = ('import json, sys\nfrom enpire_agent.doctor import draw_frame\n'
            'print(json.dumps(draw_frame(sys.argv[1], sys.argv[2])))')
    try:
        ended = subprocess.run([sys.executable, '-c', code, station, task], capture_output=True, text=True,
                               timeout=WORLD_WITHIN)
    except subprocess.TimeoutExpired:
        return {'error': f'no frame within {WORLD_WITHIN:.0f} s'}
    lines = ended.stdout.strip().splitlines()
    if ended.returncode == 0 and lines:
        return json.loads(lines[-1])
    last = (ended.stderr.strip().splitlines() or ['no message'])[-1]
    return {'error': f"drawing with MUJOCO_GL={os.environ.get('MUJOCO_GL', '')} failed: {last}"}


def draw_frame(station: str, task: str) -> dict:
    """The probe itself; called in a process of its own."""
    from dataclasses import replace

    from enpire_bringup.configuration import ConfigurationError
    from enpire_bringup.gym_task import GymTask
    from enpire_bringup.station import load_station
    from enpire_bringup.task import load_task
    from enpire_bringup.world import Renderer, World

    try:
        loaded, loaded_task = load_station(station), load_task(task)
        if isinstance(loaded_task, GymTask):
            return _draw_gym_frame(loaded_task)
        simulated = World(replace(loaded, backend='sim'), loaded_task)
    except ConfigurationError as error:
        return {'error': f'the world cannot be built: {error}', 'way_out': 'mend the file and key that it names'}
    simulated.reset(0)
    targets = dict(zip(*simulated.joint_state()[:2]))
    step = _median_ms(lambda: simulated.step(targets), 20)
    renderer = Renderer(loaded, loaded_task)
    camera = loaded.cameras[next(iter(loaded_task.objects.values())).camera]
    frame = _median_ms(lambda: renderer.render(camera.name, simulated.state()), 5)
    return {'backend': renderer.backend, 'width': camera.width, 'height': camera.height, 'frame_ms': frame,
            'step_ms': step}


def _draw_gym_frame(task) -> dict:
    """Raises ConfigurationError."""
    from enpire_bringup.gym_world import GymWorld

    drawn = GymWorld(task, drawn=True)
    hold = task.action.hold_in(drawn.reset(0).observation)
    step = _median_ms(lambda: drawn.step(hold), 5)
    image = drawn.image()
    height, width = image.shape[:2] if image is not None else (0, 0)
    return {'backend': task.gym.id, 'width': width, 'height': height, 'frame_ms': _median_ms(drawn.image, 5),
            'step_ms': step}


def _median_ms(work: Callable[[], Any], count: int) -> float:
    times = []
    for _ in range(count):
        began = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - began))
    return round(statistics.median(times), 3)


# --- what the checks look at ---

def timer_lateness(count: int = 150, period: float = 0.002) -> list[float]:
    """s by which sleeps of `period` s end late."""
    late = []
    for _ in range(count):
        began = time.monotonic()
        time.sleep(period)
        late.append(time.monotonic() - began - period)
    return late


def fsync_seconds(folder: Path) -> float:
    """Median s to write a ledger line to a file of this folder and fsync it."""
    times = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(5):
            began = time.monotonic()
            file.write(b'x' * 1000)
            file.flush()
            os.fsync(file.fileno())
            times.append(time.monotonic() - began)
    return statistics.median(times)


def git_version() -> str:
    return subprocess.run(['git', '--version'], capture_output=True, text=True).stdout if shutil.which('git') else ''


class _Timex(ctypes.Structure):
    """struct timex of sys/timex.h, as far as it is read; `rest` covers the remaining fields."""

    _fields_ = [('modes', ctypes.c_int), ('offset', ctypes.c_long), ('freq', ctypes.c_long),
                ('maxerror', ctypes.c_long), ('esterror', ctypes.c_long), ('status', ctypes.c_int),
                ('rest', ctypes.c_char * 256)]


def _clock_state() -> dict | None:
    timex = _Timex()
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.byref(timex))
    except (AttributeError, OSError):
        return None
    if state < 0:
        return None
    unit = 1e-9 if timex.status & 0x2000 else 1e-6      # STA_NANO
    return {'synchronized': state != _TIME_ERROR and not timex.status & _STA_UNSYNC, 'offset': timex.offset * unit}


def _domain(number: int, states: list[dict]) -> Finding:
    from enpire_bringup.domain_locks import domain_is_used

    ports_free = not domain_is_used(number)      # before a participant of our own takes them
    return domain(number, states, _nodes_in(number), ports_free)


def _nodes_in(domain_id: int) -> list[str]:
    from enpire_agent.station_client import StationClient
    from enpire_agent.station_report import GRAPH_LOOK

    with StationClient('enpire', domain_id) as client:
        time.sleep(GRAPH_LOOK)
        nodes = client.node.get_node_names_and_namespaces()
    return [f"{space.rstrip('/')}/{name}" for name, space in nodes
            if not name.startswith(('enpire_client_', '_'))]


def _agents(states: list[dict], station: str) -> list[Finding]:
    from enpire_agent.agent_programs import agent_findings
    from enpire_agent.researchers import read_researcher
    from enpire_bringup.paths import runs_directory
    from enpire_bringup.station import load_station

    wanted = read_researcher(load_station(station).researcher)
    stations = [state['namespace'].strip('/') for state in states] or ['station_1']
    return agent_findings(runs_directory(), stations[0], wanted.name, wanted.settings)


def _machine() -> list[Finding]:
    import psutil

    return [machine(len(os.sched_getaffinity(0)), os.getloadavg()[0], psutil.virtual_memory().available)]


def _tcp_port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(('127.0.0.1', port))
        except OSError:
            return False
    return True


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    while not folder.is_dir():
        folder = folder.parent
    return folder


def _free_bytes(folder: Path) -> float | None:
    return shutil.disk_usage(folder).free if folder.is_dir() else None


def _guarded(check: str, look: Callable[[], list[Finding]]) -> list[Finding]:
    """A check that breaks says so, and lets the others go on."""
    try:
        return look()
    except Exception as error:
        return [Finding(check, ERROR, f'could not be checked: {error}', 'make setup')]


class _Background:
    """Runs a function in a thread; `result()` waits for what it returns."""

    def __init__(self, work: Callable[[], dict]):
        self._result: dict = {'error': 'the probe did not answer'}
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[], dict]) -> None:
        self._result = work()

    def result(self) -> dict:
        self._thread.join(WORLD_WITHIN + 5.0)
        return self._result


# --- what a person reads ---

def findings_text(findings: list[Finding]) -> str:
    marks = {OK: 'ok      ', WARNING: 'warning ', ERROR: 'ERROR   '}
    lines = []
    for finding in findings:
        lines.append(f'{marks[finding.level]} {finding.check:<17} {finding.text}')
        if finding.way_out:
            lines.append(f'{"":26} -> {finding.way_out}')
    count = {level: sum(finding.level == level for finding in findings) for level in (WARNING, ERROR)}
    lines.append('ready' + (f", with {count[WARNING]} warning(s)" if count[WARNING] else '') if not count[ERROR] else
                 f'not ready: {count[ERROR]} error(s), {count[WARNING]} warning(s)')
    return '\n'.join(lines)


def findings_json(findings: list[Finding]) -> dict:
    return {'ready': not any(finding.level == ERROR for finding in findings),
            'checks': [asdict(finding) for finding in findings]}
