"""The programs that ``test_fork.py`` runs, each in a process of its own, which forks.

What a child must not do is seen at the other ends of the parent's connections, which are real sockets: nothing may come
out there but what the parent sent.
"""

import asyncio
import contextlib
import ctypes
import faulthandler
import ipaddress
import itertools
import logging
import os
import platform
import select
import signal
import socket
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

if hasattr(os, 'register_at_fork'):
    # Registered before the pool's function, it is called after it.
    os.register_at_fork(before=lambda: wait_for_ends())  # noqa: PLW0108  (it is not defined yet)

if os.environ.get('GCPOOL_TEST_NO_FORK_HOOK') == '1':
    os.register_at_fork = lambda **functions: None

import gcpool._core
import gcpool._workers.before_fork
import gcpool._workers.workers_threads
import gcpool.asyncio
from gcpool._workers.collector_threads import SyncCollector
from gcpool._workers.workers_threads import SyncWorkers
from gcpool.contrib.socket import TcpSocketConnectionManager
from gcpool.exceptions import ConnectionNotAcquired, ConnectionPoolClosedError
from gcpool.threading import BaseConnectionManager, ConnectionPool
from tests.support import PATIENCE
from tests.threads.runtime import Job, spawn, until

# Whether the pool's threads learn of a fork by Python before it, and those of them that are idle end.
THREADS_ARE_TOLD = os.environ.get('GCPOOL_TEST_NO_FORK_HOOK') != '1'

# A worker stays until it is to end, and does not end by itself in the middle of a program.
gcpool._workers.workers_threads.IDLE_TIME = PATIENCE

# The pool's threads that end for a fork get as long as a busy machine needs.
gcpool._workers.before_fork.MAX_FORK_DELAY = PATIENCE

# Whether the next fork by Python waits for the ends of this process's other threads.
waits_for_ends = False

FORKS = 3 if os.environ.get('GCPOOL_QUICK') == '1' else 10


def fork_by_python() -> int:
    return os.fork()


def fork_in_c() -> int:
    """As a server in C, which tells Python nothing."""
    # A thread that waits for the interpreter asks for it after this time, and a child that is asked waits for that
    # thread, which it has not.
    interval = sys.getswitchinterval()
    sys.setswitchinterval(PATIENCE)
    for _ in range(10):
        time.sleep(0.001)
    pid = int(ctypes.PyDLL(None).fork())
    sys.setswitchinterval(interval)
    return pid


def fork_in_c_without_the_gil() -> int:
    """Likewise. No other thread may have it at that moment: nobody would give it back in the child."""
    return int(ctypes.CDLL(None).fork())


def fork_in_c_and_tell() -> int:
    """As a server in C that tells Python of it (``--py-call-osafterfork`` of uWSGI)."""
    return tell_python(ctypes.PyDLL(None).fork)


def clone_and_tell() -> int:
    """By a system call, of which the C library knows nothing."""
    number = {'x86_64': 56, 'aarch64': 220}[platform.machine()]
    return tell_python(lambda: ctypes.PyDLL(None).syscall(number, int(signal.SIGCHLD), 0, 0, 0, 0))


def tell_python(fork: Callable[[], int]) -> int:
    ctypes.pythonapi.PyOS_BeforeFork()
    pid = int(fork())
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
    else:
        ctypes.pythonapi.PyOS_AfterFork_Parent()
    return pid


fork_now: Callable[[], int] = fork_by_python


def in_this_way(way: str, *programs: tuple[str, list[object]]) -> None:
    """Run others of these programs, and have them fork in one of the ways above."""
    global fork_now
    fork_now = globals()[way]
    for name, arguments in programs:
        try:
            globals()[name](*arguments)
        except Exception as exc:
            raise AssertionError(f'{name}{arguments}') from exc


def fork(child: Callable[[], object], *, beside_threads: bool, exit_normally: bool = False) -> None:
    """Run a function in a forked child, which has to end well.

    :param child: the function
    :param beside_threads: whether this process has more than one thread, of which Python 3.12 and later warn
    :param exit_normally: whether the child then ends as a program that calls ``sys.exit()`` here; else it just ends
    """
    reader, writer = os.pipe()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        with waiting_for_ends(of_threads=not beside_threads):
            pid = fork_now()
    if pid == 0:
        os.close(reader)
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        try:
            child()
        except BaseException:  # noqa: BLE001 - the parent is told
            os.write(writer, traceback.format_exc().encode())
            os._exit(1)
        if exit_normally:
            raise SystemExit(0)
        os._exit(0)
    os.close(writer)
    warns = beside_threads and fork_now is fork_by_python and sys.version_info >= (3, 12)
    expected = [DeprecationWarning] if warns else []
    assert [warning.category for warning in caught] == expected
    said = b''
    # The end of the child is the end of its end of the pipe.
    while True:
        if not select.select([reader], [], [], 2 * PATIENCE)[0]:
            os.kill(pid, signal.SIGKILL)
            raise AssertionError('the child does not end')
        part = os.read(reader, 65536)
        if not part:
            break
        said += part
    os.close(reader)
    status = os.waitpid(pid, 0)[1]
    if (status, said) != (0, b''):
        raise AssertionError(f'the child ended with {status} and said:\n{said.decode()}')


