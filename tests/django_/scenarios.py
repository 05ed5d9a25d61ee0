"""What happens in a process with Django, whose settings the process has: python -m tests.django_.scenarios NAME.

A scenario raises if something is wrong. What it says stands on standard output, and what it waits for comes from
standard input, a line each.
"""

import asyncio
import gc
import io
import json
import logging
import os
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock
from wsgiref.util import setup_testing_defaults

import django
import psycopg
from django.core.asgi import get_asgi_application
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.db import OperationalError, connection, connections, transaction

import gcpool.psycopg_pool
from tests.support import PATIENCE

THREADS = 12
SCENARIOS: dict[str, Callable[[], None]] = {}


def scenario(function: Callable[[], None]) -> Callable[[], None]:
    SCENARIOS[function.__name__] = function
    return function


class Client:
    """Asks the project in this process, as a WSGI server does; each caller is a thread of that server."""

    def __init__(self) -> None:
        self.application = get_wsgi_application()

    def get(self, path: str) -> tuple[int, Any]:
        environ: dict[str, Any] = {'PATH_INFO': path, 'wsgi.input': io.BytesIO()}
        setup_testing_defaults(environ)
        statuses: list[str] = []
        answer = self.application(environ, lambda status, headers: statuses.append(status))
        try:
            body = b''.join(answer)
        finally:
            # Here Django closes what the request has used: the connection goes back to the pool.
            answer.close()
        status = int(statuses[0][:3])
        return status, json.loads(body) if status == 200 else None

    def get_at_once(self, *paths: str) -> list[tuple[int, Any]]:
        with ThreadPoolExecutor(THREADS) as threads:
            return list(threads.map(self.get, paths))


async def ask_asgi(application: Any, path: str) -> tuple[int, Any]:
    sent: list[dict[str, Any]] = []
    received = iter([{'type': 'http.request', 'body': b''}])

    async def receive() -> dict[str, Any]:
        for message in received:
            return message
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {'type': 'http', 'method': 'GET', 'path': path, 'headers': [], 'query_string': b'', 'http_version': '1.1'}
    await application(scope, receive, send)
    body = b''.join(message.get('body', b'') for message in sent[1:])
    status = sent[0]['status']
    return status, json.loads(body) if status == 200 else None


def open_accounts(**balances: int) -> None:
    from tests.django_.project.models import Account

    Account.objects.all().delete()
    Account.objects.bulk_create(Account(name=name, balance=balance) for name, balance in balances.items())
    connections.close_all()


def balances() -> dict[str, int]:
    from tests.django_.project.models import Account

    try:
        return dict(Account.objects.values_list('name', 'balance'))
    finally:
        connections.close_all()


def read_all(descriptor: int) -> Any:
    with open(descriptor, 'rb') as file:
        return json.load(file)


def pool_of(alias: str = 'default') -> Any:
    return connections[alias].pool


def expect_all_returned(pool: Any) -> dict[str, int]:
    # A connection that nobody waits for any more may still be on its way.
    deadline = time.monotonic() + PATIENCE
    while (stats := pool.get_stats())['pool_available'] != stats['pool_size']:
        assert time.monotonic() < deadline, stats
        time.sleep(0.001)
    assert stats['requests_waiting'] == 0, stats
    assert stats['pool_size'] <= stats['pool_max'], stats
    return dict(stats)


# -- requests ----------------------------------------------------------------------------------------------------------


@scenario
def migrate() -> None:
    call_command('migrate', verbosity=0)


@scenario
def requests_in_threads() -> None:
    client = Client()
    open_accounts(ann=0)
    answers = client.get_at_once(*['/deposit/ann'] * 120)
    assert [status for status, _ in answers] == [200] * 120
    assert all(answer['in_transaction'] for _, answer in answers)
    assert balances() == {'ann': 120}
    pool = pool_of()
    assert type(pool) is gcpool.psycopg_pool.ConnectionPool
    stats = expect_all_returned(pool)
    assert (stats['pool_max'], stats['requests_errors'], stats['returns_bad']) == (4, 0, 0), stats
    assert stats['requests_num'] >= 120
    assert len({answer['session'] for _, answer in answers}) <= stats['connections_num'] <= 4


@scenario
def atomic_requests() -> None:
    client = Client()
    open_accounts(ann=100, bob=0)
    logging.getLogger('django.request').addHandler(logging.NullHandler())
    answers = client.get_at_once(*['/transfer/ann/bob/9', '/transfer/bob/ann/500'] * 12)
    statuses = Counter(status for status, _ in answers)
    # What overdraws an account is rolled back whole. Eleven times nine are in the account.
    assert statuses == {200: 11, 500: 13}, statuses
    assert balances() == {'ann': 1, 'bob': 99}
    stats = expect_all_returned(pool_of())
    # Django has rolled back; the pool has found nothing to do.
    assert stats['returns_bad'] == 0, stats


