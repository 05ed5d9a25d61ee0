"""gcpool.contrib.django in a Django project, on a real server. Each test has a process: settings are global."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.contrib.servers import PostgresServer, running_postgres
from tests.support import PATIENCE, program_environment

pytest.importorskip('psycopg')
pytest.importorskip('django')

pytestmark = pytest.mark.postgres

OURS = 'gcpool.contrib.django.postgresql'
DJANGOS = 'django.db.backends.postgresql'
POOL = {'min_size': 2, 'max_size': 4, 'timeout': PATIENCE}

forks = pytest.mark.skipif(sys.platform == 'win32', reason='Windows cannot fork')


class Project:
    """The Django project, with a server of its own."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server

    def database(self, engine: str = OURS, *, pool: object = POOL, **settings: Any) -> dict[str, Any]:
        params = self.server.conninfo_params
        options = {'pool': pool, **settings.pop('options', {})}
        return {
            'ENGINE': engine,
            **{name: params[key] for name, key in (('HOST', 'host'), ('PORT', 'port'), ('USER', 'user'))},
            'PASSWORD': params['password'],
            'NAME': params['dbname'],
            'OPTIONS': {name: value for name, value in options.items() if value is not None},
            **settings,
        }

    def run(self, scenario: str, *, install: bool = False, **databases: Any) -> str:
        """Run a scenario, which must not complain; return what it says."""
        given = {'install': install, 'default': self.database(), **databases}
        process = subprocess.Popen(
            # Development mode shows what is otherwise silent, such as connections that nobody closes. Django and what
            # it needs may use what the newest Python deprecates.
            [
                sys.executable,
                '-X',
                'dev',
                '-W',
                'ignore::DeprecationWarning',
                '-m',
                'tests.django_.scenarios',
                scenario,
            ],
            env={**program_environment(), 'GCPOOL_DJANGO_SETTINGS': json.dumps(given)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        said = ''
        with process:
            assert process.stdin is not None
            assert process.stdout is not None
            if scenario == 'restart':
                assert process.stdout.readline() == 'restart the server\n', process.communicate(timeout=PATIENCE)[1]
                self.server.restart()
                process.stdin.write('done\n')
            try:
                said, complaints = process.communicate(timeout=2 * PATIENCE)
            finally:
                process.kill()
        if scenario == 'test_command':
            # Its report.
            assert process.returncode == 0, complaints
            return complaints
        assert process.returncode == 0, complaints
        assert complaints == ''
        return said


@pytest.fixture(scope='session')
def project() -> Iterator[Project]:
    """The project, its tables made, with no pool left open."""
    with running_postgres() as server:
        project = Project(server)
        project.run('migrate')
        yield project


@pytest.fixture(params=['engine', 'install'])
def way(request: pytest.FixtureRequest, project: Project) -> dict[str, Any]:
    """The settings for gcpool's pool: its backend, or Django's where the settings call install()."""
    if request.param == 'engine':
        return {}
    return {'install': True, 'default': project.database(DJANGOS)}


def test_requests_in_threads_share_the_pool(project: Project, way: dict[str, Any]) -> None:
    project.run('requests_in_threads', **way)


@pytest.mark.parametrize(('engine', 'install'), [('derived', True), ('pooled', False)])
def test_a_backend_that_is_made_of_djangos_gets_the_pool_by_install_or_inheritance(
    project: Project, engine: str, install: bool
) -> None:
    backend = f'tests.django_.project.{engine}'
    project.run('requests_in_threads', install=install, default=project.database(backend))
    report = project.run('test_command', install=install, default=project.database(backend))
    assert 'Ran 5 tests' in report


def test_a_request_that_fails_is_rolled_back_whole(project: Project) -> None:
    project.run('atomic_requests')


def test_transactions_savepoints_cursors_and_isolation_are_those_of_django(project: Project) -> None:
    # psycopg.IsolationLevel.SERIALIZABLE
    project.run('transactions', default=project.database(options={'isolation_level': 4}))


def test_asynchronous_requests_share_the_pool_in_threads(project: Project) -> None:
    project.run('asgi')


@pytest.mark.outage
@pytest.mark.parametrize('checks', [True, False])
def test_requests_survive_a_restart_of_the_server(project: Project, checks: bool) -> None:
    project.run('restart', default=project.database(CONN_HEALTH_CHECKS=checks))


@forks
def test_a_forked_child_has_connections_of_its_own(project: Project) -> None:
    project.run('in_a_forked_child')


def test_the_tests_of_a_project_run_on_a_test_database(project: Project, way: dict[str, Any]) -> None:
    report = project.run('test_command', **way)
    assert 'Ran 5 tests' in report
    assert project.server.query("SELECT datname FROM pg_database WHERE datname LIKE 'test%'") == ''


def test_threads_race_to_make_the_pool_and_the_losers_are_dropped(project: Project) -> None:
    project.run('threads_race_to_make_the_pool')


def test_threads_may_open_the_pool_at_once(project: Project) -> None:
    project.run('threads_open_the_pool_at_once')


def test_close_pool_ends_the_pool_and_the_next_connection_makes_one(project: Project) -> None:
    project.run('close_pool')


def test_an_exhausted_pool_is_an_operational_error_of_django(project: Project) -> None:
    project.run('exhausted', default=project.database(pool={'min_size': 1, 'max_size': 1, 'timeout': 0.2}))


def test_a_conninfo_that_is_none_is_an_operational_error_with_that_of_psycopg_as_its_cause(project: Project) -> None:
    project.run('bad_conninfo', default=project.database(pool={'min_size': 1, 'conninfo': 'nonsense', 'timeout': 0.2}))


def test_pool_may_be_true(project: Project) -> None:
    project.run('requests_in_threads', default=project.database(pool=True))


@pytest.mark.skipif(importlib.util.find_spec('psycopg_pool') is None, reason='psycopg_pool is not installed')
def test_nothing_of_django_or_psycopg_pool_changes(project: Project) -> None:
    project.run('beside_the_original', theirs=project.database(DJANGOS), unpooled=project.database(pool=None))


def test_settings_that_are_wrong_are_refused_as_django_does_and_named(project: Project) -> None:
    said = project.run('refused_settings').splitlines()
    persistent = (
        "ImproperlyConfigured Pooling doesn't support persistent connections. CONN_MAX_AGE of the database 'default'"
    )
    where = "OPTIONS['pool'] of the database 'default'"
    assert said[:2] == [f'{persistent} is 60: expected 0', f'{persistent} is None: expected 0']
    assert said[2].startswith(f"TypeError {where} has 'max_conns', which the pool does not know: expected 'conninfo', ")
    assert said[3] == f"TypeError {where} has 'open', which Django sets itself: expected none of these"
    assert said[4] == f"TypeError {where} is 'yes': expected True or a dictionary"
    assert said[5].startswith('ValueError max_size=2 is less than min_size=3')
    assert len(said) == 6


TOO_OLD = """\
import sys, types
{before}
import gcpool.contrib.django.postgresql.base
"""


@pytest.mark.parametrize(
    ('before', 'error', 'message'),
    [
        (
            'sys.modules["django"] = None',
            'ImportError',
            'gcpool.contrib.django needs Django: pip install "gcpool[django]"',
        ),
        (
            'import django; django.VERSION, django.__version__ = (4, 2, 1, "final", 0), "4.2.1"',
            'ImproperlyConfigured',
            'gcpool.contrib.django needs Django 5.2 or newer, and this is 4.2.1: pip install "gcpool[django]"',
        ),
        (
            'sys.modules["psycopg"] = None',
            'ImproperlyConfigured',
            'needs psycopg 3, which cannot be imported: pip install',
        ),
        (
            'import psycopg; psycopg.__version__ = "3.1.18"',
            'ImproperlyConfigured',
            'needs psycopg 3.2 or newer, and this is 3.1.18: pip install',
        ),
    ],
)
def test_a_django_or_psycopg_that_is_missing_or_too_old_is_named(before: str, error: str, message: str) -> None:
    ended = subprocess.run(
        [sys.executable, '-c', TOO_OLD.format(before=before)],
        env=program_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    last = ended.stderr.splitlines()[-1]
    assert error in last
    assert message in last
