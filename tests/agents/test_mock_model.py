"""The mock itself: what it is asked for is what it gives."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from mock_model import Answer, MockModel, Usage, load_scenario

from enpire_bringup.configuration import ConfigurationError

SCENARIOS = Path(__file__).parent / 'scenarios'
TOOLS = {'/v1/responses': [{'type': 'function', 'name': 'exec_command'}], '/v1/messages': [{'name': 'Bash'}],
         '/v1/chat/completions': [{'type': 'function', 'function': {'name': 'Bash'}}]}
EVERY_PROTOCOL = pytest.mark.parametrize('path', TOOLS)


def ask(model, path, **body):
    """The events of an answer."""
    content = json.dumps({'stream': True, 'tools': TOOLS[path], **body}).encode()
    request = urllib.request.Request(model.url + path, content)
    with urllib.request.urlopen(request, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return [json.loads(line.removeprefix('data: ')) for line in lines if line.startswith('data: {')]


@EVERY_PROTOCOL
def test_an_answer_streams_its_text_and_its_tokens(path):
    with MockModel([Answer(text='two words', usage=Usage(1000, 800, 60, 20))]) as model:
        events = str(ask(model, path))
        assert "'two '" in events and "'words'" in events
        assert '60' in events and '20' in events and ('1000' in events or '200' in events)
        assert model.usage() == Usage(1000, 800, 60, 20)


@EVERY_PROTOCOL
def test_a_fault_is_an_error_with_its_headers(path):
    with MockModel([Answer(fault=429, retry_after=7)]) as model:
        with pytest.raises(urllib.error.HTTPError) as error:
            ask(model, path)
        assert (error.value.code, error.value.headers['Retry-After']) == (429, '7')
        assert model.usage() == Usage(0, 0, 0, 0)


@EVERY_PROTOCOL
def test_more_requests_than_answers_are_refused_and_every_request_is_kept(path):
    with MockModel([Answer(text='one')]) as model:
        ask(model, path, marker=1)
        with pytest.raises(urllib.error.HTTPError, match='400'):
            ask(model, path, marker=2)
        assert [(request.body['marker'], request.answer) for request in model.requests] == [(1, 0), (2, None)]


@EVERY_PROTOCOL
def test_requests_beside_the_conversation_take_no_answer(path):
    with MockModel([Answer(text='one')]) as model:
        ask(model, path, tools=[])
        assert model.given == 0


def test_a_scenario_file_says_what_is_answered():
    answers = load_scenario(SCENARIOS / 'raise_the_gain.yaml')
    assert [answer.usage for answer in answers] == [Usage(1000, 0, 30, 12), Usage(1200, 1000, 40, 5),
                                                    Usage(1300, 1200, 20)]
    assert answers[1].edit['file'] == 'recipe.yaml'


@pytest.mark.parametrize('line, message', [
    ('fault: explode', "is 'explode'; expected a status or one of"), ('fault: {status: 42}', 'from 400 to 599'),
    ('says: hello', 'is not a known key here'), ('usage: {inputs: 3}', 'is not a known key here')])
def test_a_mistake_in_a_scenario_is_named(tmp_path, line, message):
    file = tmp_path / 'scenario.yaml'
    file.write_text(f'answers:\n  - {line}\n')
    with pytest.raises(ConfigurationError, match=message):
        load_scenario(file)
