import pytest

from enpire_agent.score import ScoreError, score, success_interval
from enpire_agent.seeds import check_seed, gate_seed, search_seeds


def _lines(outcomes, env_hash='a' * 64):
    names = {'s': 'SUCCESS', 't': 'TIMEOUT', 'r': 'RESET_FAILED', 'a': 'ABORTED', 'i': 'INVALID'}
    return [{'trial_id': f't{i}', 'outcome': names[o], 'env_hash': env_hash,
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
