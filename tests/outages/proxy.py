"""A TCP proxy on loopback that does to its connections what networks and firewalls do."""

import collections
import ctypes
import selectors
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import final

from tests.contrib.servers import PATIENCE, tcp_listener

__all__ = ['CAN_DROP', 'Proxy']

# Linux lets any program throw away a socket's packets before TCP has seen them, so that nothing is acknowledged.
CAN_DROP = sys.platform == 'linux'
_SO_ATTACH_FILTER = 26
_SO_DETACH_FILTER = 27
_BPF_RETURN = 0x06

_CHUNK = 65536
_RESET_ON_CLOSE = struct.pack('ii', 1, 0)


class _Mode(Enum):
    PASSES = auto()
    HOLDS = auto()
    DROPS = auto()
    RESETS = auto()


class _Line:
    """One direction of a pair: what was read from the source and is to be sent to the sink."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source = source
        self.sink = sink
        # When each chunk may go on; an empty one is the end.
        self.chunks: collections.deque[tuple[float, bytes]] = collections.deque()
        self.read_to_end = False
        self.ended = False


class _Pair:
    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.lines = (_Line(client, server), _Line(server, client))
        self.half_open = False
        # Whether the client has spoken last.
        self.owes_answer = False


@final
class Proxy:
    """Forwards what comes to its port to a server's, in one thread of its own; the methods change how from then on.

    :param host: where the server listens
    :param port: where the server listens; it may be changed for the connections to come
    """

    def __init__(self, host: str, port: int) -> None:
        self.server_address = host, port
        self.accepted = 0
        self._listener = tcp_listener()
        self._listener.setblocking(False)
        self.host: str
        self.port: int
        self.host, self.port = self._listener.getsockname()
        self._mode = _Mode.PASSES
        self._delay = 0.0
        self._pairs: set[_Pair] = set()
        self._filtered: list[socket.socket] = []
        self._orders: collections.deque[Callable[[], None]] = collections.deque()
        self._bell, self._button = socket.socketpair()
        self._bell.setblocking(False)
        self._stopping = False
        self._selector = selectors.DefaultSelector()
        self._watched: dict[socket.socket, int] = {}
        self._thread = threading.Thread(target=self._run, name='test-proxy', daemon=True)

    def __enter__(self) -> 'Proxy':
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._thread.is_alive():
            self._order(self._stop)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), 'the proxy does not end'

    def passes(self) -> None:
        """Forward everything, also what was held back until now."""
        self._order(self._pass)

    def holds(self) -> None:
        """Forward nothing, as a server that hangs: connects succeed, what is sent is acknowledged, nothing is answered.

        What the two sides sent goes on its way when the proxy passes again.
        """
        self._order(lambda: self._set(_Mode.HOLDS))

    def drops(self) -> None:
        """Drop every packet, as a firewall: nothing is acknowledged, connects hang.

        TCP sends again what is still of interest to a living socket when the proxy passes again. Where the system
        cannot do that, the proxy holds.
        """
        self._order(self._drop)

    def resets(self) -> None:
        """Reset the connections there are, and those that come."""
        self._order(self._reset)

    def delays(self, seconds: float) -> None:
        """Forward every chunk of bytes that many seconds after it has come."""
        self._order(lambda: self._set(_Mode.PASSES, seconds))

    def half_opens(self) -> None:
        """End the server's side of the connections there are, as when its machine lost power and is up again.

        The clients are told when they send something, or have sent something that was not answered: by a reset.
        Connections that come are forwarded.
        """
        self._order(self._half_open)

    @property
    def open(self) -> int:
        """How many clients are connected, as far as the proxy has seen."""
        return len(self._pairs)

    def _order(self, order: Callable[[], None]) -> None:
        done = threading.Event()
        failure: list[BaseException] = []

        def carry_out() -> None:
            try:
                order()
            except BaseException as exc:
                failure.append(exc)
                raise
            finally:
                done.set()

        self._orders.append(carry_out)
        try:
            self._button.send(b'!')
        except OSError:
            # The thread was awake, and has ended by this order before it could be woken for it.
            if not self._stopping:
                raise
        assert done.wait(PATIENCE), 'the proxy does not do as it is told'
        if failure:
            raise failure[0]

    # In the thread:

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._watch()
                pause = self._next_due()
                for key, events in self._selector.select(pause):
                    if key.fileobj is self._bell:
                        self._bell.recv(_CHUNK)
                    elif key.fileobj is self._listener:
                        self._accept()
                    else:
                        self._serve(key.fileobj, events)  # type: ignore[arg-type]
                while self._orders:
                    self._orders.popleft()()
        finally:
            for pair in list(self._pairs):
                self._abort(pair)
            self._selector.close()
            for sock in (self._listener, self._bell, self._button):
                sock.close()

    def _stop(self) -> None:
        self._stopping = True

    def _set(self, mode: _Mode, delay: float = 0.0) -> None:
        self._mode = mode
        self._delay = delay
        while self._filtered:
            sock = self._filtered.pop()
            if sock.fileno() >= 0:
                sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)

    def _pass(self) -> None:
        self._set(_Mode.PASSES)
        for pair in self._pairs:
            for line in pair.lines:
                line.chunks = collections.deque((0.0, chunk) for _, chunk in line.chunks)

    def _drop(self) -> None:
        self._set(_Mode.DROPS)
        if CAN_DROP:
            instruction = ctypes.create_string_buffer(struct.pack('HBBI', _BPF_RETURN, 0, 0, 0))
            program = struct.pack('@HP', 1, ctypes.addressof(instruction))
            for sock in (self._listener, *(pair.client for pair in self._pairs)):
                sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
                self._filtered.append(sock)

    def _reset(self) -> None:
        self._set(_Mode.RESETS)
        for pair in list(self._pairs):
            self._abort(pair)

    def _half_open(self) -> None:
        self._set(_Mode.PASSES)
        for pair in list(self._pairs):
            pair.half_open = True
            if pair.owes_answer or any(line.chunks for line in pair.lines):
                # TCP would send it again, or ask.
                self._abort(pair)
            else:
                self._unwatch(pair.server)
                pair.server.close()

    def _watch(self) -> None:
        wanted = {self._bell: selectors.EVENT_READ}
        now = time.monotonic()
        forwards = self._mode is _Mode.PASSES
        if forwards or self._mode is _Mode.RESETS:
            wanted[self._listener] = selectors.EVENT_READ
        for pair in self._pairs if forwards else ():
            for line in pair.lines:
                if not line.read_to_end and line.source.fileno() >= 0:
                    wanted[line.source] = wanted.get(line.source, 0) | selectors.EVENT_READ
                if line.chunks and line.chunks[0][0] <= now:
                    wanted[line.sink] = wanted.get(line.sink, 0) | selectors.EVENT_WRITE
        for sock in [sock for sock in self._watched if sock not in wanted]:
            self._unwatch(sock)
        for sock, events in wanted.items():
            before = self._watched.get(sock)
            if before is None:
                self._selector.register(sock, events)
            elif before != events:
                self._selector.modify(sock, events)
            self._watched[sock] = events

    def _unwatch(self, sock: socket.socket) -> None:
        if self._watched.pop(sock, None) is not None:
            self._selector.unregister(sock)

    def _next_due(self) -> float | None:
        if self._mode is not _Mode.PASSES:
            return None
        now = time.monotonic()
        dues = [line.chunks[0][0] for pair in self._pairs for line in pair.lines if line.chunks]
        # Those that are due already wait for room, not for their time.
        return min((due - now for due in dues if due > now), default=None)

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        self.accepted += 1
        if self._mode is _Mode.RESETS:
            reset((client,))
            return
        try:
            server = socket.create_connection(self.server_address, PATIENCE)
        except OSError:
            # The server is down, or too busy to be connected to.
            reset((client,))
            return
        for sock in (client, server):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        watch_over(client)
        self._pairs.add(_Pair(client, server))

    def _serve(self, sock: socket.socket, events: int) -> None:
        pair = next((pair for pair in self._pairs if sock in {pair.client, pair.server}), None)
        if pair is None:
            # Aborted since then.
            return
        try:
            for line in pair.lines:
                if line.source is sock and events & selectors.EVENT_READ:
                    self._read(pair, line)
                if line.sink is sock and events & selectors.EVENT_WRITE:
                    self._write(line)
        except BlockingIOError:
            return
        except OSError:
            self._abort(pair)
            return
        if all(line.ended for line in pair.lines):
            self._forget(pair)
            pair.client.close()
            pair.server.close()

    def _read(self, pair: _Pair, line: _Line) -> None:
        if line.read_to_end:
            return
        data = line.source.recv(_CHUNK)
        if pair.half_open:
            raise ConnectionAbortedError('the server knows nothing of this connection')
        line.read_to_end = not data
        pair.owes_answer = line.source is pair.client
        line.chunks.append((time.monotonic() + self._delay, data))

    @staticmethod
    def _write(line: _Line) -> None:
        now = time.monotonic()
        while line.chunks and line.chunks[0][0] <= now:
            due, data = line.chunks[0]
            if data:
                sent = line.sink.send(data)
                if sent < len(data):
                    line.chunks[0] = due, data[sent:]
                    return
            else:
                line.sink.shutdown(socket.SHUT_WR)
                line.ended = True
            line.chunks.popleft()

    def _abort(self, pair: _Pair) -> None:
        self._forget(pair)
        reset(sock for sock in (pair.client, pair.server) if sock.fileno() >= 0)

    def _forget(self, pair: _Pair) -> None:
        self._pairs.discard(pair)
        self._unwatch(pair.client)
        self._unwatch(pair.server)


def reset(socks: Iterable[socket.socket]) -> None:
    """Close TCP connections with a reset."""
    for sock in socks:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        sock.close()


def watch_over(sock: socket.socket) -> None:
    """Find out within seconds that the client is gone: its last packets may have been dropped."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (('TCP_KEEPIDLE', 1), ('TCP_KEEPINTVL', 1), ('TCP_KEEPCNT', 60)):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
