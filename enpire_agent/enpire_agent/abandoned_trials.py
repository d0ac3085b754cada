"""Trials that were started and never entered in their ledger: found, and entered. No ROS.

A trial's folder has `started.json` before anything moves. Whatever ends the runner then (SIGKILL, a power cut, a full
disk), the trial is still entered: as its `trial.json` says where that was written, else as ABORTED.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import psutil

from enpire_agent.ledger import Ledger, LedgerError
from enpire_agent.trial import ABORTED, TrialReport, TrialRequest
from enpire_agent.trial_record import RESULT, STARTED, read_result
from enpire_bringup.configuration import ConfigurationError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class UnenteredTrial:
    """A trial without a ledger line. running: the process that started it lives; completed: it has a trial.json."""

    directory: Path
    running: bool
    completed: bool


def unentered_trials(station_directory: Path) -> list[UnenteredTrial]:
    """Started trials in runs/<campaign>/<station> that its ledger does not know. Raises LedgerError."""
    known = {line.get('trial_id') for line in Ledger(station_directory / 'ledger.jsonl').entries()}
    found = []
    for file in sorted((station_directory / 'trials').glob(f'*/{STARTED}')):
        folder = file.parent
        if folder.name not in known:
            try:
                running = _is_alive(json.loads(file.read_text(encoding='utf-8'))['process'])
            except (OSError, ValueError, KeyError):
                running = False
            found.append(UnenteredTrial(folder, running, (folder / RESULT).is_file()))
    return found


def close_abandoned_trials(runs: Path, station: str, *, mine_ended: bool = False) -> list[dict]:
    """Enter every trial of this station that was started and never finished; returns the new ledger lines.

    A trial whose process still runs is left alone; mine_ended: those of this very process have ended. A ledger that
    cannot be continued is left as it is, with an error in the log: it is no reason to run no other campaign.
    """
    lines = []
    for folder in sorted(runs.glob(f'*/{station}/trials')):
        ledger = Ledger(folder.parent / 'ledger.jsonl')
        try:
            for trial in unentered_trials(folder.parent):
                line = _abandoned_line(trial.directory / STARTED, mine_ended)
                if line is not None:
                    lines.append(ledger.append(line))
        except (LedgerError, OSError) as error:
            _log.error('trials in %s cannot be entered in their ledger: %s', folder, error)
    return lines


def _abandoned_line(file: Path, mine_ended: bool) -> dict | None:
    try:
        started = json.loads(file.read_text(encoding='utf-8'))
        process = started.pop('process')
        began = datetime.fromisoformat(started['started'])
    except (OSError, ValueError, KeyError) as error:
        _log.error('%s: cannot be read (%s), so this trial cannot be entered in the ledger', file, error)
        return None
    if started['trial_id'] != file.parent.name:
        _log.error('%s: is of trial %s, not of this one: it was copied here, and is not entered', file,
                   started['trial_id'])
        return None
    if _is_alive(process) and not (mine_ended and process['pid'] == os.getpid()):
        return None
    if (file.parent / RESULT).is_file():
        try:
            return _line_of_result(file.parent)
        except ConfigurationError as error:
            _log.error('%s; the trial is entered as %s', error, ABORTED)
    last = max(entry.stat().st_mtime for entry in [file, *file.parent.iterdir()])
    ended = datetime.fromtimestamp(last, timezone.utc)
    wall = max(0.0, (ended - began).total_seconds())
    return {**started, 'isolation': '', 'outcome': ABORTED, 'reason': 'the trial runner ended during the trial', 'reset_success': False,
            'reset_attempts': 0, 'duration': 0.0, 'wall_duration': round(wall, 3), 'steps': 0, 'late_steps': 0,
            'verdict': None, 'position_error': None, 'ended': ended.isoformat(timespec='milliseconds')}


def _line_of_result(folder: Path) -> dict:
    content = read_result(folder)
    if content.get('trial_id') != folder.name:
        raise ConfigurationError(f'{folder / RESULT}: is of trial {content.get("trial_id")}, not of this one')
    line = {key: content.get(key) for key in TrialReport(_NO_REQUEST).ledger_line()}
    if line['verdict']:
        line['verdict'].pop('checks', None)
    return line


_NO_REQUEST = TrialRequest('', '', '', '', '', 0, Path(), '', '', Path())


def _is_alive(process: dict) -> bool:
    try:
        return abs(psutil.Process(process['pid']).create_time() - process['create_time']) < 0.01
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False
