"""The process that records trials for `EpisodeRecorder`: compresses images, writes episode.mcap, then video.mp4.

When the station's side ends, however, it finishes the file with what it got, and ends. A video is made by a child at
the lowest priority, one after the other.
"""

from __future__ import annotations

import collections
import ctypes
import json
import os
import select
import signal
import sys
from typing import Callable

import cv2

from enpire_agent.episode_recorder import BEGIN, CHANNEL, END, HEAD, IMAGE
from enpire_agent.episode_writer import EpisodeWriter
from enpire_agent.trial_record import RecordError
from enpire_agent.trial_video import make_video
from enpire_bringup.image_messages import ImageMessageError

NICENESS = 5                  # the station goes first
MOST_VIDEOS_WAITING = 8       # the oldest are left out: whoever wants one makes it
VIDEO_BOUND = 120             # s of wall time for one
_PIPE_SIZE = 1 << 20          # bytes
_PR_SET_PDEATHSIG = 1


class Episodes:
    """Takes what is sent, and records it. completed: called with the folder of every episode that is on disk."""

    def __init__(self, completed: Callable[[str], None]):
        self._completed = completed
        self._writer: EpisodeWriter | None = None
        self._directory = ''
        self._channels: dict[int, tuple[str, str]] = {}
        self._error = self._remark = ''

    def take(self, kind: int, channel: int, stamp: int, content: bytes) -> dict | None:
        """Work off one message; the answer to END, else None."""
        if kind == BEGIN:
            self.finish()
            self._directory, self._channels, self._error, self._remark = content.decode(), {}, '', ''
            self._try(self._open)
        elif kind == CHANNEL:
            self._channels[channel] = tuple(json.loads(content))
        elif kind == END:
            self.finish()
            return {'error': self._error, 'remark': self._remark}
        elif self._writer is not None:
            topic, type_name = self._channels[channel]
            if kind == IMAGE:
                self._try(lambda: self._image(topic, content))
            else:
                self._try(lambda: self._writer.message(topic, type_name, content, stamp))
        return None

    def finish(self) -> None:
        """Close the file that is being written."""
        if self._writer is None:
            return
        self._try(self._writer.close)
        if self._writer is not None:
            self._writer = None
            self._completed(self._directory)

    def _image(self, topic: str, content: bytes) -> None:
        try:
            self._writer.image(topic, content)
        except ImageMessageError as error:
            self._remark = f'{topic}: {error}'      # the rest is worth recording without it

    def _open(self) -> None:
        self._writer = EpisodeWriter(self._directory)

    def _try(self, work: Callable[[], None]) -> None:
        """The first thing that goes wrong ends this recording, gives its room back, and is said at its end."""
        try:
            work()
        except Exception as error:
            self._error = str(error) or repr(error)
            if self._writer is not None:
                self._writer.discard()
                self._writer = None


class Videos:
    """Videos that are to be made; one child at a time makes them."""

    def __init__(self):
        self._waiting: collections.deque[str] = collections.deque(maxlen=MOST_VIDEOS_WAITING)
        self._child = 0

    def add(self, directory: str) -> None:
        self._waiting.append(directory)

    def go_on(self) -> bool:
        """Start the next one when there is time; whether any is still being made."""
        if self._child and os.waitpid(self._child, os.WNOHANG) != (0, 0):
            self._child = 0
        if not self._child and self._waiting:
            self._child = os.fork()
            if self._child == 0:
                self._make(self._waiting[0])
            self._waiting.popleft()
        return self._child != 0

    def give_up(self) -> None:
        if self._child:
            os.kill(self._child, signal.SIGKILL)
            os.waitpid(self._child, 0)
            self._child = 0

    def _make(self, directory: str) -> None:
        """In the child; does not return."""
        code = 0
        try:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            signal.alarm(VIDEO_BOUND)
            # OpenCV remarks that MP4 knows VP9 by another tag, and takes that.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            make_video(directory)
        except (RecordError, OSError):
            code = 1      # whoever wants it is told when trying it again
        finally:
            os._exit(code)


def main() -> None:
    os.nice(NICENESS)
    cv2.setNumThreads(1)
    videos = Videos()
    episodes = Episodes(videos.add)
    received = bytearray()
    try:
        while True:
            busy = videos.go_on()
            if not select.select([sys.stdin], [], [], 0.2 if busy else None)[0]:
                continue
            data = os.read(sys.stdin.fileno(), _PIPE_SIZE)
            if not data:
                episodes.finish()
                return
            received += data
            for entry in _whole_entries(received):
                answer = episodes.take(*entry)
                if answer is not None:
                    print(json.dumps(answer), flush=True)
    except BrokenPipeError:
        pass      # the station's side has ended
    finally:
        videos.give_up()


def _whole_entries(received: bytearray):
    """(kind, channel, stamp, content) of every message that came whole; takes them out of `received`."""
    at = 0
    while len(received) - at >= HEAD.size:
        kind, channel, stamp, size = HEAD.unpack_from(received, at)
        if len(received) - at - HEAD.size < size:
            break
        at += HEAD.size + size
        yield kind, channel, stamp, bytes(received[at - size:at])
    del received[:at]


if __name__ == '__main__':
    main()
