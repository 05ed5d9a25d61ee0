"""What a URL leads to: the connection manager for it, and what can be asked of the server."""

import difflib
import importlib
import re
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from gcpool._check import questions
from gcpool.contrib._descriptions import shown
from gcpool.exceptions import BaseError

__all__ = ['CheckError', 'Target', 'find_target']

# The schemes, their ports, and an example of each.
_EXAMPLES = {
    'postgresql': 'postgresql://user:password@host:5432/database',
    'postgres': 'postgres://user:password@host:5432/database',
    'mysql': 'mysql://user:password@host:3306/database',
    'redis': 'redis://host:6379/0',
    'rediss': 'rediss://host:6379/0',
    'http': 'http://host:80',
    'https': 'https://host:443',
    'tcp': 'tcp://host:port',
    'tls': 'tls://host:port',
    'unix': 'unix:///path',
    'sqlite': 'sqlite:///path',
}
_PORTS = {
    'postgresql': 5432,
    'postgres': 5432,
    'mysql': 3306,
    'redis': 6379,
    'rediss': 6379,
    'http': 80,
    'https': 443,
}
_SCHEME = re.compile('[A-Za-z][A-Za-z0-9+.-]*')
# The parameters of a URL whose values are not to be shown.
_SECRET = re.compile('pass|pwd|secret|token', re.IGNORECASE)
# What PyMySQL takes besides host, user and database, and is a text.
_MYSQL_PARAMETERS = ('charset', 'collation', 'ssl_ca', 'ssl_cert', 'ssl_key')


class CheckError(BaseError):
    """The URL cannot be checked: it is none, or the package for it is not installed."""


class Target(NamedTuple):
    """What is to be checked.

    :ivar text: the URL without user and password
    :ivar manager: the connection manager
    :ivar endpoint: the endpoint of the manager
    :ivar address: host and port for the steps before the manager's; None for a file or a Unix socket
    :ivar ping: makes one round trip with a connection
    :ivar limit: asks the server for its limit on connections; None if it tells none
    :ivar secrets: what no message may show
    """

    text: str
    manager: Any
    endpoint: Any
    address: tuple[str, int] | None
    ping: Callable[[Any], object] | None
    limit: Callable[[Any], str] | None
    secrets: tuple[str, ...]


def find_target(url: str) -> Target:
    """Find out what a URL leads to.

    :raises CheckError: when the URL is none of those that are known; the message says what was meant
    """
    scheme, separator, rest = url.partition('://')
    if not separator or _SCHEME.fullmatch(scheme) is None:
        # The text may have a password in it.
        raise CheckError(f'expected a URL, such as {_examples_for(url)}')
    scheme = scheme.lower().partition('+')[0]
    if scheme not in _EXAMPLES:
        near = difflib.get_close_matches(scheme, _EXAMPLES, 1)
        meant = f'did you mean {_EXAMPLES[near[0]]}?' if near else f'expected one of {", ".join(_EXAMPLES)}'
        raise CheckError(f'unknown scheme {scheme!r}: {meant}')
    if scheme in {'unix', 'sqlite'}:
        return _unix(rest) if scheme == 'unix' else _sqlite(rest)
    try:
        parts = urllib.parse.urlsplit(f'{scheme}://{rest}')
        if ',' in parts.netloc.rpartition('@')[2]:
            raise CheckError('several hosts: expected one, because each is checked by itself')
        host, port = parts.hostname, parts.port or _PORTS.get(scheme)
    except ValueError:
        # Its text may quote a password that has a special character.
        raise CheckError(f'the URL has no valid host and port: expected {_EXAMPLES[scheme]}') from None
    if '@' in f'{parts.path}{parts.query}{parts.fragment}':
        # What precedes it may be the end of a password.
        raise CheckError(
            'the URL has an @ behind its host: expected special characters as %40 for @, %2F for /, %3F for ?, '
            '%23 for # and %3A for :'
        )
    parts = parts._replace(scheme=scheme)
    if host is None and scheme.startswith('postgres'):
        return _postgres_of_query(parts)
    if host is None or port is None:
        raise CheckError(f'the URL has no {"host" if host is None else "port"}: expected {_EXAMPLES[scheme]}')
    make = {'postgresql': _postgres, 'postgres': _postgres, 'mysql': _mysql}.get(scheme)
    if make is None:
        make = _redis if scheme.startswith('redis') else _http if scheme.startswith('http') else _socket
    target: Target = make(parts, host, port)
    return target


def _examples_for(text: str) -> str:
    if re.fullmatch(r'[\w.-]+:\d+', text) is None:
        return f'{_EXAMPLES["postgresql"]}, {_EXAMPLES["redis"]} or {_EXAMPLES["tcp"]}'
    port = int(text.rpartition(':')[2])
    return next((f'{scheme}://{text}' for scheme, known in _PORTS.items() if known == port), f'tcp://{text}')


def _load(*names: str) -> Any:
    """Import the first of these modules of gcpool.contrib whose driver is installed."""
    missing: ImportError | None = None
    for name in names:
        try:
            return importlib.import_module(f'gcpool.contrib.{name}')
        except ImportError as error:
            missing = missing or error
    raise CheckError(str(missing))


def _secrets(parts: urllib.parse.SplitResult) -> tuple[str, ...]:
    given = [pair.partition('=')[::2] for pair in parts.query.split('&')]
    found = {value for name, value in given if _SECRET.search(name)} | {parts.password or ''}
    # As they are given, and as the driver reads them: an error may quote both.
    found |= {read(value) for value in found for read in (urllib.parse.unquote, urllib.parse.unquote_plus)}
    # The longest first, because one may be a part of another.
    return tuple(sorted(found - {''}, key=lambda secret: -len(secret)))


