"""What a pool says: its name, the errors of acquires that took too long, statistics, log records and events."""

import copy
import logging
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from gcpool.asyncio import ConnectionPool
from gcpool.common import ALL_ENDPOINTS, PoolEvent
from gcpool.exceptions import (
    ConnectionNotAcquired,
    ConnectionPoolClosedError,
    ConnectTimeout,
    DiscardConnection,
    EndpointDown,
    PoolNotSuspended,
    PoolSuspended,
    PoolTimeout,
    TooManyRequests,
)
from gcpool.managers import ROLLED_BACK
from tests.asyncio_.runtime import result_of, spawn, until
from tests.pool.support import Case, CheckingManager, Gate, HookedManager, JudgingManager, Manager
from tests.support import Connection


class Secret:
    """An endpoint that must not be shown."""

    def __init__(self, host: str) -> None:
        self.host = host

    def __hash__(self) -> int:
        return hash(self.host)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other.host == self.host

    def __str__(self) -> str:
        return self.host

    def __repr__(self) -> str:
        return f'{self.host}?password=hunter2'


class DiscreetManager(JudgingManager):
    """Shows endpoints without their passwords."""

    def describe_endpoint(self, endpoint: Any) -> object:
        return endpoint.host


class ClumsyManager(JudgingManager):
    """Fails to describe endpoints."""

    def __init__(self) -> None:
        super().__init__()
        self.described = 0

    def describe_endpoint(self, endpoint: Any) -> object:
        self.described += 1
        raise ValueError(repr(endpoint).partition('?')[0])


class Unprintable(Secret):
    def __repr__(self) -> str:
        raise ValueError('no')


class Watch:
    """An ``on_event`` that notes what it is told."""

    def __init__(self) -> None:
        self.events: list[PoolEvent] = []

    def __call__(self, event: PoolEvent) -> None:
        self.events.append(event)

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    def of(self, kind: str) -> list[PoolEvent]:
        return [event for event in self.events if event.kind == kind]

    async def told(self, *kinds: str) -> None:
        """Wait until the events have been these kinds, and no others."""
        await until(lambda: len(self.events) >= len(kinds))
        assert self.kinds == [*kinds]


# ---- the name -----------------------------------------------------------------------------------------------------


async def test_a_pool_has_the_name_that_it_was_given() -> None:
    pool = ConnectionPool(Manager(), name='orders')
    assert pool.name == 'orders'
    assert ConnectionPool(Manager(), name='orders').name == 'orders'
    with pytest.raises(AttributeError):
        pool.name = 'other'  # type: ignore[misc]


def test_pools_without_a_name_are_numbered() -> None:
    first, second = (ConnectionPool(Manager()).name.partition('gcpool-') for _ in range(2))
    assert first[0] == second[0] == ''
    assert int(second[2]) == int(first[2]) + 1


@pytest.mark.parametrize('name', [b'orders', 7, ['orders'], True])
def test_a_name_that_is_no_str_is_refused(name: Any) -> None:
    with pytest.raises(TypeError) as caught:
        ConnectionPool(Manager(), name=name)
    assert str(caught.value) == f'name={name!r}: expected a str, got {type(name).__name__}'


def test_a_pool_that_was_not_built_is_represented() -> None:
    assert 'in use' in repr(ConnectionPool.__new__(ConnectionPool))


