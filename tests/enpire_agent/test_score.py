import pytest

from enpire_agent.score import ScoreError, score, success_interval
from enpire_agent.seeds import check_seed, gate_seed, search_seeds


def _lines(outcomes, env_hash='a' * 64, kind='gate', recipe='r'):
    names = {'s': 'SUCCESS', 't': 'TIMEOUT', 'r': 'RESET_FAILED', 'a': 'ABORTED', 'i': 'INVALID'}
    return [{'trial_id': f't{i}', 'outcome': names[o], 'env_hash': env_hash, 'kind': kind, 'seed': 2 * i + 1,
             'station': 'station_1', 'recipe': recipe,
             'started': f'2026-01-01T00:{i:02d}:00+00:00', 'ended': f'2026-01-01T00:{i:02d}:30+00:00'}
            for i, o in enumerate(outcomes)]


def test_every_started_trial_counts():
    result = score(_lines('sstrai'), window=5)
    assert (result.trials, result.successes) == (6, 2)
    assert result.outcomes == {'SUCCESS': 2, 'TIMEOUT': 1, 'RESET_FAILED': 1, 'ABORTED': 1, 'INVALID': 1}
    assert result.rate == pytest.approx(1 / 3)


def test_the_window_is_undefined_until_it_is_full():
    assert score(_lines('sss'), window=4).window_success is None
    assert score(_lines('tsss'), window=4).window_success == 0.75
    assert score(_lines('ttssss'), window=4).window_success == 1.0


def test_time_to_success_is_the_end_of_the_first_full_window():
    assert score(_lines('tsss'), window=3).time_to_success_s == 3 * 60 + 30
    assert score(_lines('tsts'), window=3).time_to_success_s is None


def test_solved_is_a_window_of_successes_on_fresh_seeds():
    assert not score(_lines('sst'), window=3).solved.yes
    yes = score(_lines('tsss'), window=3).solved
    assert (yes.yes, yes.successes, yes.trials, yes.recipe) == (True, 3, 3, 'r')
    assert str(score(_lines('s' * 50)).solved) == (
        'solved: 50 of 50 consecutive on fresh seeds, 95 % interval 93 to 100 %')
    assert str(score(_lines('s' * 18 + 'tt'), window=20).solved) == (
        'not solved: 18 of 20 on fresh seeds, 95 % interval 68 to 99 %, where 20 consecutive are needed')
    assert str(score([]).solved) == (
        'not solved: nothing was tried on fresh seeds, where 50 consecutive successes are needed')


@pytest.mark.parametrize('ended', 'trai')
def test_whatever_ends_a_trial_else_ends_the_run(ended):
    assert not score(_lines(f'ss{ended}ss'), window=3).solved.yes


@pytest.mark.parametrize('kind', ['search', 'manual'])
def test_trials_on_chosen_seeds_solve_nothing(kind):
    assert score(_lines('s' * 60, kind=kind)).window_success == 1.0
    assert not score(_lines('s' * 60, kind=kind)).solved.yes
    fresh, chosen = _lines('ss'), _lines('t' * 9, kind=kind)
    assert score([fresh[0], *chosen[2:], fresh[1]], window=2).solved.yes, 'nor do they end a run'


def test_runs_of_two_recipes_do_not_add_up():
    first, second = _lines('ssssss')[:3], _lines('ssssss', recipe='q')[3:]
    assert not score([*first, *second], window=4).solved.yes
    elsewhere = [{**line, 'station': 'station_2'} for line in _lines('ssssss')[3:]]
    assert not score([*first, *elsewhere], window=4).solved.yes


def test_a_seed_that_was_used_before_is_not_fresh():
    lines = _lines('ssss')
    assert score(lines, window=4).solved.yes
    assert not score([*lines[:3], {**lines[3], 'seed': lines[0]['seed']}], window=4).solved.yes


def test_a_score_without_a_window_is_refused():
    with pytest.raises(ScoreError, match='window of 0 trials'):
        score(_lines('s'), window=0)


def test_two_environments_are_not_mixed():
    with pytest.raises(ScoreError, match='aaaaaaaaaaaa.*trial t0.*bbbbbbbbbbbb|aaaaaaaaaaaa.*bbbbbbbbbbbb'):
        score(_lines('ss') + _lines('s', 'b' * 64))


@pytest.mark.parametrize('successes, trials, low, high', [
    # Clopper-Pearson by scipy.stats.beta.ppf(0.025, k, n - k + 1), ppf(0.975, k + 1, n - k)
    (0, 20, 0.0, 0.16843347), (20, 20, 0.83156653, 1.0), (10, 20, 0.27195787, 0.72804213),
    (1, 6, 0.00421074, 0.64123455), (47, 50, 0.83451900, 0.98745187)])
def test_interval_agrees_with_the_beta_distribution(successes, trials, low, high):
    assert success_interval(successes, trials) == pytest.approx((low, high), abs=1e-6)


def test_no_trials_say_nothing():
    assert success_interval(0, 0) == (0.0, 1.0)
    assert score([]).rate is None


def test_search_seeds_are_even_and_repeatable_and_gate_seeds_odd_and_new():
    assert search_seeds('c', 6) == search_seeds('c', 6)
    assert search_seeds('c', 6) != search_seeds('d', 6)
    assert search_seeds('c', 4, first=2) == search_seeds('c', 6)[2:]
    assert all(seed % 2 == 0 for seed in search_seeds('c', 50))
    drawn = [gate_seed() for _ in range(50)]
    assert all(seed % 2 == 1 for seed in drawn) and len(set(drawn)) == 50


def test_a_search_cannot_look_at_a_gate_seed():
    with pytest.raises(ValueError, match='odd seeds belong to the gate'):
        check_seed('search', 7)
    with pytest.raises(ValueError, match='A baseline trial uses odd'):
        check_seed('baseline', 8)
    check_seed('manual', 7)
