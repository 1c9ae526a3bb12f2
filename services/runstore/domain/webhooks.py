"""Webhooks: where a run's end may be told to, and what is told.

A run's caller chooses the URL, and the store's machine calls it: an address that only this machine or its
network can reach must not be called for somebody else (server-side request forgery).
"""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from runstore.domain.errors import RunstoreError, invalid

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_MAX_URL_CHARACTERS: Final = 65_536
_DEFAULT_PORTS: Final[Mapping[str, int]] = {"http": 80, "https": 443}
_LOCAL_NAMES: Final = ("localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback")
# Services of clouds that tell credentials to whoever asks, at addresses that are not link-local.
_METADATA_ADDRESSES: Final = frozenset(
    map(ipaddress.ip_address, ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254"))
)
_METADATA_NAMES: Final = ("metadata.google.internal", "metadata.goog", "metadata")
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_TEMPLATE: Final = re.compile(r"\$\{\{\s*env\.([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")
_DEFAULT_ENV_PREFIX: Final = "LG_WEBHOOK_"
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A call that is to be made."""

    id: str
    tenant_id: str
    run_id: str
    url: str
    body: bytes
    """JSON object."""
    attempts: int
    """Times that it was tried, the present one included."""
    due_at_us: int
    created_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookPolicy:
    """Which URLs are called, and with which headers."""

    is_disabled: bool = False
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Sent with every call; may hold secrets."""
    allowed_fields: frozenset[str] | None = None
    """Keys of the body that are sent; all when None."""
    requires_https: bool = False
    allowed_domains: tuple[str, ...] = ()
    """Host names, `*.example.com` for all below one; any when empty."""
    allowed_ports: frozenset[int] = frozenset()
    """Any when empty."""
    refuses_loopback: bool = True
    refuses_private: bool = False
    """Addresses of private networks (RFC 1918, RFC 4193)."""
    max_url_characters: int = _MAX_URL_CHARACTERS

    def check_url(self, url: str) -> None:
        """Raises INVALID_ARGUMENT for a URL that must not be called.

        A name is not looked up: what it leads to may change, so `check_address` is for whoever calls it.
        """
        if self.is_disabled:
            raise _refused("webhooks are disabled")
        parts = _split(url, self.max_url_characters)
        if self.requires_https and parts.scheme != "https":
            raise _refused("not https")
        host = _host(parts)
        if self.allowed_domains and not any(_is_within(host, domain) for domain in self.allowed_domains):
            raise _refused("its host is not an allowed domain")
        if self.allowed_ports and (parts.port or _DEFAULT_PORTS[parts.scheme]) not in self.allowed_ports:
            raise _refused("its port is not allowed")
        if host in _METADATA_NAMES:
            raise _refused("its host must not be called")
        if self.refuses_loopback and (host in _LOCAL_NAMES or host.endswith(".localhost")):
            raise _refused("its host is this machine")
        if (address := _literal(host)) is not None:
            self.check_address(address)

    def check_address(self, address: Address) -> None:
        """Raises INVALID_ARGUMENT for an address that must not be called."""
        if isinstance(address, ipaddress.IPv6Address):
            # An IPv4 address in disguise is what it stands for.
            address = address.ipv4_mapped or address.sixtofour or _translated(address) or address
        if address in _METADATA_ADDRESSES or address.is_link_local:
            raise _refused("its address is link-local or tells of the machine")
        if (
            address.is_unspecified
            or address.is_multicast
            or (address.is_reserved and not address.is_loopback)
        ):
            raise _refused("its address is no machine's")
        if address.is_loopback:
            if self.refuses_loopback:
                raise _refused("its host is this machine")
        elif self.refuses_private and address.is_private:
            raise _refused("its address is private")

    def visible(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """What is sent of a body."""
        return {
            key: value
            for key, value in body.items()
            if self.allowed_fields is None or key in self.allowed_fields
        }


def webhook_policy(document: Mapping[str, Any], environment: Mapping[str, str]) -> WebhookPolicy:
    """The policy of a `langgraph.json`: its `webhooks`, and `http.disable_webhooks`.

    `${{ env.NAME }}` in a header stands for a variable of `environment` whose name begins with `env_prefix`.
    Raises INVALID_ARGUMENT, the field named, for what is not understood: no part of a policy may fall away
    silently.
    """
    webhooks = _object(document, "webhooks", "webhooks")
    url = _object(webhooks, "url", "webhooks.url")
    # Whoever restricts URLs means https, unless told.
    requires_https = _boolean(url, "require_https", default=bool(url))
    ports = url.get("allowed_ports") or []
    if not isinstance(ports, list) or not all(type(port) is int for port in ports):
        raise invalid("webhooks.url.allowed_ports", "not an array of numbers")
    longest = url.get("max_url_length", _MAX_URL_CHARACTERS)
    if type(longest) is not int or longest < 1:
        raise invalid("webhooks.url.max_url_length", "not a number above 0")
    fields = _texts(webhooks, "allowed_fields", "webhooks.allowed_fields")
    return WebhookPolicy(
        is_disabled=_boolean(_object(document, "http", "http"), "disable_webhooks", default=False),
        headers=_headers(webhooks, environment),
        allowed_fields=frozenset(fields) if fields is not None else None,
        requires_https=requires_https,
        allowed_domains=tuple(
            domain.lower() for domain in _texts(url, "allowed_domains", "webhooks.url.allowed_domains") or ()
        ),
        allowed_ports=frozenset(ports),
        refuses_loopback=_boolean(url, "disable_loopback", default=True),
        refuses_private=_boolean(url, "disable_private_ips", default=False),
        max_url_characters=min(longest, _MAX_URL_CHARACTERS),
    )


def _headers(webhooks: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, str]:
    prefix = webhooks.get("env_prefix", _DEFAULT_ENV_PREFIX)
    if not isinstance(prefix, str):
        raise invalid("webhooks.env_prefix", "not a text")

    def value_of(found: re.Match[str]) -> str:
        name = found.group(1)
        if not name.startswith(prefix) or name not in environment:
            raise invalid("webhooks.headers", f"{name} is not set, or does not begin with {prefix}")
        return environment[name]

    headers = {}
    for name, template in _object(webhooks, "headers", "webhooks.headers").items():
        if not isinstance(template, str) or not _HEADER_NAME.fullmatch(name):
            raise invalid("webhooks.headers", "not an object of texts by names of headers")
        value = _TEMPLATE.sub(value_of, template)
        if not (value.isascii() and value.isprintable()):
            raise invalid("webhooks.headers", f"{name} has a character that a header cannot carry")
        headers[name] = value
    return headers


def _object(parent: Mapping[str, Any], key: str, place: str) -> Mapping[str, Any]:
    value = parent.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise invalid(place, "not an object")
    return value


def _boolean(parent: Mapping[str, Any], key: str, *, default: bool) -> bool:
    value = parent.get(key, default)
    if not isinstance(value, bool):
        raise invalid(f"webhooks.{key}", "neither true nor false")
    return value


def _texts(parent: Mapping[str, Any], key: str, place: str) -> list[str] | None:
    value = parent.get(key)
    if value is not None and not (isinstance(value, list) and all(isinstance(each, str) for each in value)):
        raise invalid(place, "not an array of texts")
    return value


def _split(url: str, max_characters: int) -> SplitResult:
    if not url or len(url) > max_characters:
        raise _refused(f"not 1 to {max_characters} characters long")
    # What browsers would drop, and urlsplit does drop, must not make two readers see two hosts.
    if any(character.isspace() or not character.isprintable() or character == "\\" for character in url):
        raise _refused("has a character that no URL has")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _refused("not a URL") from error
    if parts.scheme not in _DEFAULT_PORTS:
        raise _refused("neither http nor https")
    if not parts.hostname or port == 0:
        raise _refused("names no host")
    return parts


def _host(parts: SplitResult) -> str:
    return (parts.hostname or "").lower().rstrip(".")


def _literal(host: str) -> Address | None:
    """The address that a host is; None for a name, as which odd spellings (`0x7f.1`) are looked up later."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def _translated(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address not in _NAT64:
        return None
    return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)


def _is_within(host: str, domain: str) -> bool:
    if domain.startswith("*."):
        return host.endswith(domain[1:])
    return host == domain


def _refused(problem: str) -> RunstoreError:
    return invalid("webhook", f"the URL of the webhook is refused: {problem}")
