"""Conditions as ClickHouse expressions over one merged run per row.

Every value that stems from a request is a server-side parameter; the text of an expression
consists of the constants of this file and of parameter names alone. Expressions are true or false
and never NULL, as the conditions are: a comparison with a nullable column is wrapped.

What a run has in other tables is asked of those by sub-selects, which are as wide as the rows that
the runs under test come from.
"""

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import TypeAlias
from uuid import UUID

from runstore.domain.conditions import (
    AllOf,
    Always,
    AnyOf,
    Compare,
    Condition,
    Contains,
    DetailsEntry,
    Instant,
    JsonContainer,
    JsonLeaf,
    JsonShape,
    Like,
    ListField,
    ListHas,
    ListHasLike,
    ListNotEmpty,
    MetadataContains,
    MetadataNotEmpty,
    MetadataPath,
    Not,
    OneOf,
    Operand,
    Present,
    RowFamily,
    RowPart,
    Scalar,
    ScalarField,
    SomeRow,
    SomeRunOfTrace,
    TextField,
    ThreadField,
    TraceRoot,
)
from runstore.storage.clickhouse.feedback_sql import merged_feedback
from runstore.storage.clickhouse.merged_sql import KEY, SqlCondition, matching_runs
from runstore.storage.clickhouse.operands import (
    DETAILS_NUMBER_TYPES,
    JSON_NUMBER,
    JSON_TEXT,
    LISTS,
    MONEY,
    OPERATORS,
    ROW_PARTS,
    SCALARS,
    WIDEST_DECIMAL,
    Column,
)
from runstore.storage.clickhouse.payload_sql import leaves, merged_text, runs_with_payload
from runstore.storage.clickhouse.trace_sql import root_rows, trace_rows

TENANT_ROWS = "tenant_id = {tenant:UUID}"
"""Rows of all runs of the tenant; every statement binds `tenant`."""


def render(condition: Condition, prefix: str = "p", rows: str = TENANT_ROWS) -> SqlCondition:
    """Render a condition; its parameters are `<prefix>0`, `<prefix>1` and so on.

    Filters that share a statement need different prefixes, of lower-case letters and underscores. `rows` is
    a condition on the columns of the key, tenant included, that admits every run under test.
    """
    if not re.fullmatch(r"[a-z_]+", prefix):
        raise ValueError(f"not a parameter prefix: {prefix!r}")
    writer = ConditionWriter(prefix, {}, rows)
    text = writer.condition(condition)
    return SqlCondition(text, writer.parameters, writer.columns)


def metadata_texts(path: tuple[str, ...], prefix: str) -> SqlCondition:
    """An array: the text of the metadata value at a path (see `MetadataPath`); empty where there is none."""
    writer = ConditionWriter(prefix, {}, TENANT_ROWS)
    value = writer.metadata_at(path)
    text = f"arrayMap(v -> {JSON_TEXT.expression}, arrayFilter(v -> v NOT IN ('', 'null'), [{value}]))"
    return SqlCondition(text, writer.parameters, writer.columns)


_JSON_TYPES: Mapping[JsonContainer, str] = {JsonContainer.OBJECT: "Object", JsonContainer.ARRAY: "Array"}

_INT64 = range(-(2**63), 2**63)
_MONEY_SCALE = 18
_MONEY_DIGITS_BEFORE_POINT = 20


_OfRun: TypeAlias = (
    SomeRow
    | ListNotEmpty
    | ListHas
    | ListHasLike
    | MetadataNotEmpty
    | MetadataContains
    | Contains
    | Compare
    | OneOf
    | Like
    | Present
)


