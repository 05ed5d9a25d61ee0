"""After one dead connection is found the others of its endpoint are checked before they are served."""

from collections.abc import Callable

import pytest

from tests.outages.backends import Backend
from tests.outages.drivers import Driver
from tests.outages.load import Client
from tests.outages.proxy import Proxy

IDLE = 3

pytestmark = pytest.mark.outage

MakeClient = Callable[..., Client]


def filled(
    make_client: MakeClient, proxy: Proxy, other_proxy: Proxy, idle: int = IDLE
) -> tuple[Client, list[int], list[int]]:
    """A client whose pool checks nothing that was used lately, and the connections to its two endpoints."""
    client = make_client(
        {'main': (proxy.host, proxy.port), 'other': (other_proxy.host, other_proxy.port)},
        ping=True,
        max_size=IDLE,
        check_interval=3600.0,
        check_timeout=10.0,
    )
    filled = client.fill('main', idle)
    others = client.fill('other', IDLE)
    assert sorted(client.fill('main', idle)) == sorted(filled)
    assert client.ledger.checks == []
    return client, filled, others


def close(client: Client, backend: Backend) -> None:
    client.close_pool(10.0)
    assert all(count == 1 for count in client.ledger.disposed.values())
    assert len(client.ledger.disposed) == len(client.ledger.endpoints)
    backend.wait_for_sessions(0)


def test_one_request_fails_for_all_dead_connections(
    driver: Driver, backend: Backend, proxy: Proxy, make_client: MakeClient
) -> None:
    with Proxy(backend.host, backend.port) as other_proxy:
        client, idle, others = filled(make_client, proxy, other_proxy)
        proxy.half_opens()
        failed = client.visit('main')
        assert failed.failed == 'request', failed
        assert client.ledger.disposed == {failed.number: 1}

        new = client.fill('main', IDLE)
        # Each of the others was checked, once, and found dead.
        assert sorted(client.ledger.checks) == sorted(set(idle) - {failed.number})
        assert set(client.ledger.disposed) == set(idle)
        assert not set(new) & set(idle)
        # The new ones are no suspects, and the other endpoint's never were.
        assert not client.visit('main').failed
        assert sorted(client.fill('other', IDLE)) == sorted(others)
        assert len(client.ledger.checks) == IDLE - 1
        close(client, backend)


def test_suspects_that_live_are_served_and_no_longer_suspect(
    driver: Driver, backend: Backend, proxy: Proxy, make_client: MakeClient
) -> None:
    with Proxy(backend.host, backend.port) as other_proxy:
        client, first, others = filled(make_client, proxy, other_proxy, idle=1)
        living: list[int] = []

        def lose_it_and_make_others() -> None:
            proxy.half_opens()
            living.extend(client.fill('main', IDLE - 1))

        failed = client.visit('main', lose_it_and_make_others)
        assert failed.failed == 'request', failed
        assert first == [failed.number]
        assert client.ledger.checks == []

        assert sorted(client.fill('main', IDLE - 1)) == sorted(living)
        assert sorted(client.ledger.checks) == sorted(living)
        assert sorted(client.fill('main', IDLE - 1)) == sorted(living)
        assert sorted(client.fill('other', IDLE)) == sorted(others)
        assert len(client.ledger.checks) == len(living)
        close(client, backend)


def test_a_connection_made_after_the_find_is_no_suspect(
    driver: Driver, backend: Backend, proxy: Proxy, make_client: MakeClient
) -> None:
    with Proxy(backend.host, backend.port) as other_proxy:
        client, idle, _ = filled(make_client, proxy, other_proxy)
        proxy.resets()
        proxy.passes()
        assert client.visit('main').failed == 'request'
        # Finds all of them, and makes new ones.
        client.fill('main', IDLE)
        assert set(client.ledger.disposed) == set(idle)
        checks = len(client.ledger.checks)
        for _ in range(IDLE):
            assert not client.visit('main').failed
        assert len(client.ledger.checks) == checks
        close(client, backend)
