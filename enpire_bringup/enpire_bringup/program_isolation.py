"""How far a program is kept from what is not its own, by what this machine has; each level has a name. Standard library only.

    landlock     the kernel's own confinement (program_confinement.py): no privilege, no program, holds for root too
    bubblewrap   where the kernel has no Landlock and the program `bwrap` works
    user         else, as root: the user `nobody`, in a file system in which results do not appear
    limits       else: limits of memory, files and threads, and nothing that keeps the program from files: weak

To each, "+seccomp" is added where system calls are filtered, e.g. "landlock 7+seccomp".
"""

import ctypes
import functools
import glob
import os
import shutil
import subprocess
import sys

from enpire_bringup.program_confinement import (DEVICES, SYSTEM, confine, drop_capabilities, landlock_version,
                                                refuse_system_calls)

LANDLOCK, BUBBLEWRAP, USER, LIMITS = 'landlock', 'bubblewrap', 'user', 'limits'
WEAK = ('isolation is weak: policies and training code could read and change results. Way out: a kernel with Landlock '
        '(Linux 5.13; lsm=landlock,... on its command line), or: sudo apt-get install -y bubblewrap')

_NOBODY = 65534
_CLONE_NEWNS, _MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x20000, 2, 4, 0x1000, 0x4000, 1 << 18
_PR_SET_PDEATHSIG = 1


@functools.lru_cache(maxsize=1)
def strongest_level() -> str:
    """The level that programs get on this machine."""
    if landlock_version():
        return LANDLOCK
    if bubblewrap_works():
        return BUBBLEWRAP
    return USER if os.geteuid() == 0 else LIMITS


def is_weak(isolation: str) -> bool:
    """Whether files that are not its own were within the program's reach. isolation: as a trial records it."""
    return isolation.startswith(LIMITS)


def bubblewrap_works() -> bool:
    """Installed, and allowed to make namespaces here."""
    if not shutil.which('bwrap'):
        return False
    probe = ['bwrap', '--unshare-all', '--ro-bind', '/', '/', '--proc', '/proc', 'true']
    try:
        return subprocess.run(probe, stdin=subprocess.DEVNULL, capture_output=True, timeout=5).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def isolate(level: str, readable: list, scratch: str, hidden: list) -> str:
    """Bring this process, for good, to a level; in a program's process, before its first line. Returns the name.

    readable: its own folders and where it imports from; scratch: the only folder that it may write to; hidden: not to
    be read although they lie in one that may. BUBBLEWRAP: this process was started by `bubblewrap_command`.
    """
    if level == LANDLOCK:
        confine(readable, [scratch], hidden)
        level = f'{LANDLOCK} {landlock_version()}'
    elif level == USER and not _become_nobody(readable, scratch, hidden):
        level = LIMITS
    drop_capabilities()
    return f'{level}+seccomp' if refuse_system_calls() else level


def bubblewrap_command(command: list, own: list, imported: list, scratch: str, hidden: list) -> list:
    """`command` in a file system that has no more than the system, what it imports, its own folders and scratch."""
    bound = []
    interpreter = os.path.dirname(os.path.dirname(os.path.abspath(sys.executable)))     # its virtual environment
    for path in dict.fromkeys((*SYSTEM, sys.prefix, sys.base_prefix, interpreter)):
        bound += ['--ro-bind-try', path, path]
    for path in [path for pattern in DEVICES[5:] for path in glob.glob(pattern)]:
        bound += ['--dev-bind-try', path, path]
    for path in dict.fromkeys(imported):
        bound += ['--ro-bind-try', path, path]
    for path in hidden:
        bound += ['--tmpfs', path] if os.path.isdir(path) else []
    for path in dict.fromkeys(own):
        bound += ['--ro-bind', path, path]
    bound += ['--bind', scratch, scratch]
    # Nobody would see what it writes into the memory behind the folders that are made here.
    for path in ('/', '/dev', *filter(os.path.isdir, hidden)):
        bound += ['--remount-ro', path]
    # As process 1 the program is the only one below bwrap, so that the guard finds it.
    return ['bwrap', '--unshare-all', '--as-pid-1', '--die-with-parent', '--cap-drop', 'ALL', '--dev', '/dev', '--proc',
            '/proc', *bound, '--', *command]


def _become_nobody(readable: list, scratch: str, hidden: list) -> bool:
    """Give up root for `nobody`, who sees neither the hidden folders nor the machine's shared memory.

    False where that cannot be done: no right to mount, or files of the program that only root may read.
    """
    if os.geteuid() != 0 or not all(_nobody_may_read(path) for path in readable if os.path.exists(path)):
        return False
    libc = ctypes.CDLL(None, use_errno=True)

    def mount(source: str, target: str, kind, flags: int) -> bool:
        return libc.mount(source.encode(), target.encode(), kind, ctypes.c_ulong(flags), None) == 0

    if libc.unshare(_CLONE_NEWNS) or not mount('none', '/', None, _MS_REC | _MS_PRIVATE):
        return False
    own = [(path, os.open(path, os.O_PATH)) for path in readable if os.path.isdir(path)]
    for folder in (*hidden, '/dev/shm'):
        if os.path.isdir(folder) and not mount('tmpfs', folder, b'tmpfs', _MS_NOSUID | _MS_NODEV):
            return False
    for path, descriptor in own:
        if not os.path.isdir(path):
            os.makedirs(path)
            mount(f'/proc/self/fd/{descriptor}', path, None, _MS_BIND)
        os.close(descriptor)
    os.chown(scratch, _NOBODY, _NOBODY)
    os.setgroups([])
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    libc.prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0)      # which a change of user forgets
    return True


def _nobody_may_read(path: str) -> bool:
    os.seteuid(_NOBODY)
    try:
        return os.access(path, os.R_OK | (os.X_OK if os.path.isdir(path) else 0), effective_ids=True)
    finally:
        os.seteuid(0)
