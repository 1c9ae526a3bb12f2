"""The filter language: text to a typed tree, and nothing about what its fields mean.

`parse` accepts every well-formed filter of the public contract (filter-language.md §1), known
fields or not; `binding.bind` then checks the tree against the fields of a run. Offsets count
characters from 0 and lead a reader to the place in the text; they are no part of a tree's
equality, so that the same filter in another layout is the same tree.
"""

import re
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from functools import cache
from typing import NoReturn, TypeAlias

from lark import Lark, Token, Transformer, v_args
from lark.exceptions import UnexpectedInput
from lark.parsers.lalr_interactive_parser import InteractiveParser

from runstore.domain.errors import ErrorReason, RunstoreError

MAX_FILTER_BYTES = 16 * 1024
"""Longest filter, as UTF-8."""

MAX_FILTER_DEPTH = 50
"""Most parentheses and brackets that may be open at once."""

MAX_NUMBER_DIGITS = 38
"""Most digits of a number on either side of its point: what the engine's widest decimal holds."""


class Function(StrEnum):
    """The functions that compare; `and`, `or` and `not` are nodes of their own."""

    EQ = "eq"
    NEQ = "neq"
    GT = "gt"
    GTE = "gte"
    LT = "lt"
    LTE = "lte"
    IN = "in"
    LIKE = "like"
    NOTLIKE = "notlike"
    HAS = "has"
    EXISTS = "exists"
    SEARCH = "search"


@dataclass(frozen=True, slots=True)
class Attribute:
    """What is compared: a field, or a path below one (`metadata.env` is `("metadata", "env")`)."""

    path: tuple[str, ...]
    offset: int = field(default=0, compare=False)

    def __str__(self) -> str:
        return ".".join(self.path)


@dataclass(frozen=True, slots=True)
class Text:
    """A string in either kind of quotes, decoded; a date without quotes is its text."""

    value: str
    offset: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Number:
    """An integer or a decimal, exact; at most `MAX_NUMBER_DIGITS` on either side of the point."""

    value: Decimal
    offset: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Boolean:
    """`true` or `false`."""

    value: bool
    offset: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Null:
    """`null`: the field is absent or null."""

    offset: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Items:
    """A list; only `in` finds a use for it."""

    values: "tuple[Literal, ...]"
    offset: int = field(default=0, compare=False)


Literal: TypeAlias = Text | Number | Boolean | Null | Items


@dataclass(frozen=True, slots=True)
class Comparison:
    """One function applied to one attribute.

    `attribute` is None only for `search("words")`; `value` is None only for `exists(field)`.
    """

    function: Function
    attribute: Attribute | None
    value: Literal | None
    offset: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class And:
    """All of the operands; at least one. Its direct children pair up (filter-language.md §4)."""

    operands: "tuple[Filter, ...]"


@dataclass(frozen=True, slots=True)
class Or:
    """Any of the operands; at least one."""

    operands: "tuple[Filter, ...]"


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite of the operand."""

    operand: "Filter"


Filter: TypeAlias = And | Or | Not | Comparison


def parse(text: str, field: str = "filter") -> Filter | None:
    """Parse a filter; None when it is empty or blank.

    `field` is the request's name of the filter (`filter`, `trace_filter`, `tree_filter`) and goes
    into the error. Raises RunstoreError INVALID_FILTER for anything that is not a filter, is
    longer than `MAX_FILTER_BYTES` or nests deeper than `MAX_FILTER_DEPTH`.
    """
    _check_size(text, field)
    if not text.strip():
        return None
    parser = _parser().parse_interactive(text)
    try:
        return _run(parser)
    except UnexpectedInput as error:
        offset = _offset(error, text)
        accepted: set[str] = parser.accepts()  # type: ignore[no-untyped-call]  # lark has no types there
        raise invalid_filter(_explain(accepted, text, offset), offset, field) from None
    except _SyntaxProblem as problem:
        raise invalid_filter(problem.reason, problem.offset, field) from None


def invalid_filter(reason: str, offset: int, field: str) -> RunstoreError:
    """The contract's error: what is wrong, and at which character (from 0) of which parameter."""
    message = f"Invalid {field}: {reason} at offset {offset}"
    return RunstoreError(ErrorReason.INVALID_FILTER, message, field=field)


