# Generated from tests/pool/test_holders.py by .github/scripts/generate_threading.py; do not edit.

"""Who holds the connections of a pool, where they were acquired, and which of them have leaked."""

import functools
import gc
import linecache
import logging
import pickle
import sys
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType, SimpleNamespace
from typing import Any

import pytest

import gcpool._holders as holders_module
from gcpool._circles import holders_waited_for
from gcpool.common import Frame, Holder, PoolEvent
from gcpool.exceptions import ConnectionPoolClosedError, PoolTimeout
from gcpool.threading import ConnectionPool
from tests.pool_threads.support import Case, CheckingManager, ForgetfulManager, HookedManager, Manager
from tests.support import Clock, Connection
from tests.threads.runtime import give_way, spawn, until

THIS = __file__


def functions(holder: Holder) -> list[str]:
    """The functions in which a connection was acquired, innermost first, without their classes."""
    return [frame.function.rpartition('.')[2] for frame in holder.frames]


def take(pool: ConnectionPool[Any, Any], endpoint: Any = 'a') -> Any:
    return pool.acquire(endpoint)


def take_deeper(pool: ConnectionPool[Any, Any]) -> Any:
    return take(pool)


# ---- who holds what -----------------------------------------------------------------------------------------------


def test_the_holders_of_connections_longest_first() -> None:
    with Case(record_holders=True) as case:
        case.cycle('c')
        first = take(case.pool, 'a')
        case.clock.advance(2)
        second = take(case.pool, 'b')
        case.clock.advance(1)
        holders = case.pool.holders()
        assert [(holder.endpoint, holder.seconds) for holder in holders] == [('a', 3.0), ('b', 1.0)]
        assert holders[0].holder == holders[1].holder
        assert holders[0].holder
        assert holders[0].seconds * 1e9 == case.stats['longest_held']
        assert case.pool.holders('b') == holders[1:]
        assert case.pool.holders('unknown') == case.pool.holders('c') == []
        case.release(first)
        assert [holder.endpoint for holder in case.pool.holders()] == ['b']
        case.release(second)
        assert case.pool.holders() == []


def test_without_recording_only_endpoint_and_time_are_known() -> None:
    with Case() as case:
        conn = take(case.pool)
        case.clock.advance(1)
        assert case.pool.holders() == [Holder('a', 1.0, None, ())]
        assert not case.pool.record_holders
        case.release(conn)


def test_the_frames_are_those_of_the_acquire() -> None:
    with Case(record_holders=True) as case:
        for _ in range(3):  # created, and then found idle
            conn = take_deeper(case.pool)
            (holder,) = case.pool.holders()
            assert functions(holder)[:3] == ['take', 'take_deeper', 'test_the_frames_are_those_of_the_acquire']
            assert holder.frames[0].file == THIS
            assert 'pool.acquire(endpoint)' in linecache.getline(THIS, holder.frames[0].line or 0)
            assert len(holder.frames) <= 8
            case.release(conn)


def test_neither_the_frames_of_the_pool_nor_those_of_contextlib_are_shown() -> None:
    with Case(record_holders=True) as case:

        @contextmanager
        def borrowed() -> Iterator[Any]:
            with case.pool.connection('a') as conn:
                yield conn

        for _ in range(2):
            with borrowed():
                (holder,) = case.pool.holders()
                assert functions(holder)[:2] == [
                    'borrowed',
                    'test_neither_the_frames_of_the_pool_nor_those_of_contextlib_are_shown',
                ]
                files = [frame.file for frame in holder.frames]
                assert not [file for file in files if 'contextlib' in file or '_runtime_' in file]


def test_a_connection_that_was_waited_for_has_its_holder_s_frames() -> None:
    with Case(record_holders=True, max_size=1) as case:
        conn = take(case.pool)
        waiting = spawn(take_deeper, case.pool)
        case.waiting(1)
        case.release(conn)
        conn = waiting.result()
        (holder,) = case.pool.holders()
        assert functions(holder)[:2] == ['take', 'take_deeper']
        case.release(conn)


