"""Images that are no news."""

import time

import numpy as np

from enpire_bringup.image_watch import FrameGate, FrozenPictureWatch, HandMotion
from enpire_bringup.joint_state_history import JointStateHistory

MS = 1_000_000


def test_one_image_a_period_passes():
    gate = FrameGate(30.0)
    stamps = [n * 33_333_333 for n in range(30)]
    assert all(gate.admits(stamp) for stamp in stamps)


def test_the_grid_of_a_simulated_camera_passes():
    """30 Hz on a grid of 10 ms: 40, 30, 30 ms."""
    gate = FrameGate(30.0)
    assert all(gate.admits(tick * 10 * MS) for tick in (0, 4, 7, 10, 14, 17, 20))


def test_the_same_image_again_is_counted_and_does_not_pass():
    gate = FrameGate(30.0)
    assert gate.admits(100 * MS)
    assert not gate.admits(100 * MS) and not gate.admits(100 * MS)
    assert gate.repeated == 2
    assert gate.admits(140 * MS) and gate.repeated == 0


def test_a_flood_passes_at_twice_the_cameras_rate_at_most():
    gate = FrameGate(30.0)
    passed = sum(gate.admits(n * MS) for n in range(1000))
    assert 30 <= passed <= 60


def test_an_older_image_does_not_pass_but_a_clock_that_began_anew_does():
    gate = FrameGate(30.0)
    assert gate.admits(10_000 * MS)
    assert not gate.admits(9_900 * MS)
    assert gate.admits(20 * MS)


def picture(value=100):
    return np.full((48, 64, 3), value, np.uint8)


def test_a_picture_that_stays_the_same_while_a_hand_moves_is_frozen():
    states = JointStateHistory()
    watch = FrozenPictureWatch(lambda before, now: now - before, states)
    for n in range(10):
        states.add(n * 100 * MS, 0.01 * n)       # 10 cm/s
    seen = [watch.look(picture(), n * 100 * MS) for n in range(10)]
    assert seen == [False] * 3 + [True] * 7
    assert not watch.look(picture(101), 1000 * MS)      # it moves again


def test_a_picture_of_a_resting_scene_is_not_frozen():
    states = JointStateHistory()
    watch = FrozenPictureWatch(lambda before, now: now - before, states)
    for n in range(50):
        states.add(n * 100 * MS, 0.001 * (n % 2))
    assert not any(watch.look(picture(), n * 100 * MS) for n in range(50))


def test_without_joint_states_nothing_is_said():
    watch = FrozenPictureWatch(lambda before, now: 1.0, JointStateHistory())
    assert not any(watch.look(picture(), n * 100 * MS) for n in range(50))


def test_joint_states_after_the_image_do_not_count():
    """Perception may be behind: the hand may have moved since, and not yet in this picture."""
    states = JointStateHistory()
    watch = FrozenPictureWatch(lambda before, now: now - before, states)
    for n in range(10):
        states.add(n * 100 * MS, 0.1 * (n > 3))
    assert not watch.look(picture(), 0)
    assert not watch.look(picture(), 300 * MS)
    assert watch.look(picture(), 400 * MS)


def test_a_joint_state_that_is_missing_is_not_replaced_by_an_older_one():
    """Joint states came late: the hand moved before the picture came to rest, not after."""
    states = JointStateHistory()
    watch = FrozenPictureWatch(lambda before, now: now - before, states)
    states.add(0, 0.0)
    assert not watch.look(picture(), 300 * MS)
    states.add(300 * MS, 0.5)
    assert not watch.look(picture(), 300 * MS + 1)
    states.add(400 * MS, 0.5)
    assert not watch.look(picture(), 400 * MS)


def test_hands_in_view_are_measured_in_meters(station):
    motion = HandMotion(station, station.cameras['top'])
    home = {joint: angle for arm in station.arms.values() for joint, angle in zip(arm.joints, arm.named['home'])}
    reached = {**home, **dict(zip(station.arms['left'].joints, (0.0, 1.9, 1.5, 0.0, 0.0, 0.0)))}
    assert motion(home, home) == 0.0
    other_arm = {**home, station.arms['right'].joints[0]: 0.3}
    motion(home, reached)
    deadline = time.monotonic() + 20
    while not motion(reached, {**reached, 'left_joint1': 0.1}):     # the kinematics are being loaded
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert 0.02 < motion(reached, {**reached, 'left_joint1': 0.1}) < 0.08
    assert motion(home, other_arm) == 0.0       # out of view
    assert motion(home, {}) == 0.0
