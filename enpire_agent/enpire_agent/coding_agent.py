"""A coding agent's program, run without a person: one turn in a work tree, judged by what it says and what it changed.

Codex, Claude Code and Kimi Code each have a module (agent_codex.py, agent_claude_code.py, agent_kimi_code.py) with the
program's arguments and the reading of its events; what a turn is, its timers and its end are the same for all, here.

    agent = make_agent('codex', AgentSettings(model='...'), home)
    result = agent.turn('Raise the success rate ...', work_tree, on_event=print)
    result = agent.turn('It is 34 of 50 now ...', work_tree, session=result.session)
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable, Iterable, Mapping, Sequence

from enpire_agent.agent_process import AgentProcess, Excess, ProcessLimits
from enpire_agent.agent_turn import (CANCELLED, DID_NOTHING, DONE, FAILED, LOGIN, OUT_OF_TIME, OUT_OF_TOKENS,
                                     RATE_LIMITED, RUNAWAY, SILENT, Fault, TurnEvent, TurnReader, TurnResult, read_line)
from enpire_bringup import bound_command
from enpire_bringup.configuration import ConfigurationError, Section

LARGEST_PROMPT = 100_000           # bytes; the system takes 128 kB an argument
PASSED_ON = ('PATH', 'LANG', 'LC_ALL', 'TZ', 'TERM', 'HTTP_PROXY', 'HTTPS_PROXY', 'NO_PROXY', 'http_proxy',
             'https_proxy', 'no_proxy', 'SSL_CERT_FILE', 'SSL_CERT_DIR', 'NODE_EXTRA_CA_CERTS', 'REQUESTS_CA_BUNDLE')
_POLL = 0.05                       # s
_FILES_PERIOD = 0.25               # s between two looks into the program's own records


@dataclass(frozen=True)
class AgentSettings:
    """What the section `researcher` of a station file says about a coding agent.

    model, effort: names of the vendor's; '': its default. endpoint: URL of the model's server; '': the vendor's.
    key_variable: the environment variable that has the key; '': the usual one of the program, or its login.
    program: path of the program; '': the one that `make agents` installed, else the first on PATH.
    arguments: further ones for the program. Times in s of wall time. tokens_per_turn, cost_per_turn (USD): 0 for no
    limit.
    """

    model: str = ''
    effort: str = ''
    endpoint: str = ''
    key_variable: str = ''
    program: str = ''
    arguments: tuple[str, ...] = ()
    turn_timeout: float = 3600.0
    silence_timeout: float = 300.0
    tool_timeout: float = 1800.0
    longest_retry: float = 60.0
    tokens_per_turn: int = 0
    cost_per_turn: float = 0.0
    limits: ProcessLimits = ProcessLimits()


@dataclass(frozen=True)
class Reach:
    """Files that the program and its tools may reach, besides the system, their home and the work tree.

    readable, writable: files and folders; hidden: folders that may not be read although they lie in a readable one.
    """

    readable: tuple[Path, ...] = ()
    writable: tuple[Path, ...] = ()
    hidden: tuple[Path, ...] = ()


def read_agent_settings(section: Section) -> AgentSettings:
    """The settings in a station file's section. Raises ConfigurationError."""
    default, limits = AgentSettings(), ProcessLimits()

    def seconds(key: str) -> float:
        return section.number(key, low=1.0, unit='s', default=getattr(default, key))

    settings = AgentSettings(
        **{key: section.text(key, default='') for key in ('model', 'effort', 'endpoint', 'key_variable', 'program')},
        arguments=section.texts('arguments', default=()), turn_timeout=seconds('turn_timeout'),
        silence_timeout=seconds('silence_timeout'), tool_timeout=seconds('tool_timeout'),
        longest_retry=seconds('longest_retry'), tokens_per_turn=section.integer('tokens_per_turn', low=0, default=0),
        cost_per_turn=section.number('cost_per_turn', low=0.0, unit='USD', default=0.0),
        limits=replace(limits, processes=section.integer('processes', low=10, default=limits.processes),
                       memory=section.number('memory', low=1e8, unit='bytes', default=limits.memory),
                       disk=section.number('disk', low=1e6, unit='bytes', default=limits.disk)))
    section.finish()
    return settings


