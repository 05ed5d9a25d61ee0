"""Several spellings of one server are one endpoint, and spellings that may differ are several."""

import os
import socket
import ssl
from collections import UserString
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pytest

from gcpool.contrib import socket as sockets
from gcpool.contrib import socket_async
from gcpool.contrib._endpoints import normal_path
from tests.contrib.conftest import Run
from tests.contrib.servers import PATIENCE, EchoServer


class Named(NamedTuple):
    host: Any
    port: Any


class Index:
    """A number of another type, like numpy's."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __index__(self) -> int:
        return self.number


HOSTS = [
    sockets.SslSocketConnectionManager(ssl.create_default_context()),
    socket_async.TcpStreamConnectionManager(),
    socket_async.TcpStreamConnectionManager(ssl=True),
]
ADDRESSES = [sockets.TcpSocketConnectionManager(), socket_async.TcpSocketConnectionManager()]


def path_managers() -> list[Any]:
    if not hasattr(socket, 'AF_UNIX'):
        return []
    from gcpool.contrib import unix, unix_async

    return [
        unix.UnixSocketConnectionManager(),
        unix_async.UnixSocketConnectionManager(),
        unix_async.UnixSocketStreamConnectionManager(),
    ]


def name_of(manager: Any) -> str:
    return f'{type(manager).__module__}.{type(manager).__name__}'


hosts = pytest.mark.parametrize('manager', HOSTS, ids=name_of)
addresses = pytest.mark.parametrize('manager', ADDRESSES, ids=name_of)
paths = pytest.mark.parametrize('manager', path_managers(), ids=name_of)


@hosts
@pytest.mark.parametrize(
    ('normal', 'spellings'),
    [
        (('db.example.com', 80), [('DB.Example.COM', 80), ('db.example.com', '80'), ('db.example.com', Index(80))]),
        (('db.example.com', 80), [('DB.example.com', '080')]),
        (
            ('db.example.com', 80),
            [('db.example.com.', 80), ('DB.example.com.', '80'), ('db.example\u3002com\u3002', 80)],
        ),
        (('db.', 80), [('DB.', 80), ('db.', '80')]),
        (('db_1', 'https'), [('DB_1', 'https')]),
        (
            ('xn--bcher-kva.example', 80),
            [('bücher.example', 80), ('BÜCHER.example', '80'), ('XN--BCHER-kva.example', 80)],
        ),
        (('127.0.0.1', 80), [('127.0.0.1', '80')]),
        (('::1', 80), [('0:0:0:0:0:0:0:1', 80), ('0::1', 80), ('::0001', 80)]),
        (('fe80::a%Eth0', 80), [('FE80::A%Eth0', 80), ('fe80:0::a%Eth0', 80)]),
    ],
)
def test_spellings_of_a_host(manager: Any, normal: Any, spellings: list[Any]) -> None:
    assert manager.normalize(normal) is normal
    for spelling in spellings:
        assert manager.normalize(spelling) == normal
        assert hash(manager.normalize(spelling)) == hash(normal)
        named = manager.normalize(Named(*spelling))
        assert (type(named), named) == (Named, normal)


# Each leads, or may lead, to another server than the others.
DIFFERENT = [
    ('db', 80),
    ('db', 81),
    ('db', 'http'),
    ('db', 'HTTP'),
    # The resolver's search list.
    ('db.', 80),
    ('db.example.com', 80),
    ('localhost', 80),
    ('127.0.0.1', 80),
    # Not the same protocol, and not everywhere the same server.
    ('::1', 80),
    ('::ffff:127.0.0.1', 80),
    # Systems treat these differently.
    ('127.1', 80),
    ('0x7f.1', 80),
    ('2130706433', 80),
    ('127.000.000.001', 80),
    ('010.0.0.1', 80),
    ('10.0.0.1', 80),
    # Interfaces.
    ('fe80::1', 80),
    ('fe80::1%eth0', 80),
    ('fe80::1%ETH0', 80),
    ('fe80::1%2', 80),
    ('host%eth0', 80),
    ('host%ETH0', 80),
]


@hosts
def test_hosts_that_may_differ_are_not_one(manager: Any) -> None:
    normal = [manager.normalize(endpoint) for endpoint in DIFFERENT]
    assert len({*normal}) == len(DIFFERENT)
    # Nor does the normal spelling change again.
    assert [manager.normalize(endpoint) for endpoint in normal] == normal


@addresses
def test_spellings_of_an_address(manager: Any) -> None:
    for address in (IPv4Address('127.0.0.1'), IPv6Address('::1'), IPv6Address('fe80::1%eth0')):
        normal = (address, 80)
        assert manager.normalize(normal) is normal
        assert manager.normalize((address, Index(80))) == normal
        assert manager.normalize(Named(address, 80)) == normal
    different = [IPv4Address('127.0.0.1'), IPv6Address('::ffff:127.0.0.1'), IPv6Address('::1'), IPv6Address('::1%1')]
    assert len({manager.normalize((address, 80)) for address in different}) == len(different)


class PathLike:
    def __fspath__(self) -> str:
        return '/run//a.sock'


@paths
@pytest.mark.parametrize(
    ('normal', 'spellings'),
    [
        (Path('/run/a.sock'), ['/run/a.sock', b'/run/a.sock', '/run//a.sock', '/run/./a.sock', PathLike()]),
        (Path('/run/a.sock'), [PurePosixPath('/run/a.sock')]),
        (Path('a.sock'), ['a.sock', b'a.sock', './a.sock']),
        (Path(os.fsdecode(b'/run/\xff.sock')), [b'/run/\xff.sock', os.fsdecode(b'/run/\xff.sock')]),
        ('\0name', [b'\0name', '\0name', Path('\0name')]),
        ('\0a//b/./c', [b'\0a//b/./c']),
    ],
)
def test_spellings_of_a_path(manager: Any, normal: Any, spellings: list[Any]) -> None:
    assert manager.normalize(normal) is normal
    for spelling in spellings:
        assert manager.normalize(spelling) == normal


@paths
def test_paths_that_may_differ_are_not_one(manager: Any) -> None:
    different: list[Any] = [
        *map(Path, ('/run/a.sock', '/run/A.sock', '/run/b/../a.sock', '/var/run/a.sock', 'a.sock', '../a.sock')),
        *('', '\0a', '\0a/', '\0./a', '\0A'),
    ]
    assert [manager.normalize(endpoint) for endpoint in different] == different
    assert len({manager.normalize(endpoint) for endpoint in different}) == len(different)


@pytest.mark.parametrize(
    'endpoint',
    [
        None,
        5,
        'ab',
        (),
        ('db',),
        ('db', 80, 0),
        ('db', 0),
        ('db', True),
        ('db', 80.0),
        ('db', ''),
        ('d\0b', 80),
        (b'db', 80),
        ('a..b', 80),
        ('x' * 70, 80),
        (IPv4Address('127.0.0.1'), 70000),
        UserString('/run/a.sock'),
        'a\0b',
        b'',
    ],
    ids=repr,
)
def test_what_is_no_endpoint_is_left_for_create_to_say(endpoint: Any) -> None:
    # A path is not a pair, nor the other way round.
    managers: list[Any] = [*HOSTS, *ADDRESSES]
    for manager in managers:
        assert manager.normalize(endpoint) is endpoint
    if endpoint not in ('ab', b''):
        assert normal_path(endpoint) is endpoint


@pytest.mark.parametrize('host', ['LOCALHOST', 'localhost.'])
def test_a_certificate_is_checked_for_the_name(
    run: Run, tls_server: EchoServer, client_tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    """Also if the name is an absolute one, whose dot no certificate has."""
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, 'getaddrinfo', lambda _, *args, **kwargs: resolve('127.0.0.1', *args, **kwargs))
    endpoint = (host, tls_server.port)
    manager = sockets.SslSocketConnectionManager(client_tls)
    with manager.create(endpoint, PATIENCE) as sock:
        assert sock.server_hostname == host.removesuffix('.')

    async def main() -> None:
        manager = socket_async.TcpStreamConnectionManager(client_tls)
        await manager.dispose(endpoint, await manager.create(endpoint))

    run(main)
