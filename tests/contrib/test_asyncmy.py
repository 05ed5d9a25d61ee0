"""The manager of asyncmy connections, alone and in a pool, against a private MariaDB server."""

import asyncio
import contextlib
import logging
import pickle
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any
from unittest import mock

import pytest

from gcpool.asyncio import ConnectionPool
from gcpool.contrib._errors import errors_in
from gcpool.exceptions import ConnectError, ConnectTimeout, DiscardConnection, UnknownEndpoint
from tests.asyncio_.runtime import until
from tests.contrib.cancelling import WAYS, Way
from tests.contrib.conftest import Run
from tests.contrib.mariadb import MariadbServer, Proxy
from tests.contrib.servers import PATIENCE, closed_port, wait_for_end, wait_readable

asyncmy = pytest.importorskip('asyncmy')
anyio = pytest.importorskip('anyio')

from asyncmy import converters, errors  # noqa: E402
from asyncmy.constants import FIELD_TYPE  # noqa: E402
from asyncmy.cursors import SSCursor  # noqa: E402

from gcpool.contrib.asyncmy import Connection, DbConnectionManager  # noqa: E402

# What a procedure may do before it fails.
LEFT_BY_AN_ERROR = ['START TRANSACTION', 'SET autocommit = 0', 'SET autocommit = 1']


@pytest.fixture
def manager(mariadb: MariadbServer) -> DbConnectionManager:
    return DbConnectionManager({'db': mariadb.params})


@pytest.fixture
def autocommitting(mariadb: MariadbServer) -> DbConnectionManager:
    """A manager whose connections are in autocommit mode."""
    return DbConnectionManager({'db': {**mariadb.params, 'autocommit': True}})


@contextlib.asynccontextmanager
async def connected(manager: DbConnectionManager) -> AsyncIterator[Connection]:
    conn = await manager.create('db')
    try:
        yield conn
    finally:
        await manager.dispose('db', conn)


async def warm_up(mariadb: MariadbServer) -> None:
    """Let the event loop open what it needs for its first connection."""
    async with connected(DbConnectionManager({'db': mariadb.params})):
        pass


async def fetch(conn: Connection, query: str) -> Any:
    async with conn.cursor() as cursor:
        await cursor.execute(query)
        row = await cursor.fetchone()
        return row and row[0]


async def execute(conn: Connection, statement: str) -> None:
    async with conn.cursor() as cursor:
        await cursor.execute(statement)


@contextlib.contextmanager
def commands_sent(conn: Connection) -> Iterator[list[bytes]]:
    """Records what is sent."""
    sent: list[bytes] = []
    write = conn._write_bytes

    def record(data: bytes) -> None:
        sent.append(data[5:])
        write(data)

    conn._write_bytes = record
    try:
        yield sent
    finally:
        del conn._write_bytes


def descriptor_of(conn: Connection) -> int:
    assert conn._transport is not None
    descriptor: int = conn._transport.get_extra_info('socket').fileno()
    return descriptor


def end_session(mariadb: MariadbServer, conn: Connection) -> None:
    """Have the server end a connection, and wait until that has arrived; the event loop does not see it."""
    mariadb.kill_session(conn.thread_id())
    wait_readable(descriptor_of(conn))


async def start_sleeping(mariadb: MariadbServer, conn: Connection) -> 'asyncio.Task[None]':
    """Start a task that executes a statement that would take an hour, and return when the server is busy with it."""
    task = asyncio.create_task(execute(conn, 'SELECT SLEEP(3600)'))
    await asyncio.to_thread(mariadb.wait_for_statement, conn.thread_id(), 'SELECT SLEEP(3600)')
    return task


