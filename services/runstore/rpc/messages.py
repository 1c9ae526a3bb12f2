"""Messages as they come: decompressed within a limit, and parsed.

gRPC itself would decompress them, a thousandfold at once, before anybody can ask who sends them.
"""

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from runstore.domain.errors import ErrorReason, RunstoreError

MAX_MESSAGE_BYTES: Final = 65 * 1024 * 1024
MAX_BYTES_OF_STRANGERS: Final = 1024 * 1024
"""Of a message that came compressed, of somebody who needs no credential."""

OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.per_message_decompression", 0),
    # None and gzip: what deflate makes may begin as a message does.
    ("grpc.compression_enabled_algorithms_bitset", 0b101),
)
"""What a server needs for `message` and `messages`."""

_PIECE_BYTES: Final = 256 * 1024
_EOF: Final = grpc.aio.EOF  # type: ignore[attr-defined]  # its stubs do not know it

# What is compressed is not told with it. No message of protobuf begins so: there is no such type of field.
_GZIP: Final = b"\x1f\x8b"
_GZIP_FORMAT: Final = 31

# One message after the other, so that bombs do not go off together.
_turn: Final = asyncio.Lock()

Parse: TypeAlias = Callable[[bytes], Any]
_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


async def message(parse: Parse, context: _Context, max_bytes: int) -> Any:
    """The one message of a call. Raises MALFORMED_BODY, TOO_LARGE."""
    data = await context.read()
    if data is _EOF:
        raise RunstoreError(ErrorReason.MALFORMED_BODY, "the call has no message, or one that is too large")
    return _parsed(parse, await _plain(data, max_bytes))


async def messages(parse: Parse, context: _Context, max_bytes: int) -> AsyncIterator[Any]:
    """The messages of a stream, as they come; the iterator raises as `message` does."""

    async def each() -> AsyncIterator[Any]:
        while (data := await context.read()) is not _EOF:
            yield _parsed(parse, await _plain(data, max_bytes))

    return each()


def parsing_small(parse: Parse) -> Parse:
    """For handlers that gRPC brings along: they get their message as it has come."""

    def plain(data: bytes) -> Any:
        return parse(b"".join(_inflated(data, MAX_BYTES_OF_STRANGERS)) if data.startswith(_GZIP) else data)

    return plain


async def _plain(data: bytes, max_bytes: int) -> bytes:
    if not data.startswith(_GZIP):
        return data
    async with _turn:
        pieces = []
        for piece in _inflated(data, max_bytes):
            pieces.append(piece)
            if len(piece) == _PIECE_BYTES:
                await asyncio.sleep(0)  # Other calls go on.
        return b"".join(pieces)


def _inflated(data: bytes, max_bytes: int) -> Iterator[bytes]:
    inflate = zlib.decompressobj(_GZIP_FORMAT)
    size = 0
    while not inflate.eof:
        try:
            piece = inflate.decompress(data, _PIECE_BYTES)
        except zlib.error as error:
            raise RunstoreError(ErrorReason.MALFORMED_BODY, f"not valid gzip: {error}") from error
        data = inflate.unconsumed_tail
        if not piece and not inflate.eof:
            raise RunstoreError(ErrorReason.MALFORMED_BODY, "not valid gzip: it breaks off")
        size += len(piece)
        if size > max_bytes:
            raise RunstoreError(ErrorReason.TOO_LARGE, f"the message has more than {max_bytes} bytes")
        yield piece


def _parsed(parse: Parse, data: bytes) -> Any:
    """The message in `data`. gRPC itself would log a traceback for bytes that are none, and say INTERNAL."""
    try:
        return parse(data)
    except DecodeError as error:
        raise RunstoreError(ErrorReason.MALFORMED_BODY, "the message is not of the method's type") from error
