"""A PostgreSQL server, and a proxy in front of it, for the tests of gcpool.psycopg_pool in both runtimes."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.asyncio_.coroutine_tests import loop_kind, pytest_generate_tests, pytest_pyfunc_call
from tests.contrib.servers import PostgresServer, running_postgres
from tests.outages.proxy import Proxy

__all__ = ['loop_kind', 'pytest_generate_tests', 'pytest_pyfunc_call']


def psycopg_is_usable() -> bool:
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return False
    return True


if not psycopg_is_usable():
    # A conftest cannot be skipped.
    collect_ignore_glob = ['test_*.py', 'threads/*']


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if 'psycopg_pool' in item.nodeid:
            item.add_marker(pytest.mark.postgres)


@pytest.fixture(scope='session')
def postgres() -> Iterator[PostgresServer]:
    """A private PostgreSQL server."""
    with running_postgres(max_connections=60) as server:
        yield server


@pytest.fixture
def dsn(postgres: PostgresServer) -> str:
    """Where it is."""
    return postgres.dsn


@pytest.fixture
def proxy(postgres: PostgresServer) -> Iterator[Proxy]:
    """A proxy in front of it."""
    with Proxy(postgres.host, postgres.port) as proxy:
        yield proxy
        proxy.passes()


@pytest.fixture
def proxied(postgres: PostgresServer, proxy: Proxy) -> str:
    """Where the proxy is."""
    from psycopg.conninfo import make_conninfo

    return str(make_conninfo(postgres.dsn, host=proxy.host, port=proxy.port, sslmode='disable'))


@pytest.fixture
def kill(postgres: PostgresServer) -> Callable[[Any], None]:
    """Has the server end a connection, and waits until that has arrived."""
    import psycopg

    def kill(conn: Any) -> None:
        with psycopg.connect(postgres.dsn, autocommit=True) as other:
            other.execute('SELECT pg_terminate_backend(%s, 30000)', [conn.info.backend_pid])
        while True:
            with contextlib.suppress(psycopg.Error):
                conn.pgconn.consume_input()
                continue
            return

    return kill
