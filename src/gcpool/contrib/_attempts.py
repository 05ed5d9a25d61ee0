"""Attempts to connect, kept within a time limit and within the pool's numbers, also where what blocks has no limit."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from concurrent import futures
from typing import TypeVar, final

__all__ = [
    'SHORTEST_CONNECT',
    'Attempt',
    'Attempts',
    'GivenUpAttemptsError',
    'call_in_thread',
    'call_within',
    'deadline_after',
    'time_left',
]

_ResultT = TypeVar('_ResultT')

#: Seconds that an attempt to connect has at the least: a limit of 0 is no reason not to learn that a server refuses.
SHORTEST_CONNECT = 0.25


def deadline_after(timeout: float | None) -> float | None:
    """Give the monotonic time at which ``timeout`` seconds are over, None if they never are."""
    return None if timeout is None else time.monotonic() + timeout


def time_left(deadline: float | None) -> float | None:
    """Give the seconds until a monotonic time, at least 0; None if there is no such time."""
    return None if deadline is None else max(deadline - time.monotonic(), 0.0)


class GivenUpAttemptsError(TimeoutError):
    """The time was over before an attempt could begin: as many as may be at work have been given up and go on."""


@final
class Attempt:
    """An attempt that goes on in a thread when nobody waits for it any more.

    :param endpoint: where it leads
    """

    def __init__(self, endpoint: Hashable) -> None:
        self.endpoint = endpoint
        self._process = os.getpid()
        # Running, so that whoever waits for it cannot cancel it.
        self.ended: futures.Future[None] = futures.Future()
        self.ended.set_running_or_notify_cancel()
        # One entry as long as no other attempt waits for the end of this one. Taking it out is one step, without a
        # lock, which a fork could leave locked.
        self.places: list[None] = [None]
        # One entry until the attempt begins; taken out in one step, too.
        self._unbegun: list[None] = [None]
        #: Whether nobody waits for its result any more.
        self.is_given_up = False

    def begins(self) -> bool:
        """Mark the attempt as begun: True the first time, then False. Called before the start, it prevents that."""
        try:
            self._unbegun.pop()
        except IndexError:
            return False
        return True

    @property
    def is_here(self) -> bool:
        """Whether this process has its thread: a forked child does not."""
        return self._process == os.getpid()

    @property
    def is_over(self) -> bool:
        """Whether it has ended. Not to be asked in a child: the lock may be held by a thread that it does not have."""
        return self.ended.done()

    def end(self) -> None:
        """Say that it has ended. More than once does no harm."""
        with contextlib.suppress(futures.InvalidStateError):
            self.ended.set_result(None)


@final
class Attempts:
    """Keeps attempts within the numbers of the pool, also those that were given up.

    What blocks in a thread (libpq, the system's resolver) cannot be ended: when its time is over it is given up, and
    goes on until it ends by itself, while the pool has its place free again. So the next attempt to the same
    endpoint first waits for the end of an attempt that was given up, each new attempt for a different one. Thus there
    are never more attempts at work than the pool makes at a time: its ``max_size`` at most.
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
        """Connect within a time limit, in a thread if there is one.

        :param endpoint: where the connection leads
        :param call: connects; it is called with the seconds that are left, None for no limit
        :param undo: closes a connection that nobody waits for any more
        :param timeout: seconds that it may take (a quarter of a second at the least), None for no limit
        :raise GivenUpAttemptsError: the time was over before the attempt began: others that were given up go on
        :raise TimeoutError: the time is over
        """
        limit = None if timeout is None else max(timeout, SHORTEST_CONNECT)
        deadline = deadline_after(limit)
        with self.place(endpoint) as given_up:
            if given_up is not None:
                try:
                    given_up.result(limit)
                except futures.TimeoutError:
                    raise GivenUpAttemptsError(self.describe(endpoint)) from None
        left = time_left(deadline)
        if left is None:
            return call(None)
        attempt = Attempt(endpoint)
        results: list[_ResultT] = []

        def begin() -> None:
            if not attempt.begins():
                raise GivenUpAttemptsError('nobody waits for it any more')
            try:
                results.append(call(left))
            except BaseException:
                attempt.end()
                raise
            if attempt.is_given_up:
                undo_and_end()

        def undo_and_end(_: object = None) -> None:
            try:
                # Taking it out is one step: it is undone once.
                with contextlib.suppress(IndexError):
                    undo(results.pop())
            finally:
                attempt.end()

        # An exception may come at any point (KeyboardInterrupt, a time limit of Celery), also where the thread is being
        # started, or has just ended: who waits for the attempt later on must not do so in vain.
        try:
            call_within(begin, undo_and_end, left)
            return results.pop()
        except BaseException:
            attempt.is_given_up = True
            if not attempt.begins():
                if results:
                    undo_and_end()
                self.give_up(attempt)
            raise

    def give_up(self, attempt: Attempt) -> None:
        """Note that nobody waits for an attempt any more."""
        if not attempt.is_over:
            self._given_up.add(attempt)

    @contextlib.contextmanager
    def place(self, endpoint: Hashable) -> Iterator['futures.Future[None] | None']:
        """Take the place of an attempt that was given up, for the next one to the same endpoint.

        :return: of the context: the future to wait for in the block, None for nothing. If the block raises, the place
            is left to another attempt.
        """
        attempt = self._take_one(endpoint)
        try:
            yield None if attempt is None else attempt.ended
        except BaseException:
            if attempt is not None:
                attempt.places.append(None)
            raise

    def _take_one(self, endpoint: Hashable) -> Attempt | None:
        for attempt in self._given_up.copy():
            if not attempt.is_here or attempt.is_over:
                self._given_up.discard(attempt)
            elif attempt.endpoint == endpoint:
                with contextlib.suppress(IndexError):
                    attempt.places.pop()
                    return attempt
        return None

    def describe(self, endpoint: Hashable) -> str:
        """Say how many attempts to an endpoint that were given up have not ended."""
        count = sum(
            attempt.is_here and attempt.endpoint == endpoint and not attempt.is_over
            for attempt in self._given_up.copy()
        )
        which = '1 attempt that was given up has' if count == 1 else f'{count} attempts that were given up have'
        return f'{which} not ended yet'


def call_within(call: Callable[[], _ResultT], undo: Callable[[_ResultT], object], timeout: float) -> _ResultT:
    """Call something that blocks, and wait for it for ``timeout`` seconds at most.

    It is called in a daemon thread, which goes on with it when nobody waits any more: resolving a host name has no time
    limit of its own, and libpq counts that of the rest in whole seconds, for each host anew. What comes too late is
    undone there.

    :param call: what to call
    :param undo: called with the result that nobody waits for any more
    :param timeout: seconds to wait
    :raise TimeoutError: the time is over
    """
    outcome = call_in_thread(call, undo)
    if outcome is None:
        # The driver's own limit is better than none.
        return call()
    try:
        return outcome.result(timeout)
    except BaseException as exc:
        if outcome.cancel():
            if isinstance(exc, futures.TimeoutError):
                raise TimeoutError(f'it took longer than {timeout:g} seconds') from None
            raise
        if outcome.exception() is not exc:
            # It ended at the last moment.
            if isinstance(exc, futures.TimeoutError):
                return outcome.result()
            if outcome.exception() is None:
                undo(outcome.result())
        raise
    finally:
        # The traceback of what it holds leads here.
        del outcome


def call_in_thread(
    call: Callable[[], _ResultT], undo: Callable[[_ResultT], object], name: str = 'gcpool-connect'
) -> 'futures.Future[_ResultT] | None':
    """Call something that blocks in a daemon thread.

    :param call: what to call
    :param undo: called, there, with the result if the future was cancelled before
    :param name: of the thread
    :return: a future of the result; None if there are too many threads, or the interpreter shuts down
    """
    outcome: futures.Future[_ResultT] = futures.Future()
    try:
        threading.Thread(target=_settle, args=(outcome, call, undo), name=name, daemon=True).start()
    except (RuntimeError, MemoryError):
        return None
    return outcome


def _settle(
    outcome: 'futures.Future[_ResultT]', call: Callable[[], _ResultT], undo: Callable[[_ResultT], object]
) -> None:
    try:
        result = call()
    except BaseException as exc:  # noqa: BLE001  (it is raised where it is waited for)
        with contextlib.suppress(futures.InvalidStateError):
            outcome.set_exception(exc)
    else:
        try:
            outcome.set_result(result)
        except futures.InvalidStateError:
            undo(result)
    finally:
        del outcome
