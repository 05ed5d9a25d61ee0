"""Packages that use psycopg_pool, on gcpool.psycopg_pool: the real ones, against a real server.

Each test runs a program of ``tests/users/programs``, which raises if something is wrong. It has a process of its own,
because ``install()`` and instrumentation are global. Flask-SQLAlchemy and FastAPI with SQLAlchemy stand in
``tests/contrib/test_sqlalchemy_frameworks.py``, Django in ``tests/django_``.
"""

import importlib.util
import subprocess
import sys

import pytest

from tests.contrib.servers import PostgresServer
from tests.support import PATIENCE, program_environment

pytest.importorskip('psycopg')

pytestmark = pytest.mark.postgres

# By what has to be installed. On 3.15 and free-threaded builds, some have no wheels for what they need.
PROGRAMS = {
    'langgraph_checkpoints': 'langgraph.checkpoint.postgres',
    'procrastinate_jobs': 'procrastinate',
    'aiosql_queries': 'aiosql',
    'fastapi_lifespan': 'fastapi',
    'opentelemetry_traces': 'opentelemetry.instrumentation.psycopg',
}


def is_installed(module: str) -> bool:
    package, _, rest = module.partition('.')
    if importlib.util.find_spec(package) is None:
        return False
    try:
        return not rest or importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        # A namespace that other distributions share.
        return False


def run(program: str, way: str, database: str) -> None:
    """Run a program with gcpool's pool by ``install()``, or by an import of its own."""
    module = PROGRAMS[program]
    if not is_installed(module):
        pytest.skip(f'{module.partition(".")[0]} is not installed')
    ended = subprocess.run(
        # Packages may use what newer ones of theirs deprecate, or switch the GIL on. What nobody closes is an error.
        [
            *(sys.executable, '-W', 'error', '-W', 'ignore::DeprecationWarning'),
            *('-W', 'ignore::PendingDeprecationWarning', '-W', 'ignore:The global interpreter lock:RuntimeWarning'),
            *('-m', 'tests.users.programs', program, way, database),
        ],
        env=program_environment(),
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, '', 'done\n')


def expect_no_sessions(postgres: PostgresServer) -> None:
    """Each program has closed its pools, and so all connections."""
    postgres.wait_for_sessions(0)


ways = pytest.mark.parametrize('way', ['install', 'import'])


@ways
@pytest.mark.parametrize('program', ['langgraph_checkpoints', 'procrastinate_jobs', 'aiosql_queries'])
def test_a_package_that_uses_the_pool(program: str, way: str, database: str, postgres: PostgresServer) -> None:
    run(program, way, database)
    expect_no_sessions(postgres)


def test_a_fastapi_service_whose_pool_lives_as_long_as_it_does(database: str, postgres: PostgresServer) -> None:
    run('fastapi_lifespan', 'import', database)
    expect_no_sessions(postgres)


def test_opentelemetry_traces_statements_of_pooled_connections(database: str, postgres: PostgresServer) -> None:
    run('opentelemetry_traces', 'import', database)
    expect_no_sessions(postgres)
