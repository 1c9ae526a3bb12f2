"""Page tokens: they lead back to where they were made, and nowhere else."""

import base64
import string
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.runs import Position
from runstore.query.cursors import PageTokens, query_hash

TOKENS = PageTokens(b"a secret of thirty-two bytes....")
QUERY = query_hash("tenant", "project", None)
POSITION = Position(1_700_000_000_123_456, "a36092d2-4ad5-4fb4-9c0d-0dba9a2ed836")
ALPHABET = string.ascii_letters + string.digits + "-_"


def refusal(token: str, query: bytes = QUERY, tokens: PageTokens = TOKENS) -> str:
    with pytest.raises(RunstoreError) as caught:
        tokens.decode(token, query)
    assert caught.value.reason is ErrorReason.INVALID_CURSOR
    return caught.value.message


@given(st.integers(-(2**63), 2**63 - 1), st.uuids())
def test_a_token_leads_back(start_time_us: int, run_id: UUID) -> None:
    """Every position survives, as 64 characters that need no escaping in a URL."""
    position = Position(start_time_us, str(run_id))
    token = TOKENS.encode(position, QUERY)
    assert TOKENS.decode(token, QUERY) == position
    assert len(token) == 64
    assert set(token) <= set(ALPHABET)


@given(st.integers(0, 63), st.sampled_from(ALPHABET + "+/= \0é"))
def test_any_altered_character_is_refused(place: int, character: str) -> None:
    """No character of a token can be exchanged: there is one text for one position."""
    token = TOKENS.encode(POSITION, QUERY)
    altered = token[:place] + character + token[place + 1 :]
    if altered != token:
        refusal(altered)


@given(st.integers(0, 47), st.integers(1, 255))
def test_any_altered_byte_is_refused(place: int, difference: int) -> None:
    """No byte below the base64 can be exchanged."""
    sealed = bytearray(base64.urlsafe_b64decode(TOKENS.encode(POSITION, QUERY)))
    sealed[place] ^= difference
    refusal(base64.urlsafe_b64encode(sealed).decode())


@given(st.text(max_size=80))
def test_any_text_is_refused(text: str) -> None:
    """Text that nobody issued is refused in words, and never fails otherwise."""
    refusal(text)


def test_reasons_differ() -> None:
    """The caller learns whether to start again, or what is broken."""
    token = TOKENS.encode(POSITION, QUERY)
    other_version = base64.urlsafe_b64encode(b"\x02" + base64.urlsafe_b64decode(token)[1:]).decode()
    assert "another query" in refusal(token, query_hash("tenant", "other project", None))
    assert "another version" in refusal(other_version)
    assert "altered" in refusal(token[:-1] + ("A" if token[-1] != "A" else "B"))
    assert "another server" in refusal(token, tokens=PageTokens(b"another secretof others"))
    assert "not a cursor" in refusal("")
    assert "not a cursor" in refusal(token + "A")


def test_a_query_is_bound_by_its_whole_hash() -> None:
    """Two queries that share the eight bytes in the token still cannot share the token."""
    token = TOKENS.encode(POSITION, QUERY)
    assert "altered" in refusal(token, QUERY[:8] + bytes(24))


def test_a_short_secret_is_refused() -> None:
    """A secret that could be guessed is refused at the start."""
    with pytest.raises(ValueError, match="at least 16 bytes"):
        PageTokens(b"short")


class Colour(Enum):
    RED = 1
    BLUE = 2


@dataclass(frozen=True)
class Point:
    x: int
    y: object = None


DISTINCT: list[Any] = [
    *(None, True, False, 0, 1, "", "1", b"1", "é", Decimal(1), Decimal("1.5"), Colour.RED, Colour.BLUE),
    *((), ("a", "b"), ("ab",), ("a", ("b",)), {"a": 1}, {"a": "1"}, {("a", 1)}, frozenset(), {}),
    *(UUID(int=0), UUID(int=1), Point(1), Point(2), Point(1, 2), [None], [[None]]),
    *(datetime(2023, 1, 1, tzinfo=UTC), datetime(2023, 1, 1, 0, 0, 0, 1, tzinfo=UTC)),
]


def test_different_parts_have_different_hashes() -> None:
    """No type, length or nesting is confused with another."""
    hashes = {query_hash(part) for part in DISTINCT} | {query_hash(part, None) for part in DISTINCT}
    assert len(hashes) == 2 * len(DISTINCT)


def test_equal_parts_have_equal_hashes() -> None:
    """The order of sets and mappings, and the spelling of a time, do not count."""
    assert query_hash({"a": 1, "b": 2}) == query_hash({"b": 2, "a": 1})
    assert query_hash({"x", "y", "z"}) == query_hash(frozenset(["z", "y", "x"]))
    east = timezone(timedelta(hours=2))
    assert query_hash(datetime(2023, 1, 1, 2, tzinfo=east)) == query_hash(datetime(2023, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("part", [1.5, object(), datetime(2023, 1, 1)])  # noqa: DTZ001 - refused for it
def test_a_part_without_an_encoding_is_refused(part: object) -> None:
    """A value whose encoding nobody defined is refused rather than hashed by accident."""
    with pytest.raises(TypeError, match="no canonical encoding"):
        query_hash(part)


def test_hash_is_stable() -> None:
    """Tokens outlive a restart, so the encoding must not change unnoticed: raise TOKEN_VERSION with it."""
    assert query_hash("a", 1, None, {"k": [True]}).hex()[:16] == "7faf42f44ddbad8e"
