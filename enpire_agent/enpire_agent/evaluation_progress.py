"""How far an evaluation is: counts, rate and time left, as one updating line on a terminal."""

from __future__ import annotations

import math
import shutil
import time
from dataclasses import dataclass
from typing import TextIO

_INTERVAL = 10.0      # s between lines where there is no terminal
_BAR = 24             # characters


@dataclass(frozen=True)
class EvaluationProgress:
    """done of `trials` trials, `succeeded` of them, in `seconds` of wall time."""

    done: int
    trials: int
    succeeded: int
    seconds: float

    @property
    def rate(self) -> float:
        """Trials a second, from the start on."""
        return self.done / self.seconds if self.seconds > 0 else math.inf

    def __str__(self) -> str:
        left = (self.trials - self.done) / self.rate if self.rate > 0 else math.inf
        return (f'{self.done} of {self.trials} trials, {self.succeeded} succeeded, {self.rate:.2f} trials/s, '
                f'left {_minutes(left)}')

    @property
    def bar(self) -> str:
        """E.g. [######------] 50 %."""
        share = self.done / self.trials
        return f'[{"#" * int(share * _BAR):-<{_BAR}}] {100 * share:3.0f} %'


class ProgressBar:
    """Shows progress on a terminal as one line that changes; elsewhere as a line every 10 s, and one at the end."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._terminal = stream.isatty()
        self._shown = -math.inf

    def show(self, progress: EvaluationProgress) -> None:
        over, now = progress.done == progress.trials, time.monotonic()
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            self._stream.write('\r\x1b[K' + f'{progress.bar} {progress}'[:width] + ('\n' if over else ''))
        elif over or now - self._shown >= _INTERVAL:
            self._shown = now
            self._stream.write(f'{progress}\n')
        self._stream.flush()


def _minutes(seconds: float) -> str:
    return f'{int(seconds) // 60}:{int(seconds) % 60:02d}' if math.isfinite(seconds) else '?'
