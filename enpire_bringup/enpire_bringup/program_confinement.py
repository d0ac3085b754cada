"""Confines the calling process: what it may read and write (Landlock), and call (seccomp). Standard library only.

Where the kernel has no Landlock, program_isolation.py has what stands in for it.

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
# What a program has no business with, and Landlock does not keep it from: other processes, the rights and times of
# files (also of those that it may not open), clocks, memory that belongs to no process, the kernel.
_REFUSED = (
    'fork', 'vfork', 'execve', 'execveat', 'ptrace', 'process_vm_readv', 'process_vm_writev', 'tkill', 'rt_sigqueueinfo',
    'rt_tgsigqueueinfo', 'pidfd_send_signal', 'setpriority', 'sched_setscheduler', 'sched_setparam', 'sched_setattr',
    'sched_setaffinity', 'ioprio_set', 'chmod', 'fchmod', 'fchmodat', 'fchmodat2', 'chown', 'lchown', 'fchown', 'fchownat',
    'utime', 'utimes', 'futimesat', 'utimensat', 'setxattr', 'lsetxattr', 'fsetxattr', 'removexattr', 'lremovexattr',
    'fremovexattr', 'clock_settime', 'settimeofday', 'adjtimex', 'clock_adjtime', 'shmget', 'msgget', 'semget', 'mq_open',
    'memfd_create', 'memfd_secret', 'unshare', 'setns', 'bpf', 'perf_event_open', 'userfaultfd')
# machine -> (number of its architecture, numbers of its system calls)
_SYSTEM_CALLS = {
    'x86_64': (0xC000003E, {
        'clone': 56, 'clone3': 435, 'socket': 41, 'prlimit64': 302, 'io_uring_setup': 425, 'kill': 62, 'tgkill': 234,
        'fork': 57, 'vfork': 58, 'execve': 59, 'execveat': 322, 'ptrace': 101, 'process_vm_readv': 310,
        'process_vm_writev': 311, 'tkill': 200, 'rt_sigqueueinfo': 129, 'rt_tgsigqueueinfo': 297,
        'pidfd_send_signal': 424, 'setpriority': 141, 'sched_setscheduler': 144, 'sched_setparam': 142,
        'sched_setattr': 314, 'sched_setaffinity': 203, 'ioprio_set': 251, 'chmod': 90, 'fchmod': 91, 'fchmodat': 268,
        'fchmodat2': 452, 'chown': 92, 'lchown': 94, 'fchown': 93, 'fchownat': 260, 'utime': 132, 'utimes': 235,
        'futimesat': 261, 'utimensat': 280, 'setxattr': 188, 'lsetxattr': 189, 'fsetxattr': 190, 'removexattr': 197,
        'lremovexattr': 198, 'fremovexattr': 199, 'clock_settime': 227, 'settimeofday': 164, 'adjtimex': 159,
        'clock_adjtime': 305, 'shmget': 29, 'msgget': 68, 'semget': 64, 'mq_open': 240, 'memfd_create': 319,
        'memfd_secret': 447, 'unshare': 272, 'setns': 308, 'bpf': 321, 'perf_event_open': 298, 'userfaultfd': 323}),
    'aarch64': (0xC00000B7, {
        'clone': 220, 'clone3': 435, 'socket': 198, 'prlimit64': 261, 'io_uring_setup': 425, 'kill': 129, 'tgkill': 131,
        'execve': 221, 'execveat': 281, 'ptrace': 117, 'process_vm_readv': 270, 'process_vm_writev': 271, 'tkill': 130,
        'rt_sigqueueinfo': 138, 'rt_tgsigqueueinfo': 240, 'pidfd_send_signal': 424, 'setpriority': 140,
        'sched_setscheduler': 119, 'sched_setparam': 118, 'sched_setattr': 274, 'sched_setaffinity': 122,
        'ioprio_set': 30, 'fchmod': 52, 'fchmodat': 53, 'fchmodat2': 452, 'fchown': 55, 'fchownat': 54,
        'utimensat': 88, 'setxattr': 5, 'lsetxattr': 6, 'fsetxattr': 7, 'removexattr': 14, 'lremovexattr': 15,
        'fremovexattr': 16, 'clock_settime': 112, 'settimeofday': 170, 'adjtimex': 171, 'clock_adjtime': 266,
        'shmget': 194, 'msgget': 186, 'semget': 190, 'mq_open': 180, 'memfd_create': 279, 'memfd_secret': 447,
        'unshare': 97, 'setns': 268, 'bpf': 280, 'perf_event_open': 241, 'userfaultfd': 282}),
}
_CAPABILITIES = 0x20080522      # version of the structures that capget and capset take
_KEPT = 1 << 1 | 1 << 2         # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH: files of other users, within what is confined

# Where programs and libraries live, and what libraries look into.
SYSTEM = ('/usr', '/bin', '/sbin', '/lib', '/lib32', '/lib64', '/opt', '/etc', '/sys')
# Not all of /proc: command lines of others lie there, and as /proc/kcore the memory of the whole machine.
_PROC = tuple(f'/proc/{name}' for name in ('self', 'cpuinfo', 'meminfo', 'stat', 'loadavg', 'uptime', 'version', 'devices',
                                           'filesystems', 'sys', 'driver'))
DEVICES = ('/dev/null', '/dev/zero', '/dev/full', '/dev/random', '/dev/urandom', '/dev/nvidia*', '/dev/dri')


def landlock_version() -> int:
    """Version of the kernel's Landlock, 0 where there is none."""
    libc = ctypes.CDLL(None, use_errno=True)
    return max(0, libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1)))


