"""The hosts of an engine: how each is reached, and which one is asked next."""

import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

_PAUSE_S: Final = 30.0
_SETTING: Final = "ch_"
# Not within the hosts of one DSN: what follows there is no scheme.
_BETWEEN_DSNS: Final = re.compile(r",(?=\w+://)")


@dataclass(frozen=True, slots=True)
class Host:
    """One host of the engine."""

    dsn: str = field(repr=False)  # May hold a password.
    """For the driver: `chdb://…` or `http(s)://user:password@host:port/database?option=…`."""
    settings: dict[str, str] = field(default_factory=dict)
    """Of the engine, for every statement."""

    @property
    def name(self) -> str:
        """Where it is, without credentials."""
        return urlsplit(self.dsn).netloc.rpartition("@")[2]

    @property
    def options(self) -> dict[str, Any]:
        """What the driver has to be told beside the DSN: it would choose TLS by the port."""
        scheme = urlsplit(self.dsn).scheme
        return {} if scheme == "chdb" else {"interface": scheme}


def hosts_of(dsn: str) -> tuple[Host, ...]:
    """Every host that a setting names, the preferred one first.

    `https://user:password@a:8443,b:8443/database?verify=false` names two that share all the rest. Those that
    do not are DSNs of their own, with commas between them. Options are those of
    `clickhouse_connect.get_client` (`ca_cert`, `client_cert`, `client_cert_key`, `verify`, `connect_timeout`
    and so on); one that begins with `ch_` is a setting of the engine. Raises ValueError, whose text repeats
    nothing of the DSN.
    """
    return tuple(host for each in _BETWEEN_DSNS.split(dsn) for host in _hosts_of(each))


def _hosts_of(dsn: str) -> list[Host]:
    parts = urlsplit(dsn)
    if parts.scheme == "chdb":
        return [Host(dsn)]
    if parts.scheme not in ("http", "https"):
        raise ValueError("neither http:// nor https://")
    options = parse_qsl(parts.query, keep_blank_values=True)
    query = urlencode([(name, value) for name, value in options if not name.startswith(_SETTING)])
    settings = {name.removeprefix(_SETTING): value for name, value in options if name.startswith(_SETTING)}
    credentials, at, names = parts.netloc.rpartition("@")
    return [
        Host(_verified(parts._replace(netloc=f"{credentials}{at}{name}", query=query)), settings)
        for name in names.split(",")
    ]


def _verified(parts: SplitResult) -> str:
    try:
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:  # The driver's words may hold a password.
        has_host = False
    if not has_host:
        raise ValueError("a host or port is missing or malformed")
    return urlunsplit(parts)


class Hosts:
    """Which hosts to ask, in which order: the first that is healthy, as long as it is.

    One that failed is left alone for a while; then one caller tries it again, and the others follow when it
    answers. Thread-safe.
    """

    def __init__(self, hosts: Sequence[Host], clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds that never go back."""
        self._hosts = hosts
        self._clock = clock
        self._away_until_s: dict[str, float] = {}
        self._lock = threading.Lock()

    def in_order(self) -> list[Host]:
        """All of them, those that failed lately last: the caller asks the next when one is away."""
        with self._lock:
            now_s = self._clock()
            healthy, away, is_tried = [], [], False
            for host in self._hosts:
                until_s = self._away_until_s.get(host.name)
                if until_s is None:
                    healthy.append(host)
                elif until_s <= now_s and not is_tried:
                    healthy.append(host)
                    is_tried = True
                    self._away_until_s[host.name] = now_s + _PAUSE_S
                else:
                    away.append(host)
            return healthy + away

    def answered(self, host: Host) -> None:
        """The host is healthy."""
        if host.name in self._away_until_s:
            with self._lock:
                self._away_until_s.pop(host.name, None)

    def failed(self, host: Host) -> bool:
        """The host is away; whether that is new."""
        with self._lock:
            is_new = host.name not in self._away_until_s
            self._away_until_s[host.name] = self._clock() + _PAUSE_S
            return is_new
