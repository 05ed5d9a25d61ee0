"""Shared by the managers of PostgreSQL connections: error codes, the text of a full reset, and advice."""

import math
import os
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from gcpool.contrib._errors import errors_in

__all__ = [
    'BROKEN_CODES',
    'FULL_RESET',
    'MOST_MESSAGES',
    'advice_for',
    'is_of_the_server',
    'is_refusal',
    'is_stale_plan',
    'is_useless_after',
    'may_show_password',
    'shorter_connect_timeout',
]

#: SQLSTATEs that make a connection useless although it may be alive. Not the whole class 08: postgres_fdw and dblink
#: raise 08001, 08003 and 08006 for the server's own connections. That libpq has lost a connection shows in its state.
BROKEN_CODES = frozenset(
    {
        # A write on a standby: the primary has become one, or the endpoint now leads elsewhere. is_useless_after()
        # tells this case from a user's own READ ONLY transaction.
        '25006',
        # The server ends the session; a proxy in between may keep its side of the connection open.
        '25P03',  # idle_in_transaction_session_timeout
        '25P04',  # transaction_timeout
        '57P01',  # shut down by an administrator, or pg_terminate_backend()
        '57P02',  # another session has crashed, and the server restarts
        '57P03',  # the server starts or stops
        '57P04',  # the database was dropped
        '57P05',  # idle_session_timeout
        # The driver and the server (or the proxy in between) disagree on the state of the session, so the error would
        # recur.
        '08P01',  # a message that the server did not expect
        '26000',  # a prepared statement that the driver has, and the server does not
        '42P05',  # a prepared statement that the server has, and the driver does not
    }
)

_READ_ONLY = '25006'

# The codes among them that say nothing about other sessions. An administrator may have ended one session alone. If the
# server shuts down, the check finds the other connections closed.
_OF_ONE_SESSION = frozenset({'57P01', '25P03', '25P04', '57P05', '08P01', '26000', '42P05'})

#: Undoes everything that a session can carry, in one message of the simple protocol and thus in one round trip: the
#: parts of DISCARD ALL, which itself cannot be combined with ROLLBACK, and RESET ROLE, which restores the role of the
#: connect. Settings made by the connect (``options``, ``ALTER ROLE ... SET``) stay. The driver's own cache of prepared
#: statements has to be cleared, too.
FULL_RESET = (
    'CLOSE ALL; RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; DEALLOCATE ALL; UNLISTEN *; '
    'SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD PLANS; DISCARD TEMP; DISCARD SEQUENCES'
)

#: How often a check reads what the server sends unsolicited. Limited, because a server may send notifications faster
#: than they are read.
MOST_MESSAGES = 10

_TOO_MANY_CONNECTIONS = '53300'
# The messages of a server that is full, in English. The last one is PgBouncer's, which sends the code of a protocol
# error.
_REFUSALS = re.compile(
    r'(?:^|: +)(?:too many connections for |sorry, too many clients already|remaining connection slots are reserved|'
    r'no more connections allowed)',
    re.MULTILINE,
)
_CODES_OF_OTHER_REFUSALS = (None, '08P01')

# By SQLSTATE, and by the text of the message: while connecting, libpq passes on the text but not the code.
_ADVICE: tuple[tuple[tuple[str, ...], tuple[str, ...], str], ...] = (
    (
        ('53300',),
        ('too many clients', 'too many connections', 'remaining connection slots', 'no more connections'),
        "the server has no connection left: lower max_size, or raise the server's max_connections",
    ),
    (
        ('28P01', '28000'),
        ('authentication failed', 'no password supplied', 'pg_hba.conf', 'role "'),
        'check user, password and the pg_hba.conf of the server',
    ),
    (('3D000',), ('database "',), 'check the name of the database, or create it'),
    (
        ('57P03', '57P01'),
        ('starting up', 'shutting down', 'not yet accepting', 'not accepting', 'in recovery mode'),
        'the server is starting or stopping: try again',
    ),
    (
        (),
        ('could not translate host name', 'resolve host', 'Name or service not known', 'nodename nor servname'),
        'check the host name: it does not resolve',
    ),
    ((), ('refused', 'No such file'), 'check that the server is running and listens on that host and port'),
    ((), ('SSL', 'TLS', 'certificate'), 'check sslmode and the certificates'),
)


