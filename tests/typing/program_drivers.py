"""A program for the managers of the drivers as mypy and pyright see it: `make lint` checks it.

It is not run. Where a checker is to complain a comment says so: without the complaint the comment is an error itself.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=error

from typing import TYPE_CHECKING, Any

from gcpool import asyncio as pools_of_asyncio
from gcpool import threading as pools_of_threading

if TYPE_CHECKING:
    import http.client
    import sqlite3
    from collections.abc import Awaitable, Callable, Hashable, Mapping
    from pathlib import Path

    import aiosqlite as aiosqlite_driver
    import asyncpg as asyncpg_driver
    import psycopg as psycopg_driver
    import psycopg2.extensions
    import psycopg_pool
    import pymysql.connections as pymysql_connections
    import redis as redis_driver
    import redis.asyncio as redis_asyncio
    from psycopg.rows import DictRow, TupleRow
    from typing_extensions import assert_type

    from gcpool import psycopg_pool as drop_in
    from gcpool.contrib import aiosqlite, asyncmy, asyncpg, psycopg, pymysql, redis
    from gcpool.contrib import http as http_manager
    from gcpool.contrib import psycopg2 as psycopg2_manager
    from gcpool.contrib import sqlite3 as sqlite3_manager

    ThreadPool = pools_of_threading.ConnectionPool
    TaskPool = pools_of_asyncio.ConnectionPool

    # ---- psycopg ---------------------------------------------------------------------------------------------------

    class Dicts(psycopg_driver.Connection[DictRow]):
        """A connection of the program's own."""

    class AsyncDicts(psycopg_driver.AsyncConnection[DictRow]):
        """The same for asyncio."""

    def use_psycopg(conninfo: str) -> None:
        pool = ThreadPool(psycopg.ConnectionManager({'main': conninfo}))
        assert_type(pool, ThreadPool[str, psycopg_driver.Connection[TupleRow]])
        with pool.connection('main') as conn:
            assert_type(conn, psycopg_driver.Connection[TupleRow])
            assert_type(conn.execute('SELECT 1').fetchone(), TupleRow | None)
            conn.fetchrow('SELECT 1')  # type: ignore[attr-defined]
        pool.acquire(7)  # type: ignore[arg-type]
        with ThreadPool(psycopg.ConnectionManager({7: conninfo}, connection_class=Dicts)).connection(7) as dicts:
            assert_type(dicts, Dicts)
            assert_type(dicts.execute('SELECT 1').fetchone(), DictRow | None)
        one_place = ThreadPool(psycopg.ConnectionManager('dbname=main'))
        assert_type(one_place, ThreadPool[str, psycopg_driver.Connection[TupleRow]])
        psycopg.ConnectionManager('dbname=main', connection_class=Dicts)
        psycopg.ConnectionManager({'host': 'localhost', 'port': 5432})
        psycopg.AsyncConnectionManager({'host': 'localhost', 'port': 5432}, connection_class=AsyncDicts)
        psycopg.ConnectionManager(7)  # type: ignore[call-overload]
        psycopg.ConnectionManager({'main': conninfo}, connection_class=AsyncDicts)  # type: ignore[type-var]
        ThreadPool(psycopg.AsyncConnectionManager({'main': conninfo}))  # type: ignore[arg-type]

    async def use_psycopg_in_a_task(conninfo: 'Callable[[str], Awaitable[str]]') -> None:
        pool = TaskPool(psycopg.AsyncConnectionManager(conninfo))
        assert_type(pool, TaskPool[str, psycopg_driver.AsyncConnection[TupleRow]])
        async with pool.connection('main') as conn:
            assert_type(conn, psycopg_driver.AsyncConnection[TupleRow])
            assert_type(await (await conn.execute('SELECT 1')).fetchone(), TupleRow | None)
        await pool.acquire(7)  # type: ignore[arg-type]
        own = TaskPool(psycopg.AsyncConnectionManager(conninfo, connection_class=AsyncDicts))
        async with own.connection('main') as dicts:
            assert_type(dicts, AsyncDicts)
        psycopg.ConnectionManager(conninfo)  # type: ignore[arg-type]
        TaskPool(psycopg.ConnectionManager({'main': ''}))  # type: ignore[arg-type]

    # ---- psycopg2 --------------------------------------------------------------------------------------------------

    def use_psycopg2(params: 'Mapping[str, Any]') -> None:
        pool = ThreadPool(psycopg2_manager.DbConnectionManager({'main': params, 'other': 'dbname=other'}))
        assert_type(pool, ThreadPool[str, psycopg2.extensions.connection])
        with pool.connection('main') as conn, conn.cursor() as cursor:
            assert_type(conn, psycopg2.extensions.connection)
            assert_type(cursor, psycopg2.extensions.cursor)
            conn.execute('SELECT 1')  # type: ignore[attr-defined]
        pool.acquire(7)  # type: ignore[arg-type]
        psycopg2_manager.DbConnectionManager('dbname=main')
        psycopg2_manager.DbConnectionManager({'host': 'localhost', 'port': 5432})
        psycopg2_manager.DbConnectionManager(7)  # type: ignore[arg-type]
        TaskPool(psycopg2_manager.DbConnectionManager({'main': params}))  # type: ignore[arg-type]

    # ---- asyncpg ---------------------------------------------------------------------------------------------------

    class Row(asyncpg_driver.Record):
        """A record of the program's own."""

    async def use_asyncpg(params: 'Mapping[str, Any]') -> None:
        pool = TaskPool(
            asyncpg.DbConnectionManager[asyncpg_driver.Record]({'main': params, 'other': 'postgres:///other'})
        )
        assert_type(pool, TaskPool[str, asyncpg_driver.Connection[asyncpg_driver.Record]])
        async with pool.connection('main') as conn:
            assert_type(conn, asyncpg_driver.Connection[asyncpg_driver.Record])
            assert_type(await conn.fetchrow('SELECT 1'), asyncpg_driver.Record | None)
            conn.cursor_factory()  # type: ignore[attr-defined]
        async with TaskPool(asyncpg.DbConnectionManager[Row]({'main': params})).connection('main') as rows:
            assert_type(await rows.fetch('SELECT 1'), list[Row])
        await pool.acquire(7)  # type: ignore[arg-type]
        asyncpg.DbConnectionManager[int]({'main': params})  # type: ignore[type-var]
        asyncpg.DbConnectionManager[Row]('postgres:///main')
        asyncpg.DbConnectionManager[Row]({'host': 'localhost', 'port': 5432})
        asyncpg.DbConnectionManager[Row](7)  # type: ignore[arg-type]
        ThreadPool(asyncpg.DbConnectionManager[Row]({'main': params}))  # type: ignore[arg-type]

    # ---- redis -----------------------------------------------------------------------------------------------------

    def use_redis() -> None:
        pool = ThreadPool(redis.RedisConnectionManager({'main': 'redis://localhost'}))
        assert_type(pool, ThreadPool[Hashable, redis.Connection])
        with pool.connection(('main', 0)) as conn:
            assert_type(conn, redis.Connection)
            assert_type(redis.client_of(conn), redis_driver.Redis)
        pool.acquire([])  # type: ignore[arg-type]
        redis.RedisConnectionManager('redis://localhost')
        redis.AsyncRedisConnectionManager({'host': 'localhost', 'port': 6379})
        redis.RedisConnectionManager(7)  # type: ignore[arg-type]
        ThreadPool(redis.AsyncRedisConnectionManager({}))  # type: ignore[arg-type]

    async def use_redis_in_a_task() -> None:
        pool = TaskPool(redis.AsyncRedisConnectionManager({'main': {'host': 'localhost'}}))
        assert_type(pool, TaskPool[Hashable, redis.AsyncConnection])
        async with pool.connection('main') as conn:
            assert_type(conn, redis.AsyncConnection)
            assert_type(redis.async_client_of(conn), redis_asyncio.Redis)
            redis.client_of(conn)  # type: ignore[arg-type]
        await pool.acquire([])  # type: ignore[arg-type]
        TaskPool(redis.RedisConnectionManager({}))  # type: ignore[arg-type]

    # ---- MySQL and MariaDB -----------------------------------------------------------------------------------------

    def use_pymysql() -> None:
        pool = ThreadPool(pymysql.DbConnectionManager({'main': {'host': 'localhost'}}))
        assert_type(pool, ThreadPool[str, pymysql.Connection])
        with pool.connection('main') as conn:
            assert_type(conn, pymysql.Connection)
            base: pymysql_connections.Connection[Any] = conn
            assert_type(base.host_info, str)
            conn.execute('SELECT 1')  # type: ignore[attr-defined]
        pool.acquire(7)  # type: ignore[arg-type]
        pymysql.DbConnectionManager({'host': 'localhost', 'port': 3306, 'user': 'app'})
        settings: dict[str, Any] = {'host': 'localhost', 'init_command': 'SET time_zone = UTC'}
        pymysql.DbConnectionManager(settings)
        pymysql.DbConnectionManager(7)  # type: ignore[arg-type]
        TaskPool(pymysql.DbConnectionManager({}))  # type: ignore[arg-type]

    async def use_asyncmy(params: 'Callable[[str], Awaitable[Mapping[str, Any]]]') -> None:
        pool = TaskPool(asyncmy.DbConnectionManager(params))
        assert_type(pool, TaskPool[str, asyncmy.Connection])
        async with pool.connection('main') as conn:
            assert_type(conn, asyncmy.Connection)
        await pool.acquire(7)  # type: ignore[arg-type]
        asyncmy.DbConnectionManager({'host': 'localhost', 'port': 3306, 'user': 'app'})
        asyncmy.DbConnectionManager(7)  # type: ignore[arg-type]
        ThreadPool(asyncmy.DbConnectionManager(params))  # type: ignore[arg-type]

    # ---- the drop-in for psycopg_pool ------------------------------------------------------------------------------

    def use_psycopg_pool(connection_class: type[psycopg_driver.Connection[dict[str, int]]]) -> None:
        with drop_in.ConnectionPool('', connection_class=connection_class, min_size=1) as pool:
            assert_type(pool, drop_in.ConnectionPool[psycopg_driver.Connection[dict[str, int]]])
            with pool.connection() as conn:
                assert_type(conn, psycopg_driver.Connection[dict[str, int]])
            assert_type(pool.getconn(), psycopg_driver.Connection[dict[str, int]])
            assert_type(pool.get_stats(), dict[str, int])
            original: psycopg_pool.ConnectionPool[Any] = pool
            original.putconn(conn)
        drop_in.ConnectionPool('', minimum=1)  # type: ignore[call-arg]

    async def use_async_psycopg_pool(connection_class: type[AsyncDicts]) -> None:
        async with drop_in.AsyncNullConnectionPool('', connection_class=connection_class, max_size=1) as pool:
            async with pool.connection() as conn:
                assert_type(conn, AsyncDicts)
            await pool.putconn(5)  # type: ignore[arg-type]

    # ---- SQLite ----------------------------------------------------------------------------------------------------

    def use_sqlite3(path: 'Path') -> None:
        pool = ThreadPool(sqlite3_manager.SqliteConnectionManager(pragmas={'journal_mode': 'wal'}))
        assert_type(pool, ThreadPool[str | Path, sqlite3_manager.PooledConnection])
        with pool.connection(path) as conn:
            assert_type(conn, sqlite3_manager.PooledConnection)
            base: sqlite3.Connection = conn
            assert_type(base.execute('SELECT 1'), sqlite3.Cursor)
            conn.fetchone()  # type: ignore[attr-defined]
        pool.acquire(b'database')  # type: ignore[arg-type]
        sqlite3_manager.SqliteConnectionManager(isolation_level='ALWAYS')  # type: ignore[arg-type]
        TaskPool(sqlite3_manager.SqliteConnectionManager())  # type: ignore[arg-type]

    async def use_aiosqlite(path: 'Path') -> None:
        pool = TaskPool(aiosqlite.SqliteConnectionManager())
        assert_type(pool, TaskPool[str | Path, aiosqlite.Connection])
        async with pool.connection(path) as conn:
            assert_type(conn, aiosqlite.Connection)
            base: aiosqlite_driver.Connection = conn
            assert_type(await base.execute('SELECT 1'), aiosqlite_driver.Cursor)
        await pool.acquire(b'database')  # type: ignore[arg-type]
        aiosqlite.SqliteConnectionManager(isolation_level='ALWAYS')  # type: ignore[arg-type]
        ThreadPool(aiosqlite.SqliteConnectionManager())  # type: ignore[arg-type]

    # ---- HTTP ------------------------------------------------------------------------------------------------------

    def use_http() -> None:
        pool = ThreadPool(http_manager.HttpConnectionManager(timeout=5))
        assert_type(pool, ThreadPool[str | tuple[str, str, int], http.client.HTTPConnection])
        with pool.connection(('https', 'localhost', 443)) as conn:
            assert_type(conn, http.client.HTTPConnection)
            assert_type(conn.getresponse(), http.client.HTTPResponse)
        pool.acquire(('localhost', 80))  # type: ignore[arg-type]
        http_manager.HttpConnectionManager(ssl_context=True)  # type: ignore[arg-type]
        TaskPool(http_manager.HttpConnectionManager())  # type: ignore[arg-type]
