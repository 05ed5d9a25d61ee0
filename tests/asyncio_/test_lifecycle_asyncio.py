"""The life of a pool on asyncio: from one event loop to the next, and its end in signal handlers and other threads."""

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from gcpool._core import Growing
from gcpool.asyncio import BaseConnectionManager, ConnectionPool
from gcpool.exceptions import EventLoopMismatch, PoolInUse, PoolTimeout
from tests.asyncio_.runtime import spawn, until
from tests.pool.support import Case, Gate, HookedManager, Manager
from tests.support import PATIENCE, Connection

Pool = ConnectionPool[str, Connection]


# -- from one loop to the next ----------------------------------------------------------------------------------------


@pytest.mark.parametrize('background_collector', [False, True])
def test_an_empty_pool_moves_to_the_next_loop(background_collector: bool) -> None:
    manager = HookedManager()
    pool: Pool = ConnectionPool(manager, background_collector=background_collector, min_idle=0, idle_timeout=3600)

    async def use() -> None:
        async with pool.connection('a'):
            pass
        await pool.drain()
        await until(lambda: pool.get_size() == 0)

    async def wait_until_due() -> None:
        await pool.release(await pool.acquire('a'), 'a')
        assert pool._collector is None or pool._collector._timer.will_fire_in(asyncio.get_running_loop())
        await pool.drain()
        await until(lambda: pool.get_size() == 0)

    for _ in range(3):
        asyncio.run(use())
        asyncio.run(wait_until_due())
    asyncio.run(pool.aclose())
    assert [conn.disposals for conn in manager.connections] == [1] * 6


def test_a_pool_moves_after_a_loop_that_ended_in_the_middle_of_an_acquire() -> None:
    pool: Pool = ConnectionPool(Manager(), max_size=1)
    pool.suspend()

    async def wait() -> None:
        job = spawn(pool.acquire, 'a')
        await until(lambda: pool.get_stats()['waiting'] == 1)
        assert not job.done

    async def use() -> None:
        async with pool, pool.connection('a'):
            pass

    asyncio.run(wait())
    pool.resume()
    asyncio.run(use())


@pytest.mark.parametrize('options', [{}, {'reconnect_timeout': 60.0}, {'min_size': 1}], ids=str)
@pytest.mark.parametrize('how', ['an outage', 'a connect that hangs'])
def test_a_pool_that_moves_goes_on_with_what_was_to_be_created(options: dict[str, Any], how: str) -> None:
    """Its timer, for the next attempt to connect, was one of the loop that is closed."""
    manager = Manager()
    pool: ConnectionPool[str, Connection] = ConnectionPool(manager, **options)
    pool.warm_up('a', 2)

    async def be_late() -> None:
        steps = [OSError('down')] if how == 'an outage' else [Gate(), Gate()]
        manager.script('create', *steps * 20)
        with pytest.raises(PoolTimeout):
            await pool.wait(0.1)

    async def be_in_time() -> None:
        manager.forget_script()
        await pool.wait(PATIENCE)
        assert pool.get_stats('a')['idle'] == 2
        await pool.close()

    asyncio.run(be_late())
    asyncio.run(be_in_time())


def test_a_pool_with_connections_does_not_leave_its_loop_and_names_terminate() -> None:
    pool: Pool = ConnectionPool(Manager())

    async def use() -> None:
        await pool.release(await pool.acquire('a'), 'a')

    asyncio.run(use())
    with pytest.raises(
        EventLoopMismatch, match=r'which is closed, and still has 1 of its connections; .*terminate\(\)'
    ):
        asyncio.run(use())
    pool.terminate()
    assert pool.get_size() == 0


def test_a_pool_does_not_leave_a_loop_that_may_run_again_nor_while_a_task_of_its_own_is_left() -> None:
    pool: Pool = ConnectionPool(Manager())

    async def use() -> None:
        await pool.drain()

    first = asyncio.new_event_loop()
    first.run_until_complete(use())
    with pytest.raises(EventLoopMismatch, match='expected one pool for each event loop'):
        asyncio.run(use())
    hook = first.create_task(asyncio.sleep(PATIENCE))
    pool._tasks.add(hook)
    first.run_until_complete(asyncio.sleep(0))
    first.close()
    with pytest.raises(EventLoopMismatch, match='terminate'):
        asyncio.run(use())
    pool.terminate()
    assert not pool._tasks