class TestCreate:
    def test_connects(self, run: Run, mariadb: MariadbServer, manager: DbConnectionManager) -> None:
        async def main() -> None:
            conn = await manager.create('db')
            assert await fetch(conn, 'SELECT USER()') == f'{mariadb.user}@127.0.0.1'
            assert conn.get_autocommit() is False
            await manager.dispose('db', conn)
            assert not conn.connected

        run(main)

    def test_by_tls(self, run: Run, mariadb: MariadbServer, mariadb_tls: ssl.SSLContext) -> None:
        async def main() -> None:
            manager = DbConnectionManager({'db': {**mariadb.params, 'ssl': mariadb_tls}})
            async with connected(manager) as conn:
                await execute(conn, "SHOW STATUS LIKE 'Ssl_cipher'")
                assert conn._transport is not None
                assert conn._transport.get_extra_info('cipher')
                assert await manager.check_aliveness('db', conn)
                end_session(mariadb, conn)
                assert not await manager.check_aliveness('db', conn)

        run(main)

    def test_by_a_unix_socket(self, run: Run, mariadb: MariadbServer) -> None:
        if not hasattr(socket, 'AF_UNIX'):
            pytest.skip('Python has no Unix domain sockets on this system')

        async def main() -> None:
            params = {'unix_socket': mariadb.socket_path, 'user': mariadb.user, 'password': mariadb.password}
            async with connected(DbConnectionManager({'db': params})) as conn:
                assert await fetch(conn, 'SELECT 1') == 1

        run(main)

    @pytest.mark.parametrize('source', [None, 5, 'mysql://user:not-a-secret@host/db', [('db', {})]])
    def test_takes_no_source_that_is_none(self, source: Any) -> None:
        with pytest.raises(TypeError, match='params: expected a mapping of endpoints') as caught:
            DbConnectionManager(source)
        assert 'secret' not in str(caught.value)

    @pytest.mark.parametrize('value', [None, 5, 'mysql://user:not-a-secret@host/db', ['not-a-secret'], {1: 2}])
    @pytest.mark.parametrize('by', ['mapping', 'callable', 'coroutine function'])
    def test_of_parameters_that_are_none(self, run: Run, value: Any, by: str) -> None:
        async def give(endpoint: str) -> Any:
            await asyncio.sleep(0)
            return value

        sources: dict[str, Any] = {
            'mapping': {'db': value},
            'callable': lambda endpoint: value,
            'coroutine function': give,
        }

        async def main() -> None:
            with pytest.raises(ConnectError, match=r"endpoint 'db' .*check its entry in params") as caught:
                await DbConnectionManager(sources[by]).create('db')
            assert isinstance(caught.value, TypeError)
            assert 'secret' not in str(caught.value)

        run(main)

    @pytest.mark.parametrize('asynchronous', [True, False])
    def test_of_an_endpoint_that_the_callable_does_not_know(self, run: Run, asynchronous: bool) -> None:
        params: dict[str, dict[str, Any]] = {'other': {}}

        async def fetch_params(endpoint: str) -> dict[str, Any]:
            await asyncio.sleep(0)
            return params[endpoint]

        async def main() -> None:
            manager = DbConnectionManager(fetch_params if asynchronous else lambda endpoint: params[endpoint])
            with pytest.raises(UnknownEndpoint, match="endpoint 'db'") as caught:
                await manager.create('db')
            assert isinstance(caught.value.__cause__, KeyError)

        run(main)

    @pytest.mark.parametrize(
        'bad',
        [
            {'ssl': 'yes'},
            {'ssl': {'cipher': 'none'}},
            {'charset': 'none'},
            {'conv': 5},
            {'connect_timeout': 'soon'},
            {'connect_timeout': float('nan')},
            {'read_timeout': -1},
            {'unix_socket': 5},
        ],
        ids=repr,
    )
    def test_of_parameters_that_the_driver_cannot_use(self, run: Run, bad: dict[str, Any]) -> None:
        async def main() -> None:
            manager = DbConnectionManager({'db': {'host': '127.0.0.1', 'user': 'gcpool', **bad}})
            with pytest.raises(ConnectError, match=r"endpoint 'db' .*check its entry in params"):
                await manager.create('db')

        run(main)

    def test_takes_endpoints_added_later(self, run: Run, mariadb: MariadbServer) -> None:
        async def main() -> None:
            params: dict[str, dict[str, Any]] = {}
            manager = DbConnectionManager(params)
            params['db'] = mariadb.params
            await manager.dispose('db', await manager.create('db'))

        run(main)

    @pytest.mark.parametrize('asynchronous', [True, False])
    def test_asks_for_the_parameters_at_each_connect(
        self, run: Run, mariadb: MariadbServer, asynchronous: bool
    ) -> None:
        passwords = iter(['outdated', mariadb.password])
        asked: list[str] = []

        def params(endpoint: str) -> dict[str, Any]:
            asked.append(endpoint)
            return {**mariadb.params, 'password': next(passwords)}

        async def fetch_params(endpoint: str) -> dict[str, Any]:
            await asyncio.sleep(0)
            return params(endpoint)

        async def main() -> None:
            manager = DbConnectionManager(fetch_params if asynchronous else params)
            with pytest.raises(ConnectError):
                await manager.create('db')
            await manager.dispose('db', await manager.create('db'))
            assert asked == ['db', 'db']

        run(main)

    def test_says_which_endpoints_there_are(self, run: Run, mariadb: MariadbServer) -> None:
        async def main() -> None:
            manager = DbConnectionManager({'db': mariadb.params, 'other': mariadb.params})
            with pytest.raises(
                UnknownEndpoint, match=r"'none' is not in params, which has \['db', 'other'\]"
            ) as caught:
                await manager.create('none')
            assert isinstance(caught.value, KeyError)
            assert mariadb.password not in str(caught.value)

        run(main)

    @pytest.mark.parametrize(
        ('params', 'number', 'advice'),
        [
            ({'password': 'wrong-secret'}, 1045, 'check user and password'),
            ({'user': 'nobody-known', 'password': 'wrong-secret'}, 1045, 'check user and password'),
            ({'database': 'mysql'}, 1044, 'check the name of the database, and whether the user may use it'),
            ({'host': 'host.invalid'}, 2003, 'check the host name: it does not resolve'),
        ],
    )
    def test_says_what_to_do(
        self,
        run: Run,
        mariadb: MariadbServer,
        open_descriptors: Callable[[], int],
        params: dict[str, Any],
        number: int,
        advice: str,
    ) -> None:
        async def main() -> None:
            await warm_up(mariadb)
            manager = DbConnectionManager({'primary': {**mariadb.params, **params}})
            before = open_descriptors()
            with pytest.raises(ConnectError, match=f"endpoint 'primary' .*{advice}") as caught:
                await manager.create('primary')
            assert open_descriptors() == before
            assert isinstance(caught.value, errors.OperationalError)
            assert type(caught.value.__cause__) is errors.OperationalError
            assert caught.value.args[0] == number
            assert caught.value.endpoint == 'primary'
            assert 'secret' not in f'{caught.value} {caught.value.__cause__}'
            assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)

        run(main)

    def test_of_a_database_that_does_not_exist(self, run: Run, mariadb: MariadbServer) -> None:
        mariadb.execute(f'GRANT SELECT ON `missing%`.* TO {mariadb.user}')

        async def main() -> None:
            manager = DbConnectionManager({'db': {**mariadb.params, 'database': 'missing'}})
            with pytest.raises(ConnectError, match='check the name of the database, or create it') as caught:
                await manager.create('db')
            assert caught.value.args[0] == 1049

        run(main)

    def test_of_a_server_that_is_not_there(self, run: Run) -> None:
        async def main(port: int) -> None:
            manager = DbConnectionManager({'db': {'host': '127.0.0.1', 'port': port}})
            with pytest.raises(ConnectError, match='check that the server is running') as caught:
                await manager.create('db')
            assert isinstance(caught.value, errors.OperationalError)

        with closed_port() as port:
            run(lambda: main(port))

    def test_of_a_server_that_has_no_room(self, run: Run, mariadb: MariadbServer, manager: DbConnectionManager) -> None:
        async def main() -> None:
            conns = [await manager.create('db') for _ in range(10)]
            with pytest.raises(ConnectError, match='raise max_connections') as caught:
                await manager.create('db')
            assert caught.value.args[0] == 1040
            for conn in conns:
                await manager.dispose('db', conn)

        mariadb.wait_for_sessions(0)
        mariadb.set_max_connections(10)
        try:
            run(main)
        finally:
            mariadb.set_max_connections(None)

    @pytest.mark.parametrize('by_tls', [True, False])
    @pytest.mark.parametrize('greeted', [True, False])
    def test_times_out_where_nothing_is_said(
        self,
        run: Run,
        mariadb: MariadbServer,
        mariadb_tls: ssl.SSLContext,
        silent_listener: socket.socket,
        by_tls: bool,
        greeted: bool,
    ) -> None:
        with socket.create_connection((mariadb.host, mariadb.port)) as sock:
            wait_readable(sock)
            greeting = sock.recv(4096)
        host, port = silent_listener.getsockname()

        def serve() -> None:
            with silent_listener.accept()[0] as server:
                if greeted:
                    server.sendall(greeting)
                wait_for_end(server)

        async def main() -> None:
            params = {**mariadb.params, 'host': host, 'port': port, 'connect_timeout': 0.2}
            if by_tls:
                params['ssl'] = mariadb_tls
            manager = DbConnectionManager({'db': params})
            serving = asyncio.create_task(asyncio.to_thread(serve))
            with pytest.raises(ConnectTimeout, match=r"endpoint 'db' .*within 0\.2 s") as caught:
                await manager.create('db')
            assert isinstance(caught.value, asyncio.TimeoutError)
            await serving

        run(main)

    @pytest.mark.parametrize('greeted', [True, False])
    def test_leaves_nothing_open_when_it_is_cancelled(
        self,
        run: Run,
        mariadb: MariadbServer,
        silent_listener: socket.socket,
        open_descriptors: Callable[[], int],
        greeted: bool,
    ) -> None:
        with socket.create_connection((mariadb.host, mariadb.port)) as sock:
            wait_readable(sock)
            greeting = sock.recv(4096)
        host, port = silent_listener.getsockname()

        async def main() -> None:
            await warm_up(mariadb)
            manager = DbConnectionManager({'db': {**mariadb.params, 'host': host, 'port': port}})
            before = open_descriptors()
            creation = asyncio.create_task(manager.create('db'))
            server, _ = await asyncio.to_thread(silent_listener.accept)
            with server:
                if greeted:
                    server.sendall(greeting)
                    # The login, which is not answered.
                    await asyncio.to_thread(wait_readable, server)
                creation.cancel()
                await asyncio.wait((creation,))
                assert creation.cancelled()
                await asyncio.to_thread(wait_for_end, server)
            assert open_descriptors() == before

        run(main)

    def test_leaves_nothing_open_wherever_it_is_cancelled(
        self, run: Run, mariadb: MariadbServer, manager: DbConnectionManager, open_descriptors: Callable[[], int]
    ) -> None:
        async def main() -> None:
            await warm_up(mariadb)
            before = open_descriptors()
            for turns in range(60):
                creation = asyncio.create_task(manager.create('db'))
                for _ in range(turns):
                    await asyncio.sleep(0)
                creation.cancel()
                await asyncio.wait((creation,))
                if not creation.cancelled():
                    await manager.dispose('db', creation.result())
            assert open_descriptors() == before

        run(main)
        mariadb.wait_for_sessions(0)


