"""No thread can be started (a limit of the container, or of the system): healthy connections are served and kept."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gcpool.contrib import _watchdog
from gcpool.threading import ConnectionPool
from tests.contrib.kinds import SERVERS, Kind, http, of_driver, psycopg, psycopg2, pymysql, redis, tcp, tls, unix
from tests.contrib.servers import PATIENCE

CASES = [
    *((kind, {}) for kind in (tcp, tls, http)),
    *([(unix, {})] if hasattr(socket, 'AF_UNIX') else []),
    *((kind, parameters) for kind in (pymysql, redis) for parameters in ({}, {'ping': True})),
    *(
        (kind, parameters)
        for kind in (psycopg, psycopg2)
        for parameters in ({}, {'ping': True}, {'rollback_timeout': 10.0}, {'ping': True, 'rollback_timeout': 10.0})
    ),
]


@contextlib.contextmanager
def no_thread_can_be_started() -> Iterator[list[str]]:
    """Refuse to start any thread except those of the test servers; returns the names of the refused ones."""
    refused = []
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith(SERVERS):
            start(thread)
            return
        refused.append(thread.name)
        raise RuntimeError("can't start new thread")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, 'start', refuse)
        # A running watchdog would do.
        patch.setattr(_watchdog._Watchdog, '_current', None)
        yield refused


@pytest.mark.parametrize(
    ('kind', 'parameters'), CASES, ids=[' '.join((kind.__name__, *parameters)) for kind, parameters in CASES]
)
def test_healthy_connections_are_served_and_kept(
    request: pytest.FixtureRequest, kind: Callable[..., Kind], parameters: dict[str, Any]
) -> None:
    manager, endpoint, use = of_driver(request, kind, **parameters)
    with no_thread_can_be_started():
        pool = ConnectionPool[Any, Any](manager, max_size=1, acquire_timeout=PATIENCE, check_timeout=PATIENCE)
        first = pool.acquire(endpoint)
        pool.release(first, endpoint)
        for _ in range(3):
            with pool.connection(endpoint) as conn:
                assert conn is first
                use(conn)
        stats = pool.get_stats()
        assert (stats['created'], stats['disposed'], stats['dead']) == (1, 0, 0)
        pool.close()


def test_a_name_is_resolved_in_the_thread_that_asks(request: pytest.FixtureRequest) -> None:
    manager, endpoint, use = tls(request)
    with no_thread_can_be_started() as refused:
        sock = manager.create(endpoint, PATIENCE)
    assert len(refused) == 1
    use(sock)
    manager.dispose(endpoint, sock)
