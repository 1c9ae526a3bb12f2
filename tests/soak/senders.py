"""The ways in which tracers send: each delivers a batch, or says that nobody knows what became of it."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

import grpc
import httpx
from tests.soak import wire
from tests.soak.stories import Abilities, Batch

from runstore.v1 import run_ingest_service_pb2 as pb
from runstore.v1 import run_ingest_service_pb2_grpc as pb_grpc

TIMEOUT_S: Final = 15.0
"""The SDK's 10 s and some more: what is lost on the way must show as lost, not as slow."""

_END: Final = grpc.aio.EOF  # type: ignore[attr-defined] # not in the stubs
_RETRIED_STATUSES: Final = frozenset({408, 425, 429, 502, 503, 504})
_RETRIED_CODES: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)
_CHANNEL_OPTIONS: Final = [
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_receive_message_length", -1),
]


class Lost(Exception):
    """No acknowledgement; the operations may be stored or not. Send them again."""


class Refused(Exception):
    """An answer that a valid operation must not get, nor any defect of the server."""


class Sender(Protocol):
    """One way to the server."""

    abilities: Abilities

    async def deliver(self, batch: Batch) -> None:
        """Return once the batch is acknowledged. Raises Lost, Refused."""
        ...


def open_channel(address: str) -> grpc.aio.Channel:
    """A channel that finds a server again soon after it has come back."""
    return grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS)


class UnarySender:
    """`WriteRuns`."""

    abilities = Abilities()

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = pb_grpc.RunIngestServiceStub(channel)

    async def deliver(self, batch: Batch) -> None:
        request = pb.WriteRunsRequest(operations=wire.protobuf(batch))
        try:
            answer = await self._stub.WriteRuns(request, timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise fate_of(error) from error
        _check(answer.errors)


class StreamSender:
    """One `StreamRuns` for several tracers, opened again whenever it breaks: batches go out before
    those ahead of them are acknowledged."""

    abilities = Abilities()

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = pb_grpc.RunIngestServiceStub(channel)
        self._stream: Any = None
        self._reader: asyncio.Task[None] | None = None
        self._waiting: deque[tuple[str, asyncio.Future[pb.StreamRunsResponse]]] = deque()
        self._turn = asyncio.Lock()
        self._sent = 0

    async def deliver(self, batch: Batch) -> None:
        operations = wire.protobuf(batch)
        async with self._turn:
            answer = await self._write(operations)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                _check((await answer).errors)
        except TimeoutError as error:
            self._break(Lost("no reply on the stream"))
            raise Lost("no reply on the stream") from error

    async def _write(self, operations: list[pb.RunOperation]) -> "asyncio.Future[pb.StreamRunsResponse]":
        if self._stream is None:
            self._stream = self._stub.StreamRuns()  # type: ignore[call-arg] # the stubs want an iterator
            self._reader = asyncio.create_task(self._read(self._stream))
        self._sent += 1
        batch_id = str(self._sent)
        answer = asyncio.get_running_loop().create_future()
        # A stream that breaks settles every answer, of which not every one is still waited for.
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._waiting.append((batch_id, answer))
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self._stream.write(pb.StreamRunsRequest(batch_id=batch_id, operations=operations))
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError) as error:
            lost = fate_of(error) if isinstance(error, grpc.aio.AioRpcError) else Lost("the stream has ended")
            self._break(lost)
            raise lost from error
        return answer

    async def _read(self, stream: Any) -> None:
        try:
            while (reply := await stream.read()) is not _END:
                batch_id, answer = self._waiting.popleft()
                if reply.batch_id != batch_id:
                    raise Refused(f"reply to batch {reply.batch_id} instead of {batch_id}")
                if not answer.done():
                    answer.set_result(reply)
            error: Exception = Lost("the stream has ended")
        except grpc.aio.AioRpcError as failure:
            error = fate_of(failure)
        except (asyncio.InvalidStateError, Refused) as failure:
            error = failure if isinstance(failure, Refused) else Lost("the stream has ended")
        if stream is self._stream:
            self._break(error)

    def _break(self, error: Exception) -> None:
        if self._stream is not None:
            self._stream.cancel()
            self._stream = None
        while self._waiting:
            _, answer = self._waiting.popleft()
            if not answer.done():
                answer.set_exception(error)

    async def close(self) -> None:
        """End the stream."""
        self._break(Lost("closed"))
        if self._reader is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader


class HttpSender:
    """One ingest route of the gateway."""

    def __init__(self, client: httpx.AsyncClient, abilities: Abilities, call: Callable[..., Any]) -> None:
        self.abilities = abilities
        self._client = client
        self._call = call

    async def deliver(self, batch: Batch) -> None:
        for method, path, body, headers in self._call(batch):
            try:
                answer = await self._client.request(method, path, content=body, headers=headers)
            except httpx.TransportError as error:
                raise Lost(repr(error)) from error
            if answer.status_code in _RETRIED_STATUSES:
                raise Lost(f"{answer.status_code} {answer.text}")
            if answer.status_code != 202:
                raise Refused(f"{method} {path}: {answer.status_code} {answer.text[:500]}")


_JSON: Final = {"Content-Type": "application/json"}


def multipart_sender(client: httpx.AsyncClient) -> HttpSender:
    """`/runs/multipart` as the SDK uses it."""
    return HttpSender(
        client,
        Abilities(bare=False),
        lambda batch: [("POST", "/runs/multipart", wire.multipart(batch), wire.MULTIPART)],
    )


def batch_sender(client: httpx.AsyncClient) -> HttpSender:
    """`/runs/batch`."""
    return HttpSender(
        client,
        Abilities(bare=False, attachments=False),
        lambda batch: [("POST", "/runs/batch", wire.batch_json(batch), _JSON)],
    )


def single_sender(client: httpx.AsyncClient) -> HttpSender:
    """`POST /runs` and `PATCH /runs/{id}`, one operation a request."""

    def calls(batch: Batch) -> list[tuple[str, str, bytes, dict[str, str]]]:
        return [
            ("POST", "/runs", wire.run_json(each), _JSON)
            if each.is_create
            else ("PATCH", f"/runs/{each.node.run_id}", wire.run_json(each), _JSON)
            for each in batch
        ]

    return HttpSender(client, Abilities(positioned=False, attachments=False, is_single=True), calls)


def fate_of(error: grpc.aio.AioRpcError) -> Exception:
    """Lost, unless the server says by itself that it has failed."""
    metadata: Any = error.trailing_metadata() or ()
    is_own = any(key == "runstore-error-bin" for key, _ in metadata)
    if error.code() in _RETRIED_CODES or not is_own:
        return Lost(f"{error.code().name} {error.details()}")
    return Refused(f"{error.code().name} {error.details()}")


def _check(errors: Any) -> None:
    if errors:
        raise Refused(f"{len(errors)} operations refused, the first: {errors[0]}")