class CodingAgent(ABC):
    """One program with its settings. home: its configuration and conversations, of one station and nothing else.

    command: how the program is started, without arguments.
    """

    name = ''
    key_variables: tuple[str, ...] = ()     # where the program looks for a key

    def __init__(self, command: Sequence[str], settings: AgentSettings, home: Path | str):
        self.command = tuple(command)
        self.settings = settings
        self.home = Path(home).absolute()

    @abstractmethod
    def arguments(self, prompt: str, work_tree: Path, session: str) -> list[str]:
        """Arguments of one turn."""

    @abstractmethod
    def variables(self) -> dict[str, str]:
        """Environment variables of the program's own, with its home, quiet mode, endpoint and key."""

    @abstractmethod
    def reader(self, session: str) -> TurnReader:
        """A reader for a turn that begins now."""

    def prepare(self) -> None:
        """Write configuration files into `home`."""

    def key(self) -> tuple[str, str]:
        """(variable, value) of the key in this process's environment; ('', '') where there is none."""
        names = (self.settings.key_variable,) if self.settings.key_variable else self.key_variables
        return next(((name, os.environ[name]) for name in names if os.environ.get(name)), ('', ''))

    @abstractmethod
    def has_login(self) -> bool:
        """Whether somebody logged in with this home; the login may have expired."""

    @abstractmethod
    def login_command(self) -> str:
        """What a person types to log in with this home."""

    def turn(self, prompt: str, work_tree: Path | str, session: str = '', *,
             on_event: Callable[[TurnEvent], None] = lambda event: None,
             cancelled: Callable[[], bool] = lambda: False, environment: Mapping[str, str] = {},
             reach: Reach | None = None) -> TurnResult:
        """Let the program work on a prompt until its turn ends; nothing that it started is alive then.

        session: continue that conversation. environment: further variables for the program and its tools. reach: keep
        it to these files, where the kernel can (program_confinement.py); None: it reaches what its user does. on_event
        is called in this thread. Raises ConfigurationError where the program cannot be started, ValueError for a prompt
        that is too long.
        """
        work_tree = Path(work_tree).absolute()
        if len(prompt.encode()) > LARGEST_PROMPT:
            raise ValueError(f'the prompt has {len(prompt.encode())} bytes; at most {LARGEST_PROMPT}')
        if not (self.settings.endpoint or self.key()[1] or self.has_login()):
            return TurnResult(LOGIN, f'no key and no login; type: {self.login_command()}', session=session)
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.prepare()
        before, began = file_hashes(work_tree), time.monotonic()
        scratch = self.home / 'tmp'
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        reader = self.reader(session)
        process = AgentProcess(self._command_line(prompt, work_tree, session, reach), work_tree,
                               {**self._environment(scratch), **environment}, self.settings.limits,
                               owner=str(self.home), watched=(work_tree, scratch))
        try:
            fault = self._follow(process, reader, on_event, cancelled, began)
        finally:
            process.end()
            shutil.rmtree(scratch, ignore_errors=True)
        for line in process.lines():
            read_line(reader, line)
        reader.look()
        _hand_on(reader, on_event)
        changed = tuple(_differences(before, file_hashes(work_tree)))
        fault = fault or self._judged(reader, process, changed)
        return TurnResult(outcome=fault.outcome, reason=fault.reason, text=reader.text, session=reader.session,
                          tokens=reader.tokens, cost=reader.cost, retry_after=fault.retry_after, changed=changed,
                          refused=tuple(reader.refused), tools=reader.tools, duration=time.monotonic() - began)

    def _command_line(self, prompt: str, work_tree: Path, session: str, reach: Reach | None) -> list[str]:
        if not shutil.which(self.command[0]):
            raise ConfigurationError(f'{self.name}: {self.command[0]} is no program; make agents installs it, or name '
                                     'it as researcher.program in the station file')
        places = None
        if reach is not None:
            places = {'readable': [sys.prefix, sys.base_prefix, *map(str, reach.readable),
                                   *_program_folders(self.command)],
                      'writable': [str(work_tree), str(self.home), *map(str, reach.writable)],
                      'hidden': [*map(str, reach.hidden)]}
        return [sys.executable, '-I', '-S', bound_command.__file__, str(os.getpid()), json.dumps(places), *self.command,
                *self.arguments(prompt, work_tree, session)]

    def _environment(self, scratch: Path) -> dict[str, str]:
        kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        own, key = self.variables(), self.key()[1]
        # The shells of its tools forget the key, so that it gets into no conversation, log or commit. Without SHLVL
        # some take a program's pipe for a network login and read other files.
        tools = scratch / 'tools.bash'
        tools.write_text('unset -v ' + ' '.join(name for name, value in own.items() if key and value == key) + '\n')
        return {**kept, 'HOME': str(self.home), 'TMPDIR': str(scratch), 'BASH_ENV': str(tools),
                'SHLVL': '1', 'GIT_TERMINAL_PROMPT': '0', 'GIT_EDITOR': 'true', 'PAGER': 'cat', 'CI': '1', **own}

    def _follow(self, process: AgentProcess, reader: TurnReader, on_event, cancelled, began: float) -> Fault | None:
        """Until the program ends, or the reason why it has to."""
        settings = self.settings
        heard, tool_since, next_look = began, began, began
        while not process.ended:
            lines = list(process.lines(wait=_POLL))
            for line in lines:
                read_line(reader, line)
            now = time.monotonic()
            if now >= next_look:
                reader.look()
                next_look = now + _FILES_PERIOD
            if lines or reader.events:
                heard = now
            if not reader.running:
                tool_since = now
            _hand_on(reader, on_event)
            if cancelled():
                return Fault(CANCELLED, 'cancelled')
            if now - began > settings.turn_timeout:
                return Fault(OUT_OF_TIME, f'the turn took more than {settings.turn_timeout:g} s')
            if reader.running and now - tool_since > settings.tool_timeout:
                return Fault(SILENT, f'a tool ran for more than {settings.tool_timeout:g} s')
            if not reader.running and now - heard > settings.silence_timeout:
                return Fault(SILENT, f'nothing came from it for {settings.silence_timeout:g} s')
            if settings.tokens_per_turn and reader.tokens.total >= settings.tokens_per_turn:
                return Fault(OUT_OF_TOKENS, f'the turn used {reader.tokens.total} tokens of {settings.tokens_per_turn}')
            if (reader.retry_after or 0.0) > settings.longest_retry:
                return Fault(RATE_LIMITED, f'the server asked for a pause of {reader.retry_after:.0f} s',
                             reader.retry_after)
            try:
                process.check_limits()
            except Excess as excess:
                return Fault(RUNAWAY, str(excess))
        return None

    def _judged(self, reader: TurnReader, process: AgentProcess, changed: Sequence[str]) -> Fault:
        if reader.fault is not None:
            if reader.fault.outcome == RATE_LIMITED and reader.fault.retry_after is None:
                reader.fault.retry_after = reader.retry_after
            return reader.fault
        if reader.completed:
            if not (reader.text or reader.tools or changed):
                return Fault(DID_NOTHING, 'it ended without a word, a tool or a change')
            return Fault(DONE, '')
        said = process.said()
        last = next((line for line in reversed(said.splitlines()) if line.strip()),
                    f'it ended with exit code {process.returncode} and no reason')
        return reader.last_words(said) or Fault(FAILED, last)


