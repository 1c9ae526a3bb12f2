"""Moves large payloads and files of operations into the blob store before their rows are built."""

import asyncio
from collections.abc import Coroutine, Iterable, Iterator
from copy import copy
from typing import Final

from runstore.domain.blob_refs import OFFLOADED_FIELDS, BlobRef, content_key, is_reference, pack, unpack
from runstore.domain.runs import Attachment, RunPatch
from runstore.storage.blobs import BlobStore

# `ingest.derive` reads these and `extra`, which is never moved.
_FACTUAL_FIELDS: Final = ("outputs", "events")
_PUT_AT_ONCE: Final = 4


class Offload:
    """Puts what is above a threshold; what is put twice, after a crash, is one blob."""

    def __init__(self, blobs: BlobStore, *, payload_bytes: int, attachment_bytes: int) -> None:
        """Payloads and files of at most these sizes stay in their rows."""
        self._blobs = blobs
        self._payload_bytes = payload_bytes
        self._attachment_bytes = attachment_bytes
        self._putting = asyncio.Semaphore(_PUT_AT_ONCE)

    def is_apart(self, patch: RunPatch) -> bool:
        """Whether payloads that facts are derived from were uploaded apart."""
        outputs, events = patch.outputs, patch.events
        return (outputs is not None and is_reference(outputs)) or (
            events is not None and is_reference(events)
        )

    async def in_full(self, patch: RunPatch) -> RunPatch:
        """A copy of the patch, with the payloads that facts are derived from read back.

        Raises StoreUnavailable, BlobMissing.
        """
        full = copy(patch)
        for field in _FACTUAL_FIELDS:
            payload = getattr(patch, field)
            if payload is not None and is_reference(payload):
                ref, _ = unpack(payload)
                setattr(full, field, b"".join([chunk async for chunk in self._blobs.read(ref.key)]))
        return full

    async def offload(self, patches: Iterable[RunPatch]) -> None:
        """Replace what is large by references; durable when this returns. Raises StoreUnavailable."""
        moves = [move for patch in patches if self._is_large(patch) for move in self._moves(patch)]
        # All are over before one's failure is told: the caller repeats the whole.
        for outcome in await asyncio.gather(*moves, return_exceptions=True):
            if outcome is not None:
                raise outcome

    def _is_large(self, patch: RunPatch) -> bool:
        """Whether there may be something to move. Written out: every run of every tracer passes here."""
        most = self._payload_bytes
        return (
            ((inputs := patch.inputs) is not None and len(inputs) > most)
            or ((outputs := patch.outputs) is not None and len(outputs) > most)
            or ((events := patch.events) is not None and len(events) > most)
            or ((manifest := patch.manifest) is not None and len(manifest) > most)
            or bool(patch.attachments)
        )

    def _moves(self, patch: RunPatch) -> Iterator[Coroutine[None, None, None]]:
        for field in OFFLOADED_FIELDS:
            payload = getattr(patch, field)
            if payload is not None and len(payload) > self._payload_bytes and not is_reference(payload):
                yield self._move_payload(patch, field, payload)
        if patch.attachments:
            for name, file in patch.attachments.items():
                if len(file.content) > self._attachment_bytes:
                    yield self._move_attachment(patch, name, file)

    async def _move_payload(self, patch: RunPatch, field: str, payload: bytes) -> None:
        setattr(patch, field, pack(await self._put(patch, payload), payload))

    async def _move_attachment(self, patch: RunPatch, name: str, file: Attachment) -> None:
        moved = Attachment(file.mime_type, b"", await self._put(patch, file.content))
        patch.attachments = {**(patch.attachments or {}), name: moved}

    async def _put(self, patch: RunPatch, content: bytes) -> BlobRef:
        async with self._putting:
            key = await asyncio.to_thread(content_key, patch.tenant_id, patch.run_id, content)
            await self._blobs.put(key, content)
            return BlobRef(key, len(content))
