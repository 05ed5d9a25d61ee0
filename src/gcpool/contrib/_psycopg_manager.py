"""Shared by the managers of psycopg's connections for both runtimes: their state, decisions and errors."""

import time
import traceback
from collections.abc import Awaitable, Callable, Collection, Hashable, Mapping
from typing import Any, Generic, NoReturn, TypeAlias, TypeVar, get_origin
from weakref import WeakKeyDictionary

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import ConnectionTimeout
from psycopg.pq import TransactionStatus

from gcpool._core import GuardedLogger
from gcpool.contrib._descriptions import described, shown
from gcpool.contrib._errors import (
    BAD_PARAMS,
    check_source,
    errors_in,
    raise_bad_params,
    raise_connect_error,
    raise_connect_timeout,
    to_params,
)
from gcpool.contrib._generations import Generations
from gcpool.contrib._libpq import CANCEL_TIMEOUT
from gcpool.contrib._one_place import OnePlace
from gcpool.contrib._parameters import bounded_seconds, check_codes, resets_all, time_limit
from gcpool.contrib._postgres import (
    FULL_RESET,
    advice_for,
    is_of_the_server,
    is_refusal,
    is_stale_plan,
    is_useless_after,
    may_show_password,
    shorter_connect_timeout,
)
from gcpool.contrib._psycopg_state import (
    SETTINGS,
    Session,
    as_new_state,
    copy_of_adapters,
    forget_notifications,
    handlers_of,
    settings_of,
    state_of,
    why_unfit,
)
from gcpool.exceptions import ConnectError, DiscardConnection

__all__ = [
    'AsyncConninfoSource',
    'Conninfo',
    'ConninfoSource',
    'ManagerBase',
    'check_configured',
    'close_half_open',
    'connect_timeout_for',
    'params_for',
    'raise_typed',
]

#: A connection string or URI, or the parameters of :py:meth:`psycopg.Connection.connect`.
Conninfo: TypeAlias = str | Mapping[str, Any]

_EndpointT = TypeVar('_EndpointT', bound=Hashable)
_AnyConnT = TypeVar('_AnyConnT')

#: By endpoint, or a callable that receives the endpoint; a value of the mapping may also be such a callable.
ConninfoSource: TypeAlias = (
    Mapping[_EndpointT, Conninfo | Callable[[_EndpointT], Conninfo]] | Callable[[_EndpointT], Conninfo]
)
#: The same, but the callables may be coroutine functions.
AsyncConninfoSource: TypeAlias = (
    Mapping[_EndpointT, Conninfo | Callable[[_EndpointT], Conninfo | Awaitable[Conninfo]]]
    | Callable[[_EndpointT], Conninfo | Awaitable[Conninfo]]
)

# The name that users know the class by.
logger = GuardedLogger('gcpool.contrib.psycopg')


