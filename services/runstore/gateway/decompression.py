"""Decompresses bodies while they arrive, in pieces of bounded size."""

import sys
import zlib
from collections.abc import Iterator
from typing import Any, Final, Protocol

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


class Decompressor(Protocol):
    """Of one body."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Takes the next bytes of the body; the pieces of content in them must be taken before the next call.
        Raises MALFORMED_BODY."""
        ...

    def end(self) -> None:
        """There are no more bytes. Raises MALFORMED_BODY when there should be."""
        ...


def decompressor_of(encoding: str) -> Decompressor | None:
    """For a body of this Content-Encoding; None for one that is not compressed. Raises MALFORMED_BODY."""
    match encoding.strip().lower():
        case "" | "identity":
            return None
        case "zstd":
            return _Zstd()
        case "gzip" | "x-gzip":
            return _Inflate("gzip", _GZIP)
        case "deflate":
            return _Inflate("deflate", _ZLIB)
    raise _malformed("Content-Encoding must be zstd, gzip, deflate or identity.")


class _Zstd:
    """Any number of frames. The standard library's decompressor bounds each piece of output and takes input
    as it comes; `zstandard`, no faster, does either."""

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

    def end(self) -> None:
        if self._frame is not None:
            raise _cut_short("zstd")


class _Inflate:
    """Any number of members."""

    def __init__(self, name: str, wbits: int) -> None:
        self._name = name
        self._wbits = wbits
        self._member: Any = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._member is None:
                self._member = zlib.decompressobj(self._wbits)
            try:
                piece = self._member.decompress(data, PIECE_BYTES)
            except zlib.error as error:
                raise _malformed(f"The body is not valid {self._name}: {error}.") from error
            data = self._member.unconsumed_tail
            if self._member.eof:
                data, self._member = self._member.unused_data, None
            if piece:
                yield piece

    def end(self) -> None:
        if self._member is not None:
            raise _cut_short(self._name)


def _cut_short(name: str) -> RunstoreError:
    return _malformed(f"The {name} body ends before its content does.")


def _malformed(message: str) -> RunstoreError:
    return RunstoreError(ErrorReason.MALFORMED_BODY, message)
