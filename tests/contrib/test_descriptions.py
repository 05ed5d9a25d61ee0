"""What messages show in place of an endpoint that holds a password."""

import sqlite3
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from gcpool._hooks import Hooks
from gcpool.contrib._descriptions import description_of, shown
from gcpool.contrib._errors import look_up, raise_connect_error, raise_connect_timeout, unknown_endpoint
from gcpool.contrib.http import HttpConnectionManager
from gcpool.contrib.sqlite3 import SqliteConnectionManager
from gcpool.exceptions import ConnectError, DiscardConnection, UnknownEndpoint
from gcpool.managers import SyncConnectionManager

SECRET = 's3cret'

HIDDEN = [
    ('postgresql://app:s3cret@db.example:5432/orders?sslmode=require', 'db.example:5432/orders'),
    ('postgresql://app:s3cret@db.example', 'db.example'),
    ('postgresql://app:s3cret@a:1,b:2/orders', 'a:1,b:2/orders'),
    ('postgresql://app:s3cret@[::1]:5432/orders', '[::1]:5432/orders'),
    ('postgresql://db.example/orders?password=s3cret', 'db.example/orders'),
    ('postgresql:///orders?host=/run/pg&port=5433&password=s3cret', '/run/pg:5433/orders'),
    ('postgresql:///?host=db.example&dbname=orders&password=s3cret', 'db.example/orders'),
    ('mysql://app:s3cret@db.example/orders', 'db.example/orders'),
    ('redis://:s3cret@db.example:6379/0', 'db.example:6379/0'),
    ('rediss://db.example?db=2&password=s3cret', 'db.example/2'),
    ('unix://app:s3cret@/run/redis.sock?db=1', '/run/redis.sock/1'),
    # Passwords that are not written as they should be. Where it is uncertain how far one goes, nothing is shown.
    ('postgresql://app:s3cret/s3cret@db.example/orders', 'db.example/orders'),
    ('postgresql://app:s3cret@s3cret@db.example/orders', 'postgresql://***'),
    ('postgresql://app:s3cret?s3cret@db.example/orders', 'postgresql://***'),
    ('postgresql://app:s3cret#s3cret@db.example/orders', 'postgresql://***'),
    ('postgresql://db.example/orders?password=s3cret@s3cret', 'postgresql://***'),
    ('postgresql://?password=s3cret', 'postgresql://***'),
    ('host=db.example port=5432 dbname=orders user=app password=s3cret', 'db.example:5432/orders'),
    ("host = 'db.example'  password = 's3cret with blanks and \\' quotes'", 'db.example'),
    ('host=s3cret@db.example password=x', '***'),
    ('service=orders password=s3cret', '/orders'),
    ('user=app password=s3cret', 'a connection string'),
    ("host=db.example password='s3cret", 'a connection string'),
    ('host=db.example Password = s3cret s3cret', 'a connection string'),
    ('https://app:s3cret@web.example:8443', 'https://web.example:8443'),
    ('HTTP://app:s3cret@s3cret@web.example', 'HTTP://***'),
    ('file:orders.db?mode=memory&key=s3cret&cache=shared', 'file:orders.db?mode=memory&cache=shared'),
    ('file:orders.db?hexkey=s3cret', 'file:orders.db'),
]

SHOWN: list[Any] = [
    *('main', '', 'a=b', 'host:5432', 'orders@host', 'redis://db.example:6379/0', 'http://web.example/?a=b', '/a/b.db'),
    *('C:\\a\\b.db', 'file:orders.db', 'file:orders.db?mode=ro', ':memory:', 'ftp://x'),
    *(5, None, b'postgresql://x', ('db.example', 5432), ('http', 'web.example', 80), frozenset()),
]


@pytest.mark.parametrize(('endpoint', 'text'), HIDDEN)
def test_a_password_is_not_shown(endpoint: str, text: str) -> None:
    assert shown(endpoint) == text
    assert SECRET not in text


@pytest.mark.parametrize('endpoint', SHOWN)
def test_another_endpoint_is_shown_as_it_is(endpoint: Any) -> None:
    assert type(shown(endpoint)) is type(endpoint)
    assert shown(endpoint) == endpoint


@pytest.mark.parametrize('params', [5, None, {}, {'password': SECRET}, {'dsn': 's3cret'}, {'url': 5}])
def test_parameters_that_tell_no_place(params: Any) -> None:
    assert description_of(params) is None


def test_parameters_with_a_connection_string() -> None:
    for name in ('conninfo', 'dsn', 'url'):
        assert description_of({name: HIDDEN[0][0], 'connect_timeout': 5}) == HIDDEN[0][1]


