"""The manager of asyncpg connections, alone, against a private PostgreSQL server."""

import asyncio
import contextlib
import gc
import logging
import socket
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from tests.asyncio_.runtime import until
from tests.contrib.cancelling import WAYS, Way
from tests.contrib.conftest import Run
from tests.contrib.raising import HOW_IT_IS_RAISED, bare, raised
from tests.contrib.sampling import sampled
from tests.contrib.servers import (
    PATIENCE,
    PostgresServer,
    closed_port,
    frozen,
    running_postgres,
    wait_for_end,
    wait_readable,
)

asyncpg = pytest.importorskip('asyncpg')

from gcpool.asyncio import ConnectionPool  # noqa: E402
from gcpool.contrib._postgres import is_of_the_server  # noqa: E402
from gcpool.contrib.asyncpg import BROKEN_CODES, Connection, DbConnectionManager  # noqa: E402
from gcpool.exceptions import ConnectError, ConnectTimeout, DiscardConnection, UnknownEndpoint  # noqa: E402
from gcpool.managers import ROLLED_BACK  # noqa: E402

pytestmark = pytest.mark.postgres


@pytest.fixture
def manager(postgres: PostgresServer) -> 'DbConnectionManager[Any]':
    return DbConnectionManager({'db': postgres.dsn_params})


async def on_server(postgres: PostgresServer, query: str) -> Any:
    """Execute a query on a connection of its own."""
    conn = await asyncpg.connect(**postgres.dsn_params)
    try:
        return await conn.fetchval(query)
    finally:
        await conn.close()


async def until_asleep(postgres: PostgresServer, conn: 'Connection[Any]') -> None:
    """Wait until the server is in a pg_sleep(): a cancellation before the statement begins has no effect."""
    pid = conn.get_server_pid()
    while not await on_server(
        postgres, f"SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'PgSleep'"
    ):
        pass


async def kill(postgres: PostgresServer, conn: 'Connection[Any]') -> None:
    """Have the server end a connection, and wait until the event loop has seen it."""
    ended = asyncio.Event()
    conn.add_termination_listener(lambda _conn: ended.set())
    assert await on_server(postgres, f'SELECT pg_terminate_backend({conn.get_server_pid()}, 30000)')
    await ended.wait()


async def last_query(postgres: PostgresServer, conn: 'Connection[Any]') -> Any:
    return await on_server(postgres, f'SELECT query FROM pg_stat_activity WHERE pid = {conn.get_server_pid()}')


# Some chunks, and then the server works silently for long; or very many chunks.
SILENT = "SELECT repeat('x', 20000) FROM generate_series(1, 3) UNION ALL SELECT pg_sleep(3600)::text"
MANY = 'SELECT generate_series(1, 2000000)'


async def sink(_data: bytes) -> None:
    pass


async def cancelled_as_a_chunk_arrives(conn: Any, query: str) -> None:
    """Cancel a COPY when asyncpg has read a chunk, and its task does not know yet."""
    copying = asyncio.ensure_future(conn.copy_from_query(query, output=sink))
    waiter: asyncio.Future[Any] | None = None
    while waiter is None:
        await asyncio.sleep(0)
        held = gc.get_referents(conn._protocol)
        waiter = next((one for one in held if isinstance(one, asyncio.Future) and not one.done()), None)
    # This task was ready before those that the future wakes.
    while not waiter.done():  # noqa: ASYNC110  (nothing may come in between)
        await asyncio.sleep(0)
    copying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await copying


class TestCreate:
    @pytest.mark.parametrize('timeout', [None, 20.0])
    def test_connects(
        self, run: Run, postgres: PostgresServer, manager: 'DbConnectionManager[Any]', timeout: float | None
    ) -> None:
        async def main() -> None:
            conn = await manager.create('db', timeout)
            assert await conn.fetchval('SELECT current_user') == postgres.user
            await manager.dispose('db', conn)
            assert conn.is_closed()

        run(main)

    def test_takes_a_string(self, run: Run, postgres: PostgresServer) -> None:
        async def main() -> None:
            manager = DbConnectionManager[Any]({'db': postgres.dsn})
            conn = await manager.create('db', 20.0)
            assert await conn.fetchval('SELECT current_user') == postgres.user
            await manager.dispose('db', conn)

        run(main)

    def test_takes_callables(self, run: Run, postgres: PostgresServer) -> None:
        async def look_up(endpoint: str) -> str:
            await asyncio.sleep(0)
            return {'db': postgres.dsn}[endpoint]

        sources: list[Any] = [
            {'db': lambda endpoint: postgres.dsn},
            {'db': look_up},
            look_up,
            lambda endpoint: {'db': postgres.dsn_params}[endpoint],
        ]

        async def main() -> None:
            for source in sources:
                manager = DbConnectionManager[Any](source)
                conn = await manager.create('db', 20.0)
                assert await conn.fetchval('SELECT current_user') == postgres.user
                await manager.dispose('db', conn)
                with pytest.raises(UnknownEndpoint):
                    await manager.create('none')

        run(main)

    @pytest.mark.parametrize('source', [None, b'postgresql://localhost', 5])
    def test_refuses_what_is_no_source(self, source: Any) -> None:
        with pytest.raises(TypeError, match='dsn_params: expected a mapping of endpoints'):
            DbConnectionManager[Any](source)

    def test_shows_no_password_that_cannot_be_encoded(self, run: Run, postgres: PostgresServer) -> None:
        manager = DbConnectionManager[Any]({'db': {**postgres.dsn_params, 'password': '\udcffnot-a-secret'}})

        async def main() -> None:
            with pytest.raises(
                ConnectError, match=r'surrogates not allowed .* check its entry in dsn_params'
            ) as caught:
                await manager.create('db')
            seen: BaseException | None = caught.value
            while seen is not None:
                assert 'not-a-secret' not in repr(seen) + repr(vars(seen))
                seen = seen.__cause__ or seen.__context__
            assert 'not-a-secret' not in repr(caught.value.__context__)
            assert caught.value.__context__ is not None
            assert caught.value.__context__.__cause__ is None

        run(main)

    @pytest.mark.parametrize('found', [None, 5, [1], {1: 2}, {'host': 5}])
    def test_refuses_what_are_no_parameters(self, run: Run, found: Any) -> None:
        async def main() -> None:
            with pytest.raises(ConnectError, match=r"endpoint 'db' .* check its entry in dsn_params") as caught:
                await DbConnectionManager[Any]({'db': found}).create('db')
            assert isinstance(caught.value, (TypeError, AttributeError))

        run(main)

    def test_says_which_endpoints_there_are(
        self, run: Run, postgres: PostgresServer, manager: 'DbConnectionManager[Any]'
    ) -> None:
        async def main() -> None:
            with pytest.raises(
                UnknownEndpoint, match=r"endpoint 'none' is not in dsn_params, which has \['db'\]"
            ) as caught:
                await manager.create('none')
            assert isinstance(caught.value, KeyError)
            assert postgres.password not in str(caught.value)

        run(main)

    def test_refused_is_an_os_error(self, run: Run) -> None:
        async def main(port: int) -> None:
            manager = DbConnectionManager[Any]({'db': {'host': '127.0.0.1', 'port': port}})
            with pytest.raises(ConnectionRefusedError, match=r"'db' .* server is running") as caught:
                await manager.create('db')
            assert isinstance(caught.value, ConnectError)

        with closed_port() as port:
            run(lambda: main(port))

    @pytest.mark.parametrize(
        ('changes', 'kind', 'advice'),
        [
            ({'password': 'wrong'}, 'InvalidPasswordError', 'check user, password'),
            ({'user': 'nobody-knows'}, 'InvalidPasswordError', 'check user, password'),
            ({'database': 'none'}, 'InvalidCatalogNameError', 'check the name of the database'),
            ({'host': 'no-such-host.invalid'}, None, 'check the host name'),
            ({'prot': 'x'}, None, 'check its entry in dsn_params'),
            ({'port': 'x'}, None, 'check its entry in dsn_params'),
        ],
    )
    def test_says_what_to_do(
        self, run: Run, postgres: PostgresServer, changes: dict[str, Any], kind: str | None, advice: str
    ) -> None:
        async def main() -> None:
            manager = DbConnectionManager[Any]({'db': {**postgres.dsn_params, **changes}})
            pool = ConnectionPool[str, Any](manager)
            # Twice: asyncpg builds its errors from classes that it looks up, and must not find gcpool's.
            for _ in range(2):
                with pytest.raises(ConnectError, match=rf"endpoint 'db' .*; {advice}") as caught:
                    await pool.acquire('db', timeout=20.0)
                assert pool.get_size() == 0
                assert caught.value.endpoint == 'db'
                assert caught.value.__cause__ is not None
                assert isinstance(caught.value, type(caught.value.__cause__))
                assert not isinstance(caught.value.__cause__, ConnectError)
                assert kind is None or type(caught.value.__cause__).__name__ == kind
                assert postgres.password not in str(caught.value)
            await pool.close()

        run(main)

    def test_too_many_connections(self, run: Run, postgres: PostgresServer) -> None:
        async def main() -> None:
            await on_server(
                postgres, f"CREATE ROLE limited_async LOGIN CONNECTION LIMIT 1 PASSWORD '{postgres.password}'"
            )
            manager = DbConnectionManager[Any]({'db': {**postgres.dsn_params, 'user': 'limited_async'}})
            conn = await manager.create('db')
            with pytest.raises(asyncpg.TooManyConnectionsError, match='lower max_size') as caught:
                await manager.create('db')
            assert isinstance(caught.value, ConnectError)
            await manager.dispose('db', conn)
            await on_server(postgres, 'DROP ROLE limited_async')

        run(main)

    @pytest.mark.parametrize('dsn', ['not-a-secret', 'postgresql://gcpool:not-a-secret@[::1', 'x://:not-a-secret@y'])
    def test_shows_nothing_of_a_dsn_that_cannot_be_read(self, run: Run, dsn: str) -> None:
        async def main() -> None:
            with pytest.raises(ConnectError, match=r"endpoint 'db' .* check its entry in dsn_params") as caught:
                await DbConnectionManager[Any]({'db': dsn}).create('db')
            assert 'not-a-secret' not in ''.join(traceback.format_exception(caught.value))

        run(main)

    def test_times_out(self, run: Run, silent_listener: socket.socket) -> None:
        async def main() -> None:
            host, port = silent_listener.getsockname()
            manager = DbConnectionManager[Any]({'db': {'host': host, 'port': port, 'timeout': 3600.0}})
            with pytest.raises(asyncio.TimeoutError) as caught:
                await manager.create('db', 0.05)
            assert isinstance(caught.value, ConnectTimeout)
            assert caught.value.endpoint == 'db'
            conn, _ = await asyncio.to_thread(silent_listener.accept)
            with conn:
                await asyncio.to_thread(wait_for_end, conn)

        run(main)

    def test_cancelled_leaves_nothing_open(self, run: Run, silent_listener: socket.socket) -> None:
        async def main() -> None:
            host, port = silent_listener.getsockname()
            manager = DbConnectionManager[Any]({'db': {'host': host, 'port': port, 'ssl': False}})
            task = asyncio.ensure_future(manager.create('db'))
            conn, _ = await asyncio.to_thread(silent_listener.accept)
            with conn:
                await asyncio.to_thread(wait_readable, conn)
                task.cancel()
                await asyncio.wait((task,))
                assert task.cancelled()
                await asyncio.to_thread(wait_for_end, conn)

        run(main)


