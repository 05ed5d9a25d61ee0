# Generated from tests/pool/test_contexts.py by .github/scripts/generate_threading.py; do not edit.

"""``pool.connection()``: what is acquired at its beginning is released at its end, once, whatever happens between."""

import pytest

from gcpool.exceptions import ConnectionNotAcquired, PoolTimeout
from tests.pool_threads.support import Case, Gate, HookedManager, Manager
from tests.support import Interruption
from tests.threads.runtime import spawn

MANAGERS = pytest.mark.parametrize('manager_class', [Manager, HookedManager])


@MANAGERS
def test_a_context_acquires_and_gives_back(manager_class: type[Manager]) -> None:
    with Case(manager_class()) as case:
        with case.pool.connection('a') as conn:
            assert conn.name == 'a1'
            assert case.pool.get_endpoint_pool_size('a', acquired=True) == 1
        assert case.pool.get_endpoint_pool_size('a', acquired=False) == 1


@MANAGERS
@pytest.mark.parametrize(
    'error', [lambda: KeyError('mine'), Interruption], ids=['Exception', 'BaseException'], indirect=True
)
def test_an_exception_in_the_body_gives_the_connection_back_and_goes_on(
    manager_class: type[Manager], error: BaseException
) -> None:
    with Case(manager_class()) as case:

        def client() -> None:
            with case.pool.connection('a'):
                raise error

        for _ in range(2):
            with pytest.raises(type(error)) as caught:
                client()
            assert caught.value is error
            assert case.stats['idle'] == 1


def test_nothing_is_acquired_before_a_context_is_entered() -> None:
    with Case() as case:
        context = case.pool.connection('a')
        assert case.pool.get_size() == 0
        with context:
            assert case.pool.get_size() == 1


@MANAGERS
def test_a_context_can_be_used_again_after_it_was_left(manager_class: type[Manager]) -> None:
    with Case(manager_class(), min_idle=2) as case:
        case.release(*case.acquire('a', 2))
        context = case.pool.connection('a')
        names = []
        for _ in range(4):
            with context as conn:
                names.append(conn.name)
        assert names == ['a1', 'a2', 'a1', 'a2']


def test_contexts_nest_with_a_connection_each() -> None:
    with Case() as case:
        with case.pool.connection('a') as first, case.pool.connection('a') as second:
            assert first is not second
        assert case.stats['idle'] == 2


@pytest.mark.parametrize('one_more', [False, True])
def test_clients_that_hold_one_and_take_another_need_one_more_than_all_can_hold_and_wait(one_more: bool) -> None:
    clients, each = 3, 2
    with Case(max_size=clients * (each - 1) + one_more) as case:
        held = case.acquire('a', clients * (each - 1))

        def take_another(number: int) -> None:
            with case.pool.connection('a'):
                pass
            case.release(held[number])

        if not one_more:
            # Each waits for the others, for ever.
            with pytest.raises(PoolTimeout):
                case.pool.acquire('a', timeout=0)
            case.release(*held)
            return
        for job in [spawn(take_another, number) for number in range(clients)]:
            job.result()
        assert case.stats['created'] == clients * (each - 1) + 1


@MANAGERS
def test_a_context_cannot_be_entered_twice_at_a_time(manager_class: type[Manager]) -> None:
    with Case(manager_class()) as case:
        context = case.pool.connection('a')
        with context:
            with pytest.raises(RuntimeError, match='the connection context is entered already'):
                context.__enter__()
            assert case.stats['acquired'] == 1
        assert case.stats['acquired'] == 0


@MANAGERS
def test_a_context_that_two_clients_wait_in_serves_one_and_refuses_the_other(
    manager_class: type[Manager],
) -> None:
    with Case(manager_class(), max_size=2) as case:
        held = case.acquire('a', 2)
        context = case.pool.connection('a')

        def enter() -> str:
            try:
                context.__enter__()
            except RuntimeError as error:
                return str(error)
            return 'entered'

        jobs = [spawn(enter) for _ in range(2)]
        case.waiting(2)
        case.release(*held)
        outcomes = {job.result() for job in jobs}
        refused = 'the connection context is entered already: call connection() once more for a second one'
        assert outcomes == {'entered', refused}
        assert case.stats['acquired'] == 1
        context.__exit__(None, None, None)
        assert case.stats['acquired'] == 0


