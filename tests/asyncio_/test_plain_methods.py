"""A plain method where a coroutine function is due: a TypeError names it, and no connection is lost.

It cannot be refused when the pool is built: a plain method may return an awaitable.
"""

import logging
from typing import Any

import pytest

from tests.asyncio_.runtime import until
from tests.pool.support import Case, HookedManager
from tests.support import Connection


def plain(name: str, answer: object) -> HookedManager:
    """A manager one of whose methods is plain."""

    def method(self: HookedManager, endpoint: str, conn: Connection | None = None) -> object:
        return answer

    manager: HookedManager = type('PlainManager', (HookedManager,), {name: method})()
    return manager


@pytest.mark.parametrize('name', ['create', 'check_aliveness', 'on_acquire', 'on_release'])
@pytest.mark.parametrize('answer', [None, True])
async def test_it_is_named(name: str, answer: object) -> None:
    expected = rf'^{name}\(\) of <.*PlainManager object .*> returned {answer}: expected an awaitable$'
    async with Case(plain(name, answer)) as case:
        if name == 'check_aliveness':
            # A new connection is not checked.
            await case.cycle('a')
        with pytest.raises(TypeError, match=expected):
            await case.cycle('a')
        assert case.stats['in_use'] == 0


async def test_a_plain_dispose_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    manager: Any = plain('dispose', None)
    with caplog.at_level(logging.ERROR):
        case = Case(manager)
        await case.cycle('a')
        await case.pool.close()
    assert case.pool.get_size() == 0
    assert 'returned None: expected an awaitable' in caplog.text
    assert 'dispose() of ' in caplog.text


@pytest.mark.parametrize('in_background', [False, True], ids=['acquire', 'background'])
async def test_a_plain_on_connection_dead_is_named(in_background: bool, caplog: pytest.LogCaptureFixture) -> None:
    async with Case(plain('on_connection_dead', None)) as case:
        await case.cycle('a')
        case.manager.script('check_aliveness', False)
        if in_background:
            assert await case.pool.check() == 1
            await until(lambda: 'on_connection_dead() of ' in caplog.text)
            assert 'returned None: expected an awaitable' in caplog.text
        else:
            with pytest.raises(TypeError, match=r'^on_connection_dead\(\) of .* returned None: expected an awaitable$'):
                await case.pool.acquire('a')


@pytest.mark.parametrize('in_background', [False, True], ids=['acquire', 'background'])
async def test_a_create_that_returns_a_coroutine_twice_over_is_named(in_background: bool) -> None:
    async def connect() -> None:
        """A driver's own, that nobody awaits."""

    async with Case(create_in_background=in_background) as case:
        case.manager.script('create', connect())
        with pytest.raises(TypeError, match=r'^create\(\) of .* returned <coroutine .*>: expected a connection$'):
            await case.pool.acquire('a')
        assert case.pool.get_size() == 0
