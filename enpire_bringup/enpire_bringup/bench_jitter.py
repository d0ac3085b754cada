"""The machine's own scheduling jitter, measured beside a bench: how late a sleeping process is woken.

No latency can be better than this: on a machine that wakes a sleeper 30 ms late, no verdict is there after 20.
"""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np

SLEEP = 0.001       # s
_SLEEPER = '''
import json, select, sys, time
sleep, late = float(sys.argv[1]), []
while not select.select([sys.stdin], [], [], 0)[0]:
    start = time.perf_counter()
    time.sleep(sleep)
    late.append(round(1e3 * (time.perf_counter() - start - sleep), 4))
print(json.dumps(late))
'''


class JitterProbe:
    """A process that sleeps 1 ms again and again, from `with` to `stop` or the end of the block."""

    def __enter__(self) -> 'JitterProbe':
        self._process = subprocess.Popen([sys.executable, '-I', '-S', '-c', _SLEEPER, str(SLEEP)],
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self

    def stop(self) -> dict[str, float]:
        """p50, p95, p99 and max of the lateness of its wake-ups, ms."""
        output, _ = self._process.communicate(b'\n', timeout=10)
        return summary(np.array(json.loads(output)))

    def __exit__(self, *_) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            pipe.close()


def summary(values: np.ndarray) -> dict[str, float]:
    """p50, p95, p99 and max; a percentile is a value that was measured, not one between two."""
    result = {f'p{p}': float(np.percentile(values, p, method='higher')) for p in (50, 95, 99)}
    return {name: round(value, 3) for name, value in {**result, 'max': float(np.max(values))}.items()}
