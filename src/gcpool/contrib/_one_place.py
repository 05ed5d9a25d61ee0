"""Managers of databases that are given the parameters of one place instead of several named ones."""

from collections.abc import Mapping
from typing import Any, TypeAlias

from gcpool.contrib._descriptions import description_of, shown

__all__ = ['DEFAULT_ENDPOINT', 'OnePlace', 'Place']

#: The parameters of one place. To a type checker, any dict with names is one.
Place: TypeAlias = dict[str, Any]

#: The endpoint of a manager that was given the parameters of one place.
DEFAULT_ENDPOINT = 'default'

# The drivers' parameters for where a server is. Not ``db`` of Redis: more often that is an endpoint.
_WHERE = ('host', 'hostaddr', 'port', 'unix_socket', 'unix_socket_path', 'path', 'user', 'database', 'dbname')


class OnePlace:
    """Mixin of a manager: knows whether it was given the parameters of one place, and describes its endpoints."""

    default_endpoint: Any

    # The parameters that it was given for the default endpoint.
    _only_place: Any = None

    def _as_source(self, given: Any, *, text: bool) -> Any:
        """Return a mapping of endpoints for a manager's parameter; anything but the parameters of one place unchanged.

        :param given: what the manager was given: a mapping of endpoints, a callable, a connection string, or a dict of
            the driver's parameters
        :param text: whether the driver reads connection strings
        """
        if not ((text and isinstance(given, str)) or _is_one_place(given, text=text)):
            return given
        self._only_place = given
        self.default_endpoint = DEFAULT_ENDPOINT
        return {DEFAULT_ENDPOINT: given}

    def describe_endpoint(self, endpoint: Any) -> object:
        """Return what messages show of an endpoint, which may hold a password.

        :param endpoint: any. A URL or a connection string becomes host, port and database, and so does ``'default'`` of
            a manager that was given the parameters of one place. Any other is returned as it is.
        """
        if self._only_place is not None and endpoint == DEFAULT_ENDPOINT:
            return description_of(self._only_place) or endpoint
        return shown(endpoint)


def _is_one_place(given: Any, *, text: bool) -> bool:
    # A value that cannot be the entry of an endpoint, because no driver could connect with it. So a mapping of
    # endpoints is never mistaken. Only a dict is looked into: another mapping may ask a server for each entry.
    return isinstance(given, dict) and any(
        name in given and not _may_be_an_entry(given[name], text=text) for name in _WHERE
    )


def _may_be_an_entry(value: Any, *, text: bool) -> bool:
    if isinstance(value, str):
        # An empty string is libpq's for the defaults. Any other connection string has one of these.
        return text and (not value or '=' in value or '://' in value)
    return isinstance(value, Mapping) or callable(value)
