"""A running campaign on a terminal: one updating line, or a line at each change where there is no terminal."""

from __future__ import annotations

import math
import shutil
import sys
import threading
import time
from typing import Callable, TextIO

from enpire_bringup.actions import RemoteCallCancelled, RemoteCallError
from enpire_bringup.station_node import HISTORY_QOS
from enpire_msgs.action import RunCampaign
from enpire_msgs.msg import AgentEvent, StationStatus

SILENCE = 12.0             # s of wall time without a status: the supervisor is gone and will come back
RESTARTS = 5
FORGOTTEN = 5.0            # s from the last status as feedback to one that came without: the supervisor was started anew
ACCEPTED_WITHIN = 60.0     # s of wall time that a supervisor gets to come back
QUIET_KINDS = ('edit',)


class CampaignLost(RuntimeError):
    """The supervisor went away for good."""


class Progress:
    """Shows statuses and events."""

    def __init__(self, stream: TextIO | None = None):
        self._stream = stream or sys.stdout
        self._terminal = self._stream.isatty()
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._shown = ''

    def status(self, status: StationStatus) -> None:
        line = status_line(status)
        with self._lock:
            if self._terminal:
                width = shutil.get_terminal_size().columns - 1
                self._stream.write('\r\x1b[K' + f'{self._time()} {line}'[:width])
            elif (change := line.split(' | left')[0]) != self._shown:
                self._shown = change
                self._stream.write(f'{self._time()} {line}\n')
            self._stream.flush()

    def say(self, text: str) -> None:
        """A line that stays."""
        with self._lock:
            self._stream.write(('\r\x1b[K' if self._terminal else '') + f'{self._time()} {text}\n')
            self._stream.flush()

    def end(self) -> None:
        with self._lock:
            if self._terminal:
                self._stream.write('\r\x1b[K')
                self._stream.flush()

    def _time(self) -> str:
        seconds = int(time.monotonic() - self._began)
        return f'[{seconds // 60:02d}:{seconds % 60:02d}]'


def status_line(status: StationStatus) -> str:
    """Station, phase, hypothesis, counts, time left."""
    parts = [f'{status.station} {status.phase or "starting"}']
    if status.phase == 'search' and status.iteration:
        parts.append(f'#{status.iteration} "{status.hypothesis}"')
    parts.append(f'HELD: {status.message}' if status.state == StationStatus.HELD else status.message)
    if status.best_trials and status.phase != 'baseline':
        parts.append(f'best {status.best_successes}/{status.best_trials}')
    parts.append(f'{status.trials} trials')
    parts.append(f'left {duration(status.remaining)}')
    parts.append(status.state.lower())
    return ' | '.join(parts)


def duration(seconds: float) -> str:
    if math.isnan(seconds):
        return '?'
    return f'{int(seconds // 60)}:{int(seconds % 60):02d}'


def run_shown(client, goal: RunCampaign.Goal, progress: Progress) -> RunCampaign.Result:
    """Run a campaign through a StationClient and show it; Ctrl-C cancels it and raises KeyboardInterrupt.

    A supervisor that died is waited for, and the campaign resumed. Raises CampaignLost, RemoteCallError.
    """
    since = time.time()

    def on_event(event: AgentEvent) -> None:
        if event.campaign == goal.campaign and event.kind not in QUIET_KINDS and _stamp(event) >= since:
            commit = f' [{event.commit[:10]}]' if event.commit else ''
            progress.say(f'{event.station} {event.kind}: {event.text}{commit}')

    subscription = client.node.create_subscription(AgentEvent, 'agent_events', on_event, HISTORY_QOS)
    try:
        for attempt in range(RESTARTS + 1):
            if attempt:
                progress.say(f'{client.namespace}: the supervisor was lost; resuming the campaign')
            result = _run_once(client, goal, progress.status, ACCEPTED_WITHIN if attempt else SILENCE)
            if result is not None:
                return result
        raise CampaignLost(f'{client.namespace}: the supervisor was lost {RESTARTS + 1} times; see its log, then run '
                           f'the same command again to resume')
    finally:
        progress.end()
        client.node.destroy_subscription(subscription)


def _run_once(client, goal, show: Callable[[StationStatus], None], patience: float) -> RunCampaign.Result | None:
    """The campaign's result, or None when the supervisor fell silent."""
    heard = [time.monotonic() + patience - SILENCE]
    told: list[StationStatus] = []      # the newest one of those that came as feedback
    stop, lost, fed = threading.Event(), threading.Event(), threading.Event()
    outcome: list = []

    def feedback(message: RunCampaign.Feedback) -> None:
        heard[0] = time.monotonic()
        told[:] = [message.status]
        fed.set()
        show(message.status)

    def cancelled() -> bool:
        status = client.status(timeout=0.0)
        # The feedback of a goal is what the supervisor says of the station at that moment, so one that speaks of the
        # station and not of our goal does not know it.
        forgotten = told and status is not None and _stamp(status) - _stamp(told[0]) > FORGOTTEN
        if forgotten or time.monotonic() - heard[0] > SILENCE:
            lost.set()
        return stop.is_set() or lost.is_set()

    def work() -> None:
        try:
            outcome.append(client.run_campaign(goal, timeout=7 * 86400.0, feedback=feedback, cancelled=cancelled))
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.1)
    except KeyboardInterrupt:
        stop.set()
        thread.join(0.5)     # the request to cancel is on its way; what it ends takes longer and needs nobody here
        raise
    (ended,) = outcome
    if lost.is_set() and isinstance(ended, RemoteCallCancelled):
        return None
    if isinstance(ended, RemoteCallError) and fed.is_set() and not stop.is_set():
        return None      # it ran, and now nobody knows of it: the supervisor was started anew
    if isinstance(ended, Exception):
        raise ended
    return ended


def _stamp(message: AgentEvent | StationStatus) -> float:
    return message.header.stamp.sec + message.header.stamp.nanosec * 1e-9
