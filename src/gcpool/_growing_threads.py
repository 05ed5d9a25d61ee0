# Generated from src/gcpool/_growing_asyncio.py by .github/scripts/generate_threading.py; do not edit.

"""Connections that the pool itself creates, and what it does when an endpoint cannot be connected to.

The half for threads is generated from the half for asyncio.
"""

from typing import TYPE_CHECKING, Any, Generic

from ._core import (
    MAY_ASK_AGAIN,
    OUTAGE_BEGAN,
    REACHED_WAITER,
    RECONNECT_FAILED,
    UNSET,
    Entry,
    SyncPool,
    Waiter,
    without_frames,
)
from ._parameters import check_optional_seconds, check_pin
from ._signal_handlers import is_of_signal_handler
from ._time_limits import get_deadline, seconds
from .exceptions import ConnectError, ConnectionPoolClosedError, EndpointDown, PoolTimeout, make_pool_timeout
from .managers import ConnectionT, EndpointT

__all__ = ['SyncGrowing']


class SyncGrowing(SyncPool, Generic[EndpointT, ConnectionT]):
    """The common part of both runtimes for connects by the pool itself, and for failed connects."""

    __slots__ = ()

    if TYPE_CHECKING:

        def _arm(self, w: Waiter) -> Any: ...
        def _begin_disposals(self, deadline: float | None = None) -> None: ...
        def _begin_jobs(self) -> None: ...

    def _answer_of(self, answer: Any) -> Any:
        raise NotImplementedError

    def _create(self, waiter: Waiter, deadline: float | None, timeout: float | None) -> bool:
        raise NotImplementedError

    def _wait(self, signal: Any, deadline: float | None, give_up: Any, waiter: Waiter) -> bool:
        raise NotImplementedError

    def warm_up(self, endpoint: EndpointT = UNSET, size: int | None = None) -> None:
        """Keep connections to an endpoint, whether it is used or not, and begin to create them.

        Returns at once: the pool connects in the background, two connections at the same time (or ``max_connecting``).
        :py:meth:`wait` waits for them. In a forked child the endpoint is warmed up again at the pool's first use.

        :param endpoint: where to connect; the manager's ``default_endpoint`` if not given
        :param size: the number of connections, those in use included; 0 to stop keeping any, None for ``min_size``
        :raises TypeError: when ``size`` is not an int, or the endpoint is not hashable
        :raises ValueError: when ``size`` is negative, greater than ``max_size``, or None without a ``min_size``; also
            when ``max_lifetime`` is 0
        :raises ConnectionPoolClosedError: when the pool is closed
        """
        core = self._core
        if endpoint is UNSET:
            endpoint = self._checked_default_endpoint()
        size = check_pin(size, core.min_size, core.max_size, core.max_lifetime)
        if core.closed:
            pool, text = self._observer.pool_text, self._observer.text(endpoint)
            raise ConnectionPoolClosedError(f'{pool} is closed: {text} cannot be warmed up')
        try:
            core.pin(endpoint, size, core.now())
        finally:
            # The core has looked for waiters that want a slot, and may have doomed a connection for one.
            self._begin_disposals()

    def wait(self, timeout: float | None = 30.0) -> None:
        """Wait until every warmed-up endpoint has had all of its connections at least once. Any number of callers may
        wait.

        :param timeout: seconds to wait at most, None for no limit
        :raises PoolTimeout: when the timeout expires; its cause is the last error of a connect, and its ``phase`` is
            ``creating``, or ``open`` if the pool is not open yet, or ``suspended``
        :raises ConnectionPoolClosedError: when the pool is closed, or is closed meanwhile
        :raises TypeError: when ``timeout`` is not a number
        :raises ValueError: when ``timeout`` is negative or NaN
        """
        core = self._core
        deadline = get_deadline(core.now(), check_optional_seconds('timeout', timeout))
        waiter = Waiter(None)
        signal = self._arm(waiter)
        filled = True
        try:
            if core.watch_filled(waiter):
                filled = self._wait(signal, deadline, core.unwatch, waiter)
        except BaseException:
            core.unwatch(waiter)
            raise
        if core.closed:
            raise ConnectionPoolClosedError(
                f'{self._observer.pool_text} is closed: there are no connections to wait for'
            )
        if not filled:
            missing = core.unfilled_endpoints()
            text = self._observer.text
            progress = ', '.join(f'{has} of {size} for {text(endpoint)}' for endpoint, has, size in missing)
            errors = (core.last_connect_error(endpoint, 0.0) for endpoint, _, _ in missing)
            # The pool creates nothing for a minimum before it is open, nor while it is suspended.
            phase, why = 'creating', ''
            if not core.opened:
                phase, why = 'open', 'is not open yet, and '
            elif core.is_suspended:
                phase, why = 'suspended', 'is suspended, and '
            late = make_pool_timeout(
                f'{self._observer.pool_text} was not filled within {seconds(timeout)}: it {why}has {progress} '
                'connections',
                self._observer.name,
                timeout,
                phase=phase,
            )
            raise late from next((error for error in errors if error is not None), None)

    def _connect(self, waiter: Waiter, deadline: float | None, timeout: float | None) -> bool:
        """Connect for a waiter that was served a ticket.

        :return: False if that failed, and the waiter asks again
        """
        try:
            created = self._create(waiter, deadline, timeout)
        except Exception as exc:
            if not self._watches_outages or not self._connect_failed(waiter, exc):
                raise
            return False
        if not created:
            pool, text = self._observer.pool_text, self._observer.text(waiter.endpoint)
            raise ConnectionPoolClosedError(f'{pool} was closed while a connection to {text} was created')
        # One connect fewer is under way, or an outage is over: for a waiter that may now connect, one is closed.
        self._begin_disposals(deadline)
        if self._watches_outages:
            self._tell_end_of_outage(waiter.served)
        return True

    def _is_refusal(self, endpoint: object, error: BaseException) -> bool:
        if self._refusal is None:
            return False
        try:
            return bool(self._refusal(endpoint, error))
        except Exception as exc:
            self._tell_error(endpoint, 'is_refusal() failed for %s', exc)
            return False

    def _is_hopeless(self, endpoint: object, error: BaseException) -> bool:
        try:
            return bool(self._hopeless(endpoint, error))
        except Exception as exc:
            self._tell_error(endpoint, 'is_hopeless() failed for %s', exc)
            return False

    def _connect_failed(self, waiter: Waiter, error: Exception) -> bool:
        # Returns whether the waiter asks again: not after its timeout, nor if no server was asked.
        core = self._core
        refusal = self._is_refusal(waiter.endpoint, error)
        if not refusal and self._is_hopeless(waiter.endpoint, error):
            return False
        # If the pool has raised this, the acquire's own timeout has expired.
        has_time = not isinstance(error, PoolTimeout) or isinstance(error, ConnectError)
        news = core.connect_failed(waiter, without_frames(error), refusal, has_time, core.now())
        self._tell_failure(waiter.endpoint, error, news, refusal)
        return bool(news & MAY_ASK_AGAIN)

    def _grow_failed(self, ticket: Entry, error: BaseException) -> None:
        """A connect by the pool itself has failed."""
        endpoint = ticket.endpoint
        refusal = self._is_refusal(endpoint, error)
        hopeless = not refusal and self._is_hopeless(endpoint, error)
        news = self._core.grow_failed(ticket, error, without_frames(error), refusal, self._core.now(), hopeless)
        # Nothing else reports the error, unless it has reached a waiter, or begins an outage.
        self._note_connect_failed(ticket, error, 'debug' if news & (REACHED_WAITER | OUTAGE_BEGAN) else 'info')
        # With max_workers, this create may have kept other jobs waiting. They must not wait for a hook as well.
        if self._core.jobs_to_begin:
            self._begin_jobs()
        self._tell_failure(endpoint, error, news, refusal)

    def _tell_failure(self, endpoint: object, error: BaseException, news: int, refusal: bool) -> None:
        if news & OUTAGE_BEGAN:
            what = 'is full' if refusal else 'cannot be connected to'
            self._tell(
                'outage_began',
                endpoint,
                f'%s {what}: %s: %s',
                type(error).__name__,
                error,
                level='warning',
                reason='full' if refusal else 'unreachable',
                error=error,
            )
        if news & RECONNECT_FAILED and self._reconnect_failed is not None:
            try:
                self._answer_of(self._reconnect_failed(self, endpoint, error))
            except (Exception, SystemExit) as exc:
                if is_of_signal_handler(exc):
                    raise
                self._tell_error(endpoint, 'reconnect_failed failed for %s', exc)

    def _tell_end_of_outage(self, entry: Entry) -> None:
        lasted = self._core.ended_outage(entry)
        if lasted is not None:
            self._tell(
                'outage_ended', entry.endpoint, 'connects to %s succeed again, after %.3f s', lasted, duration=lasted
            )

    def _raise_failure(self, waiter: Waiter) -> None:
        """Raise the error that a waiter received instead of a connection, if any."""
        error = waiter.error
        if waiter.endpoint_is_down:
            raise EndpointDown(
                f'{self._observer.pool_text}: no connection to {self._observer.text(waiter.endpoint)}: '
                f'connecting fails ({error})',
                self._observer.shown(waiter.endpoint),
            ) from error
        if waiter.failed and error is not None:
            try:
                raise error
            finally:
                # The traceback of the error refers to this frame: a reference from the frame would make a cycle.
                del error
