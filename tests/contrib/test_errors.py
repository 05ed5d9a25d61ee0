"""Errors in connecting: gcpool errors that are also the driver's, wherever Python allows it."""

import asyncio
import copy
import errno
import gc
import importlib
import pickle
import re
import signal
import socket
import sqlite3
import ssl
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import pytest

from gcpool import asyncio as for_asyncio
from gcpool import threading as for_threads
from gcpool.contrib import _endpoints, _sockets, _sockets_async, socket_async
from gcpool.contrib._errors import (
    advice_for_os_error,
    advice_for_path_error,
    check_source,
    look_up,
    look_up_async,
    raise_bad_params,
    raise_connect_error,
    raise_connect_timeout,
    to_params,
    unknown_endpoint,
)
from gcpool.exceptions import BaseError, ConnectError, ConnectTimeout, PoolTimeout, UnknownEndpoint
from gcpool.managers import is_hopeless_unless_overridden
from tests.contrib.conftest import Run
from tests.contrib.servers import PATIENCE, EchoServer, closed_port, full_listener, linux_only, resolver_without_answer


class Numbered(Exception):
    """Like those of the MySQL drivers: the number is the first of its args."""


class Choosy(Exception):
    def __new__(cls, first: object, second: object) -> 'Choosy':  # noqa: PYI034
        return super().__new__(cls, first, second)

    def __init__(self, first: object, second: object) -> None:
        super().__init__('only one')


class WithAMessageOfItsOwn(Exception):
    @property
    def message(self) -> str:
        return 'mine'


def caught(cause: BaseException) -> Any:
    with pytest.raises(ConnectError) as found:
        raise_connect_error('db', cause, 'look at the host')
    assert found.value.__cause__ is cause
    assert str(found.value).startswith(f"no connection to endpoint 'db' could be made: {type(cause).__name__}")
    assert str(found.value).endswith('; look at the host')
    assert found.value.endpoint == 'db'
    assert isinstance(found.value, BaseError)
    return found.value


@pytest.mark.parametrize(
    'cause',
    [
        ConnectionRefusedError(111, 'refused'),
        socket.gaierror(-2, 'not known'),
        ssl.SSLError(1, 'handshake'),
        sqlite3.OperationalError('unable to open'),
        Numbered(1045, 'denied'),
        KeyError('x'),
        ValueError('several\nlines'),
    ],
    ids=lambda cause: type(cause).__name__,
)
def test_is_the_driver_s_own_too(cause: Exception) -> None:
    error = caught(cause)
    assert isinstance(error, type(cause))
    assert error.args == cause.args
    assert getattr(error, 'errno', None) == getattr(cause, 'errno', None)
    assert '\n' not in str(error)


@pytest.mark.parametrize('cause', [Choosy(1, 2), WithAMessageOfItsOwn('x')], ids=lambda cause: type(cause).__name__)
def test_one_that_cannot_be_made_is_the_cause_alone(cause: Exception) -> None:
    assert type(caught(cause)) is ConnectError


def test_an_attribute_of_the_driver_s_is_there() -> None:
    cause = Numbered(1)
    cause.sqlstate = '28P01'  # type: ignore[attr-defined]
    assert caught(cause).sqlstate == '28P01'


@pytest.mark.parametrize(
    'cause',
    [ConnectionRefusedError(111, 'refused'), socket.gaierror(-2, 'unknown'), ssl.SSLCertVerificationError(1, 'no')],
    ids=lambda cause: type(cause).__name__,
)
def test_an_error_of_the_system_can_be_copied_and_pickled(cause: OSError) -> None:
    error = caught(cause)
    twins: list[Any] = [copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))]
    for twin in twins:
        assert type(twin) is type(error)
        assert (str(twin), twin.endpoint, twin.args) == (str(error), 'db', cause.args)
        assert (twin.errno, twin.strerror) == (cause.errno, cause.strerror)
        assert isinstance(twin, type(cause))


@pytest.mark.parametrize('make', [lambda: caught(Numbered(1)), lambda: unknown_endpoint('db', 'params', {})])
def test_another_can_be_copied_and_pickled_as_what_has_a_name(make: Callable[[], ConnectError]) -> None:
    error = make()
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(twin) in {ConnectError, UnknownEndpoint}
        assert (str(twin), twin.endpoint) == (str(error), 'db')


