"""Several spellings of one server or file, in a pool of one connection: all of them get that connection."""

import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gcpool.asyncio
import gcpool.threading
from gcpool.contrib.socket import SslSocketConnectionManager
from gcpool.contrib.socket_async import TcpStreamConnectionManager
from gcpool.contrib.sqlite3 import SqliteConnectionManager
from tests.contrib.conftest import Run
from tests.contrib.servers import PATIENCE

Spellings = tuple[Any, list[Any]]


def tls(request: pytest.FixtureRequest) -> Spellings:
    port = request.getfixturevalue('tls_server').port
    context: ssl.SSLContext = request.getfixturevalue('client_tls')
    return SslSocketConnectionManager(context), [('localhost', port), ('LOCALHOST', port), ('LocalHost', str(port))]


def streams(request: pytest.FixtureRequest) -> Spellings:
    port = request.getfixturevalue('tcp4_server').port
    return TcpStreamConnectionManager(), [('localhost', port), ('LOCALHOST', port), ('localhost', str(port))]


def sqlite(request: pytest.FixtureRequest) -> Spellings:
    path: Path = request.getfixturevalue('tmp_path') / 'a.db'
    request.getfixturevalue('monkeypatch').chdir(path.parent)
    return SqliteConnectionManager(), [str(path), path, os.fsencode(path), path.name, f'./{path.name}']


def unix(request: pytest.FixtureRequest) -> Spellings:
    path: Path = request.getfixturevalue('socket_directory') / 'echo.sock'
    request.getfixturevalue('unix_server')
    from gcpool.contrib.unix import UnixSocketConnectionManager

    return UnixSocketConnectionManager(), [path, str(path), os.fsencode(path), f'{path.parent}/./{path.name}']


def aiosqlite(request: pytest.FixtureRequest) -> Spellings:
    pytest.importorskip('aiosqlite')
    from gcpool.contrib.aiosqlite import SqliteConnectionManager as AsyncSqliteConnectionManager

    return AsyncSqliteConnectionManager(), sqlite(request)[1]


@pytest.mark.parametrize('case', [tls, sqlite, unix], ids=lambda case: case.__name__)
def test_in_threads(request: pytest.FixtureRequest, case: Callable[[pytest.FixtureRequest], Spellings]) -> None:
    manager, spellings = case(request)
    pool: gcpool.threading.ConnectionPool[Any, Any] = gcpool.threading.ConnectionPool(manager, max_size=1)
    seen = set()
    for acquired, released in zip(spellings, [*spellings[1:], spellings[0]], strict=True):
        conn = pool.acquire(acquired, timeout=PATIENCE)
        seen.add(id(conn))
        pool.release(conn, released)
    assert len(seen) == pool.get_stats()['created'] == pool.get_size() == 1
    assert pool.close() == 0


@pytest.mark.parametrize('case', [streams, aiosqlite], ids=lambda case: case.__name__)
def test_on_asyncio(
    request: pytest.FixtureRequest, run: Run, case: Callable[[pytest.FixtureRequest], Spellings]
) -> None:
    manager, spellings = case(request)

    async def main() -> None:
        pool: gcpool.asyncio.ConnectionPool[Any, Any] = gcpool.asyncio.ConnectionPool(manager, max_size=1)
        seen = set()
        for acquired, released in zip(spellings, [*spellings[1:], spellings[0]], strict=True):
            conn = await pool.acquire(acquired, timeout=PATIENCE)
            seen.add(id(conn))
            await pool.release(conn, released)
        assert len(seen) == pool.get_stats()['created'] == pool.get_size() == 1
        assert await pool.close() == 0

    run(main)
