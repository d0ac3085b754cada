"""Programs that nobody trusts, and the process that runs them."""

import os
import platform
import sys
import textwrap
import time

import numpy as np
import pytest

from enpire_bringup import program_worker
from enpire_bringup.program_confinement import landlock_version
from enpire_bringup.program_frames import FrameError, FrameReader, encode
from enpire_bringup.program_process import (
    ProgramError, ProgramExited, ProgramMalformed, ProgramProcess, ProgramTimeout)

PROGRAM = '''
import os, sys, time

LIMIT = 3.0

class Program:
    USES_IMAGE = True

    def __init__(self, config):
        self.config = config
        self.calls = 0

    def echo(self, value):
        self.calls += 1
        return value

    def count(self):
        return self.calls

    def sleep(self, seconds, value):
        time.sleep(seconds)
        return value

    def hang(self):
        while True:
            pass

    def raises(self):
        raise ValueError('no T in sight')

    def leave(self, code):
        os._exit(code)

    def crash(self):
        os.kill(os.getpid(), 11)

    def returns_a_set(self):
        return {1, 2}

    def loud(self):
        for _ in range(5000):
            print('x' * 1000)
        return 'done'

    def hoard(self, size):
        return len(bytearray(size))

    def fork(self):
        """Children that left the process group and the session, and wait for nothing."""
        pids = []
        for _ in range(3):
            pid = os.fork()
            if pid == 0:
                os.setsid()
                if os.fork() == 0:
                    os.setsid()
                time.sleep(100)
            pids.append(pid)
        return pids

    def share(self, size):
        """Memory that RLIMIT_DATA does not count."""
        import mmap
        shared = mmap.mmap(-1, size)
        for start in range(0, size, 4096):
            shared[start] = 1
        time.sleep(20)

    def litter(self):
        for number in range(100_000):
            open(os.path.join(os.environ['TMPDIR'], str(number)), 'w').close()
        time.sleep(20)

    def spawn(self):
        import subprocess
        subprocess.run(['/bin/true'])

    def send_datagram(self):
        import socket
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 7400))

    def limit_station(self, pid):
        import resource
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (16, 16))

    def environment(self):
        return dict(os.environ)

    def import_rclpy(self):
        import rclpy

    def read(self, file):
        with open(file) as opened:
            return opened.read()

    def write(self, file):
        with open(file, 'a') as opened:
            opened.write('x')
        return True

    def signal(self, pid):
        os.kill(pid, 15)

    def connect(self, port):
        import socket
        socket.create_connection(('127.0.0.1', port), timeout=2)

    def scratch(self):
        import tempfile
        with tempfile.NamedTemporaryFile(delete=False) as file:
            file.write(b'x')
        return tempfile.gettempdir()

    def babble(self):
        for fd in range(3, 30):
            try:
                os.write(fd, b'\\xff' * 64)
            except OSError:
                pass
        time.sleep(1)
'''


@pytest.fixture
def program(tmp_path):
    file = tmp_path / 'program.py'
    file.write_text(PROGRAM)
    opened = []

    def start(**options) -> ProgramProcess:
        opened.append(ProgramProcess(file, 'Program', {'task': 'push_t'}, **options))
        return opened[-1]

    yield start
    for process in opened:
        process.close()


def line_of(text: str) -> int:
    return next(n for n, line in enumerate(PROGRAM.splitlines(), 1) if text in line)


def children_of(pid: int) -> set[int]:
    below = set()
    parents = {}
    for name in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open(f'/proc/{name}/stat') as file:
                fields = file.read().rpartition(')')[2].split()
            if fields[0] != 'Z':
                parents[int(name)] = int(fields[1])
        except OSError:
            pass
    frontier = {pid}
    while frontier:
        frontier = {child for child, parent in parents.items() if parent in frontier}
        below |= frontier
    return below


def alive(pids) -> set[int]:
    def lives(pid):
        try:
            with open(f'/proc/{pid}/stat') as file:
                return file.read().rpartition(')')[2].split()[0] != 'Z'
        except OSError:
            return False
    return {pid for pid in pids if lives(pid)}


def until(condition, timeout=3.0):
    end = time.monotonic() + timeout
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