def test_a_timeout_can_be_copied_and_pickled() -> None:
    with pytest.raises(ConnectTimeout) as found:
        raise_connect_timeout('db', TimeoutError(), 2.5)
    for twin in (copy.copy(found.value), pickle.loads(pickle.dumps(found.value))):
        assert type(twin) is ConnectTimeout
        assert (str(twin), twin.endpoint) == (str(found.value), 'db')


def test_a_timeout_is_one_to_everybody() -> None:
    with pytest.raises(ConnectTimeout, match=r"'db' could be made within 2\.5 s: TimeoutError") as found:
        raise_connect_timeout('db', TimeoutError(), 2.5)
    assert isinstance(found.value, PoolTimeout)
    assert isinstance(found.value, ConnectError)


def test_an_unknown_endpoint_names_those_that_are_known() -> None:
    error = unknown_endpoint('typo', 'dsn_params', {'main': {'password': 'secret'}})
    assert isinstance(error, UnknownEndpoint)
    assert isinstance(error, KeyError)
    assert str(error) == "endpoint 'typo' is not in dsn_params, which has ['main']; add it, or ask for one of those"


async def unknown_to_a_coroutine(endpoint: str) -> str:
    await asyncio.sleep(0)
    return {'main': 'url'}[endpoint]


async def by_a_coroutine(endpoint: str) -> str:
    await asyncio.sleep(0)
    return f'url of {endpoint}'


class TestSources:
    @pytest.mark.parametrize('source', [None, 'secret', 5, ['secret']])
    @pytest.mark.parametrize('or_callable', [True, False])
    def test_refuses_what_is_none(self, source: object, or_callable: bool) -> None:
        with pytest.raises(TypeError, match='params: expected a mapping of endpoints') as caught:
            check_source(source, 'params', or_callable=or_callable)
        assert ('callable' in str(caught.value)) is or_callable
        assert str(caught.value).endswith(f', got {type(source).__name__}')
        assert 'secret' not in str(caught.value)

    def test_takes_callables_where_they_will_do(self) -> None:
        check_source({}, 'params')
        check_source(print, 'params', or_callable=True)
        with pytest.raises(TypeError, match='got builtin_function_or_method'):
            check_source(print, 'params')

    @pytest.mark.parametrize(
        'source', [{'db': 'url of db'}, {'db': lambda endpoint: f'url of {endpoint}'}, lambda endpoint: 'url of db']
    )
    def test_looks_up(self, source: Any) -> None:
        assert look_up(source, 'db', 'params') == 'url of db'
        assert asyncio.run(look_up_async(source, 'db', 'params')) == 'url of db'

    @pytest.mark.parametrize('source', [{'db': by_a_coroutine}, by_a_coroutine])
    def test_awaits_only_for_asyncio(self, source: Any) -> None:
        assert asyncio.run(look_up_async(source, 'db', 'params')) == 'url of db'
        # No coroutine is left that was never awaited.
        with pytest.raises(ConnectError, match=r"endpoint 'db' .*params returned an awaitable") as caught:
            look_up(source, 'db', 'params')
        assert isinstance(caught.value, TypeError)

    def test_refuses_a_future_that_is_not_a_coroutine(self) -> None:
        async def main() -> None:
            found: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            with pytest.raises(ConnectError, match='returned an awaitable'):
                look_up({'db': lambda endpoint: found}, 'db', 'params')

        asyncio.run(main())

    @pytest.mark.parametrize(
        'source', [lambda endpoint: {'main': 'url'}[endpoint], {'db': lambda endpoint: {'main': 'url'}[endpoint]}]
    )
    def test_a_callable_s_key_error_is_an_unknown_endpoint(self, source: Any) -> None:
        with pytest.raises(UnknownEndpoint, match=r"'db' is not known to the callable in params, .*KeyError\('db'\)"):
            look_up(source, 'db', 'params')
        for one in (source, unknown_to_a_coroutine):
            with pytest.raises(UnknownEndpoint, match="'db' is not known to the callable in params") as caught:
                asyncio.run(look_up_async(one, 'db', 'params'))
            assert isinstance(caught.value.__cause__, KeyError)
            assert caught.value.endpoint == 'db'

    def test_another_error_of_a_callable_is_left_alone(self) -> None:
        def fail(endpoint: str) -> str:
            raise LookupError('of the test')

        with pytest.raises(LookupError, match='of the test') as caught:
            look_up(fail, 'db', 'params')
        assert type(caught.value) is LookupError


