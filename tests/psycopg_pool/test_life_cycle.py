"""Opening and closing the pools of gcpool.psycopg_pool, and what psycopg reads on them."""

import gc
import re
import warnings
import weakref
from typing import Any

import psycopg
import pytest

from gcpool.psycopg_pool import AsyncConnectionPool, AsyncNullConnectionPool, PoolClosed, PoolTimeout
from tests.asyncio_.runtime import spawn, until

OF_OPEN = (RuntimeWarning, DeprecationWarning)

pools = pytest.mark.parametrize('kind', [AsyncConnectionPool, AsyncNullConnectionPool])


def fewest(kind: Any) -> int:
    return 0 if issubclass(kind, AsyncNullConnectionPool) else 1


@pools
async def test_a_pool_that_opens_without_being_told_warns_its_first_client(dsn: str, kind: Any) -> None:
    pool = kind(dsn, min_size=fewest(kind))
    assert not pool.closed
    with pytest.warns(OF_OPEN, match='opened by its constructor'):
        await pool.putconn(await pool.getconn())
    async with pool.connection():
        pass
    await pool.close()


@pools
async def test_a_pool_that_is_opened_later_or_used_as_a_context_warns_nobody(dsn: str, kind: Any) -> None:
    pool = kind(dsn, min_size=fewest(kind), open=False)
    assert pool.closed
    await pool.open()
    await pool.open()
    async with pool.connection() as conn:
        assert not conn.closed
    await pool.close()
    async with kind(dsn, min_size=fewest(kind)) as pool, pool.connection():
        pass


@pools
async def test_a_pool_that_is_not_open_and_one_that_is_closed_say_so(dsn: str, kind: Any) -> None:
    pool = kind(dsn, min_size=fewest(kind), open=False)
    with pytest.raises(PoolClosed, match='is not open yet'):
        await pool.getconn()
    with pytest.raises(PoolClosed, match='is not open yet'):
        await pool.wait()
    await pool.open()
    await pool.close()
    await pool.close()
    with pytest.raises(PoolClosed, match='is already closed'):
        await pool.getconn()
    with pytest.raises(PoolClosed, match='cannot be reused'):
        await pool.open()


async def test_a_pool_that_was_never_opened_leaves_nothing(dsn: str) -> None:
    pool = AsyncConnectionPool(dsn, open=False)
    await pool.close()
    assert pool.get_stats()['pool_size'] == 0
    del pool
    gc.collect()


@pools
async def test_an_open_pool_can_be_collected_and_nobody_is_warned(dsn: str, kind: Any) -> None:
    pool = kind(dsn, min_size=fewest(kind), open=False)
    await pool.open()
    await pool.wait()
    async with pool.connection() as conn:
        await conn.execute('SELECT 1')
    reference = weakref.ref(pool)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        del pool, conn
        gc.collect()
        await until(lambda: gc.collect() >= 0 and reference() is None)
    assert [str(warning.message) for warning in caught] == []


@pools
async def test_a_pool_that_is_not_open_has_nothing_to_check_or_to_drain(dsn: str, kind: Any) -> None:
    pool = kind(dsn, min_size=fewest(kind), max_size=2, open=False)
    await pool.check()
    await pool.drain()
    await pool.resize(fewest(kind), 3)
    assert pool.max_size == 3
    await pool.open()
    await pool.wait()
    await pool.close()
    await pool.check()
    await pool.drain()
    await pool.resize(fewest(kind), 2)
    assert pool.get_stats()['pool_size'] == 0


@pools
async def test_close_does_not_wait_for_a_connection_in_use(dsn: str, kind: Any) -> None:
    pool = kind(dsn, min_size=fewest(kind), max_size=2, open=False)
    await pool.open()
    conn = await pool.getconn()
    await pool.close()
    assert not conn.closed
    cursor = await conn.execute('SELECT 1')
    assert await cursor.fetchone() == (1,)
    await pool.putconn(conn)
    assert conn.closed


async def test_close_closes_the_idle_connections(dsn: str) -> None:
    pool = AsyncConnectionPool(dsn, min_size=1, open=False)
    await pool.open(wait=True)
    async with pool.connection() as conn:
        pass
    assert not conn.closed
    await pool.close()
    assert conn.closed


@pools
async def test_close_ends_the_waits_of_clients(dsn: str, kind: Any) -> None:
    pool = kind(dsn, min_size=fewest(kind), max_size=1, open=False)
    await pool.open()
    conn = await pool.getconn()
    waiter = spawn(pool.getconn)
    await until(lambda: pool.get_stats()['requests_waiting'] == 1)
    await pool.close()
    with pytest.raises(PoolClosed):
        await waiter.result()
    assert pool.get_stats()['requests_errors'] == 1
    await pool.putconn(conn)


@pools
async def test_a_pool_is_never_falsy_and_the_connection_knows_where_it_is(dsn: str, kind: Any) -> None:
    async with kind(dsn, min_size=fewest(kind), max_size=1) as pool:
        assert bool(pool)
        assert not hasattr(pool, '__len__')
        conn = await pool.getconn()
        assert conn._pool is pool
        await pool.putconn(conn)
        assert conn._pool is None
    other = await psycopg.AsyncConnection.connect(dsn)
    assert not hasattr(other, '_pool')
    await other.close()


