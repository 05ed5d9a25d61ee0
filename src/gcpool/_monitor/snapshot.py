"""What one look at the pools of this process shows, as an object for JSON."""

import os
import platform
import sys
import time
from typing import Any

from gcpool._pools import by_name, open_pools
from gcpool._version import __version__

from .figures import endpoint_rows, summed_stats

__all__ = ['VERSION', 'snapshot']

#: The version of the format. It changes when what is there already changes its meaning.
VERSION = 1


def snapshot(*, endpoints: bool = True) -> dict[str, Any]:
    """Look at the pools of this process that are open. Nothing of them is changed, and no I/O is done.

    :param endpoints: whether the busiest endpoints are listed
    """
    return {
        'version': VERSION,
        'gcpool': __version__,
        'python': platform.python_version(),
        'pid': os.getpid(),
        # Its arguments may hold a password.
        'program': os.path.basename(sys.argv[0]) if getattr(sys, 'argv', None) else '',
        'time': time.time(),
        'monotonic': time.monotonic(),
        'pools': [_look_at(name, pools, endpoints=endpoints) for name, pools in sorted(by_name(open_pools()).items())],
    }


def _look_at(name: str, pools: list[Any], *, endpoints: bool) -> dict[str, Any]:
    look: dict[str, Any] = {
        'name': name,
        'pools': len(pools),
        'runtimes': sorted({'asyncio' if pool.asynchronous else 'threads' for pool in pools}),
        'stats': summed_stats([pool.get_stats() for pool in pools]),
    }
    if endpoints:
        look['endpoints'] = [row._asdict() for row in endpoint_rows(pools)]
    return look