class TestAliveness:
    @pytest.mark.parametrize('ping', [True, False])
    def test_of_an_idle_one(self, run: Run, postgres: PostgresServer, ping: bool) -> None:
        async def main() -> None:
            manager = DbConnectionManager[Any]({'db': postgres.dsn_params}, ping=ping)
            conn = await manager.create('db')
            await conn.execute('SELECT 2')
            assert await manager.check_aliveness('db', conn)
            assert await last_query(postgres, conn) == ('SELECT 1' if ping else 'SELECT 2')
            assert not conn.is_in_transaction()
            await manager.dispose('db', conn)
            assert not await manager.check_aliveness('db', conn)

        run(main)

    def test_of_what_the_server_has_ended(
        self, run: Run, postgres: PostgresServer, manager: 'DbConnectionManager[Any]'
    ) -> None:
        async def main() -> None:
            conn = await manager.create('db')
            await kill(postgres, conn)
            assert not await manager.check_aliveness('db', conn)
            await manager.dispose('db', conn)

        run(main)

    def test_with_ping_finds_an_end_that_the_loop_has_not_seen(self, run: Run, postgres: PostgresServer) -> None:
        async def main() -> None:
            manager = DbConnectionManager[Any]({'db': postgres.dsn_params}, ping=True)
            conn = await manager.create('db')
            await on_server(postgres, f'SELECT pg_terminate_backend({conn.get_server_pid()})')
            assert not await manager.check_aliveness('db', conn)
            await manager.dispose('db', conn)

        run(main)

    def test_without_ping_finds_an_end_that_the_loop_has_not_seen(
        self, run: Run, postgres: PostgresServer, manager: 'DbConnectionManager[Any]'
    ) -> None:
        conns: list[Connection[Any]] = []

        async def connect() -> None:
            conns.append(await manager.create('db'))

        async def check() -> None:
            # The loop has not turned since the server ended it.
            assert not conns[0].is_closed()
            assert not await manager.check_aliveness('db', conns[0])
            await manager.dispose('db', conns[0])

        run(connect)
        assert postgres.query(f'SELECT pg_terminate_backend({conns[0].get_server_pid()}, 30000)') == 't'
        run(check)

    def test_lets_the_loop_take_in_what_the_server_says_unasked(
        self, run: Run, postgres: PostgresServer, manager: 'DbConnectionManager[Any]'
    ) -> None:
        heard: list[Any] = []
        conns: list[Connection[Any]] = []

        async def connect() -> None:
            conns.append(await manager.create('db'))
            await conns[0].add_listener('gcpool', lambda _conn, _pid, _channel, payload: heard.append(payload))

        async def check() -> None:
            assert await manager.check_aliveness('db', conns[0])
            assert await conns[0].fetchval('SELECT 1') == 1
            assert heard == ['hello']
            await conns[0].remove_listener('gcpool', lambda *_: None)
            await manager.dispose('db', conns[0])

        run(connect)
        postgres.query("SELECT pg_notify('gcpool', 'hello')")
        run(check)

    def test_of_one_that_nobody_reads(
        self, run: Run, postgres: PostgresServer, manager: 'DbConnectionManager[Any]'
    ) -> None:
        async def main() -> None:
            conn: Any = await manager.create('db')
            await conn.execute('LISTEN gcpool')
            conn._transport.pause_reading()
            sock = conn._transport.get_extra_info('socket')
            await on_server(postgres, "SELECT pg_notify('gcpool', 'hello')")
            wait_readable(sock)
            assert not await manager.check_aliveness('db', conn)
            conn._transport.resume_reading()
            await manager.dispose('db', conn)

        run(main)

    def test_of_one_in_a_transaction(self, run: Run, manager: 'DbConnectionManager[Any]') -> None:
        async def main() -> None:
            conn = await manager.create('db')
            await conn.execute('BEGIN')
            assert not await manager.check_aliveness('db', conn)
            await manager.dispose('db', conn)

        run(main)

    @pytest.mark.parametrize('cancelled', [True, False])
    def test_a_ping_that_is_cut_off_closes(self, run: Run, postgres: PostgresServer, cancelled: bool) -> None:
        async def main() -> None:
            manager = DbConnectionManager[Any]({'db': postgres.dsn_params}, ping=True)
            conn = await manager.create('db')
            with frozen(conn.get_server_pid()):
                if cancelled:
                    task = asyncio.ensure_future(manager.check_aliveness('db', conn))
                    await asyncio.sleep(0)
                    task.cancel()
                    await asyncio.wait((task,))
                    assert task.cancelled()
                else:
                    assert not await manager.check_aliveness('db', conn, 0.05)
                assert conn.is_closed()
            assert not await manager.check_aliveness('db', conn)

        run(main)

    def test_with_ping_times_out(self, run: Run, postgres: PostgresServer) -> None:
        async def main() -> None:
            async with Proxy(postgres) as proxy:
                manager = DbConnectionManager[Any]({'db': proxy.dsn_params}, ping=True)
                conn = await manager.create('db')
                assert await manager.check_aliveness('db', conn, 20.0)
                proxy.mute()
                assert not await manager.check_aliveness('db', conn, 0.05)
                await manager.dispose('db', conn, 0.05)

        run(main)


