"""Substitutes this package for psycopg_pool."""

import importlib
import sys
from types import ModuleType
from typing import Any

from ._originals import is_importable

__all__ = ['install', 'uninstall']

PACKAGE = 'gcpool.psycopg_pool'
ORIGINAL = 'psycopg_pool'
MODULES = ('', '.pool', '.pool_async', '.null_pool', '.null_pool_async', '.base', '.abc', '.errors')
# The names that programs bind with `from psycopg_pool import ...`.
NAMES = (
    'ConnectionPool',
    'AsyncConnectionPool',
    'NullConnectionPool',
    'AsyncNullConnectionPool',
    'PoolTimeout',
)

# The modules that were there before, None for each that was not.
_replaced: dict[str, ModuleType | None] = {}


def install(*, force: bool = False) -> None:
    """Have ``import psycopg_pool`` give this package from now on. Once it is installed, this does nothing.

    :param force: whether to do so even if modules have already imported the classes of psycopg_pool
    :raises RuntimeError: when they have; the message names them. They would continue to use psycopg_pool.
    """
    if _replaced:
        return
    late = [] if force else _users_of_originals()
    if late:
        raise RuntimeError(
            f'install() comes too late: {", ".join(late)} have already imported psycopg_pool: '
            'expected install() before these imports, or force=True'
        )
    ours = {ORIGINAL + suffix: importlib.import_module(PACKAGE + suffix) for suffix in MODULES}
    before = {name: sys.modules.get(name) for name in ours}
    sys.modules.update(ours)
    _replaced.update(before)


def uninstall() -> None:
    """Undo :py:func:`install`. Modules keep what they have imported meanwhile."""
    for name, module in _replaced.items():
        if module is None:
            sys.modules.pop(name, None)
        else:
            sys.modules[name] = module
    _replaced.clear()


def _users_of_originals() -> list[str]:
    original = sys.modules.get(ORIGINAL)
    if original is None or not is_importable:
        return []
    bound = {id(original)} | {id(getattr(original, name, original)) for name in NAMES}
    return sorted(name for name, module in list(sys.modules.items()) if not _is_part_of(name) and _binds(module, bound))


def _is_part_of(name: str) -> bool:
    return any(name == package or name.startswith(package + '.') for package in (ORIGINAL, PACKAGE))


def _binds(module: ModuleType, bound: set[int]) -> bool:
    attributes: dict[str, Any] = getattr(module, '__dict__', {})
    return any(id(value) in bound for value in list(attributes.values()))
