"""A topic that is looked at now and then: nothing of it reaches Python in between."""

from __future__ import annotations

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile


class PolledTopic:
    """Messages wait in the middleware, as many as `qos` keeps, until somebody takes them. For worker threads, too."""

    def __init__(self, node: Node, message_type, name: str, qos: QoSProfile):
        self._type = message_type
        self._subscription = node.create_subscription(
            message_type, name, lambda data: None, qos, raw=True, callback_group=_OutOfTheExecutor())

    def take(self) -> list[bytes]:
        """The messages (CDR) that came since the last look, the oldest first."""
        messages = []
        with self._subscription.handle:
            while (taken := self._subscription.handle.take_message(self._type, True)) is not None:
                messages.append(taken[0])
        return messages

    def newest(self) -> bytes | None:
        """The newest message (CDR) that came since the last look; the others are dropped. None: there was none."""
        return next(reversed(self.take()), None)


class _OutOfTheExecutor(CallbackGroup):
    """Keeps a subscription out of the executor's waits."""

    def can_execute(self, entity) -> bool:
        return False

    def beginning_execution(self, entity) -> bool:
        return False

    def ending_execution(self, entity) -> None:
        pass
