"""The two ends of the connection between the store process and its flusher process.

The store tells how far the log is durable, and asks for haste; the flusher tells what it has stored, and
calls the methods of `RunWriter` that need the engine, which the store process owns. Messages are
MessagePack behind a length of four bytes, on a stream socket between two processes of one installation.
"""

import asyncio
import inspect
import socket
import struct
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, get_type_hints

import msgspec
import structlog

from runstore.domain.deletions import PendingDeletions, RunDeletion
from runstore.domain.errors import RunstoreError
from runstore.domain.feedback import FeedbackPatch
from runstore.domain.retention import TraceKeep
from runstore.domain.runs import RunMove, RunPatch, RunPlace, RunRow
from runstore.ingest.flusher import FlushReport
from runstore.ingest.log import LogPosition
from runstore.ingest.purge import Purge
from runstore.ingest.tail import Demand
from runstore.runtime import spans
from runstore.storage.run_store import Block, BlockRefused, RunWriter, StoreUnavailable

_LENGTH = struct.Struct("<I")

logger = structlog.get_logger()


class _Message(msgspec.Struct, frozen=True, tag=True, array_like=True):
    pass


class Durable(_Message, frozen=True):
    """The log is durable up to here."""

    end: LogPosition


class Hurry(_Message, frozen=True):
    """Somebody waits for what is up to this sequence number."""

    sequence: int


class Traced(_Message, frozen=True):
    """Operations up to this sequence number belong to the span of a request."""

    sequence: int
    traceparent: str


class Drain(_Message, frozen=True):
    """Store everything that is durable, and end."""


class Call(_Message, frozen=True):
    """A call of a method of the store."""

    number: int
    method: str
    arguments: bytes
    traceparent: str = ""
    """The span that it is part of, if there is one."""


class Answer(_Message, frozen=True):
    """What a call returned, or why it failed."""

    number: int
    result: bytes | None = None
    refused: str | None = None
    """BlockRefused."""
    unavailable: str | None = None
    """StoreUnavailable."""


class Stored(_Message, frozen=True):
    """A flush has ended."""

    report: FlushReport


class Retrying(_Message, frozen=True):
    """The engine cannot take anything at the moment."""

    error: str


_ToFlusher: TypeAlias = Durable | Hurry | Traced | Drain | Answer
_ToStore: TypeAlias = Call | Stored | Retrying
_TO_FLUSHER = msgspec.msgpack.Decoder(_ToFlusher)
_TO_STORE = msgspec.msgpack.Decoder(_ToStore)


class _Stream:
    """Sends and receives messages on one socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, connection: socket.socket) -> "_Stream":
        return cls(*await asyncio.open_connection(sock=connection))

    def send(self, message: _Message) -> None:
        """Messages are small or rare, and the other end always reads: nothing gathers here."""
        data = msgspec.msgpack.encode(message)
        if not self._writer.is_closing():
            self._writer.write(_LENGTH.pack(len(data)) + data)

    async def receive(self) -> bytes | None:
        """The next message; None when the other end is gone."""
        try:
            [length] = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            return await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    def close(self) -> None:
        self._writer.close()


# -- calls -----------------------------------------------------------------------------------------


class _Method:
    """How the arguments and the result of a method of `RunWriter` travel."""

    def __init__(self, function: Callable[..., Any]) -> None:
        types = get_type_hints(function)
        parameters = list(inspect.signature(function).parameters)[1:]
        arguments = tuple(types[parameter] for parameter in parameters)
        self.arguments = msgspec.msgpack.Decoder(tuple[arguments])  # type: ignore[valid-type]
        self.result = msgspec.msgpack.Decoder(types["return"])


_METHODS = {
    name: _Method(getattr(RunWriter, name))
    for name in (
        *("append", "places", "moved_runs", "park", "awaited_runs", "parked", "unpark", "bury"),
        *("append_feedback", "bury_feedback", "delete", "pending_deletions", "keep"),
    )
} | {"purge_deleted": _Method(Purge.purge_deleted)}


class StoreEnd:
    """The store's end: tells the flusher what there is to do, and carries its calls out."""

    def __init__(
        self,
        methods: Mapping[str, Callable[..., Awaitable[Any]]],
        *,
        on_stored: Callable[[FlushReport], Awaitable[None]],
        on_retry: Callable[[str], Awaitable[None]],
    ) -> None:
        """`methods`: those of `RunWriter` that need the engine, by name."""
        self._methods = methods
        self._on_stored = on_stored
        self._on_retry = on_retry
        self._stream: _Stream | None = None
        self._calls: set[asyncio.Task[None]] = set()

    def send(self, message: Durable | Hurry | Traced | Drain) -> None:
        """Tell the flusher, if it is there: one that starts is told everything anew."""
        if self._stream is not None:
            self._stream.send(message)

    async def serve(
        self, connection: socket.socket, *, greeting: Callable[[], Sequence[Durable | Hurry | Drain]]
    ) -> None:
        """Serve one flusher, beginning with what it must know, until it is gone."""
        self._stream = stream = await _Stream.open(connection)
        for message in greeting():
            stream.send(message)
        try:
            while (data := await stream.receive()) is not None:
                match _TO_STORE.decode(data):
                    case Call() as call:
                        task = asyncio.create_task(self._answer(call, stream))
                        self._calls.add(task)
                        task.add_done_callback(self._calls.discard)
                    case Stored(report):
                        await self._on_stored(report)
                    case Retrying(error):
                        await self._on_retry(error)
        finally:
            self._stream = None
            stream.close()
            # What the lost flusher began must not come behind what the next one does.
            await asyncio.gather(*self._calls, return_exceptions=True)

    async def _answer(self, call: Call, stream: _Stream) -> None:
        arguments = _METHODS[call.method].arguments.decode(call.arguments)
        traceparents = [call.traceparent] if call.traceparent else []
        try:
            with spans.below(f"flusher {call.method}", traceparents):
                result = await self._methods[call.method](*arguments)
        except BlockRefused as error:
            stream.send(Answer(call.number, refused=str(error)))
        except (StoreUnavailable, RunstoreError) as error:
            stream.send(Answer(call.number, unavailable=str(error)))
        except Exception as error:
            logger.exception("call_of_the_flusher_failed", method=call.method)
            # A defect here must not look like one of the data: the flusher tries again.
            stream.send(Answer(call.number, unavailable=f"{type(error).__name__}: {error}"))
        else:
            stream.send(Answer(call.number, msgspec.msgpack.encode(result)))


