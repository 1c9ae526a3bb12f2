"""The grammar: every well-formed filter becomes the tree it spells, everything else one clear error."""

import json
from decimal import Decimal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.query.filters import (
    MAX_FILTER_BYTES,
    MAX_FILTER_DEPTH,
    And,
    Attribute,
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
    parse,
)


def eq(name: str, value: Literal) -> Comparison:
    return Comparison(Function.EQ, Attribute(tuple(name.split("."))), value)


def value_of(literal: str) -> Literal | None:
    tree = parse(f"eq(name, {literal})")
    assert isinstance(tree, Comparison)
    return tree.value


@pytest.mark.parametrize("text", ["", " ", "\n\t "])
def test_blank_is_no_filter(text: str) -> None:
    """A blank expression does not filter."""
    assert parse(text) is None


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ('eq(name, "x")', eq("name", Text("x"))),
        ("AND(Eq(a,1),oR(eQ(b,2)))", And((eq("a", Number(Decimal(1))), Or((eq("b", Number(Decimal(2))),))))),
        ("not ( eq ( a , NULL ) )", Not(eq("a", Null()))),
        ("eq(metadata.env.x, True)", eq("metadata.env.x", Boolean(True))),
        ("eq('metadata.env-x', FALSE)", eq("metadata.env-x", Boolean(False))),
        ("eq(and, 1)", eq("and", Number(Decimal(1)))),
        (
            'in("a", ["b", 1])',
            Comparison(Function.IN, Attribute(("a",)), Items((Text("b"), Number(Decimal(1))))),
        ),
        ("in(a, [])", Comparison(Function.IN, Attribute(("a",)), Items(()))),
        ("exists(a)", Comparison(Function.EXISTS, Attribute(("a",)), None)),
        ('exists("metadata", "k")', Comparison(Function.EXISTS, Attribute(("metadata",)), Text("k"))),
        ('search("two words")', Comparison(Function.SEARCH, None, Text("two words"))),
        ('search("name", "x")', Comparison(Function.SEARCH, Attribute(("name",)), Text("x"))),
        ("and(not(eq(a,1)))", And((Not(eq("a", Number(Decimal(1)))),))),
    ],
)
def test_tree(text: str, tree: Filter) -> None:
    """Functions and words in any case, free white space, quoted and dotted fields, both searches."""
    assert parse(text) == tree


@pytest.mark.parametrize(
    ("literal", "text"),
    [
        (r'"a \"b\" \\ \/ \n\t\r\b\f"', 'a "b" \\ / \n\t\r\b\f'),
        (r'"\u00e9\ud83d\ude00"', "é😀"),
        (r'"\a\v\x41\x00\U0001F600"', "\a\vA\0😀"),
        (r'"\xc3\xa9"', "é"),
        (r'"\xff"', "\ufffd"),
        ('"line\nbreak"', "line\nbreak"),
        (r'"50\% a\_b"', r"50\% a\_b"),
        (r"""'{"a": "\n"}'""", r"""{"a": "\n"}"""),
        (r"'it\'s'", "it's"),
        (r"'a\\b'", r"a\\b"),
        ("2023-07-15T12:34:56.5Z", "2023-07-15T12:34:56.5Z"),
        ("2023-07-15", "2023-07-15"),
    ],
)
def test_text(literal: str, text: str) -> None:
    """Double quotes take the escapes of JSON and of Go's %q; single quotes are raw but for a quote."""
    assert value_of(literal) == Text(text)


