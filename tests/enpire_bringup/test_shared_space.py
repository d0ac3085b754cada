"""Two arms that move at once never touch, and the one that cannot go waits for the other."""

import threading

import numpy as np
import pytest

from enpire_bringup.collision_model import CollisionModel
from enpire_bringup.guard import ArmGuard
from enpire_bringup.motion_planning import MotionPlanner, Plan, PlanningError
from enpire_bringup.ompl_planner import OmplPlanner
from enpire_bringup.shared_space import SPACING, SharedSpace
from enpire_bringup.trajectory import point_to_point

HOME = [0.0, 1.047, 1.047, 0.0, 0.0, 0.0]
MIDDLE = {'left': [-0.75, 1.8, 1.047, 0.0, 0.0, 0.0], 'right': [0.75, 1.8, 1.047, 0.0, 0.0, 0.0]}


@pytest.fixture(scope='module')
def planners(station):
    return {arm: MotionPlanner(station, None, arm, ArmGuard(station, arm, station.safety), OmplPlanner())
            for arm in station.arms}


def present(station, **arms):
    return np.concatenate([[*arms.get(name, HOME), arm.gripper.closed] for name, arm in station.arms.items()])


def begin(space, planners, arm, start, goal, at, cancelled=lambda: '', waits=lambda reason: None):
    return space.begin(arm, lambda positions: planners[arm].to_joints(start, goal, 1.0, positions), lambda: [at],
                       cancelled, waits)


def smallest_distance(station, plans):
    """Between the arms at every pair of places on their ways: whatever happens in between, they are there at last."""
    bodies = CollisionModel(station)
    return min(bodies.arm_distance(present(station, left=left, right=right)).distance
               for left in plans['left'].trajectory.positions[::4] for right in plans['right'].trajectory.positions[::4])


def test_moves_at_once_keep_clear_of_each_other_at_every_time(station, planners):
    space = SharedSpace(station)
    plans = {}
    goals = {'left': [-0.35, 1.6, 1.2, 0.0, 0.0, 0.0], 'right': [0.25, 1.6, 1.2, 0.0, 0.0, 0.0]}
    for arm, goal in goals.items():
        plans[arm] = begin(space, planners, arm, HOME, goal, present(station))
    assert smallest_distance(station, plans) > station.safety.min_arm_distance


def test_whole_rest_of_a_running_way_is_occupied(station, planners):
    space = SharedSpace(station)
    plan = begin(space, planners, 'right', HOME, MIDDLE['right'], present(station))
    places = space.occupied('left', [present(station)])[:, 7:13]
    np.testing.assert_allclose(places[0], HOME)
    np.testing.assert_allclose(places[-1], MIDDLE['right'])
    for q in plan.trajectory.positions:
        assert np.abs(places - q).max(axis=1).min() < SPACING      # rad; 1 rad of any joint is less than 1 m
    space.progressed('right', plan.trajectory.duration)
    later = space.occupied('left', [present(station, right=MIDDLE['right'])])
    assert len(later) < len(places) / 2
    space.end('right')
    assert len(space.occupied('left', [present(station)])) == 1


def test_second_move_waits_for_the_first_where_only_one_has_room(station, planners):
    space = SharedSpace(station)
    begin(space, planners, 'right', HOME, MIDDLE['right'], present(station))
    told, waits, results = [], threading.Event(), {}

    def waiting(reason):
        told.append(reason)
        waits.set()

    def second():
        try:
            results['plan'] = space.begin(
                'left', lambda positions: planners['left'].to_joints(HOME, MIDDLE['left'], 1.0, positions),
                lambda: [present(station)], lambda: '', waiting)
        except PlanningError as error:
            results['error'] = str(error)
    thread = threading.Thread(target=second)
    thread.start()
    assert waits.wait(20.0) and 'left waits for the move of right to end' in told[0]
    # The first ends, here because it was cancelled before it began; so the way is free.
    space.end('right')
    thread.join(20.0)
    assert 'plan' in results, results


def test_wait_ends_with_the_reason_when_it_is_cancelled(station, planners):
    space = SharedSpace(station)
    begin(space, planners, 'right', HOME, MIDDLE['right'], present(station))
    with pytest.raises(PlanningError, match='at the goal left_.* right_.*waited for the move of right: cancelled'):
        begin(space, planners, 'left', HOME, MIDDLE['left'], present(station), cancelled=lambda: 'cancelled')


def test_move_that_cannot_be_is_refused_at_once_when_no_other_runs(station, planners):
    space = SharedSpace(station)
    blocked = present(station, right=MIDDLE['right'])
    with pytest.raises(PlanningError, match='at the goal left_'):
        begin(space, planners, 'left', HOME, MIDDLE['left'], blocked, waits=lambda reason: pytest.fail(reason))


def test_news_of_a_running_arm_never_wait_for_planning(station):
    """They come in the thread that takes in joint states."""
    space = SharedSpace(station)
    plan = Plan(point_to_point(HOME, MIDDLE['right'], [2] * 6, [6] * 6), np.zeros((2, 3)), 'ompl')
    heard = threading.Event()

    def slow_plan(positions):
        threading.Thread(target=lambda: (space.progressed('right', 0.5), space.end('right'), heard.set())).start()
        assert heard.wait(5.0)
        return plan
    space.begin('right', lambda positions: plan, lambda: [present(station)], lambda: '')
    space.begin('left', slow_plan, lambda: [present(station)], lambda: '')
