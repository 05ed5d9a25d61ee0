"""Whole programs: how they end when nobody closed the pool, and what holds when assertions are switched off."""

import re
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


def run(runtime: str, body: str, *options: str, warnings: str = '') -> str:
    """Run a program to its end, written for asyncio and stripped of that for threads.

    :param warnings: a pattern of what it writes to stderr; otherwise anything there, a warning included, is an error
    :return: what it printed
    """
    program = (THREADS if runtime == 'threads' else ASYNCIO) + textwrap.dedent(body)
    if runtime == 'threads':
        program = program.replace('async ', '').replace('await ', '')
    command = [sys.executable, '-X', 'dev', '-W', 'error', *options, '-c', program]
    result = subprocess.run(
        command, check=False, capture_output=True, encoding='utf-8', env=program_environment(), timeout=2 * PATIENCE
    )
    assert result.returncode == 0, result.stderr
    assert re.fullmatch(warnings, result.stderr, re.DOTALL), result.stderr
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
    # While the program runs, a pool that is dropped gives a warning, which is an error here that nobody can catch.
    warnings = '.*ResourceWarning: <gcpool.*> was dropped and never closed: .*' if where == 'local' else ''
    assert run(runtime, body, warnings=warnings) == '4\n'


@pytest.mark.leak
@RUNTIMES
def test_exit_without_close_prints_nothing(runtime: str) -> None:
    body = """
    class Checked(Manager):
        async def check_aliveness(self, endpoint, conn, timeout=None):
            return True

    async def main():
        global pool, held
        pool = ConnectionPool(
            Checked(),
            background_collector=True,
            min_size=2,
            create_in_background=True,
            keepalive_interval=60,
            on_event=print_nothing,
        )
        pool.warm_up('a', 3)
        await pool.wait()
        held = await pool.acquire('a')
        await pool.release(await pool.acquire('b'))
        await pool.drain('b')

    def print_nothing(event):
        pass

    run(main)
    """
    assert run(runtime, body) == ''


AT_THE_END = """
import atexit, os, signal

class Telling(Manager):
    async def dispose(self, endpoint, conn{timeout}):
        os.write(1, b'closed ')
"""


@pytest.mark.leak
@RUNTIMES
@pytest.mark.parametrize('collector', [False, True])
def test_a_pool_may_be_terminated_at_exit(runtime: str, collector: bool) -> None:
    body = (
        AT_THE_END.format(timeout=', timeout=None' if runtime == 'threads' else '')
        + f"""
async def main():
    global pool, held
    pool = ConnectionPool(Telling(), background_collector={collector})
    atexit.register(pool.terminate)
    await pool.release(await pool.acquire('a'), 'a')
    held = await pool.acquire('b')

run(main)
os.write(1, b'end ')
"""
    )
    # A loop that has ended closes nothing any more: the connections are dropped.
    closed, told = ('end closed closed ', '') if runtime == 'threads' else ('end ', '.*dropped 2 of its connections\n')
    assert run(runtime, body, warnings=told) == closed


@pytest.mark.leak
@RUNTIMES
def test_a_pool_may_be_terminated_when_the_process_is_told_to_end(runtime: str) -> None:
    body = (
        AT_THE_END.format(timeout=', timeout=None' if runtime == 'threads' else '')
        + """
from gcpool.exceptions import ConnectionPoolClosedError

async def main():
    pool = ConnectionPool(Telling(), max_size=1, background_collector=True)
    signal.signal(signal.SIGALRM, lambda *_: pool.terminate())
    async with pool.connection('a'):
        await pool.release(await pool.acquire('b'), 'b')
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        try:
            await pool.acquire('a')
        except ConnectionPoolClosedError:
            os.write(1, b'refused ')
    await pool.close()
    os.write(1, b'end ')

run(main)
"""
    )
    printed = run(runtime, body).split()
    assert sorted(printed) == ['closed', 'closed', 'end', 'refused']
    assert printed[-1] == 'end'


@pytest.mark.leak
@RUNTIMES
def test_a_program_that_exits_in_a_suspended_pool_prints_nothing(runtime: str) -> None:
    body = """
    async def main():
        global pool
        pool = ConnectionPool(Manager(), background_collector=True)
        await pool.release(await pool.acquire('a'), 'a')
        held = await pool.acquire('b')
        await pool.drain()
        pool.suspend()

    run(main)
    print('end')
    """
    assert run(runtime, body) == 'end\n'


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


