import json
import threading
import time

import pytest

from enpire_agent.agent_turn import Tokens
from enpire_agent.campaign import CampaignStopped
from enpire_agent.campaign_state import BASELINE, GATE, KEPT, REVERTED, SEARCH, read_campaign
from enpire_agent.ledger import Ledger
from enpire_agent.recipe import load_recipe
from enpire_agent.recipe_repository import RecipeRepository
from enpire_agent.researcher import PeerRecipe
from enpire_agent.seeds import search_seeds
from enpire_bringup.configuration import ConfigurationError


class InBackground:
    """A campaign that runs in a thread until somebody has to resume it."""

    def __init__(self, campaign, recorder):
        self._campaign, self._recorder = campaign, recorder
        self._thread = threading.Thread(target=campaign.run, daemon=True)
        self._thread.start()

    def wait_until_held(self, times=1):
        deadline = time.monotonic() + 10
        while not (self._campaign.holding and len(self.holds) >= times):
            assert time.monotonic() < deadline, f'held {len(self.holds)} times, not {times}'
            time.sleep(0.01)

    @property
    def holds(self):
        return [text for kind, _, text, _ in self._recorder.events if kind == 'hold']

    def resume_to_its_end(self):
        self._campaign.resume()
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self._campaign.state


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


def test_every_recipe_meets_the_same_search_seeds_in_the_same_order(make_campaign):
    campaign, world, _ = make_campaign(goal=2.0)
    state = campaign.run()
    seeds = search_seeds('c', max(iteration.trials for iteration in state.iterations))
    assert all(iteration.seeds == seeds[:iteration.trials] for iteration in state.iterations)
    assert [int(seed) for seed in state.best.results] == search_seeds('c', len(state.best.results))


def test_the_promising_get_more_trials_than_the_hopeless(make_campaign):
    campaign, world, _ = make_campaign(goal=2.0)
    state = campaign.run()
    trials = {KEPT: [], REVERTED: []}
    for iteration in state.iterations:
        trials[iteration.state].append(iteration.trials)
        assert (iteration.probability > 0.8) == (iteration.state == KEPT), iteration.reason
    assert min(trials[KEPT]) >= state.settings.search_trials > min(trials[REVERTED])
    assert max(trials[KEPT] + trials[REVERTED]) <= 4 * state.settings.search_trials


def test_the_best_recipe_is_tried_on_where_it_is_known_less_than_the_candidate(make_campaign, monkeypatch):
    monkeypatch.setattr('enpire_agent.racing.MOST_TRIALS', 12)      # enough for two recipes that never fail
    campaign, world, _ = make_campaign(goal=2.0, search_trials=3, max_iterations=2)
    world.rate_of = lambda parameters: float(parameters['gain'] > 1 or parameters['curve'])
    state = campaign.run()
    tried_on = [line for line in world.ledger.verify()
                if line['kind'] == SEARCH and not line['recipe'].startswith('sha256:')]
    kept, equal = state.iterations
    assert (kept.state, equal.state) == (KEPT, REVERTED) and 'luck' in equal.reason
    assert {line['recipe'] for line in tried_on} == {kept.commit}
    assert len(state.best.results) == kept.trials + len(tried_on) == equal.trials - 1


def test_a_strong_starting_recipe_that_does_not_pass_the_gate_is_improved(make_campaign, monkeypatch):
    monkeypatch.setattr('enpire_agent.racing.MOST_TRIALS', 4)
    campaign, world, _ = make_campaign(goal=0.5, gate_trials=2, search_trials=1, max_iterations=2)
    world.rate_of = lambda parameters: 1.0
    world.forced[2] = 'TIMEOUT'
    state = campaign.run()
    assert state.baseline.successes == 1, 'the goal is reached on fresh seeds'
    assert state.best.results and state.best.iteration and state.gate.passed


def test_a_campaign_whose_starting_recipe_passes_the_gate_is_over(make_campaign):
    campaign, world, _ = make_campaign(gate_trials=5)
    world.rate_of = lambda parameters: 1.0
    state = campaign.run()
    assert state.finished == ('solved: 5 of 5 consecutive on fresh seeds, 95 % interval 48 to 100 %; the recipe it '
                              'starts from') and world.count == 5


