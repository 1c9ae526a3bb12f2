"""What a filter means, on plain Python values: the oracle of the engine.

Written from filter-language.md; it shares nothing with the binder or the SQL but the parser. A scene holds
the runs of one tenant, whose traces and feedback filters may ask about.
"""

import json
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

from runstore.domain.runs import RunQuery
from runstore.domain.times import EPOCH, MICROSECOND
from runstore.query.filters import (
    And,
    Boolean,
    Comparison,
    Filter,
    Function,
    Items,
    Literal,
    Not,
    Null,
    Number,
    Or,
    Text,
)

NIL = UUID(int=0)
START = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


@dataclass(frozen=True)
class Feedback:
    """One record; `value` is JSON in Python, None when there is none."""

    key: str
    score: float | None = None
    value: Any = None
    comment: str | None = None
    source: str = "api"
    error: bool = False
    modified_at: datetime = START


@dataclass(frozen=True)
class Run:
    """One merged run in Python values; latency in seconds."""

    run_id: UUID = NIL
    project_id: UUID = NIL
    trace_id: UUID = NIL
    parent_run_ids: list[UUID] = field(default_factory=list)
    name: str = "bland"
    run_type: str = "llm"
    status: str = "success"
    start_time: datetime = START
    end_time: datetime | None = None
    first_token_time: datetime | None = None
    tags: list[str] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    thread_id: str | None = None
    reference_example_id: UUID | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_cost: Decimal | None = None
    completion_cost: Decimal | None = None
    total_cost: Decimal | None = None
    prompt_token_details: dict[str, int] = field(default_factory=dict)
    completion_token_details: dict[str, int] = field(default_factory=dict)
    prompt_cost_details: dict[str, Decimal] = field(default_factory=dict)
    completion_cost_details: dict[str, Decimal] = field(default_factory=dict)
    price_model_id: UUID | None = None
    ls_user_id: str = ""
    inputs: str | None = None
    """JSON as sent, as the outputs."""
    outputs: str | None = None
    error: str | None = None
    attachments: tuple[str, ...] = ()
    """Names."""
    feedback: tuple[Feedback, ...] = ()
    app_path: str = ""

    @property
    def is_root(self) -> bool:
        return not self.parent_run_ids

    @property
    def latency(self) -> Decimal | None:
        return (
            None
            if self.end_time is None
            else Decimal((self.end_time - self.start_time) // MICROSECOND) / 1_000_000
        )


def compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


# ---------------------------------------------------------------- the oracle


def satisfies(run: Run, tree: Filter) -> bool:
    """Whether the contract selects the run."""
    match tree:
        case And(operands):
            rows = [each for each in operands if isinstance(each, Comparison) and is_row_test(each)]
            others = [operand for operand in operands if operand not in rows]
            return all(satisfies(run, other) for other in others) and all_pair(run, rows)
        case Or(operands):
            return any(satisfies(run, operand) for operand in operands)
        case Not(operand):
            return not satisfies(run, operand)
        case Comparison():
            return all_pair(run, [tree]) if is_row_test(tree) else compares(run, tree)


_FAMILIES = re.compile(
    r"(metadata|input|output)_(key|value)|(feedback)_(key|value|score|comment|source|error)"
)


def is_row_test(comparison: Comparison) -> bool:
    return _FAMILIES.fullmatch(field_of(comparison)) is not None


def family_of(test: Comparison) -> str:
    return field_of(test).split("_")[0]


def field_of(comparison: Comparison) -> str:
    return "" if comparison.attribute is None else str(comparison.attribute)


Row = dict[str, Any]


def rows_of(run: Run, family: str) -> list[Row]:
    """Section 4: the rows of a family."""
    match family:
        case "metadata":
            return [{"key": key, "value": value} for key, value in run.metadata.items() if value is not None]
        case "feedback":
            return [vars(record) for record in run.feedback]
        case _:
            text = run.inputs if family == "input" else run.outputs
            return [] if text is None else [{"key": k, "value": v} for k, v in leaves(json.loads(text), ())]


def leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """Every leaf with its path, array positions dropped; null, "" and empty containers are none."""
    if isinstance(value, dict):
        for key, child in value.items():
            yield from leaves(child, (*path, key))
    elif isinstance(value, list):
        for child in value:
            yield from leaves(child, path)
    elif value is not None and value != "":
        yield ".".join(path), value


def all_pair(run: Run, tests: list[Comparison]) -> bool:
    """The row tests of one `and`, family by family."""
    families = {family_of(test) for test in tests}
    return all(
        pairs(rows_of(run, family), [test for test in tests if family_of(test) == family])
        for family in families
    )


def pairs(rows: list[Row], tests: list[Comparison]) -> bool:
    """The table of section 4, line by line."""

    def part_of(test: Comparison) -> str:
        return field_of(test).split("_")[1]

    def some_row(*together: Comparison, negated: bool = True) -> bool:
        return any(all(fits(row, test, negated) for test in together) for row in rows)

    def fits(row: Row, test: Comparison, negated: bool) -> bool:
        part = part_of(test)
        result = scalar_holds(positive(test.function), row[part], test.value, is_json=part == "value")
        return result != (negated and is_negative(test))

    keys = [test for test in tests if part_of(test) == "key"]
    values = [test for test in tests if part_of(test) != "key"]
    if any(not is_negative(key) for key in keys):
        return some_row(*tests)
    if any(some_row(key, negated=False) for key in keys):
        return False
    if any(not is_negative(value) for value in values):
        return some_row(*values)
    return not any(some_row(value, negated=False) for value in values)


def is_negative(test: Comparison) -> bool:
    return test.function in (Function.NEQ, Function.NOTLIKE)


def positive(function: Function) -> Function:
    return {Function.NEQ: Function.EQ, Function.NOTLIKE: Function.LIKE}.get(function, function)


def compares(run: Run, test: Comparison) -> bool:
    function = positive(test.function)
    is_text = function is Function.SEARCH or field_of(test) in _PAYLOADS
    holds = text_holds if is_text else compares_positive
    return holds(run, test, function) != is_negative(test)


_DETAILS = re.compile(r"(prompt|completion)_(token|cost)_details\.(?P<key>.*)")


def compares_positive(run: Run, test: Comparison, function: Function) -> bool:
    name, value = field_of(test), test.value
    details = _DETAILS.fullmatch(name)
    if details:
        stored = getattr(run, name.split(".", 1)[0]).get(details["key"])
        return scalar_holds(function, stored, value)
    match name:
        case "tags" | "parent_run_ids" | "attachments":
            elements = getattr(run, name)
            if function is Function.EXISTS:
                return bool(elements)
            if isinstance(value, Null):
                return not elements
            wanted = Function.EQ if function is Function.HAS else function
            return any(scalar_holds(wanted, element, value) for element in elements)
        case "metadata" if function is Function.EXISTS:
            return (
                metadata_at(run, value.value) is not None if isinstance(value, Text) else bool(run.metadata)
            )
        case "metadata":
            assert isinstance(value, Text)
            wanted_pairs = json.loads(value.value).items()
            return all(k in run.metadata and same_json(run.metadata[k], v) for k, v in wanted_pairs)
        case _ if name.startswith("metadata."):
            return scalar_holds(function, metadata_at(run, name[len("metadata.") :]), value, is_json=True)
        case _:
            return scalar_holds(function, SCALARS.get(name, operator.attrgetter(name))(run), value)


_PAYLOADS = {"input": "inputs", "inputs": "inputs", "output": "outputs", "outputs": "outputs"}


def text_holds(run: Run, test: Comparison, function: Function) -> bool:
    """`search`, and everything about inputs and outputs: a pattern without % is words."""
    name, value = _PAYLOADS.get(field_of(test), field_of(test)), test.value
    is_words = name in ("inputs", "outputs") and isinstance(value, Text) and "%" not in value.value
    if function is Function.SEARCH or is_words:
        assert isinstance(value, Text)
        return searched(run, [name] if name else ["name", "inputs", "outputs", "error"], value.value)
    return scalar_holds(function, getattr(run, name), value)


def searched(run: Run, names: Sequence[str], words: str) -> bool:
    """All words, each in any of the texts, in any case; payloads are searched as JSON."""

    def contains(name: str, word: str) -> bool:
        text = getattr(run, name)
        if name in ("inputs", "outputs"):
            word = json.dumps(word, ensure_ascii=False)[1:-1]
        return text is not None and word.lower() in text.lower()

    return all(any(contains(name, word) for name in names) for word in words.split())


class Word(str):
    """A value that filters may write in any case."""

    __slots__ = ()


SCALARS: dict[str, Callable[[Run], object]] = {
    "id": operator.attrgetter("run_id"),
    "session_id": operator.attrgetter("project_id"),
    "parent_run_id": lambda run: run.parent_run_ids[-1] if run.parent_run_ids else None,
    "run_type": lambda run: Word(run.run_type),
    "status": lambda run: Word(run.status),
    "execution_order": lambda run: 1,
}
"""What is not just an attribute of the run."""


def metadata_at(run: Run, path: str) -> object:
    if path in run.metadata:
        return run.metadata[path]
    value: object = run.metadata
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def same_json(stored: object, wanted: object) -> bool:
    """Equal, and of the same JSON type (Python says that true equals 1)."""
    if isinstance(stored, dict) and isinstance(wanted, dict):
        return stored.keys() == wanted.keys() and all(same_json(stored[key], wanted[key]) for key in stored)
    if isinstance(stored, list) and isinstance(wanted, list):
        return len(stored) == len(wanted) and all(map(same_json, stored, wanted))
    return isinstance(stored, bool) == isinstance(wanted, bool) and stored == wanted


def scalar_holds(function: Function, stored: Any, value: Literal | None, *, is_json: bool = False) -> bool:
    """One positive function on one value; `is_json` are the rules of metadata values."""
    if function is Function.EXISTS:
        return stored not in (None, "") or (is_json and stored == "")
    if isinstance(value, Null):
        return not scalar_holds(Function.EXISTS, stored, None, is_json=is_json)
    if stored is None:
        return False
    if isinstance(value, Items):
        return any(scalar_holds(Function.EQ, stored, each, is_json=is_json) for each in value.values)
    if is_json:
        stored = stored if isinstance(stored, str) else compact(stored)
    if function is Function.LIKE:
        assert isinstance(value, Text)
        return like(stored, value.value)
    if is_json and isinstance(value, Number):
        number = as_number(stored)
        return number is not None and _RELATIONS[function](number, value.value)
    return _RELATIONS[function](stored, comparable(stored, value))


_RELATIONS: dict[Function, Callable[[Any, Any], bool]] = {
    Function.EQ: lambda stored, wanted: stored == wanted,
    Function.GT: lambda stored, wanted: stored > wanted,
    Function.GTE: lambda stored, wanted: stored >= wanted,
    Function.LT: lambda stored, wanted: stored < wanted,
    Function.LTE: lambda stored, wanted: stored <= wanted,
}


def as_number(text: str) -> Decimal | None:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() and text.strip() == text else None


def comparable(stored: object, literal: Literal | None) -> object:
    """The literal as a value of the stored one's type."""
    match literal:
        case Text(text) if isinstance(stored, datetime):
            moment = datetime.fromisoformat(text)
            return moment.replace(tzinfo=moment.tzinfo or UTC)
        case Text(text) if isinstance(stored, Word):
            return text.lower()
        case Text(text) if isinstance(stored, UUID):
            return UUID(text)
        case Text(text) if isinstance(stored, Decimal):
            return Decimal(text.rstrip("ms")) / (1000 if text.endswith("ms") else 1)
        case Text(text) if isinstance(stored, bool):
            return text.lower() == "true"
        case Text(text):
            return text
        case Boolean(value) if isinstance(stored, str):
            return str(value).lower()
        case Boolean(value) | Number(value):
            return value
    raise AssertionError(literal)


def like(text: str, pattern: str) -> bool:
    """SQL's LIKE in any case: % any run, _ one character, a backslash makes both literal."""
    expression, position = "", 0
    while position < len(pattern):
        escaped = pattern[position] == "\\" and pattern[position + 1 : position + 2] in ("%", "_", "\\")
        position += escaped
        wildcard = None if escaped else {"%": ".*", "_": "."}.get(pattern[position])
        expression += wildcard or re.escape(pattern[position])
        position += 1
    return re.fullmatch(expression, text, re.IGNORECASE | re.DOTALL) is not None


# ---------------------------------------------------------------- traces


@dataclass(frozen=True)
class Asked:
    """The filters of one question; None for none."""

    filter: Filter | None = None
    trace_filter: Filter | None = None
    tree_filter: Filter | None = None


def selected(runs: Sequence[Run], asked: Asked) -> set[UUID]:
    """Ids of the runs that satisfy all three filters; sections 5 to 7."""
    traces: dict[tuple[UUID, UUID], list[Run]] = {}
    for run in runs:
        traces.setdefault((run.project_id, run.trace_id), []).append(run)
    found = set()
    for trace in traces.values():
        roots = [run for run in trace if run.is_root]
        if asked.trace_filter is not None and not any(satisfies(run, asked.trace_filter) for run in roots):
            continue
        if asked.tree_filter is not None and not any(satisfies(run, asked.tree_filter) for run in trace):
            continue
        found |= {run.run_id for run in trace if asked.filter is None or satisfies(run, asked.filter)}
    return found


def is_between(time: datetime, first: datetime | None, before: datetime | None) -> bool:
    """From `first` on, before `before`."""
    return (first is None or time >= first) and (before is None or time < before)


def with_feedback_of(runs: Sequence[Run], first: datetime | None, before: datetime | None) -> list[Run]:
    """As if there were no other feedback than that modified in a time (runs-v2.md section 1)."""

    def counts(record: Feedback) -> bool:
        return is_between(record.modified_at, first, before)

    return [replace(run, feedback=tuple(filter(counts, run.feedback))) for run in runs]


def meets(run: Run, query: RunQuery) -> bool:
    """Whether a run is what a question asks for beside its filters and its page (runs-v1.md section 6)."""
    start_time_us = (run.start_time - EPOCH) // MICROSECOND
    return (
        (not query.project_ids or str(run.project_id) in query.project_ids)
        and (not query.run_ids or str(run.run_id) in query.run_ids)
        and (query.trace_id is None or str(run.trace_id) == query.trace_id)
        and (query.parent_run_id is None or query.parent_run_id in map(str, run.parent_run_ids[-1:]))
        and (not query.reference_example_ids or str(run.reference_example_id) in query.reference_example_ids)
        and (query.run_type is None or run.run_type == query.run_type)
        and (query.is_root is None or run.is_root == query.is_root)
        and (query.has_error is None or (run.error is not None) == query.has_error)
        and (query.min_start_time_us is None or start_time_us >= query.min_start_time_us)
        and (query.max_start_time_us is None or start_time_us <= query.max_start_time_us)
    )
