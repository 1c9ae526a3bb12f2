"""Conditions as ClickHouse expressions over one merged run per row.

Every value that stems from a request is a server-side parameter; the text of an expression
consists of the constants of this file and of parameter names alone. Expressions are true or false
and never NULL, as the conditions are: a comparison with a nullable column is wrapped.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from runstore.domain.conditions import (
    AllOf,
    Always,
    AnyOf,
    Compare,
    Condition,
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
    ListNotEmpty,
    MetadataContains,
    MetadataNotEmpty,
    MetadataPath,
    Not,
    OneOf,
    Operand,
    Present,
    Relation,
    RowFamily,
    RowPart,
    Scalar,
    ScalarField,
    SomeRow,
)


@dataclass(frozen=True, slots=True)
class SqlCondition:
    """A boolean expression, the values of its parameters, and the merged columns that it reads."""

    text: str
    parameters: dict[str, object]
    columns: frozenset[str]


def render(condition: Condition, prefix: str = "p") -> SqlCondition:
    """Render a condition; its parameters are `<prefix>0`, `<prefix>1` and so on.

    Filters that share a statement need different prefixes, of lower-case letters and underscores.
    """
    if not re.fullmatch(r"[a-z_]+", prefix):
        raise ValueError(f"not a parameter prefix: {prefix!r}")
    writer = _Writer(prefix)
    text = writer.condition(condition)
    return SqlCondition(text, writer.parameters, frozenset(writer.columns))


def metadata_texts(path: tuple[str, ...], prefix: str) -> SqlCondition:
    """An array: the text of the metadata value at a path (see `MetadataPath`); empty where there is none."""
    writer = _Writer(prefix)
    value = writer.metadata_at(path)
    text = f"arrayMap(v -> {_JSON_TEXT}, arrayFilter(v -> v NOT IN ('', 'null'), [{value}]))"
    return SqlCondition(text, writer.parameters, frozenset(writer.columns))


@dataclass(frozen=True, slots=True)
class _Column:
    """How a scalar is read from the merged row."""

    expression: str
    columns: frozenset[str]
    nullable: bool = False
    present: str = "true"
    """Whether there is a value."""
    number_type: str = "Int64"
    """Type that a whole number is compared as, so that the engine widens as little as possible."""


def _always(name: str) -> _Column:
    return _Column(name, frozenset({name}))


def _text(name: str) -> _Column:
    return _Column(name, frozenset({name}), present=f"{name} != ''")


def _nullable(name: str, number_type: str = "Int64") -> _Column:
    return _Column(name, frozenset({name}), True, f"{name} IS NOT NULL", number_type)


_MONEY = "Decimal(38, 18)"
_WIDEST_DECIMAL = "Decimal(76, 38)"
"""Holds every number that a filter can spell, exactly."""

_SCALARS: Mapping[ScalarField, _Column] = {
    ScalarField.RUN_ID: _always("run_id"),
    ScalarField.PROJECT_ID: _always("project_id"),
    ScalarField.TRACE_ID: _always("trace_id"),
    ScalarField.PARENT_RUN_ID: _Column(
        # Out of its bounds an array yields the zero UUID, which a client may well ask for.
        "if(empty(parent_run_ids), NULL, parent_run_ids[-1])",
        frozenset({"parent_run_ids"}),
        nullable=True,
        present="notEmpty(parent_run_ids)",
    ),
    ScalarField.REFERENCE_EXAMPLE_ID: _nullable("reference_example_id"),
    ScalarField.PRICE_MODEL_ID: _nullable("price_model_id"),
    ScalarField.THREAD_ID: _nullable("thread_id"),
    ScalarField.NAME: _text("name"),
    ScalarField.RUN_TYPE: _always("run_type"),
    ScalarField.STATUS: _always("status"),
    ScalarField.LS_USER_ID: _text("ls_user_id"),
    ScalarField.IS_ROOT: _always("is_root"),
    ScalarField.HAS_ERROR: _always("has_error"),
    ScalarField.START_TIME: _always("start_time"),
    ScalarField.END_TIME: _nullable("end_time"),
    ScalarField.FIRST_TOKEN_TIME: _nullable("first_token_time"),
    ScalarField.LATENCY: _nullable("latency", "Float64"),
    ScalarField.PROMPT_TOKENS: _nullable("prompt_tokens"),
    ScalarField.COMPLETION_TOKENS: _nullable("completion_tokens"),
    ScalarField.TOTAL_TOKENS: _nullable("total_tokens"),
    ScalarField.PROMPT_COST: _nullable("prompt_cost", _MONEY),
    ScalarField.COMPLETION_COST: _nullable("completion_cost", _MONEY),
    ScalarField.TOTAL_COST: _nullable("total_cost", _MONEY),
    ScalarField.EXECUTION_ORDER: _Column("toInt64(1)", frozenset()),
}

_DETAILS_NUMBER_TYPES: Mapping[DetailsField, str] = {
    DetailsField.PROMPT_TOKEN_DETAILS: "Int64",
    DetailsField.COMPLETION_TOKEN_DETAILS: "Int64",
    DetailsField.PROMPT_COST_DETAILS: _MONEY,
    DetailsField.COMPLETION_COST_DETAILS: _MONEY,
}

_LISTS: Mapping[ListField, str] = {
    ListField.TAGS: "tags",
    ListField.PARENT_RUN_IDS: "parent_run_ids",
}


@dataclass(frozen=True, slots=True)
class _Rows:
    """Where the rows of a family come from: two arrays that walk in step as `k` and `v`."""

    keys: str
    values: str
    exists: str
    """Whether `k` and `v` are a row at all."""
    columns: frozenset[str]


_ROWS: Mapping[RowFamily, _Rows] = {
    RowFamily.METADATA: _Rows(
        "mapKeys(metadata)", "mapValues(metadata)", "v != 'null'", frozenset({"metadata"})
    ),
}

_OPERATORS: Mapping[Relation, str] = {
    Relation.EQ: "=",
    Relation.GT: ">",
    Relation.GTE: ">=",
    Relation.LT: "<",
    Relation.LTE: "<=",
}

# Of a JSON value `v`: the content of a string, the JSON of anything else; and that as a number.
_JSON_TEXT = "if(startsWith(v, '\"'), JSONExtractString(v), v)"
_JSON_NUMBER = f"toDecimal256OrNull({_JSON_TEXT}, 38)"
_JSON_TYPES: Mapping[JsonContainer, str] = {JsonContainer.OBJECT: "Object", JsonContainer.ARRAY: "Array"}

_INT64 = range(-(2**63), 2**63)
_MONEY_SCALE = 18
_MONEY_DIGITS_BEFORE_POINT = 20


class _Writer:
    """Writes one expression, collecting its parameters and columns on the way."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.parameters: dict[str, object] = {}
        self.columns: set[str] = set()

    def condition(self, condition: Condition) -> str:
        match condition:
            case AllOf(conditions) | AnyOf(conditions):
                connective = " AND " if isinstance(condition, AllOf) else " OR "
                return "(" + connective.join(self.condition(each) for each in conditions) + ")"
            case Not(negated):
                return f"NOT ({self.condition(negated)})"
            case Always(value):
                return "true" if value else "false"
            case SomeRow(family, test):
                return self._some_row(family, test)
            case ListNotEmpty() | ListHas() | ListHasLike():
                return self._list(condition)
            case MetadataNotEmpty():
                return f"notEmpty({self._metadata()})"
            case MetadataContains(leaves):
                return "(" + " AND ".join(self._leaf(leaf) for leaf in leaves) + ")"
            case Compare() | OneOf() | Like() | Present():
                return self._scalar(condition)

    # ------------------------------------------------------------ operands

    def _scalar(self, condition: Compare | OneOf | Like | Present) -> str:
        match condition.operand:
            case MetadataPath(path):
                # The lambda names the value, which the test mentions more than once.
                test = self._json_test(condition)
                return f"arrayExists(v -> v NOT IN ('', 'null') AND {test}, [{self.metadata_at(path)}])"
            case RowPart.VALUE:
                return self._json_test(condition)
            case operand:
                return self._test(condition, self._column(operand))

    def _column(self, operand: Operand) -> _Column:
        match operand:
            case ScalarField():
                column = _SCALARS[operand]
            case DetailsEntry(details, category):
                name, key = details.value, self._parameter("String", category)
                column = _Column(
                    f"if(mapContains({name}, {key}), {name}[{key}], NULL)",
                    frozenset({name}),
                    nullable=True,
                    present=f"mapContains({name}, {key})",
                    number_type=_DETAILS_NUMBER_TYPES[details],
                )
            case RowPart.KEY:
                column = _Column("k", frozenset())
            case _:
                raise AssertionError(f"{operand} is JSON, not a column")
        self.columns |= column.columns
        return column

    def _test(self, condition: Compare | OneOf | Like | Present, column: _Column) -> str:
        if isinstance(condition, Present):
            return column.present
        text = self._relation(condition, column)
        return f"ifNull({text}, false)" if column.nullable else text

    def _relation(self, condition: Compare | OneOf | Like, column: _Column) -> str:
        """NULL where the column is."""
        match condition:
            case Compare(_, relation, value):
                return f"{column.expression} {_OPERATORS[relation]} {self._value(value, column.number_type)}"
            case OneOf(_, values):
                return self._membership(column, values)
            case Like(_, pattern):
                return f"{column.expression} ILIKE {self._parameter('String', pattern)}"

    def _json_test(self, condition: Compare | OneOf | Like | Present) -> str:
        """Test the JSON value `v`, which is there and not null."""
        match condition:
            case Compare(value=Decimal()) | OneOf(values=(Decimal(), *_)):
                return self._test(condition, _JSON_NUMBER_COLUMN)
            case _:
                return self._test(condition, _JSON_TEXT_COLUMN)

    # ------------------------------------------------------------ lists, rows and JSON

    def _list(self, condition: ListNotEmpty | ListHas | ListHasLike) -> str:
        name = _LISTS[condition.field]
        self.columns.add(name)
        match condition:
            case ListNotEmpty():
                return f"notEmpty({name})"
            case ListHas(_, value):
                return f"has({name}, {self._value(value)})"
            case ListHasLike(_, pattern):
                return f"arrayExists(v -> v ILIKE {self._parameter('String', pattern)}, {name})"

    def _some_row(self, family: RowFamily, test: Condition) -> str:
        rows = _ROWS[family]
        self.columns |= rows.columns
        text = self.condition(test)
        return f"arrayExists((k, v) -> {rows.exists} AND {text}, {rows.keys}, {rows.values})"

    def _metadata(self) -> str:
        self.columns.add("metadata")
        return "metadata"

    def metadata_at(self, path: tuple[str, ...]) -> str:
        """The JSON at a path; '' where there is none."""
        top = f"{self._metadata()}[{self._parameter('String', path[0])}]"
        if len(path) == 1:
            return top
        dotted = self._parameter("String", ".".join(path))
        below = ", ".join(self._parameter("String", key) for key in path[1:])
        return f"if(mapContains(metadata, {dotted}), metadata[{dotted}], JSONExtractRaw({top}, {below}))"

    def _leaf(self, leaf: JsonLeaf) -> str:
        key, *below = leaf.path
        place = f"{self._metadata()}[{self._parameter('String', key)}]"
        if below:
            steps = ", ".join(self._json_step(step) for step in below)
            place = f"JSONExtractRaw({place}, {steps})"
        return f"arrayExists(v -> {self._leaf_test(leaf)}, [{place}])"

    def _json_step(self, step: str | int) -> str:
        # ClickHouse counts array positions from 1, and tells keys from positions by their type.
        if isinstance(step, str):
            return self._parameter("String", step)
        return self._parameter("Int64", step + 1)

    def _leaf_test(self, leaf: JsonLeaf) -> str:
        match leaf.value:
            case str(text):
                return f"startsWith(v, '\"') AND JSONExtractString(v) = {self._parameter('String', text)}"
            case bool(value):
                return f"v = '{'true' if value else 'false'}'"
            case Decimal() as number:
                # A string is no number here, and does not parse for its quotes.
                literal = self._parameter(_WIDEST_DECIMAL, number)
                return f"ifNull(toDecimal256OrNull(v, 38) = {literal}, false)"
            case None:
                return "v = 'null'"
            case JsonShape(container, size):
                count = self._parameter("UInt64", size)
                return f"JSONType(v) = '{_JSON_TYPES[container]}' AND JSONLength(v) = {count}"

    # ------------------------------------------------------------ values

    def _value(self, value: Scalar, number_type: str = _WIDEST_DECIMAL) -> str:
        match value:
            case str():
                return self._parameter("String", value)
            case UUID():
                return self._parameter("UUID", str(value))
            case bool():
                return self._parameter("Bool", value)
            case Instant(time_us):
                return f"fromUnixTimestamp64Micro({self._parameter('Int64', time_us)}, 'UTC')"
            case Decimal():
                return self._number(value, number_type)

    def _number(self, value: Decimal, number_type: str) -> str:
        if number_type == "Float64":
            return self._parameter("Float64", float(value))
        if number_type == "Int64" and value == value.to_integral_value() and int(value) in _INT64:
            return self._parameter("Int64", int(value))
        if number_type == _MONEY and _is_money(value):
            return self._parameter(_MONEY, value)
        return self._parameter(_WIDEST_DECIMAL, value)

    def _membership(self, column: _Column, values: tuple[Scalar, ...]) -> str:
        """Membership in a list of one type, as one parameter."""
        expression = column.expression
        match values[0]:
            case str():
                return f"{expression} IN {self._parameter('Array(String)', list(values))}"
            case UUID():
                return f"{expression} IN {self._parameter('Array(UUID)', [str(each) for each in values])}"
            case bool():
                return f"{expression} IN {self._parameter('Array(Bool)', list(values))}"
            case Instant():
                times = [each.time_us for each in values if isinstance(each, Instant)]
                return f"has({self._parameter('Array(Int64)', times)}, toUnixTimestamp64Micro({expression}))"
            case Decimal() if column.number_type == "Float64":
                floats = [float(each) for each in values if isinstance(each, Decimal)]
                return f"{expression} IN {self._parameter('Array(Float64)', floats)}"
            case Decimal():
                # `IN` would round the list to the column's type; `has` compares exactly.
                array = self._parameter(f"Array({_WIDEST_DECIMAL})", list(values))
                return f"has({array}, toDecimal256({expression}, 38))"

    def _parameter(self, sql_type: str, value: object) -> str:
        name = f"{self._prefix}{len(self.parameters)}"
        self.parameters[name] = value
        return f"{{{name}:{sql_type}}}"


_JSON_TEXT_COLUMN = _Column(_JSON_TEXT, frozenset())
_JSON_NUMBER_COLUMN = _Column(_JSON_NUMBER, frozenset(), nullable=True, number_type=_WIDEST_DECIMAL)


def _is_money(value: Decimal) -> bool:
    """Whether a cost column could hold the number exactly."""
    exponent = value.as_tuple().exponent
    fits = isinstance(exponent, int) and exponent >= -_MONEY_SCALE
    return fits and value.adjusted() < _MONEY_DIGITS_BEFORE_POINT
