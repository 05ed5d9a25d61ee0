"""A FastAPI service whose pool lives as long as it does; each request has a connection by a dependency with yield."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.responses import StreamingResponse

from tests.users.programs.common import database, expect_all_returned_async, get_pools

pools: Any = get_pools()

REQUESTS = 40


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with pools.AsyncConnectionPool(database(), min_size=1, max_size=4, open=False) as pool:
        app.state.pool = pool
        async with pool.connection() as conn:
            await conn.execute('CREATE TABLE visits (name text PRIMARY KEY, n integer NOT NULL)')
        yield


app = FastAPI(lifespan=lifespan)


async def connection() -> AsyncIterator[Any]:
    async with app.state.pool.connection() as conn:
        yield conn


CONNECTION = Depends(connection)


@app.post('/visits/{name}')
async def visit(name: str, conn: Any = CONNECTION) -> dict[str, int]:
    cursor = await conn.execute(
        'INSERT INTO visits VALUES (%s, 1) ON CONFLICT (name) DO UPDATE SET n = visits.n + 1 RETURNING n', [name]
    )
    (number,) = await cursor.fetchone()
    return {'visits': number}


@app.post('/fails/{name}')
async def fail(name: str, conn: Any = CONNECTION) -> None:
    await conn.execute('UPDATE visits SET n = 0')
    raise KeyError(name)


@app.post('/streams/{name}')
async def stream(name: str, conn: Any = CONNECTION) -> StreamingResponse:
    async def rows() -> AsyncIterator[str]:
        async for (number,) in await conn.execute('SELECT n FROM visits WHERE name = %s', [name]):
            # The dependency ends after the response: its connection is still out.
            stats = app.state.pool.get_stats()
            yield json.dumps({'visits': number, 'out': stats['pool_size'] - stats['pool_available']})

    return StreamingResponse(rows())


async def ask(path: str) -> Any:
    """Send a request as a server does; what it answers."""
    sent: list[MutableMapping[str, Any]] = []
    received = iter([{'type': 'http.request', 'body': b''}])

    async def receive() -> MutableMapping[str, Any]:
        for message in received:
            return message
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    scope: dict[str, Any] = {'type': 'http', 'method': 'POST', 'path': path, 'headers': [], 'query_string': b''}
    await app({**scope, 'http_version': '1.1'}, receive, send)
    assert sent[0]['status'] == 200, sent
    return json.loads(b''.join(message.get('body', b'') for message in sent[1:]))


async def serve() -> None:
    async with app.router.lifespan_context(app):
        pool = app.state.pool
        answers = await asyncio.gather(*(ask('/visits/ann') for _ in range(REQUESTS)))
        # Each has committed before the next one counted.
        assert sorted(answer['visits'] for answer in answers) == list(range(1, REQUESTS + 1))
        with contextlib.suppress(KeyError):
            await ask('/fails/ann')
        # Also the pool has made all that it grows by.
        await expect_all_returned_async(pool)
        assert await ask('/streams/ann') == {'visits': REQUESTS, 'out': 1}
        await expect_all_returned_async(pool)
    assert pool.closed


def main() -> None:
    asyncio.run(serve())
