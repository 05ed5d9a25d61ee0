"""SQLAlchemy's QueuePool against gcpool's in its place: what a checkout costs, and how threads share connections."""

import time
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from time import perf_counter
from typing import Any

from .measure import Figure, Goal, Result, Timed, calibrate, interleave, ratios
from .runtimes import Runtime, check_reuse, opened, warm_up
from .settings import Settings
from .subjects_threads import SqlAlchemy

__all__ = ['checkout', 'fairness']

THREADS = 32
CONNECTIONS = 8
#: seconds
HOLD = 1e-3


class Ours(SqlAlchemy):
    """gcpool.contrib.sqlalchemy.QueuePool."""

    name = 'gcpool QueuePool'

    def open(self) -> None:
        ours: Any = import_module('gcpool.contrib.sqlalchemy')
        sizes = {} if self.size is None else {'pool_size': self.size, 'max_overflow': 0}
        self.pool = ours.QueuePool(self.make_connection, reset_on_return=None, **sizes)


class NoPool(SqlAlchemy):
    """What is left of a checkout if a pool costs nothing: SQLAlchemy's own objects around one connection."""

    name = 'no pool'

    def open(self) -> None:
        pools: Any = import_module('sqlalchemy.pool')

        class OneRecord(pools.Pool):  # type: ignore[misc]
            def _do_get(self) -> Any:
                return self.record

            def _do_return_conn(self, record: Any) -> None:
                pass

            def dispose(self) -> None:
                self.record.close()

        self.pool = OneRecord(self.make_connection, reset_on_return=None)
        self.pool.record = self.pool._create_connection()


def checkout(runtime: Runtime, settings: Settings) -> Result:
    """A checkout and its return, without a statement."""
    result = Result('sqlalchemy: checkout')
    with opened(runtime, [Ours(), SqlAlchemy(), NoPool()], result) as present:
        runs: dict[str, tuple[Timed, int]] = {}
        created = {}
        for subject in present:
            run = runtime.timed(subject.cycle)
            created[subject] = warm_up(subject, run)
            runs[subject.name] = run, calibrate(run, settings.loop_ns)
        result.samples = interleave(runs, settings.rounds)
        for subject in present:
            check_reuse(subject, created[subject])
    samples = result.samples
    if SqlAlchemy.name in samples:
        for name in (Ours.name, NoPool.name):
            if name in samples:
                goal = Goal('<=', 0.7) if name == Ours.name else None
                text = f"{name}: cost of a checkout, in SQLAlchemy's"
                result.figures.append(Figure(text, ratios(samples[name], samples[SqlAlchemy.name]), goal=goal))
    return result


def fairness(runtime: Runtime, settings: Settings) -> Result:
    """Threads that use connections for a while, without a pause in between."""
    result = Result(f'sqlalchemy: {THREADS} threads on {CONNECTIONS}, hold {HOLD * 1e3:.0f} ms')
    shares: dict[str, list[float]] = {}
    waits: dict[str, list[float]] = {}
    with opened(runtime, [Ours(CONNECTIONS), SqlAlchemy(CONNECTIONS)], result) as present:
        runs: dict[str, tuple[Timed, int]] = {}
        # Enough for each thread to have fifty turns or more.
        quota = max(50 * THREADS, int(settings.contention_ns / 1e9 / HOLD * CONNECTIONS))
        for subject in present:
            shares[subject.name], waits[subject.name] = [], []
            runs[subject.name] = partial(_run, runtime, subject, shares[subject.name], waits[subject.name]), quota
        result.samples = interleave(runs, settings.contention_rounds)
    samples = result.samples
    if len(samples) == 2:
        throughput = ratios(samples[SqlAlchemy.name], samples[Ours.name])
        text = f"{Ours.name}: throughput, in SQLAlchemy's"
        result.figures.append(Figure(text, throughput, goal=Goal('>=', 1.0)))
    for name in samples:
        own = name == Ours.name
        result.figures.append(
            Figure(f'{name}: least/most served', shares[name], unit='', goal=Goal('>=', 0.95) if own else None)
        )
        result.figures.append(
            Figure(f'{name}: longest wait', waits[name], unit=' ms', goal=Goal('<=', 20) if own else None)
        )
    return result


def _run(runtime: Runtime, subject: Any, shares: list[float], waits: list[float], quota: int) -> int:
    worst: list[float] = []
    elapsed, served = runtime.contend(partial(_serve, subject.pool, worst), THREADS, quota, HOLD)
    shares.append(min(served) / max(served))
    waits.append(max(worst) * 1e3)
    return elapsed


def _serve(pool: Any, worst: list[float], tickets: Iterator[int], quota: int, hold: float) -> int:
    connect, sleep = pool.connect, time.sleep
    served = 0
    longest = 0.0
    while next(tickets) < quota:
        asked = perf_counter()
        conn = connect()
        longest = max(longest, perf_counter() - asked)
        sleep(hold)
        conn.close()
        served += 1
    worst.append(longest)
    return served
