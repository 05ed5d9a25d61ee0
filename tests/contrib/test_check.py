"""``python -m gcpool check``, with real servers."""

import http.server
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import gcpool.__main__ as cli
from gcpool.contrib import sqlite3
from gcpool.threading import ConnectionPool
from tests.contrib.mariadb import MariadbServer
from tests.contrib.redis_server import RedisServer
from tests.contrib.servers import EchoServer, PostgresServer, tcp_listener


def said(capsys: pytest.CaptureFixture[str], code: int, *arguments: str) -> str:
    """Run a check that ends with this exit code. Returns what it prints."""
    assert cli.main(['check', *arguments]) == code
    printed = capsys.readouterr()
    assert printed.err == ''
    return printed.out


def test_without_a_command_the_commands_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    printed = capsys.readouterr().out
    for command in ('demo', 'check', 'top', 'holders', 'plot'):
        assert f'\n    {command} ' in printed


@pytest.mark.parametrize(
    ('url', 'meant'),
    [
        ('localhost:5432', 'such as postgresql://localhost:5432\n'),
        ('localhost:4711', 'such as tcp://localhost:4711\n'),
        ('host', 'such as postgresql://user:password@host:5432/database, redis'),
        ('postgrs://db/shop', "unknown scheme 'postgrs': did you mean postgres://"),
        ('quux://db/shop', "unknown scheme 'quux': expected one of postgresql, "),
        ('tcp://host', 'the URL has no port: expected tcp://host:port'),
        ('redis://', 'the URL has no host'),
        ('sqlite:///no/such/file', "there is no file 'no/such/file'"),
        ('sqlite:///', 'the URL has no path'),
        ('postgresql://a,b:5433/shop', 'several hosts: expected one'),
        (
            'postgresql:///shop',
            'the URL has no host: expected postgresql://user:password@host:5432/database, or ',
        ),
        ('mysql://db/shop?ssl_cert_file=x', "unknown parameter 'ssl_cert_file': did you mean 'ssl_cert'?"),
        ('mysql://db/shop?quux=x', "unknown parameter 'quux': expected one of 'charset', "),
        ('redis://db/shop', "'shop' is not the number of a database: expected redis://host:6379/0"),
    ],
)
def test_what_is_no_url_is_answered_with_one(capsys: pytest.CaptureFixture[str], url: str, meant: str) -> None:
    assert meant in said(capsys, 2, url)


@pytest.mark.parametrize(
    'url',
    [
        'postgresql://me:se:cret@db:x/shop',
        'me:secret@db',
        'posgres://me:secret@db',
        # The characters that end the password where it is not percent-encoded.
        'me:x://secret@db',
        'postgresql://me:1/secret@db/shop',
        'postgresql://me:x@y/secret@db/shop',
        'postgresql://me:?secret@db/shop',
        'postgresql://me:1#secret@db/shop',
        'mysql://me:1/secret@db/shop',
        'mysql://me:x?secret@db/shop',
        'redis://:1/secret@db/0',
        'https://me:1/secret@db/',
        'tcp://me:1/secret@db:80',
        # Where no password belongs.
        'sqlite://me:secret@db/shop',
        'unix://me:secret@/shop',
        'mysql://db/shop?charset=latin1&pass=secret',
        # Two arguments of a shell.
        'postgresql://me:pa secret@db/shop',
    ],
)
def test_a_password_in_a_url_that_cannot_be_read_is_not_shown(capsys: pytest.CaptureFixture[str], url: str) -> None:
    assert 'secret' not in said(capsys, 2, *url.split())


def test_a_password_in_the_parameters_of_a_url_is_not_shown(
    capsys: pytest.CaptureFixture[str], postgres: PostgresServer
) -> None:
    pytest.importorskip('psycopg')
    url = f'postgresql://postgres@127.0.0.1:{postgres.port}/postgres'
    # libpq quotes what it does not understand.
    for query in ('password=se%cret', 'sslpassword=secret%zz', 'pwd=secret', 'password=a%20secret&sslmode=secret%zz'):
        assert 'cret' not in said(capsys, 1, f'{url}?{query}')


def test_a_short_password_leaves_the_words_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip('redis')
    with tcp_listener() as listener:
        port = listener.getsockname()[1]
    printed = said(capsys, 1, f'redis://:on@127.0.0.1:{port}')
    assert f'nothing listens on port {port}: check the port' in printed


def test_a_missing_driver_is_named_with_its_extra(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ('pymysql', 'gcpool.contrib.pymysql'):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, 'pymysql', None)
    assert 'pip install "gcpool[pymysql]"' in said(capsys, 2, 'mysql://me:secret@127.0.0.1/shop')