@contextlib.contextmanager
def waiting_for_ends(*, of_threads: bool) -> Iterator[None]:
    """Have a fork by Python in the block wait for the ends of this process's other threads, or not."""
    global waits_for_ends
    waits_for_ends = of_threads
    try:
        yield
    finally:
        waits_for_ends = False


def wait_for_ends() -> None:
    # The system counts a thread for a moment after it was joined, and Python warns of that count.
    tasks = '/proc/self/task'
    if waits_for_ends and os.path.exists(tasks):
        until(lambda: len(os.listdir(tasks)) == 1)


def until_idle(count: int) -> None:
    """Wait until there are so many threads of the pools, or more, and they have nothing to do."""

    def all_are_idle() -> bool:
        there = {thread for thread in threading.enumerate() if thread.name.startswith('gcpool-')}
        idle = dict(gcpool._workers.before_fork.idle_threads)
        return len(there) >= count and there == {*idle} and not any(map(is_called, idle.values()))

    until(all_are_idle)


def is_called(workers: object) -> bool:
    """Whether a thread has been called and has not noticed yet: it counts as idle until then."""
    if isinstance(workers, SyncCollector):
        wakeups = [collector.wakeup for collector in list(workers._threads)]
    else:
        assert isinstance(workers, SyncWorkers)
        wakeups = [process.wakeup for process in list(workers._per_process._by_pid.values())]
    return not all(wakeup._lock.locked() for wakeup in wakeups)


class Line:
    """A connection of sockets. Its end is said at the other end, be it closed or collected as garbage."""

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair()
        self.far.setblocking(False)
        self.disposals = 0

    def __del__(self) -> None:
        if self.near.fileno() >= 0:
            self.end(b'dropped')

    def end(self, words: bytes) -> None:
        self.near.sendall(words)
        self.near.close()
        self.far.close()

    def heard(self) -> bytes:
        """What has come out at the other end."""
        try:
            return self.far.recv(1000)
        except BlockingIOError:
            return b''

    def check(self) -> None:
        """Nothing was sent that this process did not send, and what it sends comes out."""
        assert self.heard() == b''
        self.near.sendall(b'hello')
        assert self.heard() == b'hello'
        assert self.disposals == 0


