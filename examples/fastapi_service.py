"""A FastAPI service whose requests share a few PostgreSQL connections: the pool
lives as long as the application.

Needs a server: pip install fastapi uvicorn "gcpool[asyncpg]", then
export GCPOOL_EXAMPLE_DSN=postgresql://user:password@localhost/database
uvicorn --app-dir examples fastapi_service:app
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
from gcpool.contrib.asyncpg import DbConnectionManager
from gcpool.exceptions import ConnectError, PoolTimeout, UnknownEndpoint

Connection: TypeAlias = 'asyncpg.Connection[asyncpg.Record]'

logger = logging.getLogger(__name__)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Build the pool in the event loop that uses it, and close it after the
    last request is answered.
    """
    manager = DbConnectionManager[asyncpg.Record](
        {'primary': {'dsn': os.environ['GCPOOL_EXAMPLE_DSN']}}
    )
    pool = ConnectionPool(
        manager,
        max_size=4,
        acquire_timeout=5.0,
        idle_timeout=300.0,
        background_collector=True,
    )
    try:
        async with pool.connection('primary') as conn:
            await conn.execute(
                'CREATE TABLE IF NOT EXISTS visits'
                ' (name TEXT PRIMARY KEY, count INTEGER NOT NULL)'
            )
        app.state.pool = pool
        yield
    finally:
        await pool.close(timeout=10.0)


app = FastAPI(lifespan=lifespan)


async def connection(request: Request) -> AsyncIterator[Connection]:
    """Provide a connection for a request. The request's exceptions pass
    through here, so that the pool sees them.
    """
    async with request.app.state.pool.connection('primary') as conn:
        yield conn


# This scope returns the connection before the response is sent, so that a slow
# client does not keep it.
PooledConnection = Annotated[Any, Depends(connection, scope='function')]


@app.exception_handler(PoolTimeout)
@app.exception_handler(ConnectError)
async def unavailable(_request: Request, exc: Exception) -> JSONResponse:
    """Answer that no connection is available now. Only the log says why,
    because the message names the server.
    """
    if isinstance(exc, UnknownEndpoint):
        # A program error: retrying would not help.
        raise exc
    logger.warning('request refused: %s', exc)
    return JSONResponse(
        {'error': 'no connection to the database'},
        status_code=503,
        headers={'Retry-After': '1'},
    )


@app.post('/visits/{name}')
async def visit(name: str, conn: PooledConnection) -> int:
    """Count a visit."""
    count: int = await conn.fetchval(
        'INSERT INTO visits VALUES ($1, 1) ON CONFLICT (name)'
        ' DO UPDATE SET count = visits.count + 1 RETURNING count',
        name,
    )
    return count


@app.get('/visits/{name}')
async def visits(name: str, conn: PooledConnection) -> int:
    """Return the number of visits."""
    return (
        await conn.fetchval('SELECT count FROM visits WHERE name = $1', name)
        or 0
    )


@app.get('/pool')
async def pool_stats(request: Request) -> dict[str, int]:
    """Return the pool's statistics."""
    stats: dict[str, int] = request.app.state.pool.get_stats()
    return stats
