"""The optional members of a manager that are no hooks: found out once, when a pool is built."""

import ssl
from asyncio import sleep
from typing import Any
from unittest.mock import Mock

import pytest

from gcpool._hooks import NO_ENDPOINT, Hooks
from gcpool.asyncio import BaseConnectionManager, ConnectionPool
from gcpool.exceptions import (
    ConnectError,
    ConnectTimeout,
    PoolTimeout,
    UnknownEndpoint,
    connect_error_class,
    make_connect_error,
)
from tests.pool.support import Duck, Manager

PLAIN = {'is_refusal': 'refusal', 'is_hopeless': 'hopeless', 'describe_endpoint': 'describe'}


class Telling(Manager):
    """Has every optional member."""

    default_endpoint = 'main'
    broken_on_cancel = True

    def is_refusal(self, endpoint: Any, exc: BaseException) -> bool:
        return endpoint == 'full' and isinstance(exc, OSError)

    def is_hopeless(self, endpoint: Any, exc: BaseException) -> bool:
        return bool(endpoint == 'unknown')

    def describe_endpoint(self, endpoint: Any) -> object:
        return endpoint.upper()


def found(manager: Any) -> Hooks:
    # Whatever is refused, a pool refuses it.
    ConnectionPool(manager)
    return Hooks(manager, BaseConnectionManager)


async def test_what_a_manager_does_not_define_costs_nothing() -> None:
    for manager in (Manager(), Duck()):
        hooks = found(manager)
        assert (hooks.refusal, hooks.describe, hooks.broken_on_cancel) == (None, None, False)
        assert hooks.default_endpoint is NO_ENDPOINT


NO_OUTAGE = [
    UnknownEndpoint('no such endpoint', 'a'),
    connect_error_class(ValueError)('no such port', 'a'),
    connect_error_class(TypeError)('no str', 'a'),
    TypeError('no such parameter'),
    KeyError('a'),
]
OUTAGE = [
    KeyError('token'),
    KeyError(),
    KeyError('a', 'b'),
    ValueError('an answer that is no number'),
    UnicodeDecodeError('utf-8', b'\xff', 0, 1, 'invalid start byte'),
    make_connect_error(UnicodeDecodeError('utf-8', b'\xff', 0, 1, 'invalid start byte'), 'unreadable', 'a'),
    ConnectError('no route', 'a'),
    ConnectTimeout('late', 'a'),
    ssl.SSLCertVerificationError('expired'),
    make_connect_error(ssl.SSLCertVerificationError('expired'), 'expired', 'a'),
    OSError('refused'),
    PoolTimeout('late'),
    RuntimeError('broken'),
]


@pytest.mark.parametrize('error', NO_OUTAGE, ids=repr)
async def test_an_error_that_no_server_has_caused_is_hopeless(error: Exception) -> None:
    for manager in (Manager(), Duck(), Mock(spec=BaseConnectionManager), Mock()):
        assert found(manager).hopeless('a', error) is True


@pytest.mark.parametrize('error', OUTAGE, ids=repr)
async def test_an_error_that_a_server_may_have_caused_is_not_hopeless(error: Exception) -> None:
    for manager in (Manager(), Duck(), Mock(spec=BaseConnectionManager), Mock()):
        assert found(manager).hopeless('a', error) is False


async def test_the_base_class_says_what_holds_without_an_override() -> None:
    manager = Manager()
    assert manager.is_refusal('a', OSError()) is False
    endpoint = object()
    assert manager.describe_endpoint(endpoint) is endpoint
    assert manager.broken_on_cancel is False
    assert not hasattr(manager, 'default_endpoint')


