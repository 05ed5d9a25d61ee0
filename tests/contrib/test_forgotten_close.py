"""A program that does not close its pool ends, with every manager, and prints no errors but its own."""

import contextlib
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.contrib.servers import PATIENCE
from tests.support import program_environment

CASES = (
    # The connection, when the program ends: in the pool
    'idle',
    # to be closed by a collector some time,
    'collected',
    # in use,
    'in use',
    # in use, in a pool to which nothing refers any more,
    'dropped',
    # in use, and the program fails
    'failed',
    # or calls sys.exit().
    'exited',
)

PROGRAM = """
import asyncio, json, os, ssl, sys
from gcpool.{runtime} import ConnectionPool

{imports}

case, given = sys.argv[1], json.loads(os.environ['GIVEN'])

async def main():
    global kept
    pool = ConnectionPool({manager}, background_collector=case == 'collected', idle_timeout=30, acquire_timeout=20)
    conn = await pool.acquire({endpoint})
    {use}
    if case in ('idle', 'collected'):
        {commit}
        await pool.release(conn, {endpoint})
    if case != 'dropped':
        kept = pool, conn
    print('used', flush=True)
    if case == 'failed':
        raise ValueError('mine')
    if case == 'exited':
        sys.exit(7)
    {last}

{run}
"""

# Put before a program: the interpreter, which has imported everything once, becomes the program of each case in turn,
# and says what became of them.
FORKED = """
import asyncio, json, os, ssl, sys
from gcpool.{runtime} import ConnectionPool
{imports}

children = {{}}
for case in sys.argv[1:]:
    children[case] = os.fork()
    if not children[case]:
        sys.argv[1:] = [case]
        for number, stream in (1, 'out'), (2, 'err'):
            os.dup2(os.open(case + '.' + stream, os.O_WRONLY | os.O_CREAT), number)
        break
else:
    codes = {{case: os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for case, child in children.items()}}
    print(json.dumps(codes), flush=True)
    os._exit(0)
"""


@dataclass(frozen=True)
class Program:
    """How a program builds a pool of one kind of connection."""

    module: str
    manager: str
    given: Callable[[pytest.FixtureRequest], Any]
    endpoint: str = "'db'"
    use: str = ''
    # Ends a transaction, of which the pool would say that it is rolled back.
    commit: str = ''
    is_async: bool = False
    requires: str = ''
    marks: Any = ()

    def text(self, last: str = 'pass', *, forked: bool = False) -> str:
        program = (FORKED * forked + PROGRAM).format(
            runtime='asyncio' if self.is_async else 'threading',
            imports=f'from gcpool.contrib import {self.module} as contrib',
            manager=f'contrib.{self.manager}',
            endpoint=self.endpoint,
            use=self.use or 'pass',
            commit=self.commit or 'pass',
            last=last,
            run='asyncio.run(main())' if self.is_async else 'main()',
        )
        return program if self.is_async else program.replace('async ', '').replace('await ', '')


def of(fixture: str, attribute: str) -> Callable[[pytest.FixtureRequest], Any]:
    return lambda request: getattr(request.getfixturevalue(fixture), attribute)


def tls(request: pytest.FixtureRequest) -> Any:
    return [request.getfixturevalue('tls_server').port, str(request.getfixturevalue('authority_file'))]


def unix_path(request: pytest.FixtureRequest) -> Any:
    return str(request.getfixturevalue('unix_server').listener.getsockname())


def path(request: pytest.FixtureRequest) -> Any:
    return str(request.getfixturevalue('tmp_path') / 'test.db')


CURSOR = "cursor = conn.cursor(); await cursor.execute('SELECT 1'); await cursor.fetchall(); await cursor.close()"
WRITE = "await conn.execute('CREATE TABLE IF NOT EXISTS t (n)'); await conn.execute('INSERT INTO t VALUES (1)')"
ECHO = "conn.sendall(b'x'); conn.recv(1)"
STREAM_ECHO = "conn[1].write(b'x'); await conn[0].readexactly(1)"
DB = "{'db': given}"
PORT = "('127.0.0.1', given)"
TLS_CONTEXT = 'ssl.create_default_context(cafile=given[1])'
TLS_PORT = "('localhost', given[0])"
ADDRESS = "(__import__('ipaddress').ip_address('127.0.0.1'), given)"
UNIX = "__import__('pathlib').Path(given)"

