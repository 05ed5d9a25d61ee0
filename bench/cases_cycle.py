"""One thread, or one task: what a cycle of acquire and release costs when a connection is idle."""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from typing import Any

from .measure import Figure, Goal, Result, Timed, calibrate, interleave, ratios
from .noop import TUPLE_ENDPOINT
from .runtimes import Runtime, check_reuse, opened, warm_up
from .settings import Settings

__all__ = ['context_manager', 'cycle', 'extra_connections', 'fresh_tuple_endpoint', 'tuple_endpoint']

_BASELINES = {'queue.SimpleQueue', 'asyncio.LifoQueue'}

# Without the GIL the pool takes two locks a cycle, and the queue takes two.
_FREE_THREADED = not getattr(sys, '_is_gil_enabled', lambda: True)()

#: (case, runtime) -> the goal against the pure-Python pool, the goal against the queue
_GOALS = {
    ('cycle', 'threads'): (Goal('>=', 120), Goal('<=', 1.5 if _FREE_THREADED else 1.3)),
    ('context_manager', 'threads'): (Goal('>=', 75), Goal('<=', 2.2)),
    ('cycle', 'asyncio'): (Goal('>=', 150), Goal('<=', 0.5)),
    ('context_manager', 'asyncio'): (Goal('>=', 120), Goal('<=', 0.6)),
}

#: Minimum ratio to each other pool. aiosqlitepool is compared, too, but has no goal.
_PEER_GOAL = Goal('>=', 5)
_PEERS_WITH_GOAL = {
    'psycopg2',
    'psycopg_pool',
    'SQLAlchemy QueuePool',
    'DBUtils PooledDB',
    'urllib3',
    'asyncpg',
    'asyncio-connection-pool',
}


def cycle(runtime: Runtime, settings: Settings) -> Result:
    subjects = [cls() for cls in runtime.subjects.CYCLE]
    return _compare(runtime, settings, 'cycle', subjects, lambda subject: subject.cycle)


def context_manager(runtime: Runtime, settings: Settings) -> Result:
    subjects = [cls() for cls in runtime.subjects.CONTEXT_MANAGER]
    return _compare(runtime, settings, 'context_manager', subjects, lambda subject: subject.context_manager)


def extra_connections(runtime: Runtime, settings: Settings) -> Result:
    """With ``min_idle=0`` every connection is extra, with an idle deadline in addition to its lifetime."""
    subjects = [cls(min_idle=0) for cls in runtime.subjects.ENDPOINT_POOLS]
    return _compare(runtime, settings, 'extra_connections', subjects, lambda subject: subject.cycle)


def tuple_endpoint(runtime: Runtime, settings: Settings) -> Result:
    """An ``(IPv4Address, port)``, the same object each time."""
    subjects = [cls(endpoint=TUPLE_ENDPOINT) for cls in runtime.subjects.ENDPOINT_POOLS]
    return _compare(runtime, settings, 'tuple_endpoint', subjects, lambda subject: subject.cycle)


def fresh_tuple_endpoint(runtime: Runtime, settings: Settings) -> Result:
    """An ``(IPv4Address, port)`` that is created for each cycle."""
    subjects = [cls(endpoint=TUPLE_ENDPOINT) for cls in runtime.subjects.ENDPOINT_POOLS]
    return _compare(runtime, settings, 'fresh_tuple_endpoint', subjects, lambda subject: subject.fresh_tuples)


def _compare(
    runtime: Runtime,
    settings: Settings,
    case: str,
    subjects: Sequence[Any],
    loop: Callable[[Any], Callable[[int], Any]],
) -> Result:
    result = Result(f'{runtime.name}: {case}')
    with opened(runtime, subjects, result) as present:
        runs: dict[str, tuple[Timed, int]] = {}
        created = {}
        for subject in present:
            run = runtime.timed(loop(subject))
            created[subject] = warm_up(subject, run)
            runs[subject.name] = run, calibrate(run, settings.loop_ns)
        result.samples = interleave(runs, settings.rounds)
        for subject in present:
            check_reuse(subject, created[subject])

    (first, own), *others = result.samples.items()
    against_pure_python, against_queue = _GOALS.get((case, runtime.name), (None, None))
    for other, samples in others:
        if other in _BASELINES:
            figure = Figure(f'{first}: cost, in {other} put+get', ratios(own, samples), goal=against_queue)
        else:
            goal = _PEER_GOAL if other in _PEERS_WITH_GOAL else None
            goal = against_pure_python if other == 'generic_connection_pool' else goal
            figure = Figure(f'{first}: times as fast as {other}', ratios(samples, own), goal=goal)
        # The goals are gcpool's. If gcpool is missing, another subject comes first.
        result.figures.append(figure if first == 'gcpool' else dataclasses.replace(figure, goal=None))
    return result
