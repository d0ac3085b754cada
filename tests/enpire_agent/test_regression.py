"""The regression gate: what it decides, and what a campaign does with it."""

import random
from math import comb

import pytest

from enpire_agent import campaign_race
from enpire_agent.campaign_state import KEPT, REVERTED, SEARCH
from enpire_agent.racing import Decision, Move
from enpire_agent.racing_simulation import gate_rate
from enpire_agent.recipe_repository import RecipeRepository
from enpire_agent.regression import (MOST_SEEDS, end_without_trials, is_worse, mended_text, next_step,
                                     regression_seeds)
from enpire_agent.researcher import Edit
from enpire_agent.score import success_interval
from enpire_agent.seeds import search_seeds

SEEDS = tuple(range(2, 26, 2))


def _all(success):
    return dict.fromkeys(SEEDS, success)


def test_worse_is_only_what_no_luck_explains():
    assert is_worse(6, 0) and is_worse(8, 1) and is_worse(10, 2)
    assert not is_worse(5, 0) and not is_worse(7, 1) and not is_worse(0, 12) and not is_worse(0, 0)
    for lost in range(13):
        for won in range(13):
            assert is_worse(lost, won) == (success_interval(won, won + lost)[1] < 0.5)


def test_of_two_equally_good_recipes_one_in_forty_is_called_worse_at_most():
    for differing in range(1, MOST_SEEDS + 1):
        wrong = sum(comb(differing, won) for won in range(differing + 1) if is_worse(differing - won, won))
        assert wrong / 2**differing <= 0.025


def test_the_set_is_the_newest_failures_of_every_earlier_best_recipe_each_once():
    assert regression_seeds([]) == ()
    assert regression_seeds([[2, 4], [], [6, 2]]) == (2, 6, 4)
    many = regression_seeds([range(0, 200, 2), range(1000, 1020, 2)])
    assert len(many) == MOST_SEEDS and many[:2] == (1018, 1016) and many[-1] == 200 - 2 * (MOST_SEEDS - 10)


def test_without_six_earlier_failures_nothing_is_tried():
    step = next_step(SEEDS[:5], {}, {})
    assert step.over and step.move is Move.KEEP and step.reason == ''


def test_what_fails_again_is_reverted_and_its_seeds_are_named():
    step = next_step(SEEDS, {**_all(True), **dict.fromkeys(SEEDS[:7], False)}, _all(True))
    assert step.over and step.move is Move.REVERT
    assert 'where earlier best recipes failed it solves 5 of 12, the best recipe 12' in step.reason
    assert step.reason.endswith('fails again on seeds ' + ', '.join(map(str, SEEDS[:7])))


def test_seeds_that_the_best_recipe_does_not_solve_either_blame_nobody():
    step = next_step(SEEDS, _all(False), {**_all(False), **dict.fromkeys(SEEDS[:5], True)})
    assert step.over and step.move is Move.KEEP


def test_what_was_mended_elsewhere_counts_for_the_candidate():
    lost, won = dict.fromkeys(SEEDS[:7], False), dict.fromkeys(SEEDS[7:], True)
    assert next_step(SEEDS, {**lost, **won}, {seed: not success for seed, success in {**lost, **won}.items()}).move \
        is Move.KEEP


def _play(candidate, best):
    """All trials of a gate whose two recipes would end as given: (last step, trials of candidate and best)."""
    known, known_best = {}, {}
    while not (step := next_step(SEEDS, known, known_best)).over:
        where, truth = (known, candidate) if step.move is Move.TRY_CANDIDATE else (known_best, best)
        assert step.seed not in where
        where[step.seed] = truth[step.seed]
    return step, len(known), len(known_best)


def test_trials_end_as_soon_as_the_rest_cannot_change_the_decision():
    assert _play(_all(True), _all(True)) == (_play(_all(True), _all(True))[0], 7, 0), '5 untried ones cannot be worse'
    step, tried, tried_best = _play(_all(False), _all(True))
    assert (step.move, tried, tried_best) == (Move.REVERT, 12, 6)


@pytest.mark.parametrize('seed', range(20))
def test_ending_early_decides_as_all_trials_would(seed):
    rng = random.Random(seed)
    rates = rng.random(), rng.random()
    candidate, best = ({s: rng.random() < rate for s in SEEDS} for rate in rates)
    assert _play(candidate, best)[0].move is next_step(SEEDS, candidate, best).move


def test_where_no_more_trials_fit_what_is_known_of_both_decides():
    assert end_without_trials(SEEDS, _all(False), {}).move is Move.KEEP
    assert end_without_trials(SEEDS, dict.fromkeys(SEEDS[:6], False), _all(True)).move is Move.REVERT


def test_what_is_no_worse_passes_and_what_breaks_much_of_it_does_not():
    assert all(gate_rate(seeds, rate, rate, repeats=200).kept > 0.97 for seeds in (12, 24) for rate in (0.5, 0.9))
    assert gate_rate(12, 0.9, 0.2, repeats=100).kept < 0.25


def test_what_became_of_the_best_recipes_own_failures_is_told():
    assert mended_text({2: True, 4: False, 6: True}, {2: False, 4: False, 6: True, 8: False}) == (
        'where the best recipe failed it solves 1 of 2')
    assert mended_text({2: True}, {2: True}) == ''


# --- in a campaign ---

GAINS = {'a': 2.0, 'broken': 3.0, 'b': 4.0, 'good': 5.0}
ORDER = {seed: k for k, seed in enumerate(search_seeds('c', 20))}