class LineManager(BaseConnectionManager[str, Line]):
    """Takes no lock that a thread may hold while the process is forked."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.hook: Callable[[str], object] | None = None

    def call(self, name: str) -> None:
        if self.hook is not None:
            self.hook(name)

    def create(self, endpoint: str, timeout: float | None = None) -> Line:
        self.call('create')
        line = Line()
        self.lines.append(line)
        return line

    def dispose(self, endpoint: str, conn: Line, timeout: float | None = None) -> None:
        conn.disposals += 1
        conn.end(b'bye')
        self.call('dispose')


class HookedLineManager(LineManager):
    """Overrides every method."""

    def check_aliveness(self, endpoint: str, conn: Line, timeout: float | None = None) -> bool:
        self.call('check_aliveness')
        return True

    def on_acquire(self, endpoint: str, conn: Line) -> None:
        self.call('on_acquire')

    def on_release(self, endpoint: str, conn: Line) -> None:
        self.call('on_release')


def is_empty(pool: ConnectionPool[str, Line]) -> bool:
    """Whether all statistics are 0 but the limits."""
    return not any(count for name, count in pool.get_stats().items() if not name.endswith(('max_size', 'min_idle')))


def check_fresh(pool: ConnectionPool[str, Line]) -> None:
    """In a child: there is nothing in the pool, and it works."""
    assert pool.get_size() == 0
    assert not pool.is_full
    assert is_empty(pool)
    assert pool.get_endpoint_pool_size('a') == 0
    pool._core.check_invariants()
    first = pool.acquire('a')
    with pool.connection('a') as second:
        assert second is not first
        first.check()
        second.check()
    pool.release(first, 'a')
    # What is due already is disposed of.
    assert pool.get_stats()['created'] == 2
    assert pool.get_stats()['acquired'] == 0
    # The child's collector may be at work.
    until(lambda: is_whole(pool))


def use_and_close(pool: ConnectionPool[str, Line]) -> None:
    """In a child that ends as programs do: a pool that is dropped without having been closed would be warned of."""
    check_fresh(pool)
    # The blocks that the child has inherited hold nothing that this could wait for.
    assert pool.close() == 0


def is_whole(pool: ConnectionPool[str, Line]) -> bool:
    try:
        pool._core.check_invariants()
    except (AssertionError, RuntimeError):
        # A RuntimeError says that a set has changed while it was looked at.
        return False
    return True


class Rivals:
    """Threads that are always somewhere in the pool."""

    def __init__(self, pool: ConnectionPool[str, Line], count: int) -> None:
        self._pool = pool
        self._done = threading.Event()
        self.cycles = itertools.count()
        self._jobs: list[Job[None]] = [spawn(self._work, 'abc'[number % 3]) for number in range(count)]

    def _work(self, endpoint: str) -> None:
        while not self._done.is_set():
            with self._pool.connection(endpoint):
                next(self.cycles)
                time.sleep(0)

    def stop(self) -> None:
        self._done.set()
        for job in self._jobs:
            job.result()


@contextlib.contextmanager
def busy_pool(manager: LineManager, **options: Any) -> Iterator[ConnectionPool[str, Line]]:
    """A pool with other threads in it: they wait, connect, close, evict. In the end all is accounted for."""
    pool: ConnectionPool[str, Line] = ConnectionPool(
        manager, **{'max_size': 4, 'total_max_size': 6, 'idle_timeout': 0.0005, 'max_lifetime': 0.005, **options}
    )
    rivals = Rivals(pool, 8)
    yield pool
    rivals.stop()
    assert pool.close(PATIENCE) == 0
    # Not before: the collector may have been at work.
    pool._core.check_invariants()
    assert [line.disposals for line in manager.lines if line.disposals != 1] == []


def child_starts_empty(collector: bool, hooks: bool) -> None:
    manager = HookedLineManager() if hooks else LineManager()
    with busy_pool(manager, background_collector=collector) as pool, pool.connection('a') as held:
        raw = pool.acquire('b')

        def child() -> None:
            check_fresh(pool)
            # What is the parent's stays so, and giving it back is nothing.
            pool.release(held, 'a')
            pool.release(raw, 'b')
            pool.release(raw, 'b')
            assert pool.get_stats()['acquired'] == 0
            own = pool.acquire('b')
            assert own not in {held, raw}
            pool.release(own, 'b')
            try:
                pool.release(own, 'b')
            except ConnectionNotAcquired:
                assert pool.close(PATIENCE) == 0
            else:
                raise AssertionError('a second release was not refused')
            assert held.disposals == raw.disposals == 0

        for _ in range(FORKS):
            fork(child, beside_threads=True)
            held.check()
            raw.check()
        pool.release(raw, 'b')


def child_beside_workers(at_work: bool) -> None:
    """A thread is closing a connection for an acquire, or waits for the next one, when the process is forked."""
    manager = LineManager()
    pool: ConnectionPool[str, Line] = ConnectionPool(manager, max_size=1, total_max_size=1)
    reached, go_on = threading.Event(), threading.Event()

    def hang(name: str) -> None:
        if name == 'dispose':
            reached.set()
            go_on.wait(PATIENCE)

    pool.release(pool.acquire('a'), 'a')
    manager.hook = hang if at_work else None
    waiting = spawn(pool.acquire, 'b')
    if at_work:
        assert reached.wait(PATIENCE)
    else:
        held = waiting.result()
        until_idle(1)

    def child() -> None:
        manager.hook = None
        assert threading.active_count() == 1
        pool._core.check_invariants()
        pool.release(pool.acquire('c'), 'c')
        assert pool.get_stats()['created'] == 1
        # It has the connection of 'c' closed.
        pool.release(pool.acquire('d'), 'd')
        assert manager.lines[-2].disposals == 1
        assert [thread.name for thread in threading.enumerate()][1:] == [f'gcpool-{pool.name}-1']
        assert pool.close(PATIENCE) == 0
        assert threading.active_count() == 1

    fork(child, beside_threads=at_work or not THREADS_ARE_TOLD)
    go_on.set()
    held = waiting.result()
    held.check()
    pool.release(held, 'b')
    assert pool.close(PATIENCE) == 0
    assert [line.disposals for line in manager.lines] == [1, 1]


def child_leaves_the_parent_s_block(exit_normally: bool) -> None:
    """The child goes on after the fork inside of ``with`` blocks, to the end of the program if it ends normally."""
    manager = LineManager()
    pool: ConnectionPool[str, Line] = ConnectionPool(manager, max_size=4)
    idle = pool.acquire('b')
    pool.release(idle, 'b')
    with pool.connection('a') as held:
        raw = pool.acquire('a')
        if exit_normally:
            fork(lambda: use_and_close(pool), beside_threads=False, exit_normally=True)
        else:

            def child() -> None:
                context.__exit__(None, None, None)
                check_fresh(pool)
                assert entered.disposals == 0

            context = pool.connection('a')
            entered = context.__enter__()
            fork(child, beside_threads=False)
            entered.check()
            context.__exit__(None, None, None)
        held.check()
        raw.check()
        idle.check()
        pool.release(raw, 'a')
    assert pool.get_stats()['acquired'] == 0
    pool._core.check_invariants()
    pool.close()
    assert {line.disposals for line in manager.lines} == {1}


def child_takes_out_what_is_its_parent_s() -> None:
    """A child that discards, detaches or returns connections of its parent does nothing, in a block or not."""
    for manager in (LineManager(), HookedLineManager()):
        pool: ConnectionPool[str, Line] = ConnectionPool(manager, max_size=4)
        pool.release(pool.acquire('b'))
        with pool.connection('a') as first, pool.connection('a') as second:
            third = pool.acquire('a')
            in_child(pool, first, second, third)
            for line in (first, second, third):
                line.check()
            pool.release(third)
        assert pool.get_stats()['acquired'] == 0
        pool._core.check_invariants()
        pool.close()
        assert {line.disposals for line in manager.lines} == {1}


def in_child(pool: ConnectionPool[str, Line], first: Line, second: Line, third: Line) -> None:
    def child() -> None:
        assert pool.try_acquire('b') is None
        assert pool.try_acquire('a') is None
        pool.discard(first)
        pool.detach(second)
        pool.release(third)
        assert [line.disposals for line in (first, second, third)] == [0, 0, 0]
        check_fresh(pool)

    fork(child, beside_threads=False)


def child_exits_beside_threads() -> None:
    """The child ends as programs end, with finalizers, while its parent's other threads were in the pool."""
    manager = LineManager()
    with busy_pool(manager, background_collector=True) as pool, pool.connection('a') as held:
        raw = pool.acquire('b')
        fork(lambda: use_and_close(pool), beside_threads=True, exit_normally=True)
        held.check()
        raw.check()
        pool.release(raw, 'b')


