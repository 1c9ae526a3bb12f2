"""Metrics of the gateways: each worker counts for itself, and whichever is asked asks all the others.

Several workers share one port, so a scrape reaches any of them. Each shows its own figures on a Unix socket
in a common folder: it writes them and closes. A worker that has died, or is stuck, is left out. Every series
carries the worker's name, so that one that starts anew is a counter that starts anew, as Prometheus expects.
(The client library's own way, files that all workers map into memory, kills them when the disk is full.)
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SUFFIX: Final = ".sock"
_PATIENCE_S: Final = 1.0
_CHUNK_BYTES: Final = 65_536
_PID: Final = "runstore_gateway_pid"
# Clients may send any method and must not make a series of each.
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"})


class GatewayMetrics:
    """What one worker counts. Routes are templates: their number is bounded."""

    def __init__(self, worker: str, folder: Path | None) -> None:
        """`folder`: where the sockets of all workers are; None for a worker that is alone."""
        # When a series began says nothing here, and doubles their number.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self._worker = worker
        self._folder = folder
        self.registry = registry = CollectorRegistry()
        self._requests = Counter(
            "runstore_http_requests",
            "Calls that were answered; status 499 when the client hung up first.",
            ["method", "route", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "runstore_http_request_seconds",
            "Seconds from the head of a request to the end of its answer.",
            ["method", "route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._received = Counter(
            "runstore_http_received_bytes", "Bytes of bodies as they travelled.", ["route"], registry=registry
        )
        self._sent = Counter(
            "runstore_http_sent_bytes", "Bytes of answers' bodies.", ["route"], registry=registry
        )
        self._store_retries = Counter(
            "runstore_gateway_store_retries",
            "Times that a call to the store was repeated because the store was away.",
            registry=registry,
        )
        self._slow_clients = Counter(
            "runstore_http_slow_clients",
            "Connections that were ended because a request, its head or its body came too slowly.",
            ["owed"],
            registry=registry,
        )
        self._pauses = Counter(
            "runstore_http_paused_calls",
            "Calls that had to wait because their caller went on and on with what was refused.",
            registry=registry,
        )
        self._turned_away = Counter(
            "runstore_http_turned_away_connections",
            "Connections that were not taken in because their address had too many.",
            registry=registry,
        )
        Gauge(_PID, "Number of the process.", registry=registry).set(os.getpid())
        ProcessCollector("runstore_gateway", registry=registry)

    def answered(
        self, method: str, route: str, status: int, seconds: float, *, received: int, sent: int
    ) -> None:
        """A call has ended."""
        known_method = method if method in _METHODS else "other"
        self._requests.labels(known_method, route, str(status)).inc()
        self._seconds.labels(known_method, route).observe(seconds)
        self._received.labels(route).inc(received)
        self._sent.labels(route).inc(sent)

    def slow_client_cut(self, owed: str) -> None:
        """A connection was ended that owed a request, the rest of its head, or of its body."""
        self._slow_clients.labels(owed).inc()

    def call_paused(self) -> None:
        """A call had to wait because of what its caller had been refused before."""
        self._pauses.inc()

    def connection_turned_away(self) -> None:
        """A connection was not taken in because its address had too many."""
        self._turned_away.inc()

    def store_retried(self) -> None:
        """The store was away, and is asked again."""
        self._store_retries.inc()

    async def exposition(self) -> bytes:
        """The figures of all workers, as text in Prometheus' format."""
        if self._folder is None:
            own = {self._worker: self._own()}
            return prometheus_client.generate_latest(_Labelled(own))
        # In a thread, because one of the sockets is ours.
        return await asyncio.to_thread(prometheus_client.generate_latest, GatewayCollector(self._folder))

    @asynccontextmanager
    async def shown(self) -> AsyncIterator[None]:
        """Lets the others, and the store, see the figures of this worker."""
        if self._folder is None:
            yield
            return

        async def show(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(ConnectionError):
                writer.write(self._own())
                await writer.drain()
                writer.close()
                await writer.wait_closed()

        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{self._worker}{_SUFFIX}"
        path.unlink(missing_ok=True)
        async with await asyncio.start_unix_server(show, path):
            yield
        path.unlink(missing_ok=True)

    def _own(self) -> bytes:
        return prometheus_client.generate_latest(self.registry)


class GatewayCollector(Collector):
    """Asks every worker on this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        """All series of all workers. Blocks, a second at most for each worker that does not answer."""
        return _Labelled(self._answers()).collect()

    def pids(self) -> list[tuple[str, int]]:
        """Name and process of each worker that answers."""
        return [
            (sample.labels["worker"], int(sample.value))
            for family in self.collect()
            if family.name == _PID
            for sample in family.samples
        ]

    def _answers(self) -> dict[str, bytes]:
        answers = {}
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            with suppress(OSError):
                answers[path.stem] = _ask(path)
        return answers


class _Labelled(Collector):
    """Puts expositions of several workers together, each sample with its worker's name."""

    def __init__(self, expositions: dict[str, bytes]) -> None:
        self._expositions = expositions

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for worker, exposition in self._expositions.items():
            for family in text_string_to_metric_families(exposition.decode()):
                merged = families.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type)
                )
                merged.samples += [
                    sample._replace(labels={**sample.labels, "worker": worker}) for sample in family.samples
                ]
        yield from families.values()


def store_up(*, is_up: bool) -> bytes:
    """What a gateway can say of the store by itself."""
    registry = CollectorRegistry()
    up = Gauge("runstore_store_up", "1 when the store has answered this scrape, else 0.", registry=registry)
    up.set(is_up)
    return prometheus_client.generate_latest(registry)


def _ask(path: Path) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_PATIENCE_S)
        connection.connect(str(path))
        return b"".join(iter(lambda: connection.recv(_CHUNK_BYTES), b""))