def test_sqlite(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / 'shop.db'
    with ConnectionPool(sqlite3.SqliteConnectionManager()) as pool, pool.connection(str(path)) as conn:
        conn.execute('CREATE TABLE numbers (n)')
    assert 'a round trip' in said(capsys, 0, f'sqlite:///{path}')
    assert 'a round trip' in said(capsys, 0, 'sqlite:///:memory:')
    (tmp_path / 'none.db').write_bytes(b'no database' * 1000)
    assert 'FAILED  ping      file is not a database' in said(capsys, 1, f'sqlite:///{tmp_path}/none.db')


def test_tcp(capsys: pytest.CaptureFixture[str], tcp4_server: EchoServer) -> None:
    printed = said(capsys, 0, f'tcp://127.0.0.1:{tcp4_server.port}')
    assert 'ok      resolves' in printed
    assert 'ok      connects' in printed


def test_tls_of_a_server_that_nobody_vouches_for(capsys: pytest.CaptureFixture[str], tls_server: EchoServer) -> None:
    printed = said(capsys, 1, f'tls://localhost:{tls_server.port}')
    assert 'ok      connects' in printed
    assert 'certificate' in printed.partition('FAILED  opens')[2]


def test_a_unix_socket(capsys: pytest.CaptureFixture[str], unix_server: EchoServer) -> None:
    path = unix_server.listener.getsockname()
    assert 'ok      opens' in said(capsys, 0, f'unix://{path}')
    assert 'it does not exist' in said(capsys, 1, f'unix://{path}.none')


class Answering(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def do_HEAD(self) -> None:
        self.send_response(404)
        self.send_header('Content-Length', '0')
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@contextmanager
def web_server() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_http(capsys: pytest.CaptureFixture[str]) -> None:
    with web_server() as port:
        assert 'a round trip' in said(capsys, 0, f'http://127.0.0.1:{port}/health')


def test_a_name_that_does_not_resolve(capsys: pytest.CaptureFixture[str]) -> None:
    printed = said(capsys, 1, 'tcp://no-such-host.invalid:80', '--timeout', '20')
    assert "FAILED  resolves  the name 'no-such-host.invalid' is not known here" in printed


def test_a_port_at_which_nothing_listens(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip('redis')
    with tcp_listener() as listener:
        port = listener.getsockname()[1]
    printed = said(capsys, 1, f'redis://:secret@127.0.0.1:{port}')
    assert f'FAILED  connects  nothing listens on port {port}' in printed
    assert 'secret' not in printed


@pytest.mark.parametrize(
    ('scheme', 'driver'),
    [('postgresql', 'psycopg'), ('mysql', 'pymysql'), ('redis', 'redis'), ('http', 'http'), ('tls', 'ssl')],
)
def test_a_server_that_accepts_and_never_answers(
    capsys: pytest.CaptureFixture[str], silent_listener: socket.socket, scheme: str, driver: str
) -> None:
    pytest.importorskip(driver)
    port = silent_listener.getsockname()[1]
    printed = said(capsys, 1, f'{scheme}://me:secret@127.0.0.1:{port}/0', '--timeout', '0.3')
    assert 'ok      connects' in printed
    assert 'FAILED' in printed.splitlines()[-1]
    assert 'secret' not in printed


def test_postgres(capsys: pytest.CaptureFixture[str], postgres: PostgresServer) -> None:
    pytest.importorskip('psycopg')
    printed = said(capsys, 0, postgres.dsn)
    assert 'a round trip' in printed
    assert 'max_connections=40, 3 reserved' in printed
    assert f'Checking postgresql://127.0.0.1:{postgres.port}/postgres\n' in printed
    assert postgres.password not in printed


def test_the_limits_of_a_role_and_a_database(capsys: pytest.CaptureFixture[str], postgres: PostgresServer) -> None:
    psycopg = pytest.importorskip('psycopg')
    url = f'postgresql://narrow:hidden@127.0.0.1:{postgres.port}/'
    with psycopg.connect(postgres.dsn, autocommit=True) as conn:
        conn.execute("CREATE ROLE narrow LOGIN PASSWORD 'hidden' CONNECTION LIMIT 7")
        conn.execute('CREATE DATABASE narrow CONNECTION LIMIT 3')
        try:
            printed = said(capsys, 0, f'{url}postgres')
            assert 'CONNECTION LIMIT=7 of the role, 0 used by others: there is room for 7, so max_size' in printed
            printed = said(capsys, 0, f'{url}narrow')
            assert 'CONNECTION LIMIT=3 of the database, 0 used by others: there is room for 3, so max_size' in printed
        finally:
            conn.execute('DROP DATABASE narrow')
            conn.execute('DROP ROLE narrow')


def test_postgres_at_a_unix_socket(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip('psycopg')
    printed = said(capsys, 1, f'postgresql://me:secret@/shop?host={tmp_path}&port=4711')
    assert 'resolves' not in printed
    assert f'{tmp_path}/.s.PGSQL.4711' in printed.partition('FAILED  opens')[2]
    assert 'secret' not in printed


def test_a_wrong_password_or_database_of_postgres(capsys: pytest.CaptureFixture[str], postgres: PostgresServer) -> None:
    pytest.importorskip('psycopg')
    printed = said(capsys, 1, postgres.dsn.replace(postgres.password, 'hidden'))
    assert 'password authentication failed' in printed.partition('FAILED  opens')[2]
    assert 'hidden' not in printed
    printed = said(capsys, 1, f'{postgres.dsn}-none')
    assert 'does not exist' in printed.partition('FAILED  opens')[2]


def test_mysql(capsys: pytest.CaptureFixture[str], mariadb: MariadbServer) -> None:
    pytest.importorskip('pymysql')
    params = mariadb.params
    place = f'127.0.0.1:{params["port"]}'
    url = f'mysql://{params["user"]}:{params["password"]}@{place}/{mariadb.database}'
    printed = said(capsys, 0, url)
    assert 'a round trip' in printed
    assert 'max_connections=' in printed
    assert str(params['password']) not in printed
    printed = said(capsys, 1, f'mysql://{params["user"]}:hidden@{place}/{mariadb.database}')
    assert 'Access denied' in printed.partition('FAILED  opens')[2]
    assert 'hidden' not in printed
    assert 'check the name of the database' in said(capsys, 1, f'{url}-none').partition('FAILED  opens')[2]
    assert 'a round trip' in said(capsys, 0, f'{url}?charset=latin1')
    assert 'No such file' in said(capsys, 1, f'{url}?ssl_ca=/no-such-file').partition('FAILED  opens')[2]


def test_redis(capsys: pytest.CaptureFixture[str], redis_server: RedisServer) -> None:
    pytest.importorskip('redis')
    printed = said(capsys, 0, redis_server.url)
    assert 'a round trip' in printed
    assert 'maxclients=' in printed