async def test_each_error_of_a_pool_names_it() -> None:
    texts: list[str] = []

    async def refuse(error: type[Exception], call: Callable[[], Any]) -> None:
        with pytest.raises(error) as caught:
            await result_of(call())
        texts.append(str(caught.value))

    async with Case(CheckingManager(), name='orders', max_size=1, max_waiting=1, fail_fast=True, open=False) as case:
        pool: Any = case.pool
        for acquire in (pool.acquire, pool.try_acquire):
            await refuse(ConnectionPoolClosedError, partial(acquire, 'a'))
        await pool.open()
        conn = await pool.acquire('a')
        await refuse(PoolTimeout, partial(pool.acquire, 'a', timeout=0))
        await refuse(PoolTimeout, partial(pool.wait_idle, 0))
        waiting = spawn(pool.acquire, 'a')
        await case.waiting(1)
        await refuse(TooManyRequests, partial(pool.acquire, 'a'))
        await refuse(ConnectionNotAcquired, partial(pool.release, object()))
        await refuse(ConnectionNotAcquired, partial(pool.release, conn, 'b'))
        await pool.release(conn)
        assert await waiting.result() is conn
        await pool.release(conn)
        await refuse(ConnectionNotAcquired, partial(pool.release, conn))
        case.manager.script('create', OSError('no'))
        await refuse(OSError, partial(pool.acquire, 'b'))
        texts.pop()  # that is the manager's
        await refuse(EndpointDown, partial(pool.acquire, 'b'))
        pool.suspend(fail=True)
        await refuse(PoolSuspended, partial(pool.acquire, 'a'))
        pool.resume()
        await refuse(PoolNotSuspended, pool.resume)
        case.manager.script('create', OSError('no'))
        pool.warm_up('c', 1)
        await refuse(PoolTimeout, partial(pool.wait, 0))
        await pool.close()
        for call in (
            partial(pool.acquire, 'a'),
            partial(pool.try_acquire, 'a'),
            partial(pool.resize, max_size=2),
            partial(pool.warm_up, 'a', 1),
            pool.wait,
            pool.check,
            pool.open,
            pool.suspend,
        ):
            await refuse(ConnectionPoolClosedError, call)
    assert [text for text in texts if "'orders'" not in text] == []


async def test_a_context_says_endpoint_and_state() -> None:
    async with Case(DiscreetManager(), name='orders') as case:
        context = case.pool.connection(Secret('db'))
        assert repr(context).endswith("ConnectionContext of 'orders' for 'db': not entered>")
        async with context:
            assert repr(context).endswith("ConnectionContext of 'orders' for 'db': acquired>")
        assert repr(context).endswith("ConnectionContext of 'orders' for 'db': not entered>")


async def test_an_entry_shows_its_endpoint_as_it_is_described() -> None:
    secret = Secret('db')
    async with Case(DiscreetManager(), name='orders') as case, Case(name='others') as others:
        assert await others.cycle('db') == 'db1'
        conn = await case.pool.acquire(secret)
        entry = case.pool._core.find_acquired(conn, secret)
        assert repr(entry).startswith("<Entry of 'db': acquired at ")
        await case.pool.discard(conn)
        assert case.pool._core.size == 0
        # No pool has its endpoint any more.
        assert repr(entry).startswith('<Entry of <an endpoint of class Secret>: ')


# ---- acquires that take too long ----------------------------------------------------------------------------------


async def fail(case: Case, endpoint: Any, timeout: float = 0) -> PoolTimeout:
    with pytest.raises(PoolTimeout) as caught:
        await case.pool.acquire(endpoint, timeout=timeout)
    return caught.value


async def test_a_timeout_tells_what_was_waited_for() -> None:
    async with Case(name='orders', max_size=2) as case:
        conns = await case.acquire('main', 2)
        waiting = spawn(case.pool.acquire, 'main')
        await case.waiting(1)
        error = await fail(case, 'main', 0.01)
        assert str(error) == (
            "pool 'orders': timed out after 0.01 s waiting for a connection to 'main': "
            'max_size=2 reached (2 in use, 1 waiting)'
        )
        assert (error.pool, error.endpoint, error.phase, error.limit) == ('orders', 'main', 'connection', 'max_size')
        assert (error.size, error.in_use, error.idle, error.waiting, error.holders) == (2, 2, 0, 1, ())
        assert error.waited is not None
        assert error.waited >= 0
        assert error.__cause__ is None
        assert error.__suppress_context__
        await case.release(conns[0])
        await case.release(conns[1], await waiting.result())


