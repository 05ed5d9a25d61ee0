"""The load of the demo: many threads, then very many tasks, all with more work than there are connections.

Every request has its own number, and its answer is compared. A failed request is counted and repeated until it is
answered, so no failure can hide in a lower figure.
"""

import asyncio
import contextlib
import sqlite3
import struct
import threading
import time
from ipaddress import IPv4Address
from socket import socket

import gcpool.asyncio
import gcpool.threading
from gcpool._demo.figures import Figures, Glance, Tally, jain, total_of
from gcpool.contrib.socket import TcpEndpoint, TcpSocketConnectionManager
from gcpool.contrib.socket_async import Stream, TcpStreamConnectionManager, TcpStreamEndpoint
from gcpool.contrib.sqlite3 import PooledConnection, SqliteConnectionManager, SqliteEndpoint
from gcpool.exceptions import PoolTimeout

MESSAGE = struct.Struct('!II')  # the client, and the number of its request
BACKOFF = 0.05  # seconds between a failure and the client's next attempt
PATIENCE = 30.0  # seconds that a client waits for a connection, or for an answer
CLOSE_PATIENCE = 5.0  # seconds that a pool, when it is closed, waits for connections in use
WRITE_EVERY = 8  # one in this many SQLite requests writes: SQLite has one writer at a time, whatever the pool does


class _PatientSockets(TcpSocketConnectionManager):
    """TCP connections with a limit on the wait for an answer."""

    def create(self, endpoint: TcpEndpoint, timeout: float | None = None) -> socket:
        conn = super().create(endpoint, timeout)
        conn.settimeout(PATIENCE)
        return conn


def create_database(path: str, clients: int) -> None:
    """Create the SQLite database: a counter for each client.

    :param path: its file, which must not exist
    :param clients: how many clients will use it
    """
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute('PRAGMA journal_mode = WAL')  # readers and the writer do not wait for each other
        db.execute('CREATE TABLE counter (client INTEGER PRIMARY KEY, value INTEGER NOT NULL)')
        db.executemany('INSERT INTO counter VALUES (?, 0)', ((client,) for client in range(clients)))
        db.commit()


