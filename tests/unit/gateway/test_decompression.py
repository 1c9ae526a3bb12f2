"""Bodies are decompressed as they arrive, whatever the cuts, in pieces of bounded size."""

import gzip
import random
import zlib
from collections.abc import Callable

import pytest
import zstandard

from runstore.domain.errors import RunstoreError
from runstore.gateway.decompression import PIECE_BYTES, Decompressor, decompressor_of

CONTENT = random.Random(3).randbytes(700_000).hex().encode()
PARTS = (CONTENT[:500_000], CONTENT[500_000:], b"")
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "zstd": zstandard.compress,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
}
ENCODED = {
    "zstd": b"".join(zstandard.compress(part) for part in PARTS),
    "gzip": b"".join(gzip.compress(part) for part in PARTS),
    "deflate": zlib.compress(CONTENT),
}


def decompressor(encoding: str) -> Decompressor:
    """Of the encoding."""
    made = decompressor_of(encoding)
    assert made is not None
    return made


@pytest.mark.parametrize("encoding", list(ENCODED))
@pytest.mark.parametrize("cut", [1_000, 65_536, 10_000_000])
def test_content_of_all_frames(encoding: str, cut: int) -> None:
    """Frames and members one after the other, cut anywhere."""
    made, body = decompressor(encoding), ENCODED[encoding]
    pieces = [piece for start in range(0, len(body), cut) for piece in made.feed(body[start : start + cut])]
    made.end()
    assert b"".join(pieces) == CONTENT


@pytest.mark.parametrize("encoding", list(COMPRESSORS))
def test_bomb_goes_off_in_small_pieces(encoding: str) -> None:
    """100 MB of nothing never are in memory at once."""
    nothing = b"\0" * 100_000_000
    sizes = [len(piece) for piece in decompressor(encoding).feed(COMPRESSORS[encoding](nothing))]
    assert sum(sizes) == len(nothing)
    assert max(sizes) <= PIECE_BYTES


@pytest.mark.parametrize("encoding", list(COMPRESSORS))
def test_nonsense_is_refused(encoding: str) -> None:
    """As a malformed body."""
    with pytest.raises(RunstoreError, match="not valid"):
        list(decompressor(encoding).feed(b"nonsense that is long enough"))


@pytest.mark.parametrize("encoding", list(COMPRESSORS))
@pytest.mark.parametrize("missing", [1, 4, 9, 100])
def test_missing_end_is_noticed(encoding: str, missing: int) -> None:
    """Whatever has come of the content; nothing at all is no content."""
    made = decompressor(encoding)
    made.end()
    list(made.feed(COMPRESSORS[encoding](b"x" * 1_000 + CONTENT[:1_000])[:-missing]))
    with pytest.raises(RunstoreError, match=f"The {encoding} body ends before its content does"):
        made.end()


def test_unknown_encoding_is_refused() -> None:
    """Before anything is read."""
    assert decompressor_of("identity") is None
    with pytest.raises(RunstoreError, match="Content-Encoding"):
        decompressor_of("br")
