"""Connection managers: what a pool must be told about one kind of connection.

A manager creates, checks and disposes of connections and is told what happens to them. It holds no
pool state and may serve several pools. Only ``create`` and ``dispose`` have to be written; a hook that is not
overridden costs nothing, the pool finds that out once, when it is built.
"""

import abc
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ['AsyncConnectionManager', 'ConnectionT', 'EndpointT', 'SyncConnectionManager']

EndpointT = TypeVar('EndpointT', bound=Hashable)
ConnectionT = TypeVar('ConnectionT')


class SyncConnectionManager(abc.ABC, Generic[EndpointT, ConnectionT]):
    """Base of the managers for :py:class:`gcpool.threading.ConnectionPool` (there: ``BaseConnectionManager``).

    The pool calls every method outside its lock, from the thread that acquires or releases. ``dispose`` alone is also
    called from threads of the pool, which close what an acquire or the collector has closed.
    """

    @abc.abstractmethod
    def create(self, endpoint: EndpointT, timeout: float | None = None) -> ConnectionT:
        """Connect to ``endpoint``.

        :param endpoint: where to connect
        :param timeout: seconds left of the caller's time limit, None for no limit; raise TimeoutError when it is over.
            0 comes from ``acquire(timeout=0)``, and where the wait for a slot took all of the time: then connect if
            that takes no more than a moment, or raise TimeoutError. Mind that 0 is no time limit to most drivers: it
            makes a socket non-blocking.
        :return: a connection that the pool does not hold already. Whatever this raises reaches the acquirer.
        """

    @abc.abstractmethod
    def dispose(self, endpoint: EndpointT, conn: ConnectionT, timeout: float | None = None) -> None:
        """Close ``conn``. Called exactly once for each connection that ``create`` returned.

        :param endpoint: where the connection leads
        :param conn: the connection; the pool forgets it, whatever this raises (which is logged)
        :param timeout: the pool's ``dispose_timeout`` in seconds, None for no limit. Less where :py:meth:`close` of the
            pool has less time, or an acquire, in whose thread this is called where no other one can be started
        """

    def normalize(self, endpoint: EndpointT) -> EndpointT:
        """Tell what an endpoint counts as, where one server can be written in several ways.

        All spellings of an endpoint share its connections and its ``max_size``, and the other methods are called with
        what this returned. Called with no lock held, by an acquire (or a release, or ``get_endpoint_pool_size``) with
        a spelling that was not seen before: the pool remembers the last eight spellings of an endpoint, while it has
        connections to it. So do not ask a server, and give the same answer each time.

        :param endpoint: where to connect, as the pool's user writes it; any hashable
        :return: one spelling for all that mean the same, hashable; for that spelling itself, the same again. What this
            raises reaches the caller, and the pool is as it was; so does a TypeError when it returns None for an
            endpoint that is not None, or what cannot be hashed.
        """
        return endpoint

    def check_aliveness(self, endpoint: EndpointT, conn: ConnectionT, timeout: float | None = None) -> bool:
        """Tell whether an idle connection may be served again. Called before that, not after ``create``.

        :param endpoint: where the connection leads
        :param conn: the connection
        :param timeout: seconds left of the caller's time limit, None for no limit. It may be 0, as for ``create``: a
            check that would have to ask the server gives it a moment then, or raises TimeoutError, for nothing speaks
            against the connection
        :return: False makes the pool dispose of the connection and take another. What this raises reaches the
            acquirer, and the connection is idle again.
        """
        return True

    def on_acquire(self, endpoint: EndpointT, conn: ConnectionT) -> None:
        """Called before a connection is handed to its user. If it raises, the connection is idle again.

        :param endpoint: where the connection leads
        :param conn: the connection
        """

    def on_release(self, endpoint: EndpointT, conn: ConnectionT) -> None:
        """Called when a connection was given back. If it raises, the connection is idle all the same.

        :param endpoint: where the connection leads
        :param conn: the connection
        :raise DiscardConnection: the connection is in doubt: the pool disposes of it, and the release returns
        """

    def is_broken(self, endpoint: EndpointT, conn: ConnectionT, exc: BaseException) -> bool:
        """Tell whether a connection is unfit after its user's block raised.

        Called by ``pool.connection()`` when the block inside raises anything, also cancellation or KeyboardInterrupt.
        True makes the pool dispose of the connection: ``on_release`` is not called, ``on_connection_dead`` is, and the
        endpoint's other idle connections are checked before they are served. It should look at what the driver knows,
        and not ask the server.

        :param endpoint: where the connection leads
        :param conn: the connection
        :param exc: what the block raised, and raises on
        :return: True for a connection that is closed, or in a state that cannot be mended. When this raises, the
            connection is disposed of as well.
        """
        return False

    def on_connection_dead(self, endpoint: EndpointT, conn: ConnectionT) -> None:
        """Called when ``check_aliveness`` was false or ``is_broken`` true, after the connection was disposed of.

        :param endpoint: where the connection led
        :param conn: the connection, closed
        """


