"""A station's side of the fleet without ROS: what is pushed, announced, fetched, adopted, and written down."""

import json
import os
import types
from dataclasses import asdict

import pytest

from enpire_agent import recipe_exchange
from enpire_agent.fleet_log import FleetLog
from enpire_agent.peer_recipes import PeerRecipes, refusal
from enpire_agent.recipe_exchange import AdoptionRefused, KeptRecipe, RecipeExchange
from enpire_agent.recipe_repository import CHERRY_PICK, MERGE, RecipeRepository

ENVIRONMENT = 'e' * 64


class StationSide:
    """One station's folder of the campaign `c`, with what would be its git_bridge."""

    def __init__(self, runs, name, recipe, remote=''):
        self.runs, self.name, self.recipe = runs, name, recipe
        self.repository = RecipeRepository.open_or_create(runs / 'c' / name / 'recipe', name, recipe)
        self.log = FleetLog(runs / 'c' / name)
        self.said = []
        self.start(remote)

    def start(self, remote=''):
        """A new process in the same folder; returns what it announces at once."""
        self.exchange = RecipeExchange(self.runs, self.name, self.recipe, remote,
                                       log=lambda level, text: self.said.append(text))
        return self.exchange.recover()

    def improve(self, gain, **figures):
        text = (self.repository.work_tree / 'recipe.yaml').read_text()
        line = next(line for line in text.splitlines() if line.startswith('  gain:'))
        self.repository.write({'recipe.yaml': text.replace(line, f'  gain: {gain}')})
        return self.kept(self.repository.commit(f'Gain {gain}', {'Decision': 'keep'}), **figures)

    def kept(self, commit, **figures):
        return KeptRecipe(**{**dict(
            station=self.name, task='push_t', campaign='c', commit=commit, parent='', method='m', hypothesis='Gain',
            decision='keep', trials=6, successes=5, interval_low=0.36, interval_high=0.99, env_hash=ENVIRONMENT),
            **figures})

    def share(self, recipe):
        """Keep and announce; returns the message that peers get."""
        self.exchange.keep(recipe)
        (pushed,) = self.exchange.push_due()
        self.exchange.announced(pushed)
        return types.SimpleNamespace(**asdict(pushed))

    def events(self):
        return [entry['event'] for entry in self.log.entries()]


@pytest.fixture
def runs(tmp_path):
    return tmp_path / 'runs'


@pytest.fixture
def ours(runs, recipe):
    return StationSide(runs, 'station_1', recipe)


@pytest.fixture
def peer(runs, recipe):
    return StationSide(runs, 'station_2', recipe)


@pytest.fixture
def no_waiting(monkeypatch):
    monkeypatch.setattr(recipe_exchange, 'RETRY_AFTER', (0.0,))


def test_what_was_announced_is_at_the_peer_before_anybody_asks(ours, peer):
    message = peer.share(peer.improve(2.0))
    assert ours.exchange.hear(message).commit == message.commit
    ours.exchange.fetch_due()

    assert ours.repository.has(message.commit)
    assert (message.branch, message.remote) == ('c/station_2', str(ours.runs / 'c' / 'remote.git'))
    assert peer.events() == ['kept', 'announced'] and ours.events() == ['fetched']
    ours.exchange.hear(message)
    ours.exchange.fetch_due()
    assert ours.events() == ['fetched'], 'heard twice is fetched once'


def test_a_remote_that_is_away_is_tried_again_later_and_nothing_is_announced_before(ours, runs, no_waiting):
    (runs / 'c' / 'remote.git').write_text('in the way')
    first, second = ours.improve(2.0), ours.improve(3.0)
    ours.exchange.keep(first)
    assert ours.exchange.push_due() == []
    ours.exchange.keep(second)
    assert ours.exchange.push_due() == []
    (runs / 'c' / 'remote.git').unlink()

    pushed = ours.exchange.push_due()

    assert [recipe.commit for recipe in pushed] == [first.commit, second.commit]
    assert ours.exchange.push_due() == []
    assert ours.events() == ['kept', 'push_failed', 'kept'] and 'cannot push' in ours.said[0]


def test_while_a_remote_is_away_it_is_asked_ever_more_seldom(ours, runs):
    (runs / 'c' / 'remote.git').write_text('in the way')
    ours.exchange.keep(ours.improve(2.0))
    for _ in range(5):
        ours.exchange.push_due()
    assert len(ours.said) == 1 and 'trying again in 1 s' in ours.said[0]


def test_what_was_not_pushed_when_the_process_died_is_pushed_by_the_next(ours, peer, runs):
    (runs / 'c' / 'remote.git').write_text('in the way')
    recipe = ours.improve(2.0)
    ours.exchange.keep(recipe)
    ours.exchange.push_due()
    (runs / 'c' / 'remote.git').unlink()

    assert ours.start() == []
    (pushed,) = ours.exchange.push_due()
    ours.exchange.announced(pushed)

    assert pushed.commit == recipe.commit
    assert [again.key for again in ours.start()] == [recipe.key], 'who comes later hears of it from the next'
    assert ours.exchange.push_due() == []


def test_the_same_figures_are_announced_once_and_new_ones_again(ours):
    recipe = ours.improve(2.0)
    ours.share(recipe)
    ours.exchange.keep(recipe)
    assert ours.exchange.push_due() == []
    assert ours.share(ours.kept(recipe.commit, trials=50, successes=48)).trials == 50


