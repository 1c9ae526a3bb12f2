"""Gives a filter its meaning: checks it against the fields of a run and makes conditions of it.

Literals are converted here, once, so that an engine sees UUIDs, microseconds, exact decimals and
known words. The pairing of key/value conditions (filter-language.md §4) is resolved here as well:
what is left of it are conditions on one row.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeVar

from runstore.domain.conditions import (
    AllOf,
    Always,
    AnyOf,
    CatalogField,
    Compare,
    Condition,
    Contains,
    DetailsEntry,
    DetailsField,
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
    TextField,
    ThreadField,
)
from runstore.domain.errors import RunstoreError
from runstore.query import filters
from runstore.query.fields import FUNCTIONS, RUN_FIELDS, SEARCHED, Field, Kind, Row
from runstore.query.filters import (
    And,
    Attribute,
    Boolean,
    Comparison,
    Filter,
    Function,
    Items,
    Literal,
    Null,
    Number,
    Or,
    Text,
    invalid_filter,
    parse,
)
from runstore.query.literals import (
    like_pattern,
    parse_boolean,
    parse_instant,
    parse_json_object,
    parse_seconds,
    parse_uuid,
    shown,
)

_T = TypeVar("_T")

MAX_CONDITIONS = 500
"""Most comparisons of one filter; each leaf of a JSON object under `has` is one."""


def parse_condition(
    text: str, field: str = "filter", known: Mapping[str, Field] = RUN_FIELDS
) -> Condition | None:
    """Parse and bind a filter, on runs unless other fields are known; None when it is empty or blank.

    `field` is the request's name of the filter. Raises RunstoreError INVALID_FILTER.
    """
    tree = parse(text, field)
    return None if tree is None else bind(tree, field, known)


def bind(tree: Filter, field: str = "filter", known: Mapping[str, Field] = RUN_FIELDS) -> Condition:
    """Check a filter against the known fields and convert its literals.

    Raises RunstoreError INVALID_FILTER, with the offset of what is wrong, for an unknown field, a
    function that the field does not have, a value that it cannot hold, and more than `MAX_CONDITIONS`
    comparisons.
    """
    return _Binder(field, known).bind(tree)


@dataclass(frozen=True, slots=True)
class _RowTest:
    """One condition on the rows of a family: on one row, and without its negation."""

    row: Row
    positive: Condition
    negative: bool

    @property
    def on_one_row(self) -> Condition:
        return Not(self.positive) if self.negative else self.positive


class _Binder:
    def __init__(self, field: str, known: Mapping[str, Field]) -> None:
        self._field = field
        self._known = known
        self._bound = 0

    def bind(self, tree: Filter) -> Condition:
        match tree:
            case And(operands):
                return self._conjunction(operands)
            case Or(operands):
                return _any_of([self.bind(operand) for operand in operands])
            case filters.Not(operand):
                return Not(self.bind(operand))
            case Comparison():
                return self._conjunction((tree,))

    def _conjunction(self, operands: Iterable[Filter]) -> Condition:
        """Bind the direct children of one `and`; those of one family speak of the same row."""
        conditions: list[Condition] = []
        rows: dict[RowFamily, list[_RowTest]] = {}
        for operand in operands:
            if not isinstance(operand, Comparison):
                conditions.append(self.bind(operand))
                continue
            bound = self._comparison(operand)
            if isinstance(bound, _RowTest):
                rows.setdefault(bound.row.family, []).append(bound)
            else:
                conditions.append(bound)
        conditions.extend(_pair(family, tests) for family, tests in rows.items())
        return _all_of(conditions)

    def _comparison(self, comparison: Comparison) -> Condition | _RowTest:
        self._count(1, comparison.offset)
        if comparison.attribute is None:
            if self._known is not RUN_FIELDS:
                raise self._refuse(f"{comparison.function} needs a field", comparison.offset)
            return self._words(comparison, SEARCHED)  # Only `search` has a form without a field.
        attribute = comparison.attribute
        field, path = self._resolve(attribute)
        function = comparison.function
        if function not in FUNCTIONS[field.kind]:
            known = ", ".join(each for each in Function if each in FUNCTIONS[field.kind])
            raise self._refuse(f"{function} cannot be used with {attribute} (but {known})", comparison.offset)
        has_key = function is Function.EXISTS and comparison.value is not None
        if has_key and field.kind is not Kind.METADATA:
            raise self._refuse("exists has a second argument for metadata only", comparison.offset)

        positive = Comparison(
            _POSITIVE.get(function, function), attribute, comparison.value, comparison.offset
        )
        negative = function in _POSITIVE
        if isinstance(field.target, Row):
            condition = self._scalar(positive, field, field.target.part)
            return _RowTest(field.target, condition, negative)
        condition = self._positive(positive, field, path)
        return Not(condition) if negative else condition

    def _resolve(self, attribute: Attribute) -> tuple[Field, tuple[str, ...]]:
        """The field that an attribute names, and the path below it."""
        name, *below = attribute.path
        field = self._known.get(name)
        if field is None:
            raise self._refuse(f"unknown field {shown(str(attribute))}", attribute.offset)
        if field.kind is Kind.METADATA and below:
            return Field(Kind.METADATA_VALUE), tuple(below)
        if field.kind is Kind.NUMBER_MAP and not below:
            raise self._refuse(f"{name} needs a category, such as {name}.cache_read", attribute.offset)
        if field.kind is not Kind.NUMBER_MAP and below:
            raise self._refuse(
                f"unknown field {shown(str(attribute))}: {name} has no parts", attribute.offset
            )
        return field, tuple(below)

    def _positive(self, comparison: Comparison, field: Field, path: tuple[str, ...]) -> Condition:
        """Bind a comparison that is neither `neq` nor `notlike`."""
        match field.kind, field.target:
            case Kind.METADATA, None:
                return self._metadata(comparison)
            case Kind.METADATA_VALUE, None:
                return self._scalar(comparison, field, MetadataPath(path))
            case _, ListField() as target:
                return self._list(comparison, field, target)
            case _, DetailsField() as target:
                return self._scalar(comparison, field, DetailsEntry(target, ".".join(path)))
            case _, TextField() as target:
                return self._large_text(comparison, field, target)
            case _, (CatalogField() | ThreadField()) as target:
                return self._scalar(comparison, field, target)
            case _, ScalarField() as target if comparison.function is Function.SEARCH:
                return self._words(comparison, (target,))
            case _, ScalarField() as target:
                return self._scalar(comparison, field, target)
            case _:
                raise AssertionError(f"{field} has no binder")

    # ------------------------------------------------------------ kinds of fields

    def _scalar(self, comparison: Comparison, field: Field, operand: Operand) -> Condition:
        match comparison.function, comparison.value:
            case Function.EXISTS, _:
                return Present(operand)
            case Function.EQ, Null() if not isinstance(operand, RowPart):
                return Not(Present(operand))
            case Function.LIKE, value:
                return Like(operand, self._pattern(comparison, value))
            case Function.IN, Items(values):
                return self._one_of(operand, [self._convert(comparison, field, value) for value in values])
            case function, Boolean(offset=offset) if function is not Function.EQ:
                raise self._refuse(f"{function} needs text or a number, not a boolean", offset)
            case function, value:
                return Compare(operand, Relation(function), self._convert(comparison, field, value))

    def _one_of(self, operand: Operand, values: list[Scalar]) -> Condition:
        by_type: dict[type, list[Scalar]] = {}
        for value in values:
            by_type.setdefault(type(value), []).append(value)
        if not by_type:
            return Always(value=False)
        return _any_of([OneOf(operand, tuple(alike)) for alike in by_type.values()])

    def _list(self, comparison: Comparison, field: Field, target: ListField) -> Condition:
        match comparison.function, comparison.value:
            case Function.EXISTS, _:
                return ListNotEmpty(target)
            case Function.EQ, Null():
                return Not(ListNotEmpty(target))
            case Function.LIKE, value:
                return ListHasLike(target, self._pattern(comparison, value))
            case _, value:
                return ListHas(target, self._convert(comparison, field, value))

    def _metadata(self, comparison: Comparison) -> Condition:
        match comparison.function, comparison.value:
            case Function.EXISTS, None:
                return MetadataNotEmpty()
            case Function.EXISTS, Text(key):
                return Present(MetadataPath(tuple(key.split("."))))
            case _, Text(document, offset):
                leaves = self._checked(comparison, document, offset, parse_json_object)
                self._count(len(leaves), offset)
                return MetadataContains(leaves) if leaves else Always(value=True)
            case _, value:
                raise self._mismatch(comparison, value, "a JSON object in quotes")

    def _large_text(self, comparison: Comparison, field: Field, target: TextField) -> Condition:
        match comparison.function, comparison.value:
            case Function.EXISTS, _:
                return Present(target)
            case Function.EQ, Null():
                return Not(Present(target))
            case Function.EQ, value:
                raise self._mismatch(comparison, value, "null")
            case Function.LIKE, Text(text) if field.kind is Kind.JSON_TEXT and "%" not in text:
                return self._words(comparison, (target,))
            case Function.LIKE, value:
                return Like(target, self._pattern(comparison, value))
            case _:
                return self._words(comparison, (target,))

    def _words(self, comparison: Comparison, texts: tuple[ScalarField | TextField, ...]) -> Condition:
        """All words of a search, each in any of the texts."""
        if not isinstance(comparison.value, Text):
            raise self._mismatch(comparison, comparison.value, "text in quotes")
        words = dict.fromkeys(comparison.value.value.split())
        if not words:
            raise self._refuse(f"{comparison.function} expects at least one word", comparison.value.offset)
        self._count(len(words) - 1, comparison.offset)
        return _all_of([Contains(texts, word) for word in words])

    # ------------------------------------------------------------ literals

    def _convert(self, comparison: Comparison, field: Field, literal: Literal | None) -> Scalar:
        match field.kind, literal:
            case Kind.METADATA_VALUE | Kind.ROW_VALUE, Boolean(value):
                return "true" if value else "false"  # Values of metadata compare as text.
            case Kind.METADATA_VALUE | Kind.ROW_VALUE | Kind.SECONDS, Number(number):
                return number
            case Kind.NUMBER | Kind.NUMBER_MAP, Number(number):
                return number
            case Kind.ROW_NUMBER, Number(number):
                return number
            case Kind.ROW_NUMBER, Boolean(value):
                return Decimal(value)  # As scores are stored.
            case Kind.BOOLEAN | Kind.ROW_BOOLEAN, Boolean(value):
                return value
            case Kind.WORD, Text(text, offset):
                return self._word(comparison, field, text, offset)
            case kind, Text(text, offset) if kind in _FROM_TEXT:
                return self._checked(comparison, text, offset, _FROM_TEXT[kind])
            case kind, _:
                raise self._mismatch(comparison, literal, _EXPECTED[kind])

    def _word(self, comparison: Comparison, field: Field, text: str, offset: int) -> str:
        word = text.lower()
        if word not in field.words:
            known = ", ".join(sorted(field.words))
            raise self._refuse(f"{comparison.attribute} expects one of {known}, not {shown(text)}", offset)
        return word

    def _pattern(self, comparison: Comparison, literal: Literal | None) -> str:
        if not isinstance(literal, Text):
            raise self._mismatch(comparison, literal, "a pattern in quotes")
        return like_pattern(literal.value)

    def _checked(self, comparison: Comparison, text: str, offset: int, convert: Callable[[str], _T]) -> _T:
        try:
            return convert(text)
        except ValueError as error:
            raise self._refuse(f"{comparison.attribute} expects {error}", offset) from None

    # ------------------------------------------------------------ refusals

    def _count(self, conditions: int, offset: int) -> None:
        self._bound += conditions
        if self._bound > MAX_CONDITIONS:
            raise self._refuse(f"more than {MAX_CONDITIONS} conditions in one filter", offset)

    def _mismatch(self, comparison: Comparison, literal: Literal | None, expected: str) -> RunstoreError:
        if literal is None:
            raise AssertionError("only exists has no value, and it looks at none")
        reason = f"{comparison.attribute} expects {expected}, not {_DESCRIPTION[type(literal)]}"
        return self._refuse(reason, literal.offset)

    def _refuse(self, reason: str, offset: int) -> RunstoreError:
        return invalid_filter(reason, offset, self._field)


_POSITIVE: Mapping[Function, Function] = {Function.NEQ: Function.EQ, Function.NOTLIKE: Function.LIKE}
"""The negative functions, and what each denies."""

_FROM_TEXT: Mapping[Kind, Callable[[str], Scalar]] = {
    Kind.UUID: parse_uuid,
    Kind.UUID_LIST: parse_uuid,
    Kind.TEXT: str,
    Kind.TEXT_LIST: str,
    Kind.ROW_KEY: str,
    Kind.ROW_VALUE: str,
    Kind.ROW_TEXT: str,
    Kind.ROW_BOOLEAN: parse_boolean,
    Kind.METADATA_VALUE: str,
    Kind.BOOLEAN: parse_boolean,
    Kind.TIME: parse_instant,
    Kind.SECONDS: parse_seconds,
}
_EXPECTED: Mapping[Kind, str] = {
    Kind.UUID: "a UUID in quotes",
    Kind.UUID_LIST: "a UUID in quotes",
    Kind.TEXT: "text in quotes",
    Kind.TEXT_LIST: "text in quotes",
    Kind.WORD: "a word in quotes",
    Kind.BOOLEAN: "true or false",
    Kind.TIME: "an ISO 8601 time in quotes",
    Kind.SECONDS: 'seconds, as a number or text such as "5s"',
    Kind.NUMBER: "a number",
    Kind.NUMBER_MAP: "a number",
    Kind.METADATA_VALUE: "text in quotes, a number or a boolean",
    Kind.ROW_KEY: "text in quotes",
    Kind.ROW_VALUE: "text in quotes, a number or a boolean",
    Kind.ROW_TEXT: "text in quotes",
    Kind.ROW_NUMBER: "a number",
    Kind.ROW_BOOLEAN: "true or false",
}
_DESCRIPTION: Mapping[type[Literal], str] = {
    Text: "text",
    Number: "a number",
    Boolean: "a boolean",
    Null: "null",
    Items: "a list",
}


def _pair(family: RowFamily, tests: list[_RowTest]) -> Condition:
    """Resolve the conditions of one family that stand together in one `and` (§4, the table).

    A condition on a key that must be there makes all of them speak of one row. Otherwise keys are
    denied on every row, and the other conditions stand for themselves.
    """
    keys = [test for test in tests if test.row.part is RowPart.KEY]
    others = [test for test in tests if test.row.part is not RowPart.KEY]
    if any(not test.negative for test in keys):
        return _some_row(family, tests)
    denied = keys
    found: list[Condition] = []
    if any(not test.negative for test in others):
        found = [_some_row(family, others)]
    else:
        denied = [*keys, *others]
    return _all_of([*(Not(SomeRow(family, test.positive)) for test in denied), *found])


def _some_row(family: RowFamily, tests: list[_RowTest]) -> Condition:
    return SomeRow(family, _all_of([test.on_one_row for test in tests]))


def _all_of(conditions: list[Condition]) -> Condition:
    return conditions[0] if len(conditions) == 1 else AllOf(tuple(conditions))


def _any_of(conditions: list[Condition]) -> Condition:
    return conditions[0] if len(conditions) == 1 else AnyOf(tuple(conditions))
