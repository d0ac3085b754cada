"""Whose message it is: a topic that decides something is listened to as one node publishes it, and as nobody else does.

The middleware gives every message the identity of its publisher, and the ROS graph says which node that is.
"""

from __future__ import annotations

import time

from rclpy.node import Node

_UNKNOWN = '_NODE_NAME_UNKNOWN_'     # what rcl calls a node of which it has heard only the publisher
LOOK_PERIOD = 0.05     # s of wall time between two looks at the graph for the same unknown publisher
SUCCESSION = 1.0       # s of wall time for which the last one must have been silent: the graph knows the dead for long


class PublisherIdentity:
    """Lets through what one node publishes on `topic`: the node `publisher` of this namespace, or for '' whoever was
    first.

    A node of the same name that was started anew takes the place of the one that fell silent. `intruder`: in words,
    who else has published there since `forget_intruder`; messages of a publisher that the graph does not know yet are
    dropped without a word.
    """

    def __init__(self, node: Node, topic: str, publisher: str = ''):
        self._node = node
        self._topic = node.resolve_topic_name(topic)
        self._name = f'{node.get_namespace().rstrip("/")}/{publisher}' if publisher else ''
        self._known, self._heard = b'', 0.0
        self._stranger, self._looked = b'', 0.0
        self.intruder = ''

    def accepts(self, info: dict) -> bool:
        """Whether a message with this MessageInfo is from the right one."""
        identity, now = info['publisher_gid']['data'], time.monotonic()
        if identity != self._known and not self._look(identity, now):
            return False
        self._heard = now
        return True

    @property
    def is_there(self) -> bool:
        """Whether the graph knows a publisher of the right name, so that its next message will not be dropped."""
        return self._name in self._names().values()

    def forget_intruder(self) -> None:
        self.intruder = ''

    def _look(self, identity: bytes, now: float) -> bool:
        if identity == self._stranger and now - self._looked < LOOK_PERIOD:
            return False
        self._stranger, self._looked = identity, now
        there = self._names()
        name = there.get(identity, _UNKNOWN)
        if _UNKNOWN in name:
            return False
        if name == (self._name or name) and (self._known not in there or now - self._heard > SUCCESSION):
            self._known, self._name = identity, name
            return True
        self.intruder = f'{name} publishes {self._topic} as well, where only {self._name} has a say'
        return False

    def _names(self) -> dict[bytes, str]:
        """Identity -> full name of the node, of every publisher that the graph knows."""
        return {bytes(entry.endpoint_gid): f'{entry.node_namespace.rstrip("/")}/{entry.node_name}'
                for entry in self._node.get_publishers_info_by_topic(self._topic)}