class ManagerBase(OnePlace, Generic[_AnyConnT]):
    """The state of the managers of both runtimes."""

    # Not ``broken_on_cancel``: when a wait is interrupted, psycopg has the server end the statement, and reads the
    # answer. If that fails, the state of the connection shows it, and is_broken() looks at that.

    # The base that a connection class must have.
    _BASE: type[Any]

    def _set_up(
        self,
        conninfo: Any,
        kwargs: Mapping[str, Any] | None,
        connection_class: type[_AnyConnT],
        configure: Callable[[Any], Any] | None,
        ping: bool,
        rollback_timeout: float | None,
        reset: str,
        broken_codes: Collection[str],
        cancel_timeout: float,
    ) -> None:
        conninfo = self._as_source(conninfo, text=True)
        check_source(conninfo, 'conninfo', or_callable=True)
        given: Any = connection_class
        # It may be an alias, such as Connection[DictRow].
        plain = get_origin(given) or given
        if not isinstance(plain, type) or not issubclass(plain, self._BASE):
            raise TypeError(f'connection_class={given!r}: expected psycopg.{self._BASE.__name__} or a subclass of it')
        self._conninfo = conninfo
        self._kwargs = dict(kwargs or {})
        self._connection_class = connection_class
        self._configure = configure
        self._ping = ping
        self._rollback_timeout = time_limit('rollback_timeout', rollback_timeout)
        self._resets_all = resets_all(reset)
        self._broken_codes = check_codes(broken_codes, str)
        self._cancel_timeout = bounded_seconds('cancel_timeout', cancel_timeout)
        # Records of connections that the manager did not create; the manager's own connections carry theirs.
        self._sessions: WeakKeyDictionary[_AnyConnT, Session] = WeakKeyDictionary()
        # Of connections, and of what they have prepared. Dropping prepared statements costs little, so it has no
        # minimum interval.
        self._generations = Generations()
        self._plans = Generations(interval=0.0)

    def is_refusal(self, endpoint: Any, exc: BaseException) -> bool:
        """Return whether a connect failed because the server has no connection left, for any user or for this one.

        :param endpoint: the endpoint of the attempt
        :param exc: what ``create`` raised. libpq passes on the server's message, but not its code: if the server's
            messages are not in English (``lc_messages``), this is False.
        """
        return is_refusal(exc)

    def _session_of(self, conn: Any) -> Session:
        try:
            session: Session = conn.gcpool_session
        except AttributeError:
            pass
        else:
            if session.manager is self:
                return session
        return self._sessions.setdefault(conn, Session(self._cancel_timeout))

    def _begin(self, endpoint: Hashable) -> Session:
        """Create the record of a connection, before the connection is made."""
        # Until the connection is configured, the acquirer's time limit applies.
        seconds = min(self._cancel_timeout, CANCEL_TIMEOUT)
        return Session(seconds, self._generations.latest(endpoint), self._plans.latest(endpoint), manager=self)

    def _remember(self, conn: Any, session: Session) -> None:
        """Record the state of a connection, now configured, as the state that each user gets."""
        session.state = state_of(conn)
        session.as_new = as_new_state(conn)
        if self._resets_all:
            session.adapters = copy_of_adapters(conn._adapters)  # noqa: SLF001
        session.cancel_timeout = self._cancel_timeout

    def _untouched(self, endpoint: Hashable, conn: Any) -> Session | None:
        """Return the record of a connection that a first look finds in its initial state, None for any other."""
        try:
            session: Session = conn.gcpool_session
        except AttributeError:
            return None
        if session.manager is not self or session.as_new is None or not session.as_new.describes(conn):
            return None
        if self._generations.any_retired and self._generations.is_retired(endpoint, session.generation):
            return None
        return session

    def _is_as_new(self, endpoint: Hashable, conn: Any) -> bool:
        """Whether a connection is trusted and clean. After an interrupted release, all of a user's work may be left."""
        if why_unfit(conn) is not None or (self._generations.any_retired and self._is_retired(endpoint, conn)):
            return False
        state = self._session_of(conn).state
        return state is None or (settings_of(conn), handlers_of(conn)) == state

    def _is_retired(self, endpoint: Hashable, conn: Any) -> bool:
        return self._generations.is_retired(endpoint, self._session_of(conn).generation)

    def _check_command(self, endpoint: Hashable, conn: Any) -> bytes | None:
        """Return the statements that a check has to send to the server; None for none."""
        if self._plans.any_retired:
            session = self._session_of(conn)
            if self._plans.is_retired(endpoint, session.plans):
                session.forget_prepared(conn, self._plans.latest(endpoint))
                return b'DEALLOCATE ALL'
        return b'' if self._ping else None

    def _is_useless(self, endpoint: Hashable, conn: Any, exc: BaseException) -> bool:
        """Whether a connection is lost, in the middle of something, or useless after an error."""
        if why_unfit(conn) is not None:
            return True
        for error in errors_in(exc):
            if isinstance(error, psycopg.Error):
                session = self._session_of(conn)
                if is_stale_plan(error.sqlstate, error.diag.source_function):
                    self._plans.retire(endpoint, session.plans)
                    return True
                if is_useless_after(error.sqlstate, self._broken_codes, lambda name: _setting(conn, name)):
                    if is_of_the_server(error.sqlstate):
                        self._generations.retire(endpoint, session.generation)
                    return True
        return False

    def _check_fit(self, endpoint: Hashable, conn: Any) -> None:
        why = why_unfit(conn)
        if why is not None:
            if not conn.closed:
                logger.warning('discarding a connection to %r that was returned %s', described(self, endpoint), why)
            raise DiscardConnection(f'a connection to {described(self, endpoint)!r} was returned {why}')
        if self._generations.any_retired and self._is_retired(endpoint, conn):
            raise DiscardConnection(
                f'a connection to {described(self, endpoint)!r} is older than an error that discredits its server'
            )

    @staticmethod
    def _is_left_open(conn: Any) -> bool:
        """Whether a transaction is open that could be committed: not after a statement that failed."""
        return bool(conn.pgconn.transaction_status == TransactionStatus.INTRANS)

    def _release_command(self, endpoint: Hashable, conn: Any) -> bytes | None:
        """Return the statements that a release has to send to the server, in one message; None for none."""
        is_idle = conn.pgconn.transaction_status == TransactionStatus.IDLE
        if is_idle and not self._resets_all:
            return None
        session = self._session_of(conn)
        parts = [] if is_idle else [b'ROLLBACK']
        if self._resets_all or conn._prepared._names:  # noqa: SLF001
            # psycopg does the same after each rollback: objects that are created again would not be the prepared ones.
            parts.append(FULL_RESET.encode() if self._resets_all else b'DEALLOCATE ALL')
            session.forget_prepared(conn, self._plans.latest(endpoint))
        return b'; '.join(parts)

    def _forget_all(self, conn: Any) -> None:
        """Do the client's part of a full reset."""
        session = self._session_of(conn)
        if session.state is not None:
            conn._adapters = copy_of_adapters(session.adapters)  # noqa: SLF001
            forget_notifications(conn)

    def _take_back(self, conn: Any) -> list[tuple[str, Any]]:
        """Restore the handlers, and return the settings that are left to restore: names and values."""
        state = self._session_of(conn).state
        if state is None:
            return []
        settings, all_handlers = state
        all_handlers_now = handlers_of(conn)
        if all_handlers_now != all_handlers:
            for now, handlers in zip(all_handlers_now, all_handlers, strict=True):
                now[:] = handlers
        current_settings = settings_of(conn)
        if current_settings == settings:
            return []
        return [
            (name, value)
            for name, value, current in zip(SETTINGS, settings, current_settings, strict=True)
            if value is not current and value != current
        ]

    def _give_up(self, endpoint: Hashable, conn: Any, exc: BaseException) -> None:
        """Close a connection that a release could not restore.

        :raise DiscardConnection: if the exception is an error of the server, or of ``configure``
        """
        self._session_of(conn).leave(conn)
        if isinstance(exc, Exception):
            reason = str(exc) or type(exc).__name__
            logger.warning(
                'discarding a connection to %r that cannot be rolled back: %s', described(self, endpoint), reason
            )
            raise DiscardConnection(f'a connection to {described(self, endpoint)!r} cannot be rolled back') from exc

    def _leave_after_check(self, conn: Any, exc: BaseException) -> None:
        """Close a connection whose check has failed, or was interrupted."""
        session = self._session_of(conn)
        if isinstance(exc, psycopg.Error):
            # The server had its time to answer: closing the connection does not wait longer for it.
            session.deadline = time.monotonic()
        session.leave(conn)


