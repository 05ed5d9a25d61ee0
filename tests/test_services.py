"""The examples that are services: each runs as its users run it, is asked for a lot at once, and ends when told to."""

import asyncio
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, final

import pytest

import gcpool.asyncio
import gcpool.threading
from gcpool.exceptions import UnknownEndpoint
from tests.contrib.servers import PostgresServer, closed_port, running_postgres
from tests.support import PATIENCE, program_environment

EXAMPLES = Path(__file__).resolve().parents[1] / 'examples'

# The clients are more than the connections of any service's pool.
REQUESTS = 60
CLIENTS = 16

# For those that run a service as a program.
runs = pytest.mark.skipif(sys.platform == 'win32', reason='there no signal asks a program to end')


def needs(*modules: str) -> pytest.MarkDecorator:
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    return pytest.mark.skipif(bool(missing), reason=f'not installed: {", ".join(missing)}')


@final
class Service:
    """A program that serves until it is told to end. What it says is collected, on both of its streams.

    :param command: the program's arguments, after the interpreter's
    :param settings: environment variables of its own
    """

    def __init__(self, *command: str, **settings: str) -> None:
        self._said: list[str] = []
        self._news = threading.Condition()
        self._ended = False
        self._process = subprocess.Popen(
            # Development mode shows what is otherwise silent, such as connections that nobody closes.
            [sys.executable, '-X', 'dev', '-u', *command],
            env={**program_environment(), **settings},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._listener = threading.Thread(target=self._listen, name='service-listener', daemon=True)

    def __enter__(self) -> 'Service':
        self._listener.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._process.poll() is None:
            # With the processes that it has forked.
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(PATIENCE)
        self._listener.join(PATIENCE)
        assert not self._listener.is_alive()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._news:
                self._said.append(line)
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    @property
    def said(self) -> str:
        with self._news:
            return ''.join(self._said)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until it says something."""
        with self._news:
            self._news.wait_for(lambda: self._ended or re.search(pattern, ''.join(self._said)), PATIENCE)
            found = re.search(pattern, ''.join(self._said))
        assert found, f'{pattern} does not come, but:\n{self.said}'
        return found

    @property
    def url(self) -> str:
        """Where it serves: each of them says that once it listens, at a port that the system has chosen."""
        return self.wait_for(r'http://127\.0\.0\.1:[1-9]\d*')[0]

    def ask(self, path: str, method: str = 'GET') -> Any:
        """Send one request, and wait for the answer."""
        request = urllib.request.Request(self.url + path, method=method)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)

    def ask_for_metrics(self) -> dict[str, float]:
        """Ask for /metrics, as Prometheus does."""
        with urllib.request.urlopen(f'{self.url}/metrics', timeout=PATIENCE) as answer:
            assert answer.headers['Content-Type'].startswith('text/plain; version=')
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(' ') for line in lines if line[0] != '#')}

    def ask_at_once(self, path: str, method: str = 'GET') -> list[Any]:
        """Send many requests, from many clients."""
        with ThreadPoolExecutor(CLIENTS) as executor:
            return list(executor.map(lambda _: self.ask(path, method), range(REQUESTS)))

    def end(self) -> None:
        """Tell it to end, and look at how it does."""
        self._process.send_signal(signal.SIGTERM)
        # Some end by the signal, after they have cleaned up.
        assert self._process.wait(PATIENCE) in {0, -signal.SIGTERM}, self.said
        self._listener.join(PATIENCE)
        for fault in ('Traceback', 'ResourceWarning', 'RuntimeWarning', 'never awaited'):
            assert fault not in self.said, self.said


@pytest.fixture(scope='module')
def postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


def check_visits(service: Service) -> None:
    """Of many visits at once each is counted, on at most four connections, and none stays out."""
    counts = [
        answer if isinstance(answer, int) else answer['visits'] for answer in service.ask_at_once('/visits/ann', 'POST')
    ]
    assert sorted(counts) == list(range(1, REQUESTS + 1))
    visits = service.ask('/visits/ann')
    assert visits in (REQUESTS, {'name': 'ann', 'visits': REQUESTS})
    stats = service.ask('/pool')
    assert stats['acquires'] >= REQUESTS + 2
    assert 1 <= stats['created'] <= 4
    assert (stats['acquired'], stats['waiting'], stats['timeouts']) == (0, 0, 0)


def load(example: str) -> Any:
    """An example as a module of this process."""
    spec = importlib.util.spec_from_file_location(example, EXAMPLES / f'{example}.py')
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def ask(app: Any, path: str) -> tuple[int, dict[bytes, bytes], bytes]:
    """Send a request to an ASGI application of this process; the status, the headers and the body of its answer."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {'type': 'http.request', 'body': b''}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {'type': 'http', 'method': 'GET', 'path': path, 'headers': [], 'query_string': b'', 'http_version': '1.1'}
    await app(scope, receive, send)
    start, *bodies = sent
    return start['status'], dict(start['headers']), b''.join(body.get('body', b'') for body in bodies)


class NothingManager(gcpool.asyncio.BaseConnectionManager[str, object]):
    """Makes connections that lead nowhere."""

    async def create(self, endpoint: str, timeout: float | None = None) -> object:
        return object()

    async def dispose(self, endpoint: str, conn: object, timeout: float | None = None) -> None:
        pass


def check_unavailable(status: int, retry_after: object, body: bytes, log: str) -> None:
    """What the client is told is that it may come again, and nothing of the server; the log has the rest."""
    assert (status, retry_after, json.loads(body)) == (503, '1', {'error': 'no connection to the database'})
    assert 'connection to' in log


@runs
@pytest.mark.postgres
@needs('fastapi', 'uvicorn', 'asyncpg')
def test_fastapi(postgres: PostgresServer) -> None:
    command = ('-m', 'uvicorn', '--app-dir', str(EXAMPLES), '--port', '0', 'fastapi_service:app')
    with Service(*command, GCPOOL_EXAMPLE_DSN=postgres.dsn) as service:
        check_visits(service)
        service.end()
        assert 'Application shutdown complete' in service.said


@needs('fastapi', 'asyncpg')
class TestFastapiWithoutConnections:
    @pytest.fixture
    def example(self) -> Any:
        return load('fastapi_service')

    def answer(self, example: Any, manager: Any, *, held: bool = False) -> tuple[int, str, bytes]:
        """The status, the time to wait and the body of what a request is answered.

        :param manager: of the service's pool
        :param held: whether the pool's only connection is out
        """

        async def main() -> tuple[int, str, bytes]:
            pool = gcpool.asyncio.ConnectionPool[str, object](
                manager, max_size=1, acquire_timeout=0.01 if held else PATIENCE
            )
            example.app.state.pool = pool
            if held:
                await pool.acquire('primary', timeout=PATIENCE)
            status, headers, body = await ask(example.app, '/visits/ann')
            assert await pool.close(timeout=0) == held
            return status, headers.get(b'retry-after', b'').decode(), body

        return asyncio.run(main())

    def test_refused(self, example: Any, caplog: pytest.LogCaptureFixture) -> None:
        with closed_port() as port:
            params = {'host': '127.0.0.1', 'port': port, 'user': 'ann'}
            answer = self.answer(example, example.DbConnectionManager({'primary': params}))
        check_unavailable(*answer, caplog.text)
        assert str(port) in caplog.text

    def test_all_out(self, example: Any, caplog: pytest.LogCaptureFixture) -> None:
        check_unavailable(*self.answer(example, NothingManager(), held=True), caplog.text)

    def test_an_unknown_endpoint_is_a_fault_of_the_program(self, example: Any) -> None:
        with pytest.raises(UnknownEndpoint, match="endpoint 'primary' is not in"):
            self.answer(example, example.DbConnectionManager({}))


@needs('flask')
def test_flask_without_connections(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    example = load('flask_service')
    example.DATABASE = str(tmp_path / 'visits.db')
    example.pool.close()
    example.pool = gcpool.threading.ConnectionPool(example.SqliteConnectionManager(), max_size=1, acquire_timeout=0.01)
    with example.pool.connection(example.DATABASE), example.app.test_client() as client:
        answer = client.get('/visits/ann')
        check_unavailable(answer.status_code, answer.headers.get('Retry-After'), answer.data, caplog.text)
        assert 'visits.db' in caplog.text
    example.pool.close()


@runs
@needs('flask')
def test_flask(tmp_path: Path) -> None:
    database = tmp_path / 'visits.db'
    with Service(str(EXAMPLES / 'flask_service.py'), '0', GCPOOL_EXAMPLE_DATABASE=str(database)) as service:
        check_visits(service)
        service.end()
    # The last connection that is closed tidies up: nothing but the database is left.
    assert list(tmp_path.iterdir()) == [database]


@runs
@pytest.mark.postgres
@needs('gunicorn', 'psycopg2')
@pytest.mark.skipif(not hasattr(os, 'fork'), reason='processes do not fork there')
def test_gunicorn_with_an_app_loaded_before_the_fork(postgres: PostgresServer) -> None:
    options = ('--preload', '--workers', '2', '--threads', '8', '--bind', '127.0.0.1:0', '--no-control-socket')
    command = ('-m', 'gunicorn', *options, '--chdir', str(EXAMPLES), 'gunicorn_preload:app')
    with Service(*command, GCPOOL_EXAMPLE_DSN=postgres.dsn) as service:
        answers = service.ask_at_once('/')
        parent = answers[0]['preloaded by']

        # Each connection is of one process, and none the one that the parent opened before the fork.
        owners: dict[int, set[int]] = {}
        for answer in answers:
            assert answer['preloaded by'] == parent
            owners.setdefault(answer['answered by']['backend'], set()).add(answer['answered by']['process'])
            assert 1 <= answer['pool of this worker']['created'] <= 4
        assert all(len(processes) == 1 for processes in owners.values()), owners
        assert parent['backend'] not in owners
        assert parent['process'] not in set.union(*owners.values())

        # A worker that ends closes its own connections, and not the parent's.
        worker = answers[0]['answered by']['process']
        os.kill(worker, signal.SIGTERM)
        service.wait_for(rf'Worker exiting \(pid: {worker}\)')
        its_own = {backend for backend, processes in owners.items() if processes == {worker}}
        deadline = time.monotonic() + PATIENCE
        while its_own & (left := sessions(postgres)):
            assert time.monotonic() < deadline, f'still open: {its_own & left}'
        assert parent['backend'] in left
        assert service.ask('/')['preloaded by'] == parent

        service.end()
    postgres.wait_for_sessions(0)


def sessions(postgres: PostgresServer) -> set[int]:
    """Which of the server's processes serve somebody."""
    return set(
        map(int, postgres.query("SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'").split())
    )


@runs
@needs('fastapi', 'uvicorn', 'aiosqlite', 'prometheus_client')
def test_fastapi_with_metrics(tmp_path: Path) -> None:
    command = ('-m', 'uvicorn', '--app-dir', str(EXAMPLES), '--port', '0', 'fastapi_metrics:app')
    with Service(*command, GCPOOL_EXAMPLE_DATABASE=str(tmp_path / 'visits.db')) as service:
        assert sorted(service.ask_at_once('/visits/ann', 'POST')) == list(range(1, REQUESTS + 1))
        assert service.ask('/healthz') == {'status': 'ok', 'reason': None}
        metrics = service.ask_for_metrics()
        assert metrics['gcpool_pool_acquires_total{pool="visits"}'] == REQUESTS + 1
        assert metrics['gcpool_pool_use_seconds_count{pool="visits"}'] == REQUESTS + 1
        assert metrics['gcpool_pool_connections{pool="visits",state="in_use"}'] == 0
        assert 1 <= metrics['gcpool_pool_connections{pool="visits",state="idle"}'] <= 4
        service.end()


@needs('fastapi', 'aiosqlite', 'prometheus_client')
def test_a_pool_that_is_exhausted_is_not_ready() -> None:
    async def main() -> None:
        async with gcpool.asyncio.ConnectionPool(NothingManager(), total_max_size=1) as pool:
            example.app.state.pool = pool
            async with pool.connection('primary'):
                status, _, body = await ask(example.app, '/healthz')
                assert (status, json.loads(body)['status']) == (503, 'exhausted')
            status, _, body = await ask(example.app, '/healthz')
            assert (status, json.loads(body)['status']) == (200, 'ok')

    example = load('fastapi_metrics')
    try:
        asyncio.run(main())
    finally:
        unregister_collectors()


def unregister_collectors() -> None:
    from prometheus_client import REGISTRY

    from gcpool.contrib.prometheus import PoolCollector

    for collector in list(REGISTRY._collector_to_names):
        if isinstance(collector, PoolCollector):
            REGISTRY.unregister(collector)


@runs
@needs('gunicorn', 'prometheus_client')
@pytest.mark.skipif(not hasattr(os, 'fork'), reason='processes do not fork there')
def test_gunicorn_with_metrics_of_all_workers(tmp_path: Path) -> None:
    (tmp_path / 'metrics').mkdir()
    settings = {
        'GCPOOL_EXAMPLE_DATABASE': str(tmp_path / 'numbers.db'),
        'PROMETHEUS_MULTIPROC_DIR': str(tmp_path / 'metrics'),
    }
    options = ('--workers', '2', '--threads', '8', '--bind', '127.0.0.1:0', '--no-control-socket')
    command = ('-m', 'gunicorn', *options, '--chdir', str(EXAMPLES), 'gunicorn_metrics:app')
    with Service(*command, **settings) as service:
        answers = service.ask_at_once('/')
        assert {answer['answer'] for answer in answers} == {42}
        assert service.ask('/healthz') == {'status': 'ok', 'reason': None}
        # Each scrape is served by one worker; the other one's figures come with its next copy.
        deadline = time.monotonic() + PATIENCE
        while (metrics := service.ask_for_metrics())['gcpool_pool_acquires_total{pool="numbers"}'] < REQUESTS:
            assert time.monotonic() < deadline, metrics
            time.sleep(0.1)
        assert metrics['gcpool_pool_acquires_total{pool="numbers"}'] == REQUESTS
        assert metrics['gcpool_pool_connections{pool="numbers",state="in_use"}'] == 0
        assert metrics['gcpool_pool_max_connections{pool="numbers"}'] in {100, 200}
        buckets = {
            key: value for key, value in metrics.items() if key.startswith('gcpool_pool_use_seconds_bucket_total{')
        }
        assert max(buckets.values()) == buckets['gcpool_pool_use_seconds_bucket_total{le="+Inf",pool="numbers"}']
        assert metrics['gcpool_pool_use_seconds_count_total{pool="numbers"}'] == REQUESTS
        service.end()


@runs
@needs('celery')
@pytest.mark.skipif(not hasattr(os, 'fork'), reason='processes do not fork there')
def test_celery_with_processes_forked_from_one_that_used_the_pool(tmp_path: Path) -> None:
    settings = {'GCPOOL_EXAMPLE_DIRECTORY': str(tmp_path)}
    command = ('-m', 'celery', '--workdir', str(EXAMPLES), '--app', 'celery_fork', 'worker', '--concurrency', '2')
    with Service(*command, **settings) as worker:
        result = subprocess.run(
            [sys.executable, '-X', 'dev', str(EXAMPLES / 'celery_fork.py')],
            env={**program_environment(), **settings},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=3 * PATIENCE,
            check=False,
        )
        assert (result.returncode, result.stderr) == (0, ''), worker.said
        assert re.fullmatch(
            r'rows and sum: \(20, 190\)\nworker processes, at most 2: [12]\n'
            r'connections opened by each process: \{1\}\n',
            result.stdout,
        ), result.stdout
        worker.end()