def read_total(path: str) -> int:
    """Return the sum of all counters of the database at ``path``."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        total: int = db.execute('SELECT sum(value) FROM counter').fetchone()[0]
        return total


class ThreadsPhase:
    """Threads that take turns on a pool of TCP connections and a pool of SQLite connections.

    :param host: address of the echo server
    :param port: its port
    :param database: path of the SQLite database
    :param threads: number of threads
    :param connections: maximum number of connections of each pool
    """

    name = 'threads'

    def __init__(self, host: str, port: int, database: str, threads: int, connections: int):
        self.failures: list[BaseException] = []  # exceptions that no client should raise
        self.written = 0  # increments of the database's counters that were committed
        self._server: TcpEndpoint = (IPv4Address(host), port)
        self._database = database
        self._connections = connections
        self._stopping = threading.Event()
        self._giving_up = threading.Event()
        self._sockets = gcpool.threading.ConnectionPool[TcpEndpoint, socket](
            _PatientSockets(), max_size=connections, total_max_size=connections, acquire_timeout=PATIENCE
        )
        self._databases = gcpool.threading.ConnectionPool[SqliteEndpoint, PooledConnection](
            # The database is deleted afterwards, and this does not measure the disk.
            SqliteConnectionManager(pragmas={'synchronous': 'off'}),
            max_size=connections,
            total_max_size=connections,
            acquire_timeout=PATIENCE,
        )
        self._echoes = [Tally() for _ in range(threads)]
        self._counts = [Tally() for _ in range(threads)]
        self._values = [0] * threads
        self._threads = [
            threading.Thread(target=self._client, args=(index,), name=f'client-{index}', daemon=True)
            for index in range(threads)
        ]
        self._began = self._ended = 0.0

    def start(self) -> None:
        self._began = time.perf_counter()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Have the clients end after their current request."""
        self._stopping.set()

    def give_up(self) -> None:
        """Have the clients end, even with a request unanswered."""
        self._giving_up.set()
        self._stopping.set()

    def join(self, timeout: float) -> int:
        """Wait for the clients to end.

        :param timeout: how long to wait for all of them, in seconds
        :return: how many have not ended by then
        """
        give_up = time.monotonic() + timeout
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, give_up - time.monotonic()))
        self._ended = time.perf_counter()
        return sum(thread.is_alive() for thread in self._threads)

    def glance(self) -> Glance:
        sockets, databases = self._sockets.get_stats(), self._databases.get_stats()
        return Glance(
            answered=sum(tally.answered for tally in self._echoes) + sum(tally.answered for tally in self._counts),
            errors=sum(tally.errors for tally in self._echoes) + sum(tally.errors for tally in self._counts),
            out=sockets['acquired'] + databases['acquired'],
            waiting=sockets['waiting'] + databases['waiting'],
            idle=sockets['idle'] + databases['idle'],
        )

    def close(self) -> list[Figures]:
        """Close the pools.

        :return: the figures
        """
        seconds = self._ended - self._began
        figures = []
        for kind, pool, tallies in (
            ('TCP', self._sockets, self._echoes),
            ('SQLite', self._databases, self._counts),
        ):
            left_out = pool.close(timeout=CLOSE_PATIENCE)
            figures.append(
                Figures(
                    title=f'{len(self._threads):,} threads, {kind}',
                    connections=self._connections,
                    seconds=seconds,
                    tally=total_of(tallies),
                    fairness=jain([tally.answered for tally in tallies]),
                    stats=pool.get_stats(),
                    left_out=left_out,
                )
            )
        self.written = sum(self._values)
        return figures

    def _client(self, index: int) -> None:
        try:
            while not self._stopping.is_set():
                self._echo(index, self._echoes[index])
                self._count(index, self._counts[index])
        except BaseException as error:  # noqa: BLE001 - whatever it is, the demo reports it
            self.failures.append(error)

    def _echo(self, index: int, tally: Tally) -> None:
        message = MESSAGE.pack(index, tally.asked)
        tally.asked += 1
        while not self._giving_up.is_set():
            acquired = False
            began = time.perf_counter()
            try:
                with self._sockets.connection(self._server) as conn:
                    acquired = True
                    tally.waits.append(time.perf_counter() - began)
                    # If this fails, the rest of the answer must not reach the next request: for the manager the
                    # connection is broken.
                    conn.sendall(message)
                    answer = _receive(conn, len(message))
            except PoolTimeout:
                tally.timed_out += 1
            except OSError:
                if acquired:
                    tally.broken += 1
                else:
                    tally.refused += 1
            else:
                if answer == message:
                    tally.answered += 1
                    return
                tally.wrong += 1
            self._giving_up.wait(BACKOFF)

    def _count(self, index: int, tally: Tally) -> None:
        write = (tally.asked + index) % WRITE_EVERY == 0
        tally.asked += 1
        while not self._giving_up.is_set():
            acquired = False
            began = time.perf_counter()
            try:
                with self._databases.connection(self._database) as conn:
                    acquired = True
                    tally.waits.append(time.perf_counter() - began)
                    if write:
                        with conn:
                            conn.execute('UPDATE counter SET value = value + 1 WHERE client = ?', (index,))
                        self._values[index] += 1
                        write = False
                    (value,) = conn.execute('SELECT value FROM counter WHERE client = ?', (index,)).fetchone()
            except PoolTimeout:
                tally.timed_out += 1
            except (OSError, sqlite3.Error):
                if acquired:
                    tally.broken += 1
                else:
                    tally.refused += 1
            else:
                # Only this client writes its counter, each time through another connection.
                if value == self._values[index]:
                    tally.answered += 1
                    return
                tally.wrong += 1
            self._giving_up.wait(BACKOFF)


def _receive(conn: socket, size: int) -> bytes:
    answer = conn.recv(size)
    while len(answer) < size:
        more = conn.recv(size - len(answer))
        if not more:
            raise ConnectionResetError('the server closed the connection')
        answer += more
    return answer


