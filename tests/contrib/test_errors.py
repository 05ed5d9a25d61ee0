"""The errors of connects: a gcpool error that is the driver's as well, wherever Python allows that."""

import asyncio
import copy
import pickle
import socket
import sqlite3
import ssl
from typing import Any

import pytest

from gcpool.contrib._errors import (
    check_source,
    look_up,
    look_up_async,
    raise_connect_error,
    raise_connect_timeout,
    to_params,
    unknown_endpoint,
)
from gcpool.exceptions import BaseError, ConnectError, ConnectTimeout, PoolTimeout, UnknownEndpoint


class Numbered(Exception):
    """As those of the MySQL drivers: the number is the first of its args."""


class Choosy(Exception):
    def __new__(cls, first: object, second: object) -> 'Choosy':  # noqa: PYI034
        return super().__new__(cls, first, second)

    def __init__(self, first: object, second: object) -> None:
        super().__init__('only one')


class WithAMessageOfItsOwn(Exception):
    @property
    def message(self) -> str:
        return 'mine'


def caught(cause: BaseException) -> Any:
    with pytest.raises(ConnectError) as found:
        raise_connect_error('db', cause, 'look at the host')
    assert found.value.__cause__ is cause
    assert str(found.value).startswith(f"no connection to endpoint 'db' could be made: {type(cause).__name__}")
    assert str(found.value).endswith('; look at the host')
    assert found.value.endpoint == 'db'
    assert isinstance(found.value, BaseError)
    return found.value


@pytest.mark.parametrize(
    'cause',
    [
        ConnectionRefusedError(111, 'refused'),
        socket.gaierror(-2, 'not known'),
        ssl.SSLError(1, 'handshake'),
        sqlite3.OperationalError('unable to open'),
        Numbered(1045, 'denied'),
        KeyError('x'),
        ValueError('several\nlines'),
    ],
    ids=lambda cause: type(cause).__name__,
)
def test_is_the_driver_s_own_too(cause: Exception) -> None:
    error = caught(cause)
    assert isinstance(error, type(cause))
    assert error.args == cause.args
    assert getattr(error, 'errno', None) == getattr(cause, 'errno', None)
    assert '\n' not in str(error)


@pytest.mark.parametrize('cause', [Choosy(1, 2), WithAMessageOfItsOwn('x')], ids=lambda cause: type(cause).__name__)
def test_one_that_cannot_be_made_is_the_cause_alone(cause: Exception) -> None:
    assert type(caught(cause)) is ConnectError


def test_an_attribute_of_the_driver_s_is_there() -> None:
    cause = Numbered(1)
    cause.sqlstate = '28P01'  # type: ignore[attr-defined]
    assert caught(cause).sqlstate == '28P01'


def test_can_be_copied_and_pickled() -> None:
    error = caught(ConnectionRefusedError(111, 'refused'))
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(twin) is ConnectError
        assert (str(twin), twin.endpoint) == (str(error), 'db')


def test_a_timeout_is_one_to_everybody() -> None:
    with pytest.raises(ConnectTimeout, match=r"'db' could be made within 2\.5 s: TimeoutError") as found:
        raise_connect_timeout('db', TimeoutError(), 2.5)
    assert isinstance(found.value, PoolTimeout)
    assert isinstance(found.value, ConnectError)


def test_an_unknown_endpoint_names_those_that_are_known() -> None:
    error = unknown_endpoint('typo', 'dsn_params', {'main': {'password': 'secret'}})
    assert isinstance(error, UnknownEndpoint)
    assert isinstance(error, KeyError)
    assert str(error) == "endpoint 'typo' is not in dsn_params, which has ['main']; add it, or ask for one of those"


async def unknown_to_a_coroutine(endpoint: str) -> str:
    await asyncio.sleep(0)
    return {'main': 'url'}[endpoint]


async def by_a_coroutine(endpoint: str) -> str:
    await asyncio.sleep(0)
    return f'url of {endpoint}'