def _text(parts: urllib.parse.SplitResult, host: str, port: int) -> str:
    name = f'[{host}]' if ':' in host else host
    return f'{parts.scheme}://{name}:{port}{parts.path.rstrip("/")}'


def _postgres_of_query(parts: urllib.parse.SplitResult) -> Target:
    """A URL without a host: it has one in its query, which may be the directory of a Unix socket."""
    given = dict(urllib.parse.parse_qsl(parts.query))
    host, port = given.get('host', ''), given.get('port', '5432')
    if not host or ',' in host or not port.isdecimal():
        raise CheckError(f'the URL has no host: expected {_EXAMPLES[parts.scheme]}, or ?host= and ?port=, one of each')
    target = _postgres(parts, host, int(port))
    return target._replace(address=None) if host.startswith(('/', '@')) else target


def _postgres(parts: urllib.parse.SplitResult, host: str, port: int) -> Target:
    module = _load('psycopg', 'psycopg2')
    text, url = _text(parts, host, port), urllib.parse.urlunsplit(parts)
    manager: Any
    if module.__name__.endswith('psycopg'):
        manager = module.ConnectionManager({text: url}, ping=True)
    else:
        manager = module.DbConnectionManager({text: {'dsn': url}}, ping=True)
    return Target(
        text, manager, text, (host, port), questions.ping_database, questions.limit_of_postgres, _secrets(parts)
    )


def _mysql(parts: urllib.parse.SplitResult, host: str, port: int) -> Target:
    text = _text(parts, host, port)
    given = {
        'user': urllib.parse.unquote(parts.username or ''),
        'password': urllib.parse.unquote(parts.password or ''),
        'database': urllib.parse.unquote(parts.path.strip('/')),
    }
    options = dict(urllib.parse.parse_qsl(parts.query))
    for name in options:
        if name not in _MYSQL_PARAMETERS:
            near = difflib.get_close_matches(name, _MYSQL_PARAMETERS, 1)
            known = ', '.join(map(repr, _MYSQL_PARAMETERS))
            meant = f'did you mean {near[0]!r}?' if near else f'expected one of {known}'
            raise CheckError(f'unknown parameter {name!r}: {meant}')
    module = _load('pymysql')
    params = {'host': host, 'port': port, **options, **{name: value for name, value in given.items() if value}}
    manager = module.DbConnectionManager({text: params}, ping=True)
    return Target(text, manager, text, (host, port), questions.ping_database, questions.limit_of_mysql, _secrets(parts))


def _redis(parts: urllib.parse.SplitResult, host: str, port: int) -> Target:
    database = parts.path.strip('/')
    if database and not database.isdecimal():
        # redis-py would take database 0.
        raise CheckError(f'{database!r} is not the number of a database: expected {_EXAMPLES[parts.scheme]}')
    module = _load('redis')
    text = _text(parts, host, port)
    manager = module.RedisConnectionManager({text: urllib.parse.urlunsplit(parts)}, ping=True)
    return Target(text, manager, text, (host, port), questions.ping_redis, questions.limit_of_redis, _secrets(parts))


def _http(parts: urllib.parse.SplitResult, host: str, port: int) -> Target:
    manager = _load('http').HttpConnectionManager()
    path = parts.path or '/'

    def ask(conn: Any) -> None:
        questions.ping_http(conn, path)

    endpoint = parts.scheme, host, port
    return Target(_text(parts, host, port), manager, endpoint, (host, port), ask, None, _secrets(parts))


def _socket(parts: urllib.parse.SplitResult, host: str, port: int) -> Target:
    module = _load('socket')
    if parts.scheme == 'tls':
        import ssl

        manager = module.SslSocketConnectionManager(ssl.create_default_context())
        return Target(_text(parts, host, port), manager, (host, port), (host, port), None, None, ())
    # What was resolved and connected to is all that there is to try.
    return Target(_text(parts, host, port), None, None, (host, port), None, None, ())


def _unix(path: str) -> Target:
    if not path.startswith('/'):
        raise CheckError(f'the URL has no absolute path: expected {_EXAMPLES["unix"]}')
    place = Path(urllib.parse.unquote(path))
    manager = _load('unix').UnixSocketConnectionManager()
    return Target(f'unix://{place}', manager, place, None, None, None, ())


def _sqlite(path: str) -> Target:
    if '@' in path.partition('/')[0]:
        raise CheckError(f'an SQLite database has no user: expected {_EXAMPLES["sqlite"]}')
    # As in SQLAlchemy's URLs: three slashes before a relative path, four before an absolute one. One that begins with a
    # directory of the root is absolute, too.
    name = urllib.parse.unquote(path.partition('?')[0]).removeprefix('/')
    if not name:
        raise CheckError(f'the URL has no path: expected {_EXAMPLES["sqlite"]}')
    if name != ':memory:' and not Path(name).exists() and Path(f'/{name}').exists():
        name = f'/{name}'
    if name != ':memory:' and not Path(name).is_file():
        # To connect would create it.
        raise CheckError(f'there is no file {str(shown(name))!r}: expected the path of an SQLite database')
    manager = _load('sqlite3').SqliteConnectionManager()
    return Target(f'sqlite:///{name}', manager, name, None, questions.ping_sqlite, None, ())
