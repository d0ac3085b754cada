"""The stations that `enpire up` keeps running from this folder, and which of them a person means."""

from __future__ import annotations

import os

from enpire_agent.agent_place import STATION
from enpire_bringup.composition import full_namespace
from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.paths import share_directory
from enpire_bringup.process_environment import environment_domain
from enpire_bringup.domain_locks import running_stations


def our_stations(namespace: str | None = None) -> list[dict]:
    """States of the running stations that were started from this folder, in $ROS_DOMAIN_ID where that is set."""
    states = [state for state in running_stations() if state['share'] == str(share_directory())]
    if os.environ.get('ROS_DOMAIN_ID'):
        states = [state for state in states if state['domain'] == environment_domain()]
    if namespace:
        states = [state for state in states if state['namespace'] == full_namespace(namespace)]
    return states


def choose_station(namespace: str | None = None) -> tuple[str, int]:
    """(namespace, ROS domain) of the station meant: the named one, else that of $ENPIRE_STATION, else the only one that
    runs, else station_1.

    Raises ConfigurationError when several could be meant: nobody wants to move another robot than the one in mind.
    """
    namespace = namespace or os.environ.get(STATION)
    states = our_stations(namespace)
    if len(states) > 1:
        names = ', '.join(f"{state['namespace']} in ROS domain {state['domain']}" for state in states)
        raise ConfigurationError(f'{len(states)} stations run: {names}. Say which one by its name'
                                 + (' and ROS_DOMAIN_ID' if len({state['domain'] for state in states}) > 1 else '')
                                 + ', e.g. ' + ('ROS_DOMAIN_ID=N and ' if namespace else '')
                                 + f"--namespace {states[0]['namespace'].strip('/')}")
    if states:
        return states[0]['namespace'], states[0]['domain']
    return full_namespace(namespace or 'station_1'), environment_domain()
