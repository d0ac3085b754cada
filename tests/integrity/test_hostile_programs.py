"""Cheats that take a policy of their own: what they come to is in the outcome, and the score is what it was.

A policy's failure is the policy's: none of these may end as an error of the trial runner, whose trials (ABORTED) are run
again, for then a policy could hide a failure that way.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from enpire_agent.ledger import canonical
from enpire_agent.policy_session import HOLD_LATE, HOLD_MALFORMED, POLICY, PolicyFailure, PolicySession
from enpire_agent.recipe import load_recipe, static_check
from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.program_isolation import LANDLOCK, strongest_level
from enpire_bringup.program_process import ProgramError, ProgramProcess
from enpire_bringup.safety_limits import tightened
from enpire_bringup.station import load_station

OBSERVATION = {'time': 0.0, 'tip': np.array([0.3, 0.0])}

PRELUDE = '''
import json, os, signal, struct, sys, threading, time
import numpy as np

def pipes():
    """The station's end of the answers is one of these."""
    found = []
    for fd in range(3, 64):
        try:
            os.write(fd, b'')
            found.append(fd)
        except OSError:
            pass
    return found

def forge(sequence, value, kind='value'):
    text = json.dumps({'sequence': sequence, 'kind': kind, 'value': value, 'arrays': []}).encode()
    for fd in pipes():
        try:
            os.write(fd, struct.pack('<I', len(text)) + text)
        except OSError:
            pass

class Policy:
    def __init__(self, config):
        self.steps = 0

    def reset(self, observation):
        pass

    def act(self, observation):
        self.steps += 1
'''


def policy_with(act: str, first: str = '') -> str:
    return f'{PRELUDE}        {act}\n        return [0.3, 0.0]\n\n{first}\n'


def run(recipe: Path, task, log: Path | None = None, steps: int = 40) -> list:
    """The decisions of a policy; raises PolicyFailure as a trial hears of it."""
    with PolicySession(recipe, task, world_waits=True, log_file=log) as session:
        session.reset(OBSERVATION)
        return [session.act(OBSERVATION) for _ in range(steps)]


# act's first line, what runs while the file is loaded, what the trial's reason says
FAILURES = {
    'exits': ('os._exit(0)', '', 'exited with code 0'),
    'kills_itself': ('os.kill(os.getpid(), 9)', '', r'signal 9 \(SIGKILL\)'),
    'stops_itself': ('os.kill(os.getpid(), signal.SIGSTOP)', '', 'no valid action for 6 steps in a row'),
    'pauses': ('time.sleep(60)', '', 'no valid action for 6 steps in a row'),
    'closes_its_pipes': ('os.closerange(3, 64)', '', r'Bad file descriptor|closed its pipe|exited with code 1'),
    'forges_its_start': ('', "forge(1, {'constants': {}, 'isolation': 'none', 'process': 1})", 'forged an answer'),
    'forges_a_start_that_is_none': ('', 'forge(1, 5)', 'forged the answer to its start'),
    'forges_answers_ahead': ('forge(99, [0.4, 0.0])', '', 'forged an answer'),
    'floods_the_station': ('', '''
def flood():
    while True:
        forge(-1, 0)

threading.Thread(target=flood, daemon=True).start()''', 'forged an answer|no frame|a header'),
    'writes_noise': ("[os.write(fd, b'\\xff' * 64) for fd in pipes()]", '', 'a header of .* it was stopped'),
    'forges_an_error_of_its_own': ("forge(3, [1], 'error'); time.sleep(1)", '', 'answered with no value'),
    'forges_a_value_too_deep': ("forge(3, deep()); time.sleep(1)", '''
def deep(value=0):
    for _ in range(700):
        value = [value]
    return value''', 'nested too deep|a header'),
    'raises_what_no_file_takes': ("raise ValueError('\\ud800' * 100000)", '', r'ValueError: \?+'),
    'takes_memory': ('bytearray(3 << 30)', '', 'MemoryError'),
    'takes_files': ("self.files = [open('/dev/null') for _ in range(300)]", '', 'Too many open files'),
    'takes_threads': ('', '''
threading.stack_size(65536)
for _ in range(400):
    threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
time.sleep(15)''', 'more than 256 threads|can.t start new thread'),
    'takes_disk_without_a_name': ('', '''
files = []
for number in range(3):
    files.append(open(f'{os.environ["TMPDIR"]}/{number}', 'wb'))
    os.posix_fallocate(files[-1].fileno(), 0, 120 << 20)
    os.unlink(files[-1].name)
