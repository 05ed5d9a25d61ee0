"""gcpool.psycopg_pool beside psycopg_pool: in its place, in its shape, at a fork, and at the end of a program."""

import asyncio
import importlib
import os
import subprocess
import sys
import textwrap
from typing import Any

import pytest

from tests.contrib.servers import PATIENCE, PostgresServer

psycopg = pytest.importorskip('psycopg')
original = pytest.importorskip('psycopg_pool')

import gcpool.psycopg_pool as drop_in  # noqa: E402

CLASSES = ['ConnectionPool', 'AsyncConnectionPool', 'NullConnectionPool', 'AsyncNullConnectionPool']

# Every public name of the classes of psycopg_pool 3.3.3, each reviewed: overridden here, or harmless.
PUBLIC = [
    'check',
    'check_connection',
    'close',
    'closed',
    'connection',
    'drain',
    'get_stats',
    'getconn',
    'max_size',
    'min_size',
    'open',
    'pop_stats',
    'putconn',
    'reconnect_failed',
    'resize',
    'run_task',
    'schedule_task',
    'wait',
    'worker',
]
# Special methods that psycopg_pool defines itself.
SPECIAL = {
    'ConnectionPool': {'__del__', '__enter__', '__exit__', '__init__', '__repr__'},
    'AsyncConnectionPool': {'__aenter__', '__aexit__', '__init__', '__repr__'},
    'NullConnectionPool': {'__del__', '__enter__', '__exit__', '__init__', '__repr__'},
    'AsyncNullConnectionPool': {'__aenter__', '__aexit__', '__init__', '__repr__'},
}

# What Python gives a class itself; the newer it is, the more.
OF_EVERY_CLASS = {
    *('__annotate_func__', '__annotations__', '__annotations_cache__', '__dict__', '__doc__', '__firstlineno__'),
    *('__module__', '__orig_bases__', '__parameters__', '__static_attributes__', '__weakref__'),
}

both = pytest.mark.parametrize(
    'package', ['gcpool.psycopg_pool', pytest.param('psycopg_pool', marks=pytest.mark.xfail(strict=True))]
)


def owner(kind: type, name: str) -> type:
    return next(base for base in kind.__mro__ if name in vars(base))


@pytest.mark.parametrize('name', CLASSES)
def test_nothing_public_of_the_original_is_left(name: str) -> None:
    theirs, ours = getattr(original, name), getattr(drop_in, name)
    assert [attribute for attribute in dir(theirs) if not attribute.startswith('_')] == PUBLIC
    special = {
        attribute
        for attribute in dir(theirs)
        if attribute.startswith('__') and owner(theirs, attribute).__module__.startswith('psycopg_pool')
    } - OF_EVERY_CLASS
    assert special == SPECIAL[name]
    for attribute in [*PUBLIC, *SPECIAL[name]]:
        assert owner(ours, attribute).__module__.startswith('gcpool.psycopg_pool'), attribute


@pytest.mark.parametrize('name', CLASSES)
def test_the_parameters_are_those_of_the_original(name: str) -> None:
    import inspect

    def parameters(function: Any) -> list[tuple[str, Any, Any]]:
        return [(each.name, each.kind, each.default) for each in inspect.signature(function).parameters.values()]

    theirs, ours = getattr(original, name), getattr(drop_in, name)
    for method in ['__init__', *(attribute for attribute in PUBLIC if callable(getattr(theirs, attribute)))]:
        assert parameters(getattr(ours, method)) == parameters(getattr(theirs, method)), method


@pytest.mark.parametrize('name', CLASSES)
def test_the_classes_are_those_that_programs_ask_for(name: str) -> None:
    pool = getattr(drop_in, name)('', open=False)
    assert isinstance(pool, getattr(original, name))
    assert isinstance(pool, original.AsyncConnectionPool if 'Async' in name else original.ConnectionPool)
    assert getattr(drop_in, name)[Any] is not None


PROGRAM = """\
import sys
sys.modules.pop('psycopg_pool', None)
import gcpool.psycopg_pool
{late}
try:
    gcpool.psycopg_pool.install({arguments})
    gcpool.psycopg_pool.install({arguments})
except RuntimeError as error:
    print(error)
import psycopg_pool, psycopg_pool.errors, psycopg_pool.base
from psycopg_pool import ConnectionPool
print(ConnectionPool is gcpool.psycopg_pool.ConnectionPool, psycopg_pool.errors.PoolTimeout.__module__)
gcpool.psycopg_pool.uninstall()
gcpool.psycopg_pool.uninstall()
import psycopg_pool
print(psycopg_pool.ConnectionPool is ConnectionPool, psycopg_pool.__name__)
"""


