import threading
import time

import pytest

from enpire_agent.campaign import CampaignError, CampaignStopped
from enpire_agent.campaign_state import BASELINE, GATE, KEPT, REVERTED, SEARCH, read_campaign
from enpire_agent.ledger import Ledger
from enpire_agent.recipe import load_recipe
from enpire_agent.recipe_repository import RecipeRepository
from enpire_agent.researcher import PeerRecipe
from enpire_bringup.configuration import ConfigurationError


def _kinds(world):
    return [line['kind'] for line in world.ledger.verify()]


def test_a_campaign_finds_what_helps_and_proves_it_on_fresh_seeds(make_campaign):
    campaign, world, recorder = make_campaign()
    state = campaign.run()

    parameters = load_recipe(world.work_tree).parameters
    assert parameters['curve'] is True and parameters['lead'] == 0.01 and parameters['gain'] == 1.0
    assert state.gate.successes > state.baseline.successes
    assert state.gate.trials == state.baseline.trials == 20
    assert not set(state.gate.seeds) & set(state.baseline.seeds)
    assert all(seed % 2 for seed in state.gate.seeds + state.baseline.seeds)
    assert state.trials == len(world.ledger.verify()) == world.count
    assert read_campaign(campaign.directory / 'campaign.json') == state
    assert {i.origin: i.state for i in state.iterations}['idea:harder#0'] == REVERTED
    assert [decision for decision, *_ in recorder.recipes] == [BASELINE, 'keep', 'keep', 'keep']


def test_every_iteration_is_one_commit_and_rejected_ones_are_reverted(make_campaign):
    campaign, world, _ = make_campaign()
    state = campaign.run()
    repository = RecipeRepository(world.work_tree)
    for iteration in state.iterations:
        assert repository.message(iteration.commit).startswith(iteration.hypothesis)
        assert f'Decision: {"keep" if iteration.state == KEPT else "revert"}' in repository.message(iteration.commit)
        assert repository.is_reverted(iteration.commit) == (iteration.state == REVERTED)
    assert repository.identity() == state.best.commit
    assert repository.changed_paths() == []


def test_hypotheses_share_the_incumbents_seeds_and_hopeless_ones_are_cut_short(make_campaign):
    campaign, world, _ = make_campaign(goal=2.0)
    state = campaign.run()
    assert len({tuple(iteration.seeds) for iteration in state.iterations}) == 1
    paired = {i.number: i for i in state.iterations if i.before.endswith(f'of {len(i.seeds)}')}
    kept = [i for i in state.iterations if i.state == KEPT]
    assert paired, 'after a recipe was kept, the others are compared with it on its own seeds'
    assert min(paired) == kept[0].number + 1
    hopeless = [i for i in state.iterations if i.trials < len(i.seeds)]
    assert hopeless
    for iteration in hopeless:
        assert iteration.successes + len(iteration.seeds) - iteration.trials < iteration.to_reach


def test_the_starting_recipe_is_beaten_by_more_than_luck_only(make_campaign):
    campaign, world, _ = make_campaign(max_iterations=1, search_trials=6)
    campaign.run()
    iteration = campaign.state.iterations[0]
    for successes, trials, to_reach in ((0, 20, 1), (3, 20, 2), (6, 20, 3), (10, 20, 5), (20, 20, 7)):
        campaign.state.best.successes, campaign.state.best.trials = successes, trials
        assert campaign._bar(iteration) == (f'{successes} of {trials}', to_reach, to_reach)


@pytest.mark.parametrize('kind, trials', [(BASELINE, 1), (SEARCH, 1), (SEARCH, 6), (SEARCH, 12), (GATE, 1), (GATE, 11)])
def test_a_restart_goes_on_where_it_was_and_repeats_no_trial(make_campaign, kind, trials):
    class Killed(BaseException):
        pass

    def die(number):
        if world.kinds.count(kind) == trials:
            raise Killed

    campaign, world, _ = make_campaign()
    world.before_trial = die
    with pytest.raises(Killed):
        campaign.run()
    before = len(world.ledger.entries())

    campaign, world, _ = make_campaign()
    state = campaign.run()

    lines = world.ledger.verify()
    keys = [(line['kind'], line['seed'], line['recipe']) for line in lines]
    assert len(lines) == before + world.count == state.trials
    assert len(keys) == len(set(keys)), 'a trial was run twice'
    assert state.finished and state.gate.trials == 20
    assert len({iteration.commit for iteration in state.iterations}) == len(state.iterations)


