"""Tells of queries that take long: what they ask, without any value of theirs, and where the time went."""

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum

import structlog

from runstore.domain.runs import RunQuery

logger = structlog.get_logger()

Statements = list[tuple[float, float]]
"""Seconds that each statement waited for a reader of the engine, and took there."""

current_statements: ContextVar[Statements | None] = ContextVar("current_statements", default=None)
"""Where the statements of the query under way are noted; None when nobody wants to know."""


class SlowQueries:
    """Writes one warning for each query that takes longer than `slow_s`."""

    def __init__(self, slow_s: float) -> None:
        self._slow_s = slow_s

    @contextmanager
    def watch(self, kind: str, query: RunQuery) -> Iterator[None]:
        """Watch what is done for a query, also when it fails; `kind` is what is asked of its runs."""
        statements: Statements = []
        token = current_statements.set(statements)
        started_s = time.perf_counter()
        try:
            yield
        finally:
            current_statements.reset(token)
            if (took_s := time.perf_counter() - started_s) >= self._slow_s:
                logger.warning(
                    "slow_query",
                    kind=kind,
                    tenant_id=query.tenant_id,
                    ms=round(took_s * 1e3),
                    statements_ms=[round(ran_s * 1e3) for _, ran_s in statements],
                    waited_ms=round(sum(waited_s for waited_s, _ in statements) * 1e3),
                    **shape_of(query),
                )


def shape_of(query: RunQuery) -> dict[str, object]:
    """What a query asks: functions and fields of its conditions, order and page size; every value is `?`."""
    conditions = {
        name: shape(condition)
        for name in ("filter", "trace_filter", "tree_filter")
        if (condition := getattr(query, name)) is not None
    }
    given = [
        field.name
        for field in dataclasses.fields(query)
        if field.name not in _SAID and getattr(query, field.name) not in (None, (), False)
    ]
    order = "newest first" if query.descending else "oldest first"
    return {**conditions, "given": given, "order": order, "limit": query.limit, "fields": len(query.fields)}


_SAID = frozenset({"tenant_id", "fields", "limit", "descending", "filter", "trace_filter", "tree_filter"})


def shape(condition: object) -> str:
    """A condition with its values left out: `AllOf(Compare(name, eq, ?), Not(ListHas(tags, ?)))`."""
    if isinstance(condition, Enum):
        return str(condition.value)
    if dataclasses.is_dataclass(condition):
        parts = (shape(getattr(condition, field.name)) for field in dataclasses.fields(condition))
        return f"{type(condition).__name__}({', '.join(parts)})"
    if isinstance(condition, tuple) and condition and all(map(dataclasses.is_dataclass, condition)):
        return ", ".join(map(shape, condition))
    return "?"
