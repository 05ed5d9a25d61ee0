"""aiosql: queries that stand in SQL files, on connections of a pool."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.users.programs.common import database, expect_all_returned, expect_all_returned_async, get_pools

pools: Any = get_pools()

import aiosql  # noqa: E402

CLIENTS = 24

SQL = """
-- name: create_schema()#
CREATE TABLE visits (id serial PRIMARY KEY, name text NOT NULL);

-- name: add_visit(name)<!
INSERT INTO visits (name) VALUES (:name) RETURNING id;

-- name: add_visits(name)*!
INSERT INTO visits (name) VALUES (:name);

-- name: names()
SELECT name FROM visits ORDER BY id;

-- name: how_many()$
SELECT count(*) FROM visits;

-- name: forget()!
DELETE FROM visits;
"""


def in_threads() -> None:
    queries: Any = aiosql.from_str(SQL, 'psycopg')
    with pools.ConnectionPool(database(), min_size=1, max_size=4) as pool:
        with pool.connection() as conn:
            queries.create_schema(conn)

        def visit(number: int) -> int:
            with pool.connection() as conn:
                visit_id = queries.add_visit(conn, name=f'guest {number}')
            assert isinstance(visit_id, int), visit_id
            return visit_id

        with ThreadPoolExecutor(CLIENTS) as threads:
            assert len(set(threads.map(visit, range(CLIENTS)))) == CLIENTS
        try:
            with pool.connection() as conn:
                queries.add_visits(conn, [{'name': 'ann'}, {'name': 'bob'}])
                raise KeyError
        except KeyError:
            pass
        with pool.connection() as conn:
            # What has failed was rolled back, and all the others committed.
            assert queries.how_many(conn) == CLIENTS
            assert {name for (name,) in queries.names(conn)} == {f'guest {number}' for number in range(CLIENTS)}
            assert queries.forget(conn) == CLIENTS
        expect_all_returned(pool)


async def in_tasks() -> None:
    queries: Any = aiosql.from_str(SQL, 'apsycopg')
    async with pools.AsyncConnectionPool(database(), min_size=1, max_size=4, open=False) as pool:

        async def visit(number: int) -> None:
            async with pool.connection() as conn:
                await queries.add_visit(conn, name=f'guest {number}')

        await asyncio.gather(*map(visit, range(CLIENTS)))
        async with pool.connection() as conn:
            assert await queries.how_many(conn) == CLIENTS
        await expect_all_returned_async(pool)


def main() -> None:
    in_threads()
    asyncio.run(in_tasks())
