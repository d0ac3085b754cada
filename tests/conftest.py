"""What tests of several packages share: ROS domains of their own, and stations that end with the test."""

from __future__ import annotations

import os
import signal

import pytest

from enpire_bringup.process_environment import prepare_environment
from enpire_bringup.domain_locks import DomainReservation
from enpire_bringup.process_runner import StationProcesses


# Whoever started the tests in the background has them, and all they start, ignore Ctrl-C; some tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope='session', autouse=True)
def _own_domain():
    """No test talks to what else runs on this machine, nor to another test run."""
    prepare_environment()
    reservation = DomainReservation()
    os.environ['ROS_DOMAIN_ID'] = str(reservation.domain_id)
    yield
    reservation.release()


@pytest.fixture(scope='session', autouse=True)
def _own_signing_key(tmp_path_factory):
    """Tests sign with a key of their own, not with the user's."""
    os.environ['ENPIRE_SIGNING_KEY'] = str(tmp_path_factory.mktemp('key') / 'signing_key')


@pytest.fixture
def ros_domain(monkeypatch):
    """A ROS domain that only this test uses; $ROS_DOMAIN_ID is set to it."""
    reservation = DomainReservation()
    monkeypatch.setenv('ROS_DOMAIN_ID', str(reservation.domain_id))
    yield reservation.domain_id
    reservation.release()


@pytest.fixture
def start_station(ros_domain, tmp_path):
    """start_station(**options of StationProcesses) -> a station that is up; it ends with the test."""
    stations = []

    def start(**options) -> StationProcesses:
        station = StationProcesses(**{'runs': tmp_path / 'runs', **options})
        stations.append(station)
        return station.__enter__()

    yield start
    for station in stations:
        station.begin_stop()
    for station in stations:
        station.stop()