def test_a_crash_between_commit_and_state_does_not_commit_twice(make_campaign, monkeypatch):
    from enpire_agent import recipe_repository

    class Killed(BaseException):
        pass

    campaign, world, _ = make_campaign()
    real = recipe_repository.RecipeRepository.revert

    def revert(self, commit):
        raise Killed

    monkeypatch.setattr(recipe_repository.RecipeRepository, 'revert', revert)
    with pytest.raises(Killed):
        campaign.run()
    monkeypatch.setattr(recipe_repository.RecipeRepository, 'revert', real)
    trials = len(world.ledger.entries())
    rejected = RecipeRepository(world.work_tree).head

    campaign, world, _ = make_campaign(max_iterations=1)
    state = campaign.run()
    assert state.iterations[0].commit == rejected
    assert RecipeRepository(world.work_tree).is_reverted(rejected)
    assert len(world.ledger.entries()) == trials


def test_budgets_end_the_search_and_leave_room_for_the_gate(make_campaign):
    campaign, world, recorder = make_campaign(max_trials=64, goal=2.0)
    state = campaign.run()
    assert state.gate.trials == 20 and state.trials <= 64
    assert any('budget of 64 trials' in text for _, _, text, _ in recorder.events)


def test_one_iteration_when_one_is_asked_for(make_campaign):
    campaign, world, _ = make_campaign(max_iterations=1)
    assert len(campaign.run().iterations) == 1


def test_nothing_kept_means_no_gate(make_campaign):
    campaign, world, _ = make_campaign(max_iterations=1)
    state = campaign.run()
    assert state.iterations[0].state == REVERTED
    assert state.gate is None and state.finished == 'no hypothesis was kept'
    assert GATE not in _kinds(world)


