"""The verbs of agent_verbs.py as an MCP server (Model Context Protocol) on standard input and output.

Every description here is read, and paid for, by the model with each of its requests: they are short, and the schemas
have no titles. What an answer leaves out is asked for with `everything`.
"""

from __future__ import annotations

from typing import Callable, Literal

from enpire_agent import agent_verbs
from enpire_agent.agent_place import Place
from enpire_bringup.configuration import ConfigurationError

INSTALL = 'python -m pip install --no-deps -r requirements-mcp.txt (or: make extras)'
STRIP_WIDTH = 200         # pixels of each of a strip's pictures
Kind = Literal['', 'search', 'gate', 'baseline', 'manual']
How = Literal['', 'merge', 'cherry_pick']


def serve(place: Place) -> None:
    """Answer until standard input ends. Raises ConfigurationError where the package `mcp` is missing."""
    make_server(place).run('stdio')


def make_server(place: Place):
    """An mcp MCPServer with the verbs, about one place."""
    try:
        from mcp.server.mcpserver import MCPServer
        from mcp.server.mcpserver.tools import Tool
    except ImportError as error:
        raise ConfigurationError(f'the package mcp is not installed ({error}); type: {INSTALL}') from error

    tools = []
    for verb in _verbs(place):
        tool = Tool.from_function(_explained(verb), name=verb.__name__, description=verb.__doc__,
                                  structured_output=False)
        tool.parameters = _without_titles(tool.parameters)
        tools.append(tool)
    return MCPServer('enpire', tools=tools, log_level='WARNING')


def _verbs(place: Place) -> list[Callable]:
    """What a model may call; the docstrings are the descriptions that it reads."""
    from mcp.server.mcpserver import Image

    def records(count: int = 10, trial: str = '', kind: Kind = '', outcome: str = '', recipe: str = '',
                everything: bool = False) -> str:
        """The station's newest trials, or one `trial` (the end of its name) with its checks and log."""
        if trial:
            return agent_verbs.trial_record(place, trial, everything=everything).text
        return agent_verbs.records(place, count, kind=kind, outcome=outcome, recipe=recipe, everything=everything).text

    def frames(trial: str = '', count: int = 5) -> list:
        """Pictures of a trial (default: the newest) side by side, from the policy's first step to the end."""
        answer = agent_verbs.frames(place, trial, strip=count, width=STRIP_WIDTH)
        return [answer.text, *(Image(path=file) for file in answer.files)]

    def score() -> str:
        """Success rate with its interval, and whether the task is solved."""
        return agent_verbs.score(place).text

    def trial(seed: int | None = None) -> str:
        """One recorded trial of the recipe here on the robot; counts. Not during a campaign nor while held."""
        return agent_verbs.trial(place, seed).text

    def train() -> str:
        """Run train.py on the recorded trials; writes weights.json."""
        return agent_verbs.train(place).text

    def peers(everything: bool = False) -> str:
        """What the other stations kept."""
        return agent_verbs.peers(place, everything=everything).text

    def diff(before: str = agent_verbs.BEST, after: str = agent_verbs.HERE, everything: bool = False) -> str:
        """Between two recipes: a commit, a station's name, "best", or "here" (your files)."""
        return agent_verbs.diff(place, before, after, everything=everything).text

    def adopt(commit: str = '', how: How = '') -> str:
        """Take over a peer's announced recipe; not during a campaign."""
        return agent_verbs.adopt(place, commit, how).text

    def note(text: str = '') -> str:
        """Add a line to the recipe's notes; without text: read them."""
        return (agent_verbs.note(place, text) if text else agent_verbs.notes(place)).text

    return [records, frames, score, trial, train, peers, diff, adopt, note, papers]


def papers(query: str, count: int = 5) -> str:
    """Search the station's library of papers."""
    from enpire_agent.papers import Library, library_folder

    library = Library(library_folder(''))
    library.refresh()
    found = library.search(query, count)
    return '\n'.join(f'{one.document.id} {one.document.title}, p. {one.page}: {one.snippet}' for one in found) or (
        f"nothing about '{query}' in {library.folder}")


def _explained(verb: Callable) -> Callable:
    """The verb with the suite's errors as answers that the model can read."""
    from functools import wraps

    from mcp.server.mcpserver.exceptions import ToolError

    @wraps(verb)
    def call(**arguments):
        try:
            return verb(**arguments)
        except Exception as error:
            if not type(error).__module__.startswith('enpire_'):
                raise
            raise ToolError(str(error)) from error

    return call


def _without_titles(schema):
    if isinstance(schema, dict):
        return {key: _without_titles(value) for key, value in schema.items()
                if not (key == 'title' and isinstance(value, str))}
    if isinstance(schema, list):
        return [_without_titles(value) for value in schema]
    return schema