def child_forks() -> None:
    manager = LineManager()
    pool: ConnectionPool[str, Line] = ConnectionPool(manager, max_size=4)
    line = pool.acquire('a')

    def child() -> None:
        check_fresh(pool)
        own = pool.acquire('a')

        def grandchild() -> None:
            check_fresh(pool)
            pool.release(line, 'a')
            pool.release(own, 'a')
            assert pool.get_stats()['acquired'] == 0
            pool.close()

        # It has a thread.
        faulthandler.cancel_dump_traceback_later()
        fork(grandchild, beside_threads=False)
        own.check()
        pool.release(own, 'a')
        pool.close()

    fork(child, beside_threads=False)
    line.check()
    pool.release(line, 'a')
    pool.close()


def fork_in_another_thread() -> None:
    manager = LineManager()
    with busy_pool(manager) as pool, pool.connection('a') as held:

        def child() -> None:
            check_fresh(pool)
            pool.close()

        spawn(fork, child, beside_threads=True).result()
        held.check()


def fork_in_a_thread_beside_one_that_waits() -> None:
    """The others hold no lock of the interpreter's, which the child of an untold fork would wait for for ever."""
    manager = LineManager()
    pool: ConnectionPool[str, Line] = ConnectionPool(manager, max_size=1, min_idle=0, background_collector=True)
    with pool.connection('a') as held:
        waiting = spawn(pool.acquire, 'a')
        until(lambda: pool.get_stats()['waiting'] == 1)

        def child() -> None:
            assert pool.get_size() == 0
            assert pool.get_stats()['waiting'] == 0
            with pool.connection('a') as own:
                assert own is not held
                own.check()
            pool.release(held, 'a')
            pool.close()
            pool._core.check_invariants()

        spawn(fork, child, beside_threads=True).result()
        held.check()
    pool.release(waiting.result(), 'a')
    pool.close()


