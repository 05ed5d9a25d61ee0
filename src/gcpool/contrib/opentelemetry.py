"""Metrics for OpenTelemetry, through its API alone (extra ``opentelemetry``).

All instruments are observable: they read what the pools count anyway, when the SDK collects. Acquires and releases do
nothing for it, and no count can drift away from the pool's.
"""

import os
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any

from gcpool._core import logger
from gcpool._monitor.figures import summed_stats
from gcpool._monitor.selection import Selection, checked_pool
from gcpool._statistics import PoolStats
from gcpool._version import __version__

try:
    from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation, get_meter_provider
except ImportError as exc:
    raise ImportError(
        'gcpool.contrib.opentelemetry needs opentelemetry-api: pip install "gcpool[opentelemetry]"', name=exc.name
    ) from exc

__all__ = ['instrument', 'uninstrument']

SCHEMA = 'https://opentelemetry.io/schemas/1.44.0'
DATABASES = 'db.client.connection'
OTHERS = 'gcpool.connection'

# The managers of gcpool.contrib whose connections lead to no database, by their modules.
_NO_DATABASES = frozenset({'http', 'socket', 'socket_async', 'unix', 'unix_async', '_sockets', '_sockets_async'})

_Read = Callable[[PoolStats], Iterable[tuple[float, dict[str, str]]]]


def instrument(pool: Any, meter_provider: MeterProvider | None = None, *, database: bool | None = None) -> None:
    """Export the figures of a pool, for threads or for asyncio.

    The instruments are those of the semantic conventions for database clients (1.44), as far as they can be read:
    ``db.client.connection.count``, ``.idle.max``, ``.idle.min``, ``.max``, ``.pending_requests`` and ``.timeouts``.
    ``.wait_time``, ``.create_time`` and ``.use_time`` are not histograms, which only the program itself could fill, but
    counters of seconds, each with a counter of events, such as ``.wait_time.count``. Pools that do not lead to
    databases have the same under ``gcpool.connection``.

    The pool is held weakly. Pools of the same name are summed. A closed pool has no gauges; the counters keep what it
    has counted, so they never fall while a pool of its name is open. When none is open, nothing of that name is
    exported; the counters of the last 100 such names continue with the next pool of the name.

    :param pool: the pool
    :param meter_provider: None for the global one, which may be set later
    :param database: whether the pool's connections lead to a database; None to decide by the manager: those of
        ``gcpool.contrib`` for databases and Redis do
    :raises TypeError: when it is not a pool, or ``database`` is not a bool
    :raises ValueError: when the pool is closed, or is already exported to this provider
    """
    found = checked_pool(pool)
    if not isinstance(database, bool | None):
        raise TypeError(f'database={database!r}: expected a bool or None, not {type(database).__name__}')
    provider = get_meter_provider() if meter_provider is None else meter_provider
    leads_to_database = _leads_to_database(found) if database is None else database
    with _lock:
        exporters = _exporters_for(provider, meter_provider is None)
        if any(found in exporter for exporter in exporters.values()):
            raise ValueError(f'pool={pool!r}: it is already exported to this meter provider')
        prefix = DATABASES if leads_to_database else OTHERS
        if prefix not in exporters:
            exporters[prefix] = _Exporter(prefix, provider)
        exporters[prefix].add(found)
    if type(provider).__module__.partition('.sdk')[0].startswith('opentelemetry.metrics'):
        # The stand-ins of the API, which forward to a provider that is set later, or do nothing.
        logger.warning(
            'pool %r is instrumented, and no meter provider is set: nothing is exported until '
            'opentelemetry.metrics.set_meter_provider() is called',
            found.name,
        )


def uninstrument(pool: Any) -> None:
    """Stop exporting a pool, to any provider. Does nothing if it is not exported.

    The counters of other pools of its name keep what it has counted until then.
    """
    found = getattr(pool, '_engine', pool)
    with _lock:
        for exporters in [_global_exporters, *_exporters.values()]:
            for exporter in exporters.values():
                exporter.remove(found)


