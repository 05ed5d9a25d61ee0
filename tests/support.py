"""What the tests of both runtimes share: a clock that is set by hand, connections that know what happened to them, and
a recorder of all that a connection manager is told.

What waits stands in ``tests/asyncio_/runtime.py`` and ``tests/threads/runtime.py``, with the same names in both, so
that a test in ``tests/pool/`` becomes one of ``tests/pool_threads/`` by losing its awaits.
"""

import asyncio
import gc
import os
import re
import sys
import threading
import time
import warnings
import weakref
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Seconds that nothing here takes unless something is broken. No test waits for them to pass.
PATIENCE = 30.0


def set_debug(loop: asyncio.AbstractEventLoop) -> None:
    """Have an event loop check what its debug mode checks: calls from other threads, coroutines that nobody awaits.

    It does not note where each handle, future and task is made, which takes longer than most tests. With
    PYTHONASYNCIODEBUG=1 it does, and failures tell it.
    """
    noted = loop.get_debug()
    loop.set_debug(True)
    if not noted:
        # What makes them asks by this method, what checks looks at an attribute.
        loop.get_debug = lambda: False  # type: ignore[method-assign]


class Interruption(BaseException):
    """Stands for what interrupts code at any point and is no Exception (KeyboardInterrupt would end the test run)."""


class Clock:
    """The time, in seconds, as the test says."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time

    def advance(self, seconds: float) -> None:
        self.time += seconds


class Connection:
    """A connection to nothing. It is called by its endpoint and a number: the first one to ``'a'`` is ``a1``."""

    def __init__(self, endpoint: object, number: int) -> None:
        self.endpoint = endpoint
        self.name = f'{endpoint}{number}'
        self.disposals = 0

    def __repr__(self) -> str:
        return f'<{self.name}>'


class Recorder:
    """The part of a connection manager that remembers, and the checks of what no manager may ever see.

    ``calls`` lists what was called for what, as ``'create a'`` or ``'dispose a1'``.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.connections: list[Connection] = []
        self.open: Counter[object] = Counter()
        self.peak: Counter[object] = Counter()
        self.total_peak = 0
        self._numbers: Counter[object] = Counter()
        self._steps: defaultdict[str, deque[object]] = defaultdict(deque)
        self._lock = threading.Lock()

    def script(self, name: str, *steps: object) -> None:
        """Say what the next calls of a method do, one step for each; after that it does as usual.

        :param name: the method
        :param steps: an exception is raised, a gate waited at, any other value but None returned
        """
        self._steps[name].extend(steps)

    def forget_script(self) -> None:
        """Do as usual from now on."""
        self._steps.clear()

    def take_calls(self) -> list[str]:
        """What was called since this was asked last."""
        with self._lock:
            calls, self.calls = self.calls, []
        return calls

    @property
    def living(self) -> list[str]:
        """The names of the connections that were not disposed of, in the order of creation."""
        return [conn.name for conn in self.connections if not conn.disposals]

    def begin(self, name: str, subject: object) -> Any:
        """Note a call.

        :return: its step of the script
        """
        with self._lock:
            self.calls.append(f'{name} {subject.name if isinstance(subject, Connection) else subject}')
            steps = self._steps[name]
            return steps.popleft() if steps else None

    def opening(self, endpoint: object) -> None:
        """Count a connection from the moment in which the server may see it."""
        with self._lock:
            self.open[endpoint] += 1
            self.peak[endpoint] = max(self.peak[endpoint], self.open[endpoint])
            self.total_peak = max(self.total_peak, self.open.total())

    def closed(self, endpoint: object) -> None:
        """Stop counting it."""
        with self._lock:
            self.open[endpoint] -= 1

    def connect(self, endpoint: object) -> Connection:
        """Make a connection."""
        with self._lock:
            self._numbers[endpoint] += 1
            conn = Connection(endpoint, self._numbers[endpoint])
            self.connections.append(conn)
        return conn


class Endpoint:
    """An endpoint of a class of its own: equal ones are not identical, and it can be weakly referenced."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f'<endpoint {self.name}>'

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash(self.name)


def shown(value: object) -> str:
    """Name a test's parameter, the same in each process that collects it."""
    return re.sub(r' at 0x\w+', '', repr(value))


class Cycle:
    """Something that nothing but the garbage collector frees."""

    def __init__(self) -> None:
        self.itself = self


def collect_garbage() -> None:
    """Collect all garbage. ``gc.collect()`` does nothing while another thread collects: it is called until it does."""
    deadline = time.monotonic() + PATIENCE
    collected = False
    while not collected:
        assert time.monotonic() < deadline, 'another thread collects garbage for ever'
        gone = weakref.ref(Cycle())
        gc.collect()
        collected = gone() is None


@contextmanager
def dropped_pools() -> Iterator[list[str]]:
    """For tests of what becomes of a pool that nobody closes: the warning about that may come in here, and no other.

    :return: the warnings that have come
    """
    texts: list[str] = []

    def note(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        # Only the text: the warning itself refers to the pool.
        texts.append(f'{category.__name__}: {message}')

    with warnings.catch_warnings():
        warnings.simplefilter('always')
        warnings.showwarning = note
        yield texts
    assert [text for text in texts if not DROPPED.fullmatch(text)] == []


DROPPED = re.compile(r'ResourceWarning: <.*> was dropped and never closed: .*')


def program_environment() -> dict[str, str]:
    """The environment of a Python program that finds what this one finds."""
    return {**os.environ, 'PYTHONPATH': os.pathsep.join(path or os.curdir for path in sys.path)}
