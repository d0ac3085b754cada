"""A person's ways into one running station; at the end every process of it is killed and comes back by itself."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import Marker, MarkerArray

from enpire_agent import Station, StationCallError, doctor, station_page
from enpire_agent.station_report import StationObserver
from enpire_bringup.composition import station_processes
from enpire_bringup.domain_locks import DomainReservation, running_stations
from enpire_bringup.process_runner import StationProcesses
from enpire_bringup.station import load_station
from enpire_bringup.station_node import LATCHED_QOS
from enpire_bringup.task import load_task
from enpire_bringup.topics import station_topics
from enpire_bringup.transform_messages import TF_QOS

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

PROCESSES = [spec.name for spec in station_processes(load_station('yam_bimanual_sim'), load_task('push_t'), 'station_1')]
BACK_WITHIN = 60.0       # s of wall time for a process to be there again
AGAIN_WITHIN = 60.0      # s of wall time for the station to do its job again
PAGE_PORT = 18080


@pytest.fixture(scope='module')
def running(tmp_path_factory):
    """A station that is up, with what its runner said."""
    reservation = DomainReservation()
    lines: list[str] = []
    try:
        with StationProcesses(camera_width=320, camera_height=240, domain_id=reservation.domain_id,
                              runs=tmp_path_factory.mktemp('runs'), report=lines.append) as station:
            yield station, lines
    finally:
        reservation.release()


@pytest.fixture(scope='module')
def client(running):
    with Station('station_1', domain=running[0].domain_id) as client:
        yield client


def wait_for(condition, seconds: float, what: str):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.1)
    pytest.fail(f'waited {seconds} s in vain for {what}')


def test_the_clock_wakes_no_node_of_the_station(client):
    node = client.client.node
    wait_for(lambda: node.count_publishers('clock') == 1, 10.0, 'the publisher of the clock')
    client.verdict()      # by now the graph is known
    assert [entry.node_name for entry in node.get_subscriptions_info_by_topic('clock')] == []


def does_it(verb) -> bool:
    """Whether a verb works; it may not, while nodes find each other again."""
    try:
        return bool(verb())
    except StationCallError:
        return False


def moves_again(client: Station) -> bool:
    """Home by one arm; a guard that holds is cleared first, as a person would."""
    return (does_it(lambda: client.guard().ok) or does_it(client.clear_guard)) and does_it(
        lambda: client.move('left', named='home'))


def kill_and_await(running, name: str) -> list[psutil.Process]:
    """Kill a process of the station and wait until there is another; the children that the killed one had."""
    station, lines = running
    killed, restarts = station.pids()[name], station.restarts()[name]
    children = psutil.Process(killed).children(recursive=True)
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: station.pids().get(name, killed) != killed, BACK_WITHIN, f'another process {name}')
    assert station.restarts()[name] == restarts + 1 and not station.given_up()
    assert any(f'process {name} was killed by signal 9; starting it again in' in line for line in lines)
    return children


def test_the_list_of_topics_is_what_the_station_has(client):
    def missing():
        graph = {name: kinds for name, kinds in client.client.node.get_topic_names_and_types()}
        return [topic for topic in station_topics(client.config, client.task)
                if graph.get(f'/station_1/{topic.name}') != [topic.type]]

    end = time.monotonic() + 10
    while missing() and time.monotonic() < end:
        time.sleep(0.2)
    assert missing() == []


def test_status_tells_rates_latencies_processes_and_that_all_is_well(running):
    state, = [state for state in running_stations() if state['domain'] == running[0].domain_id]
    with StationObserver(state) as observer:
        report = observer.observe(2.0)
    assert report['problems'] == [] and report['guard'] == 'ok' and report['status']['state'] == 'IDLE', report
    assert report['topics']['joint_states']['rate'] > 10 and report['cameras'] == {} and report['planner']
    assert report['topics']['verdict']['rate'] > 3 and report['topics']['verdict']['latency_ms']['p50'] >= 0
    assert report['real_time_factor']['measured'] > 0.1 and report['real_time_factor']['asked'] == 0.0
    assert all(process['memory_mb'] > 20 and process['restarts'] == 0 for process in report['processes'])
    assert {camera.partition('_camera')[0] for camera in report['asleep']} == {'left_wrist', 'right_wrist'}


def test_doctor_sees_an_image_of_every_camera(running):
    state, = [state for state in running_stations() if state['domain'] == running[0].domain_id]
    finding = doctor.running_cameras(state)
    assert finding.level == doctor.OK, finding
    assert set(finding.figures) == {'top', 'left_wrist', 'right_wrist'}


def test_markers_and_frames_for_rviz_come_while_somebody_looks(client):
    name = client.task.goal.object
    got = client.client.listen(MarkerArray, 'markers', LATCHED_QOS, timeout=10.0, accept=lambda message: {
        f'object {name}', 'verdict', 'guard'} <= {marker.ns for marker in message.markers})
    markers = {marker.ns: marker for marker in got.markers}
    assert {'workspace', 'floor', 'goal', 'start'} <= set(markers)
    assert markers['verdict'].type == Marker.TEXT_VIEW_FACING and markers['verdict'].text
    seen = client.object_pose(name)
    corner = markers[f'object {name}'].points[0]
    assert abs(corner.x - seen.pose[0]) < 0.2 and abs(corner.y - seen.pose[1]) < 0.2

    # The object's frame comes with the markers: keep looking at them.
    stop = threading.Event()

    def look():
        while not stop.is_set():
            client.client.listen(MarkerArray, 'markers', LATCHED_QOS, timeout=10.0, accept=lambda _: stop.is_set())

    looker = threading.Thread(target=lambda: does_it(look), daemon=True)
    looker.start()
    try:
        client.client.listen(TFMessage, 'tf', TF_QOS, timeout=10.0, accept=lambda message: any(
            transform.child_frame_id == name for transform in message.transforms))
    finally:
        stop.set()
        looker.join(10.0)


def test_the_page_shows_the_running_station_and_closes_cleanly(client, monkeypatch):
    shown = {}
    monkeypatch.setattr(station_page.StationPage, 'show_joints',
                        lambda self, positions: shown.update(joints=positions))
    monkeypatch.setattr(station_page.StationPage, 'show_text',
                        lambda self, name, text, color=None: shown.update({name: text}))
    threads = set(threading.enumerate())
    served, ended = threading.Event(), threading.Event()
    pages = []

    def watch(url: str) -> None:
        pages.append(urllib.request.urlopen(url, timeout=10).read())
        served.set()

    def step(seconds: float) -> None:
        ended.wait(seconds)
        if served.is_set() and {'joints', 'verdict', 'guard', 'objects', 'state'} <= set(shown):
            raise KeyboardInterrupt

    monkeypatch.setattr(station_page, 'pause', step)
    with pytest.raises(KeyboardInterrupt):
        station_page.show_station(client, '127.0.0.1', PAGE_PORT,
                                  lambda url: threading.Thread(target=watch, args=(url,), daemon=True).start())
    assert b'<html' in pages[0] and shown['guard'] == 'ok'
    assert set(shown['joints']) == set(client.config.joints)
    with pytest.raises(OSError):
        urllib.request.urlopen(f'http://127.0.0.1:{PAGE_PORT}', timeout=2)
    wait_for(lambda: len(set(threading.enumerate()) - threads) <= 1, 10, 'the end of the page\'s threads')


def test_a_running_node_refuses_a_parameter_that_it_cannot_follow(client):
    service = client.client.node.create_client(SetParameters, 'arm_control/set_parameters')
    from enpire_bringup.actions import call_service
    request = SetParameters.Request(parameters=[Parameter('task', value='another').to_parameter_msg()])
    result, = call_service(client.client.node, service, request, timeout=20.0).results
    assert not result.successful and "parameter 'task' cannot change while the node runs" in result.reason


def test_the_examples_of_the_python_client_work_as_they_stand(running, monkeypatch, capsys):
    monkeypatch.setenv('ROS_DOMAIN_ID', str(running[0].domain_id))
    text = (Path(__file__).resolve().parents[2] / 'docs' / 'python_client.md').read_text()
    blocks = re.findall(r'(<!-- .*?not run by the test -->\n)?```python\n(.*?)```', text, re.DOTALL)
    assert len(blocks) >= 5
    variables: dict = {}
    for marked, code in blocks:
        if not marked:
            exec(compile(code, 'python_client.md', 'exec'), variables)
    said = capsys.readouterr().out
    assert 'IDLE' in said and 'HELD' in said
    assert variables['image'].shape == variables['seen'].shape == (240, 320, 3)
    assert variables['view'].visible and variables['down'].success and variables['opened'].success
    assert variables['reset'].success and variables['trial'].outcome


@pytest.mark.parametrize('name', [name for name in PROCESSES if name != 'motion'])
def test_a_killed_process_comes_back_and_the_station_judges_and_moves_again(running, client, name):
    children = kill_and_await(running, name)
    wait_for(lambda: does_it(lambda: client.verdict().outcome != 'abstain'), AGAIN_WITHIN, 'a verdict that judges')
    wait_for(lambda: moves_again(client), AGAIN_WITHIN, 'a move')
    assert client.status().state == 'IDLE'
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


def test_a_move_whose_node_is_killed_ends_with_words_and_not_at_its_timeout(running, client):
    outcome = []

    def move():
        try:
            outcome.append(client.move('left', joints=[0.6, 1.3, 1.3, 0.0, 0.0, 0.0], speed=0.15, timeout=90.0))
        except StationCallError as error:
            outcome.append(str(error))

    thread = threading.Thread(target=move)
    thread.start()
    wait_for(lambda: abs(client.joints().velocity).max() > 0.05, 30, 'a moving arm')
    kill_and_await(running, 'motion')
    thread.join(60.0)
    assert not thread.is_alive()
    assert isinstance(outcome[0], str) and 'started anew' in outcome[0], outcome
    wait_for(lambda: moves_again(client), AGAIN_WITHIN, 'a move')
