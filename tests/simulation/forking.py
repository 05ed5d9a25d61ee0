"""Has the pools of this process begin anew as those of a forked child do, and does not fork.

A pool begins anew when it learns that it is in another process than before. So for a moment there is one that shares
the memory of this one, as after vfork(): in it the core's own function runs, which is called in forked children.
"""

import ctypes
import functools
import os
import signal
import sys

from gcpool._core import PoolCore, reset_after_fork

__all__ = ['CAN_BEGIN_ANEW', 'begin_anew']

CLONE_VM = 0x100  # the memory is shared
CLONE_VFORK = 0x4000  # this thread stands still as long as that process lives

STACK_SIZE = 1 << 18

CAN_BEGIN_ANEW = sys.platform == 'linux'


def begin_anew(core: PoolCore) -> None:
    """Have a pool, and all others, begin anew."""
    epoch = core.fork_epoch
    # Since the last time this process may be another one to the pools already.
    reset_after_fork()
    if core.fork_epoch == epoch:
        call_in_other_process(reset_after_fork)
    if core.fork_epoch != epoch + 1:
        raise RuntimeError(f'the pool has begun anew {core.fork_epoch - epoch} times')


@functools.cache
def stack() -> ctypes.Array[ctypes.c_char]:
    """What the other process runs on."""
    return ctypes.create_string_buffer(STACK_SIZE)


def call_in_other_process(function: object) -> None:
    """Call a function, without arguments, in a process that has this one's memory, and wait for its end."""
    # What is called there is compiled to the end: the interpreter would take the foreign stack for one that overflows.
    # pythonapi keeps the GIL, and finds what the C library has, too.
    process = ctypes.pythonapi.clone(
        ctypes.pythonapi.PyObject_CallNoArgs,
        ctypes.c_void_p((ctypes.addressof(stack()) + STACK_SIZE) & ~15),
        CLONE_VM | CLONE_VFORK | signal.SIGCHLD,
        ctypes.py_object(function),
    )
    if process < 0:
        raise OSError('no process can be made')
    os.waitpid(process, 0)
