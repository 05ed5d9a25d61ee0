"""Faults that only threads have: exceptions of dispose that are no Exception, and who is served when many want one
connection."""

import logging
import threading
from random import Random

import pytest

from gcpool._workers.before_fork import idle_threads
from gcpool.exceptions import DiscardConnection, PoolTimeout
from gcpool.threading import ConnectionPool
from tests.pool_threads.support import Case, CheckingManager, FlakyManager, Gate, HookedManager, Manager
from tests.support import PATIENCE, Connection, Interruption
from tests.threads.runtime import spawn, until


@pytest.mark.parametrize(
    'error', [Interruption, KeyboardInterrupt, lambda: SystemExit(1)], ids=['other', 'Ctrl-C', 'exit'], indirect=True
)
@pytest.mark.parametrize('method', ['create', 'check_aliveness', 'on_acquire', 'on_release'])
def test_an_interruption_inside_the_manager_loses_nothing(method: str, error: BaseException) -> None:
    with Case(HookedManager(), max_size=1, total_max_size=1) as case:
        if method == 'check_aliveness':
            case.cycle('a')
        case.manager.script(method, error)
        with pytest.raises(type(error)):
            case.cycle('a')
        assert case.stats['acquired'] == 0
        # Another endpoint may take the slot.
        assert case.cycle('b') == 'b1'


def test_who_waits_for_a_hanging_dispose_has_another_connection_closed_by_who_comes_next() -> None:
    with Case(total_max_size=3, max_size=3) as case:
        for endpoint in 'abc':
            case.cycle(endpoint)
        gate = Gate()
        case.manager.script('dispose', gate)
        first = spawn(case.pool.acquire, 'x')
        gate.reached()
        # It does not count as relief any more.
        case.clock.advance(2)
        second = case.pool.acquire('x', timeout=PATIENCE)
        third = spawn(case.pool.acquire, 'y')
        case.waiting(1)
        gate.open()
        case.release(first.result(), second, third.result())


def test_an_acquire_whose_dead_connection_takes_long_to_go_has_the_next_slot_before_later_ones() -> None:
    with Case(CheckingManager(), total_max_size=2, max_size=2) as case:
        case.cycle('a')
        case.cycle('b')
        gate = Gate()
        case.manager.script('check_aliveness', False)
        case.manager.script('dispose', gate)
        first = spawn(case.pool.acquire, 'a')
        gate.reached()
        second = spawn(case.pool.acquire, 'c')
        assert first.result().name == 'a2'
        assert case.manager.take_calls()[-2:] == ['dispose b1', 'create a']
        case.waiting(1)
        gate.open()
        case.release(first.result(), second.result())


def test_an_acquire_disposes_of_its_own_and_not_of_what_comes_first() -> None:
    with Case(min_idle=0, idle_timeout=10, max_size=3, max_lifetime=10, dispose_batch_size=10) as case:
        slow = case.acquire('slow', 3)
        case.release(*slow[1:])
        case.clock.advance(5)
        case.cycle('b')
        case.clock.advance(5)
        gate = Gate()
        case.manager.script('dispose', gate)
        job = spawn(case.release, slow[0])
        gate.reached()
        case.manager.take_calls()
        case.clock.advance(5)
        # The release has more to dispose of; this acquire has its own expired connection.
        conn = case.pool.acquire('b', timeout=5.0)
        assert case.manager.take_calls() == ['dispose b1', 'create b']
        gate.open()
        job.result()
        case.release(conn)


def test_an_acquire_leaves_what_a_release_has_doomed_to_that_release() -> None:
    with Case(min_idle=0, idle_timeout=10, max_size=3, dispose_batch_size=10) as case:
        held = case.acquire('healthy', 3)
        slow = case.acquire('slow', 3)
        case.release(*slow[:2])
        case.clock.advance(10)
        gate = Gate()
        case.manager.script('dispose', gate)
        job = spawn(case.release, slow[2])
        gate.reached()
        # One connects, the other one waits in vain: both would be held up by the second dispose of that endpoint.
        assert case.pool._core.doomed == 1
        another = case.pool.acquire('another', timeout=5.0)
        with pytest.raises(PoolTimeout):
            case.pool.acquire('healthy', timeout=0)
        assert case.pool._core.doomed == 1
        gate.open()
        job.result()
        assert case.stats['disposed'] == 2
        assert [conn.disposals for conn in slow] == [1, 1, 0]
        case.release(another, *held)


