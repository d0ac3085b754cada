"""Kimi Code: `kimi -p --output-format stream-json`, OpenAI's chat completions API.

Known to work: the version in templates/agents.package.json. Its output comes late and says no tokens; the file of the
conversation (`sessions/*/<session>/agents/main/wire.jsonl`) has all of a turn, at once. An answer that breaks off in
good order (a proxy does that) it takes for whole; the file shows that the model gave no reason to stop.
"""

from __future__ import annotations

from pathlib import Path

from enpire_agent.agent_turn import (CUT, DID_NOTHING, FAILED, LOGIN, NO_NETWORK, OUT_OF_TOKENS, RATE_LIMITED,
                                     SERVER_ERROR, Fault, JsonLines, Tokens, TurnReader, fault_of_status)
from enpire_agent.coding_agent import CodingAgent

_CONTEXT = 262_144         # tokens; of the models that Moonshot serves for it
_CONFIGURATION = '[loop_control]\nmax_attempts_per_step = 3\n'
# Only the tools that research needs: the descriptions of all 25 would be paid for in every request.
_RESEARCHER = '''---
name: researcher
description: Edits a recipe and runs trials
tools: Bash, Edit, Read, Write
---
${base_prompt}
'''
_RECORD = 'agents/main/wire.jsonl'
_CODES = {'provider.rate_limit': RATE_LIMITED, 'provider.overloaded': SERVER_ERROR, 'provider.auth_error': LOGIN,
          'provider.connection_error': NO_NETWORK, 'loop.max_steps_exceeded': OUT_OF_TOKENS}


class KimiCode(CodingAgent):
    name = 'kimi_code'
    key_variables = ('KIMI_MODEL_API_KEY', 'KIMI_API_KEY', 'MOONSHOT_API_KEY')

    def prepare(self) -> None:
        configuration = self.home / 'config.toml'       # a login writes there, too
        text = configuration.read_text(encoding='utf-8') if configuration.is_file() else ''
        if '[loop_control]' not in text:
            configuration.write_text(f'{text}\n{_CONFIGURATION}' if text else _CONFIGURATION, encoding='utf-8')
        (self.home / 'researcher.md').write_text(_RESEARCHER, encoding='utf-8')

    def arguments(self, prompt: str, work_tree: Path, session: str) -> list[str]:
        arguments = ['--output-format', 'stream-json']
        if self.settings.model and not self._by_variables():
            arguments += ['-m', self.settings.model]
        arguments += ['-S', session] if session else ['--agent-file', str(self.home / 'researcher.md')]
        return [*arguments, *self.settings.arguments, f'--prompt={prompt}']

    def variables(self) -> dict[str, str]:
        settings = self.settings
        variables = {'KIMI_CODE_HOME': str(self.home), 'KIMI_DISABLE_TELEMETRY': '1', 'KIMI_CODE_NO_AUTO_UPDATE': '1'}
        if self._by_variables():
            variables.update(KIMI_MODEL_NAME=settings.model or 'kimi-for-coding',
                             KIMI_MODEL_API_KEY=self.key()[1] or 'none', KIMI_MODEL_PROVIDER_TYPE='kimi',
                             KIMI_MODEL_MAX_CONTEXT_SIZE=str(_CONTEXT))
        if settings.endpoint:
            variables['KIMI_MODEL_BASE_URL'] = settings.endpoint
        if settings.effort:
            variables['KIMI_MODEL_THINKING_EFFORT'] = settings.effort
        return variables

    def _by_variables(self) -> bool:
        """Whether model and key are handed over; else the login in its home says both."""
        return bool(self.settings.endpoint or self.key()[1])

    def has_login(self) -> bool:
        return any((self.home / 'credentials').glob('*.json'))

    def login_command(self) -> str:
        return f"KIMI_CODE_HOME={self.home} {' '.join(self.command)} login"

    def reader(self, session: str) -> 'KimiReader':
        return KimiReader(self.home, session)


class KimiReader(TurnReader):
    def __init__(self, home: Path, session: str = ''):
        super().__init__(session)
        self._home = home
        self._records_before = set(self._records())
        self._record: JsonLines | None = None
        if session and self._find_record():
            self._record.new()       # what was before this turn
        self._cut = False

    def read(self, event: dict) -> None:
        # What it says and does it prints when a step ends, so that is read from the file, where it comes at once.
        if event.get('type') == 'turn.step.retrying':
            self.retry_after = (event.get('delay_ms') or 0) / 1000
            self.tell('retry', event.get('error_message', ''))
        elif event.get('type') == 'session.resume_hint':
            self.begin_session(event.get('session_id', ''))

    def look(self) -> None:
        if self._record is None and not self._find_record():
            return
        for entry in self._record.new():
            self._entry(entry)

    def last_words(self, said: str) -> Fault | None:
        code = next((code for code in _CODES if code in said), '')
        line = next((line for line in said.splitlines() if line.startswith('error:')), '')
        return Fault(_CODES.get(code, FAILED), line.removeprefix('error: ')) if line else None

    def _entry(self, entry: dict) -> None:
        kind, event = entry.get('type'), entry.get('event') or {}
        if kind == 'usage.record':
            self.count(self.tokens + _tokens(entry.get('usage') or {}))
        elif kind == 'context.append_loop_event':
            self._step(event)
        elif kind == 'turn.ended':
            if entry.get('reason') != 'completed':
                self.fault = _fault(entry.get('error') or {}, entry.get('reason', ''), self.retry_after)
            elif self._cut:
                self.fault = Fault(CUT, 'the last answer ended without a reason to stop')
            else:
                self.completed = True

    def _step(self, event: dict) -> None:
        kind = event.get('type')
        if kind == 'content.part':
            part = event.get('part') or {}
            if part.get('type') == 'text':
                self.say(part.get('text', ''))
            elif part.get('type') == 'think':
                self.tell('thinking', part.get('think', ''))
        elif kind == 'tool.call':
            self.begin_tool(event.get('toolCallId', ''), _tool_text(event.get('name', ''), event.get('args') or {}))
        elif kind == 'tool.result':
            self.end_tool(event.get('toolCallId', ''))
        elif kind == 'step.end' and 'usage' in event:
            self.retry_after = None
            self._cut = not event.get('rawFinishReason')

    def _find_record(self) -> bool:
        for file in self._records():
            name = file.parents[2].name
            if name == self.session or not self.session and file not in self._records_before:
                self.begin_session(name)
                self._record = JsonLines(file)
                return True
        return False

    def _records(self) -> list[Path]:
        return sorted(self._home.glob(f'sessions/wd_*/session_*/{_RECORD}'))


def _tool_text(name: str, arguments: dict) -> str:
    if name == 'Bash':
        return str(arguments.get('command', ''))
    return f"{name.lower()} {Path(str(arguments.get('path', ''))).name}".strip()


def _tokens(usage: dict) -> Tokens:
    cached = usage.get('inputCacheRead') or 0
    return Tokens((usage.get('inputOther') or 0) + cached + (usage.get('inputCacheCreation') or 0), cached,
                  usage.get('output') or 0)


def _fault(error: dict, reason: str, retry_after: float | None) -> Fault:
    message = error.get('message') or f'the turn ended: {reason}'
    if status := (error.get('details') or {}).get('statusCode'):
        return fault_of_status(status, message, retry_after)
    if error.get('name') == 'APIEmptyResponseError':
        return Fault(DID_NOTHING, message)
    if error.get('code') == 'provider.connection_error' and message == 'terminated':
        return Fault(CUT, 'an answer broke off')
    return Fault(_CODES.get(error.get('code', ''), FAILED), message)
