# redis-py has type hints for half of its methods.
# mypy: allow-untyped-calls
"""The managers of redis-py's connections, alone and in pools, against private Redis servers."""

import asyncio
import contextlib
import importlib
import os
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trustme

import gcpool.asyncio
import gcpool.threading
from gcpool.contrib._sockets import poll_once
from gcpool.exceptions import ConnectError, ConnectTimeout, DiscardConnection, UnknownEndpoint
from tests.contrib.asking import ask, ask_async
from tests.contrib.conftest import Run
from tests.contrib.redis_server import RedisServer, running_redis
from tests.contrib.servers import (
    PATIENCE,
    closed_port,
    resolver_without_answer,
    tcp_listener,
    wait_for_end,
    wait_readable,
)
from tests.threads.runtime import until

redis = pytest.importorskip('redis')

from redis.backoff import NoBackoff  # noqa: E402

from gcpool.contrib.redis import (  # noqa: E402
    AsyncConnection,
    AsyncRedisConnectionManager,
    Connection,
    RedisConnectionManager,
    async_client_of,
    client_of,
)

ResultT = TypeVar('ResultT')


@pytest.fixture(scope='module')
def guarded_server() -> Iterator[RedisServer]:
    """A server that requires a password and accepts few clients."""
    with running_redis(password='not-a-secret', maxclients=5) as server:
        yield server


@pytest.fixture
def manager(redis_server: RedisServer) -> RedisConnectionManager:
    return RedisConnectionManager({'db': redis_server.url})


@pytest.fixture
def conn(manager: RedisConnectionManager) -> Iterator[Connection]:
    conn = manager.create('db')
    yield conn
    manager.dispose('db', conn)


@pytest.fixture
def async_manager(redis_server: RedisServer) -> AsyncRedisConnectionManager:
    return AsyncRedisConnectionManager({'db': redis_server.url})


@pytest.fixture
def run_with_conn(run: Run, async_manager: AsyncRedisConnectionManager) -> Callable[..., Any]:
    """Runs a coroutine function with a connection for asyncio."""

    def run_with_conn(main: Callable[[AsyncConnection], Coroutine[Any, Any, ResultT]]) -> ResultT:
        async def with_conn() -> ResultT:
            conn = await async_manager.create('db')
            try:
                return await main(conn)
            finally:
                await async_manager.dispose('db', conn)

        return run(with_conn)

    return run_with_conn


def client_id(conn: Connection) -> int:
    return int(ask(conn, 'CLIENT', 'ID'))


def fd_of(conn: Connection | AsyncConnection) -> int:
    if isinstance(conn, Connection):
        sock = conn._get_socket()
        assert sock is not None
        return sock.fileno()
    assert conn._writer is not None
    return int(conn._writer.get_extra_info('socket').fileno())


def any_client(conn: Connection) -> Any:
    """The client, whose type hints do not distinguish synchronous methods."""
    return client_of(conn)


def any_async_client(conn: AsyncConnection) -> Any:
    return async_client_of(conn)


async def until_eof(conn: AsyncConnection) -> None:
    """Wait until the event loop has seen the connection's end."""
    while conn._reader is not None and not conn._reader.at_eof():  # noqa: ASYNC110  (nothing tells)
        await asyncio.sleep(0)


def test_says_that_redis_py_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis, '__version__', '7.4.1')
    monkeypatch.delitem(sys.modules, 'gcpool.contrib.redis')
    with pytest.raises(ImportError, match=r'needs redis >= 8, but 7\.4\.1 is installed: pip install --upgrade "gcp'):
        importlib.import_module('gcpool.contrib.redis')


class TestCreate:
    @pytest.mark.parametrize('timeout', [None, 20.0])
    @pytest.mark.parametrize('protocol', [2, 3])
    def test_from_a_url(self, redis_server: RedisServer, timeout: float | None, protocol: int) -> None:
        url = f'redis://{redis_server.host}:{redis_server.port}/3?client_name=of-the-test&protocol={protocol}'
        manager = RedisConnectionManager({'db': url})
        conn = manager.create('db', timeout)
        info = ask(conn, 'CLIENT', 'INFO')
        assert b'name=of-the-test' in info
        assert b' db=3 ' in info
        assert f'resp={protocol}'.encode() in info
        assert manager.check_aliveness('db', conn)
        manager.dispose('db', conn)
        assert not conn.is_connected

    def test_from_parameters(self, redis_server: RedisServer) -> None:
        manager = RedisConnectionManager(
            {
                'tcp': {'host': redis_server.host, 'port': redis_server.port, 'db': 2},
                'url': {'url': redis_server.url, 'client_name': 'of-the-test'},
                'path': {'path': redis_server.socket_path},
                'socket': {'unix_socket_path': str(redis_server.socket_path)},
                'class': {'connection_class': redis.UnixDomainSocketConnection, 'path': str(redis_server.socket_path)},
                'unix': f'unix://{redis_server.socket_path}?db=1',
            }
        )
        expected = {'tcp': b' db=2 ', 'url': b' name=of-the-test ', 'unix': b' db=1 '}
        for endpoint in ('tcp', 'url', 'path', 'socket', 'class', 'unix'):
            conn = manager.create(endpoint, 20.0)
            info = ask(conn, 'CLIENT', 'INFO')
            assert expected.get(endpoint, b'/redis.sock:0 ') in info
            manager.dispose(endpoint, conn)

    def test_asks_a_function_at_each_connect(self, guarded_server: RedisServer) -> None:
        passwords = iter(['wrong', guarded_server.password])

        def parameters(endpoint: str) -> dict[str, Any]:
            assert endpoint == 'db'
            return {'url': f'redis://{guarded_server.host}:{guarded_server.port}', 'password': next(passwords)}

        manager = RedisConnectionManager(parameters)
        with pytest.raises(redis.AuthenticationError):
            manager.create('db', 20.0)
        conn = manager.create('db', 20.0)
        assert ask(conn, 'PING') == b'PONG'
        manager.dispose('db', conn)
        guarded_server.wait_for_clients(0)

    def test_async(self, redis_server: RedisServer, run: Run) -> None:
        async def parameters(endpoint: str) -> Any:
            await asyncio.sleep(0)
            return {'url': redis_server.url, 'client_name': endpoint}

        async def main() -> None:
            of_function = AsyncRedisConnectionManager(parameters)
            of_unix = AsyncRedisConnectionManager({'name': {'path': redis_server.socket_path, 'client_name': 'name'}})
            for manager in (of_function, of_unix):
                conn = await manager.create('name')
                assert b' name=name ' in await ask_async(conn, 'CLIENT', 'INFO')
                assert await manager.check_aliveness('name', conn)
                await manager.on_release('name', conn)
                await manager.dispose('name', conn)
                assert not conn.is_connected

        run(main)

    def test_keeps_the_configured_timeout(self, redis_server: RedisServer) -> None:
        manager = RedisConnectionManager({'db': {'url': redis_server.url, 'socket_timeout': 33.0}})
        conn = manager.create('db', 20.0)
        for _ in range(2):
            assert conn.socket_timeout == 33.0
            sock = conn._get_socket()
            assert sock is not None
            assert sock.gettimeout() == 33.0
            assert manager.check_aliveness('db', conn, 5.0)
        manager.dispose('db', conn)

    def test_sets_the_options_that_redis_py_sets(self, redis_server: RedisServer) -> None:
        address = {'host': redis_server.host, 'port': redis_server.port}
        for params in (address, {**address, 'socket_keepalive': False}):
            theirs = redis.Connection(**params)
            theirs.connect()
            manager = RedisConnectionManager({'db': params})
            ours = manager.create('db', 20.0)
            found = []
            for conn in (theirs, ours):
                sock = conn._get_socket()
                assert sock is not None
                names = ('TCP_NODELAY', 'TCP_KEEPIDLE', 'TCP_KEEPINTVL', 'TCP_KEEPCNT')
                options = [(socket.IPPROTO_TCP, getattr(socket, name)) for name in names if hasattr(socket, name)]
                options.append((socket.SOL_SOCKET, socket.SO_KEEPALIVE))
                found.append([sock.getsockopt(*option) for option in options] + [sock.gettimeout()])
            assert found[0] == found[1]
            theirs.disconnect()
            manager.dispose('db', ours)

    def test_a_class_of_the_user_s_own(self, redis_server: RedisServer) -> None:
        connected = []

        class Own(redis.Connection):  # type: ignore[name-defined,misc]
            def _connect(self) -> Any:
                sock = super()._connect()
                connected.append(sock)
                return sock

        address = {'host': redis_server.host, 'port': redis_server.port}
        manager = RedisConnectionManager({'db': {**address, 'connection_class': Own}})
        conn = manager.create('db', 20.0)
        assert isinstance(conn, Own)
        assert connected == [conn._get_socket()]
        manager.dispose('db', conn)

    @pytest.mark.skipif(not hasattr(ssl, 'HAS_TLSv1_3'), reason='Python has no TLS')
    def test_tls(self, authority: trustme.CA, tmp_path: Path, run: Run) -> None:
        certificate = authority.issue_cert('localhost', '127.0.0.1')
        certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / 'server.pem')
        authority.cert_pem.write_to_path(tmp_path / 'ca.pem')
        pem = str(tmp_path / 'server.pem')
        options = ['--tls-cert-file', pem, '--tls-key-file', pem, '--tls-ca-cert-file', str(tmp_path / 'ca.pem')]
        with running_redis(*options, '--tls-auth-clients', 'no', tls=True) as server:
            url = f'rediss://127.0.0.1:{server.tls_port}'
            params = {'ok': f'{url}?ssl_ca_certs={tmp_path / "ca.pem"}', 'stranger': url}
            manager = RedisConnectionManager(params)
            conn = manager.create('ok', 20.0)
            for _ in range(3):
                assert ask(conn, 'PING') == b'PONG'
                assert manager.check_aliveness('ok', conn)
            with pytest.raises(ConnectError, match='its certificate is trusted') as caught:
                manager.create('stranger', 20.0)
            assert isinstance(caught.value, redis.ConnectionError)
            server.kill_clients()
            wait_readable(fd_of(conn))
            assert not manager.check_aliveness('ok', conn)
            manager.dispose('ok', conn)
            dispose_while_another_thread_sends(manager, manager.create('ok', 20.0))

            async def main() -> None:
                manager = AsyncRedisConnectionManager(params)
                conn = await manager.create('ok')
                for _ in range(3):
                    assert await ask_async(conn, 'PING') == b'PONG'
                    assert await manager.check_aliveness('ok', conn)
                with pytest.raises(ConnectError, match='its certificate is trusted'):
                    await manager.create('stranger')
                server.kill_clients()
                wait_readable(fd_of(conn))
                await until_eof(conn)
                assert not await manager.check_aliveness('ok', conn)
                await manager.dispose('ok', conn)

            run(main)
            server.wait_for_clients(0)


