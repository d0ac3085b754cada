"""How recipes travel: ours to the remote before the fleet hears of them, the peers' to this station. No ROS here.

Nothing here waits for a remote in the campaign's time: pushes and fetches are tried again in the background, later and
later, and what is to be pushed is on disk, so that it outlives the process.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Callable, Iterator

from enpire_agent.campaign_state import read_campaign
from enpire_agent.fleet_log import FILE, FleetLog
from enpire_agent.peer_recipes import PeerRecipes
from enpire_agent.recipe_repository import (TAKE_OVER, CommitMissingError, ConflictError, RecipeRepository,
                                            RepositoryError)
from enpire_agent.researcher import PeerRecipe
from enpire_bringup.configuration import ConfigurationError

FETCH_TIMEOUT = 60.0   # s of wall time, in the background
ADOPT_TIMEOUT = 15.0   # s of wall time that a remote gets while somebody waits
RETRY_AFTER = (1.0, 2.0, 5.0, 10.0, 30.0)   # s of wall time between two attempts while a remote is away


@dataclass(frozen=True)
class KeptRecipe:
    """A recipe that this station kept, with the figures that its peers are told: enpire_msgs/Recipe without header."""

    station: str
    task: str
    campaign: str
    commit: str
    parent: str
    method: str
    hypothesis: str
    decision: str
    trials: int
    successes: int
    interval_low: float
    interval_high: float
    env_hash: str
    remote: str = ''
    branch: str = ''

    @property
    def key(self) -> tuple:
        """What makes it an announcement of its own: the same commit is announced again with the gate's figures."""
        return self.campaign, self.commit, self.decision, self.trials, self.successes


@dataclass
class _Waiting:
    """Something to be tried when `due` (time.monotonic()) has come."""

    due: float = 0.0
    attempts: int = 0

    def put_off(self) -> float:
        wait = RETRY_AFTER[min(self.attempts, len(RETRY_AFTER) - 1)]
        self.attempts += 1
        self.due = time.monotonic() + wait
        return wait