@pytest.mark.parametrize(
    ("literal", "number"),
    [("0.0", "0"), ("-0", "0"), ("-1.50", "-1.5"), ("1e3", "1000"), ("2E-3", "0.002"), ("9" * 38, "9" * 38)],
)
def test_number(literal: str, number: str) -> None:
    """Numbers are exact."""
    assert value_of(literal) == Number(Decimal(number))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nin(a, 1)", "unknown function 'nin' (known are and, or, not, eq, neq, gt, gte, lt, lte, in, "),
        ("(eq(a,1))", "expected a function (and, or,"),
        (
            "eq(name, foo)",
            "expected a value (text in quotes, a number, true, false, null or a list), found 'foo'",
        ),
        ('eq(name "x")', "expected ',', found '\"' at offset 8"),
        ('eq(name, "x', "text without a closing quote at offset 9"),
        ("eq(name, 'x\\')", "text without a closing quote at offset 9"),
        ('eq(name, "x") or', "expected the end of the filter, found 'or' at offset 14"),
        ("eq(name", "expected ',', found the end of the filter at offset 7"),
        ("eq(name, 5", "expected ')', found the end of the filter at offset 10"),
        ("and()", "expected a function ("),
        ("eq(1, 2)", "expected a field name, found '1' at offset 3"),
        ('eq("a..b", 1)', "expected a field name between the quotes at offset 3"),
        ("in(a, 5)", "expected '[', found '5' at offset 6"),
        ("in(a, [1 2])", "expected ',' or ']', found '2' at offset 9"),
        ("not(eq(a,1), eq(b,1))", "expected ')', found ',' at offset 11"),
        ("search(a, b)", "expected text in quotes, found 'b' at offset 10"),
        (r'eq(a, "x\q")', r"stands for no character, '\q', at offset 8"),
        (r'eq(a, "\ud83d")', r"stands for no character, '\ud83d', at offset 7"),
        (r'eq(a, "\U00110000")', "stands for no character"),
        ("eq(a, 1e38)", "a number of more than 38 digits before or after its point at offset 6"),
        ("eq(a, 1e-39)", "a number of more than 38 digits"),
        ("eq(a, 1e99999999999999999999)", "a number of more than 38 digits"),
        ("eq(a, \ud800)", "the text is not valid Unicode at offset 6"),
        ("eq(a\0, 1)", r"expected ',', found '\x00' at offset 4"),
    ],
)
def test_error_says_what_was_expected_and_where(text: str, reason: str) -> None:
    """The reasons of the contract's 400: what a stranger can act on, with an offset from 0."""
    with pytest.raises(RunstoreError) as caught:
        parse(text, "tree_filter")
    assert caught.value.reason is ErrorReason.INVALID_FILTER
    assert caught.value.field == "tree_filter"
    assert caught.value.message.startswith("Invalid tree_filter: ")
    assert reason in caught.value.message


def test_depth_is_limited() -> None:
    """Fifty open parentheses or brackets pass, one more does not."""
    levels = MAX_FILTER_DEPTH - 1
    assert parse("not(" * levels + "eq(a,1)" + ")" * levels) is not None
    for text in ("not(" * (levels + 1) + "eq(a,1)" + ")" * (levels + 1), "eq(a," + "[" * 10_000):
        with pytest.raises(RunstoreError, match="more than 50 levels of nesting"):
            parse(text)