class TestToParams:
    def test_makes_a_copy(self) -> None:
        found = {'host': 'x'}
        params = to_params(found, 'db', 'params')
        assert params == found
        assert params is not found

    def test_takes_text_where_it_will_do(self) -> None:
        assert to_params('url', 'db', 'params', text_as='dsn') == {'dsn': 'url'}

    @pytest.mark.parametrize('found', ['secret', None, ['secret'], {1: 'secret'}])
    def test_refuses_what_are_none(self, found: object) -> None:
        with pytest.raises(
            ConnectError, match=r"endpoint 'db' .* expected a mapping .*check its entry in params"
        ) as caught:
            to_params(found, 'db', 'params')
        assert isinstance(caught.value, TypeError)
        assert 'secret' not in str(caught.value)


def test_leaves_no_reference_cycle() -> None:
    def refused() -> Any:
        try:
            raise_connect_error('db', ConnectionRefusedError(111, 'refused'), 'look at the host')
        except ConnectError as exc:
            return weakref.ref(exc)

    def late() -> Any:
        try:
            raise_connect_timeout('db', TimeoutError(), 2.5)
        except ConnectError as exc:
            return weakref.ref(exc)

    gc.disable()
    try:
        assert refused()() is None
        assert late()() is None
    finally:
        gc.enable()


def test_a_timeout_of_the_system_keeps_its_number() -> None:
    with pytest.raises(ConnectTimeout) as found:
        raise_connect_timeout('db', TimeoutError(errno.ETIMEDOUT, 'timed out'), None)
    assert (found.value.errno, found.value.strerror) == (errno.ETIMEDOUT, 'timed out')


def test_what_a_server_has_sent_and_the_driver_cannot_read_is_an_outage_and_is_not_shown() -> None:
    # psycopg2 raises this for the answer of a server that is about to start, if it says so in an encoding of its own.
    cause = UnicodeDecodeError('utf-8', b'd\xe9marrage', 1, 2, 'invalid continuation byte')
    with pytest.raises(ConnectError, match=r'invalid continuation byte \(by utf-8\)') as caught:
        raise_bad_params('db', cause, 'dsn_params')
    assert isinstance(caught.value, UnicodeDecodeError)
    assert 'marrage' not in repr(caught.value.__cause__)
    assert not is_hopeless_unless_overridden('db', caught.value)
    assert str(copy.copy(caught.value)) == str(caught.value)


def test_text_that_the_driver_cannot_send_is_hopeless() -> None:
    cause = UnicodeEncodeError('ascii', 'd\xe9', 1, 2, 'ordinal not in range')
    with pytest.raises(ConnectError, match=r'ordinal not in range \(by ascii\)') as caught:
        raise_bad_params('db', cause, 'dsn_params')
    assert is_hopeless_unless_overridden('db', caught.value)


def test_advice_for_too_many_files() -> None:
    for number in (errno.EMFILE, errno.ENFILE):
        for advise in (advice_for_os_error, advice_for_path_error):
            assert 'fewer files' in advise(OSError(number, 'too many'))


# The managers of sockets and streams, by what they connect to, for threads and for asyncio.
SOCKETS: dict[str, tuple[str, str]] = {
    'TCP, threads': ('socket', 'TcpSocketConnectionManager'),
    'TLS, threads': ('socket', 'SslSocketConnectionManager'),
    'Unix, threads': ('unix', 'UnixSocketConnectionManager'),
    'TCP, asyncio': ('socket_async', 'TcpSocketConnectionManager'),
    'stream, asyncio': ('socket_async', 'TcpStreamConnectionManager'),
    'TLS, asyncio': ('socket_async', 'TcpStreamConnectionManager'),
    'Unix, asyncio': ('unix_async', 'UnixSocketConnectionManager'),
    'Unix stream, asyncio': ('unix_async', 'UnixSocketStreamConnectionManager'),
}
LOOPBACK = IPv4Address('127.0.0.1')


def of_kind(*kinds: str) -> list[str]:
    return [name for name in SOCKETS if name.partition(',')[0] in kinds]


