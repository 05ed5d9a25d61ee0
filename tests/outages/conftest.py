"""Servers, proxies and clients for the tests of outages."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.outages.backends import Backend, running_backend
from tests.outages.drivers import DRIVERS, LONG, Driver
from tests.outages.load import Client
from tests.outages.proxy import Proxy

Backends = Callable[[str, int], Backend]


@pytest.fixture(scope='session')
def backends() -> Iterator[Backends]:
    """Gives the servers of a kind by their number; each is started when it is first asked for."""
    with contextlib.ExitStack() as stack:
        running: dict[tuple[str, int], Backend] = {}

        def get(kind: str, number: int) -> Backend:
            if (kind, number) not in running:
                running[kind, number] = stack.enter_context(running_backend(kind))
            return running[kind, number]

        yield get


@pytest.fixture(params=DRIVERS, ids=repr)
def driver(request: pytest.FixtureRequest) -> Driver:
    found: Driver = request.param
    return found


@pytest.fixture
def backend(backends: Backends, driver: Driver) -> Backend:
    """The server of the driver."""
    return clean(backends(driver.backend, 0))


@pytest.fixture
def other_backend(backends: Backends, driver: Driver) -> Backend:
    """A second server of the same kind, to which nothing happens."""
    return clean(backends(driver.backend, 1))


def clean(server: Backend) -> Backend:
    """A test that failed may have left something behind."""
    if server.count_sessions():
        server.terminate_sessions()
    return server


@pytest.fixture
def proxy(backend: Backend) -> Iterator[Proxy]:
    """A proxy in front of the server."""
    with Proxy(backend.host, backend.port) as proxy:
        yield proxy


@pytest.fixture
def make_client(driver: Driver) -> Iterator[Callable[..., Client]]:
    """Makes clients with a pool, which are shut down at the end; the test has closed their pools, unless it failed."""
    with contextlib.ExitStack() as stack:

        def make(
            addresses: Any,
            *,
            ping: bool = False,
            timeout: float = LONG,
            answer_timeout: float = LONG,
            **pool_parameters: Any,
        ) -> Client:
            client = driver.client(
                addresses, ping=ping, timeout=timeout, answer_timeout=answer_timeout, **pool_parameters
            )
            stack.callback(client.shut_down)
            return client

        yield make
