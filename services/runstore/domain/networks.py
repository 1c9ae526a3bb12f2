"""Addresses and networks of the Internet Protocol: of settings, and of callers."""

import ipaddress
from typing import Final, TypeAlias

Networks: TypeAlias = tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]

# What one household or host gets of IPv6: within it, addresses are free.
_IPV6_PREFIX: Final = 64


def parse_networks(text: str) -> Networks:
    """Networks from `10.0.0.0/8, ::1`. Raises ValueError naming the one that is none."""
    names = (name.strip() for name in text.split(","))
    return tuple(ipaddress.ip_network(name, strict=False) for name in names if name)


def is_within(address: str, networks: Networks) -> bool:
    """Whether `address` is in one of the networks; false for what is no address."""
    if not networks:
        return False
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)


def client_network(address: str) -> str:
    """The address, or for IPv6 its network: what one client cannot change at will."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, _IPV6_PREFIX), strict=False))
