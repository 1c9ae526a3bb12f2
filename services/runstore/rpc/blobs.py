"""Serves `BlobService`."""

from collections.abc import AsyncIterator
from typing import Any, Final, Protocol, TypeAlias

import grpc

from runstore.domain.blob_refs import BlobRef, tenant_of
from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.domain.runs import AttachmentRef
from runstore.ingest.uploads import UploadKind, Uploads
from runstore.query.read_tokens import FileRef, ReadTokens
from runstore.rpc.authentication import current_principal
from runstore.rpc.mapping import set_time
from runstore.storage.blobs import READ_CHUNK_BYTES, BlobMissing, BlobStore
from runstore.storage.run_store import RunReader
from runstore.v1 import blob_service_pb2 as pb
from runstore.v1 import blob_service_pb2_grpc

MAX_CHUNK_BYTES: Final = 1024 * 1024

_KINDS: Final = {
    pb.BLOB_KIND_PAYLOAD: UploadKind.PAYLOAD,
    pb.BLOB_KIND_ATTACHMENT: UploadKind.ATTACHMENT,
}
_JSON: Final = "application/json"
_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Tenants(Protocol):
    """Knows the tenants that there are."""

    async def find_tenant(self, tenant_id: str) -> object | None:
        """None for one that is deleted."""
        ...


class BlobServicer(blob_service_pb2_grpc.BlobServiceServicer):
    """Maps chunks in and out."""

    def __init__(
        self,
        uploads: Uploads,
        blobs: BlobStore,
        store: RunReader,
        read_tokens: ReadTokens,
        tenants: Tenants,
    ) -> None:
        self._uploads = uploads
        self._tenants = tenants
        self._blobs = blobs
        self._store = store
        self._read_tokens = read_tokens

    async def UploadBlob(
        self, request_iterator: AsyncIterator[pb.UploadBlobRequest], context: _Context
    ) -> pb.UploadBlobResponse:
        tenant_id = current_principal.get().tenant_id
        first = await anext(request_iterator, None)
        if first is None or not first.HasField("header"):
            raise invalid("header", "the first message of an upload is its header")
        kind = _KINDS.get(first.header.kind)
        if kind is None:
            raise invalid("header.kind", "not a kind of blob")
        uploaded = await self._uploads.take(tenant_id, kind, _chunks(request_iterator))
        response = pb.UploadBlobResponse(upload_token=uploaded.token, size_bytes=uploaded.size_bytes)
        set_time(response.expire_time, uploaded.expires_us)
        return response

    async def ReadBlob(
        self, request: pb.ReadBlobRequest, context: _Context
    ) -> AsyncIterator[pb.ReadBlobResponse]:
        for field in ("offset", "length"):
            if getattr(request, field) < 0:
                raise invalid(field, "must not be negative")
        mime_type, found = await self._find(request.read_token)
        size_bytes = found.size_bytes if isinstance(found, BlobRef) else len(found)
        start = min(request.offset, size_bytes)
        end = min(start + request.length, size_bytes) if request.length else size_bytes
        chunks = self._read(found, start, end)
        # Before the header, which says that the blob is there.
        first = await anext(chunks, None)
        yield pb.ReadBlobResponse(header=pb.ReadBlobHeader(mime_type=mime_type, size_bytes=size_bytes))
        if first is not None:
            yield pb.ReadBlobResponse(chunk=first)
        async for chunk in chunks:
            yield pb.ReadBlobResponse(chunk=chunk)

    async def _read(self, found: BlobRef | bytes, start: int, end: int) -> AsyncIterator[bytes]:
        if isinstance(found, BlobRef):
            try:
                async for chunk in self._blobs.read(found.key, offset=start, length=end - start):
                    yield chunk
            except BlobMissing as error:
                raise _missing() from error
            return
        for position in range(start, end, READ_CHUNK_BYTES):
            yield found[position : min(position + READ_CHUNK_BYTES, end)]

    async def _find(self, read_token: str) -> tuple[str, BlobRef | bytes]:
        """MIME type, and where the content is or the content itself."""
        named = self._read_tokens.decode(read_token)
        if named is None or await self._tenants.find_tenant(_tenant_id(named)) is None:
            raise RunstoreError(ErrorReason.NOT_FOUND, "the token is not valid, or not any more")
        if isinstance(named, FileRef):
            return named
        if not isinstance(named, AttachmentRef):
            return _JSON, named
        file = await self._store.attachment(named)
        if file is None:
            raise _missing()
        return file.mime_type, file.content if file.blob is None else file.blob


def _tenant_id(named: AttachmentRef | FileRef | BlobRef) -> str:
    if isinstance(named, AttachmentRef):
        return named.tenant_id
    return tenant_of((named.blob if isinstance(named, FileRef) else named).key)


async def _chunks(requests: AsyncIterator[pb.UploadBlobRequest]) -> AsyncIterator[bytes]:
    async for request in requests:
        if not request.HasField("chunk"):
            raise invalid("chunk", "after the header, messages of an upload are chunks")
        if len(request.chunk) > MAX_CHUNK_BYTES:
            raise invalid("chunk", f"above {MAX_CHUNK_BYTES} bytes")
        yield request.chunk


def _missing() -> RunstoreError:
    return RunstoreError(ErrorReason.NOT_FOUND, "the content no longer exists")
