"""Takes large `multipart/form-data` bodies apart while they arrive, and uploads large parts on the way.

For bodies that are too large to be held in memory; `multipart` is many times as fast for all others.
"""

from collections.abc import AsyncGenerator, Callable
from typing import Final, TypeAlias

from multipart import (
    MultipartError,
    MultipartSegment,
    ParserLimitReached,
    PushMultipartParser,
    parse_options_header,
)

from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.gateway.blob_streams import BlobUpload
from runstore.gateway.bodies import BodyLimits, BodyStream
from runstore.gateway.multipart import Part
from runstore.gateway.operations import LargePart, Operations
from runstore.gateway.store_client import Credentials, StoreClient
from runstore.v1 import blob_service_pb2 as blobs

UPLOADED_BYTES: Final = 1024 * 1024
"""Parts above this are uploaded, if they are payloads that may be or attachments."""

# What a run without its large payloads may hold is bounded by the store's messages.
_MAX_PART_BYTES: Final = 64 * 1024 * 1024
# As `multipart` has them.
_MAX_HEADER_BYTES: Final = 8 * 1024
_MAX_PARTS: Final = 200_000
_UPLOADED_FIELDS: Final = ("inputs", "outputs", "events", "manifest")
_UPLOADED_PAYLOADS: Final = frozenset({"inputs", "outputs", "events", "serialized"})

PartKind: TypeAlias = Callable[[str], "blobs.BlobKind.ValueType | None"]
_Event: TypeAlias = MultipartSegment | bytes | bytearray | None


class StreamedParts:
    """The parts of one body, in their order."""

    def __init__(
        self,
        boundary: str,
        store: StoreClient,
        credentials: Credentials,
        body: BodyStream,
        kind_of: "PartKind",
    ) -> None:
        """`kind_of` says by its name what a large part is uploaded as; None for parts that are not."""
        self._parser = PushMultipartParser(
            boundary, max_header_size=_MAX_HEADER_BYTES, max_segment_count=_MAX_PARTS
        )
        self._store = store
        self._credentials = credentials
        self._body = body
        self._kind_of = kind_of
        self._part: _ArrivingPart | None = None

    async def read(self) -> AsyncGenerator[Part | LargePart, None]:
        """Each part once it is complete.

        Raises MALFORMED_BODY, TOO_LARGE, OVERLOADED, UNAVAILABLE, ClientDisconnect.
        """
        try:
            async for piece in self._body.pieces:
                for event in self._events(piece):
                    part = await self._take(event)
                    if part is not None:
                        yield part
            self._events(b"")  # Notices an end that is missing.
        finally:
            if self._part is not None:
                self._part.cancel()

    def _events(self, piece: bytes) -> list[_Event]:
        try:
            return list(self._parser.parse(piece))
        except ParserLimitReached as error:
            raise RunstoreError(ErrorReason.TOO_LARGE, f"{error}. Nothing of it was stored.") from error
        except MultipartError as error:
            raise _malformed(f"The body cannot be read: {error}.") from error

    async def _take(self, event: _Event) -> Part | LargePart | None:
        if isinstance(event, MultipartSegment):
            self._part = _ArrivingPart(event, self._kind_of, self._store, self._credentials, self._body)
            return None
        assert self._part is not None  # noqa: S101 - the parser begins with a segment
        if event is not None:
            await self._part.add(bytes(event))
            return None
        part, self._part = await self._part.finish(), None
        return part


