import pytest

from enpire_bringup.silence_watch import SilenceWatch, WorldWatch


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def watch():
    clock = Clock()
    return clock, SilenceWatch(limit=1.0, first=10.0, repeat=5.0, clock=clock)


def test_a_stream_that_stops_is_reported_once_and_then_now_and_then():
    clock, silence = watch()
    silence.heard()
    reports = []
    for step in range(1, 13):
        clock.now = step * 1.0
        reports.append(silence.check())
    assert reports == [None, 2.0, None, None, None, None, 7.0, None, None, None, None, 12.0]


def test_a_stream_that_comes_back_is_noticed():
    clock, silence = watch()
    silence.heard()
    clock.now = 3.0
    assert silence.check() == 3.0
    clock.now = 4.0
    assert silence.heard() == 4.0
    assert silence.heard() == 0.0 and not silence.silent


def test_the_first_message_may_take_longer():
    clock, silence = watch()
    clock.now = 9.0
    assert silence.check() is None
    clock.now = 11.0
    assert silence.check() == 11.0


def test_time_in_which_nothing_was_expected_is_no_silence():
    clock, silence = watch()
    silence.heard()
    for step in range(40):
        clock.now += 0.25
        assert silence.check(paused=True) is None
    reports = []
    for step in range(6):
        clock.now += 0.25
        reports.append(silence.check())
    assert reports == [None] * 4 + [1.25, None]


def test_a_pause_takes_nothing_from_what_was_heard_after_it():
    clock, silence = watch()
    silence.check()
    clock.now = 0.2
    silence.heard()
    clock.now = 0.25
    silence.check(paused=True)
    clock.now = 1.3
    assert silence.check() == pytest.approx(1.05)


def test_only_a_world_in_lockstep_may_stand_still():
    stamps = [None, None, 10, 20, 20, 20, 30, 5]
    world, paced = WorldWatch(lockstep=True), WorldWatch(lockstep=False)
    assert [world.waits(stamp) for stamp in stamps] == [True, True, False, False, True, True, False, False]
    assert not any(paced.waits(stamp) for stamp in stamps)
