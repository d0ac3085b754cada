"""The three streaming protocols of the coding agents: an answer of a scenario as the events that a vendor would send.

OpenAI Responses (Codex): platform.openai.com/docs/api-reference/responses-streaming; Anthropic Messages (Claude Code):
docs.anthropic.com/en/docs/build-with-claude/streaming; OpenAI chat completions (Kimi Code).
"""

from __future__ import annotations

import itertools
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Iterator, Protocol as Interface

if TYPE_CHECKING:
    from mock_model import Answer

_numbers = itertools.count(1)


class Protocol(Interface):
    def events(self, answer: 'Answer', body: dict, work_tree: Path) -> Iterator[bytes]:
        """Frames of server-sent events. body: the request, which says what tools there are."""

    def whole(self, answer: 'Answer', body: dict, work_tree: Path) -> dict:
        """The answer to a request that wants no stream."""

    def error(self, status: int, message: str) -> dict:
        """The body of an HTTP error."""


def of_path(path: str) -> Protocol | None:
    """The protocol of a request's path."""
    ends = {'/responses': Responses(), '/messages': Messages(), '/chat/completions': ChatCompletions()}
    return next((protocol for end, protocol in ends.items() if path.endswith(end)), None)


class Responses:
    """OpenAI Responses."""

    def error(self, status: int, message: str) -> dict:
        return {'error': {'message': message, 'type': 'mock_error', 'code': str(status)}}

    def whole(self, answer: 'Answer', body: dict, work_tree: Path) -> dict:
        return _value(list(self.events(answer, body, work_tree))[-1])['response']

    def events(self, answer: 'Answer', body: dict, work_tree: Path) -> Iterator[bytes]:
        identity = f'resp_{next(_numbers)}'
        response = {'id': identity, 'object': 'response', 'model': body.get('model', 'mock'), 'status': 'in_progress',
                    'output': []}
        yield _named({'type': 'response.created', 'response': response})
        items = []
        if answer.think:
            items.append({'type': 'reasoning', 'id': f'rs_{next(_numbers)}',
                          'summary': [{'type': 'summary_text', 'text': answer.think}], 'encrypted_content': None})
        if answer.text:
            items.append({'type': 'message', 'id': f'msg_{next(_numbers)}', 'role': 'assistant', 'status': 'completed',
                          'content': [{'type': 'output_text', 'text': answer.text, 'annotations': []}]})
        if tool := self._tool(answer, body):
            items.append({'id': f'fc_{next(_numbers)}', 'call_id': f'call_{next(_numbers)}', 'status': 'completed',
                          **tool})
        for index, item in enumerate(items):
            begun = {**item, 'content': []} if item['type'] == 'message' else item
            yield _named({'type': 'response.output_item.added', 'output_index': index, 'item': begun})
            if item['type'] == 'message':
                for word in _words(answer.text):
                    yield _named({'type': 'response.output_text.delta', 'item_id': item['id'], 'output_index': index,
                                  'content_index': 0, 'delta': word})
            yield _named({'type': 'response.output_item.done', 'output_index': index, 'item': item})
        usage = answer.usage
        counts = {'input_tokens': usage.input, 'input_tokens_details': {'cached_tokens': usage.cached},
                  'output_tokens': usage.output, 'output_tokens_details': {'reasoning_tokens': usage.reasoning},
                  'total_tokens': usage.input + usage.output}
        yield _named({'type': 'response.completed',
                      'response': {**response, 'status': 'completed', 'output': items, 'usage': counts}})

    def _tool(self, answer: 'Answer', body: dict) -> dict | None:
        offered = {tool.get('name'): tool for tool in body.get('tools', ())}
        if answer.edit:
            patch = _patch(answer.edit)
            if offered.get('apply_patch', {}).get('type') == 'custom':
                return {'type': 'custom_tool_call', 'name': 'apply_patch', 'input': patch}
            command, seconds = f"apply_patch <<'EOF'\n{patch}\nEOF", 60
        elif answer.shell:
            command, seconds = answer.shell['command'], answer.shell.get('seconds', 60)
        elif answer.read:
            command, seconds = f'cat {shlex.quote(answer.read)}', 60
        else:
            return None
        if 'exec_command' in offered:
            name, arguments = 'exec_command', {'cmd': command, 'yield_time_ms': 1000 * seconds}
        elif 'shell_command' in offered:
            name, arguments = 'shell_command', {'command': command, 'timeout_ms': 1000 * seconds}
        else:
            name, arguments = 'shell', {'command': ['bash', '-c', command], 'timeout_ms': 1000 * seconds}
        return {'type': 'function_call', 'name': name, 'arguments': json.dumps(arguments)}