class TestAliveness:
    @pytest.mark.parametrize('ping', [True, False])
    @pytest.mark.parametrize('autocommit', [True, False])
    def test_of_an_idle_one(self, run: Run, mariadb: MariadbServer, ping: bool, autocommit: bool) -> None:
        async def main() -> None:
            manager = DbConnectionManager({'db': {**mariadb.params, 'autocommit': autocommit}}, ping=ping)
            conn = await manager.create('db')
            with commands_sent(conn) as sent:
                assert await manager.check_aliveness('db', conn)
            assert sent == ([b''] if ping else [])
            assert await fetch(conn, 'SELECT @@in_transaction') == 0
            await manager.dispose('db', conn)
            assert not await manager.check_aliveness('db', conn)

        run(main)

    @pytest.mark.parametrize('ping', [True, False])
    @pytest.mark.parametrize('seen', [True, False])
    def test_of_what_the_server_has_ended(self, run: Run, mariadb: MariadbServer, ping: bool, seen: bool) -> None:
        async def main() -> None:
            manager = DbConnectionManager({'db': mariadb.params}, ping=ping)
            async with connected(manager) as conn:
                end_session(mariadb, conn)
                if seen:
                    await conn._proto.wait_closed()
                assert not await manager.check_aliveness('db', conn)

        run(main)

    def test_of_what_says_something_unasked(self, run: Run, manager: DbConnectionManager) -> None:
        async def main() -> None:
            async with connected(manager) as conn:
                await conn._execute_command(3, 'SELECT 1')
                # As if the packet had not been sent.
                conn._awaiting_reply = False
                wait_readable(descriptor_of(conn))
                assert not await manager.check_aliveness('db', conn)
                await conn._proto.wait_for_data(4)
                assert not await manager.check_aliveness('db', conn)

        run(main)

    def test_of_what_does_not_answer(self, run: Run, mariadb: MariadbServer) -> None:
        async def main() -> None:
            with Proxy(mariadb.port) as proxy:
                manager = DbConnectionManager({'db': {**mariadb.params, 'port': proxy.port}}, ping=True)
                async with connected(manager) as conn:
                    proxy.mute()
                    with pytest.raises(asyncio.TimeoutError):
                        await asyncio.wait_for(manager.check_aliveness('db', conn), 0.05)
                    # Its answer may still come, and must not be taken for another.
                    assert not await manager.check_aliveness('db', conn)
                    assert not conn.connected

        run(main)


