"""A model server for tests, on 127.0.0.1: it speaks the three protocols of the coding agents and follows a scenario.

A scenario is a YAML file with a list of `answers`; each main request of an agent (one with tools) takes the next:

    answers:
      - think: The gain is too low.                       # optional reasoning before anything else
        shell: {command: ls, seconds: 60}                 # the agent's own shell tool; seconds: its time-out
        usage: {input: 1200, cached: 800, output: 40, reasoning: 12}
      - read: recipe.yaml                                 # paths are relative to the work tree
      - edit: {file: recipe.yaml, old: 'gain: 1.0', new: 'gain: 1.5'}
      - text: The gain is 1.5 now.                        # what the agent says; ends its turn
      - fault: {status: 429, retry_after: 1}              # an error instead of an answer
      - fault: stall                                      # see FAULTS

`input` counts all tokens of the prompt, `cached` those of them that came from a cache, `reasoning` is part of `output`.
`times: n` gives an answer n times. Requests after the last answer are refused with status 400, which tests notice.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Iterator, Mapping

import mock_protocols
from enpire_bringup.configuration import ConfigurationError, Section, read_yaml

# The server never answers; stops in the middle of an answer; breaks the connection there; ends the answer there as if
# it were whole (a proxy does that); breaks the connection at once.
NO_HEADERS, STALL, CUT, ENDED_EARLY, RESET = 'no_headers', 'stall', 'cut', 'ended_early', 'reset'
FAULTS = (NO_HEADERS, STALL, CUT, ENDED_EARLY, RESET)


@dataclass(frozen=True)
class Usage:
    """Tokens of one answer. input includes cached, output includes reasoning."""

    input: int = 100
    cached: int = 0
    output: int = 10
    reasoning: int = 0


@dataclass(frozen=True)
class Answer:
    """What the model says once: at most one of text, shell, read and edit; or a fault.

    fault: an HTTP status, or one of FAULTS. retry_after: s, of an answer with a status.
    """

    think: str = ''
    text: str = ''
    shell: Mapping[str, Any] | None = None
    read: str = ''
    edit: Mapping[str, str] | None = None
    usage: Usage = Usage()
    fault: int | str | None = None
    retry_after: int | None = None


@dataclass
class Request:
    """One request as it came. answer: index of the answer given, None for a request beside the conversation."""

    method: str
    path: str
    headers: dict[str, str]
    body: dict
    answer: int | None = None
    at: float = field(default_factory=time.monotonic)


def load_scenario(file: Path | str) -> list[Answer]:
    """The answers of a scenario file. Raises ConfigurationError."""
    top = read_yaml(Path(file))
    answers = top.raw('answers')
    top.finish()
    if not isinstance(answers, list):
        raise top.error('answers', 'must be a list of answers')
    return [answer for number, values in enumerate(answers)
            for answer in _answers(Section(values, Path(file), f'answers[{number}]'))]


def _answers(section: Section) -> list[Answer]:
    counts = section.section('usage', default={})
    usage = Usage(**{name: counts.integer(name, low=0, default=getattr(Usage(), name))
                     for name in ('input', 'cached', 'output', 'reasoning')})
    counts.finish()
    answer = Answer(think=section.text('think', default=''), text=section.text('text', default=''),
                    shell=section.raw('shell', default=None), read=section.text('read', default=''),
                    edit=section.raw('edit', default=None), usage=usage)
    fault = section.raw('fault', default=None)
    if isinstance(fault, dict):
        status = Section(fault, section.file, f'{section.key}.fault')
        answer = replace(answer, fault=status.integer('status', low=400, high=599),
                         retry_after=status.integer('retry_after', low=0) if 'retry_after' in status else None)
        status.finish()
    elif fault is not None:
        if fault not in FAULTS:
            raise section.error('fault', f"is '{fault}'; expected a status or one of {', '.join(FAULTS)}")
        answer = replace(answer, fault=fault)
    times = section.integer('times', low=1, default=1)
    section.finish()
    return [answer] * times


class MockModel:
    """The server; `with MockModel(answers, work_tree) as model:` runs it. requests: everything that came, in order.

    work_tree: the folder whose files a scenario names, for agents whose tools take absolute paths only.
    """

    def __init__(self, answers: list[Answer], work_tree: Path | str = ''):
        self.answers = list(answers)
        self.work_tree = Path(work_tree)
        self.requests: list[Request] = []
        self.closing = threading.Event()
        self._given = 0
        self._lock = threading.Lock()
        self._server = _Server(('127.0.0.1', 0), _Handler)
        self._server.model = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f'http://127.0.0.1:{self._server.server_address[1]}'

    @property
    def given(self) -> int:
        """How many answers were asked for."""
        with self._lock:
            return self._given

    def usage(self, since: int = 0) -> Usage:
        """The tokens that the answers from number `since` on say were used; faults use none."""
        with self._lock:
            given = [answer.usage for answer in self.answers[since:self._given] if answer.fault is None]
        return Usage(**{name: sum(getattr(usage, name) for usage in given)
                        for name in ('input', 'cached', 'output', 'reasoning')})

    def take(self, request: Request, is_main: bool) -> Answer | None:
        """The answer for a request, None when the scenario has no more."""
        with self._lock:
            self.requests.append(request)
            if not is_main:
                return Answer(text='ok', usage=Usage(0, 0, 0, 0))
            if self._given >= len(self.answers):
                return None
            request.answer = self._given
            self._given += 1
            return self.answers[request.answer]

    def __enter__(self) -> 'MockModel':
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 32
    model: MockModel

    def handle_error(self, request, client_address) -> None:
        pass        # an agent that went away in the middle of an answer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    server: _Server

    def log_message(self, *_) -> None:
        pass

    def do_HEAD(self) -> None:
        self._note()
        self._plain(200, {})

    def do_GET(self) -> None:
        self._note()
        self._plain(200 if self.path.partition('?')[0].endswith('/models') else 404,
                    {'object': 'list', 'data': [], 'models': []})

    def _note(self) -> None:
        with self.server.model._lock:
            self.server.model.requests.append(Request(self.command, self.path, dict(self.headers), {}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get('Content-Length') or 0)) or b'{}')
        protocol = mock_protocols.of_path(self.path.partition('?')[0])
        if protocol is None:
            self.server.model.requests.append(Request(self.command, self.path, dict(self.headers), body))
            self._plain(404, {'error': {'message': f'the mock has no {self.path}'}})
            return
        answer = self.server.model.take(Request(self.command, self.path, dict(self.headers), body),
                                        bool(body.get('tools')))
        if answer is None:
            self._plain(400, protocol.error(400, 'the scenario has no answer left'))
        elif isinstance(answer.fault, int):
            headers = {} if answer.retry_after is None else {'Retry-After': str(answer.retry_after)}
            self._plain(answer.fault, protocol.error(answer.fault, f'mock fault {answer.fault}'), headers)
        elif answer.fault == RESET:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
            self._hang_up()
        elif answer.fault == NO_HEADERS:
            self.server.model.closing.wait()
            self._hang_up()
        elif body.get('stream'):
            self._stream(protocol.events(answer, body, self.server.model.work_tree), answer.fault)
        elif answer.fault == STALL:
            self.server.model.closing.wait()
        else:
            self._plain(200, protocol.whole(answer, body, self.server.model.work_tree), cut=bool(answer.fault))

    def _stream(self, frames: Iterator[bytes], fault: str | None) -> None:
        """The frames as chunks. A fault comes after a third of them: mid-sentence."""
        self.send_response(200)
        self.send_header('Content-Type', 'text/event-stream')
        self.send_header('Transfer-Encoding', 'chunked')
        self.end_headers()
        frames = list(frames)
        for frame in frames[:len(frames) // 3 if fault else None]:
            self.wfile.write(f'{len(frame):x}\r\n'.encode() + frame + b'\r\n')
            self.wfile.flush()
        if fault == STALL:
            self.server.model.closing.wait()
        if fault in (STALL, CUT):
            self._hang_up()
        else:
            self.wfile.write(b'0\r\n\r\n')

    def _hang_up(self) -> None:
        self.close_connection = True
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass        # a reset leaves nothing to shut down

    def _plain(self, status: int, value: dict, headers: Mapping[str, str] = {}, cut: bool = False) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(content)))
        for name, text in headers.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(content[:len(content) // 3 if cut else None])
        if cut:
            self._hang_up()