class Messages:
    """Anthropic Messages."""

    def error(self, status: int, message: str) -> dict:
        kinds = {400: 'invalid_request_error', 401: 'authentication_error', 429: 'rate_limit_error',
                 529: 'overloaded_error'}
        return {'type': 'error', 'error': {'type': kinds.get(status, 'api_error'), 'message': message}}

    def whole(self, answer: 'Answer', body: dict, work_tree: Path) -> dict:
        message: dict = {}
        for frame in self.events(answer, body, work_tree):
            event = _value(frame)
            delta = event.get('delta', {})
            if event['type'] == 'message_start':
                message = event['message']
            elif event['type'] == 'content_block_start':
                message['content'].append(event['content_block'])
            elif delta.get('type') == 'input_json_delta':
                message['content'][-1]['input'] = json.loads(delta['partial_json'])
            elif event['type'] == 'content_block_delta':
                part = delta['type'].removesuffix('_delta')
                message['content'][-1][part] += delta[part]
            elif event['type'] == 'message_delta':
                message.update(delta, usage=event['usage'])
        return message

    def events(self, answer: 'Answer', body: dict, work_tree: Path) -> Iterator[bytes]:
        usage = answer.usage
        counts = {'input_tokens': usage.input - usage.cached, 'cache_read_input_tokens': usage.cached,
                  'cache_creation_input_tokens': 0}
        yield _named({'type': 'message_start', 'message': {
            'id': f'msg_{next(_numbers)}', 'type': 'message', 'role': 'assistant', 'model': body.get('model', 'mock'),
            'content': [], 'stop_reason': None, 'stop_sequence': None, 'usage': {**counts, 'output_tokens': 1}}})
        yield _named({'type': 'ping'})
        blocks = []
        if answer.think:
            blocks.append(({'type': 'thinking', 'thinking': '', 'signature': ''},
                           [*({'type': 'thinking_delta', 'thinking': word} for word in _words(answer.think)),
                            {'type': 'signature_delta', 'signature': 'bW9jaw=='}]))
        if answer.text:
            blocks.append(({'type': 'text', 'text': ''},
                           [{'type': 'text_delta', 'text': word} for word in _words(answer.text)]))
        tool = _tool_of_files(answer, work_tree, shell='Bash', path='file_path', milliseconds=True)
        if tool:
            name, arguments = tool
            blocks.append(({'type': 'tool_use', 'id': f'toolu_{next(_numbers)}', 'name': name, 'input': {}},
                           [{'type': 'input_json_delta', 'partial_json': json.dumps(arguments)}]))
        for index, (block, deltas) in enumerate(blocks):
            yield _named({'type': 'content_block_start', 'index': index, 'content_block': block})
            for delta in deltas:
                yield _named({'type': 'content_block_delta', 'index': index, 'delta': delta})
            yield _named({'type': 'content_block_stop', 'index': index})
        reason = 'tool_use' if tool else 'end_turn'
        yield _named({'type': 'message_delta', 'delta': {'stop_reason': reason, 'stop_sequence': None},
                      'usage': {**counts, 'output_tokens': usage.output,
                               'output_tokens_details': {'thinking_tokens': usage.reasoning}}})
        yield _named({'type': 'message_stop'})


class ChatCompletions:
    """OpenAI chat completions, with the fields that Moonshot adds."""

    def error(self, status: int, message: str) -> dict:
        return {'error': {'message': message, 'type': 'mock_error', 'code': status}}

    def whole(self, answer: 'Answer', body: dict, work_tree: Path) -> dict:
        raise NotImplementedError('Kimi Code asks for streams only')

    def events(self, answer: 'Answer', body: dict, work_tree: Path) -> Iterator[bytes]:
        identity, usage = f'chatcmpl-{next(_numbers)}', answer.usage

        def chunk(delta: dict, finish: str | None = None, **more) -> bytes:
            return _data({'id': identity, 'object': 'chat.completion.chunk', 'created': 0,
                          'model': body.get('model', 'mock'),
                          'choices': [{'index': 0, 'delta': delta, 'finish_reason': finish}], **more})

        yield chunk({'role': 'assistant', 'content': ''})
        for word in _words(answer.think):
            yield chunk({'reasoning_content': word})
        for word in _words(answer.text):
            yield chunk({'content': word})
        tool = _tool_of_files(answer, work_tree, shell='Bash', path='path', milliseconds=False)
        if tool:
            name, arguments = tool
            yield chunk({'tool_calls': [{'index': 0, 'id': f'call_{next(_numbers)}', 'type': 'function',
                                         'function': {'name': name, 'arguments': ''}}]})
            yield chunk({'tool_calls': [{'index': 0, 'function': {'arguments': json.dumps(arguments)}}]})
        yield chunk({}, 'tool_calls' if tool else 'stop', usage={
            'prompt_tokens': usage.input, 'completion_tokens': usage.output, 'total_tokens': usage.input + usage.output,
            'cached_tokens': usage.cached, 'prompt_tokens_details': {'cached_tokens': usage.cached},
            'completion_tokens_details': {'reasoning_tokens': usage.reasoning}})
        yield b'data: [DONE]\n\n'


def _tool_of_files(answer: 'Answer', work_tree: Path, *, shell: str, path: str,
                   milliseconds: bool) -> tuple[str, dict] | None:
    """(name, arguments) of the tool call, for agents with tools called Read, Edit and a shell."""
    if answer.edit:
        return 'Edit', {path: str(work_tree / answer.edit['file']), 'old_string': answer.edit['old'],
                        'new_string': answer.edit['new']}
    if answer.read:
        return 'Read', {path: str(work_tree / answer.read)}
    if answer.shell:
        seconds = answer.shell.get('seconds', 60)
        return shell, {'command': answer.shell['command'], 'timeout': 1000 * seconds if milliseconds else seconds}
    return None


def _patch(edit) -> str:
    """The edit in the form of Codex's apply_patch."""
    old = ''.join(f'-{line}\n' for line in edit['old'].splitlines())
    new = ''.join(f'+{line}\n' for line in edit['new'].splitlines())
    return f"*** Begin Patch\n*** Update File: {edit['file']}\n@@\n{old}{new}*** End Patch"


def _words(text: str) -> list[str]:
    return [f'{word} ' for word in text.split(' ')[:-1]] + [text.split(' ')[-1]] if text else []


def _named(value: dict) -> bytes:
    return f"event: {value['type']}\n".encode() + _data(value)


def _value(frame: bytes) -> dict:
    return json.loads(frame.partition(b'data: ')[2])


def _data(value: dict) -> bytes:
    return b'data: ' + json.dumps(value).encode() + b'\n\n'
