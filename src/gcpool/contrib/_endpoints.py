"""The endpoints of sockets: their parts, the normal spelling of each, and the errors for invalid ones."""

import ipaddress
import operator
import os
import pathlib
import socket
from collections.abc import Hashable
from ipaddress import IPv4Address, IPv6Address
from typing import Any, NoReturn

from gcpool.contrib._errors import advice_for_path_error, bad_endpoint, raise_not_connected
from gcpool.exceptions import ConnectError

__all__ = [
    'HIGHEST_PORT',
    'IpAddress',
    'normal_host',
    'normal_host_endpoint',
    'normal_path',
    'normal_tcp_endpoint',
    'path_of_endpoint',
    'raise_not_connected_to_path',
    'split_host_endpoint',
    'split_tcp_endpoint',
    'tls_name',
]

IpAddress = IPv4Address | IPv6Address

HIGHEST_PORT = 65535
_PORT = f'an int from 1 to {HIGHEST_PORT}'
_TCP_ENDPOINT = f'(ipaddress.IPv4Address or IPv6Address, port), the port {_PORT}'
_HOST_ENDPOINT = f'(host name, port), the port {_PORT}'
_PATH_ENDPOINT = 'that is a path (str, bytes or os.PathLike)'


class _PathTooLong(OSError, ValueError):
    """Like Python's own error for such a path, an OSError, but also a ValueError."""


def split_tcp_endpoint(endpoint: tuple[IpAddress, int]) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """Return the address family of an endpoint and the address to connect to.

    :raise ConnectError: the endpoint is not a pair of an IP address and a port (a TypeError, too), or the port is out
        of range (a ValueError)
    """
    address, port = _pair(endpoint, _TCP_ENDPOINT)
    if not isinstance(address, (IPv4Address, IPv6Address)):
        hint = _address_for(address) if isinstance(address, str) else ''
        raise bad_endpoint(TypeError, endpoint, _TCP_ENDPOINT + hint)
    number = _port_number(endpoint, port, _TCP_ENDPOINT)
    return socket.AF_INET if address.version == 4 else socket.AF_INET6, (str(address), number)


def _address_for(text: str) -> str:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return ', the address of a host name from socket.getaddrinfo() and then ipaddress.ip_address()'
    return f', such as (ipaddress.ip_address({text!r}), 80)'


def split_host_endpoint(endpoint: tuple[str, int]) -> tuple[str, int | str]:
    """Return the host name and the port of an endpoint.

    :return: the port is a str only if it is the name of a service, which the resolver translates
    :raise ConnectError: the endpoint is not a pair of a host name and a port (a TypeError, too), or the port is out of
        range, or there is a NUL in the name (a ValueError)
    """
    host, port = _pair(endpoint, _HOST_ENDPOINT)
    if not isinstance(host, str):
        raise bad_endpoint(TypeError, endpoint, _HOST_ENDPOINT)
    if '\0' in host:
        # For the system's resolver the name would end at the NUL.
        raise bad_endpoint(ValueError, endpoint, f'{_HOST_ENDPOINT}, and no NUL in the name')
    if not isinstance(port, str):
        return host, _port_number(endpoint, port, _HOST_ENDPOINT)
    # asyncio.open_connection accepts these too, and programs rely on that.
    if port.isascii() and port.isdecimal():
        return host, _port_number(endpoint, int(port), _HOST_ENDPOINT)
    if not port.isprintable() or not any(map(str.isalpha, port)):
        raise bad_endpoint(ValueError, endpoint, _HOST_ENDPOINT)
    return host, port


def _pair(endpoint: Any, expected: str) -> tuple[object, object]:
    # A string of two characters is not a pair.
    if not isinstance(endpoint, (str, bytes)):
        try:
            first, second = endpoint
        except (TypeError, ValueError):
            pass
        else:
            return first, second
    raise bad_endpoint(TypeError, endpoint, expected)


def _port_number(endpoint: Hashable, port: Any, expected: str) -> int:
    try:
        number = operator.index(port)
    except TypeError:
        number = None
    if number is None or isinstance(port, bool):
        raise bad_endpoint(TypeError, endpoint, expected)
    # The system's resolver takes port + 65536 for the same port.
    if not 1 <= number <= HIGHEST_PORT:
        raise bad_endpoint(ValueError, endpoint, expected)
    return number