@pytest.mark.parametrize('endpoint', [endpoint for endpoint, _ in HIDDEN])
def test_no_error_of_a_manager_shows_it(endpoint: str) -> None:
    def fail(endpoint: Any) -> Any:
        raise KeyError(endpoint)

    calls: list[Callable[[], object]] = [
        lambda: raise_connect_error(endpoint, OSError('said'), 'advice'),
        lambda: raise_connect_timeout(endpoint, TimeoutError('said'), 1.0),
        lambda: look_up({'main': {}}, endpoint, 'params'),
        lambda: look_up(fail, endpoint, 'params'),
        lambda: look_up({'main': lambda _: {}, endpoint: fail}, endpoint, 'params'),
        lambda: look_up({endpoint: {}}, 'main', 'params'),
    ]
    for call in calls:
        with pytest.raises(ConnectError) as caught:
            call()
        assert SECRET not in str(caught.value)
    assert SECRET not in str(unknown_endpoint('main', 'params', [endpoint]))


@pytest.mark.parametrize(
    ('name', 'endpoint', 'text'),
    [
        ('psycopg.ConnectionManager', *HIDDEN[0]),
        ('psycopg.AsyncConnectionManager', *HIDDEN[0]),
        ('psycopg2.DbConnectionManager', *HIDDEN[0]),
        ('asyncpg.DbConnectionManager', *HIDDEN[0]),
        ('pymysql.DbConnectionManager', *HIDDEN[7]),
        ('asyncmy.DbConnectionManager', *HIDDEN[7]),
        ('redis.RedisConnectionManager', *HIDDEN[8]),
        ('redis.AsyncRedisConnectionManager', *HIDDEN[8]),
    ],
)
def test_managers_say_what_to_show(name: str, endpoint: str, text: str) -> None:
    module, _, kind = name.partition('.')
    contrib = pytest.importorskip(f'gcpool.contrib.{module}', exc_type=ImportError)
    manager = getattr(contrib, kind)(lambda endpoint: endpoint)
    assert manager.describe_endpoint(endpoint) == text
    assert manager.describe_endpoint('main') == 'main'


def test_other_managers_say_what_to_show() -> None:
    http, sqlite = HttpConnectionManager(), SqliteConnectionManager()
    assert http.describe_endpoint('https://app:s3cret@web.example') == 'https://web.example'
    assert http.describe_endpoint(('https', 'web.example', 443)) == ('https', 'web.example', 443)
    assert sqlite.describe_endpoint('file:orders.db?key=s3cret') == 'file:orders.db'
    for manager in (http, sqlite):
        assert Hooks(manager, SyncConnectionManager).describe == manager.describe_endpoint


@pytest.mark.parametrize(('describe', 'text'), [(lambda _: 'the orders', "'the orders'"), (None, '<an endpoint of')])
def test_a_manager_logs_what_its_subclass_shows(
    describe: Callable[[Any], str] | None, text: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Describing(SqliteConnectionManager):
        def describe_endpoint(self, endpoint: Any) -> object:
            if describe is None:
                raise ValueError(endpoint)
            return describe(endpoint)

    def fail(conn: object) -> None:
        raise sqlite3.OperationalError('disk I/O error')

    manager = Describing()
    monkeypatch.setattr('gcpool.contrib.sqlite3.roll_back', fail)
    conn = manager.create(':memory:')
    conn.execute('CREATE TABLE t (n)')
    conn.execute('INSERT INTO t VALUES (1)')
    for expected in ('cannot be rolled back', 'is closed'):
        with pytest.raises(DiscardConnection, match=expected) as caught:
            manager.on_release(':memory:', conn)
        assert text in str(caught.value)
    [record] = caplog.records
    assert record.getMessage().startswith(f'closing a connection to {text}')
    assert ':memory:' not in caplog.text


def test_an_endpoint_that_is_a_connection_string_of_a_server_that_is_down() -> None:
    psycopg = pytest.importorskip('gcpool.contrib.psycopg', exc_type=ImportError)
    manager = psycopg.ConnectionManager(lambda dsn: dsn)
    # Not in the lines that a traceback shows.
    dsn = 'postgresql://app:s3cret@127.0.0.1:1/orders'
    with pytest.raises(ConnectError, match=r"endpoint '127\.0\.0\.1:1/orders'") as caught:
        manager.create(dsn)
    assert SECRET not in ''.join(traceback.format_exception(caught.value))
    with pytest.raises(UnknownEndpoint, match=r"'db\.example:5432/orders' is not in conninfo") as unknown:
        psycopg.ConnectionManager({'main': ''}).create(HIDDEN[0][0])
    assert SECRET not in ''.join(traceback.format_exception(unknown.value))