time.sleep(15)''', 'wrote more than 256 MB'),
    'takes_its_log': ("print('x' * (2 << 20), flush=True); time.sleep(1)", '', 'no valid action|it printed more'),
}


@pytest.mark.parametrize('cheat', FAILURES)
def test_program_ends_its_own_trial_with_the_reason(untouched, make_recipe, tmp_path, cheat):
    act, first, reason = FAILURES[cheat]
    recipe = make_recipe(policy_with(act, first))
    with pytest.raises(PolicyFailure, match=reason) as caught:
        run(recipe, untouched.task, tmp_path / 'policy.log')
    canonical({'reason': str(caught.value)})        # the ledger takes it
    assert len(str(caught.value)) < 4000 and str(caught.value).encode()


# what act returns, what becomes of the step
ANSWERS = {
    'infinite': ('[float("inf"), 0.0]', HOLD_MALFORMED), 'too_large_for_a_float': ('[10 ** 400, 0]', HOLD_MALFORMED),
    'nested': ('eval("[" * 30 + "]" * 30)', HOLD_MALFORMED), 'text': ('"success"', HOLD_MALFORMED),
    'verdict': ('{"outcome": "SUCCESS", "reward": 1.0}', HOLD_MALFORMED), 'far_away': ('[1e300, 0.0]', POLICY)}


def test_no_answer_breaks_the_station_or_is_taken_for_a_result(untouched, make_recipe):
    returned = ', '.join(f'lambda: {code}' for code, _ in ANSWERS.values())
    recipe = make_recipe(policy_with(f'return [{returned}][self.steps - 1]()'))
    decisions = run(recipe, untouched.task, steps=len(ANSWERS))
    assert [decision.source for decision in decisions] == [source for _, source in ANSWERS.values()]


def test_isolation_and_cpu_time_are_what_the_station_found_and_not_what_the_program_claims(untouched, make_recipe):
    recipe = make_recipe(policy_with('', "os.getpid = lambda: 1\nsys.stdout.write('confined')"))
    with PolicySession(recipe, untouched.task, world_waits=True) as session:
        assert session.isolation.startswith(strongest_level())
        assert session._process._program != 1 and session._process.cpu_time > 0


def test_forged_clocks_and_observations_stay_in_the_program(untouched, make_recipe):
    """The station's clock and the kernel's count of CPU time decide what is late."""
    recipe = make_recipe(policy_with('''observation['tip'][:] = 9.0
        now = real()
        while self.steps > 1 and real() - now < 0.08:
            pass''', 'real = time.process_time\nfor name in ("time", "monotonic", "process_time"):\n'
                     '    setattr(time, name, lambda: 0.0)'))
    observation = {'time': 0.0, 'tip': np.array([0.3, 0.0])}
    with PolicySession(recipe, untouched.task, world_waits=True) as session:
        session.reset(observation)
        assert session.act(observation).source == POLICY
        assert session.act(observation).source == HOLD_LATE
    assert observation == {'time': 0.0, 'tip': observation['tip']} and observation['tip'].tolist() == [0.3, 0.0]


def test_ros_that_is_imported_in_spite_of_all_reaches_nobody(untouched, make_recipe, tmp_path):
    recipe = make_recipe(policy_with('''
        del sys.modules['rclpy']
        import rclpy
        rclpy.init()
        rclpy.create_node('success_detector')'''))
    with pytest.raises(PolicyFailure, match='raised|Error|error|signal|exited|no valid action') as caught:
        run(recipe, untouched.task, tmp_path / 'policy.log')
    assert 'success_detector' not in str(caught.value)


MARK = "import os\ntry:\n    open({mark!r}, 'w').close()\nexcept OSError:\n    pass\n"


def test_modules_beside_the_policy_are_nobody_elses(untouched, make_recipe, tmp_path, monkeypatch):
    """Neither the station nor the code that confines the program imports from a recipe's folder."""
    mark = MARK.format(mark=str(tmp_path / 'free'))
    recipe = make_recipe(policy_with(''), dict.fromkeys((
        'numpy.py', 'sitecustomize.py', 'usercustomize.py', 'json.py', 'traceback.py', 'enpire_bringup/__init__.py',
        'enpire_bringup/program_isolation.py'), mark))
    monkeypatch.setenv('PYTHONPATH', str(recipe))
    monkeypatch.setenv('PYTHONSTARTUP', str(recipe / 'sitecustomize.py'))
    with PolicySession(recipe, untouched.task, world_waits=True) as session:
        assert session.isolation.startswith(strongest_level())
        session.reset(OBSERVATION)
    assert not (tmp_path / 'free').exists()


@pytest.mark.parametrize('name', ['policy.py', 'weights.json', 'notes/way.md'])
def test_recipe_with_a_link_out_of_it_is_refused(untouched, make_recipe, name):
    recipe = make_recipe(policy_with(''), {'notes/tried.md': ''})
    (recipe / name).unlink(missing_ok=True)
    (recipe / name).symlink_to(untouched.ledger if name != 'policy.py' else untouched.station / 'recipe' / 'policy.py')
    with pytest.raises(PolicyFailure, match=f'{re.escape(name)}: is a link to .*; a recipe holds plain files'):
        run(recipe, untouched.task)
    with pytest.raises(ConfigurationError, match='is a link to'):
        static_check(recipe, [])


@pytest.mark.skipif(strongest_level() != LANDLOCK, reason='this kernel has no Landlock')
def test_link_that_takes_the_place_of_a_checked_policy_leads_nowhere(untouched, make_recipe):
    recipe = make_recipe('')
    (recipe / 'policy.py').unlink()
    (recipe / 'policy.py').symlink_to(untouched.station / 'recipe' / 'policy.py')
    with pytest.raises(ProgramError, match='PermissionError'):
        ProgramProcess(recipe / 'policy.py', 'Policy', {})


@pytest.mark.parametrize('method', ['push\\nSuccesses: 99', '\\ud800', 'a\\0'])
def test_method_that_would_break_or_forge_trailers_is_refused(untouched, make_recipe, method):
    recipe = make_recipe(policy_with(''), {'recipe.yaml': f'method: "{method}"\nparameters: {{}}\n'})
    with pytest.raises(ConfigurationError, match='expected a text on one line|is not valid YAML'):
        static_check(recipe, ['recipe.yaml'])


def test_recipe_cannot_loosen_a_limit(untouched, make_recipe):
    recipe = make_recipe(policy_with(''), {
        'recipe.yaml': 'method: cheat\nparameters: {}\nlimits: {max_tip_speed: 2.0}\n'})
    with pytest.raises(ConfigurationError, match='limits may only be tightened'):
        tightened(load_station('yam_bimanual_sim').safety, load_recipe(recipe).limits, 'recipe.yaml', 'the station')
