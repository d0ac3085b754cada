import pytest

from enpire_agent.time_split import (HELD, RESETTING, RUNNING, THINKING, TRAINING, TimeSplit, robot_utilization,
                                     token_utilization)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_every_moment_belongs_to_one_activity():
    clock = Clock()
    split = TimeSplit({THINKING: 1.0}, clock)
    clock.now = 2.0
    with split.during(RUNNING):
        clock.now = 3.0
        split.switch(RESETTING)
        clock.now = 7.0
    assert split.activity == THINKING
    with split.during(HELD):
        clock.now = 7.5
    assert split.totals == {RESETTING: 4.0, RUNNING: 1.0, TRAINING: 0.0, THINKING: 3.0, HELD: 0.5}
    assert sum(split.totals.values()) == clock.now + 1.0


def test_utilizations():
    split = {RESETTING: 20.0, RUNNING: 65.0, TRAINING: 5.0, THINKING: 9.0, HELD: 1.0}
    assert robot_utilization(split) == pytest.approx(0.85)
    assert token_utilization(50, split) == pytest.approx(30.0)
    assert robot_utilization({}) == token_utilization(5, {}) == 0.0
