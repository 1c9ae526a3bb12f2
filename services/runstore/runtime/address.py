"""Where a server listens: a host and a port, as people write them."""

import ipaddress
from dataclasses import dataclass

_MAX_PORT = 65_535


@dataclass(frozen=True, slots=True)
class Address:
    """A host (name, IPv4, or IPv6 without brackets) and a port; port 0 lets the system choose."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Reads `host:port` or `[IPv6]:port`. Raises ValueError that says what is wrong."""
        host, colon, port = text.rpartition(":")
        if not colon or not host:
            raise ValueError(f"{text!r} is not HOST:PORT, such as 127.0.0.1:1984 or [::1]:1984")
        if not (port.isascii() and port.isdigit()) or int(port) > _MAX_PORT:
            raise ValueError(f"{port!r} is not a port between 0 and {_MAX_PORT}")
        bracketed = host.startswith("[") and host.endswith("]")
        if bracketed:
            host = host[1:-1]
            if not _is_ipv6(host):
                raise ValueError(f"{host!r} is not an IPv6 address")
        elif ":" in host:
            raise ValueError(f"an IPv6 address needs brackets: [{host}]:{port}")
        return cls(host, int(port))

    @property
    def is_loopback(self) -> bool:
        """Whether only programs on this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def reachable(self) -> "Address":
        """The address to connect to from this machine: a wildcard host becomes the loopback one."""
        return Address({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host), self.port)  # noqa: S104 - compared, not bound

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True
