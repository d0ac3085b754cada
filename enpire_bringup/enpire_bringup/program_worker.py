"""What runs in the child process of `program_process.ProgramProcess`; started as a script, never imported.

Two processes. The *guard* is trusted: it copies the program's output to a bounded log, looks at what the program
takes, and when the station closes the life pipe (or dies, which closes it too) or the program ends, it kills
whatever the program started, however often that forked or changed its session. The *program* loads the Python
file and answers calls. Neither knows ROS.

A program that takes too much, or that the station wants stopped (a byte on the life pipe), gets a signal that raises
`Stopped` in it: so its traceback says where it was. When that does not end it, the guard kills it.
"""

import ctypes
import json
import os
import resource
import select
import signal
import stat
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
MAX_LOG = 1 << 20          # bytes
MAX_SCRATCH = 256 << 20    # bytes in the scratch folder, and in one file
MAX_SCRATCH_FILES = 10_000
LOOK_PERIOD = 0.5          # s of wall time between two looks at what the program takes
MAX_THREADS = 256          # for root no limit of the kernel counts them
STOPPED_WITHIN = 1.0       # s of wall time that a program gets to end once it was stopped for what it took

# Signals that stop the program -> what the exception says.
STOPS = {
    signal.SIGRTMIN + 1: 'the station stopped it: no answer in time',
    signal.SIGRTMIN + 2: f'it printed more than {MAX_LOG >> 20} MB',
    signal.SIGRTMIN + 3: 'it took more memory than it may',
    signal.SIGRTMIN + 4: f'it wrote more than {MAX_SCRATCH >> 20} MB or {MAX_SCRATCH_FILES} files',
    signal.SIGRTMIN + 5: f'it started more than {MAX_THREADS} threads',
}
NO_ANSWER, PRINTED, MEMORY, WROTE, THREADS = STOPS
INSIDE = '--inside'        # second argument: bubblewrap runs this, and there is nothing left but the program


class Stopped(BaseException):
    """Raised in the program where it is when it has to stop; no `except Exception` keeps it from that."""


def main() -> None:
    job = json.loads(sys.argv[1])
    if sys.argv[2:] == [INSIDE]:
        run_program(job)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    output_read, output_write = os.pipe2(os.O_CLOEXEC)
    guard = os.getpid()
    job['scratch'] = make_scratch(job['temporary'])
    program = os.fork()
    if program == 0:
        for fd in (job['life'], wake_read, wake_write, output_read):
            os.close(fd)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        begin_program(guard, output_write)
        if job['isolation'] == 'bubblewrap':
            enter_bubblewrap(job)
        run_program(job)
    for fd in (job['requests'], job['answers'], output_write):
        os.close(fd)
    status = watch(program, job, output_read, wake_read)
    remove(job['scratch'])
    end_like(status)


def prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


# ---- guard ----

def watch(program: int, job: dict, output: int, wake: int) -> int:
    """Until the program or the station ends; then kill what is left. Returns the program's wait status."""
    log, life = Log(job['log']), job['life']
    poll = select.poll()
    for fd in (life, output, wake):
        poll.register(fd, select.POLLIN)
    status, kill_at, look_at = None, None, 0.0
    while status is None:
        events = poll.poll(1000 * LOOK_PERIOD)
        stop = 0
        for fd, _ in events:
            if fd == wake:
                os.read(wake, 4096)
                status = reap(program)
            elif fd == output:
                data = os.read(output, 65536)
                if not data:
                    poll.unregister(output)
                elif not log.write(data) and job['output_is_limited']:
                    stop = PRINTED
            elif fd == life:
                if os.read(life, 1):
                    os.kill(inmost(program, job), NO_ANSWER)
                else:
                    kill_descendants()
                    ended = reap(program)
                    status = signal.SIGKILL if ended is None else ended
                    break
        now = time.monotonic()
        if now >= look_at:
            look_at = now + LOOK_PERIOD
            stop = stop or taken_too_much(inmost(program, job), job)
        if stop and kill_at is None and status is None:
            kill_at = now + STOPPED_WITHIN
            os.kill(inmost(program, job), stop)
        if kill_at is not None and now >= kill_at and status is None:
            os.kill(program, signal.SIGKILL)
    kill_descendants()
    os.set_blocking(output, False)
    try:
        while data := os.read(output, 65536):
            log.write(data)
    except BlockingIOError:
        pass
    return status


def inmost(program: int, job: dict) -> int:
    """The program's own process: where bubblewrap runs it, that is the only one below."""
    return (descendants(program) or [program])[-1] if job['isolation'] == 'bubblewrap' else program


