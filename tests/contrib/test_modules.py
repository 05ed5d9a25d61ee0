"""The names in the modules of the connection managers, and their errors if the module cannot be used."""

import importlib
import inspect
import socket
import sys

import pytest

from gcpool.managers import AsyncConnectionManager, SyncConnectionManager

# What programs import; from the first modules also programs for generic_connection_pool.
NAMES = {
    'socket': [
        'Hostname',
        'IpAddress',
        'Port',
        'SocketAlivenessCheckingMixin',
        'SslEndpoint',
        'SslSocketAlivenessCheckingMixin',
        'SslSocketConnectionManager',
        'TcpEndpoint',
        'TcpSocketConnectionManager',
        'socket_nonblocking',
        'socket_timeout',
    ],
    'socket_async': [
        'SocketAlivenessCheckingMixin',
        'Stream',
        'StreamAlivenessCheckingMixin',
        'TcpEndpoint',
        'TcpSocketConnectionManager',
        'TcpStreamConnectionManager',
        'TcpStreamEndpoint',
    ],
    'unix': ['CheckSocketAlivenessMixin', 'UnixSocketConnectionManager', 'UnixSocketEndpoint'],
    'unix_async': ['UnixSocketConnectionManager', 'UnixSocketEndpoint', 'UnixSocketStreamConnectionManager'],
    'psycopg2': ['Connection', 'DbConnectionManager', 'DbEndpoint', 'DsnParameters'],
    'asyncpg': ['Connection', 'DbConnectionManager', 'DbEndpoint', 'DsnParameters'],
    'sqlite3': ['SqliteConnectionManager', 'SqliteEndpoint'],
    'aiosqlite': ['Connection', 'SqliteConnectionManager', 'SqliteEndpoint'],
    'psycopg': ['AsyncConnection', 'AsyncConnectionManager', 'Connection', 'ConnectionManager', 'DbEndpoint'],
    'pymysql': ['Connection', 'DbConnectionManager', 'DbEndpoint', 'DbParameters'],
    'asyncmy': ['Connection', 'DbConnectionManager', 'DbEndpoint', 'DbParameters'],
    'redis': ['AsyncConnection', 'AsyncRedisConnectionManager', 'Connection', 'RedisConnectionManager'],
    'http': ['Connection', 'HttpConnectionManager', 'HttpEndpoint'],
}


@pytest.mark.parametrize('name', NAMES)
def test_names(name: str) -> None:
    module = pytest.importorskip(f'gcpool.contrib.{name}', exc_type=ImportError)
    assert set(NAMES[name]) <= set(module.__all__)
    assert all(hasattr(module, exported) for exported in module.__all__)


@pytest.mark.parametrize('name', NAMES)
def test_managers_can_be_made(name: str) -> None:
    module = pytest.importorskip(f'gcpool.contrib.{name}', exc_type=ImportError)
    managers = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and value.__module__ == module.__name__ and value.__name__.endswith('Manager')
    ]
    assert managers
    for manager in managers:
        assert issubclass(manager, (AsyncConnectionManager, SyncConnectionManager))
        assert not inspect.isabstract(manager)


@pytest.mark.parametrize('name', ['gcpool.contrib.unix', 'gcpool.contrib.unix_async'])
def test_says_so_where_there_are_no_unix_sockets(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, 'AF_UNIX', raising=False)
    monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(ImportError, match=f'{name} needs Unix domain sockets'):
        importlib.import_module(name)


@pytest.mark.parametrize('driver', ['psycopg', 'psycopg2', 'asyncpg', 'pymysql', 'asyncmy', 'redis', 'aiosqlite'])
def test_says_what_to_install_for_a_driver(driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f'gcpool.contrib.{driver}'
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, driver, None)
    with pytest.raises(ImportError, match=rf'(?i){name} needs {driver}: pip install "gcpool\[{driver}\]"') as caught:
        importlib.import_module(name)
    assert caught.value.name == driver
