"""The parameters that several managers have: valid and invalid values, and the same message for all."""

import importlib
import math
import threading
from typing import Any

import pytest

from gcpool.contrib._parameters import finite_time_limit, positive_time_limit, time_limit

# For each manager, the other arguments that it needs; and, for each of its time limits, how to set no limit: by None
# and infinity, by infinity alone, or not at all.
NOTHING: dict[Any, Any] = {}
MANAGERS: dict[str, tuple[tuple[Any, ...], dict[str, str]]] = {
    'psycopg.ConnectionManager': ((NOTHING,), {'rollback_timeout': 'none', 'cancel_timeout': 'bounded'}),
    'psycopg.AsyncConnectionManager': ((NOTHING,), {'rollback_timeout': 'none', 'cancel_timeout': 'bounded'}),
    'psycopg2.DbConnectionManager': ((NOTHING,), {'rollback_timeout': 'none', 'cancel_timeout': 'bounded'}),
    'asyncpg.DbConnectionManager': ((NOTHING,), {'rollback_timeout': 'none', 'close_timeout': 'none'}),
    'pymysql.DbConnectionManager': ((NOTHING,), {'rollback_timeout': 'none', 'close_timeout': 'none'}),
    'asyncmy.DbConnectionManager': ((NOTHING,), {'rollback_timeout': 'none', 'close_timeout': 'none'}),
    'redis.RedisConnectionManager': ((NOTHING,), {'reset_timeout': 'none'}),
    'redis.AsyncRedisConnectionManager': ((NOTHING,), {'reset_timeout': 'none', 'close_timeout': 'none'}),
    'sqlite3.SqliteConnectionManager': ((), {'timeout': 'infinity'}),
    'aiosqlite.SqliteConnectionManager': ((), {'timeout': 'infinity', 'close_timeout': 'none'}),
    'http.HttpConnectionManager': ((), {'timeout': 'none'}),
    'socket_async.TcpStreamConnectionManager': ((), {'close_timeout': 'none'}),
    'unix_async.UnixSocketStreamConnectionManager': ((), {'close_timeout': 'none'}),
}
# The managers of databases, and the type of their codes.
NUMBERS = ('pymysql', 'asyncmy', 'sqlite3', 'aiosqlite')
DATABASES = [name for name in MANAGERS if name.partition('.')[0] not in ('http', 'socket_async', 'unix_async')]
LIMITS = [(name, limit) for name, (_, limits) in MANAGERS.items() for limit in limits]


def make(name: str, **parameters: Any) -> Any:
    module, _, kind = name.partition('.')
    contrib = pytest.importorskip(f'gcpool.contrib.{module}', exc_type=ImportError)
    return getattr(contrib, kind)(*MANAGERS[name][0], **parameters)


@pytest.mark.parametrize('name', DATABASES)
@pytest.mark.parametrize('value', ['Full', 'all', '', None, True, b'full', ['full']])
def test_reset_is_one_of_two_words(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=r"^reset=.*: expected 'rollback' or 'full'$"):
        make(name, reset=value)
    for reset in ('rollback', 'full'):
        make(name, reset=reset)


@pytest.mark.parametrize('name', DATABASES)
def test_broken_codes_are_a_collection_of_codes(name: str) -> None:
    code: Any = 8 if name.partition('.')[0] in NUMBERS else '25006'
    other = str(code) if isinstance(code, int) else 8
    for value in ('25006', b'25006', bytearray(b'2'), memoryview(b'2'), 8, None, {code: 'why'}, iter([code])):
        with pytest.raises(TypeError, match=r'(?s)^broken_codes=.*: expected a collection of error codes$'):
            make(name, broken_codes=value)
    kind = type(code).__name__
    for wrong in (other, b'25006', 8.0, True, None, [code]):
        with pytest.raises(TypeError, match=rf'^broken_codes has .*: expected error codes as {kind}$'):
            make(name, broken_codes=[code, wrong])
    module = importlib.import_module(f'gcpool.contrib.{name.partition(".")[0]}')
    assert isinstance(module.BROKEN_CODES, frozenset)
    assert 'BROKEN_CODES' in module.__all__
    for good in ((), [code], {code}, frozenset({code}), {code: None}.keys(), module.BROKEN_CODES | {code}):
        make(name, broken_codes=good)


@pytest.mark.parametrize(('name', 'limit'), LIMITS)
def test_time_limits(name: str, limit: str) -> None:
    value: Any
    for value in ('x', b'1', [1], True):
        with pytest.raises(TypeError, match=rf'^{limit}=.*: expected seconds as a float, got '):
            make(name, **{limit: value})
    for value in (-1, -math.inf, math.nan):
        with pytest.raises(ValueError, match=rf'^{limit}=.*: expected seconds, 0 or more'):
            make(name, **{limit: value})
    for good in (0.5, 1, threading.TIMEOUT_MAX):
        make(name, **{limit: good})
    kind = MANAGERS[name][1][limit]
    if kind == 'none':
        make(name, **{limit: None})
    else:
        with pytest.raises(TypeError, match=rf'^{limit}=None: expected seconds as a float$'):
            make(name, **{limit: None})
    if kind == 'bounded':
        with pytest.raises(ValueError, match=rf'^{limit}=inf: expected seconds, fewer than a thread can wait$'):
            make(name, **{limit: math.inf})
    else:
        make(name, **{limit: math.inf})
    if limit == 'timeout' and name.startswith('http'):
        with pytest.raises(ValueError, match=r'^timeout=0: expected seconds, more than 0, or None for no limit$'):
            make(name, timeout=0)
    else:
        make(name, **{limit: 0})


def test_more_than_threads_can_wait_is_no_limit() -> None:
    for seconds in (None, math.inf, 2 * threading.TIMEOUT_MAX):
        assert time_limit('t', seconds) is None
        assert positive_time_limit('t', seconds) is None
        assert finite_time_limit('t', seconds) == threading.TIMEOUT_MAX
    for check in (time_limit, positive_time_limit, finite_time_limit):
        assert check('t', 1) == 1.0