def test_three_failed_resets_hold_the_station_until_resume(make_campaign):
    campaign, world, recorder = make_campaign()
    world.forced = {4: 'RESET_FAILED', 5: 'RESET_FAILED', 6: 'RESET_FAILED'}
    thread = threading.Thread(target=campaign.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not campaign.holding and time.monotonic() < deadline:
        time.sleep(0.01)
    assert campaign.holding and '3 resets failed' in campaign.hold_reason
    assert world.count == 6
    campaign.resume()
    thread.join(30)
    assert campaign.state.finished
    assert campaign.state.baseline.outcomes['RESET_FAILED'] == 3


def test_a_failed_reset_in_the_search_is_tried_again_but_never_vanishes(make_campaign):
    campaign, world, _ = make_campaign(max_iterations=1)
    world.forced = {23: 'RESET_FAILED'}
    state = campaign.run()
    lines = world.ledger.verify()
    assert lines[22]['outcome'] == 'RESET_FAILED'
    assert lines[23]['seed'] == lines[22]['seed']
    assert state.trials == len(lines)


def test_an_edit_that_does_not_compile_is_rejected_without_a_trial(make_campaign, ideas_file):
    (ideas_file.parent / 'broken.py').write_text('class Policy(:\n')
    ideas_file.write_text('ideas:\n  - {id: b, family: f, hypothesis: Broken, files: {policy.py: broken.py}}\n')
    campaign, world, _ = make_campaign()
    state = campaign.run()
    assert state.iterations[0].state == REVERTED and state.iterations[0].trials == 0
    assert 'does not compile' in state.iterations[0].reason


def test_a_policy_that_keeps_crashing_costs_two_trials(make_campaign):
    campaign, world, _ = make_campaign(max_iterations=1)
    world.forced = {number: 'POLICY_ERROR' for number in range(21, 60)}
    state = campaign.run()
    assert state.iterations[0].outcomes == {'POLICY_ERROR': 2}
    assert state.iterations[0].state == REVERTED


def test_a_changed_environment_stops_the_campaign(make_campaign):
    campaign, world, _ = make_campaign()
    campaign._current_env_hash = lambda: 'f' * 64 if world.count >= 3 else 'e' * 64
    with pytest.raises(CampaignError, match='environment changed'):
        campaign.run()
    assert world.count == 3


def test_an_invalid_trial_stops_the_campaign_and_stays_in_the_ledger(make_campaign):
    campaign, world, _ = make_campaign()
    world.forced = {3: 'INVALID'}
    with pytest.raises(CampaignError, match='INVALID'):
        campaign.run()
    assert [line['outcome'] for line in world.ledger.verify()][-1] == 'INVALID'


def test_a_campaign_of_another_environment_is_not_resumed(make_campaign):
    campaign, world, _ = make_campaign(max_iterations=1)
    campaign.run()
    with pytest.raises(ConfigurationError, match='env_hash'):
        make_campaign(env_hash='f' * 64)


def test_stop_ends_it_and_it_can_be_resumed(make_campaign):
    campaign, world, _ = make_campaign()
    world.before_trial = lambda number: campaign.stop() if number == 5 else None
    with pytest.raises(CampaignStopped):
        campaign.run()
    campaign, world, _ = make_campaign()
    assert campaign.run().finished


def test_time_left_falls_to_zero(make_campaign):
    campaign, world, _ = make_campaign()
    left = []
    world.before_trial = lambda number: left.append(campaign.remaining)
    campaign.run()
    assert left[0] > left[len(left) // 2] > left[-1] > 0
    assert campaign.remaining == 0


def test_a_second_station_adopts_what_the_first_announced_and_confirms_it(make_campaign, tmp_path):
    first, world, recorder = make_campaign()
    state = first.run()
    remote = str(tmp_path / 'runs' / 'c' / 'remote.git')
    RecipeRepository(world.work_tree).push(remote, 'c')
    best = state.best
    common = dict(station='station_1', task='push_t', env_hash='e' * 64, remote=remote)
    peers = (
        PeerRecipe(**common, commit=state.baseline.recipe, method='m', hypothesis='start', decision=BASELINE,
                   trials=20, successes=state.baseline.successes, interval=(0.0, 0.6)),
        PeerRecipe(**common, commit=best.commit, method=best.method, hypothesis=best.hypothesis, decision='keep',
                   trials=20, successes=best.successes, interval=best.interval))

    second, world_2, _ = make_campaign('station_2', peers, max_iterations=1, search_trials=3)
    state_2 = second.run()

    assert world_2.count == 3, 'baseline and gate are the first station\'s'
    assert state_2.baseline.source == 'station_1'
    assert state_2.iterations[0].state == KEPT and state_2.best.adopted_from == 'station_1'
    assert RecipeRepository(world_2.work_tree).files('HEAD') == RecipeRepository(world.work_tree).files(best.commit)
    assert state_2.finished == 'the best recipe is that of station_1'


def test_a_baseline_that_a_peer_announces_late_ends_the_own_measurement(make_campaign):
    heard = []
    campaign, world, _ = make_campaign('station_2', heard, max_iterations=1)

    def announce(number):
        if number == 2:
            heard.append(PeerRecipe(
                station='station_1', task='push_t', env_hash='e' * 64, remote='', commit=campaign.state.baseline.recipe,
                method='m', hypothesis='start', decision=BASELINE, trials=20, successes=3, interval=(0.0, 0.6)))

    world.before_trial = announce
    state = campaign.run()
    assert (state.baseline.source, state.baseline.trials, state.baseline.successes) == ('station_1', 20, 3)
    assert world.kinds.count(BASELINE) == 2, 'and what was begun before counts in the ledger'


def test_a_finished_campaign_is_not_started_over_with_other_budgets(make_campaign):
    campaign, world, _ = make_campaign(max_iterations=1)
    campaign.run()
    with pytest.raises(ConfigurationError, match='finished'):
        make_campaign(max_iterations=2)
    again, world, _ = make_campaign(max_iterations=1)
    again.run()
    assert world.count == 0


def test_search_trials_use_even_seeds_only(make_campaign):
    campaign, world, _ = make_campaign(max_iterations=2)
    campaign.run()
    assert all(line['seed'] % 2 == 0 for line in Ledger(world.ledger.file).entries() if line['kind'] == SEARCH)