def normal_tcp_endpoint(endpoint: Any) -> Any:
    """Return the normal spelling of an endpoint of an IP address and a port: the same, with the port as an int.

    :return: an invalid endpoint unchanged; ``create`` raises for it
    """
    try:
        _, (_, port) = split_tcp_endpoint(endpoint)
    except ConnectError:
        return endpoint
    return _with_parts(endpoint, next(iter(endpoint)), port)


def normal_host_endpoint(endpoint: Any) -> Any:
    """Return the normal spelling of an endpoint of a host name and a port: see :py:func:`normal_host`; the port as an
    int.

    :return: an invalid endpoint unchanged; ``create`` raises for it
    """
    try:
        host, port = split_host_endpoint(endpoint)
    except ConnectError:
        return endpoint
    return _with_parts(endpoint, normal_host(host), port)


def normal_host(host: str) -> str:
    """Return the normal spelling of a host name: lower case, as sent to the resolver; of an address, its usual form.

    A final dot is dropped if the name has another dot in it. A name of one label keeps it: without the dot, the
    resolver appends the domains of its search list, so ``db`` and ``db.`` may be different hosts. Addresses that
    systems read in different ways (``127.1``, ``010.0.0.1``) and invalid names are left unchanged.
    """
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    if '%' in host:
        # A network interface. Interface names are case-sensitive.
        return host
    try:
        # As Python does for the resolver and for the certificate.
        name = host.encode('idna').decode('ascii').lower()
    except UnicodeError:
        return host
    return name[:-1] if name.endswith('.') and '.' in name[:-1] else name


def normal_path(endpoint: Any) -> Any:
    """Return the normal spelling of a Unix socket's path: a :py:class:`pathlib.Path`, or a str in the abstract
    namespace.

    Symbolic links and ``..`` are not resolved, and a relative path stays relative: what they refer to may change.

    :return: an invalid path unchanged; ``create`` raises for it
    """
    try:
        path = os.fsdecode(path_of_endpoint(endpoint))
    except ConnectError:
        return endpoint
    # A name in the abstract namespace has no directories, and '' is not '.'.
    normal = path if path.startswith('\0') or not path else pathlib.Path(path)
    return endpoint if endpoint == normal else normal


def _with_parts(endpoint: Any, *parts: object) -> Any:
    # The object itself if nothing changes, otherwise an object of the same class, so that a named tuple remains one.
    if endpoint == parts:
        return endpoint
    make = getattr(endpoint, '_make', tuple)
    return make(parts)


def path_of_endpoint(endpoint: Any) -> str | bytes:
    """Return the path of a Unix socket.

    :raise ConnectError: the endpoint is not a path (a TypeError, too), or it contains a NUL or a character that the
        system cannot encode (a ValueError). A NUL in front marks a name in Linux's abstract namespace.
    """
    try:
        path: str | bytes = os.fspath(endpoint)
    except TypeError:
        raise bad_endpoint(TypeError, endpoint, _PATH_ENDPOINT) from None
    try:
        # For the system the path would end at the NUL, and might name another socket.
        is_path = os.fsencode(path).find(b'\0') <= 0
    except UnicodeEncodeError:
        is_path = False
    if not is_path:
        raise bad_endpoint(ValueError, endpoint, f'{_PATH_ENDPOINT} that the system can encode, and no NUL in it')
    return path


def raise_not_connected_to_path(endpoint: Hashable, cause: OSError, timeout: float | None) -> NoReturn:
    """Raise the error for a Unix socket that could not be connected to.

    :param endpoint: its path
    :param cause: what was raised
    :param timeout: seconds that connecting was allowed to take, None for no limit
    :raise ConnectTimeout: ``cause`` is a TimeoutError
    :raise ConnectError: ``cause`` is another error; a ValueError, too, if the path is too long
    """
    # Python checks the length itself, so the error has no errno.
    if cause.errno is None and type(cause) is OSError:
        expected = f'{_PATH_ENDPOINT} short enough for a Unix socket (Linux: 107 bytes, macOS: 103)'
        raise bad_endpoint(_PathTooLong, endpoint, expected) from cause
    raise_not_connected(endpoint, cause, timeout, advice_for_path_error)


def tls_name(host: str) -> str:
    """Return the name that a certificate is checked for: without the final dot that a host name may have (RFC 6066).

    :raise ValueError: nothing is left of the name
    """
    name = host.removesuffix('.')
    if not name:
        raise ValueError(f'no certificate is made out for {host!r}')
    return name
