# redis-py has type hints for half of its methods.
# mypy: allow-untyped-calls
"""Redis connections that go wrong in the field: a table of cases for each kind, with private servers."""

import asyncio
import contextlib
import functools
import select
import socket
import sys
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import gcpool.asyncio
import gcpool.threading
from gcpool.exceptions import ConnectError, DiscardConnection
from tests.contrib.asking import ask, ask_async
from tests.contrib.conftest import Run
from tests.contrib.raising import HOW_IT_IS_RAISED, Wrap, in_nested_groups
from tests.contrib.redis_server import CommandError, RedisServer, running_redis
from tests.contrib.sampling import sampled
from tests.contrib.servers import PATIENCE, closed_port, tcp_listener
from tests.outages.proxy import Proxy

redis = pytest.importorskip('redis')

from redis.exceptions import AuthorizationError  # noqa: E402

from gcpool.contrib._redis_sockets import _PlainSocket as PlainSocket  # noqa: E402
from gcpool.contrib.redis import (  # noqa: E402
    BROKEN_CODES,
    AsyncConnection,
    AsyncRedisConnectionManager,
    Connection,
    RedisConnectionManager,
    async_client_of,
    client_of,
)

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

# The margin beyond a time limit: half a second.
LIMIT = 0.15
GRACE = 0.5


async def in_group(*tasks: Awaitable[Any]) -> None:
    """Run them like asyncio.TaskGroup, which Python 3.10 does not have."""
    futures = [asyncio.ensure_future(task) for task in tasks]
    await asyncio.wait(futures, return_when=asyncio.FIRST_EXCEPTION)
    for future in futures:
        future.cancel()
    outcomes = await asyncio.gather(*futures, return_exceptions=True)
    if errors := [outcome for outcome in outcomes if isinstance(outcome, Exception)]:
        raise ExceptionGroup('unhandled errors in a task group', errors)


# ---------------------------------------------------------------------------------------------------------------------
# No user reads another's answer
# ---------------------------------------------------------------------------------------------------------------------


def leave_unread(conn: Any, server: RedisServer) -> None:
    conn.send_command('ECHO', 'mine')


def leave_half_of_several(conn: Any, server: RedisServer) -> None:
    conn.send_packed_command(conn.pack_commands([('ECHO', 'mine'), ('ECHO', 'mine too'), ('ECHO', 'and this')]))
    conn.read_response()
    raise ValueError


def time_out(conn: Any, server: RedisServer) -> None:
    conn.send_command('BLPOP', 'late', 0)
    conn.read_response(timeout=0.02)


def time_out_and_go_on(conn: Any, server: RedisServer) -> None:
    conn.send_command('BLPOP', 'late', 0)
    with contextlib.suppress(redis.TimeoutError):
        conn.read_response(timeout=0.02, disconnect_on_error=False)


def time_out_within_a_group(conn: Any, server: RedisServer) -> None:
    conn.send_command('BLPOP', 'late', 0)
    raise in_nested_groups(redis.TimeoutError())


def interrupt(conn: Any, server: RedisServer) -> None:
    conn.send_command('BLPOP', 'late', 0)
    raise KeyboardInterrupt


def give_up_a_helper(conn: Any, server: RedisServer) -> None:
    # It still reads when the block ends.
    number = ask(conn, 'CLIENT', 'ID')

    def read() -> None:
        with contextlib.suppress(redis.RedisError):
            ask(conn, 'BLPOP', 'late', 0)

    thread = threading.Thread(target=read)
    thread.start()
    until_at_work(server, number)
    helpers.append(thread)


def let_a_callback_fail(conn: Any, server: RedisServer) -> None:
    client: Any = client_of(conn)
    client.set_response_callback('ECHO', lambda reply: 1 / 0)
    client.pipeline(transaction=False).echo('mine').echo('mine too').execute()


def watch_channels(conn: Any, server: RedisServer) -> None:
    client_of(conn).pubsub().subscribe('channel')
    server.command('PUBLISH channel news')


def monitor(conn: Any, server: RedisServer) -> None:
    ask(conn, 'MONITOR')


def skip_a_reply(conn: Any, server: RedisServer) -> None:
    conn.send_command('CLIENT', 'REPLY', 'SKIP')
    conn.send_command('ECHO', 'mine')


def leave_a_transaction(conn: Any, server: RedisServer) -> None:
    ask(conn, 'MULTI')
    ask(conn, 'ECHO', 'mine')


def leave_a_pipeline(conn: Any, server: RedisServer) -> None:
    pipeline: Any = client_of(conn).pipeline()
    pipeline.watch('k')
    pipeline.multi()
    pipeline.set('k', 1)


helpers: list[threading.Thread] = []
ENDINGS = [
    *(leave_unread, leave_half_of_several, time_out, time_out_and_go_on, time_out_within_a_group, interrupt),
    *(give_up_a_helper, let_a_callback_fail, watch_channels, monitor, skip_a_reply, leave_a_transaction),
    leave_a_pipeline,
]


def until_at_work(server: RedisServer, number: int, command: str = 'blpop') -> None:
    deadline = time.monotonic() + PATIENCE
    while f' cmd={command} ' not in server.command(f'CLIENT LIST ID {number}'):
        assert time.monotonic() < deadline


def check_answers(conn: Any) -> None:
    for _ in range(3):
        question = uuid.uuid4().hex
        assert ask(conn, 'ECHO', question) == question.encode()


