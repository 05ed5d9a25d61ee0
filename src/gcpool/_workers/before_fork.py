"""The end of the pools' idle threads before a fork, and the start of new ones after it."""

import os
import threading
import time
from typing import Protocol

__all__ = [
    'MAX_FORK_DELAY',
    'HasThreads',
    'dismiss_idle_threads',
    'forget_idle_threads',
    'idle_threads',
    'recall_dismissed',
]


class HasThreads(Protocol):
    """The owner of idle threads: a pool's collector or workers, or a server of snapshots."""

    def dismiss(self, thread: threading.Thread, /) -> bool:
        """End an idle thread. False if it is not one of these threads."""
        ...

    def recall(self) -> None:
        """Start a thread again, if one is needed."""


# Seconds that idle threads get to end before the process forks.
MAX_FORK_DELAY = 0.1

# The threads that wait for work, and the owner of each.
idle_threads: dict[threading.Thread, HasThreads] = {}

# The owners whose threads were dismissed for a fork that has not happened yet.
_dismissed: list[HasThreads] = []


def dismiss_idle_threads() -> None:
    """End the pools' idle threads before a fork, because Python warns about a fork while other threads run.

    Python may call this while any lock is held. So this takes no lock, gives the threads MAX_FORK_DELAY seconds, and
    does not wait for threads that are at work.
    """
    this = threading.get_native_id()
    ending = []
    for thread in list(idle_threads):
        workers = idle_threads.get(thread)
        # gevent's threads run in this very thread of the system, and Python does not count them.
        if workers is not None and thread.native_id != this:
            # Noted first: a signal handler may raise after the call, and dismissed threads have to be recalled.
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
    """Forget the threads in the child of a fork: they exist only in the parent."""
    _dismissed.clear()
    idle_threads.clear()


if hasattr(os, 'register_at_fork') and hasattr(threading, 'get_native_id'):
    os.register_at_fork(
        before=dismiss_idle_threads, after_in_parent=recall_dismissed, after_in_child=forget_idle_threads
    )
