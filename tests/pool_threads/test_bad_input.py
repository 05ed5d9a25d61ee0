# Generated from tests/pool/test_bad_input.py by .github/scripts/generate_threading.py; do not edit.

"""Bad input: an error of the right type whose message names the value and what was expected, and nothing is changed."""

import math
from fractions import Fraction
from typing import Any

import pytest

from gcpool.threading import BaseConnectionManager, ConnectionPool
from tests.pool_threads.support import Case, Duck, HookedManager, Manager
from tests.support import Connection, Endpoint, shown
from tests.threads.runtime import OtherRuntimeDuck, OtherRuntimeManager

NAN = math.nan

# ---- parameters ---------------------------------------------------------------------------------------------------

BAD_SECONDS = [
    (-1, ValueError, 'expected seconds, 0 or more'),
    (-0.001, ValueError, 'expected seconds, 0 or more'),
    (-math.inf, ValueError, 'expected seconds, 0 or more'),
    (NAN, ValueError, 'expected seconds, 0 or more'),
    (10**400, ValueError, 'expected seconds that a float can hold'),
    ('60', TypeError, 'expected seconds as a float, got str'),
    (True, TypeError, 'expected seconds as a float, got bool'),
    (1j, TypeError, 'expected seconds as a float, got complex'),
    ([1.0], TypeError, 'expected seconds as a float, got list'),
]
BAD_COUNTS = [
    (-1, ValueError, 'or more, and at most 2147483647'),
    (2**31, ValueError, 'or more, and at most 2147483647'),
    (2**100, ValueError, 'or more, and at most 2147483647'),
    (1.0, TypeError, 'expected a number of connections as an int, got float'),
    (math.inf, TypeError, 'expected a number of connections as an int, got float'),
    (NAN, TypeError, 'expected a number of connections as an int, got float'),
    ('1', TypeError, 'expected a number of connections as an int, got str'),
    (None, TypeError, 'expected a number of connections as an int, got NoneType'),
    (True, TypeError, 'expected a number of connections as an int, got bool'),
    (False, TypeError, 'expected a number of connections as an int, got bool'),
]
BAD_PARAMETERS = [
    *[
        (name, *bad)
        for name in ('idle_timeout', 'max_lifetime', 'check_interval')
        for bad in [*BAD_SECONDS, (None, TypeError, 'expected seconds as a float, got NoneType')]
    ],
    *[(name, *bad) for name in ('acquire_timeout', 'dispose_timeout', 'check_timeout') for bad in BAD_SECONDS],
    *[(name, *bad) for name in ('min_idle', 'max_size', 'total_max_size', 'dispose_batch_size') for bad in BAD_COUNTS],
    *[('max_workers', value, error, text.replace('connections', 'workers')) for value, error, text in BAD_COUNTS],
    *[('max_waiting', value, error, text.replace('connections', 'acquires')) for value, error, text in BAD_COUNTS],
    ('check_timeout', 0, ValueError, 'expected more than 0 seconds'),
    ('max_size', 0, ValueError, 'expected 1 or more'),
    ('total_max_size', 0, ValueError, 'expected 1 or more'),
    ('background_collector', None, TypeError, 'expected a bool, got NoneType'),
    ('background_collector', 'yes', TypeError, 'expected a bool, got str'),
    ('background_collector', 1.0, TypeError, 'expected a bool, got float'),
    # Python takes True for 1, but it is more likely another parameter's value.
    ('background_collector', 7, TypeError, 'expected a bool, got int'),
    ('background_collector', 1, TypeError, 'expected a bool, got int'),
    ('background_collector', 0, TypeError, 'expected a bool, got int'),
]


@pytest.mark.parametrize(
    ('name', 'value', 'error', 'expected'), BAD_PARAMETERS, ids=[f'{bad[0]}={bad[1]!r}' for bad in BAD_PARAMETERS]
)
def test_a_bad_parameter_is_refused_by_name(name: str, value: object, error: type[Exception], expected: str) -> None:
    options: dict[str, Any] = {name: value}
    with pytest.raises(error) as caught:
        ConnectionPool(Manager(), **options)
    assert type(caught.value) is error
    assert str(caught.value).startswith(f'{name}={value!r}: ')
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'min_idle': 11, 'max_size': 10}, 'min_idle=11 is greater than max_size=10: expected at most that'),
        ({'min_idle': 3, 'max_size': 2}, 'min_idle=3 is greater than max_size=2: expected at most that'),
        (
            {'max_size': 101, 'total_max_size': 100},
            'max_size=101 is greater than total_max_size=100: expected at most that',
        ),
        ({'max_size': 10, 'total_max_size': 9}, 'max_size=10 is greater than total_max_size=9: expected at most that'),
        (
            {'idle_timeout': 3601},
            'idle_timeout=3601.0 is greater than max_lifetime=3600.0: expected at most that',
        ),
        ({'idle_timeout': math.inf}, 'idle_timeout=inf is greater than max_lifetime=3600.0: expected at most that'),
    ],
)
def test_parameters_that_contradict_each_other_are_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        ConnectionPool(Manager(), **options)
    assert str(caught.value) == message


