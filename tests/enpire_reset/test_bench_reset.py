"""The reset bench counts honestly, and its hard starts lie all around the action space."""

import math
from types import SimpleNamespace

import numpy as np

from enpire_reset.bench_reset import figures, hard_places, turning_seed
from enpire_reset.geometry import wrap


def result(success, attempts=1, duration=8.0):
    return SimpleNamespace(success=success, attempts=attempts, duration=duration, position_error=0.002,
                           yaw_error=math.nan if not success else 0.01, message='' if success else 'out of reach')


def test_figures_count_failures_and_time_only_what_succeeded():
    found = figures([(result(True), 2.0), (result(True, 2, 16.0), 4.0), (result(False, 3, 60.0), 9.0)])
    assert (found['n'], found['succeeded'], found['attempts_mean']) == (3, 2, 2.0)
    assert found['seconds'] == {'p50': 12.0, 'p95': 15.6} and found['failures'] == ['out of reach']


def test_figures_of_nothing_but_failures_have_no_times():
    assert figures([(result(False), 2.0)])['seconds'] == {'p50': None, 'p95': None}


def test_hard_starts_lie_at_the_edge_of_the_action_space_and_towards_the_other_arm(station, task):
    low, high = np.array(task.action.low), np.array(task.action.high)
    places = hard_places(station, task)
    assert len(places) == 8
    assert all(np.isclose(edge, low).any() or np.isclose(edge, high).any() for edge, *_ in places)
    beyond = [place for _, *rest in places for place in rest]
    other = np.array(station.arms['right'].base_xyz[:2])
    assert beyond and all(((place < low) | (place > high)).any() for place in map(np.array, beyond))
    assert min(np.linalg.norm(np.array(place) - other) for place in beyond) < 0.45


def test_half_of_the_hard_resets_turn_the_object_around(task):
    turns = [abs(wrap(task.start_pose(turning_seed(task, 20_008, yaw))[2] - yaw)) for yaw in np.linspace(-3.1, 3.1, 50)]
    assert min(turns) > math.radians(150)
    assert turning_seed(task, 20_008, 0.0) != turning_seed(task, 20_009, 0.0)
