"""Recipes that stations announced on /fleet/recipes, as this station knows them. No ROS beside the message type."""

from __future__ import annotations

import threading

from enpire_agent.researcher import PeerRecipe


class PeerRecipes:
    """Collects announcements; the newest figures of a commit count. Safe for several threads."""

    def __init__(self, own_station: str):
        self._own = own_station
        self._lock = threading.Lock()
        self._recipes: dict[tuple[str, str, str], tuple[str, PeerRecipe]] = {}

    def add(self, message) -> PeerRecipe | None:
        """Take in an enpire_msgs/Recipe; None when it is our own or has no commit."""
        if message.station == self._own or not message.commit:
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
