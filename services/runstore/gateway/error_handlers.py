"""Turns whatever a route raises into an answer in the route's dialect."""

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.gateway.call_log import CLIENT_GONE
from runstore.gateway.dialects import (
    OTLP_PATHS,
    Dialect,
    dialect_of,
    error_response,
    json_response,
    problem_response,
)
from runstore.gateway.routes_otlp import otlp_refusal


def install_error_handlers(app: FastAPI) -> None:
    """Registers a handler for each kind of refusal, and for defects, which `CallLog` reports."""
    app.add_exception_handler(RunstoreError, _on_refusal)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(Exception, _on_defect)  # Starlette raises it again afterwards.


async def _on_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, RunstoreError)  # noqa: S101 - what the handler is registered for
    path = request.url.path
    if path in OTLP_PATHS and error.reason is not ErrorReason.WORKSPACE_REQUIRED:
        return otlp_refusal(request, error)
    return error_response(dialect_of(request.method, path), path, error)


async def _on_invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - what the handler is registered for
    path = request.url.path
    problems: Sequence[Any] = error.errors()
    dialect = dialect_of(request.method, path)
    if dialect is Dialect.AGENT:
        return json_response({"detail": "; ".join(map(_sentence, problems))}, 422)
    if dialect is Dialect.PROBLEM:
        # 422 for malformed UUIDs, 400 for every other parameter (contract runs-v2, section 0).
        is_uuid = all(problem["type"].startswith("uuid") for problem in problems)
        return problem_response(422 if is_uuid else 400, "; ".join(map(_sentence, problems)), path)
    # Only these three keys: pydantic's `input` and `ctx` would send payloads back.
    detail = [{key: problem[key] for key in ("loc", "msg", "type")} for problem in problems]
    return json_response({"detail": detail}, 422)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - what the handler is registered for
    path = request.url.path
    headers = dict(error.headers or {})
    if dialect_of(request.method, path) is Dialect.PROBLEM:
        return problem_response(error.status_code, error.detail, path, headers)
    return json_response({"detail": error.detail}, error.status_code, headers)


async def _on_disconnect(_request: Request, _error: Exception) -> Response:
    """Nobody reads the answer; the status is for the log."""
    return Response(status_code=CLIENT_GONE)


async def _on_defect(request: Request, _error: Exception) -> Response:
    path = request.url.path
    return error_response(dialect_of(request.method, path), path, RunstoreError(ErrorReason.INTERNAL, ""))


def _sentence(problem: Any) -> str:
    # The first place is "body", "query" or "path".
    place = ".".join(str(step) for step in problem["loc"][1:])
    return f"{place}: {problem['msg']}" if place else str(problem["msg"])
