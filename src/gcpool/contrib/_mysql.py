"""What the managers of MySQL and MariaDB connections share: the state of a session, and the numbers of errors."""

import functools
import struct
import time
from collections.abc import Callable, Generator, Hashable, Iterator, Mapping
from typing import Any, Final

from gcpool._core import GuardedLogger
from gcpool.contrib._errors import BAD_PARAMS, errors_in
from gcpool.contrib._generations import Generations

__all__ = [
    'BAD_ARGUMENTS',
    'BROKEN_CODES',
    'CLOSING_IN_CREATE',
    'ENDED',
    'KILLED_MEANWHILE',
    'QUERIES_FOR_RESET',
    'ControlLog',
    'SessionState',
    'advice_for_error',
    'advice_for_package',
    'control_params',
    'ends_session',
    'error_number',
    'is_reply',
    'is_useless',
    'steps_to_kill',
]

logger = GuardedLogger(__name__)

#: What is said when a connection that the pool has closed is told to connect again.
ENDED = 'the pool has closed this connection'

#: What the drivers' constructors, which connect to nothing, raise for arguments that they cannot use: files of TLS that
#: they cannot load, and character sets that they do not know, among them.
BAD_ARGUMENTS = (*BAD_PARAMS, AttributeError, LookupError, NotImplementedError, OSError)

#: After these a connection is useless though it is alive; each with its reason in docs/drivers/asyncmy.md.
BROKEN_CODES: Final = frozenset(
    {
        1047,  # Galera: the node is cut off from its cluster, and executes nothing
        1290,  # the server runs with --read-only (for other options see _READ_ONLY_OPTIONS)
        1615,  # a prepared statement that was kept has to be prepared again, and the server could not do that
        1836,  # the server is in read-only mode
    }
)

#: The server does not know a session that is to be ended: it has ended.
KILLED_MEANWHILE = 1094

#: Seconds that closing a connection may take after its connect was given up: less than the half second within which a
#: time limit is to hold.
CLOSING_IN_CREATE = 0.3

#: What has to be known of a new session so that it can be made the same again; and the same for servers without roles.
QUERIES_FOR_RESET = (
    'SELECT @@character_set_client, @@collation_connection, @@sql_mode, DATABASE(), CURRENT_ROLE()',
    'SELECT @@character_set_client, @@collation_connection, @@sql_mode, DATABASE()',
)

_OPTION_PREVENTS_STATEMENT = 1290
_READ_ONLY_OPTIONS = ('read-only', 'read_only')

# Seconds for which no control connection is made after one that the server has not answered in time.
_SILENCE = 5.0

# The part of its time limit after which a server without an answer counts as silent.
_TELLING = 0.8

# The parameters of a connection that one for control does without: it selects no database, and sets nothing.
_NOT_FOR_CONTROL = frozenset(
    {
        *('database', 'db', 'init_command', 'sql_mode', 'autocommit', 'stmt_cache_size', 'local_infile'),
        *('conv', 'use_unicode', 'cursorclass', 'cursor_cls', 'echo', 'query_callback'),
        *('connect_timeout', 'read_timeout', 'write_timeout', 'defer_connect'),
    }
)

# Seconds between two looks at whether the server has let a session go.
_FIRST_PAUSE = 0.001
_LONGEST_PAUSE = 0.05

_COM_INIT_DB = 2
_COM_QUERY = 3
_COM_PING = 14
_COM_RESET_CONNECTION = 0x1F

# Bits of the server's status.
_IN_TRANSACTION = 1
_AUTOCOMMIT = 2

# The drivers' own errors, by the numbers of the C client: the server sends none of these.
_FIRST_CLIENT_ERROR = 2000
_LAST_CLIENT_ERROR = 2999

# The drivers' numbers for a connection that is lost: when they send, and when they read.
_GONE = 2006
_LOST = 2013