class TestSources:
    @pytest.mark.parametrize('source', [None, 'secret', 5, ['secret']])
    @pytest.mark.parametrize('or_callable', [True, False])
    def test_refuses_what_is_none(self, source: object, or_callable: bool) -> None:
        with pytest.raises(TypeError, match='params: expected a mapping of endpoints') as caught:
            check_source(source, 'params', or_callable=or_callable)
        assert ('callable' in str(caught.value)) is or_callable
        assert str(caught.value).endswith(f', got {type(source).__name__}')
        assert 'secret' not in str(caught.value)

    def test_takes_callables_where_they_will_do(self) -> None:
        check_source({}, 'params')
        check_source(print, 'params', or_callable=True)
        with pytest.raises(TypeError, match='got builtin_function_or_method'):
            check_source(print, 'params')

    @pytest.mark.parametrize(
        'source', [{'db': 'url of db'}, {'db': lambda endpoint: f'url of {endpoint}'}, lambda endpoint: 'url of db']
    )
    def test_looks_up(self, source: Any) -> None:
        assert look_up(source, 'db', 'params') == 'url of db'
        assert asyncio.run(look_up_async(source, 'db', 'params')) == 'url of db'

    @pytest.mark.parametrize('source', [{'db': by_a_coroutine}, by_a_coroutine])
    def test_awaits_only_for_asyncio(self, source: Any) -> None:
        assert asyncio.run(look_up_async(source, 'db', 'params')) == 'url of db'
        # Nothing is left that was never awaited.
        with pytest.raises(ConnectError, match=r"endpoint 'db' .*params gave an awaitable") as caught:
            look_up(source, 'db', 'params')
        assert isinstance(caught.value, TypeError)

    def test_refuses_a_future_that_is_not_a_coroutine(self) -> None:
        async def main() -> None:
            found: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            with pytest.raises(ConnectError, match='gave an awaitable'):
                look_up({'db': lambda endpoint: found}, 'db', 'params')

        asyncio.run(main())

    @pytest.mark.parametrize(
        'source', [lambda endpoint: {'main': 'url'}[endpoint], {'db': lambda endpoint: {'main': 'url'}[endpoint]}]
    )
    def test_a_callable_s_key_error_is_an_unknown_endpoint(self, source: Any) -> None:
        with pytest.raises(UnknownEndpoint, match=r"'db' is not known to the callable in params, .*KeyError\('db'\)"):
            look_up(source, 'db', 'params')
        for one in (source, unknown_to_a_coroutine):
            with pytest.raises(UnknownEndpoint, match="'db' is not known to the callable in params") as caught:
                asyncio.run(look_up_async(one, 'db', 'params'))
            assert isinstance(caught.value.__cause__, KeyError)
            assert caught.value.endpoint == 'db'

    def test_another_error_of_a_callable_is_left_alone(self) -> None:
        def fail(endpoint: str) -> str:
            raise LookupError('of the test')

        with pytest.raises(LookupError, match='of the test') as caught:
            look_up(fail, 'db', 'params')
        assert type(caught.value) is LookupError


class TestToParams:
    def test_makes_a_copy(self) -> None:
        found = {'host': 'x'}
        params = to_params(found, 'db', 'params')
        assert params == found
        assert params is not found

    def test_takes_text_where_it_will_do(self) -> None:
        assert to_params('url', 'db', 'params', text_as='dsn') == {'dsn': 'url'}

    @pytest.mark.parametrize('found', ['secret', None, ['secret'], {1: 'secret'}])
    def test_refuses_what_are_none(self, found: object) -> None:
        with pytest.raises(
            ConnectError, match=r"endpoint 'db' .* expected a mapping .*check its entry in params"
        ) as caught:
            to_params(found, 'db', 'params')
        assert isinstance(caught.value, TypeError)
        assert 'secret' not in str(caught.value)
