"""One small class for each driver: how to make its manager, use a connection, and bound what the driver does.

The bounds are those that a program sets in the parameters of its connections, where the driver has them.
"""

import importlib
import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, final

import pytest

from tests.outages.backends import PASSWORD, USER
from tests.outages.load import AsyncClient, Client, ThreadsClient

__all__ = ['DRIVERS', 'LONG', 'Driver']

# Seconds: for what nothing is to run into, on however slow a machine.
LONG = 10.0

Address = tuple[str, int]
# The server of an endpoint, and for how many seconds the answer to a request or a rollback is waited for.
Targets = Mapping[str, tuple[Address, float]]


def unique() -> int:
    """What an answer is told by that is somebody else's."""
    return random.getrandbits(30)


class Driver(ABC):
    """A driver with its manager.

    Sync drivers have plain methods where async ones have coroutines.
    """

    name: str
    #: The module of the manager, and its class.
    module: str
    manager_class = 'DbConnectionManager'
    #: What to pip install.
    requires: str
    backend: str
    client_class: type[Client] = ThreadsClient
    #: Whether it is Python that resolves the names of hosts, and connects.
    resolves_in_python = False
    #: Whether a request ends in time when the server is connected but silent. If not, it does when packets are dropped.
    bounds_silence = True

    @abstractmethod
    def arguments(self, targets: Targets, ping: bool, rollback_timeout: float) -> dict[str, Any]:
        """What the manager is made with.

        :param rollback_timeout: seconds that a rollback may take where it is the manager that bounds it
        """

    @abstractmethod
    def request(self, conn: Any) -> Any:
        """Ask the server something; raises in time if there is no answer, or if it is the wrong one."""

    @abstractmethod
    def leave_open(self, conn: Any) -> Any:
        """Leave the connection as its next user must not find it."""

    def client(
        self,
        addresses: Mapping[str, Address],
        *,
        ping: bool,
        timeout: float,
        answer_timeout: float,
        **pool_parameters: Any,
    ) -> Client:
        """Make a pool with one endpoint for each address, and a client of it.

        :param timeout: seconds that each acquire of the client may take
        :param answer_timeout: seconds that each answer of the endpoint ``main`` may take
        """
        pytest.importorskip(self.requires)
        manager_class = getattr(importlib.import_module(self.module), self.manager_class)
        targets = {
            endpoint: (address, answer_timeout if endpoint == 'main' else LONG)
            for endpoint, address in addresses.items()
        }
        return self.client_class(
            manager_class,
            self.arguments(targets, ping, answer_timeout),
            timeout=timeout,
            answer_timeout=answer_timeout,
            request=self.request,
            **pool_parameters,
        )

    def __repr__(self) -> str:
        return self.name


def libpq_params(address: Address, answer_timeout: float) -> dict[str, Any]:
    # tcp_user_timeout ends the wait for an acknowledgement, in milliseconds; the keepalives end a wait for an answer.
    return {
        'host': address[0],
        'port': address[1],
        'user': USER,
        'password': PASSWORD,
        'dbname': 'postgres',
        'sslmode': 'disable',
        'gssencmode': 'disable',
        'tcp_user_timeout': int(answer_timeout * 1000),
    }


@final
class Psycopg2(Driver):
    name = 'psycopg2'
    module = 'gcpool.contrib.psycopg2'
    requires = 'psycopg2'
    backend = 'postgres'
    bounds_silence = False

    def arguments(self, targets: Targets, ping: bool, rollback_timeout: float) -> dict[str, Any]:
        params = {endpoint: libpq_params(*target) for endpoint, target in targets.items()}
        return {'dsn_params': params, 'ping': ping, 'rollback_timeout': rollback_timeout}

    def request(self, conn: Any) -> Any:
        conn.autocommit = True
        with conn.cursor() as cursor:
            number = unique()
            cursor.execute(f'SELECT {number}')
            assert cursor.fetchone() == (number,)

    def leave_open(self, conn: Any) -> Any:
        conn.autocommit = False
        with conn.cursor() as cursor:
            cursor.execute('SELECT 1')


@final
class Asyncpg(Driver):
    name = 'asyncpg'
    module = 'gcpool.contrib.asyncpg'
    requires = 'asyncpg'
    backend = 'postgres'
    client_class = AsyncClient

    def arguments(self, targets: Targets, ping: bool, rollback_timeout: float) -> dict[str, Any]:
        params = {
            endpoint: {
                'host': address[0],
                'port': address[1],
                'user': USER,
                'password': PASSWORD,
                'database': 'postgres',
                'ssl': False,
                'command_timeout': answer_timeout,
            }
            for endpoint, (address, answer_timeout) in targets.items()
        }
        return {'dsn_params': params, 'ping': ping}

    async def request(self, conn: Any) -> Any:
        number = unique()
        assert await conn.fetchval(f'SELECT {number}') == number

    async def leave_open(self, conn: Any) -> Any:
        await conn.execute('BEGIN')


def mysql_params(address: Address) -> dict[str, Any]:
    return {'host': address[0], 'port': address[1], 'user': USER, 'password': PASSWORD, 'database': 'gcpool'}


