"""The end of the pools' idle threads before a fork, and the start of new ones after it."""

import os
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .collector_threads import SyncCollector
    from .workers_threads import SyncWorkers

__all__ = ['MAX_FORK_DELAY', 'dismiss_idle_threads', 'forget_idle_threads', 'idle_threads', 'recall_dismissed']

# Seconds that idle threads get to end before the process forks.
MAX_FORK_DELAY = 0.1

# The threads that wait for work, and the collector or the workers that each belongs to.
idle_threads: 'dict[threading.Thread, SyncCollector | SyncWorkers]' = {}

# The collectors and workers whose threads were dismissed for a fork that has not happened yet.
_dismissed: 'list[SyncCollector | SyncWorkers]' = []


def dismiss_idle_threads() -> None:
    """Have the pools' idle threads end before a fork, because Python warns about a fork beside other threads.

    Python calls this whatever locks are held. So it takes none, gives the threads MAX_FORK_DELAY seconds, and does not
    wait for threads that are at work.
    """
    this = threading.get_native_id()
    ending = []
    for thread in list(idle_threads):
        workers = idle_threads.get(thread)
        # gevent's threads run in this very thread of the system, and Python does not count them.
        if workers is not None and thread.native_id != this:
            # Noted first: a signal handler may raise after the call, and what was dismissed has to be recalled.
            _dismissed.append(workers)
            if workers.dismiss(thread):
                ending.append(thread)
    until = time.monotonic() + MAX_FORK_DELAY
    for thread in ending:
        thread.join(max(until - time.monotonic(), 0.0))


def recall_dismissed() -> None:
    """Start collectors again, in the parent of a fork, or after a fork that has failed."""
    try:
        while _dismissed:
            _dismissed.pop().recall()
    finally:
        # A signal handler has raised in one of the calls.
        if _dismissed:
            recall_dismissed()


def forget_idle_threads() -> None:
    """Forget the threads in the child of a fork: they have stayed behind in the parent."""
    _dismissed.clear()
    idle_threads.clear()


if hasattr(os, 'register_at_fork') and hasattr(threading, 'get_native_id'):
    os.register_at_fork(
        before=dismiss_idle_threads, after_in_parent=recall_dismissed, after_in_child=forget_idle_threads
    )
