"""The routes about the server itself, and attachments, none of which needs credentials."""

from typing import Any, Final

from fastapi import APIRouter
from starlette.responses import HTMLResponse, Response

from runstore.gateway.dialects import json_response
from runstore.gateway.documents import INDEX_PAGE
from runstore.gateway.store_client import StoreClient
from runstore.v1 import run_query_service_pb2 as queries

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
}

_FALLBACK_MIME_TYPE: Final = "application/octet-stream"
# What strangers uploaded comes from the address of the API: a browser must not run it.
_ATTACHMENT_HEADERS: Final = {
    "Content-Disposition": "attachment",
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "private",
}
_NO_SECURITY: Final[dict[str, Any]] = {"security": []}


def server_routes(store: StoreClient) -> APIRouter:
    """The routes; only `/health` and attachments ask `store`."""
    router = APIRouter(tags=["Server"])

    @router.get("/info", openapi_extra=_NO_SECURITY)
    async def info() -> dict[str, Any]:
        """What this server can do; SDKs read it once and adapt. Answers even while the store is away."""
        return _INFO

    @router.get("/ok", openapi_extra=_NO_SECURITY)
    async def ok() -> dict[str, bool]:
        """The gateway runs, whatever the store does."""
        return {"ok": True}

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
        responses={200: {"content": {_FALLBACK_MIME_TYPE: {}}, "description": "The file."}},
    )
    async def read_attachment(read_token: str) -> Response:
        """Reads a file that came with a run. The token in its address is the credential."""
        answer = await store.get_attachment(queries.GetAttachmentRequest(read_token=read_token))
        # Not as `media_type`, which would add a charset to texts.
        headers = {**_ATTACHMENT_HEADERS, "Content-Type": _safe_mime_type(answer.mime_type)}
        return Response(answer.content, headers=headers)

    @router.get("/", include_in_schema=False)
    async def index() -> HTMLResponse:
        return HTMLResponse(INDEX_PAGE)

    return router


def _safe_mime_type(mime_type: str) -> str:
    """The type as the tracer sent it, unless it cannot stand in a header."""
    if "/" in mime_type and mime_type.isascii() and mime_type.isprintable():
        return mime_type
    return _FALLBACK_MIME_TYPE
