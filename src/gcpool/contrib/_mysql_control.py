"""How the server is told to end a session that was closed while it was at work for it: over another connection."""

import time
from collections.abc import Generator, Hashable, Mapping
from typing import Any

from gcpool._core import GuardedLogger
from gcpool.contrib._mysql_session import SessionState

__all__ = ['ControlLog', 'control_params', 'steps_to_kill']

# Named as the documentation has it.
logger = GuardedLogger('gcpool.contrib._mysql')

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