class ConditionWriter:
    """Writes one expression, collecting its parameters and columns on the way."""

    def __init__(
        self,
        prefix: str,
        parameters: dict[str, object],
        rows: str,
        scalars: Mapping[ScalarField | ThreadField, Column] = SCALARS,
    ) -> None:
        self._prefix = prefix
        self._rows = rows
        self._scalars = scalars
        self._row_parts: Mapping[RowPart, Column] = {}
        self.parameters = parameters
        self.columns: frozenset[str] = frozenset()

    def condition(self, condition: Condition) -> str:
        """The expression."""
        if texts := _texts_of(condition):
            return self._of_texts(condition, texts)
        match condition:
            case AllOf() | AnyOf():
                connective = " AND " if isinstance(condition, AllOf) else " OR "
                return "(" + connective.join(self.condition(each) for each in _gathered(condition)) + ")"
            case Not(negated):
                return f"NOT ({self.condition(negated)})"
            case Always(value):
                return "true" if value else "false"
            case TraceRoot() | SomeRunOfTrace():
                return self._in_trace(condition)
            case _:
                return self._of_run(condition)

    def _of_run(self, condition: _OfRun) -> str:
        match condition:
            case SomeRow(family, test):
                return self._some_row(family, test)
            case ListNotEmpty() | ListHas() | ListHasLike():
                return self._list(condition)
            case MetadataNotEmpty():
                return f"notEmpty({self._metadata()})"
            case MetadataContains(leaves):
                return "(" + " AND ".join(self._leaf(leaf) for leaf in leaves) + ")"
            case Contains(texts, word):
                large = tuple(text for text in texts if isinstance(text, TextField))
                tests = [self._contains(text, word) for text in texts if text not in large]
                return (
                    "("
                    + " OR ".join([*tests, *([self.condition(Contains(large, word))] if large else [])])
                    + ")"
                )
            case Compare() | OneOf() | Like() | Present():
                return self._scalar(condition)

    # ------------------------------------------------------------ operands

    def _scalar(self, condition: Compare | OneOf | Like | Present) -> str:
        match condition.operand:
            case MetadataPath(path):
                # The lambda names the value, which the test mentions more than once.
                test = self._json_test(condition)
                return f"arrayExists(v -> v NOT IN ('', 'null') AND {test}, [{self.metadata_at(path)}])"
            case RowPart.VALUE if RowPart.SCORE in self._row_parts:
                test = self._json_test(condition)
                return f"arrayExists(v -> v NOT IN ('', 'null') AND {test}, [value])"
            case RowPart.VALUE:
                return self._json_test(condition)
            case TextField() as field if isinstance(condition, Present):
                self.columns |= {f"has_{field.value}"}
                return f"has_{field.value}"
            case operand:
                return self._test(condition, self._column(operand))

    def _column(self, operand: Operand) -> Column:
        match operand:
            case ScalarField() | ThreadField():
                column = self._scalars[operand]
            case DetailsEntry(details, category):
                name, key = details.value, self.parameter("String", category)
                column = Column(
                    f"if(mapContains({name}, {key}), {name}[{key}], NULL)",
                    frozenset({name}),
                    nullable=True,
                    present=f"mapContains({name}, {key})",
                    number_type=DETAILS_NUMBER_TYPES[details],
                )
            case RowPart():
                column = self._row_parts[operand]
            case _:
                raise AssertionError(f"{operand} is JSON, not a column")
        self.columns |= column.columns
        return column

    def _test(self, condition: Compare | OneOf | Like | Present, column: Column) -> str:
        if isinstance(condition, Present):
            return column.present
        text = self._relation(condition, column)
        return f"ifNull({text}, false)" if column.nullable else text

    def _relation(self, condition: Compare | OneOf | Like, column: Column) -> str:
        """NULL where the column is."""
        match condition:
            case Compare(_, relation, value):
                return f"{column.expression} {OPERATORS[relation]} {self._value(value, column.number_type)}"
            case OneOf(_, values):
                return self._membership(column, values)
            case Like(_, pattern):
                return self._like(column.expression, pattern)

    def _json_test(self, condition: Compare | OneOf | Like | Present) -> str:
        """Test the JSON value `v`, which is there and not null."""
        match condition:
            case Compare(value=Decimal()) | OneOf(values=(Decimal(), *_)):
                return self._test(condition, JSON_NUMBER)
            case _:
                return self._test(condition, JSON_TEXT)

    # ------------------------------------------------------------ lists, rows and JSON

    def _list(self, condition: ListNotEmpty | ListHas | ListHasLike) -> str:
        if condition.field is ListField.ATTACHMENTS:
            files = f"SELECT {KEY} FROM run_attachments WHERE {self._rows} AND {self.file_test(condition)}"
            return f"({KEY}) IN ({files})"
        name = LISTS[condition.field]
        self.columns |= {name}
        match condition:
            case ListNotEmpty():
                return f"notEmpty({name})"
            case ListHas(_, value):
                return f"has({name}, {self._value(value)})"
            case ListHasLike(_, pattern):
                return f"arrayExists(v -> {self._like('v', pattern)}, {name})"

    def file_test(self, condition: ListNotEmpty | ListHas | ListHasLike) -> str:
        """A condition on the attachments of a run as one on a row of their table."""
        match condition:
            case ListNotEmpty():
                return "true"
            case ListHas(_, value):
                return f"name = {self._value(value)}"
            case ListHasLike(_, pattern):
                return self._like("name", pattern)

    def _some_row(self, family: RowFamily, test: Condition) -> str:
        self._row_parts = ROW_PARTS[family]
        text = self.condition(test)
        self._row_parts = {}
        match family:
            case RowFamily.METADATA:
                name = self._metadata()
                return f"arrayExists((k, v) -> v != 'null' AND {text}, mapKeys({name}), mapValues({name}))"
            case RowFamily.INPUTS | RowFamily.OUTPUTS:
                rows = leaves(merged_text(TextField(family.value)))
                return f"arrayExists(row -> arrayExists((k, v) -> {text}, [row.1], [row.2]), {rows})"
            case RowFamily.FEEDBACK:
                runs = f"{TENANT_ROWS} AND run_id IN (SELECT run_id FROM runs WHERE {self._rows})"
                return f"run_id IN (SELECT run_id FROM {merged_feedback(runs)} WHERE {text})"

    # ------------------------------------------------------------ other tables

    def _of_texts(self, condition: Condition, texts: frozenset[TextField]) -> str:
        """A condition on large texts alone, which runs may have none of."""
        test = self._text_test(condition)
        if _holds_without(condition):
            return f"({KEY}) NOT IN ({runs_with_payload(self._rows, texts, f'NOT {test}')})"
        return f"({KEY}) IN ({runs_with_payload(self._rows, texts, test)})"

    def _text_test(self, condition: Condition) -> str:
        match condition:
            case AllOf(conditions):
                return "(" + " AND ".join(map(self._text_test, conditions)) + ")"
            case AnyOf(conditions):
                return "(" + " OR ".join(map(self._text_test, conditions)) + ")"
            case Not(negated):
                return f"NOT ({self._text_test(negated)})"
            case SomeRow(family, test):
                return self._some_row(family, test)
            case Contains(texts, word):
                return "(" + " OR ".join(self._contains(text, word) for text in texts) + ")"
            case Like(TextField() as field, pattern):
                return self._like(merged_text(field), pattern)
            case _:
                raise AssertionError(f"{condition} is not about large texts")

    def _contains(self, text: ScalarField | TextField, word: str) -> str:
        pattern = pattern_of(spelled(word, text))
        if isinstance(text, ScalarField):
            return self._scalar(Like(text, pattern))
        return self._like(merged_text(text), pattern)

    def _in_trace(self, condition: TraceRoot | SomeRunOfTrace) -> str:
        self.columns |= {"trace_id"}
        is_root = isinstance(condition, TraceRoot)
        rows = root_rows(self._rows) if is_root else trace_rows(self._rows)
        inner = ConditionWriter(self._prefix, self.parameters, rows)
        text = inner.condition(condition.test)
        needed = SqlCondition(f"is_root AND {text}" if is_root else text, {}, inner.columns | {"is_root"})
        runs = matching_runs(rows, ["trace_id"], needed)
        found = "run_id" if is_root else "trace_id"
        return f"(project_id, trace_id) IN (SELECT project_id, {found} FROM ({runs}))"

    def _metadata(self) -> str:
        self.columns |= {"metadata"}
        return "metadata"

    def metadata_at(self, path: tuple[str, ...]) -> str:
        """The JSON at a path; '' where there is none."""
        top = f"{self._metadata()}[{self.parameter('String', path[0])}]"
        if len(path) == 1:
            return top
        dotted = self.parameter("String", ".".join(path))
        below = ", ".join(self.parameter("String", key) for key in path[1:])
        return f"if(mapContains(metadata, {dotted}), metadata[{dotted}], JSONExtractRaw({top}, {below}))"

    def _leaf(self, leaf: JsonLeaf) -> str:
        key, *below = leaf.path
        place = f"{self._metadata()}[{self.parameter('String', key)}]"
        if below:
            steps = ", ".join(self._json_step(step) for step in below)
            place = f"JSONExtractRaw({place}, {steps})"
        return f"arrayExists(v -> {self._leaf_test(leaf)}, [{place}])"

    def _json_step(self, step: str | int) -> str:
        # ClickHouse counts array positions from 1, and tells keys from positions by their type.
        if isinstance(step, str):
            return self.parameter("String", step)
        return self.parameter("Int64", step + 1)

    def _leaf_test(self, leaf: JsonLeaf) -> str:
        match leaf.value:
            case str(text):
                return f"startsWith(v, '\"') AND JSONExtractString(v) = {self.parameter('String', text)}"
            case bool(value):
                return f"v = '{'true' if value else 'false'}'"
            case Decimal() as number:
                # A string is no number here, and does not parse for its quotes.
                literal = self.parameter(WIDEST_DECIMAL, number)
                return f"ifNull(toDecimal256OrNull(v, 38) = {literal}, false)"
            case None:
                return "v = 'null'"
            case JsonShape(container, size):
                count = self.parameter("UInt64", size)
                return f"JSONType(v) = '{_JSON_TYPES[container]}' AND JSONLength(v) = {count}"

    # ------------------------------------------------------------ values

    def _value(self, value: Scalar, number_type: str = WIDEST_DECIMAL) -> str:
        match value:
            case str():
                return self.parameter("String", value)
            case UUID():
                return self.parameter("UUID", str(value))
            case bool():
                return self.parameter("Bool", value)
            case Instant(time_us):
                return f"fromUnixTimestamp64Micro({self.parameter('Int64', time_us)}, 'UTC')"
            case Decimal():
                return self._number(value, number_type)

    def _number(self, value: Decimal, number_type: str) -> str:
        if number_type == "Float64":
            return self.parameter("Float64", float(value))
        if number_type == "Int64" and value == value.to_integral_value() and int(value) in _INT64:
            return self.parameter("Int64", int(value))
        if number_type == MONEY and _is_money(value):
            return self.parameter(MONEY, value)
        return self.parameter(WIDEST_DECIMAL, value)

    def _membership(self, column: Column, values: tuple[Scalar, ...]) -> str:
        """Membership in a list of one type, as one parameter."""
        expression = column.expression
        match values[0]:
            case str():
                return f"{expression} IN {self.parameter('Array(String)', list(values))}"
            case UUID():
                return f"{expression} IN {self.parameter('Array(UUID)', [str(each) for each in values])}"
            case bool():
                return f"{expression} IN {self.parameter('Array(Bool)', list(values))}"
            case Instant():
                times = [each.time_us for each in values if isinstance(each, Instant)]
                return f"has({self.parameter('Array(Int64)', times)}, toUnixTimestamp64Micro({expression}))"
            case Decimal() if column.number_type == "Float64":
                floats = [float(each) for each in values if isinstance(each, Decimal)]
                return f"{expression} IN {self.parameter('Array(Float64)', floats)}"
            case Decimal():
                # `IN` would round the list to the column's type; `has` compares exactly.
                array = self.parameter(f"Array({WIDEST_DECIMAL})", list(values))
                return f"has({array}, toDecimal256({expression}, 38))"

    def _like(self, expression: str, pattern: str) -> str:
        """Whatever the case of letters: of ASCII alone, as the index of words knows it, if the pattern is."""
        if pattern.isascii():
            return f"lower({expression}) LIKE {self.parameter('String', pattern.lower())}"
        return f"{expression} ILIKE {self.parameter('String', pattern)}"

    def parameter(self, sql_type: str, value: object) -> str:
        """Bind a value; what stands for it in SQL."""
        name = f"{self._prefix}{len(self.parameters)}"
        self.parameters[name] = value
        return f"{{{name}:{sql_type}}}"