class TestRelease:
    def test_sends_nothing_if_there_is_nothing_to_roll_back(
        self, run: Run, postgres: PostgresServer, manager: 'DbConnectionManager[Any]'
    ) -> None:
        async def main() -> None:
            conn = await manager.create('db')
            async with conn.transaction():
                await conn.execute('SELECT 2')
            await manager.on_release('db', conn)
            assert await last_query(postgres, conn) == 'COMMIT;'
            await manager.dispose('db', conn)

        run(main)

    @pytest.mark.parametrize('by_object', [True, False])
    @pytest.mark.parametrize('failed', [True, False])
    def test_rolls_back_what_is_open(
        self, postgres: PostgresServer, manager: 'DbConnectionManager[Any]', by_object: bool, failed: bool
    ) -> None:
        async def main() -> None:
            reported: list[dict[str, Any]] = []
            asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reported.append(context))
            conn = await manager.create('db')
            if by_object:
                await conn.transaction().start()
            else:
                await conn.execute('BEGIN')
            await conn.execute('CREATE TABLE left_open (n int)')
            if failed:
                with pytest.raises(asyncpg.DivisionByZeroError):
                    await conn.execute('SELECT 1/0')
            await manager.on_release('db', conn)
            assert not conn.is_in_transaction()
            assert await manager.check_aliveness('db', conn)
            # The next user gets a transaction of their own, not a savepoint in the old one.
            async with conn.transaction():
                assert await conn.fetchval("SELECT to_regclass('left_open')") is None
            await manager.dispose('db', conn)
            assert ['active transaction' in context['message'] for context in reported] == [True]

        # Not the fixture's runner, which allows no reports.
        asyncio.run(main())

    @pytest.mark.parametrize('end', ['COMMIT', 'ROLLBACK'])
    def test_discards_what_has_an_open_transaction_that_sql_has_ended(
        self, run: Run, manager: 'DbConnectionManager[Any]', end: str
    ) -> None:
        async def main() -> None:
            conn = await manager.create('db')
            await conn.transaction().start()
            assert not await manager.is_broken('db', conn, ValueError())
            await conn.execute(end)
            assert await manager.is_broken('db', conn, ValueError())
            assert not await manager.check_aliveness('db', conn)
            with pytest.raises(DiscardConnection, match=r"transaction\(\) of a connection to 'db' was ended by SQL"):
                await manager.on_release('db', conn)
            await manager.dispose('db', conn)
            assert conn.is_closed()

        run(main)

    def test_discards_what_a_user_has_closed(self, run: Run, manager: 'DbConnectionManager[Any]') -> None:
        async def main() -> None:
            conn = await manager.create('db')
            await conn.close()
            with pytest.raises(DiscardConnection, match="'db' was returned closed"):
                await manager.on_release('db', conn)
            assert await manager.is_broken('db', conn, ValueError())
            assert not await manager.check_aliveness('db', conn)
            await manager.dispose('db', conn)

        run(main)

    def test_discards_one_that_is_being_cancelled(
        self, run: Run, postgres: PostgresServer, manager: 'DbConnectionManager[Any]'
    ) -> None:
        async def main() -> None:
            conn = await manager.create('db')
            pid = conn.get_server_pid()
            task = asyncio.ensure_future(conn.execute('SELECT pg_sleep(3600)'))
            await until_asleep(postgres, conn)
            task.cancel()
            await asyncio.wait((task,))
            assert await manager.is_broken('db', conn, asyncio.CancelledError())
            assert not await manager.check_aliveness('db', conn)
            with pytest.raises(DiscardConnection, match='in the middle of a statement'):
                await manager.on_release('db', conn)
            await manager.dispose('db', conn, PATIENCE)
            assert conn.is_closed()
            # The server does not continue it.
            while await on_server(postgres, f'SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}'):
                pass

        run(main)

    @pytest.mark.parametrize('prepared', [True, False])
    def test_discards_one_that_another_task_still_uses(
        self, run: Run, postgres: PostgresServer, manager: 'DbConnectionManager[Any]', prepared: bool
    ) -> None:
        async def main() -> None:
            conn = await manager.create('db')
            pid = conn.get_server_pid()
            asking = conn.fetch('SELECT pg_sleep($1)', 3600.0) if prepared else conn.execute('SELECT pg_sleep(3600)')
            task = asyncio.ensure_future(asking)
            await until_asleep(postgres, conn)
            assert await manager.is_broken('db', conn, ValueError())
            assert not await manager.check_aliveness('db', conn)
            with pytest.raises(DiscardConnection, match='in the middle of a statement'):
                await manager.on_release('db', conn)
            await manager.dispose('db', conn)
            await asyncio.wait((task,))
            assert task.exception() is not None
            while await on_server(postgres, f'SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}'):
                pass

        run(main)

    def test_keeps_one_that_was_cancelled(
        self, run: Run, postgres: PostgresServer, manager: 'DbConnectionManager[Any]'
    ) -> None:
        async def main() -> None:
            conn = await manager.create('db')
            task = asyncio.ensure_future(conn.execute('SELECT pg_sleep(3600)'))
            await until_asleep(postgres, conn)
            task.cancel()
            await asyncio.wait((task,))
            # The next operation waits until the server has cancelled that one.
            assert await conn.fetchval('SELECT 1') == 1
            assert not await manager.is_broken('db', conn, asyncio.CancelledError())
            await manager.on_release('db', conn)
            assert await manager.check_aliveness('db', conn)
            await manager.dispose('db', conn)

        run(main)

    @pytest.mark.parametrize('query', [SILENT, MANY], ids=['silent', 'many'])
    def test_discards_one_whose_copy_was_cancelled_as_a_chunk_arrived(
        self, run: Run, postgres: PostgresServer, query: str
    ) -> None:
        class Special(asyncpg.Connection):  # type: ignore[misc,name-defined]
            async def copy_from_query(self, *args: Any, **kwargs: Any) -> Any:
                return await super().copy_from_query(*args, **kwargs)

        async def main() -> None:
            for params in ({}, {'connection_class': Special}):
                manager = DbConnectionManager[Any]({'db': {**postgres.dsn_params, **params}}, close_timeout=PATIENCE)
                conn = await manager.create('db')
                assert type(conn) is params.get('connection_class', asyncpg.Connection)
                await cancelled_as_a_chunk_arrives(conn, query)
                assert await manager.is_broken('db', conn, asyncio.CancelledError())
                assert not await manager.check_aliveness('db', conn)
                with pytest.raises(DiscardConnection, match='returned in the middle of a'):
                    await manager.on_release('db', conn)
                pid = conn.get_server_pid()
                await manager.dispose('db', conn)
                assert conn.is_closed()
                # The server does not continue it.
                while await on_server(postgres, f'SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}'):
                    pass

        run(main)

    def test_discards_one_that_another_task_still_copies_from(
        self, run: Run, manager: 'DbConnectionManager[Any]'
    ) -> None:
        async def main() -> None:
            conn = await manager.create('db')
            taken, go_on = asyncio.Event(), asyncio.Event()

            async def slow_sink(_data: bytes) -> None:
                taken.set()
                await go_on.wait()

            copying = asyncio.ensure_future(conn.copy_from_query(MANY, output=slow_sink))
            await taken.wait()
            assert await manager.is_broken('db', conn, ValueError())
            assert not await manager.check_aliveness('db', conn)
            with pytest.raises(DiscardConnection, match='returned in the middle of a'):
                await manager.on_release('db', conn)
            await manager.dispose('db', conn, 0.05)
            assert conn.is_closed()
            go_on.set()
            await asyncio.wait((copying,))
            assert copying.exception() is not None

        run(main)

    def test_keeps_one_that_was_used_after_a_copy_was_cancelled(
        self, run: Run, manager: 'DbConnectionManager[Any]'
    ) -> None:
        async def failing_sink(_data: bytes) -> None:
            raise LookupError

        async def main() -> None:
            conn = await manager.create('db')
            with pytest.raises(LookupError):
                await conn.copy_from_query(MANY, output=failing_sink)
            # The next operation waits until the server has cancelled that one.
            assert await conn.fetchval('SELECT 1') == 1
            assert not await manager.is_broken('db', conn, LookupError())
            await manager.on_release('db', conn)
            assert await manager.check_aliveness('db', conn)
            await manager.dispose('db', conn)

        run(main)

    def test_keeps_one_whose_copies_ended(self, run: Run, manager: 'DbConnectionManager[Any]') -> None:
        async def main() -> None:
            conn = await manager.create('db')
            assert await conn.copy_from_query('SELECT generate_series(1, 3)', output=sink) == 'COPY 3'
            with pytest.raises(asyncpg.DivisionByZeroError):
                await conn.copy_from_query('SELECT 1 / (3 - generate_series(1, 3))', output=sink)
            with pytest.raises(asyncpg.UndefinedTableError):
                await conn.copy_from_table('no_such_table', output=sink)
            await manager.on_release('db', conn)
            assert not await manager.is_broken('db', conn, ValueError())
            assert await manager.check_aliveness('db', conn)
            assert await conn.fetchval('SELECT 1') == 1
            await manager.dispose('db', conn)

        run(main)

    def test_discards_what_is_not_rolled_back_in_time(self, postgres: PostgresServer) -> None:
        async def main() -> None:
            manager = DbConnectionManager[Any]({'db': postgres.dsn_params}, rollback_timeout=0.05)
            conn = await manager.create('db')
            await conn.execute('BEGIN')
            with frozen(conn.get_server_pid()):
                with pytest.raises(DiscardConnection, match='cannot be rolled back'):
                    await manager.on_release('db', conn)
                assert conn.is_closed()
            await manager.dispose('db', conn)

        # Not the fixture's runner, which allows no reports; here asyncpg makes one.
        asyncio.run(main())

    @pytest.mark.parametrize('cancelled', [True, False])
    def test_aborts_what_cannot_be_rolled_back(
        self, postgres: PostgresServer, caplog: pytest.LogCaptureFixture, cancelled: bool
    ) -> None:
        async def main() -> None:
            async with Proxy(postgres) as proxy:
                manager = DbConnectionManager[Any]({'db': proxy.dsn_params})
                conn = await manager.create('db')
                await conn.execute('BEGIN')
                proxy.mute()
                task = asyncio.ensure_future(manager.on_release('db', conn))
                await asyncio.sleep(0)
                if cancelled:
                    task.cancel()
                else:
                    proxy.hang_up()
                await asyncio.wait((task,))
                assert task.cancelled() is cancelled
                if not cancelled:
                    assert isinstance(task.exception(), DiscardConnection)
                assert conn.is_closed()

        with caplog.at_level(logging.WARNING, 'gcpool.contrib.asyncpg'):
            asyncio.run(main())
        assert ("discarding a connection to 'db'" in caplog.text) is not cancelled


