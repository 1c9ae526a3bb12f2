"""How errors look: four dialects, one for each family of routes.

Contract runs-v1, section 2, runs-v2, section 0, and agents, section 1.0.

| routes | body |
|---|---|
| v1 reads and sessions | FastAPI: `{"detail": "…"}`, for 422 `{"detail": [{"loc", "msg", "type"}]}` |
| v1 ingest, platform, commits | Go: `{"error": "…", "details": "…"}` |
| v2 | RFC 7807 `application/problem+json` |
| agents | `{"detail": "…"}`, always a text |
"""

from enum import Enum
from http import HTTPStatus
from typing import Any, Final

import msgspec
from starlette.responses import Response

from runstore.domain.errors import ErrorReason, RunstoreError

INTERNAL_TEXT: Final = "Internal error. The server's log has the details."

OTLP_PATHS: Final = ("/v1/traces", "/traces", "/otel/v1/traces", "/otel")
"""Where exporters send: the standard's path (`/traces` is what is left of `/api/v1/traces`), and
LangSmith's, of which an SDK of 0.11 knows half."""

_INGEST_POSTS: Final = frozenset({"/runs", "/runs/batch", "/runs/multipart", *OTLP_PATHS})


_LARGE_BODIES: Final = frozenset({"/datasets/upload", "/examples", "/examples/bulk"})
_EXAMPLE_PATHS: Final = ("/examples/", "/v1/platform/datasets/", "/v1/platform/examples/")
_AGENT_PATHS: Final = (
    *("/threads", "/assistants", "/store"),
    *("/runs/wait", "/runs/stream", "/runs/cancel", "/runs/crons"),
)


class Dialect(Enum):
    """The shape of an error's body."""

    FASTAPI = "fastapi"
    GO = "go"
    PROBLEM = "problem"
    AGENT = "agent"


def dialect_of(method: str, path: str) -> Dialect:
    """The dialect that clients of a route expect; `path` is canonical."""
    if path.startswith("/api/v2/"):
        return Dialect.PROBLEM
    if is_agent_path(path):
        return Dialect.AGENT
    if path.startswith(("/v1/platform/", "/commits/")):
        return Dialect.GO
    return Dialect.GO if _is_ingest(method, path) else Dialect.FASTAPI


def _is_ingest(method: str, path: str) -> bool:
    return (method == "POST" and path in _INGEST_POSTS) or (method == "PATCH" and path.startswith("/runs/"))


def is_agent_path(path: str) -> bool:
    """Whether `langgraph-sdk` alone calls a path; `/runs` and `/runs/batch` are LangSmith's, too."""
    return any(path == known or path.startswith(known + "/") for known in _AGENT_PATHS)


def limits_itself(method: str, path: str) -> bool:
    """Whether a route reads its body with limits of its own; `path` is canonical."""
    if is_agent_path(path):
        return False
    return _is_ingest(method, path) or path in _LARGE_BODIES or path.startswith(_EXAMPLE_PATHS)


def json_response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer; `content` may hold `msgspec.Raw`, which is written as it stands."""
    return Response(msgspec.json.encode(content), status, headers, media_type="application/json")


def error_response(dialect: Dialect, path: str, error: RunstoreError) -> Response:
    """The answer to a refused call; `path` is the v2 `instance`."""
    status = error.reason.http_status
    headers = headers_of(error)
    message = INTERNAL_TEXT if error.reason is ErrorReason.INTERNAL else error.message
    if error.reason is ErrorReason.WORKSPACE_REQUIRED:
        # SDKs compare the body, whatever the route (contract runs-v1, section 2).
        return json_response({"error": "org_scoped_key_requires_workspace"}, status)
    if dialect is Dialect.PROBLEM:
        return problem_response(status, detail_of(error), path, headers)
    if dialect is Dialect.GO:
        return json_response({"error": detail_of(error)}, status, headers)
    if dialect is Dialect.AGENT:
        return json_response({"detail": detail_of(error)}, status, headers)
    return json_response({"detail": _fastapi_detail(status, message, error.field)}, status, headers)


def headers_of(error: RunstoreError) -> dict[str, str]:
    """What clients must know to react to a refusal."""
    headers = {}
    if error.retry_after_s:
        headers["Retry-After"] = str(error.retry_after_s)
    if error.reason.http_status >= HTTPStatus.INTERNAL_SERVER_ERROR and not error.reason.retryable:
        # The generated client retries every 5xx otherwise.
        headers["x-should-retry"] = "false"
    return headers


def problem_response(status: int, detail: str, path: str, headers: dict[str, str] | None = None) -> Response:
    """An RFC 7807 answer."""
    body = msgspec.json.encode(_problem(status, detail, path))
    return Response(body, status, headers, media_type="application/problem+json")


def problem_of(error: RunstoreError, path: str) -> dict[str, Any]:
    """A refusal in RFC 7807's words, for where no status can be sent any more."""
    return _problem(error.reason.http_status, detail_of(error), path)


def _problem(status: int, detail: str, path: str) -> dict[str, Any]:
    title = HTTPStatus(status).phrase
    return {"type": "about:blank", "title": title, "status": status, "detail": detail, "instance": path}


def detail_of(error: RunstoreError) -> str:
    """A refusal in one sentence, the field at fault first."""
    message = INTERNAL_TEXT if error.reason is ErrorReason.INTERNAL else error.message
    return f"{error.field}: {message}" if error.field else message


def _fastapi_detail(status: int, message: str, field: str) -> object:
    if status != HTTPStatus.UNPROCESSABLE_ENTITY:
        return message
    return [{"loc": ["body", *(field.split(".") if field else ())], "msg": message, "type": "value_error"}]
