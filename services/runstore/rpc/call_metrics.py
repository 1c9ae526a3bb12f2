"""Counts and times gRPC calls for Prometheus."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from runstore.domain.rate_limits import Measure, Scope

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class CallMetrics:
    """What happened to calls, by method. Methods are those that the server has: their number is bounded."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._calls = Counter(
            "runstore_grpc_calls", "Calls that have ended.", ["method", "code"], registry=registry
        )
        self._seconds = Histogram(
            "runstore_grpc_call_seconds",
            "Seconds from the request to the answer; streams, which last as they like, are left out.",
            ["method"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._under_way = Gauge(
            "runstore_grpc_calls_under_way", "Calls that have not ended yet.", ["method"], registry=registry
        )
        self._received = Counter(
            "runstore_grpc_received_bytes", "Bytes of requests.", ["method"], registry=registry
        )
        self._rate_limited = Counter(
            "runstore_rate_limit_refusals",
            "Calls refused because a key or tenant did too much in a second.",
            ["measure", "scope"],
            registry=registry,
        )
        for measure in Measure:
            for scope in Scope:
                self._rate_limited.labels(measure, scope)
        self._paused = Counter(
            "runstore_grpc_paused_calls",
            "Calls that waited because their caller goes on and on with what is refused.",
            registry=registry,
        )
        self._sent = Counter("runstore_grpc_sent_bytes", "Bytes of answers.", ["method"], registry=registry)

    def began(self, method: str) -> None:
        """A call has arrived; `method` is `/package.Service/Method`."""
        self._under_way.labels(_short(method)).inc()

    def rate_limited(self, measure: Measure, scope: Scope) -> None:
        """A call was refused because its key or tenant did too much."""
        self._rate_limited.labels(measure, scope).inc()

    def paused(self) -> None:
        """A call has to wait before anything is done for it."""
        self._paused.inc()

    def ended(self, method: str, code: str, seconds: float | None, *, received: int, sent: int) -> None:
        """A call has ended; `seconds` is None for a stream."""
        short = _short(method)
        self._under_way.labels(short).dec()
        self._calls.labels(short, code).inc()
        self._received.labels(short).inc(received)
        self._sent.labels(short).inc(sent)
        if seconds is not None:
            self._seconds.labels(short).observe(seconds)


def _short(method: str) -> str:
    """`RunIngestService/WriteRuns`, without its package."""
    return method.rpartition(".")[2]