class TestInPool:
    @pytest.mark.parametrize('left_out', [True, False])
    @pytest.mark.parametrize('query', [SILENT, MANY], ids=['silent', 'many'])
    def test_does_not_serve_one_in_the_middle_of_a_copy(
        self, run: Run, manager: 'DbConnectionManager[Any]', query: str, left_out: bool
    ) -> None:
        async def main() -> None:
            pool = ConnectionPool[str, Any](manager, max_size=1)
            conn = await pool.acquire('db')
            await cancelled_as_a_chunk_arrives(conn, query)
            release = asyncio.ensure_future(pool.release(conn, 'db'))
            if left_out:
                # Before its first step.
                release.cancel()
            await asyncio.wait((release,))
            for _ in range(2):
                async with pool.connection('db') as other:
                    assert other is not conn
                    assert await other.fetchval('SELECT 1') == 1
            await pool.close()

        run(main)

    @pytest.mark.parametrize('query', [SILENT, MANY], ids=['silent', 'many'])
    def test_a_copy_that_is_left_is_cancelled_at_once_and_only_once(
        self,
        run: Run,
        postgres: PostgresServer,
        manager: 'DbConnectionManager[Any]',
        query: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """A second request would wait for its answer until the time for closing is over."""

        async def main() -> None:
            conn: Any = await manager.create('db')
            state = f'SELECT state FROM pg_stat_activity WHERE pid = {conn.get_server_pid()}'
            await cancelled_as_a_chunk_arrives(conn, query)
            assert conn._protocol._is_cancelling()
            while await on_server(postgres, state) != 'idle':  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await manager.dispose('db', conn, 2.0)

        with caplog.at_level('DEBUG', 'gcpool'):
            run(main)
        assert 'was aborted' not in caplog.text

    def test_a_copy_may_be_cancelled_at_any_time(self, run: Run, manager: 'DbConnectionManager[Any]') -> None:
        async def main() -> None:
            pool = ConnectionPool[str, Any](manager, max_size=1)
            for turns in range(30):
                chunks = 0

                async def slow_sink(_data: bytes) -> None:
                    nonlocal chunks
                    chunks += 1
                    await asyncio.sleep(0)

                async def user() -> None:
                    async with pool.connection('db') as conn:
                        # No more than uvloop reads at once, 256,000 bytes. Where uvloop reads once more before the
                        # cancelled task runs, asyncpg fails: no call waits for what was read.
                        await conn.copy_from_query('SELECT generate_series(1, 20000)', output=slow_sink)

                copying = asyncio.ensure_future(user())
                while chunks < 2 and not copying.done():  # noqa: ASYNC110  (nothing may come in between)
                    await asyncio.sleep(0)
                for _ in range(turns):
                    await asyncio.sleep(0)
                copying.cancel()
                await asyncio.wait((copying,))
                async with pool.connection('db') as conn:
                    assert await conn.fetchval('SELECT 77') == 77
            await pool.close()

        run(main)

    def test_discards_what_is_in_doubt(self, run: Run, manager: 'DbConnectionManager[Any]') -> None:
        async def main() -> None:
            pool = ConnectionPool[str, Any](manager, max_size=1)
            used: list[Connection[Any]] = []

            async def work() -> None:
                async with pool.connection('db') as conn:
                    used.append(conn)
                    await conn.execute('SELECT pg_sleep(3600)')

            task = asyncio.ensure_future(work())
            while not used:  # noqa: ASYNC110  (the loop has to turn)
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait((task,))
            # Leaving the block does not wait longer than 0.1 s for the end of the connection.
            await until(lambda: pool.get_size() == 0)
            assert used[0].is_closed()
            async with pool.connection('db') as conn:
                assert await conn.fetchval('SELECT 1') == 1
            await pool.close()

        run(main)


class TestDispose:
    def test_twice(self, run: Run, manager: 'DbConnectionManager[Any]') -> None:
        async def main() -> None:
            conn = await manager.create('db')
            await manager.dispose('db', conn)
            await manager.dispose('db', conn)
            assert conn.is_closed()

        run(main)

    def test_ends_a_running_statement(
        self, run: Run, postgres: PostgresServer, manager: 'DbConnectionManager[Any]'
    ) -> None:
        async def main() -> None:
            conn = await manager.create('db')
            user = asyncio.ensure_future(conn.execute('SELECT pg_sleep(3600)'))
            await asyncio.sleep(0)
            await manager.dispose('db', conn)
            with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError)):
                await user
            assert conn.is_closed()

        run(main)

    @pytest.mark.parametrize('cancelled', [True, False])
    def test_does_not_wait_for_a_server_that_says_nothing(
        self, run: Run, postgres: PostgresServer, cancelled: bool
    ) -> None:
        async def main() -> None:
            async with Proxy(postgres) as proxy:
                manager = DbConnectionManager[Any](
                    {'db': proxy.dsn_params}, close_timeout=3600.0 if cancelled else 0.05
                )
                conn = await manager.create('db')
                user = asyncio.ensure_future(conn.execute('SELECT pg_sleep(3600)'))
                await asyncio.sleep(0)
                proxy.mute()
                task = asyncio.ensure_future(manager.dispose('db', conn))
                await asyncio.sleep(0)
                if cancelled:
                    task.cancel()
                await asyncio.wait((task,))
                assert task.cancelled() is cancelled
                assert conn.is_closed()
                # With or without an exception, as asyncpg decides.
                await asyncio.wait((user,))
                user.exception()

        run(main)


