"""Where a call comes from."""

from urllib.parse import unquote

from runstore.domain.networks import Networks, is_within


def own_address(peer: str, trusted: Networks) -> str | None:
    """Address of a caller that answers for itself; None for gateways and proxies, which speak for many.

    `peer` as gRPC writes it: `ipv4:192.0.2.1:5`, `ipv6:%5B::1%5D:5`, `unix:PATH`.
    """
    if not peer.startswith(("ipv4:", "ipv6:")):
        return None
    address = unquote(peer[5:]).rpartition(":")[0].strip("[]")
    return None if is_within(address, trusted) else address
