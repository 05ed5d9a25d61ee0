# Generated from tests/pool/test_api.py by .github/scripts/generate_threading.py; do not edit.

"""The interface: names, parameters and their defaults, types, properties and methods."""

import inspect
import weakref
from typing import Any, Generic, get_origin, get_type_hints
from unittest.mock import Mock

import pytest

import gcpool.threading
from gcpool.common import ALL_ENDPOINTS
from gcpool.threading import BaseConnectionManager, ConnectionPool, ConnectionT, EndpointT
from tests.pool_threads.support import Case, CheckingManager, HookedManager, Manager
from tests.support import Connection
from tests.threads.runtime import spawn

DEFAULTS = {
    'idle_timeout': 60.0,
    'max_lifetime': 3600.0,
    'min_idle': 1,
    'max_size': 10,
    'total_max_size': 100,
    'acquire_timeout': None,
    'background_collector': False,
    'dispose_batch_size': 0,
    'dispose_timeout': None,
    'create_timeout': None,
    'min_size': 0,
    'create_in_background': False,
    'max_connecting': None,
    'reconnect_timeout': 0.0,
    'reconnect_failed': None,
    'wait_when_full': False,
    'fail_fast': False,
    'check_interval': 0.0,
    'check_timeout': None,
    'order': 'lifo',
    'keep': 'size',
    'max_waiting': 0,
    'max_workers': 0,
    'open': True,
    'close_timeout': 5.0,
    'name': None,
    'record_holders': False,
    'leak_threshold': None,
    'on_event': None,
    'keepalive_interval': 0.0,
    'lifetime_jitter': 0.0,
    'max_uses': 0,
}
PROPERTIES = {
    'idle_timeout': 1.5,
    'max_lifetime': 2.5,
    'min_idle': 3,
    'max_size': 4,
    'total_max_size': 5,
    'check_interval': 6.5,
    'check_timeout': 7.5,
    'order': 'fifo',
    'keep': 'idle',
    'max_waiting': 8,
    'max_workers': 9,
    'close_timeout': 8.5,
    'keepalive_interval': 2.25,
    'lifetime_jitter': 0.5,
    'max_uses': 6,
    'record_holders': True,
    'leak_threshold': 4.5,
}


def test_the_constructor_takes_the_manager_and_then_keywords_with_these_defaults() -> None:
    (name, manager), *options = [
        item for item in inspect.signature(ConnectionPool).parameters.items() if not item[0].startswith('_')
    ]
    assert name == 'connection_manager'
    assert manager.default is inspect.Parameter.empty
    assert {name: option.default for name, option in options} == DEFAULTS
    assert {option.kind for _, option in options} == {inspect.Parameter.KEYWORD_ONLY}


def test_the_manager_may_be_given_by_name() -> None:
    assert ConnectionPool(connection_manager=Manager()).get_size() == 0


def test_the_properties_tell_the_parameters() -> None:
    pool = ConnectionPool(Manager())
    assert {name: getattr(pool, name) for name in PROPERTIES} == {name: DEFAULTS[name] for name in PROPERTIES}
    options: dict[str, Any] = PROPERTIES
    pool = ConnectionPool(CheckingManager(), **options)
    assert {name: getattr(pool, name) for name in PROPERTIES} == PROPERTIES
    kinds = [float, float, int, int, int, float, float, str, str, int, int, float, float, float, int, bool, float]
    assert [type(getattr(pool, name)) for name in PROPERTIES] == kinds
    assert pool.is_full is False


@pytest.mark.parametrize('name', [*PROPERTIES, 'is_full', 'closed'])
def test_the_properties_cannot_be_set(name: str) -> None:
    pool = ConnectionPool(Manager())
    value = getattr(pool, name)
    with pytest.raises(AttributeError):
        setattr(pool, name, 7)
    assert getattr(pool, name) == value


@pytest.mark.parametrize(
    ('method', 'parameters'),
    [
        ('acquire', {'endpoint': ..., 'timeout': None}),
        ('try_acquire', {'endpoint': ...}),
        ('release', {'conn': inspect.Parameter.empty, 'endpoint': ...}),
        ('discard', {'conn': inspect.Parameter.empty}),
        ('detach', {'conn': inspect.Parameter.empty}),
        ('connection', {'endpoint': ..., 'timeout': None, 'long': False}),
        ('open', {}),
        ('close', {'timeout': None, 'wait': True}),
        ('terminate', {}),
        ('drain', {'endpoint': ALL_ENDPOINTS, 'idle_only': False}),
        ('forget', {'endpoint': inspect.Parameter.empty}),
        ('warm_up', {'endpoint': ..., 'size': None}),
        ('wait', {'timeout': 30.0}),
        ('suspend', {'fail': False}),
        ('resume', {}),
        ('wait_idle', {'timeout': None}),
        ('get_size', {}),
        ('get_endpoint_pool_size', {'endpoint': inspect.Parameter.empty, 'acquired': None}),
        ('get_stats', {'endpoint': ALL_ENDPOINTS}),
        ('pop_stats', {}),
    ],
)
def test_the_methods_have_these_parameters_and_say_what_they_do(method: str, parameters: dict[str, Any]) -> None:
    function = getattr(ConnectionPool(Manager()), method)
    assert {name: value.default for name, value in inspect.signature(function).parameters.items()} == parameters
    assert function.__doc__
    assert function.__name__ == method