# What a user may leave behind on a connection, and how the next user would see it. `show` gives the same for an unused
# connection.
LEFTOVERS: dict[str, tuple[str, str]] = {
    'role': ('SET ROLE left_role', 'SELECT current_user::text'),
    'session authorization': ('SET SESSION AUTHORIZATION left_role', 'SELECT session_user::text'),
    'both': ('SET SESSION AUTHORIZATION left_role; SET ROLE left_role', 'SELECT session_user || current_user'),
    'setting': ("SET statement_timeout = '77min'", "SELECT current_setting('statement_timeout')"),
    'setting of its own': ("SET own.setting = 'x'", "SELECT coalesce(current_setting('own.setting', true), '')"),
    'read only': ('SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY', 'SHOW transaction_read_only'),
    'search path': ('SET search_path = left_schema', 'SHOW search_path'),
    'functions of its own': (
        'SET search_path = left_schema, pg_catalog; SELECT pg_catalog.pg_advisory_lock(78)',
        "SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
    ),
    'temporary table': ('CREATE TEMP TABLE left_table (n int)', "SELECT coalesce(to_regclass('left_table')::text, '')"),
    'temporary view': ('CREATE TEMP VIEW left_view AS SELECT 1', "SELECT coalesce(to_regclass('left_view')::text, '')"),
    # The server refuses the last value of a sequence that was not used in this session.
    'sequence': ("SELECT nextval('left_sequence')", "SELECT 'has one: ' || (currval('left_sequence') > 0)"),
    'LISTEN': ('LISTEN left_channel', "SELECT coalesce(string_agg(c, ','), '') FROM pg_listening_channels() AS c"),
    'advisory lock': (
        'SELECT pg_advisory_lock(77)',
        "SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
    ),
    'PREPARE': (
        'PREPARE left_statement AS SELECT 1',
        "SELECT count(*)::text FROM pg_prepared_statements WHERE name LIKE 'left%'",
    ),
    'cursor': (
        'DECLARE left_cursor CURSOR WITH HOLD FOR SELECT 1',
        "SELECT count(*)::text FROM pg_cursors WHERE name = 'left_cursor'",
    ),
    'transaction': ('BEGIN; CREATE TABLE left_open (n int)', "SELECT coalesce(to_regclass('left_open')::text, '')"),
    'role in a transaction': ('BEGIN; SET ROLE left_role; COMMIT; BEGIN', 'SELECT current_user::text'),
}


async def see(conn: Any, show: str) -> str:
    """Return what a user sees; a refusal by the server is a result, too."""
    try:
        # Twice: prepared, and then taken from asyncpg's cache.
        first: str = await conn.fetchval(show)
        assert await conn.fetchval(show) == first
    except asyncpg.PostgresError as exc:
        return type(exc).__name__
    return first


@pytest.fixture(scope='module')
def things_to_leave(postgres: PostgresServer) -> Iterator[None]:
    """Create what LEFTOVERS needs."""
    postgres.query(
        'CREATE ROLE left_role; CREATE SCHEMA left_schema; CREATE SEQUENCE left_sequence; '
        'CREATE FUNCTION left_schema.pg_advisory_unlock_all() RETURNS void LANGUAGE sql AS $$ SELECT $$; '
        'GRANT USAGE ON SCHEMA left_schema TO PUBLIC'
    )
    yield
    postgres.query('DROP SCHEMA left_schema CASCADE; DROP SEQUENCE left_sequence; DROP ROLE left_role')


