"""What those type wrong who use a pool for the first time: each answer names what was meant."""

from datetime import timedelta
from typing import Any

import pytest

import gcpool
from gcpool.asyncio import BaseConnectionManager, ConnectionPool, NullConnectionPool
from tests.pool.support import Case, Manager


def has_no_guess_of_python_s(error: AttributeError) -> bool:
    """Whether a traceback shows the message alone. Python guesses from the names of an object, if it knows that."""
    return bool(error.name) and getattr(error, 'obj', None) is None


@pytest.mark.parametrize(
    ('name', 'meant'),
    [
        ('max_sise', 'max_size'),
        ('maxsize', 'max_size'),
        ('minsize', 'min_size'),
        ('max_lifetim', 'max_lifetime'),
        ('aquire_timeout', 'acquire_timeout'),
        ('idleTimeout', 'idle_timeout'),
        ('minconn', 'min_size'),
        ('maxconn', 'max_size, or total_max_size for all endpoints together'),
        ('pool_size', 'max_size, or total_max_size for all endpoints together'),
        ('max_overflow', 'max_size for the most connections, and min_idle for those that are kept'),
        ('pool_recycle', 'max_lifetime'),
        ('pool_pre_ping', 'check_interval, 0 for a check before each use'),
        ('timeout', 'acquire_timeout'),
        ('max_inactive_connection_lifetime', 'idle_timeout'),
        ('maximumPoolSize', 'max_size, or total_max_size for all endpoints together'),
        ('connectionTimeout', 'acquire_timeout, in seconds'),
        ('MaxConns', 'max_size, or total_max_size for all endpoints together'),
        ('on_aquire', 'on_acquire of the connection manager, or of from_callables()'),
    ],
)
def test_a_parameter_of_another_name_is_answered_with_the_one_that_was_meant(name: str, meant: str) -> None:
    parameters: dict[str, Any] = {name: 5}
    for pool_class in (ConnectionPool, NullConnectionPool):
        with pytest.raises(TypeError) as caught:
            pool_class(Manager(), **parameters)
        assert str(caught.value) == f'{pool_class.__name__} has no parameter {name!r}: did you mean {meant}?'


@pytest.mark.parametrize('name', ['frobnicate', '_secret', 'x'])
def test_a_parameter_that_is_like_none_is_refused_without_a_guess(name: str) -> None:
    parameters: dict[str, Any] = {name: 5}
    with pytest.raises(TypeError) as caught:
        ConnectionPool(Manager(), **parameters)
    assert str(caught.value) == f'ConnectionPool has no parameter {name!r}'


def test_a_misspelt_parameter_of_from_callables_is_answered() -> None:
    async def create(endpoint: str) -> object:
        return object()

    parameters: dict[str, Any] = {'max_sise': 5}
    with pytest.raises(TypeError, match=r"^ConnectionPool has no parameter 'max_sise': did you mean max_size\?$"):
        ConnectionPool.from_callables(create, **parameters)


@pytest.mark.parametrize('name', ['ConnectionPool', 'NullConnectionPool', 'BaseConnectionManager'])
def test_the_package_names_the_two_modules_that_have_the_pools(name: str) -> None:
    # Not written out, because the tests of the other runtime are generated from this one.
    threads, tasks = (f'gcpool.{runtime}.{name}' for runtime in ('threading', 'asyncio'))
    expected = f'expected {threads} or {tasks}$'
    with pytest.raises(AttributeError, match=expected) as caught:
        getattr(gcpool, name)
    assert has_no_guess_of_python_s(caught.value)
    with pytest.raises(ImportError, match=expected):
        exec(f'from gcpool import {name}')
    assert not hasattr(gcpool, name)
    assert not hasattr(gcpool, 'NoSuchName')


@pytest.mark.parametrize('manager', ['postgresql://me:secret@db/shop', {'password': 'secret'}, ('db', 'secret')])
def test_where_to_connect_given_for_the_manager_is_refused_and_not_shown(manager: Any) -> None:
    with pytest.raises(TypeError, match='where to connect is a parameter of the manager') as caught:
        ConnectionPool(manager)
    assert 'secret' not in str(caught.value)


@pytest.mark.parametrize('seconds', [timedelta(seconds=5), '5', True])
def test_a_time_that_is_no_number_is_refused_by_name(seconds: Any) -> None:
    with pytest.raises(TypeError, match=r'^acquire_timeout=.*: expected seconds as a float, got '):
        ConnectionPool(Manager(), acquire_timeout=seconds)


def test_limits_that_were_not_given_adapt_to_those_that_were() -> None:
    assert ConnectionPool(Manager(), max_size=200).total_max_size == 200
    assert ConnectionPool(Manager(), total_max_size=5).max_size == 5
    ConnectionPool(Manager(), max_lifetime=30)


class Forgetful(BaseConnectionManager[str, Any]):
    """Its methods lack their ``return``."""

    def __init__(self, conn: object) -> None:
        self.conn = conn

    async def create(self, endpoint: str, timeout: float | None = None) -> Any:
        return self.conn

    async def dispose(self, endpoint: str, conn: Any, timeout: float | None = None) -> None:
        pass

    async def check_aliveness(self, endpoint: str, conn: Any, timeout: float | None = None) -> Any:
        pass


async def test_create_without_return_is_refused() -> None:
    async with ConnectionPool(Forgetful(None)) as pool:
        with pytest.raises(TypeError, match=r'^create\(\) of connection_manager .* returned None: expected a conn'):
            await pool.acquire('a')
        assert pool.get_size() == 0


