"""Listening sockets, bound early so that a port in use is one sentence and not a stack of retries."""

import errno
import socket

from runstore.runtime.address import Address
from runstore.runtime.failures import CannotStart

_BACKLOG = 2_048


def listen(address: Address, setting: str) -> socket.socket:
    """A TCP socket that listens on `address`. Raises CannotStart, naming `setting`, when it cannot."""
    try:
        family, _, _, _, target = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # The first two parts of an IPv6 target are host and port as well.
        return socket.create_server(target[:2], family=family, backlog=_BACKLOG)
    except socket.gaierror as error:
        raise CannotStart(f"{setting}: the host {address.host} has no address: {error.strerror}") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CannotStart(f"{setting}: {address} is in use by another program") from error
        raise CannotStart(f"{setting}: cannot listen on {address}: {error.strerror}") from error


def check_free(address: Address, setting: str) -> None:
    """Raises CannotStart when nothing could listen on `address` now.

    For servers that bind by themselves and would share a port silently (gRPC's default).
    """
    listen(address, setting).close()
