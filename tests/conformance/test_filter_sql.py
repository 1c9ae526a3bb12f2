"""Filters on the real engine: the SQL of a condition selects exactly the merged runs that the contract says.

What merging, candidates and pages add is the matter of test_filters.
"""

import json
import string
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID

import clickhouse_connect
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runstore.domain.times import MICROSECOND
from runstore.query.binding import parse_condition
from runstore.query.filters import (
    parse,
)
from runstore.storage.clickhouse.cluster import SETTINGS as CLUSTER_SETTINGS
from runstore.storage.clickhouse.filter_sql import render
from runstore.storage.clickhouse.hosts import hosts_of
from runstore.storage.clickhouse.merged_sql import SqlCondition

from .conftest import CLUSTER
from .filter_oracle import NIL, START, Run, compact, satisfies

pytestmark = pytest.mark.engine

_MERGED_COLUMNS = {
    "run_id": "UUID",
    "project_id": "UUID",
    "trace_id": "UUID",
    "parent_run_ids": "Array(UUID)",
    "name": "String",
    "run_type": "LowCardinality(String)",
    "status": "String",
    "is_root": "Bool",
    "start_time": "DateTime64(6, 'UTC')",
    "end_time": "Nullable(DateTime64(6, 'UTC'))",
    "first_token_time": "Nullable(DateTime64(6, 'UTC'))",
    "latency": "Nullable(Float64)",
    "has_error": "Bool",
    "tags": "Array(String)",
    "metadata": "Map(LowCardinality(String), String)",
    "thread_id": "Nullable(String)",
    "reference_example_id": "Nullable(UUID)",
    "prompt_tokens": "Nullable(Int64)",
    "completion_tokens": "Nullable(Int64)",
    "total_tokens": "Nullable(Int64)",
    "prompt_cost": "Nullable(Decimal(38, 18))",
    "completion_cost": "Nullable(Decimal(38, 18))",
    "total_cost": "Nullable(Decimal(38, 18))",
    "prompt_token_details": "Map(LowCardinality(String), Int64)",
    "completion_token_details": "Map(LowCardinality(String), Int64)",
    "prompt_cost_details": "Map(LowCardinality(String), Decimal(38, 18))",
    "completion_cost_details": "Map(LowCardinality(String), Decimal(38, 18))",
    "price_model_id": "Nullable(UUID)",
    "ls_user_id": "String",
    "app_path": "String",
}


def row(run: Run, number: int) -> str:
    """The run as the engine reads it."""
    values = {name: getattr(run, name) for name in _MERGED_COLUMNS if name != "has_error"}
    values["has_error"] = run.error is not None
    values["metadata"] = {key: compact(value) for key, value in run.metadata.items()}
    return json.dumps(values | {"number": number}, default=lambda value: str(value).removesuffix("+00:00"))


# ---------------------------------------------------------------- generated runs and filters

_IDS = [NIL, *(UUID(int=0x1234_5678_0000_4000_8000_0000_0000_0000 + number) for number in range(3))]
_TEXTS = [
    "a",
    "A",
    "ab",
    "é",
    "É",
    "a%",
    "a_b",
    "it's",
    "\\",
    "a\\b",
    '"',
    "x\ny",
    "5",
    "5.0",
    "true",
    "null",
    "",
]
_KEYS = ["env", "user", "a.b", "a", "k'", ""]
_NUMBERS = ["0", "1", "5", "5.0", "-2.5", "0.1", "1e3", "9007199254740993", "1e30", "0.000000000000000001"]
_TIMES = [START + offset_us * MICROSECOND for offset_us in (0, 1, 100_000, 2_500_000, 60_000_000)]
_CATEGORIES = ["cache_read", "audio", "a.b"]

ids, texts = st.sampled_from(_IDS), st.sampled_from(_TEXTS)
_INTEGERS = st.sampled_from([0, 1, 5, 1000, 9_007_199_254_740_992, 9_007_199_254_740_993])
_COSTS = st.sampled_from(["0", "0.1", "5", "-2.5", "0.000000000000000001"]).map(Decimal)
_json_scalars = st.none() | st.booleans() | st.sampled_from([0, 5, -2.5, 1000, 9_007_199_254_740_993]) | texts
_json_values = _json_scalars | st.recursive(
    _json_scalars,
    lambda values: st.lists(values, max_size=2) | st.dictionaries(st.sampled_from(_KEYS), values, max_size=2),
    max_leaves=4,
)