class TasksPhase:
    """asyncio tasks that take turns on a pool of TCP connections, in an event loop in a separate thread.

    :param host: address of the echo server
    :param port: its port
    :param tasks: number of tasks
    :param connections: maximum number of connections of the pool
    """

    name = 'tasks'

    def __init__(self, host: str, port: int, tasks: int, connections: int):
        self.failures: list[BaseException] = []
        self._server: TcpStreamEndpoint = (host, port)
        self._connections = connections
        self._stopping = False
        self._pool = gcpool.asyncio.ConnectionPool[TcpStreamEndpoint, Stream](
            TcpStreamConnectionManager(), max_size=connections, total_max_size=connections, acquire_timeout=PATIENCE
        )
        self._tally = Tally()  # of all tasks: they run in one thread
        self._shares = [0] * tasks
        self._stats = self._pool.get_stats()
        self._left_out: int | None = None  # None until the pool is closed
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[None] | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name='tasks', daemon=True)
        self._began = self._ended = 0.0

    def start(self) -> None:
        self._thread.start()
        self._started.wait()

    def stop(self) -> None:
        """Have the tasks end after their current request. Those that wait for a connection get it first."""
        self._stopping = True

    def give_up(self) -> None:
        """Cancel the tasks."""
        self._stopping = True
        if self._loop is not None and self._main is not None:
            # The loop is closed if the tasks ended in the meantime.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._main.cancel)

    def join(self, timeout: float) -> int:
        """Wait for the tasks to end, and for the pool to be closed.

        :param timeout: how long to wait, in seconds
        :return: 0 if they have, otherwise the number of tasks
        """
        if self._thread.ident is not None:
            self._thread.join(timeout)
        if not self._thread.is_alive():
            return 0
        self._ended = time.perf_counter()
        return len(self._shares)

    def glance(self) -> Glance:
        return Glance(
            answered=self._tally.answered,
            errors=self._tally.errors,
            out=self._stats['acquired'],
            waiting=self._stats['waiting'],
            idle=self._stats['idle'],
        )

    def close(self) -> list[Figures]:
        """Return the figures. The pool's event loop has closed the pool, if the loop has ended."""
        return [
            Figures(
                title=f'{len(self._shares):,} tasks, TCP',
                connections=self._connections,
                seconds=self._ended - self._began,
                tally=self._tally,
                fairness=jain(self._shares),
                stats=self._stats,
                left_out=self._stats['acquired'] if self._left_out is None else self._left_out,
            )
        ]

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except asyncio.CancelledError:
            pass  # given up
        except BaseException as error:  # noqa: BLE001 - whatever it is, the demo reports it
            self.failures.append(error)
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._main = asyncio.current_task()
        self._began = time.perf_counter()
        watch = asyncio.create_task(self._watch())
        self._started.set()
        try:
            await asyncio.gather(*(self._client(index) for index in range(len(self._shares))))
        finally:
            self._ended = time.perf_counter()
            watch.cancel()
            self._left_out = await self._pool.close(timeout=CLOSE_PATIENCE)
            self._stats = self._pool.get_stats()

    async def _watch(self) -> None:
        while True:
            self._stats = self._pool.get_stats()
            await asyncio.sleep(0.1)

    async def _client(self, index: int) -> None:
        while not self._stopping:
            await self._echo(index)

    async def _echo(self, index: int) -> None:
        tally = self._tally
        message = MESSAGE.pack(index, self._shares[index])
        tally.asked += 1
        while True:
            acquired = False
            began = time.perf_counter()
            try:
                async with self._pool.connection(self._server) as (reader, writer):
                    acquired = True
                    tally.waits.append(time.perf_counter() - began)
                    writer.write(message)
                    answer = await reader.readexactly(len(message))
            except PoolTimeout:
                tally.timed_out += 1
            except (OSError, asyncio.IncompleteReadError):
                if acquired:
                    tally.broken += 1
                else:
                    tally.refused += 1
            else:
                if answer == message:
                    tally.answered += 1
                    self._shares[index] += 1
                    return
                tally.wrong += 1
            await asyncio.sleep(BACKOFF)