async def test_a_timeout_at_the_total_limit_tells_of_all_endpoints() -> None:
    async with Case(name='orders', max_size=2, total_max_size=3) as case:
        conns = [*await case.acquire('a', 2), *await case.acquire('b', 1)]
        error = await fail(case, 'c')
        assert str(error) == (
            "pool 'orders': timed out after 0 s waiting for a slot for 'c': "
            'total_max_size=3 reached (3 in use, 0 waiting)'
        )
        assert (error.phase, error.limit, error.size, error.in_use) == ('slot', 'total_max_size', 3, 3)
        await case.release(*conns)


async def test_the_time_that_was_waited_counts_from_the_beginning() -> None:
    async with Case(max_size=1) as case:
        conn = (await case.acquire('a', 1))[0]
        waiting = spawn(case.pool.acquire, 'a', 5)
        await case.waiting(1)
        case.clock.advance(7)
        await case.release(conn)
        await case.release(await waiting.result())
        assert case.stats['wait_ns'] == 7_000_000_000


async def test_a_timeout_is_caused_by_the_connect_that_failed_meanwhile() -> None:
    async with Case(max_size=1) as case:
        refused = ConnectionRefusedError(111, 'refused')
        gates = Gate(refused), Gate(TimeoutError('slow'))
        case.manager.script('create', *gates)
        first = spawn(case.pool.acquire, 'a')
        await gates[0].reached()
        second = spawn(case.pool.acquire, 'a')
        await case.waiting(1)
        late = spawn(case.pool.acquire, 'a', 0.3)
        await case.waiting(2)
        gates[0].open()
        with pytest.raises(OSError, match='refused') as own:
            await first.result()
        assert own.value is refused
        await gates[1].reached()
        with pytest.raises(PoolTimeout) as caught:
            await late.result()
        cause = caught.value.__cause__
        assert isinstance(cause, type(refused))
        assert cause.args == (111, 'refused')
        assert cause.__traceback__ is None, 'it would keep the frames of the other caller'
        # One that began after that error is not told.
        assert (await fail(case, 'a')).__cause__ is None
        gates[1].open()
        with pytest.raises(TimeoutError, match='slow'):
            await second.result()
        await case.cycle('a')


async def test_a_timeout_can_be_pickled_and_copied() -> None:
    async with Case(name='orders', max_size=1) as case:
        conns = await case.acquire('a', 1)
        error = await fail(case, 'a')
        for twin in copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error)):
            assert type(twin) is PoolTimeout
            assert str(twin) == str(error)
            assert vars(twin) == vars(error)
        await case.release(*conns)
    plain = PoolTimeout('late')
    assert (plain.pool, plain.endpoint, plain.phase, plain.waited, plain.holders) == (None, None, None, None, ())
    connecting = ConnectTimeout('late', 'db')
    assert (connecting.endpoint, connecting.phase, connecting.pool) == ('db', 'create', None)


# ---- statistics ---------------------------------------------------------------------------------------------------


async def test_a_pop_begins_the_counters_anew() -> None:
    pool = ConnectionPool(CheckingManager())
    for _ in range(2):
        async with pool.connection('a'):
            pass
    popped = pool.pop_stats()
    assert (popped['asked'], popped['acquires'], popped['created'], popped['checks']) == (2, 2, 1, 1)
    assert popped['size'] == popped['idle'] == 1
    stats = pool.get_stats()
    assert (stats['asked'], stats['acquires'], stats['created'], stats['checks']) == (0, 0, 0, 0)
    assert stats['size'] == stats['idle'] == 1
    assert list(stats) == list(popped)
    await pool.close()
    assert pool.pop_stats()['disposed'] == 1