def test_values_and_arrays_come_back_as_they_were_sent(program):
    value = {'pose': np.array([0.1, -0.2, 3.0]), 'image': np.arange(24, dtype=np.uint8).reshape(2, 4, 3),
             'mask': np.zeros((0, 2), bool), 'text': 'Ünïcode', 'nothing': None, 'yes': True,
             'list': [1, [2.5]]}
    back = program().call('echo', value, timeout=1)
    for key in ('pose', 'image', 'mask'):
        assert back[key].dtype == value[key].dtype
        np.testing.assert_array_equal(back[key], value[key])
    assert {key: back[key] for key in ('text', 'nothing', 'yes', 'list')} == {
        'text': 'Ünïcode', 'nothing': None, 'yes': True, 'list': [1, [2.5]]}


@pytest.mark.parametrize('value', [float('nan'), float('inf'), np.full((2, 3), np.nan), []])
def test_nan_and_odd_shapes_survive_the_transport(program, value):
    np.testing.assert_array_equal(program().call('echo', value, timeout=1), value)


def test_a_camera_image_passes_in_a_few_milliseconds(program):
    process = program()
    image = np.full((480, 640, 3), 7, np.uint8)
    took = []
    for _ in range(20):
        start = time.perf_counter()
        assert process.call('echo', image, timeout=1).shape == image.shape
        took.append(time.perf_counter() - start)
    assert np.median(took) < 0.025


def test_constants_of_the_program_are_known(program):
    assert program().constants == {'LIMIT': 3.0, 'USES_IMAGE': True}


def test_a_raising_program_is_reported_with_file_and_line(program):
    process = program()
    line = line_of('raise ValueError')
    with pytest.raises(ProgramError, match=rf'program.py:{line}: .*no T in sight') as caught:
        process.call('raises', timeout=1)
    assert 'in raises' in caught.value.traceback
    assert process.call('echo', 1, timeout=1) == 1


@pytest.mark.parametrize('source, message', [
    ('class Program:\n    x = (\n', r'program\.py:2: SyntaxError'),
    ('import nothing_of_that_name\n', r'program\.py:1: ModuleNotFoundError'),
    ('class Policy: pass\n', 'no class Program'),
    ('class Program:\n    def __init__(self, config):\n        1 / 0\n', r'program\.py:3: ZeroDivisionError'),
    ('class Program:\n    def __init__(self):\n        pass\n', 'TypeError'),
    ('raise SystemExit(3)\n', 'SystemExit: 3'),
])
def test_a_program_that_cannot_start_says_why(tmp_path, source, message):
    file = tmp_path / 'program.py'
    file.write_text(source)
    before = children_of(os.getpid())
    with pytest.raises(ProgramError, match=message):
        ProgramProcess(file, 'Program', {})
    assert until(lambda: not children_of(os.getpid()) - before)


def test_a_program_that_hangs_while_loading_is_ended(tmp_path):
    file = tmp_path / 'program.py'
    file.write_text('while True: pass\n')
    before = children_of(os.getpid())
    with pytest.raises(ProgramTimeout, match='within 300 ms'):
        ProgramProcess(file, 'Program', {}, start_timeout=0.3)
    assert until(lambda: not children_of(os.getpid()) - before)


def test_a_late_answer_is_not_taken_for_the_next_one(program):
    process = program()
    with pytest.raises(ProgramTimeout, match=r'sleep\(\) did not answer within 50 ms'):
        process.call('sleep', 0.3, 'late', timeout=0.05)
    assert process.call('echo', 'fresh', timeout=2) == 'fresh'


def test_a_hanging_program_costs_each_call_only_its_deadline(program):
    process = program()
    for _ in range(3):
        start = time.monotonic()
        with pytest.raises(ProgramTimeout):
            process.call('hang', timeout=0.05)
        assert time.monotonic() - start < 0.5
    process.close()
    assert not alive([process.pid])


@pytest.mark.parametrize('method, computes', [('hang', True), ('sleep', False)])
def test_a_program_that_computes_is_told_from_one_that_sleeps(program, method, computes):
    process = program()
    process.request(method, *([] if computes else [2.0, 'late']))
    assert until(lambda: process.runnable == computes)
    assert not process.busy or process.pending
    process.close()
    assert not process.runnable


