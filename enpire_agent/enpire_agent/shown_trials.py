"""The best and the worst trial of a campaign, to look at: a short video and a strip of pictures."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Sequence

from enpire_agent.score import SUCCESS
from enpire_agent.station_run import StationRun
from enpire_agent.trial_record import RecordError
from enpire_agent.trial_video import video_of

MAX_VIDEO_BYTES = 4_000_000    # of a video on the page: about a minute
_STRIP_PICTURES, _STRIP_WIDTH, _STRIP_GAP = 5, 200, 4   # widths in pixels
_TRIES = 8                     # trials whose records are missing are passed over
_UNTOLD = ('RESET_FAILED', 'ABORTED', 'INVALID')   # say nothing about a recipe


@dataclass(frozen=True)
class ShownTrial:
    """A trial with its ledger line. video: content of `file`, empty when too large; strip: PNG."""

    title: str
    why: str
    run: StationRun
    line: dict
    file: Path
    video: bytes
    strip: bytes


def best_and_worst(runs: Sequence[StationRun]) -> list[ShownTrial]:
    """The best and the worst trial that were filmed; fewer when fewer were."""
    trials = [(run, line) for run in runs for line in run.lines.values() if line['outcome'] not in _UNTOLD]
    shown = []
    for title, ranked in (('Best trial', _from_best(trials)), ('Worst trial', _from_worst(trials))):
        taken = [entry.line['trial_id'] for entry in shown]
        ranked = [entry for entry in ranked if entry[1]['trial_id'] not in taken]
        found = next(filter(None, (_shown(title, *entry) for entry in ranked[:_TRIES])), None)
        if found is not None:
            shown.append(found)
    return shown


def _from_best(trials: Sequence[tuple]) -> list[tuple]:
    """(run, line, why), the quickest success first; without one, what came nearest."""
    successes = [entry for entry in trials if entry[1]['outcome'] == SUCCESS]
    if successes:
        return [(run, line, 'the quickest success of all trials')
                for run, line in sorted(successes, key=lambda entry: entry[1]['duration'])]
    measured = [entry for entry in trials if entry[1].get('position_error') is not None]
    return [(run, line, 'no trial succeeded; this one ended nearest to the goal')
            for run, line in sorted(measured, key=lambda entry: entry[1]['position_error'])]


def _from_worst(trials: Sequence[tuple]) -> list[tuple]:
    """(run, line, why), the failure farthest from the goal first; without failures the slowest success."""
    failures = [entry for entry in trials if entry[1]['outcome'] != SUCCESS]
    if failures:
        measured = [entry for entry in failures if entry[1].get('position_error') is not None]
        ranked = sorted(measured, key=lambda entry: -entry[1]['position_error'])
        return ([(run, line, 'of all failures the one that ended farthest from the goal') for run, line in ranked]
                + [(run, line, 'a failure; how far from the goal it ended was not measured')
                   for run, line in failures if line.get('position_error') is None])
    return [(run, line, 'every trial succeeded; this one took longest')
            for run, line in sorted(trials, key=lambda entry: -entry[1]['duration'])]


def _shown(title: str, run: StationRun, line: dict, why: str) -> ShownTrial | None:
    try:
        file = video_of(run.directory / 'trials' / line['trial_id'])
        if file is None:
            return None
        strip = film_strip(file)
        video = file.read_bytes() if file.stat().st_size <= MAX_VIDEO_BYTES else b''
    except (RecordError, OSError):
        return None
    return ShownTrial(title, why, run, line, file, video, strip) if strip else None


def film_strip(video: Path) -> bytes:
    """Pictures of a video from its first to its last frame side by side, as PNG; empty when it cannot be read."""
    import cv2
    import numpy as np

    reader = cv2.VideoCapture(str(video), cv2.CAP_FFMPEG)
    count = int(reader.get(cv2.CAP_PROP_FRAME_COUNT))
    wanted = Counter(round(k * (count - 1) / (_STRIP_PICTURES - 1)) for k in range(_STRIP_PICTURES))
    pictures = []
    for number in range(count):
        there, image = reader.read()
        if not there:
            break
        for _ in range(wanted[number]):
            height = round(image.shape[0] * _STRIP_WIDTH / image.shape[1])
            pictures += [cv2.resize(image, (_STRIP_WIDTH, height), interpolation=cv2.INTER_AREA),
                         np.full((height, _STRIP_GAP, 3), 255, np.uint8)]
    reader.release()
    ok, data = cv2.imencode('.png', np.hstack(pictures[:-1])) if pictures else (False, b'')
    return data.tobytes() if ok else b''