async def test_the_gauges_of_an_endpoint() -> None:
    async with Case() as case:
        await case.cycle('a')
        [conn] = await case.acquire('b', 1)
        assert case.pool.get_stats('a') == case.pool.get_stats('c') | {'size': 1, 'idle': 1, 'endpoints': 1}
        assert case.pool.get_stats('b')['in_use'] == 1
        assert case.pool.get_stats(None)['size'] == 0, 'None is an endpoint'
        assert case.pool.get_stats(ALL_ENDPOINTS) == case.stats
        with pytest.raises(TypeError):
            case.pool.get_stats([])
        await case.release(conn)


async def test_the_times_that_the_pool_took() -> None:
    async with Case() as case:
        gate = Gate()
        case.manager.script('create', gate)
        job = spawn(case.pool.acquire, 'a')
        await gate.reached()
        assert case.stats['creating'] == 1
        case.clock.advance(2)
        gate.open()
        conn = await job.result()
        case.clock.advance(3)
        await case.release(conn)
        assert (case.stats['create_ns'], case.stats['use_ns']) == (2_000_000_000, 3_000_000_000)


# ---- the log ------------------------------------------------------------------------------------------------------


@pytest.fixture
def records(caplog: pytest.LogCaptureFixture) -> Callable[[], list[Any]]:
    """The records of the pool that have been logged since the last call."""
    caplog.set_level(logging.DEBUG, 'gcpool')

    def take() -> list[Any]:
        found = [record for record in caplog.records if record.name == 'gcpool']
        caplog.clear()
        return found

    return take


async def test_a_record_says_pool_endpoint_event_reason_and_duration(records: Callable[[], list[Any]]) -> None:
    async with Case(DiscreetManager(), name='orders', min_idle=0, idle_timeout=1) as case:
        await case.cycle(Secret('db'))
        [created] = records()
        assert created.getMessage() == "orders: connection to 'db' created"
        assert (created.pool, created.endpoint, created.event, created.reason) == ('orders', 'db', 'connected', None)
        assert created.duration == 0.0
        case.clock.advance(1)
        await case.cycle(Secret('other'))
        [closed] = [record for record in records() if record.event == 'closed']
        assert closed.getMessage() == "orders: connection to 'db' closed: idle"
        assert (closed.levelno, closed.reason, closed.endpoint) == (logging.DEBUG, 'idle', 'db')


async def lose(case: Case) -> None:
    async with case.pool.connection(Secret('db')):
        raise KeyError


async def test_a_hook_that_fails_is_logged_with_its_traceback(records: Callable[[], list[Any]]) -> None:
    async with Case(DiscreetManager()) as case:
        case.manager.script('is_broken', ZeroDivisionError('oops'))
        case.manager.script('dispose', OSError('in the way'))
        with pytest.raises(KeyError):
            await lose(case)
        await until(lambda: case.stats['disposed'] == 1)
        await case.pool.close()
        judged, closed = (record for record in records() if record.levelno == logging.ERROR)
        assert judged.exc_info[0] is ZeroDivisionError
        assert closed.exc_info[0] is OSError
        assert closed.reason == 'broken'
        assert 'hunter2' not in judged.getMessage() + closed.getMessage()


async def say_everything(case: Case, endpoint: Secret, check: Callable[[str], None]) -> None:
    """Bring about each message, and check it."""
    other = Secret('other')
    async with case.pool.connection(endpoint) as conn:
        check(str(await fail(case, endpoint)))
        with pytest.raises(RuntimeError) as caught:
            await case.pool.release(conn, other)
        check(str(caught.value))
        with pytest.raises(RuntimeError) as caught:
            await case.pool.release(Connection('x', 7), other)
        check(str(caught.value))
        check(repr(case.pool.connection(endpoint)))
    case.manager.script('create', OSError('no'))
    with pytest.raises(OSError, match='no'):
        await case.pool.acquire(other)
    case.manager.script('on_release', DiscardConnection('doubtful'))
    await case.cycle(endpoint)
    case.manager.script('dispose', OSError('no'))
    await case.cycle(endpoint)
    await case.pool.close()
    with pytest.raises(Exception, match='is closed') as closed:
        await case.pool.acquire(endpoint)
    check(str(closed.value))