class Forking:
    """An endpoint that forks when it is hashed or compared, once."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.method: str | None = None
        self.children: list[int] = []

    def fork(self, method: str) -> None:
        if self.method == method and not self.children:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore', DeprecationWarning)
                self.children.append(fork_now())

    def __hash__(self) -> int:
        self.fork('__hash__')
        return hash(self.name)

    def __eq__(self, other: object) -> bool:
        self.fork('__eq__')
        return isinstance(other, Forking) and self.name == other.name


class ForkingManager(LineManager):
    def normalize(self, endpoint: Any) -> Any:
        endpoint.fork('normalize')
        return endpoint


def fork_in_an_endpoint(method: str) -> None:
    """What the endpoint was looked for in is the parent's in the child: nothing of it is served there."""
    manager: Any = ForkingManager() if method == 'normalize' else LineManager()
    pool: ConnectionPool[Forking, Line] = ConnectionPool(manager, max_size=2)
    parent = os.getpid()
    known = Forking('b' if method == 'normalize' else 'a')
    pool.release(pool.acquire(known), known)
    line = manager.lines[0]
    forking = Forking('a')
    forker = known if method == '__eq__' else forking
    forker.method = method
    conn = pool.acquire(forking)
    if os.getpid() != parent:
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        try:
            assert conn is not line
            pool.release(conn, forking)
            pool.release(line, known)
            assert pool.get_size() == 1
            pool._core.check_invariants()
            pool.close()
            assert line.disposals == 0
        except BaseException:  # noqa: BLE001 - the parent sees the status
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(forker.children[0], 0)[1] == 0
    assert (conn is line) == (method != 'normalize')
    pool.release(conn, forking)
    line.check()
    pool._core.check_invariants()
    pool.close()


def used_by_a_hook_that_runs_before() -> None:
    """In the child a function that was registered earlier uses the pool. What it made there stays in it."""
    manager = LineManager()
    pool: ConnectionPool[str, Line] = ConnectionPool(manager, max_size=2)
    pool.release(pool.acquire('a'), 'a')
    gcpool._core.reset_after_fork()
    assert pool.get_size() == 1, 'this process has not forked'

    def child() -> None:
        with pool.connection('a') as own:
            assert own is not manager.lines[0]
        gcpool._core.reset_after_fork()
        with pool.connection('a') as again:
            assert again is own

    fork(child, beside_threads=False)
    pool.close()


def fork_in_a_method(method: str) -> None:
    """A manager's method forks, and the child goes on there. What the method was called for is the parent's."""
    manager = HookedLineManager()
    pool: ConnectionPool[str, Line] = ConnectionPool(manager, max_size=2, min_idle=0)
    parent = os.getpid()
    if method != 'create':
        pool.release(pool.acquire('a'), 'a')
    children: list[int] = []

    def hook(name: str) -> None:
        if name == method and not children:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore', DeprecationWarning)
                children.append(fork_now())

    def use() -> None:
        conn = pool.acquire('a')
        pool.release(conn, 'a')
        if method == 'dispose':
            pool._core.doom_due(pool._core.now() + 1000.0, 1)
            pool._dispose_doomed()

    manager.hook = hook
    try:
        use()
    except RuntimeError:
        # A connection that two processes made is of no use to the one that does not own it.
        if method != 'create' or os.getpid() == parent:
            raise
    if os.getpid() != parent:
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        manager.hook = None
        try:
            assert pool.get_size() == 0
            pool._core.check_invariants()
            use()
            use()
            pool.close()
            pool._core.check_invariants()
        except BaseException:  # noqa: BLE001 - the parent sees the status
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(children[0], 0)[1] == 0
    if method != 'dispose':
        manager.lines[0].check()
    pool._core.check_invariants()
    pool.close()
    assert [line.disposals for line in manager.lines] == [1]


def closed_in_the_child() -> None:
    """The parent's collector waits, and is not told."""
    pool: ConnectionPool[str, Line] = ConnectionPool(LineManager(), background_collector=True)
    line = pool.acquire('a')
    until_idle(1)
    fork(pool.close, beside_threads=not THREADS_ARE_TOLD)
    line.check()
    pool.release(line, 'a')
    pool.close()


def closed_pool() -> None:
    pool: ConnectionPool[str, Line] = ConnectionPool(LineManager())
    pool.close()

    def child() -> None:
        try:
            pool.acquire('a')
        except ConnectionPoolClosedError:
            pool.close()
        else:
            raise AssertionError('the pool is open')

    fork(child, beside_threads=False)


def paused_pool() -> None:
    """Suspended, and with drained connections in use and somebody who waits for them: the child has only the pause."""
    pool: ConnectionPool[str, Line] = ConnectionPool(LineManager(), max_size=4)
    theirs = pool.acquire('a')
    pool.drain('a')
    pool.suspend()

    def child() -> None:
        assert pool.get_stats()['suspended'] == 1
        assert pool._core.watched_endpoints == 0
        pool.wait_idle()
        pool.release(theirs, 'a')
        pool.resume()
        check_fresh(pool)
        pool.drain()
        pool.wait_idle()
        pool.terminate()
        until(lambda: pool.get_size() == 0)

    fork(child, beside_threads=False)
    theirs.check()
    pool.resume()
    pool.release(theirs, 'a')
    assert theirs.disposals == 1
    pool.close()


