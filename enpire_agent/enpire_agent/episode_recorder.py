"""Records trials in a process of its own, so that neither a policy's step nor the interpreter waits for it.

This is the station's side; recording_process.py is the process, which also makes the video afterwards.

What goes to the process: HEAD (kind, channel, stamp in ns, size) and as many bytes of content. It answers every END
with one line of JSON: "error", what made the recording fail, and "remark", what is missing in it, or "".
"""

from __future__ import annotations

import json
import select
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

from enpire_agent.recorded_messages import step_message
from enpire_agent.trial_record import EPISODE, STEPS_TOPIC, RecordError

HEAD = struct.Struct('<BHqI')
BEGIN, CHANNEL, MESSAGE, IMAGE, END = range(5)
_SEND_PERIOD = 0.05            # s of wall time between two sendings
_MOST_WAITING = 64 << 20       # bytes that wait for the process; what comes beyond that is dropped


class EpisodeRecorder:
    """Records one episode after the other. All methods but `begin`, `end` and `close` return at once.

    Stamps are ROS time in ns. What goes wrong with the disk or the process is said by `end`.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._waiting: list[bytes] = []
        self._size = 0                  # bytes in it
        self._channels: dict[str, int] = {}
        self._error = ''                # of the sending
        self._file: Path | None = None  # of the episode that is being recorded
        self._wake = threading.Event()
        self._sender: threading.Thread | None = None
        self._dropped = 0               # messages of the episode
        self.remark = ''
        self._process = self._spawn()

    def begin(self, directory: Path) -> None:
        """Record into a trial's folder from now on."""
        if self._process.poll() is not None:
            self._process.stdin.close()
            self._process.stdout.close()
            self._process = self._spawn()
        with self._lock:
            self._waiting, self._size, self._channels = [], 0, {}
            self._error, self.remark, self._dropped, self._file = '', '', 0, directory / EPISODE
            self._append(BEGIN, 0, 0, str(directory).encode())
        self._wake.clear()
        self._sender = threading.Thread(target=self._send, name='episode recorder', daemon=True)
        self._sender.start()

    def message(self, topic: str, type_name: str, cdr: bytes, stamp: int) -> None:
        """Record a serialized message, e.g. of type "sensor_msgs/msg/JointState"."""
        self._put(MESSAGE, self._channel(topic, type_name), stamp, cdr)

    def step(self, content: dict, stamp: int) -> None:
        """Record one policy step, see trial_record.py."""
        self._put(MESSAGE, self._channel(STEPS_TOPIC, 'std_msgs/msg/String'), stamp, step_message(content))

    def image(self, topic: str, cdr: bytes) -> None:
        """Record a serialized sensor_msgs/Image, compressed, under `topic`."""
        self._put(IMAGE, self._channel(topic, ''), 0, cdr)

    def end(self, timeout: float = 10.0) -> None:
        """Finish the file; `remark` then says what is missing in it.

        Raises RecordError when it could not be written within `timeout` s of wall time.
        """
        if self._file is None:
            return
        with self._lock:
            file, self._file = self._file, None
            self._append(END, 0, 0, b'')
        deadline = time.monotonic() + timeout
        self._wake.set()
        self._sender.join(timeout)
        answer, error = b'', self._error
        if not error and select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
            answer = self._process.stdout.readline()
        if answer:
            told = json.loads(answer)
            error, self.remark = told['error'], told['remark']
        else:
            error = error or f'the recording process did not finish it within {timeout:g} s'
            self._stop_process()
            file.with_name(f'{EPISODE}.part').unlink(missing_ok=True)
        if error:
            raise RecordError(f'{file}: could not be written: {error}')
        if self._dropped:
            self.remark = (f'{self._dropped} messages were dropped, the recording process or the disk is too slow '
                           f'{self.remark}')

    def close(self) -> None:
        """End the process; what is being recorded is finished, a video that is being made is given up."""
        self._wake.set()
        if self._sender is not None:
            self._sender.join(1.0)
        self._process.stdin.close()
        try:
            self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            self._stop_process()
        self._process.stdout.close()

    def _spawn(self) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, '-m', 'enpire_agent.recording_process'], stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, start_new_session=True, bufsize=0)

    def _stop_process(self) -> None:
        self._process.kill()
        try:
            self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            pass      # in the kernel, waiting for a disk that does not answer

    def _channel(self, topic: str, type_name: str) -> int:
        channel = self._channels.get(topic)
        if channel is None:
            with self._lock:      # no message may come before its channel
                channel = self._channels.setdefault(topic, len(self._channels))
                self._append(CHANNEL, channel, 0, json.dumps([topic, type_name]).encode())
        return channel

    def _put(self, kind: int, channel: int, stamp: int, content: bytes) -> None:
        with self._lock:
            if self._file is None:
                return
            if self._size > _MOST_WAITING:
                self._dropped += 1
                return
            self._append(kind, channel, stamp, content)

    def _append(self, kind: int, channel: int, stamp: int, content: bytes) -> None:
        self._waiting += (HEAD.pack(kind, channel, stamp, len(content)), content)
        self._size += len(content)

    def _send(self) -> None:
        process = self._process
        while True:
            last = self._wake.wait(_SEND_PERIOD)
            with self._lock:
                waiting, self._waiting, self._size = self._waiting, [], 0
            try:
                view = memoryview(b''.join(waiting))
                while view:
                    view = view[process.stdin.write(view):]
            except (OSError, ValueError):
                self._error = 'the recording process ended'
                return
            if last:
                return