IN_FLIGHT = {
    # The server does not answer: the pool's own connects are under way.
    'connects': """
        for endpoint in 'ab':
            pool.warm_up(endpoint, 2)
        while connecting < 4:
            await pause()
    """,
    # Somebody waits for them.
    'connects that are waited for': """
        waiting = start(pool.acquire, 'a')
        while connecting < 1:
            await pause()
    """,
    # The pool's thread or timer waits for the next attempt.
    'a pause in an outage': """
        refuses = True
        waiting = start(pool.acquire, 'a')
        while not pool.get_stats()['create_errors']:
            await pause()
    """,
    # A thread waits for more work.
    'nothing': """
        hangs = False
        pool.warm_up('a', 2)
        await pool.wait()
    """,
}


@pytest.mark.leak
@RUNTIMES
@pytest.mark.parametrize('where', ['global', 'local'])
@pytest.mark.parametrize('what', IN_FLIGHT)
def test_a_program_ends_quietly_while_its_pool_is_at_work(runtime: str, what: str, where: str) -> None:
    if runtime == 'threads':
        helpers = """
        import time

        def block():
            threading.Event().wait()
        def pause():
            time.sleep(0.001)
        def start(call, *args):
            threading.Thread(target=call, args=args, daemon=True).start()
        """
        arguments = 'endpoint, timeout=None'
    else:
        helpers = """
        async def block():
            await asyncio.get_running_loop().create_future()
        async def pause():
            await asyncio.sleep(0.001)
        def start(call, *args):
            return asyncio.ensure_future(call(*args))
        """
        arguments = 'endpoint'
    body = f"""
    {textwrap.indent(textwrap.dedent(helpers), '    ').strip()}

    import logging
    logging.getLogger('gcpool').addHandler(logging.NullHandler())
    connecting = 0
    hangs, refuses = True, False

    class Hanging(Manager):
        async def create(self, {arguments}):
            global connecting
            connecting += 1
            if refuses:
                raise OSError('connection refused')
            if hangs:
                await block()
            return object()

    async def main():
        global kept, hangs, refuses
        pool = ConnectionPool(Hanging(), create_in_background=True, reconnect_timeout=60.0)
        if {where!r} == 'global':
            kept = pool
        {textwrap.indent(textwrap.dedent(IN_FLIGHT[what]), '        ').strip()}
        print('end')

    run(main)
    """
    # A pool that is dropped with connections gives a warning, which is an error here that nobody can catch. None comes
    # if a thread of the pool has just ended its work, and drops the pool last: then the interpreter has ended.
    warns = what == 'nothing' and where == 'local'
    warnings = '(.*ResourceWarning: <gcpool.*> was dropped and never closed: .*)?' if warns else ''
    assert run(runtime, body, warnings=warnings) == 'end\n'


@pytest.mark.leak
@pytest.mark.parametrize('in_outage', [False, True])
def test_where_no_thread_can_be_started_waiters_connect_themselves(in_outage: bool) -> None:
    """No stack is so large, so that the system refuses to start a thread."""
    body = f"""
    import logging, time
    logging.getLogger('gcpool').addHandler(logging.NullHandler())
    failures = 3 if {in_outage} else 0
    connecting = set()

    class Failing(Manager):
        def create(self, endpoint, timeout=None):
            global failures
            connecting.add(threading.current_thread().name)
            if failures:
                failures -= 1
                raise OSError('connection refused')
            return object()

    pool = ConnectionPool(Failing(), max_size=2, create_in_background=True, min_size=2, reconnect_timeout=60.0)
    before = threading.stack_size()
    threading.stack_size(1 << 46)
    try:
        threading.Thread(target=print).start()
    except RuntimeError:
        pass
    else:
        sys.exit('a thread was started')
    conn = pool.acquire('a', timeout=20)
    pool.release(conn, 'a')
    with pool.connection('a', timeout=20) as first, pool.connection('a', timeout=20) as second:
        print(first is not second, connecting)
    threading.stack_size(before)

    # They can be started again.
    connecting.clear()
    with pool.connection('b', timeout=20):
        pass
    pool.warm_up('b', 2)
    pool.wait(20)
    print(all(name.startswith('gcpool-') for name in connecting), pool.get_endpoint_pool_size('b'))
    print(pool.close(20))
    """
    assert run('threads', body) == "True {'MainThread'}\nTrue 2\n0\n"


@pytest.mark.leak
def test_an_endpoint_may_be_warmed_up_before_the_loop_runs() -> None:
    body = """
    pool = ConnectionPool(Manager())
    pool.warm_up('a', 2)

    async def main():
        await pool.wait(20)
        print(pool.get_size())
        await pool.close()

    run(main)
    """
    assert run('asyncio', body) == '2\n'


@pytest.mark.leak
@RUNTIMES
def test_a_collector_thread_or_task_is_gone_when_its_pool_is(runtime: str) -> None:
    body = """
    import gc
    import warnings

    async def main():
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', '.* was dropped and never closed', ResourceWarning)
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