@pytest.mark.parametrize('reset', ['rollback', 'full'])
@pytest.mark.parametrize('end', ENDINGS, ids=lambda end: end.__name__)
def test_the_next_thread_reads_its_own_answer(redis_server: RedisServer, end: Any, reset: Any) -> None:
    manager = RedisConnectionManager({'db': redis_server.url}, reset=reset)
    pool = gcpool.threading.ConnectionPool[Any, Connection](manager, max_size=1, acquire_timeout=PATIENCE)
    for _ in range(2):
        with contextlib.suppress(Exception, KeyboardInterrupt), pool.connection('db') as conn:
            end(conn, redis_server)
        # Now a late answer comes.
        redis_server.command('LPUSH late x')
        with pool.connection('db') as conn:
            check_answers(conn)
            assert b' db=0 sub=0 psub=0 ' in ask(conn, 'CLIENT', 'INFO')
        redis_server.command('DEL late')
    while helpers:
        helpers.pop().join(PATIENCE)
    pool.close(PATIENCE)
    redis_server.wait_for_clients(0)


def any_async_client(conn: AsyncConnection) -> Any:
    """The client, whose type hints do not distinguish asynchronous methods."""
    return async_client_of(conn)


async def be_cancelled(conn: Any) -> None:
    await asyncio.wait_for(ask_async(conn, 'BLPOP', 'late', 0), 0.02)


async def be_cancelled_between(conn: Any) -> None:
    await conn.send_command('BLPOP', 'late', 0)
    await asyncio.wait_for(asyncio.sleep(PATIENCE), 0.02)


async def time_out_in_a_member(conn: Any) -> None:
    await in_group(asyncio.sleep(PATIENCE), asyncio.wait_for(ask_async(conn, 'BLPOP', 'late', 0), 0.02))


async def cancel_a_member(conn: Any) -> None:
    # By the failure of another, while its reply is outstanding.
    async def fail() -> None:
        await asyncio.sleep(0.02)
        raise ValueError

    await in_group(fail(), ask_async(conn, 'BLPOP', 'late', 0))


async def cancel_a_member_between(conn: Any) -> None:
    async def send_and_do_something_else() -> None:
        await conn.send_command('BLPOP', 'late', 0)
        await asyncio.sleep(PATIENCE)

    await in_group(asyncio.wait_for(send_and_do_something_else(), 0.02))


async def cancel_a_client(conn: Any) -> None:
    await asyncio.wait_for(any_async_client(conn).blpop('late', 0), 0.02)


async def cancel_a_pipeline(conn: Any) -> None:
    client: Any = async_client_of(conn)
    pipeline = client.pipeline(transaction=False).echo('mine').blpop('late', 0).echo('mine too')
    await asyncio.wait_for(pipeline.execute(), 0.02)


async def leave_a_task(conn: Any) -> None:
    # It still reads when the block ends.
    task = asyncio.ensure_future(ask_async(conn, 'BLPOP', 'late', 0))
    task.add_done_callback(lambda task: task.exception())
    await asyncio.sleep(0.02)


async def leave_a_pubsub(conn: Any) -> None:
    await async_client_of(conn).pubsub().subscribe('channel')


async def ignore_a_time_out(conn: Any) -> None:
    await conn.send_command('BLPOP', 'late', 0)
    assert await conn.read_response(timeout=0.02) is None


async def fail_in_the_midst(conn: Any) -> None:
    await conn.send_packed_command(conn.pack_commands([('ECHO', 'mine'), ('BLPOP', 'late', 0)]))
    await conn.read_response()
    raise in_nested_groups(asyncio.TimeoutError())


ASYNC_ENDINGS = [
    *(be_cancelled, be_cancelled_between, time_out_in_a_member, cancel_a_member, cancel_a_member_between),
    *(cancel_a_client, cancel_a_pipeline, leave_a_task, leave_a_pubsub, ignore_a_time_out, fail_in_the_midst),
]


@pytest.mark.parametrize('reset', ['rollback', 'full'])
@pytest.mark.parametrize('end', ASYNC_ENDINGS, ids=lambda end: end.__name__)
def test_the_next_task_reads_its_own_answer(redis_server: RedisServer, run: Run, end: Any, reset: Any) -> None:
    async def main() -> None:
        manager = AsyncRedisConnectionManager({'db': redis_server.url}, reset=reset)
        pool = gcpool.asyncio.ConnectionPool[Any, AsyncConnection](manager, max_size=1, acquire_timeout=PATIENCE)
        for _ in range(2):
            with contextlib.suppress(Exception):
                async with pool.connection('db') as conn:
                    await end(conn)
            # Now a late answer comes.
            redis_server.command('LPUSH late x')
            redis_server.command('PUBLISH channel news')
            async with pool.connection('db') as conn:
                for _ in range(3):
                    question = uuid.uuid4().hex
                    assert await ask_async(conn, 'ECHO', question) == question.encode()
            redis_server.command('DEL late')
        await pool.close(PATIENCE)
        await asyncio.sleep(0)

    run(main)
    redis_server.wait_for_clients(0)


LOST = [redis.ConnectionError(), redis.TimeoutError()]
# Replies that redis-py takes for lost connections, and what it raises without one.
NOT_LOST = [
    *(redis.AuthenticationError(), AuthorizationError(), redis.BusyLoadingError(), redis.MaxConnectionsError()),
    *(redis.ResponseError(), redis.WatchError(), OSError()),
]


@HOW_IT_IS_RAISED
def test_errors_in_groups(redis_server: RedisServer, run: Run, wrap: Wrap) -> None:
    manager = RedisConnectionManager({'db': redis_server.url})
    conn = manager.create('db')
    assert [manager.is_broken('db', conn, wrap(error)) for error in LOST] == [True, True]
    assert [manager.is_broken('db', conn, wrap(error)) for error in NOT_LOST] == [False] * len(NOT_LOST)
    manager.dispose('db', conn)

    async def main() -> None:
        manager = AsyncRedisConnectionManager({'db': redis_server.url})
        conn = await manager.create('db')
        assert [await manager.is_broken('db', conn, wrap(error)) for error in LOST] == [True, True]
        assert not any([await manager.is_broken('db', conn, wrap(error)) for error in NOT_LOST])
        await manager.dispose('db', conn)

    run(main)


