import json

import pytest

from enpire_agent.campaign_state import GATE, SEARCH
from enpire_agent.ledger import Ledger, LedgerError
from enpire_agent.recipe import files_hash
from enpire_agent.score import ScoreError, score
from enpire_agent.scored_trials import notes, score_text, scored_trials
from enpire_bringup.configuration import ConfigurationError


@pytest.fixture
def ledgers(make_campaign):
    """Of one campaign with two stations; the second made four manual trials later."""
    campaign, world, _ = make_campaign(max_iterations=1)
    world.rate_of = lambda parameters: float(parameters['gain'] > 1)
    campaign.run()
    first = Ledger(campaign.directory / 'ledger.jsonl')
    second = Ledger(campaign.directory.parent / 'station_2' / 'ledger.jsonl')
    for number in range(4):
        second.append({**_content(first), 'trial_id': f'second_{number}', 'kind': 'manual',
                       'started': f'2999-01-01T00:0{number}:00+00:00'})
    return [first, second], campaign


def _content(ledger):
    return {key: value for key, value in ledger.entries()[0].items() if key not in ('previous', 'hash')}


def test_every_station_counts_in_the_order_of_starting(ledgers):
    (first, second), _ = ledgers
    trials = scored_trials([second, first])
    assert len(trials.lines) == trials.total == len(first.entries()) + 4
    assert [line['trial_id'] for line in trials.lines[-4:]] == [f'second_{number}' for number in range(4)]


def test_a_recipe_counts_under_each_of_its_names(ledgers):
    (first, second), campaign = ledgers
    (kept,) = campaign.state.iterations
    kinds = {name: [line['kind'] for line in scored_trials([first, second], recipe=name).lines]
             for name in (kept.commit, kept.commit[:7], kept.recipe, kept.recipe[7:20])}
    expected = [SEARCH] * kept.trials + [GATE] * 20
    assert all(found == expected for found in kinds.values()), 'before its commit, only the hash of its files is known'
    assert files_hash(campaign.directory / 'recipe') == kept.recipe
    in_folder = scored_trials([first], recipe=str(campaign.directory / 'recipe')).lines
    assert [line['kind'] for line in in_folder] == expected
    with pytest.raises(ConfigurationError, match='no trial of a recipe'):
        scored_trials([first, second], recipe='0123abc')
    second.append({**_content(first), 'trial_id': 'other', 'recipe': 'sha256:' + 'a' * 64})
    with pytest.raises(ConfigurationError, match='give more of it'):
        scored_trials([first, second], recipe='sha256:')


def test_what_is_left_out_is_told(ledgers):
    (first, _), _ = ledgers
    trials = scored_trials([first], kind='gate')
    text = score_text(score(trials.lines, 10), trials)
    assert f'{len(first.entries()) - 20} of {len(first.entries())} trials, as asked for' in text
    assert '20 of 20 trials succeeded' in text and 'time to success' in text


def test_a_started_trial_that_is_in_no_ledger_is_told(ledgers):
    (first, _), campaign = ledgers
    folder = campaign.directory / 'trials' / 'lost'
    folder.mkdir(parents=True)
    (folder / 'started.json').write_text(json.dumps({'process': {'pid': 1, 'create_time': 0.0}}))
    trials = scored_trials([first])
    assert trials.unentered == [folder]
    assert 'lost' in notes(trials)[-1] and 'lost' in score_text(score(trials.lines), trials)


def test_stations_of_different_environments_are_not_mixed(ledgers):
    (first, second), _ = ledgers
    second.append({**_content(first), 'trial_id': 'elsewhere', 'env_hash': 'f' * 64})
    with pytest.raises(ScoreError, match='2 environments'):
        score(scored_trials([first, second]).lines)
    assert score(scored_trials([first, second], env_hash='fff').lines).trials == 1


def test_a_broken_chain_has_no_score(ledgers):
    (first, second), _ = ledgers
    lines = second.file.read_text().splitlines(keepends=True)
    second.file.write_text(''.join(lines[1:]))
    with pytest.raises(LedgerError):
        scored_trials([first, second])
