"""A turn's timers, bounds and end, with small programs of our own in the place of a coding agent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace

import psutil
import pytest

from enpire_agent import agent_process
from enpire_agent.agent_process import ProcessLimits
from enpire_agent.agent_turn import (CANCELLED, DID_NOTHING, DONE, FAILED, LOGIN, OUT_OF_TIME, OUT_OF_TOKENS,
                                     RATE_LIMITED, RUNAWAY, SILENT, Fault, Tokens, TurnReader)
from enpire_agent.coding_agent import AgentSettings, CodingAgent, Reach
from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.program_confinement import landlock_version

SETTINGS = AgentSettings(endpoint='http://127.0.0.1:9', turn_timeout=30.0, silence_timeout=20.0, tool_timeout=20.0)
PRELUDE = '''
import json, os, signal, subprocess, sys, time
def event(**values):
    print(json.dumps(values), flush=True)
'''


class Reader(TurnReader):
    """Events of the programs here: one key each."""

    def read(self, event):
        for kind, value in event.items():
            {'session': self.begin_session, 'say': self.say, 'tokens': lambda n: self.count(Tokens(output=n)),
             'tool': lambda name: self.begin_tool(name, name), 'end_tool': self.end_tool, 'end': self._end,
             'retry': self._retry, 'fault': self._fail}[kind](value)

    def _end(self, _):
        self.completed = True

    def _retry(self, seconds):
        self.retry_after = seconds

    def _fail(self, outcome):
        self.fault = Fault(outcome, 'it says so')


class Program(CodingAgent):
    """A coding agent that is a Python script; the prompt is its first argument."""

    name = 'program'
    key_variables = ('PROGRAM_KEY',)

    def arguments(self, prompt, work_tree, session):
        return [prompt, session]

    def variables(self):
        return {'PROGRAM_HOME': str(self.home)}

    def reader(self, session):
        return Reader(session)

    def has_login(self):
        return False

    def login_command(self):
        return 'program login'


@pytest.fixture
def work_tree(tmp_path):
    folder = tmp_path / 'recipe'
    (folder / '.git').mkdir(parents=True)
    (folder / 'recipe.yaml').write_text('method: straight_push\n')
    return folder


@pytest.fixture
def turn(tmp_path, work_tree):
    """turn(script, settings of AgentSettings..., **arguments of turn) -> its result."""

    def run(script, *, prompt='Do it.', session='', on_event=lambda event: None, cancelled=lambda: False,
            reach=None, **settings):
        command = [sys.executable, '-S', '-c', PRELUDE + script]
        agent = Program(command, replace(SETTINGS, **settings), tmp_path / 'home')
        return agent.turn(prompt, work_tree, session, on_event=on_event, cancelled=cancelled, reach=reach)

    return run


def sleeping(seconds):
    """Processes that run `sleep <seconds>`, which tells the tests' own from others."""
    return [process for process in psutil.process_iter(['cmdline'])
            if process.info['cmdline'] == ['sleep', str(seconds)]]


