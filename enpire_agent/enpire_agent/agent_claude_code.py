"""Claude Code: `claude -p --output-format stream-json`, Anthropic's Messages API.

Known to work: the version in templates/agents.package.json. The output has everything; the exit code and the `subtype`
of its result say success for some failures, so neither is looked at.
"""

from __future__ import annotations

import json
from pathlib import Path

from enpire_agent.agent_turn import (CUT, FAILED, NO_NETWORK, OUT_OF_TOKENS, STALLED, Fault, Tokens, TurnReader,
                                     fault_of_status)
from enpire_agent.coding_agent import CodingAgent

_TOOLS = ('Bash', 'Edit', 'Read', 'Write')
_RETRIES = 2
_QUIET = ('CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC', 'DISABLE_TELEMETRY', 'DISABLE_ERROR_REPORTING',
          'DISABLE_AUTOUPDATER')
_OAUTH_TOKEN = 'CLAUDE_CODE_OAUTH_TOKEN'      # what `claude setup-token` gives for a subscription


class ClaudeCode(CodingAgent):
    name = 'claude_code'
    key_variables = ('ANTHROPIC_API_KEY', _OAUTH_TOKEN)

    def arguments(self, prompt: str, work_tree: Path, session: str) -> list[str]:
        settings = self.settings
        arguments = ['-p', '--output-format', 'stream-json', '--verbose', '--include-partial-messages',
                     '--permission-mode', 'acceptEdits', '--tools', ','.join(_TOOLS), '--allowedTools',
                     ','.join(_TOOLS), '--strict-mcp-config', '--disable-slash-commands']
        for flag, value in (('--model', settings.model), ('--effort', settings.effort), ('--resume', session)):
            arguments += [flag, value] if value else []
        if settings.cost_per_turn:
            arguments += ['--max-budget-usd', f'{settings.cost_per_turn:g}']
        return [*arguments, *settings.arguments, '--', prompt]

    def variables(self) -> dict[str, str]:
        settings = self.settings
        variables = {
            'CLAUDE_CONFIG_DIR': str(self.home), 'CLAUDE_CODE_MAX_RETRIES': str(_RETRIES),
            'API_TIMEOUT_MS': str(round(1000 * settings.silence_timeout)), 'CLAUDE_ENABLE_STREAM_WATCHDOG': '1',
            'CLAUDE_STREAM_IDLE_TIMEOUT_MS': str(round(1000 * settings.silence_timeout)),
            'BASH_DEFAULT_TIMEOUT_MS': str(round(1000 * settings.tool_timeout)),
            'BASH_MAX_TIMEOUT_MS': str(round(1000 * settings.tool_timeout)), **{name: '1' for name in _QUIET}}
        name, key = self.key()
        if settings.endpoint:
            variables.update(ANTHROPIC_BASE_URL=settings.endpoint, ANTHROPIC_API_KEY=key or 'none')
        elif key:
            variables[_OAUTH_TOKEN if name == _OAUTH_TOKEN else 'ANTHROPIC_API_KEY'] = key
        return variables

    def has_login(self) -> bool:
        return (self.home / '.credentials.json').is_file()

    def login_command(self) -> str:
        return f"CLAUDE_CONFIG_DIR={self.home} {' '.join(self.command)} auth login"

    def reader(self, session: str) -> 'ClaudeReader':
        return ClaudeReader(session)


