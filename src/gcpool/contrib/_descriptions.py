"""What messages show in place of an endpoint that may hold a password: a URL, or a connection string."""

import re
import urllib.parse
from collections.abc import Hashable, Mapping
from typing import Any

from gcpool._core import UndescribedEndpoint

__all__ = ['described', 'description_of', 'shown']

_URL = re.compile(r'(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>.*)', re.DOTALL)
_WEB = re.compile(r'https?://', re.IGNORECASE)

# libpq's connection string: name = value, the value quoted or with backslashes. What does not match is not read.
_KEYWORD = re.compile(
    r"\s*(?P<name>[A-Za-z_]\w*)\s*=\s*(?:'(?P<quoted>(?:[^'\\]|\\.)*)'(?=\s|\Z)|(?P<plain>(?:[^\s'\\]|\\.)*)(?=\s|\Z))\s*",
    re.DOTALL,
)
# A string that has one of these is a connection string.
_TELLING = frozenset({'dbname', 'host', 'hostaddr', 'passfile', 'password', 'port', 'service', 'sslpassword', 'user'})
_HIDES = re.compile(r'pass\w*\s*=', re.IGNORECASE)

# The first of these names that is present counts.
_HOSTS = ('host', 'hostaddr', 'unix_socket', 'unix_socket_path', 'path', 'server')
_DATABASES = ('dbname', 'database', 'db', 'service')

# The parameters of a file: URI that SQLite itself knows.
_FILE_PARAMETERS = frozenset({'cache', 'immutable', 'mode', 'modeof', 'nolock', 'psow', 'vfs'})


def shown(endpoint: Hashable) -> Any:
    """Return what messages show of an endpoint.

    :param endpoint: any. A URL or connection string that may hold a password is shown as host, port and database, the
        URL of a web server without a user's name and password, the URI of an SQLite database without a key. Any other
        endpoint is returned as it is.
    """
    if not isinstance(endpoint, str):
        return endpoint
    if endpoint.startswith('file:'):
        return _shown_file_uri(endpoint)
    if _WEB.match(endpoint):
        return _shown_web_url(endpoint) if '@' in endpoint else endpoint
    if _URL.fullmatch(endpoint) and '@' not in endpoint and '?' not in endpoint:
        return endpoint
    text = _shown_text(endpoint)
    return endpoint if text is None else text


def described(manager: Any, endpoint: Hashable) -> Any:
    """Return what the messages of a manager show of an endpoint, as the pool's do.

    :param manager: its ``describe_endpoint`` may be that of a user's subclass. If that raises, the class is shown.
    """
    try:
        return manager.describe_endpoint(endpoint)
    except Exception:  # noqa: BLE001
        return UndescribedEndpoint(endpoint)


def description_of(params: object) -> str | None:
    """Return host, port and database of an endpoint's parameters.

    :param params: a URL, a connection string, or a mapping of names to values
    :return: None if they are unknown
    """
    if isinstance(params, str):
        return _shown_text(params)
    if not isinstance(params, Mapping):
        return None
    for name in ('conninfo', 'dsn', 'url'):
        if isinstance(params.get(name), str):
            return _shown_text(params[name])
    return _place(params)


def _shown_web_url(url: str) -> str:
    scheme, _, rest = url.partition('://')
    return f'{scheme}://{_without_user(rest) or "***"}'


def _shown_file_uri(uri: str) -> str:
    # SQLite's encrypting builds take the key as a parameter that SQLite itself does not know.
    path, _, query = uri.partition('?')
    parts = [part for part in query.partition('#')[0].split('&') if part.partition('=')[0] in _FILE_PARAMETERS]
    return f'{path}?{"&".join(parts)}' if parts else path


def _shown_text(text: str) -> str | None:
    found = _URL.fullmatch(text)
    if found is not None:
        rest = _without_user(found['rest'])
        hidden = f'{found["scheme"]}://***'
        return hidden if rest is None else _shown_location(rest, is_socket=found['scheme'] == 'unix') or hidden
    keywords = _keywords(text)
    if keywords is None:
        # It cannot be parsed, so it is not shown if it may hold a password.
        return 'a connection string' if _HIDES.search(text) else None
    return None if _TELLING.isdisjoint(keywords) else _place(keywords) or 'a connection string'


def _without_user(rest: str) -> str | None:
    """Return what follows the user's name and password in a URL; None if it is not certain where they end."""
    before, at, after = rest.rpartition('@')
    # A password may contain any of these, if it is not written as it should be.
    return None if at and ('@' in before or '?' in before or '#' in before) else after


def _shown_location(rest: str, *, is_socket: bool) -> str | None:
    location, _, query = rest.partition('#')[0].partition('?')
    authority, _, path = location.partition('/')
    params: dict[str, Any] = dict(urllib.parse.parse_qsl(query))
    if is_socket:
        return f'/{path}{_database(params)}' if path else None
    if authority:
        return f'{authority}/{path}' if path else f'{authority}{_database(params)}'
    if not any(name in params for name in (*_HOSTS, 'port', *_DATABASES)):
        # The database of the default server.
        return f'/{path}' if path else None
    return _place({**params, 'database': path or params.get('database')})


def _keywords(text: str) -> dict[str, str] | None:
    """Parse libpq's connection string; None if it is not one."""
    found: dict[str, str] = {}
    position = 0
    while position < len(text):
        match = _KEYWORD.match(text, position)
        if match is None:
            return None
        value = match['plain'] if match['quoted'] is None else match['quoted']
        found[match['name']] = re.sub(r'\\(.)', r'\1', value, flags=re.DOTALL)
        position = match.end()
    return found


def _place(params: Mapping[str, Any]) -> str | None:
    host = next((params[name] for name in _HOSTS if params.get(name)), None)
    if isinstance(host, (list, tuple)):
        host = ','.join(map(str, host))
    port = params.get('port')
    database = _database(params)
    if host is None and port is None and not database:
        return None
    if '@' in str(host)[1:]:
        # A part of a password that was taken for the host. (A leading @ marks an abstract Unix socket.)
        host = '***'
    place = '' if host is None else str(host)
    return f'{place}{"" if port is None else f":{port}"}{database}'


def _database(params: Mapping[str, Any]) -> str:
    database = next((params[name] for name in _DATABASES if params.get(name) not in (None, '')), None)
    return '' if database is None else f'/{database}'
