"""Becomes a command that ends with its parent and reaches some files only: bound_command.py PARENT PLACES COMMAND ...

PARENT: process id. PLACES: JSON, null or the lists `readable`, `writable` and `hidden` of paths; the network stays, and
all that the command starts is confined with it. Where the kernel has no Landlock the command is not confined. Standard
library only; to be run by `python -I -S`.
"""

import ctypes
import json
import os
import signal
import sys

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
# Whoever runs commands needs terminals, what all programs share in memory, and to see its own processes.
_READABLE = ('/proc', '/run', '/var/lib')
_WRITABLE = ('/dev/ptmx', '/dev/pts', '/dev/tty', '/dev/shm')


def main() -> None:
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
    from enpire_bringup.program_confinement import confine

    parent, places, command = int(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3:]
    for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)      # what this process ignores, the command would, too
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)      # what leaves its parents behind stays below the command
    if os.getppid() != parent:
        sys.exit('the parent is gone')
    if places is not None:
        confine([*_READABLE, *places['readable']], [*_WRITABLE, *places['writable']], places['hidden'], network=True)
    os.execvp(command[0], command)


if __name__ == '__main__':
    main()
