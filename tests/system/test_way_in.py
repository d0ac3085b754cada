"""Every process of a running station is killed in turn; the station comes back by itself and does its job again."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest

from enpire_agent import Station, StationCallError
from enpire_bringup.composition import station_processes
from enpire_bringup.process_runner import DomainReservation, StationProcesses
from enpire_bringup.station import load_station
from enpire_bringup.task import load_task
from enpire_bringup.topics import station_topics

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

PROCESSES = [spec.name for spec in station_processes(load_station('yam_bimanual_sim'), load_task('push_t'), 'station_1')]
BACK_WITHIN = 60.0       # s of wall time for a process to be there again
AGAIN_WITHIN = 60.0      # s of wall time for the station to do its job again


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


def does_it(verb) -> bool:
    """Whether a verb works; it may not, while nodes find each other again."""
    try:
        return bool(verb())
    except StationCallError:
        return False


def test_the_list_of_topics_is_what_the_station_has(client):
    def missing():
        graph = {name: kinds for name, kinds in client.client.node.get_topic_names_and_types()}
        return [(topic, graph.get(f'/station_1/{topic.name}')) for topic in station_topics(client.config, client.task)
                if graph.get(f'/station_1/{topic.name}') != [topic.type]]

    end = time.monotonic() + 10
    while missing() and time.monotonic() < end:
        time.sleep(0.2)
    assert missing() == []


@pytest.mark.parametrize('name', PROCESSES)
def test_a_killed_process_comes_back_and_the_station_judges_and_moves_again(running, client, name):
    station, lines = running
    killed, restarts = station.pids()[name], station.restarts()[name]
    children = psutil.Process(killed).children(recursive=True)
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: station.pids().get(name, killed) != killed, BACK_WITHIN, f'another process {name}')
    assert station.restarts()[name] == restarts + 1 and not station.given_up()
    assert any(f'process {name} was killed by signal 9; starting it again in' in line for line in lines)

    wait_for(lambda: does_it(lambda: client.verdict().outcome != 'abstain'), AGAIN_WITHIN, 'a verdict that judges')
    wait_for(lambda: does_it(lambda: client.guard().ok or client.clear_guard() and client.guard().ok), AGAIN_WITHIN,
             'a contented guard')
    wait_for(lambda: does_it(lambda: client.move('left', named='home').success), AGAIN_WITHIN, 'a move')
    assert client.status().state == 'IDLE'
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
