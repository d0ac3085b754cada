"""Sets up everything that the suite needs: apt packages, virtual environment, message packages, environment file.

Started by `./enpire` and `make` when something that it depends on has changed (`environment.bash` decides); it can be
interrupted at any moment and goes on where it was. Uses the standard library only, as nothing is installed yet.

    set_up.py --root FOLDER --fingerprint HEX [--ros FILE] [-- COMMAND ...]     # becomes COMMAND when all is set up
"""

from __future__ import annotations

import argparse
import ctypes
import ctypes.util
import fcntl
import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

HEARTBEAT = 10.0                  # s between two signs of life of a long step
PATH_VARIABLES = ('PATH', 'PYTHONPATH', 'LD_LIBRARY_PATH', 'AMENT_PREFIX_PATH', 'CMAKE_PREFIX_PATH')
_UNFINISHED = 'unfinished\n'
PACKAGES = ('enpire_bringup', 'enpire_reward', 'enpire_reset', 'enpire_agent')


class SetUpError(Exception):
    """Set-up cannot go on; the message says what to do."""


class SetUp:
    """One checkout's set-up.

    Every step leaves a stamp of what it was made from and is skipped while that holds. A step that was interrupted, or
    that failed, is done anew from the start.
    """

    def __init__(self, root: Path, ros_setup: str):
        self.root = root
        self.venv = root / '.venv'
        self.stamps = self.venv / 'enpire_stamps'
        self.log = self.venv / 'enpire_log'
        self.ros_setup = ros_setup if ros_setup and _has_rclpy() else ''

    @property
    def python(self) -> Path:
        return self.venv / 'bin' / 'python'

    def run(self, fingerprint: str) -> None:
        with _only_one(self.root):
            if self._fingerprint() == fingerprint:      # another set-up did it while this one waited
                return
            started = time.monotonic()
            self.system_packages()
            self.virtual_environment()
            self.python_packages()
            self.interfaces()
            self.own_packages()
            self.environment_file()
            (self.venv / 'enpire_ros').write_text(self.ros_setup)
            (self.venv / 'enpire_fingerprint').write_text(fingerprint + '\n')
            if time.monotonic() - started > 3:
                say(f'set up in {time.monotonic() - started:.0f} s')

    def _fingerprint(self) -> str:
        file = self.venv / 'enpire_fingerprint'
        return file.read_text().strip() if file.exists() else ''

    def system_packages(self) -> None:
        missing = missing_system_packages(self.root / 'apt.txt')
        if not missing:
            return
        if not shutil.which('apt-get'):
            raise SetUpError(f"this machine lacks {', '.join(missing)} (names of Debian packages); install them")
        rights = _rights_to_install()
        if rights is None:
            raise SetUpError('some system packages are missing; type this, then the same command again:\n\n'
                             f"    sudo apt-get install -y {' '.join(missing)}\n")
        environment = {**os.environ, 'DEBIAN_FRONTEND': 'noninteractive'}
        install = [*rights, 'apt-get', 'install', '-y', '--no-install-recommends', *missing]
        log = Path(tempfile.gettempdir()) / f'enpire_apt_{os.getuid()}.log'
        run(f"installing the system packages {' '.join(missing)}", [*rights, 'apt-get', 'update'], log,
            env=environment)
        run('', install, log, env=environment)

    def virtual_environment(self) -> None:
        made_from = f'{self.root}\n{sys.version}\n{self.ros_setup}\n'
        if self._is_current('venv', made_from) and self.python.exists() and not self._was_interrupted('pip'):
            return
        if self.venv.exists():
            say('making the virtual environment anew (unfinished, or another Python, another ROS 2 or another folder)')
            shutil.rmtree(self.venv)
        else:
            say(f'setting up {self.root}; the first time takes a few minutes')
        for folder in ('build', 'install', 'log'):       # they belong to the environment they were built in
            shutil.rmtree(self.root / folder, ignore_errors=True)
        options = ['--system-site-packages'] if self.ros_setup else []
        log = Path(tempfile.gettempdir()) / f'enpire_venv_{os.getuid()}.log'
        version = '.'.join(map(str, sys.version_info[:3]))
        run(f'making the virtual environment .venv with Python {version}',
            [sys.executable, '-m', 'venv', *options, str(self.venv)], log)
        self._done('venv', made_from)

    def python_packages(self) -> None:
        files = [self.root / name for name in ('requirements.txt', 'requirements-build.txt')]
        if not self.ros_setup:
            files.append(self.root / 'requirements-ros.txt')
        made_from = _digest([*files, self.root / 'constraints.txt'])
        if self._is_current('pip', made_from):
            return
        arguments = [part for file in files for part in ('-r', str(file))]
        self._begin('pip')
        run('installing the Python packages' + (' and ROS 2' if not self.ros_setup else ''),
            [str(self.python), '-m', 'pip', 'install', '--no-input', '--disable-pip-version-check',
             '--progress-bar', 'off', '-c', str(self.root / 'constraints.txt'), *arguments],
            self.log / 'pip.log', interesting=re.compile(r'^(?:Collecting|Downloading|Installing) '))
        if not self.ros_setup:
            _correct_wheel_paths(self.venv, self.python)
        self._done('pip', made_from)

    def interfaces(self) -> None:
        """Message packages: slow to build, so only when they have changed."""
        folders = [self.root / 'enpire_msgs']
        for package in ('control_msgs', 'tf2_msgs'):
            if not self._ros_has(package):
                folders.append(self.root / 'enpire_bringup' / 'wheel_interfaces' / package)
        files = [file for folder in folders for file in sorted(folder.rglob('*')) if file.is_file()]
        made_from = _digest([*files, self.root / 'colcon.meta']) + self._stamp('pip')
        if not self._is_current('interfaces', made_from):
            if self._was_interrupted('interfaces'):
                self._remove_built(folders)
            self._begin('interfaces')
            self._colcon('building the message packages ' + ', '.join(folder.name for folder in folders),
                         folders, 'interfaces.log')
            self._done('interfaces', made_from)

    def own_packages(self) -> None:
        folders = [self.root / package for package in PACKAGES]
        files = [folder / name for folder in folders for name in ('setup.py', 'setup.cfg', 'package.xml')]
        data = [str(file.relative_to(self.root)) for folder in ('launch', 'config', 'description', 'rviz', 'tasks')
                for file in sorted((self.root / 'enpire_bringup' / folder).rglob('*'))
                if file.is_file() and '__pycache__' not in file.parts]
        made_from = _digest(files) + '\n'.join(data) + self._stamp('interfaces')
        if not self._is_current('packages', made_from):
            if self._was_interrupted('packages'):
                self._remove_built(folders)
            self._begin('packages')
            self._colcon('building the Python packages', folders, 'packages.log')
            self._done('packages', made_from)

    def environment_file(self) -> None:
        """Write .venv/enpire_environment.bash: sourcing it is much faster than colcon's own scripts."""
        clean = {**self._build_environment(), 'ROOT': str(self.root)}
        before = {name: clean.get(name, '').split(':') for name in PATH_VARIABLES}
        output = subprocess.run(
            ['bash', '-c', 'source "$ROOT/install/local_setup.bash" >/dev/null && env -0'],
            env=clean, check=True, capture_output=True, text=True).stdout
        after = dict(entry.split('=', 1) for entry in output.split('\0') if '=' in entry)
        lines = ['# Written by enpire_bringup/setup/set_up.py; what `source install/local_setup.bash` gives, and more.']
        if self.ros_setup:
            lines += [f'[ -n "${{ROS_DISTRO:-}}" ] || {{ set +u; source {shlex.quote(self.ros_setup)}; set -u; }}']
        for name in PATH_VARIABLES:
            added = [entry for entry in after.get(name, '').split(':') if entry and entry not in before[name]]
            added = self._own_entries(name) + added
            if added:
                lines.append(f'export {name}={shlex.quote(":".join(added))}${{{name}:+:${name}}}')
        if not self.ros_setup:
            # Without these two, the wheels' start-up file executes every Python a second time.
            lines.append('export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1')
        lines.append(f'export MUJOCO_GL=${{MUJOCO_GL:-{_renderer()}}}')
        file = self.venv / 'enpire_environment.bash'
        temporary = file.with_suffix('.tmp')
        temporary.write_text('\n'.join(lines) + '\n')
        temporary.replace(file)

    def _own_entries(self, name: str) -> list[str]:
        entries = {'PATH': [self.venv / 'bin'], 'PYTHONPATH': [self.root / package for package in PACKAGES]}
        if not self.ros_setup:
            site = Path(subprocess.run([str(self.python), '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))'],
                                       check=True, capture_output=True, text=True).stdout.strip())
            entries['AMENT_PREFIX_PATH'] = entries['CMAKE_PREFIX_PATH'] = [self.venv]
            entries['LD_LIBRARY_PATH'] = [self.venv / 'lib', *sorted(site.glob('ros_*.libs'))]
        return [str(entry) for entry in entries.get(name, ())]

    def _ros_has(self, package: str) -> bool:
        if not self.ros_setup:
            return False
        prefixes = os.environ.get('AMENT_PREFIX_PATH', '').split(':')
        return any((Path(prefix) / 'share' / package / 'package.xml').is_file()
                   for prefix in prefixes if prefix and self.root not in Path(prefix).parents)

    def _build_environment(self) -> dict[str, str]:
        """The environment in which colcon builds, and on top of which the environment file comes."""
        environment = dict(os.environ)
        for name in ('PYTHONPATH', 'LD_LIBRARY_PATH', '_ROS_WHEELS_BOOTSTRAP_COMPLETE'):
            if not self.ros_setup:
                environment.pop(name, None)
        environment['PATH'] = f'{self.venv / "bin"}:{environment["PATH"]}'
        if not self.ros_setup:
            environment['AMENT_PREFIX_PATH'] = environment['CMAKE_PREFIX_PATH'] = str(self.venv)
        return environment

    def _colcon(self, what: str, folders: list[Path], log: str) -> None:
        run(what, [str(self.venv / 'bin' / 'python'), '-m', 'colcon', '--log-base', str(self.root / 'log'), 'build',
                   '--symlink-install', '--event-handlers', 'console_direct-', 'status-',
                   '--base-paths', *map(str, folders),
                   '--build-base', str(self.root / 'build'), '--install-base', str(self.root / 'install'),
                   '--metas', str(self.root / 'colcon.meta'), '--cmake-args', '-DBUILD_TESTING=OFF',
                   f'-DPython3_EXECUTABLE={self.python}'],
            self.log / log, env=self._build_environment(), cwd=self.root,
            interesting=re.compile(r'^(?:Starting >>>|Finished <<<|Failed) '))

    def _stamp(self, step: str) -> str:
        file = self.stamps / step
        return file.read_text() if file.exists() else ''

    def _is_current(self, step: str, made_from: str) -> bool:
        return self._stamp(step) == made_from

    def _begin(self, step: str) -> None:
        """Note that a step has begun: what an interrupted one left behind may look finished and not be."""
        self.stamps.mkdir(parents=True, exist_ok=True)
        (self.stamps / step).write_text(_UNFINISHED)

    def _was_interrupted(self, step: str) -> bool:
        return self._stamp(step) == _UNFINISHED

    def _remove_built(self, folders: list[Path]) -> None:
        for folder in folders:
            for base in ('build', 'install'):
                shutil.rmtree(self.root / base / folder.name, ignore_errors=True)

    def _done(self, step: str, made_from: str) -> None:
        self.stamps.mkdir(parents=True, exist_ok=True)
        temporary = self.stamps / f'{step}.tmp'
        temporary.write_text(made_from)
        temporary.replace(self.stamps / step)