# ---------------------------------------------------------------------------------------------------------------------
# Time limits
# ---------------------------------------------------------------------------------------------------------------------


class Dribble:
    """Forwards to a server; while it is slow, the server's data goes on byte by byte. One thread does it all."""

    PAUSE = 0.1

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._listener = tcp_listener()
        self.host: str
        self.port: int
        self.host, self.port = self._listener.getsockname()
        self.is_slow = False
        self._pairs: list[tuple[socket.socket, socket.socket, bytearray]] = []
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name='test-dribble', daemon=True)

    # As in the proxy: typing.Self came with Python 3.11.
    def __enter__(self) -> 'Dribble':  # noqa: PYI034
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stopping = True
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def holds(self) -> None:
        """Like the proxy: from now on something is wrong."""
        self.is_slow = True

    def passes(self) -> None:
        """Like the proxy: from now on all is well again."""
        self.is_slow = False

    def _run(self) -> None:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._listener)
            due = 0.0
            while not self._stopping:
                sources = [sock for pair in self._pairs for sock in pair[:2]]
                ready = select.select([self._listener, *sources], [], [], self.PAUSE / 3)[0]
                if self._listener in ready:
                    client = stack.enter_context(self._listener.accept()[0])
                    server = stack.enter_context(socket.create_connection(self._address, PATIENCE))
                    self._pairs.append((client, server, bytearray()))
                now = time.monotonic()
                count = None if not self.is_slow else int(now >= due)
                if count:
                    due = now + self.PAUSE
                for pair in list(self._pairs):
                    try:
                        self._forward(*pair, ready, count)
                    except OSError:
                        self._pairs.remove(pair)
                        for sock in pair[:2]:
                            sock.close()

    @staticmethod
    def _forward(client: socket.socket, server: socket.socket, left: bytearray, ready: Any, count: int | None) -> None:
        for source in (client, server):
            if source in ready:
                data = source.recv(65536)
                if not data:
                    raise ConnectionResetError
                if source is client:
                    server.sendall(data)
                else:
                    left += data
        client.sendall(left[:count])
        del left[:count]


FAULTS: dict[str, Any] = {'stalled': Proxy, 'byte by byte': Dribble}


@pytest.fixture(params=FAULTS)
def fault(request: pytest.FixtureRequest, redis_server: RedisServer) -> Iterator[Any]:
    """Forwards to the server until told to hold."""
    with FAULTS[request.param](redis_server.host, redis_server.port) as between:
        yield between


def params_of(between: Any, **others: Any) -> dict[str, Any]:
    # redis-py's own limits must not be what ends the wait.
    return {'host': between.host, 'port': between.port, 'socket_timeout': PATIENCE, **others}