def run(program: str, *arguments: str) -> 'subprocess.CompletedProcess[str]':
    return subprocess.run(
        [sys.executable, '-W', 'error', '-c', program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


def test_install_puts_the_drop_in_in_the_place_of_psycopg_pool() -> None:
    ended = run(PROGRAM.format(late='', arguments=''))
    assert (ended.stdout.splitlines(), ended.stderr) == (
        ['True gcpool.psycopg_pool.errors', 'False psycopg_pool'],
        '',
    )


@pytest.mark.parametrize('statement', ['import psycopg_pool', 'from psycopg_pool import AsyncConnectionPool'])
def test_install_that_comes_too_late_names_the_modules(statement: str) -> None:
    ended = run(PROGRAM.format(late=statement, arguments=''))
    first = ended.stdout.splitlines()[0]
    assert first.startswith('install() comes too late: __main__ have already imported psycopg_pool')
    ended = run(PROGRAM.format(late=statement, arguments='force=True'))
    assert ended.stdout.splitlines()[0] == 'True gcpool.psycopg_pool.errors'


LAZY = """\
import sys
import gcpool.psycopg_pool as drop_in

def imported():
    ours = (name for name in sys.modules if name.startswith('gcpool.'))
    return sorted(name for name in ours if 'asyncio' in name or 'threads' in name)

print(imported(), 'pool' in vars(drop_in), set(drop_in.__all__) <= set(dir(drop_in)))
first = drop_in.ConnectionPool
print([name for name in imported() if name.startswith('gcpool.psycopg_pool') and 'asyncio' in name])
print(first is drop_in.ConnectionPool is vars(drop_in)['ConnectionPool'])
from gcpool.psycopg_pool import *
print(AsyncNullConnectionPool.__module__)
try:
    drop_in.NoSuchPool
except AttributeError as error:
    print(error)
"""


def test_a_pool_is_imported_when_it_is_first_asked_for() -> None:
    ended = run(LAZY)
    assert (ended.stdout.splitlines(), ended.stderr) == (
        [
            '[] False True',
            '[]',
            'True',
            'gcpool.psycopg_pool.null_pool_async',
            "module 'gcpool.psycopg_pool' has no attribute 'NoSuchPool'",
        ],
        '',
    )


WITHOUT_ORIGINAL = """\
import sys
sys.modules['psycopg_pool'] = None
import psycopg
from gcpool.psycopg_pool import ConnectionPool, NullConnectionPool, PoolClosed, PoolTimeout, TooManyRequests
for error in (PoolClosed, TooManyRequests, PoolTimeout):
    assert psycopg.OperationalError in error.__bases__, error
with ConnectionPool(sys.argv[1], min_size=1) as pool, pool.connection() as conn:
    print(conn.execute('SELECT 1').fetchone(), pool.name)
try:
    pool.getconn()
except PoolClosed as error:
    print(error)
"""


@pytest.mark.postgres
def test_psycopg_pool_need_not_be_installed(postgres: PostgresServer) -> None:
    ended = run(WITHOUT_ORIGINAL, postgres.dsn)
    assert (ended.stdout.splitlines(), ended.stderr) == (
        ['(1,) pool-1', "the pool 'pool-1' is already closed"],
        '',
    )


@pytest.mark.parametrize(('version', 'found'), [('None', 'cannot be imported'), ("'3.1.19'", 'this is 3.1.19')])
def test_a_psycopg_that_is_missing_or_too_old_is_named(version: str, found: str) -> None:
    ended = run(
        textwrap.dedent(f"""\
        import sys, types
        version = {version}
        sys.modules['psycopg'] = None if version is None else types.ModuleType('psycopg')
        if version is not None:
            sys.modules['psycopg'].__version__ = version
        import gcpool.psycopg_pool
        """)
    )
    assert ended.stderr.splitlines()[-1].startswith('ImportError: gcpool.psycopg_pool needs psycopg 3')
    assert found in ended.stderr.splitlines()[-1]


LEFT_OPEN = """\
import sys, importlib
pool = importlib.import_module(sys.argv[1]).ConnectionPool(sys.argv[2], min_size=2, open=True)
pool.wait()
print(len({id(pool)}))
"""


@pytest.mark.postgres
def test_a_program_that_leaves_its_pool_open_ends_without_a_word(postgres: PostgresServer) -> None:
    # psycopg_pool warns of up to four threads that do not end, but not with every version of Python.
    ended = subprocess.run(
        [sys.executable, '-c', LEFT_OPEN, 'gcpool.psycopg_pool', postgres.dsn],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == ('1\n', '', 0)


FORK = """\
import os, sys, importlib
pool = importlib.import_module(sys.argv[1]).ConnectionPool(sys.argv[2], min_size=1, open=True)
pool.wait()
with pool.connection() as conn:
    parent = conn.info.backend_pid
if child := os.fork():
    _, status = os.waitpid(child, 0)
    with pool.connection() as conn:
        assert conn.info.backend_pid == parent
        conn.execute('SELECT 1')
    pool.close()
    sys.exit(os.waitstatus_to_exitcode(status))
with pool.connection(timeout=3) as conn:
    good = conn.info.backend_pid != parent and conn.execute('SELECT 1').fetchone() == (1,)
pool.wait()
os._exit(0 if good else 3)
"""


@pytest.mark.postgres
@pytest.mark.skipif(not hasattr(os, 'fork'), reason='this system has no fork')
@both
def test_a_forked_child_has_a_pool_of_its_own(postgres: PostgresServer, package: str) -> None:
    ended = subprocess.run(
        # Threads of the pool may run when it forks, which Python 3.12 warns of.
        [sys.executable, '-W', 'ignore::DeprecationWarning', '-c', FORK, package, postgres.dsn],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert (ended.stderr, ended.returncode) == ('', 0)


class TestOnAsyncio:
    """What only the pools on asyncio have."""

    @pytest.mark.parametrize('name', ['AsyncConnectionPool', 'AsyncNullConnectionPool'])
    def test_opening_outside_a_loop_warns_and_fails(self, name: str) -> None:
        with (
            pytest.warns(RuntimeWarning, match='opened by its constructor'),
            pytest.raises(RuntimeError, match='where no event loop runs'),
        ):
            getattr(drop_in, name)('', open=True)

    @pytest.mark.parametrize('name', ['AsyncConnectionPool', 'AsyncNullConnectionPool'])
    def test_open_in_the_constructor_warns(self, name: str) -> None:
        async def main() -> None:
            with pytest.warns(RuntimeWarning, match='opened by its constructor'):
                pool = getattr(drop_in, name)('host=127.0.0.1 port=1', open=True)
            await pool.close()

        asyncio.run(main())

    @pytest.mark.postgres
    def test_a_pool_may_be_made_before_the_loop_and_not_used_in_two(self, postgres: PostgresServer) -> None:
        pool: Any = drop_in.AsyncConnectionPool(postgres.dsn, min_size=1, open=False)

        async def use() -> None:
            await pool.open()
            async with pool.connection() as conn:
                await conn.execute('SELECT 1')

        loop = asyncio.new_event_loop()
        loop.run_until_complete(use())
        with pytest.raises(RuntimeError, match='event loop'):
            asyncio.run(use())
        loop.run_until_complete(pool.close())
        loop.close()

    @pytest.mark.postgres
    def test_callbacks_may_be_coroutine_functions(self, postgres: PostgresServer) -> None:
        async def conninfo() -> str:
            return postgres.dsn

        async def kwargs() -> dict[str, Any]:
            return {'autocommit': True}

        async def main() -> None:
            async with (
                drop_in.AsyncConnectionPool(conninfo, kwargs=kwargs, min_size=1) as pool,
                pool.connection() as conn,
            ):
                assert conn.autocommit

        asyncio.run(main())

    @pytest.mark.postgres
    def test_a_cancelled_client_loses_no_connection(self, postgres: PostgresServer) -> None:
        async def main() -> None:
            async with drop_in.AsyncConnectionPool(postgres.dsn, min_size=1) as pool:
                conn = await pool.getconn()
                waiters = [asyncio.ensure_future(pool.getconn()) for _ in range(3)]
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                waiters[0].cancel()
                await pool.putconn(conn)
                # It is served at this very moment.
                waiters[1].cancel()
                assert await waiters[2] is conn
                await pool.putconn(conn)
                assert pool.get_stats()['pool_available'] == 1
                assert pool.get_stats()['requests_errors'] == 2

        asyncio.run(main())


def test_the_modules_have_the_names_of_the_original() -> None:
    for name in ('pool', 'pool_async', 'null_pool', 'null_pool_async', 'base', 'abc', 'errors'):
        importlib.import_module(f'gcpool.psycopg_pool.{name}')
        importlib.import_module(f'psycopg_pool.{name}')
    assert drop_in.__version__ == original.__version__
