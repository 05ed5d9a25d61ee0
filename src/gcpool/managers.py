"""Connection managers: each handles one kind of connection for a pool.

A manager creates, checks and closes connections, and its hooks are called when something happens to them. It holds no
pool state and may serve several pools. Only ``create`` and ``dispose`` are required. A hook that is not overridden
costs nothing: the pool finds out once, when it is built.

A manager may also define an attribute ``default_endpoint``: the endpoint of calls that name none. The base classes only
declare it: if a manager does not set it, each call must name an endpoint. The attribute is read once, when a pool is
built.
"""

import abc
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

from .exceptions import ConnectError

__all__ = ['ROLLED_BACK', 'AsyncConnectionManager', 'ConnectionT', 'EndpointT', 'SyncConnectionManager']


class _RolledBack:
    """The type of :py:data:`ROLLED_BACK`."""

    def __repr__(self) -> str:
        return 'ROLLED_BACK'


#: What ``on_release`` may return if it has rolled back a transaction that the connection's user left open. The pool
#: logs that, once, because other pools would have committed it; but not while an exception propagates, out of the
#: user's block or through a ``finally`` that returns the connection.
ROLLED_BACK: Final = _RolledBack()

# The errors that mean that an endpoint or its parameters cannot be used.
_BAD_ENDPOINT = (KeyError, TypeError, ValueError)

EndpointT = TypeVar('EndpointT', bound=Hashable)
ConnectionT = TypeVar('ConnectionT')


