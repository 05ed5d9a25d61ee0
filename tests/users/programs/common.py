"""What the programs share: how they get gcpool's pool, and how they end."""

import asyncio
import sys
import time
from types import ModuleType
from typing import Any

import gcpool.psycopg_pool
from tests.support import PATIENCE

TRIES = 3000


def get_pools() -> ModuleType:
    """The module that the program takes its pools from. To be called before anything imports psycopg_pool."""
    if is_installed():
        gcpool.psycopg_pool.install()
        import psycopg_pool

        assert psycopg_pool.ConnectionPool.__module__.startswith('gcpool.')
        return psycopg_pool
    return gcpool.psycopg_pool


def is_installed() -> bool:
    """Whether whoever imports psycopg_pool gets gcpool's pools."""
    return sys.argv[2] == 'install'


def database() -> str:
    """Where the database is."""
    return sys.argv[3]


def expect_all_returned(pool: Any) -> None:
    """Wait until nobody has a connection of the pool for threads any more, or is making one for it."""
    for _ in range(TRIES):
        if is_at_rest(pool):
            return
        time.sleep(PATIENCE / TRIES)
    raise AssertionError(pool.get_stats())


async def expect_all_returned_async(pool: Any) -> None:
    """The same for a pool on asyncio."""
    for _ in range(TRIES):
        if is_at_rest(pool):
            return
        await asyncio.sleep(PATIENCE / TRIES)
    raise AssertionError(pool.get_stats())


def is_at_rest(pool: Any) -> bool:
    """Whether all connections lie in the pool, which has had no errors. It may still make one that it grows by."""
    assert type(pool).__module__.startswith('gcpool.psycopg_pool'), type(pool)
    stats = pool.get_stats()
    assert (stats['requests_waiting'], stats['requests_errors'], stats['returns_bad']) == (0, 0, 0), stats
    return bool(stats['pool_available'] == stats['pool_size'])