def pool_that_is_not_open() -> None:
    pool: ConnectionPool[str, Line] = ConnectionPool(LineManager(), open=False)

    def child() -> None:
        pool.open()
        check_fresh(pool)
        pool.close()

    fork(child, beside_threads=False)
    with contextlib.suppress(ConnectionPoolClosedError):
        pool.acquire('a')
        raise AssertionError('the pool is open')


def collector_in_the_child() -> None:
    manager = LineManager()
    pool: ConnectionPool[str, Line] = ConnectionPool(manager, min_idle=0, idle_timeout=0.001, background_collector=True)
    line = pool.acquire('a')

    def collector_count() -> int:
        return sum(thread.name.endswith('-collector') for thread in threading.enumerate())

    def child() -> None:
        # It has no thread while there is nothing for it to do. (Where Python was not told, it counts the parent's.)
        there = 1 if fork_now is fork_in_c else 0
        assert collector_count() == there
        own = pool.acquire('a')
        pool.release(own, 'a')
        until(lambda: own.disposals == 1)
        assert collector_count() == there + 1
        pool.release(line, 'a')
        pool.close()
        until(lambda: collector_count() == there)
        assert line.disposals == 0

    until_idle(1)
    fork(child, beside_threads=not THREADS_ARE_TOLD)
    line.check()
    pool.release(line, 'a')
    until(lambda: line.disposals == 1)
    pool.close()


def idle_threads_end_before_a_fork() -> None:
    """And the parent has its collector again, which closes what is due though nobody calls the pool."""
    manager = LineManager()
    now = 0.0
    pool: ConnectionPool[str, Line] = ConnectionPool(
        manager,
        max_size=1,
        total_max_size=1,
        min_idle=0,
        idle_timeout=60.0,
        background_collector=True,
        _clock=lambda: now,
    )
    closed: ConnectionPool[str, Line] = ConnectionPool(LineManager(), background_collector=True)
    closed.close()
    for endpoint in 'ab':
        pool.release(pool.acquire(endpoint), endpoint)

    def names() -> set[str]:
        return {thread.name.rpartition('-')[2] for thread in threading.enumerate()[1:]}

    until_idle(2)
    # A worker that waits for the next job, maybe with one that has stood by for timers.
    assert {'collector', '1'} <= names() <= {'collector', '1', '2'}, names()
    ended = threading.enumerate()[1:]

    def child() -> None:
        assert threading.active_count() == 1
        assert pool.get_size() == 0
        pool.release(pool.acquire('c'), 'c')
        assert names() == {'collector'}
        pool.close()
        assert names() == set()

    # The collector sleeps for a minute by the system's clock.
    now = 60.0
    fork(child, beside_threads=False)
    assert not any(thread.is_alive() for thread in ended)
    # The new collector has a worker close what is due.
    assert 'collector' in names()
    until(lambda: manager.lines[-1].disposals == 1)
    pool.close()
    assert names() == set()


def fork_beside_an_idle_thread_that_does_not_end() -> None:
    """The fork waits for a moment only, and not at all for a thread that is another process's."""
    pool: ConnectionPool[str, Line] = ConnectionPool(LineManager(), background_collector=True)
    until_idle(1)
    [thread] = gcpool._workers.before_fork.idle_threads
    asked: list[float] = []

    def join(timeout: float | None = None) -> None:
        assert timeout is not None
        asked.append(timeout)

    # It is not told to end.
    pool._collector.dismiss = lambda thread: True
    thread.join = join  # type: ignore[method-assign]
    fork(lambda: check_fresh(pool), beside_threads=True)
    assert len(asked) == 1
    assert 0 <= asked[0] <= gcpool._workers.before_fork.MAX_FORK_DELAY
    pool._collector.dismiss = lambda thread: False
    fork(lambda: check_fresh(pool), beside_threads=True)
    assert len(asked) == 1
    del pool._collector.dismiss, thread.join
    pool.close()


def use_without_threads(pool: ConnectionPool[str, Line]) -> None:
    """No stack is so large, so that the system refuses to start a thread."""
    logging.getLogger('gcpool').addHandler(logging.NullHandler())
    before = threading.stack_size(1 << 46)
    refused = threading.Thread(target=print)
    try:
        refused.start()
    except RuntimeError:
        pass
    else:
        raise AssertionError('a thread was started')
    first = pool.acquire('a')
    pool.release(first, 'a')
    # The pool's clock may lag by some milliseconds.
    time.sleep(0.05)
    with pool.connection('b') as second:
        second.check()
    assert first.disposals == 1, 'the release disposed of it'
    threading.stack_size(before)
    # And now they can be started.
    pool.release(pool.acquire('a'), 'a')
    until(lambda: second.disposals == 1)
    assert any(thread.name.endswith('-collector') for thread in threading.enumerate())
    pool.close()