def socket_manager(name: str, client_tls: ssl.SSLContext) -> Any:
    module, manager = SOCKETS[name]
    found = getattr(pytest.importorskip(f'gcpool.contrib.{module}', exc_type=ImportError), manager)
    return found(client_tls) if name.startswith('TLS') else found()


def host_endpoint(name: str, port: object) -> tuple[object, object]:
    return (LOOPBACK if name.startswith('TCP') else '127.0.0.1'), port


def failure_of(run: Run, manager: Any, endpoint: Any, good: Any = None) -> ConnectError:
    """What a manager raises, alone and through a pool, which stays unchanged.

    :param good: an endpoint that is served afterwards
    """
    if isinstance(manager, for_asyncio.BaseConnectionManager):
        return run(lambda: async_failure_of(manager, endpoint, good))
    return sync_failure_of(manager, endpoint, good)


def sync_failure_of(manager: Any, endpoint: Any, good: Any = None, timeout: float = PATIENCE) -> ConnectError:
    with pytest.raises(ConnectError) as alone:
        manager.create(endpoint, timeout)
    pool = for_threads.ConnectionPool[Any, Any](manager, max_size=1, total_max_size=1)
    before = pool.get_stats()
    with pytest.raises(ConnectError) as caught:
        pool.acquire(endpoint, timeout=timeout)
    after = pool.get_stats()
    del before['create_ns'], after['create_ns']
    assert after == {**before, 'asked': 1, 'create_errors': 1}
    assert pool.get_endpoint_pool_size(endpoint) == 0
    if good is not None:
        with pool.connection(good, timeout=PATIENCE):
            assert pool.get_size() == 1
    assert pool.close(PATIENCE) == 0
    return check_endpoint(endpoint, alone.value, caught.value)


async def async_failure_of(manager: Any, endpoint: Any, good: Any) -> ConnectError:
    with pytest.raises(ConnectError) as alone:
        await manager.create(endpoint)
    pool = for_asyncio.ConnectionPool[Any, Any](manager, max_size=1, total_max_size=1)
    before = pool.get_stats()
    with pytest.raises(ConnectError) as caught:
        await pool.acquire(endpoint, timeout=PATIENCE)
    after = pool.get_stats()
    del before['create_ns'], after['create_ns']
    assert after == {**before, 'asked': 1, 'create_errors': 1}
    assert await pool.get_endpoint_pool_size(endpoint) == 0
    if good is not None:
        async with pool.connection(good, timeout=PATIENCE):
            assert pool.get_size() == 1
    assert await pool.close(PATIENCE) == 0
    return check_endpoint(endpoint, alone.value, caught.value)


def check_endpoint(endpoint: object, *errors: ConnectError) -> ConnectError:
    for error in errors:
        assert error.endpoint == endpoint
        assert repr(endpoint) in str(error)
    return errors[-1]


def check_cause(error: ConnectError, kind: type[OSError], advice: str) -> None:
    assert isinstance(error, kind)
    cause = error.__cause__
    assert isinstance(cause, kind)
    assert (error.errno, error.strerror, error.args) == (cause.errno, cause.strerror, cause.args)
    assert str(error).endswith(f'; {advice}')


@pytest.fixture
def refused_port() -> Iterator[int]:
    with closed_port() as port:
        yield port


