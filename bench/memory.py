"""Measure one pool's memory, in a separate process: ``python -m bench.memory RUNTIME POOL ENDPOINTS MEASURE``.

Prints a JSON object: the bytes of an endpoint, or why it could not be measured.
"""

import argparse
import gc
import json
import tracemalloc
from collections.abc import Callable
from typing import Any

from .noop import AsyncConnection, Connection, make_endpoints
from .runtimes import Asyncio, Runtime, Threads

__all__ = ['main']


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('runtime', choices=['threads', 'asyncio'])
    parser.add_argument('pool')
    parser.add_argument('endpoints', type=int)
    parser.add_argument('measure', choices=['tracemalloc', 'rss'])
    arguments = parser.parse_args()
    try:
        read = _traced_bytes if arguments.measure == 'tracemalloc' else _resident_bytes()
        runtime: Runtime = Threads() if arguments.runtime == 'threads' else Asyncio()
        outcome: dict[str, Any] = {'bytes': _bytes_of_endpoint(runtime, arguments.pool, arguments.endpoints, read)}
    except ImportError as error:
        outcome = {'missing': str(error)}
    print(json.dumps(outcome))


def _bytes_of_endpoint(runtime: Runtime, pool: str, number: int, read: Callable[[], int]) -> float:
    cls = next(cls for cls in runtime.subjects.ENDPOINT_POOLS if cls.name == pool)
    endpoints = make_endpoints(number)
    # The connections are created before the count begins, like the endpoints: they are not the pool's.
    kind = Connection if isinstance(runtime, Threads) else AsyncConnection
    connections = [kind() for _ in range(number)]
    supply = iter(connections)
    subject = cls(total_max_size=number)
    subject.make_connection = _taker(runtime, supply.__next__)
    runtime.call(subject.open)
    if read is _traced_bytes:
        tracemalloc.start()
    gc.collect()
    before = read()
    runtime.call(subject.visit, endpoints)
    gc.collect()
    after = read()
    if subject.pool.get_size() != number:
        raise RuntimeError(f'{pool} holds {subject.pool.get_size()} connections instead of {number}')
    return (after - before) / number


def _taker(runtime: Runtime, take: Callable[[], object]) -> Callable[[], Any]:
    async def take_async() -> object:
        return take()

    return take if isinstance(runtime, Threads) else take_async


def _traced_bytes() -> int:
    return tracemalloc.get_traced_memory()[0]


def _resident_bytes() -> Callable[[], int]:
    import psutil  # only this measure needs it

    process = psutil.Process()
    return lambda: int(process.memory_info().rss)


if __name__ == '__main__':
    main()