def params_for(endpoint: Hashable, found: Any, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Convert what was looked up into the parameters of psycopg's ``connect``."""
    params = {**kwargs, **to_params(found, endpoint, 'conninfo', text_as='conninfo')}
    # With these psycopg raises an AttributeError; with the context, only after it has connected.
    text, context = params.get('conninfo'), params.get('context')
    if text is not None and not isinstance(text, str):
        cause = TypeError(f"expected a connection string as 'conninfo', not a {type(text).__name__}")
        raise_bad_params(endpoint, cause, 'conninfo')
    if context and not hasattr(context, 'adapters'):
        cause = TypeError(f"expected an AdaptContext as 'context', not a {type(context).__name__}")
        raise_bad_params(endpoint, cause, 'conninfo')
    return params


def connect_timeout_for(timeout: float, params: Mapping[str, Any]) -> int:
    """Return the ``connect_timeout`` that keeps within a time limit."""
    configured = params.get('connect_timeout')
    if configured is None and params.get('conninfo'):
        configured = conninfo_to_dict(params['conninfo']).get('connect_timeout')
    try:
        return shorter_connect_timeout(timeout, configured)
    except BAD_PARAMS:
        raise psycopg.ProgrammingError(f'bad value for connect_timeout: {configured!r}') from None


def raise_typed(
    endpoint: Hashable,
    params: Mapping[str, Any],
    exc: psycopg.Error | TimeoutError | TypeError | ValueError | OverflowError,
    timeout: float | None,
) -> NoReturn:
    """Raise the user's error for a failed connect."""
    if isinstance(exc, TimeoutError):
        cause = ConnectionTimeout(f'the server did not answer in time ({exc})')
        raise_connect_timeout(endpoint, cause, timeout)
    if not isinstance(exc, psycopg.Error):
        raise_bad_params(endpoint, exc, 'conninfo', quotes='conninfo' in params)
    # The driver's error refers to the attempt, with the password, which tools that show the attributes of errors would
    # print.
    exc._pgconn = None  # noqa: SLF001
    if isinstance(exc, ConnectionTimeout):
        raise_connect_timeout(endpoint, exc, None)
    if isinstance(exc, psycopg.ProgrammingError):
        raise_bad_params(endpoint, exc, 'conninfo', quotes='conninfo' in params)
    if params.get('conninfo') and may_show_password(conninfo_to_dict(params['conninfo'])):
        raise_bad_params(endpoint, exc, 'conninfo', quotes=True)
    raise_connect_error(endpoint, exc, advice_for(str(exc), exc.sqlstate))


def close_half_open(exc: BaseException) -> None:
    """Close what a failed connect has opened: psycopg does so when that is collected, but the error refers to it."""
    traceback.clear_frames(exc.__traceback__)


def check_configured(endpoint: Hashable, conn: Connection[Any] | AsyncConnection[Any]) -> None:
    """Reject a connection that ``configure`` has left in a transaction."""
    status = conn.pgconn.transaction_status
    if status != TransactionStatus.IDLE:
        raise ConnectError(
            f'configure left the connection to endpoint {shown(endpoint)!r} in status '
            f'{TransactionStatus(status).name}; let it commit, or use autocommit',
            endpoint,
        )


def _setting(conn: Connection[Any] | AsyncConnection[Any], name: str) -> str | None:
    value = conn.pgconn.parameter_status(name.encode())
    return None if value is None else value.decode()