@pytest.mark.parametrize('manager_class', [DiscreetManager, ClumsyManager])
async def test_an_endpoint_is_shown_only_as_the_manager_describes_it(
    manager_class: type[JudgingManager], records: Callable[[], list[Any]]
) -> None:
    watch = Watch()
    texts: list[str] = []
    async with Case(manager_class(), max_size=1, on_event=watch) as case:
        await say_everything(case, Secret('db'), texts.append)
        said = records()
        shown = 'db' if manager_class is DiscreetManager else '<an endpoint of class Secret>'
        texts += [record.getMessage() for record in said]
        texts += [repr(record.endpoint) for record in said if hasattr(record, 'endpoint')]
        texts += [repr(event) for event in watch.events]
        assert len(texts) > 20
        assert not [text for text in texts if 'hunter2' in text]
        assert {'connected', 'connect_failed', 'closed', 'timeout'} <= {*watch.kinds}
        assert shown in {str(event.endpoint) for event in watch.events}
        # What describe_endpoint raised is told once.
        failures = [record for record in said if 'describe_endpoint() failed' in record.getMessage()]
        assert len(failures) == (manager_class is ClumsyManager)


async def test_an_endpoint_that_cannot_be_printed_hurts_nobody(records: Callable[[], list[Any]]) -> None:
    async with Case(HookedManager(), max_size=1) as case:
        endpoint = Unprintable('db')
        async with case.pool.connection(endpoint):
            assert '<an endpoint of class Unprintable>' in str(await fail(case, endpoint))
        assert '<an endpoint of class Unprintable>' in records()[0].getMessage()


@pytest.mark.parametrize('manager_class', [JudgingManager, HookedManager])
async def test_a_rollback_after_a_block_that_did_not_raise_is_told_once(
    manager_class: type[HookedManager], records: Callable[[], list[Any]]
) -> None:
    class Transactional(manager_class):  # type: ignore[valid-type,misc]
        async def on_release(self, endpoint: Any, conn: Connection) -> Any:
            await super().on_release(endpoint, conn)
            return ROLLED_BACK

    async with Case(Transactional(), name='orders') as case:
        if manager_class is JudgingManager:
            with pytest.raises(KeyError):
                await lose(case)
            assert not [record for record in records() if record.levelno >= logging.WARNING]
        for endpoint in 'aab':
            await case.cycle(endpoint)
        [warning] = [record for record in records() if record.levelno >= logging.WARNING]
        assert warning.getMessage().startswith("orders: a transaction on a connection to 'a' was rolled back")


async def test_a_rollback_is_not_told_while_an_exception_is_on_its_way(records: Callable[[], list[Any]]) -> None:
    class Transactional(HookedManager):
        async def on_release(self, endpoint: Any, conn: Connection) -> Any:
            await super().on_release(endpoint, conn)
            return ROLLED_BACK

    def warnings() -> list[Any]:
        return [record for record in records() if record.levelno >= logging.WARNING]

    async def release_in_the_end(pool: Any) -> None:
        conn = await pool.acquire('a')
        try:
            raise KeyError
        finally:
            await pool.release(conn)

    async with Case(Transactional()) as case:
        with pytest.raises(KeyError):
            await release_in_the_end(case.pool)
        with pytest.raises(KeyError):
            await lose(case)
        assert not warnings()
        conn = await case.pool.acquire('a')
        await case.pool.release(conn)
        assert len(warnings()) == 1


# ---- events -------------------------------------------------------------------------------------------------------


