"""The manager of asyncpg connections, alone, against a private PostgreSQL server."""

import asyncio
import gc
import logging
import socket
import traceback
from typing import Any

import pytest

from tests.contrib.conftest import Run
from tests.contrib.servers import PATIENCE, PostgresServer, closed_port, frozen, wait_for_end, wait_readable

asyncpg = pytest.importorskip('asyncpg')

from gcpool.asyncio import ConnectionPool  # noqa: E402
from gcpool.contrib.asyncpg import Connection, DbConnectionManager  # noqa: E402
from gcpool.exceptions import ConnectError, ConnectTimeout, DiscardConnection, UnknownEndpoint  # noqa: E402

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
    """Wait until the server is at a pg_sleep(): what is cancelled before it begins is not cancelled."""
    pid = conn.get_server_pid()
    while not await on_server(
        postgres, f"SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'PgSleep'"
    ):
        pass


async def kill(postgres: PostgresServer, conn: 'Connection[Any]') -> None:
    """Let the server end a connection, and wait until the event loop has seen it."""
    ended = asyncio.Event()
    conn.add_termination_listener(lambda _conn: ended.set())
    assert await on_server(postgres, f'SELECT pg_terminate_backend({conn.get_server_pid()}, 30000)')
    await ended.wait()


async def last_query(postgres: PostgresServer, conn: 'Connection[Any]') -> Any:
    return await on_server(postgres, f'SELECT query FROM pg_stat_activity WHERE pid = {conn.get_server_pid()}')


# Some chunks, and then the server works on for long, silent; or very many chunks.
SILENT = "SELECT repeat('x', 20000) FROM generate_series(1, 3) UNION ALL SELECT pg_sleep(3600)::text"
MANY = 'SELECT generate_series(1, 2000000)'


async def sink(_data: bytes) -> None:
    pass


async def cancelled_as_a_chunk_arrives(conn: Any, query: str) -> None:
    """Cancel a COPY when asyncpg has read a chunk, and its task has not been told yet."""
    copying = asyncio.ensure_future(conn.copy_from_query(query, output=sink))
    waiter: asyncio.Future[Any] | None = None
    while waiter is None:
        await asyncio.sleep(0)
        held = gc.get_referents(conn._protocol)
        waiter = next((one for one in held if isinstance(one, asyncio.Future) and not one.done()), None)
    # This task was ready before what the future wakes up.
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

    @pytest.mark.parametrize('source', [None, 'postgresql://localhost', 5])
    def test_refuses_what_is_no_source(self, source: Any) -> None:
        with pytest.raises(TypeError, match='dsn_params: expected a mapping of endpoints'):
            DbConnectionManager[Any](source)

    @pytest.mark.parametrize('name', ['close_timeout', 'rollback_timeout'])
    def test_refuses_what_is_no_time_limit(self, name: str) -> None:
        limits: dict[str, Any] = {name: 'x'}
        with pytest.raises(TypeError, match=f"{name}='x': expected seconds"):
            DbConnectionManager[Any]({}, **limits)
        limits = {name: -1}
        with pytest.raises(ValueError, match=f'{name}=-1: expected seconds, 0 or more'):
            DbConnectionManager[Any]({}, **limits)

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
            # Twice: asyncpg makes its errors by classes that it looks up, and must not come upon those of gcpool.
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
            # The next user gets a transaction of his own, not a savepoint in the old one.
            async with conn.transaction():
                assert await conn.fetchval("SELECT to_regclass('left_open')") is None
            await manager.dispose('db', conn)
            assert ['active transaction' in context['message'] for context in reported] == [True]

        # Not the fixture's runner: that does not let anything be reported.
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
            with pytest.raises(DiscardConnection, match="'db' was given back closed"):
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
            # The server does not go on with it.
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
                with pytest.raises(DiscardConnection, match='given back in the middle of a'):
                    await manager.on_release('db', conn)
                pid = conn.get_server_pid()
                await manager.dispose('db', conn)
                assert conn.is_closed()
                # The server does not go on with it.
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
            with pytest.raises(DiscardConnection, match='given back in the middle of a'):
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

        # Not the fixture's runner: that does not let anything be reported, as asyncpg does here.
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
                        await conn.copy_from_query('SELECT generate_series(1, 50000)', output=slow_sink)

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
            assert used[0].is_closed()
            assert pool.get_size() == 0
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
                # With or without an exception, as asyncpg has it.
                await asyncio.wait((user,))
                user.exception()

        run(main)


class Proxy:
    """Stands between a client and the server, and falls silent when told to."""

    def __init__(self, postgres: PostgresServer) -> None:
        self._postgres = postgres
        self._server: asyncio.Server | None = None
        self._muted = False
        self._tasks: list[asyncio.Task[None]] = []
        self._writers: list[asyncio.StreamWriter] = []

    @property
    def dsn_params(self) -> dict[str, Any]:
        assert self._server is not None
        return {**self._postgres.dsn_params, 'port': self._server.sockets[0].getsockname()[1], 'ssl': False}

    def mute(self) -> None:
        """Let nothing through any more."""
        self._muted = True

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
        # Whoever has just been let in (asyncpg cancels a statement by another connection) is served in the next turns.
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
            asyncio.ensure_future(self._pump(reader, server_writer)),
            asyncio.ensure_future(self._pump(server_reader, writer)),
        ]

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                if not self._muted:
                    writer.write(data)
        except ConnectionError:
            # The end of it, as good as any.
            pass
        writer.transport.abort()
