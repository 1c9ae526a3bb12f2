"""One request of the fuzzing, and how its body is compressed."""

import gzip
import random
from dataclasses import dataclass, field
from typing import Final

import zstandard
from tests.fuzz.mutations import broken_bytes

_BOMB_BYTES: Final = 40 * 1024 * 1024
_ZSTD_BOMB: Final = zstandard.ZstdCompressor(level=1).compress(bytes(_BOMB_BYTES))
_GZIP_BOMB: Final = gzip.compress(bytes(_BOMB_BYTES), compresslevel=1)
_HUGE_WINDOW: Final = b"\x28\xb5\x2f\xfd\x00\xff\x01\x00\x00"
"""A zstd frame whose header asks for the largest window there is."""


@dataclass(slots=True)
class Case:
    """One request."""

    kind: str
    method: str = "POST"
    path: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    messages: list[bytes] = field(default_factory=list)
    """Of a gRPC call instead: one for WriteRuns, any number for StreamRuns."""
    witness: str | None = None
    """A run that was left alone: it must be accepted unless the whole request is refused."""
    is_whole: bool = False
    """Nothing is broken: the request must be accepted."""
    disconnects: bool = False
    """The client goes away before the end of its body."""


def encoded(chance: random.Random, made: Case) -> Case:
    """Compressed as SDKs do, and most often rightly so."""
    encoding = chance.choice(("zstd", "zstd", "gzip", "")) if made.kind == "multipart" else ""
    if chance.random() < 0.1:
        encoding = chance.choice(("zstd", "gzip", "br", "zstd, gzip", "x" * 500, "identity"))
    plain = made.body
    if encoding == "zstd":
        compressor = zstandard.ZstdCompressor(level=1).compressobj()
        made.body = compressor.compress(made.body) + compressor.flush()
    elif encoding == "gzip":
        made.body = gzip.compress(made.body, compresslevel=1, mtime=0)
    if encoding:
        made.headers.append(("content-encoding", encoding))
    if encoding not in ("", "zstd", "gzip", "identity"):
        made.witness = None
    if encoding in ("zstd", "gzip") and chance.random() < 0.15:
        made.witness = None
        made.body = chance.choice(
            (lambda: broken_bytes(chance, made.body), lambda: made.body[: len(made.body) // 2],
             lambda: made.body + made.body, lambda: plain, lambda: made.body + b"junk", lambda: _HUGE_WINDOW,
             lambda: b"", lambda: _ZSTD_BOMB if chance.random() < 0.02 else b"\x28\xb5\x2f\xfd",
             lambda: _GZIP_BOMB if chance.random() < 0.02 else b"\x1f\x8b")
        )()  # fmt: skip
    if chance.random() < 0.02:
        made.headers.append(("content-length", chance.choice(("x", "-1", "0", "9" * 20, "1e9", "\xb2"))))
        if made.headers[-1][1] == "9" * 20:
            made.witness = None
    return made
