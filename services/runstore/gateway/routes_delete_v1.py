"""The v1 routes that delete traces: `POST /runs/delete`, `POST /runs/delete/traces` (runs-v1, section 8)."""

from typing import Any, Final
from uuid import UUID

import msgspec
from fastapi import Request
from starlette.responses import Response

from runstore.domain.errors import invalid
from runstore.gateway.dialects import json_response
from runstore.gateway.guarded_routes import GuardedRouter
from runstore.gateway.models import Detail, RunsDeleteV1, TracesDeleteV1
from runstore.gateway.store_client import StoreClient, credentials_of
from runstore.v1 import run_deletion_service_pb2 as pb

_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "The traces are gone: no read that begins from now on sees them."},
    503: {"model": Detail, "description": "The store is away; send again."},
}


def delete_routes_v1(store: StoreClient) -> GuardedRouter:
    """The routes, on the runs of `store`."""
    router = GuardedRouter(tags=["Runs (v1)"])

    @router.post("/runs/delete", responses=_ANSWERS)
    async def delete_runs(request: Request, body: RunsDeleteV1) -> Response:
        """Deletes whole traces: by id, or those with a run that has any of some pairs of metadata."""
        if bool(body.trace_ids) == bool(body.metadata):
            raise invalid("trace_ids", "exactly one of trace_ids and metadata is needed")
        query = pb.DeleteTracesRequest(
            trace_ids=map(str, body.trace_ids or ()),
            metadata=[
                pb.MetadataPair(key=key, value=_text(value))
                for key, values in (body.metadata or {}).items()
                for value in (values if isinstance(values, list) else [values])
            ],
            project_id=_project(body.session_id),
        )
        await store.delete_traces(query, credentials_of(request.headers))
        return json_response({})

    @router.post("/runs/delete/traces", responses=_ANSWERS)
    async def delete_traces(request: Request, body: TracesDeleteV1) -> Response:
        """Deletes whole traces of a project by id."""
        query = pb.DeleteTracesRequest(
            trace_ids=map(str, body.trace_ids), project_id=_project(body.session_id)
        )
        await store.delete_traces(query, credentials_of(request.headers))
        return json_response({})

    return router


def _project(session_id: UUID | None) -> str | None:
    return None if session_id is None else str(session_id)


def _text(value: str | float | bool) -> str:  # noqa: FBT001 - a value of JSON
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