needs_unix = pytest.mark.skipif(not hasattr(socket, 'AF_UNIX'), reason='no Unix sockets here')
postgres = pytest.mark.postgres

PROGRAMS: dict[str, Program] = {
    'psycopg': Program(
        'psycopg',
        f'ConnectionManager({DB})',
        of('postgres', 'conninfo_params'),
        commit='conn.commit()',
        use="conn.execute('SELECT 1')",
        requires='psycopg',
        marks=postgres,
    ),
    'psycopg async': Program(
        'psycopg',
        f'AsyncConnectionManager({DB})',
        of('postgres', 'conninfo_params'),
        commit='await conn.commit()',
        use="await conn.execute('SELECT 1')",
        is_async=True,
        requires='psycopg',
        marks=postgres,
    ),
    'psycopg2': Program(
        'psycopg2',
        f'DbConnectionManager({DB})',
        of('postgres', 'dsn_params'),
        commit='conn.commit()',
        use=CURSOR,
        requires='psycopg2',
        marks=postgres,
    ),
    'asyncpg': Program(
        'asyncpg',
        f'DbConnectionManager({DB})',
        of('postgres', 'dsn_params'),
        use="await conn.fetchval('SELECT $1::int', 1)",
        is_async=True,
        requires='asyncpg',
        marks=postgres,
    ),
    'pymysql': Program(
        'pymysql', f'DbConnectionManager({DB})', of('mariadb', 'params'), use=CURSOR, requires='pymysql'
    ),
    'asyncmy': Program(
        'asyncmy',
        f'DbConnectionManager({DB})',
        of('mariadb', 'params'),
        use=CURSOR,
        is_async=True,
        requires='asyncmy',
    ),
    'redis': Program(
        'redis',
        f'RedisConnectionManager({DB})',
        of('redis_server', 'url'),
        use="conn.send_command('PING'); conn.read_response()",
        requires='redis',
    ),
    'redis async': Program(
        'redis',
        f'AsyncRedisConnectionManager({DB})',
        of('redis_server', 'url'),
        use="await conn.send_command('PING'); await conn.read_response()",
        is_async=True,
        requires='redis',
    ),
    'http': Program(
        'http', 'HttpConnectionManager()', of('tcp4_server', 'port'), endpoint="f'http://127.0.0.1:{given}'"
    ),
    'https': Program(
        'http',
        f'HttpConnectionManager(ssl_context={TLS_CONTEXT})',
        tls,
        endpoint="f'https://localhost:{given[0]}'",
    ),
    'socket': Program('socket', 'TcpSocketConnectionManager()', of('tcp4_server', 'port'), endpoint=ADDRESS, use=ECHO),
    'TLS socket': Program('socket', f'SslSocketConnectionManager({TLS_CONTEXT})', tls, endpoint=TLS_PORT, use=ECHO),
    'Unix socket': Program(
        'unix', 'UnixSocketConnectionManager()', unix_path, endpoint=UNIX, use=ECHO, marks=needs_unix
    ),
    'socket async': Program(
        'socket_async',
        'TcpSocketConnectionManager()',
        of('tcp4_server', 'port'),
        endpoint=ADDRESS,
        use="await asyncio.get_running_loop().sock_sendall(conn, b'x')",
        is_async=True,
    ),
    'stream': Program(
        'socket_async',
        'TcpStreamConnectionManager()',
        of('tcp4_server', 'port'),
        endpoint=PORT,
        use=STREAM_ECHO,
        is_async=True,
    ),
    'TLS stream': Program(
        'socket_async',
        f'TcpStreamConnectionManager({TLS_CONTEXT})',
        tls,
        endpoint=TLS_PORT,
        use=STREAM_ECHO,
        is_async=True,
    ),
    'Unix socket async': Program(
        'unix_async',
        'UnixSocketConnectionManager()',
        unix_path,
        endpoint=UNIX,
        use="await asyncio.get_running_loop().sock_sendall(conn, b'x')",
        is_async=True,
        marks=needs_unix,
    ),
    'Unix stream': Program(
        'unix_async',
        'UnixSocketStreamConnectionManager()',
        unix_path,
        endpoint=UNIX,
        use=STREAM_ECHO,
        is_async=True,
        marks=needs_unix,
    ),
    'sqlite3': Program(
        'sqlite3', 'SqliteConnectionManager()', path, endpoint='given', commit='conn.commit()', use=WRITE
    ),
    'aiosqlite': Program(
        'aiosqlite',
        "SqliteConnectionManager(pragmas={'journal_mode': 'wal'})",
        path,
        endpoint='given',
        commit='await conn.commit()',
        use=WRITE,
        is_async=True,
        requires='aiosqlite',
    ),
}


