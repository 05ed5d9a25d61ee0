# Generated from tests/psycopg_pool/test_connections.py by .github/scripts/generate_threading.py; do not edit.

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

from gcpool.psycopg_pool import ConnectionPool, PoolTimeout
from tests.threads.runtime import until

IDLE = TransactionStatus.IDLE


def told(log: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in log.records if record.name == 'psycopg.pool']


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.WARNING, 'psycopg.pool')
    return caplog


def test_the_connection_class_may_be_a_parametrised_generic(dsn: str) -> None:
    class Own(psycopg.Connection[Row], Generic[Row]):
        pass

    with (
        ConnectionPool(dsn, min_size=1, connection_class=Own[dict[str, Any]], kwargs={'row_factory': dict_row}) as pool,
        pool.connection() as conn,
    ):
        assert isinstance(conn, Own)
        cursor = conn.execute('SELECT 1 AS one')
        assert cursor.fetchone() == {'one': 1}


def test_connect_is_looked_up_at_each_call(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []
    connect = psycopg.Connection.connect

    def traced(conninfo: str, **kwargs: Any) -> Any:
        seen.append(kwargs)
        return connect(conninfo, **kwargs)

    with ConnectionPool(dsn, min_size=1, kwargs={'autocommit': True}) as pool:
        pool.wait()
        monkeypatch.setattr(psycopg.Connection, 'connect', traced)
        pool.drain()
        until(lambda: bool(seen))
        assert seen[0] == {'autocommit': True}


def test_conninfo_and_kwargs_may_be_functions_and_may_be_set(dsn: str) -> None:
    with ConnectionPool(lambda: dsn, min_size=1, kwargs=lambda: {'application_name': 'one'}) as pool:
        with pool.connection() as conn:
            cursor = conn.execute('SHOW application_name')
            assert cursor.fetchone() == ('one',)
        assert pool._resolve_conninfo() == dsn
        assert pool._resolve_kwargs() == {'application_name': 'one'}
        pool.kwargs = {'application_name': 'two'}
        pool.drain()
        with pool.connection() as conn:
            cursor = conn.execute('SHOW application_name')
            assert cursor.fetchone() == ('two',)


def test_what_a_user_changed_stays(dsn: str) -> None:
    with ConnectionPool(dsn, min_size=1) as pool:
        with pool.connection() as conn:
            conn.set_autocommit(True)
            conn.row_factory = dict_row  # type: ignore[assignment]
        with pool.connection() as again:
            assert again is conn
            assert again.autocommit
            assert again.row_factory is dict_row  # type: ignore[comparison-overlap]


def test_a_block_commits_or_rolls_back(dsn: str) -> None:
    with ConnectionPool(dsn, min_size=1) as pool:
        with pool.connection() as conn:
            conn.execute('CREATE TABLE IF NOT EXISTS committed (number int)')
            conn.execute('TRUNCATE committed')
            conn.execute('INSERT INTO committed VALUES (1)')

        def failing() -> None:
            with pool.connection() as conn:
                conn.execute('INSERT INTO committed VALUES (2)')
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            failing()
        with pool.connection() as conn:
            cursor = conn.execute('SELECT number FROM committed')
            assert cursor.fetchall() == [(1,)]


@pytest.mark.parametrize(('statement', 'status'), [('SELECT 1', 'INTRANS'), ('nonsense', 'INERROR')])
def test_an_open_transaction_is_rolled_back_at_once(
    dsn: str, statement: Any, status: str, log: pytest.LogCaptureFixture
) -> None:
    with ConnectionPool(dsn, min_size=1) as pool:
        conn = pool.getconn()
        with contextlib.suppress(psycopg.Error):
            conn.execute(statement)
        pool.putconn(conn)
        again = pool.getconn(timeout=5)
        assert again is conn
        assert again.pgconn.transaction_status == IDLE
        pool.putconn(again)
    assert len(told(log)) == 1
    assert f'[{status}]' in told(log)[0]


def test_a_connection_in_the_middle_of_a_command_is_closed_and_replaced(
    dsn: str, log: pytest.LogCaptureFixture
) -> None:
    with ConnectionPool(dsn, min_size=1) as pool:
        conn = pool.getconn()
        conn.pgconn.exec_(b'COPY (SELECT generate_series(1, 10)) TO STDOUT')
        pool.putconn(conn)
        assert conn.closed
        with pool.connection(timeout=10) as other:
            assert other is not conn
    messages = told(log)
    assert ['[ACTIVE]' in messages[0], '[BAD]' in messages[1], len(messages)] == [True, True, 2]
    assert pool.get_stats()['returns_bad'] == 1


def test_a_failing_rollback_closes_the_connection(dsn: str, log: pytest.LogCaptureFixture) -> None:
    with ConnectionPool(dsn, min_size=1) as pool:
        conn = pool.getconn()
        rollback = conn.rollback

        def failing() -> None:
            conn.pgconn.finish()
            rollback()

        conn.rollback = failing  # type: ignore[method-assign]
        conn.execute('SELECT 1')
        pool.putconn(conn)
        with pool.connection(timeout=10) as other:
            assert other is not conn
    messages = told(log)
    assert len(messages) == 3
    assert '[INTRANS]' in messages[0]
    assert 'OperationalError' in messages[1]
    assert '[BAD]' in messages[2]


def test_a_broken_connection_is_replaced_and_counted(dsn: str, log: pytest.LogCaptureFixture) -> None:
    with ConnectionPool(dsn, min_size=1) as pool:
        with pool.connection() as conn:
            conn.close()
        with pool.connection(timeout=10) as other:
            assert other is not conn
        assert pool.get_stats()['returns_bad'] == 1
    assert '[BAD]' in told(log)[0]


@pytest.mark.parametrize('fault', ['raises', 'leaves a transaction'])
def test_configure_that_fails_is_told_and_tried_again(dsn: str, fault: str, log: pytest.LogCaptureFixture) -> None:
    conns: list[Any] = []

    def configure(conn: Any) -> None:
        conns.append(conn)
        if len(conns) == 1:
            conn.execute('SELECT 1')
            if fault == 'raises':
                raise ZeroDivisionError('in configure')

    with ConnectionPool(dsn, min_size=1, configure=configure) as pool:
        conn = pool.getconn(timeout=10)
        assert conn is conns[-1]
        assert conns[0].closed
        pool.putconn(conn)
        assert pool.get_stats()['connections_num'] >= 2
    assert ('in configure' if fault == 'raises' else 'INTRANS') in told(log)[0]


@pytest.mark.parametrize('fault', ['raises', 'leaves a transaction'])
def test_reset_that_fails_closes_the_connection(dsn: str, fault: str, log: pytest.LogCaptureFixture) -> None:
    def reset(conn: Any) -> None:
        conn.execute('SELECT 1')
        if fault == 'raises':
            raise ZeroDivisionError('in reset')

    with ConnectionPool(dsn, min_size=1, reset=reset) as pool:
        with pool.connection() as conn:
            pass
        with pool.connection(timeout=10) as other:
            assert other is not conn
        pool.wait()
        assert conn.closed
        assert pool.get_stats()['returns_bad'] == 2
    assert ('in reset' if fault == 'raises' else 'INTRANS') in told(log)[0]


def test_reset_is_called_by_the_pool_after_the_rollback(dsn: str) -> None:
    seen: list[Any] = []

    def reset(conn: Any) -> None:
        seen.append((conn.pgconn.transaction_status, conn._pool))

    with ConnectionPool(dsn, min_size=1, reset=reset) as pool:
        conn = pool.getconn()
        conn.execute('SELECT 1')
        pool.putconn(conn)
        with pytest.raises(ValueError, match='was returned already'):
            pool.putconn(conn)
        pool.wait()
        assert seen == [(IDLE, pool)]
        assert pool.getconn() is conn
        pool.putconn(conn)


def test_a_check_that_fails_gives_the_client_another_connection(
    dsn: str, kill: Callable[[Any], None], log: pytest.LogCaptureFixture
) -> None:
    with ConnectionPool(dsn, min_size=2, check=ConnectionPool.check_connection) as pool:
        pool.wait()
        with pool.connection() as conn:
            pass
        with pool.connection() as other:
            pass
        kill(conn)
        with pool.connection(timeout=10) as found:
            assert found is not conn
            found.execute('SELECT 1')
        assert not other.closed
        assert pool.get_stats()['connections_lost'] == 1
    assert told(log) == []


def test_a_check_that_always_fails_runs_into_the_time_limit(dsn: str) -> None:
    def check(conn: Any) -> None:
        raise ZeroDivisionError

    with ConnectionPool(dsn, min_size=1, check=check) as pool:
        with pytest.raises(PoolTimeout):
            pool.getconn(timeout=0.5)
        # One connection was there, and each further one was made after a longer pause.
        assert pool.get_stats()['connections_lost'] <= 3


@pytest.mark.parametrize('autocommit', [True, False])
def test_check_connection_leaves_the_connection_as_it_was(
    dsn: str, autocommit: bool, kill: Callable[[Any], None]
) -> None:
    conn = psycopg.Connection.connect(dsn, autocommit=autocommit)
    ConnectionPool.check_connection(conn)
    assert conn.autocommit == autocommit
    assert conn.pgconn.transaction_status == IDLE
    kill(conn)
    with pytest.raises(psycopg.OperationalError):
        ConnectionPool.check_connection(conn)
    conn.close()


def test_check_replaces_the_broken_ones(dsn: str, kill: Callable[[Any], None], log: pytest.LogCaptureFixture) -> None:
    with ConnectionPool(dsn, min_size=3) as pool:
        pool.wait()
        with pool.connection() as conn:
            pass
        kill(conn)
        pool.check()
        pool.wait()
        assert conn.closed
        assert pool.get_stats()['pool_available'] == 3
        assert pool.get_stats()['connections_lost'] == 1
    assert len(told(log)) == 1


def test_close_of_a_connection_returns_it_if_that_is_wanted(dsn: str) -> None:
    with ConnectionPool(dsn, min_size=1, close_returns=True) as pool:
        conns: list[Any] = [pool.getconn()]
        conns[0].close()
        assert not conns[0].closed
        conns.append(pool.getconn(timeout=5))
        assert conns[0] is conns[1]
        conn = conns[1]
        pool.close_returns = False
        conn.close()
        assert conn.closed
        pool.putconn(conn)


def test_a_connection_of_another_pool_or_returned_twice_is_refused(dsn: str) -> None:
    with ConnectionPool(dsn, min_size=1) as pool, ConnectionPool(dsn, min_size=1, name='two') as other:
        conn = other.getconn()
        with pytest.raises(ValueError, match="it belongs to 'two'"):
            pool.putconn(conn)
        other.putconn(conn)
        with pytest.raises(ValueError, match='was returned already'):
            other.putconn(conn)


def test_connection_calls_getconn_of_a_subclass_and_may_be_entered_later(dsn: str) -> None:
    class Own(ConnectionPool[Any]):
        def getconn(self, timeout: float | None = None) -> Any:
            calls.append(timeout)
            return super().getconn(timeout)

    calls: list[float | None] = []
    with Own(dsn, min_size=1) as pool:
        block = pool.connection(timeout=7)
        assert calls == []
        with block as conn:
            conn.execute('SELECT 1')
        assert calls == [7]


def test_a_connection_is_replaced_after_its_lifetime(dsn: str) -> None:
    with ConnectionPool(dsn, min_size=1, max_lifetime=0.2) as pool:
        conn = pool.getconn()
        until(lambda: conn.info.backend_pid > 0 and pool._engine._core.now() > made_at(conn) + 0.3)
        pool.putconn(conn)
        with pool.connection(timeout=10) as other:
            assert other is not conn
        until(lambda: conn.closed)


def made_at(conn: Any) -> float:
    made: float = conn._gcpool_made_at
    return made


def test_drain_replaces_every_connection_made_before(dsn: str) -> None:
    with ConnectionPool(dsn, min_size=3) as pool:
        pool.wait()
        conn: Any = pool.getconn()
        pool.drain()
        assert not conn.closed
        pool.putconn(conn)
        assert conn.closed
        pool.wait()
        assert pool.get_stats()['connections_num'] == 6


@pytest.mark.parametrize('name', ['conninfo', 'kwargs', 'configure'])
def test_system_exit_in_a_callback_of_a_connect_ends_nothing_but_the_attempt(dsn: str, name: str) -> None:
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

    def configure(conn: Any) -> None:
        exit_once()

    options: dict[str, Any] = {'conninfo': dsn, name: {'conninfo': conninfo, 'kwargs': kwargs}.get(name, configure)}
    with ConnectionPool(min_size=1, **options) as pool, pool.connection(timeout=20) as conn:
        conn.execute('SELECT 1')
    assert len(attempts) == 2
    assert pool.get_stats()['connections_num'] == 2


def test_system_exit_in_reset_closes_the_connection_and_ends_nothing_else(dsn: str) -> None:
    def reset(conn: Any) -> None:
        raise SystemExit(3)

    with ConnectionPool(dsn, min_size=1, reset=reset) as pool:
        with pool.connection() as first:
            pass
        with pool.connection() as second:
            assert second is not first
        assert first.closed


def test_a_message_about_a_return_is_formatted_only_if_it_is_logged(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    with ConnectionPool(dsn, min_size=1) as pool:
        pool.putconn(pool.getconn())
        assert told(caplog) == []
        caplog.set_level(logging.INFO, 'psycopg.pool')
        pool.putconn(pool.getconn())
        assert [text for text in told(caplog) if 'is returned' in text] == [
            f'a connection is returned to {pool.name!r}'
        ]


def test_what_a_reset_leaves_in_its_task_keeps_no_context_of_a_client(dsn: str) -> None:
    seen: list[object] = []
    of_client: ContextVar[object] = ContextVar('of_client', default=None)

    def reset(conn: Any) -> None:
        seen.append(of_client.get())

    with ConnectionPool(dsn, min_size=1, reset=reset) as pool:
        of_client.set(object())
        with pool.connection():
            pass
        until(lambda: bool(seen))
        of_client.set(None)
    assert seen == [None]
