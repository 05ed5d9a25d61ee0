"""A PostgreSQL server for the programs that use other people's packages on gcpool.psycopg_pool."""

from collections.abc import Iterator

import pytest

from tests.contrib.servers import PostgresServer, running_postgres


@pytest.fixture(scope='session')
def postgres() -> Iterator[PostgresServer]:
    """A private PostgreSQL server."""
    with running_postgres(max_connections=60) as server:
        yield server


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[str]:
    """Where an empty database of it is: each package makes tables of its own."""
    postgres.query('CREATE DATABASE users')
    yield f'{postgres.dsn.rpartition("/")[0]}/users'
    postgres.query('DROP DATABASE users WITH (FORCE)')
