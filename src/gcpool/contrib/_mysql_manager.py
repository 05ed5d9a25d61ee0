"""Shared by the managers of MySQL and MariaDB connections for both runtimes: their state, decisions and errors."""

from collections.abc import Collection, Hashable
from typing import Any, Literal

from gcpool._core import GuardedLogger
from gcpool.contrib._descriptions import described
from gcpool.contrib._errors import (
    BAD_PARAMS,
    advice_for_os_error,
    check_source,
    errors_in,
    raise_bad_params,
    raise_connect_error,
)
from gcpool.contrib._generations import Generations
from gcpool.contrib._mysql import advice_for_error, advice_for_package, ends_session, is_refusal
from gcpool.contrib._mysql_control import ControlLog
from gcpool.contrib._mysql_session import SessionState, is_useless
from gcpool.contrib._one_place import OnePlace
from gcpool.contrib._parameters import check_codes, finite_time_limit, resets_all, time_limit
from gcpool.exceptions import DiscardConnection

__all__ = ['ManagerBase', 'raise_refused']


class ManagerBase(OnePlace):
    """The state of both managers, and how they judge a connection."""

    # Not ``broken_on_cancel``: the connections record which answers are outstanding, and is_broken() looks at that.

    #: The base class of the driver's errors.
    _ERROR: type[Exception]
    _INTERFACE_ERROR: type[Exception]
    #: Exceptions in a release that could not restore a connection.
    _NOT_RESTORED: tuple[type[Exception], ...]

    def _set_up(
        self,
        params: Any,
        ping: bool,
        close_timeout: float | None,
        reset: Literal['rollback', 'full'],
        rollback_timeout: float | None,
        broken_codes: Collection[int],
        logger: GuardedLogger,
    ) -> None:
        params = self._as_source(params, text=False)
        check_source(params, 'params', or_callable=True)
        self._params = params
        self._ping = ping
        self._close_timeout = finite_time_limit('close_timeout', close_timeout)
        self._resets_all = resets_all(reset)
        self._rollback_timeout = time_limit('rollback_timeout', rollback_timeout)
        self._broken_codes = check_codes(broken_codes, int)
        self._generations = Generations()
        self._control_log = ControlLog()

    def is_refusal(self, endpoint: Any, exc: BaseException) -> bool:
        """Return whether a connect failed because the server has no connection left, for any account or for this one.

        :param endpoint: the endpoint of the attempt
        :param exc: what ``create`` raised
        """
        return is_refusal(exc)

    def _may_kill(self, endpoint: Hashable, at_work: bool, seconds: float) -> bool:
        return at_work and seconds > 0 and self._control_log.may_try(endpoint)

    def _is_useless(self, endpoint: Hashable, conn: SessionState) -> bool:
        return (conn.met_broken_code or self._generations.any_retired) and is_useless(self._generations, endpoint, conn)

    def _needs_restoring(self, conn: SessionState) -> bool:
        return conn.was_used if self._resets_all else not conn.is_restored

    def _is_as_new(self, endpoint: Hashable, conn: SessionState) -> bool:
        """Whether an idle connection that is open and has nothing to read may be served."""
        # It is not restored if a release was skipped, or interrupted before it could do that.
        if not conn.is_restored or (self._resets_all and conn.was_used):
            return False
        return not self._is_useless(endpoint, conn)

    def _has_broken(self, endpoint: Hashable, conn: SessionState, exc: BaseException) -> bool:
        """Whether an exception from a block makes its connection useless, or means that the connection is lost."""
        return is_useless(self._generations, endpoint, conn, exc) or any(
            isinstance(error, self._INTERFACE_ERROR) or (isinstance(error, self._ERROR) and ends_session(error))
            for error in errors_in(exc)
        )

    def _refuse_useless(self, endpoint: Hashable, conn: SessionState) -> None:
        if self._is_useless(endpoint, conn):
            raise DiscardConnection(f'the connection to {described(self, endpoint)!r} is alive, but useless')

    def _give_up(self, endpoint: Hashable, conn: SessionState, exc: BaseException, logger: Any) -> None:
        """Close a connection that a release could not restore.

        :raise DiscardConnection: if the exception is an answer of the server
        """
        conn.give_up_restoring()
        if isinstance(exc, self._NOT_RESTORED):
            logger.warning(
                'a connection to %r cannot be rolled back or reset, it is closed: %s', described(self, endpoint), exc
            )
            raise DiscardConnection(
                f'the connection to {described(self, endpoint)!r} cannot be rolled back or reset'
            ) from exc


def raise_refused(
    endpoint: Hashable, error: BaseException, origin: BaseException | None, driver_error: type[Exception]
) -> None:
    """Raise the user's error for a failed connect; return if the error is of an unknown kind.

    :param endpoint: the endpoint of the attempt
    :param error: what was raised
    :param origin: what the driver raised it from
    :param driver_error: the base class of the driver's errors
    """
    if isinstance(error, driver_error):
        advice = advice_for_os_error(origin) if isinstance(origin, OSError) else advice_for_error(error)
        raise_connect_error(endpoint, error, advice)
    if isinstance(error, BAD_PARAMS):
        raise_bad_params(endpoint, error, 'params')
    if isinstance(error, RuntimeError) and (package := advice_for_package(error)) is not None:
        raise_connect_error(endpoint, error, package)