class Wrapper:
    """Passes everything on."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager

    def __getattr__(self, name: str) -> Any:
        return getattr(self._manager, name)


async def test_what_a_manager_defines_is_found() -> None:
    for manager in (Telling(), Wrapper(Telling())):
        hooks = found(manager)
        assert hooks.refusal is not None
        assert hooks.describe is not None
        assert [hooks.refusal(*args) for args in (('full', OSError()), ('full', KeyError()), ('a', OSError()))] == [
            True,
            False,
            False,
        ]
        assert [hooks.hopeless(endpoint, OSError()) for endpoint in ('unknown', 'a')] == [True, False]
        assert hooks.describe('a') == 'A'
        assert hooks.broken_on_cancel is True
        assert hooks.default_endpoint == 'main'


async def test_members_of_a_manager_that_knows_nothing_of_gcpool_are_found() -> None:
    manager: Any = Duck()
    manager.is_refusal = lambda endpoint, exc: True
    manager.is_hopeless = lambda endpoint, exc: True
    manager.describe_endpoint = str
    manager.broken_on_cancel = True
    manager.default_endpoint = None
    hooks = found(manager)
    assert (hooks.refusal, hooks.describe, hooks.broken_on_cancel) == (manager.is_refusal, str, True)
    assert hooks.hopeless is manager.is_hopeless
    # None is an endpoint as any other.
    assert hooks.default_endpoint is None


async def test_a_property_may_decide_whether_there_is_a_default_endpoint() -> None:
    class Deciding(Duck):
        names: tuple[str, ...] = ()

        @property
        def default_endpoint(self) -> str:
            if len(self.names) != 1:
                raise AttributeError('default_endpoint')
            return self.names[0]

    manager: Any = Deciding()
    assert found(manager).default_endpoint is NO_ENDPOINT
    manager.names = ('only',)
    assert found(manager).default_endpoint == 'only'


async def test_the_automatic_members_of_a_mock_are_ignored() -> None:
    for manager in (Mock(spec=BaseConnectionManager), Mock()):
        hooks = found(manager)
        assert (hooks.refusal, hooks.describe, hooks.broken_on_cancel) == (None, None, False)
        assert hooks.default_endpoint is NO_ENDPOINT


async def test_what_a_test_has_set_on_a_mock_is_found() -> None:
    manager = Mock(spec=BaseConnectionManager)
    manager.is_refusal = lambda endpoint, exc: True
    manager.broken_on_cancel = True
    hooks = found(manager)
    assert (hooks.refusal, hooks.broken_on_cancel) == (manager.is_refusal, True)


@pytest.mark.parametrize('name', PLAIN)
async def test_a_method_that_is_plain_in_both_runtimes_is_refused_as_a_coroutine_function(name: str) -> None:
    for wrong, message in (
        (sleep, rf'^{name}\(\) of connection_manager .* is a coroutine function: expected a plain one$'),
        ('full', rf"^connection_manager\.{name} is 'full': expected a method$"),
    ):
        manager: Any = Duck()
        setattr(manager, name, wrong)
        with pytest.raises(TypeError, match=message):
            ConnectionPool(manager)


async def test_a_method_set_to_none_is_none() -> None:
    manager: Any = Duck()
    for name in PLAIN:
        setattr(manager, name, None)
    hooks = found(manager)
    assert (hooks.refusal, hooks.describe) == (None, None)
    assert hooks.hopeless('a', TypeError()) is True, 'what the base class says'


@pytest.mark.parametrize('value', [1, 0, None, 'yes', lambda: True])
async def test_broken_on_cancel_is_a_bool(value: Any) -> None:
    manager: Any = Duck()
    manager.broken_on_cancel = value
    with pytest.raises(TypeError, match=r'^connection_manager\.broken_on_cancel is .*: expected a bool$'):
        ConnectionPool(manager)


async def test_a_default_endpoint_is_hashable() -> None:
    manager: Any = Duck()
    # Not quoted, because it may hold a password.
    manager.default_endpoint = {'password': 'secret'}
    with pytest.raises(TypeError, match=r'^connection_manager\.default_endpoint is a dict: expected a hashable'):
        ConnectionPool(manager)
