"""An echo server in a separate process: what runs in that process, and the handle that starts, kills and counts it.

The process runs this file by its path and imports nothing but the standard library, so it starts quickly and does not
depend on how the parent found the package.
"""

import asyncio
import errno
import os
import random
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

# The bytes that the server process writes to its standard output, one per event. The parent has read all of them when
# it sees the end of the file, so the counts are complete even for a process that was killed.
READY = b'R'
OPENED = b'+'
CLOSED = b'-'

BIND_PATIENCE = 5.0  # seconds during which a restarted server tries to bind its old port


class ServerError(Exception):
    """The echo server failed."""


def _report(event: bytes) -> None:
    os.write(1, event)


class _Echo(asyncio.Protocol):
    _transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        _report(OPENED)

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        _report(CLOSED)


def _exit_with_parent() -> None:
    # The parent never writes: its end of the pipe closes when it wants the server gone, and also when it dies.
    os.read(0, 1)
    os._exit(0)


async def _listen(host: str, port: int) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    give_up = time.monotonic() + BIND_PATIENCE
    while True:
        try:
            return await loop.create_server(_Echo, host, port, backlog=1024)
        except OSError as error:
            # The port of a process killed a moment ago is not free at once on every system.
            if error.errno != errno.EADDRINUSE or time.monotonic() >= give_up:
                raise
            await asyncio.sleep(0.02)


async def _serve(host: str, port: int) -> None:
    server = await _listen(host, port)
    _report(READY)
    await server.serve_forever()


def _apart() -> dict[str, Any]:
    """The options that keep Ctrl-C on the terminal from reaching the server, too: the demo itself ends the server."""
    if sys.platform == 'win32':
        return {'creationflags': subprocess.CREATE_NEW_PROCESS_GROUP}
    return {'start_new_session': True}


def pick_port(host: str) -> int:
    """Return a TCP port that is free on ``host`` and outside of the range that systems give to outgoing connections.

    Clients keep connecting while the server is down. In that range, a client would sooner or later get the server's
    port as its own, connect to itself and keep the server from restarting.
    """
    for port in random.sample(range(12_000, 32_000), 200):
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
        return port
    raise ServerError(f'no free TCP port between 12000 and 32000 on {host}')


class EchoServer:
    """One run of the server: a process that starts here and ends in :py:meth:`kill` or :py:meth:`stop`.

    :param host: address to listen on
    :param port: port to listen on
    """

    def __init__(self, host: str, port: int):
        self.opened = 0
        self.closed = 0
        self.peak = 0  # most connections open at once
        self._ready = threading.Event()
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), host, str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            **_apart(),
        )
        self._follower = threading.Thread(target=self._follow, name='echo-server-follower', daemon=True)
        self._follower.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _follow(self) -> None:
        assert self._process.stdout is not None
        while events := self._process.stdout.read(65536):
            for event in events:
                if event == OPENED[0]:
                    self.opened += 1
                    self.peak = max(self.peak, self.opened - self.closed)
                elif event == CLOSED[0]:
                    self.closed += 1
                else:
                    self._ready.set()

    def is_ready(self) -> bool:
        """Return whether the server listens now.

        :raises ServerError: it has ended instead
        """
        if self._ready.is_set():
            return True
        code = self._process.poll()
        if code is not None:
            raise ServerError(f'the echo server ended with code {code} before it listened')
        return False

    def wait_ready(self, timeout: float) -> None:
        """Return when the server listens.

        :param timeout: how long to wait for that, in seconds
        :raises ServerError: it has ended, or does not listen in time
        """
        give_up = time.monotonic() + timeout
        while not self.is_ready():
            if time.monotonic() >= give_up:
                raise ServerError(f'the echo server did not listen within {timeout:g} s')
            self._ready.wait(0.05)

    def wait_all_closed(self, timeout: float) -> bool:
        """Wait until the server has seen the end of every connection it accepted.

        :param timeout: how long to wait for that, in seconds
        :return: whether it has
        """
        give_up = time.monotonic() + timeout
        while self.closed < self.opened and time.monotonic() < give_up:
            time.sleep(0.01)
        return self.closed == self.opened

    def kill(self) -> None:
        """Kill the process without a warning. When this returns, the counts are final."""
        self._process.kill()
        self._reap()

    def stop(self) -> None:
        """Ask the process to end, kill it if it does not. Does nothing if it has ended. The counts are final then."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._reap()

    def _reap(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.wait()
        self._follower.join()
        self._process.stdin.close()
        self._process.stdout.close()


if __name__ == '__main__':
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    try:
        asyncio.run(_serve(sys.argv[1], int(sys.argv[2])))
    except OSError as error:
        sys.exit(f'echo server: {error}')
