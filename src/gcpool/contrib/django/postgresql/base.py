"""The module that Django loads for ``'ENGINE': 'gcpool.contrib.django.postgresql'``."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final

try:
    import django
except ModuleNotFoundError as exc:
    raise ImportError('gcpool.contrib.django needs Django: pip install "gcpool[django]"', name=exc.name) from exc

from django.core.exceptions import ImproperlyConfigured

OLDEST_DJANGO: Final = (5, 2)

if django.VERSION < OLDEST_DJANGO:
    raise ImproperlyConfigured(
        f'gcpool.contrib.django needs Django 5.2 or newer, and this is {django.__version__}: '
        'pip install "gcpool[django]"'
    )

try:
    from gcpool.psycopg_pool import ConnectionPool
except ImportError as exc:
    # Django raises this class if a driver is missing. The message names the version.
    raise ImproperlyConfigured(f'gcpool.contrib.django.postgresql: {exc}') from exc

from django.db.backends.base.base import NO_DB_ALIAS  # noqa: E402
from django.db.backends.postgresql import base  # noqa: E402

__all__ = ['DatabaseWrapper']

# The parameters of a pool that Django sets itself.
SET_BY_DJANGO: Final = frozenset({'configure', 'kwargs', 'open'})
POOL_OPTIONS: Final = tuple(name for name in inspect.signature(ConnectionPool).parameters if name not in SET_BY_DJANGO)


class DatabaseWrapper(base.DatabaseWrapper):  # type: ignore[misc]  # Django has no types
    """The connection of a thread to a database, from a pool if ``OPTIONS`` has ``pool``: True or a dictionary."""

    # By alias, shared by all threads. Not Django's own dictionary, which may have pools of psycopg_pool.
    _connection_pools: ClassVar[dict[str, ConnectionPool[Any]]] = {}

    @property
    def pool(self) -> ConnectionPool[Any] | None:
        """The pool of the database, made at its first use; None if the database has no pool."""
        options = self.settings_dict['OPTIONS'].get('pool')
        if self.alias == NO_DB_ALIAS or not options:
            return None
        pool = self._connection_pools.get(self.alias)
        if pool is None:
            # Threads may each make one. The first one stays; the others were never opened, and are dropped.
            pool = self._connection_pools.setdefault(self.alias, self._new_pool(options))
        return pool

    def close_pool(self) -> None:
        """Close the pool, if there is one. The next connect makes a new one, with the settings of that time."""
        pool = self._connection_pools.pop(self.alias, None)
        if pool is not None:
            pool.close()

    def _new_pool(self, options: object) -> ConnectionPool[Any]:
        max_age = self.settings_dict.get('CONN_MAX_AGE', 0)
        if max_age != 0:
            # Django's text, with more.
            raise ImproperlyConfigured(
                "Pooling doesn't support persistent connections. "
                f'CONN_MAX_AGE of the database {self.alias!r} is {max_age!r}: expected 0'
            )
        given = checked_options(self.alias, options)
        params = self.get_connection_params()
        # Django sets the mode that it needs, for each request.
        params['autocommit'] = True
        # Reports whether there is something to commit, which the pool does not need.
        configure: Any = self._configure_connection
        check = ConnectionPool.check_connection if self.settings_dict.get('CONN_HEALTH_CHECKS') else None
        return ConnectionPool(
            kwargs=params,
            open=False,
            configure=configure,
            **{'check': check, 'name': self.alias, **given},
        )


def checked_options(alias: str, options: object) -> dict[str, Any]:
    """Return the options of a pool as a new dictionary. Errors have the types that Python's own would have."""
    if options is True:
        return {}
    where = f"OPTIONS['pool'] of the database {alias!r}"
    if not isinstance(options, Mapping):
        raise TypeError(f'{where} is {options!r}: expected True or a dictionary')
    taken = [name for name in options if name in SET_BY_DJANGO]
    if taken:
        raise TypeError(f'{where} has {names_of(taken)}, which Django sets itself: expected none of these')
    unknown = [name for name in options if name not in POOL_OPTIONS]
    if unknown:
        raise TypeError(
            f'{where} has {names_of(unknown)}, which the pool does not know: expected {names_of(POOL_OPTIONS)}'
        )
    return dict(options)


def names_of(names: Iterable[object]) -> str:
    """Show names in a message."""
    return ', '.join(map(repr, names))
