"""Serves `RunIngestService`."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any, Protocol, TypeAlias

import grpc

from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.domain.runs import RunPatch
from runstore.ingest.ingest_runs import IngestRuns
from runstore.ingest.validation import validate
from runstore.rpc.authentication import current_principal
from runstore.rpc.mapping import operation_error, run_patch
from runstore.v1 import run_ingest_service_pb2 as pb
from runstore.v1 import run_ingest_service_pb2_grpc

MAX_OPERATIONS = 10_000
MAX_BATCH_ID_BYTES = 256
_UNACKNOWLEDGED_BATCHES = 16

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Visibility(Protocol):
    """Waits until writes can be read."""

    async def see_sequence(self, sequence: int) -> None:
        """Return once everything up to this sequence number can be read."""
        ...


class RunIngestServicer(run_ingest_service_pb2_grpc.RunIngestServiceServicer):
    """Maps batches in, errors and write tokens out."""

    def __init__(self, ingest: IngestRuns, visibility: Visibility) -> None:
        self._ingest = ingest
        self._visibility = visibility

    async def WriteRuns(self, request: pb.WriteRunsRequest, context: _Context) -> pb.WriteRunsResponse:
        errors, token = await self._write(request.operations)
        return pb.WriteRunsResponse(errors=errors, write_token=token)

    async def StreamRuns(
        self, request_iterator: AsyncIterator[pb.StreamRunsRequest], context: _Context
    ) -> AsyncIterator[pb.StreamRunsResponse]:
        """Reads ahead while earlier batches are on their way to the disk, and replies in order."""
        replies: asyncio.Queue[asyncio.Task[pb.StreamRunsResponse] | None] = asyncio.Queue(
            _UNACKNOWLEDGED_BATCHES
        )

        async def read() -> None:
            try:
                async for request in request_iterator:
                    # Not reading is what slows the sender down.
                    await self._ingest.wait_for_room()
                    await replies.put(asyncio.create_task(self._stream_reply(request)))
            finally:
                await replies.put(None)

        reader = asyncio.create_task(read())
        try:
            while (reply := await replies.get()) is not None:
                yield await reply
            await reader
        finally:
            reader.cancel()

    async def WaitVisible(self, request: pb.WaitVisibleRequest, context: _Context) -> pb.WaitVisibleResponse:
        if request.write_token and not (request.write_token.isascii() and request.write_token.isdigit()):
            raise invalid("write_token", "not a token of this service")
        await self._visibility.see_sequence(int(request.write_token or 0))
        return pb.WaitVisibleResponse()

    async def _stream_reply(self, request: pb.StreamRunsRequest) -> pb.StreamRunsResponse:
        if len(request.batch_id.encode()) > MAX_BATCH_ID_BYTES:
            raise invalid("batch_id", f"more than {MAX_BATCH_ID_BYTES} bytes")
        errors, token = await self._write(request.operations)
        return pb.StreamRunsResponse(batch_id=request.batch_id, errors=errors, write_token=token)

    async def _write(self, operations: Iterable[pb.RunOperation]) -> tuple[list[pb.OperationError], str]:
        """Write the good operations of a batch; the errors of the others, and the write token."""
        tenant_id = current_principal.get().tenant_id
        accepted: list[tuple[int, RunPatch]] = []
        errors: list[pb.OperationError] = []
        for index, operation in enumerate(operations):
            if index >= MAX_OPERATIONS:
                raise RunstoreError(
                    ErrorReason.TOO_LARGE,
                    f"more than {MAX_OPERATIONS} operations in a batch",
                    field="operations",
                )
            try:
                patch = run_patch(operation, tenant_id)
                validate(patch)
                accepted.append((index, patch))
            except RunstoreError as error:
                fields = operation.create if operation.HasField("create") else operation.update
                errors.append(operation_error(index, fields.id, error))
        homeless = await self._ingest.find_projects([patch for _, patch in accepted])
        for position, refusal in homeless.items():
            index, patch = accepted[position]
            errors.append(operation_error(index, patch.run_id, refusal))
        good = [patch for position, (_, patch) in enumerate(accepted) if position not in homeless]
        sequence = await self._ingest.write(good)
        errors.sort(key=lambda error: error.index)
        return errors, str(sequence)