# After these the server closes the connection, or has closed it.
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
    _next_seq_id: int
    _read_query_result: Callable[..., Any]
    _result: Any
    _write_bytes: Callable[[bytes], None]

    #: Whether autocommit was on when the connection was made.
    initial_autocommit = False
    #: See :py:class:`gcpool.contrib._generations.Generations`.
    generation: int | None = None
    #: The numbers of errors after which it is useless, and whether it has met one of them.
    broken_codes: frozenset[int] = frozenset()
    met_broken_code = False
    #: Whether anything was asked of the server since the session was new.
    was_used = False
    #: The port of its own end, by which the server names its client; None for a Unix socket.
    own_port: int | None = None
    _awaiting_reply = False
    _lost_count = False
    _status_is_old = False
    _status_is_in_doubt = False
    _ended = False
    _server_has_ended_it = False
    _ends_by_itself = False
    # Packets, the number of their answers, and whether no database was selected; None if it is not to be reset.
    _reset: tuple[bytes, int, bool] | None = None

    @property
    def _is_answered(self) -> bool:
        """Whether the last statement's answer was read to its end, and another statement may be sent."""
        result = self._result
        if self._lost_count:
            return False
        if result is None:
            return not self._awaiting_reply
        return not (result.unbuffered_active or result.has_next)

    in_order = _is_answered

    @property
    def is_at_work(self) -> bool:
        """Whether the server may be at work for a statement, though the connection may be closed."""
        return not (self._is_answered or self._server_has_ended_it or self._ends_by_itself)

    def give_up_restoring(self) -> None:
        """Close the connection in the middle of being restored: who checks it must not find it alive.

        What the server is at work for is to roll back, which telling it to end would not shorten.
        """
        self._ends_by_itself = True
        self.abort()

    def abort(self) -> None:
        """Close the connection without a good-bye."""
        raise NotImplementedError

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

    def _begin_session(self, own_address: Any) -> None:
        """Note that the server has accepted a connection, the first one or another one in its place.

        :param own_address: of this end of it, as a socket tells it
        """
        self.own_port = own_address[1] if isinstance(own_address, tuple) else None
        self._result = None
        self._awaiting_reply = self._lost_count = self._server_has_ended_it = False

    def _begin_statement(self, earlier: Any, command: int) -> None:
        """Note that a statement is about to be sent, for which the driver forgets an earlier result."""
        if self._awaiting_reply and self._result is None:
            # Another task or thread waits for an answer, or gave up reading one: from now on nobody can tell whose
            # answer it is that comes.
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
            self.met_broken_code = self.met_broken_code or self.is_broken_code(exc)
        elif error_number(exc) == _GONE or (error_number(exc) == _LOST and not self._was_closed_here(exc)):
            # What could not be sent as a whole is not executed, either.
            self._server_has_ended_it = True

    def _was_closed_here(self, exc: BaseException) -> bool:
        """Whether it is this side that ended the connection, after a time limit for instance, and not the server."""
        raise NotImplementedError

    def is_known_as(self, host: str) -> bool:
        """Whether a session of this one's number is this one, from what the server's list of sessions says.

        Behind a proxy it is not known: the server sees the proxy's port. What a session executes tells nothing, since
        the servers of one application all execute the same.

        :param host: address and port of the client, as the server sees them
        """
        port = host.rpartition(':')[2] if ':' in host else None
        return port == (None if self.own_port is None else str(self.own_port))

    def is_broken_code(self, exc: BaseException) -> bool:
        """Whether an error is one after which the connection is useless."""
        number = error_number(exc)
        if number not in self.broken_codes:
            return False
        # It is the answer to whatever an option forbids.
        return number != _OPTION_PREVENTS_STATEMENT or any(option in str(exc) for option in _READ_ONLY_OPTIONS)

    def plan_reset(self, row: Any, init_command: str | None, encoding: str) -> None:
        """Keep how the new session can be made the same again, whatever its users do to it.

        ``COM_RESET_CONNECTION`` sets all variables to the server's defaults, and leaves role and database as they are.

        :param row: the answer to :py:data:`QUERIES_FOR_RESET`, with the role, or without it from a server without roles
        :param init_command: what the driver executes when it has connected
        :param encoding: of what the driver sends
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
            # Nothing takes back a USE then.
            commands.append((_COM_QUERY, 'SELECT DATABASE()'))
        # Last, since its answer tells the driver the status.
        commands.append((_COM_QUERY, f'SET autocommit = {int(self.initial_autocommit)}'))
        encoded = [(command, text.encode(encoding)) for command, text in commands]
        packets = b''.join(struct.pack('<iB', len(text) + 1, command) + text for command, text in encoded)
        self._reset = (packets, len(commands), database is None)
        self.was_used = False

    def steps_to_reset(self) -> Iterator[Callable[[], Any]]:
        """Give what to call to make the session what it was when it was new, in one round trip.

        Each is to be called, and its coroutine awaited if it gives one, before the next one is asked for. When one of
        them raises, there may be answers that nobody reads: the connection is to be closed.

        :raise ValueError: the session cannot be made the same again
        """
        packets, answers, expects_no_database = self._reset or (b'', 0, False)
        self._begin_statement(self._result, _COM_RESET_CONNECTION)
        self._result = None
        self._write_bytes(packets)
        for left in reversed(range(answers)):
            self._next_seq_id = 1
            yield self._read_query_result
            if left == 1 and expects_no_database and self._result.rows[0][0] is not None:
                raise ValueError('its user has selected a database, which nothing undoes')
            while self._result.has_next:
                yield self._read_query_result
        self._result = None
        self.was_used = False


def _role(name: str | None) -> str:
    """What ``CURRENT_ROLE()`` has told as ``SET ROLE`` takes it: MariaDB tells one name, MySQL a list with quotes."""
    if name is None or name == 'NONE':
        return 'NONE'
    return name if name.startswith('`') else '`{}`'.format(name.replace('`', '``'))


def control_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a connection by which sessions are ended."""
    return {**{name: value for name, value in params.items() if name not in _NOT_FOR_CONTROL}, 'autocommit': None}