runs = st.builds(
    Run,
    run_id=ids,
    project_id=ids,
    trace_id=ids,
    parent_run_ids=st.lists(ids, max_size=3),
    name=texts,
    run_type=st.sampled_from(["llm", "chain", "tool"]),
    status=st.sampled_from(["success", "error", "pending"]),
    error=st.none() | texts,
    app_path=texts,
    start_time=st.sampled_from(_TIMES[:3]),
    end_time=st.none() | st.sampled_from(_TIMES[2:]),
    first_token_time=st.none() | st.sampled_from(_TIMES),
    tags=st.lists(texts, max_size=3),
    metadata=st.dictionaries(st.sampled_from(_KEYS), _json_values, max_size=4),
    thread_id=st.none() | texts.filter(bool),
    reference_example_id=st.none() | ids,
    prompt_tokens=st.none() | _INTEGERS,
    completion_tokens=st.none() | _INTEGERS,
    total_tokens=st.none() | _INTEGERS,
    prompt_cost=st.none() | _COSTS,
    completion_cost=st.none() | _COSTS,
    total_cost=st.none() | _COSTS,
    prompt_token_details=st.dictionaries(st.sampled_from(_CATEGORIES), _INTEGERS, max_size=2),
    completion_token_details=st.dictionaries(st.sampled_from(_CATEGORIES), _INTEGERS, max_size=2),
    prompt_cost_details=st.dictionaries(st.sampled_from(_CATEGORIES), _COSTS, max_size=2),
    completion_cost_details=st.dictionaries(st.sampled_from(_CATEGORIES), _COSTS, max_size=2),
    price_model_id=st.none() | ids,
    ls_user_id=texts,
)

_text_literals = texts.map(json.dumps)
_patterns = st.lists(st.sampled_from(["%", "_", "\\", "a", "E", "é", "B", "5", "'"]), max_size=4).map(
    lambda parts: json.dumps("".join(parts))
)
_numbers = st.sampled_from(_NUMBERS)
_uuids = ids.map(lambda each: f'"{each}"')
_times = st.sampled_from(
    [
        '"2023-11-14T22:13:20Z"',
        '"2023-11-14T22:13:20.000001"',
        "2023-11-14T22:13:20.100000+00:00",
        '"2023-11-14"',
        '"0001-01-01"',
        '"9999-12-31T23:59:59.999999+00:00"',
    ]
)
_seconds = st.sampled_from(["0", "0.1", "2.5", '"100ms"', '"2.5s"', "59.9", "1e-30"])
_orders = st.sampled_from(["eq", "neq", "gt", "gte", "lt", "lte"])
_equals = st.sampled_from(["eq", "neq"])
_likes = st.sampled_from(["like", "notlike"])


def calls(
    names: list[str], functions: st.SearchStrategy[str], values: st.SearchStrategy[str]
) -> st.SearchStrategy[str]:
    return st.builds("{}({}, {})".format, functions, st.sampled_from(names), values)