class _ArrivingPart:
    """A part up to its end: in memory while it is small, and then on its way to the store."""

    def __init__(
        self,
        segment: MultipartSegment,
        kind_of: "PartKind",
        store: StoreClient,
        credentials: Credentials,
        body: BodyStream,
    ) -> None:
        if segment.disposition != "form-data" or not segment.name:
            raise _malformed("A part has no Content-Disposition with a name.")
        self._name = segment.name
        mime_type, options = parse_options_header(segment.header("Content-Type") or "")
        self._mime_type = mime_type
        declared = segment.header("Content-Length") or options.get("length", "")
        is_number = declared.isascii() and declared.isdigit() and len(declared) <= 12
        self._declared_bytes = int(declared) if is_number else -1
        self._kind = kind_of(self._name)
        self._most_bytes = _most_bytes(self._kind, body.limits)
        if self._declared_bytes > self._most_bytes:
            raise self._too_large()
        self._store = store
        self._credentials = credentials
        self._hold = body.hold
        self._chunks: list[bytes] = []
        self._size_bytes = 0
        self._upload: BlobUpload | None = None
        self._refusal: RunstoreError | None = None

    async def add(self, chunk: bytes) -> None:
        self._size_bytes += len(chunk)
        if self._size_bytes > self._most_bytes:
            raise self._too_large()
        if self._refusal is not None:
            return
        if self._upload is None:
            self._chunks.append(chunk)
            if self._kind is None:
                self._hold(len(chunk))
            elif self._size_bytes > UPLOADED_BYTES:
                await self._begin_upload(self._kind)
        else:
            await self._send(chunk)

    async def finish(self) -> Part | LargePart:
        """The part, whose end has come."""
        if self._upload is None and self._refusal is None:
            content = b"".join(self._chunks)
            if self._kind is not None:
                self._hold(len(content))
            return Part(self._name, self._mime_type, self._declared_bytes, content)
        token = ""
        if self._upload is not None and self._refusal is None:
            try:
                token = await self._upload.finish()
            except RunstoreError as error:
                self._refuse(error)
        return LargePart(
            self._name, self._mime_type, self._declared_bytes, self._size_bytes, token, self._refusal
        )

    def cancel(self) -> None:
        """Nobody wants the rest."""
        if self._upload is not None:
            self._upload.cancel()

    async def _begin_upload(self, kind: "blobs.BlobKind.ValueType") -> None:
        content = b"".join(self._chunks)
        self._chunks.clear()
        if kind == blobs.BLOB_KIND_PAYLOAD:
            # SDKs fail to read a whole page of runs when one of them has anything else here.
            key = self._name.rpartition(".")[2]
            opening, container = (b"[", "an array") if key == "events" else (b"{", "an object")
            if content.lstrip()[:1] != opening:
                self._refusal = invalid(key, f"must be {container}")
                return
        self._upload = self._store.upload_blob(kind, self._credentials)
        await self._send(content)

    async def _send(self, content: bytes) -> None:
        assert self._upload is not None  # noqa: S101 - begun by the caller
        try:
            await self._upload.write(content)
        except RunstoreError as error:
            self._refuse(error)

    def _too_large(self) -> RunstoreError:
        message = f"The part {self._name} is above {self._most_bytes} bytes. Nothing of it was stored."
        return RunstoreError(ErrorReason.TOO_LARGE, message)

    def _refuse(self, error: RunstoreError) -> None:
        """A payload that is no JSON costs its neighbours nothing; everything else ends the request."""
        if error.reason is not ErrorReason.INVALID_ARGUMENT:
            raise error
        field = error.field or self._name.rpartition(".")[2]
        self._refusal = invalid(field, error.message)


async def upload_payloads(found: Operations, store: StoreClient, credentials: Credentials) -> None:
    """Uploads payloads of operations that no message could hold; of those that are no JSON, the operation is
    refused. Raises TOO_LARGE, UNAVAILABLE."""
    for index in reversed(range(len(found.operations))):
        operation = found.operations[index]
        if operation.ByteSize() < _MAX_PART_BYTES:
            continue
        fields = operation.create if operation.HasField("create") else operation.update
        try:
            for field in _UPLOADED_FIELDS:
                payload: bytes = getattr(fields, field)
                if len(payload) > UPLOADED_BYTES:
                    upload = store.upload_blob(blobs.BLOB_KIND_PAYLOAD, credentials)
                    await upload.write(payload)
                    setattr(fields.uploaded, field, await upload.finish())
                    fields.ClearField(field)
        except RunstoreError as error:
            if error.reason is not ErrorReason.INVALID_ARGUMENT:
                raise
            found.refuse(found.sources[index], error)
            del found.operations[index], found.sources[index]


def _most_bytes(kind: "blobs.BlobKind.ValueType | None", limits: BodyLimits) -> int:
    if kind is None:
        return _MAX_PART_BYTES
    return limits.max_payload_bytes if kind == blobs.BLOB_KIND_PAYLOAD else limits.max_attachment_bytes


def run_part_kind(name: str) -> "blobs.BlobKind.ValueType | None":
    """What a large part of a body of runs is uploaded as."""
    if name.startswith("attachment."):
        return blobs.BLOB_KIND_ATTACHMENT
    if name.startswith(("post.", "patch.")) and name.rpartition(".")[2] in _UPLOADED_PAYLOADS:
        return blobs.BLOB_KIND_PAYLOAD
    return None


def _malformed(message: str) -> RunstoreError:
    return RunstoreError(ErrorReason.MALFORMED_BODY, f"{message} Nothing of it was stored.")