@pytest.mark.usefixtures('things_to_leave')
class TestFullReset:
    @pytest.mark.parametrize('left', LEFTOVERS)
    def test_nothing_reaches_the_next_user(self, run: Run, postgres: PostgresServer, left: str) -> None:
        leave, show = LEFTOVERS[left]

        async def main() -> None:
            manager = DbConnectionManager[Any]({'db': postgres.dsn_params}, reset='full')
            pool = ConnectionPool[str, Any](manager, max_size=1)
            fresh = await asyncpg.connect(**postgres.dsn_params)
            expected = await see(fresh, show)
            await fresh.close()
            pids = set()
            for _ in range(20):
                async with pool.connection('db') as conn:
                    assert await see(conn, show) == expected
                    await conn.execute(leave)
                    pids.add(conn.get_server_pid())
            async with pool.connection('db') as conn:
                assert await see(conn, show) == expected
            assert len(pids) == 1
            await pool.close()

        run(main)

    @pytest.mark.parametrize('left', [left for left in LEFTOVERS if 'transaction' not in left])
    def test_the_next_user_would_see_it(self, run: Run, postgres: PostgresServer, left: str) -> None:
        leave, show = LEFTOVERS[left]

        async def main() -> None:
            manager = DbConnectionManager[Any]({'db': postgres.dsn_params})
            pool = ConnectionPool[str, Any](manager, max_size=1)
            async with pool.connection('db') as conn:
                before = await see(conn, show)
                await conn.execute(leave)
            async with pool.connection('db') as conn:
                assert await see(conn, show) != before
            await pool.close()

        run(main)

    def test_what_asyncpg_holds_does_not_reach_the_next_user(self, run: Run, postgres: PostgresServer) -> None:
        heard: list[Any] = []

        async def main() -> None:
            manager = DbConnectionManager[Any]({'db': postgres.dsn_params}, reset='full')
            pool = ConnectionPool[str, Any](manager, max_size=1)
            statements = []
            for number in range(20):
                async with pool.connection('db') as conn:
                    assert not heard
                    # A query that is in the cache from the previous round, if the cache was not cleared.
                    assert await conn.fetchval('SELECT $1::int + 1', number) == number + 1
                    statements.append(await conn.prepare('SELECT 1', name=f'left_{number}'))
                    conn.add_query_logger(heard.append)
                    conn.add_log_listener(lambda _conn, message: heard.append(message))
                    conn.add_termination_listener(heard.append)
                    await conn.add_listener('left_channel', lambda *what: heard.append(what))
                heard.clear()
                async with pool.connection('db') as conn:
                    await conn.execute("NOTIFY left_channel; DO $$ BEGIN RAISE WARNING 'x'; END $$")
            assert pool.get_stats()['created'] == 1
            # asyncpg's listeners must be gone after it has closed the connection.
            statements.clear()
            gc.collect()
            await pool.close()
            assert not heard

        run(main)

    def test_what_create_has_added_stays(self, run: Run, postgres: PostgresServer) -> None:
        logged: list[Any] = []

        class Special(DbConnectionManager[Any]):
            async def create(self, endpoint: str, timeout: float | None = None) -> Any:
                conn = await super().create(endpoint, timeout)
                await conn.set_type_codec('json', encoder=str, decoder=len, schema='pg_catalog')
                conn.add_query_logger(logged.append)
                return conn

        async def main() -> None:
            params = {**postgres.dsn_params, 'server_settings': {'role': 'left_role', 'search_path': 'left_schema'}}
            pool = ConnectionPool[str, Any](Special({'db': params}, reset='full'), max_size=1)
            for _ in range(20):
                async with pool.connection('db') as conn:
                    # asyncpg looks up what an array of a type is; this is no change.
                    await conn.fetch('SELECT ARRAY[relkind], oid::regclass FROM pg_class LIMIT 1')
                    logged.clear()
                    assert await conn.fetchval("SELECT '[1, 2]'::json") == 6
                    assert await conn.fetchval('SELECT current_user::text') == 'left_role'
                    assert await conn.fetchval('SHOW search_path') == 'left_schema'
                    assert len(logged) == 3
                    await conn.execute('RESET ROLE; SET search_path = pg_catalog')
            assert pool.get_stats()['created'] == 1
            # What the next user would otherwise read.
            async with pool.connection('db') as conn:
                await conn.set_type_codec('jsonb', encoder=str, decoder=len, schema='pg_catalog')
            async with pool.connection('db') as conn:
                assert await conn.fetchval("SELECT '[1, 2]'::jsonb") == '[1, 2]'
            async with pool.connection('db') as conn:
                await conn.reset_type_codec('json', schema='pg_catalog')
            async with pool.connection('db') as conn:
                assert await conn.fetchval("SELECT '[1, 2]'::json") == 6
            assert pool.get_stats()['created'] == 3
            await pool.close()

        run(main)

    @pytest.mark.parametrize('leave', ['', 'BEGIN', 'BEGIN; SELECT 1/0'])
    def test_takes_one_round_trip(self, run: Run, postgres: PostgresServer, leave: str) -> None:
        async def main() -> None:
            async with Proxy(postgres) as proxy:
                manager = DbConnectionManager[Any]({'db': proxy.dsn_params}, reset='full')
                conn = await manager.create('db')
                await conn.fetchval('SELECT 1')
                with contextlib.suppress(asyncpg.DivisionByZeroError):
                    await conn.execute(leave or 'SELECT 1')
                before = proxy.messages
                answer = await manager.on_release('db', conn)
                assert proxy.messages == before + 1
                assert not conn.is_in_transaction()
                assert answer is (ROLLED_BACK if leave else None)
                await manager.dispose('db', conn)

        run(main)

    @pytest.mark.parametrize('ping', [True, False])
    @pytest.mark.parametrize('how', ['closed before its first step', 'cancelled before its first step'])
    @pytest.mark.parametrize('left', ['role', 'query logger'])
    def test_a_release_that_was_cut_off(
        self, run: Run, postgres: PostgresServer, how: str, ping: bool, left: str
    ) -> None:
        logged: list[Any] = []

        async def main() -> None:
            manager = DbConnectionManager[Any]({'db': postgres.dsn_params}, reset='full', ping=ping)
            pool = ConnectionPool[str, Any](manager, max_size=1, check_interval=3600.0)
            conn = await pool.acquire('db')
            if left == 'role':
                await conn.execute('SET ROLE left_role')
            else:
                conn.add_query_logger(logged.append)
            if how == 'closed before its first step':
                pool.release(conn, 'db').close()
            else:
                release = asyncio.ensure_future(pool.release(conn, 'db'))
                release.cancel()
                await asyncio.wait((release,))
            logged.clear()
            async with pool.connection('db') as other:
                assert await other.fetchval('SELECT current_user::text') == postgres.user
                assert (other is conn) is (left == 'query logger')
            assert not [record for record in logged if 'current_user' in record.query]
            # After the reset, any number of checks keeps it.
            for _ in range(3):
                assert await manager.check_aliveness('db', other)
            await pool.close()

        run(main)

    def test_works_where_nothing_may_be_written(self, run: Run, postgres: PostgresServer) -> None:
        async def main() -> None:
            params = {**postgres.dsn_params, 'server_settings': {'default_transaction_read_only': 'on'}}
            manager = DbConnectionManager[Any]({'db': params}, reset='full')
            conn = await manager.create('db')
            await manager.on_release('db', conn)
            assert await conn.fetchval('SHOW transaction_read_only') == 'on'
            await manager.dispose('db', conn)

        run(main)

    def test_the_rollback_alone_also_undoes_the_role(self, postgres: PostgresServer) -> None:
        """It also resets the session's settings, so nobody can expect the role to stay."""

        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
            manager = DbConnectionManager[Any]({'db': postgres.dsn_params})
            conn = await manager.create('db')
            for _ in range(20):
                await conn.execute('SET SESSION AUTHORIZATION left_role; SET ROLE left_role; BEGIN')
                await manager.on_release('db', conn)
                assert await conn.fetchval('SELECT session_user || current_user') == 2 * postgres.user
            await manager.dispose('db', conn)

        asyncio.run(main())


async def fail(pool: Any, wrap: Callable[[Exception], BaseException], use: Callable[[Any], Awaitable[Any]]) -> Any:
    """Use a pool's connection for something that fails, and have the block raise the failure in some way."""
    conn: Any = None
    with pytest.raises(BaseException, match=r'.'):  # noqa: PT012
        async with pool.connection('db') as conn:
            failure: Exception | None = None
            try:
                await use(conn)
            except asyncpg.PostgresError as exc:
                failure = exc
            assert failure is not None
            # Outside, so that it is not found as the context of what is raised.
            raise wrap(failure)
    return conn


class TestStaleSchema:
    """After a change of the schema each connection fails at most in what it had begun."""

    QUERIES = (
        # What fails, and the change that causes it.
        ('SELECT * FROM stale', 'ALTER TABLE stale ADD COLUMN m int'),
        ('SELECT c FROM stale', 'ALTER TYPE stale_type ADD ATTRIBUTE b int'),
    )

    @pytest.mark.parametrize(('wrap', 'number'), raised([0, 1], in_all_ways=[0]))
    @pytest.mark.parametrize('in_use', [True, False])
    def test_others_are_refreshed(
        self, run: Run, postgres: PostgresServer, wrap: Any, in_use: bool, number: int
    ) -> None:
        query, change = self.QUERIES[number]

        async def use(conn: Any) -> Any:
            # Outside of a transaction asyncpg prepares again by itself.
            async with conn.transaction():
                return await conn.fetch(query)

        async def main() -> None:
            postgres.query(
                'DROP TABLE IF EXISTS stale; DROP TYPE IF EXISTS stale_type; CREATE TYPE stale_type AS (a int); '
                "CREATE TABLE stale (n int, c stale_type); INSERT INTO stale VALUES (1, '(1)')"
            )
            manager = DbConnectionManager[Any]({'db': postgres.dsn_params})
            pool = ConnectionPool[str, Any](manager, max_size=3, check_interval=3600.0)
            conns = [await pool.acquire('db') for _ in range(3)]
            for conn in conns:
                await use(conn)
            await pool.release(conns[0], 'db')
            if not in_use:
                await pool.release(conns[1], 'db')
                await pool.release(conns[2], 'db')
            await on_server(postgres, change)
            failed = await fail(pool, wrap, use)
            if in_use:
                await pool.release(conns[1], 'db')
                await pool.release(conns[2], 'db')
            others = [await pool.acquire('db') for _ in range(2)]
            # Refreshed, not replaced.
            assert {*conns} == {failed, *others}
            for conn in others:
                assert (await use(conn))[0][0] == (1 if number == 0 else (1, None))
                await pool.release(conn, 'db')
            await pool.close()
            postgres.query('DROP TABLE stale; DROP TYPE stale_type')

        run(main)


@pytest.fixture(scope='module')
def new_primary() -> Iterator[PostgresServer]:
    """A server that takes the place of another."""
    with running_postgres() as server:
        yield server


