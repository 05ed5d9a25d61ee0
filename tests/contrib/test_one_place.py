"""Managers that are given the parameters of one place: they have a default endpoint, and say where it is."""

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest

from gcpool._hooks import NO_ENDPOINT, Hooks
from gcpool.contrib._one_place import DEFAULT_ENDPOINT
from gcpool.exceptions import UnknownEndpoint
from gcpool.managers import AsyncConnectionManager, SyncConnectionManager
from tests.contrib.conftest import Run

TEXT = ['psycopg.ConnectionManager', 'psycopg.AsyncConnectionManager', 'psycopg2.DbConnectionManager']
TEXT += ['asyncpg.DbConnectionManager', 'redis.RedisConnectionManager', 'redis.AsyncRedisConnectionManager']
NO_TEXT = ['pymysql.DbConnectionManager', 'asyncmy.DbConnectionManager']
FILES = ['sqlite3.SqliteConnectionManager', 'aiosqlite.SqliteConnectionManager']

all_kinds = pytest.mark.parametrize('name', TEXT + NO_TEXT)
kinds_with_text = pytest.mark.parametrize('name', TEXT)
files = pytest.mark.parametrize('name', FILES)


def kind_of(name: str) -> Any:
    module, _, kind = name.partition('.')
    return getattr(pytest.importorskip(f'gcpool.contrib.{module}', exc_type=ImportError), kind)


def default_of(manager: Any) -> Any:
    base = AsyncConnectionManager if isinstance(manager, AsyncConnectionManager) else SyncConnectionManager
    return Hooks(manager, base).default_endpoint


async def result_of(call: Any) -> Any:
    return await call if inspect.isawaitable(call) else call


@all_kinds
@pytest.mark.parametrize(
    ('params', 'shown'),
    [
        ({'host': 'db.example', 'port': 5432, 'user': 'app', 'password': 's3cret'}, 'db.example:5432'),
        ({'host': 'db.example', 'user': 'app', 'database': 'orders', 'password': 's3cret'}, 'db.example/orders'),
        ({'port': 5432, 'password': 's3cret'}, ':5432'),
        ({'host': ['a', 'b'], 'password': 's3cret'}, 'a,b'),
        ({'database': 'orders', 'ssl': {'ca': 's3cret'}}, '/orders'),
        ({'unix_socket': '/run/db', 'password': 's3cret'}, '/run/db'),
        ({'path': Path('/run/db'), 'password': 's3cret'}, '/run/db'),
        ({'user': 'app', 'password': 's3cret'}, DEFAULT_ENDPOINT),
    ],
)
def test_a_dict_of_parameters_is_one_place(name: str, params: dict[str, Any], shown: str) -> None:
    manager = kind_of(name)(params)
    assert default_of(manager) == DEFAULT_ENDPOINT == 'default'
    assert manager.describe_endpoint(DEFAULT_ENDPOINT) == shown
    assert manager.describe_endpoint('other') == 'other'


@all_kinds
def test_a_mapping_of_endpoints_or_a_callable_is_not(name: str) -> None:
    entries: list[Any] = [{}, {'host': 'db.example'}, lambda endpoint: {}]
    if name in TEXT:
        entries += ['', 'host=db.example', 'redis://db.example']
    # Names of endpoints may be those of parameters.
    sources: list[Any] = [{}, lambda endpoint: {}, {'db': 5}, {'main': None}]
    sources += [{where: entry} for where in ('main', 'host', 'port', 'user', 'database') for entry in entries]
    for source in sources:
        manager = kind_of(name)(source)
        assert default_of(manager) is NO_ENDPOINT
        assert not hasattr(manager, 'default_endpoint')
        assert manager.describe_endpoint(DEFAULT_ENDPOINT) == DEFAULT_ENDPOINT


@all_kinds
def test_the_program_may_choose_the_default_of_several(name: str) -> None:
    manager = kind_of(name)({'main': {}, 'replica': {}})
    manager.default_endpoint = 'main'
    assert default_of(manager) == 'main'
    assert manager.describe_endpoint('main') == 'main'


