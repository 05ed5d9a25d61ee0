# Generated from tests/pool/test_spellings.py by .github/scripts/generate_threading.py; do not edit.

"""``normalize``: spellings of one endpoint are one endpoint to the pool, and to all other methods of the manager."""

from asyncio import sleep
from typing import Any
from unittest.mock import Mock

import pytest

from gcpool.exceptions import ConnectionNotAcquired, PoolTimeout
from gcpool.threading import BaseConnectionManager, ConnectionPool
from tests.pool_threads.support import Case, Duck, HookedManager, JudgingManager, Manager
from tests.support import Connection

SPELLINGS = ['http://a/', 'HTTP://a/', 'http://A/', 'http://a', 'HTTP://A']


class SpellingManager(JudgingManager):
    """Overrides every method."""

    def __init__(self) -> None:
        super().__init__()
        self.normalized: list[Any] = []

    def normalize(self, endpoint: Any) -> Any:
        self.normalized.append(endpoint)
        if endpoint == 'wrong':
            raise ValueError('no endpoint')
        if endpoint == 'unhashable':
            return [endpoint]
        return endpoint.lower().rstrip('/') + '/'


def use(pool: ConnectionPool[Any, Connection], endpoint: str, exc: Exception) -> None:
    with pool.connection(endpoint):
        raise exc


def test_one_server_under_several_spellings_has_the_connections_of_one() -> None:
    with Case(SpellingManager(), max_size=1) as case:
        for spelling in SPELLINGS:
            conn = case.pool.acquire(spelling)
            assert conn.name == 'http://a/1'
            for other in SPELLINGS:
                with pytest.raises(PoolTimeout):
                    case.pool.acquire(other, timeout=0)
                assert case.pool.get_endpoint_pool_size(other, acquired=True) == 1
            case.pool.release(conn, spelling)
        assert case.stats['endpoints'] == 1
        assert case.pool.get_size() == 1


@pytest.mark.parametrize('acquired', SPELLINGS)
@pytest.mark.parametrize('released', SPELLINGS)
def test_a_connection_is_returned_under_another_spelling_than_it_was_acquired(acquired: str, released: str) -> None:
    with Case(SpellingManager()) as case:
        conn = case.pool.acquire(acquired)
        with pytest.raises(ConnectionNotAcquired, match='belongs to endpoint'):
            case.pool.release(conn, 'http://b/')
        case.pool.release(conn, released)
        assert case.stats['idle'] == 1


def test_all_methods_of_the_manager_see_what_the_endpoint_counts_as() -> None:
    class Seeing(SpellingManager):
        def __init__(self) -> None:
            super().__init__()
            self.seen: set[Any] = set()

        def create(self, endpoint: Any, *args: Any, **kwargs: Any) -> Connection:
            self.seen.add(('create', endpoint))
            return super().create(endpoint, *args, **kwargs)

        def dispose(self, endpoint: Any, conn: Connection, *args: Any, **kwargs: Any) -> None:
            self.seen.add(('dispose', endpoint))
            super().dispose(endpoint, conn, *args, **kwargs)

        def check_aliveness(self, endpoint: Any, conn: Connection, *args: Any, **kwargs: Any) -> bool:
            self.seen.add(('check_aliveness', endpoint))
            return super().check_aliveness(endpoint, conn, *args, **kwargs)

        def on_acquire(self, endpoint: Any, conn: Connection) -> None:
            self.seen.add(('on_acquire', endpoint))

        def on_release(self, endpoint: Any, conn: Connection) -> None:
            self.seen.add(('on_release', endpoint))

        def is_broken(self, endpoint: Any, conn: Connection, exc: BaseException) -> bool:
            self.seen.add(('is_broken', endpoint))
            return True

        def on_connection_dead(self, endpoint: Any, conn: Connection) -> None:
            self.seen.add(('on_connection_dead', endpoint))

    manager = Seeing()
    with Case(manager) as case:
        for spelling in SPELLINGS:
            for _ in range(3):
                with case.pool.connection(spelling):
                    pass
            manager.script('check_aliveness', False)
            with case.pool.connection(spelling):
                pass
            with pytest.raises(OSError, match='lost'):
                use(case.pool, spelling, OSError('lost'))
    methods = ('create', 'dispose', 'check_aliveness', 'on_acquire', 'on_release', 'is_broken', 'on_connection_dead')
    assert manager.seen == {(method, 'http://a/') for method in methods}


