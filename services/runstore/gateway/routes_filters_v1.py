"""The v1 routes about filters, `/runs/query/validate` and `/runs/generate-query` (runs-v1, section 8)."""

from typing import Any, Final

from fastapi import Body, Request
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from runstore.gateway.conditions_v1 import run_conditions
from runstore.gateway.dialects import json_response
from runstore.gateway.guarded_routes import GuardedRouter
from runstore.gateway.models import (
    Detail,
    GeneratedQuery,
    GenerateQuery,
    QueryValidation,
    RunsQueryV1,
)
from runstore.gateway.store_client import StoreClient, credentials_of
from runstore.v1 import filter_service_pb2 as pb

_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    501: {"model": Detail, "description": "No language model is configured."},
    503: {"model": Detail, "description": "The language model does not answer."},
}


def filter_routes_v1(store: StoreClient) -> GuardedRouter:
    """The routes, asking `store`."""
    router = GuardedRouter(tags=["Runs (v1)"])

    @router.post("/runs/query/validate", response_model=QueryValidation)
    async def validate_query(request: Request, body: dict[str, Any] = Body()) -> Response:  # noqa: B008 - FastAPI's way
        """Says what `POST /runs/query` would refuse in a body, cursors aside; runs nothing."""
        credentials = credentials_of(request.headers)
        texts = {
            field: body[field]
            for field in ("filter", "trace_filter", "tree_filter")
            if isinstance(body.get(field), str)
        }
        checked = await store.check_filters(pb.CheckFiltersRequest(**texts), credentials)
        errors = _errors_of_body(body)
        errors += [{"field": error.field, "message": error.message} for error in checked.errors]
        return json_response({"valid": not errors, "errors": errors})

    @router.post("/runs/generate-query", response_model=GeneratedQuery, responses=_ERRORS)
    async def generate_query(request: Request, body: GenerateQuery) -> Response:
        """Has a language model write the filter for a question, and checks it."""
        query = pb.GenerateFilterRequest(question=body.query, feedback_keys=body.feedback_keys or ())
        answer = await store.generate_filter(query, credentials_of(request.headers))
        return json_response({"filter": answer.filter, "feedback_urls": {}})

    return router


def _errors_of_body(body: dict[str, Any]) -> list[dict[str, str]]:
    try:
        query = RunsQueryV1.model_validate(body)
    except ValidationError as error:
        return [
            {"field": ".".join(map(str, problem["loc"])), "message": problem["msg"]}
            for problem in error.errors(include_url=False, include_input=False)
        ]
    try:
        run_conditions(query)
    except HTTPException as error:
        return [{"field": "session", "message": error.detail}]
    return []