class _SyntaxProblem(Exception):
    """A token that the grammar admits and the language does not; `parse` turns it into the error."""

    def __init__(self, reason: str, offset: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.offset = offset


def _check_size(text: str, field: str) -> None:
    try:
        encoded = text.encode()
    except UnicodeEncodeError as error:
        raise invalid_filter("the text is not valid Unicode", error.start, field) from None
    if len(encoded) > MAX_FILTER_BYTES:
        fitting = encoded[:MAX_FILTER_BYTES].decode(errors="ignore")
        raise invalid_filter(f"more than {MAX_FILTER_BYTES} bytes of text", len(fitting), field)


def _run(parser: InteractiveParser) -> Filter:
    """Feed all tokens, watching the depth: the tree that comes out is safe to walk recursively."""
    depth = 0
    for token in parser.iter_parse():
        if token.type in ("LPAR", "OPENING_BRACKET"):
            depth += 1
        elif token.type in ("RPAR", "RSQB"):
            depth -= 1
        if depth > MAX_FILTER_DEPTH:
            raise _SyntaxProblem(f"more than {MAX_FILTER_DEPTH} levels of nesting", token.start_pos or 0)
    tree: Filter = parser.feed_eof()  # type: ignore[no-untyped-call]  # lark has no types there
    return tree


# ---------------------------------------------------------------- errors in words

_FUNCTION_TERMINALS = frozenset({"AND", "OR", "NOT", "COMPARE", "HAS", "IN", "EXISTS", "SEARCH"})
_FUNCTION_NAMES = ", ".join(["and", "or", "not", *Function])

# What may follow, told by a terminal that is there in no other place; the first that applies speaks.
_EXPECTED_HERE = (
    ("IDENTIFIER", "a field name"),
    ("NUMBER", "a value (text in quotes, a number, true, false, null or a list)"),
    ("DOUBLE_QUOTED", "text in quotes"),
)
_PUNCTUATION = (
    ("LPAR", "'('"),
    ("OPENING_BRACKET", "'['"),
    ("COMMA", "','"),
    ("RPAR", "')'"),
    ("RSQB", "']'"),
    ("$END", "the end of the filter"),
)
_FOUND = re.compile(r"[A-Za-z0-9_.-]+|.", re.DOTALL)
_MAX_FOUND_LENGTH = 32


def _offset(error: UnexpectedInput, text: str) -> int:
    token = getattr(error, "token", None)
    if isinstance(token, Token) and token.type == "$END":
        return len(text)
    return int(getattr(error, "pos_in_stream", 0))


def _explain(accepted: AbstractSet[str], text: str, offset: int) -> str:
    found = _FOUND.match(text, offset)
    word = found.group()[:_MAX_FOUND_LENGTH] if found else ""
    if word in ('"', "'") and not accepted.isdisjoint(("DOUBLE_QUOTED", "SINGLE_QUOTED")):
        return "text without a closing quote"
    if accepted >= _FUNCTION_TERMINALS:
        if word[:1].isalpha():
            return f"unknown function '{word}' (known are {_FUNCTION_NAMES})"
        return f"expected a function ({_FUNCTION_NAMES}), found {_quoted(word)}"
    return f"expected {_expectation(accepted)}, found {_quoted(word)}"


def _expectation(accepted: AbstractSet[str]) -> str:
    for terminal, phrase in _EXPECTED_HERE:
        if terminal in accepted:
            return phrase
    return " or ".join(phrase for terminal, phrase in _PUNCTUATION if terminal in accepted)


def _quoted(word: str) -> str:
    if not word:
        return "the end of the filter"
    return f"'{word}'" if word.isprintable() and word != "'" else ascii(word)


# ---------------------------------------------------------------- tokens to the tree


@v_args(inline=True)
class _TreeBuilder(Transformer[Token, Filter]):
    """Runs inside the parser as each rule completes, so that no depth of text needs recursion."""

    def start(self, expression: Filter) -> Filter:
        return expression

    def conjunction(self, _: Token, *operands: Filter) -> And:
        return And(operands)

    def disjunction(self, _: Token, *operands: Filter) -> Or:
        return Or(operands)

    def negation(self, _: Token, operand: Filter) -> Not:
        return Not(operand)

    def comparison(self, function: Token, attribute: Attribute, value: Literal) -> Comparison:
        return Comparison(Function(function.lower()), attribute, value, _start(function))

    def existence(self, function: Token, attribute: Attribute, key: Text | None = None) -> Comparison:
        return Comparison(Function.EXISTS, attribute, key, _start(function))

    def search_run(self, function: Token, words: Text) -> Comparison:
        return Comparison(Function.SEARCH, None, words, _start(function))

    def search_field(self, function: Token, attribute: Attribute, words: Text) -> Comparison:
        return Comparison(Function.SEARCH, attribute, words, _start(function))

    def attribute(self, *names: Token) -> Attribute:
        return Attribute(tuple(str(name) for name in names), _start(names[0]))

    def quoted_attribute(self, token: Token) -> Attribute:
        text = _decode(token)
        path = tuple(text.split("."))
        if not all(path):
            raise _SyntaxProblem("expected a field name between the quotes", _start(token))
        return Attribute(path, _start(token))

    def double_quoted(self, token: Token) -> Text:
        return Text(_decode(token), _start(token))

    single_quoted = double_quoted

    def moment(self, token: Token) -> Text:
        return Text(str(token), _start(token))

    def number(self, token: Token) -> Number:
        return Number(_number(token), _start(token))

    def boolean(self, token: Token) -> Boolean:
        return Boolean(token.type == "TRUE", _start(token))

    def null(self, token: Token) -> Null:
        return Null(_start(token))

    def items(self, opening: Token, *values: Literal) -> Items:
        return Items(values, _start(opening))


@cache
def _parser() -> Lark:
    return Lark.open(
        "filter_grammar.lark",
        rel_to=__file__,
        parser="lalr",
        lexer="contextual",
        transformer=_TreeBuilder(),
        maybe_placeholders=False,
    )


def _start(token: Token) -> int:
    return token.start_pos or 0


def exact_number(text: str) -> Decimal | None:
    """The number as written, or None when it has too many digits on a side of its point."""
    try:
        value = Decimal(text)
    except InvalidOperation:  # An exponent that even Decimal cannot hold.
        return None
    exponent = value.as_tuple().exponent
    if not value:
        return Decimal(0)  # Whatever its exponent or sign.
    fits = isinstance(exponent, int) and exponent >= -MAX_NUMBER_DIGITS
    return value if fits and value.adjusted() < MAX_NUMBER_DIGITS else None


def _number(token: Token) -> Decimal:
    value = exact_number(token)
    if value is None:
        reason = f"a number of more than {MAX_NUMBER_DIGITS} digits before or after its point"
        raise _SyntaxProblem(reason, _start(token))
    return value


# JSON's escapes and those that Go's %q adds. `\x` runs are the bytes of UTF-8 text.
_ESCAPE = re.compile(
    r"(?P<bytes>(?:\\x[0-9a-fA-F]{2})+)"
    r"|(?P<pair>\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    r"|\\u(?P<code4>[0-9a-fA-F]{4})"
    r"|\\U(?P<code8>[0-9a-fA-F]{8})"
    r"|\\(?P<char>.)",
    re.DOTALL,
)
_MAX_CODE_POINT = 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)
_CHARACTER_ESCAPES = {
    '"': '"',
    "'": "'",
    "\\": "\\",
    "/": "/",
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    # Not escapes of JSON but of a LIKE pattern, which needs to see them.
    "%": "\\%",
    "_": "\\_",
}


def _decode(token: Token) -> str:
    """The text between a token's quotes: raw in single quotes, unescaped in double quotes."""
    body = token[1:-1]
    if token.type == "SINGLE_QUOTED":
        return body.replace("\\'", "'")

    def refuse(escape: re.Match[str]) -> NoReturn:
        reason = f"the string has an escape that stands for no character, {_quoted(escape.group())},"
        raise _SyntaxProblem(reason, _start(token) + 1 + escape.start())

    def decode(escape: re.Match[str]) -> str:
        if escape["bytes"]:
            # Go stores bytes that are not UTF-8 as U+FFFD when it writes JSON; so do we.
            return bytes.fromhex(escape["bytes"].replace("\\x", "")).decode("utf-8", "replace")
        if escape["pair"]:
            pair = bytes.fromhex(escape["pair"].replace("\\u", ""))
            return pair.decode("utf-16-be")
        if escape["char"]:
            return _CHARACTER_ESCAPES.get(escape["char"]) or refuse(escape)
        point = int(escape["code4"] or escape["code8"], 16)
        is_character = point <= _MAX_CODE_POINT and point not in _SURROGATES
        return chr(point) if is_character else refuse(escape)

    return _ESCAPE.sub(decode, body)