class TestSocketsThatCannotBeConnected:
    @pytest.mark.parametrize('name', of_kind('TCP', 'stream', 'TLS'))
    def test_refused(
        self,
        run: Run,
        client_tls: ssl.SSLContext,
        refused_port: int,
        tcp4_server: EchoServer,
        tls_server: EchoServer,
        name: str,
        open_descriptors: Callable[[], int],
    ) -> None:
        server = tls_server if name.startswith('TLS') else tcp4_server
        good = ('localhost', server.port) if name.startswith('TLS') else host_endpoint(name, server.port)
        endpoint = host_endpoint(name, refused_port)
        error = failure_of(run, socket_manager(name, client_tls), endpoint, good)
        check_cause(error, ConnectionRefusedError, 'check that the server is running and listens on that host and port')
        assert error.errno == errno.ECONNREFUSED  # type: ignore[attr-defined]
        server.wait_until_open(0)
        # At its first connect a loop also opens something for itself.
        before = open_descriptors()
        failure_of(run, socket_manager(name, client_tls), endpoint)
        assert open_descriptors() == before

    @pytest.mark.parametrize('name', of_kind('stream', 'TLS'))
    def test_host_that_does_not_resolve(self, run: Run, client_tls: ssl.SSLContext, name: str) -> None:
        error = failure_of(run, socket_manager(name, client_tls), ('no-such-host.invalid', 80))
        check_cause(error, socket.gaierror, 'check the host name: it does not resolve')

    @pytest.mark.parametrize('name', of_kind('stream', 'TLS'))
    @pytest.mark.parametrize('host', ['x' * 70 + '.invalid', 'a..b'])
    def test_host_name_that_is_none(self, run: Run, client_tls: ssl.SSLContext, name: str, host: str) -> None:
        error = failure_of(run, socket_manager(name, client_tls), (host, 80))
        assert isinstance(error, UnicodeError)
        assert str(error).endswith('; check the host name: it is not valid')

    @pytest.mark.parametrize('name', of_kind('TLS'))
    def test_server_without_tls(self, run: Run, client_tls: ssl.SSLContext, tcp4_server: EchoServer, name: str) -> None:
        error = failure_of(run, socket_manager(name, client_tls), ('localhost', tcp4_server.port))
        check_cause(
            error,
            ssl.SSLError,
            'check that the server speaks TLS there, and that its certificate is trusted and names the host',
        )
        assert error.reason == error.__cause__.reason  # type: ignore[attr-defined, union-attr]
        tcp4_server.wait_until_open(0)

    @pytest.mark.parametrize('name', of_kind('TLS'))
    def test_certificate_of_another_host(
        self, run: Run, client_tls: ssl.SSLContext, tls_server: EchoServer, name: str
    ) -> None:
        good = ('localhost', tls_server.port)
        error = failure_of(run, socket_manager(name, client_tls), ('127.0.0.1', tls_server.port), good)
        check_cause(
            error,
            ssl.SSLCertVerificationError,
            'check that the server speaks TLS there, and that its certificate is trusted and names the host',
        )
        cause = error.__cause__
        assert error.verify_code == cause.verify_code != 0  # type: ignore[attr-defined, union-attr]
        tls_server.wait_until_open(0)

    @pytest.mark.parametrize('name', of_kind('Unix', 'Unix stream'))
    def test_path_where_nothing_is(
        self,
        run: Run,
        client_tls: ssl.SSLContext,
        name: str,
        unix_server: EchoServer,
        open_descriptors: Callable[[], int],
    ) -> None:
        good = Path(unix_server.listener.getsockname())
        endpoint = good.with_name('none.sock')
        error = failure_of(run, socket_manager(name, client_tls), endpoint, good)
        check_cause(error, FileNotFoundError, 'check the path: it does not exist')
        unix_server.wait_until_open(0)
        # At its first connect a loop also opens something for itself.
        before = open_descriptors()
        failure_of(run, socket_manager(name, client_tls), endpoint)
        assert open_descriptors() == before

    @pytest.mark.parametrize('name', of_kind('Unix', 'Unix stream'))
    def test_path_where_nobody_listens(
        self, run: Run, client_tls: ssl.SSLContext, name: str, socket_directory: Path
    ) -> None:
        path = socket_directory / 'left.sock'
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(path))
        error = failure_of(run, socket_manager(name, client_tls), path)
        check_cause(error, ConnectionRefusedError, 'check that the server is running and listens on that path')

    @linux_only
    @pytest.mark.parametrize('name', of_kind('Unix', 'Unix stream'))
    def test_path_of_another_kind_of_socket(
        self, run: Run, client_tls: ssl.SSLContext, name: str, socket_directory: Path
    ) -> None:
        path = socket_directory / 'datagrams.sock'
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(str(path))
            error = failure_of(run, socket_manager(name, client_tls), path)
        check_cause(error, OSError, 'check the path, and that a server listens there on a stream socket')

    def test_path_without_permission(self) -> None:
        # Root has all permissions.
        with pytest.raises(PermissionError, match=r"'/a\.sock' .*; check the permissions of the socket and") as caught:
            _endpoints.raise_not_connected_to_path('/a.sock', PermissionError(errno.EACCES, 'denied'), None)
        assert isinstance(caught.value, ConnectError)

    @pytest.mark.parametrize('name', SOCKETS)
    def test_no_descriptor_left(
        self, run: Run, client_tls: ssl.SSLContext, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        manager = socket_manager(name, client_tls)
        endpoint = Path('/a.sock') if name.startswith('Unix') else host_endpoint(name, 1)

        class Refused(socket.socket):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)
                if 'fileno' not in kwargs:
                    self.close()
                    raise OSError(errno.EMFILE, 'Too many open files')

        # Nothing is changed for an event loop that exists by now.
        for module in (importlib.import_module(type(manager).__module__), _sockets, _sockets_async):
            monkeypatch.setattr(module, 'socket', Namespace(Refused))
        error = failure_of(run, manager, endpoint)
        check_cause(error, OSError, 'have fewer files and connections open, or raise the limit on them')


