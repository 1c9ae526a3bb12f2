"""Serves `AdminService`."""

from collections.abc import AsyncIterator, Callable
from typing import Any, Final, Protocol, TypeAlias

import grpc
import msgspec

from runstore.domain.blob_refs import is_reference, unpack
from runstore.domain.dead_letters import DeadLetter, ReplayOutcome
from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.domain.feedback import FeedbackPatch
from runstore.domain.runs import RunPatch
from runstore.ingest.dead_letters import MAX_LETTERS, DeadLetters
from runstore.ingest.sequence import accepted_time_us
from runstore.rpc.authentication import current_principal
from runstore.rpc.call_line import current_call
from runstore.rpc.mapping import set_time
from runstore.v1 import admin_service_pb2 as pb
from runstore.v1 import admin_service_pb2_grpc

_DEFAULT_PAGE_SIZE: Final = 100
_OUTCOMES: Final = {
    ReplayOutcome.STORED: pb.REPLAY_OUTCOME_STORED,
    ReplayOutcome.REFUSED: pb.REPLAY_OUTCOME_REFUSED,
    ReplayOutcome.NOT_FOUND: pb.REPLAY_OUTCOME_NOT_FOUND,
}
_PAYLOADS: Final = (
    *("inputs", "outputs", "events", "extra", "manifest"),
    *("value", "correction", "source_metadata"),
)

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class StatusReport(Protocol):
    """Knows how the store is."""

    async def read(self) -> pb.GetStatusResponse:
        """The status, within a few seconds."""
        ...


class Backups(Protocol):
    """Makes backups."""

    def create(self, folder: str) -> AsyncIterator[pb.CreateBackupResponse]:
        """Bring the backup in a folder up to date; the last message has the backup."""
        ...


class AdminServicer(admin_service_pb2_grpc.AdminServiceServicer):
    """Answers operators, and nobody else."""

    def __init__(
        self,
        dead_letters: DeadLetters,
        status: StatusReport,
        exposition: Callable[[], bytes],
        backups: Backups,
    ) -> None:
        """`exposition`: all metrics as text."""
        self._dead_letters = dead_letters
        self._status = status
        self._exposition = exposition
        self._backups = backups

    async def GetStatus(self, request: pb.GetStatusRequest, context: _Context) -> pb.GetStatusResponse:
        _check_operator()
        return await self._status.read()

    async def GetMetrics(self, request: pb.GetMetricsRequest, context: _Context) -> pb.GetMetricsResponse:
        _check_operator()
        return pb.GetMetricsResponse(exposition=self._exposition())

    async def ListDeadLetters(
        self, request: pb.ListDeadLettersRequest, context: _Context
    ) -> pb.ListDeadLettersResponse:
        _check_operator()
        if request.page_size < 0:
            raise invalid("page_size", "must not be negative")
        size = min(request.page_size or _DEFAULT_PAGE_SIZE, MAX_LETTERS)
        letters = await self._dead_letters.page(request.page_token, size + 1)
        page = letters[:size]
        return pb.ListDeadLettersResponse(
            dead_letters=[_message(letter) for letter in page],
            next_page_token=page[-1].id if len(letters) > size else "",
        )

    async def GetDeadLetter(
        self, request: pb.GetDeadLetterRequest, context: _Context
    ) -> pb.GetDeadLetterResponse:
        _check_operator()
        letter = await self._dead_letters.get(request.id)
        operation = b"" if letter.patch is None else msgspec.json.encode(_readable(letter.patch))
        return pb.GetDeadLetterResponse(dead_letter=_message(letter), operation=operation)

    async def ReplayDeadLetters(
        self, request: pb.ReplayDeadLettersRequest, context: _Context
    ) -> pb.ReplayDeadLettersResponse:
        _check_operator()
        results = await self._dead_letters.replay(request.ids)
        line = current_call.get()
        line.operations = len(results)
        line.refused = sum(result.outcome is ReplayOutcome.REFUSED for result in results)
        return pb.ReplayDeadLettersResponse(
            results=[
                pb.ReplayResult(id=result.id, outcome=_OUTCOMES[result.outcome], reason=result.reason)
                for result in results
            ]
        )

    async def DropDeadLetters(
        self, request: pb.DropDeadLettersRequest, context: _Context
    ) -> pb.DropDeadLettersResponse:
        _check_operator()
        dropped = await self._dead_letters.drop(request.ids)
        current_call.get().operations = len(dropped)
        return pb.DropDeadLettersResponse(ids=dropped)

    async def CreateBackup(
        self, request: pb.CreateBackupRequest, context: _Context
    ) -> AsyncIterator[pb.CreateBackupResponse]:
        _check_operator()
        async for event in self._backups.create(request.folder):
            yield event


def _check_operator() -> None:
    if not current_principal.get().is_operator:
        raise RunstoreError(
            ErrorReason.PERMISSION_DENIED, "this needs the operator's key: runstore keys operator"
        )


def _message(letter: DeadLetter) -> pb.DeadLetter:
    message = pb.DeadLetter(
        id=letter.id,
        tenant_id=letter.tenant_id,
        run_id=letter.run_id,
        reason=letter.reason,
        size_bytes=letter.size_bytes,
    )
    set_time(message.accept_time, accepted_time_us(letter.sequence))
    if letter.buried_at_us:
        set_time(message.bury_time, letter.buried_at_us)
    return message


def _readable(patch: RunPatch | FeedbackPatch) -> dict[str, Any]:
    """The operation for people: payloads as JSON, attachments and large payloads without their content."""
    fields: dict[str, Any] = {
        name: value for name in patch.__struct_fields__ if (value := getattr(patch, name)) is not None
    }
    fields.update({name: _payload(fields[name]) for name in _PAYLOADS if name in fields})
    if isinstance(patch, RunPatch) and patch.attachments is not None:
        fields["attachments"] = {
            name: {"mime_type": file.mime_type, "size_bytes": file.size_bytes()}
            for name, file in patch.attachments.items()
        }
    return fields


def _payload(column: bytes) -> object:
    if is_reference(column):
        blob, _ = unpack(column)
        return {"blob": blob.key, "size_bytes": blob.size_bytes}
    # Validated when it was accepted, so it can stand in JSON as it is.
    return msgspec.Raw(column)
