"""What a program imports from generic_connection_pool, it imports from gcpool under the same names."""

import importlib
import pkgutil
import subprocess
import sys
from types import ModuleType

import generic_connection_pool
import pytest

import gcpool
import gcpool.asyncio
import gcpool.threading
from gcpool import exceptions
from gcpool.managers import AsyncConnectionManager, SyncConnectionManager
from tests.support import program_environment

MODULES = [
    module.name.removeprefix('generic_connection_pool')
    for module in pkgutil.walk_packages(generic_connection_pool.__path__, 'generic_connection_pool.')
    # What these have is private there; the public names are those of the packages they are in.
    if not module.name.endswith(('.locks', '.pool', '.utils', '.rankmap', '.common'))
]


def public_names(module: ModuleType) -> set[str]:
    """What a module exports, or, if it does not say, what it defines itself."""
    exported = getattr(module, '__all__', None)
    if exported is not None:
        return {*exported}
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith('_') and getattr(value, '__module__', None) == module.__name__
    }


@pytest.mark.parametrize('name', ['', *MODULES])
def test_every_public_name_of_the_other_package_is_there(name: str) -> None:
    theirs = pytest.importorskip(f'generic_connection_pool{name}', exc_type=ImportError)
    ours = importlib.import_module(f'gcpool{name}')
    missing = {exported for exported in public_names(theirs) if not hasattr(ours, exported)}
    assert missing == set()


def test_the_modules_of_the_other_package_are_found() -> None:
    assert {'.asyncio', '.threading', '.exceptions', '.contrib.socket', '.contrib.unix_async'} <= {*MODULES}


def test_the_package_exports_what_programs_import_from_it() -> None:
    assert {'BaseConnectionPool', 'ConnectionPoolClosedError', 'exceptions'} <= {*gcpool.__all__}
    assert gcpool.ConnectionPoolClosedError is exceptions.ConnectionPoolClosedError


@pytest.mark.parametrize('name', ['ConnectionPoolClosedError', 'ConnectionPoolIsFull'])
def test_the_exceptions_are_under_one_base(name: str) -> None:
    assert getattr(exceptions, name).__bases__ == (exceptions.BaseError,)
    # That of a pool that does not know an endpoint is a lookup that failed, too.
    assert exceptions.ConnectionPoolNotFound.__bases__ == (exceptions.BaseError, KeyError)
    assert exceptions.BaseError.__bases__ == (Exception,)


@pytest.mark.parametrize('name', exceptions.__all__)
def test_every_error_of_the_package_is_a_base_error(name: str) -> None:
    assert issubclass(getattr(exceptions, name), exceptions.BaseError)


def test_the_timeout_is_what_programs_catch() -> None:
    import asyncio

    assert issubclass(exceptions.PoolTimeout, TimeoutError)
    assert issubclass(exceptions.PoolTimeout, asyncio.TimeoutError)


def test_the_base_managers_are_those_of_their_runtime() -> None:
    assert gcpool.asyncio.BaseConnectionManager is AsyncConnectionManager
    assert gcpool.threading.BaseConnectionManager is SyncConnectionManager


def test_importing_the_package_loads_neither_runtime_s_drivers_nor_starts_anything() -> None:
    script = """
import sys, threading
import gcpool, gcpool.threading, gcpool.asyncio
loaded = {'psycopg2', 'asyncpg', 'uvloop', 'ssl', 'sqlite3', 'rich', 'generic_connection_pool'} & {*sys.modules}
assert not loaded - before, loaded
assert threading.active_count() == 1
"""
    program = f'import asyncio, sys\nbefore = {{*sys.modules}}\n{script}'
    subprocess.run([sys.executable, '-c', program], check=True, timeout=60, env=program_environment())


def test_threads_load_nothing_that_takes_long_to_import() -> None:
    script = """
import sys
import gcpool.threading
class Manager(gcpool.threading.BaseConnectionManager):
    def create(self, endpoint, timeout=None):
        return object()
    def dispose(self, endpoint, conn, timeout=None):
        pass
pool = gcpool.threading.ConnectionPool(Manager())
with pool.connection('endpoint'):
    pass
pool.close()
loaded = {'asyncio', 'inspect', 'logging', 'ssl', 'subprocess', 'traceback'} & {*sys.modules}
assert not loaded - before, loaded
"""
    # Before 3.11 PoolTimeout is asyncio's timeout, too.
    needed = 'sys' if sys.version_info >= (3, 11) else 'sys, asyncio'
    program = f'import {needed}\nbefore = {{*sys.modules}}\n{script}'
    subprocess.run([sys.executable, '-c', program], check=True, timeout=60, env=program_environment())


def test_nothing_but_python_itself_is_needed() -> None:
    script = """
import gcpool, gcpool.threading, gcpool.asyncio
import gcpool.contrib.socket, gcpool.contrib.socket_async, gcpool.contrib.http, gcpool.contrib.sqlite3
loaded = {name.partition('.')[0] for name in {*sys.modules} - before}
others = {name for name in loaded - {*sys.stdlib_module_names, 'gcpool'} if 'cython' not in name}
assert not others, others
"""
    program = f'import sys\nbefore = {{*sys.modules}}\n{script}'
    subprocess.run([sys.executable, '-c', program], check=True, timeout=60, env=program_environment())