def test_a_failed_gate_leads_back_to_the_search_and_another_recipe_gets_fresh_seeds(make_campaign):
    campaign, world, recorder = make_campaign(goal=0.5)
    state = campaign.run()
    assert len(state.gates) == 1 and not state.gates[0].passed
    first = state.gates[0]
    assert first.successes == first.trials - 1 < 20, 'the first failure ends the attempt'
    assert first.recipe != state.gate.recipe == state.best.commit
    assert not set(first.seeds) & set(state.gate.seeds)
    assert any('the search goes on' in text for kind, _, text, _ in recorder.events if kind == GATE)
    gate_lines = [line['recipe'] for line in world.ledger.verify() if line['kind'] == GATE]
    assert gate_lines.count(first.recipe) == first.trials


def test_a_fresh_seed_is_written_down_when_its_trial_begins_and_not_before(make_campaign):
    campaign, world, _ = make_campaign(goal=0.5)
    written = []
    world.before_trial = lambda number: written.append(json.loads((campaign.directory / 'campaign.json').read_text()))
    campaign.run()
    fresh = [(line, state) for line, state in zip(world.ledger.verify(), written) if line['kind'] in (BASELINE, GATE)]
    assert len(fresh) > 40
    for line, state in fresh:
        measured = state[line['kind']]
        assert measured['drawn'] == line['seed'] and len(measured['seeds']) == measured['trials'] < measured['planned']


def test_the_gate_is_measured_to_its_end_when_nothing_is_left_to_try(make_campaign):
    campaign, world, _ = make_campaign()
    world.force_kind[GATE] = 'SUCCESS'

    def fail(number):
        if world.kinds.count(GATE) in (3, 7):
            world.forced[number] = 'TIMEOUT'

    world.before_trial = fail
    state = campaign.run()
    assert state.search_ended == 'the researcher has nothing left to try'
    assert (state.gate.successes, state.gate.trials) == (18, 20) and not state.gates
    assert state.finished == ('not solved: 18 of 20 on fresh seeds, 95 % interval 68 to 99 %, where 20 consecutive are '
                              f'needed; the starting recipe had {state.baseline}')


def test_a_passed_gate_ends_the_campaign_with_ideas_left(make_campaign):
    campaign, world, _ = make_campaign(goal=0.5)
    world.force_kind[GATE] = 'SUCCESS'
    state = campaign.run()
    assert state.gate.passed and state.finished.startswith('solved: 20 of 20 consecutive on fresh seeds')
    assert not state.search_ended and len(state.iterations) < 5


def test_an_attempt_at_the_gate_that_was_cut_off_begins_anew_on_other_seeds(make_campaign):
    campaign, world, _ = make_campaign(goal=0.5)
    world.force_kind[GATE] = 'SUCCESS'

    def cut_off(number):
        if world.kinds.count(GATE) == 5:
            world.forced[number] = 'ABORTED'

    world.before_trial = cut_off
    state = campaign.run()
    assert [(m.trials, m.successes) for m in state.attempts] == [(5, 4), (20, 20)]
    assert state.gates[0].recipe == state.gate.recipe and state.gate.passed
    assert [line['outcome'] for line in world.ledger.verify()].count('ABORTED') == 1


def test_tokens_are_counted_and_their_budget_ends_the_search(make_campaign):
    campaign, world, recorder = make_campaign(goal=2.0, max_tokens=1000)
    propose, left = campaign._researcher.propose, []

    def thinking(context):
        left.append(context.tokens_left)
        context.spend_tokens(Tokens(300, 50, 100, 20))
        return propose(context)

    campaign._researcher.propose = thinking
    state = campaign.run()
    assert left == [1000, 600, 200]
    assert (state.input_tokens, state.cached_tokens, state.output_tokens, state.reasoning_tokens) == (900, 150, 300, 60)
    assert len(state.iterations) == 3 and 'budget of 1000 tokens' in state.search_ended


def test_every_moment_is_accounted_for_in_the_state(make_campaign):
    campaign, world, _ = make_campaign(max_iterations=1)
    propose = campaign._researcher.propose

    def training(context):
        with context.training():
            time.sleep(0.05)
        return propose(context)

    def trial(number):
        campaign.trial_stage('reset')
        time.sleep(0.02)
        campaign.trial_stage('policy')

    campaign._researcher.propose, world.before_trial = training, trial
    began = time.monotonic()
    state = campaign.run()
    split = read_campaign(campaign.directory / 'campaign.json').time_split
    assert split == state.time_split and split['held'] == 0
    assert split['training'] >= 0.05 and split['resetting'] >= 0.02 * world.count
    assert split['running'] > 0 and split['thinking'] > 0
    assert state.elapsed == pytest.approx(sum(split.values())) and state.elapsed <= time.monotonic() - began + 0.5


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


