"""A Python file's class in a child process: calls with a deadline, and a death that leaves nothing.

For code that the station does not trust to answer, to end or to be right: a task's `reward.py`, a recipe's
`policy.py`. No ROS here, and none in the child.

    with ProgramProcess(recipe / 'policy.py', 'Policy', config) as policy:
        policy.call('reset', observation, timeout=5.0)
        action = policy.call('act', observation, timeout=0.025)

A step that may be late, and is then held without asking twice:

    if not policy.pending:
        policy.request('act', observation)
    try:
        action = policy.answer(timeout=0.025)
    except ProgramTimeout:
        action = None       # hold; the next step goes on waiting for this same answer
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from enpire_bringup import program_worker
from enpire_bringup.paths import runs_directory
from enpire_bringup.program_frames import FrameError, FrameReader, encode
from enpire_bringup.program_isolation import BUBBLEWRAP, strongest_level

DEFAULT_MEMORY = 2 << 30        # bytes
_PIPE_SIZE = 1 << 20            # bytes: a 640x480 image goes through in one piece
# Names of the station's environment that a program may see. All else (ROS, tokens, keys) stays outside.
_ENVIRONMENT = ('PATH', 'LANG', 'LC_ALL', 'TZ', 'CUDA_VISIBLE_DEVICES')


class ProgramFailure(Exception):
    """A program in a child process did not do what it was asked; see the subclasses."""


class ProgramError(ProgramFailure):
    """The program raised. `line` in its file (or None), and its own `traceback`."""

    def __init__(self, message: str, line: int | None = None, traceback: str = ''):
        super().__init__(message)
        self.line = line
        self.traceback = traceback


class ProgramTimeout(ProgramFailure):
    """No answer within the deadline. The program runs on; its answer is dropped, or `answer` awaits it."""


class ProgramExited(ProgramFailure):
    """The program's process has ended. `returncode`: exit code, or minus the signal's number."""

    def __init__(self, message: str, returncode: int | None):
        super().__init__(message)
        self.returncode = returncode


class ProgramMalformed(ProgramFailure):
    """The program wrote something that is no frame; its process was killed."""


class ProgramProcess:
    """One instance of `class_name` from `file`, alive in a child process of its own.

    config: the constructor's only argument (plain values and numpy arrays).
    cwd: working folder of the program; default: the file's folder, which is also first on its sys.path.
    log_file: takes the program's stdout and stderr, at most 1 MB; default: they are dropped.
    output_is_limited: a program that prints more than the log takes is stopped (ProgramError); else that is dropped.
    memory_limit: bytes of private and shared memory.
    start_timeout: s of wall time for loading the file and constructing the class.

    The program may read the system's libraries, what is on this process's sys.path and its own folder (no results, even
    where these lie in one of them), and
    write only a scratch folder of its own ($TMPDIR), which goes with it; it starts threads but no processes, and opens
    no sockets: see program_confinement.py.
    `isolation`: the name of what keeps it so, see program_isolation.py, where also stands what a machine without
    Landlock does. isolation: a level of its own; default: the strongest that this machine has.
    `constants`: upper-case plain values of module and class, e.g. {'USES_IMAGE': True}.

    Raises from the constructor: ProgramError (does not compile, no such class, the constructor raised),
    ProgramTimeout, ProgramExited; no process is left behind then.
    Calls from several threads take turns. Whoever gets ProgramMalformed or ProgramExited needs a new process.
    """

    def __init__(self, file: str | Path, class_name: str, config: dict, *, cwd: str | Path | None = None,
                 log_file: str | Path | None = None, output_is_limited: bool = False,
                 memory_limit: int = DEFAULT_MEMORY, start_timeout: float = 10.0, isolation: str = ''):
        # Not what a link by this name leads to: the folder that the program may read is the one it was said to be in.
        self.file = Path(file).parent.resolve() / Path(file).name
        self.class_name = class_name
        self.constants: dict[str, Any] = {}
        self.isolation = ''
        self._lock = threading.RLock()
        self._closed = False
        self._reader = FrameReader()
        self._outbox = memoryview(b'')      # bytes of a request that the pipe has not taken yet
        self._sequence = 0
        self._asked: tuple[int, str] | None = None     # (sequence, method) that was not answered yet
        self._dropped = False               # the answer to it is not wanted any more
        self._broken: ProgramFailure | None = None
        if not self.file.is_file():
            raise ProgramError(f'{self.file}: no such file')
        level = isolation or strongest_level()
        self._spawn(cwd or self.file.parent, log_file, {'memory_limit': memory_limit, 'isolation': level,
                                                        'output_is_limited': output_is_limited})
        try:
            deadline = time.monotonic() + start_timeout
            # The first frame is not the program's: none of its lines has run yet.
            self._asked = 0, '__init__'
            begun = self.answer(timeout=start_timeout)
            self.isolation, self._program = begun['isolation'], begun['process']
            if level == BUBBLEWRAP:     # there it is process 1
                self._program = program_worker.descendants(self._process.pid)[-1]
            self._send('__init__', (config,))
            started = self.answer(timeout=deadline - time.monotonic(), stated_timeout=start_timeout)
            if not isinstance(started, dict) or not isinstance(started.get('constants'), dict):
                raise self._fail(ProgramMalformed(f'{self.file.name}: the program forged the answer to its start'))
            self.constants = started['constants']
        except BaseException:
            self.close()
            raise

    def _spawn(self, cwd, log_file, limits: dict) -> None:
        request_read, self._requests = os.pipe()
        self._answers, answer_write = os.pipe()
        life_read, self._life = os.pipe()
        for fd in (self._requests, self._answers):
            os.set_blocking(fd, False)
            try:
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
            except OSError:
                pass        # the user's allowance for pipes is used up: smaller pieces, nothing worse
        if log_file:
            Path(log_file).parent.mkdir(parents=True, exist_ok=True)
        job = {'file': str(self.file), 'class': self.class_name, 'cwd': str(Path(cwd).resolve()),
               'log': str(Path(log_file).resolve()) if log_file else '', **limits,
               'path': _import_path(), 'temporary': tempfile.gettempdir(), 'hidden': str(runs_directory()),
               'requests': request_read, 'answers': answer_write, 'life': life_read}
        inherited = (request_read, answer_write, life_read)
        try:
            # -I -S: nothing of the user's Python settings, and none of site-packages' start-up code (the
            # ROS wheels' would start the interpreter twice); the station's own sys.path is handed over.
            self._process = subprocess.Popen(
                [sys.executable, '-I', '-S', '-B', program_worker.__file__, json.dumps(job)],
                pass_fds=inherited, env=_environment(), start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        except BaseException:
            for fd in (self._requests, self._answers, self._life):
                os.close(fd)
            raise
        finally:
            for fd in inherited:
                os.close(fd)

    # ---- calls ----

    def call(self, method: str, *args: Any, timeout: float) -> Any:
        """The method's return value (tuples arrive as lists).

        When an earlier call is still unanswered, its answer is awaited within the same `timeout` and dropped.
        Raises ProgramError, ProgramTimeout (after which the late answer is dropped), ProgramExited,
        ProgramMalformed.
        """
        deadline = time.monotonic() + timeout
        with self._lock:
            if self._asked:
                self._dropped = True
                earlier = self._asked[1]
                if not self._settle(deadline):
                    raise ProgramTimeout(f'{self._name(earlier)} has not answered an earlier call, and '
                                         f'{method}() could not be called within {timeout:.3g} s')
            self._send(method, args)
            try:
                return self.answer(timeout=deadline - time.monotonic(), stated_timeout=timeout)
            except ProgramTimeout:
                self._dropped = True
                raise

    def request(self, method: str, *args: Any) -> None:
        """Ask without waiting; `answer` waits. Only one request at a time: look at `pending` first."""
        with self._lock:
            if self.busy:
                raise RuntimeError(f'{self._name(self._asked[1])} has not answered yet; '
                                   'call answer() or cancel()')
            self._send(method, args)
            self._pump(0.0)

    def answer(self, *, timeout: float, stated_timeout: float | None = None) -> Any:
        """The answer to the request; after ProgramTimeout it is still pending, and may be awaited again."""
        with self._lock:
            if not self._asked:
                raise RuntimeError(f'{self.file.name}: answer() without a request()')
            sequence, method = self._asked
            deadline = time.monotonic() + timeout
            if (frame := self._next_frame(deadline)) is not None:
                self._check_sequence(frame, sequence)
                self._asked, self._dropped = None, False
                return self._value(frame, method)
            stated = timeout if stated_timeout is None else stated_timeout
            raise ProgramTimeout(f'{self._name(method)} did not answer within {1000 * stated:.0f} ms')

    @property
    def pending(self) -> bool:
        """A request waits for its answer."""
        with self._lock:
            return self._asked is not None and not self._dropped

    @property
    def busy(self) -> bool:
        """The program has not answered yet, be its answer still wanted or not. Raises as `answer` does."""
        with self._lock:
            return self._asked is not None and not (self._dropped and self._settle(0.0))

    def cancel(self) -> None:
        """Forget the pending request; its answer is dropped when it comes."""
        with self._lock:
            self._dropped = self._asked is not None

    @property
    def cpu_time(self) -> float:
        """s of CPU time that the program has used in all its threads; NaN when it has ended."""
        try:
            # The kernel's number for the CPU clock of another process (MAKE_PROCESS_CPUCLOCK, CPUCLOCK_SCHED).
            return time.clock_gettime(~self._program << 3 | 2)
        except OSError:
            return math.nan

    @property
    def runnable(self) -> bool:
        """Whether the program computes, or would if it got a core; not while it sleeps or waits for something."""
        try:
            return Path(f'/proc/{self._program}/stat').read_text().rpartition(')')[2].split()[0] == 'R'
        except (OSError, IndexError):
            return False

    def interrupt(self, timeout: float) -> str:
        """Raise an exception where the program is, while it has not answered; its traceback.

        Empty when it answered after all, or did not let itself be interrupted within `timeout` s.
        """
        with self._lock:
            if not self._asked or self._life is None:
                return ''
            try:
                os.write(self._life, b'!')
                self.answer(timeout=timeout)
            except ProgramError as error:
                return error.traceback
            except (ProgramFailure, OSError):
                pass
            return ''

    def _name(self, method: str) -> str:
        return f'{self.file.name}: {self.class_name}.{method}()'

    def _send(self, method: str, args: tuple) -> None:
        if self._broken:
            raise self._broken
        try:
            frame = encode({'sequence': self._sequence + 1, 'method': method}, args)
        except FrameError as error:
            raise TypeError(f'{self._name(method)} was to be given {error}') from error
        self._sequence += 1
        self._asked, self._dropped = (self._sequence, method), False
        self._outbox = memoryview(frame)

    def _settle(self, deadline: float) -> bool:
        """Await the answer to the unanswered request; False when the deadline passed first."""
        if self._asked and (frame := self._next_frame(deadline)) is not None:
            self._check_sequence(frame, self._asked[0])
            self._asked, self._dropped = None, False
        return self._asked is None

    def _check_sequence(self, frame: dict, sequence: int) -> None:
        if frame.get('sequence') != sequence:
            raise self._fail(ProgramMalformed(f'{self.file.name}: the program forged an answer to something that it '
                                              'was not asked; it was stopped'))

    def _value(self, frame: dict, method: str) -> Any:
        value = frame['value']
        if frame.get('kind') == 'value':
            return value
        try:
            kind, line = _plain_text(value['type'], 200), value['line'] if isinstance(value['line'], int) else None
            place = f'{self.file}:{line}' if line else str(self.file)
            what = '' if method == '__init__' else f'{method}(): '
            raise ProgramError(f'{place}: {what}{kind}: {_plain_text(value["message"], 2000)}', line,
                               _plain_text(value['traceback'], 8000))
        except (LookupError, TypeError) as error:
            raise self._fail(ProgramMalformed(f'{self._name(method)} answered with no value')) from error

    # ---- pipes ----

    def _next_frame(self, deadline: float) -> dict | None:
        """The next whole frame, or None when the deadline passed."""
        while True:
            if self._broken:
                raise self._broken
            try:
                frame = self._reader.next()
            except FrameError as error:
                raise self._fail(ProgramMalformed(
                    f'{self.file.name}: the program wrote {error} to the station; it was stopped')) from error
            if frame is not None:
                return frame
            remaining = deadline - time.monotonic()
            if not self._pump(max(0.0, remaining)) and remaining <= 0:
                return None

    def _pump(self, timeout: float) -> bool:
        """Move bytes both ways once; True when any moved. Waits up to `timeout` s for that."""
        if self._closed:
            raise self._fail(ProgramExited(f'{self.file.name}: the program was closed', None))
        poll = select.poll()
        poll.register(self._answers, select.POLLIN)
        if self._outbox:
            poll.register(self._requests, select.POLLOUT)
        events = dict(poll.poll(timeout * 1000))
        if self._requests in events:
            try:
                self._outbox = self._outbox[os.write(self._requests, self._outbox):]
            except BlockingIOError:
                pass
            except BrokenPipeError:
                self._outbox = memoryview(b'')      # the answers' end of file follows
        if self._answers in events:
            data = os.read(self._answers, _PIPE_SIZE)
            if not data:
                raise self._fail(self._exit())
            self._reader.feed(data)
        return bool(events)

    def _exit(self) -> ProgramExited:
        self._wait(2.0)
        code = self._process.returncode
        if code is None:
            what = 'closed its pipe to the station'
        elif code < 0:
            what = f'was ended by signal {-code} ({_signal_name(-code)})'
        else:
            what = f'exited with code {code}'
        method = f' in {self._asked[1]}()' if self._asked else ''
        return ProgramExited(f'{self.file.name}: the program {what}{method}', code)

    def _fail(self, failure: ProgramFailure) -> ProgramFailure:
        self._broken = failure
        self._asked, self._dropped = None, False
        self._kill()
        return failure

    # ---- end ----

    @property
    def running(self) -> bool:
        """The process lives and its stream is sound."""
        return not self._closed and self._broken is None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Process id of the guard; the program is its child."""
        return self._process.pid

    def close(self) -> None:
        """End the program and all that it started, within 3 s. May be called again, by any thread."""
        self._kill()
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for fd in (self._requests, self._answers):
                os.close(fd)

    def _kill(self) -> None:
        # Closing the life pipe makes the guard kill all that the program started, also what left its group.
        life, self._life = self._life, None
        if life is not None:
            os.close(life)
        if not self._wait(2.5):
            self._process.kill()        # takes the program along (PR_SET_PDEATHSIG)
            self._wait(0.5)

    def _wait(self, timeout: float) -> bool:
        try:
            self._process.wait(timeout)
            return True
        except subprocess.TimeoutExpired:
            return False

    def __enter__(self) -> 'ProgramProcess':
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __del__(self):
        if getattr(self, '_life', None) is not None:
            self.close()


def _plain_text(value: Any, most: int) -> str:
    """Text that any file takes, at most so many characters: a lone surrogate would end whoever writes it down."""
    return str(value)[:most].encode('utf-8', 'replace').decode()


def _environment() -> dict[str, str]:
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    # One thread: the machine belongs to the station, and small matrices are slower on several.
    threads = dict.fromkeys(('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'), '1')
    return {**environment, **threads}


def _import_path() -> list[str]:
    """sys.path without the current folder, which `python -m` puts there: results may lie in it."""
    here = os.getcwd()
    from_sources = os.path.isfile(os.path.join(here, 'enpire_bringup', '__init__.py'))
    # OpenCV puts its own package folder on sys.path while it is being imported, maybe by another thread right now;
    # its `typing` would hide the standard one.
    return [entry for entry in sys.path if entry and (entry != here or from_sources)
            and not os.path.isfile(os.path.join(entry, '__init__.py'))]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return 'unknown'
