"""The sixty examples of filter-language.md §11: what each becomes in SQL, or why it is refused.

`RUNSTORE_REWRITE_GOLDENS=1 pytest tests/unit/query/test_filter_goldens.py` writes the file anew;
read its diff before committing.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from runstore.domain.errors import RunstoreError
from runstore.query.binding import parse_condition
from runstore.query.filters import parse
from runstore.storage.clickhouse.filter_sql import render

_GOLDEN = Path(__file__).parents[2] / "golden" / "filters" / "examples.txt"
_REWRITE = os.environ.get("RUNSTORE_REWRITE_GOLDENS") == "1"

# (number, filter); number 50 consists of a filter, a trace filter and a tree filter.
EXAMPLES = [
    ("1", 'eq(name, "extractor")'),
    ("2", 'eq(run_type, "llm")'),
    ("3", 'eq(status, "error")'),
    ("4", 'neq(status, "error")'),
    ("5", "eq(is_root, true)"),
    ("6", 'gt(latency, "5s")'),
    ("7", "gt(latency, 10)"),
    ("8", "and(gte(latency, 2.5), lte(latency, 10))"),
    ("9", "gt(total_tokens, 5000)"),
    ("10", "neq(error, null)"),
    ("11", "eq(error, null)"),
    ("12", 'gt(start_time, "2023-07-15T12:34:56Z")'),
    ("13", 'and(gt(start_time, "2026-11-01T00:00:00+00:00"), lt(end_time, "2026-11-02T00:00:00+00:00"))'),
    ("14", 'search("substring")'),
    ("15", 'search("image classification")'),
    ("16", 'search(name, "ChatOpenAI")'),
    ("17", 'has(tags, "2aa1cf4")'),
    ("18", 'or(has(tags, "production"), has(tags, "v2"))'),
    ("19", 'and(or(has(tags, "experimental"), has(tags, "beta")), gt(latency, 2))'),
    ("20", 'and(eq(run_type, "chain"), gt(latency, 10), gt(total_tokens, 5000))'),
    ("21", "eq(metadata_key, 'user_id')"),
    ("22", "and(eq(metadata_key, 'user_id'), eq(metadata_value, '4070f233'))"),
    ("23", "and(eq(metadata_key,'test_run'),eq(metadata_value,'abc'))"),
    ("24", "and(eq(metadata_key, 'environment'), eq(metadata_value, 'production'))"),
    ("25", "and(neq(metadata_key, 'conversation_id'))"),
    ("26", "and(eq(metadata_key, 'conversation_id'), neq(metadata_value, 'a1'))"),
    ("27", "and(neq(metadata_key, 'conversation_id'), neq(metadata_value, 'a1'))"),
    ("28", "and(neq(metadata_key, 'conversation_id'), eq(metadata_value, 'a1'))"),
    ("29", "and(eq(name, 'ChatOpenAI'), eq(metadata_key, 'conversation_id'), eq(metadata_value, '69b1'))"),
    (
        "30",
        'and(in(metadata_key, ["session_id","conversation_id","thread_id"]), eq(metadata_value, "t1"))',
    ),
    ("31", 'eq(thread_id, "t1")'),
    ("32", r'and(eq(thread_id, "a \"b\""), eq(run_type, "llm"))'),
    (
        "33",
        (
            'and(and(eq(metadata_key,"a"),eq(metadata_value,"1")), '
            'and(eq(metadata_key,"b"),eq(metadata_value,"2")))'
        ),
    ),
    ("34", """has(metadata, '{"variant": "abc123"}')"""),
    ("35", 'eq(input_key, "input")'),
    ("36", 'and(eq(input_key, "input"), eq(input_value, "What is the capital of France?"))'),
    (
        "37",
        (
            'and(eq(run_type, "llm"), eq(name, "ChatOpenAI"), eq(input_key, "messages.content"), '
            'like(input_value, "%refund%"))'
        ),
    ),
    (
        "38",
        'and(eq(output_key, "documents.page_content"), eq(output_value, "The capital of France is Paris"))',
    ),
    (
        "39",
        'and(eq(output_key, "generations.message.kwargs.tool_calls.name"), eq(output_value, "Plan"))',
    ),
    ("40", 'notlike(inputs, "ping")'),
    ("41", 'like(outputs, "%sorry%")'),
    ("42", 'and(eq(feedback_key, "star_rating"), gt(feedback_score, 4))'),
    ("43", 'and(eq(feedback_key, "user_score"), eq(feedback_score, 1))'),
    ("44", 'eq(feedback_key, "correctness")'),
    ("45", 'and(neq(feedback_key, "correctness"))'),
    ("46", 'and(eq(feedback_key, "label"), eq(feedback_value, "toxic"))'),
    (
        "47",
        (
            'and(gt(start_time, "2023-07-15T12:34:56Z"), or(neq(status, "error"), '
            'and(eq(feedback_key, "Correctness"), eq(feedback_score, 0.0))))'
        ),
    ),
    ("48", 'and(eq(is_root, true), and(eq(feedback_key, "user_score"), eq(feedback_score, 1)))'),
    ("49", 'or(eq(feedback_key, "out_of_scope"), eq(feedback_key, "perceived_error"))'),
    ("50 filter", 'eq(name, "RetrieveDocs")'),
    ("50 trace_filter", 'and(eq(feedback_key, "user_score"), eq(feedback_score, 1))'),
    ("50 tree_filter", 'eq(name, "ExpandQuery")'),
    ("51 tree_filter", 'and(eq(run_type,"tool"), eq(status,"error"))'),
    ("52 trace_filter", 'eq(status, "success")'),
    ("53", 'in(trace_id, ["abc123", "def456"])'),
    ("54", 'lt(start_time, "2025-01-01T00:00:00Z")'),
    ("55", 'eq(trace_id, "0190a1b2-c3d4-7ef0-a5b6-6ea3a82e9328")'),
    ("56", 'not(has(tags, "test"))'),
    ("57", 'eq(parent_run_id, "a36092d2-4ad5-4fb4-9c0d-0dba9a2ed836")'),
    ("58 thread_filter", "and(gt(turn_count, 20), gt(num_errored_turns, 0))"),
    ("59", """and(not(has(metadata, '{"foo": "bar"}')), exists(metadata, "tenant_id"))"""),
    ("60", "and(eq(metadata.some_tag, 'some_value'), neq(metadata.env, 'dev'))"),
]


def outcome(text: str) -> Iterator[str]:
    """What becomes of a filter, line by line."""
    yield text
    try:
        condition = parse_condition(text)
    except RunstoreError as refusal:
        yield f"  {refusal.message}"
        return
    assert condition is not None
    sql = render(condition)
    yield f"  {sql.text}"
    yield from (f"  {name} = {value!r}" for name, value in sql.parameters.items())
    yield f"  reads {', '.join(sorted(sql.columns))}"


@pytest.mark.parametrize(("number", "text"), EXAMPLES, ids=[number for number, _ in EXAMPLES])
def test_every_example_parses(number: str, text: str) -> None:
    """All sixty are in the language, whether or not runstore answers them yet."""
    assert parse(text) is not None


def test_examples_become_the_recorded_sql() -> None:
    """A change of the SQL of any example is seen by whoever makes it."""
    blocks = ["\n".join([f"# {number}", *outcome(text)]) for number, text in EXAMPLES]
    actual = "\n\n".join(blocks) + "\n"
    if _REWRITE:
        _GOLDEN.write_text(actual, encoding="utf-8")
    assert actual == _GOLDEN.read_text(encoding="utf-8")
