"""The MCP server, driven by the official client over standard input and output."""

import json
import os
import sys

import pytest
from recorded_campaign import film, record_campaign

pytest.importorskip('mcp', reason='optional: python -m pip install --no-deps -r requirements-mcp.txt')

import anyio                                            # noqa: E402
from mcp import Client, StdioServerParameters           # noqa: E402

VERBS = {'records', 'frames', 'score', 'trial', 'train', 'peers', 'diff', 'adopt', 'note', 'papers'}


@pytest.fixture(scope='module')
def asked(tmp_path_factory):
    """(tools by name, results by call) of one conversation with a server in a copy of a recipe."""
    directory = record_campaign(tmp_path_factory.mktemp('runs') / 'c', decisions=('keep',) * 3) / 'station_1'
    film(directory / 'trials' / 'station_1-00007', frames=6)
    (directory.parents[1] / 'papers').mkdir()
    (directory.parents[1] / 'papers' / 'pushing.md').write_text('# Planar pushing\n\nThe limit surface bounds friction.\n')
    copy = directory / 'agent' / 'recipe'
    copy.mkdir(parents=True)
    (copy / 'policy.py').write_text('class Policy:\n    pass\n')
    (copy / 'recipe.yaml').write_text('method: push\n')
    calls = {'records': {'count': 3}, 'frames': {'count': 4}, 'score': {}, 'diff': {}, 'peers': {},
             'note': {'text': 'Pushing slower helps'}, 'trial': {'seed': 7}, 'train': {},
             'papers': {'query': 'limit surface'}}
    server = StdioServerParameters(
        command=sys.executable, args=['-m', 'enpire_agent.cli', 'mcp'], cwd=copy,
        env={**os.environ, 'ENPIRE_RUNS': str(directory.parents[1])})

    async def converse():
        with anyio.fail_after(120):
            async with Client(server) as client:
                tools = {tool.name: tool for tool in (await client.list_tools()).tools}
                return tools, {name: await client.call_tool(name, arguments) for name, arguments in calls.items()}

    return (*anyio.run(converse), copy)


def text_of(result):
    return '\n'.join(part.text for part in result.content if part.type == 'text')


def test_it_has_the_verbs_and_what_they_cost_to_have_is_small(asked):
    tools, _, _ = asked
    assert VERBS <= set(tools)
    size = sum(len(json.dumps([tool.name, tool.description, tool.input_schema])) for tool in tools.values())
    assert size < 3000, f'{size} characters that every request of the model carries'


def test_answers_are_those_of_the_command(asked):
    _, results, copy = asked
    assert text_of(results['records']).splitlines()[0].startswith('c/station_1: 52 trials')
    assert 'of 52 trials succeeded' in text_of(results['score'])
    assert 'new recipe.yaml' in text_of(results['diff']) and 'no peer' in text_of(results['peers'])
    assert 'Planar pushing, p. 1' in text_of(results['papers'])
    assert 'Pushing slower helps' in (copy / 'notes' / 'journal.md').read_text()


def test_pictures_come_as_pictures(asked):
    picture, = [part for part in asked[1]['frames'].content if part.type == 'image']
    assert picture.mime_type == 'image/png'


def test_what_cannot_be_is_told_to_the_model(asked):
    for name, said in (('trial', 'odd seeds decide'), ('train', 'no train.py')):
        result = asked[1][name]
        assert result.is_error and said in text_of(result)
