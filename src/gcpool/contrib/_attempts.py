"""Attempts to connect, kept within a time limit and ``max_size``, even when the blocking call has no time limit."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar, final

from gcpool._workers.threads import start_thread
from gcpool.contrib._latch import Latch

__all__ = [
    'SHORTEST_CONNECT',
    'Attempt',
    'Attempts',
    'GivenUpAttemptsError',
    'Outcome',
    'call_in_thread',
    'call_within',
    'deadline_after',
    'time_left',
]

_ResultT = TypeVar('_ResultT')

#: Minimum number of seconds for an attempt to connect, so that even with a limit of 0 a refusal is noticed.
SHORTEST_CONNECT = 0.25


def deadline_after(timeout: float | None) -> float | None:
    """Return the monotonic time ``timeout`` seconds from now, None for no limit."""
    return None if timeout is None else time.monotonic() + timeout


def time_left(deadline: float | None) -> float | None:
    """Return the seconds until a monotonic time, at least 0; None if there is no such time."""
    return None if deadline is None else max(deadline - time.monotonic(), 0.0)


class GivenUpAttemptsError(TimeoutError):
    """The timeout expired before an attempt could begin, because too many abandoned attempts are still running."""


@final
class Attempt:
    """An attempt that continues in a thread after its caller has abandoned it.

    :param endpoint: the endpoint of the attempt
    """

    def __init__(self, endpoint: Hashable) -> None:
        self.endpoint = endpoint
        self._process = os.getpid()
        self.ended = Latch()
        # The attempt that waits for the end of this one, and then has its place: the first entry stays, because
        # setdefault() is atomic. A lock could stay locked after a fork, or after a signal handler has raised.
        self._successor: dict[str, object] = {}
        # Has one element until the attempt begins; pop() is atomic, too.
        self._unbegun: list[None] = [None]
        #: Whether the caller has abandoned the attempt.
        self.is_given_up = False
        #: Whether it has been successful.
        self.has_connected = False

    def begins(self) -> bool:
        """Mark the attempt as begun, and return True the first time. Called before the start, it prevents the start."""
        try:
            self._unbegun.pop()
        except IndexError:
            return False
        return True

    def take_place(self, successor: object) -> bool:
        """Take the place of this attempt, and return True, unless another attempt has taken it."""
        return self._successor.setdefault('', successor) is successor

    def leave_place(self, successor: object) -> None:
        """Let another attempt take the place, if ``successor`` has it."""
        if self._successor.get('') is successor:
            del self._successor['']

    @property
    def is_here(self) -> bool:
        """Whether the attempt's thread is in this process: a forked child does not have it."""
        return self._process == os.getpid()

    @property
    def is_over(self) -> bool:
        """Whether the attempt has ended. Invalid in a forked child, where the thread is missing and never ends it."""
        return self.ended.is_set

    def end(self) -> None:
        """Mark the attempt as ended. May be called more than once."""
        self.ended.set()


@final
class Attempts:
    """Keeps attempts, including abandoned ones, within the pool's ``max_size``.

    A call that blocks in a thread (libpq, the system's resolver) cannot be ended. When its timeout expires, the caller
    abandons it; it continues until it ends by itself, while the pool's slot is free again. So each new attempt to the
    same endpoint first waits for the end of one abandoned attempt, each for a different one. Therefore at most
    ``max_size`` attempts to an endpoint run at the same time.
    """

    def __init__(self) -> None:
        self._given_up: set[Attempt] = set()

    def connect(
        self,
        endpoint: Hashable,
        call: Callable[[float | None], _ResultT],
        undo: Callable[[_ResultT], object],
        timeout: float | None,
    ) -> _ResultT:
        """Connect within a time limit, in a thread if there is a limit.

        :param endpoint: the endpoint to connect to
        :param call: connects; receives the seconds that are left, None for no limit
        :param undo: closes a connection that arrives after the caller has abandoned the attempt
        :param timeout: seconds, at least a quarter of a second; None for no limit
        :raise GivenUpAttemptsError: the timeout expired before the attempt began, because abandoned attempts are still
            running
        :raise TimeoutError: the timeout expired
        """
        limit = None if timeout is None else max(timeout, SHORTEST_CONNECT)
        deadline = deadline_after(limit)
        with self.place(endpoint) as given_up:
            if given_up is not None and not given_up.wait(limit):
                raise GivenUpAttemptsError(self.describe(endpoint))
        left = time_left(deadline)
        if left is None:
            return call(None)
        attempt = Attempt(endpoint)
        results: list[_ResultT] = []

        def begin() -> None:
            if not attempt.begins():
                raise GivenUpAttemptsError('the caller no longer waits for it')
            try:
                results.append(call(left))
            except BaseException:
                attempt.end()
                raise
            attempt.has_connected = True
            if attempt.is_given_up:
                undo_and_end()

        def undo_and_end(_: object = None) -> None:
            try:
                # pop() is atomic, so the result is undone only once.
                with contextlib.suppress(IndexError):
                    undo(results.pop())
            finally:
                attempt.end()

        # An exception may come at any point (KeyboardInterrupt, a time limit of Celery), even while the thread is being
        # started or just after it has ended. A later attempt that waits for this one must not wait for ever.
        try:
            call_within(begin, undo_and_end, left)
            return results.pop()
        except BaseException:
            attempt.is_given_up = True
            if not attempt.begins():
                # Also if the caller was interrupted just after it had taken the result: then nothing else ends the
                # attempt.
                if attempt.has_connected:
                    undo_and_end()
                self.give_up(attempt)
            raise

    def give_up(self, attempt: Attempt) -> None:
        """Record an abandoned attempt."""
        if not attempt.is_over:
            self._given_up.add(attempt)

    @contextlib.contextmanager
    def place(self, endpoint: Hashable) -> Iterator[Latch | None]:
        """Take the place of an abandoned attempt to the same endpoint.

        :return: of the context manager: the event to wait for in the block, None for nothing. If the block raises,
            another attempt may take the place.
        """
        successor = object()
        try:
            yield self._take_one(endpoint, successor)
        except BaseException:
            # All of them: if a signal handler raised, it is not known which one was taken.
            for attempt in self._given_up.copy():
                attempt.leave_place(successor)
            raise

    def _take_one(self, endpoint: Hashable, successor: object) -> Latch | None:
        for attempt in self._given_up.copy():
            if not attempt.is_here or attempt.is_over:
                self._given_up.discard(attempt)
            elif attempt.endpoint == endpoint and attempt.take_place(successor):
                return attempt.ended
        return None

    def describe(self, endpoint: Hashable) -> str:
        """Describe how many abandoned attempts to an endpoint have not ended."""
        count = sum(
            attempt.is_here and attempt.endpoint == endpoint and not attempt.is_over
            for attempt in self._given_up.copy()
        )
        which = '1 abandoned attempt has' if count == 1 else f'{count} abandoned attempts have'
        return f'{which} not ended yet'