async def test_what_happens_is_told_once_and_in_order() -> None:
    watch = Watch()
    async with Case(name='orders', max_size=1, min_idle=0, idle_timeout=5, on_event=watch) as case:
        await case.cycle('a')
        await watch.told('connected')
        for _ in range(3):
            await case.cycle('a')  # no event: that is the fast path
        case.manager.script('create', OSError('no'))
        with pytest.raises(OSError, match='no') as failed:
            await case.pool.acquire('b')
        async with case.pool.connection('a'):
            await fail(case, 'a')
        case.clock.advance(5)
        await case.cycle('c')
        await case.pool.close()
        await watch.told('connected', 'connect_failed', 'timeout', 'connected', 'closed', 'closed')
        assert watch.events[0] == PoolEvent('connected', 'orders', 'a', None, 0.0, None)
        assert watch.events[1] == PoolEvent('connect_failed', 'orders', 'b', None, 0.0, failed.value)
        assert watch.events[2][:4] == ('timeout', 'orders', 'a', 'connection')
        assert [(event.endpoint, event.reason) for event in watch.of('closed')] == [('a', 'idle'), ('c', 'pool_closed')]


async def test_a_close_that_fails_is_told_with_its_error() -> None:
    watch = Watch()
    async with Case(on_event=watch) as case:
        await case.cycle('a')
        error = OSError('in the way')
        case.manager.script('dispose', error)
        await case.pool.close()
        assert watch.of('closed') == [PoolEvent('closed', case.pool.name, 'a', 'pool_closed', 0.0, error)]


async def test_close_returns_when_all_has_been_told() -> None:
    watch = Watch()
    async with Case(min_idle=9, on_event=watch) as case:
        await case.release(*await case.acquire('a', 9))
        await case.pool.close()
        assert watch.kinds.count('closed') == 9


@pytest.mark.parametrize('error', [ValueError('no'), LookupError()], ids=repr)
async def test_what_an_event_handler_raises_is_logged_and_later_events_are_told(
    error: Exception, records: Callable[[], list[Any]]
) -> None:
    told = []

    def on_event(event: PoolEvent) -> None:
        told.append(event.kind)
        raise error

    async with Case(on_event=on_event) as case:
        await case.cycle('a')
        await case.cycle('b')
        await case.pool.close()
        assert told == ['connected', 'connected', 'closed', 'closed']
        failures = [record for record in records() if 'on_event failed' in record.getMessage()]
        assert len(failures) == 4
        assert failures[0].exc_info[1] is error


@pytest.mark.parametrize('on_event', [7, 'print', []])
def test_an_event_handler_that_is_no_function_is_refused(on_event: Any) -> None:
    with pytest.raises(TypeError) as caught:
        ConnectionPool(Manager(), on_event=on_event)
    assert str(caught.value) == f'on_event={on_event!r}: expected a function, got {type(on_event).__name__}'


async def test_a_slow_event_handler_holds_up_nobody() -> None:
    told: list[int] = []
    async with Case(
        name='orders', max_size=1, total_max_size=1, on_event=lambda event: told.append(len(event.pool))
    ) as case:
        for endpoint in 'abcabc':
            await case.cycle(endpoint)
        await case.pool.close()
        assert len(told) == 12


async def test_a_timeout_tells_that_enough_connects_are_under_way() -> None:
    async with Case(max_size=3, max_connecting=1) as case:
        gate = Gate()
        case.manager.script('create', gate)
        first = spawn(case.pool.acquire, 'a')
        await gate.reached()
        error = await fail(case, 'a', 0.01)
        assert str(error).endswith(
            "after 0.01 s waiting for a connection to 'a': max_connecting=1 reached "
            '(0 in use, 1 being created, 0 waiting)'
        )
        assert (error.phase, error.limit) == ('creating', 'max_connecting')
        gate.open()
        await case.release(await first.result())


async def test_a_timeout_in_an_outage_tells_that_the_pool_waits_to_connect() -> None:
    async with Case(max_size=3, reconnect_timeout=60) as case:
        case.manager.script('create', *[OSError('down') for _ in range(100)])
        error = await fail(case, 'a', 0.01)
        assert str(error).endswith("after 0.01 s waiting for a connection to 'a' (0 in use, 0 waiting)")
        assert (error.phase, error.limit) == ('creating', None)
        assert str(error.__cause__) == 'down'
