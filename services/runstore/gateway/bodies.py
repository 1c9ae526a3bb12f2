"""Reads request bodies, decompressed and within limits: whole, or as a stream of pieces if they are large.

Nothing of a malformed body is stored: a body has to be seen to its end before its first operation goes on.
What all calls together hold in memory is therefore bounded, too.
"""

import asyncio
import re
import threading
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final

import zstandard
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.json_text import replace_lone_surrogates
from runstore.gateway.decompression import PIECE_BYTES, feed_of
from runstore.gateway.dialects import is_agent_path, limits_itself

_CHUNK_BYTES: Final = 256 * 1024
# Below this, a thread costs more than it saves the other calls.
_THREAD_THRESHOLD_BYTES: Final = 128 * 1024
# A small body of repeated text compresses beyond any ratio and hurts nobody.
_RATIO_THRESHOLD_BYTES: Final = 16 * 1024 * 1024
# What zstd -19 needs; larger windows (up to 2 GiB) would be allocated on a stranger's word.
_MAX_ZSTD_WINDOW_BYTES: Final = 32 * 1024 * 1024
# Above this, a body that can be streamed is. The largest batches of SDKs, 20 MiB decompressed, are below.
_STREAMED_BYTES: Final = 32 * 1024 * 1024
_MAX_JSON_BODY_BYTES: Final = 16 * 1024 * 1024
# Inputs and states of graphs; what one message to the store can hold.
_MAX_AGENT_BODY_BYTES: Final = 64 * 1024 * 1024
# Formats of zlib, by what its constructor calls `wbits`.
_GZIP: Final = 31
_ZLIB: Final = 15


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """What a body may be at most."""

    max_body_bytes: int
    """As it travels."""
    max_decompressed_bytes: int
    max_decompression_ratio: int
    """Enforced above 16 MiB decompressed."""
    max_memory_bytes: int
    """Of the bodies of all calls together, compressed and decompressed."""
    max_payload_bytes: int
    """Of one payload that is streamed to the store; the store has the same limits."""
    max_attachment_bytes: int


class BodyReader:
    """Reads bodies for all calls of one gateway.

    The calls together hold a bounded part of them in memory; a call beyond that is refused with OVERLOADED,
    which clients retry.
    """

    def __init__(self, limits: BodyLimits) -> None:
        self._limits = limits
        self._free_bytes = limits.max_memory_bytes
        # Compressed and decompressed, one body always fits.
        self._most_of_one = limits.max_memory_bytes // 2
        self._lock = threading.Lock()  # Large bodies are decompressed in threads.

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """The request's body, decompressed; the memory is accounted for until the block ends.

        Raises MALFORMED_BODY (broken or unknown compression), TOO_LARGE, OVERLOADED, and
        starlette's ClientDisconnect.
        """
        with self._holding() as hold:
            body = _Arriving(request, self._limits)
            await body.receive(hold, self._most_of_one)
            content = await body.content(hold, self._most_of_one)
            if content is None:
                raise _too_large(f"The body is above {self._most_of_one} bytes, which only multipart may be.")
            yield content

    @asynccontextmanager
    async def read_or_stream(self, request: Request) -> "AsyncIterator[bytes | BodyStream]":
        """As `read`, but a large body as a stream. Raises what `read` does; the stream does, too."""
        most_bytes = min(_STREAMED_BYTES, self._most_of_one)
        kept_bytes = 0

        def keep(count: int) -> None:
            nonlocal kept_bytes
            kept_bytes += count
            if kept_bytes > self._most_of_one:
                raise _too_large(
                    f"What is not uploaded apart of the body is above {self._most_of_one} bytes."
                )
            hold(count)

        with self._holding() as hold:
            body = _Arriving(request, self._limits)
            await body.receive(hold, most_bytes)
            content = await body.content(hold, most_bytes)
            yield BodyStream(body.pieces(), keep, self._limits) if content is None else content

    @contextmanager
    def _holding(self) -> Iterator[Callable[[int], None]]:
        held_bytes = 0

        def hold(count: int) -> None:
            nonlocal held_bytes
            self._take(count)
            held_bytes += count

        try:
            yield hold
        finally:
            self._give_back(held_bytes)

    def _take(self, count: int) -> None:
        with self._lock:
            if count > self._free_bytes:
                raise RunstoreError(ErrorReason.OVERLOADED, "Too many large bodies at once; try again.")
            self._free_bytes -= count

    def _give_back(self, count: int) -> None:
        with self._lock:
            self._free_bytes += count


@dataclass(frozen=True, slots=True)
class BodyStream:
    """A large body, to be read once."""

    pieces: AsyncIterator[bytes]
    """Decompressed, of at most 256 KiB."""
    hold: Callable[[int], None]
    """Accounts for bytes of it that are kept until the end of the call. Raises TOO_LARGE, OVERLOADED."""
    limits: BodyLimits