@scenario
def transactions() -> None:
    from tests.django_.project.models import Account

    open_accounts(ann=0)
    done: list[str] = []
    with transaction.atomic():
        Account.objects.update(balance=1)
        transaction.on_commit(lambda: done.append('committed'))
        try:
            with transaction.atomic():
                Account.objects.update(balance=-1)
        except django.db.IntegrityError:
            done.append('savepoint rolled back')
    assert done == ['savepoint rolled back', 'committed']
    assert balances() == {'ann': 1}
    # A server-side cursor, inside and outside of a transaction.
    assert [account.balance for account in Account.objects.iterator(chunk_size=1)] == [1]
    with transaction.atomic():
        assert [account.balance for account in Account.objects.iterator(chunk_size=1)] == [1]
    # A transaction that the thread left open when its connection was closed.
    transaction.set_autocommit(False)
    Account.objects.update(balance=50)
    connection.close()
    assert balances() == {'ann': 1}
    assert transaction.get_autocommit()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute('SHOW transaction_isolation')
        assert cursor.fetchone() == ('serializable',)
    connection.close()
    expect_all_returned(pool_of())


@scenario
def asgi() -> None:
    application = get_asgi_application()
    open_accounts(ann=0)

    async def main() -> None:
        paths = ['/async/deposit/ann', '/async/balance/ann', '/deposit/ann'] * 16
        answers = await asyncio.gather(*(ask_asgi(application, path) for path in paths))
        assert [status for status, _ in answers] == [200] * 48

    asyncio.run(main())
    assert balances() == {'ann': 32}
    stats = expect_all_returned(pool_of())
    assert (stats['requests_errors'], stats['connections_num'] <= 4) == (0, True), stats


@scenario
def restart() -> None:
    client = Client()
    open_accounts(ann=0)
    logging.getLogger('django.request').addHandler(logging.NullHandler())
    assert {status for status, _ in client.get_at_once(*['/deposit/ann'] * 40)} == {200}
    idle = expect_all_returned(pool_of())['pool_size']
    tell('restart the server')
    answers = client.get_at_once(*['/deposit/ann'] * 40)
    failed = [status for status, _ in answers if status != 200]
    # Without checks, each connection that was idle fails one request.
    most = 0 if connection.settings_dict['CONN_HEALTH_CHECKS'] else idle
    assert failed == [500] * len(failed)
    assert len(failed) <= most, (failed, most)
    assert balances() == {'ann': 80 - len(failed)}
    assert {status for status, _ in client.get_at_once(*['/balance/ann'] * 40)} == {200}
    expect_all_returned(pool_of())


@scenario
def in_a_forked_child() -> None:
    client = Client()
    open_accounts(ann=0)
    _, before = client.get('/deposit/ann')
    ends = [os.pipe() for _ in range(2)]
    children = []
    for _, writing in ends:
        child = os.fork()
        if child == 0:
            answers = client.get_at_once(*['/deposit/ann'] * 20)
            os.write(writing, json.dumps(answers).encode())
            os._exit(0)
        children.append(child)
        os.close(writing)
    answers = [client.get('/deposit/ann') for _ in range(20)]
    of_children = [read_all(reading) for reading, _ in ends]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    sessions = [{answer['session'] for _, answer in found} for found in (answers, *of_children)]
    assert before['session'] in sessions[0]
    assert not sessions[0] & sessions[1]
    assert not sessions[0] & sessions[2]
    assert not sessions[1] & sessions[2]
    assert balances() == {'ann': 61}


# -- the pool ----------------------------------------------------------------------------------------------------------


@scenario
def threads_race_to_make_the_pool() -> None:
    kind = type(connections['default'])
    both_make_one = threading.Barrier(THREADS)
    make = kind._new_pool
    made: list[weakref.ref[Any]] = []
    won: set[int] = set()

    def make_at_once(self: Any, options: Any) -> Any:
        both_make_one.wait(PATIENCE)
        pool = make(self, options)
        made.append(weakref.ref(pool))
        return pool

    def use(_: int) -> None:
        with connection.cursor() as cursor:
            cursor.execute('SELECT 1')
        won.add(id(pool_of()))
        connections.close_all()

    with mock.patch.object(kind, '_new_pool', make_at_once), ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(use, range(THREADS)))
    gc.collect()
    assert len(made) == THREADS
    [pool] = [pool for ref in made if (pool := ref()) is not None]
    assert won == {id(pool)}
    assert expect_all_returned(pool)['connections_num'] <= 4


