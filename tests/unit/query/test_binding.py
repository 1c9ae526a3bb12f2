"""What filters mean: types, aliases of values, pairing, and refusals that say why and where."""

from decimal import Decimal
from uuid import UUID

import pytest

from runstore.domain.conditions import (
    AllOf,
    Always,
    AnyOf,
    Compare,
    Condition,
    Contains,
    DetailsEntry,
    DetailsField,
    Instant,
    JsonContainer,
    JsonLeaf,
    JsonShape,
    Like,
    ListField,
    ListHas,
    ListHasLike,
    MetadataContains,
    MetadataNotEmpty,
    MetadataPath,
    Not,
    OneOf,
    Present,
    Relation,
    RowFamily,
    RowPart,
    ScalarField,
    SomeRow,
    TextField,
)
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.query.binding import MAX_CONDITIONS, parse_condition
from runstore.query.fields import FUNCTIONS, RUN_FIELDS, SEARCHED, Kind

EQ = Relation.EQ
ID = UUID("a36092d2-4ad5-4fb4-9c0d-0dba9a2ed836")
NOON = Instant(1_689_424_496_000_000)


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        (f'eq(id, "{str(ID).upper()}")', Compare(ScalarField.RUN_ID, EQ, ID)),
        (f'in(session_id, ["{ID.hex}"])', OneOf(ScalarField.PROJECT_ID, (ID,))),
        ('eq(run_type, "LLM")', Compare(ScalarField.RUN_TYPE, EQ, "llm")),
        ('neq(status, "Error")', Not(Compare(ScalarField.STATUS, EQ, "error"))),
        ('eq(is_root, "True")', Compare(ScalarField.IS_ROOT, EQ, value=True)),
        ('gt(start_time, "2023-07-15T12:34:56Z")', Compare(ScalarField.START_TIME, Relation.GT, NOON)),
        ('lt(end_time, "2023-07-15T14:34:56+02:00")', Compare(ScalarField.END_TIME, Relation.LT, NOON)),
        ("gte(start_time, 2023-07-15T12:34:56.0000009)", Compare(ScalarField.START_TIME, Relation.GTE, NOON)),
        ('eq(end_time, "1970-01-01")', Compare(ScalarField.END_TIME, EQ, Instant(0))),
        ('gt(latency, "5s")', Compare(ScalarField.LATENCY, Relation.GT, Decimal(5))),
        ('lte(latency, "250ms")', Compare(ScalarField.LATENCY, Relation.LTE, Decimal("0.25"))),
        ('lt(latency, "1.5 m")', Compare(ScalarField.LATENCY, Relation.LT, Decimal(90))),
        ("neq(error, null)", Not(Not(Present(TextField.ERROR)))),
        ("eq(input, null)", Not(Present(TextField.INPUTS))),
        ('like(error, "time%")', Like(TextField.ERROR, "time%")),
        ('notlike(outputs, "%sorry%")', Not(Like(TextField.OUTPUTS, "%sorry%"))),
        (
            'notlike(inputs, "ping pong")',
            Not(AllOf((Contains((TextField.INPUTS,), "ping"), Contains((TextField.INPUTS,), "pong")))),
        ),
        ('search(name, "ChatOpenAI")', Contains((ScalarField.NAME,), "ChatOpenAI")),
        ('search("  a b\ta ")', AllOf((Contains(SEARCHED, "a"), Contains(SEARCHED, "b")))),
        ('search(output, "a%")', Contains((TextField.OUTPUTS,), "a%")),
        ('has(attachments, "a.png")', ListHas(ListField.ATTACHMENTS, "a.png")),
        ('like(app_path, "%/r/%")', Like(ScalarField.APP_PATH, "%/r/%")),
        ("eq(thread_id, null)", Not(Present(ScalarField.THREAD_ID))),
        ('notlike(name, "%a\\\\")', Not(Like(ScalarField.NAME, "%a\\\\"))),
        ('has(tags, "x")', ListHas(ListField.TAGS, "x")),
        ('neq(tags, "x")', Not(ListHas(ListField.TAGS, "x"))),
        ('like(tags, "x%")', ListHasLike(ListField.TAGS, "x%")),
        (f'eq(parent_run_ids, "{ID}")', ListHas(ListField.PARENT_RUN_IDS, ID)),
        (
            "gt(prompt_token_details.a.b, 1)",
            Compare(DetailsEntry(DetailsField.PROMPT_TOKEN_DETAILS, "a.b"), Relation.GT, Decimal(1)),
        ),
        ("exists(metadata)", MetadataNotEmpty()),
        ('exists(metadata, "a.b")', Present(MetadataPath(("a", "b")))),
        ("eq(metadata.a.b, true)", Compare(MetadataPath(("a", "b")), EQ, "true")),
        (
            'in(metadata.env, ["a", 1, "b"])',
            AnyOf(
                (OneOf(MetadataPath(("env",)), ("a", "b")), OneOf(MetadataPath(("env",)), (Decimal(1),))),
            ),
        ),
        ("in(name, [])", Always(value=False)),
        ("has(metadata, '{}')", Always(value=True)),
        (
            'has(metadata, \'{"a": {"b": [1, null]}}\')',
            MetadataContains(
                (
                    JsonLeaf(("a",), JsonShape(JsonContainer.OBJECT, 1)),
                    JsonLeaf(("a", "b"), JsonShape(JsonContainer.ARRAY, 2)),
                    JsonLeaf(("a", "b", 0), Decimal(1)),
                    JsonLeaf(("a", "b", 1), None),
                )
            ),
        ),
    ],
)
def test_condition(text: str, condition: Condition) -> None:
    """Literals arrive as values of the field's type, functions as conditions with one meaning."""
    assert parse_condition(text) == condition


