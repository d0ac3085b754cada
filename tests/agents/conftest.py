"""A recipe in a Git work tree, and coding agents whose model is a mock on this machine."""

import subprocess
from dataclasses import replace

import pytest
from mock_model import MockModel

from enpire_agent.agent_programs import AGENTS, make_agent
from enpire_agent.coding_agent import AgentSettings
from enpire_bringup.configuration import ConfigurationError

RECIPE = '''method: straight_push
parameters:
  gain: 1.0
'''
PATHS = {'codex': '/v1', 'claude_code': '', 'kimi_code': '/v1'}      # of the protocols, below the server's URL


def pytest_collection_modifyitems(config, items):
    """The real programs take minutes: they run where they are asked for, with -m agents (make test-agents)."""
    if 'agents' not in config.option.markexpr:
        left_out = [item for item in items if item.get_closest_marker('agents')]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch):
    """No test sees a key, or a home, of whoever runs it."""
    for agent in AGENTS.values():
        for name in agent.key_variables:
            monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('ENPIRE_TEST_KEY', 'not-a-key')


@pytest.fixture
def work_tree(tmp_path):
    folder = tmp_path / 'recipe'
    folder.mkdir()
    (folder / 'recipe.yaml').write_text(RECIPE)
    for command in (['init', '-q', '-b', 'main'], ['add', '-A'],
                    ['-c', 'user.name=test', '-c', 'user.email=test@localhost', 'commit', '-qm', 'start']):
        subprocess.run(['git', *command], cwd=folder, check=True)
    return folder


@pytest.fixture
def real_agent(tmp_path, work_tree):
    """real_agent(name, answers, **settings) -> (agent, model): the installed program with a mock as its model."""
    models = []

    def start(name, answers, **settings):
        model = MockModel(answers, work_tree)
        models.append(model.__enter__())
        values = AgentSettings(model='mock-model', endpoint=f'{model.url}{PATHS[name]}', key_variable='ENPIRE_TEST_KEY',
                               turn_timeout=90.0, silence_timeout=45.0)
        try:
            return make_agent(name, replace(values, **settings), tmp_path / 'home'), model
        except ConfigurationError as error:
            pytest.skip(str(error))

    yield start
    for model in models:
        model.__exit__()
