"""The programs that ``test_gevent.py`` runs in processes of their own: the pool for threads, and greenlets for threads.

Only what the hub runs can end what a greenlet waits for here (but for one program, which has other threads): where a
wait kept the hub from running, a program would never end.
"""

import importlib
import sys

if sys.argv[-1] == 'gcpool first':
    importlib.import_module('gcpool.threading')

import gevent.monkey

# One program patches later.
if sys.argv[-1] != 'patch later':
    gevent.monkey.patch_all()

import faulthandler
import gc
import logging
import os
import random
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import gevent
import gevent.exceptions
from gevent.event import Event

from gcpool import _long_waits
from gcpool.exceptions import ConnectionPoolClosedError, PoolTimeout
from gcpool.threading import BaseConnectionManager, ConnectionPool
from tests.support import dropped_pools

# Seconds that nothing here takes unless something is broken.
PATIENCE = 30.0

QUICK = os.environ.get('GCPOOL_QUICK') == '1'
HOOKS = ('create', 'check_aliveness', 'on_acquire', 'on_release', 'dispose')


class Connection:
    """A connection to nothing."""

    def __init__(self) -> None:
        self.users = 0
        self.disposals = 0


class Manager(BaseConnectionManager[Any, Connection]):
    """Remembers its connections. Each method first does as ``pause`` says, which may switch to other greenlets."""

    def __init__(self) -> None:
        self.connections: list[Connection] = []
        self.pause: Callable[[str], object] = lambda name: None

    def create(self, endpoint: Any, timeout: float | None = None) -> Connection:
        self.pause('create')
        conn = Connection()
        self.connections.append(conn)
        return conn

    def dispose(self, endpoint: Any, conn: Connection, timeout: float | None = None) -> None:
        conn.disposals += 1
        self.pause('dispose')

    @property
    def living(self) -> int:
        return sum(not conn.disposals for conn in self.connections)


class HookedManager(Manager):
    """Has all the methods."""

    def check_aliveness(self, endpoint: Any, conn: Connection, timeout: float | None = None) -> bool:
        self.pause('check_aliveness')
        return True

    def on_acquire(self, endpoint: Any, conn: Connection) -> None:
        self.pause('on_acquire')

    def on_release(self, endpoint: Any, conn: Connection) -> None:
        self.pause('on_release')


Pool = ConnectionPool[Any, Connection]


def make_pool(hooks: bool = False, **parameters: Any) -> tuple[Pool, Manager]:
    manager = HookedManager() if hooks else Manager()
    return ConnectionPool(manager, **{'max_size': 3, **parameters}), manager


def check_whole(pool: Pool, manager: Manager) -> None:
    """Nothing is out, nobody waits, nothing is lost: as many as there may be can be had, at once."""
    manager.pause = lambda name: None
    pool._core.check_invariants()
    stats = pool.get_stats()
    assert (stats['acquired'], stats['waiting']) == (0, 0), stats
    assert stats['size'] == stats['idle'] == manager.living, (stats, manager.living)
    assert {conn.disposals for conn in manager.connections} <= {0, 1}
    conns = [pool.acquire('a', timeout=0) for _ in range(pool.max_size)]
    assert len(set(conns)) == pool.max_size
    for conn in conns:
        pool.release(conn, 'a')
    pool.close()
    assert manager.living == 0


def finish(*greenlets: 'gevent.Greenlet[..., Any]') -> None:
    """Wait for greenlets that end, and raise what they raised."""
    gevent.joinall(greenlets, timeout=PATIENCE, raise_error=True)
    assert all(greenlet.dead for greenlet in greenlets)


def until(condition: Callable[[], object]) -> None:
    """Let others run until something is true."""
    with gevent.Timeout(PATIENCE):
        while not condition():
            gevent.sleep(0.0005)


def use(conn: Connection) -> None:
    """Use a connection, while others run, as its only user."""
    conn.users += 1
    gevent.sleep(0)
    assert conn.users == 1
    conn.users -= 1


