"""One turn of a coding agent: what happens in it, how it ends, and how a program's events say so."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

# How a turn ends. Of all but DONE, a later turn may go on with the same session.
DONE = 'done'                      # the program says so, and it said or did something
DID_NOTHING = 'did_nothing'        # it ended in good order without a word, a tool or a change
RATE_LIMITED = 'rate_limited'      # retry_after says when, where the server did
LOGIN = 'login'                    # no login, an expired one, a key that is refused, no credit: for a person
NO_NETWORK = 'no_network'          # no connection to the model
SERVER_ERROR = 'server_error'      # the model's server failed or is overloaded
STALLED = 'stalled'                # the program gave up a stream in which nothing came
CUT = 'cut'                        # an answer broke off in the middle
SILENT = 'silent'                  # the program said nothing for `silence_timeout`, or a tool ran for `tool_timeout`
OUT_OF_TIME = 'out_of_time'        # `turn_timeout`
OUT_OF_TOKENS = 'out_of_tokens'    # `tokens_per_turn`, or the program's own limit of steps or cost
RUNAWAY = 'runaway'                # too many processes, too much memory, too large files
CANCELLED = 'cancelled'
FAILED = 'failed'                  # anything else; `reason` has the program's last words
RETRYABLE = frozenset({RATE_LIMITED, NO_NETWORK, SERVER_ERROR, STALLED, CUT, SILENT, DID_NOTHING})


@dataclass(frozen=True)
class Tokens:
    """Tokens used. cached: those of `input` that came from a cache; reasoning: those of `output`, where known."""

    input: int = 0
    cached: int = 0
    output: int = 0
    reasoning: int = 0

    def __add__(self, other: 'Tokens') -> 'Tokens':
        return Tokens(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    def __sub__(self, other: 'Tokens') -> 'Tokens':
        return Tokens(*(max(0, getattr(self, name) - getattr(other, name)) for name in self.__dataclass_fields__))

    @property
    def total(self) -> int:
        return self.input + self.output


@dataclass(frozen=True)
class TurnEvent:
    """Something that happened in a turn, for people.

    kind: session (text: its id), thinking, says, tool (what it runs), tool_ended, tokens, retry, refused or error.
    tokens: of the turn so far.
    """

    kind: str
    text: str = ''
    tokens: Tokens = Tokens()


@dataclass(frozen=True)
class TurnResult:
    """How a turn ended. session: what continues the conversation; '' when there was none yet.

    changed: files of the work tree that are new, other or gone, whoever changed them. retry_after: s that the server
    asked to wait, None where it did not say. cost: USD as the program reckons it, None where it does not. refused: what
    the program was not allowed to do. duration: s of wall time.
    """

    outcome: str
    reason: str = ''
    text: str = ''
    session: str = ''
    tokens: Tokens = Tokens()
    cost: float | None = None
    retry_after: float | None = None
    changed: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    tools: int = 0
    duration: float = 0.0


@dataclass
class Fault:
    """Why the program could not finish a turn, as it says."""

    outcome: str
    reason: str
    retry_after: float | None = None


def fault_of_status(status: int, reason: str, retry_after: float | None = None) -> Fault:
    """The fault behind an HTTP status that the model's server gave."""
    if status in (401, 402, 403):
        return Fault(LOGIN, reason)
    if status == 429:
        return Fault(RATE_LIMITED, reason, retry_after)
    return Fault(SERVER_ERROR if status >= 500 or status in (408, 409) else FAILED, reason)


class TurnReader(ABC):
    """Makes sense of what a program says in one turn; a program's module derives its own.

    completed: the program said that the turn ended in good order. running: ids of tools at work.
    """

    def __init__(self, session: str = ''):
        self.session = session
        self.text = ''
        self.tokens = Tokens()
        self.cost: float | None = None
        self.completed = False
        self.fault: Fault | None = None
        self.retry_after: float | None = None
        self.refused: list[str] = []
        self.tools = 0
        self.running: set[str] = set()
        self.events: list[TurnEvent] = []

    @abstractmethod
    def read(self, event: dict) -> None:
        """Take one line of the program's output."""

    def look(self) -> None:
        """Look into what the program writes beside its output."""

    def last_words(self, said: str) -> Fault | None:
        """The fault in what the program wrote for people, where its events have none."""
        return None

    def tell(self, kind: str, text: str = '') -> None:
        self.events.append(TurnEvent(kind, text, self.tokens))

    def begin_tool(self, identity: str, text: str) -> None:
        if identity not in self.running:
            self.tools += 1
            self.running.add(identity)
            self.tell('tool', text)

    def end_tool(self, identity: str, text: str = '') -> None:
        if identity in self.running:
            self.running.discard(identity)
            self.tell('tool_ended', text)

    def begin_session(self, session: str) -> None:
        if session and session != self.session:
            self.session = session
            self.tell('session', session)

    def count(self, tokens: Tokens) -> None:
        """tokens: of the turn so far."""
        if tokens != self.tokens:
            self.tokens = tokens
            self.tell('tokens')

    def say(self, text: str) -> None:
        if text.strip():
            self.text = text.strip()
            self.tell('says', self.text)


@dataclass
class JsonLines:
    """A file of JSON lines that a program appends to; `new()` gives the objects that came since the last call."""

    file: Path
    offset: int = 0

    def new(self) -> list[dict]:
        try:
            with self.file.open('rb') as stream:
                stream.seek(self.offset)
                content = stream.read()
        except OSError:
            return []
        complete = content.rfind(b'\n') + 1
        self.offset += complete
        values = []
        for line in content[:complete].splitlines():
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                values.append(value)
        return values


def read_line(reader: TurnReader, line: bytes) -> None:
    """Give a line of output to a reader; one that is no JSON object is no event, for programs print warnings, too."""
    try:
        event = json.loads(line)
    except ValueError:
        return
    if isinstance(event, dict):
        reader.read(event)
