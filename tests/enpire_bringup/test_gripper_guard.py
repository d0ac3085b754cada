"""A gripper command that is malformed, too much, or comes while the guard holds or sees nothing, is refused with the
reason."""

import math
from dataclasses import replace

import pytest

from enpire_bringup.guard import GuardRefusal
from enpire_bringup.guarded_arms import GuardedArms


@pytest.fixture
def unseen(station):
    """Before the first joint state."""
    return GuardedArms(station, station.safety, send=lambda *_: None, changed=lambda status: None)


@pytest.fixture
def home(station):
    return [value for arm in station.arms.values() for value in (*arm.named['home'], arm.gripper.closed)]


@pytest.fixture
def guarded(unseen, station, home):
    rest = [0.0] * len(station.joints)
    unseen.observe(10_000_000, home, rest, rest)
    return unseen


def test_command_within_the_gripper_is_let_through(guarded, station):
    gripper = station.arms['left'].gripper
    for width in (0.0, gripper.opening):
        guarded.check_gripper('left', width, 0.0)
        guarded.check_gripper('left', width, gripper.max_effort)


@pytest.mark.parametrize('width, force, reason', [
    (0.5, 0.0, 'left: gripper width 0.5 m; expected 0 to'), (-0.01, 0.0, 'gripper width'),
    (math.nan, 0.0, 'gripper width'), (0.02, 1000.0, 'gripper force 1000.0 N; expected up to 30 N'),
    (0.02, math.nan, 'gripper force'), (0.02, -1.0, 'gripper force')])
def test_command_beyond_the_gripper_is_refused(guarded, width, force, reason):
    with pytest.raises(GuardRefusal, match=reason):
        guarded.check_gripper('left', width, force)


def test_gripper_stays_as_it_is_until_a_whole_joint_state_has_come(unseen, station, home):
    rest = [0.0] * len(station.joints)
    with pytest.raises(GuardRefusal, match='left: no gripper moves unseen: no joint state has arrived yet'):
        unseen.check_gripper('left', 0.02, 0.0)
    unseen.lacks(['left_finger_joint'])
    with pytest.raises(GuardRefusal, match='unseen: joint_states lack left_finger_joint'):
        unseen.check_gripper('left', 0.02, 0.0)
    unseen.observe(10_000_000, home, rest, rest)
    unseen.check_gripper('left', 0.02, 0.0)
    unseen.silent('no joint states for more than 5 s')
    with pytest.raises(GuardRefusal, match='unseen: no joint states for more than 5 s'):
        unseen.check_gripper('left', 0.02, 0.0)


@pytest.mark.parametrize('closed, opened', [(0.0, 0.04), (0.01, 0.05), (0.04, 0.0), (-0.01, -0.05)])
def test_width_is_measured_from_where_the_fingers_meet(station, closed, opened):
    gripper = replace(station.arms['left'].gripper, closed=closed, open=opened)
    assert gripper.opening == pytest.approx(0.08)
    assert gripper.position(0.0) == closed and gripper.position(0.08) == pytest.approx(opened)
    assert gripper.width(gripper.position(0.03)) == pytest.approx(0.03)


def test_guard_that_holds_refuses_grippers_too(guarded, station, home):
    rest = [0.0] * len(station.joints)
    guarded.observe(20_000_000, [math.nan, *home[1:]], rest, rest)
    assert guarded.fault
    with pytest.raises(GuardRefusal, match='the guard holds: .*guard/clear'):
        guarded.check_gripper('left', 0.02, 0.0)
