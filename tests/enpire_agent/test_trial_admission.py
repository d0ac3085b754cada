import json
import uuid

import pytest

from enpire_agent.station_hold import StationHold
from enpire_agent.trial_admission import TrialAdmission, TrialRefused, TrialTickets


@pytest.fixture
def station(tmp_path):
    """(tickets, admission, hold) of a station, in files that they share."""
    return TrialTickets(tmp_path), TrialAdmission(tmp_path), StationHold(tmp_path / 'hold.json')


def somebody():
    return uuid.uuid4().bytes


def test_between_campaigns_whoever_asks_gets_a_manual_trial_and_no_other(station):
    _, admission, _ = station
    for kind in ('', 'manual'):
        admission.check(somebody(), kind)
    for kind in ('gate', 'baseline', 'search'):
        with pytest.raises(TrialRefused, match=f"of kind '{kind}' is one that a campaign asks for"):
            admission.check(somebody(), kind)


def test_a_held_station_runs_none(station):
    _, admission, hold = station
    hold.set('a person at the table')
    with pytest.raises(TrialRefused, match='held: a person at the table; ./enpire resume'):
        admission.check(somebody(), '')
    hold.clear()
    admission.check(somebody(), '')


def test_a_campaign_has_the_station_for_itself_until_it_ends(station):
    tickets, admission, hold = station
    tickets.begin('c')
    for kind in ('', 'manual', 'gate', 'search'):
        with pytest.raises(TrialRefused):
            admission.check(somebody(), kind)
    for kind in ('baseline', 'search', 'gate'):
        admission.check(tickets.issue(), kind)
    with pytest.raises(TrialRefused, match='the campaign c runs here'):
        admission.check(somebody(), '')
    tickets.end()
    admission.check(somebody(), '')


def test_a_goal_of_the_campaign_counts_once_and_not_after_the_next(station):
    tickets, admission, _ = station
    tickets.begin('c')
    first, second = tickets.issue(), tickets.issue()
    admission.check(second, 'gate')
    for goal in (first, second):
        with pytest.raises(TrialRefused):
            admission.check(goal, 'gate')


def test_a_campaign_whose_supervisor_was_killed_is_in_nobodys_way(station, tmp_path):
    tickets, admission, _ = station
    tickets.begin('c')
    goal = tickets.issue()
    file = tmp_path / 'trial_ticket.json'
    ticket = json.loads(file.read_text())
    file.write_text(json.dumps({**ticket, 'process': {**ticket['process'], 'create_time': 1.0}}))
    admission.check(somebody(), '')
    with pytest.raises(TrialRefused):
        admission.check(goal, 'gate')