def taken_too_much(program: int, job: dict) -> int:
    """The signal that stops a program which takes what no limit of the kernel keeps it from; 0: none.

    RLIMIT_DATA does not count shared memory, RLIMIT_FSIZE not the number of files, RLIMIT_NPROC nothing for root.
    """
    try:
        with open(f'/proc/{program}/status', 'rb') as file:
            fields = dict(line.split(b':', 1) for line in file if line.startswith((b'RssAnon', b'RssShmem', b'Threads')))
            if int(fields.pop(b'Threads', 0)) > MAX_THREADS:
                return THREADS
    except OSError:
        return 0
    if sum(int(value.split()[0]) << 10 for value in fields.values()) > job['memory_limit']:
        return MEMORY
    size, files = unnamed_size(program), 0
    for place, _, names in os.walk(job['scratch']):
        for name in names:
            try:
                size += os.lstat(os.path.join(place, name)).st_blocks * 512
            except OSError:
                pass
        files += 1 + len(names)
        if size > MAX_SCRATCH or files > MAX_SCRATCH_FILES:
            return WROTE
    return 0


def unnamed_size(program: int) -> int:
    """Bytes on disk of files that the program holds open and that are in no folder any more."""
    size, folder = 0, f'/proc/{program}/fd'
    try:
        for name in os.listdir(folder):
            status = os.stat(os.path.join(folder, name))
            size += status.st_blocks * 512 if stat.S_ISREG(status.st_mode) and status.st_nlink == 0 else 0
    except OSError:
        pass        # closed, or ended, since the list was made
    return size


def make_scratch(parent: str) -> str:
    """A new folder that only this user can enter."""
    for number in range(1000):
        path = os.path.join(parent, f'enpire-program-{os.getpid()}-{number}')
        try:
            os.mkdir(path, 0o700)       # never follows a link, and fails on what is there already
            return path
        except FileExistsError:
            pass
    raise FileExistsError(path)


def remove(folder: str) -> None:
    for place, folders, files in os.walk(folder, topdown=False):
        for name in files + folders:
            path = os.path.join(place, name)
            try:
                (os.rmdir if name in folders and not os.path.islink(path) else os.unlink)(path)
            except OSError:
                pass
    try:
        os.rmdir(folder)
    except OSError:
        pass


class Log:
    """Appends to a file until that has MAX_LOG bytes; a file that is full already is begun anew."""

    def __init__(self, file: str):
        self._file = self._room = None
        if file:
            self._file = open(file, 'ab', buffering=0)
            if self._file.tell() >= MAX_LOG:
                self._file.truncate(0)
            self._room = MAX_LOG - self._file.tell()

    def write(self, data: bytes) -> bool:
        """False once there was more than the log takes."""
        if not self._file:
            return True
        if self._room <= 0:
            return False
        try:
            self._file.write(data[:self._room])
            self._room -= len(data)
            if self._room <= 0:
                self._file.write(b'\n[more output was dropped: the log is full]\n')
        except OSError:
            self._file = None       # a full disk must not end the program
        return True


def reap(program: int):
    """Collect ended children; the wait status of `program` when it was among them, else None."""
    status = None
    while True:
        try:
            pid, ended = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if pid == 0:
            return status
        if pid == program:
            status = ended


def kill_descendants() -> None:
    """SIGKILL every process below this one until none is left (at most 2 s: a fork race ends sooner)."""
    deadline = time.monotonic() + 2.0
    while (pids := descendants(os.getpid())) and time.monotonic() < deadline:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        time.sleep(0.002)
        if all(is_zombie(pid) for pid in pids):
            # Orphans became this process's children and are zombies now; whoever forked is dead.
            if all(is_zombie(pid) for pid in descendants(os.getpid())):
                return


def stat_fields(pid):
    """(state, parent's pid), or None when the process is gone."""
    try:
        with open(f'/proc/{pid}/stat', 'rb') as file:
            fields = file.read().rpartition(b')')[2].split()
        return fields[0], int(fields[1])
    except (OSError, IndexError):
        return None


def is_zombie(pid: int) -> bool:
    fields = stat_fields(pid)
    return fields is None or fields[0] in (b'Z', b'X')


def descendants(root: int) -> list:
    """Process ids below `root`, at any depth."""
    parents = {int(name): fields[1] for name in os.listdir('/proc')
               if name.isdigit() and (fields := stat_fields(name))}
    found, frontier = [], {root}
    while frontier:
        frontier = {pid for pid, parent in parents.items() if parent in frontier}
        found += frontier
    return found


def end_like(status: int) -> None:
    """End this process as the program ended, so that the station reads the program's exit code or signal."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


# ---- program ----

def begin_program(guard: int, output: int) -> None:
    """In the new process: it ends with the guard, and prints to it."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != guard:
        os._exit(1)
    os.setsid()
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)


def enter_bubblewrap(job: dict) -> None:
    """Go on as `run_program`, inside."""
    sys.path[:] = job['path']
    from enpire_bringup.program_isolation import bubblewrap_command
    command = [sys.executable, '-I', '-S', '-B', os.path.abspath(__file__), json.dumps(job), INSIDE]
    own = [os.path.dirname(job['file']), job['cwd']]
    imported = [*job['path'], *_linked_packages(job['path']), os.path.dirname(os.path.abspath(__file__))]
    command = bubblewrap_command(command, own, imported, job['scratch'], [job['hidden']])
    os.execvp(command[0], command)


