"""The tick loop: lockstep, pacing, commands that make no sense."""

import math
import threading
import time
from types import SimpleNamespace

import pytest

from enpire_bringup import world_loop
from enpire_bringup.world_loop import Command, CommandError, WorldLoop, read_command


class CountingWorld:
    """Stands in for a World: it only counts its steps and remembers what they were told."""

    period = 0.01

    def __init__(self, real_time_factor=0.0, step_timeout=0.2):
        self.station = SimpleNamespace(real_time_factor=real_time_factor, step_timeout=step_timeout)
        self.tick = 0
        self.steps = []
        self.resets = []
        self.error = None

    @property
    def stamp_ns(self):
        return self.tick * 10_000_000

    def step(self, positions, efforts, velocities):
        if self.error:
            raise self.error
        self.steps.append(dict(positions))
        self.tick += 1

    def reset(self, seed, object_pose):
        self.resets.append(seed)
        self.tick = 100


class Run:
    """A loop around a CountingWorld; `answer` is called with each stamp, in a thread of its own.

    With an `answer` there is a controller from the start: the state of 0 s is answered before the loop runs.
    """

    def __init__(self, world, answer=None):
        self.world, self.warnings, self.failures, self.published = world, [], [], []
        self.streamed = True
        self._wake, self._todo, self._ended = threading.Condition(), [], False
        self.loop = WorldLoop(world, self._publish, self.warnings.append, self.failures.append, lambda: self.streamed)
        self._answer = answer
        if answer:
            self.loop.command(0, Command({'joint': 0.0}))
        self._thread = threading.Thread(target=self._work, daemon=True)

    def _publish(self, world):
        self.published.append(world.stamp_ns)
        with self._wake:
            self._todo.append(world.stamp_ns)
            self._wake.notify()

    def _work(self):
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._todo or self._ended, 5.0)
                if self._ended:
                    return
                stamp = self._todo.pop(0)
            if self._answer:
                self._answer(self.loop, stamp)

    def __enter__(self):
        self._thread.start()
        self.loop.start()
        return self

    def __exit__(self, *_):
        self.loop.stop()
        with self._wake:
            self._ended = True
            self._wake.notify()

    def until(self, condition, seconds=5.0):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f'waited {seconds} s; the world is at tick {self.world.tick}'
            time.sleep(0.001)


def answer_with_changing_targets(loop, stamp):
    loop.command(stamp, Command({'joint': stamp * 1e-9}))


def answer_once(loop, stamp):
    pass   # the answer to the state of 0 s was all


def test_lockstep_steps_with_the_command_that_answers_each_state():
    with Run(CountingWorld(), answer_with_changing_targets) as run:
        run.until(lambda: run.world.tick >= 300)
        run.loop.stop()
    assert run.world.steps == [{'joint': pytest.approx(tick * 0.01)} for tick in range(len(run.world.steps))]
    assert run.published[:300] == [tick * 10_000_000 for tick in range(300)]
    assert not run.warnings


def test_lockstep_runs_faster_than_the_wall_clock():
    with Run(CountingWorld(), answer_with_changing_targets) as run:
        start = time.monotonic()
        run.until(lambda: run.world.tick >= 500)
        assert time.monotonic() - start < 2.5


def test_lockstep_waits_for_a_late_command_within_the_bound():
    def late(loop, stamp):
        time.sleep(0.1)
        answer_with_changing_targets(loop, stamp)

    with Run(CountingWorld(step_timeout=2.0), late) as run:
        run.until(lambda: run.world.tick >= 4)
        run.loop.stop()
    assert run.world.steps[3] == {'joint': pytest.approx(0.03)} and not run.warnings


def test_before_the_first_command_the_world_waits_for_nobody_and_in_the_end_says_so(monkeypatch):
    monkeypatch.setattr(world_loop, 'START_PATIENCE', 0.2)
    with Run(CountingWorld(step_timeout=30.0)) as run:
        run.until(lambda: run.world.tick >= 5)
        assert not run.warnings
        run.until(lambda: run.warnings)
        run.until(lambda: run.world.tick >= 60)
        assert len(run.warnings) == 1


def test_when_the_controller_falls_silent_the_world_says_so_once_and_keeps_the_wall_clocks_pace(monkeypatch):
    monkeypatch.setattr(world_loop, 'ANSWER_MARGIN', 0.0)
    with Run(CountingWorld(step_timeout=0.1), answer_once) as run:
        run.until(lambda: run.warnings)
        start, first = time.monotonic(), run.world.tick
        run.until(lambda: run.world.tick >= first + 50)
        assert time.monotonic() - start > 0.35
        assert len(run.warnings) == 1
        assert 'no joint command for the state of 0.01 s within 0.10 s' in run.warnings[0]
        run._answer = answer_with_changing_targets   # it comes back: lockstep again
        start, first = time.monotonic(), run.world.tick
        run.until(lambda: run.world.tick >= first + 300)
        assert time.monotonic() - start < 2.0
        assert len(run.warnings) == 1