def some_row(*tests: Condition) -> Condition:
    return SomeRow(RowFamily.METADATA, tests[0] if len(tests) == 1 else AllOf(tests))


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        (
            'and(eq(input_key, "a.b"), gt(input_value, 5))',
            SomeRow(
                RowFamily.INPUTS,
                AllOf(
                    (Compare(RowPart.KEY, EQ, "a.b"), Compare(RowPart.VALUE, Relation.GT, Decimal(5))),
                ),
            ),
        ),
        ('like(output_value, "%x%")', SomeRow(RowFamily.OUTPUTS, Like(RowPart.VALUE, "%x%"))),
        ("eq(feedback_score, true)", SomeRow(RowFamily.FEEDBACK, Compare(RowPart.SCORE, EQ, Decimal(1)))),
        ("neq(feedback_error, true)", Not(SomeRow(RowFamily.FEEDBACK, Compare(RowPart.ERROR, EQ, True)))),
        (
            'and(eq(feedback_key, "k"), in(feedback_source, ["api"]), eq(metadata_key, "k"))',
            AllOf(
                (
                    SomeRow(
                        RowFamily.FEEDBACK,
                        AllOf((Compare(RowPart.KEY, EQ, "k"), OneOf(RowPart.SOURCE, ("api",)))),
                    ),
                    SomeRow(RowFamily.METADATA, Compare(RowPart.KEY, EQ, "k")),
                )
            ),
        ),
    ],
)
def test_rows_of_families(text: str, condition: Condition) -> None:
    """Each family has its own rows, of its own parts; conditions on different families never pair."""
    assert parse_condition(text) == condition


