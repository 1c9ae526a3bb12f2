"""Serves `RunIngestService`."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any, Protocol, TypeAlias

import grpc

from runstore.domain.blob_refs import OFFLOADED_FIELDS, unpack
from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.domain.rate_limits import Measure, RateLimiter
from runstore.domain.runs import Attachment, RunPatch
from runstore.ingest.ingest_runs import IngestRuns
from runstore.ingest.metrics import IngestMetrics
from runstore.ingest.sequence import ALL_TAKEN
from runstore.ingest.uploads import Uploads
from runstore.ingest.validation import validate
from runstore.rpc.authentication import current_principal
from runstore.rpc.call_line import current_call
from runstore.rpc.mapping import operation_error, run_patch
from runstore.rpc.visible import write_sequence
from runstore.runtime import spans
from runstore.v1 import run_ingest_service_pb2 as pb
from runstore.v1 import run_ingest_service_pb2_grpc

MAX_OPERATIONS = 10_000
MAX_BATCH_ID_BYTES = 256
_UNACKNOWLEDGED_BATCHES = 16

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Visibility(Protocol):
    """Waits until writes can be read."""

    async def see_sequence(self, sequence: int) -> None:
        """Return once everything acknowledged so far, and up to this sequence number, can be read."""
        ...


class RunIngestServicer(run_ingest_service_pb2_grpc.RunIngestServiceServicer):
    """Maps batches in, errors and write tokens out."""

    def __init__(
        self,
        ingest: IngestRuns,
        visibility: Visibility,
        uploads: Uploads,
        metrics: IngestMetrics,
        limiter: RateLimiter,
    ) -> None:
        self._ingest = ingest
        self._visibility = visibility
        self._uploads = uploads
        self._metrics = metrics
        self._limiter = limiter

    async def WriteRuns(self, request: pb.WriteRunsRequest, context: _Context) -> pb.WriteRunsResponse:
        await self.admit(len(request.operations))
        return await self.write(request)

    async def admit(self, operations: int) -> None:
        """Raises RATE_LIMITED when the caller must not write now; before anything of the call is accepted."""
        await self._limiter.take(current_principal.get(), _amounts(operations))

    async def write(self, request: pb.WriteRunsRequest) -> pb.WriteRunsResponse:
        """Stores operations of a call that was admitted."""
        good, errors = await self._accept(request.operations)
        sequence = await self._ingest.write(good)
        return pb.WriteRunsResponse(errors=errors, write_token=str(sequence))

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
                    # One by one up to the log, so that a batch never overtakes another.
                    reply = await self._begin(request)
                    await replies.put(reply)
            finally:
                if not closing:
                    await replies.put(None)

        closing = False
        reader = asyncio.create_task(read())
        try:
            while (reply := await replies.get()) is not None:
                yield await reply
            await reader
        finally:
            closing = True
            reader.cancel()

    async def WaitVisible(self, request: pb.WaitVisibleRequest, context: _Context) -> pb.WaitVisibleResponse:
        token = request.write_token
        sequence = write_sequence("write_token", token) if token else ALL_TAKEN
        await self._visibility.see_sequence(sequence)
        return pb.WaitVisibleResponse()

    async def _begin(self, request: pb.StreamRunsRequest) -> "asyncio.Task[pb.StreamRunsResponse]":
        """Hand a batch to the log; the task is done once it is durable."""
        if len(request.batch_id.encode()) > MAX_BATCH_ID_BYTES:
            raise invalid("batch_id", f"more than {MAX_BATCH_ID_BYTES} bytes")
        # Not reading on is what slows the sender down.
        await self._limiter.take_in_turn(current_principal.get(), _amounts(len(request.operations)))
        good, errors = await self._accept(request.operations)
        await self._ingest.wait_for_room(current_principal.get().tenant_id)

        async def reply() -> pb.StreamRunsResponse:
            with spans.request("StreamRuns batch", current_call.get().traceparent):
                sequence = await self._ingest.write(good, has_room=True)
            return pb.StreamRunsResponse(batch_id=request.batch_id, errors=errors, write_token=str(sequence))

        return asyncio.create_task(reply())

    async def _accept(
        self, operations: Iterable[pb.RunOperation]
    ) -> tuple[list[RunPatch], list[pb.OperationError]]:
        """The good operations of a batch, and the errors of the others."""
        tenant_id = current_principal.get().tenant_id
        accepted: list[tuple[int, RunPatch]] = []
        errors: list[pb.OperationError] = []
        uploaded_bytes = 0
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
                fields = operation.create if patch.is_create else operation.update
                if fields.HasField("uploaded") or fields.attachments:
                    uploaded_bytes += await self._add_uploads(patch, fields)
                accepted.append((index, patch))
            except RunstoreError as error:
                fields = operation.create if operation.HasField("create") else operation.update
                errors.append(operation_error(index, fields.id, error))
                self._metrics.refused(error)
        if uploaded_bytes:
            await self._limiter.add(current_principal.get(), {Measure.BYTES: uploaded_bytes})
        homeless = await self._ingest.find_projects([patch for _, patch in accepted])
        for position, refusal in homeless.items():
            index, patch = accepted[position]
            errors.append(operation_error(index, patch.run_id, refusal))
            self._metrics.refused(refusal)
        good = [patch for position, (_, patch) in enumerate(accepted) if position not in homeless]
        errors.sort(key=lambda error: error.index)
        line = current_call.get()
        line.operations += len(good) + len(errors)
        line.refused += len(errors)
        return good, errors

    async def _add_uploads(self, patch: RunPatch, fields: pb.RunFields) -> int:
        """Give the patch references to what was uploaded before: its bytes. Raises INVALID_ARGUMENT.

        After validation, which refuses payloads that look like references, because they are no JSON.
        """
        size_bytes = 0
        for field in OFFLOADED_FIELDS:
            token = getattr(fields.uploaded, field)
            if token:
                if getattr(patch, field) is not None:
                    raise invalid(field, "given inline and as an upload")
                payload = await self._uploads.payload(patch.tenant_id, field, token)
                size_bytes += unpack(payload)[0].size_bytes
                setattr(patch, field, payload)
        for file in fields.attachments:
            if file.upload_token:
                if file.content or patch.attachments is None:
                    raise invalid("attachments", f"{file.name!r} is given inline and as an upload")
                ref = self._uploads.attachment(patch.tenant_id, file.upload_token)
                size_bytes += ref.size_bytes
                patch.attachments[file.name] = Attachment(file.mime_type, b"", ref)
        return size_bytes


def _amounts(operations: int) -> dict[Measure, float]:
    return {Measure.RUNS: operations, Measure.BYTES: current_call.get().take_received()}