@final
class Pymysql(Driver):
    name = 'pymysql'
    module = 'gcpool.contrib.pymysql'
    requires = 'pymysql'
    backend = 'mariadb'
    resolves_in_python = True

    def arguments(self, targets: Targets, ping: bool, rollback_timeout: float) -> dict[str, Any]:
        params = {
            endpoint: {
                **mysql_params(address),
                'read_timeout': answer_timeout,
                'write_timeout': answer_timeout,
            }
            for endpoint, (address, answer_timeout) in targets.items()
        }
        return {'params': params, 'ping': ping}

    def request(self, conn: Any) -> Any:
        with conn.cursor() as cursor:
            number = unique()
            cursor.execute(f'SELECT {number}')
            assert cursor.fetchone() == (number,)

    def leave_open(self, conn: Any) -> Any:
        conn.begin()


@final
class Psycopg(Driver):
    name = 'psycopg'
    module = 'gcpool.contrib.psycopg'
    manager_class = 'ConnectionManager'
    requires = 'psycopg'
    backend = 'postgres'
    resolves_in_python = True
    bounds_silence = False

    def arguments(self, targets: Targets, ping: bool, rollback_timeout: float) -> dict[str, Any]:
        return psycopg_arguments(targets, ping, rollback_timeout)

    def request(self, conn: Any) -> Any:
        number = unique()
        assert conn.execute(f'SELECT {number}').fetchone() == (number,)

    def leave_open(self, conn: Any) -> Any:
        conn.execute('BEGIN')


@final
class PsycopgAsync(Driver):
    name = 'psycopg-async'
    module = 'gcpool.contrib.psycopg'
    manager_class = 'AsyncConnectionManager'
    requires = 'psycopg'
    backend = 'postgres'
    client_class = AsyncClient
    # A request that is cancelled waits for the server to say so.
    bounds_silence = False

    def arguments(self, targets: Targets, ping: bool, rollback_timeout: float) -> dict[str, Any]:
        return psycopg_arguments(targets, ping, rollback_timeout)

    async def request(self, conn: Any) -> Any:
        number = unique()
        cursor = await conn.execute(f'SELECT {number}')
        assert await cursor.fetchone() == (number,)

    async def leave_open(self, conn: Any) -> Any:
        await conn.execute('BEGIN')


def psycopg_arguments(targets: Targets, ping: bool, rollback_timeout: float) -> dict[str, Any]:
    params = {endpoint: {**libpq_params(*target), 'autocommit': True} for endpoint, target in targets.items()}
    return {'conninfo': params, 'ping': ping, 'rollback_timeout': rollback_timeout}


@final
class Asyncmy(Driver):
    name = 'asyncmy'
    module = 'gcpool.contrib.asyncmy'
    requires = 'asyncmy'
    backend = 'mariadb'
    client_class = AsyncClient

    def arguments(self, targets: Targets, ping: bool, rollback_timeout: float) -> dict[str, Any]:
        params = {
            endpoint: {**mysql_params(address), 'read_timeout': answer_timeout}
            for endpoint, (address, answer_timeout) in targets.items()
        }
        return {'params': params, 'ping': ping}

    async def request(self, conn: Any) -> Any:
        async with conn.cursor() as cursor:
            number = unique()
            await cursor.execute(f'SELECT {number}')
            assert await cursor.fetchone() == (number,)

    async def leave_open(self, conn: Any) -> Any:
        await conn.begin()


@final
class Redis(Driver):
    name = 'redis'
    module = 'gcpool.contrib.redis'
    manager_class = 'RedisConnectionManager'
    requires = 'redis'
    backend = 'redis'
    resolves_in_python = True

    def arguments(self, targets: Targets, ping: bool, rollback_timeout: float) -> dict[str, Any]:
        return redis_arguments(targets, ping)

    def request(self, conn: Any) -> Any:
        number = unique()
        conn.send_command('ECHO', number)
        assert conn.read_response() == str(number).encode()

    def leave_open(self, conn: Any) -> Any:
        conn.send_command('MULTI')
        conn.read_response()


@final
class RedisAsync(Driver):
    name = 'redis-async'
    module = 'gcpool.contrib.redis'
    manager_class = 'AsyncRedisConnectionManager'
    requires = 'redis'
    backend = 'redis'
    client_class = AsyncClient

    def arguments(self, targets: Targets, ping: bool, rollback_timeout: float) -> dict[str, Any]:
        return redis_arguments(targets, ping)

    async def request(self, conn: Any) -> Any:
        number = unique()
        await conn.send_command('ECHO', number)
        assert await conn.read_response() == str(number).encode()

    async def leave_open(self, conn: Any) -> Any:
        await conn.send_command('MULTI')
        await conn.read_response()


def redis_arguments(targets: Targets, ping: bool) -> dict[str, Any]:
    endpoints = {
        endpoint: {'host': address[0], 'port': address[1], 'socket_timeout': answer_timeout}
        for endpoint, (address, answer_timeout) in targets.items()
    }
    return {'endpoints': endpoints, 'ping': ping}


DRIVERS: tuple[Driver, ...] = (
    Psycopg2(),
    Psycopg(),
    PsycopgAsync(),
    Asyncpg(),
    Pymysql(),
    Asyncmy(),
    Redis(),
    RedisAsync(),
)
