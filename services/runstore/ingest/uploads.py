"""Takes payloads and files that are too large for a message, before the operations that name them."""

import asyncio
import mmap
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Final

import msgspec

from runstore.domain import json_text
from runstore.domain.blob_refs import HEAD_BYTES, BlobRef, new_key, pack
from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.domain.signed_tokens import SignedTokens
from runstore.ingest.unused_blobs import UnusedBlobs
from runstore.runtime.clock import Clock
from runstore.storage.blobs import BlobMissing, BlobStore

TOKEN_LIFETIME_S: Final = 3_600

_COPY_BYTES: Final = 1024 * 1024
# A payload is parsed in one go, which holds up everything else in the process.
_CHECKED_AT_ONCE: Final = 1


class UploadKind(StrEnum):
    """What is uploaded."""

    PAYLOAD = "payload"
    """JSON."""
    ATTACHMENT = "attachment"


class _Upload(msgspec.Struct, array_like=True):
    tenant_id: str
    kind: str
    key: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """Largest blob of each kind, in bytes."""

    payload_bytes: int
    attachment_bytes: int


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A blob that is durable, and the token that stands for it until it expires."""

    token: str
    size_bytes: int
    expires_us: int


class Uploads:
    """The way in for blobs, and from a token back to its blob."""

    def __init__(
        self,
        blobs: BlobStore,
        unused: UnusedBlobs,
        spool_folder: Path,
        secret: bytes,
        clock: Clock,
        limits: UploadLimits,
    ) -> None:
        """`spool_folder` holds payloads while they are checked; files there do not outlive the process."""
        self._blobs = blobs
        self._unused = unused
        self._spool_folder = spool_folder
        self._tokens = SignedTokens(secret, _Upload, clock, lifetime_s=TOKEN_LIFETIME_S)
        self._limits = limits
        self._checking = asyncio.Semaphore(_CHECKED_AT_ONCE)

    async def take(self, tenant_id: str, kind: UploadKind, chunks: AsyncIterator[bytes]) -> Uploaded:
        """Return once the blob is durable; memory does not grow with its size.

        Raises INVALID_ARGUMENT for a payload that is not JSON, TOO_LARGE, StoreUnavailable, and what `chunks`
        raises.
        """
        key = new_key(tenant_id)
        counted = _Counted(chunks, kind, self._limits)
        await self._unused.suspect(tenant_id, [key])
        if kind is UploadKind.PAYLOAD:
            await self._take_payload(key, counted)
        else:
            await self._blobs.put(key, counted)
        token = self._tokens.encode(_Upload(tenant_id, kind, key, counted.size_bytes))
        return Uploaded(token, counted.size_bytes, self._tokens.expires_us())

    def attachment(self, tenant_id: str, token: str) -> BlobRef:
        """The file of an upload. Raises INVALID_ARGUMENT for a token that is of something else."""
        return self._find(tenant_id, UploadKind.ATTACHMENT, "attachments", token)

    async def payload(self, tenant_id: str, field: str, token: str) -> bytes:
        """What the column of a payload holds for an upload. Raises INVALID_ARGUMENT, StoreUnavailable."""
        ref = self._find(tenant_id, UploadKind.PAYLOAD, f"uploaded.{field}", token)
        try:
            head = b"".join([chunk async for chunk in self._blobs.read(ref.key, offset=0, length=HEAD_BYTES)])
        except BlobMissing as error:
            raise invalid(f"uploaded.{field}", "the upload no longer exists") from error
        return pack(ref, head)

    def _find(self, tenant_id: str, kind: UploadKind, field: str, token: str) -> BlobRef:
        upload = self._tokens.decode(token)
        if upload is None or upload.tenant_id != tenant_id:
            raise invalid(field, "the upload token is not valid, or not any more")
        if upload.kind != kind:
            raise invalid(field, f"the upload is of the kind {upload.kind}, not {kind}")
        return BlobRef(upload.key, upload.size_bytes)

    async def _take_payload(self, key: str, chunks: "_Counted") -> None:
        with TemporaryFile(dir=self._spool_folder) as spool:
            async for chunk in chunks:
                await asyncio.to_thread(spool.write, chunk)
            async with self._checking:
                replaced = await asyncio.to_thread(_checked, spool)
            await self._blobs.put(key, _content(spool) if replaced is None else replaced)


class _Counted:
    """Chunks that are counted, and refused beyond a limit."""

    def __init__(self, chunks: AsyncIterator[bytes], kind: UploadKind, limits: UploadLimits) -> None:
        self._chunks = chunks
        self._kind = kind
        self._max_bytes = limits.payload_bytes if kind is UploadKind.PAYLOAD else limits.attachment_bytes
        self.size_bytes = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._chunks:
            self.size_bytes += len(chunk)
            if self.size_bytes > self._max_bytes:
                message = f"the {self._kind} is above {self._max_bytes} bytes"
                raise RunstoreError(ErrorReason.TOO_LARGE, message)
            yield chunk


def _checked(spool: IO[bytes]) -> bytes | None:
    """None when the file is JSON, or what to store instead of it: halves of surrogate pairs are replaced.

    The file is looked at where it lies in the system's cache, without a copy. Raises INVALID_ARGUMENT.
    """
    spool.flush()
    if spool.tell() == 0:
        raise invalid("", "empty; JSON expected")
    with mmap.mmap(spool.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return json_text.check_mapped("", content)


async def _content(spool: IO[bytes]) -> AsyncIterator[bytes]:
    await asyncio.to_thread(spool.seek, 0)
    while chunk := await asyncio.to_thread(spool.read, _COPY_BYTES):
        yield chunk