def test_an_idle_world_runs_no_faster_than_the_wall_clock_until_commands_change():
    target = {'joint': 1.0}
    with Run(CountingWorld(), lambda loop, stamp: loop.command(stamp, Command(dict(target)))) as run:
        run.until(lambda: run.world.tick >= 101)
        start, first = time.monotonic(), run.world.tick
        run.until(lambda: run.world.tick >= first + 50)
        assert time.monotonic() - start > 0.35
        run._answer = answer_with_changing_targets
        start, first = time.monotonic(), run.world.tick
        run.until(lambda: run.world.tick >= first + 300)
        assert time.monotonic() - start < 2.0


def test_a_real_time_factor_paces_the_world_by_the_wall_clock():
    with Run(CountingWorld(real_time_factor=2.0), answer_with_changing_targets) as run:
        start = time.monotonic()
        run.until(lambda: run.world.tick >= 100)
        assert 0.45 < time.monotonic() - start < 2.0


def test_while_nobody_streams_the_world_runs_no_faster_than_those_who_watch_it_can_follow():
    with Run(CountingWorld(), answer_with_changing_targets) as run:
        run.streamed = False
        start, first = time.monotonic(), run.world.tick
        run.until(lambda: run.world.tick >= first + 200)
        assert time.monotonic() - start > 0.9 * 2.0 / world_loop.FREE_PACE


def test_a_command_from_before_a_reset_does_not_lead_the_arms_back():
    with Run(CountingWorld(step_timeout=5.0), answer_once) as run:
        run.until(lambda: len(run.published) == 2)
        run.loop.reset_world(7)
        run.until(lambda: 1_000_000_000 in run.published)
        run.loop.command(10_000_000, Command({'joint': 0.5}))
        run.loop.command(1_000_000_000, None)
        run.until(lambda: run.world.tick > 100)
        assert {'joint': 0.5} not in run.world.steps


def test_an_unusable_command_counts_as_an_answer_and_the_last_one_holds():
    def answer(loop, stamp):
        loop.command(stamp, None)

    with Run(CountingWorld(step_timeout=2.0), answer) as run:
        run.until(lambda: run.world.tick >= 20)
        run.loop.stop()
    assert set(step['joint'] for step in run.world.steps) == {0.0} and not run.warnings


def test_a_command_stamped_in_the_future_does_not_end_the_lockstep():
    def once(loop, stamp):
        if stamp == 10_000_000:
            loop.command(10**15, Command({'joint': 1.0}))

    with Run(CountingWorld(step_timeout=0.5), once) as run:
        run.until(lambda: run.warnings)
        assert 'for the state of 0.02 s' in run.warnings[0]


def test_a_reset_between_ticks_forgets_the_commands_and_publishes_the_new_state():
    with Run(CountingWorld(step_timeout=5.0), answer_once) as run:
        run.until(lambda: len(run.published) == 2)
        run.loop.reset_world(7)
        run.until(lambda: 1_000_000_000 in run.published)
        assert run.world.resets == [7] and run.world.steps == [{'joint': 0.0}]


def test_a_world_that_fails_ends_the_loop_and_says_why():
    world = CountingWorld()
    world.error = RuntimeError('diverged')
    with Run(world, answer_with_changing_targets) as run:
        run.until(lambda: run.failures)
        assert str(run.failures[0]) == 'diverged'


def test_stop_does_not_wait_for_the_command():
    with Run(CountingWorld(step_timeout=30.0), answer_once) as run:
        run.until(lambda: len(run.published) == 2)
        start = time.monotonic()
        run.loop.stop()
        assert time.monotonic() - start < 0.5


def test_a_command_is_read_by_joint_name(station):
    command = read_command(station, ['left_joint1', 'left_finger_joint', 'right_finger_joint'],
                           [0.1, 0.02, 0.03], [0.5, 0.0, 0.0], [9.0, 12.0, math.nan])
    assert command.positions == {'left_joint1': 0.1, 'left_finger_joint': 0.02, 'right_finger_joint': 0.03}
    assert command.efforts == {'left_finger_joint': 12.0}, 'only fingers have a force limit'
    assert command.velocities['left_joint1'] == 0.5


@pytest.mark.parametrize('fields, message', [
    ((['elbow'], [0.0]), "joint command for 'elbow', which this station does not have; known: left_joint1"),
    ((['left_joint1'], [math.nan]), 'joint command of nan for left_joint1'),
    ((['left_joint1'], [0.0], [math.inf]), 'velocity inf for left_joint1'),
    ((['left_joint1', 'left_joint2'], [0.0]), '2 names, 1 positions'),
    ((['left_joint1'], [0.0], [], [1.0, 2.0]), '2 efforts'),
])
def test_commands_that_make_no_sense_are_errors(station, fields, message):
    with pytest.raises(CommandError, match=message):
        read_command(station, *fields)