def no_thread_can_be_started() -> None:
    logging.getLogger('gcpool').addHandler(logging.NullHandler())
    before = threading.stack_size(1 << 46)
    pool: ConnectionPool[str, Line] = ConnectionPool(
        LineManager(), min_idle=0, idle_timeout=0.001, background_collector=True
    )
    threading.stack_size(before)
    use_without_threads(pool)


def no_thread_can_be_started_in_the_child() -> None:
    pool: ConnectionPool[str, Line] = ConnectionPool(
        LineManager(), min_idle=0, idle_timeout=0.001, background_collector=True
    )
    line = pool.acquire('a')
    until_idle(1)
    fork(lambda: use_without_threads(pool), beside_threads=not THREADS_ARE_TOLD)
    line.check()
    pool.release(line, 'a')
    pool.close()


@contextlib.contextmanager
def threads_that_end_at_once() -> Iterator[None]:
    """The pool's threads do not wait for work: beside them, a child that Python is not told of may crash."""
    before = gcpool._workers.workers_threads.IDLE_TIME
    gcpool._workers.workers_threads.IDLE_TIME = 0.0
    try:
        yield
    finally:
        gcpool._workers.workers_threads.IDLE_TIME = before


def warmed_up(first: str) -> None:
    """The child has nothing until it uses the pool; then the pool warms the endpoint up there, too.

    :param first: what the child does first with the pool
    """
    manager = LineManager()
    pool: ConnectionPool[str, Line] = ConnectionPool(manager, max_size=4)
    with threads_that_end_at_once():
        pool.warm_up('a', 3)
        pool.warm_up('c', 1)
        pool.wait(PATIENCE)
        pool.warm_up('c', 0)
        until(lambda: threading.active_count() == 1)
    kept = list(manager.lines)

    def child() -> None:
        assert pool.get_size() == 0
        assert is_empty(pool)
        if first == 'acquire':
            pool.release(pool.acquire('b'), 'b')
        elif first == 'warm_up':
            pool.warm_up('b', 1)
        pool.wait(PATIENCE)
        assert pool.get_endpoint_pool_size('a') == 3
        assert pool.get_endpoint_pool_size('c') == 0
        with pool.connection('a') as own:
            assert own not in kept
            own.check()
        assert pool.close(PATIENCE) == 0
        until(lambda: is_whole(pool))

    fork(child, beside_threads=False)
    assert pool.get_endpoint_pool_size('a') == 3
    for line in kept:
        if line.disposals == 0:
            line.check()
    assert pool.close(PATIENCE) == 0
    assert {line.disposals for line in manager.lines} == {1}


def warmed_up_beside_a_worker(at_work: bool) -> None:
    """A thread of the pool is connecting, or waits for work, when the process is forked."""
    manager = LineManager()
    pool: ConnectionPool[str, Line] = ConnectionPool(manager, create_in_background=True, max_connecting=1)
    reached, go_on = threading.Event(), threading.Event()

    def hang(name: str) -> None:
        if name == 'create':
            reached.set()
            go_on.wait(PATIENCE)

    if at_work:
        manager.hook = hang
    pool.warm_up('a', 2)
    if at_work:
        assert reached.wait(PATIENCE)
    else:
        pool.wait(PATIENCE)
        until_idle(1)

    def child() -> None:
        manager.hook = None
        # What the parent's thread was creating does not count here.
        assert pool.get_size() == 0
        with pool.connection('b') as own:
            own.check()
        pool.wait(PATIENCE)
        assert pool.get_endpoint_pool_size('a') == 2
        assert pool.close(PATIENCE) == 0
        until(lambda: is_whole(pool))

    fork(child, beside_threads=at_work or not THREADS_ARE_TOLD)
    go_on.set()
    pool.wait(PATIENCE)
    assert pool.get_endpoint_pool_size('a') == 2
    assert pool.close(PATIENCE) == 0
    assert {line.disposals for line in manager.lines} == {1}


def asyncio_pool_warmed_up(first: str) -> None:
    """The endpoint is warmed up in the loop that the child runs."""
    manager = AsyncLineManager()
    pool: gcpool.asyncio.ConnectionPool[str, Line] = gcpool.asyncio.ConnectionPool(manager)
    loop = asyncio.new_event_loop()

    async def begin() -> None:
        pool.warm_up('a', 2)
        await pool.wait(PATIENCE)

    async def use() -> None:
        assert pool.get_size() == 0
        if first == 'acquire':
            async with pool.connection('b') as own:
                own.check()
        await pool.wait(PATIENCE)
        assert await pool.get_endpoint_pool_size('a') == 2
        await pool.close(PATIENCE)
        pool._core.check_invariants()

    loop.run_until_complete(begin())
    kept = list(manager.lines)
    fork(lambda: asyncio.run(use()), beside_threads=False)
    for line in kept:
        line.check()
    loop.run_until_complete(pool.close(PATIENCE))
    loop.close()
    assert [line.disposals for line in kept] == [1, 1]


