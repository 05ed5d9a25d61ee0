"""A private MariaDB server that can be killed, restarted and told to refuse."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, final

import pytest
import trustme

from gcpool.contrib._sockets import shut_down
from tests.contrib.sampling import sampled
from tests.contrib.servers import PATIENCE, PORT_ATTEMPTS, free_port, tcp_listener, unprivileged_account

# Runs the server as its child. Obeys lines on standard input ("start", with further options for this and later starts,
# "stop" or "kill") and answers each with a line, empty on success. When the tests close its standard input, or die in
# whatever way, it ends the server and removes its directory.
KEEPER = """
import queue, shutil, subprocess, sys, threading

directory, account, *command = sys.argv[1:]
options = []
account = int(account) if account else None
server = None

def follow(stream, states):
    with stream, open(directory + '/log', 'ab', 0) as log:
        for line in stream:
            log.write(line)
            if b'ready for connections' in line:
                states.put('')
    states.put('the server ended while it started')

def start():
    global server
    server = subprocess.Popen(command + options, cwd=directory,
                              user=account, group=account, extra_groups=None if account is None else [],
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE)
    states = queue.Queue()
    threading.Thread(target=follow, args=(server.stderr, states), daemon=True).start()
    return states.get()

def end(kill):
    if server is not None:
        server.kill() if kill else server.terminate()
        server.wait()
    return ''

try:
    for line in sys.stdin:
        order, *given = line.split()
        options = given or options
        print(start() if order == 'start' else end(order == 'kill'), flush=True)
finally:
    end(True)
    shutil.rmtree(directory)
