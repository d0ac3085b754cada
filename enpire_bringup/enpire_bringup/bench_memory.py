"""How much memory each process of a station holds, and how fast that grows while a policy streams to it.

Growth is the slope of a line through the samples of a process after a warm-up, in which allocators and caches fill:
what still grows after that is still growing after a night. It is that of private memory. Shared memory, through which
DDS sends, has segments of fixed sizes, whose pages count as resident one by one, for minutes, as they are first used.
"""

from __future__ import annotations

import time
from typing import Callable, Mapping, Sequence

import numpy as np
import psutil

SAMPLE_PERIOD = 0.5         # s of wall time
WARM_UP = 0.4               # share of the run whose samples do not count
MEGABYTE = 1e6


def run(seconds: float = 120.0, *, station: str = 'yam_bimanual_sim', task: str = 'push_t',
        report: Callable[[str], None] = lambda line: None) -> dict:
    """Figures of `seconds` of wall time, JSON-able. A station that is up in lockstep is measured, else one of the
    bench's own. Raises BenchError when the stream does not get through."""
    from enpire_bringup.bench_station import bench_station

    with bench_station('memory', station, task, real_time_factor=0.0, report=report) as bench:
        report(f'streaming for {seconds:.0f} s ...')
        return measure(seconds, bench, station, task)


def measure(seconds: float, bench, station: str, task: str) -> dict:
    """The same on the station `bench` (a BenchStation), with all cameras that it needs for the task."""
    from enpire_bringup.bench_lockstep import ServoStream
    from enpire_bringup.bench_station import station_node
    from enpire_bringup.station import load_station
    from enpire_bringup.task import load_task

    times: list[float] = []
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in bench.pids}
    with station_node('memory_bench', bench.namespace, bench.domain_id) as node:
        stream = ServoStream(node, load_station(station), load_task(task), cameras=True)
        stream.wait_for(1)
        began = time.monotonic()
        while (now := time.monotonic() - began) < seconds:
            for name, sizes in usage(bench.pids).items():
                samples[name].append(sizes)
            times.append(now)
            time.sleep(SAMPLE_PERIOD)
            stream.wait_for(stream.steps + 1)
        stream.come_to_rest()
    return {'seconds': round(seconds, 1), 'policy_steps': stream.steps, **figures(times, samples)}


def usage(pids: Mapping[str, int]) -> dict[str, tuple[float, float]]:
    """(resident, private) memory in MB by process name, children (reward program, policy) included; NaN for one that is
    gone."""
    sizes = {}
    for name, pid in pids.items():
        try:
            process = psutil.Process(pid)
            taken = [each.memory_info() for each in (process, *process.children(recursive=True))]
            sizes[name] = (sum(info.rss for info in taken) / MEGABYTE,
                           sum(info.rss - info.shared for info in taken) / MEGABYTE)
        except psutil.NoSuchProcess:
            sizes[name] = float('nan'), float('nan')
    return sizes


def figures(times: Sequence[float], samples: Mapping[str, Sequence[tuple[float, float]]]) -> dict:
    """`processes`: name -> resident_mb at the end, peak_mb and growth_mb_per_hour; `total_mb` and the sum of growths.

    times: s of wall time; samples: (resident, private) MB by process, as many of each.
    """
    seconds = np.asarray(times)
    later = seconds >= WARM_UP * seconds[-1]
    processes = {}
    for name, sizes in samples.items():
        sizes, private = np.asarray(sizes).T
        slope = np.polyfit(seconds[later], private[later], 1)[0] if later.sum() >= 2 else 0.0
        processes[name] = {'resident_mb': round(float(sizes[-1]), 1), 'peak_mb': round(float(sizes.max()), 1),
                           'growth_mb_per_hour': round(3600.0 * float(slope), 2)}
    return {'processes': processes,
            'total_mb': round(sum(entry['resident_mb'] for entry in processes.values()), 1),
            'growth_mb_per_hour': round(sum(entry['growth_mb_per_hour'] for entry in processes.values()), 2)}