def confine(readable, writable, hidden=(), network=False) -> bool:
    """Keep this process, for good, from everything but the system's libraries and the folders given.

    readable: files and folders that may be read besides; writable: folders that may be written; hidden: folders that
    may not be read although they lie in one that may. No TCP unless `network`, no signals to processes outside (as far
    as the kernel's version goes).
    Returns False where the kernel has no Landlock; nothing is confined then. Raises OSError when it fails.
    """
    version = landlock_version()
    if not version:
        return False
    handled = 0
    for since, rights in _FILE_RIGHTS:
        handled |= rights if version >= since else 0
    tcp, scopes = _ALL_TCP if version >= 4 and not network else 0, _ALL_SCOPES if version >= 6 else 0
    attributes = struct.pack('=QQQ', handled, tcp, scopes)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = _call(_CREATE_RULESET, ctypes.c_char_p(attributes), ctypes.c_size_t(size), ctypes.c_uint32(0))
    hidden = [os.path.realpath(path) for path in hidden]
    os.open('/proc/self', os.O_PATH)     # stays open: the rule holds for this very entry, as long as it is in use
    for path in (*SYSTEM, *_PROC, sys.prefix, sys.base_prefix, *readable):
        for part in _without(os.path.realpath(path), hidden):
            _allow(ruleset, part, _READ & handled)
    for pattern in DEVICES:
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
    """Let this process, for good, start threads but no process, open no socket, and signal and limit only itself.

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

    def only_for(name: str, process: int) -> list[bytes]:
        return [statement(_JUMP_EQUAL, numbers[name], 0, 4), statement(_LOAD, _FIRST_ARGUMENT),
                statement(_JUMP_EQUAL, process, 0, 1), statement(_RETURN, _ALLOW),
                statement(_RETURN, _ERROR | errno.EPERM)]

    program = [statement(_LOAD, _ARCHITECTURE), statement(_JUMP_EQUAL, architecture, 1, 0),
               statement(_RETURN, _ERROR | errno.EPERM),       # calls in another machine's manner
               statement(_LOAD, _NUMBER), *(part for name in _REFUSED for part in refused(name)),
               *refused('socket', errno.EACCES),
               # The C library then takes `clone`, whose arguments can be looked at; for the other, nobody needs it.
               *refused('clone3', errno.ENOSYS), *refused('io_uring_setup', errno.ENOSYS),
               statement(_JUMP_EQUAL, numbers['clone'], 0, 4), statement(_LOAD, _FIRST_ARGUMENT),
               statement(_JUMP_SET, _CLONE_THREAD, 0, 1), statement(_RETURN, _ALLOW),
               statement(_RETURN, _ERROR | errno.EPERM),
               *only_for('kill', os.getpid()), *only_for('tgkill', os.getpid()), *only_for('prlimit64', 0),
               statement(_RETURN, _ALLOW)]
    if platform.machine() == 'x86_64':
        # Numbers from 0x40000000 on are the same calls once more (x32).
        program[4:4] = [statement(_JUMP_SET, 0x40000000, 0, 1), statement(_RETURN, _ERROR | errno.EPERM)]
    code = ctypes.create_string_buffer(b''.join(program))
    # struct sock_fprog: how many instructions, where they are
    where = struct.pack('@HP', len(program), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.c_char_p(where), 0, 0) == 0


def drop_capabilities() -> None:
    """Take from this process, for good, what root may do besides reading and writing files (clocks, other processes)."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = struct.pack('=Ii', _CAPABILITIES, 0)
    data = ctypes.create_string_buffer(24)
    if libc.capget(ctypes.c_char_p(header), data) == 0:
        low, high = ([value & kept for value in struct.unpack_from('=III', data, offset)]
                     for offset, kept in ((0, _KEPT), (12, 0)))
        libc.capset(ctypes.c_char_p(header), ctypes.c_char_p(struct.pack('=6I', *low, *high)))


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