def test_a_held_step_awaits_the_same_answer_and_asks_once(program):
    process = program()
    process.request('sleep', 0.15, 'the answer')
    late = 0
    while True:
        try:
            value = process.answer(timeout=0.025)
            break
        except ProgramTimeout:
            late += 1
            assert process.pending
    assert value == 'the answer' and late >= 2 and not process.pending


def test_a_cancelled_request_is_dropped(program):
    process = program()
    process.request('sleep', 0.1, 'unwanted')
    process.cancel()
    assert not process.pending
    assert process.call('echo', 'wanted', timeout=1) == 'wanted'


def test_a_second_request_before_the_answer_is_refused(program):
    process = program()
    process.request('sleep', 0.2, 1)
    with pytest.raises(RuntimeError, match='has not answered yet'):
        process.request('echo', 2)


def test_exit_code_and_signal_are_reported(program):
    with pytest.raises(ProgramExited, match=r'exited with code 7 in leave\(\)') as caught:
        program().call('leave', 7, timeout=2)
    assert caught.value.returncode == 7
    with pytest.raises(ProgramExited, match='SIGSEGV') as caught:
        program().call('crash', timeout=2)
    assert caught.value.returncode == -11


def test_an_ended_program_stays_ended(program):
    process = program()
    for _ in range(2):
        with pytest.raises(ProgramExited):
            process.call('leave', 1, timeout=2)
    assert not process.running


@pytest.fixture
def forks_allowed(tmp_path, monkeypatch):
    """As on a machine that cannot refuse system calls: what is left to do is done by the guard."""
    script = tmp_path / 'worker.py'
    script.write_text(textwrap.dedent(f'''
        import sys
        sys.path.insert(0, {os.path.dirname(program_worker.__file__)!r})
        import program_worker
        serve = program_worker.serve
        def without_seccomp(job):
            from enpire_bringup import program_isolation
            program_isolation.refuse_system_calls = lambda: False
            serve(job)
        program_worker.serve = without_seccomp
        program_worker.main()
        '''))
    monkeypatch.setattr(program_worker, '__file__', str(script))


@pytest.mark.parametrize('method, arguments', [('fork', ()), ('spawn', ()), ('send_datagram', ()),
                                               ('limit_station', (os.getpid(),))])
def test_the_program_starts_no_process_opens_no_socket_and_limits_nobody(program, method, arguments):
    if platform.machine() not in ('x86_64', 'aarch64'):
        pytest.skip('system calls are not refused on this machine')
    process = program()
    with pytest.raises(ProgramError, match=rf'{method}\(\): PermissionError') as caught:
        process.call(method, *arguments, timeout=2)
    assert f'in {method}' in caught.value.traceback
    assert process.call('echo', 1, timeout=1) == 1
    assert len(children_of(process.pid)) == 1


def test_closing_ends_children_that_left_the_session(forks_allowed, program):
    process = program()
    process.call('fork', timeout=2)
    # the program, three children, three of theirs
    assert until(lambda: len(children_of(process.pid)) == 7)
    below = children_of(process.pid)
    process.close()
    assert until(lambda: not alive(below))


def test_a_crash_ends_the_children_too(forks_allowed, program):
    process = program()
    process.call('fork', timeout=2)
    assert until(lambda: len(children_of(process.pid)) == 7)
    below = children_of(process.pid)
    with pytest.raises(ProgramExited):
        process.call('crash', timeout=3)
    assert until(lambda: not alive(below))


def test_the_program_dies_with_a_killed_station(tmp_path):
    """The station's process gets SIGKILL: it cannot tidy up, and nothing may be left."""
    import subprocess
    import sys
    file = tmp_path / 'program.py'
    file.write_text(PROGRAM)
    station = subprocess.Popen([sys.executable, '-c', textwrap.dedent(f'''
        import time
        from enpire_bringup.program_process import ProgramProcess
        process = ProgramProcess({str(file)!r}, 'Program', {{}})
        process.request('hang')
        print('up', flush=True)
        time.sleep(60)
        ''')], stdout=subprocess.PIPE)
    try:
        assert station.stdout.readline() == b'up\n'
        below = children_of(station.pid)
        assert len(below) == 2
    finally:
        station.kill()
        station.wait(5)
        station.stdout.close()
    assert until(lambda: not alive(below))


