"""Counts and times what is asked of the catalog's database, for Prometheus."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

_SECONDS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5, 10, 30)

READ: Final = "read"
WRITE: Final = "write"


class CatalogMetrics:
    """How long transactions wait for a connection, and statements take."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        """`registry`: None when nobody looks."""
        registry = registry or CollectorRegistry()
        waits = Histogram(
            "runstore_catalog_wait_seconds",
            "Seconds until a transaction had its connection; of SQLite's writers, their turn included.",
            ["access"],
            buckets=_SECONDS,
            registry=registry,
        )
        statements = Histogram(
            "runstore_catalog_statement_seconds",
            "Seconds that a statement took; of a writer's first to SQLite, with its lock.",
            ["access"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._locks = Histogram(
            "runstore_catalog_lock_seconds",
            "Seconds that SQLite tried to lock the file for a writer, against other processes.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._timeouts = Counter(
            "runstore_catalog_lock_timeouts",
            "Transactions that failed because another process had SQLite locked for too long.",
            registry=registry,
        )
        self._waits = {access: waits.labels(access) for access in (READ, WRITE)}
        self._statements = {access: statements.labels(access) for access in (READ, WRITE)}

    def waited(self, access: str, seconds: float) -> None:
        """A transaction has its connection; `access` is READ or WRITE."""
        self._waits[access].observe(seconds)

    def ran(self, access: str, seconds: float) -> None:
        """A statement has ended."""
        self._statements[access].observe(seconds)

    def locked(self, seconds: float) -> None:
        """A writer to SQLite has its lock."""
        self._locks.observe(seconds)

    def timed_out(self) -> None:
        """SQLite has given up waiting for another process."""
        self._timeouts.inc()
