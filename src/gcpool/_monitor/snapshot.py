"""A snapshot of the pools of this process, as an object for JSON."""

import json
import os
import platform
import sys
import time
from typing import Any

from gcpool._holders import Holder
from gcpool._pools import by_name, open_pools
from gcpool._statistics import Histogram
from gcpool._version import __version__

from .figures import endpoint_rows, label_of_shown, longest_holders, summed_stats, worst_health

__all__ = ['VERSION', 'snapshot', 'snapshot_as_json']

#: The version of the format. It changes when an existing key changes its meaning.
VERSION = 1


def snapshot(*, details: bool = True) -> dict[str, Any]:
    """Read the open pools of this process. This changes nothing, and does no I/O.

    :param details: whether the busiest endpoints and the longest holders are listed
    """
    return {
        'version': VERSION,
        'gcpool': __version__,
        'python': platform.python_version(),
        'pid': os.getpid(),
        # Without its arguments, which may hold a password.
        'program': os.path.basename(sys.argv[0]) if getattr(sys, 'argv', None) else '',
        'time': time.time(),
        'monotonic': time.monotonic(),
        'pools': [_look_at(name, pools, details=details) for name, pools in sorted(by_name(open_pools()).items())],
    }


def snapshot_as_json(*, details: bool = True) -> bytes:
    """The same as JSON, in one line. An exception of a manager or a task that is asked for a text propagates."""
    return json.dumps(snapshot(details=details), separators=(',', ':'), default=repr).encode('ascii')


def _look_at(name: str, pools: list[Any], *, details: bool) -> dict[str, Any]:
    stats = summed_stats(pools)
    look: dict[str, Any] = {
        'name': name,
        'pools': len(pools),
        'runtimes': sorted({'asyncio' if pool.asynchronous else 'threads' for pool in pools}),
        'health': worst_health(pools)._asdict(),
        'stats': dict(stats),
        'histograms': {name: _as_object(histogram) for name, histogram in stats.histograms.items()},
    }
    if details:
        look['endpoints'] = [row._asdict() for row in endpoint_rows(pools)]
        look['holders'] = [_as_row(pool, holder) for pool, holder in longest_holders(pools)]
    return look


def _as_object(histogram: Histogram) -> dict[str, Any]:
    # Without the last bound, which is infinite: JSON has no number for that.
    return {'bounds': histogram.bounds[:-1], 'counts': histogram.counts, 'sum': histogram.sum}


def _as_row(pool: Any, holder: Holder) -> dict[str, Any]:
    return {
        'endpoint': label_of_shown(pool, holder.endpoint),
        'seconds': holder.seconds,
        'holder': holder.holder,
        'frames': holder.frames,
    }
