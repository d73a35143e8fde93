"""What a process that holds keys asks of the operating system."""

from __future__ import annotations

import ctypes
import resource
import sys

_PR_SET_DUMPABLE = 4


def no_core_dumps() -> None:
    """No memory image of this process on a disk, and none for other processes of its user.

    RLIMIT_CORE 0 (inherited by children) stops core files; on Linux PR_SET_DUMPABLE 0 stops those that go to a program
    by core_pattern too, which the limit does not, and ptrace and /proc/PID/mem by others than root. Neither keeps
    memory from being swapped out.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE) failed")
