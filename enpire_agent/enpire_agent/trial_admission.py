"""Which trials a station runs: those of its campaign, and in between whoever asks for one of kind "manual".

Anybody in the ROS graph can ask for a trial, a coding agent among them, and a ledger line of kind "gate" may decide. So
the supervisor writes the id of each goal that it sends to a file first, which a confined agent can neither read nor
write; every other goal is refused while a campaign runs or the station is held.
"""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import psutil

from enpire_agent.durable_file import write_json_durably
from enpire_agent.station_hold import StationHold

TICKET, HOLD = 'trial_ticket.json', 'hold.json'      # in runs/.stations/<station>
MANUAL = 'manual'


class TrialRefused(RuntimeError):
    """The station does not run this trial; the message says why and the way out."""


class TrialTickets:
    """The supervisor's side: what belongs to the campaign that runs."""

    def __init__(self, directory: Path):
        """directory: runs/.stations/<station>."""
        self._file = directory / TICKET
        self._campaign = ''

    def begin(self, campaign: str) -> None:
        """From now on to `end` the station's trials are those of this campaign."""
        self._campaign = campaign
        self.issue()

    def issue(self) -> bytes:
        """The id (16 bytes) of the next goal that `run_trial` takes, once."""
        goal, process = uuid.uuid4(), psutil.Process()
        write_json_durably(self._file, {'campaign': self._campaign, 'goal': goal.hex, 'process': {
            'pid': process.pid, 'create_time': process.create_time()}})
        return goal.bytes

    def end(self) -> None:
        self._file.unlink(missing_ok=True)


class TrialAdmission:
    """The trial runner's side."""

    def __init__(self, directory: Path):
        """directory: runs/.stations/<station>."""
        self._directory = directory
        self._used = ''

    def check(self, goal: bytes, kind: str) -> None:
        """Raises TrialRefused for a trial that is not to be run now."""
        ticket = self._ticket()
        if ticket and goal.hex() == ticket['goal'] != self._used:
            self._used = ticket['goal']
            return
        if (kind or MANUAL) != MANUAL:
            raise TrialRefused(f"a trial of kind '{kind}' is one that a campaign asks for (./enpire campaign); whoever "
                               f"else wants a trial gets one of kind '{MANUAL}'")
        if ticket:
            raise TrialRefused(f"the campaign {ticket['campaign']} runs here and has the station for itself: it tries "
                               'what its researcher edits. Wait for its end, or cancel it')
        held = StationHold(self._directory / HOLD).reason
        if held:
            raise TrialRefused(f'the station is held: {held}; ./enpire resume lets it go on')

    def _ticket(self) -> dict | None:
        """What the supervisor of a running campaign wrote; None while there is none."""
        try:
            ticket = json.loads((self._directory / TICKET).read_text(encoding='utf-8'))
            process = ticket['process']
            alive = psutil.Process(process['pid']).create_time() == process['create_time']
        except (FileNotFoundError, psutil.NoSuchProcess):
            return None
        return ticket if alive else None
