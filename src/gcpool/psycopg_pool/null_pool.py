# Generated from src/gcpool/psycopg_pool/null_pool_async.py by .github/scripts/generate_threading.py; do not edit.

"""The null pool for asyncio, by the name that its module has in psycopg_pool.

The pool for threads is generated from this one.
"""

import time
from typing import Any, Generic, cast

from psycopg import Connection

from gcpool._core import Hold

from ._engine_threads import (
    ENDPOINT,
    PATIENCE_WITH_CONNECTS,
    SyncEngine,
    SyncManager,
    SyncNullEngine,
    client_deadline,
)
from ._originals import OriginalNullConnectionPool
from .abc import CT, ConnectFailedCB, ConnectionCB, ConninfoParam, KwargsParam
from .pool import ConnectionPool

__all__ = ['NullConnectionPool']


class NullConnectionPool(ConnectionPool[CT], OriginalNullConnectionPool[CT], Generic[CT]):
    """A pool that keeps no connections: each client connects, unless it is handed a returned one while it waits.

    The parameters are those of the other pool; ``min_size`` is 0, and ``max_size=0`` means no limit.
    """

    _is_null = True

    def __init__(
        self,
        conninfo: ConninfoParam = '',
        *,
        connection_class: type[CT] = cast(type[CT], Connection),  # noqa: B008
        kwargs: KwargsParam | None = None,
        min_size: int = 0,
        max_size: int | None = None,
        open: bool | None = None,  # noqa: A002
        configure: ConnectionCB[CT] | None = None,
        check: ConnectionCB[CT] | None = None,
        reset: ConnectionCB[CT] | None = None,
        name: str | None = None,
        close_returns: bool = False,
        timeout: float = 30.0,
        max_waiting: int = 0,
        max_lifetime: float = 60 * 60.0,
        max_idle: float = 10 * 60.0,
        reconnect_timeout: float = 5 * 60.0,
        reconnect_failed: ConnectFailedCB | None = None,
        num_workers: int = 3,
    ):
        super().__init__(
            conninfo,
            connection_class=connection_class,
            kwargs=kwargs,
            min_size=min_size,
            max_size=max_size,
            open=open,
            configure=configure,
            check=check,
            reset=reset,
            name=name,
            # A returned connection is closed anyway.
            close_returns=False,
            timeout=timeout,
            max_waiting=max_waiting,
            max_lifetime=max_lifetime,
            max_idle=max_idle,
            reconnect_timeout=reconnect_timeout,
            reconnect_failed=reconnect_failed,
            num_workers=num_workers,
        )

    def _make_engine(self, manager: SyncManager) -> Any:
        return SyncNullEngine(manager, self)

    def _wait_until_filled(self, timeout: float) -> None:
        # Connects once, as a pool of one connection would.
        manager = SyncManager(self)
        probe = SyncEngine(manager, self, max_size=1)
        self._pass_on_pace(probe._core)
        probe.begin(1)
        try:
            probe.wait(max(timeout, 0.0))
        finally:
            probe.close_unused(PATIENCE_WITH_CONNECTS)

    def _take(self, left: float, limit: float, hold: Hold) -> None:
        token = client_deadline.set(time.monotonic() + left)
        try:
            super()._take(left, limit, hold)
        finally:
            client_deadline.reset(token)

    def _return(self, conn: Any) -> None:
        # It goes to a client that waits, or is closed.
        if not self._closed and not self._engine.get_stats(ENDPOINT)['waiting']:
            self._discard_unneeded(conn)
        else:
            super()._return(conn)

    def _is_returned_as_it_is(self, conn: Any) -> bool:
        return False

    def check(self) -> None:
        """Do nothing: there are no idle connections."""
