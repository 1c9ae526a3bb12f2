"""Contents of examples on their way in: checked, and into the blob store what is large or a file."""

import asyncio
from collections.abc import Sequence
from typing import Final

from runstore.domain import json_text
from runstore.domain.blob_refs import MAX_HEADER_BYTES, BlobRef, is_reference, new_key, unpack
from runstore.domain.errors import invalid
from runstore.domain.examples import MAX_FILE_NAME_BYTES, ExampleFile
from runstore.domain.json_schemas import check_against
from runstore.ingest.unused_blobs import UnusedBlobs
from runstore.ingest.uploads import Uploads
from runstore.storage.blobs import BlobStore

OFFLOADED_BYTES: Final = 1024 * 1024
"""Inputs and outputs above this lie in the blob store, as files always do."""

_PUTS_AT_ONCE: Final = 4


class ExampleContents:
    """Checks and stores contents. Every method may raise StoreUnavailable."""

    def __init__(self, blobs: BlobStore, unused: UnusedBlobs, uploads: Uploads) -> None:
        self._blobs = blobs
        self._unused = unused
        self._uploads = uploads

    def checked(self, field: str, content: bytes, schema: bytes | None) -> bytes:
        """A JSON object as it can be stored.

        Raises INVALID_ARGUMENT for anything else, and for one that does not satisfy the schema.
        """
        json_text.check(field, content)
        if content.lstrip()[:1] != b"{":
            raise invalid(field, "must be a JSON object")
        content = json_text.replace_lone_surrogates(content)
        check_against(field, schema, content)
        return content

    async def uploaded_payload(self, tenant_id: str, field: str, token: str, schema: bytes | None) -> bytes:
        """What the column holds for an upload. Raises INVALID_ARGUMENT as `checked`, and for a bad token."""
        column = await self._uploads.payload(tenant_id, field, token)
        ref, head = unpack(column)
        if head.lstrip()[:1] != b"{":
            raise invalid(field, "must be a JSON object")
        if schema is not None:
            check_against(field, schema, b"".join([chunk async for chunk in self._blobs.read(ref.key)]))
        return column

    def uploaded_file(self, tenant_id: str, name: str, mime_type: str, token: str) -> ExampleFile:
        """The file of an upload. Raises INVALID_ARGUMENT for a bad token."""
        ref = self._uploads.attachment(tenant_id, token)
        return ExampleFile(name, mime_type, ref.key, ref.size_bytes)

    async def put(self, tenant_id: str, contents: Sequence[bytes]) -> list[BlobRef]:
        """Each of the contents as a blob; durable when this returns."""
        if not contents:
            return []
        refs = [BlobRef(new_key(tenant_id), len(content)) for content in contents]
        await self._unused.suspect(tenant_id, [ref.key for ref in refs])
        turns = asyncio.Semaphore(_PUTS_AT_ONCE)

        async def put(ref: BlobRef, content: bytes) -> None:
            async with turns:
                await self._blobs.put(ref.key, content)

        async with asyncio.TaskGroup() as group:
            for ref, content in zip(refs, contents, strict=True):
                group.create_task(put(ref, content))
        return refs

    async def delete(self, tenant_id: str, keys: Sequence[str]) -> None:
        """Forget blobs that no example refers to any more."""
        if keys:
            await self._unused.delete(await self._unused.suspect(tenant_id, keys), keys)


def check_file_name(name: str) -> None:
    """Raises INVALID_ARGUMENT unless a file can have the name."""
    if not 0 < len(name.encode()) <= MAX_FILE_NAME_BYTES:
        raise invalid("attachment", f"its name must have 1 to {MAX_FILE_NAME_BYTES} bytes")


def reference(column: bytes | None) -> BlobRef | None:
    """The blob that a column refers to; None when it holds the JSON itself."""
    if column is None or not is_reference(column):
        return None
    return unpack(column[:MAX_HEADER_BYTES])[0]
