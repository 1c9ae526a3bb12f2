"""Slow queries are told of by their shape alone."""

from decimal import Decimal

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
from runstore.domain.runs import RunQuery
from runstore.storage.clickhouse.slow_queries import SlowQueries, current_statements

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


def test_a_slow_query_says_what_it_asked_and_no_value() -> None:
    """Its conditions by function and field, its order and page, and how long each statement took."""
    with capture_logs() as lines, SlowQueries(0).watch("list", QUERY):
        noted = current_statements.get()
        assert noted is not None
        noted.append((0.5, 0.25))
    [line] = lines
    assert (line["event"], line["log_level"], line["kind"]) == ("slow_query", "warning", "list")
    assert line["filter"] == (
        "AllOf(Compare(name, eq, ?), Not(ListHas(tags, ?)), Compare(MetadataPath(?), gt, ?))"
    )
    assert (line["given"], line["order"], line["limit"]) == (["project_ids"], "newest first", 7)
    assert (line["statements_ms"], line["waited_ms"]) == ([250], 500)
    assert SECRET not in str(lines) and "4711" not in str(lines)  # noqa: PT018 - of one text


def test_quick_queries_are_not_told_of() -> None:
    """And nothing is noted for anybody afterwards."""
    with capture_logs() as lines, SlowQueries(60).watch("list", QUERY):
        pass
    assert lines == []
    assert current_statements.get() is None
