"""A FastAPI service whose requests share a few PostgreSQL connections: the pool lives as long as the application.

Needs a server: pip install fastapi uvicorn "gcpool[asyncpg]", and then
GCPOOL_EXAMPLE_DSN=postgresql://user:password@localhost/database uvicorn --app-dir examples fastapi_service:app
curl -X POST http://127.0.0.1:8000/visits/ann
"""

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeAlias

import asyncpg
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse

from gcpool.asyncio import ConnectionPool
from gcpool.contrib.asyncpg import DbConnectionManager, DbEndpoint
from gcpool.exceptions import ConnectError, PoolTimeout, UnknownEndpoint

Connection: TypeAlias = 'asyncpg.Connection[asyncpg.Record]'

logger = logging.getLogger(__name__)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Make the pool in the event loop that uses it, and close it when the last request is answered."""
    manager = DbConnectionManager[asyncpg.Record]({'primary': {'dsn': os.environ['GCPOOL_EXAMPLE_DSN']}})
    pool = ConnectionPool[DbEndpoint, Connection](
        manager, max_size=4, acquire_timeout=5.0, idle_timeout=300.0, background_collector=True
    )
    try:
        async with pool.connection('primary') as conn:
            await conn.execute('CREATE TABLE IF NOT EXISTS visits (name TEXT PRIMARY KEY, count INTEGER NOT NULL)')
        app.state.pool = pool
        yield
    finally:
        await pool.close(timeout=10.0)


app = FastAPI(lifespan=lifespan)


async def connection(request: Request) -> AsyncIterator[Connection]:
    """Lend a connection to a request. What the request raises comes through here, so that the pool hears of it."""
    async with request.app.state.pool.connection('primary') as conn:
        yield conn


# The scope gives the connection back before the answer is sent: a slow client does not keep it.
PooledConnection = Annotated[Any, Depends(connection, scope='function')]


@app.exception_handler(PoolTimeout)
@app.exception_handler(ConnectError)
async def unavailable(_request: Request, exc: Exception) -> JSONResponse:
    """Answer that there is no connection to be had now. Why is for the log: the message names the server."""
    if isinstance(exc, UnknownEndpoint):
        # A fault of the program, which does not pass.
        raise exc
    logger.warning('a request is refused: %s', exc)
    return JSONResponse({'error': 'no connection to the database'}, status_code=503, headers={'Retry-After': '1'})


@app.post('/visits/{name}')
async def visit(name: str, conn: PooledConnection) -> int:
    """Count a visit."""
    count: int = await conn.fetchval(
        'INSERT INTO visits VALUES ($1, 1) ON CONFLICT (name) DO UPDATE SET count = visits.count + 1 RETURNING count',
        name,
    )
    return count


@app.get('/visits/{name}')
async def visits(name: str, conn: PooledConnection) -> int:
    """How many visits there were."""
    return await conn.fetchval('SELECT count FROM visits WHERE name = $1', name) or 0


@app.get('/pool')
async def pool_stats(request: Request) -> dict[str, int]:
    """What the pool says of itself."""
    stats: dict[str, int] = request.app.state.pool.get_stats()
    return stats