@contextlib.contextmanager
def read_only(postgres: PostgresServer) -> Iterator[None]:
    """Have a server refuse to write, like a former primary after a failover."""

    def set_to(value: str) -> None:
        postgres.query(f"ALTER SYSTEM SET default_transaction_read_only = '{value}'")
        assert postgres.query('SELECT pg_reload_conf()') == 't'

    set_to('on')
    try:
        yield
    finally:
        postgres.query('ALTER SYSTEM RESET default_transaction_read_only')
        postgres.query('SELECT pg_reload_conf()')


async def write(conn: Any) -> int:
    await conn.execute('CREATE TABLE written (n int)')
    await conn.execute('DROP TABLE written')
    port: int = await conn.fetchval('SELECT inet_server_port()')
    return port


class TestReadOnly:
    @pytest.mark.parametrize(('wrap', 'in_use'), raised([True, False], in_all_ways=[False]))
    def test_one_error_is_enough(
        self, run: Run, postgres: PostgresServer, new_primary: PostgresServer, wrap: Any, in_use: bool
    ) -> None:
        async def main() -> None:
            async with Proxy(postgres) as proxy:
                manager = DbConnectionManager[Any]({'db': proxy.dsn_params})
                pool = ConnectionPool[str, Any](manager, max_size=3, check_interval=3600.0)
                conns = [await pool.acquire('db') for _ in range(3)]
                for conn in conns[: 1 if in_use else 3]:
                    await pool.release(conn, 'db')
                with read_only(postgres):
                    proxy.lead_to(new_primary)
                    await asyncio.to_thread(until_read_only, postgres)
                    failed = await fail(pool, wrap, write)
                    assert failed in conns
                    for conn in conns[1:] if in_use else []:
                        await pool.release(conn, 'db')
                    again = [await pool.acquire('db') for _ in range(3)]
                    assert not set(again) & set(conns)
                    for conn in again:
                        assert await write(conn) == new_primary.port
                        await pool.release(conn, 'db')
                    # From here on nothing is replaced.
                    again = [await pool.acquire('db') for _ in range(3)]
                    for conn in again:
                        await pool.release(conn, 'db')
                    assert pool.get_stats()['created'] == 6
                await pool.close()

        # asyncio's streams, which the proxy uses, report a connection that was reset to the loop.
        run(main)

    def test_a_server_that_is_so_on_purpose_makes_no_storm(self, run: Run, postgres: PostgresServer) -> None:
        async def main() -> None:
            manager = DbConnectionManager[Any](
                {'db': {**postgres.dsn_params, 'server_settings': {'default_transaction_read_only': 'on'}}}
            )
            pool = ConnectionPool[str, Any](manager, max_size=3)
            conns = [await pool.acquire('db') for _ in range(3)]
            for conn in conns:
                await pool.release(conn, 'db')
            for _ in range(10):
                await fail(pool, bare, write)
            conns = [await pool.acquire('db') for _ in range(3)]
            for conn in conns:
                await pool.release(conn, 'db')
            stats = pool.get_stats()
            # Each of those that failed, and each of the older ones once.
            assert (stats['broken'], stats['dead']) == (10, 2)
            await pool.close()

        run(main)

    def test_a_transaction_that_is_so_on_purpose_breaks_nothing(self, run: Run, postgres: PostgresServer) -> None:
        async def use(conn: Any) -> None:
            async with conn.transaction(readonly=True):
                await write(conn)

        async def main() -> None:
            pool = ConnectionPool[str, Any](DbConnectionManager[Any]({'db': postgres.dsn_params}), max_size=1)
            conn = await fail(pool, bare, use)
            async with pool.connection('db') as other:
                assert other is conn
                await write(other)
            await pool.close()

        run(main)


def until_read_only(postgres: PostgresServer) -> None:
    deadline = time.monotonic() + PATIENCE
    while postgres.query('SHOW default_transaction_read_only') != 'on':
        assert time.monotonic() < deadline


class TestBrokenCodes:
    # 25006 says something about the server, 26000 about one session.
    @pytest.mark.parametrize(('wrap', 'code'), raised(sorted(BROKEN_CODES), in_all_ways=['25006', '26000']))
    def test_each_breaks(self, run: Run, postgres: PostgresServer, code: str, wrap: Any) -> None:
        async def main() -> None:
            standby = {**postgres.dsn_params, 'server_settings': {'default_transaction_read_only': 'on'}}
            manager = DbConnectionManager[Any]({'db': standby, 'other': standby})
            conn, sibling = await manager.create('db'), await manager.create('db')
            other = await manager.create('other')
            exc = asyncpg.PostgresError.new({'C': code, 'M': 'said by the server'})
            assert await manager.is_broken('db', conn, wrap(exc))
            # An error of one session says nothing about the other connections.
            assert await manager.check_aliveness('db', sibling) is not is_of_the_server(code)
            if is_of_the_server(code):
                with pytest.raises(DiscardConnection, match='older than an error of broken_codes'):
                    await manager.on_release('db', sibling)
            assert await manager.check_aliveness('other', other)
            later = await manager.create('db')
            assert await manager.check_aliveness('db', later)
            for one in (conn, sibling, other, later):
                await manager.dispose('db', one)

        run(main)

    @HOW_IT_IS_RAISED
    def test_others_do_not(self, run: Run, postgres: PostgresServer, wrap: Any) -> None:
        async def main() -> None:
            manager = DbConnectionManager[Any]({'db': postgres.dsn_params})
            conn = await manager.create('db')
            for code in ('23505', '42P01', '40001', '08006'):
                exc = asyncpg.PostgresError.new({'C': code, 'M': 'said by the server'})
                assert not await manager.is_broken('db', conn, wrap(exc))
            assert await manager.check_aliveness('db', conn)
            await manager.dispose('db', conn)

        run(main)

    def test_may_be_replaced(self, run: Run, postgres: PostgresServer) -> None:
        async def main() -> None:
            manager = DbConnectionManager[Any]({'db': postgres.dsn_params}, broken_codes=['23505'])
            conn = await manager.create('db')
            errors = [asyncpg.PostgresError.new({'C': code, 'M': 'x'}) for code in ('57P01', '23505')]
            assert [await manager.is_broken('db', conn, exc) for exc in errors] == [False, True]
            await manager.dispose('db', conn)

        run(main)

    def test_what_the_server_has_forgotten_does_not_fail_again(self, run: Run, postgres: PostgresServer) -> None:
        async def forget(conn: Any) -> None:
            await conn.fetchval('SELECT $1::int', 1)
            await conn.execute('DISCARD ALL')
            await conn.fetchval('SELECT $1::int', 1)

        async def main() -> None:
            pool = ConnectionPool[str, Any](DbConnectionManager[Any]({'db': postgres.dsn_params}), max_size=1)
            await fail(pool, bare, forget)
            async with pool.connection('db') as conn:
                assert await conn.fetchval('SELECT $1::int', 1) == 1
            await pool.close()

        run(main)


@contextlib.contextmanager
def counted_sessions(postgres: PostgresServer, application: str) -> Iterator[list[int]]:
    """Sample the number of sessions of an application (``application_name``), as the server lists them."""
    counts: list[int] = []
    query = 'SELECT count(*) FROM pg_stat_activity WHERE application_name = $1'

    @contextlib.contextmanager
    def opened() -> Iterator[Callable[[], None]]:
        with contextlib.closing(asyncio.new_event_loop()) as loop:
            conn = loop.run_until_complete(asyncpg.connect(**postgres.dsn_params))
            yield lambda: counts.append(loop.run_until_complete(conn.fetchval(query, application)))
            loop.run_until_complete(conn.close())

    with sampled(opened()):
        yield counts


Work = Callable[[], Awaitable[None]]


async def limited(seconds: float, work: Work) -> None:
    """Have asyncio cancel it when the timeout expires."""
    if sys.version_info >= (3, 11):
        async with asyncio.timeout(seconds):
            await work()
    else:
        await asyncio.wait_for(work(), seconds)