def lists(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(values, max_size=3).map(lambda each: f"[{', '.join(each)}]")


_UUID_FIELDS = ["id", "trace_id", "session_id", "parent_run_id", "reference_example_id", "price_model_id"]
_TEXT_FIELDS = ["name", "thread_id", "ls_user_id"]
_TIME_FIELDS = ["start_time", "end_time", "first_token_time"]
_NUMBER_FIELDS = [
    *(f"{side}_{what}" for side in ("prompt", "completion", "total") for what in ("tokens", "cost")),
    *(f"{side}_{what}_details.cache_read" for side in ("prompt", "completion") for what in ("token", "cost")),
    "prompt_token_details.a.b",
    "execution_order",
]
_JSON_FIELDS = ["metadata.env", "metadata.a.b", "metadata.a", '"metadata.k\'"', "metadata.user.env"]
_ALL_FIELDS = [*_UUID_FIELDS, *_TEXT_FIELDS, *_TIME_FIELDS, *_NUMBER_FIELDS, *_JSON_FIELDS]
_ALL_FIELDS += ["run_type", "status", "is_root", "latency", "error", "tags", "parent_run_ids"]
_in, _has = st.just("in"), st.just("has")
_json_literals = _text_literals | _numbers
_key_literals = st.sampled_from(_KEYS).map(json.dumps)
_documents = st.dictionaries(st.sampled_from(_KEYS), _json_values, max_size=2).map(compact)

comparisons = st.one_of(
    calls(_UUID_FIELDS, _equals, _uuids),
    calls(_UUID_FIELDS, _in, lists(_uuids)),
    calls(_TEXT_FIELDS, _equals, _text_literals),
    calls(_TEXT_FIELDS, _in, lists(_text_literals)),
    calls([*_TEXT_FIELDS, "tags", *_JSON_FIELDS], _likes, _patterns),
    calls(["run_type"], _equals, st.sampled_from(['"llm"', '"LLM"', '"tool"'])),
    calls(["status"], _in, lists(st.sampled_from(['"error"', '"Success"', '"pending"']))),
    calls(["is_root"], _equals, st.sampled_from(["true", "False", '"true"'])),
    calls(_TIME_FIELDS, _orders, _times),
    calls(_TIME_FIELDS, _in, lists(_times)),
    calls(["latency"], _orders, _seconds),
    calls(["latency"], _in, lists(_seconds)),
    calls(_NUMBER_FIELDS, _orders, _numbers),
    calls(_NUMBER_FIELDS, _in, lists(_numbers)),
    calls(_ALL_FIELDS, _equals, st.just("null")),
    st.sampled_from([*_ALL_FIELDS, "metadata"]).map("exists({})".format),
    calls(["tags"], st.sampled_from(["has", "eq", "neq"]), _text_literals),
    calls(["parent_run_ids"], st.sampled_from(["has", "eq", "neq"]), _uuids),
    calls(["metadata"], st.just("exists"), _key_literals | st.just('"user.env"')),
    calls(["metadata"], _has, _documents.map(json.dumps)),
    calls(_JSON_FIELDS, _orders, _json_literals),
    calls(_JSON_FIELDS, _equals, st.sampled_from(["true", "false"])),
    calls(_JSON_FIELDS, _in, lists(_json_literals)),
)
row_tests = st.one_of(
    calls(["metadata_key"], _equals, _key_literals),
    calls(["metadata_key"], _in, lists(_key_literals)),
    calls(["metadata_key", "metadata_value"], _likes, _patterns),
    calls(["metadata_value"], _orders, _json_literals),
    calls(["metadata_value"], _equals, st.sampled_from(["true", "false"])),
    calls(["metadata_value"], _in, lists(_json_literals)),
)


def _joined(name: str) -> Callable[[list[str]], str]:
    return lambda operands: f"{name}({', '.join(operands)})"


filters = st.recursive(
    comparisons | row_tests | st.lists(row_tests, min_size=2, max_size=3).map(_joined("and")),
    lambda trees: st.one_of(
        st.lists(trees, min_size=1, max_size=3).map(_joined("and")),
        st.lists(trees, min_size=1, max_size=3).map(_joined("or")),
        trees.map("not({})".format),
    ),
    max_leaves=6,
)

# ---------------------------------------------------------------- the engine


class Engine:
    """A table of merged runs, and the runs in it."""

    def __init__(self, client: Any) -> None:
        self._client = client
        columns = ", ".join(f"{name} {sql_type}" for name, sql_type in _MERGED_COLUMNS.items())
        client.command(f"CREATE TABLE merged (number UInt32, {columns}) ENGINE = Memory")

    def store(self, stored: list[Run]) -> None:
        rows = "\n".join(row(run, number) for number, run in enumerate(stored))
        self._client.command("TRUNCATE TABLE merged")
        self._client.raw_insert("merged", insert_block=rows, fmt="JSONEachRow")

    def select(self, conditions: list[SqlCondition]) -> list[set[int]]:
        """Numbers of the runs that satisfy each condition; one statement for all of them."""
        parameters: dict[str, object] = {}
        for condition in conditions:
            assert parameters.keys().isdisjoint(condition.parameters)
            assert condition.columns <= _MERGED_COLUMNS.keys()
            parameters |= condition.parameters
        selects = []
        for index, condition in enumerate(conditions):
            # Each condition sees the columns that it declares and no others.
            source = f"(SELECT {', '.join({'number', *condition.columns})} FROM merged)"
            selects.append(f"SELECT {index} AS condition, number FROM {source} WHERE {condition.text}")
        selected: list[set[int]] = [set() for _ in conditions]
        for index, number in self._query(" UNION ALL ".join(selects), parameters):
            selected[index].add(number)
        return selected

    def _query(self, text: str, parameters: dict[str, object]) -> list[tuple[int, int]]:
        rows: list[tuple[int, int]] = self._client.query(text, parameters=parameters or None).result_rows
        return rows


@pytest.fixture(scope="session")
def engine(engine_dsn: str) -> Iterator[Engine]:
    [host] = hosts_of(engine_dsn)
    client = clickhouse_connect.get_client(
        dsn=host.dsn, settings={**(CLUSTER_SETTINGS if CLUSTER else {}), **host.settings}, **host.options
    )
    yield Engine(client)
    client.close()


def _render(texts_of_filters: list[str]) -> list[SqlCondition]:
    rendered = []
    for text, letter in zip(texts_of_filters, string.ascii_lowercase, strict=False):
        condition = parse_condition(text)
        assert condition is not None
        rendered.append(render(condition, f"{letter}_"))
    return rendered


_UNHURRIED: Any = {
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": [
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.large_base_example,
    ],
}
several_runs = st.lists(runs, min_size=6, max_size=24)
several_filters = st.lists(filters, min_size=12, max_size=24)


