"""The real programs of Codex, Claude Code and Kimi Code, with a mock as their model: no key, no network.

They are skipped where `make agents` has not installed the programs.
"""

from __future__ import annotations

import os
from dataclasses import replace

import psutil
import pytest
from mock_model import Answer, Usage

from enpire_agent.agent_process import ProcessLimits
from enpire_agent.agent_turn import (CANCELLED, CUT, DID_NOTHING, DONE, LOGIN, NO_NETWORK, OUT_OF_TOKENS, RATE_LIMITED,
                                     RUNAWAY, SERVER_ERROR, SILENT, STALLED, Tokens)
from enpire_agent.coding_agent import Reach
from enpire_bringup.program_confinement import landlock_version

pytestmark = [pytest.mark.agents, pytest.mark.timeout(180),
              pytest.mark.parametrize('name', ['codex', 'claude_code', 'kimi_code'])]

READ = Answer(think='Look first.', read='recipe.yaml', usage=Usage(1000, 0, 30, 12))
EDIT = Answer(text='I raise the gain.', edit={'file': 'recipe.yaml', 'old': '  gain: 1.0', 'new': '  gain: 1.5'},
              usage=Usage(1200, 1000, 40, 5))
SAY = Answer(text='The gain is 1.5 now.', usage=Usage(1300, 1200, 20))
WORDS = Answer(text='I am about to say so many words here that a fault comes in the middle of them.')


def tokens(usage: Usage, name: str) -> Tokens:
    """What the adapter should have counted; Kimi Code does not say what was reasoning."""
    return Tokens(usage.input, usage.cached, usage.output, 0 if name == 'kimi_code' else usage.reasoning)


def fault(kind, **more) -> list[Answer]:
    """As often as a program may try again."""
    return [replace(WORDS, fault=kind, **more)] * 12


def test_a_turn_edits_a_file_and_its_tokens_are_those_that_the_model_reported(real_agent, work_tree, name):
    agent, model = real_agent(name, [READ, EDIT, SAY])
    events = []
    result = agent.turn('Raise the gain.', work_tree, on_event=events.append)
    assert (result.outcome, result.reason) == (DONE, '')
    assert 'gain: 1.5' in (work_tree / 'recipe.yaml').read_text()
    assert result.changed == ('recipe.yaml',)
    assert result.text == SAY.text
    assert result.tools == 2
    assert result.tokens == tokens(model.usage(), name)
    assert [event.tokens for event in events if event.kind == 'tokens'][0].total < result.tokens.total      # live
    assert {'session', 'tool', 'says', 'tokens'} <= {event.kind for event in events}


def test_the_next_turn_goes_on_with_the_conversation_and_counts_only_itself(real_agent, work_tree, name):
    agent, model = real_agent(name, [READ, SAY, EDIT, SAY])
    first = agent.turn('Look at the recipe.', work_tree)
    second = agent.turn('Raise the gain.', work_tree, session=first.session)
    assert (first.outcome, second.outcome, second.reason) == (DONE, DONE, '')
    assert second.session == first.session
    assert 'Look at the recipe.' in str(model.requests[-1].body)
    assert first.tokens + second.tokens == tokens(model.usage(), name)
    assert second.tokens == tokens(model.usage(since=2), name)


def test_after_a_turn_that_was_cancelled_the_conversation_goes_on(real_agent, work_tree, name):
    agent, model = real_agent(name, [READ, Answer(shell={'command': 'touch started; sleep 300', 'seconds': 120},
                                                  usage=Usage(1100, 1000, 15)), SAY])
    first = agent.turn('Wait.', work_tree, cancelled=(work_tree / 'started').exists)
    second = agent.turn('Go on.', work_tree, session=first.session)
    assert (first.outcome, second.outcome, second.text) == (CANCELLED, DONE, SAY.text), (first, second)
    assert first.tokens == tokens(READ.usage, name) + Tokens(1100, 1000, 15)
    assert second.tokens == tokens(SAY.usage, name)


def test_cancelling_ends_a_shell_tool_that_has_left_its_parents(real_agent, work_tree, name):
    started = work_tree / 'started'
    command = 'setsid sleep 301 & touch started; sleep 302'
    agent, _ = real_agent(name, [Answer(shell={'command': command, 'seconds': 120})])
    result = agent.turn('Wait.', work_tree, cancelled=started.exists)
    assert result.outcome == CANCELLED
    assert result.session
    assert not [process.pid for process in psutil.process_iter(['cmdline'])
                if process.info['cmdline'] in (['sleep', '301'], ['sleep', '302'])]


@pytest.mark.parametrize('kind, expected', [(500, SERVER_ERROR), (529, SERVER_ERROR), (401, LOGIN),
                                            ('reset', NO_NETWORK), ('cut', CUT), ('ended_early', CUT)])