class TestErrors:
    def create(self, run: Run, params: Any, endpoint: str = 'db') -> list[Exception]:
        """What both managers raise."""
        return [
            self.create_one(run, RedisConnectionManager, params, endpoint),
            self.create_one(run, AsyncRedisConnectionManager, params, endpoint),
        ]

    def create_one(self, run: Run, kind: Any, params: Any, endpoint: str = 'db') -> Exception:
        async def main() -> Exception:
            with pytest.raises(Exception) as caught:
                await kind(params).create(endpoint)
            return caught.value

        if kind is AsyncRedisConnectionManager:
            return run(main)
        with pytest.raises(Exception) as caught:
            kind(params).create(endpoint, 20.0)
        return caught.value

    def test_unknown_endpoint(self, run: Run) -> None:
        for exc in self.create(run, {'db': 'redis://:not-a-secret@localhost'}, 'none'):
            assert isinstance(exc, UnknownEndpoint)
            assert str(exc) == (
                "endpoint 'none' is not in endpoints, which has ['db']; add it, or ask for one of those"
            )

        def parameters(endpoint: str) -> str:
            return {'db': 'redis://localhost'}[endpoint]

        for exc in self.create(run, parameters, 'none'):
            assert isinstance(exc, UnknownEndpoint)
            assert "'none' is not known to the callable in endpoints" in str(exc)

    def test_unknown_to_a_coroutine_function(self, run: Run) -> None:
        async def parameters(endpoint: str) -> str:
            await asyncio.sleep(0)
            return {'db': 'redis://localhost'}[endpoint]

        async def main() -> None:
            for source in (parameters, {'none': parameters}):
                with pytest.raises(UnknownEndpoint, match="'none' is not known to the callable in endpoints"):
                    await AsyncRedisConnectionManager(source).create('none')

        run(main)
        with pytest.raises(ConnectError, match='only the managers for asyncio') as caught:
            RedisConnectionManager(parameters).create('db')  # type: ignore[arg-type]
        assert isinstance(caught.value, TypeError)

    @pytest.mark.parametrize('endpoints', [None, b'redis://:not-a-secret@localhost', [('db', 'redis://localhost')], 5])
    def test_endpoints_that_are_none(self, endpoints: Any) -> None:
        for kind in (RedisConnectionManager, AsyncRedisConnectionManager):
            with pytest.raises(TypeError, match='endpoints: expected a mapping') as caught:
                kind(endpoints)
            assert 'secret' not in str(caught.value)

    def test_wrong_password(self, guarded_server: RedisServer, run: Run) -> None:
        url = f'redis://:another@{guarded_server.host}:{guarded_server.port}'
        for params in (url, f'{url}?protocol=2', url.replace(':another@', '')):
            for exc in self.create(run, {'db': params}):
                assert isinstance(exc, ConnectError)
                assert isinstance(exc, redis.AuthenticationError)
                assert isinstance(exc.__cause__, redis.AuthenticationError)
                assert "endpoint 'db'" in str(exc)
                assert 'check user name and password' in str(exc)
                assert 'another' not in f'{exc!r}{exc}'
        guarded_server.wait_for_clients(0)

    def test_host_that_does_not_resolve(self, run: Run) -> None:
        for exc in self.create(run, {'db': 'redis://no-such-host.invalid'}):
            assert isinstance(exc, ConnectError)
            assert isinstance(exc, redis.ConnectionError)
            assert 'does not resolve' in str(exc)

    def test_refused(self, run: Run) -> None:
        with closed_port() as port:
            for exc in self.create(run, {'db': {'host': '127.0.0.1', 'port': port}}):
                assert isinstance(exc, ConnectError)
                assert isinstance(exc, redis.ConnectionError)
                assert 'check that the server is running' in str(exc)

    def test_too_many_clients(self, guarded_server: RedisServer, run: Run) -> None:
        manager = RedisConnectionManager({'db': guarded_server.url})
        conns = [manager.create('db') for _ in range(5)]
        try:
            for exc in self.create(run, {'db': guarded_server.url}):
                assert isinstance(exc, ConnectError)
                assert isinstance(exc, redis.ConnectionError)
                assert 'raise maxclients' in str(exc)
        finally:
            for conn in conns:
                manager.dispose('db', conn)
        guarded_server.wait_for_clients(0)

    def test_database_that_does_not_exist(self, redis_server: RedisServer, run: Run) -> None:
        for exc in self.create(run, {'db': f'redis://{redis_server.host}:{redis_server.port}/99'}):
            assert isinstance(exc, ConnectError)
            assert isinstance(exc, redis.ResponseError)
            assert 'check the number of the database' in str(exc)
        redis_server.wait_for_clients(0)

    @pytest.mark.parametrize('url', ['http://:not-a-secret@localhost', 'redis://:not-a-secret#x@localhost'])
    def test_a_url_that_is_none(self, run: Run, url: str) -> None:
        for exc in self.create(run, {'db': url}):
            assert isinstance(exc, ConnectError)
            assert "the URL of endpoint 'db'" in str(exc)
            assert 'secret' not in f'{exc!r}{exc}{exc.__cause__}'

    @pytest.mark.parametrize('params', [6379, None, [('host', 'localhost')], {1: 2}, b'redis://localhost', {'url': 5}])
    def test_parameters_that_are_none(self, run: Run, params: Any) -> None:
        for source in ({'db': params}, lambda _: params, {'db': lambda _: params}):
            for exc in self.create(run, source):
                assert isinstance(exc, ConnectError)
                assert isinstance(exc, TypeError)
                assert "endpoint 'db'" in str(exc)
                assert 'check its entry in endpoints' in str(exc)

    @pytest.mark.parametrize(
        ('name', 'value'),
        [
            ('socket_timeout', 'x'),
            ('socket_timeout', -1),
            ('socket_timeout', 0),
            ('socket_timeout', float('nan')),
            ('socket_connect_timeout', True),
            ('socket_connect_timeout', float('inf')),
            ('retry', 5),
            ('credential_provider', 5),
            ('connection_class', 5),
            ('connection_class', dict),
            ('encoding', 'bogus'),
        ],
    )
    def test_a_parameter_that_redis_py_cannot_use(
        self, redis_server: RedisServer, run: Run, open_descriptors: Callable[[], int], name: str, value: Any
    ) -> None:
        async def connect() -> None:
            manager = AsyncRedisConnectionManager({'db': redis_server.url})
            await manager.dispose('db', await manager.create('db'))

        # What an event loop opens at its first use it keeps.
        run(connect)
        before = open_descriptors()
        for exc in self.create(run, {'db': {'url': redis_server.url, 'client_name': 'x', name: value}}):
            assert isinstance(exc, ConnectError)
            assert isinstance(exc, (TypeError, ValueError, LookupError))
            assert "endpoint 'db'" in str(exc)
            assert name in str(exc)
            assert 'check its entry in endpoints' in str(exc)
        # The tracebacks of the exceptions still refer to the connections.
        redis_server.wait_for_clients(0)
        assert open_descriptors() == before

    def test_parameters_for_the_other_runtime(self, redis_server: RedisServer, run: Run) -> None:
        for kind, module in ((RedisConnectionManager, redis.asyncio), (AsyncRedisConnectionManager, redis)):
            parameters = {'connection_class': module.Connection, 'retry': module.retry.Retry(NoBackoff(), 1)}
            for name, value in parameters.items():
                # A missing await is a warning, which is an error here.
                exc = self.create_one(run, kind, {'db': {'url': redis_server.url, name: value}})
                assert isinstance(exc, ConnectError)
                assert isinstance(exc, TypeError)
                assert name in str(exc)
        redis_server.wait_for_clients(0)

    @pytest.mark.parametrize(
        ('kind', 'module'), [(RedisConnectionManager, redis), (AsyncRedisConnectionManager, redis.asyncio)]
    )
    def test_connecting_is_tried_once(self, run: Run, kind: Any, module: Any) -> None:
        """Its ``retry`` is for commands."""
        attempts = []

        class Failing(module.Connection):  # type: ignore[misc]
            def _connect(self) -> Any:
                attempts.append(self)
                # redis-py would retry this.
                raise redis.TimeoutError('of the test')

        params = {'host': '127.0.0.1', 'connection_class': Failing, 'retry': module.retry.Retry(NoBackoff(), 5)}
        assert isinstance(self.create_one(run, kind, {'db': params}), ConnectError)
        assert len(attempts) == 1

    @pytest.mark.parametrize('close_timeout', [None, float('inf')])
    def test_a_close_timeout_without_an_end(
        self, redis_server: RedisServer, run: Run, close_timeout: float | None
    ) -> None:
        async def main() -> None:
            manager = AsyncRedisConnectionManager({'db': redis_server.url}, close_timeout=close_timeout)
            await manager.dispose('db', await manager.create('db'))

        run(main)
        redis_server.wait_for_clients(0)

    def test_a_server_of_another_kind(self, run: Run) -> None:
        with tcp_listener() as listener:

            def answer() -> None:
                for _ in range(2):
                    with listener.accept()[0] as conn:
                        conn.sendall(b'220 mail.example.com ESMTP\r\n')
                        wait_for_end(conn)

            thread = threading.Thread(target=answer, daemon=True)
            thread.start()
            for exc in self.create(run, {'db': {'host': '127.0.0.1', 'port': listener.getsockname()[1]}}):
                assert isinstance(exc, ConnectError)
                assert isinstance(exc, redis.RedisError)
                assert 'a Redis server listens there' in str(exc)
            thread.join(PATIENCE)
            assert not thread.is_alive()

    def test_times_out(self, silent_listener: socket.socket) -> None:
        host, port = silent_listener.getsockname()
        params = {'host': host, 'port': port, 'password': 'not-a-secret', 'socket_timeout': 2 * PATIENCE}
        manager = RedisConnectionManager({'db': params})
        began = time.monotonic()
        with pytest.raises(ConnectTimeout, match=r"endpoint 'db' could be made within 0\.2 s") as caught:
            manager.create('db', 0.2)
        # Much less than redis-py's own limit.
        assert time.monotonic() - began < PATIENCE
        assert isinstance(caught.value.__cause__, redis.TimeoutError)
        assert 'not-a-secret' not in f'{caught.value} {caught.value.__cause__}'
        with silent_listener.accept()[0] as conn:
            wait_for_end(conn)

    @pytest.mark.parametrize('tls', [True, False])
    def test_does_not_wait_for_the_resolver(self, tls: bool) -> None:
        params = {'port': 1, 'ssl': tls, 'socket_connect_timeout': 2 * PATIENCE}
        with resolver_without_answer() as host:
            pool = gcpool.threading.ConnectionPool[Any, Connection](
                RedisConnectionManager({'db': {**params, 'host': host}})
            )
            with pytest.raises(ConnectTimeout, match=r"endpoint 'db' could be made within 0\.0") as caught:
                pool.acquire('db', timeout=0.05)
            pool.close()
        assert isinstance(caught.value.__cause__, redis.TimeoutError)

    def test_no_step_of_the_handshake_has_the_whole_time(self) -> None:
        with tcp_listener() as listener:

            def answer() -> None:
                with listener.accept()[0] as conn:
                    while conn.recv(1000):
                        if ended.wait(0.15):
                            return
                        conn.sendall(b'+OK\r\n')

            ended = threading.Event()
            thread = threading.Thread(target=answer, daemon=True)
            thread.start()
            host, port = listener.getsockname()
            manager = RedisConnectionManager({'db': f'redis://{host}:{port}/1?protocol=2&client_name=x'})
            # Four replies: CLIENT SETNAME, SETINFO twice, SELECT.
            with pytest.raises(ConnectTimeout):
                manager.create('db', 0.4)
            ended.set()
            thread.join(PATIENCE)
            assert not thread.is_alive()

    @pytest.mark.parametrize('tls', [True, False])
    def test_a_reply_that_comes_byte_by_byte(
        self, authority: trustme.CA, server_tls: ssl.SSLContext, tmp_path: Path, tls: bool
    ) -> None:
        authority.cert_pem.write_to_path(tmp_path / 'ca.pem')
        params: dict[str, Any] = {'host': 'localhost', 'db': 1, 'protocol': 2, 'driver_info': None}
        if tls:
            params.update(ssl=True, ssl_ca_certs=str(tmp_path / 'ca.pem'))
        with trickling(server_tls if tls else None) as port:
            manager = RedisConnectionManager({'db': {**params, 'port': port}})
            began = time.monotonic()
            with pytest.raises(ConnectTimeout) as caught:
                manager.create('db', 0.5)
            assert time.monotonic() - began < PATIENCE / 2
        assert isinstance(caught.value.__cause__, redis.TimeoutError)

    def test_time_limit_of_redis_py(self, silent_listener: socket.socket, run: Run) -> None:
        host, port = silent_listener.getsockname()
        for exc in self.create(run, {'db': {'host': host, 'port': port, 'socket_timeout': 0.05}}):
            assert isinstance(exc, ConnectTimeout)
            with silent_listener.accept()[0] as conn:
                wait_for_end(conn)

    def test_cancelled(self, silent_listener: socket.socket, run: Run) -> None:
        host, port = silent_listener.getsockname()

        async def main() -> None:
            manager = AsyncRedisConnectionManager({'db': {'host': host, 'port': port}})
            task = asyncio.ensure_future(manager.create('db'))
            loop = asyncio.get_running_loop()
            conn, _ = await loop.run_in_executor(None, silent_listener.accept)
            with conn:
                # It is in the middle of the handshake.
                conn.settimeout(PATIENCE)
                assert await loop.run_in_executor(None, conn.recv, 1000)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await loop.run_in_executor(None, wait_for_end, conn)

        run(main)


