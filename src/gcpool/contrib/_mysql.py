"""What the numbers of the errors of MySQL and MariaDB mean, and of those that their drivers raise."""

from typing import Final

from gcpool.contrib._errors import BAD_PARAMS, errors_in

__all__ = [
    'BAD_ARGUMENTS',
    'BROKEN_CODES',
    'CLOSING_IN_CREATE',
    'GONE',
    'KILLED_MEANWHILE',
    'LOST',
    'advice_for_error',
    'advice_for_package',
    'ends_session',
    'error_number',
    'is_refusal',
    'is_reply',
]

#: Raised by the drivers' constructors, which connect to nothing, for invalid arguments, such as TLS files that cannot
#: be loaded and unknown character sets.
BAD_ARGUMENTS = (*BAD_PARAMS, AttributeError, LookupError, NotImplementedError, OSError)

#: Errors that make a connection useless although it is alive; docs/drivers/asyncmy.md gives the reasons.
BROKEN_CODES: Final = frozenset(
    {
        1047,  # Galera: the node is cut off from its cluster, and executes nothing
        1290,  # the server runs with --read-only (for other options see _READ_ONLY_OPTIONS)
        1615,  # a kept prepared statement has to be prepared again, and the server could not do that
        1836,  # the server is in read-only mode
    }
)

#: The server does not know the session to be ended: it has ended.
KILLED_MEANWHILE = 1094

#: Seconds that closing a connection may take after its connect was abandoned: less than half a second, by which a time
#: limit may be exceeded.
CLOSING_IN_CREATE = 0.3

# The drivers' own errors, with the numbers of the C client: the server sends none of these.
_FIRST_CLIENT_ERROR = 2000
_LAST_CLIENT_ERROR = 2999

#: The drivers' numbers for a lost connection: when they send, and when they read.
GONE = 2006
LOST = 2013

# After these errors the server closes the connection, or has closed it.
_LAST_WORDS = frozenset(
    {
        1053,  # the server shuts down
        1080,  # forcing close of the thread
        1152,  # aborted connection
        1153,  # a packet larger than max_allowed_packet
        1156,  # packets out of order
        1158,  # error reading communication packets
        1159,  # timeout reading them
        1160,  # error writing them
        1161,  # timeout writing them
        1184,  # aborted connection, before the login was complete
        1927,  # MariaDB: the connection was killed
        4031,  # MySQL: disconnected for inactivity
    }
)

# The server has no connection left: for any account, or for this one (the server's default limit, or the account's).
_REFUSALS = frozenset({1040, 1203, 1226})

_ADVICE = {
    1040: 'raise max_connections of the server, or let the pools hold fewer connections',
    1044: 'check the name of the database, and whether the user may use it',
    1045: 'check user and password',
    1049: 'check the name of the database, or create it',
    1129: 'the server has blocked this host after errors: FLUSH HOSTS on the server lifts that',
    1130: 'allow this host for the user on the server',
    1203: 'raise max_user_connections, or let the pools hold fewer connections',
    1226: 'raise the limits of the user on the server, or let the pools hold fewer connections',
    1698: 'check user and password, and by which plugin the server checks them',
    2026: 'check the TLS settings on both sides',
    2054: 'check by which plugin the server checks the password',
    2059: 'check by which plugin the server checks the password',
}

# The packages that the drivers need for some password exchanges, and do not install; they raise a plain RuntimeError.
_PACKAGES = {
    'cryptography': 'pip install cryptography, or connect by TLS (the parameter ssl)',
    'pynacl': 'pip install pynacl',
}


def error_number(exc: BaseException) -> int:
    """Return the number of an error, of the server or of the client; 0 for an error without one."""
    number = exc.args[0] if exc.args else None
    return number if isinstance(number, int) else 0


def is_reply(exc: BaseException) -> bool:
    """Whether a driver's error is the server's answer, and so ends the protocol of the statement."""
    number = error_number(exc)
    return number > 0 and not _FIRST_CLIENT_ERROR <= number <= _LAST_CLIENT_ERROR


def ends_session(exc: BaseException) -> bool:
    """Whether a driver's error means that the connection is lost, or that the server is about to close it."""
    number = error_number(exc)
    return number in _LAST_WORDS or _FIRST_CLIENT_ERROR <= number <= _LAST_CLIENT_ERROR


def is_refusal(exc: BaseException) -> bool:
    """Whether a connect failed because the server has no connection left, for any account or for this one.

    :param exc: what ``create`` raised
    """
    return any(error_number(error) in _REFUSALS for error in errors_in(exc))


def advice_for_error(exc: BaseException) -> str:
    """Return advice for a server that does not accept the connection."""
    return _ADVICE.get(error_number(exc), "see the server's message")


def advice_for_package(exc: RuntimeError) -> str | None:
    """Return advice for a package that the driver has not found; None for an error of another kind."""
    return next((advice for package, advice in _PACKAGES.items() if f'{package!r} package' in str(exc)), None)
