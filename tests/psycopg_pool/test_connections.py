"""How the pools of gcpool.psycopg_pool make, check, clean, reset and return connections."""

import contextlib
import logging
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Generic

import psycopg
import pytest
from psycopg.pq import TransactionStatus
from psycopg.rows import Row, dict_row

from gcpool.psycopg_pool import AsyncConnectionPool, PoolTimeout
from tests.asyncio_.runtime import until

IDLE = TransactionStatus.IDLE


def told(log: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in log.records if record.name == 'psycopg.pool']


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.WARNING, 'psycopg.pool')
    return caplog


async def test_the_connection_class_may_be_a_parametrised_generic(dsn: str) -> None:
    class Own(psycopg.AsyncConnection[Row], Generic[Row]):
        pass

    async with (
        AsyncConnectionPool(
            dsn, min_size=1, connection_class=Own[dict[str, Any]], kwargs={'row_factory': dict_row}
        ) as pool,
        pool.connection() as conn,
    ):
        assert isinstance(conn, Own)
        cursor = await conn.execute('SELECT 1 AS one')
        assert await cursor.fetchone() == {'one': 1}


async def test_connect_is_looked_up_at_each_call(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []
    connect = psycopg.AsyncConnection.connect

    async def traced(conninfo: str, **kwargs: Any) -> Any:
        seen.append(kwargs)
        return await connect(conninfo, **kwargs)

    async with AsyncConnectionPool(dsn, min_size=1, kwargs={'autocommit': True}) as pool:
        await pool.wait()
        monkeypatch.setattr(psycopg.AsyncConnection, 'connect', traced)
        await pool.drain()
        await until(lambda: bool(seen))
        assert seen[0] == {'autocommit': True}


async def test_conninfo_and_kwargs_may_be_functions_and_may_be_set(dsn: str) -> None:
    async with AsyncConnectionPool(lambda: dsn, min_size=1, kwargs=lambda: {'application_name': 'one'}) as pool:
        async with pool.connection() as conn:
            cursor = await conn.execute('SHOW application_name')
            assert await cursor.fetchone() == ('one',)
        assert await pool._resolve_conninfo() == dsn
        assert await pool._resolve_kwargs() == {'application_name': 'one'}
        pool.kwargs = {'application_name': 'two'}
        await pool.drain()
        async with pool.connection() as conn:
            cursor = await conn.execute('SHOW application_name')
            assert await cursor.fetchone() == ('two',)


async def test_what_a_user_changed_stays(dsn: str) -> None:
    async with AsyncConnectionPool(dsn, min_size=1) as pool:
        async with pool.connection() as conn:
            await conn.set_autocommit(True)
            conn.row_factory = dict_row  # type: ignore[assignment]
        async with pool.connection() as again:
            assert again is conn
            assert again.autocommit
            assert again.row_factory is dict_row  # type: ignore[comparison-overlap]


async def test_a_block_commits_or_rolls_back(dsn: str) -> None:
    async with AsyncConnectionPool(dsn, min_size=1) as pool:
        async with pool.connection() as conn:
            await conn.execute('CREATE TABLE IF NOT EXISTS committed (number int)')
            await conn.execute('TRUNCATE committed')
            await conn.execute('INSERT INTO committed VALUES (1)')

        async def failing() -> None:
            async with pool.connection() as conn:
                await conn.execute('INSERT INTO committed VALUES (2)')
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await failing()
        async with pool.connection() as conn:
            cursor = await conn.execute('SELECT number FROM committed')
            assert await cursor.fetchall() == [(1,)]


@pytest.mark.parametrize(('statement', 'status'), [('SELECT 1', 'INTRANS'), ('nonsense', 'INERROR')])
async def test_an_open_transaction_is_rolled_back_at_once(
    dsn: str, statement: Any, status: str, log: pytest.LogCaptureFixture
) -> None:
    async with AsyncConnectionPool(dsn, min_size=1) as pool:
        conn = await pool.getconn()
        with contextlib.suppress(psycopg.Error):
            await conn.execute(statement)
        await pool.putconn(conn)
        again = await pool.getconn(timeout=5)
        assert again is conn
        assert again.pgconn.transaction_status == IDLE
        await pool.putconn(again)
    assert len(told(log)) == 1
    assert f'[{status}]' in told(log)[0]


async def test_a_connection_in_the_middle_of_a_command_is_closed_and_replaced(
    dsn: str, log: pytest.LogCaptureFixture
) -> None:
    async with AsyncConnectionPool(dsn, min_size=1) as pool:
        conn = await pool.getconn()
        conn.pgconn.exec_(b'COPY (SELECT generate_series(1, 10)) TO STDOUT')
        await pool.putconn(conn)
        assert conn.closed
        async with pool.connection(timeout=10) as other:
            assert other is not conn
    messages = told(log)
    assert ['[ACTIVE]' in messages[0], '[BAD]' in messages[1], len(messages)] == [True, True, 2]
    assert pool.get_stats()['returns_bad'] == 1


async def test_a_failing_rollback_closes_the_connection(dsn: str, log: pytest.LogCaptureFixture) -> None:
    async with AsyncConnectionPool(dsn, min_size=1) as pool:
        conn = await pool.getconn()
        rollback = conn.rollback

        async def failing() -> None:
            conn.pgconn.finish()
            await rollback()

        conn.rollback = failing  # type: ignore[method-assign]
        await conn.execute('SELECT 1')
        await pool.putconn(conn)
        async with pool.connection(timeout=10) as other:
            assert other is not conn
    messages = told(log)
    assert len(messages) == 3
    assert '[INTRANS]' in messages[0]
    assert 'OperationalError' in messages[1]
    assert '[BAD]' in messages[2]


async def test_a_broken_connection_is_replaced_and_counted(dsn: str, log: pytest.LogCaptureFixture) -> None:
    async with AsyncConnectionPool(dsn, min_size=1) as pool:
        async with pool.connection() as conn:
            await conn.close()
        async with pool.connection(timeout=10) as other:
            assert other is not conn
        assert pool.get_stats()['returns_bad'] == 1
    assert '[BAD]' in told(log)[0]


@pytest.mark.parametrize('fault', ['raises', 'leaves a transaction'])
async def test_configure_that_fails_is_told_and_tried_again(
    dsn: str, fault: str, log: pytest.LogCaptureFixture
) -> None:
    conns: list[Any] = []

    async def configure(conn: Any) -> None:
        conns.append(conn)
        if len(conns) == 1:
            await conn.execute('SELECT 1')
            if fault == 'raises':
                raise ZeroDivisionError('in configure')

    async with AsyncConnectionPool(dsn, min_size=1, configure=configure) as pool:
        conn = await pool.getconn(timeout=10)
        assert conn is conns[-1]
        assert conns[0].closed
        await pool.putconn(conn)
        assert pool.get_stats()['connections_num'] >= 2
    assert ('in configure' if fault == 'raises' else 'INTRANS') in told(log)[0]


@pytest.mark.parametrize('fault', ['raises', 'leaves a transaction'])
async def test_reset_that_fails_closes_the_connection(dsn: str, fault: str, log: pytest.LogCaptureFixture) -> None:
    async def reset(conn: Any) -> None:
        await conn.execute('SELECT 1')
        if fault == 'raises':
            raise ZeroDivisionError('in reset')

    async with AsyncConnectionPool(dsn, min_size=1, reset=reset) as pool:
        async with pool.connection() as conn:
            pass
        async with pool.connection(timeout=10) as other:
            assert other is not conn
        await pool.wait()
        assert conn.closed
        assert pool.get_stats()['returns_bad'] == 2
    assert ('in reset' if fault == 'raises' else 'INTRANS') in told(log)[0]


async def test_reset_is_called_by_the_pool_after_the_rollback(dsn: str) -> None:
    seen: list[Any] = []

    async def reset(conn: Any) -> None:
        seen.append((conn.pgconn.transaction_status, conn._pool))

    async with AsyncConnectionPool(dsn, min_size=1, reset=reset) as pool:
        conn = await pool.getconn()
        await conn.execute('SELECT 1')
        await pool.putconn(conn)
        with pytest.raises(ValueError, match='was returned already'):
            await pool.putconn(conn)
        await pool.wait()
        assert seen == [(IDLE, pool)]
        assert await pool.getconn() is conn
        await pool.putconn(conn)


async def test_a_check_that_fails_gives_the_client_another_connection(
    dsn: str, kill: Callable[[Any], None], log: pytest.LogCaptureFixture
) -> None:
    async with AsyncConnectionPool(dsn, min_size=2, check=AsyncConnectionPool.check_connection) as pool:
        await pool.wait()
        async with pool.connection() as conn:
            pass
        async with pool.connection() as other:
            pass
        kill(conn)
        async with pool.connection(timeout=10) as found:
            assert found is not conn
            await found.execute('SELECT 1')
        assert not other.closed
        assert pool.get_stats()['connections_lost'] == 1
    assert told(log) == []


async def test_a_check_that_always_fails_runs_into_the_time_limit(dsn: str) -> None:
    async def check(conn: Any) -> None:
        raise ZeroDivisionError

    async with AsyncConnectionPool(dsn, min_size=1, check=check) as pool:
        with pytest.raises(PoolTimeout):
            await pool.getconn(timeout=0.5)
        # One connection was there, and each further one was made after a longer pause.
        assert pool.get_stats()['connections_lost'] <= 3


@pytest.mark.parametrize('autocommit', [True, False])
async def test_check_connection_leaves_the_connection_as_it_was(
    dsn: str, autocommit: bool, kill: Callable[[Any], None]
) -> None:
    conn = await psycopg.AsyncConnection.connect(dsn, autocommit=autocommit)
    await AsyncConnectionPool.check_connection(conn)
    assert conn.autocommit == autocommit
    assert conn.pgconn.transaction_status == IDLE
    kill(conn)
    with pytest.raises(psycopg.OperationalError):
        await AsyncConnectionPool.check_connection(conn)
    await conn.close()


async def test_check_replaces_the_broken_ones(
    dsn: str, kill: Callable[[Any], None], log: pytest.LogCaptureFixture
) -> None:
    async with AsyncConnectionPool(dsn, min_size=3) as pool:
        await pool.wait()
        async with pool.connection() as conn:
            pass
        kill(conn)
        await pool.check()
        await pool.wait()
        assert conn.closed
        assert pool.get_stats()['pool_available'] == 3
        assert pool.get_stats()['connections_lost'] == 1
    assert len(told(log)) == 1


async def test_close_of_a_connection_returns_it_if_that_is_wanted(dsn: str) -> None:
    async with AsyncConnectionPool(dsn, min_size=1, close_returns=True) as pool:
        conns: list[Any] = [await pool.getconn()]
        await conns[0].close()
        assert not conns[0].closed
        conns.append(await pool.getconn(timeout=5))
        assert conns[0] is conns[1]
        conn = conns[1]
        pool.close_returns = False
        await conn.close()
        assert conn.closed
        await pool.putconn(conn)


async def test_a_connection_of_another_pool_or_returned_twice_is_refused(dsn: str) -> None:
    async with AsyncConnectionPool(dsn, min_size=1) as pool, AsyncConnectionPool(dsn, min_size=1, name='two') as other:
        conn = await other.getconn()
        with pytest.raises(ValueError, match="it belongs to 'two'"):
            await pool.putconn(conn)
        await other.putconn(conn)
        with pytest.raises(ValueError, match='was returned already'):
            await other.putconn(conn)


async def test_connection_calls_getconn_of_a_subclass_and_may_be_entered_later(dsn: str) -> None:
    class Own(AsyncConnectionPool[Any]):
        async def getconn(self, timeout: float | None = None) -> Any:
            calls.append(timeout)
            return await super().getconn(timeout)

    calls: list[float | None] = []
    async with Own(dsn, min_size=1) as pool:
        block = pool.connection(timeout=7)
        assert calls == []
        async with block as conn:
            await conn.execute('SELECT 1')
        assert calls == [7]


async def test_a_connection_is_replaced_after_its_lifetime(dsn: str) -> None:
    async with AsyncConnectionPool(dsn, min_size=1, max_lifetime=0.2) as pool:
        conn = await pool.getconn()
        await until(lambda: conn.info.backend_pid > 0 and pool._engine._core.now() > made_at(conn) + 0.3)
        await pool.putconn(conn)
        async with pool.connection(timeout=10) as other:
            assert other is not conn
        await until(lambda: conn.closed)


def made_at(conn: Any) -> float:
    made: float = conn._gcpool_made_at
    return made


async def test_drain_replaces_every_connection_made_before(dsn: str) -> None:
    async with AsyncConnectionPool(dsn, min_size=3) as pool:
        await pool.wait()
        conn: Any = await pool.getconn()
        await pool.drain()
        assert not conn.closed
        await pool.putconn(conn)
        assert conn.closed
        await pool.wait()
        assert pool.get_stats()['connections_num'] == 6


@pytest.mark.parametrize('name', ['conninfo', 'kwargs', 'configure'])
async def test_system_exit_in_a_callback_of_a_connect_ends_nothing_but_the_attempt(dsn: str, name: str) -> None:
    attempts: list[str] = []

    def exit_once() -> None:
        attempts.append(name)
        if len(attempts) == 1:
            raise SystemExit(3)

    def conninfo() -> str:
        exit_once()
        return dsn

    def kwargs() -> dict[str, Any]:
        exit_once()
        return {}

    async def configure(conn: Any) -> None:
        exit_once()

    options: dict[str, Any] = {'conninfo': dsn, name: {'conninfo': conninfo, 'kwargs': kwargs}.get(name, configure)}
    async with AsyncConnectionPool(min_size=1, **options) as pool, pool.connection(timeout=20) as conn:
        await conn.execute('SELECT 1')
    assert len(attempts) == 2
    assert pool.get_stats()['connections_num'] == 2


async def test_system_exit_in_reset_closes_the_connection_and_ends_nothing_else(dsn: str) -> None:
    async def reset(conn: Any) -> None:
        raise SystemExit(3)

    async with AsyncConnectionPool(dsn, min_size=1, reset=reset) as pool:
        async with pool.connection() as first:
            pass
        async with pool.connection() as second:
            assert second is not first
        assert first.closed


async def test_a_message_about_a_return_is_formatted_only_if_it_is_logged(
    dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with AsyncConnectionPool(dsn, min_size=1) as pool:
        await pool.putconn(await pool.getconn())
        assert told(caplog) == []
        caplog.set_level(logging.INFO, 'psycopg.pool')
        await pool.putconn(await pool.getconn())
        assert [text for text in told(caplog) if 'is returned' in text] == [
            f'a connection is returned to {pool.name!r}'
        ]


async def test_what_a_reset_leaves_in_its_task_keeps_no_context_of_a_client(dsn: str) -> None:
    seen: list[object] = []
    of_client: ContextVar[object] = ContextVar('of_client', default=None)

    async def reset(conn: Any) -> None:
        seen.append(of_client.get())

    async with AsyncConnectionPool(dsn, min_size=1, reset=reset) as pool:
        of_client.set(object())
        async with pool.connection():
            pass
        await until(lambda: bool(seen))
        of_client.set(None)
    assert seen == [None]