def test_a_program_that_prints_megabytes_fills_a_bounded_log(program, tmp_path):
    log = tmp_path / 'logs' / 'program.log'
    process = program(log_file=log)
    assert process.call('loud', timeout=10) == 'done'
    process.close()
    assert 900_000 < log.stat().st_size < 1_200_000
    assert b'more output was dropped' in log.read_bytes()[-100:]


def test_a_program_whose_output_is_limited_is_stopped_where_it_prints_too_much(program, tmp_path):
    process = program(log_file=tmp_path / 'logs' / 'program.log', output_is_limited=True)
    with pytest.raises(ProgramError, match=r'loud\(\): Stopped: it printed more than 1 MB') as caught:
        process.call('loud', timeout=10)
    assert "print('x' * 1000)" in caught.value.traceback


@pytest.mark.parametrize('method, arguments, said', [('share', (400 << 20,), 'it took more memory than it may'),
                                                     ('litter', (), 'it wrote more than 256 MB or 10000 files')])
def test_what_no_limit_of_the_kernel_counts_is_looked_at(program, method, arguments, said):
    process = program(memory_limit=300 << 20)
    with pytest.raises(ProgramError, match=rf'{method}\(\): Stopped: {said}'):
        process.call(method, *arguments, timeout=15)


def test_a_hanging_program_tells_where_it_hangs_when_it_is_interrupted(program):
    process = program()
    process.request('hang')
    with pytest.raises(ProgramTimeout):
        process.answer(timeout=0.05)
    traceback = process.interrupt(timeout=2.0)
    assert f'line {line_of("while True")}, in hang' in traceback or f'line {line_of("while True") + 1}' in traceback
    assert 'no answer in time' in traceback
    assert process.call('echo', 1, timeout=1) == 1
    assert process.interrupt(timeout=0.1) == '', 'nothing is asked'


def test_memory_is_bounded(program):
    process = program(memory_limit=300 << 20)
    with pytest.raises(ProgramError, match='MemoryError'):
        process.call('hoard', 1 << 30, timeout=5)


def test_an_answer_that_cannot_be_sent_names_its_type(program):
    with pytest.raises(ProgramError, match=r'returns_a_set\(\): .*a set'):
        program().call('returns_a_set', timeout=1)


def test_noise_on_the_pipe_ends_the_program_with_one_error(program):
    process = program()
    with pytest.raises(ProgramMalformed, match='wrote .* to the station; it was stopped'):
        process.call('babble', timeout=3)
    assert until(lambda: not alive([process.pid]))


def test_the_program_sees_no_ros_and_no_secrets(program, monkeypatch):
    monkeypatch.setenv('ROS_DOMAIN_ID', '44')
    monkeypatch.setenv('SOME_API_KEY', 'secret')
    process = program()
    environment = process.call('environment', timeout=1)
    assert not [name for name in environment if name.startswith('ROS') or 'KEY' in name]
    with pytest.raises(ProgramError, match='rclpy'):
        process.call('import_rclpy', timeout=1)


needs_landlock = pytest.mark.skipif(not landlock_version(), reason='this kernel has no Landlock')


@needs_landlock
def test_the_program_reads_its_folder_and_no_results(program, tmp_path):
    (tmp_path / 'notes.txt').write_text('for the policy')
    elsewhere = tmp_path.with_name(f'{tmp_path.name}_results')
    elsewhere.mkdir()
    (elsewhere / 'ledger.jsonl').write_text('{}')
    process = program()
    assert process.isolation == f'landlock {landlock_version()}+seccomp'
    assert process.call('read', str(tmp_path / 'notes.txt'), timeout=1) == 'for the policy'
    with pytest.raises(ProgramError, match='PermissionError'):
        process.call('read', str(elsewhere / 'ledger.jsonl'), timeout=1)