def test_normalize_is_asked_once_about_each_spelling_and_not_again_while_the_endpoint_is_known() -> None:
    manager = SpellingManager()
    with Case(manager) as case:
        for _ in range(10):
            for spelling in SPELLINGS:
                # Another object each time.
                with case.pool.connection(''.join(spelling)):
                    case.pool.get_endpoint_pool_size(spelling)
        assert sorted(manager.normalized) == sorted(SPELLINGS)


@pytest.mark.parametrize(('endpoint', 'error', 'message'), [
    ('wrong', ValueError, 'no endpoint'),
    ('unhashable', TypeError, r"normalize\(\) returned \['unhashable'\] of type list"),
])  # fmt: skip
def test_an_error_of_normalize_reaches_who_called_and_changes_nothing(
    endpoint: str, error: type[Exception], message: str
) -> None:
    with Case(SpellingManager(), max_size=1) as case:
        conn = case.pool.acquire(SPELLINGS[0])
        before = case.stats
        with pytest.raises(error, match=message):
            case.pool.acquire(endpoint)
        with pytest.raises(error, match=message):
            case.pool.release(conn, endpoint)
        with pytest.raises(error, match=message):
            case.pool.get_endpoint_pool_size(endpoint)
        with pytest.raises(error, match=message):
            use(case.pool, endpoint, AssertionError('it was entered'))
        assert case.stats == before
        case.pool.release(conn, SPELLINGS[1])


def test_a_manager_without_normalize_has_one_endpoint_for_each_object() -> None:
    for manager in (Manager(), HookedManager()):
        with Case(manager) as case:
            for spelling in SPELLINGS:
                assert (case.cycle(spelling)) == f'{spelling}1'
            assert case.pool._core.normalize is None
            assert manager.normalize(SPELLINGS[1]) is SPELLINGS[1]


def test_normalize_of_a_manager_that_knows_nothing_of_gcpool_is_found() -> None:
    manager: Any = Duck()
    manager.normalize = str.lower
    pool: ConnectionPool[str, Any] = ConnectionPool(manager)
    conn = pool.acquire('A')
    pool.release(conn, 'a')
    assert pool.get_endpoint_pool_size('A') == 1
    pool.close()


def test_a_wrapper_that_passes_everything_on_passes_normalize_on() -> None:
    class Wrapper:
        def __init__(self, manager: Any) -> None:
            self._manager = manager

        def __getattr__(self, name: str) -> Any:
            return getattr(self._manager, name)

    wrapper: Any = Wrapper(SpellingManager())
    pool: ConnectionPool[str, Any] = ConnectionPool(wrapper)
    for spelling in SPELLINGS:
        with pool.connection(spelling) as conn:
            assert conn.name == 'http://a/1'
    pool.close()


def test_the_automatic_normalize_of_a_mock_is_ignored() -> None:
    for manager in (Mock(spec=BaseConnectionManager), Mock()):
        pool: ConnectionPool[str, Any] = ConnectionPool(manager)
        assert pool._core.normalize is None


def test_an_invalid_normalize_is_refused() -> None:
    for wrong, message in ((sleep, 'is a coroutine function: expected a plain one'), ('lower', 'expected a method')):
        manager: Any = Duck()
        manager.normalize = wrong
        with pytest.raises(TypeError, match=message):
            ConnectionPool(manager)