class ClaudeReader(TurnReader):
    def __init__(self, session: str = ''):
        super().__init__(session)
        self._answers: dict[str, Tokens] = {}      # by message
        self._answer = ''                          # the message that is being streamed

    def read(self, event: dict) -> None:
        kind = event.get('type')
        if kind == 'system' and event.get('subtype') == 'init':
            self.begin_session(event.get('session_id', ''))
        elif kind == 'system' and event.get('subtype') == 'api_retry':
            self.retry_after = (event.get('retry_delay_ms') or 0) / 1000
            self.tell('retry', f"{event.get('error', '')} {event.get('error_status') or ''}".strip())
        elif kind == 'stream_event':
            self._stream(event.get('event') or {})
        elif kind in ('assistant', 'user'):
            self._message(event.get('message') or {})
        elif kind == 'result':
            self._result(event)

    def _stream(self, event: dict) -> None:
        if event.get('type') == 'message_start':
            message = event.get('message') or {}
            self._answer = message.get('id', '')
            # Its output_tokens are no count yet.
            self._answers[self._answer] = _tokens({**(message.get('usage') or {}), 'output_tokens': 0})
        elif event.get('type') == 'message_delta' and self._answer:
            self._answers[self._answer] = _tokens(event.get('usage') or {})
        elif event.get('type') == 'message_stop':
            self._answer, self.retry_after = '', None
        self.count(sum(self._answers.values(), Tokens()))

    def _message(self, message: dict) -> None:
        content = message.get('content')
        if message.get('model') == '<synthetic>' or not isinstance(content, list):
            return      # an error, in the place of an answer
        for block in content:
            if block.get('type') == 'text' and message.get('role') == 'assistant':
                self.say(block.get('text', ''))
            elif block.get('type') == 'thinking':
                self.tell('thinking', block.get('thinking', ''))
            elif block.get('type') == 'tool_use':
                self.begin_tool(block.get('id', ''), _tool_text(block))
            elif block.get('type') == 'tool_result':
                self.end_tool(block.get('tool_use_id', ''))

    def _result(self, result: dict) -> None:
        self.begin_session(result.get('session_id', ''))
        for denial in result.get('permission_denials') or ():
            self.refused.append(_tool_text({'name': denial.get('tool_name', ''), 'input': denial.get('tool_input')}))
        # Beside it are modelUsage and total_cost_usd, which count from the start of the conversation.
        if models := result.get('model_usage_since_last_result'):
            self.count(sum((_model_tokens(usage) for usage in models.values()), Tokens()))
            self.cost = sum(usage.get('costUSD') or 0.0 for usage in models.values())
        text, subtype = str(result.get('result') or ''), result.get('subtype', '')
        if subtype in ('error_max_turns', 'error_max_budget_usd'):
            self.fault = Fault(OUT_OF_TOKENS, {'error_max_turns': 'its limit of steps is reached',
                                               'error_max_budget_usd': 'its limit of cost is reached'}[subtype])
        elif result.get('is_error') or result.get('terminal_reason') == 'api_error':
            self.fault = self._fault(text, result)
        elif result.get('terminal_reason') in (None, 'completed'):
            self.completed = True
            self.text = text.strip() or self.text
        else:
            self.fault = Fault(FAILED, f"it ended because of {result['terminal_reason']}")

    def _fault(self, text: str, result: dict) -> Fault:
        if status := result.get('api_error_status'):
            return fault_of_status(status, text, self.retry_after)
        if 'timed out' in text:
            return Fault(STALLED, text)
        if self._answer or 'was lost' in text or 'malformed' in text:
            return Fault(CUT, text)
        return Fault(NO_NETWORK if result.get('api_error') == 'connection_failed' else FAILED, text)


def _tool_text(block: dict) -> str:
    arguments = block.get('input') or {}
    if block.get('name') == 'Bash':
        return arguments.get('command', '')
    what = Path(arguments.get('file_path', '')).name or json.dumps(arguments)[:200]
    return f"{block.get('name', '').lower()} {what}"


def _tokens(usage: dict) -> Tokens:
    cached = usage.get('cache_read_input_tokens') or 0
    return Tokens((usage.get('input_tokens') or 0) + cached + (usage.get('cache_creation_input_tokens') or 0), cached,
                  usage.get('output_tokens') or 0,
                  (usage.get('output_tokens_details') or {}).get('thinking_tokens') or 0)


def _model_tokens(usage: dict) -> Tokens:
    cached = usage.get('cacheReadInputTokens') or 0
    return Tokens((usage.get('inputTokens') or 0) + cached + (usage.get('cacheCreationInputTokens') or 0), cached,
                  usage.get('outputTokens') or 0, usage.get('thinkingTokens') or 0)
