"""Attempts to connect, kept within a time limit and within the pool's numbers, also where what blocks has no limit."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Hashable
from concurrent import futures
from typing import TypeVar

__all__ = ['SHORTEST_CONNECT', 'Attempts', 'call_within', 'deadline_after', 'time_left']

_ResultT = TypeVar('_ResultT')

#: Seconds that an attempt to connect has at the least: a limit of 0 is no reason not to learn that a server refuses.
SHORTEST_CONNECT = 0.25


def deadline_after(timeout: float | None) -> float | None:
    """Give the monotonic time at which ``timeout`` seconds are over, None if they never are."""
    return None if timeout is None else time.monotonic() + timeout


def time_left(deadline: float | None) -> float | None:
    """Give the seconds until a monotonic time, at least 0; None if there is no such time."""
    return None if deadline is None else max(deadline - time.monotonic(), 0.0)


class Attempts:
    """Keeps the attempts to connect of a manager within the numbers of the pool, also those that were given up.

    libpq has no way to end an attempt that goes on in another thread: when its time is over it is given up, and may
    have a connection at the server until it ends by itself, while the pool has its place free again. So whoever
    connects to that endpoint next waits for the end of one that was given up, each for another one.
    """

    def __init__(self) -> None:
        # What tells of its end; where it leads, and the process that it belongs to: a forked child has no such thread.
        self._given_up: dict[threading.Event, tuple[Hashable, int]] = {}

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
        :raise TimeoutError: the time is over
        """
        limit = None if timeout is None else max(timeout, SHORTEST_CONNECT)
        deadline = deadline_after(limit)
        self._wait_for_one(endpoint, limit)
        left = time_left(deadline)
        if left is None:
            return call(None)
        ended = threading.Event()

        def attempt() -> _ResultT:
            try:
                return call(left)
            except BaseException:
                ended.set()
                raise

        def undo_and_tell(result: _ResultT) -> None:
            try:
                undo(result)
            finally:
                ended.set()

        try:
            return call_within(attempt, undo_and_tell, left)
        except BaseException:
            if not ended.is_set():
                self._given_up[ended] = (endpoint, os.getpid())
            raise

    def _wait_for_one(self, endpoint: Hashable, seconds: float | None) -> None:
        ended = self._take_one(endpoint)
        if ended is None:
            return
        try:
            if not ended.wait(seconds):
                raise TimeoutError('an attempt to connect that was given up has not ended yet')
        except BaseException:
            self._given_up[ended] = (endpoint, os.getpid())
            raise

    def _take_one(self, endpoint: Hashable) -> threading.Event | None:
        # Without a lock, which a fork could leave locked: each is taken out by one thread alone.
        for ended, (where, process) in tuple(self._given_up.items()):
            if ended.is_set() or process != os.getpid():
                self._given_up.pop(ended, None)
            elif where == endpoint and self._given_up.pop(ended, None) is not None:
                return ended
        return None


def call_within(call: Callable[[], _ResultT], undo: Callable[[_ResultT], object], timeout: float) -> _ResultT:
    """Call something that blocks, and do not wait for it longer than that.

    It is called in a daemon thread, which goes on with it when nobody waits any more: resolving a host name has no time
    limit of its own, and libpq counts that of the rest in whole seconds, for each host anew. What comes too late is
    undone there.

    :param call: what to call
    :param undo: called with the result that nobody waits for any more
    :param timeout: seconds to wait
    :raise TimeoutError: the time is over
    """
    outcome: futures.Future[_ResultT] = futures.Future()
    try:
        threading.Thread(target=_settle, args=(outcome, call, undo), name='gcpool-connect', daemon=True).start()
    except RuntimeError:
        # The interpreter shuts down, or there are too many threads: the driver's own limit is better than none.
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