def run_program(job: dict) -> None:
    for number, reason in STOPS.items():
        signal.signal(number, lambda *_, reason=reason: raise_stopped(reason))
    limit(job)
    os.chdir(job['cwd'])
    os.environ['TMPDIR'] = os.environ['HOME'] = job['scratch']
    # No import of ROS from task or recipe code: what it may know comes in the observation.
    sys.modules['rclpy'] = None
    sys.path[:] = job['path']       # the program's own folder comes first, but only once it is confined
    code = 0
    try:
        serve(job)
    except BaseException as error:      # the protocol itself failed: say so in the log, and end
        code = error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 1
        sys.stderr.write(f'{type(error).__name__}: {error}\n')
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def raise_stopped(reason: str) -> None:
    raise Stopped(reason)


def limit(job: dict) -> None:
    with open('/proc/loadavg') as file:
        tasks = int(file.read().split()[3].partition('/')[2])
    wanted = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 256,
        resource.RLIMIT_FSIZE: MAX_SCRATCH,
        # Counted for the user, not for this process (and not at all for root): room for 64 more threads.
        resource.RLIMIT_NPROC: tasks + 64,
        # Private writable memory; not RLIMIT_AS, since libraries such as torch reserve address space unused.
        resource.RLIMIT_DATA: job['memory_limit'],
    }
    for kind, value in wanted.items():
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def _linked_packages(path: list) -> list:
    """Targets of the packages that are links: `colcon build --symlink-install` puts such on the path."""
    targets = []
    for folder in path:
        try:
            targets += [os.path.realpath(entry.path) for entry in os.scandir(folder)
                        if entry.is_symlink() and entry.is_dir()]
        except OSError:
            continue      # not a folder, or not there
    return targets


def serve(job: dict) -> None:
    """Load the program, then answer calls until the station closes the pipe."""
    from enpire_bringup.program_frames import FrameError, FrameReader, encode
    from enpire_bringup.program_isolation import isolate

    # Before the program's first line: it may read its own folder and what it imports, and write to
    # its scratch folder.
    own = [os.path.dirname(job['file']), job['cwd']]
    isolation = isolate(job['isolation'], [*own, *job['path'], *_linked_packages(job['path'])], job['scratch'],
                        [job['hidden']])
    sys.path.insert(0, own[0])

    def read() -> dict:
        while (frame := reader.next()) is None:
            data = os.read(job['requests'], 1 << 20)
            if not data:
                raise SystemExit(0)
            reader.feed(data)
        return frame

    def write(frame: bytes) -> None:
        view = memoryview(frame)
        while view:
            view = view[os.write(job['answers'], view):]

    def answer(sequence: int, function, *args) -> bool:
        try:
            frame = encode({'sequence': sequence, 'kind': 'value'}, function(*args))
        except FrameError as error:
            problem = {'type': 'TypeError', 'message': f'returned {error}', 'line': None, 'traceback': ''}
            frame = encode({'sequence': sequence, 'kind': 'error'}, problem)
        except BaseException as error:
            frame = encode({'sequence': sequence, 'kind': 'error'}, describe(error, job['file']))
        write(frame)

    reader = FrameReader()
    program = []

    def start(config):
        instance, constants = load(job['file'], job['class'], config)
        program.append(instance)
        return {'constants': constants}

    # As long as none of its lines has run, nobody but this code can write to the station.
    write(encode({'sequence': 0, 'kind': 'value'}, {'isolation': isolation, 'process': os.getpid()}))
    request = read()
    answer(request['sequence'], start, *request['value'])
    while True:
        request = read()
        answer(request['sequence'], lambda: getattr(program[0], request['method'])(*request['value']))


def load(file: str, class_name: str, config: dict):
    """(instance, its constants: upper-case names of the class and the module with plain values)."""
    import importlib.util
    name = os.path.splitext(os.path.basename(file))[0]
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    if not isinstance(getattr(module, class_name, None), type):
        raise NameError(f'no class {class_name} in this file; add it')
    program_class = getattr(module, class_name)
    constants = {key: value for holder in (module, program_class) for key, value in vars(holder).items()
                 if key.isupper() and type(value) in (bool, int, float, str)}
    return program_class(config), constants


def describe(error: BaseException, file: str) -> dict:
    """Type, message, line in the program's file and traceback of an exception."""
    import traceback
    line = None
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename == file:
            line = frame.lineno
    if isinstance(error, SyntaxError) and error.filename == file:
        line, message = error.lineno, error.msg
    else:
        message = str(error)
    text = ''.join(traceback.format_exception(error))
    return {'type': type(error).__name__, 'message': message[:2000], 'line': line, 'traceback': text[-8000:]}


if __name__ == '__main__':
    main()
