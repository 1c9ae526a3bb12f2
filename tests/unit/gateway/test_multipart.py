"""Splitting of multipart bodies."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.gateway.multipart import boundary_of, split

from .wire import BOUNDARY, body, part

_NAMES = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='"\\%;'), min_size=1, max_size=20
)


@given(st.lists(st.tuples(_NAMES, st.binary(max_size=50))))
def test_parts_come_back_as_they_went_in(parts: list[tuple[str, bytes]]) -> None:
    """Any names and contents, line breaks and dashes included, survive."""
    found = list(split(body(*(part(name, content) for name, content in parts)), BOUNDARY))
    assert [(name, content) for name, _, _, content in found] == parts
    assert all(declared == len(content) for _, _, declared, content in found)


def test_declared_length_wins_over_a_boundary_in_the_content() -> None:
    """Content may look like framing."""
    content = f"a\r\n--{BOUNDARY}\r\nb".encode()
    assert [each.content for each in split(body(part("x", content), part("y", b"z")), BOUNDARY)] == [
        content,
        b"z",
    ]


@pytest.mark.parametrize(
    "headers",
    [
        "Content-Type: text/plain; length=3\r\n",
        "Content-Type: text/plain;length=3\r\n",
        'Content-Type: text/plain; length="3"\r\n',
        "content-length: 3\r\ncontent-type: text/plain\r\n",
        "X-Extra: 1\r\nContent-Type: text/plain\r\nContent-Length:3\r\n",
    ],
)
def test_headers_in_any_form(headers: str) -> None:
    """Python's header, JavaScript's parameter, any order and case."""
    (found,) = split(body(part("x", b"abc", headers)), BOUNDARY)
    assert found == ("x", "text/plain", 3, b"abc")


def test_names_are_unquoted() -> None:
    """Percent-encoded quotes, as browsers and urllib3 write them; a filename is passed over."""
    raw = body(part('a%22b"; filename="f', b"", "Content-Type: a/b\r\nContent-Length: 0\r\n"))
    (found,) = split(raw, BOUNDARY)
    assert found.name == 'a"b'


@pytest.mark.parametrize("length", ["2", "4", "99999", "x", "-1", "1" * 30])
def test_wrong_length_ends_at_the_next_boundary(length: str) -> None:
    """A part with a wrong length does not take its neighbour along."""
    headers = f"Content-Type: a/b\r\nContent-Length: {length}\r\n"
    first, second = split(body(part("x", b"abc", headers), part("y", b"z")), BOUNDARY)
    assert (first.content, second.content) == (b"abc", b"z")
    assert first.declared_bytes != 3


def test_preamble_and_epilogue_are_ignored() -> None:
    """As RFC 2046 allows."""
    assert [each.name for each in split(b"hello\r\n" + body(part("x", b"")) + b"bye", BOUNDARY)] == ["x"]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"no boundary at all",
        body(part("x", b"abc"))[:-4],
        body(part("x", b"abc"))[:-50],
        body(part("x", b"abc"))[:40],
        f"--{BOUNDARY}\r\n\r\nx\r\n--{BOUNDARY}--".encode(),
        f"--{BOUNDARY}\r\nContent-Disposition: attachment\r\n\r\nx\r\n--{BOUNDARY}--".encode(),
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="\xff"\r\n\r\nx\r\n--{BOUNDARY}--'.encode(
            "latin-1"
        ),
        f"--{BOUNDARY}junk\r\n--{BOUNDARY}--".encode(),
        f"--{BOUNDARY}\r\nX: {'y' * 20_000}\r\n\r\n--{BOUNDARY}--".encode(),
        f"--{BOUNDARY}".encode(),
    ],
)
def test_broken_framing_is_malformed(raw: bytes) -> None:
    """Cut short, without headers or names, or not multipart at all."""
    with pytest.raises(RunstoreError) as caught:
        list(split(raw, BOUNDARY))
    assert caught.value.reason is ErrorReason.MALFORMED_BODY


@given(st.binary(max_size=200), st.integers(0, 400))
def test_any_bytes_split_or_are_refused(noise: bytes, cut: int) -> None:
    """No input leads to another error than the refusal."""
    raw = body(part("x", b"abc"))
    with contextlib.suppress(RunstoreError):
        assert len(list(split(raw[:cut] + noise + raw[cut:], BOUNDARY))) <= 2


@pytest.mark.parametrize(
    "content_type",
    ["", "application/json", "multipart/form-data", "multipart/form-data; boundary=" + "x" * 300],
)
def test_boundary_is_needed(content_type: str) -> None:
    """Only multipart/form-data with a usable boundary is split."""
    with pytest.raises(RunstoreError):
        boundary_of(content_type)


@pytest.mark.parametrize("form", [f"boundary={BOUNDARY}", f'boundary="{BOUNDARY}"', f"Boundary={BOUNDARY}"])
def test_boundary_forms(form: str) -> None:
    """Quoted or not."""
    assert boundary_of(f"multipart/form-data; {form}") == BOUNDARY