@kinds_with_text
@pytest.mark.parametrize(
    ('dsn', 'shown'),
    [
        ('postgresql://app:s3cret@db.example:5432/orders?sslmode=require', 'db.example:5432/orders'),
        ('redis://:s3cret@db.example:6379/0', 'db.example:6379/0'),
        ('host=db.example dbname=orders password=s3cret', 'db.example/orders'),
        ('redis://db.example/2', 'db.example/2'),
        ('s3cret', DEFAULT_ENDPOINT),
        ('', DEFAULT_ENDPOINT),
    ],
)
def test_a_connection_string_is_one_place(name: str, dsn: str, shown: str) -> None:
    manager = kind_of(name)(dsn)
    assert default_of(manager) == DEFAULT_ENDPOINT
    assert manager.describe_endpoint(DEFAULT_ENDPOINT) == shown


@pytest.mark.parametrize('name', NO_TEXT)
def test_a_driver_that_reads_no_string_is_given_none(name: str) -> None:
    with pytest.raises(TypeError, match=r'^params: expected a mapping') as caught:
        kind_of(name)('mysql://app:s3cret@db.example')
    assert 's3cret' not in str(caught.value)


SERVERS = {
    'psycopg.ConnectionManager': ('postgres', ('dsn', 'conninfo_params'), 'SELECT 42'),
    'psycopg.AsyncConnectionManager': ('postgres', ('dsn', 'conninfo_params'), 'SELECT 42'),
    'psycopg2.DbConnectionManager': ('postgres', ('dsn', 'dsn_params'), None),
    'asyncpg.DbConnectionManager': ('postgres', ('dsn', 'dsn_params'), 'SELECT 42'),
    'pymysql.DbConnectionManager': ('mariadb', ('params',), None),
    'asyncmy.DbConnectionManager': ('mariadb', ('params',), None),
    'redis.RedisConnectionManager': ('redis_server', ('url',), None),
    'redis.AsyncRedisConnectionManager': ('redis_server', ('url',), None),
}


@pytest.mark.parametrize(
    'name', [pytest.param(name, marks=[pytest.mark.postgres] * (SERVERS[name][0] == 'postgres')) for name in SERVERS]
)
def test_a_connection_to_the_one_place(request: pytest.FixtureRequest, run: Run, name: str) -> None:
    fixture, attributes, statement = SERVERS[name]
    server = request.getfixturevalue(fixture)
    for attribute in attributes:
        given = getattr(server, attribute)
        manager = kind_of(name)(given)

        async def main(manager: Any = manager) -> None:
            conn = await result_of(manager.create(manager.default_endpoint))
            try:
                if statement is not None:
                    await result_of(conn.execute(statement))
            finally:
                await result_of(manager.dispose(manager.default_endpoint, conn))
            with pytest.raises(UnknownEndpoint, match=r"endpoint 'main' is not in .* \['default'\]"):
                await result_of(manager.create('main'))

        run(main)
        if isinstance(given, dict):
            # What is changed counts at the next connect, as with endpoints.
            given.clear()
            given['host'] = 'no-such-host.invalid'

            async def fail(manager: Any = manager) -> None:
                with pytest.raises(Exception, match="'default'"):
                    await result_of(manager.create(manager.default_endpoint))

            run(fail)


@files
def test_the_database_of_those_who_name_none(name: str, tmp_path: Path, run: Run) -> None:
    assert default_of(kind_of(name)()) is NO_ENDPOINT
    path = tmp_path / 'orders.db'
    manager = kind_of(name)(database=path)
    assert default_of(manager) is path
    other = tmp_path / 'other.db'

    async def main() -> None:
        for endpoint in (path, other):
            normal = manager.normalize(endpoint)
            conn = await result_of(manager.create(normal))
            await result_of(manager.dispose(normal, conn))

    run(main)
    assert path.exists()
    assert other.exists()


def test_every_manager_of_a_database_is_here() -> None:
    from tests.contrib.test_parameters import DATABASES

    assert sorted(DATABASES) == sorted(TEXT + NO_TEXT + FILES)
    assert importlib.import_module('gcpool.contrib._one_place').__all__ == ['DEFAULT_ENDPOINT', 'OnePlace', 'Place']
