"""Who uses which ROS domain of this machine, and which namespace in it."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from pathlib import Path


class StationError(RuntimeError):
    """A station could not be started, or is in the way of another one. One line, for people."""


class DomainReservation:
    """A ROS domain that nobody on this machine uses, reserved until `release()` or the end of the process."""

    def __init__(self) -> None:
        for domain in range(1, 101):       # higher domains' ports meet the range of ephemeral ports
            self._lock = LockFile(_state_directory() / f'domain_{domain}.lock')
            if self._lock.acquire({'pid': os.getpid()}):
                if not domain_is_used(domain):
                    self.domain_id = domain
                    return
                self._lock.release()
        raise StationError('all ROS domains from 1 to 100 are in use on this machine; set ROS_DOMAIN_ID')

    def release(self) -> None:
        self._lock.release()


def domain_is_used(domain: int) -> bool:
    """Whether any program of this machine has a UDP port of those that participants of a ROS domain take; True also
    where that cannot be known."""
    tables = [table for table in (Path('/proc/net/udp'), Path('/proc/net/udp6')) if table.exists()]
    lines = [line for table in tables for line in table.read_text().splitlines()[1:]]
    # "sl local_address ...", the address as hexadecimal digits, a colon and the port.
    taken = {int(line.split()[1].rpartition(':')[2], 16) for line in lines}
    first = 7400 + 250 * domain      # DDS-RTPS 9.6.2: 250 ports a domain
    return not tables or any(first <= port < first + 250 for port in taken)


def only_this_machine_counts() -> bool:
    """Whether nodes of this process see only participants of this machine, each of them at its UDP ports."""
    return (os.environ.get('ROS_AUTOMATIC_DISCOVERY_RANGE') == 'LOCALHOST' and not os.environ.get('ROS_STATIC_PEERS')
            and os.environ.get('RMW_IMPLEMENTATION', 'rmw_fastrtps_cpp') == 'rmw_fastrtps_cpp')


def _state_directory() -> Path:
    path = Path(tempfile.gettempdir()) / f'enpire-{os.getuid()}'
    path.mkdir(mode=0o700, exist_ok=True)
    return path


def lock_path(domain_id: int, name: str) -> Path:
    return _state_directory() / f'station_{domain_id}_{name.replace("/", ".")}.lock'


def running_stations() -> list[dict]:
    """State of every station that a runner of this user keeps up: pid, domain, namespace, ready, log, ..."""
    states = []
    for path in sorted(_state_directory().glob('station_*.lock')):
        lock = LockFile(path)
        if lock.is_held():
            states.append(lock.read())
    return [state for state in states if state]


class LockFile:
    """A file locked by a living process, with JSON that says who it is. The lock ends with the process."""

    def __init__(self, path: Path):
        self._path = path
        self._file = None

    def acquire(self, state: dict) -> bool:
        file = self._path.open('a+')
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            return False
        self._file = file
        self.write(state)
        return True

    def write(self, state: dict) -> None:
        if self._file is not None:
            self._file.seek(0)
            self._file.truncate()
            self._file.write(json.dumps(state))
            self._file.flush()

    def read(self) -> dict:
        try:
            return json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}

    def is_held(self) -> bool:
        try:
            with self._path.open('r') as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