# ---- what a pool is for ---------------------------------------------------------------------------------------------


def share(hooks: bool) -> None:
    pool, manager = make_pool(hooks)
    manager.pause = lambda name: gevent.sleep(0)
    served: Counter[int] = Counter()

    def cycle(number: int) -> None:
        for turn in range(20):
            if turn % 2:
                with pool.connection('a') as conn:
                    use(conn)
            else:
                conn = pool.acquire('a', timeout=PATIENCE)
                try:
                    use(conn)
                finally:
                    pool.release(conn, 'a')
            served[number] += 1

    finish(*(gevent.spawn(cycle, number) for number in range(40)))
    assert set(served.values()) == {20}
    assert pool.get_stats()['acquires'] == 800
    assert len(manager.connections) == 3
    check_whole(pool, manager)


def first_come_first_served() -> None:
    pool, manager = make_pool(max_size=1)
    order = []

    def take(number: int) -> None:
        with pool.connection('a') as conn:
            order.append(number)
            use(conn)

    conn = pool.acquire('a')
    greenlets = []
    for number in range(50):
        greenlets.append(gevent.spawn(take, number))
        until(lambda: pool.get_stats()['waiting'] == number + 1)  # noqa: B023 - it is called here
    pool.release(conn, 'a')
    finish(*greenlets)
    assert order == list(range(50))
    check_whole(pool, manager)


def nobody_is_passed_over() -> None:
    """Greenlets that come back at once do not get ahead of those that wait."""
    pool, manager = make_pool(max_size=2)
    served: Counter[int] = Counter()

    def cycle(number: int) -> None:
        while min(served[number] for number in range(10)) < 50:
            with pool.connection('a') as conn:
                served[number] += 1
                use(conn)

    finish(*(gevent.spawn(cycle, number) for number in range(10)))
    assert max(served.values()) - min(served.values()) <= 1, served
    check_whole(pool, manager)


def wait_while_others_run() -> None:
    pool, manager = make_pool(max_size=1)
    conn = pool.acquire('a')
    turns = []

    def give_back_later() -> None:
        for turn in range(100):
            gevent.sleep(0)
            turns.append(turn)
        pool.release(conn, 'a')

    giver = gevent.spawn(give_back_later)
    with pool.connection('a', timeout=PATIENCE) as again:
        assert again is conn
        assert len(turns) == 100
    finish(giver)
    check_whole(pool, manager)


def time_limit() -> None:
    pool, manager = make_pool(max_size=1)
    conn = pool.acquire('a')
    ticks: list[None] = []

    def tick() -> None:
        while True:
            gevent.sleep(0.001)
            ticks.append(None)

    ticker = gevent.spawn(tick)
    for timeout in (0, 0.05):
        try:
            pool.acquire('a', timeout=timeout)
        except PoolTimeout:
            continue
        raise AssertionError('there was nothing to be had')
    assert ticks
    ticker.kill()
    assert pool.get_stats()['timeouts'] == 2
    pool.release(conn, 'a')
    check_whole(pool, manager)


def nothing_can_end_the_wait() -> None:
    """gevent notices that no greenlet is left to run, and says so to the one that waits, after the pool's warning."""
    _long_waits.LONG_WAIT = 0.01
    pool, manager = make_pool(max_size=1)
    conn = pool.acquire('a')
    logger, handler = logging.getLogger('gcpool'), logging.NullHandler()
    logger.addHandler(handler)
    try:
        pool.acquire('a')
    except gevent.exceptions.LoopExit:
        pool.release(conn, 'a')
    else:
        raise AssertionError('there was nothing to be had')
    finally:
        logger.removeHandler(handler)
    check_whole(pool, manager)


class SwitchingEndpoint:
    """Lets others run while the pool looks for it."""

    def __hash__(self) -> int:
        gevent.sleep(0)
        return 1

    def __eq__(self, other: object) -> bool:
        gevent.sleep(0)
        return isinstance(other, SwitchingEndpoint)


