"""Where the world and the controller meet when they run in one process: a state then needs no message to be answered.

On the topics `joint_states` and `joint_commands` they meet as well, whoever the controller is and wherever it runs.
"""

from __future__ import annotations

import threading
from typing import Callable, Sequence

_lock = threading.Lock()
_links: dict[str, 'ControllerLink'] = {}


class ControllerLink:
    """The world's end of the link to the controller in its process; found by the name of its command topic.

    command(stamp ns, positions, velocities, efforts): takes what answers a state, in the order of Station.joints, from
    any thread; the same numbers as in a message on `joint_commands`. on_connect(): called when a controller takes over.
    """

    def __init__(self, topic: str, command: Callable[[int, Sequence[float], Sequence[float], Sequence[float]], None],
                 on_connect: Callable[[], None] = lambda: None):
        self.command = command
        self._topic = topic
        self._on_connect = on_connect
        self._observe: Callable | None = None
        self._streamed: Callable[[], bool] = lambda: False
        with _lock:
            _links[topic] = self

    @property
    def connected(self) -> bool:
        return self._observe is not None

    def connect(self, observe: Callable[[int, Sequence[float], Sequence[float], Sequence[float]], None],
                streamed: Callable[[], bool]) -> None:
        """A controller takes over: `observe` is handed every state and answers by `command`, at once or later;
        `streamed` says whether it waits for a policy at its steps."""
        self._on_connect()
        self._streamed = streamed
        self._observe = observe

    def observe(self, stamp: int, positions, velocities, efforts) -> None:
        """Hand a state to the controller that is connected."""
        self._observe(stamp, positions, velocities, efforts)

    def streamed(self) -> bool:
        return self._streamed()

    def close(self) -> None:
        with _lock:
            if _links.get(self._topic) is self:
                del _links[self._topic]
        self._observe = None


def find_link(topic: str) -> ControllerLink | None:
    """The link of the world in this process that listens to the command topic `topic` (fully resolved)."""
    with _lock:
        return _links.get(topic)