class Namespace:
    """The module socket, with another class of sockets."""

    def __init__(self, kind: type[socket.socket]) -> None:
        self.socket = kind

    def __getattr__(self, name: str) -> Any:
        return getattr(socket, name)


class TestSocketsThatTakeTooLong:
    """For threads: asyncio's connects are cancelled."""

    @linux_only
    @pytest.mark.parametrize('timeout', [0, 0.05])
    @pytest.mark.parametrize('name', ['TCP, threads', 'TLS, threads'])
    def test_connecting(self, client_tls: ssl.SSLContext, name: str, timeout: float) -> None:
        with full_listener(socket.AF_INET, ('127.0.0.1', 0)) as listener:
            endpoint = host_endpoint(name, listener.getsockname()[1])
            check_late(sync_failure_of(socket_manager(name, client_tls), endpoint, timeout=timeout))

    @pytest.mark.parametrize('timeout', [0, 0.05])
    def test_handshake(self, client_tls: ssl.SSLContext, silent_listener: socket.socket, timeout: float) -> None:
        endpoint = ('127.0.0.1', silent_listener.getsockname()[1])
        check_late(sync_failure_of(socket_manager('TLS, threads', client_tls), endpoint, timeout=timeout))

    def test_resolver(self, client_tls: ssl.SSLContext) -> None:
        with resolver_without_answer() as host:
            check_late(sync_failure_of(socket_manager('TLS, threads', client_tls), (host, 1), timeout=0.05))

    @linux_only
    @pytest.mark.parametrize('timeout', [0, 0.05])
    def test_backlog(self, client_tls: ssl.SSLContext, socket_directory: Path, timeout: float) -> None:
        path = socket_directory / 'full.sock'
        with full_listener(socket.AF_UNIX, str(path)):
            check_late(sync_failure_of(socket_manager('Unix, threads', client_tls), path, timeout=timeout))


def check_late(error: ConnectError) -> None:
    assert isinstance(error, ConnectTimeout)
    # The time that was left of the caller's limit.
    assert re.search(
        r' could be made within 0(\.0\d{1,2})? s: TimeoutError: .*is the time limit too short\?$', str(error)
    )
    assert isinstance(error.__cause__, TimeoutError)


BAD_IP_ENDPOINTS: list[tuple[object, type[Exception]]] = [
    (None, TypeError),
    (5, TypeError),
    ('127.0.0.1:80', TypeError),
    ('ab', TypeError),
    (b'ab', TypeError),
    (LOOPBACK, TypeError),
    ((LOOPBACK,), TypeError),
    ((LOOPBACK, 80, 0), TypeError),
    (('127.0.0.1', 80), TypeError),
    ((b'127.0.0.1', 80), TypeError),
    ((LOOPBACK, '80'), TypeError),
    ((LOOPBACK, None), TypeError),
    ((LOOPBACK, 80.0), TypeError),
    ((LOOPBACK, True), TypeError),
    ((IPv6Address('::1'), True), TypeError),
    ((LOOPBACK, 0), ValueError),
    ((LOOPBACK, -1), ValueError),
    ((LOOPBACK, 65536), ValueError),
    ((LOOPBACK, 10**30), ValueError),
]
BAD_HOST_ENDPOINTS: list[tuple[object, type[Exception]]] = [
    (None, TypeError),
    (5, TypeError),
    ('localhost:443', TypeError),
    ('ab', TypeError),
    (('localhost',), TypeError),
    (('localhost', 443, 0), TypeError),
    ((LOOPBACK, 443), TypeError),
    ((b'localhost', 443), TypeError),
    (('localhost', None), TypeError),
    (('localhost', True), TypeError),
    (('localhost', 443.0), TypeError),
    (('localhost', b'443'), TypeError),
    (('localhost', 0), ValueError),
    # The resolver would find port 34463.
    (('localhost', 99999), ValueError),
    (('localhost', '99999'), ValueError),
    (('localhost', ''), ValueError),
    (('localhost', '-1'), ValueError),
    (('localhost', 'http\0'), ValueError),
    (('localhost\0.invalid', 443), ValueError),
]
BAD_PATHS: list[tuple[object, type[Exception]]] = [
    (None, TypeError),
    (5, TypeError),
    (('localhost', 80), TypeError),
    (Path('/tmp/' + 'x' * 200), ValueError),
    ('/tmp/a.sock\0b', ValueError),
    (b'/tmp/a.sock\0b', ValueError),
    ('/tmp/\ud800.sock', ValueError),
]


