# Generated from src/gcpool/_contexts_asyncio.py by .github/scripts/generate_threading.py; do not edit.

"""The part of a pool's contexts that is not compiled.

That is the context around a subclass's own methods, the decorator, and the call of the manager after a block that
raised. The half for threads is generated from the half for asyncio.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, Generic

from ._core import Entry, SyncPool
from .managers import ConnectionT, EndpointT

__all__ = ['SyncContexts']


class SyncContexts(SyncPool, Generic[EndpointT, ConnectionT]):
    """The common part of ``connection()`` in both runtimes."""

    __slots__ = ()

    if TYPE_CHECKING:
        # The methods of the runtime.
        def acquire(self, endpoint: EndpointT = ..., timeout: float | None = None) -> ConnectionT: ...
        def release(self, conn: ConnectionT, endpoint: EndpointT = ...) -> None: ...

    def _answer_of(self, answer: Any) -> Any:
        raise NotImplementedError

    @contextmanager
    def _connection_by_methods(
        self, endpoint: EndpointT, timeout: float | None, is_long: bool
    ) -> Iterator[ConnectionT]:
        conn = self.acquire(endpoint, timeout=timeout)
        held: Entry | None = None
        try:
            # None if the subclass hands out objects of its own.
            held = self._core.entry_if_acquired(conn, endpoint)
            if is_long and held is not None:
                self._core.mark_long(held)
            yield conn
        except BaseException as exc:
            if self._hooks_broken:
                # None if the subclass hands out objects of its own, or the block has already released the connection.
                entry = self._core.entry_if_acquired(conn, endpoint)
                if entry is not None:
                    entry.break_()
                    self._judge(entry, exc)
            raise
        finally:
            if held is None or not held.is_given_up:
                self.release(conn, endpoint)

    def _decorate(
        self, function: Callable[..., Any], endpoint: EndpointT, timeout: float | None, is_long: bool
    ) -> Callable[..., Any]:
        @wraps(function)
        def with_connection(*args: Any, **kwargs: Any) -> Any:
            with self.connection(endpoint, timeout, long=is_long):
                return function(*args, **kwargs)

        return with_connection

    def _judge(self, entry: Entry, exc: BaseException) -> None:
        """Find out whether the exception of the user's block broke the connection. Until then it counts as broken."""
        if self._broken_on_cancel and not isinstance(exc, Exception):
            # Cancelled, interrupted, or closed as a generator: the reply to the last request may be outstanding.
            entry.mark_cut_off()
            return
        if not self._judges:
            entry.mark_sound()
            return
        try:
            if not self._answer_of(self._manager.is_broken(entry.endpoint, entry.conn, exc)):
                entry.mark_sound()
        except Exception as failure:
            self._tell_error(entry.endpoint, 'is_broken() failed for a connection to %s, which is closed', failure)
