"""The memory bench sees what grows, and not what a start takes."""

import os

import numpy as np
import pytest

from enpire_bringup.bench_memory import figures, resident


def test_growth_is_the_slope_after_the_warm_up():
    seconds = np.arange(0.0, 120.0, 0.5)
    found = figures(seconds, {'leaking': 100 + 0.01 * seconds, 'steady': np.minimum(80 + 5 * seconds, 200.0)})
    assert found['processes']['leaking']['growth_mb_per_hour'] == pytest.approx(36.0)
    assert found['processes']['steady'] == {'resident_mb': 200.0, 'peak_mb': 200.0, 'growth_mb_per_hour': 0.0}
    assert found['growth_mb_per_hour'] == pytest.approx(36.0) and found['total_mb'] == pytest.approx(301.2, abs=0.1)


def test_memory_is_that_of_the_process_with_its_children_and_unknown_once_it_is_gone():
    sizes = resident({'this': os.getpid(), 'gone': 2**22 + 1})
    assert sizes['this'] > 10 and np.isnan(sizes['gone'])