def test_length_is_limited_in_bytes() -> None:
    """The limit counts UTF-8 bytes, and the offset is that of the first character too many."""
    fitting = "é" * ((MAX_FILTER_BYTES - len('eq(a, "")')) // 2)
    assert parse(f'eq(a, "{fitting}")') is not None
    with pytest.raises(RunstoreError, match=f"more than {MAX_FILTER_BYTES} bytes of text at offset"):
        parse(f'eq(a, "{fitting}é")')


# ---------------------------------------------------------------- properties

_WORDS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
_TEXTS = st.text(st.characters(codec="utf-8"), max_size=12).map(Text)
_NUMBERS = st.decimals(-(10**20), 10**20, places=10).map(lambda value: Number(value or Decimal(0)))
_SCALARS = st.one_of(_TEXTS, _NUMBERS, st.booleans().map(Boolean), st.just(Null()))
_LISTS = st.lists(_SCALARS, max_size=4).map(lambda values: Items(tuple(values)))
_PLAIN = st.lists(_WORDS, min_size=1, max_size=3).map(lambda path: Attribute(tuple(path)))
_NAMES = st.text(st.characters(codec="utf-8", exclude_characters="."), min_size=1, max_size=6)
_ATTRIBUTES = st.one_of(_PLAIN, st.lists(_NAMES, min_size=1, max_size=3).map(lambda p: Attribute(tuple(p))))
_COMPARING = [f for f in Function if f not in (Function.IN, Function.EXISTS, Function.SEARCH)]
_COMPARISONS: st.SearchStrategy[Filter] = st.one_of(
    st.builds(Comparison, st.sampled_from(_COMPARING), _ATTRIBUTES, _SCALARS | _LISTS, st.just(0)),
    st.builds(Comparison, st.just(Function.IN), _ATTRIBUTES, _LISTS, st.just(0)),
    st.builds(Comparison, st.just(Function.EXISTS), _ATTRIBUTES, st.none() | _TEXTS, st.just(0)),
    st.builds(Comparison, st.just(Function.SEARCH), st.none() | _ATTRIBUTES, _TEXTS, st.just(0)),
)


def _operands(trees: st.SearchStrategy[Filter]) -> st.SearchStrategy[tuple[Filter, ...]]:
    return st.lists(trees, min_size=1, max_size=3).map(tuple)


_TREES: st.SearchStrategy[Filter] = st.recursive(
    _COMPARISONS,
    lambda trees: st.one_of(
        st.builds(And, _operands(trees)), st.builds(Or, _operands(trees)), st.builds(Not, trees)
    ),
    max_leaves=8,
)


def written(tree: Filter | Literal | Attribute) -> str:
    """A filter's text."""
    match tree:
        case And(operands) | Or(operands):
            return f"{type(tree).__name__.lower()}({', '.join(map(written, operands))})"
        case Not(operand):
            return f"not({written(operand)})"
        case Comparison(function, attribute, value):
            arguments = [written(part) for part in (attribute, value) if part is not None]
            return f"{function}({','.join(arguments)})"
        case Attribute(path):
            plain = all(name.isascii() and name.isidentifier() for name in path)
            return ".".join(path) if plain else json.dumps(".".join(path))
        case _:
            return written_literal(tree)


def written_literal(literal: Literal) -> str:
    match literal:
        case Text(text):
            return json.dumps(text)
        case Number(number):
            return format(number, "f")
        case Boolean(boolean):
            return str(boolean)
        case Null():
            return "null"
        case Items(values):
            return f"[{', '.join(map(written_literal, values))}]"


@given(_TREES)
@settings(max_examples=150, deadline=None)
def test_a_written_tree_parses_to_itself(tree: Filter) -> None:
    """Printing and parsing are inverse: nothing of a filter is lost or invented."""
    assert parse(written(tree)) == tree


_FRAGMENTS = st.sampled_from(
    [
        *("and(", "not(", "eq(", "in(", "has(", "search(", "exists(", "name", ",", ")", "[", "]", ".", '"'),
        *(
            "'",
            "\\",
            "\\u12",
            "\\x",
            "1",
            "-",
            "e9",
            "2023-01-01",
            "T1",
            "null",
            "true",
            " ",
            "é",
            "\0",
            "\ud800",
        ),
    ]
)


@given(st.text(max_size=40) | st.lists(_FRAGMENTS, max_size=25).map("".join))
@example("eq(a," + "9" * 10_000 + ")")
@example("not(" * 4_000)
@settings(max_examples=300, deadline=None)
def test_any_text_parses_or_is_refused_in_the_contracts_words(text: str) -> None:
    """Whatever arrives, the only exception is the contract's, with an offset inside the text."""
    refusal = refusal_of(text)
    if refusal is not None:
        assert refusal.reason is ErrorReason.INVALID_FILTER
        assert 0 <= int(refusal.message.rsplit(" ", 1)[1]) <= len(text)
        assert "Token(" not in refusal.message


def refusal_of(text: str) -> RunstoreError | None:
    try:
        parse(text)
    except RunstoreError as refusal:
        return refusal
    return None
