"""What the managers of MySQL and MariaDB connections share: the state of a session, and the numbers of errors."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

from gcpool.contrib._errors import BAD_PARAMS

__all__ = [
    'BAD_ARGUMENTS',
    'ENDED',
    'SessionState',
    'advice_for_error',
    'advice_for_package',
    'ends_session',
    'error_number',
    'is_reply',
]

#: What is said when a connection that the pool has closed is told to connect again.
ENDED = 'the pool has closed this connection'

#: What the drivers' constructors, which connect to nothing, raise for arguments that they cannot use: files of TLS that
#: they cannot load, and character sets that they do not know, among them.
BAD_ARGUMENTS = (*BAD_PARAMS, AttributeError, LookupError, NotImplementedError, OSError)

# Bits of the server's status.
_IN_TRANSACTION = 1
_AUTOCOMMIT = 2

# The drivers' own errors, by the numbers of the C client: the server sends none of these.
_FIRST_CLIENT_ERROR = 2000
_LAST_CLIENT_ERROR = 2999

_OUT_OF_SYNC = 2014

# After these the server closes the connection, or has closed it.
_LAST_WORDS = frozenset(
    {
        1053,  # the server shuts down
        1080,  # forcing close of the thread
        1152,  # aborted connection
        1158,  # error reading communication packets
        1159,  # timeout reading them
        1160,  # error writing them
        1161,  # timeout writing them
        1184,  # aborted connection, before the login was complete
        1927,  # MariaDB: the connection was killed
        4031,  # MySQL: disconnected for inactivity
    }
)

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

# What the drivers need for some ways to ask for a password, and do not bring; they raise a plain RuntimeError.
_PACKAGES = {
    'cryptography': 'pip install cryptography, or connect by TLS (the parameter ssl)',
    'pynacl': 'pip install pynacl',
}


def error_number(exc: BaseException) -> int:
    """The number of an error, of the server or of the client; 0 for an error without one."""
    number = exc.args[0] if exc.args else None
    return number if isinstance(number, int) else 0


def is_reply(exc: BaseException) -> bool:
    """Whether an error of a driver is an answer of the server, and so the end of the statement's protocol."""
    number = error_number(exc)
    return number > 0 and not _FIRST_CLIENT_ERROR <= number <= _LAST_CLIENT_ERROR


def ends_session(exc: BaseException) -> bool:
    """Whether an error of a driver says that the connection is lost, or that the server is about to close it."""
    number = error_number(exc)
    return number in _LAST_WORDS or _FIRST_CLIENT_ERROR <= number <= _LAST_CLIENT_ERROR


def advice_for_error(exc: BaseException) -> str:
    """What to do about a server that does not accept the connection."""
    return _ADVICE.get(error_number(exc), 'see what the server says')


def advice_for_package(exc: RuntimeError) -> str | None:
    """What to do about a package that the driver has not found; None for an error of another kind."""
    return next((advice for package, advice in _PACKAGES.items() if f'{package!r} package' in str(exc)), None)


class SessionState:
    """What a driver's connection, which this is mixed into, has to know of its session when it is given back.

    The server tells whether a transaction is open, and whether autocommit is on, with every answer but an error. The
    drivers do not take it in from all of those. Where they do not, all that a statement that has succeeded may have
    done is to begin a transaction without autocommit; one that has failed (a procedure half-way) may have done
    anything: then the server has to be asked.
    """

    # Only declared here: a value would hide what the drivers have.
    server_status: int
    _result: Any

    #: Whether autocommit was on when the connection was made.
    initial_autocommit = False
    _awaiting_reply = False
    _status_is_old = False
    _status_is_in_doubt = False
    _ended = False

    @property
    def in_order(self) -> bool:
        """Whether the last statement's answer was read to its end, and another statement may be sent."""
        result = self._result
        if result is None:
            return not self._awaiting_reply
        return not (result.unbuffered_active or result.has_next)

    @property
    def may_be_in_transaction(self) -> bool:
        """Whether a transaction is open, or may be by a statement that did not fail."""
        if self.server_status & _IN_TRANSACTION:
            return True
        return self._status_is_old and not self.server_status & _AUTOCOMMIT

    @property
    def is_restored(self) -> bool:
        """Whether it is known that no transaction is open, and autocommit is what it was. Costs no round trip."""
        return not (self._is_in_doubt() or self.may_be_in_transaction or self._autocommit_was_switched())

    def steps_to_restore(self) -> Iterator[Callable[[], Any]]:
        """Give what to call to roll back what may be open and set autocommit to what it was; nothing if it is restored.

        Each is to be called, and its coroutine awaited if it gives one, before the next one is asked for.
        """
        driver: Any = self
        # The answer to the rollback tells as much.
        if self._is_in_doubt() and not self.may_be_in_transaction:
            yield functools.partial(driver.ping, reconnect=False)
        if self.may_be_in_transaction:
            yield driver.rollback
        if self._autocommit_was_switched():
            yield functools.partial(driver.autocommit, self.initial_autocommit)

    def _autocommit_was_switched(self) -> bool:
        return bool(self.server_status & _AUTOCOMMIT) != self.initial_autocommit

    def _is_in_doubt(self) -> bool:
        return self._status_is_in_doubt or (self._result is not None and self._failed_half_way(self._result))

    @staticmethod
    def _failed_half_way(result: Any) -> bool:
        """Whether rows that were fetched one by one have ended with an error."""
        raise NotImplementedError

    def _note_statement(self, earlier: Any) -> None:
        """Note that a statement is sent, for which the driver forgets an earlier result."""
        self._note_forgotten(earlier)
        self._awaiting_reply = self._status_is_old = True

    def _note_forgotten(self, earlier: Any) -> None:
        if earlier is not None and self._failed_half_way(earlier):
            self._status_is_in_doubt = True

    def _note_reply(self, *, told: bool) -> None:
        """Note an answer that is no error, read to its end as far as the driver does by itself.

        :param told: the status that came with it was taken in
        """
        self._awaiting_reply = False
        self._status_is_old = not told
        if told:
            self._status_is_in_doubt = False

    def _note_error(self, exc: BaseException) -> None:
        """Note what reading an answer, or sending a statement, has raised."""
        if is_reply(exc):
            self._awaiting_reply = False
            self._status_is_in_doubt = True
