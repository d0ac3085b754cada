"""Reset programs are loaded with clear errors, tried a few times, and believed only after a look."""

import math
from dataclasses import replace

import pytest

from enpire_bringup.configuration import ConfigurationError
from enpire_reset.reset_program import MAX_ATTEMPTS, ResetProgram
from enpire_reset.skills import GripperState, SkillCancelled, SkillError, Skills, wrap


def program(task, folder, text):
    file = folder / 'reset.py'
    file.write_text(text)
    return ResetProgram(replace(task, reset=file))


@pytest.mark.parametrize('text, reason', [
    ('def reset(skills, task, seed)\n', 'does not load: SyntaxError'),
    ('import no_such_module\n', 'does not load: ModuleNotFoundError'),
    ('TOLERANCE = (0.01, 0.1)\n', r'has no function reset\(skills, task, seed\)'),
])
def test_program_that_cannot_run_names_its_file(task, tmp_path, text, reason):
    with pytest.raises(ConfigurationError, match=f'reset.py: {reason}'):
        program(task, tmp_path, text)


class Scripted:
    """A robot that sees what the script says and moves nothing."""

    def __init__(self, sightings):
        self.seen = list(sightings)

    def move_to_named(self, arm, name):
        pass

    def move_gripper(self, arm, position, max_effort):
        pass

    def sightings(self, name, count, timeout):
        seen = self.seen.pop(0) if len(self.seen) > 1 else self.seen[0]
        if isinstance(seen, Exception):
            raise seen
        return [seen] * count


NOTHING = 'def reset(skills, task, seed):\n    pass\n'


def run(program, station, sightings):
    attempts = []
    return program.run(Skills(station, Scripted(sightings)), 2, attempts.append), attempts


def test_program_that_claims_success_is_not_believed(task, station, tmp_path):
    outcome, attempts = run(program(task, tmp_path, NOTHING), station, [(0.0, 0.0, 0.0)])
    assert not outcome.success and outcome.attempts == MAX_ATTEMPTS and attempts == [0, 1, 2, 3]
    assert 'from the start pose of the seed; allowed are 12 mm and 8 deg' in outcome.message


def test_success_is_what_was_seen_within_the_program_s_own_tolerance(task, station, tmp_path):
    x, y, yaw = task.start_pose(2)
    strict = program(task, tmp_path, NOTHING + 'TOLERANCE = (0.001, 0.01)\n')
    outcome, _ = run(strict, station, [(x + 0.005, y, yaw)])
    assert not outcome.success
    outcome, _ = run(strict, station, [(0.0, 0.0, 0.0), (x + 0.0005, y, yaw - 2 * math.pi)])
    assert outcome.success and outcome.attempts == 1
    assert outcome.position_error == pytest.approx(0.0005) and outcome.yaw_error == pytest.approx(0.0)


def test_crash_of_the_program_is_reported_with_its_exception(task, station, tmp_path):
    crashing = program(task, tmp_path, 'def reset(skills, task, seed):\n    1 / 0\n')
    outcome, _ = run(crashing, station, [(0.0, 0.0, 0.0)])
    assert not outcome.success and 'reset.py raised ZeroDivisionError' in outcome.message


def test_object_that_cannot_be_seen_is_reported(task, station, tmp_path):
    outcome, _ = run(program(task, tmp_path, NOTHING), station, [SkillError('locate: t_block was never visible')])
    assert not outcome.success and outcome.reached is None
    assert outcome.message == 'locate: t_block was never visible'


def test_cancellation_ends_the_attempts(task, station, tmp_path):
    with pytest.raises(SkillCancelled):
        run(program(task, tmp_path, NOTHING), station, [SkillCancelled('stop')])


def test_look_averages_yaw_across_the_turn(station):
    class Turning(Scripted):
        def sightings(self, name, count, timeout):
            return [(0.3, 0.0, math.pi - 0.01), (0.3, 0.0, -math.pi + 0.03)] * 2
    assert Skills(station, Turning([])).locate('t_block')[2] == pytest.approx(-math.pi + 0.01)


def test_object_that_still_moves_is_not_located(station):
    class Moving(Scripted):
        def sightings(self, name, count, timeout):
            return [(0.3 + 0.01 * i, 0.0, 0.0) for i in range(count)]
    with pytest.raises(SkillError, match='does not come to rest'):
        Skills(station, Moving([])).locate('t_block')


def test_grasp_of_something_else_is_noticed(station):
    skills = Skills(station, Scripted([]))
    skills.check_grasp('left', 0.02, GripperState(0.0101, True, False))
    for position in (0.0, 0.0175):
        with pytest.raises(SkillError, match='mm apart; an object of 20 mm was expected'):
            skills.check_grasp('left', 0.02, GripperState(position, True, False))


def test_angles_wrap():
    assert wrap(3 * math.pi / 2) == pytest.approx(-math.pi / 2)
