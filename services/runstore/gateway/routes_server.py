"""The routes about the server itself, and attachments, none of which needs credentials."""

import re
from typing import Annotated, Any, Final

from fastapi import HTTPException, Query, Request
from starlette.responses import HTMLResponse, Response, StreamingResponse

from runstore.gateway.dialects import json_response
from runstore.gateway.documents import INDEX_PAGE
from runstore.gateway.guarded_routes import GuardedRouter
from runstore.gateway.models import Detail
from runstore.gateway.store_client import StoreClient
from runstore.v1 import blob_service_pb2 as blobs

# Contract runs-v1, section 3: `version` opens the SDKs' gates, a partial batch_ingest_config breaks
# their threads, and without zstd_compression_enabled they send uncompressed.
_INFO: Final = {
    "version": "0.18.0",
    "license_expiration_time": None,
    "batch_ingest_config": {
        "use_multipart_endpoint": True,
        "scale_up_qsize_trigger": 1000,
        "scale_up_nthreads_limit": 16,
        "scale_down_nempty_trigger": 4,
        "size_limit": 100,
        "size_limit_bytes": 20_971_520,
    },
    "instance_flags": {
        "zstd_compression_enabled": True,
        "gzip_body_enabled": True,
        "dataset_examples_multipart_enabled": True,
        "examples_multipart_enabled": True,
        "ch_query_enabled": True,
        "sdb_query_enabled": True,
    },
    # What clients of agents look for (contract agents, section 1.6).
    "flags": {
        "assistants": True,
        "crons": True,
        "langsmith": True,
        "langsmith_tracing_replicas": True,
        "strict_resume": True,
    },
    "host": {"kind": "self-hosted", "project_id": None, "revision_id": None, "tenant_id": None},
}

_FALLBACK_MIME_TYPE: Final = "application/octet-stream"
# What strangers uploaded comes from the address of the API: a browser must not run it.
_ATTACHMENT_HEADERS: Final = {
    "Content-Disposition": "attachment",
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "private",
    "Accept-Ranges": "bytes",
}
_RANGE: Final = re.compile(r"bytes=(\d{1,18})-(\d{0,18})", re.ASCII)
_NO_SECURITY: Final[dict[str, Any]] = {"security": []}


def server_routes(store: StoreClient) -> GuardedRouter:
    """The routes; only `/health` and attachments ask `store`."""
    router = GuardedRouter(tags=["Server"])

    @router.get("/info", openapi_extra=_NO_SECURITY)
    async def info() -> dict[str, Any]:
        """What this server can do; SDKs read it once and adapt. Answers even while the store is away."""
        return _INFO

    @router.get("/ok", openapi_extra=_NO_SECURITY)
    async def ok(
        check_db: Annotated[bool, Query(description="Also whether the store serves.")] = False,  # noqa: FBT002 - a query parameter
    ) -> Response:
        """The gateway runs, whatever the store does."""
        if check_db and not await store.is_serving():
            return json_response({"ok": False, "services": {"store": "unavailable"}}, 503)
        return json_response({"ok": True, "services": {}})

    @router.get(
        "/health", openapi_extra=_NO_SECURITY, responses={503: {"description": "The store does not serve."}}
    )
    async def health() -> Response:
        """The gateway and the store serve."""
        if await store.is_serving():
            return json_response({"status": "ok"})
        return json_response({"status": "unavailable", "detail": "The store does not serve."}, 503)

    @router.get(
        "/attachments/{read_token:path}",
        response_class=Response,
        openapi_extra=_NO_SECURITY,
        responses={
            200: {"content": {_FALLBACK_MIME_TYPE: {}}, "description": "The file."},
            206: {"content": {_FALLBACK_MIME_TYPE: {}}, "description": "The range that `Range` asked for."},
            404: {"model": Detail, "description": "The address is not valid, or not any more."},
            416: {"model": Detail, "description": "The range begins behind the end."},
        },
    )
    async def read_attachment(request: Request, read_token: str) -> Response:
        """Reads a file that came with a run, or a range of it. The token in its address is the credential."""
        first, length = _range(request.headers.get("range", ""))
        blob = await store.read_blob(
            blobs.ReadBlobRequest(read_token=read_token, offset=first or 0, length=length)
        )
        # Not as `media_type`, which would add a charset to texts.
        headers = {**_ATTACHMENT_HEADERS, "Content-Type": _safe_mime_type(blob.mime_type)}
        if first is None:
            headers["Content-Length"] = str(blob.size_bytes)
            return StreamingResponse(blob.chunks(), headers=headers)
        if first >= blob.size_bytes:
            blob.close()
            raise HTTPException(416, "The file is shorter.", {"Content-Range": f"bytes */{blob.size_bytes}"})
        end = min(first + length, blob.size_bytes) if length else blob.size_bytes
        headers["Content-Range"] = f"bytes {first}-{end - 1}/{blob.size_bytes}"
        headers["Content-Length"] = str(end - first)
        return StreamingResponse(blob.chunks(), 206, headers=headers)

    @router.get("/", include_in_schema=False)
    async def index() -> HTMLResponse:
        return HTMLResponse(INDEX_PAGE)

    return router


def _range(header: str) -> tuple[int | None, int]:
    """First byte and length (0: to the end) of a single range; no first byte for everything.

    RFC 9110, section 14.2: a range of another form may be ignored.
    """
    found = _RANGE.fullmatch(header)
    if found is None:
        return None, 0
    first, last = int(found[1]), found[2]
    if not last:
        return first, 0
    return (first, int(last) - first + 1) if int(last) >= first else (None, 0)


def _safe_mime_type(mime_type: str) -> str:
    """The type as the tracer sent it, unless it cannot stand in a header."""
    if "/" in mime_type and mime_type.isascii() and mime_type.isprintable():
        return mime_type
    return _FALLBACK_MIME_TYPE