def test_a_waiter_in_a_closed_loop_keeps_the_pool_there() -> None:
    pool: Pool = ConnectionPool(Manager())
    pool.suspend()
    loop = asyncio.new_event_loop()
    task = loop.create_task(pool.acquire('a'))
    loop.run_until_complete(asyncio.sleep(0))
    assert pool.get_stats()['waiting'] == 1
    loop.close()
    with pytest.raises(EventLoopMismatch):
        asyncio.run(pool.drain())
    # asyncio would log that the task was never done.
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    del task
    pool._waits.clear()
    gc.collect()
    assert pool.get_stats()['waiting'] == 0
    asyncio.run(pool.drain())
    pool.terminate()


# -- terminate --------------------------------------------------------------------------------------------------------


class SocketManager(BaseConnectionManager[str, socket.socket]):
    """Connects to itself."""

    def __init__(self) -> None:
        self.peers: list[socket.socket] = []

    async def create(self, endpoint: str) -> socket.socket:
        here, there = socket.socketpair()
        self.peers.append(there)
        return here

    async def dispose(self, endpoint: str, conn: socket.socket) -> None:
        conn.close()

    async def on_acquire(self, endpoint: str, conn: socket.socket) -> None:
        await asyncio.sleep(0)


def test_terminate_after_the_loop_was_closed_leaves_no_socket_open(caplog: pytest.LogCaptureFixture) -> None:
    manager = SocketManager()
    pool: ConnectionPool[str, socket.socket] = ConnectionPool(manager)

    async def use() -> None:
        conns = [await pool.acquire('a') for _ in range(3)]
        await pool.release(conns[0], 'a')

    asyncio.run(use())

    def end() -> None:
        pool.terminate()
        gc.collect()

    # By the finalizer of the socket.
    with pytest.warns(ResourceWarning, match='unclosed'):
        end()
    for peer in manager.peers:
        peer.settimeout(PATIENCE)
        assert peer.recv(1) == b''
        peer.close()
    assert pool.closed
    assert pool.get_size() == 0
    assert 'the event loop of the pool is closed: dropped 3 of its connections' in caplog.text
    pool.terminate()


def test_terminate_drops_what_a_closed_loop_has_half_closed() -> None:
    manager = Manager()
    pool: Pool = ConnectionPool(manager)
    loop = asyncio.new_event_loop()

    async def use() -> None:
        conns = [await pool.acquire('a') for _ in range(3)]
        for conn in conns:
            await pool.release(conn, 'a')
        manager.script('dispose', Gate(), Gate())
        await pool.close(wait=False)
        await until(lambda: sum(conn.disposals for conn in manager.connections) == 3)

    loop.run_until_complete(use())
    loop.close()
    assert pool.get_size() == 2
    pool.terminate()
    assert pool.get_size() == 0
    assert [conn.disposals for conn in manager.connections] == [1, 1, 1]


@pytest.mark.parametrize('where', ['thread', 'handler of the loop', 'handler of the process', 'callback'])
async def test_terminate_may_be_called_anywhere(where: str) -> None:
    async with Case() as case:
        conns = await case.acquire('a', 2)
        await case.release(conns[0])
        loop = asyncio.get_running_loop()
        previous: Any = signal.getsignal(signal.SIGALRM)
        try:
            if where == 'thread':
                thread = threading.Thread(target=case.pool.terminate)
                thread.start()
                thread.join(PATIENCE)
            elif where == 'handler of the loop':
                loop.add_signal_handler(signal.SIGALRM, case.pool.terminate)
                signal.raise_signal(signal.SIGALRM)
            elif where == 'handler of the process':
                signal.signal(signal.SIGALRM, lambda *_: case.pool.terminate())
                signal.raise_signal(signal.SIGALRM)
            else:
                loop.call_soon(case.pool.terminate)
            await until(lambda: case.pool.get_size() == 0)
        finally:
            loop.remove_signal_handler(signal.SIGALRM)
            signal.signal(signal.SIGALRM, previous)
        assert case.manager.living == []
        assert case.pool.closed
        await case.release(conns[1])


def test_terminate_in_a_signal_handler_wakes_a_loop_that_sleeps() -> None:
    manager = Manager()
    pool: Pool = ConnectionPool(manager)
    outcomes: list[int] = []

    async def main() -> None:
        conn = await pool.acquire('a')
        job = spawn(pool.close)
        await until(lambda: pool.closed)
        # Nothing else happens in the loop.
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        await job.result()
        outcomes.append(conn.disposals)

    previous = signal.signal(signal.SIGALRM, lambda *_: pool.terminate())
    try:
        asyncio.run(main())
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert outcomes == [1]