class TestSessionsOfTheServer:
    @pytest.mark.parametrize('way', WAYS)
    def test_are_never_more_than_the_pool_may_have(self, run: Run, postgres: PostgresServer, way: Way) -> None:
        application = 'storm'
        begun = 0

        async def main() -> None:
            params = {**postgres.dsn_params, 'server_settings': {'application_name': application}}
            pool = ConnectionPool[str, Any](DbConnectionManager[Any]({'db': params}), max_size=2)

            async def give_up() -> None:
                at_work = asyncio.Event()

                async def request() -> None:
                    nonlocal begun
                    async with pool.connection('db') as conn:
                        begun += 1
                        at_work.set()
                        await conn.execute('SELECT pg_sleep(30)')

                async def looked_at() -> None:
                    await at_work.wait()
                    looks = len(counts)
                    # There is no event for a thread's samples.
                    while len(counts) < looks + 20:  # noqa: ASYNC110
                        await asyncio.sleep(0.005)

                await way(request, looked_at)

            # Two at a time: each pair begins when the previous one was abandoned.
            await asyncio.gather(*(give_up() for _ in range(8)))
            async with pool.connection('db') as conn:
                assert await conn.fetchval('SELECT 1') == 1
            await pool.close()

        with counted_sessions(postgres, application) as counts:
            run(main)
        assert begun == 8
        assert max(counts) == 2


def within(seconds: float, began: float) -> None:
    assert time.monotonic() - began < seconds


class TestTimeLimits:
    """What docs/recovery.md promises when a server stops answering: a limit of 0.5 s ends within 1 s."""

    LIMIT = 0.5
    MARGIN = 0.5

    @pytest.mark.parametrize('where', ['create', 'check', 'reset', 'dispose'])
    def test_what_the_pool_awaits(self, postgres: PostgresServer, where: str) -> None:
        async def main() -> None:
            async with Proxy(postgres) as proxy:
                manager = DbConnectionManager[Any](
                    {'db': proxy.dsn_params},
                    ping=True,
                    reset='full',
                    rollback_timeout=self.LIMIT,
                    close_timeout=3600.0 if where == 'dispose' else 0.0,
                )
                pool = ConnectionPool[str, Any](
                    manager, max_size=2, dispose_timeout=self.LIMIT if where == 'dispose' else None
                )
                conn = await pool.acquire('db')
                if where == 'check':
                    await pool.release(conn, 'db')
                proxy.mute()
                began = time.monotonic()
                if where in {'create', 'check'}:
                    with pytest.raises(asyncio.TimeoutError):
                        await pool.acquire('db', timeout=self.LIMIT)
                elif where == 'reset':
                    await pool.release(conn, 'db')
                    assert conn.is_closed()
                else:
                    asking = asyncio.ensure_future(conn.execute('SELECT 1'))
                    await asyncio.sleep(0)
                    await pool.release(conn, 'db')
                    await asyncio.wait((asking,))
                    asking.exception()
                within(self.LIMIT + self.MARGIN, began)
                await pool.close(timeout=0)

        asyncio.run(main())

    @pytest.mark.parametrize('close_timeout', [None, 0.1])
    @pytest.mark.parametrize('frozen_server', [True, False])
    def test_what_the_user_awaits(
        self, postgres: PostgresServer, close_timeout: float | None, frozen_server: bool
    ) -> None:
        """asyncpg asks the server to end the statement, for up to ``close_timeout``. Nothing waits for that."""
        limits: dict[str, Any] = {} if close_timeout is None else {'close_timeout': close_timeout}

        async def main() -> None:
            async with Proxy(postgres) as proxy:
                manager = DbConnectionManager[Any]({'db': proxy.dsn_params}, **limits)
                pool = ConnectionPool[str, Any](manager, max_size=1)

                async def request() -> None:
                    async with pool.connection('db') as conn:
                        if not frozen_server:
                            proxy.mute()
                        with frozen(conn.get_server_pid()) if frozen_server else contextlib.nullcontext():
                            await conn.execute('SELECT 1')

                began = time.monotonic()
                with pytest.raises(asyncio.TimeoutError):
                    await limited(self.LIMIT, request)
                within(self.LIMIT + self.MARGIN, began)
                # The slot is free when the connection is closed.
                assert pool.get_stats()['broken'] == 1
                await pool.close()
                assert pool.get_size() == 0

        asyncio.run(main())


def test_the_managers_of_the_page_leave_nothing_to_the_next_user(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What docs/drivers/asyncpg.md shows, many times on one connection."""
    monkeypatch.setenv('DATABASE_URL', postgres.dsn)
    pages = pytest.importorskip('tests.pages', exc_type=ModuleNotFoundError)
    page = pages.ROOT / 'docs' / 'drivers' / 'asyncpg.md'
    namespace: dict[str, Any] = {'__name__': 'page'}
    managers: list[Any] = []
    for block in pages.blocks_of(page.read_text(encoding='utf-8')):
        if block.language == 'python' and block.reason is None:
            exec(compile('\n' * block.line + block.code, str(page), 'exec', dont_inherit=True), namespace)
            if namespace.get('manager') not in (None, *managers):
                managers.append(namespace['manager'])
    capsys.readouterr()
    # The first program, the one with the full reset, and the one with limits for TCP.
    assert len(managers) == 3

    async def use(manager: Any) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
        pool = ConnectionPool[str, Any](manager, max_size=1)
        conns = set()
        for number in range(25):
            async with pool.connection('shop') as conn:
                conns.add(conn)
                assert await conn.fetchval('SELECT $1::int', number) == number
                assert await conn.fetchval("SELECT to_regclass('left_open')::text") is None
                assert not conn.is_in_transaction()
                if manager._resets_all:
                    assert await conn.fetchval('SHOW statement_timeout') == '0'
                    await conn.execute("SET statement_timeout = '77min'")
                await conn.execute('BEGIN; CREATE TABLE left_open (n int)')
        assert len(conns) == 1
        await pool.close()

    for manager in managers:
        asyncio.run(use(manager))
    assert [manager._resets_all for manager in managers] == [False, True, False]


class Proxy:
    """Stands between a client and the server, and goes silent when told to."""

    def __init__(self, postgres: PostgresServer) -> None:
        self._postgres = postgres
        self._server: asyncio.Server | None = None
        self._muted = False
        self.messages = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._writers: list[asyncio.StreamWriter] = []

    @property
    def dsn_params(self) -> dict[str, Any]:
        assert self._server is not None
        return {**self._postgres.dsn_params, 'port': self._server.sockets[0].getsockname()[1], 'ssl': False}

    def mute(self) -> None:
        """Forward nothing any more."""
        self._muted = True

    def lead_to(self, postgres: PostgresServer) -> None:
        """Let new connections lead to another server."""
        self._postgres = postgres

    def hang_up(self) -> None:
        """Reset the connections."""
        for writer in self._writers:
            writer.transport.abort()

    async def __aenter__(self) -> 'Proxy':  # noqa: PYI034  (Self needs Python 3.11)
        self._server = await asyncio.start_server(self._serve, '127.0.0.1')
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._server is not None
        self._server.close()
        # A connection that was just accepted (asyncpg cancels a statement by another connection) is served in the next
        # turns.
        for _ in range(3):
            await asyncio.sleep(0)
        self.hang_up()
        await asyncio.wait(self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        if self._muted:
            return
        server_reader, server_writer = await asyncio.open_connection(self._postgres.host, self._postgres.port)
        self._writers.append(server_writer)
        self._tasks += [
            asyncio.ensure_future(self._pump(reader, server_writer, counted=True)),
            asyncio.ensure_future(self._pump(server_reader, writer)),
        ]

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, counted: bool = False) -> None:
        try:
            while data := await reader.read(65536):
                self.messages += counted
                if not self._muted:
                    writer.write(data)
        except ConnectionError:
            # Treated like the end of the connection.
            pass
        writer.transport.abort()
