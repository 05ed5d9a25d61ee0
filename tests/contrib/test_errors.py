"""The errors of connects: a gcpool error that is the driver's as well, wherever Python allows that."""

import copy
import pickle
import socket
import sqlite3
import ssl
from typing import Any

import pytest

from gcpool.contrib._errors import raise_connect_error, raise_connect_timeout, unknown_endpoint
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
