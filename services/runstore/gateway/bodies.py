"""Reads request bodies whole, decompressed, and within limits.

Whole, because nothing of a malformed body is stored: a body has to be seen to its end before its
first operation goes on. What all calls together hold in memory is therefore bounded, too.
"""

import asyncio
import threading
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import zstandard
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.gateway.dialects import Dialect, dialect_of

_CHUNK_BYTES: Final = 256 * 1024
# Below this, a thread costs more than it saves the other calls.
_THREAD_THRESHOLD_BYTES: Final = 128 * 1024
# A small body of repeated text compresses beyond any ratio and hurts nobody.
_RATIO_THRESHOLD_BYTES: Final = 16 * 1024 * 1024
# What zstd -19 needs; larger windows (up to 2 GiB) would be allocated on a stranger's word.
_MAX_ZSTD_WINDOW_BYTES: Final = 32 * 1024 * 1024
_MAX_JSON_BODY_BYTES: Final = 16 * 1024 * 1024
_GZIP_WBITS: Final = 31


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """What a body may be at most."""

    max_body_bytes: int
    """As it travels."""
    max_decompressed_bytes: int
    max_decompression_ratio: int
    """Enforced above 16 MiB decompressed."""


class BodyReader:
    """Reads bodies for all calls of one gateway.

    The calls together hold at most one body of the largest size, compressed and decompressed; a
    call beyond that is refused with OVERLOADED, which clients retry.
    """

    def __init__(self, limits: BodyLimits) -> None:
        self._limits = limits
        self._free_bytes = limits.max_body_bytes + limits.max_decompressed_bytes
        self._lock = threading.Lock()  # Large bodies are decompressed in threads.

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """The request's body, decompressed; the memory is accounted for until the block ends.

        Raises MALFORMED_BODY (broken or unknown compression), TOO_LARGE, OVERLOADED, and
        starlette's ClientDisconnect.
        """
        held_bytes = 0

        def hold(count: int) -> None:
            nonlocal held_bytes
            self._take(count)
            held_bytes += count

        try:
            yield await self._read(request, hold)
        finally:
            self._give_back(held_bytes)

    async def _read(self, request: Request, hold: Callable[[int], None]) -> bytes:
        decompress = _decompressor(request.headers.get("content-encoding", ""))
        body = await self._receive(request, hold)
        if decompress is None:
            return body
        if len(body) < _THREAD_THRESHOLD_BYTES:
            return self._decompressed(body, decompress, hold)
        return await asyncio.to_thread(self._decompressed, body, decompress, hold)

    async def _receive(self, request: Request, hold: Callable[[int], None]) -> bytes:
        limit = self._limits.max_body_bytes
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > limit:
            raise _too_large(f"The body is above {limit} bytes.")
        chunks: list[bytes] = []
        received = 0
        async for chunk in request.stream():
            received += len(chunk)
            if received > limit:
                raise _too_large(f"The body is above {limit} bytes.")
            hold(len(chunk))
            chunks.append(chunk)
        return b"".join(chunks)

    def _decompressed(self, body: bytes, decompress: "_Decompress", hold: Callable[[int], None]) -> bytes:
        limits = self._limits
        chunks: list[bytes] = []
        size = 0
        for chunk in decompress(body):
            size += len(chunk)
            if size > limits.max_decompressed_bytes:
                raise _too_large(f"The body is above {limits.max_decompressed_bytes} bytes decompressed.")
            if size > _RATIO_THRESHOLD_BYTES and size > len(body) * limits.max_decompression_ratio:
                raise _too_large(
                    f"The body decompresses to more than {limits.max_decompression_ratio} times."
                )
            hold(len(chunk))
            chunks.append(chunk)
        return b"".join(chunks)

    def _take(self, count: int) -> None:
        with self._lock:
            if count > self._free_bytes:
                raise RunstoreError(ErrorReason.OVERLOADED, "Too many large bodies at once; try again.")
            self._free_bytes -= count

    def _give_back(self, count: int) -> None:
        with self._lock:
            self._free_bytes += count


class JsonBodyLimit:
    """ASGI middleware that bounds the bodies that FastAPI reads by itself; ingest has its own limits."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers 413 once more than 16 MiB have arrived."""
        if scope["type"] != "http" or dialect_of(scope["method"], scope["path"]) is Dialect.GO:
            await self._app(scope, receive, send)
            return
        received = 0

        async def receive_some() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > _MAX_JSON_BODY_BYTES:
                # The one exception that FastAPI lets through while it reads a body.
                raise HTTPException(413, f"The body is above {_MAX_JSON_BODY_BYTES} bytes.")
            return message

        await self._app(scope, receive_some, send)


_Decompress = Callable[[bytes], Iterator[bytes]]


def _decompressor(encoding: str) -> _Decompress | None:
    match encoding.strip().lower():
        case "" | "identity":
            return None
        case "zstd":
            return _unzstd
        case "gzip" | "x-gzip":
            return _gunzip
    raise _malformed("Content-Encoding must be zstd, gzip or identity.")


def _unzstd(body: bytes) -> Iterator[bytes]:
    """The content of all frames. A frame that is cut short ends silently: its reader cannot tell.

    What is in the body (multipart or JSON) says that its own end is missing.
    """
    decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_ZSTD_WINDOW_BYTES)
    # The reader bounds each piece of output; a decompressobj would expand a bomb in one call.
    with decompressor.stream_reader(body, read_across_frames=True) as reader:
        try:
            while chunk := reader.read(_CHUNK_BYTES):
                yield chunk
        except zstandard.ZstdError as error:
            raise _malformed(f"The body is not valid zstd: {error}.") from error


def _gunzip(body: bytes) -> Iterator[bytes]:
    """The content of all members."""
    while body:
        member = zlib.decompressobj(_GZIP_WBITS)
        while not member.eof:
            try:
                chunk = member.decompress(body, _CHUNK_BYTES)
            except zlib.error as error:
                raise _malformed(f"The body is not valid gzip: {error}.") from error
            body = member.unconsumed_tail
            if not chunk and not body and not member.eof:
                raise _malformed("The gzip body ends before its content does.")
            if chunk:
                yield chunk
        body = member.unused_data


def _malformed(message: str) -> RunstoreError:
    return RunstoreError(ErrorReason.MALFORMED_BODY, message)


def _too_large(message: str) -> RunstoreError:
    return RunstoreError(ErrorReason.TOO_LARGE, message)
