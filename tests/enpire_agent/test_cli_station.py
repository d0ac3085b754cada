"""Which stations the verbs about stations mean, without ROS."""

from __future__ import annotations

import subprocess

import pytest

from enpire_agent import cli, local_stations
from enpire_agent.local_stations import choose_station
from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.paths import share_directory


@pytest.fixture
def stations(monkeypatch):
    """stations(*(namespace, domain, pid)): what runs on this machine."""
    monkeypatch.delenv('ROS_DOMAIN_ID', raising=False)
    running = []
    monkeypatch.setattr(local_stations, 'running_stations', lambda: running)

    def add(*each) -> None:
        running.extend({'namespace': namespace, 'domain': domain, 'pid': pid, 'share': str(share_directory())}
                       for namespace, domain, pid in each)
    yield add


@pytest.fixture
def runner():
    """runner() -> a process in the place of an `enpire up`."""
    processes = []

    def start() -> subprocess.Popen:
        processes.append(subprocess.Popen(['sleep', '60']))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


def test_the_only_station_that_runs_is_meant(stations):
    stations(('/lab', 5, 1))
    assert choose_station() == ('/lab', 5)
    assert choose_station('lab') == ('/lab', 5)


def test_without_a_station_the_environments_domain_is_meant(stations, monkeypatch):
    monkeypatch.setenv('ROS_DOMAIN_ID', '9')
    assert choose_station() == ('/station_1', 9)
    assert choose_station('lab/a') == ('/lab/a', 9)


def test_of_several_stations_one_must_be_named(stations):
    stations(('/station_1', 5, 1), ('/station_2', 5, 1))
    with pytest.raises(ConfigurationError, match='2 stations run: /station_1 in ROS domain 5, /station_2 in ROS '
                                                 'domain 5. Say which one .* --namespace station_1'):
        choose_station()
    assert choose_station('station_2') == ('/station_2', 5)


def test_the_environments_domain_narrows_the_choice(stations, monkeypatch):
    stations(('/station_1', 5, 1), ('/station_1', 6, 2))
    with pytest.raises(ConfigurationError, match='ROS_DOMAIN_ID'):
        choose_station('station_1')
    monkeypatch.setenv('ROS_DOMAIN_ID', '6')
    assert choose_station('station_1') == ('/station_1', 6)


def test_stations_of_other_folders_are_left_alone(stations, monkeypatch):
    stations(('/station_1', 5, 1))
    monkeypatch.setattr(local_stations, 'share_directory', lambda: '/elsewhere')
    assert local_stations.our_stations() == []


def test_down_ends_the_one_runner_and_names_what_it_ends(stations, runner, capsys):
    process = runner()
    stations(('/station_1', 5, process.pid), ('/station_2', 5, process.pid))
    assert cli.main(['down']) == 0
    assert process.poll() is not None
    said = capsys.readouterr().out
    assert f'ending /station_1, /station_2 in ROS domain 5 (runner {process.pid})' in said


def test_down_asks_which_of_several_runners_is_meant(stations, runner, capsys):
    first, second = runner(), runner()
    stations(('/station_1', 5, first.pid), ('/station_1', 6, second.pid))
    assert cli.main(['down']) == 2
    said = capsys.readouterr().err
    assert '2 runners are up: /station_1 in ROS domain 5' in said and './enpire down --all' in said
    assert first.poll() is None and second.poll() is None
    assert cli.main(['down', '--all']) == 0
    assert first.poll() is not None and second.poll() is not None
