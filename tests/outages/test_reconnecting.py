"""The outages once more, with a pool that keeps connections, connects in the background, and waits for its server."""

import functools
import inspect
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.outages import test_outages
from tests.outages.backends import Backend
from tests.outages.drivers import Driver
from tests.outages.load import Client, messages
from tests.outages.test_outages import (
    HOLD,
    MAX_SIZE,
    ROUNDS,
    WORKERS,
    assert_bounded,
    assert_healthy,
    assert_only_in_flight_failed,
    close,
)

MINIMUM = 2
OPTIONS: dict[str, Any] = {
    'min_size': MINIMUM,
    'create_in_background': True,
    'reconnect_timeout': 60.0,
    'keepalive_interval': 0.5,
}

pytestmark = pytest.mark.outage

MakeClient = Callable[..., Client]

# In which the pool behaves as without these options, as far as its users can see.
THE_SAME: list[tuple[Callable[..., None], dict[str, Any]]] = [
    (test_outages.test_first_acquire_after_a_restart, {}),
    (test_outages.test_sessions_terminated_by_an_administrator, {}),
    (test_outages.test_idle_sessions_terminated, {}),
    (test_outages.test_network_out_under_load, {'outage': 'drops'}),
    (test_outages.test_network_out_under_load, {'outage': 'resets'}),
    (test_outages.test_half_open_connections, {}),
]


@pytest.mark.parametrize(
    ('test', 'arguments'),
    [
        pytest.param(test, arguments, id='-'.join([test.__name__.removeprefix('test_'), *arguments.values()]))
        for test, arguments in THE_SAME
    ],
)
def test_again(
    request: pytest.FixtureRequest,
    driver: Driver,
    make_client: MakeClient,
    test: Callable[..., None],
    arguments: dict[str, Any],
) -> None:
    fixtures = {
        name: request.getfixturevalue(name) for name in inspect.signature(test).parameters if name not in arguments
    }
    test(**{**fixtures, **arguments, 'make_client': functools.partial(make_client, **OPTIONS)})


def test_nobody_fails_to_connect_while_the_server_restarts(
    driver: Driver,
    backend: Backend,
    other_backend: Backend,
    make_client: MakeClient,
    record_property: Callable[[str, object], None],
) -> None:
    client = make_client(
        {'main': (backend.host, backend.port), 'other': (other_backend.host, other_backend.port)},
        max_size=MAX_SIZE,
        **OPTIONS,
    )
    client.fill('main', MAX_SIZE)
    client.start_load('main', WORKERS, HOLD)
    client.start_load('other', 1)
    client.wait_for_successes('main', WORKERS * ROUNDS)

    killed = time.monotonic()
    backend.kill()
    client.wait_for_successes('other', ROUNDS, since=killed)
    backend.start_again()
    accepts = time.monotonic()
    client.wait_for_successes('main', WORKERS * ROUNDS, since=accepts)
    client.stop_load()

    served = min(
        attempt.began + attempt.acquire_took
        for attempt in client.attempts('main')
        if not attempt.failed and attempt.began + attempt.acquire_took > accepts
    )
    record_property('first_served_after_ms', round((served - accepts) * 1000, 1))
    assert_only_in_flight_failed(client.attempts('main'), killed, accepts)
    # Those have lost their requests whose connections the server has taken along, each once. Nobody else notices.
    assert not messages(attempt for attempt in client.failures('main') if attempt.failed != 'request')
    assert_bounded(client)
    assert not messages(client.failures('other'))
    assert_healthy(client, 'main')
    close(client, backend, other_backend)


def test_what_is_lost_at_rest_is_replaced(driver: Driver, backend: Backend, make_client: MakeClient) -> None:
    client = make_client({'main': (backend.host, backend.port)}, max_size=MAX_SIZE, **OPTIONS)
    stale = client.fill('main', 1)
    backend.wait_for_sessions(MINIMUM)
    backend.terminate_sessions()
    # One acquire finds them dead, one after the other, and takes a new one.
    assert not client.visit('main').failed
    backend.wait_for_sessions(MINIMUM)
    assert set(stale) <= set(client.ledger.disposed)
    assert client.size('main') == MINIMUM
    assert_healthy(client, 'main')
    close(client, backend)