async def test_a_wait_that_runs_out_closes_the_pool_and_tells_why(proxied: str, proxy: Any) -> None:
    proxy.resets()
    pool = AsyncConnectionPool(proxied, min_size=2, open=False)
    await pool.open()
    with pytest.raises(PoolTimeout) as caught:
        await pool.wait(0.2)
    assert isinstance(caught.value.__cause__, psycopg.OperationalError)
    assert pool.closed


@pools
async def test_wait_returns_when_connecting_works(dsn: str, kind: Any) -> None:
    async with kind(dsn, min_size=fewest(kind)) as pool:
        await pool.wait()
        await pool.wait()
        assert pool.get_stats()['pool_available'] == fewest(kind)


async def test_names_are_counted_and_shown(dsn: str) -> None:
    first, second = AsyncConnectionPool(dsn, open=False), AsyncConnectionPool(dsn, open=False, name='this one')
    assert first.name.startswith('pool-')
    assert repr(second) == f"<{type(second).__module__}.{type(second).__name__} 'this one' at 0x{id(second):x}>"
    second.name = 'another'
    assert "'another'" in repr(second)


async def test_a_subclass_that_calls_no_init_can_be_dropped() -> None:
    class Own(AsyncConnectionPool[Any]):
        def __init__(self) -> None:
            pass

    pool = Own()
    assert pool.closed
    assert not pool._opened
    assert 'None' in repr(pool)
    del pool
    gc.collect()


@pytest.mark.parametrize(
    ('kind', 'sizes', 'named'),
    [
        (AsyncConnectionPool, {'min_size': -1}, 'min_size=-1'),
        (AsyncConnectionPool, {'min_size': 4, 'max_size': 2}, 'max_size=2'),
        (AsyncConnectionPool, {'min_size': 0}, 'max_size=0'),
        (AsyncConnectionPool, {'num_workers': 0}, 'num_workers=0'),
        (AsyncNullConnectionPool, {'min_size': 1}, 'min_size=1'),
        (AsyncNullConnectionPool, {'max_size': -2}, 'max_size=-2'),
    ],
)
async def test_bad_sizes_are_value_errors(kind: Any, sizes: dict[str, int], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        kind('', open=False, **sizes)


@pytest.mark.parametrize('name', ['min_size', 'max_size', 'max_waiting', 'num_workers'])
@pytest.mark.parametrize('value', ['4', 2.5])
async def test_a_count_of_another_type_is_a_type_error(name: str, value: Any) -> None:
    options = {'min_size': 1, name: value}
    with pytest.raises(TypeError, match=f'^{name}={value!r}: expected a whole number, got {type(value).__name__}'):
        AsyncConnectionPool('', open=False, **options)


@pools
@pytest.mark.parametrize('name', ['timeout', 'max_lifetime', 'max_idle', 'reconnect_timeout'])
async def test_a_time_of_another_type_is_a_type_error(kind: Any, name: str) -> None:
    with pytest.raises(TypeError, match=f"^{name}='soon': expected a number of seconds, got str"):
        kind('', open=False, **{name: 'soon'})


@pools
async def test_an_option_that_does_not_exist_is_a_type_error(kind: Any) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'maximum'"):
        kind('', open=False, maximum=4)


@pytest.mark.parametrize(
    ('conninfo', 'message'),
    [
        ('nonsense', 'missing "=" after "nonsense"'),
        ('nonsense=1', 'invalid connection option "nonsense"'),
        (
            {'dbname': 'x', 'password': 'secret'},
            r'the conninfo of the pool .* is of type dict: expected a str, or a func',
        ),
        (5432, r'is of type int: expected a str, or a function that returns one; parameters by name go into kwargs'),
        (lambda: ['x'], r'is of type list: expected a str, or a function'),
    ],
)
async def test_a_conninfo_that_is_none_is_told_as_psycopg_does(
    conninfo: Any, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    pool = AsyncConnectionPool(conninfo, min_size=1, open=False)
    await pool.open()
    with pytest.raises(PoolTimeout) as caught:
        await pool.getconn(0.1)
    assert isinstance(caught.value.__cause__, psycopg.ProgrammingError)
    assert re.search(message, str(caught.value.__cause__))
    assert re.search(f'error connecting in {pool.name!r}: .*{message}', caplog.text)
    assert 'secret' not in caplog.text
    await pool.close()
    # Its clients connect themselves.
    null = AsyncNullConnectionPool(conninfo, open=False)
    await null.open()
    with pytest.raises(psycopg.ProgrammingError, match=message):
        await null.getconn(0.1)
    await null.close()


async def test_the_defaults_are_those_of_psycopg_pool() -> None:
    pool = AsyncConnectionPool('', open=False)
    assert (pool.min_size, pool.max_size, pool.timeout, pool.max_waiting) == (4, 4, 30.0, 0)
    assert (pool.max_lifetime, pool.max_idle, pool.reconnect_timeout, pool.num_workers) == (3600.0, 600.0, 300.0, 3)
    assert not pool.close_returns
    null = AsyncNullConnectionPool('', open=False)
    assert (null.min_size, null.max_size) == (0, 0)
