"""Whole programs: how they end when nobody closed the pool, and what holds when assertions are switched off."""

import subprocess
import sys
import textwrap

import pytest

from tests.support import PATIENCE, program_environment

THREADS = """
import sys, threading
from gcpool.threading import BaseConnectionManager, ConnectionPool

class Manager(BaseConnectionManager):
    def create(self, endpoint, timeout=None):
        return object()
    def dispose(self, endpoint, conn, timeout=None):
        pass

def run(main):
    main()
"""
ASYNCIO = """
import asyncio, sys, threading
from gcpool.asyncio import BaseConnectionManager, ConnectionPool

class Manager(BaseConnectionManager):
    async def create(self, endpoint):
        return object()
    async def dispose(self, endpoint, conn):
        pass

def run(main):
    asyncio.run(main())
"""
RUNTIMES = pytest.mark.parametrize('runtime', ['threads', 'asyncio'])


def run(runtime: str, body: str, *options: str) -> str:
    """Run a program to its end, written for asyncio and stripped of that for threads.

    :return: what it printed; anything on stderr, a warning included, is an error
    """
    program = (THREADS if runtime == 'threads' else ASYNCIO) + textwrap.dedent(body)
    if runtime == 'threads':
        program = program.replace('async ', '').replace('await ', '')
    command = [sys.executable, '-X', 'dev', '-W', 'error', *options, '-c', program]
    result = subprocess.run(
        command, check=False, capture_output=True, encoding='utf-8', env=program_environment(), timeout=2 * PATIENCE
    )
    assert (result.returncode, result.stderr) == (0, '')
    return result.stdout


@pytest.mark.leak
@RUNTIMES
@pytest.mark.parametrize('collector', [False, True])
@pytest.mark.parametrize('where', ['global', 'local', 'in a cycle'])
def test_a_program_that_does_not_close_its_pool_ends(runtime: str, collector: bool, where: str) -> None:
    body = f"""
    async def main():
        global kept
        pool = ConnectionPool(Manager(), background_collector={collector}, min_idle=1, idle_timeout=30)
        conns = [await pool.acquire(endpoint) for endpoint in 'aabb']
        for conn, endpoint in zip(conns, 'aab'):
            await pool.release(conn, endpoint)
        where = {where!r}
        if where == 'global':
            kept = pool
        elif where == 'in a cycle':
            pool.itself = pool
        print(pool.get_size())

    run(main)
    """
    assert run(runtime, body) == '4\n'


@pytest.mark.leak
def test_a_program_ends_while_a_thread_waits_for_a_connection() -> None:
    body = """
    pool = ConnectionPool(Manager(), max_size=1, background_collector=True)
    conn = pool.acquire('a')
    threading.Thread(target=pool.acquire, args=('a',), daemon=True).start()
    while not pool.get_stats()['waiting']:
        pass
    print('end')
    """
    assert run('threads', body) == 'end\n'


@pytest.mark.leak
def test_what_is_held_when_the_interpreter_ends_is_not_given_back() -> None:
    """A daemon thread that the interpreter has stopped may hold the locks for good."""
    body = """
    import os

    class Releasing(Manager):
        def on_release(self, endpoint, conn):
            os.write(1, b'released ')

    pool = ConnectionPool(Releasing())
    context = pool.connection('a')
    context.__enter__()
    left = pool.connection('b')
    left.__enter__()
    del left
    os.write(1, b'end')
    """
    assert run('threads', body) == 'released end'


@pytest.mark.leak
@RUNTIMES
def test_a_collector_thread_or_task_is_gone_when_its_pool_is(runtime: str) -> None:
    body = """
    import gc

    async def main():
        for number in range(20):
            pool = ConnectionPool(Manager(), background_collector=True)
            await pool.release(await pool.acquire('a'), 'a')
            if number % 2:
                await pool.close()
        del pool
        gc.collect()
        for thread in threading.enumerate():
            if thread is not threading.current_thread():
                thread.join(20)
        print(threading.active_count())

    run(main)
    """
    assert run(runtime, body) == '1\n'


@RUNTIMES
@pytest.mark.parametrize('options', [(), ('-O',), ('-OO',)], ids=['', '-O', '-OO'])
def test_misuse_is_refused_also_where_assertions_are_off(runtime: str, options: tuple[str, ...]) -> None:
    body = """
    from gcpool.exceptions import ConnectionNotAcquired

    async def refused(error, call):
        try:
            result = call()
            if hasattr(result, 'send'):
                await result
        except error as exc:
            print(type(exc).__name__)
        else:
            sys.exit('it was not refused')

    async def main():
        pool = ConnectionPool(Manager())
        conn = await pool.acquire('a')
        await refused(ConnectionNotAcquired, lambda: pool.release(object(), 'a'))
        await refused(ConnectionNotAcquired, lambda: pool.release(conn, 'b'))
        await pool.release(conn, 'a')
        await refused(ConnectionNotAcquired, lambda: pool.release(conn, 'a'))
        await refused(ValueError, lambda: ConnectionPool(Manager(), max_size=-1))
        await refused(ValueError, lambda: ConnectionPool(Manager(), min_idle=3, max_size=2))
        await refused(TypeError, lambda: ConnectionPool(Manager(), max_size='1'))
        await refused(TypeError, lambda: ConnectionPool(Manager))
        if pool.get_size() != 1 or await pool.get_endpoint_pool_size('a', False) != 1:
            sys.exit('the pool has changed')
        await pool.close()
        print(pool.get_size())

    run(main)
    """
    expected = [*['ConnectionNotAcquired'] * 3, *['ValueError'] * 2, *['TypeError'] * 2, '0']
    assert run(runtime, body, *options).split() == expected
