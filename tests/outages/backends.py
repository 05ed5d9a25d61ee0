"""The servers that go out, all in the same words."""

import contextlib
import socket
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import final

from tests.contrib.mariadb import MariadbServer, running_mariadb
from tests.contrib.redis_server import RedisServer, running_redis
from tests.contrib.servers import PATIENCE, PostgresServer, running_postgres
from tests.outages.load import eventually

__all__ = ['Backend', 'running_backend']

# An account of its own, which the server may refuse while the administrator still gets in.
USER = 'outage'
PASSWORD = 'not-a-secret'


class Backend(ABC):
    """A server that can be ended, asked, and told to refuse; by an administrator, who is not counted."""

    host: str
    port: int

    @abstractmethod
    def kill(self) -> None:
        """End it with SIGKILL, and wait until it is gone."""

    @abstractmethod
    def start_again(self) -> None:
        """Start it again, and wait until it accepts connections."""

    @abstractmethod
    def count_sessions(self) -> int:
        """How many sessions it has."""

    @abstractmethod
    def terminate_sessions(self) -> int:
        """End all sessions that there are, wait until they are gone, and tell how many there were."""

    @abstractmethod
    def limit_sessions(self, count: int | None) -> None:
        """Refuse more sessions than that; None for as many as usual."""

    def wait_for_sessions(self, count: int) -> None:
        """Wait until it has that many sessions."""
        eventually(f'{self.count_sessions} gives {count}', lambda: self.count_sessions() == count)


@final
class PostgresBackend(Backend):
    database = PostgresServer.database

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self.host, self.port = server.host, server.port
        server.query(f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'")

    def kill(self) -> None:
        self._server.kill()

    def start_again(self) -> None:
        self._server.start_again()

    def count_sessions(self) -> int:
        return self._server.count_sessions()

    def terminate_sessions(self) -> int:
        return self._server.terminate_sessions()

    def limit_sessions(self, count: int | None) -> None:
        self._server.query(f'ALTER ROLE {USER} CONNECTION LIMIT {-1 if count is None else count}')


@final
class MariadbBackend(Backend):
    database = MariadbServer.database

    def __init__(self, server: MariadbServer) -> None:
        self._server = server
        self.host, self.port = server.host, server.port
        server.execute(f"CREATE USER {USER}@'%' IDENTIFIED BY '{PASSWORD}'")
        server.execute(f'GRANT ALL ON {self.database}.* TO {USER}')

    def kill(self) -> None:
        self._server.kill()

    def start_again(self) -> None:
        self._server.start()

    def count_sessions(self) -> int:
        return len(self._sessions())

    def terminate_sessions(self) -> int:
        import pymysql

        sessions = self._sessions()
        for session in sessions:
            # It may have ended by itself.
            with contextlib.suppress(pymysql.err.OperationalError):
                self._server.execute(f'KILL {session}')
        eventually('the sessions are killed', lambda: not sessions & self._sessions())
        return len(sessions)

    def _sessions(self) -> set[int]:
        rows = self._server.execute("SELECT id FROM information_schema.processlist WHERE user <> 'root'")
        return {int(row[0]) for row in rows}

    def limit_sessions(self, count: int | None) -> None:
        self._server.execute(f"ALTER USER {USER}@'%' WITH MAX_USER_CONNECTIONS {count or 0}")


@final
class RedisBackend(Backend):
    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self.host, self.port = server.host, server.port
        self._administrator: socket.socket | None = None

    def kill(self) -> None:
        self._server.kill()

    def start_again(self) -> None:
        self._server.start()

    def count_sessions(self) -> int:
        return self._server.count_clients()

    def terminate_sessions(self) -> int:
        return self._server.kill_clients()

    def limit_sessions(self, count: int | None) -> None:
        # Nobody has precedence: the administrator must be there already to let others in again.
        if self._administrator is None:
            self._administrator = socket.create_connection((self.host, self.port), PATIENCE)
        maxclients = 200 if count is None else count + 1
        self._administrator.sendall(f'CONFIG SET maxclients {maxclients}\r\n'.encode())
        assert self._administrator.recv(100) == b'+OK\r\n'
        if count is None:
            self._administrator.close()
            self._administrator = None


@contextlib.contextmanager
def running_backend(kind: str) -> Iterator[Backend]:
    """Start a private server; where there is none the test is skipped."""
    if kind == 'postgres':
        with running_postgres() as postgres:
            yield PostgresBackend(postgres)
    elif kind == 'mariadb':
        with running_mariadb() as mariadb:
            yield MariadbBackend(mariadb)
    elif kind == 'redis':
        with running_redis() as redis:
            yield RedisBackend(redis)
    else:
        raise ValueError(f'there is no server of the kind {kind!r}')