class RecipeExchange:
    """One station's side of the fleet. `push_due` and `fetch_due` are for a thread each, the rest for any thread.

    remote: path or URL that the station pushes to; empty: runs/<campaign>/remote.git. starting_recipe: the folder that
    a campaign begins with which this station adopts into without having run it. log(level, text): 'info' or 'error'.
    """

    def __init__(self, runs: Path, station: str, starting_recipe: Path, remote: str = '',
                 log: Callable[[str, str], None] = lambda level, text: None):
        self._runs = runs
        self._station = station
        self._starting_recipe = starting_recipe
        self._remote = remote
        self._log = log
        self.peers = PeerRecipes(station)
        self._lock = threading.Lock()
        self._adopting = threading.Lock()
        self._outbox: dict[str, list[KeptRecipe]] = {}                    # campaign -> not announced yet
        self._push: dict[str, _Waiting] = {}                              # campaign -> next attempt
        self._known: set[tuple] = set()
        self._wanted: dict[tuple[str, str], PeerRecipe] = {}              # (campaign, commit) -> not fetched yet
        self._fetch: dict[tuple[str, str], _Waiting] = {}                 # (campaign, remote) -> next attempt
        self._fetched: set[tuple[str, str]] = set()                       # (campaign, commit)

    # --- ours ---

    def recover(self) -> list[KeptRecipe]:
        """Take up what an earlier process of this station left to be pushed.

        Returns what was announced of the newest campaign: announcements vanish with the process that made them, and a
        peer that starts later is to hear of them, too.
        """
        logs = sorted(self._runs.glob(f'*/{self._station}/{FILE}'), key=lambda file: file.stat().st_mtime)
        announced: list[KeptRecipe] = []
        for file in logs:
            announced = []
            self._fetched.update((file.parents[1].name, entry['commit'])
                                 for entry in FleetLog(file.parent).entries('fetched'))
            for recipe in _kept_recipes(FleetLog(file.parent)):
                # What was announced from elsewhere (the folder was moved, the parameter changed) is pushed anew.
                if recipe.remote == self._own_remote(recipe.campaign):
                    announced.append(recipe)
                    self._known.add(recipe.key)
                else:
                    self._put_into_outbox(recipe)
        return announced

    def keep(self, recipe: KeptRecipe) -> None:
        """Have a recipe pushed and announced; one that was is not announced again."""
        if self._put_into_outbox(recipe):
            self._record(recipe.campaign, 'kept', **asdict(recipe))

    def _put_into_outbox(self, recipe: KeptRecipe) -> bool:
        with self._lock:
            if recipe.key in self._known:
                return False
            self._known.add(recipe.key)
            self._outbox.setdefault(recipe.campaign, []).append(recipe)
            self._push.setdefault(recipe.campaign, _Waiting())
        return True

    def push_due(self) -> list[KeptRecipe]:
        """Push what is due; returns the recipes that the fleet may now hear of, for their commits can be fetched."""
        pushed = []
        for campaign in list(self._outbox):
            waiting = self._push[campaign]
            if time.monotonic() < waiting.due:
                continue
            with self._lock:
                recipes = list(self._outbox[campaign])
            remote = self._own_remote(campaign)
            try:
                with self._repository(campaign) as repository:
                    branch = repository.push(remote, campaign)
            except RepositoryError as error:
                wait = waiting.put_off()
                newest = recipes[-1].commit
                self._log('error', f'cannot push {newest[:10]}: {error}; trying again in {wait:g} s')
                if waiting.attempts == 1:
                    self._record(campaign, 'push_failed', commit=newest, remote=remote, reason=str(error))
                continue
            waiting.attempts = 0
            with self._lock:
                self._outbox[campaign] = [recipe for recipe in self._outbox[campaign] if recipe not in recipes]
                if not self._outbox[campaign]:
                    del self._outbox[campaign], self._push[campaign]
            pushed += [replace(recipe, remote=remote, branch=branch) for recipe in recipes]
        return pushed

    def announced(self, recipe: KeptRecipe) -> None:
        """The fleet was told."""
        self._record(recipe.campaign, 'announced', commit=recipe.commit, decision=recipe.decision,
                     trials=recipe.trials, successes=recipe.successes, remote=recipe.remote, branch=recipe.branch)

    # --- the peers' ---

    def hear(self, message) -> PeerRecipe | None:
        """Take in an enpire_msgs/Recipe of a peer and have its files fetched; None when there is nothing to it."""
        peer = self.peers.add(message)
        if peer is not None:
            with self._lock:
                self._wanted[message.campaign, peer.commit] = peer
                self._fetch.setdefault((message.campaign, peer.remote), _Waiting())
        return peer

    def fetch_due(self) -> None:
        """Fetch what peers announced, into those campaigns that this station has begun."""
        for (campaign, remote), waiting in list(self._fetch.items()):
            if time.monotonic() < waiting.due or not (self._work_tree(campaign) / '.git').is_dir():
                continue
            with self._lock:
                peers = [peer for (name, _), peer in self._wanted.items() if (name, peer.remote) == (campaign, remote)]
            try:
                with self._repository(campaign) as repository:
                    for peer in peers:
                        self._fetch_peer(repository, campaign, peer)
            except RepositoryError as error:
                wait = waiting.put_off()
                self._log('error', f'cannot fetch from {remote}: {error}; trying again in {wait:g} s')
                continue
            with self._lock:
                if not any((name, peer.remote) == (campaign, remote) for (name, _), peer in self._wanted.items()):
                    del self._fetch[campaign, remote]

    def _fetch_peer(self, repository: RecipeRepository, campaign: str, peer: PeerRecipe) -> None:
        """Raises RepositoryError when the remote is away; a commit that it does not have any more is given up."""
        try:
            self._bring(repository, campaign, peer, FETCH_TIMEOUT)
            if (campaign, peer.commit) not in self._fetched:
                self._fetched.add((campaign, peer.commit))
                self._record(campaign, 'fetched', commit=peer.commit, station=peer.station, decision=peer.decision)
        except CommitMissingError as error:
            self._log('error', str(error))
            self._record(campaign, 'missing', commit=peer.commit, station=peer.station, reason=str(error))
        with self._lock:
            if self._wanted.get((campaign, peer.commit)) is peer:
                del self._wanted[campaign, peer.commit]

    def _bring(self, repository: RecipeRepository, campaign: str, peer: PeerRecipe, timeout: float) -> None:
        """The peer's commit into our repository: from our own remote, else from where the peer says it is."""
        try:
            if self._remote and self._remote != peer.remote:
                repository.fetch_commit(peer.commit, self._remote, campaign, timeout)
                return
        except RepositoryError:
            pass
        repository.fetch_commit(peer.commit, peer.remote, campaign, timeout)

    def adopt(self, commit: str, task: str, env_hash: str, how: str = TAKE_OVER) -> 'Adoption':
        """Bring a peer's recipe onto our branch (`commit` empty: the best one announced for task and environment).

        Raises AdoptionRefused saying why not; then nothing was changed, and it is in the log.
        """
        try:
            campaign, peer = self.peers.find(commit, task, env_hash)
        except LookupError as error:
            raise AdoptionRefused(str(error.args[0])) from error
        try:
            self._check_idle(campaign)
            with self._adopting, self._repository(campaign, create=True) as repository:
                parent = repository.identity()
                self._bring(repository, campaign, peer, ADOPT_TIMEOUT)
                adopted = repository.adopt(peer.commit, {
                    'Task': peer.task, 'Station': self._station, 'Method': peer.method, 'Env-Hash': peer.env_hash,
                    'Trials': peer.trials, 'Successes': peer.successes,
                    'Interval': f'{peer.interval[0]:.3f}..{peer.interval[1]:.3f}', 'Decision': 'adopt',
                    'Adopted-From': f'{peer.station} {peer.commit}', 'Parent-Recipe': parent}, how)
        except (RepositoryError, OSError) as error:
            conflict = isinstance(error, ConflictError)
            self._record(campaign, 'conflict' if conflict else 'refused', commit=peer.commit, station=peer.station,
                         how=how, reason=str(error), **({'files': error.files} if conflict else {}))
            raise AdoptionRefused(str(error), campaign, peer.commit) from error
        self._record(campaign, 'adopted', commit=peer.commit, station=peer.station, how=how, adopted=adopted)
        return Adoption(campaign, peer, adopted)

    def _check_idle(self, campaign: str) -> None:
        """Between the trials of a campaign its figures belong to the files that lie there."""
        file = self._runs / campaign / self._station / 'campaign.json'
        if not file.is_file():
            return
        try:
            unfinished = not read_campaign(file).finished
        except ConfigurationError:
            unfinished = False
        if unfinished:
            raise RepositoryError(f'the campaign {campaign} of {self._station} is not finished; run it again and its '
                                  f'researcher adopts what is better by itself, or adopt after it has ended')

    # --- both ---

    def _own_remote(self, campaign: str) -> str:
        return self._remote or str(self._runs / campaign / 'remote.git')

    @contextmanager
    def _repository(self, campaign: str, create: bool = False) -> Iterator[RecipeRepository]:
        work_tree = self._work_tree(campaign)
        repository = (RecipeRepository.open_or_create(work_tree, self._station, self._starting_recipe) if create
                      else RecipeRepository(work_tree))
        try:
            yield repository
        finally:
            repository.close()

    def _work_tree(self, campaign: str) -> Path:
        return self._runs / campaign / self._station / 'recipe'

    def _record(self, campaign: str, event: str, /, **fields) -> None:
        try:
            FleetLog(self._runs / campaign / self._station).append(event, **fields)
        except OSError as error:
            self._log('error', f'{event} {fields.get("commit", "")[:10]} is not in the log: {error}')


@dataclass(frozen=True)
class Adoption:
    """What `adopt` did: `commit` is the one on our branch."""

    campaign: str
    peer: PeerRecipe
    commit: str


class AdoptionRefused(RuntimeError):
    """Nothing was adopted, and nothing changed."""

    def __init__(self, reason: str, campaign: str = '', commit: str = ''):
        super().__init__(reason)
        self.campaign = campaign
        self.commit = commit


def _kept_recipes(log: FleetLog) -> list[KeptRecipe]:
    """Every recipe that was kept, oldest first; without a remote where the fleet was not told of it."""
    names = {field.name for field in fields(KeptRecipe)}
    kept = [entry for entry in log.entries('kept') if names <= entry.keys()]
    told = {(entry['commit'], entry['decision'], entry['trials'], entry['successes']): entry
            for entry in log.entries('announced')}
    recipes = []
    for entry in kept:
        recipe = KeptRecipe(**{name: entry[name] for name in names})
        announcement = told.get(recipe.key[1:])
        if announcement is not None:
            recipe = replace(recipe, remote=announcement['remote'], branch=announcement['branch'])
        recipes.append(recipe)
    return recipes
