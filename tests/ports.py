"""Ports for servers that bind them later, or again and again."""

import socket

_held: list[socket.socket] = []


def free_port() -> int:
    """A port of 127.0.0.1 that nobody else is given as a free one for as long as this process lives.

    It stays bound by a socket that never listens: servers, which set SO_REUSEADDR, can listen on it, and
    connections to it are refused until one does.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    _held.append(holder)
    port: int = holder.getsockname()[1]
    return port
