"""Snapshots that are written by hand: what the commands show of them does not depend on any clock."""

from typing import Any

STATES = ('idle', 'in_use', 'creating', 'checking', 'closing', 'waiting')


def pool(name: str = 'orders', **changes: Any) -> dict[str, Any]:
    """A pool in a snapshot."""
    stats = {
        **dict.fromkeys(STATES, 0),
        'size': 3,
        'idle': 1,
        'in_use': 2,
        'endpoints': 1,
        'max_size': 4,
        'total_max_size': 8,
        'acquires': 100,
        'created': 3,
        'timeouts': 0,
        'create_errors': 0,
        'too_many': 0,
        **changes.pop('stats', {}),
    }
    histogram = {'bounds': [0.001, 0.002, 0.004], 'counts': [0, 0, 0, 0], 'sum': 0.0}
    return {
        'name': name,
        'pools': 1,
        'runtimes': ['threads'],
        'health': {'status': 'ok', 'reason': None},
        'stats': stats,
        'histograms': {'wait': histogram, 'create': histogram, 'use': histogram},
        'endpoints': [{'endpoint': 'db', **{state: stats[state] for state in STATES}}],
        'holders': [],
        **changes,
    }


def snapshot(*pools: dict[str, Any], monotonic: float = 100.0) -> dict[str, Any]:
    """A snapshot of a process."""
    return {
        'version': 1,
        'gcpool': '1.2.3',
        'python': '3.14.0',
        'pid': 1234,
        'program': 'shop.py',
        'time': 1e9,
        'monotonic': monotonic,
        'pools': list(pools),
    }
