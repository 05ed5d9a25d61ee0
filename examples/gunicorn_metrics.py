"""Metrics of several gunicorn workers, no matter which one Prometheus reaches.

In prometheus_client's multiprocess mode each worker writes its figures into
files, and any worker adds them up. That mode leaves custom collectors out,
PoolCollector too. So a thread of each worker copies what the collector reads to
ordinary metrics: gauges, of which those of living workers are summed, and
counters. A histogram becomes counters, too, because prometheus_client has no
way to set one: gcpool_pool_use_seconds_bucket_total with its label le is what
histogram_quantile() takes, beside .._sum_total and .._count_total.

Uses SQLite: pip install gunicorn "gcpool[prometheus]", then
export PROMETHEUS_MULTIPROC_DIR=$(mktemp -d)
gunicorn --workers 2 --threads 8 --chdir examples gunicorn_metrics:app
curl http://127.0.0.1:8000/metrics
"""

import atexit
import json
import os
import tempfile
import threading
from typing import TYPE_CHECKING

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    generate_latest,
)
from prometheus_client.core import Metric
from prometheus_client.multiprocess import (
    MultiProcessCollector,
    mark_process_dead,
)
from prometheus_client.samples import Sample

from gcpool.contrib.prometheus import PoolCollector
from gcpool.contrib.sqlite3 import SqliteConnectionManager
from gcpool.threading import ConnectionPool

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

DATABASE = os.environ.get('GCPOOL_EXAMPLE_DATABASE') or os.path.join(
    tempfile.gettempdir(), 'numbers.db'
)
PERIOD = 5.0  # seconds between two copies

# Without --preload each worker imports this module, so each has its own pool
# and thread.
pool = ConnectionPool(
    SqliteConnectionManager(), name='numbers', max_size=4, acquire_timeout=5.0
)


class Copy:
    """Copies what a collector reads to metrics that work in multiprocess
    mode.
    """

    def __init__(self) -> None:
        self._collector = PoolCollector(registry=None)
        self._gauges: dict[str, Gauge] = {}
        self._counters: dict[str, Counter] = {}
        self._counted: dict[tuple[str, ...], float] = {}
        self._lock = threading.Lock()

    def update(self) -> None:
        """Copy the present figures."""
        with self._lock:
            for family in self._collector.collect():
                for sample in family.samples:
                    if family.type == 'gauge':
                        self._set(family, sample.labels, sample.value)
                    elif family.type == 'counter':
                        self._count(family.name, family, sample)
                    else:
                        # The buckets, the sum and the count of a histogram.
                        self._count(sample.name, family, sample)

    def _set(
        self, family: Metric, labels: dict[str, str], value: float
    ) -> None:
        if family.name not in self._gauges:
            self._gauges[family.name] = Gauge(
                family.name,
                family.documentation,
                [*labels],
                multiprocess_mode='livesum',
            )
        self._gauges[family.name].labels(**labels).set(value)

    def _count(self, name: str, family: Metric, sample: Sample) -> None:
        if name not in self._counters:
            self._counters[name] = Counter(
                name, family.documentation, [*sample.labels]
            )
        # A counter can only be increased.
        key = (name, *sample.labels.values())
        self._counters[name].labels(**sample.labels).inc(
            max(sample.value - self._counted.get(key, 0.0), 0.0)
        )
        self._counted[key] = sample.value

    def run(self) -> None:
        """Copy again and again."""
        while not _ended.wait(PERIOD):
            self.update()


_ended = threading.Event()
copy = Copy()
threading.Thread(target=copy.run, name='metrics', daemon=True).start()


def _end() -> None:
    _ended.set()
    pool.close(timeout=5.0)
    copy.update()
    # Its gauges no longer count.
    mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]


atexit.register(_end)


def app(
    environ: 'WSGIEnvironment', start_response: 'StartResponse'
) -> list[bytes]:
    """Count a request, or answer Prometheus or a readiness probe."""
    path = environ['PATH_INFO']
    if path == '/metrics':
        # This worker's figures are current, those of the others at most PERIOD
        # seconds old.
        copy.update()
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        start_response('200 OK', [('Content-Type', CONTENT_TYPE_LATEST)])
        return [generate_latest(registry)]
    if path == '/healthz':
        health = pool.health()
        status = (
            '503 Service Unavailable'
            if health.status == 'exhausted'
            else '200 OK'
        )
        start_response(status, [('Content-Type', 'application/json')])
        return [json.dumps(health._asdict()).encode()]
    with pool.connection(DATABASE) as conn:
        (number,) = conn.execute('SELECT 6 * 7').fetchone()
    start_response('200 OK', [('Content-Type', 'application/json')])
    return [json.dumps({'answer': number, 'worker': os.getpid()}).encode()]
