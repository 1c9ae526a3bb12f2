"""Reads request bodies, decompressed and within limits: whole, or as a stream of pieces if they are large.

Nothing of a malformed body is stored: a body has to be seen to its end before its first operation goes on.
What all calls together hold in memory is therefore bounded, too.
"""

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.json_text import replace_lone_surrogates
from runstore.gateway.decompression import PIECE_BYTES, Decompressor, decompressor_of
from runstore.gateway.dialects import is_agent_path, limits_itself

# Decompressed where the calls are served; of all that is larger, the rest in a thread.
_INLINE_BYTES: Final = 1024 * 1024
# How much of a body is decompressed before the next one gets its turn.
_TURN_BYTES: Final = 8 * 1024 * 1024
# A small body of repeated text compresses beyond any ratio and hurts nobody.
_RATIO_THRESHOLD_BYTES: Final = 16 * 1024 * 1024
# Above this, a body that can be streamed is. The largest batches of SDKs, 20 MiB decompressed, are below.
_STREAMED_BYTES: Final = 32 * 1024 * 1024
_MAX_JSON_BODY_BYTES: Final = 16 * 1024 * 1024
# Inputs and states of graphs; what one message to the store can hold.
_MAX_AGENT_BODY_BYTES: Final = 64 * 1024 * 1024


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
        self._lock = threading.Lock()  # Large bodies are decompressed in a thread.
        # One, in which they take turns: more would take the processor from calls that are quickly served.
        self._thread = ThreadPoolExecutor(1, "decompression")
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """The request's body, decompressed; the memory is accounted for until the block ends.

        Raises MALFORMED_BODY (broken or unknown compression), TOO_LARGE, OVERLOADED, and
        starlette's ClientDisconnect.
        """
        with self._holding() as hold:
            body = _Arriving(request, self._limits, self._thread, self._turn)
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
            body = _Arriving(request, self._limits, self._thread, self._turn)
            await body.receive(hold, most_bytes)
            content = await body.content(hold, most_bytes)
            yield BodyStream(body.pieces(), keep, self._limits) if content is None else content

    @contextmanager
    def _holding(self) -> Iterator[Callable[[int], None]]:
        held_bytes, is_over = 0, False

        def hold(count: int) -> None:
            nonlocal held_bytes
            with self._lock:
                if is_over:  # The call was cancelled; its thread goes on for a moment.
                    return
                if count > self._free_bytes:
                    raise RunstoreError(ErrorReason.OVERLOADED, "Too many large bodies at once; try again.")
                self._free_bytes -= count
                held_bytes += count

        try:
            yield hold
        finally:
            with self._lock:
                is_over = True
                self._free_bytes += held_bytes


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

    def __init__(
        self, request: Request, limits: BodyLimits, thread: ThreadPoolExecutor, turn: asyncio.Lock
    ) -> None:
        self._thread = thread
        self._turn = turn
        self._decompressor = decompressor_of(request.headers.get("content-encoding", ""))
        self._limits = limits
        declared = request.headers.get("content-length", "")
        self._declared_bytes = int(declared) if re.fullmatch("[0-9]{1,19}", declared) else 0
        if self._declared_bytes > limits.max_body_bytes:
            raise _too_large(f"The body is above {limits.max_body_bytes} bytes.")
        self._stream = aiter(request.stream())
        self._arrived: list[bytes] = []
        self._arrived_bytes = 0
        self._is_whole = False
        self._content: _Content | None = None

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
        self._arrived.clear()
        if self._decompressor is None:
            return body
        pieces = _content_of(self._decompressor, body)
        content = _Content(pieces, partial(self._check, body_bytes=len(body)), hold)
        content.grow(min(_INLINE_BYTES, most_bytes))
        loop = asyncio.get_running_loop()
        while not content.is_whole and content.size <= most_bytes:
            most_now = min(content.size + _TURN_BYTES, most_bytes)
            await loop.run_in_executor(self._thread, content.grow, most_now)
        if content.size <= most_bytes:
            return b"".join(content.chunks)
        self._content = content
        return None

    async def pieces(self) -> AsyncIterator[bytes]:
        """The content from its beginning."""
        size = 0
        async for piece in self._decompressed():
            size += len(piece)
            self._check(size, self._arrived_bytes)
            yield piece
            # Of all large bodies one piece goes on at a time, and then it is the other calls' turn.
            async with self._turn:
                await asyncio.sleep(0)

    async def _decompressed(self) -> AsyncIterator[bytes]:
        if self._content is not None:
            for piece in self._content.pieces():
                yield piece
            return
        async for chunk in self._chunks():
            for start in range(0, len(chunk), PIECE_BYTES):
                piece = chunk[start : start + PIECE_BYTES]
                if self._decompressor is None:
                    yield piece
                    continue
                for content in self._decompressor.feed(piece):
                    yield content
        if self._decompressor is not None:
            self._decompressor.end()

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

    def _check(self, size: int, body_bytes: int) -> None:
        limits = self._limits
        if size > limits.max_decompressed_bytes:
            raise _too_large(f"The body is above {limits.max_decompressed_bytes} bytes decompressed.")
        if size > _RATIO_THRESHOLD_BYTES and size > body_bytes * limits.max_decompression_ratio:
            raise _too_large(f"The body decompresses to more than {limits.max_decompression_ratio} times.")


def _content_of(decompressor: Decompressor, body: bytes) -> Iterator[bytes]:
    yield from decompressor.feed(body)
    decompressor.end()


class _Content:
    """What a compressed body holds, as far as it has been decompressed."""

    def __init__(
        self, rest: Iterator[bytes], check: Callable[[int], None], hold: Callable[[int], None]
    ) -> None:
        self._rest = rest
        self._check = check
        self._hold = hold
        self.chunks: list[bytes] = []
        self.size = 0
        self.is_whole = False

    def grow(self, most_bytes: int) -> None:
        """Go on to the end, or until it is above `most_bytes`."""
        for chunk in self._rest:
            self.size += len(chunk)
            self._check(self.size)
            self._hold(len(chunk))
            self.chunks.append(chunk)
            if self.size > most_bytes:
                return
        self.is_whole = True

    def pieces(self) -> Iterator[bytes]:
        """From its beginning; what has been decompressed is forgotten on the way."""
        self.chunks.reverse()
        while self.chunks:
            yield self.chunks.pop()
        yield from self._rest


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


def _too_large(message: str) -> RunstoreError:
    return RunstoreError(ErrorReason.TOO_LARGE, message)