def say(text: str) -> None:
    print(f'enpire: {text}', file=sys.stderr, flush=True)


def run(what: str, command: list[str], log: Path, interesting: re.Pattern | None = None, **options) -> None:
    """Run a step with its output in `log`, saying now and then how far it is.

    Raises SetUpError with the end of the log when it fails.
    """
    if what:
        say(f'{what} ...')
    log.parent.mkdir(parents=True, exist_ok=True)
    started = said = time.monotonic()
    with log.open('w') as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                                   start_new_session=True, preexec_fn=_end_with_parent, **options)
    try:
        while process.poll() is None:
            time.sleep(0.1)
            if time.monotonic() - said > HEARTBEAT:
                said = time.monotonic()
                lines = [line.strip() for line in log.read_text(errors='replace').splitlines()
                         if interesting is None or interesting.match(line)]
                say(f'  {said - started:4.0f} s  {lines[-1][:90] if lines else ""}')
    except BaseException:
        _end_group(process)
        raise
    if process.returncode:
        tail = '\n    '.join(log.read_text(errors='replace').splitlines()[-15:])
        raise SetUpError(f'{what or command[0]} failed; the end of {log}:\n    {tail}')


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)      # PR_SET_PDEATHSIG


def _end_group(process: subprocess.Popen) -> None:
    """End a step's whole process group within 3 s."""
    for number, patience in ((signal.SIGINT, 1.0), (signal.SIGTERM, 1.0), (signal.SIGKILL, 1.0)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        end = time.monotonic() + patience
        while time.monotonic() < end:
            process.poll()
            try:
                os.killpg(process.pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.05)


def missing_system_packages(apt_file: Path) -> list[str]:
    """Packages of apt.txt whose purpose nothing on this machine serves, and the ones this Python lacks."""
    present = {
        'libosmesa6': lambda: ctypes.util.find_library('OSMesa') or ctypes.util.find_library('EGL'),
        'git': lambda: shutil.which('git'),
        'make': lambda: shutil.which('make'),
        'gcc': lambda: shutil.which('gcc') or shutil.which('cc'),
        'g++': lambda: shutil.which('g++') or shutil.which('c++'),
    }
    lines = (line.partition('#')[0].strip() for line in apt_file.read_text().splitlines())
    missing = [name for name in lines if name and not present.get(name, lambda: _dpkg_has(name))()]
    version = f'python{sys.version_info[0]}.{sys.version_info[1]}'
    if subprocess.run([sys.executable, '-c', 'import ensurepip, venv'], capture_output=True).returncode:
        missing.append(f'{version}-venv')
    if not (Path(sysconfig.get_path('include')) / 'Python.h').is_file():
        missing.append(f'{version}-dev')
    return missing


def _dpkg_has(package: str) -> bool:
    if not shutil.which('dpkg'):
        return True
    return subprocess.run(['dpkg', '-s', package], capture_output=True).returncode == 0


def _rights_to_install() -> list[str] | None:
    """Prefix of commands that need root; None when there is no way without a password."""
    if os.geteuid() == 0:
        return []
    if shutil.which('sudo') and subprocess.run(['sudo', '-n', 'true'], capture_output=True).returncode == 0:
        return ['sudo', '-n']
    return None


def _has_rclpy() -> bool:
    return subprocess.run([sys.executable, '-c', 'import rclpy'], capture_output=True).returncode == 0


def _renderer() -> str:
    """MuJoCo's off-screen renderer: OSMesa where it is, for it gives the same pixels on every machine."""
    return 'osmesa' if ctypes.util.find_library('OSMesa') else 'egl'


def _correct_wheel_paths(venv: Path, python: Path) -> None:
    """Replace the build machine's paths that the ROS 2 wheels' CMake files carry with this machine's.

    Idempotent; necessary after every installation of a ROS 2 wheel.
    """
    script = 'import sysconfig, numpy; print(sysconfig.get_path("include")); print(numpy.get_include())'
    include, numpy_include = subprocess.run([str(python), '-c', script], check=True, capture_output=True,
                                            text=True).stdout.split()
    replacements = (
        (re.compile(r'/opt/python/cp\d+-cp\d+/include/python3\.\d+'), include),
        (re.compile(r'/opt/python/cp\d+-cp\d+/lib/python3\.\d+/site-packages/numpy/_?core/include'), numpy_include),
    )
    for file in (venv / 'share').rglob('*.cmake'):
        text = file.read_text(errors='surrogateescape')
        new = text
        for pattern, path in replacements:
            new = pattern.sub(path.replace('\\', r'\\'), new)
        if new != text:
            file.write_text(new, errors='surrogateescape')


def _digest(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(f'{file}\0'.encode() + file.read_bytes() + b'\0')
    return digest.hexdigest() + '\n'


class _only_one:
    """Two set-ups of one checkout take turns."""

    def __init__(self, root: Path):
        name = hashlib.sha256(str(root).encode()).hexdigest()[:16]
        self._path = Path(tempfile.gettempdir()) / f'enpire_setup_{os.getuid()}_{name}.lock'

    def __enter__(self) -> None:
        self._file = self._path.open('w')
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say('waiting for another set-up of this folder to end (Ctrl-C to give up)')
            fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_) -> None:
        self._file.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--root', type=Path, required=True)
    parser.add_argument('--fingerprint', required=True)
    parser.add_argument('--ros', default='', metavar='FILE', help='setup.bash of the sourced ROS 2; empty: wheels')
    parser.add_argument('command', nargs='*')
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        SetUp(options.root, options.ros).run(options.fingerprint)
    except SetUpError as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        say('set-up interrupted; the same command goes on where it was')
        return 130
    if options.command:
        os.execvp(options.command[0], options.command)
    return 0


if __name__ == '__main__':
    sys.exit(main())
