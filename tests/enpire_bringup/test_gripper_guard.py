"""A gripper command that is malformed, too much, or comes while the guard holds, is refused with the reason."""

import math

import pytest

from enpire_bringup.guard import GuardRefusal
from enpire_bringup.guarded_arms import GuardedArms


@pytest.fixture
def guarded(station):
    return GuardedArms(station, station.safety, send=lambda *_: None, changed=lambda status: None)


def test_command_within_the_gripper_is_let_through(guarded, station):
    gripper = station.arms['left'].gripper
    for width in (2 * gripper.closed, 2 * gripper.open):
        guarded.check_gripper('left', width, 0.0)
        guarded.check_gripper('left', width, gripper.max_effort)


@pytest.mark.parametrize('width, force, reason', [
    (0.5, 0.0, 'left: gripper width 0.5 m; expected 0 to'), (-0.01, 0.0, 'gripper width'),
    (math.nan, 0.0, 'gripper width'), (0.02, 1000.0, 'gripper force 1000.0 N; expected up to 30 N'),
    (0.02, math.nan, 'gripper force'), (0.02, -1.0, 'gripper force')])
def test_command_beyond_the_gripper_is_refused(guarded, width, force, reason):
    with pytest.raises(GuardRefusal, match=reason):
        guarded.check_gripper('left', width, force)


def test_guard_that_holds_refuses_grippers_too(guarded, station):
    rest = [0.0] * len(station.joints)
    home = [value for arm in station.arms.values() for value in (*arm.named['home'], arm.gripper.closed)]
    guarded.observe(10_000_000, home, rest, rest)
    guarded.observe(20_000_000, [math.nan, *home[1:]], rest, rest)
    assert guarded.fault
    with pytest.raises(GuardRefusal, match='the guard holds: .*guard/clear'):
        guarded.check_gripper('left', 0.02, 0.0)
