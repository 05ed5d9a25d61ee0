"""OpenTelemetry's instrumentation of psycopg, which replaces the connect method of the connection classes."""

import asyncio
from typing import Any

import psycopg
from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.users.programs.common import database, expect_all_returned, get_pools

pools: Any = get_pools()


class Traces:
    """The statements that were traced since the last look, with those that have failed in parentheses."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def look(self) -> list[str]:
        spans = self._exporter.get_finished_spans()
        self._exporter.clear()
        statements = []
        for span in spans:
            attributes: Any = span.attributes
            assert 'users' in {attributes.get('db.name'), attributes.get('db.namespace')}, attributes
            statement = attributes.get('db.statement') or attributes.get('db.query.text')
            statements.append(statement if span.status.is_ok or not span.events else f'({statement})')
        return statements


def in_threads(traces: Traces) -> None:
    before = pools.ConnectionPool(database(), min_size=1, max_size=1)
    before.wait()
    instrumentor: Any = PsycopgInstrumentor()
    instrumentor.instrument(tracer_provider=traces.provider)
    try:
        with before, pools.ConnectionPool(database(), min_size=1, max_size=2) as pool:
            with pool.connection() as conn:
                conn.execute('SELECT 1')
            try:
                with pool.connection() as conn:
                    conn.execute('SELECT 1 / 0')
            except psycopg.errors.DivisionByZero:
                pass
            assert traces.look() == ['SELECT 1', '(SELECT 1 / 0)']
            # The pool's own commits and rollbacks are no statements of the program.
            expect_all_returned(pool)
            # Connections of a pool that was there before are not traced until they are replaced.
            with before.connection() as conn:
                conn.execute('SELECT 2')
            assert traces.look() == []
            before.drain()
            with before.connection() as conn:
                conn.execute('SELECT 3')
            assert traces.look() == ['SELECT 3']
    finally:
        instrumentor.uninstrument()
    with pools.ConnectionPool(database(), min_size=1) as pool, pool.connection() as conn:
        conn.execute('SELECT 4')
    assert traces.look() == []


async def in_tasks(traces: Traces) -> None:
    instrumentor: Any = PsycopgInstrumentor()
    instrumentor.instrument(tracer_provider=traces.provider)
    try:
        for kind in (pools.AsyncConnectionPool, pools.AsyncNullConnectionPool):
            options = {'min_size': 1} if kind is pools.AsyncConnectionPool else {}
            async with kind(database(), open=False, **options) as pool:
                async with pool.connection() as conn, conn.cursor() as cursor:
                    await cursor.execute('SELECT 5')
                    assert await cursor.fetchone() == (5,)
                assert traces.look() == ['SELECT 5']
    finally:
        instrumentor.uninstrument()


def main() -> None:
    traces = Traces()
    in_threads(traces)
    asyncio.run(in_tasks(traces))
    traces.provider.shutdown()