@pytest.fixture
def authority_file(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / 'authority.pem'
    authority.cert_pem.write_to_path(str(path))
    return path


@contextlib.contextmanager
def started(
    text: str, *arguments: str, given: Any = None, directory: Path | None = None
) -> Iterator['subprocess.Popen[str]']:
    """Start a program, and kill it and its children if it has not ended at the end of the block."""
    with subprocess.Popen(
        [sys.executable, '-c', textwrap.dedent(text), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding='utf-8',
        # Without warnings, as users run theirs.
        env={**program_environment(), 'GIVEN': json.dumps(given), 'PYTHONWARNINGS': '', 'PYTHONDEVMODE': ''},
        cwd=directory,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                if sys.platform == 'win32':
                    process.kill()
                else:
                    os.killpg(process.pid, signal.SIGKILL)


def outcome(process: 'subprocess.Popen[str]') -> tuple[int | None, str, str]:
    try:
        out, err = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return None, '', 'it does not end'
    return process.returncode, out, err


def outcomes_of(program: Program, given: Any, directory: Path) -> dict[str, tuple[int | None, str, str]]:
    """Run a program in all cases, at the same time, because this takes long."""
    if sys.platform != 'linux':
        with contextlib.ExitStack() as stack:
            processes = {case: stack.enter_context(started(program.text(), case, given=given)) for case in CASES}
            return {case: outcome(process) for case, process in processes.items()}
    with started(program.text(forked=True), *CASES, given=given, directory=directory) as process:
        code, out, err = outcome(process)
    assert (code, err) == (0, '')
    codes = json.loads(out)
    return {
        case: (codes[case], (directory / f'{case}.out').read_text(), (directory / f'{case}.err').read_text())
        for case in CASES
    }


@pytest.mark.leak
@pytest.mark.parametrize('program', [pytest.param(kind, id=name, marks=kind.marks) for name, kind in PROGRAMS.items()])
def test_a_program_ends(request: pytest.FixtureRequest, tmp_path: Path, program: Program) -> None:
    if program.requires and importlib.util.find_spec(program.requires) is None:
        pytest.skip(f'{program.requires} is not installed')
    outcomes = outcomes_of(program, program.given(request), tmp_path)
    assert outcomes.pop('exited') == (7, 'used\n', '')
    code, out, err = outcomes.pop('failed')
    assert (code, out) == (1, 'used\n')
    lines = err.splitlines()
    # The program's own error, and nothing else.
    assert (lines[0], lines[-1], err.count('Traceback')) == (
        'Traceback (most recent call last):',
        'ValueError: mine',
        1,
    )
    if program.given is tls and program.is_async and sys.version_info < (3, 11):
        # asyncio reports this for any TLS stream that is dropped after its loop was closed.
        code, out, err = outcomes.pop('dropped')
        assert (code, out) == (0, 'used\n')
        assert err.startswith('Fatal error on SSL transport') or not err
    assert outcomes == dict.fromkeys(outcomes, (0, 'used\n', ''))


def test_every_manager_has_its_program() -> None:
    directory = Path(__file__).resolve().parents[2] / 'src' / 'gcpool' / 'contrib'
    managers = {
        f'{file.stem}.{name}'
        for file in directory.glob('[a-z]*.py')
        for exported in re.findall(r'^__all__ = \[(.*?)\]', file.read_text(encoding='utf-8'), re.DOTALL | re.MULTILINE)
        for name in re.findall(r"'(\w*ConnectionManager)'", exported)
    }
    assert managers == {f'{kind.module}.{kind.manager.partition("(")[0]}' for kind in PROGRAMS.values()}


# What a thread of aiosqlite is doing when the program ends.
AT_WORK = {
    'statement': 'WITH RECURSIVE n(i) AS (SELECT begin() UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n',
    'function': 'SELECT begin(), hold()',
    'wait for a lock': 'INSERT INTO t SELECT begin()',
}


@pytest.mark.leak
@pytest.mark.parametrize('runtime', ['asyncio', 'uvloop'])
@pytest.mark.parametrize('work', AT_WORK)
def test_a_program_ends_while_sqlite_is_at_work(tmp_path: Path, work: str, runtime: str) -> None:
    for module in ('aiosqlite', *(['uvloop'] if runtime == 'uvloop' else [])):
        pytest.importorskip(module)
    text = """
    import asyncio, json, os, sqlite3, sys, threading, time
    from gcpool.asyncio import ConnectionPool
    from gcpool.contrib.aiosqlite import SqliteConnectionManager

    path, statement, runtime = json.loads(os.environ['GIVEN'])
    begun = threading.Event()

    def begin():
        begun.set()
        return 1

    async def main():
        global pool, conn, task, holder
        pool = ConnectionPool(SqliteConnectionManager(timeout=3600.0))
        conn = await pool.acquire(path)
        await conn.execute('CREATE TABLE IF NOT EXISTS t (n)')
        await conn.create_function('begin', 0, begin)
        await conn.create_function('hold', 0, lambda: time.sleep(3600))
        if statement.startswith('INSERT'):
            holder = sqlite3.connect(path, isolation_level=None)
            holder.execute('BEGIN EXCLUSIVE')
            # Before it waits; what it is at then, it is at for an hour.
            begun.set()
        task = asyncio.ensure_future(conn.execute_fetchall(statement))
        await asyncio.sleep(0.1)
        await asyncio.get_running_loop().run_in_executor(None, begun.wait)
        print('begun')

    if runtime == 'uvloop':
        import uvloop
        uvloop.new_event_loop().run_until_complete(main())
    else:
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda loop, context: None)
        loop.run_until_complete(main())
        loop.close()
    """
    with contextlib.ExitStack() as stack:
        processes = []
        for number in range(4):
            given = [str(tmp_path / f'{number}.db'), AT_WORK[work], runtime]
            processes.append(stack.enter_context(started(text, given=given)))
        began = time.monotonic()
        for process in processes:
            code, out, err = outcome(process)
            assert (code, out) == (0, 'begun\n'), err
            # asyncio's own report on a task whose loop is closed before its end.
            assert all('Task was destroyed' in line or line.startswith('task:') for line in err.splitlines()), err
        assert time.monotonic() - began < PATIENCE / 2


@pytest.mark.leak
def test_what_was_committed_is_there_and_nothing_lies_beside_it(tmp_path: Path) -> None:
    """SQLite cleans up when a database is closed."""
    pytest.importorskip('aiosqlite')
    program = PROGRAMS['aiosqlite']
    path = str(tmp_path / 'test.db')
    with started(program.text('await conn.commit()'), 'in use', given=path) as process:
        assert outcome(process) == (0, 'used\n', '')
    assert os.listdir(tmp_path) == ['test.db']
    import sqlite3

    with contextlib.closing(sqlite3.connect(path)) as conn:
        assert conn.execute('SELECT count(*) FROM t').fetchone() == (1,)
