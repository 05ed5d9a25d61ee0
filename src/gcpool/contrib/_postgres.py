"""What the managers of PostgreSQL connections share: time limits that libpq does not have, and advice."""

import math
import os
import threading
from collections.abc import Mapping
from typing import Any

from gcpool.common import check_optional_seconds

__all__ = [
    'MOST_MESSAGES',
    'advice_for',
    'may_show_password',
    'shorter_connect_timeout',
    'time_limit',
]

#: How often a check takes in what the server says unasked. One that sends notifications faster than they are read
#: should not hold up a check for ever.
MOST_MESSAGES = 10

# By SQLSTATE, and by what the message says: while connecting, libpq passes on the text and not the code.
_ADVICE: tuple[tuple[tuple[str, ...], tuple[str, ...], str], ...] = (
    (
        ('53300',),
        ('too many clients', 'too many connections', 'remaining connection slots'),
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
    """What to do about a failed connect.

    :param text: the message of the server or of libpq
    :param sqlstate: the code of the server's error, where the driver knows it
    """
    for sqlstates, words, advice in _ADVICE:
        if sqlstate in sqlstates or (sqlstate is None and any(word in text for word in words)):
            return advice
    return 'check the parameters, and whether the server can be reached'


def may_show_password(params: Mapping[str, Any]) -> bool:
    """Whether libpq has taken a part of the password for a host or a port, and so would name it in its errors.

    That is what becomes of a URI whose password has an ``@`` or ``/`` that is not escaped.

    :param params: what libpq has read in the connection string
    """
    hosts = str(params.get('host') or '').split(',')
    ports = str(params.get('port') or '').split(',')
    # A path of a Unix socket, or an abstract one, may have an @.
    return any('@' in host and host[0] not in '/@' for host in hosts) or any(
        port and not port.isdigit() for port in ports
    )


def shorter_connect_timeout(timeout: float, configured: Any) -> int:
    """The ``connect_timeout`` for libpq, in whole seconds: the shorter one of a time limit and what is configured.

    :param timeout: seconds that connecting may take
    :param configured: the user's own ``connect_timeout``, None if there is none; 0 and less mean no limit to libpq
    """
    limit = max(math.ceil(timeout), 1)
    if configured is None:
        configured = os.environ.get('PGCONNECT_TIMEOUT') or 0
    seconds = int(float(configured))
    return min(limit, seconds) if seconds > 0 else limit


def time_limit(name: str, value: object) -> float | None:
    """Check a time limit of a manager.

    :param name: of the parameter
    :param value: seconds, None or infinity for no limit
    :return: seconds, None also for more than threads can wait
    :raise TypeError: it is no number
    :raise ValueError: it is less than 0, or not a number at all
    """
    seconds = check_optional_seconds(name, value)
    return None if seconds is None or seconds > threading.TIMEOUT_MAX else seconds
