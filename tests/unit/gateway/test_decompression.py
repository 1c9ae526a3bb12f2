"""Bodies are decompressed as they arrive, whatever the cuts, in pieces of bounded size."""

import gzip
import random
import zlib
from collections.abc import Callable

import pytest
import zstandard

from runstore.domain.errors import RunstoreError
from runstore.gateway.decompression import PIECE_BYTES, feed_of

CONTENT = random.Random(3).randbytes(700_000).hex().encode()
PARTS = (CONTENT[:500_000], CONTENT[500_000:], b"")
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "zstd": zstandard.compress,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
}
ENCODED = {
    "": CONTENT[:PIECE_BYTES],
    "zstd": b"".join(zstandard.compress(part) for part in PARTS),
    "gzip": b"".join(gzip.compress(part) for part in PARTS),
    "deflate": zlib.compress(CONTENT),
}


@pytest.mark.parametrize("encoding", list(ENCODED))
@pytest.mark.parametrize("cut", [1_000, 65_536, 10_000_000])
def test_content_of_all_frames(encoding: str, cut: int) -> None:
    """Frames and members one after the other, cut anywhere."""
    feed, body = feed_of(encoding), ENCODED[encoding]
    pieces = [piece for start in range(0, len(body), cut) for piece in feed(body[start : start + cut])]
    assert b"".join(pieces) == (CONTENT if encoding else body)


@pytest.mark.parametrize("encoding", list(COMPRESSORS))
def test_bomb_goes_off_in_small_pieces(encoding: str) -> None:
    """100 MB of nothing never are in memory at once."""
    nothing = b"\0" * 100_000_000
    sizes = [len(piece) for piece in feed_of(encoding)(COMPRESSORS[encoding](nothing))]
    assert sum(sizes) == len(nothing)
    assert max(sizes) <= PIECE_BYTES


@pytest.mark.parametrize("encoding", list(COMPRESSORS))
def test_nonsense_is_refused(encoding: str) -> None:
    """As a malformed body."""
    with pytest.raises(RunstoreError, match="not valid"):
        list(feed_of(encoding)(b"nonsense that is long enough"))


def test_unknown_encoding_is_refused() -> None:
    """Before anything is read."""
    with pytest.raises(RunstoreError, match="Content-Encoding"):
        feed_of("br")
