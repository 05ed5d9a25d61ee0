"""Answers the name of another pool's method with what does the same here."""

from collections.abc import Iterable
from typing import Any, TypeVar

__all__ = ['naming_methods']

ClassT = TypeVar('ClassT', bound=type)

_ACQUIRE = 'with pool.connection() (on asyncio: async with), or acquire()'
_RELEASE = 'the end of the block of connection(), or release()'
_STATISTICS = 'get_stats()'
_BY_CONNECTION = 'a connection, by with pool.connection() (on asyncio: async with)'

_NAMES_ELSEWHERE: dict[str, Iterable[str]] = {
    _ACQUIRE: ('borrow', 'checkout', 'connect', 'get', 'get_conn', 'get_connection', 'getconn', 'lease', 'take'),
    _RELEASE: (
        'checkin',
        'give',
        'give_back',
        'put',
        'putconn',
        'release_connection',
        'return_conn',
        'return_connection',
    ),
    'try_acquire()': ('acquire_nowait', 'get_nowait'),
    'close()': ('close_all', 'closeall', 'disconnect', 'dispose', 'shutdown'),
    'drain()': ('expire_connections', 'invalidate', 'recreate', 'refresh'),
    _STATISTICS: ('free_size', 'get_idle_size', 'idle_size', 'size', 'stats', 'status'),
    'max_size, or total_max_size for all endpoints together': ('maxsize',),
    'min_size': ('minsize',),
    _BY_CONNECTION: ('cursor', 'execute', 'executemany', 'fetch', 'fetchrow', 'fetchval', 'query', 'transaction'),
}


class _OtherName:
    """Stands on a class for an attribute that it does not have: a lookup raises AttributeError, as without this.

    A ``__getattr__`` would do the same, and have CPython look up each of the pool's methods more slowly.
    """

    def __init__(self, name: str, meant: str):
        self._name = name
        self._meant = meant

    def __get__(self, pool: object, owner: type) -> Any:
        # With a name, Python does not add a guess of its own.
        raise AttributeError(
            f'{owner.__name__!r} object has no attribute {self._name!r}: expected {self._meant}', name=self._name
        )


def naming_methods(cls: ClassT) -> ClassT:
    """Have a pool's class answer the names of other pools' methods. ``hasattr`` and ``dir`` do not see them.

    Not a base class: with one more, CPython 3.14 takes 3 ns longer for a cycle.
    """
    for meant, names in _NAMES_ELSEWHERE.items():
        for name in names:
            setattr(cls, name, _OtherName(name, meant))
    cls.__dir__ = _shown  # type: ignore[assignment]
    return cls


def _shown(pool: object) -> list[str]:
    other_names = {name for names in _NAMES_ELSEWHERE.values() for name in names}
    # A subclass may have a method of such a name.
    return [name for name in object.__dir__(pool) if name not in other_names or hasattr(pool, name)]