@contextlib.contextmanager
def lasts_at_most(seconds: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


def create(pool: Any, between: Any) -> None:
    between.holds()
    with lasts_at_most(LIMIT + GRACE), pytest.raises((TimeoutError, ConnectError)):
        pool.acquire('db', LIMIT)


def check(pool: Any, between: Any) -> None:
    pool.release(pool.acquire('db', PATIENCE), 'db')
    between.holds()
    with lasts_at_most(LIMIT + GRACE), pytest.raises((TimeoutError, ConnectError)):
        pool.acquire('db', LIMIT)


def release(pool: Any, between: Any) -> None:
    conn = pool.acquire('db', PATIENCE)
    ask(conn, 'SELECT', 3)
    between.holds()
    with lasts_at_most(LIMIT + GRACE):
        pool.release(conn, 'db')


def dispose(pool: Any, between: Any) -> None:
    conn = pool.acquire('db', PATIENCE)
    between.holds()
    conn.send_command('BLPOP', 'nothing', 0)
    with lasts_at_most(LIMIT + GRACE):
        pool.release(conn, 'db')


def close(pool: Any, between: Any) -> None:
    conn = pool.acquire('db', PATIENCE)
    between.holds()
    conn.send_command('BLPOP', 'nothing', 0)
    with lasts_at_most(LIMIT + GRACE):
        pool.close(LIMIT)


@pytest.mark.parametrize('step', [create, check, release, dispose, close], ids=lambda step: step.__name__)
def test_limits_in_threads(fault: Any, step: Any) -> None:
    manager = RedisConnectionManager({'db': params_of(fault)}, ping=True, reset='full', reset_timeout=LIMIT)
    pool = gcpool.threading.ConnectionPool[Any, Connection](manager, max_size=1, dispose_timeout=LIMIT)
    step(pool, fault)
    fault.passes()
    if step is not close:
        with pool.connection('db', PATIENCE) as conn:
            check_answers(conn)
        assert pool.get_size() == 1
    pool.close(PATIENCE)


async def create_async(pool: Any, between: Any) -> None:
    between.holds()
    with lasts_at_most(LIMIT + GRACE), pytest.raises((asyncio.TimeoutError, ConnectError)):
        await pool.acquire('db', LIMIT)


async def check_async(pool: Any, between: Any) -> None:
    await pool.release(await pool.acquire('db', PATIENCE), 'db')
    between.holds()
    with lasts_at_most(LIMIT + GRACE), pytest.raises((asyncio.TimeoutError, ConnectError)):
        await pool.acquire('db', LIMIT)


async def release_async(pool: Any, between: Any) -> None:
    conn = await pool.acquire('db', PATIENCE)
    await ask_async(conn, 'SELECT', 3)
    between.holds()
    with lasts_at_most(LIMIT + GRACE):
        await pool.release(conn, 'db')


async def dispose_async(pool: Any, between: Any) -> None:
    conn = await pool.acquire('db', PATIENCE)
    between.holds()
    await conn.send_command('BLPOP', 'nothing', 0)
    with lasts_at_most(LIMIT + GRACE):
        await pool.release(conn, 'db')


async def close_async(pool: Any, between: Any) -> None:
    conn = await pool.acquire('db', PATIENCE)
    between.holds()
    await conn.send_command('BLPOP', 'nothing', 0)
    with lasts_at_most(LIMIT + GRACE):
        await pool.close(LIMIT)


async def request_async(pool: Any, between: Any) -> None:
    """What the user awaits: docs/recovery.md promises that ``asyncio.timeout`` is exceeded by at most 0.1 s."""

    async def request() -> None:
        async with pool.connection('db') as conn:
            await async_client_of(conn).echo('x' * 100)

    await request()
    between.holds()
    with lasts_at_most(LIMIT + GRACE), pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(request(), LIMIT)


ASYNC_STEPS = [create_async, check_async, release_async, dispose_async, close_async, request_async]


@pytest.mark.parametrize('step', ASYNC_STEPS, ids=lambda step: step.__name__)
def test_limits_in_tasks(fault: Any, run: Run, step: Any) -> None:
    async def main() -> None:
        manager = AsyncRedisConnectionManager(
            {'db': params_of(fault)}, ping=step is not request_async, reset='full', reset_timeout=LIMIT
        )
        pool = gcpool.asyncio.ConnectionPool[Any, AsyncConnection](manager, max_size=1, dispose_timeout=LIMIT)
        await step(pool, fault)
        fault.passes()
        if step is not close_async:
            async with pool.connection('db', PATIENCE) as conn:
                assert await ask_async(conn, 'ECHO', 'mine') == b'mine'
            assert pool.get_size() == 1
        await pool.close(PATIENCE)
        # Aborting takes a few turns of the loop.
        for _ in range(5):
            await asyncio.sleep(0)

    run(main)


def test_socket_timeout_in_threads_is_one_on_each_wait(redis_server: RedisServer) -> None:
    # What docs/recovery.md promises.
    for kind, is_through in ((Proxy, False), (Dribble, True)):
        with kind(redis_server.host, redis_server.port) as between:
            manager = RedisConnectionManager({'db': params_of(between, socket_timeout=0.5)})
            conn = manager.create('db')
            between.holds()
            began = time.monotonic()
            if is_through:
                assert ask(conn, 'ECHO', 'x') == b'x'
                assert time.monotonic() - began > 0.5
            else:
                with lasts_at_most(0.5 + GRACE), pytest.raises(redis.TimeoutError):
                    ask(conn, 'ECHO', 'mine')
            manager.dispose('db', conn)


def test_socket_timeout_in_tasks_is_one_on_a_reply(redis_server: RedisServer, run: Run) -> None:
    async def main() -> None:
        for kind in (Proxy, Dribble):
            with kind(redis_server.host, redis_server.port) as between:
                manager = AsyncRedisConnectionManager({'db': params_of(between, socket_timeout=0.5)})
                conn = await manager.create('db')
                between.holds()
                with lasts_at_most(0.5 + GRACE), pytest.raises(redis.TimeoutError):
                    await ask_async(conn, 'ECHO', 'x' * 100)
                await manager.dispose('db', conn)
        for _ in range(5):
            await asyncio.sleep(0)

    run(main)


# ---------------------------------------------------------------------------------------------------------------------
# No thread can be started
# ---------------------------------------------------------------------------------------------------------------------


def no_thread(*args: object) -> None:
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize('reset', ['rollback', 'full'])
def test_without_threads(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, reset: Any) -> None:
    manager = RedisConnectionManager(
        # A name, which would otherwise be resolved in a thread.
        {'db': {'host': 'localhost', 'port': redis_server.port}},
        ping=True,
        reset=reset,
    )
    pool = gcpool.threading.ConnectionPool[Any, Connection](manager, max_size=1, acquire_timeout=PATIENCE)
    monkeypatch.setattr(threading.Thread, 'start', no_thread)
    numbers = set()
    for _ in range(20):
        with pool.connection('db') as conn:
            check_answers(conn)
            numbers.add(ask(conn, 'CLIENT', 'ID'))
    assert len(numbers) == 1
    pool.close(PATIENCE)


def test_limits_without_threads(fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = RedisConnectionManager({'db': params_of(fault)}, ping=True)
    pool = gcpool.threading.ConnectionPool[Any, Connection](manager, max_size=1)
    monkeypatch.setattr(threading.Thread, 'start', no_thread)
    check(pool, fault)
    pool.close(PATIENCE)


# ---------------------------------------------------------------------------------------------------------------------
# The server never has more sessions than the pool
# ---------------------------------------------------------------------------------------------------------------------

BUSY = """
local now = redis.call('TIME')
local stop = now[1] * 1000000 + now[2] + 150000
repeat now = redis.call('TIME') until now[1] * 1000000 + now[2] > stop
return 1
"""
AT_WORK: dict[str, tuple[Any, ...]] = {
    'BLPOP': ('BLPOP', 'nothing', 0),
    'XREAD': ('XREAD', 'BLOCK', 0, 'STREAMS', 'nothing', '$'),
    'WAIT': ('WAIT', 3, 0),
    'script': ('EVAL', BUSY, 0),
}


@contextlib.contextmanager
def sessions_are_counted(server: RedisServer) -> Iterator[list[int]]:
    """Sample the server's list of sessions, by several connections: it answers none of them while a script runs."""
    counts: list[int] = []

    def look(judge: Any) -> None:
        counts.append(len(judge.client_list()) - len(judges))

    with contextlib.ExitStack() as stack:
        judges = [
            stack.enter_context(contextlib.closing(redis.Redis(host=server.host, port=server.port, max_connections=1)))
            for _ in range(4)
        ]
        for judge in judges:
            judge.ping()
        for judge in judges:
            stack.enter_context(sampled(contextlib.nullcontext(functools.partial(look, judge))))
        yield counts


@pytest.mark.parametrize('name', AT_WORK)
def test_sessions_of_threads(redis_server: RedisServer, name: str) -> None:
    manager = RedisConnectionManager({'db': {'url': redis_server.url, 'socket_timeout': PATIENCE}})
    pool = gcpool.threading.ConnectionPool[Any, Connection](manager, max_size=2, acquire_timeout=PATIENCE)

    def request() -> None:
        with contextlib.suppress(redis.TimeoutError), pool.connection('db') as conn:
            conn.send_command(*AT_WORK[name])
            conn.read_response(timeout=0.03)
            raise AssertionError('it has answered in time')

    with sessions_are_counted(redis_server) as counts, ThreadPoolExecutor(8) as users:
        for future in [users.submit(request) for _ in range(8)]:
            future.result(PATIENCE)
    assert counts
    assert max(counts) <= 2
    pool.close(PATIENCE)
    redis_server.wait_for_clients(0)


@pytest.mark.parametrize('name', AT_WORK)
def test_sessions_of_tasks(redis_server: RedisServer, run: Run, name: str) -> None:
    async def main() -> None:
        # Without socket_timeout, for which redis-py writes within a wait_for(): before Python 3.12 that swallows a
        # cancellation that comes when all is written, and the command waits for its answer all the same.
        manager = AsyncRedisConnectionManager({'db': {'url': redis_server.url, 'socket_timeout': None}})
        pool = gcpool.asyncio.ConnectionPool[Any, AsyncConnection](manager, max_size=2, acquire_timeout=PATIENCE)

        async def work(conn: AsyncConnection) -> None:
            # wait_for() before Python 3.12 leaves it behind if it is cancelled again: then its connection is closed.
            with contextlib.suppress(redis.ConnectionError):
                await ask_async(conn, *AT_WORK[name])

        async def request(seconds: float) -> None:
            async with pool.connection('db') as conn:
                await asyncio.wait_for(work(conn), seconds)

        for _ in range(2):
            outcomes = await asyncio.gather(
                *(asyncio.wait_for(request(0.03), 0.1 + 0.05 * number) for number in range(8)), return_exceptions=True
            )
            assert {type(outcome) for outcome in outcomes} <= {asyncio.TimeoutError, TimeoutError, type(None)}
        await pool.close(PATIENCE)
        await asyncio.sleep(0)

    with sessions_are_counted(redis_server) as counts:
        run(main)
    assert counts
    assert max(counts) <= 2
    redis_server.wait_for_clients(0)


def test_one_that_connects_again_by_itself(redis_server: RedisServer) -> None:
    # Like redis-py after a timeout, for the next command of the same user.
    manager = RedisConnectionManager({'db': {'url': redis_server.url, 'socket_timeout': PATIENCE}})
    conn = manager.create('db')
    with sessions_are_counted(redis_server) as counts:
        for _ in range(3):
            conn.send_command('EVAL', BUSY, 0)
            with pytest.raises(redis.TimeoutError):
                conn.read_response(timeout=0.03)
            assert ask(conn, 'PING') == b'PONG'
    assert counts
    assert max(counts) <= 1
    manager.dispose('db', conn)
    redis_server.wait_for_clients(0)


def test_a_session_that_never_ends(silent_listener: socket.socket) -> None:
    """A server that is stuck for long does not delay connects for longer than that."""
    params = {'host': '127.0.0.1', 'port': silent_listener.getsockname()[1], 'protocol': 2, 'driver_info': None}
    manager = RedisConnectionManager({'db': params})
    conn = manager.create('db')
    conn.send_command('PING')
    with lasts_at_most(GRACE):
        manager.dispose('db', conn)
    with lasts_at_most(LIMIT + GRACE), pytest.raises(ConnectError):
        manager.create('db', LIMIT)
    with lasts_at_most(PATIENCE):
        manager.dispose('db', manager.create('db', PATIENCE))


# ---------------------------------------------------------------------------------------------------------------------
# Sessions as the handshake left them
# ---------------------------------------------------------------------------------------------------------------------

#: What a session can carry and RESET undoes.
UNDONE: dict[str, list[tuple[Any, ...]]] = {
    'database': [('SELECT', 5)],
    'user': [('AUTH', 'other', 'not-a-secret')],
    'name': [('CLIENT', 'SETNAME', 'somebody')],
    'tracking': [('CLIENT', 'TRACKING', 'ON', 'OPTIN'), ('CLIENT', 'CACHING', 'YES')],
    'watch': [('WATCH', 'k')],
    'transaction': [('MULTI',), ('SET', 'k', 'of a transaction')],
    'select in a transaction': [('MULTI',), ('SELECT', 7), ('EXEC',)],
    'reset': [('RESET',)],
    'asking': [('HELLO',)],
    'what is not known to change anything': [('OBJECT', 'HELP')],
}
#: And what RESET does not undo.
NOT_UNDONE: dict[str, tuple[Any, ...]] = {
    'subscription': ('SUBSCRIBE', 'channel'),
    'pattern': ('PSUBSCRIBE', 'chan*'),
    'monitor': ('MONITOR',),
    'no-evict': ('CLIENT', 'NO-EVICT', 'ON'),
    'no replies': ('CLIENT', 'REPLY', 'ON'),
    'library': ('CLIENT', 'SETINFO', 'LIB-NAME', 'x'),
}
HANDSHAKES: dict[str, dict[str, Any]] = {
    'plain': {'db': 0},
    'resp2': {'protocol': 2, 'db': 2, 'client_name': 'ours'},
    'resp3': {'protocol': 3, 'db': 3, 'client_name': 'ours', 'username': 'default'},
}


@pytest.fixture(scope='module')
def guarded_server() -> Iterator[RedisServer]:
    """A server that requires a password, and has another user."""
    with running_redis(password='not-a-secret') as server:
        server.command('ACL SETUSER other on >not-a-secret allkeys allchannels +@all')
        yield server


def session_of(info: bytes) -> dict[str, str]:
    """The part of CLIENT INFO that a user could have changed."""
    found = dict(pair.split('=', 1) for pair in info.decode().split() if '=' in pair)
    wanted = ('id', 'name', 'flags', 'db', 'sub', 'psub', 'multi', 'watch', 'user', 'redir', 'resp', 'lib-name')
    return {name: found[name] for name in wanted if name in found}


@pytest.mark.parametrize('handshake', HANDSHAKES)
def test_full_reset(guarded_server: RedisServer, monkeypatch: pytest.MonkeyPatch, handshake: str) -> None:
    sent: list[int] = []
    sendall = PlainSocket.sendall

    def note(sock: PlainSocket, data: bytes) -> None:
        sent.append(1)
        sendall(sock, data)

    monkeypatch.setattr(PlainSocket, 'sendall', note)
    params = {'host': guarded_server.host, 'port': guarded_server.port, 'password': guarded_server.password}
    manager = RedisConnectionManager({'db': {**params, **HANDSHAKES[handshake]}}, reset='full')
    pool = gcpool.threading.ConnectionPool[Any, Connection](manager, max_size=1, acquire_timeout=PATIENCE)
    with pool.connection('db') as conn:
        untouched = session_of(ask(conn, 'CLIENT', 'INFO'))
    for name, commands in [*UNDONE.items()] * 3:
        with pool.connection('db') as conn:
            for command in commands:
                with contextlib.suppress(redis.ResponseError):
                    ask(conn, *command)
            sent.clear()
        # In one piece.
        assert len(sent) == 1, name
        with pool.connection('db') as conn:
            assert session_of(ask(conn, 'CLIENT', 'INFO')) == untouched, name
            check_answers(conn)
    sent.clear()
    with pool.connection('db'):
        pass
    assert not sent
    pool.close(PATIENCE)
    guarded_server.wait_for_clients(0)


@pytest.mark.parametrize('handshake', HANDSHAKES)
def test_full_reset_async(guarded_server: RedisServer, run: Run, handshake: str) -> None:
    async def main() -> None:
        params = {'host': guarded_server.host, 'port': guarded_server.port, 'password': guarded_server.password}
        manager = AsyncRedisConnectionManager({'db': {**params, **HANDSHAKES[handshake]}}, reset='full')
        pool = gcpool.asyncio.ConnectionPool[Any, AsyncConnection](manager, max_size=1, acquire_timeout=PATIENCE)
        async with pool.connection('db') as conn:
            untouched = session_of(await ask_async(conn, 'CLIENT', 'INFO'))
        for name, commands in [*UNDONE.items()] * 3:
            async with pool.connection('db') as conn:
                for command in commands:
                    with contextlib.suppress(redis.ResponseError):
                        await ask_async(conn, *command)
            async with pool.connection('db') as conn:
                assert session_of(await ask_async(conn, 'CLIENT', 'INFO')) == untouched, name
                assert await ask_async(conn, 'ECHO', name) == name.encode()
        await pool.close(PATIENCE)

    run(main)
    guarded_server.wait_for_clients(0)


def test_full_reset_on_a_unix_socket(redis_server: RedisServer, run: Run) -> None:
    # On which redis-py for asyncio goes through its handshake twice.
    params = {'db': {'path': str(redis_server.socket_path), 'client_name': 'ours', 'db': 2}}
    commands = [('RESET',), ('HELLO', 3), ('CLIENT', 'SETNAME', 'ours'), ('SELECT', 2)]

    def check(conn: Any) -> None:
        packed = conn.pack_reset().commands
        assert [command[: len(wanted)] for command, wanted in zip(packed, commands, strict=True)] == commands

    manager = RedisConnectionManager(params, reset='full')
    conn = manager.create('db')
    check(conn)
    manager.dispose('db', conn)

    async def main() -> None:
        manager = AsyncRedisConnectionManager(params, reset='full')
        conn = await manager.create('db')
        check(conn)
        await manager.dispose('db', conn)

    run(main)


@pytest.mark.parametrize('name', NOT_UNDONE)
def test_what_a_full_reset_cannot_undo(redis_server: RedisServer, name: str) -> None:
    manager = RedisConnectionManager({'db': redis_server.url}, reset='full')
    conn = manager.create('db')
    conn.send_command(*NOT_UNDONE[name])
    with contextlib.suppress(redis.ResponseError):
        conn.read_response(push_request=True)
    with pytest.raises(DiscardConnection, match='was sent on it'):
        manager.on_release('db', conn)
    assert manager.is_broken('db', conn, ValueError())
    manager.dispose('db', conn)


def test_a_block_that_fails_leaves_what_can_be_undone(redis_server: RedisServer) -> None:
    manager = RedisConnectionManager({'db': redis_server.url}, reset='full')
    conn = manager.create('db')
    ask(conn, 'SELECT', 5)
    assert not manager.is_broken('db', conn, ValueError())
    # Its release was skipped.
    assert not manager.check_aliveness('db', conn)
    manager.on_release('db', conn)
    assert manager.check_aliveness('db', conn)
    manager.dispose('db', conn)


def test_credentials_that_are_good_no_more(guarded_server: RedisServer, run: Run) -> None:
    guarded_server.command('ACL SETUSER passing on >first allkeys +@all')
    params = {
        'db': {'host': guarded_server.host, 'port': guarded_server.port, 'username': 'passing', 'password': 'first'}
    }
    manager = RedisConnectionManager(params, reset='full')
    conn = manager.create('db')
    ask(conn, 'PING')

    async def main() -> None:
        manager = AsyncRedisConnectionManager(params, reset='full')
        conn = await manager.create('db')
        await ask_async(conn, 'PING')
        guarded_server.command('ACL SETUSER passing resetpass >second')
        with pytest.raises(DiscardConnection, match='could not be reset') as caught:
            await manager.on_release('db', conn)
        assert 'first' not in str(caught.value)
        await manager.dispose('db', conn)

    run(main)
    with pytest.raises(DiscardConnection, match='could not be reset'):
        manager.on_release('db', conn)
    assert not manager.check_aliveness('db', conn)
    manager.dispose('db', conn)


# ---------------------------------------------------------------------------------------------------------------------
# Alive, but useless
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def second_server() -> Iterator[RedisServer]:
    # It does not wait for a second replica before it sends its data to the first.
    with running_redis('--repl-diskless-sync-delay', '0') as server:
        yield server


@pytest.fixture
def failover(redis_server: RedisServer, second_server: RedisServer) -> Iterator[Proxy]:
    """A proxy in front of a server; the second takes over when told to by :py:func:`fail_over`."""
    with Proxy(redis_server.host, redis_server.port) as proxy:
        yield proxy
    redis_server.be_master()


def fail_over(proxy: Proxy, old: RedisServer, new: RedisServer) -> None:
    old.command(f'REPLICAOF {new.host} {new.port}')
    deadline = time.monotonic() + PATIENCE
    while 'master_link_status:up' not in old.command('INFO replication'):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    proxy.server_address = new.host, new.port


def write(conn: Any) -> None:
    ask(conn, 'SET', 'k', 1)


def write_and_look_away(conn: Any) -> None:
    with contextlib.suppress(redis.ReadOnlyError):
        write(conn)


def write_by_a_pipeline(conn: Any) -> None:
    client: Any = client_of(conn)
    answers = client.pipeline(transaction=False).get('k').set('k', 1).execute(raise_on_error=False)
    assert isinstance(answers[1], redis.ReadOnlyError)


def write_in_a_transaction(conn: Any) -> None:
    client: Any = client_of(conn)
    client.pipeline().set('k', 1).execute()


def write_by_a_script(conn: Any) -> None:
    ask(conn, 'EVAL', "return redis.call('SET', KEYS[1], 1)", 1, 'k')


WRITES = [write, write_and_look_away, write_by_a_pipeline, write_in_a_transaction, write_by_a_script]


@pytest.mark.parametrize('first_write', WRITES, ids=lambda write: write.__name__)
def test_failover(
    failover: Proxy, redis_server: RedisServer, second_server: RedisServer, first_write: Callable[[Any], None]
) -> None:
    manager = RedisConnectionManager({'db': {'host': failover.host, 'port': failover.port}})
    pool = gcpool.threading.ConnectionPool[Any, Connection](manager, max_size=5, min_idle=5, acquire_timeout=PATIENCE)
    before = [pool.acquire('db') for _ in range(5)]
    for conn in before[:4]:
        write(conn)
        pool.release(conn, 'db')
    fail_over(failover, redis_server, second_server)
    with contextlib.suppress(redis.ResponseError), pool.connection('db') as conn:
        first_write(conn)
    # At once, by the idle connections as well as by the one in use.
    pool.release(before[4], 'db')
    after = [pool.acquire('db') for _ in range(5)]
    for conn in after:
        write(conn)
    assert not set(map(id, before)) & set(map(id, after))
    for conn in after:
        pool.release(conn, 'db')
    again = [pool.acquire('db') for _ in range(5)]
    assert set(map(id, again)) == set(map(id, after))
    for conn in again:
        pool.release(conn, 'db')
    pool.close(PATIENCE)


async def write_async(conn: Any) -> None:
    await ask_async(conn, 'SET', 'k', 1)


async def write_by_a_pipeline_async(conn: Any) -> None:
    client: Any = async_client_of(conn)
    answers = await client.pipeline(transaction=False).get('k').set('k', 1).execute(raise_on_error=False)
    assert isinstance(answers[1], redis.ReadOnlyError)


async def write_in_a_transaction_async(conn: Any) -> None:
    client: Any = async_client_of(conn)
    await client.pipeline().set('k', 1).execute()


async def write_in_a_group_async(conn: Any) -> None:
    await in_group(write_async(conn))


ASYNC_WRITES = [write_async, write_by_a_pipeline_async, write_in_a_transaction_async, write_in_a_group_async]


@pytest.mark.parametrize('first_write', ASYNC_WRITES, ids=lambda write: write.__name__)
def test_failover_async(
    failover: Proxy, redis_server: RedisServer, second_server: RedisServer, run: Run, first_write: Any
) -> None:
    async def main() -> None:
        manager = AsyncRedisConnectionManager({'db': {'host': failover.host, 'port': failover.port}})
        pool = gcpool.asyncio.ConnectionPool[Any, AsyncConnection](manager, max_size=5, min_idle=5)
        before = [await pool.acquire('db', PATIENCE) for _ in range(5)]
        for conn in before[:4]:
            await write_async(conn)
            await pool.release(conn, 'db')
        await asyncio.get_running_loop().run_in_executor(None, fail_over, failover, redis_server, second_server)
        with contextlib.suppress(redis.ResponseError, ExceptionGroup):
            async with pool.connection('db', PATIENCE) as conn:
                await first_write(conn)
        await pool.release(before[4], 'db')
        after = [await pool.acquire('db', PATIENCE) for _ in range(5)]
        for conn in after:
            await write_async(conn)
        assert not set(map(id, before)) & set(map(id, after))
        for conn in after:
            await pool.release(conn, 'db')
        await pool.close(PATIENCE)

    run(main)


def test_a_server_that_stays_read_only(redis_server: RedisServer, second_server: RedisServer) -> None:
    """One write that fails replaces no connection twice, and none if its code is not on the list."""
    redis_server.command(f'REPLICAOF {second_server.host} {second_server.port}')
    try:
        for codes, replaced in ((BROKEN_CODES, 3), ((), 0)):
            manager = RedisConnectionManager({'db': redis_server.url}, broken_codes=codes)
            pool = gcpool.threading.ConnectionPool[Any, Connection](manager, max_size=3, min_idle=3)
            conns = [pool.acquire('db', PATIENCE) for _ in range(3)]
            numbers = {ask(conn, 'CLIENT', 'ID') for conn in conns}
            for conn in conns:
                pool.release(conn, 'db')
            with pytest.raises(redis.ReadOnlyError), pool.connection('db', PATIENCE) as conn:
                write(conn)
            for _ in range(5):
                conns = [pool.acquire('db', PATIENCE) for _ in range(3)]
                numbers |= {ask(conn, 'CLIENT', 'ID') for conn in conns}
                for conn in conns:
                    pool.release(conn, 'db')
            assert len(numbers) == 3 + replaced
            pool.close(PATIENCE)
    finally:
        redis_server.be_master()


def unblocked(server: RedisServer, conn: Any, nobody: int) -> None:
    number = ask(conn, 'CLIENT', 'ID')
    conn.send_command('BLPOP', 'nothing', 0)
    until_at_work(server, number)
    server.command(f'REPLICAOF 127.0.0.1 {nobody}')
    conn.read_response()


def master_down(server: RedisServer, conn: Any, nobody: int) -> None:
    server.command('CONFIG SET replica-serve-stale-data no')
    server.command(f'REPLICAOF 127.0.0.1 {nobody}')
    ask(conn, 'GET', 'k')


CODES = {'UNBLOCKED': unblocked, 'MASTERDOWN': master_down}


@pytest.mark.parametrize('code', CODES)
def test_other_codes(code: str) -> None:
    with running_redis() as server, closed_port() as nobody:
        manager = RedisConnectionManager({'db': server.url})
        conn, sibling = manager.create('db'), manager.create('db')
        other = RedisConnectionManager({'db': server.url})
        stranger = other.create('db')
        with pytest.raises(redis.RedisError) as caught:
            CODES[code](server, conn, nobody)
        assert manager.is_broken('db', conn, caught.value)
        assert not manager.check_aliveness('db', sibling)
        with pytest.raises(DiscardConnection, match='made before'):
            manager.on_release('db', sibling)
        assert other.check_aliveness('db', stranger)
        later = manager.create('db')
        assert manager.check_aliveness('db', later)
        for one in (conn, sibling, later):
            manager.dispose('db', one)
        other.dispose('db', stranger)


def test_a_server_that_loads_its_data(redis_server: RedisServer, second_server: RedisServer) -> None:
    # Like a former primary that has become a replica.
    assert second_server.command('EVAL "for i = 1, 3000 do redis.call(\'SET\', i, i) end return 1" 0') == ':1'
    manager = RedisConnectionManager({'db': redis_server.url})
    conn, sibling = manager.create('db'), manager.create('db')
    try:
        redis_server.command('CONFIG SET key-load-delay 1000')
    except CommandError:
        pytest.skip('this Redis cannot be told to load slowly')
    redis_server.command('CONFIG SET loading-process-events-interval-bytes 1024')
    redis_server.command(f'REPLICAOF {second_server.host} {second_server.port}')
    try:
        deadline = time.monotonic() + PATIENCE
        failure: Exception | None = None
        while failure is None:
            assert time.monotonic() < deadline
            try:
                ask(conn, 'GET', '1')
            except redis.BusyLoadingError as exc:
                failure = exc
        assert manager.is_broken('db', conn, failure)
        assert not manager.check_aliveness('db', sibling)
    finally:
        redis_server.command('CONFIG SET key-load-delay 0')
        redis_server.be_master()
    manager.dispose('db', conn)
    manager.dispose('db', sibling)


# ---------------------------------------------------------------------------------------------------------------------
# The recipes of docs/drivers/redis.md, many times on one connection
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('reset', ['rollback', 'full'])
def test_recipes(redis_server: RedisServer, reset: Any) -> None:
    def parameters(endpoint: str) -> dict[str, object]:
        return {'url': redis_server.url, 'client_name': endpoint, 'socket_timeout': PATIENCE}

    manager = RedisConnectionManager(parameters, reset=reset)
    pool = gcpool.threading.ConnectionPool[Any, Connection](manager, max_size=1, acquire_timeout=PATIENCE)
    sessions = []
    for number in range(25):
        with pool.connection('cache') as conn:
            sessions.append(session_of(ask(conn, 'CLIENT', 'INFO')))
            assert ask(conn, 'SET', 'answer', number) == b'OK'
            assert ask(conn, 'GET', 'answer') == str(number).encode()
        with pool.connection('cache') as conn:
            client: Any = client_of(conn)
            client.set('greeting', 'hello')
            assert client.get('greeting') == b'hello'
            assert client.pipeline().incr('answer').execute() == [number + 1]
    assert sessions[0]['name'] == 'cache'
    assert sessions == sessions[:1] * 25
    pool.close(PATIENCE)


@pytest.mark.parametrize('reset', ['rollback', 'full'])
def test_recipes_async(redis_server: RedisServer, run: Run, reset: Any) -> None:
    async def main() -> None:
        manager = AsyncRedisConnectionManager({'cache': redis_server.url}, reset=reset)
        pool = gcpool.asyncio.ConnectionPool[Any, AsyncConnection](manager, max_size=1, acquire_timeout=PATIENCE)
        sessions = []
        for _ in range(25):
            async with pool.connection('cache') as conn:
                sessions.append(session_of(await ask_async(conn, 'CLIENT', 'INFO')))
                await ask_async(conn, 'DEL', 'answer')
                await any_async_client(conn).set('greeting', 'hello')
                assert await any_async_client(conn).getdel('greeting') == b'hello'
        assert sessions == sessions[:1] * 25
        await pool.close(PATIENCE)

    run(main)