def dispose_while_another_thread_sends(manager: RedisConnectionManager, conn: Any) -> None:
    """What it sends must not go out in plaintext once its socket has lost its encryption."""
    refused = []

    def send_and_close(self: ssl.SSLSocket) -> None:
        with pytest.raises(ConnectionError):
            socket.socket.send(self, b'PING')
        refused.append(self)
        close(self)

    sock = conn._sock
    assert isinstance(sock, ssl.SSLSocket)
    close = ssl.SSLSocket._real_close  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl.SSLSocket, '_real_close', send_and_close)
        manager.dispose('ok', conn)
    assert refused == [sock]


@contextlib.contextmanager
def trickling(tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """The port of a server whose answer never ends, and comes byte by byte in quick succession."""
    ended = threading.Event()

    def serve() -> None:
        with contextlib.suppress(OSError), listener.accept()[0] as plain:
            plain.settimeout(PATIENCE)
            with plain if tls is None else tls.wrap_socket(plain, server_side=True) as conn:
                conn.recv(1000)
                conn.sendall(b'+')
                deadline = time.monotonic() + PATIENCE
                while time.monotonic() < deadline and not ended.wait(0.02):
                    conn.sendall(b'x')

    with tcp_listener() as listener:
        listener.settimeout(PATIENCE)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            ended.set()
            thread.join(PATIENCE)
            assert not thread.is_alive()


#: Commands that make a connection unfit, and the reason that is given.
UNFIT: dict[str, tuple[list[list[Any]], str]] = {
    'unread': ([['GET', 'k']], '1 replies were not read'),
    'several': ([['PING'], ['PING']], '2 replies were not read'),
    'multi': ([['MULTI'], ['SET', 'k', 'v']], 'MULTI was sent on it'),
    'watch': ([['WATCH', 'k']], 'WATCH was sent on it'),
    'select': ([['SELECT', 5]], 'database 5 is selected'),
    'select bytes': ([[b'select', b'5']], 'database 5 is selected'),
    'select in multi': ([['SELECT', 5], ['MULTI'], ['SELECT', 0], ['DISCARD']], 'SELECT was sent on it within'),
    'monitor': ([['MONITOR']], 'MONITOR was sent on it'),
    'subscribe': ([['SUBSCRIBE', 'channel']], 'SUBSCRIBE was sent on it'),
    'name': ([['CLIENT SETNAME', 'x']], 'CLIENT SETNAME was sent on it'),
    'no-evict': ([['client', 'no-evict', 'on']], 'CLIENT NO-EVICT was sent on it'),
    'reset': ([['RESET']], 'RESET was sent on it'),
    'exec refused': ([['WATCH', 'k'], ['EXEC']], 'WATCH was sent on it'),
    'discard refused': ([['WATCH', 'k'], ['DISCARD']], 'WATCH was sent on it'),
    'discard with too much, refused': ([['MULTI'], ['DISCARD', 'x']], 'MULTI was sent on it'),
    'multi refused': ([['WATCH', 'k'], ['MULTI', 'x'], ['EXEC']], 'WATCH was sent on it'),
    'unwatch refused': ([['WATCH', 'k'], ['UNWATCH', 'x']], 'WATCH was sent on it'),
    'unwatch in multi': ([['MULTI'], ['UNWATCH']], 'MULTI was sent on it'),
    'select refused': ([['SELECT', 5], ['SELECT', 0, 'x']], 'database 5 is selected'),
    'watch behind exec': ([['MULTI'], ['EXEC'], ['WATCH', 'k']], 'WATCH was sent on it'),
}
FIT: dict[str, list[list[Any]]] = {
    'nothing': [],
    'get': [['GET', 'k']],
    'error': [['INCR', 'text']],
    'multi': [['MULTI'], ['SET', 'k', 'v'], ['EXEC']],
    'discarded': [['MULTI'], ['SET', 'k', 'v'], ['DISCARD']],
    'unwatched': [['WATCH', 'k'], ['UNWATCH']],
    'watched': [['WATCH', 'k'], ['MULTI'], ['EXEC']],
    'selected back': [['SELECT', 5], ['SELECT', 0]],
    # The server aborts the transaction, and says so.
    'error of exec': [['WATCH', 'k'], ['MULTI'], ['INCR'], ['EXEC']],
    'error of select': [['SELECT', 1000], ['SELECT', 5, 'x']],
    'error of watch': [['WATCH']],
    'error of multi': [['MULTI', 'x']],
    'client': [['CLIENT', 'LIST'], ['CLIENT GETNAME']],
}


class TestState:
    @pytest.mark.parametrize('name', UNFIT)
    def test_unfit(self, manager: RedisConnectionManager, conn: Connection, name: str) -> None:
        commands, reason = UNFIT[name]
        for command in commands:
            conn.send_command(*command)
            if 'replies' not in reason:
                try:
                    conn.read_response(push_request=True)
                except redis.ResponseError:
                    assert 'refused' in name
        self.check_unfit(manager, conn, reason)

    def check_unfit(self, manager: RedisConnectionManager, conn: Connection, reason: str) -> None:
        with pytest.raises(DiscardConnection, match=f"connection to 'db' is unfit: {reason}"):
            manager.on_release('db', conn)
        assert not manager.check_aliveness('db', conn)
        assert manager.is_broken('db', conn, ValueError())

    @pytest.mark.parametrize('name', UNFIT)
    def test_unfit_async(
        self,
        async_manager: AsyncRedisConnectionManager,
        run_with_conn: Callable[..., None],
        name: str,
    ) -> None:
        commands, reason = UNFIT[name]

        async def main(conn: AsyncConnection) -> None:
            for command in commands:
                await conn.send_command(*command)
                if 'replies' not in reason:
                    try:
                        await conn.read_response(push_request=True)
                    except redis.ResponseError:
                        assert 'refused' in name
            with pytest.raises(DiscardConnection, match=reason):
                await async_manager.on_release('db', conn)
            assert not await async_manager.check_aliveness('db', conn)
            assert await async_manager.is_broken('db', conn, ValueError())

        run_with_conn(main)

    @pytest.mark.parametrize('name', FIT)
    def test_fit(self, manager: RedisConnectionManager, conn: Connection, name: str) -> None:
        ask(conn, 'SET', 'text', 'x')
        for command in FIT[name]:
            try:
                ask(conn, *command)
            except redis.ResponseError:
                assert 'error' in name
        self.check_fit(manager, conn)

    def check_fit(self, manager: RedisConnectionManager, conn: Connection) -> None:
        manager.on_release('db', conn)
        assert manager.check_aliveness('db', conn)
        assert not manager.is_broken('db', conn, ValueError())

    @pytest.mark.parametrize('name', FIT)
    def test_fit_async(
        self, async_manager: AsyncRedisConnectionManager, run_with_conn: Callable[..., None], name: str
    ) -> None:
        async def main(conn: AsyncConnection) -> None:
            await ask_async(conn, 'SET', 'text', 'x')
            for command in FIT[name]:
                try:
                    await ask_async(conn, *command)
                except redis.ResponseError:
                    assert 'error' in name
            await async_manager.on_release('db', conn)
            assert await async_manager.check_aliveness('db', conn)
            assert not await async_manager.is_broken('db', conn, ValueError())

        run_with_conn(main)

    def test_without_replies(self, manager: RedisConnectionManager, conn: Connection) -> None:
        conn.send_command('CLIENT', 'REPLY', 'OFF')
        self.check_unfit(manager, conn, 'CLIENT REPLY was sent on it')

    def test_bytes_that_somebody_else_has_packed(self, manager: RedisConnectionManager, conn: Connection) -> None:
        conn.send_packed_command([b'PING\r\nPING\r\n'])
        assert [conn.read_response(), conn.read_response()] == [b'PONG', b'PONG']
        self.check_unfit(manager, conn, 'bytes were sent on it')

    def test_passwords_are_not_named(self, manager: RedisConnectionManager, conn: Connection) -> None:
        with pytest.raises(redis.ResponseError):
            ask(conn, 'AUTH', 'x', 'not-a-secret', 'y')
        with pytest.raises(DiscardConnection) as caught:
            manager.on_release('db', conn)
        assert 'secret' not in str(caught.value)

    def test_pipeline_of_raw_commands(self, manager: RedisConnectionManager, conn: Connection) -> None:
        conn.send_packed_command(conn.pack_commands([('SET', 'k', 1), ('INCR', 'k'), ('GET', 'k')]))
        assert manager.is_broken('db', conn, ValueError())
        assert [conn.read_response() for _ in range(3)] == [b'OK', 2, b'2']
        self.check_fit(manager, conn)

    def test_more_replies_than_were_asked_for(self, manager: RedisConnectionManager, conn: Connection) -> None:
        ask(conn, 'CLIENT', 'INFO')
        conn._get_socket().sendall(b'PING\r\n')  # type: ignore[union-attr]
        wait_readable(fd_of(conn))
        assert not manager.check_aliveness('db', conn)

    def test_a_reply_in_the_buffer_that_nobody_asked_for(
        self, manager: RedisConnectionManager, conn: Connection
    ) -> None:
        sock = conn._get_socket()
        assert sock is not None
        sock.sendall(b'PING\r\n')
        wait_readable(sock)
        # Both replies arrive in one piece: reading the first also reads the second.
        conn.send_command('ECHO', 'x')
        deadline = time.monotonic() + PATIENCE
        while sock.recv(100, socket.MSG_PEEK).count(b'\r\n') < 3:
            assert time.monotonic() < deadline
        assert conn.read_response() == b'PONG'
        assert not manager.check_aliveness('db', conn)

    def test_more_replies_than_were_asked_for_async(
        self, async_manager: AsyncRedisConnectionManager, run_with_conn: Callable[..., None]
    ) -> None:
        async def main(conn: AsyncConnection) -> None:
            assert await async_manager.check_aliveness('db', conn)
            fd = fd_of(conn)
            # Without the event loop, which has no turn until the check looks.
            os.write(fd, b'PING\r\n')
            wait_readable(fd)
            assert not await async_manager.check_aliveness('db', conn)
            while poll_once(fd)[0]:  # noqa: ASYNC110  (nothing tells)
                await asyncio.sleep(0)
            # Now the loop has seen it.
            assert not await async_manager.check_aliveness('db', conn)

        run_with_conn(main)

    @pytest.mark.parametrize('error', [redis.ConnectionError, redis.TimeoutError], indirect=True)
    def test_errors_of_connections(self, manager: RedisConnectionManager, conn: Connection, error: Exception) -> None:
        assert manager.is_broken('db', conn, error)

    def test_a_timeout_of_a_command(self, redis_server: RedisServer) -> None:
        manager = RedisConnectionManager({'db': {'url': redis_server.url, 'socket_timeout': PATIENCE}})
        conn = manager.create('db', PATIENCE)
        # Not for connecting, which takes a moment now and then.
        conn.update_current_socket_timeout(0.05)
        with pytest.raises(redis.TimeoutError) as caught:
            ask(conn, 'BLPOP', 'nothing', 0)
        assert manager.is_broken('db', conn, caught.value)
        assert manager.is_broken('db', conn, ValueError())
        with pytest.raises(DiscardConnection, match='it is closed'):
            manager.on_release('db', conn)
        # redis-py connects again when the next command is sent, which is fine while the connection is in use.
        assert ask(conn, 'PING') == b'PONG'
        self.check_fit(manager, conn)
        manager.dispose('db', conn)

    def test_a_reply_that_could_not_be_read(self, manager: RedisConnectionManager, conn: Connection) -> None:
        conn.send_command('BLPOP', 'nothing', 0)
        conn.update_current_socket_timeout(0.05)
        with pytest.raises(redis.TimeoutError):
            conn.read_response(disconnect_on_error=False)
        assert conn.is_connected
        self.check_unfit(manager, conn, 'reading a reply from it failed')

    def test_cancelled_half_way(
        self, async_manager: AsyncRedisConnectionManager, run_with_conn: Callable[..., None]
    ) -> None:
        async def main(conn: AsyncConnection) -> None:
            await conn.send_command('BLPOP', 'nothing', 0)
            task = asyncio.ensure_future(conn.read_response())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await async_manager.is_broken('db', conn, asyncio.CancelledError())

        run_with_conn(main)

    def test_cancelled_between_sending_and_reading(
        self, async_manager: AsyncRedisConnectionManager, run_with_conn: Callable[..., None]
    ) -> None:
        async def main(conn: AsyncConnection) -> None:
            await conn.send_command('GET', 'k')
            assert conn.is_connected
            assert await async_manager.is_broken('db', conn, asyncio.CancelledError())

        run_with_conn(main)

    def test_a_reply_that_may_have_timed_out(
        self, async_manager: AsyncRedisConnectionManager, run_with_conn: Callable[..., None]
    ) -> None:
        async def main(conn: AsyncConnection) -> None:
            await conn.send_command('BLPOP', 'nothing', 0)
            assert await conn.read_response(timeout=0.01) is None
            assert await async_manager.is_broken('db', conn, ValueError())

        run_with_conn(main)

    def test_commands_in_one_piece(self, manager: RedisConnectionManager, conn: Connection) -> None:
        for commands, reason in (
            ([('WATCH', 'k'), ('UNWATCH',), ('MULTI',), ('GET', 'k'), ('EXEC',)], None),
            ([('MULTI',), ('UNWATCH',), ('EXEC',), ('WATCH', 'k')], 'WATCH was sent on it'),
            ([('UNWATCH',), ('SELECT', 5), ('GET', 'k'), ('SELECT', 0)], None),
            ([('SELECT', 0), ('SELECT', 5)], 'database 5 is selected'),
        ):
            conn.send_packed_command(conn.pack_commands(commands))
            for left in range(len(commands), 0, -1):
                self.check_unfit(manager, conn, f'{left} replies were not read')
                conn.read_response()
            if reason is None:
                self.check_fit(manager, conn)
            else:
                self.check_unfit(manager, conn, reason)

    @pytest.fixture
    def checked(self, redis_server: RedisServer) -> dict[str, Any]:
        """Parameters with which redis-py checks the connection before it sends a command."""
        return {'url': redis_server.url, 'health_check_interval': 100}

    COMMANDS = pytest.mark.parametrize(
        'commands', [[['GET', 'k']], [['SET', 'k', 'v'], ['GET', 'k'], ['PING']]], ids=['one', 'three']
    )

    @COMMANDS
    def test_connecting_again_while_sending(
        self, redis_server: RedisServer, checked: dict[str, Any], commands: list[Any]
    ) -> None:
        retry = redis.retry.Retry(NoBackoff(), 1)
        manager = RedisConnectionManager({'db': {**checked, 'retry': retry}})
        conn = manager.create('db', PATIENCE)
        ask(conn, 'WATCH', 'k')
        redis_server.kill_clients()
        wait_readable(fd_of(conn))
        conn.next_health_check = 0
        conn.send_packed_command(conn.pack_commands(commands))
        self.check_unfit(manager, conn, f'{len(commands)} replies were not read')
        for _ in commands:
            conn.read_response()
        self.check_fit(manager, conn)
        redis_server.kill_clients()
        wait_readable(fd_of(conn))
        conn.next_health_check = 0
        assert ask(conn, 'SELECT', 5) == b'OK'
        self.check_unfit(manager, conn, 'database 5 is selected')
        manager.dispose('db', conn)

    def test_sending_that_fails(self, redis_server: RedisServer, checked: dict[str, Any]) -> None:
        manager = RedisConnectionManager({'db': checked})
        conn = manager.create('db', PATIENCE)
        ask(conn, 'PING')
        redis_server.kill_clients()
        wait_readable(fd_of(conn))
        conn.next_health_check = 0
        with pytest.raises(redis.ConnectionError):
            conn.send_command('GET', 'k')
        self.check_unfit(manager, conn, 'it is closed')
        assert ask(conn, 'PING') == b'PONG'
        self.check_fit(manager, conn)
        manager.dispose('db', conn)

    def test_interrupted_at_the_end_of_sending(self, redis_server: RedisServer) -> None:
        class Interrupted(redis.Connection):  # type: ignore[name-defined,misc]
            def send_packed_command(self, command: Any, check_health: bool = True) -> None:
                super().send_packed_command(command, check_health)
                if interrupt:
                    raise KeyboardInterrupt

        interrupt = False
        manager = RedisConnectionManager({'db': {'url': redis_server.url, 'connection_class': Interrupted}})
        conn = manager.create('db', PATIENCE)
        self.check_fit(manager, conn)
        interrupt = True
        with pytest.raises(KeyboardInterrupt):
            conn.send_command('GET', 'k')
        self.check_unfit(manager, conn, '1 replies were not read')
        manager.dispose('db', conn)

    @COMMANDS
    def test_connecting_again_while_sending_async(
        self, redis_server: RedisServer, checked: dict[str, Any], run: Run, commands: list[Any]
    ) -> None:
        async def main() -> None:
            retry = redis.asyncio.retry.Retry(NoBackoff(), 1)
            manager = AsyncRedisConnectionManager({'db': {**checked, 'retry': retry}})
            conn = await manager.create('db')
            await ask_async(conn, 'WATCH', 'k')
            redis_server.kill_clients()
            await until_eof(conn)
            conn.next_health_check = 0
            await conn.send_packed_command(conn.pack_commands(commands))
            with pytest.raises(DiscardConnection, match=f'{len(commands)} replies were not read'):
                await manager.on_release('db', conn)
            assert not await manager.check_aliveness('db', conn)
            assert await manager.is_broken('db', conn, asyncio.CancelledError())
            for _ in commands:
                await conn.read_response()
            await manager.on_release('db', conn)
            assert await manager.check_aliveness('db', conn)
            await manager.dispose('db', conn)

        run(main)

    def test_sending_that_fails_async(self, redis_server: RedisServer, checked: dict[str, Any], run: Run) -> None:
        async def main() -> None:
            manager = AsyncRedisConnectionManager({'db': checked})
            conn = await manager.create('db')
            redis_server.kill_clients()
            await until_eof(conn)
            conn.next_health_check = 0
            with pytest.raises(redis.ConnectionError):
                await conn.send_command('GET', 'k')
            assert await manager.is_broken('db', conn, ValueError())
            assert await ask_async(conn, 'PING') == b'PONG'
            await manager.on_release('db', conn)
            assert await manager.check_aliveness('db', conn)
            await manager.dispose('db', conn)

        run(main)

    def test_cancelled_while_sending(self, silent_listener: socket.socket, run: Run) -> None:
        host, port = silent_listener.getsockname()

        async def main() -> None:
            params = {'host': host, 'port': port, 'protocol': 2, 'driver_info': None}
            manager = AsyncRedisConnectionManager({'db': params}, close_timeout=0.05)
            conn = await manager.create('db')
            # More than the server, which reads nothing, has room for.
            task = asyncio.ensure_future(conn.send_command('SET', 'k', bytes(50_000_000)))
            # On some versions of Python the transport accepts all of it.
            while not (conn._in_send or task.done()):  # noqa: ASYNC110  (nothing tells)
                await asyncio.sleep(0)
            if task.done():
                assert await manager.is_broken('db', conn, ValueError())
                await manager.dispose('db', conn)
                return
            assert await manager.is_broken('db', conn, ValueError())
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await manager.is_broken('db', conn, ValueError())
            assert not await manager.check_aliveness('db', conn)
            await manager.dispose('db', conn)
            # Aborting takes a few turns of the loop.
            for _ in range(5):
                await asyncio.sleep(0)

        run(main)
        with silent_listener.accept()[0] as accepted:
            wait_for_end(accepted)

    def test_a_reply_that_is_read_before_it_is_awaited(
        self, async_manager: AsyncRedisConnectionManager, run_with_conn: Callable[..., None]
    ) -> None:
        async def main(conn: AsyncConnection) -> None:
            # What one task reads while another has not returned from sending.
            count = conn._about_to_send(packed := conn.pack_command('SELECT', 5))
            conn._was_read(b'OK')
            conn._was_sent(packed, count)
            assert conn._unread == 0
            with pytest.raises(DiscardConnection, match='the reply to SELECT was read before'):
                await async_manager.on_release('db', conn)

        run_with_conn(main)

    def test_reconnecting_begins_anew(self, manager: RedisConnectionManager, conn: Connection) -> None:
        ask(conn, 'MULTI')
        conn.send_command('SELECT', 3)
        conn.disconnect()
        assert manager.is_broken('db', conn, ValueError())
        assert ask(conn, 'SELECT', 3) == b'OK'
        self.check_unfit(manager, conn, 'database 3 is selected')
        conn.disconnect()
        assert ask(conn, 'PING') == b'PONG'
        self.check_fit(manager, conn)

    def test_a_pipeline_that_was_not_closed(self, manager: RedisConnectionManager, conn: Connection) -> None:
        pipeline = any_client(conn).pipeline()
        pipeline.watch('k')
        pipeline.unwatch()
        self.check_unfit(manager, conn, 'its client has it in use')
        pipeline.reset()
        self.check_fit(manager, conn)

    def test_a_pipeline_that_was_not_closed_async(
        self, async_manager: AsyncRedisConnectionManager, run_with_conn: Callable[..., None]
    ) -> None:
        async def main(conn: AsyncConnection) -> None:
            pipeline = any_async_client(conn).pipeline()
            await pipeline.watch('k')
            await pipeline.unwatch()
            with pytest.raises(DiscardConnection, match='its client has it in use'):
                await async_manager.on_release('db', conn)
            assert await async_manager.is_broken('db', conn, ValueError())
            await pipeline.reset()
            await async_manager.on_release('db', conn)

        run_with_conn(main)


class TestAliveness:
    @pytest.mark.parametrize('ping', [True, False])
    def test_sends_something_only_with_ping(self, redis_server: RedisServer, ping: bool) -> None:
        manager = RedisConnectionManager({'db': redis_server.url}, ping=ping)
        conn = manager.create('db')
        observer = manager.create('db')
        number = client_id(conn)
        assert manager.check_aliveness('db', conn, 5.0)
        info = ask(observer, 'CLIENT', 'LIST', 'ID', number).decode()
        assert f' cmd={"ping" if ping else "client|id"} ' in info
        assert manager.check_aliveness('db', conn)
        manager.dispose('db', conn)
        manager.dispose('db', observer)

    @pytest.mark.parametrize('ping', [True, False])
    def test_of_what_the_server_has_ended(self, redis_server: RedisServer, ping: bool) -> None:
        manager = RedisConnectionManager({'db': redis_server.url}, ping=ping)
        conn = manager.create('db')
        assert redis_server.kill_clients() == 1
        wait_readable(fd_of(conn))
        assert not manager.check_aliveness('db', conn, 5.0)
        manager.dispose('db', conn)

    def test_of_a_server_that_crashed(self, redis_server: RedisServer) -> None:
        manager = RedisConnectionManager({'db': redis_server.url})
        conn = manager.create('db')
        redis_server.kill()
        wait_readable(fd_of(conn))
        assert not manager.check_aliveness('db', conn)
        with pytest.raises(ConnectError):
            manager.create('db', 5.0)
        redis_server.start()
        manager.dispose('db', conn)
        conn = manager.create('db', 5.0)
        assert manager.check_aliveness('db', conn)
        manager.dispose('db', conn)

    @pytest.mark.parametrize('ping', [True, False])
    def test_async(self, redis_server: RedisServer, run: Run, ping: bool) -> None:
        manager = AsyncRedisConnectionManager({'db': redis_server.url}, ping=ping)

        async def main() -> None:
            conn = await manager.create('db')
            assert await manager.check_aliveness('db', conn)
            assert redis_server.kill_clients() == 1
            wait_readable(fd_of(conn))
            # The loop has had no chance to see it.
            assert not await manager.check_aliveness('db', conn)
            await manager.dispose('db', conn)
            conn = await manager.create('db')
            redis_server.kill_clients()
            await until_eof(conn)
            assert not await manager.check_aliveness('db', conn)
            await manager.dispose('db', conn)

        run(main)

    def test_a_ping_that_is_not_answered(self, silent_server: 'SilentServer', run: Run) -> None:
        address = {'host': '127.0.0.1', 'port': silent_server.port}
        params = {'db': {**address, 'protocol': 2, 'driver_info': None, 'socket_timeout': 2 * PATIENCE}}
        manager = RedisConnectionManager(params, ping=True)
        conn = manager.create('db')
        began = time.monotonic()
        assert not manager.check_aliveness('db', conn, 0.1)
        # Much less than redis-py's own limit.
        assert time.monotonic() - began < PATIENCE
        assert not conn.is_connected
        manager.dispose('db', conn)

        async def main() -> None:
            manager = AsyncRedisConnectionManager(params, ping=True)
            conn = await manager.create('db')
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(manager.check_aliveness('db', conn), 0.1)
            # Interrupted half-way: the next check says so.
            assert not await manager.check_aliveness('db', conn)
            await manager.dispose('db', conn)

        run(main)

    def test_a_ping_whose_answer_comes_byte_by_byte(self) -> None:
        with trickling() as port:
            params = {'host': '127.0.0.1', 'port': port, 'protocol': 2, 'driver_info': None}
            manager = RedisConnectionManager({'db': params}, ping=True)
            conn = manager.create('db')
            began = time.monotonic()
            assert not manager.check_aliveness('db', conn, 0.3)
            assert time.monotonic() - began < PATIENCE / 2
            assert not conn.is_connected
            manager.dispose('db', conn)

    def test_a_time_limit_leaves_no_thread(self, redis_server: RedisServer) -> None:
        manager = RedisConnectionManager({'db': redis_server.url}, ping=True)
        before = set(threading.enumerate())
        conn = manager.create('db', PATIENCE)
        assert manager.check_aliveness('db', conn, PATIENCE)
        manager.dispose('db', conn)
        for thread in set(threading.enumerate()) - before:
            thread.join(PATIENCE / 2)
            assert not thread.is_alive()


class SilentServer:
    """Lets clients connect, and says nothing."""

    def __init__(self, listener: socket.socket) -> None:
        self.port: int = listener.getsockname()[1]


@pytest.fixture
def silent_server(silent_listener: socket.socket) -> SilentServer:
    return SilentServer(silent_listener)


class TestDispose:
    def test_twice(self, redis_server: RedisServer, manager: RedisConnectionManager) -> None:
        conn = manager.create('db')
        manager.dispose('db', conn)
        manager.dispose('db', conn, 0.0)
        assert not manager.check_aliveness('db', conn)
        redis_server.wait_for_clients(0)

    def test_it_does_not_connect_again(self, redis_server: RedisServer, manager: RedisConnectionManager) -> None:
        conn = manager.create('db')
        client = any_client(conn)
        manager.dispose('db', conn)
        for use in (conn.connect, lambda: conn.send_command('PING'), client.ping):
            with pytest.raises(redis.ConnectionError, match='closed by its pool'):
                use()
        assert redis_server.count_clients() == 0

    def test_ends_a_wait(self, redis_server: RedisServer, manager: RedisConnectionManager) -> None:
        conn = manager.create('db')
        number = client_id(conn)
        failures: list[Exception] = []

        def wait() -> None:
            try:
                ask(conn, 'BLPOP', 'nothing', 0)
            except redis.ConnectionError as exc:
                failures.append(exc)

        user = threading.Thread(target=wait, daemon=True)
        user.start()
        deadline = time.monotonic() + PATIENCE
        while ' cmd=blpop ' not in redis_server.command(f'CLIENT LIST ID {number}'):
            assert time.monotonic() < deadline
        manager.dispose('db', conn)
        user.join(PATIENCE)
        assert not user.is_alive()
        assert len(failures) == 1
        redis_server.wait_for_clients(0)

    def test_async(self, redis_server: RedisServer, async_manager: AsyncRedisConnectionManager, run: Run) -> None:
        async def main() -> None:
            conn = await async_manager.create('db')
            client = any_async_client(conn)
            await conn.send_command('BLPOP', 'nothing', 0)
            task = asyncio.ensure_future(conn.read_response())
            await asyncio.sleep(0)
            await async_manager.dispose('db', conn)
            await async_manager.dispose('db', conn)
            with pytest.raises(redis.ConnectionError):
                await task
            for use in (conn.connect, lambda: conn.send_command('PING'), client.ping):
                with pytest.raises(redis.ConnectionError, match='closed by its pool'):
                    await use()

        run(main)
        redis_server.wait_for_clients(0)

    def test_async_with_a_server_that_takes_nothing(self, silent_listener: socket.socket, run: Run) -> None:
        host, port = silent_listener.getsockname()

        async def main() -> None:
            manager = AsyncRedisConnectionManager(
                {'db': {'host': host, 'port': port, 'protocol': 2, 'driver_info': None}}, close_timeout=0.05
            )
            conn = await manager.create('db')
            assert conn._writer is not None
            conn._writer.write(bytes(50_000_000))
            await manager.dispose('db', conn)
            conn = await manager.create('db')
            assert conn._writer is not None
            conn._writer.write(bytes(50_000_000))
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(
                    AsyncRedisConnectionManager({}, close_timeout=PATIENCE).dispose('db', conn), 0.05
                )
            assert not conn.is_connected
            # Aborting takes a few turns of the loop.
            for _ in range(5):
                await asyncio.sleep(0)

        run(main)
        for _ in range(2):
            with silent_listener.accept()[0] as accepted:
                wait_for_end(accepted)

    def test_of_a_stranger(self, manager: RedisConnectionManager, async_manager: AsyncRedisConnectionManager) -> None:
        with pytest.raises(TypeError, match='was not made by RedisConnectionManager'):
            manager.check_aliveness('db', redis.Connection())
        with pytest.raises(TypeError, match='was not made by AsyncRedisConnectionManager'):
            async_client_of(redis.asyncio.Connection())


class TestClient:
    def test_commands(self, manager: RedisConnectionManager, conn: Connection) -> None:
        client = any_client(conn)
        assert id(client_of(conn)) == id(client)
        assert client.set('k', 'v')
        assert client.get('k') == b'v'
        assert client.pipeline().incr('n').delete('n').execute()[1] == 1
        assert client.pipeline(transaction=False).set('k', 1).get('k').execute() == [True, b'1']
        assert client.client_id() == client_id(conn)
        client.close()
        assert client.get('k') == b'1'
        manager.on_release('db', conn)
        assert manager.check_aliveness('db', conn)

    def test_transaction(self, manager: RedisConnectionManager, conn: Connection) -> None:
        client = any_client(conn)
        client.set('n', 1)
        with client.pipeline() as pipeline:
            pipeline.watch('n')
            # The connection belongs to the pipeline.
            with pytest.raises(redis.MaxConnectionsError, match='one at a time'):
                client.get('n')
            number = int(pipeline.get('n'))
            pipeline.multi()
            pipeline.set('n', number + 1)
            assert pipeline.execute() == [True]
        assert client.get('n') == b'2'
        manager.on_release('db', conn)

    def test_pubsub(self, manager: RedisConnectionManager, conn: Connection) -> None:
        with client_of(conn).pubsub() as pubsub:
            pubsub.subscribe('channel')
            message = pubsub.get_message(timeout=PATIENCE)
            assert message is not None
            assert message['type'] == 'subscribe'
        assert manager.is_broken('db', conn, ValueError())

    def test_of_decoded_responses(self, redis_server: RedisServer) -> None:
        manager = RedisConnectionManager({'db': f'{redis_server.url}?decode_responses=1'})
        manager = RedisConnectionManager({'db': {'url': redis_server.url, 'decode_responses': True}})
        conn = manager.create('db')
        client = any_client(conn)
        client.set('k', 'ü')
        assert client.get('k') == 'ü'
        assert ask(conn, 'GET', 'k') == 'ü'
        manager.dispose('db', conn)

    def test_async(self, async_manager: AsyncRedisConnectionManager, run_with_conn: Callable[..., None]) -> None:
        async def main(conn: AsyncConnection) -> None:
            client = any_async_client(conn)
            assert id(async_client_of(conn)) == id(client)
            assert await client.set('k', 'v')
            assert await client.get('k') == b'v'
            assert await client.pipeline().set('k', 1).get('k').execute() == [True, b'1']
            async with client.pipeline() as pipeline:
                await pipeline.watch('k')
                with pytest.raises(redis.MaxConnectionsError, match='one at a time'):
                    await client.get('k')
                pipeline.multi()
                pipeline.set('k', 2)
                assert await pipeline.execute() == [True]
            await client.aclose()
            assert await client.get('k') == b'2'
            await async_manager.on_release('db', conn)
            assert await async_manager.check_aliveness('db', conn)

        run_with_conn(main)

    def test_one_that_was_kept(self, manager: RedisConnectionManager, conn: Connection) -> None:
        kept = any_client(conn)
        pipeline, pubsub = kept.pipeline(), kept.pubsub()
        kept.set_response_callback('GET', lambda _: 'of the last user')
        kept.set('k', 'v')
        manager.on_release('db', conn)
        for use in (kept.ping, pipeline.set('k', 1).execute, lambda: pubsub.subscribe('channel')):
            with pytest.raises(redis.ConnectionError, match='was returned to its pool'):
                use()
        client = any_client(conn)
        assert client is not kept
        assert client.get('k') == b'v'
        manager.on_release('db', conn)
        assert manager.check_aliveness('db', conn)

    def test_one_that_was_kept_async(
        self, async_manager: AsyncRedisConnectionManager, run_with_conn: Callable[..., None]
    ) -> None:
        async def main(conn: AsyncConnection) -> None:
            kept = any_async_client(conn)
            pipeline = kept.pipeline()
            kept.set_response_callback('GET', lambda _: 'of the last user')
            await kept.set('k', 'v')
            await async_manager.on_release('db', conn)
            for use in (kept.ping, pipeline.set('k', 1).execute):
                with pytest.raises(redis.ConnectionError, match='was returned to its pool'):
                    await use()
            client = any_async_client(conn)
            assert client is not kept
            assert await client.get('k') == b'v'
            await async_manager.on_release('db', conn)
            assert await async_manager.check_aliveness('db', conn)

        run_with_conn(main)

    def test_one_that_was_not_taken_back(
        self, async_manager: AsyncRedisConnectionManager, redis_server: RedisServer, run: Run
    ) -> None:
        async def main() -> None:
            pool = gcpool.asyncio.ConnectionPool[Any, AsyncConnection](async_manager, max_size=1)
            conn = await pool.acquire('db', PATIENCE)
            kept = any_async_client(conn)
            await kept.set('k', 'v')
            task = asyncio.ensure_future(pool.release(conn, 'db'))
            # Before its first step.
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            async with pool.connection('db', PATIENCE) as second:
                assert second is not conn
                assert async_client_of(second) is not kept
                with pytest.raises(redis.ConnectionError):
                    await kept.get('k')
            await pool.close()

        run(main)
        redis_server.wait_for_clients(0)

    def test_one_that_was_not_taken_back_sync(self, manager: RedisConnectionManager, conn: Connection) -> None:
        client_of(conn)
        assert not manager.is_broken('db', conn, ValueError())
        assert not manager.check_aliveness('db', conn)
        manager.on_release('db', conn)
        assert manager.check_aliveness('db', conn)


class TestPool:
    def test_unfit_ones_are_replaced(self, redis_server: RedisServer, manager: RedisConnectionManager) -> None:
        pool = gcpool.threading.ConnectionPool[Any, Connection](manager, max_size=1, acquire_timeout=PATIENCE)
        try:
            with pool.connection('db') as conn:
                first = client_id(conn)
            with pool.connection('db') as conn:
                assert client_id(conn) == first
                ask(conn, 'SELECT', 4)
            with pool.connection('db') as conn:
                second = client_id(conn)
                assert second != first
                assert b' db=0 ' in ask(conn, 'CLIENT', 'INFO')

            def fail_half_way() -> None:
                with pool.connection('db') as conn:
                    conn.send_command('PING')
                    raise ZeroDivisionError

            with pytest.raises(ZeroDivisionError):
                fail_half_way()
            with pool.connection('db') as conn:
                third = client_id(conn)
                assert third != second
            with pytest.raises(ZeroDivisionError), pool.connection('db') as conn:
                raise ZeroDivisionError
            with pool.connection('db') as conn:
                assert client_id(conn) == third
            redis_server.wait_for_clients(1)
        finally:
            pool.close(PATIENCE)
        redis_server.wait_for_clients(0)

    def test_restart_of_the_server(self, redis_server: RedisServer, manager: RedisConnectionManager) -> None:
        pool = gcpool.threading.ConnectionPool[Any, Connection](manager, max_size=3, min_idle=3)
        try:
            conns = [pool.acquire('db', PATIENCE) for _ in range(3)]
            for conn in conns:
                pool.release(conn, 'db')
            redis_server.restart()
            for _ in range(5):
                with pool.connection('db', PATIENCE) as conn:
                    assert ask(conn, 'PING') == b'PONG'
            # The pool's threads close those that were found dead.
            until(lambda: not any(conn.is_connected for conn in conns))
        finally:
            pool.close(PATIENCE)
        redis_server.wait_for_clients(0)

    def test_wrong_credentials_count_for_nothing(self, guarded_server: RedisServer) -> None:
        url = guarded_server.url.replace('not-a-secret', 'wrong')
        pool = gcpool.threading.ConnectionPool[Any, Connection](RedisConnectionManager({'db': url}), max_size=1)
        for _ in range(3):
            with pytest.raises(redis.AuthenticationError):
                pool.acquire('db', PATIENCE)
        assert pool.get_size() == 0
        pool.close()
        guarded_server.wait_for_clients(0)

    def test_async(self, redis_server: RedisServer, async_manager: AsyncRedisConnectionManager, run: Run) -> None:
        async def main() -> None:
            pool = gcpool.asyncio.ConnectionPool[Any, AsyncConnection](async_manager, max_size=2)
            try:

                async def increment() -> None:
                    async with pool.connection('db', PATIENCE) as conn:
                        await async_client_of(conn).incr('async-pool')

                await asyncio.gather(*(increment() for _ in range(50)))
                async with pool.connection('db', PATIENCE) as conn:
                    assert await async_client_of(conn).getdel('async-pool') == b'50'

                # Cancelled while it waits for a reply.
                waiting = asyncio.Event()

                async def wait() -> None:
                    async with pool.connection('db', PATIENCE) as conn:
                        await conn.send_command('BLPOP', 'nothing', 0)
                        waiting.set()
                        await conn.read_response()

                task = asyncio.ensure_future(wait())
                await waiting.wait()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                async with pool.connection('db', PATIENCE) as first, pool.connection('db', PATIENCE) as second:
                    assert await ask_async(first, 'PING') == b'PONG'
                    assert await ask_async(second, 'PING') == b'PONG'

                redis_server.restart()
                async with pool.connection('db', PATIENCE) as conn:
                    assert await ask_async(conn, 'PING') == b'PONG'
            finally:
                await pool.close()

        run(main)
        redis_server.wait_for_clients(0)


def test_a_command_of_a_client_names_what_makes_one(redis_server: RedisServer) -> None:
    manager = RedisConnectionManager({'a': redis_server.url})
    conn: Any = manager.create('a')
    try:
        with pytest.raises(AttributeError, match=r'expected gcpool\.contrib\.redis\.client_of\(conn\)\.get'):
            conn.get('key')
        with pytest.raises(AttributeError, match=r"has no attribute 'gett'$"):
            conn.gett('key')
    finally:
        manager.dispose('a', conn)


def test_a_command_of_an_asyncio_client_names_what_makes_one(run: Run, redis_server: RedisServer) -> None:
    async def main() -> None:
        manager = AsyncRedisConnectionManager({'a': redis_server.url})
        conn: Any = await manager.create('a')
        try:
            with pytest.raises(AttributeError, match=r'gcpool\.contrib\.redis\.async_client_of\(conn\)\.get'):
                await conn.get('key')
        finally:
            await manager.dispose('a', conn)

    run(main)
