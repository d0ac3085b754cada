"""The memory bench sees what grows, and not what a start takes."""

import os

import numpy as np
import pytest

from enpire_bringup.bench_memory import figures, usage


def test_growth_is_the_slope_after_the_warm_up():
    seconds = np.arange(0.0, 120.0, 0.5)
    samples = {'leaking': 100 + 0.01 * seconds, 'steady': np.minimum(80 + 5 * seconds, 200.0)}
    found = figures(seconds, {name: [(size, size - 50) for size in sizes] for name, sizes in samples.items()})
    assert found['processes']['leaking']['growth_mb_per_hour'] == pytest.approx(36.0)
    assert found['processes']['steady'] == {'resident_mb': 200.0, 'peak_mb': 200.0, 'growth_mb_per_hour': 0.0}
    assert found['growth_mb_per_hour'] == pytest.approx(36.0) and found['total_mb'] == pytest.approx(301.2, abs=0.1)


def test_pages_of_shared_memory_that_are_used_for_the_first_time_are_no_growth():
    seconds = np.arange(0.0, 120.0, 0.5)
    found = figures(seconds, {'world': [(250 + 0.01 * time, 130.0) for time in seconds]})
    assert found['growth_mb_per_hour'] == 0.0 and found['total_mb'] == pytest.approx(251.2, abs=0.1)


def test_memory_is_that_of_the_process_with_its_children_and_unknown_once_it_is_gone():
    sizes = usage({'this': os.getpid(), 'gone': 2**22 + 1})
    resident, private = sizes['this']
    assert resident > private > 10 and np.isnan(sizes['gone']).all()