def _hand_on(reader: TurnReader, on_event: Callable[[TurnEvent], None]) -> None:
    events, reader.events = reader.events, []
    for event in events:
        on_event(event)


def _program_folders(command: Sequence[str]) -> list[str]:
    """Where a program's own files lie: all that was installed together."""
    files = [Path(part).resolve() for part in command if Path(part).is_file()]
    return [str(next((parent for parent in file.parents if parent.name == 'node_modules'), file.parents[1]))
            for file in files]


def file_hashes(folder: Path) -> dict[str, str]:
    """Hash by path of every file below a folder, but what belongs to Git."""
    hashes = {}
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in ('.git', '__pycache__')]
        for name in files:
            file = Path(place, name)
            try:
                hashes[str(file.relative_to(folder))] = _file_hash(file)
            except OSError:
                hashes[str(file.relative_to(folder))] = 'unreadable'
    return hashes


def _file_hash(file: Path) -> str:
    if file.is_symlink():
        return f'link to {os.readlink(file)}'
    if not file.is_file():
        return 'no file'        # a pipe, a socket
    with file.open('rb') as stream:
        return hashlib.file_digest(stream, 'sha256').hexdigest()


def _differences(before: Mapping[str, str], after: Mapping[str, str]) -> Iterable[str]:
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