class SyncConnectionManager(abc.ABC, Generic[EndpointT, ConnectionT]):
    """Base of the managers for :py:class:`gcpool.threading.ConnectionPool` (there: ``BaseConnectionManager``).

    The pool holds no lock while it calls a method. It calls them in the thread that acquires or releases; only
    ``dispose`` is also called in threads of the pool, which close connections for acquires and for the collector.
    """

    #: The endpoint of calls that name none. Only declared here: a manager that does not set it has none.
    default_endpoint: EndpointT

    #: Whether a connection is unfit after a block that cancellation or KeyboardInterrupt ended, whatever ``is_broken``
    #: says. For protocols in which a reply may then be outstanding without the driver's knowledge. A bool, read once,
    #: when a pool is built.
    broken_on_cancel: bool = False

    @abc.abstractmethod
    def create(self, endpoint: EndpointT, timeout: float | None = None) -> ConnectionT:
        """Connect to ``endpoint``.

        Whatever this raises reaches the acquirer.

        :param endpoint: where to connect
        :param timeout: seconds that the acquire has left, None for no limit; raise TimeoutError when they expire. 0
            after ``acquire(timeout=0)``, or when the wait for a slot took all the time: then try for a moment, or
            raise TimeoutError. Most drivers do not take 0 as a time limit: it makes a socket non-blocking.
        :return: a connection that the pool does not hold already
        """

    @abc.abstractmethod
    def dispose(self, endpoint: EndpointT, conn: ConnectionT, timeout: float | None = None) -> None:
        """Close ``conn``. Called exactly once for each connection that ``create`` returned.

        :param endpoint: the connection's endpoint
        :param conn: the connection; the pool logs what this raises, and forgets the connection
        :param timeout: the pool's ``dispose_timeout`` in seconds, None for no limit; less if the pool's ``close`` has
            less time, or, where no thread can be started, the acquire that closes the connection itself
        """

    def normalize(self, endpoint: EndpointT) -> EndpointT:
        """Map all spellings of an endpoint to one, if one server can be written in several ways.

        All spellings of an endpoint share its connections and its ``max_size``, and the other methods receive what this
        returned. Called, with no lock held, by an acquire, a release or ``get_endpoint_pool_size`` for a spelling that
        the pool does not know; while the pool has connections to an endpoint, it remembers its last 8 spellings. So do
        not ask a server, and return the same value each time. Whatever this raises reaches the caller, and the pool is
        unchanged.

        :param endpoint: where to connect, as the pool's user writes it; any hashable
        :return: the same hashable for all spellings of an endpoint, and that value unchanged when given it. The caller
            gets a TypeError if this returns None for an endpoint that is not None, or something unhashable.
        """
        return endpoint

    def is_refusal(self, endpoint: EndpointT, exc: BaseException) -> bool:
        """Return whether a connect failed because the server is full: it works, but accepts no more connections.

        The pool can then wait for one of its connections to be returned; after any other error, waiting would be
        useless. Called, with no lock held, with what ``create`` raised. Look at the error alone, and do not ask the
        server.

        :param endpoint: where ``create`` was to connect
        :param exc: what ``create`` raised
        :return: True for a limit on connections (of the server, a database or a user). If this raises, the pool logs it
            and assumes False.
        """
        return False

    def is_hopeless(self, endpoint: EndpointT, exc: BaseException) -> bool:
        """Return whether the error of a connect was not caused by a server, so that another attempt would fail as well.

        An acquire raises such an error at once, even where it would otherwise wait until an outage ends, and the error
        begins no outage. Called, with no lock held, with what ``create`` raised, unless that is a refusal. Look at the
        error alone, and do not ask the server.

        Unless this is overridden, these are hopeless: ``UnknownEndpoint``, and any other
        :py:exc:`gcpool.exceptions.ConnectError` that is also a KeyError, a TypeError or a ValueError; a TypeError; and
        a KeyError of the endpoint itself, as from a dict of endpoints. An OSError is never hopeless, nor is a
        UnicodeDecodeError, which is about what a server has sent.

        :param endpoint: where ``create`` was to connect
        :param exc: what ``create`` raised
        :return: True for an endpoint that does not exist, or parameters that cannot be used. If this raises, the pool
            logs it and assumes False.
        """
        return is_hopeless_unless_overridden(endpoint, exc)

    def describe_endpoint(self, endpoint: EndpointT) -> object:
        """Return what messages, log records and events show in place of an endpoint.

        For endpoints that are long, or that hold a password. Called, with no lock held, when such a text is made, so
        that it costs nothing else. Do not ask a server.

        :param endpoint: as ``normalize`` returned it
        :return: anything that can be printed: its ``repr`` is shown, as that of the endpoint would be. If this raises,
            the class of the endpoint is shown, and never the endpoint itself.
        """
        return endpoint

    def check_aliveness(self, endpoint: EndpointT, conn: ConnectionT, timeout: float | None = None) -> bool:
        """Return whether an idle connection may be served. Called before it is served, but not after ``create``.

        :param endpoint: the connection's endpoint
        :param conn: the connection
        :param timeout: seconds that the check may take, None for no limit. It may be 0, as for ``create``: then a check
            that has to ask the server allows a moment, or raises TimeoutError, because the connection may be good.
        :return: False makes the pool close the connection and try another. Whatever this raises reaches the acquirer,
            and the connection becomes idle again.
        """
        return True

    def on_acquire(self, endpoint: EndpointT, conn: ConnectionT) -> None:
        """Called before a connection is handed to its user. If it raises, the connection becomes idle again.

        :param endpoint: the connection's endpoint
        :param conn: the connection
        """

    def on_release(self, endpoint: EndpointT, conn: ConnectionT) -> object:
        """Called when a connection is returned. If it raises, the connection becomes idle anyway.

        :param endpoint: the connection's endpoint
        :param conn: the connection
        :return: :py:data:`ROLLED_BACK` if this has rolled back a transaction; anything else is ignored
        :raise DiscardConnection: to have the pool close the connection; the release returns normally
        """

    def is_broken(self, endpoint: EndpointT, conn: ConnectionT, exc: BaseException) -> bool:
        """Return whether a connection is unfit after its user's block raised.

        Called when the block of ``pool.connection()`` raises anything, including cancellation and KeyboardInterrupt.
        True makes the pool close the connection: ``on_release`` is not called, ``on_connection_dead`` is, and the
        endpoint's other connections are checked before they are served. Look at the state that the driver keeps, and do
        not ask the server.

        :param endpoint: the connection's endpoint
        :param conn: the connection
        :param exc: what the block raised
        :return: True for a connection that is closed, or in a state that cannot be undone. If this raises, the pool
            closes the connection too.
        """
        return False

    def on_connection_dead(self, endpoint: EndpointT, conn: ConnectionT) -> None:
        """Called when ``check_aliveness`` was false or ``is_broken`` true, after the connection was closed.

        :param endpoint: the connection's endpoint
        :param conn: the closed connection
        """