def test_a_bad_parameter_starts_no_collector() -> None:
    # tests/conftest.py looks for threads that are left.
    with pytest.raises(ValueError, match='max_size=0'):
        ConnectionPool(Manager(), background_collector=True, max_size=0)


class Three:
    """Is converted to an int on demand."""

    def __index__(self) -> int:
        return 3


@pytest.mark.parametrize(
    'options',
    [
        {'idle_timeout': 0, 'max_lifetime': 0},
        {'idle_timeout': 3600, 'max_lifetime': 3600},
        {'idle_timeout': math.inf, 'max_lifetime': math.inf},
        {'idle_timeout': Fraction(1, 3), 'max_lifetime': 1},
        {'acquire_timeout': None, 'dispose_timeout': None},
        {'acquire_timeout': 0, 'dispose_timeout': 0},
        {'check_interval': 0, 'check_timeout': 1e-9},
        {'check_interval': math.inf, 'check_timeout': math.inf},
        {'acquire_timeout': math.inf, 'dispose_timeout': math.inf},
        {'min_idle': 0, 'max_size': 1, 'total_max_size': 1},
        {'min_idle': 10, 'max_size': 10, 'total_max_size': 10},
        {'min_idle': 0, 'max_size': 2**31 - 1, 'total_max_size': 2**31 - 1},
        {'min_idle': Three(), 'max_size': Three(), 'total_max_size': Three()},
        {'dispose_batch_size': 2**31 - 1},
        {'background_collector': False},
        {'background_collector': True},
    ],
    ids=shown,
)
def test_parameters_at_the_edge_are_accepted(options: dict[str, Any]) -> None:
    with Case(**options) as case:
        case.cycle('a')


def test_parameters_are_passed_by_name() -> None:
    make: Any = ConnectionPool
    with pytest.raises(TypeError):
        make(Manager(), 60.0)
    with pytest.raises(TypeError, match='max_sise'):
        make(Manager(), max_sise=1)
    with pytest.raises(TypeError):
        make()


def test_a_pool_without_its_init_is_refused() -> None:
    pool: ConnectionPool[str, Connection] = ConnectionPool.__new__(ConnectionPool)
    with pytest.raises(RuntimeError, match=r'ConnectionPool.__init__\(\) was not called'):
        pool.acquire('a')
    context = pool.connection('a')
    with pytest.raises(RuntimeError, match=r'ConnectionPool.__init__\(\) was not called'):
        context.__enter__()
    # A pool for threads looks first whether it has the connection.
    with pytest.raises(RuntimeError, match=r'__init__\(\) was not called|does not belong to'):
        pool.release(Connection('a', 1), 'a')
    assert pool.get_size() == 0


def test_a_pool_is_built_once() -> None:
    with Case() as case:
        conn = case.pool.acquire('a')
        with pytest.raises(RuntimeError, match='was already called'):
            case.pool.__init__(Manager())  # type: ignore[misc]
        case.release(conn)
        assert case.pool.get_endpoint_pool_size('a', acquired=False) == 1


# ---- managers -----------------------------------------------------------------------------------------------------


class WithoutCreate:
    dispose = Duck.dispose


class WithoutDispose:
    create = Duck.create


class WithAValueForAMethod(Duck):
    dispose: Any = 1


class WithAValueForAHook(Manager):
    on_acquire: Any = 1


@pytest.mark.parametrize(
    ('manager', 'parts'),
    [
        (None, ['None', 'has no method create()']),
        ('postgresql://me:secret@db/shop', ['is a str', 'where to connect is a parameter of the manager']),
        (WithoutCreate(), ['WithoutCreate', 'has no method create()']),
        (WithoutDispose(), ['WithoutDispose', 'has no method dispose()']),
        (WithAValueForAMethod(), ['WithAValueForAMethod', 'dispose']),
        (Manager, ['the class Manager', 'an instance']),
        (Duck, ['the class Duck', 'an instance']),
        (OtherRuntimeManager(), ['OtherRuntimeManager', 'for the other runtime']),
        (OtherRuntimeDuck(), ['OtherRuntimeDuck', 'coroutine function']),
    ],
    ids=shown,
)
def test_an_object_that_is_no_manager_for_this_pool_is_refused(manager: Any, parts: list[str]) -> None:
    with pytest.raises(TypeError) as caught:
        ConnectionPool(manager)
    for part in [*parts, 'connection_manager', 'expected a gcpool.threading.BaseConnectionManager']:
        assert part in str(caught.value)


def test_a_hook_that_is_no_method_is_refused() -> None:
    with pytest.raises(TypeError, match=r'connection_manager\.on_acquire is 1: expected a method'):
        ConnectionPool(WithAValueForAHook())


