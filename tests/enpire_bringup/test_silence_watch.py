from enpire_bringup.silence_watch import SilenceWatch


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