class AsyncConnectionManager(abc.ABC, Generic[EndpointT, ConnectionT]):
    """Base of the managers for :py:class:`gcpool.asyncio.ConnectionPool` (there: ``BaseConnectionManager``).

    The methods take no timeout: the pool limits ``create``, ``check_aliveness`` and ``dispose`` by cancelling them.
    With ``acquire(timeout=0)`` it cancels ``create`` and ``check_aliveness`` at their first wait.
    """

    #: The endpoint of calls that name none. Only declared here: a manager that does not set it has none.
    default_endpoint: EndpointT

    #: Whether a connection is unfit after a block that cancellation or KeyboardInterrupt ended, whatever ``is_broken``
    #: says. For protocols in which a reply may then be outstanding without the driver's knowledge. A bool, read once,
    #: when a pool is built.
    broken_on_cancel: bool = False

    @abc.abstractmethod
    async def create(self, endpoint: EndpointT) -> ConnectionT:
        """Connect to ``endpoint``.

        When this is cancelled half-way (the caller's task is cancelled, or its timeout expires), it must close what it
        has opened, like any coroutine that opens something. Whatever this raises reaches the acquirer.

        :param endpoint: where to connect
        :return: a connection that the pool does not hold already
        """

    @abc.abstractmethod
    async def dispose(self, endpoint: EndpointT, conn: ConnectionT) -> None:
        """Close ``conn``. Called exactly once for each connection that ``create`` returned.

        Runs in a separate task, so that a cancelled caller leaves no connection half-closed. That task is cancelled
        when the pool's ``dispose_timeout`` expires.

        :param endpoint: the connection's endpoint
        :param conn: the connection; the pool logs what this raises, and forgets the connection
        """

    def normalize(self, endpoint: EndpointT) -> EndpointT:
        """Map all spellings of an endpoint to one, if one server can be written in several ways.

        All spellings of an endpoint share its connections and its ``max_size``, and the other methods receive what this
        returned. Not a coroutine. Called, with no lock held, by an acquire, a release or ``get_endpoint_pool_size`` for
        a spelling that the pool does not know; while the pool has connections to an endpoint, it remembers its last 8
        spellings. So do not ask a server, and return the same value each time. Whatever this raises reaches the caller,
        and the pool is unchanged.

        :param endpoint: where to connect, as the pool's user writes it; any hashable
        :return: the same hashable for all spellings of an endpoint, and that value unchanged when given it. The caller
            gets a TypeError if this returns None for an endpoint that is not None, or something unhashable.
        """
        return endpoint

    def is_refusal(self, endpoint: EndpointT, exc: BaseException) -> bool:
        """Return whether a connect failed because the server is full: it works, but accepts no more connections.

        The pool can then wait for one of its connections to be returned; after any other error, waiting would be
        useless.
        Not a coroutine. Called, with no lock held, with what ``create`` raised. Look at the error alone, and do not ask
        the server.

        :param endpoint: where ``create`` was to connect
        :param exc: what ``create`` raised
        :return: True for a limit on connections (of the server, a database or a user). If this raises, the pool logs it
            and assumes False.
        """
        return False

    def is_hopeless(self, endpoint: EndpointT, exc: BaseException) -> bool:
        """Return whether the error of a connect was not caused by a server, so that another attempt would fail as well.

        An acquire raises such an error at once, even where it would otherwise wait until an outage ends, and the error
        begins no outage. Not a coroutine. Called, with no lock held, with what ``create`` raised, unless that is a
        refusal. Look at the error alone, and do not ask the server.

        Unless this is overridden, these are hopeless: ``UnknownEndpoint``, and any other
        :py:exc:`gcpool.exceptions.ConnectError` that is also a KeyError, a TypeError or a ValueError; a TypeError; and
        a KeyError of the endpoint itself, as from a dict of endpoints. An OSError is never hopeless, nor is a
        UnicodeDecodeError, which is about what a server has sent.

        :param endpoint: where ``create`` was to connect
        :param exc: what ``create`` raised
        :return: True for an endpoint that does not exist, or parameters that cannot be used. If this raises, the pool
            logs it and assumes False.
        """
        return is_hopeless_unless_overridden(endpoint, exc)

    def describe_endpoint(self, endpoint: EndpointT) -> object:
        """Return what messages, log records and events show in place of an endpoint.

        For endpoints that are long, or that hold a password. Not a coroutine. Called, with no lock held, when such a
        text is made, so that it costs nothing else. Do not ask a server.

        :param endpoint: as ``normalize`` returned it
        :return: anything that can be printed: its ``repr`` is shown, as that of the endpoint would be. If this raises,
            the class of the endpoint is shown, and never the endpoint itself.
        """
        return endpoint

    async def check_aliveness(self, endpoint: EndpointT, conn: ConnectionT) -> bool:
        """Return whether an idle connection may be served. Called before it is served, but not after ``create``.

        :param endpoint: the connection's endpoint
        :param conn: the connection
        :return: False makes the pool close the connection and try another. Whatever this raises reaches the acquirer,
            and the connection becomes idle again.
        """
        return True

    async def on_acquire(self, endpoint: EndpointT, conn: ConnectionT) -> None:
        """Called before a connection is handed to its user. If it raises, the connection becomes idle again.

        :param endpoint: the connection's endpoint
        :param conn: the connection
        """

    async def on_release(self, endpoint: EndpointT, conn: ConnectionT) -> object:
        """Called when a connection is returned. If it raises, the connection becomes idle anyway.

        :param endpoint: the connection's endpoint
        :param conn: the connection
        :return: :py:data:`ROLLED_BACK` if this has rolled back a transaction; anything else is ignored
        :raise DiscardConnection: to have the pool close the connection; the release returns normally
        """

    async def is_broken(self, endpoint: EndpointT, conn: ConnectionT, exc: BaseException) -> bool:
        """Return whether a connection is unfit after its user's block raised.

        Called when the block of ``pool.connection()`` raises anything, including cancellation and KeyboardInterrupt.
        True makes the pool close the connection: ``on_release`` is not called, ``on_connection_dead`` is, and the
        endpoint's other connections are checked before they are served. Look at the state that the driver keeps, and do
        not ask the server.

        :param endpoint: the connection's endpoint
        :param conn: the connection
        :param exc: what the block raised
        :return: True for a connection that is closed, or in a state that cannot be undone. If this raises, the pool
            closes the connection too.
        """
        return False

    async def on_connection_dead(self, endpoint: EndpointT, conn: ConnectionT) -> None:
        """Called when ``check_aliveness`` was false or ``is_broken`` true, after the connection was closed.

        :param endpoint: the connection's endpoint
        :param conn: the closed connection
        """


def is_hopeless_unless_overridden(endpoint: Hashable, exc: BaseException) -> bool:
    """The default of ``is_hopeless`` in both base classes."""
    if isinstance(exc, (OSError, UnicodeDecodeError)):
        return False
    if isinstance(exc, ConnectError):
        return isinstance(exc, _BAD_ENDPOINT)
    return isinstance(exc, TypeError) or (isinstance(exc, KeyError) and exc.args == (endpoint,))
