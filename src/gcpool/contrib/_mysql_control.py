"""Ends sessions that were closed while a statement was running: by a KILL over another connection."""

import time
from collections.abc import Generator, Hashable, Mapping
from typing import Any

from gcpool._core import GuardedLogger
from gcpool.contrib._mysql_session import SessionState

__all__ = ['ControlLog', 'control_params', 'steps_to_kill']

# Named as in the documentation.
logger = GuardedLogger('gcpool.contrib._mysql')

# Seconds during which no control connection is opened after the server has not answered one in time.
_SILENCE = 5.0

# The share of its time limit after which a server without an answer counts as silent.
_TELLING = 0.8

# Parameters that a control connection omits: it selects no database, and sets nothing.
_NOT_FOR_CONTROL = frozenset(
    {
        *('database', 'db', 'init_command', 'sql_mode', 'autocommit', 'stmt_cache_size', 'local_infile'),
        *('conv', 'use_unicode', 'cursorclass', 'cursor_cls', 'echo', 'query_callback'),
        *('connect_timeout', 'read_timeout', 'write_timeout', 'defer_connect'),
    }
)

# Seconds between two checks whether the server has ended a session.
_FIRST_PAUSE = 0.001
_LONGEST_PAUSE = 0.05


def control_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a control connection, which ends sessions."""
    return {**{name: value for name, value in params.items() if name not in _NOT_FOR_CONTROL}, 'autocommit': None}


def steps_to_kill(conn: SessionState, session: int) -> Generator[str, Any, None]:
    """Yield the statements that end a session, and then wait until the server has ended it.

    :param conn: the session's connection, closed
    :param session: the number of the session
    :return: a generator that is sent the rows of each statement
    :raise LookupError: the server has a session of that number, but it may belong to another connection
    """
    found = f'FROM information_schema.PROCESSLIST WHERE ID = {session}'
    rows = yield f'SELECT HOST {found}'
    if not rows:
        return
    # There may be several servers behind a name or an address, each with a session of that number.
    if not conn.is_known_as(rows[0][0]):
        raise LookupError(f'session {session} may be another one there')
    yield f'KILL {session}'
    pause = _FIRST_PAUSE
    while (yield f'SELECT SLEEP({pause}) {found}'):
        pause = min(2 * pause, _LONGEST_PAUSE)


class ControlLog:
    """A manager's record of its control connections, by which the server is asked to end statements."""

    def __init__(self) -> None:
        self._silent_until: dict[Hashable, float] = {}
        self._failing: set[Hashable] = set()

    def may_try(self, endpoint: Hashable) -> bool:
        """Whether the server has answered recently: each attempt may take all of its time."""
        return self._silent_until.get(endpoint, 0.0) <= time.monotonic()

    def note_success(self, endpoint: Hashable) -> None:
        """Record that a session was ended, or had ended."""
        self._failing.discard(endpoint)

    def note_silence(self, endpoint: Hashable, waited: float, limit: float) -> None:
        """Record that the server did not accept a login, unless the login had too little time.

        :param endpoint: the endpoint of the attempt
        :param waited: seconds that the login had
        :param limit: seconds that a login may have. A distant server may need most of them, but a login has less if it
            waited for others first, or if the connection is closed in the middle of a create.
        """
        if waited >= _TELLING * limit:
            self._silent_until[endpoint] = time.monotonic() + _SILENCE

    def note_failure(self, endpoint: Hashable, shown: object, exc: BaseException) -> None:
        """Record that a session could not be ended, and log a warning, once until ending works again.

        :param shown: what the log shows in place of the endpoint
        """
        tell = logger.debug if endpoint in self._failing else logger.warning
        self._failing.add(endpoint)
        tell(
            'a connection to %r was closed while its statement was running, and the statement could not be ended, '
            'so it may continue to run: %s: %s',
            shown,
            type(exc).__name__,
            exc,
        )