def _texts_of(condition: Condition) -> frozenset[TextField]:
    """The large texts of a condition on nothing else, which one sub-select answers; none for any other."""
    match condition:
        case Like(TextField() as field):
            return frozenset({field})
        case Contains(texts):
            fields = frozenset(text for text in texts if isinstance(text, TextField))
            return fields if len(fields) == len(texts) else frozenset()
        case SomeRow(RowFamily.INPUTS):
            return frozenset({TextField.INPUTS})
        case SomeRow(RowFamily.OUTPUTS):
            return frozenset({TextField.OUTPUTS})
        case Not(negated):
            return _texts_of(negated)
        case AllOf(conditions) | AnyOf(conditions):
            each = [_texts_of(part) for part in conditions]
            return frozenset().union(*each) if all(each) else frozenset()
        case _:
            return frozenset()


def _gathered(condition: AllOf | AnyOf) -> list[Condition]:
    """The parts, with those on large texts made one."""
    on_texts = [part for part in condition.conditions if _texts_of(part)]
    others = [part for part in condition.conditions if not _texts_of(part)]
    return [*others, type(condition)(tuple(on_texts))] if on_texts else others


def _holds_without(condition: Condition) -> bool:
    """What a condition on large texts is for a run that has none of them."""
    match condition:
        case Not(negated):
            return not _holds_without(negated)
        case AllOf(conditions):
            return all(map(_holds_without, conditions))
        case AnyOf(conditions):
            return any(map(_holds_without, conditions))
        case _:
            return False


def spelled(word: str, text: ScalarField | TextField) -> str:
    """The word as it stands in the text: payloads are searched as the JSON that they are."""
    is_json = text in (TextField.INPUTS, TextField.OUTPUTS)
    return json.dumps(word, ensure_ascii=False)[1:-1] if is_json else word


def pattern_of(word: str) -> str:
    """A pattern of all texts that contain the word."""
    return "%" + re.sub(r"([%_\\])", r"\\\1", word) + "%"


def _is_money(value: Decimal) -> bool:
    """Whether a cost column could hold the number exactly."""
    exponent = value.as_tuple().exponent
    fits = isinstance(exponent, int) and exponent >= -_MONEY_SCALE
    return fits and value.adjusted() < _MONEY_DIGITS_BEFORE_POINT
