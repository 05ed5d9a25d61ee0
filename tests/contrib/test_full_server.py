"""A role that may have as many sessions as the pool has connections: no refusal reaches a user, however often the pool
closes connections and connects again.
"""

import asyncio
import itertools
import os
from collections.abc import Iterator
from typing import Any

import pytest

import gcpool.asyncio
import gcpool.threading
from gcpool.exceptions import DiscardConnection
from tests.contrib.servers import PATIENCE, PostgresServer
from tests.threads.runtime import Job, spawn

MAX_SIZE = 4
WORKERS = 12
CYCLES = 100 if os.environ.get('GCPOOL_QUICK') == '1' else 1000
# Beside others, who have all sessions but this many.
LEFT = 2

pytestmark = pytest.mark.postgres

modes = pytest.mark.parametrize('in_background', [False, True], ids=['by acquires', 'in the background'])
# Whether another program has some of the sessions: then the server refuses for sure.
others = pytest.mark.parametrize('foreign', [0, MAX_SIZE - LEFT], ids=['alone', 'beside others'])


@pytest.fixture
def limited(postgres: PostgresServer) -> Iterator[PostgresServer]:
    """A server with a role ``few_sessions``, which may have MAX_SIZE sessions."""
    postgres.query(f"CREATE ROLE few_sessions LOGIN CONNECTION LIMIT {MAX_SIZE} PASSWORD '{postgres.password}'")
    try:
        yield postgres
    finally:
        postgres.query('DROP ROLE few_sessions')


def options(in_background: bool) -> dict[str, Any]:
    return {
        'max_size': MAX_SIZE,
        'acquire_timeout': PATIENCE,
        'wait_when_full': True,
        'create_in_background': in_background,
        'max_connecting': 0,
    }


def cycles_for(foreign: int, name: str = '') -> int:
    """How many cycles there are to be. Each has to wait for the pauses if others have the sessions.

    The drivers differ in how they tell that the server is full: asyncpg needs no thousand cycles for that.
    """
    return CYCLES // 4 if foreign or name.startswith('asyncpg.') else CYCLES


def assert_served(stats: dict[str, int], refusals: int, foreign: int, name: str = '') -> None:
    assert stats['created'] >= cycles_for(foreign, name)
    assert (stats['acquired'], stats['waiting'], stats['timeouts']) == (0, 0, 0)
    assert stats['create_errors'] == refusals
    if foreign:
        assert refusals > 0


@modes
@others
def test_threads_reconnect_all_the_time(
    limited: PostgresServer,
    foreign: int,
    in_background: bool,
    record_property: Any,
) -> None:
    manager_class = find_manager('psycopg.ConnectionManager')
    params = limited.conninfo_params
    cycles = itertools.count(1)

    class Discarding(manager_class):  # type: ignore[misc, valid-type]
        def on_release(self, endpoint: Any, conn: Any) -> None:
            super().on_release(endpoint, conn)
            raise DiscardConnection('it is to be replaced')

        def is_refusal(self, endpoint: Any, exc: BaseException) -> bool:
            refusals.append(super().is_refusal(endpoint, exc))
            return refusals[-1]

    refusals: list[bool] = []
    manager = Discarding({'db': {**params, 'user': 'few_sessions'}})
    pool = gcpool.threading.ConnectionPool[str, Any](manager, **options(in_background))

    def work() -> None:
        while next(cycles) <= cycles_for(foreign):
            with pool.connection('db') as conn, conn.cursor() as cursor:
                cursor.execute('SELECT 1')
                assert cursor.fetchone() == (1,)

    strangers = [manager.create('db') for _ in range(foreign)]
    jobs: list[Job[None]] = [spawn(work) for _ in range(WORKERS)]
    for job in jobs:
        job.result()
    for stranger in strangers:
        manager.dispose('db', stranger)
    stats = pool.get_stats()
    assert pool.close(PATIENCE) == 0
    record_property('refusals', len(refusals))
    assert all(refusals)
    assert_served(stats, len(refusals), foreign)


@modes
@others
@pytest.mark.parametrize('name', ['psycopg.AsyncConnectionManager', 'asyncpg.DbConnectionManager'])
def test_tasks_reconnect_all_the_time(
    limited: PostgresServer,
    name: str,
    foreign: int,
    in_background: bool,
    record_property: Any,
) -> None:
    manager_class = find_manager(name)
    params = limited.conninfo_params if name.startswith('psycopg.') else limited.dsn_params
    cycles = itertools.count(1)

    class Discarding(manager_class):  # type: ignore[misc, valid-type]
        async def on_release(self, endpoint: Any, conn: Any) -> None:
            await super().on_release(endpoint, conn)
            raise DiscardConnection('it is to be replaced')

        def is_refusal(self, endpoint: Any, exc: BaseException) -> bool:
            refusals.append(super().is_refusal(endpoint, exc))
            return refusals[-1]

    refusals: list[bool] = []
    manager = Discarding({'db': {**params, 'user': 'few_sessions'}})

    async def main() -> dict[str, int]:
        pool = gcpool.asyncio.ConnectionPool[str, Any](manager, **options(in_background))

        async def work() -> None:
            while next(cycles) <= cycles_for(foreign, name):
                async with pool.connection('db') as conn:
                    await conn.execute('SELECT 1')

        strangers = [await manager.create('db') for _ in range(foreign)]
        await asyncio.gather(*(work() for _ in range(WORKERS)))
        for stranger in strangers:
            await manager.dispose('db', stranger)
        stats = pool.get_stats()
        assert await pool.close(PATIENCE) == 0
        return stats

    stats = asyncio.run(main())
    record_property('refusals', len(refusals))
    assert all(refusals)
    assert_served(stats, len(refusals), foreign, name)


def find_manager(name: str) -> Any:
    module, _, class_name = name.partition('.')
    return getattr(pytest.importorskip(f'gcpool.contrib.{module}', exc_type=ImportError), class_name)