def forgotten_in_the_child() -> None:
    """A child that lets go of its parent's pool sends nothing either."""
    pools: list[ConnectionPool[str, Line]] = [
        ConnectionPool(LineManager(), background_collector=collector) for collector in (False, True)
    ]
    lines = [pool.acquire('a') for pool in pools]

    def child() -> None:
        pools.clear()

    until_idle(1)
    fork(child, beside_threads=not THREADS_ARE_TOLD)
    for pool, line in zip(pools, lines, strict=True):
        line.check()
        pool.release(line, 'a')
        pool.close()


class AsyncLineManager(gcpool.asyncio.BaseConnectionManager[str, Line]):
    """The same for asyncio."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.on_disposed: Callable[[], object] | None = None

    async def create(self, endpoint: str) -> Line:
        line = Line()
        self.lines.append(line)
        return line

    async def dispose(self, endpoint: str, conn: Line) -> None:
        await asyncio.sleep(0)
        conn.disposals += 1
        conn.end(b'bye')
        if self.on_disposed is not None:
            self.on_disposed()


def asyncio_pool(collector: bool) -> None:
    """Its loop runs in the parent while it forks; the child runs another one."""
    manager = AsyncLineManager()
    pool: gcpool.asyncio.ConnectionPool[str, Line] = gcpool.asyncio.ConnectionPool(
        manager, max_size=2, min_idle=0, idle_timeout=0.001, background_collector=collector
    )

    async def use(theirs: Line) -> None:
        assert pool.get_size() == 0
        await pool.release(theirs, 'a')
        first = await pool.acquire('a')
        async with pool.connection('a') as second:
            waiting = asyncio.create_task(pool.acquire('a'))
            await asyncio.sleep(0)
            assert pool.get_stats()['waiting'] == 1
            second.check()
        assert await waiting is second
        await pool.release(first, 'a')
        await pool.release(second, 'a')
        if collector:
            disposed = asyncio.Event()

            def look() -> None:
                if first.disposals == second.disposals == 1:
                    disposed.set()

            manager.on_disposed = look
            look()
            await asyncio.wait_for(disposed.wait(), PATIENCE)
        await pool.close()
        pool._core.check_invariants()
        assert theirs.disposals == 0

    def child(theirs: Line) -> None:
        asyncio.run(use(theirs))

    async def begin() -> tuple[Line, list[asyncio.Task[Line]]]:
        line = await pool.acquire('a')
        waiting = [asyncio.create_task(pool.acquire('a')) for _ in range(3)]
        await asyncio.sleep(0)
        return line, waiting

    async def end(line: Line, waiting: list[asyncio.Task[Line]]) -> None:
        line.check()
        await pool.release(line, 'a')
        for task in waiting:
            await pool.release(await task, 'a')
        await pool.close()
        pool._core.check_invariants()
        assert {line.disposals for line in manager.lines} == {1}

    async def main() -> None:
        line, waiting = await begin()
        fork(lambda: child(line), beside_threads=False)
        await end(line, waiting)

    if fork_now is fork_by_python:
        asyncio.run(main())
        return
    # Python that is not told of the fork takes the parent's loop to be running in the child, if it was.
    loop = asyncio.new_event_loop()
    line, waiting = loop.run_until_complete(begin())
    fork(lambda: child(line), beside_threads=False)
    loop.run_until_complete(end(line, waiting))
    loop.close()


def tcp_connections() -> None:
    """The manager of the package and a server that answers: the parent's connection works when the child is gone."""
    from tests.contrib.servers import EchoServer, tcp_listener

    def converse(conn: socket.socket, words: bytes) -> None:
        conn.sendall(words)
        assert conn.recv(1000) == words

    with EchoServer(tcp_listener()) as server:
        endpoint = (ipaddress.IPv4Address('127.0.0.1'), server.port)
        pool: ConnectionPool[Any, socket.socket] = ConnectionPool(TcpSocketConnectionManager(), max_size=2)
        with pool.connection(endpoint) as conn:
            converse(conn, b'before')

            def child() -> None:
                with pool.connection(endpoint) as own:
                    assert own.getsockname() != conn.getsockname()
                    converse(own, b'in the child')
                pool.release(conn, endpoint)
                assert pool.close() == 0

            fork(child, beside_threads=True)
            converse(conn, b'after')
        with pool.connection(endpoint) as again:
            assert again is conn
            converse(again, b'again')
        pool.close()