def test_what_is_no_exception_in_a_dispose_reaches_the_one_who_released_and_the_others_are_disposed_of() -> None:
    with Case(min_idle=0, idle_timeout=60, dispose_batch_size=10) as case:
        case.release(*case.acquire('a', 3))
        case.clock.advance(60)
        first, second = Interruption('first'), Interruption('second')
        case.manager.script('dispose', first, None, second)
        with pytest.raises(Interruption, match='first'):
            case.cycle('b')
        assert case.manager.living == ['b1']
        assert case.stats['idle'] == case.pool.get_size() == 1


def test_what_is_no_exception_in_the_dispose_of_an_evicted_connection_is_logged_and_its_slot_free(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Case(max_size=1, total_max_size=1) as case:
        case.cycle('a')
        case.manager.script('dispose', Interruption('in dispose'))
        assert case.cycle('b') == 'b1'
    assert 'Interruption: in dispose' in caplog.text


def test_what_is_no_exception_in_the_dispose_of_a_dead_connection_is_logged_and_its_slot_free(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Case(CheckingManager(), max_size=1) as case:
        case.cycle('a')
        case.manager.script('check_aliveness', False)
        case.manager.script('dispose', Interruption('in dispose'))
        assert case.cycle('a') == 'a2'
    assert 'Interruption: in dispose' in caplog.text


def test_what_is_no_exception_in_a_dispose_of_close_does_not_keep_it_from_the_others() -> None:
    with Case(min_idle=3) as case:
        case.release(*case.acquire('a', 3))
        case.manager.script('dispose', Interruption())
        with pytest.raises(Interruption):
            case.pool.close()
        assert case.manager.living == []
        assert case.pool.close() == 0


def test_the_collector_logs_what_is_no_exception_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    with Case(background_collector=True, min_idle=0, idle_timeout=0) as case:
        case.manager.script('dispose', Interruption('on purpose'))
        case.cycle('a')
        until(lambda: 'Interruption: on purpose' in caplog.text)
        assert 'continues after an error' in caplog.text
        case.cycle('b')
        until(lambda: case.pool.get_size() == 0)
        caplog.clear()


def test_a_connection_may_be_given_back_by_another_thread() -> None:
    with Case(max_size=1) as case:
        conn = spawn(case.pool.acquire, 'a').result()
        spawn(case.release, conn).result()
        assert case.pool.acquire('a') is conn
        case.release(conn)


def test_disposals_of_one_client_do_not_hold_up_the_others() -> None:
    with Case(min_idle=0, idle_timeout=0, max_size=2) as case:
        gate = Gate()
        case.manager.script('dispose', gate)
        slow = case.pool.acquire('a')
        job = spawn(case.release, slow)
        gate.reached()
        assert [case.cycle(endpoint) for endpoint in 'ab'] == ['a2', 'b1']
        assert not job.done
        gate.open()
        job.result()


def test_creates_of_one_client_do_not_hold_up_the_others() -> None:
    with Case(max_size=2) as case:
        gate = Gate()
        case.manager.script('create', gate)
        job = spawn(case.pool.acquire, 'a')
        gate.reached()
        assert [case.cycle(endpoint) for endpoint in 'ab'] == ['a1', 'b1']
        gate.open()
        case.release(job.result())


def test_hooks_of_one_client_do_not_hold_up_the_others() -> None:
    with Case(HookedManager(), max_size=2) as case:
        for method in ('on_acquire', 'on_release'):
            gate = Gate()
            case.manager.script(method, gate)
            job = spawn(case.cycle, 'a')
            gate.reached()
            case.cycle('a')
            case.cycle('b')
            assert not job.done
            gate.open()
            job.result()


@pytest.mark.stress
def test_many_threads_on_few_connections_are_served_in_turn() -> None:
    # With several connections, a thread that the system does not run after it was served holds its connection for many
    # turns of the others; with one connection the turns are those of the queue. (The pure-Python pool, on few: 1
    # against 2,348.)
    threads, cycles = 16, 15
    with Case(max_size=1) as case:
        counts = [0] * threads
        enough = threading.Event()

        def client(number: int) -> None:
            while not enough.is_set():
                with case.pool.connection('a'):
                    counts[number] += 1
                    if counts[number] == cycles:
                        enough.set()
                    # So that all of them are there to choose from.
                    until(lambda: enough.is_set() or case.stats['waiting'] == threads - 1)

        for job in [spawn(client, number) for number in range(threads)]:
            job.result()
        assert min(counts) >= cycles - 1, counts
        assert case.stats['acquires'] == sum(counts)
        assert case.stats['created'] == 1


@pytest.mark.stress
def test_no_two_threads_ever_hold_the_same_connection() -> None:
    manager = FlakyManager(Random(0))
    with Case(manager, min_idle=1, max_size=2, total_max_size=4, idle_timeout=1, max_lifetime=3) as case:
        holders: dict[str, int] = {}
        clashes: list[tuple[str, int, int]] = []

        def client(number: int) -> None:
            random = Random(number)
            for _ in range(100):
                case.clock.advance(random.random() / 5)
                try:
                    with case.pool.connection(random.choice('abc'), timeout=1) as conn:
                        other = holders.setdefault(conn.name, number)
                        if other != number or conn.disposals:
                            clashes.append((conn.name, other, number))
                        threading.Event().wait(0)
                        holders.pop(conn.name, None)
                except (OSError, PoolTimeout, Interruption):
                    continue

        for job in [spawn(client, number) for number in range(12)]:
            job.result()
        assert clashes == []
        assert len({*case.manager.connections}) == len(case.manager.connections)
        assert all(isinstance(conn, Connection) for conn in case.manager.connections)


@pytest.mark.parametrize('name', ['is_broken', 'on_release', 'check_aliveness'])
def test_a_hook_that_is_a_coroutine_function_is_refused(name: str) -> None:
    async def hook(self: object, *args: object) -> bool:
        return True

    manager_class = type('Mixed', (Manager,), {name: hook})
    with pytest.raises(TypeError, match=rf'{name}\(\) of connection_manager .* is a coroutine function'):
        ConnectionPool(manager_class())


def test_a_signal_handler_that_raises_while_a_discard_is_logged_loses_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def is_enabled_for(self: logging.Logger, level: int) -> bool:
        raise Interruption('by a signal')

    with Case(HookedManager(), max_size=1) as case:
        case.manager.script('on_release', DiscardConnection())
        conn = case.pool.acquire('a')
        monkeypatch.setattr(logging.Logger, 'isEnabledFor', is_enabled_for)
        with pytest.raises(Interruption):
            case.pool.release(conn, 'a')
        monkeypatch.undo()
        assert case.stats['size'] == 0
        case.cycle('a')


def test_a_release_that_is_interrupted_beside_its_closing_closes_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal handler may raise where the release looks whether the collector's thread is there."""

    def interrupted() -> bool:
        raise Interruption

    with Case(HookedManager(), background_collector=True, max_size=1, min_idle=0, idle_timeout=60) as case:
        case.cycle('other')
        conn = case.pool.acquire('a')
        case.manager.script('on_release', DiscardConnection('unfit'))
        [collector] = case.pool._collector._threads
        until(lambda: collector.thread in idle_threads and collector.wakeup._lock.locked())
        # Something is due now, and the collector, whose thread sleeps a real minute, does not know it yet.
        case.clock.advance(100)
        with monkeypatch.context() as patch:
            patch.setattr(case.pool._collector, 'ensure_running', interrupted)
            with pytest.raises(Interruption):
                case.pool.release(conn, 'a')
        assert 'a1' not in case.manager.living
        assert case.cycle('a') == 'a2'