async def test_check_aliveness_without_return_is_refused() -> None:
    async with ConnectionPool(Forgetful(object())) as pool:
        await pool.release(await pool.acquire('a'))
        with pytest.raises(TypeError, match=r'^check_aliveness\(\) of .* returned None: expected a bool$'):
            await pool.acquire('a')


async def test_a_misspelt_hook_is_refused_when_the_pool_is_built() -> None:
    class Misspelt(Manager):
        async def on_aquire(self, endpoint: str, conn: object) -> None:
            pass

    with pytest.raises(TypeError, match=r'on_aquire\(\) .* misspelt on_acquire\(\)'):
        ConnectionPool(Misspelt())


async def test_leaving_a_block_of_the_pool_closes_it_and_passes_its_exception_on() -> None:
    pool = ConnectionPool(Manager())
    try:
        async with pool as entered:
            assert entered is pool
            raise ZeroDivisionError
    except ZeroDivisionError:
        assert pool.closed
    else:
        pytest.fail('the exception was lost')


async def test_what_is_no_connection_is_not_released() -> None:
    async with Case() as case:
        for wrong in (None, 'a', case.pool.connection('a')):
            with pytest.raises(gcpool.exceptions.ConnectionNotAcquired, match='expected a connection that acquire'):
                await case.pool.release(wrong)  # type: ignore[arg-type]


async def takes_nothing(self: Any) -> object:
    return object()


async def takes_only_the_connection(self: Any, conn: Any, *, other: int = 0) -> None:
    pass


async def takes_too_much(self: Any, endpoint: Any, conn: Any, exc: Any, logger: Any) -> None:
    pass


async def needs_a_name(self: Any, endpoint: Any, conn: Any, *, logger: Any) -> None:
    pass


@pytest.mark.parametrize(
    ('name', 'method', 'taken', 'wanted'),
    [
        ('create', takes_nothing, '()', 'create(endpoint'),
        ('on_acquire', takes_only_the_connection, '(conn, other)', 'on_acquire(endpoint, conn)'),
        ('is_broken', takes_too_much, '(endpoint, conn, exc, logger)', 'is_broken(endpoint, conn, exc)'),
        ('on_release', needs_a_name, '(endpoint, conn, logger)', 'on_release(endpoint, conn)'),
    ],
)
async def test_a_method_that_cannot_be_called_is_refused_when_the_pool_is_built(
    name: str, method: Any, taken: str, wanted: str
) -> None:
    manager: Any = type('Wrong', (Manager,), {name: method})()
    with pytest.raises(TypeError) as caught:
        ConnectionPool(manager)
    assert f'{name}() of connection_manager ' in str(caught.value)
    assert f' takes {taken}: expected {wanted}' in str(caught.value)


async def test_methods_that_can_be_called_otherwise_than_the_base_class_s_are_taken() -> None:
    class Unusual(Manager):
        async def create(self, where: Any, *rest: Any, **named: Any) -> Any:  # type: ignore[override]
            return await super().create(where)

        async def on_acquire(self, endpoint: Any, conn: Any, logger: Any = None, *, level: int = 0) -> None:
            pass

    async with Case(Unusual()) as case:
        await case.cycle('a')


def test_a_parameter_without_its_name_is_refused() -> None:
    for pool_class in (ConnectionPool, NullConnectionPool):
        anything: Any = pool_class
        with pytest.raises(
            TypeError, match=r'takes only connection_manager without a name: expected .* as max_size=8$'
        ):
            anything(Manager(), 'secret')


@pytest.mark.parametrize(
    ('name', 'meant'),
    [
        ('getconn', 'with pool.connection() (on asyncio: async with), or acquire()'),
        ('putconn', 'the end of the block of connection(), or release()'),
        ('closeall', 'close()'),
        ('execute', 'a connection, by with pool.connection() (on asyncio: async with)'),
        ('maxsize', 'max_size, or total_max_size for all endpoints together'),
    ],
)
def test_the_name_of_another_pool_s_method_is_answered(name: str, meant: str) -> None:
    pool: Any = ConnectionPool(Manager())
    with pytest.raises(
        AttributeError, match=f"^'ConnectionPool' object has no attribute '{name}': expected "
    ) as caught:
        getattr(pool, name)
    assert str(caught.value).endswith(f'expected {meant}')
    assert has_no_guess_of_python_s(caught.value)
    assert not hasattr(pool, name)
    assert name not in dir(pool)
    assert {'acquire', 'get_stats', '__init__'} <= {*dir(pool)}


def test_a_subclass_may_have_a_method_of_such_a_name() -> None:
    class Own(ConnectionPool[Any, Any]):
        def getconn(self) -> str:
            return 'own'

    pool = Own(Manager())
    assert pool.getconn() == 'own'
    assert 'getconn' in dir(pool)
    assert 'putconn' not in dir(pool)


@pytest.mark.parametrize('name', ['execute', 'cursor'])
def test_a_context_that_was_not_entered_is_no_connection(name: str) -> None:
    context: Any = ConnectionPool(Manager()).connection('a')
    with pytest.raises(
        AttributeError, match=rf'expected `(async )?with pool\.connection\(\.\.\.\) as conn`, and conn\.{name}$'
    ) as caught:
        getattr(context, name)
    assert has_no_guess_of_python_s(caught.value)
    assert not hasattr(context, name)


def test_the_package_names_the_module_of_the_exceptions() -> None:
    with pytest.raises(AttributeError, match=r'expected gcpool\.exceptions\.PoolTimeout$'):
        _ = gcpool.PoolTimeout
