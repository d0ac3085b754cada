"""Back-off of processes that crash."""

from __future__ import annotations

import pytest

from enpire_bringup.respawn import CRASH_WINDOW, HEALTHY_AFTER, LONGEST_DELAY, MOST_CRASHES, Respawn


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def respawn(clock):
    respawn = Respawn(clock)
    respawn.started()
    return respawn


def crash_after(respawn, clock, seconds):
    """Crash after `seconds` of running, and start again when due; the delay."""
    clock.now += seconds
    delay = respawn.crashed()
    if delay is not None:
        clock.now += delay
        assert respawn.due
        respawn.started()
    return delay


def test_delays_double_while_a_process_keeps_crashing(respawn, clock):
    assert [crash_after(respawn, clock, 1.0) for _ in range(5)] == [0.5, 1.0, 2.0, 4.0, 8.0]
    assert respawn.restarts == 5


def test_it_gives_up_after_too_many_crashes_in_a_short_time(respawn, clock):
    delays = [crash_after(respawn, clock, 2.0) for _ in range(MOST_CRASHES)]
    assert delays[-1] is None and None not in delays[:-1]
    assert max(delays[:-1]) <= LONGEST_DELAY
    assert not respawn.due and not respawn.waiting


def test_a_process_that_ran_long_begins_with_short_delays_again(respawn, clock):
    for _ in range(4):
        crash_after(respawn, clock, 1.0)
    assert crash_after(respawn, clock, HEALTHY_AFTER + 1.0) == 0.5


def test_rare_crashes_are_never_too_many(respawn, clock):
    delays = [crash_after(respawn, clock, CRASH_WINDOW / 4) for _ in range(3 * MOST_CRASHES)]
    assert delays == [0.5] * len(delays)


def test_it_is_due_only_after_its_delay(respawn, clock):
    clock.now += 1.0
    delay = respawn.crashed()
    assert respawn.waiting and not respawn.due
    clock.now += 0.9 * delay
    assert not respawn.due
    clock.now += 0.2 * delay
    assert respawn.due


def test_the_first_start_is_no_restart(respawn):
    assert respawn.restarts == 0
