"""Pools for threads that are made of functions: which of them are passed the time that is left."""

import sqlite3
from typing import Any

import pytest

from gcpool._core import CallableWithTimeout
from gcpool.threading import ConnectionPool


class Link:
    """A connection."""

    closed = False

    def close(self) -> None:
        self.closed = True


def use(pool: 'ConnectionPool[Any, Any]', timeout: float | None) -> None:
    conn = pool.acquire('a', timeout)
    pool.release(conn)
    pool.release(pool.acquire('a', timeout))
    pool.close()


@pytest.mark.parametrize('timeout', [None, 5.0])
def test_functions_without_a_timeout_are_not_passed_it(timeout: float | None) -> None:
    seen: list[str] = []

    def create(endpoint: str) -> Link:
        seen.append('create')
        return Link()

    def dispose(endpoint: str, conn: Link) -> None:
        seen.append('dispose')

    def check_aliveness(endpoint: str, conn: Link) -> bool:
        seen.append('check_aliveness')
        return True

    use(ConnectionPool.from_callables(create, dispose, check_aliveness), timeout)
    assert seen == ['create', 'check_aliveness', 'dispose']


@pytest.mark.parametrize(('timeout', 'expected'), [(None, 'mine'), (5.0, 'limited')])
def test_a_timeout_with_a_default_is_passed_where_there_is_a_limit(timeout: float | None, expected: str) -> None:
    seen: list[str] = []

    def note(limit: Any) -> None:
        seen.append('mine' if limit == 'mine' else 'limited' if 0 < limit <= 5.0 else f'{limit}')

    def create(endpoint: str, timeout: Any = 'mine') -> Link:
        note(timeout)
        return Link()

    def check_aliveness(endpoint: str, conn: Link, *, timeout: Any = 'mine') -> bool:
        note(timeout)
        return True

    use(ConnectionPool.from_callables(create, check_aliveness=check_aliveness), timeout)
    assert seen == [expected, expected]


@pytest.mark.parametrize('timeout', [None, 5.0])
def test_a_timeout_without_a_default_is_always_passed(timeout: float | None) -> None:
    seen: list[Any] = []

    def create(endpoint: str, timeout: float | None) -> Link:
        seen.append(timeout)
        return Link()

    def dispose(endpoint: str, conn: Link, *, timeout: float | None) -> None:
        seen.append(timeout)

    functions: list[Any] = [create, dispose]
    use(ConnectionPool.from_callables(*functions, dispose_timeout=3.0), timeout)
    assert [timeout is None, False] == [limit is None for limit in seen]
    assert seen[1] <= 3.0


def test_any_keyword_argument_is_no_timeout() -> None:
    seen: list[Any] = []

    def create(endpoint: str, **options: Any) -> Link:
        seen.append(options)
        return Link()

    use(ConnectionPool.from_callables(create), 5.0)
    assert seen == [{}]


def test_the_connect_of_a_driver_will_do() -> None:
    pool: ConnectionPool[str, sqlite3.Connection] = ConnectionPool.from_callables(sqlite3.connect, max_size=1)
    with pool.connection(':memory:', timeout=5.0) as conn:
        assert conn.execute('select 1').fetchone() == (1,)
    assert pool.close() == 0
    with pytest.raises(sqlite3.ProgrammingError, match='closed'):
        conn.execute('select 1')


@pytest.mark.parametrize(
    'name',
    [
        *('create', 'dispose', 'check_aliveness', 'on_acquire', 'on_release', 'is_broken'),
        *('is_refusal', 'is_hopeless', 'describe_endpoint'),
    ],
)
@pytest.mark.parametrize('kind', ['function', 'object'])
def test_a_coroutine_function_is_refused(name: str, kind: str) -> None:
    async def function(*args: Any) -> None:
        pass

    class Callable:
        async def __call__(self, *args: Any) -> None:
            pass

    given: dict[str, Any] = {'create': lambda endpoint: Link()}
    given[name] = function if kind == 'function' else Callable()
    with pytest.raises(TypeError, match=f'^{name}=.* is a coroutine function: expected a plain one'):
        ConnectionPool.from_callables(**given)


def test_no_timeout_is_passed_to_a_function_that_takes_it_by_position_only() -> None:
    def create(endpoint: str, timeout: float = 1.0, /) -> Link:
        assert timeout == 1.0
        return Link()

    use(ConnectionPool.from_callables(create), 5.0)


def test_the_function_shows_in_messages() -> None:
    assert repr(CallableWithTimeout(len, 1, False, False)) == repr(len)


@pytest.mark.parametrize('in_background', [False, True], ids=['acquire', 'background'])
def test_a_create_that_returns_a_coroutine_is_told(in_background: bool) -> None:
    async def connect() -> None:
        """A driver's own for asyncio."""

    def create(endpoint: str) -> object:
        return connect()

    pool: ConnectionPool[str, object] = ConnectionPool.from_callables(
        create, lambda endpoint, conn: None, create_in_background=in_background
    )
    with pool, pytest.raises(TypeError, match=r'^create\(\) of .* returned <coroutine .*>: expected a connection$'):
        pool.acquire('a')
    assert pool.get_size() == 0
