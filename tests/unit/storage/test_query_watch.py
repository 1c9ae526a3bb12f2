"""Questions are counted by what they ask for; slow ones are told of by their shape alone."""

from decimal import Decimal

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from runstore.domain.conditions import (
    AllOf,
    Compare,
    ListField,
    ListHas,
    MetadataPath,
    Not,
    Relation,
    ScalarField,
)
from runstore.domain.feedback import FeedbackQuery
from runstore.domain.query_kinds import QueryKind, asking_for
from runstore.domain.run_stats import GroupAttribute, Grouping, StatsField, StatsQuery
from runstore.domain.runs import RunQuery
from runstore.domain.threads import ThreadQuery
from runstore.storage.clickhouse.query_watch import QueryWatch, current_statements, shape_of, watched
from runstore.storage.metrics import StorageMetrics

SECRET = "a secret"
QUERY = RunQuery(
    "tenant",
    frozenset(),
    project_ids=(SECRET,),
    filter=AllOf(
        (
            Compare(ScalarField.NAME, Relation.EQ, SECRET),
            Not(ListHas(ListField.TAGS, SECRET)),
            Compare(MetadataPath((SECRET,)), Relation.GT, Decimal(4711)),
        )
    ),
    limit=7,
)


class Store:
    """Answers any query, with one statement that waited for half a second and took a quarter of one."""

    def __init__(self, watch: QueryWatch) -> None:
        self._watch = watch

    @watched()
    async def list_runs(self, query: RunQuery, /) -> int:
        noted = current_statements.get()
        assert noted is not None
        noted.append((0.5, 0.25))
        return query.limit

    @watched(QueryKind.THREADS)
    async def list_threads(self, query: ThreadQuery, /) -> int:
        return await self.list_runs(QUERY)


async def test_a_slow_query_says_what_it_asked_and_no_value() -> None:
    """Its conditions by function and field, its order and page, and how long each statement took."""
    with capture_logs() as lines:
        assert await Store(QueryWatch(0)).list_runs(QUERY) == 7
    [line] = lines
    assert (line["event"], line["log_level"], line["kind"]) == ("slow_query", "warning", "list")
    assert line["filter"] == (
        "AllOf(Compare(name, eq, ?), Not(ListHas(tags, ?)), Compare(MetadataPath(?), gt, ?))"
    )
    assert (line["given"], line["order"], line["limit"]) == (["project_ids"], "newest first", 7)
    assert (line["statements_ms"], line["waited_ms"]) == ([250], 500)
    assert SECRET not in str(lines) and "4711" not in str(lines)  # noqa: PT018 - of one text


@pytest.mark.parametrize(
    ("query", "given"),
    [
        (
            StatsQuery(
                QUERY,
                frozenset({StatsField.RUN_COUNT}),
                Grouping(GroupAttribute.METADATA, path=(SECRET,), max_groups=3),
            ),
            ["project_ids", "grouping by metadata"],
        ),
        (ThreadQuery(SECRET, SECRET, filter=QUERY.filter, thread_filter=QUERY.filter), ["project_id"]),
        (FeedbackQuery(SECRET, keys=(SECRET,), offset=3), ["keys", "offset"]),
    ],
    ids=["stats", "threads", "feedback"],
)
def test_every_kind_of_query_has_a_shape_without_values(query: object, given: list[str]) -> None:
    """What is asked for, never whom."""
    told = shape_of(query)
    assert told["given"] == given
    assert SECRET not in str(told)


async def test_questions_are_counted_by_what_the_caller_asks_for() -> None:
    """What a question asks of the store in turn is part of it, and counted once."""
    registry = CollectorRegistry()
    store = Store(QueryWatch(metrics=StorageMetrics(registry)))
    await store.list_threads(ThreadQuery("tenant", "project"))
    await store.list_runs(QUERY)
    with asking_for(QueryKind.GET):
        await store.list_runs(QUERY)
    counts = {
        kind: registry.get_sample_value("runstore_query_seconds_count", {"kind": kind}) for kind in QueryKind
    }
    assert {kind: count for kind, count in counts.items() if count} == {"threads": 1, "list": 1, "get": 1}


async def test_quick_queries_are_not_told_of() -> None:
    """And nothing is noted for anybody afterwards."""
    with capture_logs() as lines:
        await Store(QueryWatch(60)).list_runs(QUERY)
    assert lines == []
    assert current_statements.get() is None