@pytest.mark.parametrize('manager', [HookedManager, CheckingManager])
def test_with_hooks_and_checks(manager: Callable[[], Manager]) -> None:
    with Case(manager(), record_holders=True) as case:
        for _ in range(2):
            conn = take(case.pool)
            (holder,) = case.pool.holders()
            assert functions(holder)[0] == 'take'
            case.release(conn)


def test_a_connection_that_was_taken_without_waiting() -> None:
    with Case(record_holders=True) as case:
        case.cycle('a')
        conn = case.pool.try_acquire('a')
        assert conn is not None
        (holder,) = case.pool.holders()
        assert functions(holder)[0] == 'test_a_connection_that_was_taken_without_waiting'
        case.release(conn)


def test_the_frames_are_those_of_the_interpreter_also_across_calls_of_c() -> None:
    with Case(record_holders=True) as case:
        case.cycle('a')
        here: list[tuple[str, int]] = []

        def take_and_look(_: Any) -> Any:
            frame = sys._getframe().f_back
            while frame is not None:
                here.append((frame.f_code.co_name, frame.f_lineno))
                frame = frame.f_back
            return case.pool.try_acquire('a')

        def generate() -> Iterator[Any]:
            here.clear()
            yield from map(take_and_look, 'x')

        for _ in range(3):
            conns: list[Any] = functools.reduce(lambda found, new: [*found, *new], [generate()], [])
            (holder,) = case.pool.holders()
            places = [(frame.function.rpartition('.')[2], frame.line) for frame in holder.frames]
            assert [name for name, _ in places[:3]] == ['take_and_look', 'generate', '<lambda>']
            assert places[1:] == here[: len(places) - 1]
            case.release(*conns)


class Local:
    """Something that a frame keeps alive."""


def test_no_frame_is_kept() -> None:
    with Case(record_holders=True) as case:
        kept: list[weakref.ref[Local]] = []

        def acquire() -> Connection:
            local = Local()
            kept.append(weakref.ref(local))
            conn: Connection = take(case.pool)
            return conn

        for _ in range(2):
            conn = acquire()
            gc.collect()
            assert [reference() for reference in kept] == [None] * len(kept)
            assert case.pool.holders()[0].frames[1].function.endswith('acquire')
            case.release(conn)


def test_the_code_of_a_function_that_is_gone_is_forgotten_with_the_connection() -> None:
    pool = ConnectionPool(Manager(), record_holders=True)
    passing = FunctionType(take.__code__.replace(co_filename='passing.py'), globals(), 'passing', ('a',))
    code = weakref.ref(passing.__code__)
    conn = passing(pool)
    del passing
    gc.collect()
    assert code() is not None
    assert pool.holders()[0].frames[0].file == 'passing.py'
    pool.discard(conn)
    gc.collect()
    assert code() is None
    pool.close()


def test_an_idle_connection_takes_no_memory_for_a_holder() -> None:
    traced = []
    for record_holders in (False, True):
        with Case(record_holders=record_holders, total_max_size=2_000) as case:
            tracemalloc.start()
            for endpoint in range(2_000):
                case.cycle(endpoint)
            gc.collect()
            traced.append(tracemalloc.get_traced_memory()[0] / 2_000)
            tracemalloc.stop()
    without, recording = traced
    assert recording - without < 64


def test_each_connection_in_use_has_its_own_record_however_many_come_and_go() -> None:
    with Case(record_holders=True, total_max_size=300) as case:
        for _ in range(3):
            held = [take(case.pool, endpoint) for endpoint in range(40)]
            for endpoint in range(100, 200):
                case.cycle(endpoint)
            held += [take_deeper(case.pool) for _ in range(2)]
            for endpoint in range(200, 250):
                case.cycle(endpoint)
            found = {(holder.endpoint, 'take_deeper' in functions(holder)) for holder in case.pool.holders()}
            assert found == {*((endpoint, False) for endpoint in range(40)), ('a', True)}
            assert {functions(holder)[0] for holder in case.pool.holders()} == {'take'}
            assert None not in {holder.holder for holder in case.pool.holders()}
            case.release(*held[::2])
            assert len(case.pool.holders()) == 21
            case.release(*held[1::2])


