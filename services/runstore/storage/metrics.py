"""Counts and times what is asked of the engine, for Prometheus; docs/operations.md explains each name."""

from typing import Final

from prometheus_client import CollectorRegistry, Histogram

from runstore.domain.query_kinds import QueryKind

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

READ: Final = "read"
"""A statement that one of the engine's readers ran."""
WRITE: Final = "write"
"""One that its writer ran."""


class StorageMetrics:
    """How long questions take, and their statements."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        """`registry`: None when nobody looks."""
        registry = registry or CollectorRegistry()
        queries = Histogram(
            "runstore_query_seconds",
            "Seconds that a question took in the store, by what it asks for; waiting for writes is left out.",
            ["kind"],
            buckets=_SECONDS,
            registry=registry,
        )
        waits = Histogram(
            "runstore_engine_wait_seconds",
            "Seconds that a statement waited for a thread that may talk to the engine.",
            ["access"],
            buckets=_SECONDS,
            registry=registry,
        )
        statements = Histogram(
            "runstore_engine_statement_seconds",
            "Seconds that a statement took in the engine.",
            ["access"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._of_kind = {kind: queries.labels(kind.value) for kind in QueryKind}
        self._of_access = {
            access: (waits.labels(access), statements.labels(access)) for access in (READ, WRITE)
        }

    def queried(self, kind: QueryKind, seconds: float) -> None:
        """A question was answered, or failed."""
        self._of_kind[kind].observe(seconds)

    def ran(self, access: str, waited_s: float, ran_s: float) -> None:
        """A statement has ended; `access` is READ or WRITE."""
        waits, statements = self._of_access[access]
        waits.observe(waited_s)
        statements.observe(ran_s)
