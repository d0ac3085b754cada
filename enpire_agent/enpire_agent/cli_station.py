"""Verbs about a station itself: up, down, status, home, reset, trial."""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time

DEFAULT_VIEW_PORT = 8080
STATION_HELP = 'name or file; default: the one that goes with the task'
RESEARCHER_HELP = ('builtin, codex, claude_code, kimi_code, or a settings file (.yaml), docs/coding_agents.md; '
                   "default: the station's")
DEFAULT_TASK = 'push_t'
DOWN_WITHIN = 6.0          # s a runner gets to end its stations
STATUS_LISTENS = 2.0       # s of wall time over which `status` counts messages


def add_verbs(verbs) -> None:
    up = verbs.add_parser('up', help='start one or more stations and keep them running')
    add_station_options(up)
    up.add_argument('--stations', type=int, default=1, metavar='N', help='how many, as station_1 ... station_N')
    up.add_argument('--namespace', help='namespace of a single station instead of station_1')
    up.add_argument('--remote', default='', metavar='URL',
                    help='Git repository that kept recipes travel through: a path or any URL; default: a bare one in the '
                         "campaign's folder")
    up.add_argument('--researcher', default='', metavar='NAME', help=RESEARCHER_HELP)
    up.add_argument('--detach', action='store_true', help="return when ready; 'enpire down' ends the stations")
    up.set_defaults(run=run_up)

    down = verbs.add_parser('down', help='end what ./enpire up started from this folder')
    down.add_argument('--namespace', help='the runner of this station')
    down.add_argument('--all', action='store_true', help='every runner of this folder')
    down.set_defaults(run=run_down)

    status = verbs.add_parser('status', help='processes, topics, safety and campaign of the running stations')
    status.add_argument('--namespace', help='only this station')
    status.add_argument('--json', action='store_true', help='as JSON')
    status.add_argument('--watch', action='store_true', help='again and again, until Ctrl-C')
    status.set_defaults(run=run_status)

    doctor = verbs.add_parser('doctor', help='look whether this machine can run a station, and say what to type')
    doctor.add_argument('--station', default=None, metavar='NAME', help=STATION_HELP)
    doctor.add_argument('--task', default=DEFAULT_TASK, metavar='NAME', help='name or folder')
    doctor.add_argument('--json', action='store_true', help='as JSON')
    doctor.set_defaults(run=run_doctor)

    home = verbs.add_parser('home', help='move the arms to their home position')
    _add_namespace(home)
    home.add_argument('--arm', help='only this arm')
    home.set_defaults(run=run_home)

    check = verbs.add_parser('check', help='look whether a simulated station fits a task; docs/your_robot.md')
    check.add_argument('--station', default=None, metavar='NAME', help=STATION_HELP)
    check.add_argument('--task', default=DEFAULT_TASK, metavar='NAME', help='name or folder')
    check.add_argument('--pictures', default='', metavar='FOLDER', help='save what every camera sees')
    check.set_defaults(run=run_check)

    python = verbs.add_parser('python', help='Python with the suite in it: a script, or a prompt; docs/python_client.md')
    python.add_argument('arguments', nargs=argparse.REMAINDER, metavar='...', help='a script and its arguments')
    python.set_defaults(run=run_python)

    rviz = verbs.add_parser('rviz', help='show a running station in RViz')
    _add_namespace(rviz)
    rviz.add_argument('--write', default='', metavar='FILE', help='only write the configuration')
    rviz.set_defaults(run=run_rviz)

    view = verbs.add_parser('view', help='show a running station in the browser')
    _add_namespace(view)
    view.add_argument('--port', type=_port, default=DEFAULT_VIEW_PORT, metavar='N', help='default: %(default)s')
    view.add_argument('--host', default='127.0.0.1', metavar='ADDRESS',
                      help='default: %(default)s, which only this machine reaches')
    view.set_defaults(run=run_view)

    clear = verbs.add_parser('clear', help='let the arms move again after the guard stopped them')
    _add_namespace(clear)
    clear.set_defaults(run=run_clear)

    reset = verbs.add_parser('reset', help='bring the objects to the start state of a seed')
    _add_namespace(reset)
    reset.add_argument('--seed', type=int, default=0)
    reset.set_defaults(run=run_reset)

    trial = verbs.add_parser('trial', help='reset, run a recipe, judge, record')
    _add_namespace(trial)
    trial.add_argument('--recipe', default='', metavar='FOLDER',
                       help="default: the one of this folder in a campaign, else the task's own")
    trial.add_argument('--seed', type=int, default=None, help='default: 0, of a campaign the next of a stream')
    trial.add_argument('--campaign', default='', help='default: manual')
    trial.set_defaults(run=run_trial)


