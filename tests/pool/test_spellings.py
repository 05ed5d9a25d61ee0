"""``normalize``: spellings of one endpoint are one endpoint to the pool, and to all other methods of the manager."""

from asyncio import sleep
from typing import Any
from unittest.mock import Mock

import pytest

from gcpool.asyncio import BaseConnectionManager, ConnectionPool
from gcpool.exceptions import ConnectionNotAcquired, PoolTimeout
from tests.pool.support import Case, Duck, HookedManager, JudgingManager, Manager
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


async def use(pool: ConnectionPool[Any, Connection], endpoint: str, exc: Exception) -> None:
    async with pool.connection(endpoint):
        raise exc


async def test_one_server_under_several_spellings_has_the_connections_of_one() -> None:
    async with Case(SpellingManager(), max_size=1) as case:
        for spelling in SPELLINGS:
            conn = await case.pool.acquire(spelling)
            assert conn.name == 'http://a/1'
            for other in SPELLINGS:
                with pytest.raises(PoolTimeout):
                    await case.pool.acquire(other, timeout=0)
                assert await case.pool.get_endpoint_pool_size(other, acquired=True) == 1
            await case.pool.release(conn, spelling)
        assert case.stats['endpoints'] == 1
        assert case.pool.get_size() == 1


@pytest.mark.parametrize('acquired', SPELLINGS)
@pytest.mark.parametrize('released', SPELLINGS)
async def test_a_connection_is_returned_under_another_spelling_than_it_was_acquired(
    acquired: str, released: str
) -> None:
    async with Case(SpellingManager()) as case:
        conn = await case.pool.acquire(acquired)
        with pytest.raises(ConnectionNotAcquired, match='belongs to endpoint'):
            await case.pool.release(conn, 'http://b/')
        await case.pool.release(conn, released)
        assert case.stats['idle'] == 1


async def test_all_methods_of_the_manager_see_what_the_endpoint_counts_as() -> None:
    class Seeing(SpellingManager):
        def __init__(self) -> None:
            super().__init__()
            self.seen: set[Any] = set()

        async def create(self, endpoint: Any, *args: Any, **kwargs: Any) -> Connection:
            self.seen.add(('create', endpoint))
            return await super().create(endpoint, *args, **kwargs)

        async def dispose(self, endpoint: Any, conn: Connection, *args: Any, **kwargs: Any) -> None:
            self.seen.add(('dispose', endpoint))
            await super().dispose(endpoint, conn, *args, **kwargs)

        async def check_aliveness(self, endpoint: Any, conn: Connection, *args: Any, **kwargs: Any) -> bool:
            self.seen.add(('check_aliveness', endpoint))
            return await super().check_aliveness(endpoint, conn, *args, **kwargs)

        async def on_acquire(self, endpoint: Any, conn: Connection) -> None:
            self.seen.add(('on_acquire', endpoint))

        async def on_release(self, endpoint: Any, conn: Connection) -> None:
            self.seen.add(('on_release', endpoint))

        async def is_broken(self, endpoint: Any, conn: Connection, exc: BaseException) -> bool:
            self.seen.add(('is_broken', endpoint))
            return True

        async def on_connection_dead(self, endpoint: Any, conn: Connection) -> None:
            self.seen.add(('on_connection_dead', endpoint))

    manager = Seeing()
    async with Case(manager) as case:
        for spelling in SPELLINGS:
            for _ in range(3):
                async with case.pool.connection(spelling):
                    pass
            manager.script('check_aliveness', False)
            async with case.pool.connection(spelling):
                pass
            with pytest.raises(OSError, match='lost'):
                await use(case.pool, spelling, OSError('lost'))
    methods = ('create', 'dispose', 'check_aliveness', 'on_acquire', 'on_release', 'is_broken', 'on_connection_dead')
    assert manager.seen == {(method, 'http://a/') for method in methods}


async def test_normalize_is_asked_once_about_each_spelling_and_not_again_while_the_endpoint_is_known() -> None:
    manager = SpellingManager()
    async with Case(manager) as case:
        for _ in range(10):
            for spelling in SPELLINGS:
                # Another object each time.
                async with case.pool.connection(''.join(spelling)):
                    await case.pool.get_endpoint_pool_size(spelling)
        assert sorted(manager.normalized) == sorted(SPELLINGS)


@pytest.mark.parametrize(('endpoint', 'error', 'message'), [
    ('wrong', ValueError, 'no endpoint'),
    ('unhashable', TypeError, r"normalize\(\) returned \['unhashable'\] of type list"),
])  # fmt: skip
async def test_an_error_of_normalize_reaches_who_called_and_changes_nothing(
    endpoint: str, error: type[Exception], message: str
) -> None:
    async with Case(SpellingManager(), max_size=1) as case:
        conn = await case.pool.acquire(SPELLINGS[0])
        before = case.stats
        with pytest.raises(error, match=message):
            await case.pool.acquire(endpoint)
        with pytest.raises(error, match=message):
            await case.pool.release(conn, endpoint)
        with pytest.raises(error, match=message):
            await case.pool.get_endpoint_pool_size(endpoint)
        with pytest.raises(error, match=message):
            await use(case.pool, endpoint, AssertionError('it was entered'))
        assert case.stats == before
        await case.pool.release(conn, SPELLINGS[1])


async def test_a_manager_without_normalize_has_one_endpoint_for_each_object() -> None:
    for manager in (Manager(), HookedManager()):
        async with Case(manager) as case:
            for spelling in SPELLINGS:
                assert (await case.cycle(spelling)) == f'{spelling}1'
            assert case.pool._core.normalize is None
            assert manager.normalize(SPELLINGS[1]) is SPELLINGS[1]


async def test_normalize_of_a_manager_that_knows_nothing_of_gcpool_is_found() -> None:
    manager: Any = Duck()
    manager.normalize = str.lower
    pool: ConnectionPool[str, Any] = ConnectionPool(manager)
    conn = await pool.acquire('A')
    await pool.release(conn, 'a')
    assert await pool.get_endpoint_pool_size('A') == 1
    await pool.close()


async def test_a_wrapper_that_passes_everything_on_passes_normalize_on() -> None:
    class Wrapper:
        def __init__(self, manager: Any) -> None:
            self._manager = manager

        def __getattr__(self, name: str) -> Any:
            return getattr(self._manager, name)

    wrapper: Any = Wrapper(SpellingManager())
    pool: ConnectionPool[str, Any] = ConnectionPool(wrapper)
    for spelling in SPELLINGS:
        async with pool.connection(spelling) as conn:
            assert conn.name == 'http://a/1'
    await pool.close()


async def test_the_automatic_normalize_of_a_mock_is_ignored() -> None:
    for manager in (Mock(spec=BaseConnectionManager), Mock()):
        pool: ConnectionPool[str, Any] = ConnectionPool(manager)
        assert pool._core.normalize is None


async def test_an_invalid_normalize_is_refused() -> None:
    for wrong, message in ((sleep, 'is a coroutine function: expected a plain one'), ('lower', 'expected a method')):
        manager: Any = Duck()
        manager.normalize = wrong
        with pytest.raises(TypeError, match=message):
            ConnectionPool(manager)
