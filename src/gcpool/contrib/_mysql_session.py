"""What a connection to MySQL or MariaDB needs to know of its session, with any driver."""

import functools
import struct
from collections.abc import Callable, Hashable, Iterator
from typing import Any

from gcpool.contrib._errors import errors_in
from gcpool.contrib._generations import Generations
from gcpool.contrib._mysql import GONE, LOST, error_number, is_reply

__all__ = ['QUERIES_FOR_RESET', 'SessionState', 'is_useless']

# The message for a connection that the pool has closed and that is asked to connect again.
_ENDED = 'the pool has closed this connection'

#: The query for the state of a new session that a reset restores; and the same for servers without roles.
QUERIES_FOR_RESET = (
    'SELECT @@character_set_client, @@collation_connection, @@sql_mode, DATABASE(), CURRENT_ROLE()',
    'SELECT @@character_set_client, @@collation_connection, @@sql_mode, DATABASE()',
)

_OPTION_PREVENTS_STATEMENT = 1290
_READ_ONLY_OPTIONS = ('read-only', 'read_only')

_COM_INIT_DB = 2
_COM_QUERY = 3
_COM_PING = 14
_COM_RESET_CONNECTION = 0x1F

# Bits of the server's status.
_IN_TRANSACTION = 1
_AUTOCOMMIT = 2