def advice_for(text: str, sqlstate: str | None = None) -> str:
    """Return advice for a failed connect.

    :param text: the message of the server or of libpq
    :param sqlstate: the code of the server's error, where the driver knows it
    """
    for sqlstates, words, advice in _ADVICE:
        if sqlstate in sqlstates or (sqlstate is None and any(word in text for word in words)):
            return advice
    return 'check the parameters, and whether the server can be reached'


def is_refusal(exc: BaseException) -> bool:
    """Return whether a connect failed because the server has no connection left, for any user or for this one.

    :param exc: what ``create`` raised; through libpq the server's message is in English, or this is False, because
        libpq passes on the message but not the code
    """
    return any(map(_is_refusal, errors_in(exc)))


def _is_refusal(error: BaseException) -> bool:
    # By the name of psycopg2, and by that of the others.
    for name in ('pgcode', 'sqlstate'):
        if hasattr(error, name):
            code = getattr(error, name)
            if code == _TOO_MANY_CONNECTIONS:
                return True
            return code in _CODES_OF_OTHER_REFUSALS and _REFUSALS.search(str(error)) is not None
    return False


def may_show_password(params: Mapping[str, Any]) -> bool:
    """Whether libpq has read a part of the password as a host or a port, and so would show it in its errors.

    This happens with a URI whose password contains an ``@`` or ``/`` that is not escaped.

    :param params: the parameters that libpq found in the connection string
    """
    hosts = str(params.get('host') or '').split(',')
    ports = str(params.get('port') or '').split(',')
    # The path of a Unix socket, or an abstract one, may contain an @.
    return any('@' in host and host[0] not in '/@' for host in hosts) or any(
        port and not port.isdigit() for port in ports
    )


def shorter_connect_timeout(timeout: float, configured: Any) -> int:
    """Return libpq's ``connect_timeout``, in whole seconds: the shorter of a time limit and the configured value.

    :param timeout: seconds that connecting may take
    :param configured: the user's own ``connect_timeout``, None if not set; for libpq 0 and less mean no limit
    """
    limit = max(math.ceil(timeout), 1)
    if configured is None:
        configured = os.environ.get('PGCONNECT_TIMEOUT') or 0
    seconds = int(float(configured))
    return min(limit, seconds) if seconds > 0 else limit


def is_of_the_server(code: str | None) -> bool:
    """Return whether an error that makes a connection useless discredits the other connections, too."""
    return code not in _OF_ONE_SESSION


def is_stale_plan(code: str | None, function: str | None) -> bool:
    """Return whether a prepared statement failed because a table that it uses was changed, so that it would fail each
    time.

    :param code: the SQLSTATE, which many errors share
    :param function: the server's function that raised the error; the message depends on the language
    """
    return code == '0A000' and function == 'RevalidateCachedQuery'


def is_useless_after(code: str | None, codes: Collection[str], setting: Callable[[str], str | None]) -> bool:
    """Return whether an error of the server makes a connection useless.

    If a write fails because the user's own transaction is READ ONLY, this says nothing about the server. Since
    PostgreSQL 14 the server reports whether it is a standby and whether its transactions are read-only by default; if
    it reports neither, the connection is kept.

    :param code: the SQLSTATE of the error, None for an error that is not the server's
    :param codes: the codes that make a connection useless
    :param setting: returns the value of a setting that the server has reported, None if it has not
    """
    if code not in codes:
        return False
    if code != _READ_ONLY:
        return True
    reported = [setting(name) for name in ('in_hot_standby', 'default_transaction_read_only')]
    return None in reported or 'on' in reported