@needs_landlock
def test_results_stay_hidden_where_they_lie_in_a_folder_that_programs_import_from(tmp_path, monkeypatch):
    workspace, recipe = tmp_path / 'workspace', tmp_path / 'workspace' / 'runs' / 'c' / 'station_1' / 'recipe'
    recipe.mkdir(parents=True)
    (recipe / 'program.py').write_text(PROGRAM)
    (recipe.parent / 'ledger.jsonl').write_text('{}')
    (workspace / 'notes.txt').write_text('for everybody')
    monkeypatch.setattr(sys, 'path', [*sys.path, str(workspace)])
    monkeypatch.setenv('ENPIRE_RUNS', str(workspace / 'runs'))
    with ProgramProcess(recipe / 'program.py', 'Program', {}) as process:
        assert process.call('read', str(workspace / 'notes.txt'), timeout=1) == 'for everybody'
        assert process.call('read', str(recipe / 'program.py'), timeout=1) == PROGRAM
        with pytest.raises(ProgramError, match='PermissionError'):
            process.call('read', str(recipe.parent / 'ledger.jsonl'), timeout=1)


@needs_landlock
def test_the_program_cannot_change_its_recipe(program, tmp_path):
    process = program()
    for file in (tmp_path / 'program.py', tmp_path / 'new.txt', '/etc/enpire_test'):
        with pytest.raises(ProgramError, match='PermissionError'):
            process.call('write', str(file), timeout=1)


@needs_landlock
def test_the_program_cannot_signal_the_station(program):
    if landlock_version() < 6:
        pytest.skip('this kernel cannot scope signals')
    process = program()
    for pid in (os.getpid(), process.pid):
        with pytest.raises(ProgramError, match='PermissionError'):
            process.call('signal', pid, timeout=1)


@needs_landlock
def test_the_program_cannot_connect_to_a_server(program):
    import socket
    if landlock_version() < 4:
        pytest.skip('this kernel cannot keep a program from TCP')
    with socket.create_server(('127.0.0.1', 0)) as server:
        with pytest.raises(ProgramError, match='PermissionError'):
            program().call('connect', server.getsockname()[1], timeout=3)


def test_the_scratch_folder_goes_with_the_program(program):
    process = program()
    folder = process.call('scratch', timeout=1)
    assert os.listdir(folder)
    process.close()
    assert not os.path.exists(folder)


def test_closing_twice_and_calling_after_it_is_harmless(program):
    process = program()
    process.close()
    process.close()
    with pytest.raises(ProgramExited):
        process.call('echo', 1, timeout=1)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ProgramError, match='policy.py: no such file'):
        ProgramProcess(tmp_path / 'policy.py', 'Policy', {})


@pytest.mark.parametrize('frame', [
    b'\xff\xff\xff\xff', b'\x02\x00\x00\x00{}', b'\x04\x00\x00\x00null', b'\x02\x00\x00\x00[[',
    encode({}, np.zeros(3)).replace(b'"<f8"', b'"|O" '),
    encode({}, np.zeros(3)).replace(b'[3]', b'-11'),
    encode({}, np.zeros(1)).replace(b'"__array__": 0', b'"__array__": 9'),
    encode({}, np.zeros(3)).replace(b'"shape": [3]', b'"shape": 1e9'),
])
def test_a_malformed_frame_is_refused(frame):
    reader = FrameReader()
    with pytest.raises(FrameError):
        reader.feed(frame)
        reader.next()


def test_package_folder_on_sys_path_hides_no_standard_module(tmp_path, monkeypatch):
    """OpenCV puts its folder, which holds a `typing`, on sys.path while it is being imported."""
    package = tmp_path / 'package'
    (package / 'typing').mkdir(parents=True)
    (package / '__init__.py').touch()
    (package / 'typing' / '__init__.py').touch()
    program = tmp_path / 'program.py'
    program.write_text('from typing import Any\n\n\nclass Program:\n    def __init__(self, config):\n        pass\n\n'
                       '    def ping(self):\n        return 1\n')
    monkeypatch.setattr(sys, 'path', [str(package), *sys.path])
    process = ProgramProcess(program, 'Program', {})
    try:
        assert process.call('ping', timeout=5.0) == 1
    finally:
        process.close()
