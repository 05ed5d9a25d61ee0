"""Looks at something again and again, in a thread of its own: at the sessions that a server lists, most of all."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from tests.contrib.servers import PATIENCE

# Seconds between two looks.
INTERVAL = 0.002


@contextlib.contextmanager
def sampled(opened: AbstractContextManager[Callable[[], object]]) -> Iterator[None]:
    """Look at something until the block ends, which begins after the first look. What a look raises is raised then.

    :param opened: entered and left in the thread; gives what looks once
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