class Script:
    """A researcher who tries these gains; 'adopt' takes over what was tried last, as if a peer had announced it."""

    name = 'script'

    def __init__(self, campaign, gains):
        self._campaign, self._gains = campaign, gains

    def propose(self, context):
        done = len(context.history)
        if done >= len(self._gains):
            return None
        gain, text = self._gains[done], (context.recipe / 'recipe.yaml').read_text()
        if gain == 'adopt':
            commit = self._campaign.state.iterations[-1].commit
            return Edit('adopt', 'm', {'recipe.yaml': text}, f'adopt:station_2/{commit}', adopts=commit)
        before = next(line for line in text.splitlines() if 'gain:' in line)
        return Edit(f'gain {gain}', 'm', {'recipe.yaml': text.replace(before, f'  gain: {gain}')},
                    f'idea:gain{gain}#0')


def _rule(candidate, best, first, gate):
    """Eight trials of the first that succeeds at all, two of every other; each wins."""
    enough = 8 if not best.successes else 2
    return Decision(Move.KEEP if candidate.trials >= enough else Move.TRY_CANDIDATE, 0.95, 'it won')


@pytest.fixture
def regressing(make_campaign, monkeypatch):
    """A campaign: `a` fails on the seeds 2 to 7, `b` mends all, `broken` breaks all of them again, `good` none."""
    monkeypatch.setattr(campaign_race, 'decide', _rule)

    def make(*gains, **changes):
        campaign, world, recorder = make_campaign(
            **{**dict(search_trials=2, gate_trials=1, goal=2.0), **changes})
        campaign._researcher = Script(campaign, gains)

        def rate_of(parameters):
            if world.seed not in ORDER:
                return 0.0
            return float(parameters['gain'] in (GAINS['b'], GAINS['good'])
                         or parameters['gain'] in (GAINS['a'], GAINS['broken']) and ORDER[world.seed] < 2)

        world.rate_of = rate_of
        return campaign, world, recorder

    return make


def _decided(state):
    return [(i.origin, i.state, i.reason, i.seeds, i.outcomes, i.trials) for i in state.iterations]


def test_a_winner_that_fails_again_where_an_earlier_best_recipe_failed_is_reverted(regressing):
    campaign, world, recorder = regressing(GAINS['a'], GAINS['b'], GAINS['broken'], GAINS['good'])
    state = campaign.run()
    assert [i.state for i in state.iterations] == [KEPT, KEPT, REVERTED, KEPT]
    broken, good = state.iterations[2:]
    assert broken.won and broken.trials == 2, 'its race is told apart from the gate'
    assert 'worse beyond the 95 % interval' in broken.reason
    again = [int(seed) for seed in broken.reason.rpartition('seeds ')[2].split(', ')]
    assert {ORDER[seed] for seed in again} == set(range(2, 8))
    message = RecipeRepository(world.work_tree).message(broken.commit)
    assert 'Decision: revert' in message and f'Reason: {broken.reason}' in message
    assert 'where earlier best recipes failed it solves 1 of 1, the best recipe 1' in good.reason
    assert ('revert', 3, broken.reason, broken.commit) in recorder.events
    assert any('now where earlier best recipes failed, up to 6 seeds' in text for *_, text, _ in recorder.events)
    searched = [(line['recipe'], ORDER[line['seed']]) for line in world.ledger.verify() if line['kind'] == SEARCH]
    b = state.iterations[1]
    assert sorted(k for name, k in searched if name == broken.recipe) == list(range(8))
    assert sorted(k for name, k in searched if name in (b.recipe, b.commit)) == list(range(8))
    assert len([k for name, k in searched if name == good.recipe]) == 3, 'with 5 left it cannot be worse any more'
    assert len(state.best.results) == 2, 'seeds on which others failed are no fair sample of the next comparison'


def test_a_peers_recipe_passes_the_same_gate(regressing):
    campaign, world, _ = regressing(GAINS['a'], GAINS['b'], GAINS['broken'], 'adopt')
    state = campaign.run()
    adopted = state.iterations[3]
    assert adopted.adopts == state.iterations[2].commit
    assert adopted.state == REVERTED and 'worse beyond the 95 % interval' in adopted.reason


def test_a_campaign_killed_before_each_trial_of_the_gate_decides_as_one_that_never_was(regressing, tmp_path):
    class Killed(BaseException):
        pass

    def second_trial(number):
        if number > 1:
            raise Killed

    script = GAINS['a'], GAINS['b'], GAINS['broken'], GAINS['good']
    uninterrupted = regressing(*script)[0].run()
    (tmp_path / 'runs').rename(tmp_path / 'uninterrupted')
    state, sessions = None, 0
    while state is None:
        campaign, world, _ = regressing(*script)
        world.before_trial, sessions = second_trial, sessions + 1
        try:
            state = campaign.run()
        except Killed:
            pass
    assert _decided(state) == _decided(uninterrupted)
    assert sessions == state.trials == uninterrupted.trials


def test_what_no_trial_says_anything_about_is_left_out_of_the_comparison(regressing):
    campaign, world, _ = regressing(GAINS['a'], GAINS['b'], GAINS['broken'])

    def fail_resets(number):
        if ORDER.get(world.seed) == 7 and len(campaign.state.iterations) == 3:
            world.forced[number] = 'RESET_FAILED'
            campaign.resume()

    world.before_trial = fail_resets
    state = campaign.run()
    assert state.iterations[2].state == KEPT, 'five seeds cannot tell'
    assert [line['outcome'] for line in world.ledger.verify()].count('RESET_FAILED') == 3


def test_without_room_for_trials_the_gate_ends_by_what_is_known(regressing):
    campaign, world, _ = regressing(GAINS['a'], GAINS['b'], GAINS['broken'], max_trials=17)
    state = campaign.run()
    assert state.iterations[2].state == KEPT
    assert 'not tried on all of them: the budget of 17 trials' in state.iterations[2].reason
    assert state.trials <= 17