@given(several_runs, several_filters)
@settings(max_examples=40, **_UNHURRIED)
def test_the_engine_selects_what_the_contract_says(
    engine: Engine, stored: list[Run], asked: list[str]
) -> None:
    """Random filters over random runs: the engine and the oracle agree on every run."""
    agree(engine, stored, asked)


@pytest.mark.slow
@given(several_runs, several_filters)
@settings(max_examples=400, **_UNHURRIED)
def test_the_engine_selects_what_the_contract_says_for_long(
    engine: Engine, stored: list[Run], asked: list[str]
) -> None:
    """The same, ten times as often."""
    agree(engine, stored, asked)


def agree(engine: Engine, stored: list[Run], asked: list[str]) -> None:
    engine.store(stored)
    for text, selected in zip(asked, engine.select(_render(asked)), strict=True):
        tree = parse(text)
        assert tree is not None
        wanted = {number for number, run in enumerate(stored) if satisfies(run, tree)}
        assert selected == wanted, text


@pytest.mark.parametrize(
    ("document", "contained"),
    [
        ({"list": [1, {"x": "y"}]}, True),
        ({"list": [1.0, {"x": "y"}], "empty": {}}, True),
        ({"list": [{"x": "y"}, 1]}, False),
        ({"list": [1]}, False),
        ({"list": [1, {"x": "y", "z": None}]}, False),
        ({"empty": []}, False),
        ({"five": 5}, True),
        ({"five": "5"}, False),
        ({"text": 5}, False),
        ({"none": None}, True),
        ({"missing": None}, False),
    ],
)
def test_has_compares_json_with_json(engine: Engine, document: object, contained: bool) -> None:
    """Containment is of values, at any depth and in the order of lists, and types count."""
    metadata = {"list": [1, {"x": "y"}], "empty": {}, "five": 5, "text": "5", "none": None}
    engine.store([Run(metadata=metadata)])
    (selected,) = engine.select(_render([f"has(metadata, {json.dumps(json.dumps(document))})"]))
    assert selected == ({0} if contained else set())


_HOSTILE = [
    "' OR 1=1 --",
    '"; DROP TABLE merged; --',
    "{a_0:String}",
    "%(a_0)s",
    "') OR sleep(3) OR ('",
    "\\",
    "\\'",
    "\\N",
    "$$",
    "/*",
    "`run_id`",
    "\0",
    "\u202e\u2028",
    "name",
    "x" * 5_000,
]


@pytest.mark.parametrize("hostile", _HOSTILE)
@pytest.mark.parametrize(
    "filter_with",
    [
        "eq(name, {})",
        "in(name, [{}])",
        "eq(thread_id, {})",
        "eq(ls_user_id, {})",
        "has(tags, {})",
        "eq(metadata_key, {})",
        "and(eq(metadata_key, {0}), eq(metadata_value, {0}))",
        "exists(metadata, {})",
    ],
)
def test_hostile_text_is_only_text(engine: Engine, hostile: str, filter_with: str) -> None:
    """Whatever a string contains, it matches the run that has it, and leaves the table in place."""
    literal = json.dumps(hostile)
    bland = Run()
    carrier = replace(
        bland,
        name=hostile,
        thread_id=hostile,
        ls_user_id=hostile,
        tags=[hostile],
        metadata={hostile: hostile},
    )
    engine.store([carrier, bland])
    assert engine.select(_render([filter_with.format(literal)])) == [{0}]


@pytest.mark.parametrize("hostile", _HOSTILE)
@pytest.mark.parametrize(
    "filter_with",
    [
        "like(name, {})",
        "notlike(tags, {})",
        "like(metadata_key, {})",
        "like(metadata.env, {})",
        'eq("metadata.{raw}", 1)',
        'gt("prompt_token_details.{raw}", 1)',
        "has(metadata, {document})",
    ],
)
def test_hostile_text_never_fails_the_query(engine: Engine, hostile: str, filter_with: str) -> None:
    """Patterns, keys and documents of any content are answered, and with one answer per run."""
    literal = json.dumps(hostile)
    document = json.dumps(json.dumps({hostile: {hostile: [hostile]}}))
    text = filter_with.format(literal, raw=literal[1:-1], document=document)
    engine.store([Run(metadata={"env": "prod"})])
    (selected,), (opposite,) = engine.select(_render([text])), engine.select(_render([f"not({text})"]))
    assert (selected, opposite) in [({0}, set()), (set(), {0})]