class Blocks(Protocol):
    """Makes blocks in this process, in files that the engine can read."""

    def build(self, rows: Sequence[RunRow]) -> Block:
        """The rows as a block. Raises BlockRefused."""
        ...

    def stored(self, block: Block) -> None:
        """Forget a block that the engine has."""
        ...

    def discard(self, block: Block) -> None:
        """Forget a block that will not be inserted."""
        ...


class FlusherEnd:
    """The flusher's end: a `RunWriter` whose engine is in the store process."""

    def __init__(self, stream: _Stream, blocks: Blocks) -> None:
        self._stream = stream
        self._blocks = blocks
        self._number = 0
        self._pending: dict[int, asyncio.Future[Answer]] = {}

    @classmethod
    async def open(cls, connection: socket.socket, blocks: Blocks) -> "FlusherEnd":
        """The end at a connected socket."""
        return cls(await _Stream.open(connection), blocks)

    async def follow(self, demand: Demand) -> None:
        """Pass on what the store tells, until it is gone."""
        while (data := await self._stream.receive()) is not None:
            match _TO_FLUSHER.decode(data):
                case Answer() as answer:
                    self._pending.pop(answer.number).set_result(answer)
                case Durable(end):
                    demand.durable(end)
                case Hurry(sequence):
                    demand.hurry(sequence)
                case Traced(sequence, traceparent):
                    demand.traced(sequence, traceparent)
                case Drain():
                    demand.drain()

    def stored(self, report: FlushReport) -> None:
        """Tell the store what a flush did."""
        self._stream.send(Stored(report))

    def retrying(self, error: str) -> None:
        """Tell the store that its engine cannot take anything at the moment."""
        self._stream.send(Retrying(error))

    def block(self, rows: Sequence[RunRow], /) -> Block:
        """See `RunWriter`, as for all below."""
        return self._blocks.build(rows)

    async def append(self, block: Block, moves: Sequence[RunMove], /) -> None:
        try:
            await self._call("append", block, moves)
        except BlockRefused:
            self._blocks.discard(block)
            raise
        self._blocks.stored(block)

    async def places(self, tenant_id: str, run_ids: Collection[str], /) -> Mapping[str, RunPlace]:
        return await self._call("places", tenant_id, run_ids)  # type: ignore[no-any-return]

    async def moved_runs(self) -> set[tuple[str, str]]:
        return await self._call("moved_runs")  # type: ignore[no-any-return]

    async def park(self, patches: Sequence[tuple[str, RunPatch]], /) -> None:
        await self._call("park", patches)

    async def awaited_runs(self) -> Mapping[tuple[str, str], int]:
        return await self._call("awaited_runs")  # type: ignore[no-any-return]

    async def parked(self, awaited: Collection[tuple[str, str]], /) -> Sequence[tuple[str, RunPatch]]:
        return await self._call("parked", awaited)  # type: ignore[no-any-return]

    async def unpark(self, patches: Sequence[tuple[str, RunPatch]], /) -> None:
        await self._call("unpark", patches)

    async def bury(self, patches: Sequence[RunPatch], reason: str, /) -> None:
        await self._call("bury", patches, reason)

    async def delete(self, deletion: RunDeletion, /) -> list[str]:
        return await self._call("delete", deletion)  # type: ignore[no-any-return]

    async def keep(self, keep: TraceKeep, /) -> None:
        await self._call("keep", keep)

    async def pending_deletions(self, tenant_id: str, run_ids: Collection[str], /) -> PendingDeletions:
        return await self._call("pending_deletions", tenant_id, run_ids)  # type: ignore[no-any-return]

    async def purge_deleted(self) -> None:
        """See `Purge`."""
        await self._call("purge_deleted")

    async def append_feedback(self, patches: Sequence[FeedbackPatch], /) -> None:
        await self._call("append_feedback", patches)

    async def bury_feedback(self, patches: Sequence[FeedbackPatch], reason: str, /) -> None:
        await self._call("bury_feedback", patches, reason)

    async def _call(self, method: str, *arguments: Any) -> Any:
        self._number += 1
        answered = asyncio.get_running_loop().create_future()
        self._pending[self._number] = answered
        packed = msgspec.msgpack.encode(arguments)
        self._stream.send(Call(self._number, method, packed, spans.traceparent()))
        answer: Answer = await answered
        if answer.refused is not None:
            raise BlockRefused(answer.refused)
        if answer.unavailable is not None:
            raise StoreUnavailable(answer.unavailable)
        return _METHODS[method].result.decode(answer.result or b"")