def _leads_to_database(pool: Any) -> bool:
    # A user's subclass counts as the manager of gcpool.contrib from which it is derived.
    modules = (kind.__module__ for kind in type(pool._manager).__mro__)  # noqa: SLF001
    package, _, module = next((name for name in modules if name.startswith('gcpool.')), '').rpartition('.')
    return package == 'gcpool.psycopg_pool' or (package == 'gcpool.contrib' and module not in _NO_DATABASES)


class _Exporter(Selection):
    """The instruments of one meter provider under one prefix: they are made once, however many pools there are."""

    def __init__(self, prefix: str, provider: MeterProvider):
        super().__init__()
        self._prefix = prefix
        self._make_instruments(provider.get_meter('gcpool', __version__, SCHEMA))

    def _make_instruments(self, meter: Meter) -> None:
        gauge, counter = meter.create_observable_up_down_counter, meter.create_observable_counter
        for make, name, unit, text, read in (
            (gauge, 'count', '{connection}', 'Connections by state', self._connections),
            (gauge, 'idle.max', '{connection}', 'Maximum number of idle connections', _value_of('total_max_size')),
            (gauge, 'idle.min', '{connection}', 'Number of idle connections that are kept', _value_of('min_idle')),
            (gauge, 'max', '{connection}', 'Maximum number of connections', _value_of('total_max_size')),
            (gauge, 'pending_requests', '{request}', 'Acquires that wait', _value_of('waiting')),
            (counter, 'timeouts', '{timeout}', 'Acquires whose timeout expired', _value_of('timeouts')),
        ):
            make(f'{self._prefix}.{name}', [self._callback(read, counts=make is counter)], unit, text)
        for key, text in (('wait', 'acquires waited'), ('create', 'connecting took'), ('use', 'connections were used')):
            name = f'{self._prefix}.{key}_time'
            counter(name, [self._callback(_seconds_of(key), counts=True)], 's', f'How long {text}')
            counter(f'{name}.count', [self._callback(_count_of(key), counts=True)], '1', f'How often {text}')

    def _callback(self, read: _Read, *, counts: bool) -> Callable[[CallbackOptions], list[Observation]]:
        def observe(_options: CallbackOptions) -> list[Observation]:
            found = self.by_name()
            # Counters have what closed pools have counted, too. Gauges are those of the open ones.
            all_stats = self.totals(found) if counts else {name: summed_stats(pools) for name, pools in found.items()}
            return [
                Observation(value, {f'{self._prefix}.pool.name': name, **attributes})
                for name, stats in sorted(all_stats.items())
                for value, attributes in read(stats)
            ]

        return observe

    def _connections(self, stats: PoolStats) -> list[tuple[float, dict[str, str]]]:
        state = f'{self._prefix}.state'
        return [(stats['idle'], {state: 'idle'}), (stats['in_use'], {state: 'used'})]


def _value_of(key: str) -> _Read:
    return lambda stats: [(stats[key], {})]


def _seconds_of(key: str) -> _Read:
    return lambda stats: [(stats.histograms[key].sum, {})]


def _count_of(key: str) -> _Read:
    return lambda stats: [(stats.histograms[key].count, {})]


# A signal handler may instrument a pool while its thread does.
_lock = threading.RLock()
# By the prefix. The instruments of the global provider are made once, whether it is set before that or later.
_global_exporters: dict[str, _Exporter] = {}
_exporters: 'weakref.WeakKeyDictionary[MeterProvider, dict[str, _Exporter]]' = weakref.WeakKeyDictionary()


def _renew_lock() -> None:
    # In a forked child: another thread of the parent may have held it.
    global _lock  # noqa: PLW0603 - it is one for all exporters
    _lock = threading.RLock()


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_renew_lock)


def _exporters_for(provider: MeterProvider, is_global: bool) -> dict[str, _Exporter]:
    if is_global or provider is get_meter_provider():
        return _global_exporters
    return _exporters.setdefault(provider, {})
