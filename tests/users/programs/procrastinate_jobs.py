"""Procrastinate's job queue. It reads private names of the pool, and makes pools of its own.

With ``install()`` it makes them of the classes that it finds in psycopg_pool; without, it is given pools.
"""

import asyncio
from typing import Any

from tests.support import PATIENCE
from tests.users.programs.common import database, expect_all_returned_async, get_pools, is_installed

pools: Any = get_pools()

import procrastinate  # noqa: E402

JOBS = 20
done: list[int] = []


def make_app(connector: Any) -> Any:
    app: Any = procrastinate.App(connector=connector)

    async def add(number: int) -> None:
        done.append(number)

    app.add = app.task(queue='sums', name='add')(add)
    return app


async def work(app: Any, pool: Any) -> None:
    """Have a worker do jobs that were deferred before it, and then those that it is notified of."""
    async with app.open_async(pool):
        own_pool = app.connector.pool
        assert isinstance(own_pool, pools.AsyncConnectionPool)
        await app.run_worker_async(wait=False, listen_notify=False, install_signal_handlers=False)
        assert sorted(done) == list(range(JOBS)), done

        # A worker that is notified has a connection of its own, by the settings of the pool.
        worker = asyncio.create_task(
            app.run_worker_async(fetch_job_polling_interval=60, install_signal_handlers=False, concurrency=4)
        )
        await listening(own_pool)
        await asyncio.gather(*(app.add.defer_async(number=number) for number in range(JOBS, 2 * JOBS)))
        while len(done) < 2 * JOBS:
            assert not worker.done(), worker
            await asyncio.sleep(0.01)
        worker.cancel()
        await asyncio.wait([worker])
        await expect_all_returned_async(own_pool)
    assert own_pool.closed is (pool is None)


async def listening(pool: Any) -> None:
    """Wait until the worker listens to notifications."""
    while True:
        async with pool.connection() as conn:
            cursor = await conn.execute("SELECT count(*) FROM pg_stat_activity WHERE query ILIKE 'LISTEN%'")
            if await cursor.fetchone() != (0,):
                return
        await asyncio.sleep(0.01)


async def defer_and_work() -> None:
    options: dict[str, Any] = {'conninfo': database(), 'min_size': 1, 'max_size': 4}
    app = make_app(procrastinate.PsycopgConnector(**options))
    if is_installed():
        defer_in_threads(app, None)
        await work(app, None)
        # Its way to have no pool.
        done.clear()
        null_options = {**options, 'min_size': 0, 'pool_factory': pools.AsyncNullConnectionPool}
        app = make_app(procrastinate.PsycopgConnector(**null_options))
        defer_in_threads(make_app(procrastinate.SyncPsycopgConnector(**options)), None, schema=False)
        await work(app, None)
        return
    with pools.ConnectionPool(**options) as pool:
        defer_in_threads(make_app(procrastinate.SyncPsycopgConnector()), pool)
        await expect_all_returned_async(pool)
    async with pools.AsyncConnectionPool(**options, open=False) as async_pool:
        await work(app, async_pool)
    # Without install() its check is that of psycopg_pool.
    done.clear()
    app = make_app(procrastinate.PsycopgConnector(**options, pool_factory=pools.AsyncConnectionPool))
    async with app.open_async():
        await asyncio.gather(*(app.add.defer_async(number=number) for number in range(JOBS)))
    await work(app, None)


def defer_in_threads(app: Any, pool: Any, *, schema: bool = True) -> None:
    """Defer jobs by the pool for threads."""
    with app.open(pool):
        if schema:
            app.schema_manager.apply_schema()
        for number in range(JOBS):
            app.add.defer(number=number)
        connector = app.connector.get_sync_connector()
        assert isinstance(connector.pool, pools.ConnectionPool)
        assert app.check_connection()


def main() -> None:
    asyncio.run(asyncio.wait_for(defer_and_work(), PATIENCE))
