"""Pools that are made of functions."""

import functools
import inspect
from typing import Any, get_type_hints

import pytest

from gcpool._parameters import NullPoolParameters, PoolParameters
from gcpool.asyncio import BaseConnectionManager, ConnectionPool, NullConnectionPool
from gcpool.exceptions import ConnectionPoolNotFound, DiscardConnection, PoolTimeout
from tests.asyncio_.runtime import spawn, until
from tests.support import Endpoint


class Link:
    """A connection that closes itself."""

    def __init__(self, endpoint: Any) -> None:
        self.endpoint = endpoint
        self.closed = 0

    async def close(self) -> None:
        self.closed += 1


async def create(endpoint: Any) -> Link:
    return Link(endpoint)


class Functions:
    """Functions that remember what they were called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.alive = True
        self.broken = False

    async def create(self, endpoint: Any) -> Link:
        self.calls.append(('create', endpoint))
        return Link(endpoint)

    async def dispose(self, endpoint: Any, conn: Link) -> None:
        self.calls.append(('dispose', endpoint))
        await conn.close()

    async def check_aliveness(self, endpoint: Any, conn: Link) -> bool:
        self.calls.append(('check_aliveness', endpoint))
        return self.alive

    async def on_acquire(self, endpoint: Any, conn: Link) -> None:
        self.calls.append(('on_acquire', endpoint))

    async def on_release(self, endpoint: Any, conn: Link) -> None:
        self.calls.append(('on_release', endpoint))

    async def is_broken(self, endpoint: Any, conn: Link, exc: BaseException) -> bool:
        self.calls.append(('is_broken', endpoint, type(exc)))
        return self.broken

    def all(self) -> dict[str, Any]:
        return {
            name: getattr(self, name)
            for name in ('create', 'dispose', 'check_aliveness', 'on_acquire', 'on_release', 'is_broken')
        }

    def names(self) -> list[str]:
        names = [call[0] for call in self.calls]
        self.calls.clear()
        return names


async def test_one_function_is_enough() -> None:
    pool = ConnectionPool.from_callables(create, max_size=2)
    async with pool.connection('a') as conn:
        assert (type(conn), conn.endpoint) == (Link, 'a')
    assert pool.try_acquire('a') is conn, 'no check and no hook'
    await pool.release(conn)
    assert conn.closed == 0
    assert await pool.close() == 0
    assert conn.closed == 1
    assert pool.max_size == 2


async def test_each_function_stands_for_the_method_of_its_name() -> None:
    functions = Functions()
    pool = ConnectionPool.from_callables(**functions.all())

    async def fail() -> None:
        async with pool.connection('a'):
            raise KeyError

    async with pool.connection('a'):
        pass
    assert functions.names() == ['create', 'on_acquire', 'on_release']
    with pytest.raises(KeyError):
        await fail()
    assert functions.names() == ['check_aliveness', 'on_acquire', 'is_broken', 'on_release']
    functions.alive = False
    async with pool.connection('a'):
        pass
    assert {'check_aliveness', 'create'} < {*functions.names()}
    functions.alive = functions.broken = True
    with pytest.raises(KeyError):
        await fail()
    await pool.close()
    names = functions.names()
    assert names.index('is_broken') < len(names) - 1 - names[::-1].index('dispose')
    assert 'on_release' not in names


async def test_the_functions_are_given_by_position_in_this_order() -> None:
    functions = Functions()
    pool = ConnectionPool.from_callables(*functions.all().values(), max_size=1)
    async with pool.connection('a'):
        pass
    await pool.close()
    assert functions.names() == ['create', 'on_acquire', 'on_release', 'dispose']


async def test_on_release_may_have_the_connection_closed() -> None:
    async def refuse(endpoint: Any, conn: Link) -> None:
        raise DiscardConnection('worn out')

    pool = ConnectionPool.from_callables(create, on_release=refuse)
    conn = await pool.acquire('a')
    await pool.release(conn)
    assert conn.closed == 1
    await pool.close()


async def test_a_connection_that_cannot_be_closed_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def make(endpoint: Any) -> object:
        return object()

    pool = ConnectionPool.from_callables(make)
    await pool.release(await pool.acquire('a'))
    await pool.close()
    assert 'has no' in caplog.text
    assert 'close(): expected the parameter `dispose`' in caplog.text


async def test_partial_functions_and_objects_that_can_be_called_will_do() -> None:
    async def make(size: int, endpoint: Any) -> Link:
        return Link((endpoint, size))

    class Maker:
        async def __call__(self, endpoint: Any) -> Link:
            return Link(endpoint)

    for function, expected in ((functools.partial(make, 3), ('a', 3)), (Maker(), 'a')):
        pool: ConnectionPool[Any, Link] = ConnectionPool.from_callables(function)
        async with pool.connection('a') as conn:
            assert conn.endpoint == expected
        await pool.close()


async def test_a_null_pool_is_made_of_functions_too() -> None:
    pool = NullConnectionPool.from_callables(create)
    assert type(pool) is NullConnectionPool
    async with pool.connection(Endpoint('a')) as conn:
        pass
    assert conn.closed == 1
    with pytest.raises(ValueError, match='min_idle=1'):
        NullConnectionPool.from_callables(create, min_idle=1)  # type: ignore[call-arg]


async def test_it_waits_for_a_connection_when_the_server_says_that_it_is_full() -> None:
    asked: list[tuple[Any, str]] = []
    refusals = [OSError('full')]

    async def connect(endpoint: Any) -> Link:
        if pool.get_stats()['in_use'] and refusals:
            raise refusals.pop()
        return Link(endpoint)

    def is_refusal(endpoint: Any, exc: BaseException) -> bool:
        asked.append((endpoint, str(exc)))
        return str(exc) == 'full'

    pool: ConnectionPool[Any, Link] = ConnectionPool.from_callables(
        connect, is_refusal=is_refusal, wait_when_full=True, max_size=2
    )
    conn = await pool.acquire('a')
    job = spawn(pool.acquire, 'a')
    await until(lambda: asked == [('a', 'full')])
    await pool.release(conn)
    await pool.release(await job.result())
    assert asked == [('a', 'full')]
    await pool.close()


async def test_a_hopeless_error_is_not_waited_out_and_endpoints_are_shown_as_described() -> None:
    async def connect(endpoint: Any) -> Link:
        raise OSError('no such database')

    pool: ConnectionPool[Any, Link] = ConnectionPool.from_callables(
        connect,
        is_hopeless=lambda endpoint, exc: 'no such database' in str(exc),
        describe_endpoint=lambda endpoint: endpoint.replace('secret', '***'),
        reconnect_timeout=60.0,
    )
    with pytest.raises(OSError, match='no such database'):
        await pool.acquire('main:secret')
    with pytest.raises(ConnectionPoolNotFound, match=r"endpoint='main:\*\*\*'"):
        await pool.drain('main:secret')
    await pool.close()


@pytest.mark.parametrize('endpoint', ['main', None])
async def test_calls_that_name_no_endpoint_get_the_default_one(endpoint: Any) -> None:
    pool = ConnectionPool.from_callables(create, default_endpoint=endpoint)
    async with pool.connection() as conn:
        assert conn.endpoint == endpoint
    await pool.close()
    without = ConnectionPool.from_callables(create)
    with pytest.raises(TypeError, match='default_endpoint'):
        await without.acquire()


# ---- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', ['create', 'dispose', 'check_aliveness', 'on_acquire', 'on_release', 'is_broken'])
@pytest.mark.parametrize('value', [7, 'function', (), False])
def test_what_cannot_be_called_is_refused(name: str, value: Any) -> None:
    functions = {**Functions().all(), name: value}
    with pytest.raises(TypeError, match=f'^{name}=.*: expected a callable, got {type(value).__name__}'):
        ConnectionPool.from_callables(**functions)


@pytest.mark.parametrize('name', ['is_refusal', 'is_hopeless', 'describe_endpoint'])
def test_functions_that_are_plain_in_both_runtimes_are_checked_too(name: str) -> None:
    given: dict[str, Any] = {name: lambda one, two, three: True}
    with pytest.raises(TypeError, match=rf'^{name}=.*: expected a function of \(endpoint'):
        ConnectionPool.from_callables(create, **given)
    given = {name: 'refused'}
    with pytest.raises(TypeError, match=f"^{name}='refused': expected a callable, got str"):
        ConnectionPool.from_callables(create, **given)


def test_wait_when_full_needs_a_function_that_knows_a_refusal() -> None:
    with pytest.raises(ValueError, match='wait_when_full=True'):
        ConnectionPool.from_callables(create, wait_when_full=True)


def test_a_default_endpoint_that_is_not_hashable_is_refused() -> None:
    unhashable: Any = ['main']
    with pytest.raises(TypeError, match=r'^default_endpoint is a list: expected a hashable endpoint'):
        ConnectionPool.from_callables(create, default_endpoint=unhashable)


def test_create_is_required() -> None:
    with pytest.raises(TypeError, match='create=None: expected a callable, got NoneType'):
        ConnectionPool.from_callables(None)  # type: ignore[arg-type]


@pytest.mark.parametrize('name', ['create', 'dispose', 'check_aliveness', 'on_acquire', 'on_release', 'is_broken'])
def test_a_function_of_other_arguments_is_refused(name: str) -> None:
    async def takes_nothing() -> None:
        pass

    async def takes_much(one: Any, two: Any, three: Any, four: Any) -> None:
        pass

    for function in (takes_nothing, takes_much):
        functions: dict[str, Any] = {**Functions().all(), name: function}
        with pytest.raises(TypeError, match=rf'^{name}=.*: expected a function of \(endpoint'):
            ConnectionPool.from_callables(**functions)


@pytest.mark.parametrize(
    ('parameters', 'error', 'expected'),
    [
        ({'max_size': 0}, ValueError, 'max_size=0'),
        ({'min_idle': 'x'}, TypeError, 'min_idle'),
        ({'maximum': 3}, TypeError, 'maximum'),
    ],
)
def test_the_parameters_of_the_pool_are_checked(parameters: Any, error: type[Exception], expected: str) -> None:
    with pytest.raises(error, match=expected):
        ConnectionPool.from_callables(create, **parameters)


def test_the_parameters_that_type_checkers_know_are_those_of_the_pool() -> None:
    parameters = inspect.signature(ConnectionPool.__init__).parameters.values()
    # A TypedDict of these has no type variables.
    expected = {
        p.name: str(p.annotation).replace('~EndpointT', 'typing.Any')
        for p in parameters
        if p.kind is p.KEYWORD_ONLY and not p.name.startswith('_')
    }
    assert {name: str(hint) for name, hint in get_type_hints(PoolParameters).items()} == expected
    assert {*get_type_hints(NullPoolParameters)} < {*expected}


def test_a_manager_is_made_that_overrides_only_what_was_given() -> None:
    pool = ConnectionPool.from_callables(create)
    assert isinstance(pool._manager, BaseConnectionManager)
    hooks = (pool._checks, pool._hooks_acquire, pool._hooks_release, pool._hooks_broken, pool._hooks_dead)
    assert hooks == (False,) * 5


async def test_a_timeout_of_the_acquire_reaches_create() -> None:
    pool = ConnectionPool.from_callables(create, max_size=1)
    conn = await pool.acquire('a')
    with pytest.raises(PoolTimeout):
        await pool.acquire('a', timeout=0)
    await pool.discard(conn)
    assert conn.closed == 1