def test_a_campaign_that_is_killed_before_each_of_its_trials_decides_as_one_that_never_was(make_campaign, tmp_path):
    class Killed(BaseException):
        pass

    def second_trial(number):
        if number > 1:
            raise Killed

    def decided(state):
        return [(i.origin, i.state, i.reason, i.seeds, i.outcomes, i.before) for i in state.iterations]

    settings = dict(goal=2.0, search_trials=3, gate_trials=5, max_iterations=3)
    campaign, world, _ = make_campaign(**settings)
    uninterrupted = campaign.run()
    (tmp_path / 'runs').rename(tmp_path / 'uninterrupted')

    state, sessions = None, 0
    while state is None:
        campaign, world, _ = make_campaign(**settings)
        world.before_trial, sessions = second_trial, sessions + 1
        try:
            state = campaign.run()
        except Killed:
            pass
    assert sessions == uninterrupted.trials == state.trials
    assert decided(state) == decided(uninterrupted)
    assert {i.state for i in state.iterations} == {KEPT, REVERTED}


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
    assert state.gate is None and state.finished.startswith('not solved: ') and state.finished.endswith(
        'on fresh seeds, 95 % interval 12 to 54 %, where 20 consecutive are needed; no hypothesis was kept')
    assert GATE not in _kinds(world)


def test_three_failed_resets_hold_the_station_until_resume(make_campaign):
    campaign, world, recorder = make_campaign()
    world.forced = {4: 'RESET_FAILED', 5: 'RESET_FAILED', 6: 'RESET_FAILED'}
    running = InBackground(campaign, recorder)
    running.wait_until_held()
    assert '3 resets failed' in campaign.hold_reason
    assert world.count == 6
    state = running.resume_to_its_end()
    assert state.finished
    assert state.baseline.outcomes['RESET_FAILED'] == 3


def test_after_a_trial_that_was_cut_off_the_station_is_waited_for(make_campaign):
    campaign, world, _ = make_campaign(max_iterations=1)
    world.forced = {3: 'ABORTED'}
    campaign.run()
    assert world.waited_before == [1, 4]


def test_a_station_that_does_not_come_back_is_held_with_what_is_missing(make_campaign):
    campaign, world, recorder = make_campaign(max_iterations=1)
    world.forced, world.missing = {2: 'ABORTED'}, ['', 'no verdicts', '']
    running = InBackground(campaign, recorder)
    running.wait_until_held()
    assert 'no verdicts' in campaign.hold_reason and world.count == 2
    state = running.resume_to_its_end()
    assert state.finished and state.time_split['held'] > 0


def test_a_failed_reset_in_the_search_is_tried_again_but_never_vanishes(make_campaign):
    campaign, world, _ = make_campaign(max_iterations=1)
    world.forced = {21: 'RESET_FAILED'}
    state = campaign.run()
    lines = world.ledger.verify()
    assert lines[20]['outcome'] == 'RESET_FAILED'
    assert lines[21]['seed'] == lines[20]['seed']
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


def test_a_changed_environment_holds_the_campaign_until_it_is_put_back(make_campaign):
    campaign, world, recorder = make_campaign(max_iterations=1)

    def change(number):
        if number == 3:
            world.environment_changes = ['reward.py was changed']

    world.before_trial = change
    running = InBackground(campaign, recorder)
    running.wait_until_held()
    assert world.count == 3 and 'reward.py was changed' in campaign.hold_reason
    campaign.resume()
    running.wait_until_held(times=2)
    assert world.count == 3, 'resumed without being put back'
    world.environment_changes = []
    assert running.resume_to_its_end().finished


def test_an_invalid_trial_holds_the_campaign_and_stays_in_the_ledger(make_campaign):
    campaign, world, recorder = make_campaign(max_iterations=1)
    world.forced = {3: 'INVALID'}
    running = InBackground(campaign, recorder)
    running.wait_until_held()
    assert 'INVALID' in campaign.hold_reason
    assert [line['outcome'] for line in world.ledger.verify()][-1] == 'INVALID'
    assert running.resume_to_its_end().baseline.outcomes['INVALID'] == 1


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
