"""`enpire bench planning` counts what was planned and says why not, with the planner that arm_control uses."""

import json

from enpire_bringup import bench_planning
from enpire_bringup.kinematics import UnreachableError
from enpire_bringup.motion_planning import MotionPlanner


def test_bench_counts_moves_in_both_scenes_and_times_them(station, task):
    figures = bench_planning.run(station, task, 2)
    json.dumps(figures)
    for part in (figures, figures['with_boxes']):
        assert part['pairs'] == 2 and part['solved'] == 2 and part['planner'] == 'ompl'
        assert 0 < part['ms']['p50'] <= part['ms']['p95']
    assert set(figures['jitter_ms']) >= {'p50', 'p99'}


def test_move_that_is_not_found_counts_and_is_told(station, task, monkeypatch):
    def fail(*_):
        raise UnreachableError('left: out of reach')
    monkeypatch.setattr(MotionPlanner, 'to_pose', fail)
    told = []
    figures = bench_planning.measure(station, task, ['left'], 2, told.append)
    assert figures['solved'] == 0 and told == [f'pair {n} of 2 (left) failed: left: out of reach' for n in (1, 2)]
