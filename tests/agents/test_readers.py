"""What the programs' events mean, on lines recorded from the real ones (record_events.py)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from enpire_agent.agent_claude_code import ClaudeReader
from enpire_agent.agent_codex import CodexReader
from enpire_agent.agent_kimi_code import KimiReader
from enpire_agent.agent_turn import CUT, LOGIN, OUT_OF_TOKENS, RATE_LIMITED, SERVER_ERROR, STALLED, Tokens, read_line

RECORDINGS = Path(__file__).parent / 'recordings'
AGENTS = ('codex', 'claude_code', 'kimi_code')
EVERY_AGENT = pytest.mark.parametrize('name', AGENTS)


class Conversation:
    """A home with a conversation whose turns are recordings, one after the other."""

    def __init__(self, home: Path):
        self.home = home
        self.session = ''

    def turn(self, name: str, case: str):
        """The reader of a turn after all that was recorded of it."""
        lines = (RECORDINGS / f'{name}_{case}.out.jsonl').read_bytes().splitlines()
        record = RECORDINGS / f'{name}_{case}.file.jsonl'
        if name == 'codex':
            thread = self.session or json.loads(lines[0])['thread_id']
            reader = CodexReader(self.home, self.session)
            file = f'sessions/2026/01/02/rollout-2026-01-02-{thread}.jsonl'
        elif name == 'kimi_code':
            named = [json.loads(line).get('session_id') for line in lines]
            session = self.session or next(filter(None, named), 'session_1')
            reader, file = KimiReader(self.home, self.session), f'sessions/wd_recipe/{session}/agents/main/wire.jsonl'
        else:
            reader, file = ClaudeReader(self.session), ''
        if file:
            (self.home / file).parent.mkdir(parents=True, exist_ok=True)
            with (self.home / file).open('ab') as stream:
                stream.write(record.read_bytes())
        for line in lines[:-1]:
            read_line(reader, line)
        reader.look()
        read_line(reader, lines[-1])
        reader.look()
        self.session = reader.session
        return reader


@pytest.fixture
def conversation(tmp_path):
    return Conversation(tmp_path)


@EVERY_AGENT
def test_a_turn_that_edits_is_complete_with_its_tools_text_and_tokens(conversation, name):
    reader = conversation.turn(name, 'edit')
    assert reader.completed and reader.fault is None
    assert reader.session
    assert (reader.tools, reader.running) == (2, set())
    assert reader.text == 'The gain is 1.5 now.'
    assert reader.tokens == Tokens(3500, 2200, 90, 0 if name == 'kimi_code' else 17)
    assert (reader.cost is None) == (name != 'claude_code')


@EVERY_AGENT
def test_tokens_come_while_the_turn_goes_on(conversation, name):
    counts = [event.tokens.total for event in conversation.turn(name, 'edit').events if event.kind == 'tokens']
    assert counts == sorted(counts) and counts[0] < 3590 == counts[-1]


@EVERY_AGENT
def test_what_an_agent_does_can_be_read_by_people(conversation, name):
    events = conversation.turn(name, 'edit').events
    tools = [event.text for event in events if event.kind == 'tool']
    assert 'recipe.yaml' in tools[0] and 'edit' in tools[1]
    assert [event.text for event in events if event.kind == 'says'][:1] == ['I raise the gain.']
    if name != 'claude_code':       # which shows no thoughts
        assert 'Look first.' in [event.text for event in events if event.kind == 'thinking']


@EVERY_AGENT
def test_a_tool_that_fails_is_no_fault_of_the_turn(conversation, name):
    reader = conversation.turn(name, 'shell')
    assert reader.completed and reader.fault is None
    assert (reader.tools, reader.running) == (1, set())


@EVERY_AGENT
@pytest.mark.parametrize('case, outcome', [('500', SERVER_ERROR), ('429', RATE_LIMITED), ('401', LOGIN),
                                           ('ended_early', CUT)])
def test_a_fault_is_told_apart_from_others(conversation, name, case, outcome):
    reader = conversation.turn(name, case)
    assert not reader.completed
    assert reader.fault.outcome == outcome
    assert reader.fault.reason


@pytest.mark.parametrize('name', ['claude_code', 'kimi_code'])
def test_a_rate_limit_says_when_to_come_back(conversation, name):
    reader = conversation.turn(name, '429')
    assert 2.0 <= (reader.fault.retry_after or reader.retry_after) < 4.0


@pytest.mark.parametrize('name', ['codex', 'kimi_code'])
def test_the_second_turn_of_a_conversation_does_not_count_the_first(conversation, name):
    conversation.turn(name, 'shell')
    second = conversation.turn(name, 'shell')
    # Codex counts from the start of the conversation: the same figures again are none.
    assert second.tokens == (Tokens() if name == 'codex' else Tokens(1850, 1000, 30))


def test_codex_counts_a_turn_from_what_the_conversation_had_before(conversation):
    conversation.turn('codex', 'shell')
    assert conversation.turn('codex', 'edit').tokens == Tokens(3500 - 1850, 2200 - 1000, 90 - 30, 17)


def read(reader, *events):
    for event in events:
        reader.read(event)
    return reader


def test_codex_without_its_file_says_what_the_output_says(tmp_path):
    def failed(message):
        return read(CodexReader(tmp_path), {'type': 'turn.failed', 'error': {'message': message}}).fault.outcome

    assert failed('stream disconnected before completion: idle timeout waiting for SSE') == STALLED
    assert failed('stream disconnected before completion: stream closed before response.completed') == CUT


def test_a_tool_that_claude_code_may_not_use_is_named():
    reader = read(ClaudeReader(), {
        'type': 'result', 'subtype': 'success', 'is_error': False, 'terminal_reason': 'completed',
        'result': 'I may not.', 'permission_denials': [{'tool_name': 'Bash', 'tool_input': {'command': 'rm -rf /'}}]})
    assert reader.completed
    assert reader.refused == ['rm -rf /']


@pytest.mark.parametrize('subtype', ['error_max_turns', 'error_max_budget_usd'])
def test_a_limit_of_claude_code_itself_is_a_spent_budget(subtype):
    assert read(ClaudeReader(), {'type': 'result', 'subtype': subtype, 'is_error': True}).fault.outcome == OUT_OF_TOKENS


def test_what_claude_code_says_in_the_place_of_an_answer_is_no_answer(conversation):
    assert conversation.turn('claude_code', '500').text == ''


@EVERY_AGENT
def test_lines_that_are_no_events_are_passed_over(conversation, name):
    reader = conversation.turn(name, 'shell')
    before = reader.tokens, reader.text, reader.tools
    for line in (b'', b'WARNING: something', b'[1, 2]', b'null', b'{"type": "of another version"}',
                 b'{"type": "assista', b'{"type": null}', b'\xff\xfe'):
        read_line(reader, line)
    assert (reader.tokens, reader.text, reader.tools) == before