"""


@final
class MariadbServer:
    """A private MariaDB server in a directory of its own, which does not outlive the tests.

    ``user`` is an ordinary account. The methods use the server's administrator, on a connection of their own, which the
    server also accepts when it is full.

    :param server: the path of ``mariadbd``
    :param install: the path of ``mariadb-install-db``
    """

    user = 'gcpool'
    password = 'not-a-secret'
    database = 'gcpool'
    host = '127.0.0.1'
    max_connections = 60

    def __init__(self, server: Path, install: Path) -> None:
        self._server = server
        self._install = install
        # Not below pytest's directories, which only their owner may enter.
        self._directory = Path(tempfile.mkdtemp(prefix='gcpool-mariadb-'))
        self._account = unprivileged_account()
        self._keeper: subprocess.Popen[str] | None = None
        self.authority = trustme.CA()
        self.port = 0

    @property
    def params(self) -> dict[str, Any]:
        """The drivers' parameters for connecting. The server also offers TLS, to clients that trust ``authority``."""
        return {
            'host': self.host,
            'port': self.port,
            'user': self.user,
            'password': self.password,
            'database': self.database,
        }

    @property
    def url(self) -> str:
        return f'mysql://{self.user}:{self.password}@{self.host}:{self.port}/{self.database}'

    @property
    def socket_path(self) -> str:
        """The path of its Unix domain socket."""
        return str(self._directory / 'socket')

    def open(self) -> None:
        """Create the database and start the server. Once; call :py:meth:`close` afterwards, whatever this raises."""
        data = self._directory / 'data'
        self._write_certificate()
        if self._account is not None:
            for path in (self._directory, *self._directory.iterdir()):
                os.chown(path, self._account, -1)
        self._install_database(data)
        settings = {
            'datadir': data,
            # At its start, each server removes what others have left in a directory for temporary tables.
            'tmpdir': self._directory,
            'bind-address': self.host,
            'socket': self.socket_path,
            'pid-file': self._directory / 'pid',
            'skip-name-resolve': 1,
            'max-connections': self.max_connections,
            'ssl-cert': self._directory / 'certificate',
            'ssl-key': self._directory / 'key',
            'max-allowed-packet': '64M',
            'innodb-buffer-pool-size': '16M',
            'innodb-flush-log-at-trx-commit': 0,
            # Tests that wait for a lock of another connection should not wait for long when they fail.
            'innodb-lock-wait-timeout': 10,
        }
        options = [f'--{name}={value}' for name, value in settings.items()]
        account = '' if self._account is None else str(self._account)
        self._keeper = subprocess.Popen(
            [
                *(sys.executable, '-I', '-c', KEEPER, str(self._directory), account),
                *(str(self._server), '--no-defaults', *options),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Ctrl-C is for the tests.
            start_new_session=True,
        )
        self._start_on_a_free_port()
        self.execute(f'CREATE DATABASE {self.database}')
        self.execute(f"CREATE USER {self.user}@'%' IDENTIFIED BY '{self.password}'")
        self.execute(f'GRANT ALL ON {self.database}.* TO {self.user}')

    def close(self) -> None:
        """End the server and remove its directory."""
        if self._keeper is None:
            shutil.rmtree(self._directory)
            return
        self._keeper.communicate(timeout=PATIENCE)
        assert self._keeper.returncode == 0, 'the MariaDB server was not ended, or its directory not removed'

    def start(self) -> None:
        """Start the server, on its previous port and data, and wait until it accepts connections."""
        self._order('start')

    def stop(self) -> None:
        """Shut the server down, as an administrator would, and wait until it has ended."""
        self._order('stop')

    def kill(self) -> None:
        """Send the server SIGKILL, and wait until it has ended."""
        self._order('kill')

    def restart(self) -> None:
        """Kill the server, and start it again."""
        self.kill()
        self.start()

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Execute a statement as the administrator.

        :return: the rows
        """
        import pymysql

        with (
            contextlib.closing(
                pymysql.connect(
                    host=self.host,
                    port=self.port,
                    user='root',
                    autocommit=True,
                    ssl_disabled=True,
                    connect_timeout=int(PATIENCE),
                    read_timeout=PATIENCE,
                )
            ) as conn,
            conn.cursor() as cursor,
        ):
            cursor.execute(statement)
            return list(cursor.fetchall())

    def sessions(self) -> list[int]:
        """The ids of the sessions that the server has, without the administrator's.

        The session of a client that has just closed its connection may still be there for a moment.
        """
        rows = self.execute(f"SELECT id FROM information_schema.processlist WHERE user = '{self.user}' ORDER BY id")
        return [int(row[0]) for row in rows]

    def statements(self) -> list[str]:
        """What the server is executing, without the administrator's statements and those of control connections."""
        rows = self.execute(
            'SELECT info FROM information_schema.processlist'
            f" WHERE user = '{self.user}' AND db IS NOT NULL AND info IS NOT NULL"
        )
        return [row[0] for row in rows]

    def wait_for_sessions(self, count: int) -> None:
        """Wait until the server has that many sessions; fail if that does not happen."""
        deadline = time.monotonic() + PATIENCE
        while len(sessions := self.sessions()) != count:
            assert time.monotonic() < deadline, f'the server has {len(sessions)} sessions, not {count}'
            # There is no event for the end of a session.
            threading.Event().wait(0.02)

    def wait_for_statement(self, session: int, statement: str) -> None:
        """Wait until the server is executing a statement for a session."""
        deadline = time.monotonic() + PATIENCE
        query = f'SELECT info FROM information_schema.processlist WHERE id = {session}'
        while (rows := self.execute(query)) != [(statement,)]:
            assert time.monotonic() < deadline, f'the server does not execute {statement!r} but {rows}'

    @contextlib.contextmanager
    def watched(self) -> Iterator['Watch']:
        """Look at the server's list of sessions repeatedly, until the block ends."""
        import pymysql

        watch = Watch()

        @contextlib.contextmanager
        def opened() -> Iterator[Callable[[], None]]:
            query = f"SELECT DB, COMMAND FROM information_schema.processlist WHERE user = '{self.user}'"
            with (
                contextlib.closing(
                    pymysql.connect(host=self.host, port=self.port, user='root', autocommit=True, ssl_disabled=True)
                ) as conn,
                conn.cursor() as cursor,
            ):

                def look() -> None:
                    cursor.execute(query)
                    watch.take(cursor.fetchall())

                yield look

        with sampled(opened()):
            yield watch

    def kill_session(self, session: int) -> None:
        """End a session, as an administrator would; its client is sent an error, and the connection is closed."""
        self.execute(f'KILL {session}')

    def kill_sessions(self) -> list[int]:
        """End all sessions except the administrator's.

        :return: their ids
        """
        sessions = self.sessions()
        self.execute(f'KILL USER {self.user}')
        return sessions

    def set_max_connections(self, count: int | None) -> None:
        """Set how many connections the server accepts.

        :param count: at least 10, the server's minimum; None for the initial value
        """
        self.execute(f'SET GLOBAL max_connections = {self.max_connections if count is None else count}')

    def _start_on_a_free_port(self) -> None:
        for attempt in range(1, PORT_ATTEMPTS + 1):
            self.port = free_port(self.host)
            try:
                self._order(f'start --port={self.port}')
            except AssertionError:
                if attempt == PORT_ATTEMPTS or 'Bind on TCP/IP port' not in self._log.read_text():
                    raise
                self._log.unlink()
            else:
                return

    @property
    def _log(self) -> Path:
        return self._directory / 'log'

    def _order(self, order: str) -> None:
        assert self._keeper is not None
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        self._keeper.stdin.write(f'{order}\n')
        self._keeper.stdin.flush()
        # The test's time limit ends this wait.
        answer = self._keeper.stdout.readline()
        log = self._log.read_text() if self._log.exists() else ''
        assert answer == '\n', f'{order} failed: {answer}{log}'

    def _install_database(self, data: Path) -> None:
        result = subprocess.run(
            [
                *(str(self._install), '--no-defaults', f'--datadir={data}', f'--tmpdir={self._directory}'),
                *('--auth-root-authentication-method=normal', '--skip-test-db', '--skip-name-resolve'),
                '--innodb-buffer-pool-size=16M',
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self._directory,
            timeout=4 * PATIENCE,
            check=False,
            user=self._account,
            group=self._account,
            extra_groups=[] if self._account else None,
        )
        assert result.returncode == 0, f'{self._install} failed:\n{result.stdout}'

    def _write_certificate(self) -> None:
        certificate = self.authority.issue_cert(self.host)
        (self._directory / 'key').write_bytes(certificate.private_key_pem.bytes())
        (self._directory / 'certificate').write_bytes(b''.join(pem.bytes() for pem in certificate.cert_chain_pems))


@final
class Watch:
    """What the server's list of sessions has shown of the tests' account.

    Control connections, which select no database, are counted separately.
    """

    def __init__(self) -> None:
        self.looks = 0
        self.most_at_work = 0
        self.most_control = 0

    def take(self, rows: Iterable[Any]) -> None:
        at_work = [database for database, command in rows if command not in {'Sleep', 'Quit'}]
        control = at_work.count(None)
        self.looks += 1
        self.most_at_work = max(self.most_at_work, len(at_work) - control)
        self.most_control = max(self.most_control, control)


@final
class Proxy:
    """Stands between clients and a server, in threads of its own, and goes silent when told to.

    :param port: the server's, on loopback
    """

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._listener = tcp_listener()
        self._muted = threading.Event()
        self._dripping = threading.Event()
        self._stopping = threading.Event()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def mute(self) -> None:
        """From now on forward nothing, and leave the connections open."""
        self._muted.set()

    def drip(self) -> None:
        """From now on forward everything, but byte by byte, with a tenth of a second before each."""
        self._dripping.set()

    def lead_to(self, port: int) -> None:
        """Connect to another server from now on."""
        self._server_port = port

    def __enter__(self) -> 'Proxy':
        self._start(self._accept)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stopping.set()
        # Wakes the acceptor, which nothing else does on every system.
        with socket.socket() as sock:
            sock.connect(self._listener.getsockname())
            self._threads[0].join(PATIENCE)
        self._listener.close()
        for sock in self._sockets:
            shut_down(sock)
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), 'a thread of the proxy does not end'
        for sock in self._sockets:
            sock.close()

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            self._sockets.append(client)
            if self._stopping.is_set():
                return
            try:
                server = socket.create_connection(('127.0.0.1', self._server_port))
            except OSError:
                shut_down(client)
                continue
            self._sockets.append(server)
            self._start(self._pump, client, server)
            self._start(self._pump, server, client)

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                if self._dripping.is_set():
                    for number in data:
                        if self._stopping.wait(0.1):
                            break
                        target.sendall(bytes((number,)))
                elif not self._muted.is_set():
                    target.sendall(data)
        except OSError:
            # Treated like the end of the connection.
            pass
        shut_down(target)


def mariadb_programs() -> tuple[Path, Path] | None:
    """Return the paths of the server and of the program that creates its first database; MySQL's have other names."""
    path = os.pathsep.join((os.environ.get('PATH', os.defpath), '/usr/sbin', '/usr/local/sbin'))
    server, install = (shutil.which(name, path=path) for name in ('mariadbd', 'mariadb-install-db'))
    return (Path(server), Path(install)) if server and install else None


@contextlib.contextmanager
def running_mariadb() -> Iterator[MariadbServer]:
    """Start a private MariaDB server and end it; skip the test if there is none."""
    programs = mariadb_programs()
    if programs is None:
        pytest.skip('MariaDB is not installed: mariadbd and mariadb-install-db are neither on PATH nor in /usr/sbin')
    pytest.importorskip('pymysql', reason='PyMySQL is not installed, by which the tests look after the server')
    server = MariadbServer(*programs)
    try:
        server.open()
        yield server
    finally:
        server.close()
