"""Answers that hold large payloads: JSON with holes, filled from the store while the answer is sent."""

from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
from starlette.responses import Response, StreamingResponse

from runstore.gateway.store_client import StoreClient
from runstore.v1 import blob_service_pb2 as blobs
from runstore.v1 import run_pb2

_JSON: Final = "application/json"
# No JSON holds this byte: control characters are escaped.
_EDGE: Final = b"\0"


def hole(payload: run_pb2.LargePayload) -> msgspec.Raw:
    """Stands in JSON content for a large payload; only `runs_response` can write it."""
    return msgspec.Raw(b"\0%d %b\0" % (payload.size_bytes, payload.read_token.encode()))


def runs_response(content: Any, store: StoreClient) -> Response:
    """A JSON answer; its holes are filled one after the other, with a chunk at a time in memory."""
    body = msgspec.json.encode(content)
    if _EDGE not in body:
        return Response(body, media_type=_JSON)
    pieces, holes = _parted(body)
    length = sum(map(len, pieces)) + sum(size for size, _ in holes)
    return StreamingResponse(filled(body, store), headers={"Content-Length": str(length)}, media_type=_JSON)


async def filled(body: bytes, store: StoreClient) -> AsyncIterator[bytes]:
    """JSON with its holes filled, in chunks. Raises `RunstoreError` when the store goes away."""
    pieces, holes = _parted(body)
    for piece, (_, token) in zip(pieces, holes, strict=False):
        yield piece
        blob = await store.read_blob(blobs.ReadBlobRequest(read_token=token))
        async for chunk in blob.chunks():
            yield chunk
    yield pieces[-1]


def _parted(body: bytes) -> tuple[list[bytes], list[tuple[int, str]]]:
    """What is around the holes, and the size and token of what belongs into each."""
    pieces = body.split(_EDGE)
    holes = [(int(size), token.decode()) for size, token in (piece.split(b" ") for piece in pieces[1::2])]
    return pieces[::2], holes
