"""Addresses and networks of the Internet Protocol, as settings name them."""

import ipaddress
from typing import TypeAlias

Networks: TypeAlias = tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]


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
