"""Where runstore sends traces of itself: the address in a URL, and whether it is runstore's own."""

import re
import socket
from urllib.parse import urlsplit

from runstore.runtime.address import Address

_DEFAULT_PORT = 4317
# Names and values as gRPC metadata has them.
_HEADER = r"[a-z0-9_.-]+=[ -+\--~]+"
_HEADERS = re.compile(rf"({_HEADER}(,{_HEADER})*)?")


def receiver_of(url: str) -> Address:
    """The address in `http(s)://HOST:PORT`. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
        raise ValueError("not http(s)://HOST:PORT")
    return Address(parts.hostname, parts.port or _DEFAULT_PORT)


def is_same(receiver: Address, own: Address) -> bool:
    """Whether both are one for sure: other names and addresses of this machine are not looked up."""
    if receiver.port != own.port:
        return False
    if receiver.host == own.host.lower():
        return True
    is_here = receiver.reachable.is_loopback or receiver.host == socket.gethostname().lower()
    return is_here and own.reachable.is_loopback


def parse_headers(text: str) -> tuple[tuple[str, str], ...]:
    """Name and value of each header in `name=value,name=value`. Raises ValueError."""
    if not _HEADERS.fullmatch(text):
        raise ValueError("not name=value,name=value with names in lower case")
    pairs = (each.partition("=") for each in text.split(",") if each)
    return tuple((name, value) for name, _, value in pairs)