@pytest.mark.parametrize('missing', ['create', 'dispose'])
def test_a_manager_class_that_lacks_an_abstract_method_makes_no_manager(missing: str) -> None:
    present = {'create', 'dispose'} - {missing}
    incomplete: Any = type('Incomplete', (BaseConnectionManager,), {name: getattr(Manager, name) for name in present})
    with pytest.raises(TypeError, match=f'Incomplete.*{missing}'):
        incomplete()


def test_a_manager_that_knows_nothing_of_gcpool_will_do() -> None:
    duck: Any = Duck()
    pool: ConnectionPool[str, object] = ConnectionPool(duck)
    with pool.connection('a') as conn:
        assert type(conn) is object
    assert pool.close() == 0


# ---- time limits --------------------------------------------------------------------------------------------------

BAD_TIMEOUTS = pytest.mark.parametrize(
    ('timeout', 'error'),
    [
        (-1, ValueError),
        (-0.5, ValueError),
        (-math.inf, ValueError),
        (NAN, ValueError),
        (10**400, ValueError),
        (Fraction(10**400), ValueError),
        ('1', TypeError),
        (True, TypeError),
        (1j, TypeError),
        ([], TypeError),
    ],
    ids=shown,
)


def check_timeout_message(caught: 'pytest.ExceptionInfo[Exception]', timeout: object) -> None:
    message = str(caught.value)
    assert message.startswith('timeout')
    assert repr(timeout) in message
    assert 'expected seconds' in message


@BAD_TIMEOUTS
@pytest.mark.parametrize('manager_class', [Manager, HookedManager])
def test_a_bad_time_limit_of_acquire_is_refused_and_changes_nothing(
    manager_class: type[Manager], timeout: Any, error: type[Exception]
) -> None:
    with Case(manager_class()) as case:
        case.cycle('a')
        before = case.stats
        for endpoint in 'ab':
            with pytest.raises(error) as caught:
                case.pool.acquire(endpoint, timeout=timeout)
            check_timeout_message(caught, timeout)
            with pytest.raises(error) as caught:
                case.pool.connection(endpoint, timeout).__enter__()
            check_timeout_message(caught, timeout)
        assert case.stats == before


@BAD_TIMEOUTS
def test_a_bad_time_limit_of_close_is_refused_and_the_pool_stays_open(timeout: Any, error: type[Exception]) -> None:
    with Case() as case:
        case.cycle('a')
        with pytest.raises(error) as caught:
            case.pool.close(timeout=timeout)
        check_timeout_message(caught, timeout)
        assert case.cycle('a') == 'a1'


# ---- what to count ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('used', [False, True])
@pytest.mark.parametrize('acquired', ['x', '', 0, 1, 1.0, []], ids=shown)
def test_a_bad_value_of_acquired_is_refused_by_name(acquired: Any, used: bool) -> None:
    with Case() as case:
        if used:
            case.cycle('a')
        with pytest.raises(TypeError) as caught:
            case.pool.get_endpoint_pool_size('a', acquired)
        expected = f'acquired={acquired!r}: expected True, False or None, got {type(acquired).__name__}'
        assert str(caught.value) == expected


# ---- endpoints ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('used', [False, True])
@pytest.mark.parametrize('endpoint', [['a'], {}, {1}, ('a', [])], ids=shown)
def test_an_endpoint_that_cannot_be_hashed_is_refused_and_changes_nothing(endpoint: Any, used: bool) -> None:
    with Case() as case:
        if used:
            case.cycle('a')
        before = case.stats
        expected = f'endpoint {endpoint!r} of type {type(endpoint).__name__}: expected a hashable object'
        for call in (
            lambda: case.pool.acquire(endpoint),
            lambda: case.pool.acquire(endpoint, timeout=0),
            lambda: case.pool.connection(endpoint).__enter__(),
            lambda: case.pool.get_endpoint_pool_size(endpoint),
        ):
            with pytest.raises(TypeError) as caught:
                call()
            assert str(caught.value) == expected
        assert case.stats == before
        assert case.manager.calls == (['create a'] if used else [])


class Moody(Endpoint):
    """An endpoint whose hash and equality fail on demand."""

    fails: str | None = None

    def __eq__(self, other: object) -> bool:
        if Moody.fails == 'equality':
            raise LookupError('equality')
        return super().__eq__(other)

    def __hash__(self) -> int:
        if Moody.fails == 'hash':
            raise LookupError('hash')
        return 1


@pytest.mark.parametrize('what', ['hash', 'equality'])
def test_an_endpoint_whose_own_code_raises_reaches_the_caller_and_changes_nothing(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Case() as case:
        first = Moody('a')
        conn = case.pool.acquire(first)
        before = case.stats
        monkeypatch.setattr(Moody, 'fails', what)
        with pytest.raises(LookupError, match=what):
            case.pool.acquire(Moody('a'))
        with pytest.raises(LookupError, match=what):
            case.pool.get_endpoint_pool_size(Moody('a'))
        assert case.stats == before
        # The very object that it was acquired for is found all the same.
        case.pool.release(conn, first)
        monkeypatch.undo()
        assert case.pool.acquire(Moody('a')) is conn
        case.pool.release(conn, first)
