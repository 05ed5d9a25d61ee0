"""Tries gcpool as it was installed, in an environment that must hold nothing else."""

import asyncio
import importlib
import importlib.metadata
import sys

import gcpool.asyncio
import gcpool.threading

# What a new virtual environment may bring along.
ALLOWED = {'gcpool', 'pip', 'setuptools', 'wheel'}
WANTED = {'py.typed', '_core.pyi', '__init__.py', 'threading.py', 'asyncio.py'}
UNWANTED_SUFFIXES = {'.c', '.pyx', '.pxi', '.pxd', '.html'}


class SyncManager(gcpool.threading.BaseConnectionManager[str, object]):
    """Makes connections of nothing."""

    def create(self, endpoint: str, timeout: float | None = None) -> object:
        """Make one."""
        return object()

    def dispose(self, endpoint: str, conn: object, timeout: float | None = None) -> None:
        """Close one."""


class AsyncManager(gcpool.asyncio.BaseConnectionManager[str, object]):
    """Makes connections of nothing."""

    async def create(self, endpoint: str) -> object:
        """Make one."""
        return object()

    async def dispose(self, endpoint: str, conn: object) -> None:
        """Close one."""


def check_files() -> None:
    """The wheel holds what an importer and a type checker need, and no sources of the core."""
    files = importlib.metadata.files('gcpool') or []
    unwanted = [str(file) for file in files if file.suffix in UNWANTED_SUFFIXES]
    missing = WANTED - {file.name for file in files}
    if unwanted or missing:
        raise SystemExit(f'the wheel lacks {sorted(missing)} and should not hold {unwanted}')


def check_environment() -> None:
    """Nothing else is there that could be needed without anybody noticing."""
    present = {distribution.metadata['Name'].lower() for distribution in importlib.metadata.distributions()}
    if present - ALLOWED:
        raise SystemExit(f'this environment is to be empty, but it holds {sorted(present - ALLOWED)}')


def check_modules() -> None:
    """Every module imports, or says which extra it needs."""
    files = importlib.metadata.files('gcpool') or []
    extras = importlib.metadata.metadata('gcpool').get_all('Provides-Extra') or []
    for file in files:
        if file.suffix != '.py' or file.name == '__main__.py' or {'_demo', '_monitor'} & {*file.parts}:
            continue  # what a command needs, the command says
        if 'contrib' in file.parts and file.name.startswith('_') and file.name != '__init__.py':
            continue  # a part of a public module, which says what it needs
        name = '.'.join(file.with_suffix('').parts).removesuffix('.__init__')
        try:
            importlib.import_module(name)
        except ImportError as error:
            if not any(f'gcpool[{extra}]' in str(error) for extra in extras):
                raise


def cycle() -> None:
    """A connection goes out, comes back and goes out again, in both runtimes."""
    pool = gcpool.threading.ConnectionPool[str, object](SyncManager())
    with pool.connection('here') as first:
        pass
    with pool.connection('here') as second:
        pass
    if first is not second or pool.get_size() != 1:
        raise SystemExit('the connection was not used again')
    pool.close()


async def cycle_asyncio() -> None:
    """The same on asyncio."""
    pool = gcpool.asyncio.ConnectionPool[str, object](AsyncManager())
    async with pool.connection('here') as first:
        pass
    async with pool.connection('here') as second:
        pass
    if first is not second or pool.get_size() != 1:
        raise SystemExit('the connection was not used again (asyncio)')
    await pool.close()


check_environment()
check_files()
check_modules()
cycle()
asyncio.run(cycle_asyncio())
print(f'gcpool {importlib.metadata.version("gcpool")} works as installed on Python {sys.version.split()[0]}')
