"""Copies what a run has got and given into an example that is made of it."""

from collections.abc import AsyncIterator
from typing import Final

from runstore.domain.blob_refs import BlobRef
from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.domain.runs import AttachmentRef, RunField, StoredRun
from runstore.ingest.uploads import UploadKind, Uploads
from runstore.ingest.validation import uuid_text
from runstore.query.list_runs import ListRuns
from runstore.storage.blobs import BlobStore
from runstore.storage.run_store import RunReader
from runstore.v1 import example_service_pb2 as pb

_PAYLOADS: Final = {"inputs": RunField.INPUTS, "outputs": RunField.OUTPUTS}
_FIELDS: Final = frozenset({RunField.INPUTS, RunField.OUTPUTS, RunField.ATTACHMENTS})


class SourceRuns:
    """Fills changes of examples in, before they are checked like any other.

    Copies, for a run and its blobs may be deleted and the example stays.
    """

    def __init__(self, runs: ListRuns, reader: RunReader, blobs: BlobStore, uploads: Uploads) -> None:
        self._runs = runs
        self._reader = reader
        self._blobs = blobs
        self._uploads = uploads

    async def fill(self, tenant_id: str, change: pb.ExampleChange) -> None:
        """Does what `use_source_io`, `use_source_files` and `source_files` say; what is given goes first.

        Raises INVALID_ARGUMENT when there is no such run, or no such file; StoreUnavailable.
        """
        if not (change.use_source_io or change.use_source_files or change.source_files):
            return
        run = await self._run(tenant_id, change)
        if change.use_source_io:
            await self._copy_payloads(tenant_id, run, change)
        key, files = run.values.get(RunField.ATTACHMENTS, (None, {}))
        given = {file.name for file in change.files}
        for name in change.source_files or (files if change.use_source_files else ()):
            if name not in files:
                raise invalid("use_source_run_attachments", f"the run has no attachment {name}")
            if name not in given:
                await self._copy_file(AttachmentRef(tenant_id, key, name), change)

    async def _run(self, tenant_id: str, change: pb.ExampleChange) -> StoredRun:
        if not change.source_run_id:
            raise invalid("source_run_id", "needed to use what the run has got and given")
        run_id = uuid_text("source_run_id", change.source_run_id)
        try:
            return await self._runs.get(tenant_id, run_id, None, _FIELDS)
        except RunstoreError as error:
            if error.reason is not ErrorReason.NOT_FOUND:
                raise
            raise invalid("source_run_id", f"there is no run {run_id}") from error

    async def _copy_payloads(self, tenant_id: str, run: StoredRun, change: pb.ExampleChange) -> None:
        for name, field in _PAYLOADS.items():
            value = run.values.get(field)
            if value is None or change.HasField(name) or name in change.uploaded:  # type: ignore[arg-type]
                continue
            if isinstance(value, BlobRef):
                chunks = self._blobs.read(value.key)
                upload = await self._uploads.take(tenant_id, UploadKind.PAYLOAD, chunks)
                change.uploaded[name] = upload.token
            else:
                setattr(change, name, value)

    async def _copy_file(self, ref: AttachmentRef, change: pb.ExampleChange) -> None:
        file = await self._reader.attachment(ref)
        if file is None:
            raise invalid("use_source_run_attachments", f"the attachment {ref.name} no longer exists")
        chunks = _one(file.content) if file.blob is None else self._blobs.read(file.blob.key)
        upload = await self._uploads.take(ref.tenant_id, UploadKind.ATTACHMENT, chunks)
        change.files.add(name=ref.name, mime_type=file.mime_type, upload_token=upload.token)


async def _one(content: bytes) -> AsyncIterator[bytes]:
    yield content