def switches_inside_of_the_core() -> None:
    """The pool asks endpoints for their hash and whether they are equal. Who runs meanwhile finds nothing locked."""
    pool, manager = make_pool(max_size=2)

    def cycle() -> None:
        for _ in range(20):
            with pool.connection(SwitchingEndpoint()) as conn:
                use(conn)

    finish(*(gevent.spawn(cycle) for _ in range(10)))
    assert pool.get_stats()['acquires'] == 200
    assert pool.get_size() <= 2
    assert pool.get_endpoint_pool_size(SwitchingEndpoint()) == pool.get_size()
    check_whole(pool, manager)


# ---- greenlets that are given up ------------------------------------------------------------------------------------


def give_up_waiting(kill: bool) -> None:
    pool, manager = make_pool(max_size=1)
    conn = pool.acquire('a')

    def take() -> None:
        try:
            if kill:
                pool.acquire('a')
            else:
                with gevent.Timeout(0.01):
                    pool.acquire('a')
        except gevent.Timeout:
            return
        raise AssertionError('there was nothing to be had')

    greenlets = [gevent.spawn(take) for _ in range(5)]
    if kill:
        until(lambda: pool.get_stats()['waiting'] == 5)
        gevent.killall(greenlets, timeout=PATIENCE)
    finish(*greenlets)
    pool.release(conn, 'a')
    check_whole(pool, manager)


def killed_when_served() -> None:
    """It was served already, but has not run since: what it was served goes to the next one."""
    pool, manager = make_pool(max_size=1)
    served = []

    def take(number: int) -> None:
        with pool.connection('a'):
            served.append(number)

    conn = pool.acquire('a')
    greenlets = []
    for number in range(3):
        greenlets.append(gevent.spawn(take, number))
        until(lambda: pool.get_stats()['waiting'] == number + 1)  # noqa: B023 - it is called here
    # In one turn of the hub, which kills before it looks at who was served.
    greenlets[0].kill(block=False)
    pool.release(conn, 'a')
    finish(*greenlets)
    assert served == [1, 2]
    check_whole(pool, manager)


def killed_while_it_holds_one() -> None:
    pool, manager = make_pool(max_size=1)

    def hold() -> None:
        with pool.connection('a'):
            gevent.sleep(PATIENCE)

    holder = gevent.spawn(hold)
    until(lambda: pool.get_stats()['acquired'] == 1)
    taker = gevent.spawn(pool.acquire, 'a')
    until(lambda: pool.get_stats()['waiting'] == 1)
    holder.kill(timeout=PATIENCE)
    pool.release(taker.get(timeout=PATIENCE), 'a')
    check_whole(pool, manager)


def given_up_inside(hook: str, kill: bool) -> None:
    """A method of the manager does not come to its end."""
    pool, manager = make_pool(hooks=True, max_size=1, min_idle=0, idle_timeout=0.0 if hook == 'dispose' else 60.0)
    if hook in {'check_aliveness', 'on_acquire'}:
        # Of a connection that was idle.
        pool.release(pool.acquire('a'), 'a')
    inside = Event()

    def pause(name: str) -> None:
        if name == hook:
            inside.set()
            gevent.sleep(PATIENCE)

    def take() -> None:
        try:
            with gevent.Timeout(None if kill else 0.02), pool.connection('a'):
                pass
        except gevent.Timeout:
            return
        raise AssertionError(f'{hook} should have been given up')

    manager.pause = pause
    taker = gevent.spawn(take)
    assert inside.wait(PATIENCE)
    follower = gevent.spawn(pool.acquire, 'a')
    until(lambda: pool.get_stats()['waiting'] == 1)
    manager.pause = lambda name: None
    if kill:
        taker.kill(timeout=PATIENCE)
    finish(taker)
    # Its turn, with the same connection or in the place of it.
    conn = follower.get(timeout=PATIENCE)
    assert not conn.disposals
    pool.release(conn, 'a')
    check_whole(pool, manager)


