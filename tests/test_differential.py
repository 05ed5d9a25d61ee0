"""The same scripts on gcpool and on generic-connection-pool: the managers are told the same, the sizes are the same.

Left out is what COMPAT calls a fault of that pool: a connection found dead is not disposed of there, so those disposals
are not compared; nor are acquires that would have to wait, or releases that are not due. An idle connection whose
lifetime is over is served there and not here, so where lifetimes end, every step of time is followed by a release that
disposes of all that is due. And there is room for all connections under the total limit, because there the pools differ
by design: for another endpoint that pool closes the connection that expires soonest, this one the one that was unused
for longest.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Protocol
from unittest import mock

import generic_connection_pool.asyncio
import generic_connection_pool.common
import generic_connection_pool.threading
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gcpool.asyncio
import gcpool.threading
from tests.support import Clock, Connection, Recorder

ENDPOINTS = 'abc'
FOREVER = 1e6
# What a method may be told to do next; on_connection_dead is left out, since the other pool has no next connection in
# hand at that point, and this one has, and gives it back.
FAILING = ['create', 'check_aliveness', 'on_acquire', 'on_release', 'dispose']


@dataclass
class Script:
    """The parameters of a pool, and what is done with it."""

    min_idle: int
    max_size: int
    total_max_size: int
    idle_timeout: float
    max_lifetime: float
    dispose_batch_size: int
    steps: list[tuple[Any, ...]]

    @property
    def options(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != 'steps'}


class Subject(Protocol):
    """A pool whose calls are all plain ones."""

    manager: Recorder

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any: ...
    def use_context(self, endpoint: str, error: Exception | None) -> None: ...
    def get_size(self) -> int: ...
    def stop(self) -> None: ...


class Rule(Recorder):
    """What both kinds of managers do."""

    def do(self, name: str, subject: Any) -> Any:
        step = self.begin(name, subject)
        if isinstance(step, BaseException):
            raise step
        if name == 'create':
            return self.connect(subject)
        return True if step is None else step


class SyncManager(Rule):
    def create(self, endpoint: str, timeout: float | None = None) -> Any:
        return self.do('create', endpoint)

    def dispose(self, endpoint: str, conn: Connection, timeout: float | None = None) -> None:
        conn.disposals += 1
        self.do('dispose', conn)

    def check_aliveness(self, endpoint: str, conn: Connection, timeout: float | None = None) -> Any:
        return self.do('check_aliveness', conn)

    def on_acquire(self, endpoint: str, conn: Connection) -> None:
        self.do('on_acquire', conn)

    def on_release(self, endpoint: str, conn: Connection) -> None:
        self.do('on_release', conn)

    def on_connection_dead(self, endpoint: str, conn: Connection) -> None:
        self.do('on_connection_dead', conn)


class AsyncManager(Rule):
    async def create(self, endpoint: str) -> Any:
        return self.do('create', endpoint)

    async def dispose(self, endpoint: str, conn: Connection) -> None:
        conn.disposals += 1
        self.do('dispose', conn)

    async def check_aliveness(self, endpoint: str, conn: Connection) -> Any:
        return self.do('check_aliveness', conn)

    async def on_acquire(self, endpoint: str, conn: Connection) -> None:
        self.do('on_acquire', conn)

    async def on_release(self, endpoint: str, conn: Connection) -> None:
        self.do('on_release', conn)

    async def on_connection_dead(self, endpoint: str, conn: Connection) -> None:
        self.do('on_connection_dead', conn)


class ThreadsSubject:
    def __init__(self, pool_class: Any, options: dict[str, Any]) -> None:
        self.manager = SyncManager()
        self.pool = pool_class(self.manager, **options)

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.pool, method)(*args, **kwargs)

    def use_context(self, endpoint: str, error: Exception | None) -> None:
        with self.pool.connection(endpoint):
            if error is not None:
                raise error

    def get_size(self) -> int:
        size: int = self.pool.get_size()
        return size

    def stop(self) -> None:
        self.pool.close()


class AsyncioSubject:
    def __init__(self, pool_class: Any, options: dict[str, Any]) -> None:
        self.manager = AsyncManager()
        self.loop = asyncio.new_event_loop()

        async def make() -> Any:
            return pool_class(self.manager, **options)

        self.pool = self.loop.run_until_complete(make())

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self.loop.run_until_complete(getattr(self.pool, method)(*args, **kwargs))

    def use_context(self, endpoint: str, error: Exception | None) -> None:
        async def use() -> None:
            async with self.pool.connection(endpoint):
                if error is not None:
                    raise error

        self.loop.run_until_complete(use())

    def get_size(self) -> int:
        size: int = self.pool.get_size()
        return size

    def stop(self) -> None:
        self.call('close')
        self.loop.close()


@dataclass
class Player:
    """Plays a script on one pool.

    :param tick: advances the clock of the pool
    """

    subject: Subject
    script: Script
    tick: Callable[[float], None]
    held: list[Connection] = field(default_factory=list)
    ticks: int = 0

    def play(self) -> list[Any]:
        """What was seen after each step: what came of it, what the manager was told, and the sizes."""
        seen: list[Any] = []
        for step in self.script.steps:
            outcome = self.do(*step)
            calls = self.subject.manager.take_calls()
            dead = {call.split()[1] for call in calls if call.startswith('on_connection_dead')}
            calls = [call for call in calls if call.removeprefix('dispose ') not in dead]
            sizes = [
                self.subject.call('get_endpoint_pool_size', endpoint, acquired)
                for endpoint in ENDPOINTS
                for acquired in (None, True, False)
            ]
            seen.append((step, outcome, calls, self.subject.get_size(), sizes))
        self.subject.manager.forget_script()
        for conn in self.held:
            self.subject.call('release', conn, conn.endpoint)
        self.subject.stop()
        seen.append((sorted(self.subject.manager.take_calls()), self.subject.get_size()))
        return seen

    def do(self, name: str, *arguments: Any) -> object:
        try:
            return getattr(self, name)(*arguments)
        except OSError as error:
            return repr(error)

    def would_wait(self, endpoint: str) -> bool:
        out = sum(conn.endpoint == endpoint for conn in self.held)
        return out == self.script.max_size or len(self.held) == self.script.total_max_size

    def acquire(self, endpoint: str) -> str:
        if self.would_wait(endpoint):
            return 'not tried'
        conn = self.subject.call('acquire', endpoint)
        self.held.append(conn)
        return conn.name  # type: ignore[no-any-return]

    def release(self, number: int) -> str:
        if not self.held:
            return 'not tried'
        conn = self.held.pop(number % len(self.held))
        self.subject.call('release', conn, conn.endpoint)
        return conn.name

    def context(self, endpoint: str, fails: bool) -> str:
        if self.would_wait(endpoint):
            return 'not tried'
        self.subject.use_context(endpoint, OSError('the body') if fails else None)
        return 'left'

    def fail(self, method: str) -> str:
        self.subject.manager.script(method, OSError(method))
        return method

    def die(self, count: int) -> int:
        self.subject.manager.script('check_aliveness', *[False] * count)
        return count

    def advance(self, seconds: float) -> float:
        self.tick(seconds)
        if self.script.max_lifetime < FOREVER and not self.would_wait(''):
            self.ticks += 1
            self.subject.use_context(f'tick {self.ticks} ', None)
        return seconds


class RestlessClock(Clock):
    """Lets a moment pass whenever somebody looks at it.

    The other pool waits for that; and so no two things happen at the same time, which the pools order each in its way.
    """

    def __call__(self) -> float:
        self.advance(1e-7)
        return self.time


@contextmanager
def other_clock() -> Iterator[Clock]:
    """Sets the time of generic-connection-pool by hand."""
    monotonic = RestlessClock()

    def info(endpoint: object, conn: object) -> object:
        return generic_connection_pool.common.ConnectionInfo(endpoint, conn, monotonic(), monotonic())

    with (
        mock.patch.object(generic_connection_pool.common, 'time', SimpleNamespace(monotonic=monotonic)),
        # Its times of birth come from a clock that it looked up when it was imported.
        mock.patch.object(generic_connection_pool.threading.pool, 'ConnectionInfo', info),
        mock.patch.object(generic_connection_pool.asyncio.pool, 'ConnectionInfo', info),
    ):
        yield monotonic


def compare(runtime: str, script: Script) -> None:
    subject_class: Any = ThreadsSubject if runtime == 'threads' else AsyncioSubject
    ours, theirs = (
        (gcpool.threading, generic_connection_pool.threading)
        if runtime == 'threads'
        else (gcpool.asyncio, generic_connection_pool.asyncio)
    )
    with other_clock() as clock:
        expected = Player(subject_class(theirs.ConnectionPool, script.options), script, clock.advance).play()
    clock = RestlessClock()
    subject = subject_class(ours.ConnectionPool, {**script.options, '_clock': clock})
    found = Player(subject, script, clock.advance).play()
    for ours_seen, theirs_seen in zip(found, expected, strict=True):
        assert ours_seen == theirs_seen
    assert [conn for conn in subject.manager.connections if conn.disposals != 1] == []


def steps(*others: st.SearchStrategy[tuple[Any, ...]]) -> st.SearchStrategy[list[tuple[Any, ...]]]:
    endpoint = st.sampled_from(ENDPOINTS)
    acquire = st.tuples(st.just('acquire'), endpoint)
    release = st.tuples(st.just('release'), st.integers(0, 5))
    context = st.tuples(st.just('context'), endpoint, st.booleans())
    return st.lists(st.one_of(acquire, acquire, release, release, context, *others), max_size=40)


@st.composite
def limits(draw: st.DrawFn) -> dict[str, int]:
    max_size = draw(st.integers(1, 4))
    return {
        'min_idle': draw(st.integers(0, max_size)),
        'max_size': max_size,
        'total_max_size': 1000,
    }


# The times are no multiples of the steps, so that nothing is due at the very time of a step.
ADVANCES = st.tuples(st.just('advance'), st.sampled_from([1.0, 7.0, 20.0]))
FAILURES = st.tuples(st.just('fail'), st.sampled_from(FAILING))
DEATHS = st.tuples(st.just('die'), st.integers(1, 3))

RUNTIMES = pytest.mark.parametrize('runtime', ['threads', 'asyncio'])


@RUNTIMES
@given(
    limits=limits(),
    idle_timeout=st.sampled_from([0, 0.5, 10.5, FOREVER]),
    dispose_batch_size=st.sampled_from([0, 1, 2, 100]),
    steps=steps(ADVANCES, FAILURES, DEATHS),
)
def test_idle_connections_are_served_kept_and_disposed_of_alike(
    runtime: str, limits: dict[str, int], idle_timeout: float, dispose_batch_size: int, steps: list[tuple[Any, ...]]
) -> None:
    script = Script(
        **limits,
        idle_timeout=idle_timeout,
        max_lifetime=FOREVER + 0.25,
        dispose_batch_size=dispose_batch_size,
        steps=steps,
    )
    compare(runtime, script)


@RUNTIMES
@given(
    limits=limits(),
    idle_timeout=st.sampled_from([0, 10.5, 25.25]),
    max_lifetime=st.sampled_from([25.25, 50.75]),
    steps=steps(ADVANCES, DEATHS),
)
def test_lifetimes_end_alike(
    runtime: str, limits: dict[str, int], idle_timeout: float, max_lifetime: float, steps: list[tuple[Any, ...]]
) -> None:
    script = Script(**limits, idle_timeout=idle_timeout, max_lifetime=max_lifetime, dispose_batch_size=100, steps=steps)
    compare(runtime, script)


@RUNTIMES
def test_the_comparison_sees_a_difference(runtime: str) -> None:
    script = Script(1, 2, 3, 10.5, FOREVER, 0, [('acquire', 'a'), ('release', 0)])
    compare(runtime, script)
    with mock.patch.object(Recorder, 'begin', autospec=True) as begin:
        begin.side_effect = lambda self, name, subject: self.calls.append(f'{name} {id(self)}')
        with pytest.raises(AssertionError):
            compare(runtime, script)