class TestEndpointsThatAreNone:
    @pytest.mark.parametrize(('endpoint', 'kind'), BAD_IP_ENDPOINTS, ids=repr)
    @pytest.mark.parametrize('name', of_kind('TCP'))
    def test_addresses(
        self, run: Run, client_tls: ssl.SSLContext, name: str, endpoint: object, kind: type[Exception]
    ) -> None:
        error = failure_of(run, socket_manager(name, client_tls), endpoint)
        assert isinstance(error, kind)
        expected = '(ipaddress.IPv4Address or IPv6Address, port), the port an int from 1 to 65535'
        assert str(error).startswith(f'expected an endpoint {expected}, ')
        assert str(error).endswith(f', got {endpoint!r}')
        if not (isinstance(endpoint, tuple) and len(endpoint) == 2 and isinstance(endpoint[0], str)):
            assert str(error) == f'expected an endpoint {expected}, got {endpoint!r}'

    @pytest.mark.parametrize('name', of_kind('TCP'))
    def test_addresses_that_are_strings_name_what_makes_one(
        self, run: Run, client_tls: ssl.SSLContext, name: str
    ) -> None:
        manager = socket_manager(name, client_tls)
        assert "such as (ipaddress.ip_address('::1'), 80)" in str(failure_of(run, manager, ('::1', 80)))
        assert 'socket.getaddrinfo()' in str(failure_of(run, manager, ('localhost', 80)))

    @pytest.mark.parametrize(('endpoint', 'kind'), BAD_HOST_ENDPOINTS, ids=repr)
    @pytest.mark.parametrize('name', of_kind('stream', 'TLS'))
    def test_hosts(
        self, run: Run, client_tls: ssl.SSLContext, name: str, endpoint: object, kind: type[Exception]
    ) -> None:
        error = failure_of(run, socket_manager(name, client_tls), endpoint)
        assert isinstance(error, kind)
        assert str(error).startswith('expected an endpoint (host name, port), the port an int from 1 to 65535')
        assert str(error).endswith(f', got {endpoint!r}')

    @pytest.mark.parametrize(('endpoint', 'kind'), BAD_PATHS, ids=lambda value: repr(value)[:40])
    @pytest.mark.parametrize('name', of_kind('Unix', 'Unix stream'))
    def test_paths(
        self, run: Run, client_tls: ssl.SSLContext, name: str, endpoint: object, kind: type[Exception]
    ) -> None:
        error = failure_of(run, socket_manager(name, client_tls), endpoint)
        assert isinstance(error, kind)
        assert str(error).startswith('expected an endpoint that is a path (str, bytes or os.PathLike)')
        assert str(error).endswith(f', got {endpoint!r}')

    def test_a_path_that_is_too_long_is_an_error_of_the_system_too(self, client_tls: ssl.SSLContext) -> None:
        with pytest.raises(OSError, match='107 bytes') as caught:
            socket_manager('Unix, threads', client_tls).create('/tmp/' + 'x' * 200)
        assert isinstance(caught.value, (ConnectError, ValueError))
        assert str(caught.value.__cause__) == 'AF_UNIX path too long'


