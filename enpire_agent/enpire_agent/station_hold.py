"""Why a station is held, remembered when the process that knows it is killed: a person may stand at the table."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path

from enpire_agent.durable_file import write_json_durably

_log = logging.getLogger(__name__)


class StationHold:
    """Nothing new begins while `reason` is not empty. Safe for several threads.

    file: where the reason is kept while there is one; one that cannot be read holds as well. None keeps it in memory.
    """

    def __init__(self, file: Path | None = None):
        self._file = file
        self._news = threading.Condition()
        self._reason = self._read()

    @property
    def reason(self) -> str:
        return self._reason

    def set(self, reason: str) -> None:
        with self._news:
            self._reason = reason
            if self._file is not None:
                try:
                    write_json_durably(self._file, {'reason': reason})
                except OSError as error:      # it holds all the same, for as long as this process lives
                    _log.error('%s: cannot be written (%s); a restart would forget the hold', self._file, error)

    def clear(self) -> None:
        """Nothing is in the way any more; who waits is woken."""
        with self._news:
            self._reason = ''
            if self._file is not None:
                self._file.unlink(missing_ok=True)
            self._news.notify_all()

    def wake(self) -> None:
        """Let who waits look again."""
        with self._news:
            self._news.notify_all()

    def wait(self, seconds: float) -> None:
        """Until it is cleared or somebody wakes, at most so long."""
        with self._news:
            if self._reason:
                self._news.wait(seconds)

    def _read(self) -> str:
        if self._file is None:
            return ''
        try:
            return str(json.loads(self._file.read_text(encoding='utf-8'))['reason'])
        except FileNotFoundError:
            return ''
        except (OSError, ValueError, KeyError, TypeError) as error:
            return f'{self._file} cannot be read ({error}); somebody had held the station'
