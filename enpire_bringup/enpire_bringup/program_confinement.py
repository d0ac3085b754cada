"""Confines the calling process: what it may read and write (Landlock), and call (seccomp). Standard library only.

For programs in a child process (program_worker.py). Landlock is in the Linux kernel since 5.13, seccomp filters since
3.17; neither needs a privilege, both hold for root, too. Reference: the kernel's
Documentation/userspace-api/landlock.rst and seccomp_filter.rst.
"""

import ctypes
import errno
import glob
import os
import platform
import struct
import sys

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446      # the same on every architecture
_PATH_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV     # rights that a single file can have
# Rights by the version of Landlock that knows them first: bits 0 to 12, then rename, truncate, ioctl.
_FILE_RIGHTS = ((1, (1 << 13) - 1), (2, 1 << 13), (3, _TRUNCATE), (5, _IOCTL_DEV))
_ALL_TCP = 0b11             # bind and connect, version 4
_ALL_SCOPES = 0b11          # abstract sockets of others, signals to others: version 6

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_LOAD, _JUMP_EQUAL, _JUMP_SET, _RETURN = 0x20, 0x15, 0x45, 0x06         # instructions of the filter
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16                      # offsets in struct seccomp_data
_CLONE_THREAD = 0x10000
# machine -> (number of its architecture, numbers of its system calls)
_SYSTEM_CALLS = {
    'x86_64': (0xC000003E, {'clone': 56, 'fork': 57, 'vfork': 58, 'clone3': 435, 'socket': 41, 'prlimit64': 302,
                            'io_uring_setup': 425}),
    'aarch64': (0xC00000B7, {'clone': 220, 'clone3': 435, 'socket': 198, 'prlimit64': 261, 'io_uring_setup': 425}),
}

# Where programs and libraries live, and what libraries look into.
_SYSTEM = ('/usr', '/bin', '/sbin', '/lib', '/lib32', '/lib64', '/opt', '/etc', '/proc', '/sys')
_DEVICES = ('/dev/null', '/dev/zero', '/dev/full', '/dev/random', '/dev/urandom', '/dev/nvidia*', '/dev/dri')


def landlock_version() -> int:
    """Version of the kernel's Landlock, 0 where there is none."""
    libc = ctypes.CDLL(None, use_errno=True)
    return max(0, libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1)))


def confine(readable, writable, hidden=()) -> bool:
    """Keep this process, for good, from everything but the system's libraries and the folders given.

    readable: files and folders that may be read besides; writable: folders that may be written; hidden: folders that
    may not be read although they lie in one that may. No TCP, no signals to processes outside (as far as the
    kernel's version goes).
    Returns False where the kernel has no Landlock; nothing is confined then. Raises OSError when it fails.
    """
    version = landlock_version()
    if not version:
        return False
    handled = 0
    for since, rights in _FILE_RIGHTS:
        handled |= rights if version >= since else 0
    tcp, scopes = _ALL_TCP if version >= 4 else 0, _ALL_SCOPES if version >= 6 else 0
    attributes = struct.pack('=QQQ', handled, tcp, scopes)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = _call(_CREATE_RULESET, ctypes.c_char_p(attributes), ctypes.c_size_t(size), ctypes.c_uint32(0))
    hidden = [os.path.realpath(path) for path in hidden]
    for path in (*_SYSTEM, sys.prefix, sys.base_prefix, *readable):
        for part in _without(os.path.realpath(path), hidden):
            _allow(ruleset, part, _READ & handled)
    for pattern in _DEVICES:
        for path in glob.glob(pattern):
            _allow(ruleset, path, (_READ_FILE | _READ_DIR | _WRITE_FILE | _IOCTL_DEV) & handled)
    for path in writable:
        _allow(ruleset, path, handled)
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), 'prctl(PR_SET_NO_NEW_PRIVS)')
    _call(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    os.close(ruleset)
    return True


def refuse_system_calls() -> bool:
    """Let this process, for good, start threads but no process, open no socket, and limit nobody but itself.

    What it may not do fails with PermissionError. Returns False where the kernel or the machine cannot do that.
    """
    if platform.machine() not in _SYSTEM_CALLS:
        return False
    architecture, numbers = _SYSTEM_CALLS[platform.machine()]

    def statement(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
        return struct.pack('=HBBI', code, if_true, if_false, value)

    def refused(name: str, error: int = errno.EPERM) -> list[bytes]:
        if name not in numbers:
            return []
        return [statement(_JUMP_EQUAL, numbers[name], 0, 1), statement(_RETURN, _ERROR | error)]

    program = [statement(_LOAD, _ARCHITECTURE), statement(_JUMP_EQUAL, architecture, 1, 0),
               statement(_RETURN, _ERROR | errno.EPERM),       # calls in another machine's manner
               statement(_LOAD, _NUMBER), *refused('fork'), *refused('vfork'), *refused('socket', errno.EACCES),
               # The C library then takes `clone`, whose arguments can be looked at; for the other, nobody needs it.
               *refused('clone3', errno.ENOSYS), *refused('io_uring_setup', errno.ENOSYS),
               statement(_JUMP_EQUAL, numbers['clone'], 0, 4), statement(_LOAD, _FIRST_ARGUMENT),
               statement(_JUMP_SET, _CLONE_THREAD, 0, 1), statement(_RETURN, _ALLOW),
               statement(_RETURN, _ERROR | errno.EPERM),
               statement(_JUMP_EQUAL, numbers['prlimit64'], 0, 3), statement(_LOAD, _FIRST_ARGUMENT),
               statement(_JUMP_EQUAL, 0, 1, 0), statement(_RETURN, _ERROR | errno.EPERM), statement(_RETURN, _ALLOW)]
    if platform.machine() == 'x86_64':
        # Numbers from 0x40000000 on are the same calls once more (x32).
        program[4:4] = [statement(_JUMP_SET, 0x40000000, 0, 1), statement(_RETURN, _ERROR | errno.EPERM)]
    code = ctypes.create_string_buffer(b''.join(program))
    # struct sock_fprog: how many instructions, where they are
    where = struct.pack('@HP', len(program), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.c_char_p(where), 0, 0) == 0


def _without(path: str, hidden: list) -> list:
    """`path`, or all that lies in it but the hidden folders where it holds some: rules hold for all that is below."""
    inside = [folder for folder in hidden if f'{folder}/'.startswith(f'{path}/')]
    if not inside:
        return [path]
    if path in inside:
        return []
    try:
        return [part for entry in os.scandir(path) if not entry.is_symlink()      # it may lead to what is hidden
                for part in _without(entry.path, inside)]
    except OSError:
        return []


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return      # what is not there needs no right
    try:
        if not os.path.isdir(path):
            rights &= _FILE
        rule = ctypes.c_char_p(struct.pack('=Qi', rights, fd))
        _call(_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(_PATH_BENEATH), rule, ctypes.c_uint32(0))
    finally:
        os.close(fd)


def _call(number: int, *arguments) -> int:
    result = ctypes.CDLL(None, use_errno=True).syscall(number, *arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f'Landlock system call {number}: {os.strerror(error)}')
    return result
