"""Compare gcpool with other pools on real servers: ``python -m bench.servers``.

PostgreSQL, MariaDB and Redis run as private servers on loopback, started from the installed programs and stopped at the
end.
"""

import argparse
import contextlib
import functools
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time_ns
from typing import Any

import pytest
from rich.console import Console

from . import interpreter, report, servers_asyncio, servers_checkout, servers_report, servers_spike, servers_threads
from .measure import Figure, Goal, Timed, calibrate, interleave
from .runtimes import Runtime, all_runtimes, check_reuse, opened
from .servers_measure import (
    ALL_SERVED,
    LEAST_OF_MOST,
    MEASURES,
    OPENED,
    PROCESSOR,
    SHORTEST_OF_LONGEST,
    SPIKE_MEASURES,
    THROUGHPUT,
    WAIT_99,
    Load,
    LoadResult,
    compare,
)
from .settings import FULL, QUICK, Settings

__all__ = ['CONNECTIONS', 'WORKERS', 'Case', 'Peer', 'Servers', 'load', 'main', 'spike']

CONNECTIONS = 8
WORKERS = {'threads': 16, 'asyncio': 64}

#: queries for PostgreSQL; the second takes it 1 ms
STATEMENTS = {'select_1': ('SELECT 1', 1), '1_ms': ('SELECT 1 FROM pg_sleep(0.001)', 1)}

KEY, VALUE = 'gcpool', b'a value of some length, as a session or a small document has it'


@dataclass(frozen=True)
class Peer:
    """What gcpool is compared with in a case: goals for its throughput and its 99th percentile, relative to the
    other's.

    :ivar in_turn: whether it serves waiters in turn. If not, hardly any served worker has waited, some are not served
        at all, and its percentiles mean nothing.
    """

    name: str
    throughput: Goal | None = None
    wait_99: Goal | None = None
    in_turn: bool = False