def test_a_record_goes_with_its_connection() -> None:
    with Case(record_holders=True, total_max_size=300) as case:
        for start in (0, 100):
            held = [take(case.pool, endpoint) for endpoint in range(start, start + 50)]
            for conn in held[:20]:
                case.pool.discard(conn)
            case.release(*held[20:])
            case.pool.drain()
            until(lambda: case.pool.get_size() == 0)
            gc.collect()
            conn = take(case.pool)
            (holder,) = case.pool.holders()
            assert functions(holder)[0] == 'take'
            case.release(conn)


def test_holders_can_be_pickled_and_printed() -> None:
    with Case(record_holders=True) as case:
        conn = take(case.pool)
        (holder,) = case.pool.holders()
        assert pickle.loads(pickle.dumps(holder)) == holder
        assert str(holder.frames[0]) == f'{THIS}:{holder.frames[0].line} in take'
        assert Frame('f.py', 3, 'g') == ('f.py', 3, 'g')
        case.release(conn)


class Secret(Manager):
    def describe_endpoint(self, endpoint: Any) -> object:
        return f'{endpoint} without its password'


def test_endpoints_are_shown_as_they_are_described() -> None:
    with Case(Secret(), record_holders=True) as case:
        conn = take(case.pool)
        assert case.pool.holders()[0].endpoint == 'a without its password'
        case.release(conn)


def test_a_timeout_names_who_has_held_for_longest() -> None:
    with Case(record_holders=True, name='orders', max_size=4, total_max_size=5) as case:
        conns = []
        for _ in range(4):
            conns.append(take(case.pool))
            case.clock.advance(1)
        conns.append(take(case.pool, 'b'))
        with pytest.raises(PoolTimeout) as caught:
            case.pool.acquire('a', timeout=0)
        error = caught.value
        assert [holder.seconds for holder in error.holders] == [4.0, 3.0, 2.0]
        assert {holder.endpoint for holder in error.holders} == {'a'}
        first = error.holders[0]
        assert str(error) == (
            "pool 'orders': timed out after 0 s waiting for a connection to 'a': max_size=4 reached (4 in use, 0 "
            f'waiting); {first.holder} has held one for 4.0 s, acquired at {first.frames[0]}'
        )
        with pytest.raises(PoolTimeout) as caught:
            case.pool.acquire('c', timeout=0)
        assert caught.value.holders == error.holders, 'of all endpoints'
        case.release(*conns)


# ---- leaks --------------------------------------------------------------------------------------------------------


@pytest.fixture
def records(caplog: pytest.LogCaptureFixture) -> Callable[[], list[Any]]:
    """The log records of leaks, and of their ends."""
    caplog.set_level(logging.INFO, 'gcpool')
    return lambda: [record for record in caplog.records if 'connection to' in record.message]


def look(pool: ConnectionPool[Any, Any], clock: Clock, seconds: float) -> None:
    """Let time pass, and have the pool look for leaks."""
    clock.advance(seconds)
    pool._collect()


def test_a_leak_is_told_once_and_so_is_its_end(records: Callable[[], list[Any]]) -> None:
    events: list[PoolEvent] = []
    clock = Clock()
    pool = ConnectionPool(Manager(), leak_threshold=10, name='orders', on_event=events.append, _clock=clock)
    assert pool.record_holders
    assert pool.leak_threshold == 10.0
    conn = take_deeper(pool)
    look(pool, clock, 9)
    assert records() == []
    assert pool.get_stats()['leaks'] == 0
    for _ in range(3):
        look(pool, clock, 2)
    (record,) = records()
    (holder,) = pool.holders()
    assert record.levelname == 'WARNING'
    assert (record.pool, record.endpoint, record.event, record.duration) == ('orders', 'a', 'leak', 11.0)
    assert record.message.startswith(
        "orders: a connection to 'a' has been in use for longer than leak_threshold=10 s: held for 11.0 s by "
        f'{holder.holder}, acquired at {holder.frames[0]} < {holder.frames[1]}'
    )
    assert f', now at {THIS}:' in record.message or ', now at' in record.message
    assert pool.get_stats()['leaks'] == 1
    assert pool.get_stats()['in_use'] == 1, 'it is never reclaimed'
    pool.release(conn)
    look(pool, clock, 2)
    record = records()[-1]
    assert record.levelname == 'INFO'
    assert record.message == (
        f"orders: the connection to 'a' that {holder.holder} held for too long was returned after 15.0 s"
    )
    look(pool, clock, 20)
    assert len(records()) == 2
    until(lambda: [event.kind for event in events].count('leak') == 1)
    pool.close()


