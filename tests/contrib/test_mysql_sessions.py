"""What the managers of PyMySQL and asyncmy have in common, a table of cases for each kind, with private MariaDB
servers."""

import asyncio
import contextlib
import importlib
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, final

import pytest

from gcpool import asyncio as for_asyncio
from gcpool import threading as for_threads
from gcpool.contrib._generations import Generations
from gcpool.contrib._mysql_control import ControlLog, steps_to_kill
from gcpool.contrib._mysql_session import SessionState, is_useless
from gcpool.exceptions import ConnectError, DiscardConnection
from tests.contrib.mariadb import MariadbServer, Proxy, running_mariadb
from tests.contrib.raising import HOW_IT_IS_RAISED, WAYS, Wrap, in_a_group
from tests.contrib.servers import PATIENCE

USES = 20


class Side(ABC):
    """A driver, its manager, and the pool of its runtime, with the same plain methods for both."""

    driver: str

    def __init__(self) -> None:
        pytest.importorskip(self.driver)
        self.module: Any = importlib.import_module(f'gcpool.contrib.{self.driver}')
        self.errors: Any = importlib.import_module('pymysql.err' if self.driver == 'pymysql' else 'asyncmy.errors')
        self._pools: list[Any] = []

    def manager(self, params: Any, **settings: Any) -> Any:
        return self.module.DbConnectionManager({'db': params}, **settings)

    def pool(self, params: Any, *, max_size: int = 1, **settings: Any) -> Any:
        pool = self.new_pool(self.manager(params, **settings), max_size=max_size, acquire_timeout=PATIENCE)
        self._pools.append(pool)
        return pool

    def close(self) -> None:
        for pool in self._pools:
            self.call(pool.close)

    @abstractmethod
    def new_pool(self, manager: Any, **settings: Any) -> Any:
        """A pool."""

    @abstractmethod
    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call something, and await what it returns."""

    @abstractmethod
    def use(self, pool: Any, *statements: str, then: BaseException | None = None) -> list[Any]:
        """Execute statements on a connection of a pool, and then raise something.

        :return: the rows of each
        """

    @abstractmethod
    def execute(self, conn: Any, statement: str) -> Any:
        """Execute a statement.

        :return: the rows
        """


@final
class PymysqlSide(Side):
    driver = 'pymysql'

    def new_pool(self, manager: Any, **settings: Any) -> Any:
        return for_threads.ConnectionPool(manager, **settings)

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    def use(self, pool: Any, *statements: str, then: BaseException | None = None) -> list[Any]:
        with pool.connection('db') as conn:
            found = [self.execute(conn, statement) for statement in statements]
            if then is not None:
                raise then
        return found

    def execute(self, conn: Any, statement: str) -> Any:
        with conn.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall()


@final
class AsyncmySide(Side):
    driver = 'asyncmy'

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.new_event_loop()

    def close(self) -> None:
        super().close()
        self._loop.close()

    def new_pool(self, manager: Any, **settings: Any) -> Any:
        return for_asyncio.ConnectionPool(manager, **settings)

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        async def main() -> Any:
            return await asyncio.wait_for(function(*args, **kwargs), PATIENCE)

        return self._loop.run_until_complete(main())

    def use(self, pool: Any, *statements: str, then: BaseException | None = None) -> list[Any]:
        async def main() -> list[Any]:
            async with pool.connection('db') as conn:
                found = [await self._execute(conn, statement) for statement in statements]
                if then is not None:
                    raise then
            return found

        found: list[Any] = self.call(main)
        return found

    def execute(self, conn: Any, statement: str) -> Any:
        return self.call(self._execute, conn, statement)

    async def _execute(self, conn: Any, statement: str) -> Any:
        async with conn.cursor() as cursor:
            await cursor.execute(statement)
            return await cursor.fetchall()


@pytest.fixture(params=[PymysqlSide, AsyncmySide], ids=['pymysql', 'asyncmy'])
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    side: Side = request.param()
    yield side
    side.close()


@pytest.fixture(scope='module')
def standby() -> Iterator[MariadbServer]:
    """A second server."""
    with running_mariadb() as server:
        yield server


@pytest.fixture(scope='module')
def granted(mariadb: MariadbServer) -> MariadbServer:
    """The server, where the account may use a role and a second database, and lock all tables."""
    mariadb.execute('CREATE ROLE IF NOT EXISTS `a ``role`')
    mariadb.execute(f'GRANT `a ``role` TO {mariadb.user}')
    mariadb.execute('CREATE DATABASE IF NOT EXISTS other')
    mariadb.execute(f'GRANT ALL ON other.* TO {mariadb.user}')
    mariadb.execute(f'GRANT RELOAD ON *.* TO {mariadb.user}')
    mariadb.execute(f'CREATE TABLE IF NOT EXISTS {mariadb.database}.kept (n INT)')
    return mariadb


# What a user may do to the session, and a statement whose answer shows it.
LEFT: dict[str, tuple[tuple[str, ...], str]] = {
    'user variable': (('SET @left = 1',), 'SELECT @left'),
    'session variable': (("SET time_zone = '+03:00'",), 'SELECT @@time_zone'),
    'sql_mode': (("SET sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES'",), 'SELECT @@sql_mode'),
    'character set': (('SET NAMES latin1',), 'SELECT @@character_set_client, @@collation_connection'),
    'isolation': (('SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE',), 'SELECT @@tx_isolation'),
    'read only': (('SET SESSION TRANSACTION READ ONLY',), 'SELECT @@tx_read_only'),
    'autocommit': (('SET autocommit = NOT @@autocommit',), 'SELECT @@autocommit'),
    'transaction': (('BEGIN', 'INSERT INTO kept VALUES (1)'), 'SELECT COUNT(*) FROM kept'),
    'role': (('SET ROLE `a ``role`',), 'SELECT CURRENT_ROLE()'),
    'database': (('USE other',), 'SELECT DATABASE()'),
    'temporary table': (('CREATE TEMPORARY TABLE kept AS SELECT 1 AS n',), 'SELECT COUNT(*) FROM kept'),
    'named lock': (("SELECT GET_LOCK('left', 0)",), "SELECT IS_USED_LOCK('left') = CONNECTION_ID()"),
    'locked tables': (('LOCK TABLES kept READ',), 'SELECT COUNT(*) FROM other.seen'),
    'global read lock': (('FLUSH TABLES WITH READ LOCK',), 'INSERT INTO kept SELECT 1 WHERE 1 = 0'),
    'last insert id': (('SELECT LAST_INSERT_ID(7)',), 'SELECT LAST_INSERT_ID()'),
    'prepared statement': (("PREPARE kept FROM 'SELECT 8'",), 'EXECUTE kept'),
    'profiling': (('SET profiling = 1',), 'SELECT @@profiling'),
}


class TestFullReset:
    @pytest.mark.parametrize('autocommit', [True, False])
    @pytest.mark.parametrize('left', LEFT)
    def test_leaves_nothing_to_the_next_user(
        self, side: Side, granted: MariadbServer, left: str, autocommit: bool
    ) -> None:
        granted.execute('CREATE TABLE IF NOT EXISTS other.seen (n INT)')
        pool = side.pool({**granted.params, 'autocommit': autocommit}, reset='full')
        statements, question = LEFT[left]

        def answer(*before: str) -> Any:
            try:
                return side.use(pool, *before, question)[-1]
            except side.errors.MySQLError as exc:
                return exc.args[0]

        new = answer()
        changed = answer(*statements)
        assert changed != new, 'this would not be seen'
        for _ in range(USES):
            side.use(pool, *statements)
            assert answer() == new
        if 'lock' not in left and left != 'prepared statement':
            assert pool.get_stats()['created'] == 1

    @pytest.mark.parametrize('left', [left for left in LEFT if left not in {'autocommit', 'transaction'}])
    def test_without_it_the_next_user_would_see_it(self, side: Side, granted: MariadbServer, left: str) -> None:
        granted.execute('CREATE TABLE IF NOT EXISTS other.seen (n INT)')
        pool = side.pool({**granted.params, 'autocommit': True})
        statements, question = LEFT[left]

        def answer() -> Any:
            try:
                return side.use(pool, question)[-1]
            except side.errors.MySQLError as exc:
                return exc.args[0]

        new = answer()
        side.use(pool, *statements)
        assert answer() != new
        assert pool.get_stats()['created'] == 1

    @pytest.mark.parametrize('left', LEFT)
    @pytest.mark.parametrize('after', ['value', 'group'])
    def test_leaves_nothing_when_a_block_has_failed(
        self, side: Side, granted: MariadbServer, left: str, after: str
    ) -> None:
        granted.execute('CREATE TABLE IF NOT EXISTS other.seen (n INT)')
        pool = side.pool(granted.params, reset='full')
        error: BaseException = ValueError() if after == 'value' else in_a_group(ValueError())
        watch = 'SELECT @@sql_mode, @@time_zone, @@tx_isolation, CURRENT_ROLE(), DATABASE(), @left'
        (new,) = side.use(pool, watch)
        with pytest.raises(type(error)):
            side.use(pool, *LEFT[left][0], then=error)
        assert side.use(pool, watch) == [new]
        assert pool.get_stats()['created'] == 1

    def test_keeps_what_the_parameters_set(self, side: Side, granted: MariadbServer) -> None:
        settings = {
            'autocommit': True,
            'charset': 'latin1',
            'sql_mode': "'ANSI_QUOTES'" if side.driver == 'asyncmy' else 'ANSI_QUOTES',
            'init_command': "SET @by_init = 5, time_zone = '+05:00'",
        }
        watch = 'SELECT @by_init, @@time_zone, @@sql_mode, @@autocommit, @@character_set_client, DATABASE(), "'
        watch = watch[:-3]
        pool = side.pool({**granted.params, **settings}, reset='full')
        (new,) = side.use(pool, watch)
        assert tuple(new[0][:2]) == (5, '+05:00')
        assert tuple(new[0][2:5]) == ('ANSI_QUOTES', 1, 'latin1')
        for _ in range(USES):
            undone = ('SET @by_init = 6', "SET time_zone = 'SYSTEM', sql_mode = ''", 'SET NAMES utf8mb4', 'USE other')
            side.use(pool, *undone, 'SET autocommit = 0')
            assert side.use(pool, watch, "SELECT 'ä'") == [new, (('ä',),)]
        assert pool.get_stats()['created'] == 1

    def test_restores_what_the_driver_knows(self, side: Side, granted: MariadbServer) -> None:
        manager = side.manager({**granted.params, 'autocommit': True}, reset='full')
        conn = side.call(manager.create, 'db')
        for _ in range(USES):
            # asyncmy 0.2.18 fails in its own set_charset().
            if side.driver == 'pymysql':
                conn.set_character_set('latin1')
            side.call(conn.autocommit, False)
            side.execute(conn, "SET sql_mode = 'NO_BACKSLASH_ESCAPES'")
            side.execute(conn, 'SELECT LAST_INSERT_ID(9)')
            side.call(manager.on_release, 'db', conn)
            assert side.call(manager.check_aliveness, 'db', conn)
            assert conn.character_set_name() == 'utf8mb4'
            assert conn.get_autocommit() is True
            assert conn.autocommit_mode is True
            assert conn.insert_id() == 0
            assert side.execute(conn, f'SELECT {conn.escape(chr(92) + "ä€")}') == ((chr(92) + 'ä€',),)
            side.call(manager.on_release, 'db', conn)
        side.call(manager.dispose, 'db', conn)

    def test_forgets_the_statements_that_asyncmy_has_prepared(self, granted: MariadbServer) -> None:
        side = AsyncmySide()
        pool = side.pool({**granted.params, 'stmt_cache_size': 10}, reset='full')

        async def ask(number: int) -> Any:
            async with pool.connection('db') as conn, conn.cursor() as cursor:
                await cursor.execute('SELECT %s + 1', (number,))
                await cursor.execute('SELECT %s + 1', (number,))
                assert conn._stmt_cache
                return await cursor.fetchone()

        for number in range(USES):
            assert side.call(ask, number) == (number + 1,)
        assert pool.get_stats()['created'] == 1
        assert granted.execute("SHOW GLOBAL STATUS LIKE 'Prepared_stmt_count'") == [('Prepared_stmt_count', '0')]
        side.close()

    def test_is_one_round_trip(self, side: Side, granted: MariadbServer) -> None:
        params = {**granted.params, 'init_command': 'SET @by_init = 5'}
        manager = side.manager(params, reset='full')
        conn = side.call(manager.create, 'db')
        written: list[bytes] = []
        write = conn._write_bytes

        def record(data: bytes) -> None:
            written.append(data)
            write(data)

        conn._write_bytes = record
        for statements, expected in (((), 0), (('SELECT 1',), 1), ((), 0), (('BEGIN', 'this is no SQL'), 1)):
            for statement in statements:
                with contextlib.suppress(side.errors.ProgrammingError):
                    side.execute(conn, statement)
            written.clear()
            side.call(manager.on_release, 'db', conn)
            assert len(written) == expected
        side.call(manager.dispose, 'db', conn)

    def test_closes_what_has_selected_a_database_where_none_was(self, side: Side, granted: MariadbServer) -> None:
        pool = side.pool({**granted.params, 'database': None}, reset='full')
        for _ in range(2):
            assert side.use(pool, 'SELECT DATABASE(), @left', 'SET @left = 1')[0] == ((None, None),)
        assert pool.get_stats()['created'] == 1
        side.use(pool, 'USE other')
        assert side.use(pool, 'SELECT DATABASE()') == [((None,),)]
        assert pool.get_stats()['created'] == 2

    def test_closes_what_the_server_cannot_reset(
        self, side: Side, granted: MariadbServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        # What a server before 10.2.4 answers to an unknown command.
        monkeypatch.setattr('gcpool.contrib._mysql_session._COM_RESET_CONNECTION', 0x7E)
        pool = side.pool(granted.params, reset='full')
        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                side.use(pool, 'SET @left = 1')
        assert side.use(pool, 'SELECT @left') == [((None,),)]
        assert pool.get_stats()['created'] == 3
        assert 'cannot be rolled back or reset' in caplog.text

    def test_of_a_server_without_roles(
        self, side: Side, granted: MariadbServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        queries = (
            'SELECT no_such_function()',
            'SELECT @@character_set_client, @@collation_connection, @@sql_mode, NULL',
        )
        monkeypatch.setattr(f'gcpool.contrib._{side.driver}_connection.QUERIES_FOR_RESET', queries)
        pool = side.pool({**granted.params, 'database': None}, reset='full')
        for _ in range(2):
            side.use(pool, 'SET @left = 1')
            assert side.use(pool, 'SELECT @left') == [((None,),)]
        assert pool.get_stats()['created'] == 1

    def test_left_out_is_found_by_the_check(self, side: Side, granted: MariadbServer) -> None:
        manager = side.manager({**granted.params, 'autocommit': True}, reset='full', ping=True)
        conn = side.call(manager.create, 'db')
        assert side.call(manager.check_aliveness, 'db', conn)
        # Its ping does not work.
        assert side.call(manager.check_aliveness, 'db', conn)
        side.execute(conn, 'SET @left = 1')
        assert not side.call(manager.check_aliveness, 'db', conn)
        side.call(manager.dispose, 'db', conn)


class TestErrorsInGroups:
    @pytest.mark.parametrize(
        ('kind', 'args', 'broken'),
        [
            ('OperationalError', (2013, 'lost'), True),
            ('OperationalError', (1927, 'killed'), True),
            ('OperationalError', (4031, 'disconnected for inactivity'), True),
            ('OperationalError', (1153, 'a packet bigger than max_allowed_packet'), True),
            ('InterfaceError', (0, ''), True),
            ('OperationalError', (1836, 'Running in read-only mode'), True),
            ('OperationalError', (1290, 'running with the --read-only option'), True),
            ('OperationalError', (1290, 'running with the --super-read-only option'), True),
            ('OperationalError', (1290, 'running with the --secure-file-priv option'), False),
            ('OperationalError', (1047, 'WSREP has not yet prepared node for application use'), True),
            ('OperationalError', (1615, 'Prepared statement needs to be re-prepared'), True),
            ('OperationalError', (1205, 'lock wait timeout'), False),
            ('OperationalError', (1213, 'deadlock'), False),
            ('OperationalError', (1792, 'in a READ ONLY transaction'), False),
            ('ProgrammingError', (1064, 'syntax'), False),
        ],
    )
    def test_are_found_by_is_broken(
        self, side: Side, mariadb: MariadbServer, kind: str, args: tuple[Any, ...], broken: bool
    ) -> None:
        manager = side.manager(mariadb.params)
        conn = side.call(manager.create, 'db')
        for wrap in WAYS:
            exc = wrap(getattr(side.errors, kind)(*args))
            assert side.call(manager.is_broken, 'db', conn, exc) is broken, wrap
        side.call(manager.dispose, 'db', conn)

    @HOW_IT_IS_RAISED
    def test_do_not_hide_an_answer_that_was_not_read(self, side: Side, mariadb: MariadbServer, wrap: Wrap) -> None:
        manager = side.manager(mariadb.params)
        conn = side.call(manager.create, 'db')
        # The answer of another user is on its way.
        sent = conn._execute_command(3, "SELECT 'of another user'")
        if side.driver == 'asyncmy':
            side.call(lambda: sent)
        assert side.call(manager.is_broken, 'db', conn, wrap(TimeoutError()))
        with pytest.raises(DiscardConnection):
            side.call(manager.on_release, 'db', conn)
        side.call(manager.dispose, 'db', conn)

    def test_no_statement_mends_one_whose_answer_was_not_read(self, side: Side, mariadb: MariadbServer) -> None:
        manager = side.manager({**mariadb.params, 'autocommit': True})
        conn = side.call(manager.create, 'db')
        for number in (1, 2):
            sent = conn._execute_command(3, f'SELECT {number}')
            if side.driver == 'asyncmy':
                side.call(lambda sent=sent: sent)
        # The second command is sent over the first one's answer, which is taken for its own.
        with contextlib.suppress(side.errors.MySQLError):
            side.call(conn._read_query_result)
        assert side.call(manager.is_broken, 'db', conn, ValueError())
        with pytest.raises(DiscardConnection):
            side.call(manager.on_release, 'db', conn)
        assert not side.call(manager.check_aliveness, 'db', conn)
        side.call(manager.dispose, 'db', conn)


class TestBrokenCodes:
    @pytest.fixture
    def read_only(self, mariadb: MariadbServer, standby: MariadbServer) -> Iterator[MariadbServer]:
        """The server, which becomes read-only when told to, and a standby that has the same table."""
        for server in (mariadb, standby):
            server.execute(f'CREATE OR REPLACE TABLE {server.database}.written (n INT)')
        yield mariadb
        mariadb.execute('SET GLOBAL read_only = 0')

    @pytest.mark.parametrize('check_interval', [0.0, 3600.0])
    def test_writes_work_at_once_after_a_fail_over(
        self, side: Side, read_only: MariadbServer, standby: MariadbServer, check_interval: float
    ) -> None:
        write = 'INSERT INTO written VALUES (1)'
        with Proxy(read_only.port) as proxy:
            params = {**read_only.params, 'port': proxy.port, 'autocommit': True}
            manager = side.manager(params)
            pool = side.new_pool(manager, max_size=4, acquire_timeout=PATIENCE, check_interval=check_interval)
            connections = [side.call(pool.acquire, 'db') for _ in range(4)]
            for conn in connections[1:]:
                side.call(pool.release, conn, 'db')
            read_only.execute('SET GLOBAL read_only = 1')
            proxy.lead_to(standby.port)
            with pytest.raises(side.errors.OperationalError, match='read-only'):
                side.use(pool, write)
            # A connection that was in use meanwhile is also an older one.
            side.call(pool.release, connections[0], 'db')
            for _ in range(12):
                side.use(pool, write)
            held = [side.call(pool.acquire, 'db') for _ in range(4)]
            for conn in held:
                assert conn not in connections
                side.execute(conn, write)
                side.call(pool.release, conn, 'db')
            assert standby.execute(f'SELECT COUNT(*) FROM {standby.database}.written') == [(16,)]
            assert pool.get_stats()['created'] == 8
            side.call(pool.close)

    def test_a_block_that_catches_the_error_gives_back_no_such_connection(
        self, side: Side, read_only: MariadbServer
    ) -> None:
        pool = side.pool({**read_only.params, 'autocommit': True}, max_size=1)
        side.use(pool, 'SELECT 1')
        read_only.execute('SET GLOBAL read_only = 1')
        conn = side.call(pool.acquire, 'db')
        with pytest.raises(side.errors.OperationalError):
            side.execute(conn, 'INSERT INTO written VALUES (1)')
        side.call(pool.release, conn, 'db')
        assert pool.get_size() == 0
        read_only.execute('SET GLOBAL read_only = 0')
        side.use(pool, 'INSERT INTO written VALUES (1)')

    def test_may_be_none(self, side: Side, read_only: MariadbServer) -> None:
        pool = side.pool({**read_only.params, 'autocommit': True}, broken_codes=())
        side.use(pool, 'SELECT 1')
        read_only.execute('SET GLOBAL read_only = 1')
        with pytest.raises(side.errors.OperationalError):
            side.use(pool, 'INSERT INTO written VALUES (1)')
        assert pool.get_size() == 1

    def test_may_be_others(self, side: Side, mariadb: MariadbServer) -> None:
        pool = side.pool(mariadb.params, broken_codes=[1064])
        with pytest.raises(side.errors.ProgrammingError):
            side.use(pool, 'this is no SQL')
        assert pool.get_size() == 0

    def test_what_one_has_met_makes_those_from_before_useless(self) -> None:
        generations = Generations()

        def created() -> SessionState:
            conn = SessionState()
            conn.generation = generations.latest('db')
            return conn

        conn, before = created(), created()
        assert not is_useless(generations, 'db', conn)
        conn.met_broken_code = True
        assert is_useless(generations, 'db', conn)
        assert is_useless(generations, 'db', before)
        assert not is_useless(generations, 'other', before)
        later = created()
        assert is_useless(generations, 'db', conn)
        assert not is_useless(generations, 'db', later)


def iter_of(statement: str) -> Iterator[str]:
    yield statement


class TestStatementsAtWork:
    def test_no_other_session_is_ended(self, side: Side, mariadb: MariadbServer) -> None:
        # As when several servers have one name: there is a session of that number, but it is another connection's.
        manager = side.manager(mariadb.params)
        conn, stranger = (side.call(manager.create, 'db') for _ in range(2))
        steps = steps_to_kill(conn, stranger.thread_id())
        rows = mariadb.execute(next(steps))
        with pytest.raises(LookupError, match='may be another one'):
            steps.send(rows)
        assert side.execute(stranger, 'SELECT 1') == ((1,),)
        for each in (conn, stranger):
            side.call(manager.dispose, 'db', each)

    @pytest.mark.parametrize('seconds', [0.15, 60])
    def test_of_a_create_that_was_given_up(self, side: Side, mariadb: MariadbServer, seconds: float) -> None:
        params = {**mariadb.params, 'init_command': 'SELECT SLEEP(60)', 'connect_timeout': seconds}
        manager = side.manager(params)
        pool = side.new_pool(manager, max_size=2, acquire_timeout=0.15)
        with mariadb.watched() as watch:
            for _ in range(5):
                with pytest.raises((TimeoutError, asyncio.TimeoutError)):
                    side.call(pool.acquire, 'db')
        assert watch.most_at_work == 1
        assert watch.most_control <= 2
        side.call(pool.close)
        mariadb.wait_for_sessions(0)

    @pytest.mark.parametrize('why', ['refused', 'no such place', 'silent', 'full'])
    def test_is_closed_as_it_is_if_the_server_cannot_be_told(
        self, side: Side, mariadb: MariadbServer, why: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        with Proxy(mariadb.port) as proxy:
            params = {**mariadb.params, 'read_timeout': 0.1}
            given = dict(params)
            manager = side.module.DbConnectionManager(lambda endpoint: given)
            pool = side.new_pool(manager, max_size=1, acquire_timeout=PATIENCE)
            others: list[Any] = []
            with caplog.at_level(logging.WARNING, 'gcpool.contrib._mysql'):
                for _ in range(2):
                    given = dict(params)
                    conn = side.call(pool.acquire, 'db')
                    with pytest.raises(side.errors.OperationalError):
                        side.execute(conn, 'SELECT SLEEP(3600)')
                    if why == 'refused':
                        given['password'] = 'another one'
                    elif why == 'no such place':
                        given['port'] = 1
                    elif why == 'silent':
                        given['port'] = proxy.port
                        proxy.mute()
                    else:
                        mariadb.set_max_connections(10)
                        with contextlib.suppress(ConnectError):
                            while len(others) < 20:
                                others.append(side.call(side.manager(params).create, 'db'))
                    began = time.monotonic()
                    side.call(pool.release, conn, 'db')
                    # On asyncio, a task of the pool continues it.
                    while side.call(pool.get_endpoint_pool_size, 'db'):
                        assert time.monotonic() - began < PATIENCE
                        time.sleep(0.01)
                    assert time.monotonic() - began < 1.5
                    while others:
                        side.call(side.manager(params).dispose, 'db', others.pop())
                    mariadb.set_max_connections(None)
            assert caplog.text.count('the statement could not be ended') == 1
            assert 'another one' not in caplog.text
            mariadb.kill_sessions()
            side.call(pool.close)
            mariadb.wait_for_sessions(0)

    def test_are_ended_one_after_the_other_though_one_takes_long(
        self, side: Side, mariadb: MariadbServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # The server answers, but does not end the session: this is no reason not to try again.
        monkeypatch.setattr(f'gcpool.contrib.{side.driver}.steps_to_kill', lambda *args: iter_of('DO SLEEP(10)'))
        manager = side.manager({**mariadb.params, 'read_timeout': 0.1}, close_timeout=0.2)
        pool = side.new_pool(manager, max_size=1, acquire_timeout=PATIENCE)
        for _ in range(2):
            with pytest.raises(side.errors.OperationalError):
                side.use(pool, 'SELECT SLEEP(3600)')
            assert manager._control_log.may_try('db')
        side.call(pool.close)
        mariadb.kill_sessions()
        mariadb.wait_for_sessions(0)

    def test_behind_a_proxy_none_is_ended(
        self, side: Side, mariadb: MariadbServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The name may lead to several servers, with sessions of the same number and the same statement."""
        with Proxy(mariadb.port) as proxy:
            pool = side.pool({**mariadb.params, 'port': proxy.port, 'read_timeout': 0.1})
            with pytest.raises(side.errors.OperationalError):
                side.use(pool, 'SELECT SLEEP(3600)')
            assert mariadb.statements() == ['SELECT SLEEP(3600)']
            assert 'may be another one there' in caplog.text
            mariadb.kill_sessions()

    def test_needs_no_control_connection_otherwise(self, side: Side, mariadb: MariadbServer) -> None:
        manager = side.manager(mariadb.params)

        def connections() -> int:
            return int(mariadb.execute("SHOW GLOBAL STATUS LIKE 'Connections'")[0][1])

        ends: list[Callable[[Any], object]] = [
            lambda conn: None,
            lambda conn: side.execute(conn, 'BEGIN'),
            lambda conn: conn.close(),
            lambda conn: mariadb.kill_session(conn.thread_id()),
        ]
        for end in ends:
            conn = side.call(manager.create, 'db')
            end(conn)
            mariadb.execute('DO 1')
            before = connections()
            with contextlib.suppress(side.errors.MySQLError):
                side.execute(conn, 'SELECT 1')
            side.call(manager.dispose, 'db', conn)
            # The question itself.
            assert connections() == before + 1


@pytest.mark.parametrize(('waited', 'counts'), [(0.3, False), (1.0, True)])
def test_a_server_counts_as_silent_that_had_the_time_to_answer(waited: float, counts: bool) -> None:
    log = ControlLog()
    log.note_silence('db', waited, 1.0)
    assert log.may_try('db') is not counts
