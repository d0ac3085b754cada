"""What the station does while a researcher thinks, and how thinking ends."""

from __future__ import annotations

import threading
import time

import pytest

from enpire_agent import campaign_thinking
from enpire_agent.campaign_state import read_campaign
from enpire_agent.campaign_trials import CampaignError, CampaignStopped
from enpire_agent.researcher import BuiltinResearcher
from enpire_agent.score import success_interval

LONG = 20.0      # s of wall time; what takes longer is broken


class SlowResearcher:
    """The built-in one, which thinks in a thread of its own until `until(context)` is true or it is cancelled."""

    name, thinks_elsewhere = 'slow', True

    def __init__(self, ideas, until=lambda context: True):
        self._builtin, self._until, self.began, self.cancelled = BuiltinResearcher(ideas), until, threading.Event(), 0

    def propose(self, context):
        deadline = time.monotonic() + LONG
        self.began.set()
        while not self._until(context):
            assert time.monotonic() < deadline
            if context.cancelled():
                self.cancelled += 1
                raise CampaignStopped('cancelled')
            time.sleep(0.005)
        return self._builtin.propose(context)


@pytest.fixture
def slow(make_campaign, ideas_file):
    """slow(until(world, context), **settings) -> (campaign, world, recorder, researcher)."""

    def make(until, **settings):
        world = None
        researcher = SlowResearcher(ideas_file, lambda context: until(world, context))
        campaign, world, recorder = make_campaign(researcher=researcher, **{'max_iterations': 1, **settings})
        return campaign, world, recorder, researcher

    return make


def searched(world):
    return world.kinds.count('search')


def test_while_a_researcher_thinks_the_best_recipe_is_tried_and_that_counts_in_the_race(slow):
    campaign, world, recorder, _ = slow(lambda world, context: searched(world) >= 12)
    state = campaign.run()
    (iteration,) = state.iterations
    successes, trials = map(int, iteration.before.split(' of '))
    assert trials == len([line for line in world.ledger.verify() if line['recipe'] == state.baseline.recipe
                          and line['kind'] in ('search', 'baseline')]) >= 32
    assert any('trials of the best recipe while slow was thinking' in text for _, _, text, _ in recorder.events)


@pytest.mark.parametrize('most, trials', [(100, 6), (0, 0)])
def test_the_time_of_trials_while_a_researcher_thinks_is_robot_time(slow, most, trials):
    splits = []

    def until(world, context):
        splits.append(world.campaign.time_split.totals)
        return searched(world) >= trials and len(splits) > 40

    campaign, world, _, _ = slow(until, trials_while_thinking=most)
    world.campaign = campaign
    campaign.run()
    running, thinking = (splits[-1][what] - splits[0][what] for what in ('running', 'thinking'))
    assert (running > 0) == bool(most) and thinking > 0


def test_the_best_recipe_gets_no_more_trials_than_asked_for(slow):
    waits = []

    def until(world, context):
        waits.append(searched(world))
        return waits.count(5) > 20      # five were run, and no more came for a while

    state = slow(until, trials_while_thinking=5)[0].run()
    assert max(waits) == 5 and state.iterations


@pytest.mark.parametrize('settings, limit', [({'max_trials': 200}, 8), ({'trials_while_thinking': 0}, 0)])
def test_counted_trials_are_kept_for_candidates(slow, settings, limit):
    waits = []

    def until(world, context):
        waits.append(searched(world))
        return waits.count(limit) > 20

    slow(until, **settings)[0].run()
    assert max(waits) == limit


def test_what_is_known_well_enough_is_not_tried_any_more(slow, monkeypatch):
    monkeypatch.setattr(campaign_thinking, 'NARROW', 0.35)
    intervals = []

    def until(world, context):
        campaign = world.campaign
        evidence = campaign._race.evidence_of_best()
        low, high = success_interval(evidence.successes, evidence.trials)
        intervals.append(high - low)
        return len(intervals) > 60 and intervals[-1] == intervals[-60]

    campaign, world, _, _ = slow(until)
    world.campaign = campaign
    campaign.run()
    assert intervals[0] > 0.35 > intervals[-1] > 0.3      # just below, and no farther


def test_a_stop_ends_the_thinking_and_a_resumed_campaign_knows_its_trials(slow):
    campaign, world, _, researcher = slow(lambda world, context: False)
    world.before_trial = lambda number: number == 25 and campaign.stop()
    with pytest.raises(CampaignStopped):
        campaign.run()
    assert researcher.cancelled == 1 and campaign.thinker == ''
    known = searched(world)
    campaign, world, _, _ = slow(lambda world, context: searched(world) >= 1)
    campaign.run()
    seeds = [line['seed'] for line in world.ledger.verify() if line['kind'] == 'search'
             and line['recipe'] == campaign.state.baseline.recipe]
    assert len(seeds) == len(set(seeds)) > known      # none twice


def test_nothing_moves_while_the_station_is_held_and_a_pause_lasts_as_long(slow):
    paused = []

    def until(world, context):
        if searched(world) == 3 and not paused:
            campaign._hold.set('a person stands at the table')
            trials, at_resume = searched(world), []
            threading.Timer(0.5, lambda: (at_resume.append(searched(world)), campaign.resume())).start()
            paused.append(context.pause(0.0, 'the model is away'))
            paused.append(at_resume[0] - trials)      # none was there yet when the pause ended before
        return bool(paused)

    campaign, world, recorder, _ = slow(until)
    campaign.run()
    assert paused[0] is True and paused[1] <= 1       # the trial that had begun
    assert ('hold', 'a person stands at the table') in {(kind, text) for kind, _, text, _ in recorder.events}


def test_time_that_is_spent_ends_the_thinking_and_the_campaign_as_planned(slow):
    campaign, world, _, researcher = slow(lambda world, context: False, max_duration=3600.0)
    offset = [0.0]
    campaign._budget._elapsed = lambda: offset[0]
    world.before_trial = lambda number: offset.__setitem__(0, 3600.0 if number == 25 else offset[0])
    state = campaign.run()
    assert researcher.cancelled == 1 and state.finished and 'budget of 3600 s' in state.search_ended


def test_what_a_researcher_raises_ends_the_campaign(slow):
    def until(world, context):
        raise CampaignError('slow: login: type: slow login')

    with pytest.raises(CampaignError, match='slow login'):
        slow(until)[0].run()


def test_a_researcher_that_is_quick_runs_in_the_campaigns_own_thread(make_campaign):
    campaign, _, _ = make_campaign(max_iterations=1)
    propose, threads = campaign._researcher.propose, []
    campaign._researcher.propose = lambda context: (threads.append(threading.current_thread()), propose(context))[1]
    campaign.run()
    assert set(threads) == {threading.current_thread()}


def test_a_resumed_campaign_names_the_researcher_that_goes_on_with_it(slow, make_campaign):
    campaign, world, _ = make_campaign()
    world.before_trial = lambda number: number == 2 and campaign.stop()
    with pytest.raises(CampaignStopped):
        campaign.run()
    assert read_campaign(campaign.directory / 'campaign.json').researcher == 'builtin'
    assert slow(lambda world, context: True)[0].state.researcher == 'slow'
