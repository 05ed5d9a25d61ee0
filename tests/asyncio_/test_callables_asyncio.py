"""Pools for asyncio that are made of functions: coroutine functions where they are due."""

import functools
from typing import Any

import pytest

from gcpool.asyncio import ConnectionPool


class Link:
    """A connection."""

    def __init__(self) -> None:
        self.calls: list[str] = []


class Closing(Link):
    def close(self) -> None:
        self.calls.append('close')


class ClosingLater(Link):
    async def close(self) -> None:
        self.calls.append('close')


class ClosingBoth(Closing):
    async def aclose(self) -> None:
        self.calls.append('aclose')


@pytest.mark.parametrize(('kind', 'expected'), [(Closing, 'close'), (ClosingLater, 'close'), (ClosingBoth, 'aclose')])
async def test_a_connection_is_closed_by_its_own_method(kind: type[Link], expected: str) -> None:
    async def create(endpoint: str) -> Link:
        return kind()

    pool = ConnectionPool.from_callables(create)
    conn = await pool.acquire('a')
    await pool.discard(conn)
    assert conn.calls == [expected]


@pytest.mark.parametrize('name', ['create', 'dispose', 'check_aliveness', 'on_acquire', 'on_release'])
def test_a_plain_function_is_refused(name: str) -> None:
    async def create(endpoint: str) -> Link:
        return Link()

    def plain(*args: Any) -> None:
        pass

    class Plain:
        def __init__(self, *args: Any) -> None:
            pass

        def method(self, *args: Any) -> None:
            pass

    for function in (plain, lambda *args: None, Plain, Plain().method, functools.partial(plain, 1)):
        given: dict[str, Any] = {'create': create, name: function}
        with pytest.raises(TypeError, match=f'^{name}=.* is a plain function: expected a coroutine function'):
            ConnectionPool.from_callables(**given)


@pytest.mark.parametrize('name', ['is_refusal', 'is_hopeless', 'describe_endpoint'])
def test_a_coroutine_function_is_refused_where_a_plain_one_is_due(name: str) -> None:
    async def create(endpoint: str) -> Link:
        return Link()

    async def function(*args: Any) -> bool:
        return True

    class Callable:
        async def __call__(self, *args: Any) -> bool:
            return True

    for value in (function, Callable()):
        given: dict[str, Any] = {'create': create, name: value}
        with pytest.raises(TypeError, match=f'^{name}=.* is a coroutine function: expected a plain one'):
            ConnectionPool.from_callables(**given)


@pytest.mark.parametrize('plain', [False, True])
async def test_is_broken_may_be_plain_or_a_coroutine_function(plain: bool) -> None:
    async def create(endpoint: str) -> Link:
        return ClosingLater()

    async def later(endpoint: str, conn: Link, exc: BaseException) -> bool:
        return True

    def at_once(endpoint: str, conn: Link, exc: BaseException) -> bool:
        return True

    pool = ConnectionPool.from_callables(create, is_broken=at_once if plain else later)
    conn = await pool.acquire('a')
    await pool.release(conn)
    with pytest.raises(KeyError):
        async with pool.connection('a'):
            raise KeyError
    assert conn.calls == ['close']


async def test_a_wrapped_coroutine_function_will_do() -> None:
    async def create(endpoint: str) -> Link:
        return ClosingLater()

    @functools.wraps(create)
    def traced(endpoint: str) -> Any:
        return create(endpoint)

    pool = ConnectionPool.from_callables(traced)
    await pool.release(await pool.acquire('a'))
    await pool.close()


async def test_what_returns_no_awaitable_is_named_when_it_is_called() -> None:
    """A callable object may return anything: that cannot be known before."""

    class Plain:
        def __call__(self, endpoint: str) -> int:
            return 7

    pool: ConnectionPool[str, int] = ConnectionPool.from_callables(Plain())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r'create\(\) of .* returned 7: expected an awaitable'):
        await pool.acquire('a')
    assert pool.get_size() == 0
