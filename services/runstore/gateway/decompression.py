"""Decompresses bodies while they arrive, in pieces of bounded size."""

import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final

from runstore.domain.errors import ErrorReason, RunstoreError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PIECE_BYTES: Final = 256 * 1024
"""Largest piece that a decompressor yields."""

# What zstd -19 needs (32 MiB); larger windows would be allocated on a stranger's word.
_MAX_ZSTD_WINDOW_LOG: Final = 25
# Formats of zlib, by what its constructor calls `wbits`.
_GZIP: Final = 31
_ZLIB: Final = 15

Feed = Callable[[bytes], Iterator[bytes]]
"""Takes the next bytes of a body; the pieces of content in them must be taken before the next call."""


def feed_of(encoding: str) -> Feed:
    """What decompresses a body of this Content-Encoding. Its calls raise MALFORMED_BODY, and so does this.

    An end that is missing is not noticed: what is in the body says that.
    """
    match encoding.strip().lower():
        case "" | "identity":
            return _identity
        case "zstd":
            return _Zstd().feed
        case "gzip" | "x-gzip":
            return _Inflate("gzip", _GZIP).feed
        case "deflate":
            return _Inflate("deflate", _ZLIB).feed
    raise _malformed("Content-Encoding must be zstd, gzip, deflate or identity.")


def _identity(data: bytes) -> Iterator[bytes]:
    if data:
        yield data


class _Zstd:
    """Any number of frames. The standard library's decompressor, because it bounds each piece of output and
    takes input as it comes; `zstandard` does either."""

    def __init__(self) -> None:
        self._frame: Any = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data or (self._frame is not None and not self._frame.needs_input):
            if self._frame is None:
                self._frame = zstd.ZstdDecompressor(
                    options={zstd.DecompressionParameter.window_log_max: _MAX_ZSTD_WINDOW_LOG}
                )
            try:
                piece = self._frame.decompress(data, PIECE_BYTES)
            except zstd.ZstdError as error:
                raise _malformed(f"The body is not valid zstd: {error}.") from error
            data = b""
            if piece:
                yield piece
            if self._frame.eof:
                data, self._frame = self._frame.unused_data, None


class _Inflate:
    """Any number of members."""

    def __init__(self, name: str, wbits: int) -> None:
        self._name = name
        self._wbits = wbits
        self._member = zlib.decompressobj(wbits)

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._member.eof:
                self._member = zlib.decompressobj(self._wbits)
            try:
                piece = self._member.decompress(data, PIECE_BYTES)
            except zlib.error as error:
                raise _malformed(f"The body is not valid {self._name}: {error}.") from error
            data = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            if piece:
                yield piece


def _malformed(message: str) -> RunstoreError:
    return RunstoreError(ErrorReason.MALFORMED_BODY, message)