def wait_for(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_turn_is_what_the_program_says_and_what_changed(turn):
    events = []
    result = turn("""
event(session='s1'); event(tokens=7); event(tool='edit')
open('recipe.yaml', 'a').write('# more'); open('new.py', 'w'); os.makedirs('.git/x'); open('.git/x/y', 'w')
event(end_tool='edit'); event(say='Done.'); event(end=1)
""", on_event=events.append)
    assert (result.outcome, result.text, result.session) == (DONE, 'Done.', 's1')
    assert result.tokens == Tokens(output=7)
    assert result.changed == ('new.py', 'recipe.yaml')
    assert [event.kind for event in events] == ['session', 'tokens', 'tool', 'tool_ended', 'says']


def test_prompt_and_session_reach_the_program(turn):
    result = turn("event(say=' '.join(sys.argv[1:])); event(end=1)", prompt='-p "Zwölf" $x', session='s9')
    assert result.text == '-p "Zwölf" $x s9'
    assert result.session == 's9'


def test_a_program_that_ends_well_without_doing_anything_did_nothing(turn):
    assert turn('event(end=1)').outcome == DID_NOTHING


def test_an_exit_code_of_0_alone_is_no_success(turn):
    result = turn('pass')
    assert (result.outcome, result.reason) == (FAILED, 'it ended with exit code 0 and no reason')


def test_a_success_is_none_less_for_its_exit_code(turn):
    assert turn("event(say='Done.'); event(end=1); sys.exit(3)").outcome == DONE


def test_a_crash_says_the_programs_last_words(turn):
    result = turn("event(say='I begin.'); sys.stderr.write('first\\nout of luck\\n'); os.abort()")
    assert (result.outcome, result.reason) == (FAILED, 'out of luck')


def test_a_program_that_waits_for_input_gets_none(turn):
    assert turn("event(say=repr(sys.stdin.read())); event(end=1)").text == "''"


def test_silence_ends_the_turn(turn):
    result = turn("event(say='Hm.'); time.sleep(60)", silence_timeout=0.4)
    assert (result.outcome, result.text) == (SILENT, 'Hm.')
    assert result.duration < 10


def test_a_tool_may_be_silent_for_longer_but_not_for_ever(turn):
    script = "event(tool='train'); time.sleep(0.8); event(end_tool='train'); event(end=1)"
    assert turn(script, silence_timeout=0.4).outcome == DONE
    assert turn("event(tool='train'); time.sleep(60)", tool_timeout=0.3).outcome == SILENT


def test_a_turn_that_chatters_for_ever_runs_out_of_time(turn):
    result = turn("while True: event(say='and'); time.sleep(0.01)", turn_timeout=0.5)
    assert result.outcome == OUT_OF_TIME


def test_tokens_are_capped_while_the_turn_runs(turn):
    result = turn("for n in range(10**6): event(tokens=n); time.sleep(0.01)", tokens_per_turn=20)
    assert result.outcome == OUT_OF_TOKENS
    assert 20 <= result.tokens.total < 200


def test_a_long_pause_that_the_server_asks_for_ends_the_turn(turn):
    result = turn("event(retry=900.0); time.sleep(60)")
    assert (result.outcome, result.retry_after) == (RATE_LIMITED, 900.0)


def test_a_rate_limit_that_the_program_gives_up_on_keeps_the_pause(turn):
    result = turn(f"event(retry=5.0); event(fault='{RATE_LIMITED}'); sys.exit(1)")
    assert (result.outcome, result.retry_after) == (RATE_LIMITED, 5.0)


def test_cancelling_ends_everything_that_was_started(turn, work_tree):
    # A tool in a session of its own, and one that has left its parents and its environment behind.
    result = turn("""
subprocess.Popen(['sleep', '911'], start_new_session=True)
subprocess.run(['sh', '-c', 'setsid env -i sleep 912 >/dev/null 2>&1 & exit'])
event(tool='sh'); time.sleep(0.2); open('started', 'w').close(); time.sleep(60)
""", cancelled=(work_tree / 'started').exists)
    assert result.outcome == CANCELLED
    assert not sleeping(911) and not sleeping(912)


def test_a_turn_that_ends_by_itself_leaves_nothing_behind(turn):
    result = turn("subprocess.Popen(['sleep', '913'], start_new_session=True); event(say='Bye.'); event(end=1)")
    assert result.outcome == DONE
    assert not sleeping(913)


SUPERVISOR = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from test_coding_agent import PRELUDE, SETTINGS, Program
script = PRELUDE + "subprocess.Popen(['sleep', '916'], start_new_session=True); subprocess.run(['sleep', '917'])"
Program([sys.executable, '-S', '-c', script], SETTINGS, Path({home!r})).turn('Go.', {work_tree!r})
"""


def test_a_supervisor_that_is_killed_takes_the_program_along_and_the_next_turn_ends_the_rest(turn, tmp_path, work_tree):
    code = SUPERVISOR.format(path=sys.path, home=str(tmp_path / 'home'), work_tree=str(work_tree))
    supervisor = subprocess.Popen([sys.executable, '-c', code])
    wait_for(lambda: sleeping(916) and sleeping(917))
    program = sleeping(917)[0].parent()
    supervisor.kill()
    supervisor.wait()
    wait_for(lambda: not program.is_running() or program.status() == psutil.STATUS_ZOMBIE)
    assert turn("event(say='Here I am.'); event(end=1)").outcome == DONE
    assert not sleeping(916) and not sleeping(917)


def test_who_ignores_every_polite_signal_is_killed(turn, work_tree, monkeypatch):
    monkeypatch.setattr(agent_process, '_SIGNAL_AFTER', tuple(
        (0.1 * after, number) for after, number in agent_process._SIGNAL_AFTER))
    result = turn("""
signal.signal(signal.SIGINT, signal.SIG_IGN); signal.signal(signal.SIGTERM, signal.SIG_IGN)
open('started', 'w').close()
while True: time.sleep(60)
""", cancelled=(work_tree / 'started').exists)
    assert result.outcome == CANCELLED
    assert result.duration < 15


@pytest.fixture
def looks_often(monkeypatch):
    monkeypatch.setattr(agent_process, '_LOOK_PERIOD', 0.1)


@pytest.mark.parametrize('script, limits, what', [
    ("[subprocess.Popen(['sleep', '914']) for _ in range(30)]; time.sleep(60)", ProcessLimits(processes=20),
     'processes'),
    ("x = bytearray(10**8); time.sleep(60)", ProcessLimits(memory=9e7), 'MB of memory'),
    ("open('big', 'wb').write(bytes(10**7)); time.sleep(60)", ProcessLimits(disk=5e6), 'MB written'),
    ("open(os.environ['TMPDIR'] + '/big', 'wb').write(bytes(10**7)); time.sleep(60)", ProcessLimits(disk=5e6),
     'MB written')])
def test_a_program_that_takes_too_much_is_stopped(turn, looks_often, script, limits, what):
    result = turn(script, limits=limits)
    assert (result.outcome, what in result.reason) == (RUNAWAY, True), result
    assert not sleeping(914)


def test_it_gets_no_secrets_of_the_station_and_a_home_of_its_own(turn, monkeypatch, tmp_path):
    for name in ('SOME_TOKEN', 'ENPIRE_SIGNING_KEY', 'AWS_SECRET_ACCESS_KEY', 'PROGRAM_KEY'):
        monkeypatch.setenv(name, 'secret')
    seen = json.loads(turn("event(say=json.dumps(dict(os.environ))); event(end=1)").text)
    assert 'secret' not in seen.values()
    assert seen['PATH'] == os.environ['PATH']
    assert seen['HOME'] == seen['PROGRAM_HOME'] == str(tmp_path / 'home')
    assert not os.path.exists(seen['TMPDIR'])      # its scratch is gone with the turn


@pytest.mark.skipif(not landlock_version(), reason='this kernel has no Landlock')
def test_it_reaches_only_what_it_may(turn, tmp_path):
    for folder in ('open', 'open/hidden', 'closed'):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / 'file').write_text('text')
    result = turn(f"""
def reach(mode, *names):
    try:
        return open(os.path.join({str(tmp_path)!r}, *names), mode).read()
    except OSError as error:
        return type(error).__name__
event(say=' '.join([reach('r', 'open', 'file'), reach('w+', 'open', 'file'), reach('r', 'open', 'hidden', 'file'),
                    reach('r', 'closed', 'file'), repr(reach('w+', 'recipe', 'new'))]))
subprocess.run(['touch', {str(tmp_path / 'closed' / 'made')!r}])
event(end=1)
""", reach=Reach(readable=(tmp_path / 'open',), hidden=(tmp_path / 'open' / 'hidden',)))
    assert result.text == "text PermissionError PermissionError PermissionError ''"
    assert not (tmp_path / 'closed' / 'made').exists()


def test_output_without_end_is_bounded_and_no_deadlock(turn):
    result = turn("""
sys.stderr.write('x' * 5_000_000 + '\\nlast')
print('{"say": "' + 'y' * 9_000_000 + '"}')
for n in range(30_000): print('no event')
event(say='Still there.'); event(end=1)
""")
    assert (result.outcome, result.text) == (DONE, 'Still there.')


def test_a_prompt_that_the_system_would_not_take_is_refused(turn):
    with pytest.raises(ValueError, match='at most 100000'):
        turn('pass', prompt='x' * 100_001)


def test_without_a_key_and_a_login_nothing_is_started(turn, work_tree):
    result = turn("open('started', 'w').close()", endpoint='')
    assert (result.outcome, result.reason) == (LOGIN, 'no key and no login; type: program login')
    assert not (work_tree / 'started').exists()


def test_a_program_that_is_not_there_is_named_with_the_way_out(tmp_path, work_tree):
    with pytest.raises(ConfigurationError, match='program: /nowhere/x is no program; make agents'):
        Program(['/nowhere/x'], SETTINGS, tmp_path / 'home').turn('Do it.', work_tree)


def test_a_handler_of_events_that_raises_leaves_no_process_behind(turn):
    def broken(event):
        raise RuntimeError('disk full')

    with pytest.raises(RuntimeError, match='disk full'):
        turn("subprocess.Popen(['sleep', '915'], start_new_session=True); event(say='Hm.'); time.sleep(60)",
             on_event=broken)
    assert not sleeping(915)