def add_station_options(parser: argparse.ArgumentParser) -> None:
    """The options that choose and override a station and its task."""
    parser.add_argument('--station', default=None, metavar='NAME', help=STATION_HELP)
    parser.add_argument('--task', default=DEFAULT_TASK, metavar='NAME', help='name or folder')
    parser.add_argument('--real-time-factor', type=float, default=math.nan, metavar='F',
                        help="0: lockstep, as fast as the machine can; 1: wall clock; default: the station file's")
    parser.add_argument('--camera-size', type=_size, default=(0, 0), metavar='WxH', help='e.g. 320x240')


def _add_namespace(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--namespace', help='which station; default: the one that runs, else station_1')


def _port(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is no port; expected a whole number from 1 to 65535")
    return int(text)


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition('x')
    if not (width.isdigit() and height.isdigit()):
        raise argparse.ArgumentTypeError(f"'{text}' is no size; write e.g. 320x240")
    return int(width), int(height)


def researcher_argument(text: str) -> str:
    """A researcher as nodes take it: they have another current folder. Raises ConfigurationError."""
    from pathlib import Path

    from enpire_agent.researchers import read_researcher
    from enpire_bringup.station import researcher_name

    said = researcher_name(text, Path.cwd())
    read_researcher(said)
    return said


def run_up(options) -> int:
    from enpire_bringup.composition import station_namespaces
    from enpire_bringup.process_runner import Fleet, StationProcesses

    if options.detach:
        return _up_detached()
    namespaces = [options.namespace] if options.namespace else station_namespaces(options.stations)
    if options.namespace and options.stations != 1:
        from enpire_bringup.configuration import ConfigurationError
        raise ConfigurationError('--namespace names one station; give it without --stations')
    started = time.monotonic()
    width, height = options.camera_size
    researcher = researcher_argument(options.researcher)
    fleet = Fleet([StationProcesses(options.station, options.task, namespace,
                                    real_time_factor=options.real_time_factor, camera_width=width,
                                    camera_height=height,
                                    node_parameters={'git_bridge': {'remote': options.remote},
                                                     'supervisor': {'researcher': researcher}})
                   for namespace in namespaces])
    ended = threading.Event()
    # `enpire down` ends a runner with SIGTERM: that is no interruption but the planned end.
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    print(f"enpire: starting {', '.join(namespaces)} ...", flush=True)
    with fleet:
        first = fleet.stations[0]
        print(f"enpire: {', '.join(namespaces)} up after {time.monotonic() - started:.1f} s: task {first.task.name}, "
              f'station {first.station.name}, ROS domain {first.domain_id}, logs {first.log_directory}\n'
              f'        in another terminal: ./enpire status | trial | campaign | down; Ctrl-C here ends all',
              flush=True)
        ended.wait()
    print('enpire: down', flush=True)
    return 0


def _up_detached() -> int:
    from enpire_bringup.paths import runs_directory
    from enpire_bringup.domain_locks import running_stations

    arguments = [argument for argument in sys.argv[1:] if argument != '--detach']
    log = runs_directory() / '.stations' / 'up.log'
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open('w') as output:
        runner = subprocess.Popen([sys.executable, '-m', 'enpire_agent.cli', *arguments], stdin=subprocess.DEVNULL,
                                  stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        while runner.poll() is None:
            states = [state for state in running_stations() if state['pid'] == runner.pid]
            if ' up after ' in log.read_text() and states and all(state['ready'] for state in states):
                print(log.read_text().splitlines()[-2])
                print("        runs in the background; './enpire down' ends it")
                return 0
            time.sleep(0.1)
    except BaseException:
        runner.terminate()
        runner.wait()
        raise
    sys.stderr.write(log.read_text())
    return runner.returncode


def connect(namespace: str | None):
    """A StationClient of the station meant by `--namespace`."""
    from enpire_agent.local_stations import choose_station
    from enpire_agent.station_client import StationClient

    return StationClient(*choose_station(namespace))


def run_down(options) -> int:
    import psutil

    from enpire_agent.local_stations import our_stations
    from enpire_bringup.configuration import ConfigurationError

    states = our_stations(options.namespace)
    if not states:
        print('enpire: no station of this folder is running')
        return 0
    by_runner = _by_runner(states)
    if len(by_runner) > 1 and not options.all:
        raise ConfigurationError(
            f"{len(by_runner)} runners are up: {'; '.join(by_runner.values())}. Say which: ROS_DOMAIN_ID=N "
            './enpire down, ./enpire down --namespace NAME, or ./enpire down --all')
    for what in by_runner.values():
        print(f'enpire: ending {what}', flush=True)
    runners = []
    for pid in sorted(by_runner):
        try:
            runners.append(psutil.Process(pid))
            runners[-1].terminate()
        except psutil.NoSuchProcess:
            pass
    _, alive = psutil.wait_procs(runners, timeout=DOWN_WITHIN)
    for runner in alive:
        runner.kill()        # its processes notice and end by themselves
    names = ', '.join(state['namespace'] for state in states)
    print(f'enpire: {names} down' + (' (the runner had to be killed)' if alive else ''))
    return 0


def _by_runner(states: list[dict]) -> dict[int, str]:
    """What each runner keeps up, by its process id."""
    stations: dict[int, list[dict]] = {}
    for state in states:
        stations.setdefault(state['pid'], []).append(state)
    return {pid: f"{', '.join(state['namespace'] for state in group)} in ROS domain {group[0]['domain']} (runner {pid})"
            for pid, group in stations.items()}


def run_status(options) -> int:
    from contextlib import ExitStack

    from enpire_agent.local_stations import our_stations
    from enpire_agent.station_report import StationObserver, stations_in_graph
    from enpire_bringup.process_environment import environment_domain

    states = our_stations(options.namespace) or [
        state for state in stations_in_graph(environment_domain())
        if options.namespace in (None, state['namespace'].strip('/'))]
    if not states:
        print('[]' if options.json else
              f"enpire: no station is running in ROS domain {environment_domain()}; './enpire up' starts one")
        return 1
    with ExitStack() as stack:
        observers = [stack.enter_context(StationObserver(state)) for state in states]
        while True:
            reports = [observer.observe(STATUS_LISTENS / len(observers)) for observer in observers]
            _show_reports(reports, options)
            if not options.watch:
                return 1 if any(report['problems'] for report in reports) else 0


def _show_reports(reports: list[dict], options) -> None:
    from enpire_agent.station_report import status_text

    if options.json:
        print(json.dumps(reports, indent=None if options.watch else 2), flush=True)
        return
    if options.watch and sys.stdout.isatty():
        print('\033[2J\033[H', end='')      # clear the terminal
    print('\n\n'.join(status_text(report) for report in reports), flush=True)


def run_doctor(options) -> int:
    from enpire_agent.doctor import examine, findings_json, findings_text
    from enpire_agent.local_stations import our_stations

    findings = examine(options.station, options.task, DEFAULT_VIEW_PORT, our_stations())
    summary = findings_json(findings)
    print(json.dumps(summary, indent=2) if options.json else findings_text(findings))
    return 0 if summary['ready'] else 1


def run_home(options) -> int:
    from enpire_agent.remote_station import Station, StationCallError

    with Station(options.namespace or '') as station:
        try:
            for arm in [options.arm] if options.arm else station.config.arms:
                print(f'enpire: {arm}: home ({station.move(arm, named="home").duration:.1f} s)')
        except StationCallError as error:
            print(f'enpire: {error}')
            return 1
    return 0


def run_check(options) -> int:
    from enpire_bringup.process_environment import prepare_environment
    from enpire_bringup.station_check import run

    prepare_environment()
    return run(options.station, options.task, options.pictures)


def run_python(options) -> int:
    from enpire_bringup.process_environment import prepare_environment

    prepare_environment()
    # `enpire python -- -m module`: what begins with a dash needs the two dashes before it.
    arguments = options.arguments[1:] if options.arguments[:1] == ['--'] else options.arguments
    os.execv(sys.executable, [sys.executable, *arguments])


def run_rviz(options) -> int:
    import shutil
    from pathlib import Path

    from enpire_agent.remote_station import Station
    from enpire_bringup.configuration import ConfigurationError
    from enpire_bringup.paths import runs_directory
    from enpire_bringup.rviz_configuration import rviz_arguments, write_rviz_configuration

    with Station(options.namespace or '') as station:
        station.need_arms()
        name, domain, config, task = station.name, station.domain, station.config, station.task
    file = Path(options.write) if options.write else runs_directory() / '.stations' / name / 'station.rviz'
    write_rviz_configuration(config, task, file.resolve())
    arguments = rviz_arguments(file.resolve(), f'/{name}')
    if options.write:
        print(f"enpire: ROS_DOMAIN_ID={domain} rviz2 {' '.join(arguments)}")
        return 0
    if shutil.which('rviz2') is None:
        raise ConfigurationError('rviz2 is not installed here (the wheels do not have it): sudo apt-get install '
                                 "ros-$ROS_DISTRO-rviz2, or './enpire view' for a page in the browser")
    return subprocess.run(['rviz2', *arguments], env={**os.environ, 'ROS_DOMAIN_ID': str(domain)}).returncode


def run_view(options) -> int:
    from enpire_agent.remote_station import Station
    from enpire_agent.station_page import show_station

    with Station(options.namespace or '') as station:
        station.need_arms()
        show_station(station, options.host, options.port,
                     lambda url: print(f'enpire: /{station.name} at {url} (Ctrl-C ends the page)', flush=True))
    return 0


def run_clear(options) -> int:
    from enpire_agent.remote_station import Station

    with Station(options.namespace or '') as station:
        print(f'enpire: {station.clear_guard()}')
    return 0


def run_reset(options) -> int:
    from enpire_agent.remote_station import Station

    with Station(options.namespace or '') as station:
        result = station.reset(options.seed, progress=_say_stage)
    off = ('' if math.isnan(result.position_error) else f'{result.position_error * 1000:.1f} mm, '
           f'{math.degrees(result.yaw_error):.1f} degrees off ')
    print(f'enpire: reset {"reached" if result.success else "missed"} the start of seed {options.seed}: {off}'
          f'after {result.attempts} attempts, {result.duration:.1f} s. {result.message}')
    if result.picture:
        print(f'        what it saw last: {result.picture}')
    return 0 if result.success else 1


def run_trial(options) -> int:
    from enpire_agent.agent_place import place_at_work
    from enpire_agent.remote_station import Station

    place = place_at_work()
    if place is not None and not options.campaign and not options.namespace:
        from enpire_agent.agent_verbs import trial

        answer = trial(place, options.seed, options.recipe)
        print(answer.text)
        return 0 if answer.data['outcome'] == 'SUCCESS' else 1
    recipe = os.path.abspath(options.recipe) if options.recipe else ''
    with Station(options.namespace or '') as station:
        result = station.trial(recipe, options.seed or 0, campaign=options.campaign, progress=_say_stage)
    print(f'enpire: {result.outcome}: {result.reason} ({result.duration:.1f} s, {result.steps} steps, '
          f'{result.late_steps} late)\n        records: {result.directory}')
    return 0 if result.success else 1


def _say_stage(stage: str) -> None:
    print(f'  {stage} ...', flush=True)