class _Arriving:
    """One body: at first what has arrived of it, then its content, or pieces of it."""

    def __init__(self, request: Request, limits: BodyLimits) -> None:
        self._encoding = request.headers.get("content-encoding", "")
        self._decompress = _decompressor(self._encoding)
        self._limits = limits
        declared = request.headers.get("content-length", "")
        self._declared_bytes = int(declared) if re.fullmatch("[0-9]{1,19}", declared) else 0
        if self._declared_bytes > limits.max_body_bytes:
            raise _too_large(f"The body is above {limits.max_body_bytes} bytes.")
        self._stream = aiter(request.stream())
        self._arrived: list[bytes] = []
        self._arrived_bytes = 0
        self._is_whole = False

    async def receive(self, hold: Callable[[int], None], most_bytes: int) -> None:
        """Receive all, or more than `most_bytes` of it."""
        if self._declared_bytes > most_bytes:
            return
        async for chunk in self._stream:
            self._count(len(chunk))
            self._arrived.append(chunk)
            if self._arrived_bytes > most_bytes:
                return
            hold(len(chunk))
        self._is_whole = True

    async def content(self, hold: Callable[[int], None], most_bytes: int) -> bytes | None:
        """The content; None when it is above `most_bytes`."""
        if not self._is_whole:
            return None
        body = b"".join(self._arrived)
        if self._decompress is None:
            return body
        if len(body) < _THREAD_THRESHOLD_BYTES:
            return self._decompressed(body, self._decompress, hold, most_bytes)
        return await asyncio.to_thread(self._decompressed, body, self._decompress, hold, most_bytes)

    async def pieces(self) -> AsyncIterator[bytes]:
        """The content from its beginning."""
        feed = feed_of(self._encoding)
        size = 0
        async for chunk in self._chunks():
            for start in range(0, len(chunk), PIECE_BYTES):
                for piece in feed(chunk[start : start + PIECE_BYTES]):
                    size += len(piece)
                    self._check(size, self._arrived_bytes)
                    yield piece

    async def _chunks(self) -> AsyncIterator[bytes]:
        """What has arrived, which is forgotten on the way, and then the rest."""
        self._arrived.reverse()
        while self._arrived:
            yield self._arrived.pop()
        async for chunk in self._stream:
            self._count(len(chunk))
            yield chunk

    def _count(self, count: int) -> None:
        self._arrived_bytes += count
        if self._arrived_bytes > self._limits.max_body_bytes:
            raise _too_large(f"The body is above {self._limits.max_body_bytes} bytes.")

    def _decompressed(
        self, body: bytes, decompress: "_Decompress", hold: Callable[[int], None], most_bytes: int
    ) -> bytes | None:
        chunks: list[bytes] = []
        size = 0
        for chunk in decompress(body):
            size += len(chunk)
            self._check(size, len(body))
            if size > most_bytes:
                return None
            hold(len(chunk))
            chunks.append(chunk)
        return b"".join(chunks)

    def _check(self, size: int, body_bytes: int) -> None:
        limits = self._limits
        if size > limits.max_decompressed_bytes:
            raise _too_large(f"The body is above {limits.max_decompressed_bytes} bytes decompressed.")
        if size > _RATIO_THRESHOLD_BYTES and size > body_bytes * limits.max_decompression_ratio:
            raise _too_large(f"The body decompresses to more than {limits.max_decompression_ratio} times.")


class JsonBodies:
    """ASGI middleware for the bodies that FastAPI reads by itself; ingest reads its own.

    It bounds them, and replaces halves of surrogate pairs, which Python's parser makes texts of that are
    none for whatever comes after it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers 413 once more than 16 MiB have arrived, or 64 MiB for an agent."""
        if scope["type"] != "http" or limits_itself(scope["method"], scope["path"]):
            await self._app(scope, receive, send)
            return
        limit = _MAX_AGENT_BODY_BYTES if is_agent_path(scope["path"]) else _MAX_JSON_BODY_BYTES
        body = bytearray()
        is_received = False

        async def receive_body() -> Message:
            nonlocal is_received
            while True:
                message = await receive()
                if message["type"] != "http.request" or is_received:
                    return message
                body.extend(message.get("body", b""))
                if len(body) > limit:
                    # The one exception that FastAPI lets through while it reads a body.
                    raise HTTPException(413, f"The body is above {limit} bytes.")
                if not message.get("more_body"):
                    is_received, content = True, bytes(body)
                    body.clear()
                    return {**message, "body": replace_lone_surrogates(content)}

        await self._app(scope, receive_body, send)


_Decompress = Callable[[bytes], Iterator[bytes]]


def _decompressor(encoding: str) -> _Decompress | None:
    match encoding.strip().lower():
        case "" | "identity":
            return None
        case "zstd":
            return _unzstd
        case "gzip" | "x-gzip":
            return lambda body: _inflated(body, "gzip", _GZIP)
        case "deflate":
            return lambda body: _inflated(body, "deflate", _ZLIB)
    raise _malformed("Content-Encoding must be zstd, gzip, deflate or identity.")


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


def _inflated(body: bytes, name: str, wbits: int) -> Iterator[bytes]:
    """The content of all members."""
    while body:
        member = zlib.decompressobj(wbits)
        while not member.eof:
            try:
                chunk = member.decompress(body, _CHUNK_BYTES)
            except zlib.error as error:
                raise _malformed(f"The body is not valid {name}: {error}.") from error
            body = member.unconsumed_tail
            if not chunk and not body and not member.eof:
                raise _malformed(f"The {name} body ends before its content does.")
            if chunk:
                yield chunk
        body = member.unused_data


def _malformed(message: str) -> RunstoreError:
    return RunstoreError(ErrorReason.MALFORMED_BODY, message)


def _too_large(message: str) -> RunstoreError:
    return RunstoreError(ErrorReason.TOO_LARGE, message)