@scenario
def threads_open_the_pool_at_once() -> None:
    pool = pool_of()
    entered = threading.Event()
    served = threading.Event()
    begin = pool._engine.begin

    def begin_late(size: int) -> None:
        if threading.current_thread() is late:
            entered.set()
            assert served.wait(PATIENCE)
        begin(size)

    def use() -> None:
        pool.open()
        pool.putconn(pool.getconn())

    with mock.patch.object(pool._engine, 'begin', begin_late):
        late = threading.Thread(target=use)
        late.start()
        assert entered.wait(PATIENCE)
        # Another thread is about to open the pool. This one opens it, and is served.
        use()
        served.set()
        late.join(PATIENCE)
    assert expect_all_returned(pool)['requests_num'] == 2
    connection.close_pool()
    assert pool.closed


@scenario
def close_pool() -> None:
    wrapper: Any = connection
    wrapper.close_pool()
    assert pool_of() is pool_of()
    first = pool_of()
    assert first.closed, 'it is opened when the first thread connects'
    with connection.cursor() as cursor:
        cursor.execute('SELECT 1')
    in_use = wrapper.connection
    wrapper.close_pool()
    assert first.closed
    # It was of the pool that is closed, and goes back to it.
    connection.close()
    assert in_use.closed
    with connection.cursor() as cursor:
        cursor.execute('SELECT 1')
    assert pool_of() is not first
    connection.close()
    expect_all_returned(pool_of())
    # Django changes the time zone of a database in tests. New connections have it.
    from django.test import override_settings

    with override_settings(TIME_ZONE='Asia/Tokyo', USE_TZ=False), connection.cursor() as cursor:
        cursor.execute('SHOW TimeZone')
        assert cursor.fetchone() == ('Asia/Tokyo',)
    with connection.cursor() as cursor:
        cursor.execute('SHOW TimeZone')
        assert cursor.fetchone() == ('UTC',)
    connection.close()
    expect_all_returned(pool_of())


@scenario
def exhausted() -> None:
    held = threading.Event()
    over = threading.Event()

    def hold() -> None:
        with connection.cursor():
            held.set()
            over.wait(PATIENCE)
        connections.close_all()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(PATIENCE)
    error: Exception | None = None
    try:
        connection.ensure_connection()
    except OperationalError as exc:
        error = exc
    finally:
        over.set()
        holder.join(PATIENCE)
    assert error is not None
    assert isinstance(error.__cause__, gcpool.psycopg_pool.PoolTimeout)
    assert 'default' in str(error), error
    connection.ensure_connection()
    connection.close()


@scenario
def bad_conninfo() -> None:
    error: Exception | None = None
    try:
        connection.ensure_connection()
    except OperationalError as exc:
        error = exc
    assert error is not None
    cause = error.__cause__
    assert isinstance(cause, gcpool.psycopg_pool.PoolTimeout), cause
    assert isinstance(cause.__cause__, psycopg.ProgrammingError), cause.__cause__
    assert 'missing "=" after "nonsense"' in str(cause.__cause__), cause.__cause__
    connections['default'].close_pool()


@scenario
def beside_the_original() -> None:
    import psycopg_pool

    for alias in ('default', 'theirs'):
        with connections[alias].cursor() as cursor:
            cursor.execute('SELECT 1')
    assert type(pool_of()) is gcpool.psycopg_pool.ConnectionPool
    assert type(pool_of('theirs')) is psycopg_pool.ConnectionPool
    assert psycopg_pool.ConnectionPool.__module__ == 'psycopg_pool.pool'
    assert connections['unpooled'].pool is None
    with connections['unpooled'].cursor() as cursor:
        cursor.execute('SELECT 1')
    connections.close_all()
    for alias in ('default', 'theirs'):
        connections[alias].close_pool()


@scenario
def refused_settings() -> None:
    """Say what each of these raises, in the settings of a database."""
    refused: list[dict[str, Any]] = [
        {'CONN_MAX_AGE': 60},
        {'CONN_MAX_AGE': None},
        {'pool': {'max_conns': 4}},
        {'pool': {'open': True, 'min_size': 1}},
        {'pool': 'yes'},
        {'pool': {'min_size': 3, 'max_size': 2}},
    ]
    for settings in refused:
        wrapper: Any = connections['default'].copy()
        if 'pool' in settings:
            wrapper.settings_dict['OPTIONS']['pool'] = settings['pool']
        else:
            wrapper.settings_dict.update(settings)
        try:
            wrapper.ensure_connection()
        except Exception as exc:  # noqa: BLE001
            print(type(exc).__name__, exc)
        assert wrapper._connection_pools == {}


@scenario
def test_command() -> None:
    call_command('test', 'tests.django_.project.tests', verbosity=1, interactive=False)


# ----------------------------------------------------------------------------------------------------------------------


def tell(message: str) -> None:
    """Have the test do something, and wait until it has."""
    print(message, flush=True)
    assert sys.stdin.readline() == 'done\n'


if __name__ == '__main__':
    os.environ['DJANGO_SETTINGS_MODULE'] = 'tests.django_.project.settings'
    django.setup()
    for name in sys.argv[1:]:
        SCENARIOS[name]()
