"""Confines the calling process with Landlock: what it may read, write and reach. Standard library only.

For programs in a child process (program_worker.py). Landlock is in the Linux kernel since 5.13 and needs no
privilege; it holds for root, too, and for every process that the confined one starts. Reference: the kernel's
Documentation/userspace-api/landlock.rst.
"""

import ctypes
import glob
import os
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

# Where programs and libraries live, and what libraries look into.
_SYSTEM = ('/usr', '/bin', '/sbin', '/lib', '/lib32', '/lib64', '/opt', '/etc', '/proc', '/sys')
_DEVICES = ('/dev/null', '/dev/zero', '/dev/full', '/dev/random', '/dev/urandom', '/dev/nvidia*', '/dev/dri')


def landlock_version() -> int:
    """Version of the kernel's Landlock, 0 where there is none."""
    libc = ctypes.CDLL(None, use_errno=True)
    return max(0, libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1)))


def confine(readable, writable) -> bool:
    """Keep this process, for good, from everything but the system's libraries and the folders given.

    readable: files and folders that may be read besides; writable: folders that may be written. No TCP, no
    signals to processes outside (as far as the kernel's version goes).
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
    for path in (*_SYSTEM, sys.prefix, sys.base_prefix, *readable):
        _allow(ruleset, path, _READ & handled)
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
