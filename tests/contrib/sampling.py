"""Samples something repeatedly, in a thread of its own: mostly the sessions that a server lists."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from tests.contrib.servers import PATIENCE

# Seconds between two samples.
INTERVAL = 0.002


@contextlib.contextmanager
def sampled(opened: AbstractContextManager[Callable[[], object]]) -> Iterator[None]:
    """Sample something until the block ends; the block begins after the first sample. An exception of a sample is
    raised at the end.

    :param opened: a context manager, entered and left in the thread; returns the function that takes a sample
    """
    begun, ended = threading.Event(), threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            with opened as look:
                while not ended.wait(INTERVAL):
                    look()
                    begun.set()
        except BaseException as exc:  # noqa: BLE001  (raised below)
            failures.append(exc)
            begun.set()

    thread = threading.Thread(target=run, name='test-sampler', daemon=True)
    thread.start()
    try:
        assert begun.wait(PATIENCE)
        yield
    finally:
        ended.set()
        thread.join(PATIENCE)
    assert not thread.is_alive()
    for failure in failures:
        raise failure