def test_a_fault_of_the_model_is_recognised(real_agent, work_tree, name, kind, expected):
    agent, _ = real_agent(name, fault(kind))
    result = agent.turn('Say something.', work_tree)
    assert result.outcome == expected, result
    assert result.reason
    assert result.changed == ()


def test_a_rate_limit_says_when_to_come_back(real_agent, work_tree, name):
    agent, _ = real_agent(name, fault(429, retry_after=2))
    result = agent.turn('Say something.', work_tree)
    assert result.outcome == RATE_LIMITED, result
    if name != 'codex':        # which does not pass on what the server asked for
        assert 2 <= result.retry_after < 4


def test_a_long_pause_that_the_server_asks_for_is_not_waited_out_in_the_turn(real_agent, work_tree, name):
    agent, _ = real_agent(name, fault(429, retry_after=900), silence_timeout=20.0)
    result = agent.turn('Say something.', work_tree)
    assert result.outcome in (RATE_LIMITED, SILENT), result
    assert result.duration < 60


@pytest.mark.parametrize('kind', [500, 'cut', 'reset'])
def test_an_error_that_passes_is_retried_by_the_program(real_agent, work_tree, name, kind):
    agent, model = real_agent(name, [replace(WORDS, fault=kind), SAY])
    result = agent.turn('Say something.', work_tree)
    assert (result.outcome, result.text) == (DONE, SAY.text)
    assert result.tokens == tokens(model.usage(), name)


def test_a_refused_connection_is_no_network(real_agent, work_tree, name):
    agent, _ = real_agent(name, [], endpoint='http://127.0.0.1:9/v1')
    assert agent.turn('Say something.', work_tree).outcome == NO_NETWORK


@pytest.mark.parametrize('kind', ['stall', 'no_headers'])
def test_a_model_that_falls_silent_ends_the_turn(real_agent, work_tree, name, kind):
    agent, _ = real_agent(name, fault(kind), silence_timeout=5.0)
    result = agent.turn('Say something.', work_tree)
    assert result.outcome in (SILENT, STALLED), result


def test_a_tool_that_hangs_ends_the_turn(real_agent, work_tree, name):
    agent, _ = real_agent(name, [Answer(shell={'command': 'sleep 303', 'seconds': 120}), SAY], tool_timeout=4.0)
    result = agent.turn('Wait.', work_tree)
    # Claude Code ends the tool by itself and goes on.
    assert result.outcome == (DONE if name == 'claude_code' else SILENT), result


def test_an_empty_answer_is_no_turn(real_agent, work_tree, name):
    agent, _ = real_agent(name, [Answer(usage=Usage(50, 0, 1))] * 12)
    assert agent.turn('Say something.', work_tree).outcome == DID_NOTHING


def test_the_budget_of_a_turn_ends_one_that_loops(real_agent, work_tree, name):
    agent, model = real_agent(name, [READ] * 50, tokens_per_turn=3000)
    result = agent.turn('Look again and again.', work_tree)
    assert result.outcome == OUT_OF_TOKENS
    assert 3 <= model.given < 50


def test_a_tool_that_starts_processes_without_end_is_stopped(real_agent, work_tree, name):
    command = 'for i in $(seq 60); do setsid sleep 304 & done; wait'
    agent, _ = real_agent(name, [Answer(shell={'command': command, 'seconds': 120}), SAY],
                          limits=ProcessLimits(processes=40))
    result = agent.turn('Run away.', work_tree)
    assert result.outcome == RUNAWAY, result
    assert not [process for process in psutil.process_iter(['cmdline']) if process.info['cmdline'] == ['sleep', '304']]


def test_the_key_is_on_no_disk_and_in_no_tools_environment(real_agent, work_tree, name):
    command = 'env > seen; python3 -c "import os; print(os.environ)" >> seen'
    agent, model = real_agent(name, [Answer(shell={'command': command, 'seconds': 30}), SAY])
    assert agent.turn('Look around.', work_tree).outcome == DONE
    assert 'not-a-key' in str(model.requests[-1].headers)
    assert 'not-a-key' not in (work_tree / 'seen').read_text()
    assert not [file for file in agent.home.rglob('*') if file.is_file() and b'not-a-key' in file.read_bytes()]


@pytest.mark.skipif(not landlock_version(), reason='this kernel has no Landlock')
def test_a_confined_agent_works_and_reaches_no_results(real_agent, work_tree, tmp_path, name):
    ledger = tmp_path / 'ledger.jsonl'
    ledger.write_text('a line\n')
    command = f'echo more >> {ledger}; cat {ledger} > seen; kill -0 {os.getpid()} && touch killed; touch made'
    agent, _ = real_agent(name, [READ, Answer(shell={'command': command, 'seconds': 30}), EDIT, SAY])
    result = agent.turn('Look around.', work_tree, reach=Reach())
    assert (result.outcome, result.changed) == (DONE, ('made', 'recipe.yaml', 'seen')), result
    assert ledger.read_text() == 'a line\n'
    assert (work_tree / 'seen').read_text() == ''