class TestRelease:
    def test_sends_nothing_if_there_is_nothing_to_do(
        self, run: Run, manager: DbConnectionManager, mariadb_table: str
    ) -> None:
        async def main() -> None:
            async with connected(manager) as conn:
                for statements in (
                    [],
                    ['SELECT 1'],
                    ['INSERT INTO numbers VALUES (1)', 'ROLLBACK'],
                    ['SELECT * FROM numbers', 'COMMIT'],
                ):
                    for statement in statements:
                        await execute(conn, statement)
                    with commands_sent(conn) as sent:
                        await manager.on_release('db', conn)
                    assert sent == []
                await execute(conn, 'SELECT * FROM numbers')
                await conn.commit()
                with commands_sent(conn) as sent:
                    await manager.on_release('db', conn)
                assert sent == []

        run(main)

    @pytest.mark.parametrize('statement', ['SELECT 1', 'DO 1', 'SELECT * FROM numbers'])
    def test_sends_nothing_in_autocommit_mode(
        self, run: Run, mariadb: MariadbServer, mariadb_table: str, statement: str
    ) -> None:
        async def main() -> None:
            manager = DbConnectionManager({'db': {**mariadb.params, 'autocommit': True}})
            async with connected(manager) as conn:
                await execute(conn, statement)
                with commands_sent(conn) as sent:
                    await manager.on_release('db', conn)
                assert sent == []

        run(main)

    def test_asks_once_after_a_statement_that_failed(self, run: Run, autocommitting: DbConnectionManager) -> None:
        async def main() -> None:
            async with connected(autocommitting) as conn:
                for then, expected in ((None, [b'']), ('SELECT 1', []), ('DO 1', []), ('COMMIT', [])):
                    with pytest.raises(errors.ProgrammingError):
                        await execute(conn, 'this is no SQL')
                    if then:
                        await execute(conn, then)
                    with commands_sent(conn) as sent:
                        await autocommitting.on_release('db', conn)
                        await autocommitting.on_release('db', conn)
                    assert sent == expected

        run(main)

    @pytest.mark.parametrize('autocommit', [True, False])
    @pytest.mark.parametrize('left', LEFT_BY_AN_ERROR)
    @pytest.mark.parametrize('prepared', [True, False])
    def test_ends_what_a_statement_that_failed_has_begun(
        self, run: Run, mariadb: MariadbServer, mariadb_table: str, left: str, autocommit: bool, prepared: bool
    ) -> None:
        body = f"BEGIN {left}; INSERT INTO numbers VALUES (1); SIGNAL SQLSTATE '45000'; END"

        async def main() -> None:
            manager = DbConnectionManager({'db': {**mariadb.params, 'autocommit': autocommit}})
            async with connected(manager) as conn:
                await execute(conn, f'CREATE OR REPLACE PROCEDURE fails() {body}')
                statement = await conn.prepare('CALL fails()')
                with pytest.raises(errors.MySQLError):
                    await (statement.execute() if prepared else execute(conn, 'CALL fails()'))
                assert not await manager.check_aliveness('db', conn)
                await manager.on_release('db', conn)
                assert await manager.check_aliveness('db', conn)
                assert await fetch(conn, 'SELECT @@in_transaction') == 0
                assert await fetch(conn, 'SELECT @@autocommit') == autocommit
                count = mariadb.execute(f'SELECT COUNT(*) FROM {mariadb_table}')
                assert count == ([(1,)] if 'autocommit = 1' in left else [(0,)])

        run(main)

    @pytest.mark.parametrize('then', [False, True])
    def test_ends_what_was_begun_before_the_rows_failed(
        self, run: Run, mariadb: MariadbServer, mariadb_table: str, autocommitting: DbConnectionManager, then: bool
    ) -> None:
        async def main() -> None:
            async with connected(autocommitting) as conn:
                statement = await conn.prepare('SELECT 1')
                cursor = conn.cursor(SSCursor)
                await cursor.execute(
                    'BEGIN NOT ATOMIC START TRANSACTION; INSERT INTO numbers VALUES (1);'
                    ' SELECT EXP(seq) FROM seq_1_to_1000; END'
                )
                with pytest.raises(errors.MySQLError):
                    await cursor.fetchall()
                if not conn.in_order:
                    # A version of asyncmy that does not see that there are no more rows.
                    return
                if then:
                    # The server does not answer.
                    await statement.close()
                assert not await autocommitting.check_aliveness('db', conn)
                await autocommitting.on_release('db', conn)
                assert await autocommitting.check_aliveness('db', conn)
                assert await fetch(conn, 'SELECT @@in_transaction') == 0
            assert mariadb.execute(f'SELECT COUNT(*) FROM {mariadb_table}') == [(0,)]

        run(main)

    @pytest.mark.parametrize(
        ('statement', 'sent_for_it'),
        [
            ('SET autocommit = 0', 1),
            ('START TRANSACTION', 1),
            # The server is asked what it said after the first result, and told to roll back.
            ('CALL selects_and_begins()', 2),
            ('CALL selects()', 1),
            ('SELECT 1', 0),
            ('DO 1', 0),
        ],
    )
    def test_ends_what_a_prepared_statement_has_begun(
        self, run: Run, autocommitting: DbConnectionManager, mariadb_table: str, statement: str, sent_for_it: int
    ) -> None:
        begins = 'SELECT 1; START TRANSACTION; INSERT INTO numbers VALUES (1);'

        async def main() -> None:
            async with connected(autocommitting) as conn:
                await execute(conn, f'CREATE OR REPLACE PROCEDURE selects_and_begins() BEGIN {begins} END')
                await execute(conn, 'CREATE OR REPLACE PROCEDURE selects() BEGIN SELECT 1; END')
                prepared = await conn.prepare(statement)
                # asyncmy reads the columns of the first result only once.
                for _ in range(2):
                    await prepared.execute()
                    assert conn.in_order
                    assert await autocommitting.check_aliveness('db', conn) is (sent_for_it == 0)
                    with commands_sent(conn) as sent:
                        await autocommitting.on_release('db', conn)
                    assert len(sent) == sent_for_it
                    assert await autocommitting.check_aliveness('db', conn)
                    assert await fetch(conn, 'SELECT @@in_transaction') == 0
                    assert await fetch(conn, 'SELECT @@autocommit') == 1
                await prepared.close()
                with commands_sent(conn) as sent:
                    await autocommitting.on_release('db', conn)
                assert sent == []

        run(main)

    def test_takes_in_what_a_statement_of_many_rows_tells(
        self, run: Run, mariadb: MariadbServer, mariadb_table: str, autocommitting: DbConnectionManager
    ) -> None:
        async def main() -> None:
            async with connected(autocommitting) as conn:
                await execute(conn, 'BEGIN')
                prepared = await conn.prepare('INSERT INTO numbers VALUES (?)')
                await prepared.execute_bulk([(1,), (2,)])
                assert conn.in_order
                with pytest.raises(errors.IntegrityError):
                    await prepared.execute_bulk([(3,), (1,)])
                assert conn.in_order
                await autocommitting.on_release('db', conn)
                assert await autocommitting.check_aliveness('db', conn)
                await prepared.execute_bulk([(4,), (5,)])
                with commands_sent(conn) as sent:
                    await autocommitting.on_release('db', conn)
                assert sent == []
            assert mariadb.execute(f'SELECT n FROM {mariadb_table}') == [(4,), (5,)]

        run(main)

    def test_keeps_one_whose_prepared_statement_was_not_sent(
        self, run: Run, autocommitting: DbConnectionManager
    ) -> None:
        async def main() -> None:
            async with connected(autocommitting) as conn:
                prepared = await conn.prepare('SELECT ?')
                with pytest.raises(errors.ProgrammingError):
                    await prepared.execute((1, 2))
                await prepared.close()
                with pytest.raises(errors.ProgrammingError):
                    await prepared.execute((1,))
                with commands_sent(conn) as sent:
                    await autocommitting.on_release('db', conn)
                assert sent == []

        run(main)

    @pytest.mark.parametrize('statement', ['SET autocommit = 0', 'BEGIN', 'this is no SQL'])
    def test_left_out_is_found_by_the_check(
        self, run: Run, autocommitting: DbConnectionManager, statement: str
    ) -> None:
        async def main() -> None:
            async with connected(autocommitting) as conn:
                with contextlib.suppress(errors.ProgrammingError):
                    await execute(conn, statement)
                assert not await autocommitting.check_aliveness('db', conn)

        run(main)

    @pytest.mark.parametrize('step', ['rollback', 'autocommit'])
    def test_closes_what_it_was_interrupted_at(
        self, run: Run, autocommitting: DbConnectionManager, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        async def interrupt(*args: object) -> None:
            raise asyncio.CancelledError

        async def main() -> None:
            async with connected(autocommitting) as conn:
                await execute(conn, 'SET autocommit = 0')
                await execute(conn, 'BEGIN')
                monkeypatch.setattr(Connection, step, interrupt)
                with pytest.raises(asyncio.CancelledError):
                    await autocommitting.on_release('db', conn)
                assert not conn.connected
                assert not await autocommitting.check_aliveness('db', conn)

        run(main)

    @pytest.mark.parametrize('autocommit', [True, False])
    @pytest.mark.parametrize('then', [None, 'SELECT 1', 'this is no SQL'])
    @pytest.mark.parametrize('prepared', [True, False])
    def test_rolls_back_what_is_open(
        self,
        run: Run,
        mariadb: MariadbServer,
        mariadb_table: str,
        autocommit: bool,
        then: str | None,
        prepared: bool,
    ) -> None:
        async def main() -> None:
            params = {**mariadb.params, 'autocommit': autocommit, 'stmt_cache_size': 10 if prepared else 0}
            manager = DbConnectionManager({'db': params})
            async with connected(manager) as conn:
                if autocommit:
                    await execute(conn, 'BEGIN')
                async with conn.cursor() as cursor:
                    for number in range(2):
                        await cursor.execute('INSERT INTO numbers VALUES (%s)', (number,))
                    for number in range(2):
                        await cursor.execute('SELECT n FROM numbers WHERE n = %s', (number,))
                        assert [tuple(row) for row in await cursor.fetchall()] == [(number,)]
                if then:
                    with contextlib.suppress(errors.ProgrammingError):
                        await execute(conn, then)
                await manager.on_release('db', conn)
                assert await manager.check_aliveness('db', conn)
                assert await fetch(conn, 'SELECT @@in_transaction') == 0
                assert mariadb.execute(f'SELECT COUNT(*) FROM {mariadb_table}') == [(0,)]

        run(main)

    @pytest.mark.parametrize('unbuffered', [True, False])
    def test_ends_the_snapshot_that_a_select_began(
        self, run: Run, mariadb: MariadbServer, manager: DbConnectionManager, mariadb_table: str, unbuffered: bool
    ) -> None:
        async def main() -> None:
            async with connected(manager) as conn:

                async def count() -> Any:
                    async with conn.cursor(SSCursor if unbuffered else None) as cursor:
                        await cursor.execute('SELECT COUNT(*) FROM numbers')
                        return (await cursor.fetchone())[0]

                assert await count() == 0
                mariadb.execute(f'INSERT INTO {mariadb_table} VALUES (1)')
                assert await count() == 0
                await manager.on_release('db', conn)
                assert await count() == 1

        run(main)

    def test_ends_the_transaction_of_a_statement_that_failed(
        self, run: Run, mariadb: MariadbServer, manager: DbConnectionManager, mariadb_table: str
    ) -> None:
        async def main() -> None:
            async with connected(manager) as conn:
                mariadb.execute(f'INSERT INTO {mariadb_table} VALUES (1)')
                with pytest.raises(errors.IntegrityError):
                    await execute(conn, 'INSERT INTO numbers VALUES (1)')
                await manager.on_release('db', conn)
                # The failed statement's lock on the row is gone.
                mariadb.execute(f'DELETE FROM {mariadb_table}')

        run(main)

    @pytest.mark.parametrize('initial', [True, False])
    @pytest.mark.parametrize('by_sql', [True, False])
    def test_restores_autocommit(
        self, run: Run, mariadb: MariadbServer, mariadb_table: str, initial: bool, by_sql: bool
    ) -> None:
        async def main() -> None:
            manager = DbConnectionManager({'db': {**mariadb.params, 'autocommit': initial}})
            async with connected(manager) as conn:
                if by_sql:
                    await execute(conn, f'SET autocommit = {int(not initial)}')
                else:
                    await conn.autocommit(not initial)
                await execute(conn, 'BEGIN')
                await execute(conn, 'INSERT INTO numbers VALUES (1)')
                await manager.on_release('db', conn)
                assert conn.get_autocommit() is initial
                assert await fetch(conn, 'SELECT @@autocommit') == initial
                # Switching it on would have committed.
                assert mariadb.execute(f'SELECT COUNT(*) FROM {mariadb_table}') == [(0,)]

        run(main)

    def test_keeps_one_after_any_finished_command(
        self, run: Run, mariadb: MariadbServer, manager: DbConnectionManager
    ) -> None:
        async def main() -> None:
            async with connected(manager) as conn:
                finished: list[Callable[[], Awaitable[Any]]] = [
                    lambda: conn.ping(reconnect=False),
                    conn.show_warnings,
                    lambda: conn.select_db(mariadb.database),
                ]
                failing: list[Callable[[], Awaitable[Any]]] = [
                    lambda: conn.select_db('mysql'),
                    lambda: conn.prepare('this is no SQL'),
                    lambda: execute(conn, 'this is no SQL'),
                ]
                for command in finished:
                    await command()
                    assert conn.in_order
                for command in failing:
                    with pytest.raises(errors.MySQLError):
                        await command()
                    assert conn.in_order
                async with await conn.prepare('SELECT ?') as statement:
                    assert conn.in_order
                    await statement.execute((1,))
                    assert conn.in_order
                assert conn.in_order
                async with conn.cursor(SSCursor) as cursor:
                    # The cursor reads the rest when it is closed.
                    await cursor.execute('SELECT seq FROM seq_1_to_1000')
                    assert await cursor.fetchone() == (1,)
                await manager.on_release('db', conn)
                assert await manager.check_aliveness('db', conn)
                assert await fetch(conn, 'SELECT 1') == 1

        run(main)

    @pytest.mark.parametrize('read', [0, 1, 100_000])
    def test_discards_one_with_rows_left_unread(self, run: Run, manager: DbConnectionManager, read: int) -> None:
        async def main() -> None:
            async with connected(manager) as conn:
                cursor = conn.cursor(SSCursor)
                await cursor.execute('SELECT seq FROM seq_1_to_100000')
                for _ in range(read):
                    assert await cursor.fetchone()
                with commands_sent(conn) as sent, pytest.raises(DiscardConnection):
                    await manager.on_release('db', conn)
                assert sent == []
                assert not await manager.check_aliveness('db', conn)

        run(main)

    def test_discards_one_with_further_results(self, run: Run, manager: DbConnectionManager) -> None:
        async def main() -> None:
            for results, discarded in ((2, True), (3, False)):
                async with connected(manager) as conn:
                    cursor = conn.cursor()
                    await cursor.execute('SELECT 1; SELECT 2; SELECT 3')
                    for _ in range(results - 1):
                        assert await cursor.nextset()
                    with contextlib.ExitStack() as stack:
                        if discarded:
                            stack.enter_context(pytest.raises(DiscardConnection))
                        await manager.on_release('db', conn)

        run(main)

    @pytest.mark.parametrize('prepared', [True, False])
    def test_discards_one_whose_rows_failed_half_way(self, run: Run, mariadb: MariadbServer, prepared: bool) -> None:
        def fail(value: str) -> None:
            raise ValueError(value)

        async def main() -> None:
            conv = {**converters.conversions, FIELD_TYPE.NEWDECIMAL: fail}
            manager = DbConnectionManager({'db': {**mariadb.params, 'conv': conv}})
            query = 'SELECT CAST(seq AS DECIMAL(5, 2)) FROM seq_1_to_3'
            async with connected(manager) as conn:
                if prepared:
                    statement = await conn.prepare(query)
                    with pytest.raises(ValueError, match='1'):
                        await statement.execute()
                    await statement.close()
                else:
                    cursor = conn.cursor()
                    await cursor.execute(f"SELECT 'first'; {query}")
                    with pytest.raises(ValueError, match='1'):
                        await cursor.nextset()
                assert not conn.in_order
                assert await manager.is_broken('db', conn, ValueError())

        run(main)

    @pytest.mark.parametrize('rows', [1, 3])
    def test_discards_one_whose_rows_could_not_be_converted(self, run: Run, mariadb: MariadbServer, rows: int) -> None:
        def fail(value: str) -> None:
            raise ValueError(value)

        async def main() -> None:
            conv = {**converters.conversions, FIELD_TYPE.LONG: fail, FIELD_TYPE.LONGLONG: fail}
            manager = DbConnectionManager({'db': {**mariadb.params, 'conv': conv}})
            async with connected(manager) as conn:
                with pytest.raises(ValueError, match='1'):
                    await execute(conn, f'SELECT seq FROM seq_1_to_{rows}')
                assert await manager.is_broken('db', conn, ValueError())
                with pytest.raises(DiscardConnection):
                    await manager.on_release('db', conn)

        run(main)

    def test_discards_one_that_the_user_has_closed(self, run: Run, manager: DbConnectionManager) -> None:
        async def main() -> None:
            for polite in (True, False):
                conn = await manager.create('db')
                if polite:
                    await conn.ensure_closed()
                else:
                    conn.close()
                with pytest.raises(DiscardConnection):
                    await manager.on_release('db', conn)
                assert not await manager.check_aliveness('db', conn)
                await manager.dispose('db', conn)

        run(main)

    def test_discards_what_the_server_has_ended(
        self, run: Run, mariadb: MariadbServer, manager: DbConnectionManager
    ) -> None:
        async def main() -> None:
            async with connected(manager) as conn:
                await execute(conn, 'SELECT 1')
                end_session(mariadb, conn)
                with pytest.raises(DiscardConnection):
                    await manager.on_release('db', conn)

        run(main)

    def test_discards_what_cannot_be_rolled_back(
        self, run: Run, mariadb: MariadbServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def main() -> None:
            with Proxy(mariadb.port) as proxy:
                manager = DbConnectionManager({'db': {**mariadb.params, 'port': proxy.port}})
                async with connected(manager) as conn:
                    await execute(conn, 'BEGIN')
                    conn._read_timeout = 0.05
                    proxy.mute()
                    with pytest.raises(DiscardConnection) as caught:
                        await manager.on_release('db', conn)
                    assert isinstance(caught.value.__cause__, errors.OperationalError)
                    assert not conn.in_order

        with caplog.at_level(logging.WARNING, 'gcpool.contrib.asyncmy'):
            run(main)
        assert "'db' cannot be rolled back" in caplog.text


class TestBroken:
    def test_not_after_an_error_of_the_user(self, run: Run, manager: DbConnectionManager) -> None:
        async def main() -> None:
            async with connected(manager) as conn:
                await execute(conn, 'SELECT 1')
                for exc in (ValueError(), OSError(2, 'no such file'), TimeoutError(), asyncio.CancelledError()):
                    assert not await manager.is_broken('db', conn, exc)

        run(main)

    def test_not_after_an_answer_of_the_server(self, run: Run, manager: DbConnectionManager) -> None:
        async def main() -> None:
            async with connected(manager) as conn:
                for statement in ('this is no SQL', 'SELECT * FROM missing', 'SELECT 1 + (SELECT 1 UNION SELECT 2)'):
                    with pytest.raises(errors.MySQLError) as caught:
                        await execute(conn, statement)
                    assert not await manager.is_broken('db', conn, caught.value)
                assert await fetch(conn, 'SELECT 1') == 1

        run(main)

    def test_in_the_middle_of_a_statement(self, run: Run, mariadb: MariadbServer, manager: DbConnectionManager) -> None:
        async def main() -> None:
            async with connected(manager) as conn:
                task = await start_sleeping(mariadb, conn)
                assert await manager.is_broken('db', conn, ValueError())
                mariadb.kill_session(conn.thread_id())
                with pytest.raises(errors.MySQLError) as caught:
                    await task
                assert await manager.is_broken('db', conn, caught.value)

        run(main)

    def test_when_a_statement_was_cancelled(
        self, run: Run, mariadb: MariadbServer, manager: DbConnectionManager
    ) -> None:
        async def main() -> None:
            async with connected(manager) as conn:
                task = await start_sleeping(mariadb, conn)
                task.cancel()
                await asyncio.wait((task,))
                assert task.cancelled()
                assert await manager.is_broken('db', conn, asyncio.CancelledError())
                assert not await manager.check_aliveness('db', conn)
            mariadb.kill_sessions()

        run(main)

    @pytest.mark.parametrize(
        ('exc', 'broken'),
        [
            (errors.OperationalError(2006, 'gone'), True),
            (errors.OperationalError(2013, 'lost'), True),
            (errors.OperationalError(1053, 'shutdown in progress'), True),
            (errors.OperationalError(1927, 'killed'), True),
            (errors.OperationalError(1205, 'lock wait timeout'), False),
            (errors.OperationalError('without a number'), False),
            (errors.InterfaceError(0, ''), True),
            (errors.ProgrammingError(), False),
        ],
    )
    def test_by_what_the_error_says(self, run: Run, manager: DbConnectionManager, exc: Exception, broken: bool) -> None:
        async def main() -> None:
            async with connected(manager) as conn:
                assert await manager.is_broken('db', conn, exc) is broken

        run(main)


class TestDispose:
    def test_says_good_bye(self, run: Run, mariadb: MariadbServer, manager: DbConnectionManager) -> None:
        def aborted() -> int:
            return int(mariadb.execute("SHOW GLOBAL STATUS LIKE 'Aborted_clients'")[0][1])

        async def main() -> None:
            conn = await manager.create('db')
            await manager.dispose('db', conn)
            assert not conn.connected
            await manager.dispose('db', conn)

        mariadb.wait_for_sessions(0)
        before = aborted()
        run(main)
        mariadb.wait_for_sessions(0)
        assert aborted() == before

    def test_for_good(self, run: Run, mariadb: MariadbServer, manager: DbConnectionManager) -> None:
        async def main() -> None:
            conn = await manager.create('db')
            await manager.dispose('db', conn)
            for connect in (conn.ping, conn.connect):
                with pytest.raises(errors.InterfaceError, match='the pool has closed this connection'):
                    await connect()
            assert not conn.connected

        run(main)
        mariadb.wait_for_sessions(0)

    def test_for_good_while_the_user_connects_again(
        self, run: Run, mariadb: MariadbServer, manager: DbConnectionManager, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def main() -> None:
            conn = await manager.create('db')
            await conn.ensure_closed()
            resolve = conn.loop.create_connection

            async def be_disposed_of_and_resolve(*args: Any, **kwargs: Any) -> Any:
                # The closed connection's is all that there is to close.
                await manager.dispose('db', conn)
                return await resolve(*args, **kwargs)

            with monkeypatch.context() as patches:
                # uvloop's own class takes no attributes.
                loop = mock.Mock(create_connection=be_disposed_of_and_resolve, create_future=conn.loop.create_future)
                patches.setattr(conn, '_loop', loop)
                with pytest.raises(errors.InterfaceError, match='the pool has closed this connection'):
                    await conn.connect()
            assert not conn.connected

        run(main)
        mariadb.wait_for_sessions(0)

    @pytest.mark.parametrize('by_tls', [True, False])
    def test_ends_a_running_statement(
        self, run: Run, mariadb: MariadbServer, mariadb_tls: ssl.SSLContext, by_tls: bool
    ) -> None:
        async def main() -> None:
            manager = DbConnectionManager({'db': {**mariadb.params, 'ssl': mariadb_tls if by_tls else None}})
            conn = await manager.create('db')
            task = await start_sleeping(mariadb, conn)
            await manager.dispose('db', conn)
            with pytest.raises(errors.MySQLError):
                await task
            mariadb.kill_sessions()

        run(main)

    @pytest.mark.parametrize('by_tls', [True, False])
    @pytest.mark.parametrize('writing', [True, False])
    def test_does_not_wait_for_a_server_that_says_nothing(
        self,
        run: Run,
        mariadb: MariadbServer,
        mariadb_tls: ssl.SSLContext,
        open_descriptors: Callable[[], int],
        by_tls: bool,
        writing: bool,
    ) -> None:
        async def main() -> None:
            with Proxy(mariadb.port) as proxy:
                params = {**mariadb.params, 'port': proxy.port, 'ssl': mariadb_tls if by_tls else None}
                manager = DbConnectionManager({'db': params}, close_timeout=0.05)
                conn = await manager.create('db')
                before = open_descriptors()
                proxy.mute()
                if writing:
                    task = asyncio.create_task(execute(conn, f'SELECT {"1" * 10_000_000}'))
                    await asyncio.sleep(0)
                    task.cancel()
                    await asyncio.wait((task,))
                await manager.dispose('db', conn)
                assert not conn.connected
                # The proxy has kept its two ends of the control connection.
                assert open_descriptors() == before - 1 + 2 * writing

        run(main)

    def test_aborts_when_it_is_cancelled(
        self, run: Run, mariadb: MariadbServer, mariadb_tls: ssl.SSLContext, open_descriptors: Callable[[], int]
    ) -> None:
        async def main() -> None:
            with Proxy(mariadb.port) as proxy:
                params = {**mariadb.params, 'port': proxy.port, 'ssl': mariadb_tls}
                manager = DbConnectionManager({'db': params}, close_timeout=3600.0)
                conn = await manager.create('db')
                before = open_descriptors()
                proxy.mute()
                closed = conn._proto._closed_waiter
                task = asyncio.create_task(manager.dispose('db', conn))
                await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait((task,))
                assert task.cancelled()
                await closed
                assert open_descriptors() == before - 1

        run(main)


class TestInAPool:
    def test_serves_no_connection_that_was_in_doubt(
        self, run: Run, mariadb: MariadbServer, manager: DbConnectionManager
    ) -> None:
        async def main() -> None:
            pool = ConnectionPool[str, Connection](manager, max_size=1, acquire_timeout=PATIENCE)
            async with pool.connection('db') as first:
                await first.cursor(SSCursor).execute('SELECT seq FROM seq_1_to_100000')
            assert not first.connected

            asleep: asyncio.Queue[Connection] = asyncio.Queue()

            async def sleep() -> None:
                async with pool.connection('db') as conn:
                    await asleep.put(conn)
                    await execute(conn, 'SELECT SLEEP(3600)')

            task = asyncio.create_task(sleep())
            second = await asleep.get()
            await asyncio.to_thread(mariadb.wait_for_statement, second.thread_id(), 'SELECT SLEEP(3600)')
            task.cancel()
            await asyncio.wait((task,))
            # Leaving the block does not wait longer than 0.1 s for the end of the connection.
            await until(lambda: pool.get_size() == 0)
            assert not second.connected
            assert second.thread_id() not in mariadb.sessions()

            async with pool.connection('db') as third:
                assert await fetch(third, 'SELECT 3') == 3
            async with pool.connection('db') as fourth:
                assert fourth is third
            assert pool.get_stats()['created'] == 3
            await pool.close()

        run(main)
        mariadb.wait_for_sessions(0)

    @pytest.mark.parametrize('left', LEFT_BY_AN_ERROR)
    def test_loses_nothing_of_who_comes_after_an_error(
        self, run: Run, mariadb: MariadbServer, mariadb_table: str, autocommitting: DbConnectionManager, left: str
    ) -> None:
        async def main() -> None:
            pool = ConnectionPool[str, Connection](autocommitting, max_size=1, acquire_timeout=PATIENCE)
            async with pool.connection('db') as first:
                with pytest.raises(errors.MySQLError):
                    await execute(first, f"BEGIN NOT ATOMIC {left}; SIGNAL SQLSTATE '45000'; END")
            async with pool.connection('db') as second:
                await execute(second, 'INSERT INTO numbers VALUES (2)')
            assert second is first
            assert mariadb.execute(f'SELECT n FROM {mariadb_table}') == [(2,)]
            await pool.close()

        run(main)

    def test_does_not_serve_what_a_release_left_out_has_left(
        self, run: Run, autocommitting: DbConnectionManager
    ) -> None:
        async def main() -> None:
            pool = ConnectionPool[str, Connection](autocommitting, max_size=1, acquire_timeout=PATIENCE)
            first = await pool.acquire('db')
            await execute(first, 'SET autocommit = 0')
            release = asyncio.ensure_future(pool.release(first, 'db'))
            release.cancel()
            await asyncio.wait((release,))
            async with pool.connection('db') as second:
                assert await fetch(second, 'SELECT @@autocommit') == 1
            await pool.close()

        run(main)

    def test_goes_on_after_the_server_was_restarted(
        self, run: Run, mariadb: MariadbServer, manager: DbConnectionManager
    ) -> None:
        async def main() -> None:
            pool = ConnectionPool[str, Connection](manager, max_size=3, acquire_timeout=PATIENCE)
            async with pool.connection('db') as first, pool.connection('db') as second:
                assert first is not second
            mariadb.kill()
            try:
                for conn in (first, second):
                    wait_readable(descriptor_of(conn))
                with pytest.raises(ConnectError):
                    await pool.acquire('db')
            finally:
                mariadb.start()
            async with pool.connection('db') as third:
                assert await fetch(third, 'SELECT 3') == 3
            await pool.close()

        run(main)
        mariadb.wait_for_sessions(0)

    def test_counts_nothing_for_what_could_not_be_made(self, run: Run, mariadb: MariadbServer) -> None:
        async def main() -> None:
            manager = DbConnectionManager({'db': {**mariadb.params, 'password': 'wrong'}})
            pool = ConnectionPool[str, Connection](manager, max_size=1, acquire_timeout=PATIENCE)
            for endpoint in ('db', 'none'):
                for _ in range(2):
                    with pytest.raises(ConnectError, match=repr(endpoint)):
                        await pool.acquire(endpoint)
            assert pool.get_size() == 0
            await pool.close()

        run(main)

    def test_many_tasks(self, run: Run, mariadb: MariadbServer, manager: DbConnectionManager) -> None:
        async def main() -> None:
            pool = ConnectionPool[str, Connection](manager, max_size=3, acquire_timeout=PATIENCE)

            async def ask(number: int) -> int:
                async with pool.connection('db') as conn:
                    return int(await fetch(conn, f'SELECT {number}'))

            assert await asyncio.gather(*map(ask, range(200))) == list(range(200))
            await pool.close()

        run(main)
        mariadb.wait_for_sessions(0)


AtWork = Callable[[Connection], Awaitable[None]]


def of_all(way: Way) -> Callable[[ConnectionPool[str, Connection], AtWork], Awaitable[None]]:
    """Abandon the whole of a request, including the block of its connection."""

    async def give_up(pool: ConnectionPool[str, Connection], at_work: AtWork) -> None:
        started: asyncio.Queue[Connection] = asyncio.Queue()

        async def request() -> None:
            async with pool.connection('db') as conn:
                await started.put(conn)
                await execute(conn, 'SELECT SLEEP(3600)')

        async def until_at_work() -> None:
            await at_work(await started.get())

        await way(request, until_at_work)

    give_up.__name__ = way.__name__
    return give_up


async def wait_for(pool: ConnectionPool[str, Connection], at_work: AtWork) -> None:
    with pytest.raises(asyncio.TimeoutError):
        async with pool.connection('db') as conn:
            await asyncio.wait_for(execute(conn, 'SELECT SLEEP(3600)'), 0.05)


async def cancel_a_scope(pool: ConnectionPool[str, Connection], at_work: AtWork) -> None:
    with anyio.CancelScope() as scope:
        async with pool.connection('db') as conn, anyio.create_task_group() as group:
            group.start_soon(execute, conn, 'SELECT SLEEP(3600)')
            await at_work(conn)
            scope.cancel()
    assert scope.cancelled_caught


async def move_on_in_the_block(pool: ConnectionPool[str, Connection], at_work: AtWork) -> None:
    async with pool.connection('db') as conn:
        with anyio.move_on_after(0.05) as scope:
            await execute(conn, 'SELECT SLEEP(3600)')
        assert scope.cancelled_caught


async def fail_in_a_task_group(pool: ConnectionPool[str, Connection], at_work: AtWork) -> None:
    async def fail(conn: Connection) -> None:
        await at_work(conn)
        raise LookupError

    try:
        async with pool.connection('db') as conn, anyio.create_task_group() as group:
            group.start_soon(execute, conn, 'SELECT SLEEP(3600)')
            group.start_soon(fail, conn)
    except BaseException as exc:  # noqa: BLE001  (a group; except* is of Python 3.11)
        assert any(isinstance(error, LookupError) for error in errors_in(exc))  # noqa: PT017


async def close_over_the_user(pool: ConnectionPool[str, Connection], at_work: AtWork) -> None:
    async with pool.connection('db') as conn:
        task = asyncio.create_task(execute(conn, 'SELECT SLEEP(3600)'))
        await at_work(conn)
        # Not close(), which waits for the other end of TLS.
        conn.abort()
        if conn._proto.transport is not None:
            conn._proto.transport.abort()
        with pytest.raises(errors.OperationalError):
            await task


async def leave_rows_unread(pool: ConnectionPool[str, Connection], at_work: AtWork) -> None:
    async with pool.connection('db') as conn:
        await conn.cursor(SSCursor).execute("SELECT IF(seq < 100, REPEAT('x', 10000), SLEEP(3600)) FROM seq_1_to_200")
        # Long enough to be sampled.
        await asyncio.sleep(0.05)


WAYS_TO_GIVE_UP = [
    *map(of_all, WAYS),
    wait_for,
    cancel_a_scope,
    move_on_in_the_block,
    fail_in_a_task_group,
    close_over_the_user,
    leave_rows_unread,
]


class TestStatementsAtWork:
    """What the server's own list of sessions shows while statements are abandoned."""

    @pytest.mark.parametrize('by_tls', [False, True], ids=['plain', 'tls'])
    @pytest.mark.parametrize('way', WAYS_TO_GIVE_UP)
    def test_are_never_more_than_the_pool_may_have(
        self,
        run: Run,
        mariadb: MariadbServer,
        mariadb_tls: ssl.SSLContext,
        way: Callable[[ConnectionPool[str, Connection], AtWork], Awaitable[None]],
        by_tls: bool,
    ) -> None:
        async def at_work(conn: Connection) -> None:
            await asyncio.to_thread(mariadb.wait_for_statement, conn.thread_id(), 'SELECT SLEEP(3600)')

        async def main() -> None:
            manager = DbConnectionManager({'db': {**mariadb.params, 'ssl': mariadb_tls if by_tls else None}})
            pool = ConnectionPool[str, Connection](manager, max_size=2, acquire_timeout=PATIENCE)
            await asyncio.gather(*(way(pool, at_work) for _ in range(8)))
            async with pool.connection('db') as conn:
                assert await fetch(conn, 'SELECT 1') == 1
            await pool.close()

        with mariadb.watched() as watch:
            run(main)
            mariadb.wait_for_sessions(0)
        assert 1 <= watch.most_at_work <= 2
        # The server may list a session that has said good-bye beside the next one.
        assert watch.most_control <= 2

    def test_when_a_pool_is_closed_over_its_users(
        self, run: Run, mariadb: MariadbServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Usually 0.1 s, in which a busy machine does not end three statements.
        monkeypatch.setattr('gcpool._disposals_asyncio.dispose_time', lambda deadline, now: PATIENCE)
        manager = DbConnectionManager({'db': mariadb.params}, close_timeout=PATIENCE)

        async def main() -> None:
            pool = ConnectionPool[str, Connection](manager, max_size=3, acquire_timeout=PATIENCE)
            tasks = []
            for _ in range(3):
                conn = await pool.acquire('db')
                tasks.append(await start_sleeping(mariadb, conn))
            await pool.close(timeout=0)
            assert mariadb.statements() == []
            for task in tasks:
                with pytest.raises(errors.OperationalError):
                    await task

        run(main)
        mariadb.wait_for_sessions(0)

    def test_when_the_read_timeout_is_over(self, run: Run, mariadb: MariadbServer) -> None:
        async def main() -> None:
            manager = DbConnectionManager({'db': {**mariadb.params, 'read_timeout': 0.05}}, close_timeout=PATIENCE)
            pool = ConnectionPool[str, Connection](manager, max_size=2, acquire_timeout=PATIENCE)

            async def request() -> None:
                with pytest.raises(errors.OperationalError):
                    async with pool.connection('db') as conn:
                        await execute(conn, 'SELECT SLEEP(3600)')

            await asyncio.gather(*(request() for _ in range(8)))
            await until(lambda: pool.get_size() == 0)
            assert mariadb.statements() == []
            await pool.close()

        with mariadb.watched() as watch:
            run(main)
        assert 1 <= watch.most_at_work <= 2

    def test_go_on_if_the_manager_is_told_so(self, run: Run, mariadb: MariadbServer) -> None:
        async def main() -> None:
            pool = ConnectionPool[str, Connection](
                DbConnectionManager({'db': mariadb.params}, close_timeout=0), max_size=1, acquire_timeout=PATIENCE
            )
            with pytest.raises(asyncio.TimeoutError):
                async with pool.connection('db') as conn:
                    await asyncio.wait_for(execute(conn, 'SELECT SLEEP(3600)'), 0.1)
            assert mariadb.statements() == ['SELECT SLEEP(3600)']
            await pool.close()

        run(main)
        mariadb.kill_sessions()


class TestTaskGroups:
    """What one user's block has left half-way must not be read by another user."""

    @pytest.mark.parametrize('members', ['times out', 'fails beside it', 'two statements at once', 'is cancelled'])
    def test_leave_no_answer_to_the_next_user(
        self, run: Run, manager: DbConnectionManager, mariadb: MariadbServer, members: str
    ) -> None:
        secret = "SELECT SLEEP(0.1), 'of another user'"

        async def block(conn: Connection) -> None:
            async def fail() -> None:
                await asyncio.sleep(0.02)
                raise LookupError

            async def time_out() -> None:
                await asyncio.wait_for(execute(conn, secret), 0.02)

            async with anyio.create_task_group() as group:
                if members == 'times out':
                    group.start_soon(time_out)
                    group.start_soon(asyncio.sleep, 0.01)
                elif members == 'is cancelled':
                    group.start_soon(execute, conn, secret)
                    await asyncio.sleep(0.02)
                    group.cancel_scope.cancel()
                else:
                    group.start_soon(execute, conn, secret)
                    group.start_soon(fail if members == 'fails beside it' else time_out)

        async def main() -> None:
            pool = ConnectionPool[str, Connection](manager, max_size=1, acquire_timeout=PATIENCE)
            for number in range(5):
                with contextlib.suppress(BaseException):
                    async with pool.connection('db') as conn:
                        await block(conn)
                async with pool.connection('db') as conn:
                    assert await fetch(conn, f'SELECT {number}') == number
            await pool.close()

        run(main)

    def test_of_a_password_creator_that_times_out(self, run: Run, mariadb: MariadbServer) -> None:
        async def ask() -> str:
            async with anyio.create_task_group() as group:
                group.start_soon(asyncio.wait_for, asyncio.sleep(3600), 0.01)
            return ''

        async def main() -> None:
            manager = DbConnectionManager({'db': {**mariadb.params, 'password_creator': ask}})
            with pytest.raises(ConnectTimeout):
                await manager.create('db')

        run(main)


# Seconds.
LIMIT = 0.25


class TestTimeLimits:
    """When the server stalls, or sends byte by byte, a limit is exceeded by at most half a second."""

    @pytest.fixture(params=['mute', 'drip'])
    def stall(
        self, request: pytest.FixtureRequest, mariadb: MariadbServer
    ) -> Iterator[tuple[Proxy, Callable[[], None]]]:
        with Proxy(mariadb.port) as proxy:
            yield proxy, getattr(proxy, request.param)
        mariadb.kill_sessions()

    @pytest.mark.parametrize('init_command', [None, 'SELECT SLEEP(60)'])
    def test_of_an_acquire_that_creates(
        self, run: Run, mariadb: MariadbServer, stall: tuple[Proxy, Callable[[], None]], init_command: str | None
    ) -> None:
        proxy, begin = stall

        async def main() -> None:
            params = {**mariadb.params, 'port': proxy.port, 'init_command': init_command}
            pool = ConnectionPool[str, Connection](DbConnectionManager({'db': params}), max_size=1)
            if init_command is None:
                begin()
            with limited(LIMIT), pytest.raises((TimeoutError, asyncio.TimeoutError)):
                await pool.acquire('db', timeout=LIMIT)
            assert pool.get_size() == 0
            await pool.close()

        run(main)

    @pytest.mark.parametrize('by', ['check_timeout', 'acquire'])
    def test_of_a_check(
        self, run: Run, mariadb: MariadbServer, stall: tuple[Proxy, Callable[[], None]], by: str
    ) -> None:
        proxy, begin = stall

        async def main() -> None:
            manager = DbConnectionManager({'db': {**mariadb.params, 'port': proxy.port}}, ping=True)
            check_timeout = LIMIT / 2 if by == 'check_timeout' else None
            pool = ConnectionPool[str, Connection](manager, max_size=1, check_timeout=check_timeout)
            async with pool.connection('db'):
                pass
            begin()
            with limited(LIMIT), pytest.raises((TimeoutError, asyncio.TimeoutError)):
                await pool.acquire('db', timeout=LIMIT)
            await pool.close()

        run(main)

    @pytest.mark.parametrize('reset', ['rollback', 'full'])
    def test_of_what_a_release_sends(
        self, run: Run, mariadb: MariadbServer, stall: tuple[Proxy, Callable[[], None]], reset: Any
    ) -> None:
        proxy, begin = stall

        async def main() -> None:
            params = {**mariadb.params, 'port': proxy.port}
            manager = DbConnectionManager({'db': params}, reset=reset, rollback_timeout=LIMIT)
            pool = ConnectionPool[str, Connection](manager, max_size=1, acquire_timeout=PATIENCE)
            conn = await pool.acquire('db')
            await execute(conn, 'BEGIN')
            begin()
            # Closing takes no time then.
            with limited(LIMIT):
                await pool.release(conn, 'db')
            await until(lambda: pool.get_size() == 0)
            await pool.close()

        run(main)

    @pytest.mark.parametrize('at_work', [True, False])
    @pytest.mark.parametrize('by', ['close_timeout', 'dispose_timeout'])
    def test_of_closing(
        self, run: Run, mariadb: MariadbServer, stall: tuple[Proxy, Callable[[], None]], by: str, at_work: bool
    ) -> None:
        proxy, begin = stall

        async def main() -> None:
            manager = DbConnectionManager(
                {'db': {**mariadb.params, 'port': proxy.port}}, close_timeout=LIMIT if by == 'close_timeout' else 60
            )
            pool = ConnectionPool[str, Connection](
                manager,
                max_size=1,
                acquire_timeout=PATIENCE,
                dispose_timeout=LIMIT if by == 'dispose_timeout' else None,
            )
            conn = await pool.acquire('db')
            task = await start_sleeping(mariadb, conn) if at_work else None
            begin()
            with limited(LIMIT):
                await pool.close(timeout=0)
            if task is not None:
                with pytest.raises(errors.OperationalError):
                    await task

        run(main)

    @pytest.mark.parametrize('close_timeout', [0, 1.0], ids=['not told to end it', 'by default'])
    def test_of_a_request(
        self, run: Run, mariadb: MariadbServer, stall: tuple[Proxy, Callable[[], None]], close_timeout: float
    ) -> None:
        proxy, begin = stall

        async def main() -> None:
            params = {**mariadb.params, 'port': proxy.port}
            manager = DbConnectionManager({'db': params}, close_timeout=close_timeout)
            pool = ConnectionPool[str, Connection](manager, max_size=1, acquire_timeout=PATIENCE)

            async def request() -> None:
                async with pool.connection('db') as conn:
                    begin()
                    await execute(conn, "SELECT REPEAT('x', 10000)")

            with limited(LIMIT), pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(request(), LIMIT)
            await pool.close()

        run(main)


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Fails if the block exceeds its limit by more than half a second."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds + 0.5
