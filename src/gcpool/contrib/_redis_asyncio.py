# redis-py has type hints for half of its methods.
# mypy: allow-untyped-calls
"""redis-py's connections for asyncio, with time limits and an orderly end of their sessions."""

import asyncio
import functools
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import redis
import redis.asyncio.connection

from gcpool.contrib._attempts import deadline_after, time_left
from gcpool.contrib._goodbye import wait_for_end_async
from gcpool.contrib._redis_session import FAREWELL, Session, least, no_attribute
from gcpool.contrib._redis_sockets import end_sending
from gcpool.contrib._sockets import poll_once, poller_for
from gcpool.contrib.socket_async import close_stream

if sys.version_info >= (3, 11):
    from asyncio import timeout as timeout_scope
else:
    from gcpool._timeout310 import timeout_scope

__all__ = ['AsyncPooledConnection']

if TYPE_CHECKING:
    _AsyncBase = redis.asyncio.connection.Connection
else:
    _AsyncBase = object


class AsyncPooledConnection(Session, _AsyncBase):
    """Mixin of redis-py's connection classes for asyncio."""

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            # Only for what a connection does not have: most are commands, which are methods of a client.
            raise no_attribute(self, name, redis.asyncio.Redis, 'async_client_of')

    async def connect_check_health(self, *args: Any, **kwargs: Any) -> None:
        if not self.is_connected:
            self._about_to_connect()
            # Of the previous session.
            await self._part()
            await self._wait_for_another()
        await super().connect_check_health(*args, **kwargs)

    async def disconnect(self, *args: Any, **kwargs: Any) -> None:
        writer = self._writer
        self._leave_stream()
        try:
            await super().disconnect(*args, **kwargs)
        finally:
            self._session_is_over()
            if writer is not None:
                # redis-py does not always wait until the connection is closed, and a server that does not read the
                # unsent data would keep it open for good.
                writer.transport.abort()
            if self._farewell is not None:
                end_sending(self._farewell)

    def _leave_stream(self) -> None:
        # A closed TLS transport has forgotten its socket, and raises.
        if self._writer is not None and not self._writer.transport.is_closing():
            sock = self._writer.get_extra_info('socket')
            if sock is not None and sock.fileno() >= 0:
                self._leave(sock)

    async def _part(self, limit: float | None = None) -> None:
        """Give the server a moment to end an abandoned session."""
        farewell, self._farewell = self._farewell, None
        if farewell is not None:
            ended = False
            try:
                ended = await wait_for_end_async(farewell, least(FAREWELL, limit))
            finally:
                self._see_off(farewell, ended)

    async def _wait_for_another(self) -> None:
        """Wait for the end of a session that the server still has, and that this connection's session replaces."""
        taken = self.servers.take(self.endpoint)
        if taken is not None:
            farewell, until = taken
            ended = False
            try:
                await wait_for_end_async(farewell, until - time.monotonic())
                ended = True
            finally:
                if ended:
                    farewell.close()
                else:
                    self.servers.remember(self.endpoint, farewell, until)

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        count = self._about_to_send(command)
        try:
            await super().send_packed_command(command, check_health)
        except BaseException:
            self._was_not_sent(count, self.is_connected)
            raise
        self._was_sent(command, count)

    async def read_response(self, disable_decoding: bool = False, timeout: float | None = None, **kwargs: Any) -> Any:
        try:
            response = await super().read_response(disable_decoding, timeout, **kwargs)
        except redis.ResponseError as exc:
            self._was_read(exc)
            raise
        except BaseException as exc:
            self._was_not_read(exc, self.is_connected)
            raise
        if response is None and timeout is not None:
            # A reply, or redis-py's sign that none came in time.
            self._doubt = 'a reply may not have come in time'
        self._was_read(response)
        return response

    async def on_connect_check_health(self, *args: Any, **kwargs: Any) -> None:
        # The handshake.
        self._handshake_begins()
        await self._in_time(functools.partial(super().on_connect_check_health, *args, **kwargs))

    async def _in_time(self, do: Callable[[], Awaitable[None]], limit: float | None = None) -> None:
        timeout = self.socket_timeout
        limit = timeout if limit is None else least(limit, timeout)
        if limit is None:
            await do()
            return
        # With its own limit redis-py sends by asyncio.wait_for, which before Python 3.12 may swallow a cancellation,
        # including the pool's own.
        self.socket_timeout = None
        try:
            async with timeout_scope(limit):
                await do()
        except asyncio.TimeoutError as exc:
            raise redis.TimeoutError(f'no answer within {limit} s') from exc
        finally:
            self.socket_timeout = timeout

    async def end(self, timeout: float) -> None:
        """Close the connection for good: abort it if that takes more than ``timeout`` seconds.

        Then give the server a moment to close its side, too.
        """
        self._leave_stream()
        self._ended = True
        self._client = self._client_template = None
        deadline = deadline_after(timeout)
        try:
            try:
                if self._reader is not None and self._writer is not None:
                    await close_stream((self._reader, self._writer), timeout)
            finally:
                await self.disconnect(nowait=True)
        finally:
            await self._part(time_left(deadline))

    async def abort(self) -> None:
        """Close the connection for good, at once except for a moment in which the server may close its side, too."""
        self._leave_stream()
        self._ended = True
        if self._writer is not None:
            self._writer.transport.abort()
        await self.disconnect(nowait=True)
        await self._part()

    async def reset(self, timeout: float | None) -> None:
        """Reset the session to its state after the handshake, in one round trip."""
        try:
            await self._in_time(self._reset, timeout)
        finally:
            # As above.
            self._is_busy = False

    async def _reset(self) -> None:
        packed = self.pack_reset()
        await self.send_packed_command(packed, check_health=False)
        for _ in packed.commands:
            await self.read_response()
        self._is_clean()

    async def is_quiet(self) -> bool:
        """Return whether the server has neither closed the connection nor sent anything unsolicited."""
        writer = self._writer
        if writer is None or writer.transport.is_closing():
            return False
        # The kernel may know what the event loop has not seen yet.
        sock = writer.get_extra_info('socket')
        if sock is None:
            # A TLS transport of Python 3.10 that is gone.
            return False
        if self._poll is None or self._poll(0):
            readable, finished = poll_once(sock.fileno())
            # With TLS the data may be only for the TLS layer.
            if finished or (readable and writer.get_extra_info('ssl_object') is None):
                return False
        try:
            return not await self.can_read()
        except (redis.RedisError, OSError):
            return False

    def _session_begins(self, connection: object) -> None:
        super()._session_begins(connection)
        sock = None if self._writer is None else self._writer.get_extra_info('socket')
        self._poll = None if sock is None else poller_for(sock.fileno())

    async def answers(self) -> bool:
        """Ask the server whether it still answers."""
        try:
            await self._in_time(self._send_ping)
        except (redis.RedisError, OSError):
            await self.disconnect(nowait=True)
            return False
        finally:
            # If the server has not answered, it has had its time: closing does not wait for it again.
            self._is_busy = False
        return True