KEY, VALUE = Compare(RowPart.KEY, EQ, "k"), Compare(RowPart.VALUE, EQ, "v")
EQ_KEY, NEQ_KEY = 'eq(metadata_key, "k")', 'neq(metadata_key, "k")'
EQ_VALUE, NEQ_VALUE = 'eq(metadata_value, "v")', 'neq(metadata_value, "v")'


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        (EQ_KEY, some_row(KEY)),
        (f"and({NEQ_KEY})", Not(some_row(KEY))),
        (f"and({EQ_KEY}, {EQ_VALUE})", some_row(KEY, VALUE)),
        (f"and({EQ_KEY}, {NEQ_VALUE})", some_row(KEY, Not(VALUE))),
        (f"and({NEQ_KEY}, {NEQ_VALUE})", AllOf((Not(some_row(KEY)), Not(some_row(VALUE))))),
        (f"and({NEQ_KEY}, {EQ_VALUE})", AllOf((Not(some_row(KEY)), some_row(VALUE)))),
        (f'and({EQ_KEY}, neq(metadata_key, "l"))', some_row(KEY, Not(Compare(RowPart.KEY, EQ, "l")))),
        (EQ_VALUE, some_row(VALUE)),
        (NEQ_VALUE, Not(some_row(VALUE))),
        (f"or({EQ_KEY}, {EQ_VALUE})", AnyOf((some_row(KEY), some_row(VALUE)))),
        (f"and({EQ_KEY}, or({EQ_VALUE}))", AllOf((some_row(VALUE), some_row(KEY)))),
        (f"not(and({EQ_KEY}, {EQ_VALUE}))", Not(some_row(KEY, VALUE))),
        (f"and(and({EQ_KEY}), {EQ_VALUE})", AllOf((some_row(KEY), some_row(VALUE)))),
        (
            f'and({EQ_KEY}, eq(name, "n"), {EQ_VALUE})',
            AllOf((Compare(ScalarField.NAME, EQ, "n"), some_row(KEY, VALUE))),
        ),
    ],
)
def test_pairing(text: str, condition: Condition) -> None:
    """The table of filter-language.md §4: what the direct children of one `and` say together."""
    assert parse_condition(text) == condition


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('eq(nme, "x")', "unknown field 'nme' at offset 3"),
        ("eq(run_count, 1)", "unknown field 'run_count' at offset 3"),
        ("eq(name.first, 1)", "unknown field 'name.first': name has no parts at offset 3"),
        ("gt(name, 5)", "gt cannot be used with name (but eq, neq, in, like, notlike, exists, search) at"),
        ("eq(name, 5)", "name expects text in quotes, not a number at offset 9"),
        ('eq(name, ["x"])', "name expects text in quotes, not a list at offset 9"),
        ("in(name, ['x', null])", "name expects text in quotes, not null at offset 15"),
        ('in(trace_id, ["abc123"])', "trace_id expects a UUID, not 'abc123' at offset 14"),
        (
            'eq(run_type, "agent")',
            "run_type expects one of chain, embedding, llm, parser, prompt, retriever, tool",
        ),
        ('eq(is_root, "yes")', "is_root expects true or false, not 'yes' at offset 12"),
        ('gt(start_time, "yesterday")', "start_time expects an ISO 8601 time such as"),
        ('gt(start_time, "2023-13-01")', "start_time expects an ISO 8601 time such as"),
        ("gt(start_time, 5)", "start_time expects an ISO 8601 time in quotes, not a number at offset 15"),
        ('gt(latency, "5 parsecs")', 'latency expects seconds, as a number or text such as "5s" or "250ms"'),
        ('gt(total_tokens, "many")', "total_tokens expects a number, not text at offset 17"),
        ('eq(error, "boom")', "error expects null, not text at offset 10"),
        (
            "gt(prompt_token_details, 1)",
            "needs a category, such as prompt_token_details.cache_read at offset 3",
        ),
        ('exists(name, "x")', "exists has a second argument for metadata only at offset 0"),
        ("has(metadata, 'x')", "metadata expects a JSON object in quotes, not 'x' at offset 14"),
        ("has(metadata, '[1]')", "metadata expects a JSON object in quotes"),
        ("has(metadata, '{\"a\": NaN}')", "metadata expects a JSON object in quotes"),
        ('has(metadata, \'{"a": "\\ud800"}\')', "metadata expects a JSON object in quotes"),
        ('has(metadata, \'{"a": ' + "[" * 5000 + "')", "metadata expects a JSON object in quotes"),
        ("gt(metadata.a, true)", "gt needs text or a number, not a boolean at offset 15"),
        ("eq(metadata_key, 5)", "metadata_key expects text in quotes, not a number at offset 17"),
        (
            "eq(metadata_value, null)",
            "metadata_value expects text in quotes, a number or a boolean, not null",
        ),
        ('search(" ")', "search expects at least one word at offset 7"),
        ('like(inputs, "")', "like expects at least one word at offset 13"),
        ('search(tags, "x")', "search cannot be used with tags (but eq, neq, like, notlike, has, exists) at"),
        ("like(inputs, 5)", "inputs expects a pattern in quotes, not a number at offset 13"),
        ('eq(inputs, "x")', "inputs expects null, not text at offset 11"),
        ('gt(feedback_score, "high")', "feedback_score expects a number, not text at offset 19"),
        ("eq(feedback_comment, 5)", "feedback_comment expects text in quotes, not a number at offset 21"),
        ("eq(feedback_error, 1)", "feedback_error expects true or false, not a number at offset 19"),
        ("eq(feedback_score, null)", "feedback_score expects a number, not null at offset 19"),
        ('and(gt(latency, 1), eq(share_token, "x"))', "share_token expects a UUID"),
        ('search("' + "x " * (MAX_CONDITIONS // 2) + " ".join(map(str, range(501))) + '")', "more than 500"),
        ("or(" + ",".join(["exists(name)"] * (MAX_CONDITIONS + 1)) + ")", "more than 500 conditions"),
    ],
)
def test_refusal(text: str, message: str) -> None:
    """A filter that means nothing is refused with the field, the expectation and the offset."""
    with pytest.raises(RunstoreError) as caught:
        parse_condition(text, "trace_filter")
    assert caught.value.reason is ErrorReason.INVALID_FILTER
    assert caught.value.field == "trace_filter"
    assert caught.value.message.startswith("Invalid trace_filter: ")
    assert message in caught.value.message


_SAMPLES = {
    Kind.UUID: f'"{ID}"',
    Kind.UUID_LIST: f'"{ID}"',
    Kind.TEXT: '"x"',
    Kind.TEXT_LIST: '"x"',
    Kind.BOOLEAN: "true",
    Kind.TIME: '"2023-07-15"',
    Kind.SECONDS: "5",
    Kind.NUMBER: "5",
    Kind.NUMBER_MAP: "5",
    Kind.LARGE_TEXT: "null",
    Kind.JSON_TEXT: "null",
    Kind.METADATA: "'{}'",
    Kind.ROW_KEY: '"x"',
    Kind.ROW_VALUE: '"x"',
    Kind.ROW_TEXT: '"x"',
    Kind.ROW_NUMBER: "5",
    Kind.ROW_BOOLEAN: "true",
}


@pytest.mark.parametrize("name", RUN_FIELDS)
def test_every_function_of_every_field_binds(name: str) -> None:
    """The tables hold no entry that the binder does not know."""
    field = RUN_FIELDS[name]
    attribute = f"{name}.x" if field.kind is Kind.NUMBER_MAP else name
    for function in FUNCTIONS[field.kind]:
        sample = f'"{min(field.words)}"' if field.words else _SAMPLES[field.kind]
        if function.value in ("like", "notlike", "search"):
            sample = '"%"'
        argument = {"in": f", [{sample}]", "exists": ""}.get(function, f", {sample}")
        assert parse_condition(f"{function}({attribute}{argument})") is not None
