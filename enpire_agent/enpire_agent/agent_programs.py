"""Which coding agents there are, where their programs are, and whether one can work here."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Mapping

from enpire_agent.agent_claude_code import ClaudeCode
from enpire_agent.agent_codex import Codex
from enpire_agent.agent_kimi_code import KimiCode
from enpire_agent.coding_agent import PASSED_ON, AgentSettings, CodingAgent
from enpire_agent.doctor import ERROR, OK, WARNING, Finding
from enpire_bringup.configuration import ConfigurationError
from enpire_bringup.paths import share_directory

AGENTS: Mapping[str, type[CodingAgent]] = {agent.name: agent for agent in (Codex, ClaudeCode, KimiCode)}
PINS = Path(__file__).with_name('templates') / 'agents.package.json'
PACKAGES = {'codex': '@openai/codex', 'claude_code': '@anthropic-ai/claude-code', 'kimi_code': '@moonshot-ai/kimi-code'}
_COMMANDS = {'codex': 'codex', 'claude_code': 'claude', 'kimi_code': 'kimi'}      # as its vendor's installer names it
# The programs themselves below node_modules, not their wrappers: a wrapper is one more process that can stay behind.
_FILES = {'codex': '@openai/codex-*/vendor/*/bin/codex', 'claude_code': '@anthropic-ai/claude-code-*/claude',
          'kimi_code': '@moonshot-ai/kimi-code/dist/main.mjs'}
OLDEST_NODE = (22, 19)
_VERSION_WITHIN = 60.0      # s of wall time


def agents_directory() -> Path:
    """Where `make agents` installs: $ENPIRE_AGENTS, else `.agents` beside the sources, else in the current folder."""
    if os.environ.get('ENPIRE_AGENTS'):
        return Path(os.environ['ENPIRE_AGENTS']).resolve()
    root = share_directory().parent
    return (root if (root / 'enpire_agent' / 'package.xml').is_file() else Path.cwd()) / '.agents'


def agent_home(runs: Path | str, station: str, name: str) -> Path:
    """Configuration, login and conversations of an agent of one station."""
    return Path(runs) / '.stations' / station / 'agents' / name


def known_version(name: str) -> str:
    """The version that this suite was tested with."""
    return json.loads(PINS.read_text(encoding='utf-8'))['dependencies'][PACKAGES[name]]


def make_agent(name: str, settings: AgentSettings, home: Path | str) -> CodingAgent:
    """The agent called `name`. Raises ConfigurationError where there is none, or its program is not installed."""
    if name not in AGENTS:
        raise ConfigurationError(f"no coding agent '{name}'; known: {', '.join(AGENTS)}")
    return AGENTS[name](find_program(name, settings.program), settings, home)


def find_program(name: str, program: str = '') -> tuple[str, ...]:
    """The command that starts it. program: its path, where the station file has one. Raises ConfigurationError."""
    if program:
        if not Path(program).is_file():
            raise ConfigurationError(f"researcher.program is '{program}', but there is no such file")
        return _started_by(Path(program))
    files = sorted(agents_directory().glob(f'node_modules/{_FILES[name]}'))
    if files:
        return _started_by(files[0])
    if found := shutil.which(_COMMANDS[name]):
        return (found,)
    raise ConfigurationError(f'{name} is not installed; type: make agents (or install it as its vendor says, so that '
                             f"'{_COMMANDS[name]}' is on PATH)")


def find_node() -> str:
    """A node that is new enough: of the machine, else the one of `make agents`; '' where there is none."""
    own = sorted(agents_directory().glob('node/*/bin/node'))
    candidates = [shutil.which('node'), *map(str, own)]
    return next((node for node in candidates if node and _node_version(node) >= OLDEST_NODE), '')


def agent_findings(runs: Path | str, station: str, wanted: str = '',
                   settings: AgentSettings = AgentSettings()) -> list[Finding]:
    """Whether each agent can work here: its program, its version, and a login or a key, which is never shown.

    station: whose logins count. wanted: the station's researcher; what it lacks is an error. settings: of that one.
    """
    findings = [finding for name in AGENTS
                if (finding := _finding(name, settings if name == wanted else AgentSettings(),
                                        agent_home(runs, station, name), name == wanted))]
    return findings or [Finding('coding agents', OK, f"none of {', '.join(AGENTS)}; the built-in researcher needs none",
                                figures={'found': []})]


def _finding(name: str, settings: AgentSettings, home: Path, wanted: bool) -> Finding | None:
    """None for one that is neither installed nor wanted."""
    check, level = f'agent {name}', ERROR if wanted else OK
    try:
        agent = make_agent(name, settings, home)
    except ConfigurationError as error:
        return Finding(check, ERROR, str(error), 'make agents') if wanted else None
    try:
        version = program_version(agent.command)
    except ConfigurationError as error:
        return Finding(check, ERROR if wanted else WARNING, str(error), 'make agents')
    known = known_version(name)
    figures = {'version': version, 'known': known, 'program': agent.command[-1]}
    text = f'{version or "no version"} in {agent.command[-1]}'
    variable, _ = agent.key()
    if variable:
        text += f'; key in ${variable}'
    elif agent.has_login():
        text += '; logged in'
    elif not settings.endpoint:
        usual = settings.key_variable or agent.key_variables[0]
        way_out = f'{agent.login_command()}   or: export {usual}=...' if wanted else ''
        return Finding(check, level, f'{text}; no login and no key', way_out, figures)
    if version != known:
        return Finding(check, WARNING, f'{text}; tested with {known}', 'make agents installs that one', figures)
    return Finding(check, OK, text, figures=figures)


def program_version(command: tuple[str, ...]) -> str:
    """What it says it is. Raises ConfigurationError where it does not start."""
    with tempfile.TemporaryDirectory(prefix='enpire-version-') as home:
        environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        try:
            ended = subprocess.run([*command, '--version'], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                   timeout=_VERSION_WITHIN, env={**environment, 'HOME': home})
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ConfigurationError(f'{command[-1]} does not start: {error}') from error
    number = re.search(r'\d+\.\d+\.\d+\S*', ended.stdout)
    return number[0] if number else ''


def _started_by(file: Path) -> tuple[str, ...]:
    if file.suffix not in ('.mjs', '.js'):
        return (str(file),)
    node = find_node()
    if not node:
        raise ConfigurationError(f"{file} needs node {'.'.join(map(str, OLDEST_NODE))} or later; type: make agents")
    return node, str(file)


def _node_version(node: str) -> tuple[int, ...]:
    try:
        said = subprocess.run([node, '--version'], capture_output=True, text=True, timeout=_VERSION_WITHIN).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(int(part) for part in re.findall(r'\d+', said)[:2])