class Servers:
    """The servers of a run, each started when a case first needs it."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack

    @functools.cached_property
    def postgres(self) -> str:
        """The connection string of a PostgreSQL server."""
        from tests.contrib.servers import running_postgres

        return self._stack.enter_context(running_postgres(max_connections=100)).dsn

    @functools.cached_property
    def redis(self) -> tuple[str, int]:
        """Host and port of a Redis server that has the key."""
        import redis

        from tests.contrib.redis_server import running_redis

        server = self._stack.enter_context(running_redis())
        with contextlib.closing(redis.Redis(server.host, server.port)) as client:
            client.set(KEY, VALUE)
        return server.host, server.port

    @functools.cached_property
    def mariadb(self) -> dict[str, Any]:
        """The parameters of a connection to a MariaDB server, with autocommit."""
        from tests.contrib.mariadb import running_mariadb

        return {**self._stack.enter_context(running_mariadb()).params, 'autocommit': True}

    @functools.cached_property
    def sqlite(self) -> str:
        """The path of a database."""
        return str(Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix='gcpool-bench-'))) / 'database')


Case = Callable[[Settings, Servers], LoadResult]


def _cases(runtime: Runtime) -> dict[str, Case]:
    """Return the cases of a runtime by name, in the order of the table."""
    cases = _threads_cases(runtime) if runtime.name == 'threads' else _asyncio_cases(runtime)
    for driver in servers_checkout.DRIVERS[runtime.name]:
        cases[f'checkout_{driver}'] = functools.partial(servers_checkout.checkout, runtime, driver)
    return {f'{runtime.name}.{name}': case for name, case in cases.items()}


def _threads_cases(runtime: Runtime) -> dict[str, Case]:
    cases: dict[str, Case] = {}
    for name, (statement, answer) in STATEMENTS.items():
        has_goal = name == 'select_1'
        cases[f'psycopg_{name}'] = functools.partial(
            load,
            runtime,
            f'psycopg, {statement}',
            lambda servers: servers_threads.psycopg_subjects(servers.postgres, CONNECTIONS, WORKERS['threads']),
            servers_threads.select(statement, answer),
            [
                Peer('SQLAlchemy QueuePool', throughput=Goal('>=', 1) if has_goal else None),
                Peer('psycopg_pool', in_turn=True),
                Peer('generic_connection_pool'),
                Peer(servers_threads.NoPool.name),
            ],
            # How often each worker is served is a random walk, which evens out in time.
            long=has_goal,
            fairness=Goal('>=', 0.95) if has_goal else None,
        )
    cases['redis_get'] = functools.partial(
        load,
        runtime,
        'Redis, GET',
        lambda servers: servers_threads.redis_subjects(servers.redis, CONNECTIONS),
        servers_threads.redis_get(KEY, VALUE),
        [Peer('BlockingConnectionPool'), Peer('generic_connection_pool')],
    )
    cases['spike'] = functools.partial(spike, runtime, servers_spike.threads_subjects)
    return cases


def _asyncio_cases(runtime: Runtime) -> dict[str, Case]:
    cases: dict[str, Case] = {}
    for name, (statement, answer) in STATEMENTS.items():
        at_least, at_most = (Goal('>=', 1), Goal('<=', 1)) if name == 'select_1' else (None, None)
        cases[f'asyncpg_{name}'] = functools.partial(
            load,
            runtime,
            f'asyncpg, {statement}',
            lambda servers: servers_asyncio.asyncpg_subjects(servers.postgres, CONNECTIONS),
            servers_asyncio.fetch(statement, answer),
            [
                Peer('asyncpg', at_least, at_most, in_turn=True),
                Peer('asyncpg without its reset', in_turn=True),
                Peer('generic_connection_pool'),
            ],
        )
        cases[f'psycopg_{name}'] = functools.partial(
            load,
            runtime,
            f'psycopg, {statement}',
            lambda servers: servers_asyncio.psycopg_subjects(servers.postgres, CONNECTIONS),
            servers_asyncio.select(statement, answer),
            [Peer('psycopg_pool', at_least, at_most, in_turn=True), Peer('generic_connection_pool')],
        )
    cases['redis_get'] = functools.partial(
        load,
        runtime,
        'Redis, GET',
        lambda servers: servers_asyncio.redis_subjects(servers.redis, CONNECTIONS),
        servers_asyncio.redis_get(KEY, VALUE),
        [Peer('BlockingConnectionPool'), Peer('generic_connection_pool')],
    )
    cases['spike'] = functools.partial(spike, runtime, servers_spike.asyncio_subjects)
    return cases


def load(
    runtime: Runtime,
    text: str,
    make_subjects: Callable[[Servers], Sequence[Any]],
    query: Callable[[Any], Any],
    peers: Sequence[Peer],
    settings: Settings,
    servers: Servers,
    long: bool = False,
    fairness: Goal | None = None,
    own: str = 'gcpool',
) -> LoadResult:
    """Let many workers query over few connections, as fast as they can.

    :param long: whether a measurement takes ``server_long_ns``
    :param fairness: the goal for how often gcpool's workers are served
    :param own: the name of gcpool's subject
    """
    workers = WORKERS[runtime.name]
    result = LoadResult(f'{runtime.name}: {text}, {workers} on {CONNECTIONS}', measures=MEASURES)
    try:
        subjects = make_subjects(servers)
    except (pytest.skip.Exception, ImportError) as reason:
        result.missing['the server'] = str(reason)
        return result
    at_least = settings.server_long_ns if long else settings.server_ns
    with opened(runtime, subjects, result) as present:
        runs: dict[str, tuple[Timed, int]] = {}
        created = {}
        for subject in present:
            loads = result.add(subject.name, subject.note)
            run = _worker_run(runtime, subject, query, workers, loads)
            runs[subject.name] = run, calibrate(run, at_least, start=8 * workers)
            loads.clear()
            created[subject] = subject.created
            if subject.bounded and subject.created > CONNECTIONS:
                raise RuntimeError(f'{subject.name} made {subject.created} connections, its limit is {CONNECTIONS}')
        result.samples = interleave(runs, settings.server_rounds)
        for subject in present:
            if subject.bounded:
                check_reuse(subject, created[subject])

    for peer in peers:
        compare(result, THROUGHPUT, peer.name, peer.throughput, own)
        compare(result, PROCESSOR, peer.name, None, own)
        if peer.in_turn:
            compare(result, WAIT_99, peer.name, peer.wait_99, own)
    if own in result.loads:
        for measure, goal in ((LEAST_OF_MOST, fairness), (SHORTEST_OF_LONGEST, None)):
            figure = Figure(f'{own}: {measure.text}', result.values(own, measure), unit='', goal=goal)
            result.figures.append(figure)
    return result


def _worker_run(runtime: Runtime, subject: Any, query: Callable[[Any], Any], workers: int, loads: list[Load]) -> Timed:
    def run(quota: int) -> int:
        waits: list[list[int]] = []
        before = process_time_ns()
        elapsed, served = runtime.contend(_serve(runtime)(subject, query, waits), workers, quota, 0.0)
        processor = process_time_ns() - before
        if sum(served) != quota or sum(map(len, waits)) != quota:
            raise RuntimeError(f'{subject.name} served {sum(served)} times instead of {quota}')
        loads.append(Load(elapsed, served, waits, processor=processor))
        return elapsed

    return run


def spike(
    runtime: Runtime,
    make_subjects: Callable[[], Sequence[Any]],
    settings: Settings,
    servers: Servers,
    own: str = 'gcpool',
) -> LoadResult:
    """Send all requests at once to a pool that was just opened and has its minimum of connections."""
    text = f'spike of {servers_spike.REQUESTS} on {servers_spike.MINIMUM} to {servers_spike.MOST}'
    result = LoadResult(f'{runtime.name}: {text}', measures=SPIKE_MEASURES)
    with opened(runtime, make_subjects(), result) as present:
        names = [subject.name for subject in present]
    runs: dict[str, tuple[Timed, int]] = {}
    for subject in make_subjects():
        if subject.name in names:
            runs[subject.name] = _spike_run(runtime, subject, result.add(subject.name)), servers_spike.REQUESTS
    result.samples = interleave(runs, settings.server_rounds)
    if own in names:
        figure = Figure(f'{own}: {OPENED.text}', result.values(own, OPENED), unit='', goal=Goal('<=', 6))
        result.figures.append(figure)
    for name in names[1:]:
        compare(result, ALL_SERVED, name, Goal('<=', 1.5) if name == 'psycopg_pool' else None, own)
    return result


def _spike_run(runtime: Runtime, subject: Any, loads: list[Load]) -> Timed:
    def run(requests: int) -> int:
        before = subject.created
        runtime.call(subject.open)
        try:
            runtime.call(servers_spike.warm_up if runtime.name == 'threads' else servers_spike.warm_up_async, subject)
            if subject.created - before != servers_spike.MINIMUM:
                raise RuntimeError(f'{subject.name} made {subject.created - before} connections to begin with')
            before = subject.created
            waits: list[list[int]] = []
            serve = _serve(runtime)(subject, lambda conn: conn.query(), waits)
            # One ticket for each: a worker that has finished does not come again.
            elapsed, served = runtime.contend(
                lambda _tickets, quota, hold: serve(iter((0, quota)), quota, hold), requests, requests, 0.0
            )
            loads.append(Load(elapsed, served, waits, subject.created - before))
        finally:
            runtime.call(subject.close)
        return elapsed

    return run


def _serve(runtime: Runtime) -> Callable[..., Any]:
    return servers_threads.serve if runtime.name == 'threads' else servers_asyncio.serve


def main(
    arguments: Sequence[str] | None = None,
    module: str = 'bench.servers',
    description: str | None = __doc__,
    cases: Callable[[Runtime], dict[str, Case]] = _cases,
) -> int:
    """Run the cases that the command line names.

    :param module: the program, after which the files of its results are named
    :param cases: returns the cases of a runtime by their names
    """
    parser = argparse.ArgumentParser(prog=f'python -m {module}', description=description)
    parser.add_argument('--quick', action='store_true', help='fewer and shorter rounds')
    parser.add_argument('-k', metavar='WORD', default='', help='only the cases whose name contains WORD')
    parser.add_argument('--list', action='store_true', help='print the names of the cases and do nothing')
    interpreter.add_arguments(parser)
    parser.add_argument('--json', metavar='FILE', type=Path, help='write all figures to FILE, too')
    parser.add_argument(
        '--results',
        metavar='DIR',
        type=Path,
        default=Path(__file__).parent / 'results',
        help='where a run of all cases leaves its figures and its chart (default: %(default)s)',
    )
    options = parser.parse_args(arguments)
    status = interpreter.run_elsewhere(options, module, sys.argv[1:] if arguments is None else arguments)
    if status is not None:
        return status
    settings = QUICK if options.quick else FULL
    progress = Console(stderr=True)
    # Wide enough for every line if there is no terminal to ask.
    out = Console() if sys.stdout.isatty() else Console(width=120)

    out.print(interpreter.describe(), highlight=False)
    with all_runtimes() as runtimes:
        chosen = {name: case for runtime in runtimes for name, case in cases(runtime).items() if options.k in name}
        if options.list:
            out.print(*chosen, sep='\n')
            return 0
        if not chosen:
            parser.error(f'no case has {options.k!r} in its name; --list names them')
        results = []
        with contextlib.ExitStack() as stack:
            servers = Servers(stack)
            for number, (name, case) in enumerate(chosen.items(), start=1):
                started = perf_counter()
                with progress.status(f'{number}/{len(chosen)} {name}'):
                    results.append(case(settings, servers))
                progress.print(f'{number:2}/{len(chosen)} {name}: {perf_counter() - started:.1f} s', highlight=False)

    servers_report.print_notes(results, out)
    servers_report.print_loads(results, out)
    report.print_table(results, out)
    figures = [result.with_absolute() for result in results]
    if options.json:
        report.write_json(figures, settings, options.json)
    if not options.k:
        stem = options.results / (module.rsplit('.', maxsplit=1)[-1] + ('-quick' if options.quick else ''))
        stem.parent.mkdir(parents=True, exist_ok=True)
        report.write_json(figures, settings, stem.with_suffix('.json'))
        charts = servers_report.draw_chart(results, stem)
        out.print('Written:', *(path.name for path in (stem.with_suffix('.json'), *charts)))
    return 0


if __name__ == '__main__':
    sys.exit(main())
