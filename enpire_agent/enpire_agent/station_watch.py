"""Whether a station can run a trial: asked after something went wrong, so that it costs one trial and not many."""

from __future__ import annotations

import time
from typing import Callable

from rcl_interfaces.srv import ListParameters

from enpire_bringup.actions import RemoteCallError, call_service
from enpire_bringup.polled_topic import PolledTopic
from enpire_bringup.serialized_messages import stamp_of
from enpire_bringup.station_node import LATEST_QOS, StationNode
from enpire_msgs.msg import Verdict

ANSWERS_WITHIN = 2.0     # s of wall time that what moves the world gets to answer
LOOK_PERIOD = 0.1        # s of wall time
FRESH_VERDICTS = 2       # with capture stamps of their own: world, cameras and perception are at work


class StationWatch:
    """Looks at the parts of a station that a trial needs. For a worker thread of the node."""

    def __init__(self, node: StationNode):
        self._node = node
        # A world that waits for actions gives a verdict after each, and none before.
        self._steady = node.station.backend != 'gym'
        self._mover, self._resets = ('arm_control', 'auto_reset') if self._steady else ('gym_station', 'gym_station')
        if self._steady:
            self._verdicts = PolledTopic(node, Verdict, 'verdict', LATEST_QOS)
        self._client = node.create_client(ListParameters, f'{self._mover}/list_parameters')

    def await_ready(self, bound: float, cancelled: Callable[[], bool]) -> str:
        """Wait at most `bound` s of wall time; returns what is missing, or '' when all is there or it was cancelled."""
        deadline = time.monotonic() + bound
        while missing := self._missing(deadline, cancelled):
            if cancelled():
                return ''
            if time.monotonic() > deadline:
                return missing
            time.sleep(LOOK_PERIOD)
        return ''

    def _missing(self, deadline: float, cancelled: Callable[[], bool]) -> str:
        """What is missing at the moment; looks again for fresh verdicts until `deadline`."""
        if not self._node.count_publishers('reset/_action/status'):
            return f'nobody serves the action reset ({self._resets})'
        try:
            call_service(self._node, self._client, ListParameters.Request(), timeout=ANSWERS_WITHIN)
        except RemoteCallError as error:
            return f'{self._mover} does not answer ({error})'
        return self._missing_verdicts(deadline, cancelled) if self._steady else ''

    def _missing_verdicts(self, deadline: float, cancelled: Callable[[], bool]) -> str:
        self._verdicts.newest()
        stamps: set[int] = set()
        while len(stamps) < FRESH_VERDICTS:
            if time.monotonic() > deadline or cancelled():
                return 'no verdict of new camera images arrives (world, cameras or perception)'
            data = self._verdicts.newest()
            if data is not None:
                stamps.add(stamp_of(data))
            time.sleep(LOOK_PERIOD)
        return ''