def test_a_peers_commit_that_the_remote_lost_is_given_up_and_written_down(ours, peer):
    message = peer.share(peer.improve(2.0))
    message.commit = '1' * 40
    ours.exchange.hear(message)
    ours.exchange.fetch_due()
    ours.exchange.fetch_due()
    assert ours.events() == ['missing'] and 'branch was rewritten' in ours.log.entries()[0]['reason']


def test_a_peers_remote_that_is_away_is_tried_again(ours, peer, runs, no_waiting):
    message = peer.share(peer.improve(2.0))
    (runs / 'c' / 'remote.git').rename(runs / 'away')
    ours.exchange.hear(message)
    ours.exchange.fetch_due()
    assert ours.events() == [] and 'cannot fetch' in ours.said[0]
    (runs / 'away').rename(runs / 'c' / 'remote.git')
    ours.exchange.fetch_due()
    assert ours.events() == ['fetched']


def test_a_station_that_has_not_begun_the_campaign_fetches_once_it_has(runs, recipe, peer):
    message = peer.share(peer.improve(2.0))
    ours = StationSide(runs / 'other', 'station_1', recipe)
    message.campaign = 'later'
    ours.exchange.hear(message)
    ours.exchange.fetch_due()
    assert not (runs / 'other' / 'later').exists() and ours.said == []


def test_adopt_takes_the_best_recipe_of_this_environment(ours, peer):
    good = peer.share(peer.improve(2.0))
    elsewhere = peer.share(peer.improve(3.0, env_hash='f' * 64, interval_low=0.98, interval_high=0.99))
    for message in (good, elsewhere):
        ours.exchange.hear(message)

    adoption = ours.exchange.adopt('', 'push_t', ENVIRONMENT)

    assert adoption.peer.commit == good.commit and ours.repository.head == adoption.commit
    trailers = ours.repository.message(adoption.commit)
    for said in ('Task: push_t', 'Station: station_1', 'Trials: 6', 'Successes: 5', 'Interval: 0.360..0.990',
                 'Decision: adopt', f'Adopted-From: station_2 {good.commit}', 'Parent-Recipe: '):
        assert said in trailers
    assert ours.events() == ['adopted']
    with pytest.raises(AdoptionRefused, match='in this environment'):
        ours.exchange.adopt(elsewhere.commit, 'push_t', ENVIRONMENT)


@pytest.mark.parametrize('how', [MERGE, CHERRY_PICK])
def test_a_conflict_is_refused_and_written_down_and_ours_stays(ours, peer, how):
    message = peer.share(peer.improve(2.0))
    before = ours.improve(3.0).commit
    ours.exchange.hear(message)
    with pytest.raises(AdoptionRefused, match='both changed recipe.yaml'):
        ours.exchange.adopt(message.commit[:8], 'push_t', ENVIRONMENT, how)
    (entry,) = ours.log.entries('conflict')
    assert (entry['commit'], entry['station'], entry['how'], entry['files']) == (
        message.commit, 'station_2', how, ['recipe.yaml'])
    assert ours.repository.head == before and ours.repository.changed_paths() == []


def test_nothing_is_adopted_under_a_campaign_that_goes_on(make_campaign, tmp_path, recipe, peer):
    campaign, world, _ = make_campaign()
    world.before_trial = lambda number: campaign.stop() if number == 3 else None
    with pytest.raises(Exception, match='stopped'):
        campaign.run()
    ours = RecipeExchange(tmp_path / 'runs', 'station_1', recipe)
    ours.hear(peer.share(peer.improve(2.0)))
    with pytest.raises(AdoptionRefused, match='is not finished'):
        ours.adopt('', 'push_t', ENVIRONMENT)


@pytest.mark.parametrize('change', [
    {'commit': '--output=/tmp/x'}, {'commit': 'abc'}, {'commit': ''}, {'campaign': '../../etc'}, {'campaign': 'a/b'},
    {'remote': '--upload-pack=touch /tmp/x'}, {'remote': 'ext::sh -c x'}, {'remote': ''}, {'successes': 7},
    {'interval_low': float('nan')}, {'interval_high': 2.0}])
def test_an_announcement_that_no_station_would_make_is_ignored(ours, change):
    message = types.SimpleNamespace(**{**asdict(ours.kept('a' * 40, remote='/remote.git')), **change})
    assert refusal(message)
    assert PeerRecipes('station_2').add(message) is None


def test_a_torn_line_of_the_log_costs_no_other(tmp_path):
    log = FleetLog(tmp_path / 'c' / 'station_1')
    log.append('kept', commit='a')
    with open(log.file, 'ab') as stream:
        stream.write(b'{"event": "announ')
    log.append('fetched', commit='b')
    assert [entry['commit'] for entry in log.entries()] == ['a', 'b']
    assert [json.loads(line)['event'] for line in log.file.read_text().splitlines() if line.endswith('}')] == [
        'kept', 'fetched']


def test_a_log_that_cannot_be_written_keeps_no_recipe_back(ours, runs):
    recipe = ours.improve(2.0)
    os.mkdir(ours.log.file)
    ours.exchange.keep(recipe)
    assert [pushed.commit for pushed in ours.exchange.push_due()] == [recipe.commit]
    assert any('is not in the log' in text for text in ours.said)