def call_within(call: Callable[[], _ResultT], undo: Callable[[_ResultT], object], timeout: float) -> _ResultT:
    """Make a blocking call, and wait for it for at most ``timeout`` seconds.

    The call runs in a daemon thread and continues there when the timeout expires: resolving a host name has no time
    limit, and libpq counts its own limit in whole seconds, and separately for each host. A result that comes too late
    is undone in the thread.

    :param call: the function to call
    :param undo: called with a result that comes too late
    :param timeout: seconds to wait
    :raise TimeoutError: the timeout expired
    """
    outcome = call_in_thread(call, undo)
    if outcome is None:
        # No thread could be started. The driver's own limit is better than none.
        return call()
    try:
        # If the call has ended at the last moment, it cannot be abandoned any more.
        if not outcome.ended.wait(timeout) and outcome.abandon():
            raise TimeoutError(f'it took longer than {timeout:g} seconds')
        return outcome.result()
    except BaseException:
        # An interruption, unless it is an exception of the call: then there is nothing to undo.
        if not outcome.abandon() and outcome.error is None:
            undo(outcome.result())
        raise
    finally:
        # The traceback of the call's exception refers to this frame.
        del outcome


@final
class Outcome(Generic[_ResultT]):
    """The outcome of a call in a thread: it is either received, or abandoned and then undone by the thread.

    Not a future of :py:mod:`concurrent.futures`: see :py:class:`gcpool.contrib._latch.Latch`.
    """

    def __init__(self) -> None:
        #: Happens when the call has ended, unless it was abandoned.
        self.ended = Latch()
        #: What the call has raised.
        self.error: BaseException | None = None
        self._result: list[_ResultT] = []
        # Whether the outcome was abandoned before the call ended. The first entry stays, because setdefault() is
        # atomic.
        self._was_abandoned: dict[str, bool] = {}

    def abandon(self) -> bool:
        """Abandon the result. Returns False if the call has already ended: then the thread does not undo it."""
        return self._was_abandoned.setdefault('', True)

    def result(self) -> _ResultT:
        """Return what the call has returned, or raise what it has raised. It must have ended."""
        try:
            if self.error is not None:
                raise self.error
            return self._result[0]
        finally:
            # The traceback of the call's exception refers to this frame.
            del self

    def settle(self, call: Callable[[], _ResultT], undo: Callable[[_ResultT], object]) -> None:
        """Make the call, in the thread."""
        try:
            self._result.append(call())
        except BaseException as exc:  # noqa: BLE001  (the waiting thread raises it)
            self.error = exc
        try:
            if not self._was_abandoned.setdefault('', False):
                self.ended.set()
            elif self._result:
                undo(self._result.pop())
        finally:
            del self


def call_in_thread(
    call: Callable[[], _ResultT], undo: Callable[[_ResultT], object], name: str = 'gcpool-connect'
) -> Outcome[_ResultT] | None:
    """Make a blocking call in a daemon thread.

    :param call: the function to call
    :param undo: called in the thread with the result, if the outcome was abandoned before
    :param name: name of the thread
    :return: the outcome; None if there are too many threads, or the interpreter is shutting down
    """
    outcome = Outcome[_ResultT]()
    try:
        start_thread(threading.Thread(target=outcome.settle, args=(call, undo), name=name, daemon=True))
    except (RuntimeError, MemoryError):
        return None
    return outcome
