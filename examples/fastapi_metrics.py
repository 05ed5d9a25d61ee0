"""A FastAPI service for Prometheus and a readiness probe: /metrics and /healthz
take no connection.

Uses SQLite: pip install fastapi uvicorn "gcpool[aiosqlite,prometheus]", then
GCPOOL_MONITOR=1 uvicorn --app-dir examples fastapi_metrics:app
curl http://127.0.0.1:8000/metrics
With GCPOOL_MONITOR=1, this shows the same in another terminal:
pip install "gcpool[monitor]", then
python -m gcpool top
"""

import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from gcpool.asyncio import ConnectionPool
from gcpool.contrib.aiosqlite import SqliteConnectionManager
from gcpool.contrib.prometheus import PoolCollector

DATABASE = os.environ.get('GCPOOL_EXAMPLE_DATABASE') or os.path.join(
    tempfile.gettempdir(), 'visits.db'
)

# All pools of the process, now and later. It reads them only when /metrics is
# requested.
PoolCollector()


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Build the pool in the event loop that uses it. With leak_threshold,
    leaks are counted, and top shows holders.
    """
    async with ConnectionPool(
        SqliteConnectionManager(),
        name='visits',
        max_size=4,
        acquire_timeout=5.0,
        leak_threshold=30.0,
    ) as pool:
        async with pool.connection(DATABASE) as conn:
            await conn.execute(
                'CREATE TABLE IF NOT EXISTS visits'
                ' (name TEXT PRIMARY KEY, count INTEGER NOT NULL)'
            )
            await conn.commit()
        app.state.pool = pool
        yield


app = FastAPI(lifespan=lifespan)


@app.post('/visits/{name}')
async def visit(name: str, request: Request) -> int:
    """Count a visit."""
    async with request.app.state.pool.connection(DATABASE) as conn:
        cursor = await conn.execute(
            'INSERT INTO visits VALUES (?, 1) ON CONFLICT (name)'
            ' DO UPDATE SET count = count + 1 RETURNING count',
            (name,),
        )
        (count,) = await cursor.fetchone()
        await conn.commit()
    return int(count)


@app.get('/metrics')
def metrics() -> Response:
    """Answer Prometheus. Not a coroutine function: FastAPI runs it in a thread,
    and requests continue meanwhile.
    """
    return Response(
        generate_latest(), headers={'Content-Type': CONTENT_TYPE_LATEST}
    )


@app.get('/healthz')
async def ready(request: Request) -> JSONResponse:
    """Answer a readiness probe: at once, also when every connection is in
    use.
    """
    health = request.app.state.pool.health()
    return JSONResponse(
        health._asdict(),
        status_code=503 if health.status == 'exhausted' else 200,
    )
