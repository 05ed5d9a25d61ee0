"""The figures of pools: of several pools with one name they are summed. Read when somebody asks, from the core."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from gcpool.contrib._descriptions import shown

__all__ = ['MAX_ENDPOINTS', 'OTHER', 'STATES', 'EndpointRow', 'endpoint_label', 'endpoint_rows', 'summed_stats']

#: The states of connections, by the names that get_stats() has for them.
STATES = ('idle', 'in_use', 'creating', 'checking', 'closing')

#: How many endpoints of a pool are shown one by one.
MAX_ENDPOINTS = 100

#: Stands for the endpoints beyond those that are shown one by one.
OTHER = 'other'

# Gauges of which the pools of one name have the greatest, and not the sum.
_GREATEST = frozenset({'longest_held'})


class EndpointRow(NamedTuple):
    """How many connections to an endpoint are in which state, and how many acquires wait for one."""

    endpoint: str
    idle: int
    in_use: int
    creating: int
    checking: int
    closing: int
    waiting: int


def summed_stats(all_stats: Sequence[dict[str, int]]) -> dict[str, int]:
    """Sum the statistics of pools with one name."""
    if len(all_stats) == 1:
        return all_stats[0]
    total: dict[str, int] = {}
    for stats in all_stats:
        for name, value in stats.items():
            known = total.get(name, 0)
            total[name] = max(known, value) if name in _GREATEST else known + value
    return total


def endpoint_label(pool: Any, endpoint: object) -> str:
    """The text of an endpoint: as the manager's ``describe_endpoint`` shows it, and never with a password.

    A URL or a connection string is shown without one also if the manager does not describe it.
    """
    text = shown(pool._observer.shown(endpoint))
    return text if isinstance(text, str) else pool._observer.text_of(text, endpoint)


def endpoint_rows(pools: Iterable[Any], limit: int = MAX_ENDPOINTS) -> list[EndpointRow]:
    """The endpoints of pools with one name. What is shown by the same text is summed.

    :param limit: how many of them stand alone: those with the most connections in use and acquires waiting come first.
        The others are one row, called ``other``: what has no row of its own costs no text
    """
    rows = [(pool, *row) for pool in pools for row in pool._core.endpoint_rows()]
    rows.sort(key=_business, reverse=True)
    found: dict[str, Sequence[int]] = {}
    for pool, endpoint, *counts in rows[:limit]:
        _add(found, endpoint_label(pool, endpoint), counts)
    if len(rows) > limit:
        _add(found, OTHER, [sum(column) for column in zip(*(counts for _, _, *counts in rows[limit:]), strict=True)])
    return [EndpointRow(label, *counts) for label, counts in found.items()]


def _business(row: tuple[Any, ...]) -> tuple[int, int]:
    _, _, idle, in_use, *_, waiting = row
    return in_use + waiting, idle


def _add(rows: dict[str, Sequence[int]], label: str, counts: Sequence[int]) -> None:
    known = rows.get(label)
    rows[label] = counts if known is None else [*map(sum, zip(known, counts, strict=True))]
