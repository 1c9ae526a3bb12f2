"""What questions become in SQL: their candidates, and the statement of a page.

`RUNSTORE_REWRITE_GOLDENS=1 pytest tests/unit/storage/test_planner_goldens.py` writes the file anew; read its
diff before committing.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runstore.domain.runs import Position, RunField, RunQuery, RunType
from runstore.query.binding import parse_condition
from runstore.storage.clickhouse.candidates import CandidateWriter
from runstore.storage.clickhouse.list_sql import KeyRange, RunListSql, condition_of

_GOLDEN = Path(__file__).parents[2] / "golden" / "planner" / "questions.txt"
_REWRITE = os.environ.get("RUNSTORE_REWRITE_GOLDENS") == "1"

_ID = "a36092d2-4ad5-4fb4-9c0d-0dba9a2ed836"
_QUESTIONS: dict[str, dict[str, Any]] = {
    "newest runs": {},
    "roots": {"is_root": True},
    "one trace": {"trace_id": _ID},
    "children of a run": {"parent_run_id": _ID, "run_type": RunType.TOOL},
    "runs of examples that failed": {"reference_example_ids": (_ID,), "has_error": True},
    "error, tag and latency": {"filter": 'and(eq(status, "error"), has(tags, "eu"), gt(latency, "1s"))'},
    "a metadata pair": {"filter": 'and(eq(metadata_key, "customer"), eq(metadata_value, "c-0042"))'},
    "a word": {"filter": 'search("quokkas")'},
    "a leaf": {"filter": 'and(eq(input_key, "messages.content"), like(input_value, "%refund%"))'},
    "feedback": {"filter": 'and(eq(feedback_key, "stars"), gt(feedback_score, 4))'},
    "a liked trace with a failed tool": {
        "filter": 'eq(run_type, "llm")',
        "trace_filter": 'and(eq(feedback_key, "user_score"), eq(feedback_score, 1))',
        "tree_filter": 'and(eq(run_type, "tool"), eq(status, "error"))',
    },
}


def _query(question: dict[str, Any]) -> RunQuery:
    given: dict[str, Any] = {
        name: parse_condition(value, name) if name.endswith("filter") else value
        for name, value in question.items()
    }
    return RunQuery(_ID, frozenset({RunField.NAME}), project_ids=(_ID,), **given)


def _lines(name: str, question: dict[str, Any]) -> Iterator[str]:
    query = _query(question)
    sql = RunListSql(query, KeyRange((_ID,)), condition_of(query))
    yield f"# {name}"
    for candidate in sql.candidates:
        yield f"candidate {candidate.rank.name.lower()}"
        yield from (f"  {source.table}: {source.where}" for source in candidate.sources)
    statement = sql.page(Position(5, _ID), Position(3, _ID), 101)
    yield "page"
    yield f"  {statement.text}"
    yield from (
        f"  {name} = {value!r}"
        for name, value in sorted(statement.parameters.items())
        if name.startswith(("candidate", "filter"))
    )


def test_questions_become_the_recorded_sql() -> None:
    """A change of what is read for any question is seen by whoever makes it."""
    blocks = ["\n".join(_lines(name, question)) for name, question in _QUESTIONS.items()]
    actual = "\n\n".join(blocks) + "\n"
    if _REWRITE:
        _GOLDEN.parent.mkdir(exist_ok=True)
        _GOLDEN.write_text(actual, encoding="utf-8")
    assert actual == _GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('or(has(tags, "a"), eq(name, "b"))', ["NAME runs"]),
        ('or(has(tags, "a"), search("word"))', ["TAG run_payloads runs"]),
        ('or(has(tags, "a"), not(eq(name, "b")))', []),
        ('not(has(tags, "a"))', []),
        ("neq(error, null)", ["ERROR runs"]),
        ('neq(status, "error")', []),
        ('in(status, ["success", "error"])', ["KIND runs"]),
        ('in(status, ["success", "pending"])', []),
        ("gt(total_cost, 1)", []),
        ('search("ok")', []),
        ('search("naïve")', []),
        ('search("ok refund")', ["WORD run_payloads run_payloads run_payloads runs"]),
        ('like(inputs, "%a_b%")', []),
        ("exists(metadata, 'a')", ["FIGURE runs"]),
        ("exists(metadata, 'a.b')", []),
        ("eq(metadata_value, 'a')", []),
        ('has(attachments, "a")', ["FILE run_attachments"]),
        ('and(eq(name, "a"), eq(trace_id, "' + _ID + '"))', ["TRACE runs", "NAME runs"]),
    ],
)
def test_candidates(text: str, expected: list[str]) -> None:
    """Positive conditions on what one row says have candidates, the rarest first; all others have none."""
    condition = parse_condition(text)
    assert condition is not None
    found = CandidateWriter("p").candidates(condition)
    assert [
        " ".join([each.rank.name, *sorted(source.table for source in each.sources)]) for each in found
    ] == expected
