"""Records what the installed programs print, and write beside it, for the tests of their readers.

    python tests/agents/record_events.py        # after `make agents`, when a pinned version changes

The model is the mock, so nothing in the recordings is real. Long texts, which are the programs' own prompts and tool
descriptions, are left out.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Callable

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from mock_model import ENDED_EARLY, Answer, MockModel, Usage, load_scenario      # noqa: E402

from enpire_agent.agent_programs import AGENTS, make_agent      # noqa: E402
from enpire_agent.coding_agent import AgentSettings      # noqa: E402

RECORDINGS = HERE / 'recordings'
PATHS = {'codex': '/v1', 'claude_code': '', 'kimi_code': '/v1'}      # of the protocols, below the server's URL
CASES = {
    'edit': load_scenario(HERE / 'scenarios' / 'raise_the_gain.yaml'),
    'shell': [Answer(shell={'command': 'false', 'seconds': 10}, usage=Usage(900, 100, 20)),
              Answer(text='It failed.', usage=Usage(950, 900, 10))],
    '500': [Answer(fault=500)] * 12, '429': [Answer(fault=429, retry_after=2)] * 12, '401': [Answer(fault=401)] * 12,
    'ended_early': [Answer(text='So many words that the end comes before all are said.', fault=ENDED_EARLY)] * 12,
}
_LONGEST = 300      # characters of a text that are kept


def record(name: str, case: str, folder: Path) -> str:
    """Write `<name>_<case>.out.jsonl` and, where it writes one, `.file.jsonl`; returns the turn's outcome."""
    work_tree, home, printed = folder / 'recipe', folder / 'home', []
    work_tree.mkdir()
    (work_tree / 'recipe.yaml').write_text('method: straight_push\nparameters:\n  gain: 1.0\n')
    with MockModel(CASES[case], work_tree) as model:
        agent = make_agent(name, AgentSettings(model='mock-model', endpoint=f'{model.url}{PATHS[name]}'), home)
        make_reader: Callable = agent.reader

        def listening(session):
            reader = make_reader(session)
            read = reader.read
            reader.read = lambda event: (printed.append(event), read(event))
            return reader

        agent.reader = listening
        result = agent.turn('Raise the gain.', work_tree)
    files = [*home.glob('sessions/**/rollout-*.jsonl'), *home.glob('sessions/wd_*/*/agents/main/wire.jsonl')]
    written = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    for kind, events in (('out', printed), ('file', written)):
        text = ''.join(json.dumps(_short(event)) + '\n' for event in events)
        if text:
            (RECORDINGS / f'{name}_{case}.{kind}.jsonl').write_text(text.replace(str(folder), '/recorded'))
    return result.outcome


def _short(value):
    if isinstance(value, str):
        return value if len(value) <= _LONGEST else value[:20] + ' ...'
    if isinstance(value, list):
        return [_short(entry) for entry in value[:8]]
    if isinstance(value, dict):
        return {key: _short(entry) for key, entry in value.items() if key not in ('tools', 'slash_commands', 'skills')}
    return value


def main() -> None:
    RECORDINGS.mkdir(exist_ok=True)
    for name in AGENTS:
        for agent in AGENTS[name].key_variables:
            os.environ.pop(agent, None)
        for case in CASES:
            with tempfile.TemporaryDirectory() as folder:
                print(name, case, record(name, case, Path(folder)), flush=True)


if __name__ == '__main__':
    main()
