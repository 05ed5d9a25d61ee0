"""Shared by the stream managers for asyncio: resolving a host name and connecting, within the pool's ``max_size``."""

import asyncio
import contextlib
import functools
import socket
from typing import Any

from gcpool._core import GuardedLogger
from gcpool.contrib._attempts import Attempt, call_in_thread
from gcpool.contrib._latch import Latch
from gcpool.contrib._sockets import RESOLUTIONS, is_address

__all__ = ['connect_tcp', 'connected']

logger = GuardedLogger(__name__)


async def connected(family: int, address: Any, kind: int = socket.SOCK_STREAM, protocol: int = 0) -> socket.socket:
    """Create a non-blocking socket and connect it to an address."""
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


async def connect_tcp(host: str, port: int | str) -> socket.socket:
    """Resolve a host name, and connect to the first of its addresses that answers.

    A name is resolved in a daemon thread, not by ``loop.getaddrinfo``: the system's resolver cannot be interrupted, and
    a cancelled resolution would occupy a thread of the loop's default executor (uvloop: one of libuv's 4), which other
    work needs, and which the loop waits for at its end. The next resolution of that name waits for the end of a
    cancelled one, so that the number of threads does not grow.

    :param host: host name, or an address as a string
    :param port: the port, or the name of a service
    :return: a connected non-blocking socket
    :raise socket.gaierror: the name does not resolve
    :raise OSError: the last address's error, if none of them could be connected to
    """
    failure: OSError | None = None
    for family, kind, protocol, _, address in await _resolve(host, port):
        try:
            return await connected(family, address, kind, protocol)
        except OSError as exc:
            failure = exc
    try:
        raise failure or OSError(f'no address found for {host!r}')
    finally:
        # The traceback refers to this frame; deleting the local avoids a reference cycle.
        del failure


async def _resolve(host: str, port: int | str) -> list[Any]:
    call = functools.partial(socket.getaddrinfo, host, port, socket.AF_UNSPEC, socket.SOCK_STREAM)
    if is_address(host):
        return call()
    with RESOLUTIONS.place(host) as given_up:
        if given_up is not None:
            try:
                await _happens(given_up)
            except asyncio.CancelledError:
                logger.warning('the host name %r was not resolved in time: %s', host, RESOLUTIONS.describe(host))
                raise
    attempt = Attempt(host)

    def resolve() -> list[Any]:
        try:
            return call()
        finally:
            attempt.end()

    outcome = call_in_thread(resolve, lambda _: None)
    if outcome is None:
        # There are too many threads; the executor may have a free one.
        return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    try:
        await _happens(outcome.ended)
        return outcome.result()
    except asyncio.CancelledError:
        RESOLUTIONS.give_up(attempt)
        raise
    finally:
        # The traceback of the call's exception refers to this frame.
        del outcome


async def _happens(event: Latch) -> None:
    """Wait in an event loop until something has happened in a thread."""
    loop = asyncio.get_running_loop()
    happened = asyncio.Event()

    def tell() -> None:
        # The loop may be closed.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(happened.set)

    event.add(tell)
    try:
        if not event.is_set:
            await happened.wait()
    finally:
        event.remove(tell)