def test_every_parameter_of_the_methods_may_be_given_by_name() -> None:
    with Case() as case:
        conn = case.pool.acquire(endpoint='a', timeout=None)
        assert case.pool.get_endpoint_pool_size(endpoint='a', acquired=True) == 1
        case.pool.release(conn=conn, endpoint='a')
        with case.pool.connection(endpoint='a', timeout=0) as conn:
            assert conn.name == 'a1'
        assert case.pool.close(timeout=None) == 0


def test_every_parameter_of_the_methods_may_be_given_by_position() -> None:
    with Case() as case:
        conn = case.pool.acquire('a', 0)
        assert case.pool.get_endpoint_pool_size('a', True) == 1
        case.pool.release(conn, 'a')
        with case.pool.connection('a', 0) as conn:
            assert conn.name == 'a1'
        assert case.pool.close(0) == 0


def test_a_pool_is_subscriptable() -> None:
    pool = ConnectionPool[str, Connection](Manager(), min_idle=2)
    assert type(pool) is ConnectionPool
    assert pool.min_idle == 2
    assert (pool.acquire('a')).name == 'a1'
    assert pool.close(timeout=0) == 1


def test_managers_are_subscriptable() -> None:
    class MyManager(BaseConnectionManager[str, int]):
        create = Manager.create  # type: ignore[assignment]
        dispose = Manager.dispose  # type: ignore[assignment]

    assert ConnectionPool[str, int](MyManager()).get_size() == 0


def test_a_pool_is_a_base_connection_pool() -> None:
    assert isinstance(ConnectionPool(Manager()), gcpool.BaseConnectionPool)
    assert issubclass(ConnectionPool, gcpool.BaseConnectionPool)


def test_the_type_variables_are_there_to_write_generic_programs_with() -> None:
    class Wrapper(Generic[EndpointT, ConnectionT]):
        pool: ConnectionPool[EndpointT, ConnectionT]

    assert get_origin(get_type_hints(Wrapper)['pool']) is ConnectionPool


def test_a_manager_must_have_create_and_dispose_and_no_other_method() -> None:
    assert BaseConnectionManager.__abstractmethods__ == {'create', 'dispose'}
    optional = {'check_aliveness', 'on_acquire', 'on_release', 'on_connection_dead'}
    assert optional < {*vars(BaseConnectionManager)}


def test_the_names_that_programs_import_are_exported() -> None:
    names = {'BaseConnectionManager', 'ConnectionPool', 'ConnectionT', 'EndpointT', 'NullConnectionPool'}
    assert names == {*gcpool.threading.__all__}


def test_a_pool_is_true_hashable_and_weakly_referable() -> None:
    pool = ConnectionPool(Manager())
    assert bool(pool)
    assert {pool, pool} == {pool}
    assert weakref.ref(pool)() is pool


def test_the_representation_names_the_pool_and_says_its_state() -> None:
    with Case(name='orders', max_size=2, total_max_size=8) as case:
        case.cycle('a')
        start = '<gcpool.threading.ConnectionPool '
        assert repr(case.pool) == f"{start}'orders': 0/8 in use, 1 idle, 0 waiting>"
        conns = case.acquire('a', 2)
        waiting = spawn(case.pool.acquire, 'a')
        case.waiting(1)
        assert repr(case.pool) == f"{start}'orders': 2/8 in use, 0 idle, 1 waiting>"
        case.release(*conns)
        case.release(waiting.result())
        case.pool.close()
        assert repr(case.pool) == f"{start}'orders': closed, 0/8 in use, 0 idle, 0 waiting>"


def test_a_program_may_subclass_the_pool_and_give_it_attributes() -> None:
    class MyPool(ConnectionPool[str, Connection]):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.taken = 0

        def acquire(self, endpoint: str, timeout: float | None = None) -> Connection:  # type: ignore[override]
            self.taken += 1
            return super().acquire(endpoint, timeout)

    pool = MyPool(Manager(), max_size=2)
    conn = pool.acquire('a')
    assert (pool.taken, conn.name) == (1, 'a1')
    pool.release(conn, 'a')
    assert pool.close() == 0


@pytest.mark.parametrize('collector', [False, True])
def test_a_pool_has_nothing_in_its_dict(collector: bool) -> None:
    """Since Python 3.12 the interpreter looks up an object's methods more slowly once the object has a dict."""
    with Case(HookedManager(), max_size=1, idle_timeout=60, background_collector=collector, check_interval=1.0) as case:
        [conn] = case.acquire('a', 1)
        job = spawn(case.pool.acquire, 'a')
        case.waiting(1)
        case.release(conn)
        case.release(job.result())
    assert vars(case.pool) == {}


def test_a_mock_made_from_the_base_class_will_do_for_a_manager() -> None:
    manager = Mock(spec=BaseConnectionManager)
    pool: ConnectionPool[str, Any] = ConnectionPool(manager)
    for _ in range(2):
        with pool.connection('a') as conn:
            assert conn is manager.create.return_value
    assert pool.close() == 0
    assert [name for name, _, _ in manager.mock_calls if '()' not in name] == [
        'create',
        'on_acquire',
        'on_release',
        'check_aliveness',
        'on_acquire',
        'on_release',
        'dispose',
    ]


def test_one_manager_may_serve_several_pools() -> None:
    manager = HookedManager()
    first, second = ConnectionPool(manager), ConnectionPool(manager)
    with first.connection('a') as conn, second.connection('a') as other:
        assert conn is not other
    assert (first.get_size(), second.get_size()) == (1, 1)
    assert first.close() == second.close() == 0
    assert manager.living == []
