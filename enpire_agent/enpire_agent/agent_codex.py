"""Codex: `codex exec --json`, OpenAI's Responses API.

Known to work: the version in templates/agents.package.json. Tokens of a running turn, and why a turn failed, are in
the conversation's own file (`sessions/**/rollout-*.jsonl`), not in the output; the usage in the output counts from the
start of the conversation.
"""

from __future__ import annotations

import json
from pathlib import Path

from enpire_agent.agent_turn import (CUT, FAILED, LOGIN, NO_NETWORK, RATE_LIMITED, SERVER_ERROR, STALLED, Fault,
                                     JsonLines, Tokens, TurnReader, fault_of_status)
from enpire_agent.coding_agent import CodingAgent

_PROVIDER = 'enpire'
_ENDPOINT_KEY = 'ENPIRE_MODEL_KEY'      # the variable in which the program looks for the key of an endpoint
_RETRIES = 2
# Quiet, no updates, and no tools that research does not need: their descriptions would be paid for in every request.
_OVERRIDES = {
    'check_for_update_on_startup': False, 'analytics.enabled': False, 'features.plugins': False,
    'features.unbounded_connection_retries': False, 'features.goals': False, 'agents.enabled': False,
    'web_search': 'disabled', 'shell_environment_policy.ignore_default_excludes': False,
    'allow_login_shell': False}      # /etc/profile would take the station's programs off PATH
_CODES = {'internal_server_error': SERVER_ERROR, 'server_overloaded': SERVER_ERROR,
          'usage_limit_exceeded': RATE_LIMITED, 'unauthorized': LOGIN}


class Codex(CodingAgent):
    name = 'codex'
    key_variables = ('OPENAI_API_KEY', 'CODEX_API_KEY')

    def arguments(self, prompt: str, work_tree: Path, session: str) -> list[str]:
        settings = self.settings
        overrides = dict(_OVERRIDES)
        if settings.effort:
            overrides['model_reasoning_effort'] = settings.effort
        if settings.endpoint:
            provider = f'model_providers.{_PROVIDER}'
            overrides.update({
                'model_provider': _PROVIDER, f'{provider}.name': _PROVIDER, f'{provider}.base_url': settings.endpoint,
                f'{provider}.env_key': _ENDPOINT_KEY, f'{provider}.wire_api': 'responses',
                f'{provider}.request_max_retries': _RETRIES, f'{provider}.stream_max_retries': _RETRIES,
                f'{provider}.stream_idle_timeout_ms': round(1000 * settings.silence_timeout)})
        arguments = ['exec', '--json', '--dangerously-bypass-approvals-and-sandbox', '--skip-git-repo-check', '-C',
                     str(work_tree)]
        for key, value in overrides.items():
            arguments += ['-c', f'{key}={json.dumps(value)}']      # JSON's literals are TOML's
        if settings.model:
            arguments += ['-m', settings.model]
        arguments += settings.arguments
        return arguments + (['resume', session] if session else []) + ['--', prompt]

    def variables(self) -> dict[str, str]:
        _, key = self.key()
        variables = {'CODEX_HOME': str(self.home)}
        if self.settings.endpoint:
            variables[_ENDPOINT_KEY] = key or 'none'
        elif key:
            variables['CODEX_API_KEY'] = key
        return variables

    def has_login(self) -> bool:
        return (self.home / 'auth.json').is_file()

    def login_command(self) -> str:
        return f"mkdir -p {self.home}; CODEX_HOME={self.home} {' '.join(self.command)} login --device-auth"

    def reader(self, session: str) -> 'CodexReader':
        return CodexReader(self.home, session)


class CodexReader(TurnReader):
    def __init__(self, home: Path, session: str = ''):
        super().__init__(session)
        self._home = home
        self._record: JsonLines | None = None
        self._before = Tokens()        # of the conversation, when the turn began
        if session:
            self._find_record()
            for entry in self._record.new() if self._record else ():
                self._before = _conversation_tokens(entry) or self._before

    def read(self, event: dict) -> None:
        kind = event.get('type')
        if kind == 'thread.started':
            self.begin_session(event.get('thread_id', ''))
        elif kind in ('item.started', 'item.updated', 'item.completed'):
            self._item(event.get('item') or {}, ended=kind == 'item.completed')
        elif kind == 'turn.completed':
            self.completed = True
            self.count(_tokens(event.get('usage') or {}) - self._before)
        elif kind == 'error':
            self.tell('retry', event.get('message', ''))
        elif kind == 'turn.failed':
            message = (event.get('error') or {}).get('message', '')
            self.fault = self.fault or Fault(_outcome_of(message), message)

    def look(self) -> None:
        if self._record is None:
            self._find_record()
        for entry in self._record.new() if self._record else ():
            payload = entry.get('payload') or {}
            if tokens := _conversation_tokens(entry):
                if not self.completed:      # then the output has said the sum
                    self.count(tokens - self._before)
            elif payload.get('type') == 'task_complete' and payload.get('error'):
                self.fault = _fault(payload['error'])

    def _item(self, item: dict, ended: bool) -> None:
        kind, identity = item.get('type'), item.get('id', '')
        if kind == 'agent_message' and ended:
            self.say(item.get('text', ''))
        elif kind == 'reasoning' and ended:
            self.tell('thinking', item.get('text', ''))
        elif kind in ('command_execution', 'file_change', 'mcp_tool_call', 'web_search'):
            self.begin_tool(identity, _tool_text(item))
            if item.get('status') == 'declined':
                self.refused.append(_tool_text(item))
            if ended:
                self.end_tool(identity, _tool_text(item))

    def _find_record(self) -> None:
        files = sorted(self._home.glob(f'sessions/**/rollout-*{self.session}.jsonl')) if self.session else []
        self._record = JsonLines(files[-1]) if files else None


def _tool_text(item: dict) -> str:
    if item['type'] == 'command_execution':
        code = item.get('exit_code')
        return item.get('command', '') + (f' (exit code {code})' if code else '')
    if item['type'] == 'file_change':
        return 'edit ' + ', '.join(Path(change.get('path', '')).name for change in item.get('changes') or ())
    if item['type'] == 'mcp_tool_call':
        return f"{item.get('server', '')}.{item.get('tool', '')}"
    return f"search {item.get('query', '')}"


def _tokens(usage: dict) -> Tokens:
    return Tokens(usage.get('input_tokens', 0), usage.get('cached_input_tokens', 0), usage.get('output_tokens', 0),
                  usage.get('reasoning_output_tokens', 0))


def _conversation_tokens(entry: dict) -> Tokens | None:
    """Tokens of the whole conversation, where this entry of its file says them."""
    payload = entry.get('payload') or {}
    usage = (payload.get('info') or {}).get('total_token_usage') if payload.get('type') == 'token_count' else None
    return _tokens(usage) if usage else None


def _fault(error: dict) -> Fault:
    message, info = error.get('message', ''), error.get('codex_error_info')
    if isinstance(info, dict):
        for details in info.values():
            if isinstance(details, dict) and 'http_status_code' in details:
                status = details['http_status_code']
                return fault_of_status(status, message) if status else Fault(NO_NETWORK, message)
        info = next(iter(info), '')
    return Fault(_CODES.get(info) or _outcome_of(message), message)


def _outcome_of(message: str) -> str:
    if 'idle timeout' in message:
        return STALLED
    if 'error sending request' in message:
        return NO_NETWORK
    if 'stream disconnected' in message or 'stream closed' in message:
        return CUT
    return FAILED