def test_a_block_that_may_take_long_is_no_leak(records: Callable[[], list[Any]]) -> None:
    clock = Clock()
    pool = ConnectionPool(Manager(), leak_threshold=1, _clock=clock)

    class Traced(ConnectionPool[Any, Any]):
        def acquire(self, endpoint: Any = ..., timeout: float | None = None) -> Any:
            return super().acquire(endpoint, timeout)

    pools: list[ConnectionPool[Any, Any]] = [pool, Traced(Manager(), leak_threshold=1, _clock=clock)]
    for number, each in enumerate(pools):
        for _ in range(2):
            with each.connection('a', long=True) as conn:
                assert conn is not None
                look(each, clock, 100)

        @each.connection('a', long=True)
        def decorated(own: ConnectionPool[Any, Any] = each) -> None:
            look(own, clock, 100)

        decorated()
        assert each.get_stats()['leaks'] == 0
        with each.connection('a'):
            look(each, clock, 100)
        assert each.get_stats()['leaks'] == 1
        each.close()
        assert len(records()) == number + 1


def test_looks_begin_with_an_acquire_and_end_when_nothing_is_in_use() -> None:
    clock = Clock()
    pool = ConnectionPool(Manager(), leak_threshold=10, _clock=clock)
    core = pool._core
    assert core.next_look_for_leaks == float('inf')
    conn = take(pool)
    assert core.next_look_for_leaks == clock() + 1
    look(pool, clock, 1)
    assert core.next_look_for_leaks == clock() + 1
    pool.release(conn)
    look(pool, clock, 1)
    assert core.next_look_for_leaks == float('inf')
    pool.close()


def test_an_acquire_during_a_look_that_does_not_see_it_has_the_next_one_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    pool = ConnectionPool(Manager(), leak_threshold=10, _clock=clock)
    pool.release(take(pool))
    seen = holders_module._leases
    taken: list[Connection] = []

    def look_and_take(of: Any) -> Any:
        leases = seen(of)
        conn = pool.try_acquire('a')
        assert conn is not None
        taken.append(conn)
        return leases

    with monkeypatch.context() as patch:
        patch.setattr(holders_module, '_leases', look_and_take)
        look(pool, clock, 1)
    assert pool._core.next_look_for_leaks == clock() + 1
    look(pool, clock, 10)
    assert pool.get_stats()['leaks'] == 1
    pool.release(taken[0])
    pool.close()