def storm(hooks: bool, seed: int) -> None:
    """Greenlets are killed, and time limits end, at any switch of anything."""
    rng = random.Random(seed)
    pool, manager = make_pool(hooks, min_idle=1, idle_timeout=0.002, max_lifetime=0.05, total_max_size=5)
    manager.pause = lambda name: gevent.sleep(rng.choice((0, 0, 0.0005)))
    done: list[None] = []

    def cycle() -> None:
        for _ in range(10):
            try:
                with (
                    gevent.Timeout(rng.choice((None, 0.0005, 0.002, 0.005))),
                    pool.connection(rng.choice('aab')) as conn,
                ):
                    conn.users += 1
                    assert conn.users == 1
                    try:
                        gevent.sleep(rng.choice((0, 0.0005, 0.002)))
                    finally:
                        conn.users -= 1
            except gevent.Timeout:
                gevent.sleep(0)
            else:
                done.append(None)

    greenlets = []
    for _ in range(100 if QUICK else 400):
        greenlets.append(gevent.spawn(cycle))
        gevent.sleep(0.0005)
        rng.choice(greenlets).kill(block=False)
    finish(*greenlets)
    assert done
    # Those that were given up have begun disposals in no other greenlets: there is nothing to wait for.
    check_whole(pool, manager)


# ---- the end of a pool, and its collector ---------------------------------------------------------------------------


def close_refuses_those_who_wait() -> None:
    pool, manager = make_pool(max_size=1)
    conn = pool.acquire('a')

    def wait() -> str:
        try:
            pool.acquire('a')
        except ConnectionPoolClosedError:
            return 'refused'
        raise AssertionError('there was nothing to be had')

    greenlets = [gevent.spawn(wait) for _ in range(5)]
    until(lambda: pool.get_stats()['waiting'] == 5)
    closer = gevent.spawn(pool.close)
    finish(*greenlets)
    assert not closer.dead
    pool.release(conn, 'a')
    assert closer.get(timeout=PATIENCE) == 0
    assert (manager.living, pool.get_size()) == (0, 0)


def close_does_not_wait_for_ever() -> None:
    pool, manager = make_pool(max_size=1)
    conn = pool.acquire('a')
    logging.disable(logging.WARNING)
    assert pool.close(timeout=0.01) == 1
    pool.release(conn, 'a')
    assert (manager.living, pool.get_size()) == (0, 0)


def collector() -> None:
    pool, manager = make_pool(min_idle=1, idle_timeout=0.01, max_lifetime=0.05, background_collector=True)
    disposed = Event()
    manager.pause = lambda name: disposed.set() if name == 'dispose' else None
    conns = [pool.acquire('a') for _ in range(3)]
    for conn in conns:
        pool.release(conn, 'a')
    (worker,) = (thread for thread in threading.enumerate() if thread.name.endswith('-collector'))
    assert disposed.wait(PATIENCE)
    until(lambda: pool.get_size() == 0)
    # Sleeping again: it must hear of what comes now.
    with pool.connection('a'):
        pass
    until(lambda: pool.get_size() == 0)
    assert [conn.disposals for conn in manager.connections] == [1] * 4
    check_whole(pool, manager)
    worker.join(PATIENCE)
    assert not worker.is_alive()


def close_beside_a_block() -> None:
    """Greenlets share a thread: the block of one is not that of another one, which closes the pool."""
    pool, manager = make_pool()
    entered = Event()

    def use() -> None:
        with pool.connection('a'):
            entered.set()
            until(lambda: pool.closed)

    user = threading.Thread(target=use)
    user.start()
    assert entered.wait(PATIENCE)
    assert pool.close() == 0
    user.join(PATIENCE)
    assert [conn.disposals for conn in manager.connections] == [1]


def collector_of_a_forgotten_pool() -> None:
    pool, _ = make_pool(background_collector=True)
    pool.release(pool.acquire('a'), 'a')
    (worker,) = (thread for thread in threading.enumerate() if thread.name.endswith('-collector'))
    gevent.sleep(0)
    with dropped_pools():
        del pool
        gc.collect()
    worker.join(PATIENCE)
    assert not worker.is_alive()


