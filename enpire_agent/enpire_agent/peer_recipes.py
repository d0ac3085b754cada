"""Recipes that stations announced on /fleet/recipes, as this station knows them. No ROS beside the message type."""

from __future__ import annotations

import re
import threading

from enpire_agent.git_command import RepositoryError
from enpire_agent.recipe_remote import check_campaign_name, check_remote
from enpire_agent.researcher import PeerRecipe

_COMMIT = re.compile(r'[0-9a-f]{40}([0-9a-f]{24})?')


class PeerRecipes:
    """Collects announcements; the newest figures of a commit count. Safe for several threads."""

    def __init__(self, own_station: str):
        self._own = own_station
        self._lock = threading.Lock()
        self._recipes: dict[tuple[str, str, str], tuple[str, PeerRecipe]] = {}

    def add(self, message) -> PeerRecipe | None:
        """Take in an enpire_msgs/Recipe; None when it is our own, or is refused (see `refusal`)."""
        if message.station == self._own or refusal(message):
            return None
        peer = PeerRecipe(
            station=message.station, commit=message.commit, task=message.task, env_hash=message.env_hash,
            remote=message.remote, method=message.method, hypothesis=message.hypothesis,
            decision=message.decision, trials=message.trials, successes=message.successes,
            interval=(message.interval_low, message.interval_high))
        with self._lock:
            self._recipes[message.station, message.commit, message.campaign] = message.campaign, peer
        return peer

    def of_campaign(self, campaign: str) -> tuple[PeerRecipe, ...]:
        with self._lock:
            return tuple(peer for name, peer in self._recipes.values() if name == campaign)

    def find(self, commit: str, task: str, env_hash: str) -> tuple[str, PeerRecipe]:
        """(campaign, recipe) whose commit begins with `commit`; empty: the one with the best lower bound.

        Raises LookupError saying why there is none.
        """
        with self._lock:
            known = list(self._recipes.values())
        if not known:
            raise LookupError('no peer has announced a recipe yet')
        if commit:
            matching = [entry for entry in known if entry[1].commit.startswith(commit)]
            if not matching:
                raise LookupError(f"no announced recipe has the commit '{commit}'; known: "
                                  + ', '.join(entry[1].commit[:10] for entry in known))
        else:
            matching = [entry for entry in known if entry[1].decision != 'baseline']
        fitting = [entry for entry in matching if entry[1].task == task and entry[1].env_hash == env_hash]
        if not fitting:
            raise LookupError(f'no announced recipe is for task {task} in this environment ({env_hash[:12]}...)')
        return max(fitting, key=lambda entry: entry[1].interval[0])


def refusal(message) -> str:
    """Why an enpire_msgs/Recipe is none that a station would announce; empty when it may be one.

    Anybody may publish on the topic, and what it says ends in Git commands and paths.
    """
    if not _COMMIT.fullmatch(message.commit):
        return f"the commit '{message.commit[:80]}' is no full SHA-1"
    if not (message.successes <= message.trials and 0 <= message.interval_low <= message.interval_high <= 1):
        return (f'{message.successes} successes of {message.trials} trials, interval {message.interval_low} to '
                f'{message.interval_high} are no figures')
    try:
        check_campaign_name(message.campaign)
        check_remote(message.remote)
    except (ValueError, RepositoryError) as error:
        return str(error)
    return ''
