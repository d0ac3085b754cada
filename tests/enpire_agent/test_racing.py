import math

import numpy as np
import pytest

from enpire_agent.racing import (MOST_TRIALS, Evidence, Move, decide, longest_race, probability_better,
                                 probability_lower, probability_of_no_more)
from enpire_agent.racing_simulation import fixed_number, hill_climb, keep_rate, racing, true_rate


def test_probability_agrees_with_drawing_from_both_beta_distributions():
    rng = np.random.default_rng(1)
    for case in ((4, 6, 6, 20), (0, 3, 1, 20), (6, 6, 5, 6), (10, 24, 30, 50)):
        s, n, t, m = case
        drawn = np.mean(rng.beta(1 + s, 1 + n - s, 40000) > rng.beta(1 + t, 1 + m - t, 40000))
        assert probability_better(*case) == pytest.approx(drawn, abs=0.01)


def test_probability_of_equal_evidence_is_one_half():
    assert probability_better(0, 0, 0, 0) == pytest.approx(0.5)
    assert probability_better(7, 12, 7, 12) == pytest.approx(0.5)
    assert probability_better(3, 10, 8, 9) == pytest.approx(1 - probability_better(8, 9, 3, 10))
    with pytest.raises(ValueError):
        probability_better(3, 2, 0, 0)


def test_probability_of_no_more_agrees_with_drawing_recipes_as_good_as_the_best():
    rng = np.random.default_rng(1)
    for s, n, t, m in ((4, 6, 6, 20), (0, 3, 1, 20), (5, 6, 46, 47), (10, 24, 30, 50)):
        drawn = np.mean(rng.binomial(n, rng.beta(1 + t, 1 + m - t, 40000)) <= s)
        assert probability_of_no_more(s, n, t, m) == pytest.approx(drawn, abs=0.01)
    assert probability_of_no_more(6, 6, 46, 47) == pytest.approx(1.0)


def test_nothing_is_kept_before_its_first_trials():
    assert decide(Evidence(5, 5), Evidence(0, 20), first=6).move is Move.TRY_CANDIDATE
    assert decide(Evidence(6, 6), Evidence(0, 20), first=6).move is Move.KEEP


def test_the_hopeless_is_given_up_early():
    assert decide(Evidence(0, 2), Evidence(15, 20), first=6).move is Move.REVERT
    assert decide(Evidence(0, 1), Evidence(15, 20), first=6).move is Move.TRY_CANDIDATE


@pytest.mark.parametrize('best', [Evidence(46, 47), Evidence(50, 50), Evidence(90, 100)])
def test_next_to_a_strong_recipe_what_has_not_failed_goes_on(best):
    assert all(not decide(Evidence(n, n), best, first=6).over for n in range(1, 10))
    assert decide(Evidence(3, 4), best, first=6).move is Move.REVERT, 'the best one would hardly have failed yet'


def test_what_seldom_fails_can_still_be_better_than_what_seldom_fails():
    assert longest_race(Evidence(5, 20), first=6) == 24
    assert 24 < longest_race(Evidence(46, 47), first=6) < longest_race(Evidence(10**4, 10**4), first=6) == MOST_TRIALS
    assert decide(Evidence(75, 75), Evidence(70, 75), first=6).move is Move.KEEP
    assert decide(Evidence(MOST_TRIALS, MOST_TRIALS), Evidence(10**4, 10**4), first=6).move is Move.REVERT


def test_a_campaign_that_starts_strong_climbs_too():
    start = math.log(0.95 / 0.05)
    climb = hill_climb(racing(6), 400, start=start, baseline=50, repeats=40)
    assert climb.rate > true_rate(start) + 0.02 and climb.worse < 0.2


def test_one_success_more_is_luck():
    decision = decide(Evidence(5, 6), Evidence(4, 6), first=6)
    assert not decision.over
    assert decide(Evidence(17, 24), Evidence(15, 24), first=6).move is Move.REVERT


def test_the_promising_goes_on_and_what_is_known_least_is_tried_next():
    assert decide(Evidence(5, 6), Evidence(4, 6), first=6).move is Move.TRY_CANDIDATE
    assert decide(Evidence(6, 7), Evidence(4, 6), first=6).move is Move.TRY_BEST


def test_without_any_success_coming_clearly_nearer_counts():
    best = Evidence(0, 20, tuple(0.10 + 0.002 * i for i in range(20)))
    nearer = Evidence(0, 6, (0.03, 0.05, 0.04, 0.06, 0.05, 0.04))
    assert decide(nearer, best, first=6).move is Move.KEEP
    assert 'nearer' in decide(nearer, best, first=6).reason
    assert decide(Evidence(0, 6, best.errors[:6]), best, first=6).move is Move.REVERT
    assert decide(nearer, Evidence(2, 20, best.errors), first=6).move is Move.REVERT, 'a success weighs more'


def test_lower_values_are_told_from_chance():
    assert probability_lower([1, 2, 3, 4], [5, 6, 7, 8]) > 0.98
    assert probability_lower([1, 3, 5, 7], [2, 4, 6, 8]) < 0.9
    assert probability_lower([], [1.0]) == 0.5
    assert probability_lower([1.0] * 5, [1.0] * 5) == pytest.approx(0.5)


def test_racing_keeps_half_as_many_worse_recipes_as_one_success_more_does():
    for best, candidate in ((0.6, 0.4), (0.85, 0.65), (0.6, 0.5), (0.3, 0.2), (0.85, 0.75)):
        race = keep_rate(racing(6), best, candidate, best_trials=6, repeats=300)
        luck = keep_rate(fixed_number(6), best, candidate, best_trials=6, repeats=300)
        assert race.kept < 0.6 * luck.kept, (best, candidate)
        assert race.kept < 0.15


def test_racing_finds_what_is_much_better_as_often():
    race = keep_rate(racing(6), 0.3, 0.7, best_trials=6, repeats=300)
    assert race.kept > 0.85 and race.trials < 15


def test_campaigns_of_the_same_length_end_higher_by_racing():
    race, luck = (hill_climb(rule, 400, repeats=40) for rule in (racing(6), fixed_number(6)))
    assert race.rate > luck.rate + 0.08
    assert race.worse < luck.worse


def test_true_rate_is_the_mean_over_start_poses_of_differing_difficulty():
    assert true_rate(0.0) == pytest.approx(0.5)
    assert 0.5 < true_rate(1.0) < 1 / (1 + math.exp(-1.0)), 'harder poses cost more than easier ones give'


def test_a_candidate_that_never_failed_in_as_many_trials_as_the_gate_has_is_worth_the_gate():
    best = Evidence(53, 54)
    assert decide(Evidence(49, 49), best, 6, gate=50).move is not Move.KEEP
    assert decide(Evidence(50, 50), best, 6, gate=50).move is Move.KEEP
    assert decide(Evidence(50, 50), best, 6).move is not Move.KEEP, 'without a gate the race goes on'
    assert decide(Evidence(50, 50), Evidence(60, 60), 6, gate=50).move is not Move.KEEP, 'the best one never failed'
    assert decide(Evidence(50, 50), Evidence(999, 1000), 6, gate=50).move is not Move.KEEP, 'it may well be worse'