class SessionState:
    """Mixin for a driver's connection: what it needs to know of its session when it is returned.

    With every answer except an error, the server reports whether a transaction is open, and whether autocommit is on.
    The drivers do not read this from every answer. If they do not, a statement that succeeded can at most have begun a
    transaction without autocommit. A statement that failed (a procedure half-way) may have done anything: then the
    server has to be asked.
    """

    # Declared without values, which would hide the driver's attributes.
    server_status: int
    _next_seq_id: int
    _read_query_result: Callable[..., Any]
    _result: Any
    _write_bytes: Callable[[bytes], None]

    #: Whether autocommit was on when the connection was created.
    initial_autocommit = False
    #: See :py:class:`gcpool.contrib._generations.Generations`.
    generation: int | None = None
    #: The numbers of errors that make the connection useless, and whether one of them has occurred.
    broken_codes: frozenset[int] = frozenset()
    met_broken_code = False
    #: Whether anything was sent to the server since the session was new.
    was_used = False
    #: The port of the client's end, by which the server identifies it; None for a Unix socket.
    own_port: int | None = None
    _awaiting_reply = False
    _lost_count = False
    _status_is_old = False
    _status_is_in_doubt = False
    _ended = False
    _server_has_ended_it = False
    _ends_by_itself = False
    # The packets of a reset, the number of their answers, and whether no database was selected; None without a full
    # reset.
    _reset: tuple[bytes, int, bool] | None = None

    @property
    def _is_answered(self) -> bool:
        """Whether the last statement's answer was read to its end, so that another statement may be sent."""
        result = self._result
        if self._lost_count:
            return False
        if result is None:
            return not self._awaiting_reply
        return not (result.unbuffered_active or result.has_next)

    in_order = _is_answered

    @property
    def is_at_work(self) -> bool:
        """Whether the server may be running a statement, even if the connection is closed."""
        return not (self._is_answered or self._server_has_ended_it or self._ends_by_itself)

    #: The driver's error for a command sent at the wrong time.
    INTERFACE_ERROR: type[Exception]

    def _refuse_if_ended(self) -> None:
        if self._ended:
            self.abort()
            raise self.INTERFACE_ERROR(0, _ENDED)

    def give_up_restoring(self) -> None:
        """Close the connection while it is being restored, so that a check does not find it alive.

        The server is rolling back; ending the session would not shorten that.
        """
        self._ends_by_itself = True
        self.abort()

    def abort(self) -> None:
        """Close the connection without notifying the server."""
        raise NotImplementedError

    @property
    def may_be_in_transaction(self) -> bool:
        """Whether a transaction is open, or may have been opened by a statement that succeeded."""
        if self.server_status & _IN_TRANSACTION:
            return True
        return self._status_is_old and not self.server_status & _AUTOCOMMIT

    @property
    def is_in_transaction(self) -> bool:
        """Whether the server has reported with its last answer that a transaction is open."""
        return not self._status_is_old and bool(self.server_status & _IN_TRANSACTION)

    @property
    def is_restored(self) -> bool:
        """Whether it is known that no transaction is open and autocommit is restored. Costs no round trip."""
        return not (self._is_in_doubt() or self.may_be_in_transaction or self._autocommit_was_switched())

    def steps_to_restore(self) -> Iterator[Callable[[], Any]]:
        """Yield the calls that roll back an open transaction and restore autocommit; none if that is not needed.

        Make each call, and await its coroutine if it returns one, before taking the next one.
        """
        driver: Any = self
        # The answer to the rollback carries the status.
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
        """Whether rows that are fetched one by one have ended with an error."""
        raise NotImplementedError

    def _begin_session(self, own_address: Any) -> None:
        """Record that the server has accepted a connection, the first one or a replacement.

        :param own_address: the address of this end, as a socket returns it
        """
        self.own_port = own_address[1] if isinstance(own_address, tuple) else None
        self._result = None
        self._awaiting_reply = self._lost_count = self._server_has_ended_it = False

    def _begin_statement(self, earlier: Any, command: int) -> None:
        """Record that a statement is about to be sent, for which the driver forgets an earlier result."""
        if self._awaiting_reply and self._result is None:
            # Another task or thread waits for an answer, or stopped reading one: from now on it is unknown to which
            # statement an answer belongs.
            self._lost_count = True
        self._note_statement(earlier)
        self.was_used = self.was_used or command != _COM_PING

    def _note_statement(self, earlier: Any) -> None:
        self._note_forgotten(earlier)
        self._awaiting_reply = self._status_is_old = True

    def _note_forgotten(self, earlier: Any) -> None:
        if earlier is not None and self._failed_half_way(earlier):
            self._status_is_in_doubt = True

    def _note_reply(self, *, told: bool) -> None:
        """Record an answer other than an error, read to its end as far as the driver reads by itself.

        :param told: whether the driver read the status that came with the answer
        """
        self._awaiting_reply = False
        self._status_is_old = not told
        if told:
            self._status_is_in_doubt = False

    def _note_error(self, exc: BaseException) -> None:
        """Record an exception from reading an answer or sending a statement."""
        if is_reply(exc):
            self._awaiting_reply = False
            self._status_is_in_doubt = True
            self.met_broken_code = self.met_broken_code or self.is_broken_code(exc)
        elif error_number(exc) == GONE or (error_number(exc) == LOST and not self._was_closed_here(exc)):
            # The server does not execute a statement that was not sent completely.
            self._server_has_ended_it = True

    def _was_closed_here(self, exc: BaseException) -> bool:
        """Whether this side has ended the connection, for instance after a timeout, and not the server."""
        raise NotImplementedError

    def is_known_as(self, host: str) -> bool:
        """Whether a session with this one's number is this one, according to the server's list of sessions.

        Behind a proxy this is unknown: the server sees the proxy's port. What a session executes does not identify it,
        because the servers of one application all execute the same statements.

        :param host: address and port of the client, as the server sees them
        """
        port = host.rpartition(':')[2] if ':' in host else None
        return port == (None if self.own_port is None else str(self.own_port))

    def is_broken_code(self, exc: BaseException) -> bool:
        """Whether an error makes the connection useless."""
        number = error_number(exc)
        if number not in self.broken_codes:
            return False
        # This is the error for anything that an option forbids.
        return number != _OPTION_PREVENTS_STATEMENT or any(option in str(exc) for option in _READ_ONLY_OPTIONS)

    def plan_reset(self, row: Any, init_command: str | None, encoding: str) -> None:
        """Record how to reset the new session to its initial state, whatever its users do to it.

        ``COM_RESET_CONNECTION`` sets all variables to the server's defaults, and leaves role and database unchanged.

        :param row: the answer to :py:data:`QUERIES_FOR_RESET`, with the role, or without it from a server without roles
        :param init_command: what the driver executes after connecting
        :param encoding: the encoding of what the driver sends
        """
        charset, collation, sql_mode, database, *role = row
        commands: list[tuple[int, str]] = [
            (_COM_RESET_CONNECTION, ''),
            (_COM_QUERY, f"SET NAMES {charset} COLLATE {collation}, sql_mode = '{sql_mode}'"),
        ]
        if role:
            commands.append((_COM_QUERY, f'SET ROLE {_role(*role)}'))
        if database is not None:
            commands.append((_COM_INIT_DB, database))
        if init_command is not None:
            commands += ((_COM_QUERY, init_command), (_COM_QUERY, 'COMMIT'))
        if database is None:
            # Nothing can undo a USE then.
            commands.append((_COM_QUERY, 'SELECT DATABASE()'))
        # Last, because its answer gives the driver the status.
        commands.append((_COM_QUERY, f'SET autocommit = {int(self.initial_autocommit)}'))
        encoded = [(command, text.encode(encoding)) for command, text in commands]
        packets = b''.join(struct.pack('<iB', len(text) + 1, command) + text for command, text in encoded)
        self._reset = (packets, len(commands), database is None)
        self.was_used = False

    def steps_to_reset(self) -> Iterator[Callable[[], Any]]:
        """Yield the calls that reset the session to its initial state, in one round trip.

        Make each call, and await its coroutine if it returns one, before taking the next one. If one of them raises,
        answers may be left unread: close the connection.

        :raise ValueError: the session cannot be reset
        """
        packets, answers, expects_no_database = self._reset or (b'', 0, False)
        self._begin_statement(self._result, _COM_RESET_CONNECTION)
        self._result = None
        self._write_bytes(packets)
        for left in reversed(range(answers)):
            self._next_seq_id = 1
            yield self._read_query_result
            if left == 1 and expects_no_database and self._result.rows[0][0] is not None:
                raise ValueError('its user has selected a database, which cannot be undone')
            while self._result.has_next:
                yield self._read_query_result
        self._result = None
        self.was_used = False


def _role(name: str | None) -> str:
    """Convert an answer of ``CURRENT_ROLE()`` (MariaDB: one name, MySQL: a quoted list) to what ``SET ROLE`` takes."""
    if name is None or name == 'NONE':
        return 'NONE'
    return name if name.startswith('`') else '`{}`'.format(name.replace('`', '``'))


def is_useless(
    generations: Generations, endpoint: Hashable, conn: SessionState, exc: BaseException | None = None
) -> bool:
    """Return whether an error has made a connection useless, or whether the connection is retired because of an error
    of another one.

    :param generations: the manager's generations
    :param endpoint: the endpoint of the connection
    :param conn: the connection
    :param exc: what its user's block raised
    """
    if conn.met_broken_code or (exc is not None and any(map(conn.is_broken_code, errors_in(exc)))):
        generations.retire(endpoint, conn.generation)
        return True
    return generations.is_retired(endpoint, conn.generation)