def test_an_interrupted_wake_is_left_to_the_next_acquire(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(Exception):
        pass

    def wake(_: Any) -> None:
        raise Interrupted

    clock = Clock()
    with monkeypatch.context() as patch:
        patch.setattr(type(ConnectionPool(Manager(), leak_threshold=1)._collector), 'wake', wake)
        pool = ConnectionPool(Manager(), leak_threshold=10, _clock=clock)
        with pytest.raises(Interrupted):
            take(pool)
    core = pool._core
    assert (core.next_look_for_leaks, pool.get_stats()['in_use']) == (float('inf'), 0)
    pool.close()


def test_looks_go_on_after_a_look_that_was_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    pool = ConnectionPool(Manager(), leak_threshold=10, _clock=clock)
    core = pool._core
    conn = take(pool)

    def interrupted(_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(holders_module, '_leases', interrupted)
        clock.advance(1)
        with pytest.raises(KeyboardInterrupt):
            pool._holding.look_if_due(pool)
    assert core.next_look_for_leaks == clock() + 1
    pool.release(conn)
    look(pool, clock, 1)
    assert core.next_look_for_leaks == float('inf')
    pool.close()


def test_the_pool_looks_by_itself(records: Callable[[], list[Any]]) -> None:
    pool = ConnectionPool(Manager(), leak_threshold=0.01)
    conn = take(pool)
    until(lambda: pool.get_stats()['leaks'] == 1)
    pool.release(conn)
    until(lambda: len(records()) == 2)
    pool.close()


def test_a_holder_that_has_ended_is_told_at_once(records: Callable[[], list[Any]]) -> None:
    clock = Clock()
    pool = ConnectionPool(Manager(), leak_threshold=1000, _clock=clock)
    conn = spawn(take, pool).result()
    while not records():
        look(pool, clock, 1)
        give_way()
    assert 'was not returned, and its holder has ended: held for' in records()[0].message
    assert ', acquired at ' in records()[0].message
    pool.release(conn)
    pool.close()


def test_a_connection_that_was_dropped_is_told_at_once(records: Callable[[], list[Any]]) -> None:
    clock = Clock()
    pool = ConnectionPool(ForgetfulManager(), leak_threshold=1000, _clock=clock)
    take(pool)
    look(pool, clock, 1)
    assert 'was dropped without being returned: held for 1.0 s by' in records()[0].message
    with pool.connection('b'):
        look(pool, clock, 1)
        assert len(records()) == 1, 'its context returns it'
    pool.close(timeout=0)


def test_a_context_that_was_dropped_is_told_and_its_connection_returned(
    records: Callable[[], list[Any]],
) -> None:
    pool = ConnectionPool(Manager(), leak_threshold=1000)
    context = pool.connection('a')
    context.__enter__()
    del context
    gc.collect()
    until(lambda: pool.get_stats()['idle'] == 1)
    assert 'was dropped: its block was entered and never left: held for' in records()[0].message
    assert pool.get_stats()['leaks'] == 1
    pool.close()


def test_an_acquire_that_waits_for_its_own_holder_is_told_once(records: Callable[[], list[Any]]) -> None:
    with Case(record_holders=True, max_size=1, name='orders') as case:

        def nested() -> None:
            with case.pool.connection('a'):
                for _ in range(2):
                    with pytest.raises(PoolTimeout):
                        case.pool.acquire('a', timeout=0.01)

        nested()
        (record,) = records()
        assert record.levelname == 'WARNING'
        assert record.message.startswith("orders: an acquire of a connection to 'a' waits for its own ")
        assert 'which holds one for 0.0 s, acquired at ' in record.message


def test_an_acquire_that_waits_for_another_holder_is_not_told(records: Callable[[], list[Any]]) -> None:
    with Case(record_holders=True, max_size=1) as case:
        conn = spawn(take, case.pool).result()
        with pytest.raises(PoolTimeout):
            case.pool.acquire('a', timeout=0.01)
        assert records() == []
        case.release(conn)


def test_a_holder_that_asks_for_more_while_there_is_room_is_not_told(records: Callable[[], list[Any]]) -> None:
    with Case(record_holders=True, max_size=2, create_in_background=True) as case:
        conns = [take(case.pool) for _ in range(2)]
        assert case.stats['waits'] == 2, 'for connects of the pool'
        assert records() == []
        case.release(*conns)


@pytest.mark.parametrize('queued', [True, False])
def test_an_acquire_that_is_served_while_it_is_looked_at_waits_for_nobody(queued: bool) -> None:
    # What it was served counts as in use. Met where the pool connects in the background.
    core = SimpleNamespace(
        size=1,
        max_size=1,
        endpoint_stats=lambda *_: {'size': 1, 'in_use': 1},
        who_holds=lambda *_: ['me'],
    )
    wait: Any = SimpleNamespace(pool=SimpleNamespace(_core=core), waiter=SimpleNamespace(endpoint='a', queued=queued))
    assert holders_waited_for(wait) == (['me'] if queued else [])


# ---- who waits for each other -------------------------------------------------------------------------------------


class Both:
    """Users who hold a connection each and acquire a second one when they are told to."""

    def __init__(self) -> None:
        self.holding = 0
        self.go_on: set[int] = set()
        self.ended = 0

    def use(self, number: int, first: Any, second: Any) -> None:
        conn = first[0].acquire(first[1])
        self.holding += 1
        until(lambda: number in self.go_on)
        try:
            other = second[0].acquire(second[1], timeout=None if number else 60)
            second[0].release(other)
        except ConnectionPoolClosedError:
            pass
        first[0].release(conn)
        self.ended += 1


def test_two_who_hold_one_each_and_wait_for_a_second_are_told_once(records: Callable[[], list[Any]]) -> None:
    case = Case(record_holders=True, max_size=2, name='orders')
    both = Both()
    place = case.pool, 'a'
    for number in range(2):
        spawn(both.use, number, place, place)
    until(lambda: both.holding == 2)
    both.go_on.add(0)
    case.waiting(1)
    until(lambda: len(records()) == 1)
    assert 'waits for its own' in records()[0].message
    both.go_on.add(1)
    case.waiting(2)
    until(lambda: len(records()) == 2)
    record = records()[1]
    assert record.levelname == 'WARNING'
    assert record.message.startswith(
        "orders: an acquire of a connection to 'a' closes a circle of acquires that wait for each other, and for "
    )
    assert record.message.count("waits for a connection to 'a' of orders, held by ") == 2
    assert record.message.count(f'(acquired at {THIS}:') == 4
    assert record.message.endswith('(logged once)')
    with pytest.raises(PoolTimeout):
        case.pool.acquire('a', timeout=0.001)
    assert len(records()) == 2
    case.pool.close(timeout=0)
    until(lambda: both.ended == 2)


def test_those_who_wait_for_each_other_s_pools_are_told_once(records: Callable[[], list[Any]]) -> None:
    one = ConnectionPool(Manager(), record_holders=True, max_size=1, name='one')
    two = ConnectionPool(Manager(), record_holders=True, total_max_size=1, name='two')
    both = Both()
    spawn(both.use, 0, (one, 'a'), (two, 'b'))
    spawn(both.use, 1, (two, 'c'), (one, 'a'))
    until(lambda: both.holding == 2)
    both.go_on.add(0)
    until(lambda: two.get_stats()['waiting'] == 1)
    both.go_on.add(1)
    until(lambda: len(records()) == 1)
    message = records()[0].message
    assert message.startswith("one: an acquire of a connection to 'a' closes a circle of acquires")
    assert "waits for a connection to 'a' of one, held by " in message
    assert "waits for a connection to 'b' of two, held by " in message
    for pool in (one, two):
        pool.close(timeout=0)
    until(lambda: both.ended == 2)
    assert len([record for record in records() if 'circle' in record.message]) == 1


def test_no_circle_is_told_while_one_of_the_holders_does_not_wait(records: Callable[[], list[Any]]) -> None:
    case = Case(record_holders=True, max_size=3)
    both = Both()
    for number in range(2):
        spawn(both.use, number, (case.pool, 'a'), (case.pool, 'a'))
    conn = spawn(take, case.pool).result()
    until(lambda: both.holding == 2)
    both.go_on.update({0, 1})
    case.waiting(2)
    case.release(conn)
    until(lambda: both.ended == 2)
    assert not [record for record in records() if 'circle' in record.message]
    case.pool.close()


@pytest.mark.parametrize('value', [0, -1, float('nan'), True, '1'])
def test_a_bad_threshold_is_refused_by_name(value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match='leak_threshold='):
        ConnectionPool(Manager(), leak_threshold=value)


def test_a_flag_that_is_no_bool_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match='record_holders=1: expected a bool'):
        ConnectionPool(Manager(), record_holders=1)  # type: ignore[arg-type]