class Index:
    """A number type, as other libraries have them."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __index__(self) -> int:
        return self._number


class TestEndpointsThatWillDo:
    @pytest.mark.parametrize(
        ('name', 'kind'),
        [(name, kind) for name in of_kind('TCP', 'stream') for kind in (int, Index)] + [('stream, asyncio', str)],
    )
    def test_port(
        self, run: Run, client_tls: ssl.SSLContext, name: str, kind: Callable[[int], object], tcp4_server: EchoServer
    ) -> None:
        connect(run, socket_manager(name, client_tls), host_endpoint(name, kind(tcp4_server.port)))

    def test_port_for_tls(self, client_tls: ssl.SSLContext, tls_server: EchoServer) -> None:
        manager = socket_manager('TLS, threads', client_tls)
        endpoint = ('localhost', str(tls_server.port))
        manager.dispose(endpoint, manager.create(endpoint, PATIENCE))

    @pytest.mark.parametrize('name', of_kind('stream', 'TLS'))
    def test_name_of_a_service(self, run: Run, client_tls: ssl.SSLContext, name: str) -> None:
        # The resolver does not know it.
        error = failure_of(run, socket_manager(name, client_tls), ('127.0.0.1', 'no-such-service'))
        assert isinstance(error, socket.gaierror)

    @linux_only
    @pytest.mark.parametrize('name', of_kind('Unix', 'Unix stream'))
    @pytest.mark.parametrize('kind', [str, str.encode])
    def test_path(
        self,
        run: Run,
        client_tls: ssl.SSLContext,
        name: str,
        kind: Callable[[str], object],
        unix_server: EchoServer,
    ) -> None:
        connect(run, socket_manager(name, client_tls), kind(unix_server.listener.getsockname()))

    @linux_only
    @pytest.mark.parametrize('name', of_kind('Unix', 'Unix stream'))
    def test_abstract_name(self, run: Run, client_tls: ssl.SSLContext, name: str) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            # The system chooses a free one.
            listener.bind('')
            listener.listen()
            path = listener.getsockname()
            assert path[0] == 0
            connect(run, socket_manager(name, client_tls), path)


def connect(run: Run, manager: Any, endpoint: Any) -> None:
    """Create a connection and close it."""
    if not isinstance(manager, for_asyncio.BaseConnectionManager):
        manager.dispose(endpoint, manager.create(endpoint, PATIENCE))
        return

    async def main() -> None:
        await manager.dispose(endpoint, await manager.create(endpoint))

    run(main)


class TestInterruptions:
    @pytest.mark.skipif(sys.platform == 'win32', reason='signals do not interrupt a system call there')
    def test_pass_through_for_threads(
        self, client_tls: ssl.SSLContext, silent_listener: socket.socket, open_descriptors: Callable[[], int]
    ) -> None:
        main_thread = threading.main_thread().ident
        assert main_thread is not None
        pool = for_threads.ConnectionPool[Any, Any](socket_manager('TLS, threads', client_tls))

        def interrupt() -> None:
            with silent_listener.accept()[0] as conn:
                conn.settimeout(PATIENCE)
                # The client has begun the handshake, and waits.
                conn.recv(1)
                signal.pthread_kill(main_thread, signal.SIGINT)

        before = open_descriptors()
        interrupter = threading.Thread(target=interrupt, daemon=True)
        interrupter.start()
        with pytest.raises(KeyboardInterrupt):
            pool.acquire(('127.0.0.1', silent_listener.getsockname()[1]), timeout=PATIENCE)
        interrupter.join(PATIENCE)
        assert pool.get_size() == 0
        assert pool.close() == 0
        assert open_descriptors() == before

    @pytest.mark.parametrize('name', ['stream, asyncio', 'TLS, asyncio'])
    def test_pass_through_for_asyncio(
        self, run: Run, client_tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        async def main() -> None:
            connecting = asyncio.Event()

            async def never(*args: object, **kwargs: object) -> None:
                connecting.set()
                await asyncio.get_running_loop().create_future()

            monkeypatch.setattr(socket_async, 'connect_tcp', never)
            pool = for_asyncio.ConnectionPool[Any, Any](socket_manager(name, client_tls))
            task = asyncio.ensure_future(pool.acquire(('127.0.0.1', 1)))
            await connecting.wait()
            task.cancel()
            await asyncio.wait((task,))
            assert task.cancelled()
            assert pool.get_size() == 0
            with pytest.raises(PoolTimeout) as caught:
                await pool.acquire(('127.0.0.1', 1), timeout=0.01)
            assert not isinstance(caught.value, ConnectError)
            assert pool.get_size() == 0
            await pool.close()

        run(main)