def test_terminate_between_two_runs_of_a_loop_takes_effect_in_the_next() -> None:
    manager = Manager()
    pool: Pool = ConnectionPool(manager)
    loop = asyncio.new_event_loop()
    conn = loop.run_until_complete(pool.acquire('a'))
    pool.terminate()
    assert conn.disposals == 0
    loop.run_until_complete(until(lambda: pool.get_size() == 0))
    assert conn.disposals == 1
    loop.close()


async def test_terminate_gives_a_close_that_hangs_little_time(caplog: pytest.LogCaptureFixture) -> None:
    async with Case() as case:
        case.manager.script('dispose', Gate(), Gate())
        await case.release(*await case.acquire('a', 2))
        case.pool.terminate()
        await until(lambda: case.pool.get_size() == 0)
        messages = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
        text = f"{case.pool.name}: closing a connection to 'a' timed out: the limit was 0.1 s [pool_closed]"
        assert messages == [text] * 2


# -- other threads, other names ---------------------------------------------------------------------------------------


async def in_thread(call: Callable[[], object]) -> None:
    thread = threading.Thread(target=call)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()


async def test_suspend_and_resume_may_be_called_in_other_threads() -> None:
    async with Case(max_size=2) as case:
        conns = await case.acquire('a', 2)
        await in_thread(case.pool.suspend)
        jobs = []
        for number in range(3):
            jobs.append(spawn(case.cycle, 'a'))
            await case.waiting(number + 1)
        await case.release(*conns)
        await in_thread(case.pool.resume)
        for job in jobs:
            assert await job.result() in {'a1', 'a2'}


async def test_a_pool_may_be_opened_in_another_thread_and_loop() -> None:
    async with Case(open=False, background_collector=True) as case:
        await in_thread(lambda: asyncio.run(case.pool.open()))
        assert await case.cycle('a') == 'a1'


async def test_a_pool_closes_under_the_name_that_contextlib_knows() -> None:
    async with Case() as case:
        async with contextlib.aclosing(case.pool):
            await case.cycle('a')
        assert case.pool.closed
        assert await case.pool.aclose(timeout=0) == 0
        assert await case.pool.aclose(wait=False) == 0


async def test_drain_in_another_loop_is_refused() -> None:
    async with Case() as case:
        await case.cycle('a')
        outcomes: list[type[BaseException]] = []

        def run() -> None:
            for call in (case.pool.drain, case.pool.wait_idle, lambda: case.pool.close(wait=False)):
                try:
                    asyncio.run(call())
                except EventLoopMismatch as exc:
                    outcomes.append(type(exc))

        await in_thread(run)
        assert outcomes == [EventLoopMismatch] * 3
        assert not case.pool.closed
        assert await case.cycle('a') == 'a1'


# -- waiting for oneself ----------------------------------------------------------------------------------------------


async def test_a_block_is_found_however_deep_the_call_is() -> None:
    async with Case() as case:

        async def refused() -> None:
            with pytest.raises(PoolInUse):
                await case.pool.close()

        async def conns() -> AsyncIterator[Connection]:
            async with case.pool.connection('b') as conn:
                yield conn
                await refused()

        async with case.pool.connection('a'):
            await refused()
        async for _ in conns():
            pass
        await case.pool.close()


async def test_a_block_of_another_task_is_waited_for() -> None:
    async with Case() as case:
        async with case.pool.connection('a'):
            job = spawn(case.pool.close)
            await until(lambda: case.pool.closed)
        assert await job.result() == 0


async def test_a_close_that_is_cancelled_while_it_looks_for_a_block_closes_the_pool() -> None:
    async with Case() as case:
        conn = await case.pool.acquire('a')
        job = spawn(case.pool.close)
        await asyncio.sleep(0)
        assert not case.pool._core.closed
        job.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job.result()
        assert case.pool.closed
        await case.release(conn)


async def test_a_create_of_the_pool_shows_its_endpoint_as_it_is_described() -> None:
    shown: list[str] = []

    class Discreet(Manager):
        def describe_endpoint(self, endpoint: Any) -> object:
            return endpoint.partition('?')[0]

        async def create(self, endpoint: Any, timeout: float | None = None) -> Connection:
            shown.extend(repr(thing) for thing in gc.get_objects() if type(thing) is Growing)
            return await super().create(endpoint)

    async with Case(Discreet(), name='orders', create_in_background=True) as case:
        await case.cycle('db?password=hunter2')
    assert shown == ["<Growing of 'orders' for 'db': creating>"]