def end_without_close() -> None:
    pool, _ = make_pool(background_collector=True, idle_timeout=30.0)
    pool.release(pool.acquire('a'), 'a')
    globals()['kept'] = pool


# ---- beside real threads and processes ------------------------------------------------------------------------------


def real_threads() -> None:
    """A thread of the system, too, gives back what a greenlet waits for, and waits for what a greenlet gives back."""
    pool, manager = make_pool(max_size=1)
    threads = gevent.get_hub().threadpool
    for _ in range(20):
        conn = pool.acquire('a')
        waiting = threads.spawn(pool.acquire, 'a', PATIENCE)
        until(lambda: pool.get_stats()['waiting'] == 1)
        pool.release(conn, 'a')
        assert waiting.get(timeout=PATIENCE) is conn

        waiter = gevent.spawn(pool.acquire, 'a', PATIENCE)
        until(lambda: pool.get_stats()['waiting'] == 1)
        threads.spawn(pool.release, conn, 'a').get(timeout=PATIENCE)
        pool.release(waiter.get(timeout=PATIENCE), 'a')
    check_whole(pool, manager)


def cut_off() -> None:
    """A greenlet that waits for its peer is cut off in time, also where another hub was the first to need that."""
    from gcpool.contrib._watchdog import cut_off_after, shut_down_descriptor

    def wait() -> bool:
        ours, peer = socket.socketpair()
        descriptor = ours.fileno()
        with ours, peer, cut_off_after(lambda: shut_down_descriptor(descriptor), 0.01) as was_cut_off:
            return ours.recv(1) == b'' and was_cut_off()

    assert gevent.get_hub().threadpool.spawn(wait).get(timeout=PATIENCE)
    with gevent.Timeout(PATIENCE):
        assert wait()


def fork() -> None:
    pool, manager = make_pool(max_size=2, background_collector=True, idle_timeout=0.01, min_idle=0)
    conn = pool.acquire('a')
    # It watches in a thread, which the child would not have, and of which Python 3.12 would warn.
    faulthandler.cancel_dump_traceback_later()
    pid = os.fork()
    if not pid:
        signal.alarm(int(PATIENCE))
        assert pool.get_size() == 0
        before = len(manager.connections)
        with pool.connection('a') as its_own:
            assert its_own is not conn
        until(lambda: pool.get_size() == 0)
        assert len(manager.connections) == before + 1
        assert conn.disposals == 0
        os._exit(0)
    with gevent.Timeout(PATIENCE):
        assert os.waitpid(pid, 0)[1] == 0
    pool.release(conn, 'a')
    until(lambda: pool.get_size() == 0)
    check_whole(pool, manager)


def pool_older_than_the_patches(collects: bool) -> None:
    """Made, and used, before gevent replaced the threads: as good as any afterwards."""
    pool, manager = make_pool(max_size=1, min_idle=0, idle_timeout=0.01, background_collector=collects)
    pool.release(pool.acquire('a'), 'a')
    if collects:
        until_real(lambda: pool.get_size() == 0)
    gevent.monkey.patch_all()
    conn = pool.acquire('a')
    waiter = gevent.spawn(pool.acquire, 'a', PATIENCE)
    until(lambda: pool.get_stats()['waiting'] == 1)
    pool.release(conn, 'a')
    pool.release(waiter.get(timeout=PATIENCE), 'a')
    if collects:
        until(lambda: pool.get_size() == 0)
    check_whole(pool, manager)


def until_real(condition: Callable[[], object]) -> None:
    """As ``until``, before there are greenlets."""
    pause = threading.Event()
    for _ in range(int(PATIENCE / 0.001)):
        if condition():
            return
        pause.wait(0.001)
    raise AssertionError('it does not come about')


if __name__ == '__main__':
    for call in sys.argv[1:-1]:
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        eval(call)
        print(call)