def steps_to_kill(conn: SessionState, session: int) -> Generator[str, Any, None]:
    """Give the statements that end a session, and then wait until the server has let it go.

    :param conn: what the session belongs to, closed
    :param session: its number
    :return: a generator, which is sent the rows of each statement
    :raise LookupError: the server has such a session, but it cannot be told to be this one
    """
    found = f'FROM information_schema.PROCESSLIST WHERE ID = {session}'
    rows = yield f'SELECT HOST {found}'
    if not rows:
        return
    # Behind a name or an address there may be several servers, each with a session of that number.
    if not conn.is_known_as(rows[0][0]):
        raise LookupError(f'session {session} may be another one there')
    yield f'KILL {session}'
    pause = _FIRST_PAUSE
    while (yield f'SELECT SLEEP({pause}) {found}'):
        pause = min(2 * pause, _LONGEST_PAUSE)


class ControlLog:
    """What a manager knows of the connections by which it has the server end statements."""

    def __init__(self) -> None:
        self._silent_until: dict[Hashable, float] = {}
        self._failing: set[Hashable] = set()

    def may_try(self, endpoint: Hashable) -> bool:
        """Whether the server has not been silent a moment ago: each try may take all of its time."""
        return self._silent_until.get(endpoint, 0.0) <= time.monotonic()

    def note_success(self, endpoint: Hashable) -> None:
        """Note that a session was ended, or had ended."""
        self._failing.discard(endpoint)

    def note_silence(self, endpoint: Hashable, waited: float, limit: float) -> None:
        """Note that the server has not let anybody log in, unless it had too little time for that.

        :param endpoint: where it was connected to
        :param waited: seconds that it had
        :param limit: seconds that it may have. One that is far away may need most of them, and who has waited for
            others to be ended, or closes in the middle of a create, has given it less.
        """
        if waited >= _TELLING * limit:
            self._silent_until[endpoint] = time.monotonic() + _SILENCE

    def note_failure(self, endpoint: Hashable, exc: BaseException) -> None:
        """Note that a session could not be ended, and say so once until that succeeds again."""
        tell = logger.debug if endpoint in self._failing else logger.warning
        self._failing.add(endpoint)
        tell(
            'a connection to %r was closed while its statement ran, and the server could not be told to end that, '
            'so it may go on for as long as it takes: %s: %s',
            endpoint,
            type(exc).__name__,
            exc,
        )


def is_useless(
    generations: Generations, endpoint: Hashable, conn: SessionState, exc: BaseException | None = None
) -> bool:
    """Tell whether a connection has met an error that makes it useless, or is retired since another one has.

    :param generations: of the manager
    :param endpoint: where the connection leads
    :param conn: the connection
    :param exc: what its user's block raised
    """
    if conn.met_broken_code or (exc is not None and any(map(conn.is_broken_code, errors_in(exc)))):
        generations.retire(endpoint, conn.generation)
        return True
    return generations.is_retired(endpoint, conn.generation)
