"""The records of one trial: `started.json` first, `episode.mcap`, `policy.log`, `trial.json` last; then `video.mp4`.

episode.mcap is an ordinary rosbag2-readable MCAP file: ROS 2 message definitions, CDR, one channel a topic.
`policy/steps` holds one JSON text a policy step: step, observation, action, target sent, and where the target came
from (`source`: "policy", "hold_late", "hold_malformed").
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

from mcap.reader import make_reader

from enpire_agent.durable_file import disk_full_explained, sync_directory, write_json_durably
from enpire_agent.recorded_messages import jpeg_of, step_of
from enpire_bringup.configuration import ConfigurationError

STARTED, RESULT, EPISODE, POLICY_LOG = 'started.json', 'trial.json', 'episode.mcap', 'policy.log'
STEPS_TOPIC = 'policy/steps'


class RecordError(RuntimeError):
    """A record cannot be written or read."""


def write_started(directory: Path, started: dict) -> None:
    """The first file of a trial, on disk before anything moves: a trial that has it cannot vanish."""
    with disk_full_explained(directory):
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir()
        sync_directory(directory.parent)
    write_json_durably(directory / STARTED, started)


def write_result(directory: Path, result: dict) -> None:
    """The last file of a trial; a folder without it is not complete."""
    write_json_durably(directory / RESULT, result)


def read_result(directory: Path | str) -> dict:
    """trial.json of a trial's folder. Raises ConfigurationError naming it when the trial was not completed."""
    file = Path(directory) / RESULT
    try:
        return json.loads(file.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f'{file}: no result of a completed trial there ({error})') from error


@dataclass(frozen=True)
class Frame:
    """One recorded camera image: seconds of ROS time and JPEG bytes."""

    time: float
    jpeg: bytes


def read_frames(directory: Path | str, topic_end: str = 'image_raw/compressed') -> Iterator[Frame]:
    """The camera frames of a trial in their order; needs no ROS.

    Raises RecordError when the trial has no episode.mcap.
    """
    file = Path(directory) / EPISODE
    try:
        with open(file, 'rb') as stream:
            for _, channel, message in make_reader(stream).iter_messages():
                if channel.topic.endswith(topic_end):
                    yield Frame(message.log_time * 1e-9, jpeg_of(message.data))
    except OSError as error:
        raise RecordError(f'{file}: cannot be read ({error.strerror})') from error


def policy_start(directory: Path | str) -> float:
    """Seconds of ROS time of the policy's first step; -inf when it did not run. Raises RecordError as read_frames."""
    file = Path(directory) / EPISODE
    try:
        with open(file, 'rb') as stream:
            for _, _, message in make_reader(stream).iter_messages(topics=[STEPS_TOPIC]):
                return message.log_time * 1e-9
    except OSError as error:
        raise RecordError(f'{file}: cannot be read ({error.strerror})') from error
    return -math.inf


def read_steps(directory: Path | str) -> Iterator[dict]:
    """The policy steps of a trial (see the module's text); needs no ROS."""
    file = Path(directory) / EPISODE
    try:
        with open(file, 'rb') as stream:
            for _, channel, message in make_reader(stream).iter_messages(topics=[STEPS_TOPIC]):
                yield step_of(message.data)
    except OSError as error:
        raise RecordError(f'{file}: cannot be read ({error.strerror})') from error
