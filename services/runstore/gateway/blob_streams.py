"""Payloads and files on their way to and from the store."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.gateway.store_errors import error_detail, refusal
from runstore.v1 import blob_service_pb2 as blobs

MAX_CHUNK_BYTES: Final = 1024 * 1024
"""Most bytes of one UploadBlob message (`blob_service.proto`)."""

_END: Final = grpc.aio.EOF  # type: ignore[attr-defined]  # the stubs have forgotten it


class BlobUpload:
    """An upload under way. Every method raises `RunstoreError`, as those of `StoreClient` do."""

    def __init__(self, call: Any, kind: "blobs.BlobKind.ValueType") -> None:
        self._call = call
        self._header: blobs.UploadBlobHeader | None = blobs.UploadBlobHeader(kind=kind)

    async def write(self, content: bytes) -> None:
        """Send the next bytes; returns once there is room for more."""
        if self._header is not None:
            header, self._header = self._header, None
            await self._send(blobs.UploadBlobRequest(header=header))
        for start in range(0, len(content), MAX_CHUNK_BYTES):
            await self._send(blobs.UploadBlobRequest(chunk=content[start : start + MAX_CHUNK_BYTES]))

    async def finish(self) -> str:
        """The token of the upload, which is durable now."""
        try:
            await self._call.done_writing()
            response = await self._call
        except grpc.aio.AioRpcError as error:
            raise refusal(error) from error
        token: str = response.upload_token
        return token

    def cancel(self) -> None:
        """Nothing is kept. Without effect after `finish`."""
        self._call.cancel()

    async def _send(self, request: blobs.UploadBlobRequest) -> None:
        try:
            await self._call.write(request)
        except asyncio.InvalidStateError as error:  # Over before its end: why?
            raise await self._why() from error
        except grpc.aio.AioRpcError as error:
            # When the call ends during a write, gRPC may make its own status of it and lose the store's.
            if error_detail(error.trailing_metadata()) is None:
                raise _cut_off() from error
            raise refusal(error) from error

    async def _why(self) -> RunstoreError:
        try:
            await self._call
        except grpc.aio.AioRpcError as error:
            return refusal(error)
        return _cut_off()


def _cut_off() -> RunstoreError:
    return RunstoreError(ErrorReason.UNAVAILABLE, "The store did not take the whole of an upload.")


class BlobContent:
    """A blob that is being read."""

    def __init__(self, call: Any, header: blobs.ReadBlobHeader) -> None:
        self.mime_type = header.mime_type
        self.size_bytes = header.size_bytes
        """Of the whole blob."""
        self._call = call

    async def chunks(self) -> AsyncIterator[bytes]:
        """What was asked for, whole. Raises `RunstoreError` when the store goes away."""
        try:
            while (response := await self._call.read()) is not _END:
                yield response.chunk
        except grpc.aio.AioRpcError as error:
            raise refusal(error) from error
        finally:
            self.close()

    def close(self) -> None:
        """Nobody wants the rest."""
        self._call.cancel()
