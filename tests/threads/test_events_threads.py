"""``on_event`` of a pool for threads: it is called in a thread of its own, and may do anything."""

import threading
from typing import Any

import pytest

from gcpool.common import PoolEvent
from gcpool.exceptions import ConnectionPoolClosedError
from gcpool.threading import ConnectionPool
from tests.pool_threads.support import Case, Manager
from tests.support import PATIENCE, Interruption
from tests.threads.runtime import Event, until


def test_a_coroutine_function_is_refused() -> None:
    async def on_event(event: PoolEvent) -> None: ...

    with pytest.raises(TypeError, match=r'on_event=.* is a coroutine function: expected a plain one'):
        ConnectionPool(Manager(), on_event=on_event)


def test_the_thread_has_a_name_and_ends_when_there_is_nothing_to_tell() -> None:
    threads: list[threading.Thread] = []
    with Case(name='orders', on_event=lambda event: threads.append(threading.current_thread())) as case:
        case.cycle('a')
        until(lambda: len(threads) == 1)
        assert threads[0].name == 'gcpool-orders-events'
        assert threads[0].daemon
        until(lambda: not threads[0].is_alive())
        case.cycle('b')
        until(lambda: len(threads) == 2)


@pytest.mark.parametrize('error', [SystemExit(3), KeyboardInterrupt(), Interruption('no')], ids=repr)
def test_what_it_raises_never_ends_the_telling(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    told = []

    def on_event(event: PoolEvent) -> None:
        told.append(event.kind)
        raise error

    with Case(min_idle=0, idle_timeout=0, on_event=on_event) as case:
        for endpoint in 'abc':
            case.cycle(endpoint)
        case.pool.close()
        assert told == ['connected', 'closed'] * 3
        assert caplog.text.count('on_event failed') == 6


def test_it_may_acquire_the_very_connection_that_it_is_told_of() -> None:
    taken: list[str] = []

    def on_event(event: PoolEvent) -> None:
        if event.kind == 'connected':
            with case.pool.connection(event.endpoint, timeout=PATIENCE) as conn:
                taken.append(conn.name)

    with Case(max_size=1, total_max_size=1, on_event=on_event) as case:
        for endpoint in 'abc':
            case.cycle(endpoint)
            until(lambda endpoint=endpoint: f'{endpoint}1' in taken)  # type: ignore[misc]
        until(lambda: case.stats['in_use'] == 0)


@pytest.mark.parametrize('kind', ['connected', 'connect_failed', 'closed', 'timeout'])
def test_it_may_close_the_pool(kind: str) -> None:
    closed = Event()

    def on_event(event: PoolEvent) -> None:
        if event.kind == kind:
            case.pool.close()
            closed.set()

    with Case(max_size=1, on_event=on_event) as case:
        case.manager.script('create', OSError('no'))
        with pytest.raises(OSError, match='no'):
            case.pool.acquire('b')
        try:
            with case.pool.connection('a'), pytest.raises(TimeoutError):
                case.pool.acquire('a', timeout=0)
        except ConnectionPoolClosedError:
            assert case.pool._core.closed
        case.pool.close()
        closed.wait('close() does not return')
        assert case.pool.get_size() == 0


def test_a_hanging_one_holds_up_nobody_and_close_keeps_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, begun = threading.Event(), Event()

    def on_event(event: PoolEvent) -> None:
        begun.set()
        gate.wait(PATIENCE)

    with Case(max_size=1, total_max_size=1, on_event=on_event) as case:
        for endpoint in 'abab':
            case.cycle(endpoint)
        begun.wait('nothing was told')
        assert case.pool.close(timeout=0) == 0
        gate.set()
        until(lambda: not [thread for thread in threading.enumerate() if thread.name.endswith('-events')])


def test_too_many_events_are_dropped_and_that_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr('gcpool._workers.events_threads.MAX_EVENTS', 3)
    gate, told = threading.Event(), []

    def on_event(event: PoolEvent) -> None:
        told.append(event.kind)
        gate.wait(PATIENCE)

    with Case(max_size=1, total_max_size=1, on_event=on_event) as case:
        for endpoint in 'abababab':
            case.cycle(endpoint)
        assert caplog.text.count('on_event is too slow, events are dropped') == 1
        gate.set()
        case.pool.close()
        assert len(told) <= 5


def test_where_no_thread_can_be_started_close_tells_what_waits(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told = []

    def start(thread: threading.Thread) -> Any:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr('gcpool._workers.events_threads.start_thread', start)
    with Case(on_event=lambda event: told.append(event.kind)) as case:
        case.cycle('a')
        case.cycle('b')
        assert told == []
        case.pool.close()
        assert told == ['connected', 'connected', 'closed', 'closed']
        assert caplog.text.count('cannot be started, so events wait') == 1
