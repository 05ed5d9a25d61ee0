"""A user's own time limit around a request, with a server that answers nothing any more, as docs/recovery.md has it."""

import asyncio
import importlib
import time
from typing import Any

import pytest

from gcpool.asyncio import ConnectionPool
from tests.outages.conftest import clean
from tests.outages.drivers import DRIVERS, LONG, Driver
from tests.outages.load import AsyncClient
from tests.outages.proxy import Proxy

LIMIT = 0.5
MARGIN = 0.5


@pytest.mark.outage
@pytest.mark.parametrize(
    'driver', [driver for driver in DRIVERS if issubclass(driver.client_class, AsyncClient)], ids=repr
)
@pytest.mark.parametrize('around', ['the request', 'the block'])
def test_it_holds(request: pytest.FixtureRequest, driver: Driver, around: str) -> None:
    pytest.importorskip(driver.requires)
    backend = clean(request.getfixturevalue('backends')(driver.backend, 0))
    manager_class = getattr(importlib.import_module(driver.module), driver.manager_class)

    async def main(proxy: Proxy) -> float:
        targets = {'main': ((proxy.host, proxy.port), LONG)}
        pool = ConnectionPool[str, Any](manager_class(**driver.arguments(targets, False, LONG)), max_size=1)

        async def use(limit: float | None) -> None:
            async with pool.connection('main', timeout=LONG) as conn:
                proxy.holds()
                await asyncio.wait_for(driver.request(conn), limit)

        async with pool.connection('main', timeout=LONG) as conn:
            await driver.request(conn)
        began = time.monotonic()
        using = use(LIMIT) if around == 'the request' else asyncio.wait_for(use(None), LIMIT)
        with pytest.raises((TimeoutError, asyncio.TimeoutError)):
            await using
        taken = time.monotonic() - began
        await pool.close(LONG)
        assert pool.get_size() == 0
        return taken

    with Proxy(backend.host, backend.port) as proxy:
        taken = asyncio.run(main(proxy))
        proxy.passes()
    print(f'{driver.name}: a limit of {LIMIT} s around {around} ended after {taken:.2f} s')
    assert LIMIT <= taken < LIMIT + MARGIN
