"""Joint states for who needs one now and then: kept where they arrive, looked at when somebody asks."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from enpire_bringup.serialized_messages import stamp_of

HISTORY = 64        # joint states kept: 0.6 s at 100 Hz, more than a frame takes until it is looked at


class JointStateHistory:
    """The newest joint states, whatever form they have. No ROS."""

    def __init__(self):
        self._states: deque[tuple[int, Any]] = deque(maxlen=HISTORY)

    def add(self, stamp: int, state: Any) -> None:
        """stamp: ns. One that is older than the last says that time began anew."""
        if self._states and stamp < self._states[-1][0]:
            self._states.clear()
        self._states.append((stamp, state))

    @property
    def newest(self) -> int | None:
        """Stamp (ns) of the newest joint state."""
        return self._states[-1][0] if self._states else None

    @property
    def latest(self) -> Any:
        """The newest joint state; None before the first."""
        return self._states[-1][1] if self._states else None

    def at(self, stamp: int) -> tuple[int, Any] | None:
        """(its stamp in ns, the newest joint state not after `stamp`), so that load does not decide which it is."""
        return next((entry for entry in reversed(self._states) if entry[0] <= stamp), None)


class JointStateMailbox(JointStateHistory):
    """The history of a node's topic `joint_states`: serialized messages.

    A hundred times a second they would wake the node; here they wait in the middleware until somebody asks, from
    whatever thread.
    """

    def __init__(self, node):
        from rclpy.qos import HistoryPolicy, QoSProfile
        from sensor_msgs.msg import JointState

        from enpire_bringup.polled_topic import PolledTopic

        super().__init__()
        self._lock = threading.Lock()
        self._topic = PolledTopic(node, JointState, 'joint_states',
                                  QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=HISTORY))

    @property
    def newest(self) -> int | None:
        with self._lock:
            self._empty()
            return super().newest

    @property
    def latest(self) -> bytes | None:
        with self._lock:
            self._empty()
            return super().latest

    def at(self, stamp: int) -> tuple[int, bytes] | None:
        with self._lock:
            self._empty()
            return super().at(stamp)

    def _empty(self) -> None:
        for data in self._topic.take():
            self.add(stamp_of(data), data)
