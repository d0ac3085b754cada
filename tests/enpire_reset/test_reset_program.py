"""Reset programs are loaded with clear errors, tried a few times, and believed only after a look."""

import math
from dataclasses import replace

import pytest

from enpire_bringup.configuration import ConfigurationError
from enpire_reset.reset_program import MAX_ATTEMPTS, ResetProgram
from enpire_reset.robot import CameraSilent, SkillCancelled, SkillError
from enpire_reset.skills import Skills


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


NOTHING = 'def reset(skills, task, seed):\n    pass\n'


@pytest.fixture
def run(station, task, scripted):
    def run(program, sightings):
        attempts = []
        return program.run(Skills(station, task, scripted(sightings)), 2, attempts.append), attempts
    return run


def test_program_that_claims_success_is_not_believed(run, task, tmp_path):
    outcome, attempts = run(program(task, tmp_path, NOTHING), [(0.0, 0.0, 0.0)])
    assert not outcome.success and len(outcome.attempts) == MAX_ATTEMPTS and attempts == [0, 1, 2, 3]
    assert 'from the start pose of the seed; allowed are 12 mm and 8 deg' in outcome.message


def test_success_is_what_was_seen_within_the_program_s_own_tolerance(run, task, tmp_path):
    x, y, yaw = task.start_pose(2)
    strict = program(task, tmp_path, NOTHING + 'TOLERANCE = (0.001, 0.01)\n')
    outcome, _ = run(strict, [(x + 0.005, y, yaw)])
    assert not outcome.success
    outcome, _ = run(strict, [(0.0, 0.0, 0.0), (x + 0.0005, y, yaw - 2 * math.pi)])
    assert outcome.success and len(outcome.attempts) == 1
    assert outcome.position_error == pytest.approx(0.0005) and outcome.yaw_error == pytest.approx(0.0)


def test_crash_of_the_program_is_reported_with_its_exception(run, task, tmp_path):
    crashing = program(task, tmp_path, 'def reset(skills, task, seed):\n    1 / 0\n')
    outcome, _ = run(crashing, [(0.0, 0.0, 0.0)])
    assert not outcome.success and 'reset.py raised ZeroDivisionError' in outcome.message


def test_object_that_cannot_be_seen_is_reported(run, task, tmp_path):
    outcome, _ = run(program(task, tmp_path, NOTHING), [SkillError('locate: t_block was never visible')])
    assert not outcome.success and outcome.reached is None
    assert outcome.message == 'locate: t_block was never visible'


def test_cancellation_ends_the_attempts(run, task, tmp_path):
    with pytest.raises(SkillCancelled):
        run(program(task, tmp_path, NOTHING), [SkillCancelled('stop')])


def test_every_attempt_is_recorded_with_what_was_seen_before_and_after(run, task, tmp_path):
    x, y, yaw = task.start_pose(2)
    outcome, _ = run(program(task, tmp_path, NOTHING), [(0.0, 0.0, 0.0), (x + 0.02, y, yaw), (x + 0.001, y, yaw)])
    first, second = outcome.attempts
    assert not first.success and first.before == pytest.approx((0.0, 0.0, 0.0))
    assert first.after == second.before == pytest.approx((x + 0.02, y, yaw))
    assert first.reason.startswith('20.0 mm and 0.0 deg from the start pose') and first.duration > 0
    assert second.success and second.reason == '' and second.position_error == pytest.approx(0.001)


def test_nothing_is_attempted_while_no_images_come(run, task, tmp_path):
    outcome, attempts = run(program(task, tmp_path, NOTHING), [CameraSilent('no images')])
    assert not outcome.success and outcome.attempts == () and attempts == [0] and outcome.message == 'no images'


def test_attempts_end_when_the_object_was_seen_neither_before_nor_after(run, task, tmp_path):
    outcome, _ = run(program(task, tmp_path, NOTHING), [SkillError('nothing in view')])
    assert len(outcome.attempts) == 1 and outcome.attempts[0].reason == 'nothing in view'