class AsyncConnectionManager(abc.ABC, Generic[EndpointT, ConnectionT]):
    """Base of the managers for :py:class:`gcpool.asyncio.ConnectionPool` (there: ``BaseConnectionManager``).

    The methods take no timeout: the pool bounds them itself, by cancellation. With ``acquire(timeout=0)`` that comes at
    the first wait in them.
    """

    @abc.abstractmethod
    async def create(self, endpoint: EndpointT) -> ConnectionT:
        """Connect to ``endpoint``.

        When it is cancelled half-way (the caller's task was, or its time limit is over) it must close what it has
        opened, as any coroutine that opens something.

        :param endpoint: where to connect
        :return: a connection that the pool does not hold already. Whatever this raises reaches the acquirer.
        """

    @abc.abstractmethod
    async def dispose(self, endpoint: EndpointT, conn: ConnectionT) -> None:
        """Close ``conn``. Called exactly once for each connection that ``create`` returned.

        Runs in a task of its own, so that a cancelled caller does not leave a connection half-closed; it is cancelled
        when the pool's ``dispose_timeout`` is over.

        :param endpoint: where the connection leads
        :param conn: the connection; the pool forgets it, whatever this raises (which is logged)
        """

    def normalize(self, endpoint: EndpointT) -> EndpointT:
        """Tell what an endpoint counts as, where one server can be written in several ways.

        All spellings of an endpoint share its connections and its ``max_size``, and the other methods are called with
        what this returned. No coroutine; called with no lock held, by an acquire (or a release, or
        ``get_endpoint_pool_size``) with a spelling that was not seen before: the pool remembers the last eight
        spellings of an endpoint, while it has connections to it. So do not ask a server, and give the same answer each
        time.

        :param endpoint: where to connect, as the pool's user writes it; any hashable
        :return: one spelling for all that mean the same, hashable; for that spelling itself, the same again. What this
            raises reaches the caller, and the pool is as it was; so does a TypeError when it returns None for an
            endpoint that is not None, or what cannot be hashed.
        """
        return endpoint

    async def check_aliveness(self, endpoint: EndpointT, conn: ConnectionT) -> bool:
        """Tell whether an idle connection may be served again. Called before that, not after ``create``.

        :param endpoint: where the connection leads
        :param conn: the connection
        :return: False makes the pool dispose of the connection and take another. What this raises reaches the
            acquirer, and the connection is idle again.
        """
        return True

    async def on_acquire(self, endpoint: EndpointT, conn: ConnectionT) -> None:
        """Called before a connection is handed to its user. If it raises, the connection is idle again.

        :param endpoint: where the connection leads
        :param conn: the connection
        """

    async def on_release(self, endpoint: EndpointT, conn: ConnectionT) -> None:
        """Called when a connection was given back. If it raises, the connection is idle all the same.

        :param endpoint: where the connection leads
        :param conn: the connection
        :raise DiscardConnection: the connection is in doubt: the pool disposes of it, and the release returns
        """

    async def is_broken(self, endpoint: EndpointT, conn: ConnectionT, exc: BaseException) -> bool:
        """Tell whether a connection is unfit after its user's block raised.

        Called by ``pool.connection()`` when the block inside raises anything, also cancellation or KeyboardInterrupt.
        True makes the pool dispose of the connection: ``on_release`` is not called, ``on_connection_dead`` is, and the
        endpoint's other idle connections are checked before they are served. It should look at what the driver knows,
        and not ask the server.

        :param endpoint: where the connection leads
        :param conn: the connection
        :param exc: what the block raised, and raises on
        :return: True for a connection that is closed, or in a state that cannot be mended. When this raises, the
            connection is disposed of as well.
        """
        return False

    async def on_connection_dead(self, endpoint: EndpointT, conn: ConnectionT) -> None:
        """Called when ``check_aliveness`` was false or ``is_broken`` true, after the connection was disposed of.

        :param endpoint: where the connection led
        :param conn: the connection, closed
        """
