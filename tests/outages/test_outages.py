"""A service keeps serving through an outage of its server: only what is in flight fails, nothing leaks, all recovers.

Each test runs once for each driver, in its own runtime, against a real server.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import gcpool.exceptions
from tests.contrib.servers import PATIENCE, full_listener, linux_only
from tests.outages.backends import Backend
from tests.outages.drivers import DRIVERS, LONG, Driver
from tests.outages.load import Attempt, Client, eventually, messages
from tests.outages.proxy import Proxy

# No worker ever waits for another one's connection, so that what an acquire takes is its own affair.
WORKERS = 4
MAX_SIZE = 6
# Seconds that acquires, and each check, may take of a server that does not answer. One that answers has more.
ACQUIRE_TIMEOUT = 0.5
CHECK_TIMEOUT = 0.2
# Seconds that an answer is waited for in tests whose server falls silent, also while it still answers.
ANSWER_TIMEOUT = 1.0
# Seconds that closing a pool may take of which nothing is out.
CLOSE_TIMEOUT = 0.5
# How often each worker must get through before and after, on the average.
ROUNDS = 5
# Seconds for which each keeps a connection, so that others need one of their own, and some are out at any time.
HOLD = 0.01

pytestmark = pytest.mark.outage

MakeClient = Callable[..., Client]


def assert_bounded(client: Client) -> None:
    """No call of the pool has outlasted its time limit, or the one of the driver for a rollback."""
    overshoot = client.overshoot
    late = [
        attempt
        for attempt in client.attempts()
        if attempt.acquire_took > attempt.timeout + overshoot
        or attempt.release_took > (client.answer_timeout if attempt.endpoint == 'main' else LONG) + overshoot
    ]
    assert not late, f'the machine lets threads wait for up to {overshoot:.2f} seconds less 0.5'


def assert_only_in_flight_failed(attempts: list[Attempt], began: float, ended: float) -> None:
    """What failed was tried during the outage, at least in part; and no connection failed two of its users."""
    failures = [attempt for attempt in attempts if attempt.failed]
    assert not messages(attempt for attempt in failures if attempt.failed not in {'acquire', 'request'})
    assert not messages(attempt for attempt in failures if not attempt.overlaps(began, ended))
    failed = [attempt.number for attempt in failures if attempt.number is not None]
    assert len(failed) == len(set(failed))


def assert_healthy(client: Client, endpoint: str, max_size: int = MAX_SIZE) -> None:
    """Nothing is out, every connection works, and each that was lost was disposed of once."""
    ledger = client.ledger
    stats = client.stats()
    assert (stats['acquired'], stats['waiting']) == (0, 0)
    numbers = client.fill(endpoint, max_size)
    assert ledger.open(endpoint) == set(numbers)
    assert client.size(endpoint) == max_size
    assert not client.visit(endpoint).failed
    assert_disposed_once(client)


def assert_disposed_once(client: Client) -> None:
    ledger = client.ledger
    assert [number for number, count in ledger.disposed.items() if count != 1] == []
    assert [number for number, count in ledger.dead.items() if count != 1] == []


def close(client: Client, *servers: Backend) -> None:
    """Close the pool: neither it nor a server has anything left."""
    assert client.close_pool(CLOSE_TIMEOUT) <= CLOSE_TIMEOUT + client.overshoot
    assert_disposed_once(client)
    stats = client.stats()
    assert (stats['size'], stats['acquired'], stats['idle'], stats['waiting']) == (0, 0, 0, 0)
    assert len(client.ledger.disposed) == len(client.ledger.endpoints)
    for server in servers:
        server.wait_for_sessions(0)


def test_server_killed_and_restarted_under_load(
    driver: Driver,
    backend: Backend,
    other_backend: Backend,
    make_client: MakeClient,
    record_property: Callable[[str, object], None],
) -> None:
    client = make_client(
        {'main': (backend.host, backend.port), 'other': (other_backend.host, other_backend.port)}, max_size=MAX_SIZE
    )
    stale = set(client.fill('main', MAX_SIZE))
    client.start_load('main', WORKERS, HOLD)
    client.start_load('other', 1)
    client.wait_for_successes('main', WORKERS * ROUNDS)

    killed = time.monotonic()
    backend.kill()
    client.wait_for_failures('main', WORKERS * ROUNDS, since=killed)
    backend.start_again()
    accepts = time.monotonic()
    first = client.visit('main')
    assert not first.failed, first
    client.wait_for_successes('main', WORKERS * ROUNDS, since=accepts)
    client.wait_for_successes('other', ROUNDS, since=killed)
    client.stop_load()

    record_property('first_acquire_under_load_ms', round(first.acquire_took * 1000, 1))
    assert_only_in_flight_failed(client.attempts('main'), killed, accepts)
    assert_bounded(client)
    assert not messages(client.failures('other'))
    assert_healthy(client, 'main')
    assert stale <= set(client.ledger.disposed)
    backend.wait_for_sessions(client.size('main'))
    other_backend.wait_for_sessions(client.size('other'))
    close(client, backend, other_backend)


def test_first_acquire_after_a_restart(
    driver: Driver,
    backend: Backend,
    make_client: MakeClient,
    record_property: Callable[[str, object], None],
) -> None:
    client = make_client({'main': (backend.host, backend.port)}, max_size=MAX_SIZE)
    stale = client.fill('main', MAX_SIZE)
    backend.kill()
    backend.start_again()
    first = client.visit('main')
    record_property('first_acquire_ms', round(first.acquire_took * 1000, 1))
    print(f'\n{driver}: the first acquire after the restart took {first.acquire_took * 1000:.1f} ms')
    assert not first.failed, first
    # None of those who find the other connections dead fails either.
    assert_healthy(client, 'main')
    assert set(stale) == set(client.ledger.disposed)
    backend.wait_for_sessions(MAX_SIZE)
    close(client, backend)


def test_sessions_terminated_by_an_administrator(driver: Driver, backend: Backend, make_client: MakeClient) -> None:
    client = make_client({'main': (backend.host, backend.port)}, max_size=MAX_SIZE)
    stale = set(client.fill('main', MAX_SIZE))
    client.start_load('main', WORKERS, HOLD)
    client.wait_for_successes('main', WORKERS * ROUNDS)

    began = time.monotonic()
    ended_sessions = backend.terminate_sessions()
    ended = time.monotonic()
    client.wait_for_successes('main', WORKERS * ROUNDS, since=ended)
    client.stop_load()

    assert ended_sessions >= MAX_SIZE
    assert_only_in_flight_failed(client.attempts('main'), began, ended)
    # The server was there all the time.
    assert not messages(attempt for attempt in client.failures('main') if attempt.failed != 'request')
    assert len(client.failures('main')) <= ended_sessions
    assert_bounded(client)
    assert_healthy(client, 'main')
    assert stale <= set(client.ledger.disposed)
    backend.wait_for_sessions(MAX_SIZE)
    close(client, backend)


def test_idle_sessions_terminated(driver: Driver, backend: Backend, make_client: MakeClient) -> None:
    client = make_client({'main': (backend.host, backend.port)}, max_size=MAX_SIZE)
    stale = client.fill('main', 3)
    assert backend.terminate_sessions() == len(stale)
    # Nobody notices.
    assert not client.visit('main').failed
    assert_healthy(client, 'main')
    assert set(client.ledger.disposed) == set(stale)
    backend.wait_for_sessions(MAX_SIZE)
    close(client, backend)


@pytest.mark.parametrize('outage', ['drops', 'delays', 'resets'])
def test_network_out_under_load(
    driver: Driver, backend: Backend, proxy: Proxy, make_client: MakeClient, outage: str
) -> None:
    with Proxy(backend.host, backend.port) as other_proxy:
        client = make_client(
            {'main': (proxy.host, proxy.port), 'other': (other_proxy.host, other_proxy.port)},
            ping=True,
            answer_timeout=ANSWER_TIMEOUT,
            max_size=MAX_SIZE,
            check_timeout=CHECK_TIMEOUT,
        )
        client.fill('main', MAX_SIZE)
        client.start_load('main', WORKERS, HOLD)
        client.start_load('other', 1)
        client.wait_for_successes('main', WORKERS * ROUNDS)

        client.timeouts['main'] = ACQUIRE_TIMEOUT
        began = time.monotonic()
        if outage == 'drops':
            proxy.drops()
        elif outage == 'delays':
            proxy.delays(5.0)
        else:
            proxy.resets()
        out = time.monotonic()
        # Long enough that those who wait for an answer give up, if their driver does.
        while not client.failures('main', since=began) or time.monotonic() < out + ANSWER_TIMEOUT:
            during = client.visit('main')
            assert during.failed == 'acquire', during
        client.timeouts['main'] = LONG
        proxy.passes()
        ended = time.monotonic()
        first = client.visit('main')
        assert not first.failed, first
        client.wait_for_successes('main', WORKERS * ROUNDS, since=ended)
        client.wait_for_successes('other', ROUNDS, since=out)
        client.stop_load()

        assert_only_in_flight_failed(client.attempts('main'), began, ended)
        assert_bounded(client)
        assert not messages(client.failures('other'))
        assert_healthy(client, 'main')
        backend.wait_for_sessions(client.size('main') + client.size('other'))
        close(client, backend)


def test_server_refuses_too_many_connections(driver: Driver, backend: Backend, make_client: MakeClient) -> None:
    client = make_client({'main': (backend.host, backend.port)}, max_size=MAX_SIZE)
    limit = WORKERS // 2
    backend.limit_sessions(limit)
    try:
        began = time.monotonic()
        client.start_load('main', WORKERS, HOLD)
        client.wait_for_failures('main', WORKERS * ROUNDS)
        # Those who have got in go on.
        client.wait_for_successes('main', WORKERS * ROUNDS)
        assert client.ledger.open('main')
        assert len(client.ledger.open('main')) <= limit
    finally:
        backend.limit_sessions(None)
    ended = time.monotonic()
    client.wait_for_successes('main', WORKERS * ROUNDS, since=ended)
    client.stop_load()

    failures = client.failures('main')
    assert_only_in_flight_failed(client.attempts('main'), began, ended)
    for failure in failures:
        assert failure.failed == 'acquire', failure
        assert failure.error is not None
        assert issubclass(failure.error, gcpool.exceptions.ConnectError), failure
        assert "'main'" in failure.message
    assert client.stats()['create_errors'] == len(failures)
    assert not client.ledger.disposed
    assert_bounded(client)
    assert_healthy(client, 'main')
    backend.wait_for_sessions(MAX_SIZE)
    close(client, backend)


def test_half_open_connections(driver: Driver, backend: Backend, proxy: Proxy, make_client: MakeClient) -> None:
    client = make_client({'main': (proxy.host, proxy.port)}, ping=True, max_size=MAX_SIZE, check_timeout=10.0)
    stale = set(client.fill('main', MAX_SIZE))
    client.start_load('main', WORKERS, HOLD)
    client.wait_for_successes('main', WORKERS * ROUNDS)
    began = time.monotonic()
    proxy.half_opens()
    ended = time.monotonic()
    client.wait_for_successes('main', WORKERS * ROUNDS, since=ended)
    client.stop_load()

    assert_only_in_flight_failed(client.attempts('main'), began, ended)
    assert not messages(attempt for attempt in client.failures('main') if attempt.failed != 'request')
    assert_bounded(client)
    assert_healthy(client, 'main')
    assert stale <= set(client.ledger.disposed)
    backend.wait_for_sessions(MAX_SIZE)
    close(client, backend)


@pytest.mark.parametrize(
    'driver', [driver for driver in DRIVERS if driver.name in {'pymysql', 'asyncpg'}], ids=repr, indirect=True
)
def test_those_who_wait_for_others_in_an_outage(
    driver: Driver, backend: Backend, proxy: Proxy, make_client: MakeClient
) -> None:
    client = make_client(
        {'main': (proxy.host, proxy.port)},
        ping=True,
        answer_timeout=ANSWER_TIMEOUT,
        max_size=2,
        check_timeout=CHECK_TIMEOUT,
    )
    client.start_load('main', 2 * WORKERS, HOLD)
    client.wait_for_successes('main', WORKERS * ROUNDS)
    client.timeouts['main'] = ACQUIRE_TIMEOUT
    began = time.monotonic()
    proxy.drops()
    client.wait_for_failures('main', 2 * WORKERS, since=began)
    # Those who come now wait as long as it takes, also behind whoever holds a slot and waits for a server that did not
    # hear of it.
    client.timeouts['main'] = LONG
    proxy.passes()
    ended = time.monotonic()
    client.wait_for_successes('main', WORKERS * ROUNDS, since=ended)
    client.stop_load()
    assert_only_in_flight_failed(client.attempts('main'), began, ended)
    assert_bounded(client)
    assert_healthy(client, 'main', 2)
    backend.wait_for_sessions(2)
    close(client, backend)


def test_a_check_without_a_time_limit_in_a_black_hole(
    driver: Driver, backend: Backend, proxy: Proxy, make_client: MakeClient
) -> None:
    client = make_client({'main': (proxy.host, proxy.port)}, ping=True, max_size=MAX_SIZE)
    # The time of the acquire goes into the first check. For a second one there is none.
    client.fill('main', 2)
    client.timeouts['main'] = ACQUIRE_TIMEOUT
    proxy.holds()
    assert client.visit('main').failed == 'acquire'
    client.timeouts['main'] = LONG
    proxy.passes()
    assert not client.visit('main').failed
    assert_bounded(client)
    assert_healthy(client, 'main')
    backend.wait_for_sessions(MAX_SIZE)
    close(client, backend)


@pytest.mark.parametrize('driver', [driver for driver in DRIVERS if driver.bounds_silence], ids=repr, indirect=True)
def test_an_answer_that_comes_late_is_nobody_elses(
    driver: Driver, backend: Backend, proxy: Proxy, make_client: MakeClient
) -> None:
    client = make_client({'main': (proxy.host, proxy.port)}, answer_timeout=ANSWER_TIMEOUT, max_size=MAX_SIZE)
    (number,) = client.fill('main', 1)
    proxy.holds()
    given_up = client.visit('main')
    assert (given_up.number, given_up.failed) == (number, 'request'), given_up
    proxy.passes()
    for _ in range(2):
        visit = client.visit('main')
        assert not visit.failed, visit
        assert visit.number != number
    assert client.ledger.disposed == {number: 1}
    assert_bounded(client)
    assert_healthy(client, 'main')
    backend.wait_for_sessions(MAX_SIZE)
    close(client, backend)


def test_release_to_a_server_that_hangs(
    driver: Driver, backend: Backend, proxy: Proxy, make_client: MakeClient
) -> None:
    client = make_client({'main': (proxy.host, proxy.port)}, answer_timeout=ANSWER_TIMEOUT, max_size=MAX_SIZE)
    took = client.leave_open('main', driver.leave_open, proxy.holds)
    assert took <= ANSWER_TIMEOUT + client.overshoot
    # It could not be mended, so nobody is given it. On asyncio a release does not wait longer than 0.1 s for its end.
    eventually('it is closed', lambda: client.size('main') == 0)
    assert client.ledger.disposed == {0: 1}
    proxy.passes()
    assert not client.visit('main').failed
    backend.wait_for_sessions(1)
    close(client, backend)


@pytest.mark.parametrize('outage', ['drops', 'holds'])
def test_close_in_a_black_hole(
    driver: Driver, backend: Backend, proxy: Proxy, make_client: MakeClient, outage: str
) -> None:
    client = make_client({'main': (proxy.host, proxy.port)}, max_size=MAX_SIZE)
    client.fill('main', 3)
    if outage == 'drops':
        proxy.drops()
    else:
        proxy.holds()
    close(client)
    proxy.passes()
    backend.wait_for_sessions(0)


@contextlib.contextmanager
def resolver(monkeypatch: pytest.MonkeyPatch, resolve: Callable[[str], Any]) -> Iterator[None]:
    """Have names in .example resolved by a function; whoever still asks at the end is waited for."""
    original = socket.getaddrinfo
    asking: set[threading.Thread] = set()

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        if not str(host).endswith('.example'):
            return original(host, *args, **kwargs)
        asking.add(threading.current_thread())
        return resolve(host)

    monkeypatch.setattr(socket, 'getaddrinfo', getaddrinfo)
    yield
    for thread in asking - {threading.current_thread()}:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert asking, 'nobody has asked'


resolving = pytest.mark.parametrize(
    'driver', [driver for driver in DRIVERS if driver.resolves_in_python], ids=repr, indirect=True
)


@resolving
def test_a_host_whose_name_is_not_resolved(
    driver: Driver, backend: Backend, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()

    def resolve(host: str) -> Any:
        assert over.wait(PATIENCE)
        raise socket.gaierror(socket.EAI_AGAIN, 'try again')

    with resolver(monkeypatch, resolve):
        try:
            client = make_client({'main': ('slow.example', backend.port)}, timeout=ACQUIRE_TIMEOUT)
            visit = client.visit('main')
        finally:
            over.set()
    assert visit.failed == 'acquire', visit
    assert visit.error is not None
    assert issubclass(visit.error, TimeoutError), visit
    assert_bounded(client)
    close(client)


@linux_only
@resolving
def test_a_host_of_whose_addresses_none_answers(
    driver: Driver, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses: list[Any] = []

    def resolve(host: str) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, '', address) for address in addresses]

    # Whoever still tries them is refused when the listener is gone.
    with resolver(monkeypatch, resolve), full_listener(socket.AF_INET, ('127.0.0.1', 0)) as listener:
        addresses += [listener.getsockname()] * 4
        client = make_client({'main': ('many.example', addresses[0][1])}, timeout=ACQUIRE_TIMEOUT)
        visit = client.visit('main')
    assert visit.failed == 'acquire', visit
    assert visit.error is not None
    assert issubclass(visit.error, TimeoutError), visit
    assert_bounded(client)
    close(client)
