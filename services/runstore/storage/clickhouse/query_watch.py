"""Watches questions: how long each takes; of slow ones what they ask, without values, and where time went."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum
from typing import Any, Concatenate, ParamSpec, Protocol, TypeAlias, TypeVar

import structlog

from runstore.domain.query_kinds import QueryKind, current_kind
from runstore.runtime import spans
from runstore.storage.metrics import StorageMetrics

P = ParamSpec("P")
T = TypeVar("T")

logger = structlog.get_logger()

Statements = list[tuple[float, float]]
"""Seconds that each statement waited for a reader of the engine, and took there."""

current_statements: ContextVar[Statements | None] = ContextVar("current_statements", default=None)
"""Where the statements of the question under way are noted; None when nobody wants to know."""


class QueryWatch:
    """Times each question, and writes one warning for each that takes longer than `slow_s`."""

    def __init__(self, slow_s: float = math.inf, metrics: StorageMetrics | None = None) -> None:
        self._slow_s = slow_s
        self._metrics = metrics or StorageMetrics()

    @contextmanager
    def watch(
        self, kind: QueryKind, tenant_id: str, shape: Callable[[], Mapping[str, object]]
    ) -> Iterator[None]:
        """Watch what is done for a question, also when it fails. What it asks of others is part of it.

        `shape` says what it asks, without values.
        """
        if current_statements.get() is not None:
            yield
            return
        statements: Statements = []
        token = current_statements.set(statements)
        started_s = time.perf_counter()
        try:
            with spans.inner(f"query {kind.value}") as span:
                if span.is_recorded:
                    span.set({f"runstore.query.{name}": str(value) for name, value in shape().items()})
                yield
        finally:
            current_statements.reset(token)
            took_s = time.perf_counter() - started_s
            self._metrics.queried(kind, took_s)
            if took_s >= self._slow_s:
                logger.warning(
                    "slow_query",
                    kind=kind.value,
                    tenant_id=tenant_id,
                    ms=round(took_s * 1e3),
                    statements_ms=[round(ran_s * 1e3) for _, ran_s in statements],
                    waited_ms=round(sum(waited_s for waited_s, _ in statements) * 1e3),
                    **shape(),
                )


class _Watching(Protocol):
    _watch: QueryWatch


S = TypeVar("S", bound=_Watching)
Q = TypeVar("Q")


_Method: TypeAlias = Callable[Concatenate[S, Q, P], Coroutine[Any, Any, T]]


def watched(kind: QueryKind | None = None) -> "Callable[[_Method[S, Q, P, T]], _Method[S, Q, P, T]]":
    """Has a method watched that answers a query, its first argument. `kind`: None for the caller's word."""

    def wrap(method: "_Method[S, Q, P, T]") -> "_Method[S, Q, P, T]":
        @functools.wraps(method)
        async def watching(self: S, query: Q, /, *args: P.args, **kwargs: P.kwargs) -> T:
            asked = kind or current_kind.get()
            with self._watch.watch(asked, _runs_of(query).tenant_id, functools.partial(shape_of, query)):
                return await method(self, query, *args, **kwargs)

        return watching

    return wrap


_CONDITIONS = ("filter", "trace_filter", "tree_filter", "thread_filter")
_SAID = frozenset({"tenant_id", "fields", "limit", "descending", *_CONDITIONS})


def shape_of(query: Any) -> dict[str, object]:
    """What a query asks, for runs, statistics, threads or feedback: functions and fields of its conditions,
    what else is given, order, page size and number of fields; every value is `?`."""
    asked = _runs_of(query)
    conditions = {
        name: shape(condition)
        for name in _CONDITIONS
        if (condition := getattr(asked, name, None)) is not None
    }
    given = [
        field.name
        for field in dataclasses.fields(asked)
        if field.name not in _SAID and getattr(asked, field.name) not in (None, (), False, 0)
    ]
    if (grouping := getattr(query, "grouping", None)) is not None:
        given.append(f"grouping by {grouping.attribute.value}")
    order = "newest first" if getattr(asked, "descending", True) else "oldest first"
    fields = len(getattr(query, "fields", ()))
    return {**conditions, "given": given, "order": order, "limit": asked.limit, "fields": fields}


def _runs_of(query: Any) -> Any:
    """The query for runs in a query for their statistics; else the query itself."""
    return getattr(query, "runs", query)


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
