"""Password exchanges for which the drivers for MySQL need a package that they do not install."""

import contextlib
import importlib
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gcpool import asyncio as for_asyncio
from gcpool import threading as for_threads
from gcpool.exceptions import ConnectError
from tests.contrib.conftest import Run
from tests.contrib.servers import PATIENCE, tcp_listener, wait_for_end

SALT = b'12345678901234567890'
# Protocol 4.1, a secure password, authentication by a plugin; no TLS.
CAPABILITIES = 0x0000_0200 | 0x0000_8000 | 0x0008_0000
KEY = b'-----BEGIN PUBLIC KEY-----\nMA==\n-----END PUBLIC KEY-----\n'


def packet(number: int, payload: bytes) -> bytes:
    return struct.pack('<I', len(payload))[:3] + bytes([number]) + payload


GREETING = packet(
    0,
    b'\x0a8.4.0\0'
    + struct.pack('<I', 7)
    + SALT[:8]
    + b'\0'
    + struct.pack('<HBHHB', CAPABILITIES & 0xFFFF, 45, 2, CAPABILITIES >> 16, len(SALT) + 1)
    + b'\0' * 10
    + SALT[8:]
    + b'\0caching_sha2_password\0',
)
# What the server answers to each packet of the client, the login first.
SAYS = {
    # Asks for the whole password, and sends the key to encrypt it.
    'cryptography': (packet(2, b'\x01\x04'), packet(4, b'\x01' + KEY)),
    # Asks for another plugin.
    'pynacl': (packet(2, b'\xfeclient_ed25519\0' + b's' * 32 + b'\0'),),
}


@contextlib.contextmanager
def server(package: str) -> Iterator[int]:
    """The port of a server for whose password the driver needs a package; one client, which must end the connection."""
    failures: list[Exception] = []

    def serve() -> None:
        try:
            with listener.accept()[0] as conn:
                conn.settimeout(PATIENCE)
                conn.sendall(GREETING)
                for says in SAYS[package]:
                    assert conn.recv(4096)
                    conn.sendall(says)
                wait_for_end(conn)
        except Exception as exc:  # noqa: BLE001  (shown by the test)
            failures.append(exc)

    with tcp_listener() as listener:
        listener.settimeout(PATIENCE)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join(2 * PATIENCE)
    assert not thread.is_alive()
    assert not failures


@pytest.fixture(params=['pymysql', 'asyncmy'])
def driver(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(request.param)
    return str(request.param)


@pytest.fixture
def acquire(driver: str, run: Run) -> Callable[[int], None]:
    """Acquires a connection to a port."""
    manager_class: Any = importlib.import_module(f'gcpool.contrib.{driver}').DbConnectionManager

    def for_port(port: int) -> None:
        manager = manager_class(
            {'db': {'host': '127.0.0.1', 'port': port, 'user': 'gcpool', 'password': 'not-a-secret'}}
        )
        if driver == 'pymysql':
            with contextlib.closing(for_threads.ConnectionPool(manager)) as pool:
                pool.acquire('db', timeout=PATIENCE)
            return

        async def main() -> None:
            pool = for_asyncio.ConnectionPool(manager)
            try:
                await pool.acquire('db', timeout=PATIENCE)
            finally:
                await pool.close()

        run(main)

    return for_port


@pytest.fixture
def auth(driver: str) -> Any:
    """The driver's module that imports the packages."""
    return importlib.import_module('pymysql._auth' if driver == 'pymysql' else 'asyncmy.auth')


@pytest.mark.parametrize(
    ('package', 'advice'),
    [
        ('cryptography', r'pip install cryptography, or connect by TLS \(the parameter ssl\)$'),
        ('pynacl', 'pip install pynacl$'),
    ],
)
def test_says_which_package_is_missing(
    acquire: Callable[[int], None], auth: Any, monkeypatch: pytest.MonkeyPatch, package: str, advice: str
) -> None:
    monkeypatch.setattr(auth, '_have_cryptography', False)
    monkeypatch.setattr(auth, '_nacl_bindings', None)
    monkeypatch.setitem(sys.modules, 'nacl', None)
    with server(package) as port, pytest.raises(ConnectError, match=f"endpoint 'db' .*{advice}") as caught:
        acquire(port)
    assert caught.value.endpoint == 'db'
    assert isinstance(caught.value, RuntimeError)
    assert type(caught.value.__cause__) is RuntimeError
    assert 'secret' not in f'{caught.value} {caught.value.__cause__}'


def test_leaves_other_errors_of_that_class_as_they_are(
    acquire: Callable[[int], None], auth: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise RuntimeError('of another kind')

    monkeypatch.setattr(auth, 'sha2_rsa_encrypt', fail)
    with server('cryptography') as port, pytest.raises(RuntimeError, match=r'^of another kind$') as caught:
        acquire(port)
    assert type(caught.value) is RuntimeError