def test_a_context_cannot_be_left_that_was_not_entered() -> None:
    with Case() as case:
        context = case.pool.connection('a')
        with pytest.raises(RuntimeError, match='the connection context was not entered'):
            context.__exit__(None, None, None)
        with context:
            pass
        with pytest.raises(RuntimeError, match='the connection context was not entered'):
            context.__exit__(None, None, None)
        assert case.stats['idle'] == 1


@MANAGERS
def test_a_connection_given_back_inside_its_context_makes_the_end_of_the_context_an_error(
    manager_class: type[Manager],
) -> None:
    with Case(manager_class()) as case:
        context = case.pool.connection('a')
        conn = context.__enter__()
        case.release(conn)
        with pytest.raises(ConnectionNotAcquired, match=r'<a1> of .* is not acquired'):
            context.__exit__(None, None, None)
        assert case.stats['idle'] == 1
        with context:
            assert case.stats['acquired'] == 1


@MANAGERS
def test_a_connection_that_is_somebody_else_s_by_now_is_not_given_back_by_a_context(
    manager_class: type[Manager],
) -> None:
    with Case(manager_class()) as case:
        context = case.pool.connection('a')
        conn = context.__enter__()
        case.release(conn)
        assert case.pool.acquire('a') is conn
        with pytest.raises(ConnectionNotAcquired, match=r'<a1> of .* was released before, and another user has'):
            context.__exit__(None, None, None)
        assert case.stats['acquired'] == 1
        case.release(conn)


def test_a_connection_given_back_inside_its_context_and_disposed_of_makes_its_end_an_error() -> None:
    with Case(min_idle=0, idle_timeout=0) as case:
        context = case.pool.connection('a')
        conn = context.__enter__()
        case.release(conn)
        with pytest.raises(ConnectionNotAcquired):
            context.__exit__(None, None, None)
        assert conn.disposals == 1


@MANAGERS
def test_a_context_that_could_not_be_entered_can_be_tried_again(manager_class: type[Manager]) -> None:
    with Case(manager_class(), max_size=1) as case:
        context = case.pool.connection('a', timeout=0)
        conn = case.pool.acquire('a')
        with pytest.raises(PoolTimeout):
            context.__enter__()
        case.release(conn)
        case.manager.script('check_aliveness', OSError())
        if manager_class is HookedManager:
            with pytest.raises(OSError):
                context.__enter__()
        with context:
            assert case.stats['acquired'] == 1


@MANAGERS
def test_a_context_is_handed_a_connection_like_an_acquire(manager_class: type[Manager]) -> None:
    with Case(manager_class(), max_size=1) as case:

        def client() -> str:
            with case.pool.connection('a') as conn:
                return conn.name

        conn = case.pool.acquire('a')
        jobs = []
        for number in range(3):
            jobs.append(spawn(client))
            case.waiting(number + 1)
        case.release(conn)
        assert [job.result() for job in jobs] == ['a1'] * 3


def test_a_body_that_fails_and_a_release_that_fails_are_chained() -> None:
    with Case(HookedManager()) as case:

        def client() -> None:
            with case.pool.connection('a'):
                raise KeyError('the body')

        case.manager.script('on_release', OSError('the hook'))
        with pytest.raises(OSError, match='the hook') as caught:
            client()
        assert isinstance(caught.value.__context__, KeyError)
        assert case.stats['idle'] == 1


def test_the_release_at_the_end_of_a_context_disposes_of_what_is_due() -> None:
    with Case(min_idle=0, idle_timeout=0) as case:
        gate = Gate()
        case.manager.script('dispose', gate)

        def client() -> None:
            with case.pool.connection('a'):
                pass

        job = spawn(client)
        gate.reached()
        assert not job.done
        gate.open()
        job.result()
        assert case.pool.get_size() == 0
