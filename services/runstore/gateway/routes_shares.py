"""The routes that share runs and threads, and those that read under a token, without credentials.

Contract runs-v1, section 8, and runs-v2, sections 4, 11 and 12.
"""

from typing import Annotated, Any, Final
from uuid import UUID, uuid4

from fastapi import Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.gateway import run_v2
from runstore.gateway.dialects import json_response
from runstore.gateway.guarded_routes import GuardedRouter
from runstore.gateway.large_answers import runs_response
from runstore.gateway.models import Detail, Problem, RunPageV1, RunV1
from runstore.gateway.run_v1 import DEFAULT_SELECTION
from runstore.gateway.store_client import StoreClient, credentials_of
from runstore.gateway.time_fields import TimeUs, to_timestamp
from runstore.v1 import run_pb2
from runstore.v1 import share_service_pb2 as pb

_NOT_FOUND: Final[dict[int | str, dict[str, Any]]] = {404: {"model": Detail}}
_NOT_FOUND_V2: Final[dict[int | str, dict[str, Any]]] = {404: {"model": Problem}}
_PARENT: Final = "parent_run_id"
_PRIVATE: Final = frozenset(
    {
        *("events", "inputs", "outputs", "manifest", "attachments", "reference_example_id", "app_path"),
        *("is_in_dataset", "last_queued_at", "share_url", "ls_user_id"),
    }
)
"""What v2 does not show to the public."""


class _ShareV1(BaseModel):
    run_id: UUID | None = None
    share_token: UUID | None = None


class _SharedQuery(BaseModel):
    id: list[UUID] | None = None
    limit: int = Field(100, ge=1)
    cursor: str | None = None


class _ShareV2(BaseModel):
    session_id: UUID
    trace_id: UUID


class _UnshareV2(BaseModel):
    session_id: UUID


class _ShareThread(BaseModel):
    project_id: UUID


class _Selects(BaseModel):
    selects: list[str] | None = None


def share_routes(store: StoreClient) -> GuardedRouter:
    """The routes, on the shares of `store`."""
    router = GuardedRouter(tags=["Sharing"])
    _add_v1(router, store)
    _add_public_v1(router, store)
    _add_v2(router, store)
    _add_public_v2(router, store)
    return router


def _add_v1(router: GuardedRouter, store: StoreClient) -> None:
    shares = store.shares

    @router.put("/runs/{run_id}/share", responses=_NOT_FOUND)
    async def share_run(request: Request, run_id: UUID, body: _ShareV1) -> Response:
        """Shares a run and what is below it; one that is shared keeps its token."""
        if body.run_id not in (None, run_id):
            raise invalid("run_id", "differs from the run in the path")
        message = pb.ShareRunRequest(run_id=str(run_id), share_token=str(body.share_token or uuid4()))
        answer = await store.ask(shares.ShareRun, message, credentials_of(request.headers))
        return json_response({"run_id": str(run_id), "share_token": answer.share_token})

    @router.get("/runs/{run_id}/share")
    async def read_share(request: Request, run_id: UUID) -> Response:
        """Reads the token of a run; null when it is not shared."""
        message = pb.GetShareRequest(subject=pb.ShareSubject(run_id=str(run_id)))
        answer = await store.ask(shares.GetShare, message, credentials_of(request.headers))
        if not answer.HasField("share_token"):
            return json_response(None)
        return json_response({"run_id": str(run_id), "share_token": answer.share_token})

    @router.delete("/runs/{run_id}/share")
    async def unshare_run(request: Request, run_id: UUID) -> Response:
        """Takes the token back, at once."""
        message = pb.UnshareRequest(subject=pb.ShareSubject(run_id=str(run_id)))
        await store.ask(shares.Unshare, message, credentials_of(request.headers))
        return json_response({"message": "Run is not shared"})


def _add_public_v1(router: GuardedRouter, store: StoreClient) -> None:
    shared = store.shared_runs

    async def read(request: Request, message: pb.ListSharedRunsRequest) -> Response:
        message.fields.extend(DEFAULT_SELECTION.fields)
        answer = await store.ask(shared.ListSharedRuns, message, ())
        if not answer.runs:
            raise RunstoreError(ErrorReason.NOT_FOUND, "the token covers no such run", field="run_id")
        return runs_response(DEFAULT_SELECTION.show(answer.runs[0], str(request.base_url)), store)

    @router.get("/public/{share_token}/run", response_model=RunV1, responses=_NOT_FOUND)
    async def read_shared_run(request: Request, share_token: UUID) -> Response:
        """Reads the run that was shared."""
        return await read(
            request, pb.ListSharedRunsRequest(share_token=str(share_token), shared_run_only=True)
        )

    @router.get("/public/{share_token}/run/{run_id}", response_model=RunV1, responses=_NOT_FOUND)
    async def read_run_below(request: Request, share_token: UUID, run_id: UUID) -> Response:
        """Reads a run below the shared one."""
        return await read(request, pb.ListSharedRunsRequest(share_token=str(share_token), ids=[str(run_id)]))

    @router.post("/public/{share_token}/runs/query", response_model=RunPageV1, responses=_NOT_FOUND)
    async def list_shared_runs(request: Request, share_token: UUID, body: _SharedQuery) -> Response:
        """Lists the runs that the token covers, the first first, a page at a time."""
        message = pb.ListSharedRunsRequest(
            share_token=str(share_token),
            ids=map(str, body.id or ()),
            fields=DEFAULT_SELECTION.fields,
            page_size=min(body.limit, 100),
            page_token=body.cursor or "",
        )
        answer = await store.ask(shared.ListSharedRuns, message, ())
        base_url = str(request.base_url)
        content = {
            "runs": [DEFAULT_SELECTION.show(run, base_url) for run in answer.runs],
            "cursors": {"next": answer.next_page_token or None, "prev": None},
            "search_cursors": None,
            "parsed_query": None,
        }
        return runs_response(content, store)


def _add_v2(router: GuardedRouter, store: StoreClient) -> None:
    shares = store.shares

    @router.post("/api/v2/runs/{run_id}/share", responses=_NOT_FOUND_V2)
    async def share_trace(request: Request, run_id: UUID, body: _ShareV2) -> Response:  # noqa: ARG001 - a child shares its root
        """Shares the trace that a run belongs to."""
        message = pb.ShareRunRequest(run_id=str(body.trace_id), project_id=str(body.session_id))
        answer = await store.ask(shares.ShareRun, message, credentials_of(request.headers))
        return json_response({"share_token": answer.share_token})

    @router.delete("/api/v2/runs/{trace_id}/share", status_code=204)
    async def unshare_trace(request: Request, trace_id: UUID, body: _UnshareV2) -> Response:  # noqa: ARG001 - part of the contract
        """Takes the token back, at once; also when there is none."""
        message = pb.UnshareRequest(subject=pb.ShareSubject(run_id=str(trace_id)))
        await store.ask(shares.Unshare, message, credentials_of(request.headers))
        return Response(status_code=204)

    @router.post("/api/v2/threads/{thread_id:path}/share", responses=_NOT_FOUND_V2)
    async def share_thread(request: Request, thread_id: str, body: _ShareThread) -> Response:
        """Shares the runs of a thread, later ones too."""
        message = pb.ShareThreadRequest(project_id=str(body.project_id), thread_id=thread_id)
        answer = await store.ask(shares.ShareThread, message, credentials_of(request.headers))
        return json_response({"share_token": answer.share_token})

    @router.get("/api/v2/threads/{thread_id:path}/share")
    async def read_thread_share(request: Request, thread_id: str, project_id: UUID) -> Response:
        """Reads the token of a thread; `{}` when it is not shared."""
        subject = pb.ShareSubject(project_id=str(project_id), thread_id=thread_id)
        message = pb.GetShareRequest(subject=subject)
        answer = await store.ask(shares.GetShare, message, credentials_of(request.headers))
        return json_response({"share_token": answer.share_token} if answer.HasField("share_token") else {})

    @router.delete("/api/v2/threads/{thread_id:path}/share", status_code=204)
    async def unshare_thread(request: Request, thread_id: str, project_id: UUID) -> Response:
        """Takes the token back, at once; also when there is none."""
        subject = pb.ShareSubject(project_id=str(project_id), thread_id=thread_id)
        await store.ask(shares.Unshare, pb.UnshareRequest(subject=subject), credentials_of(request.headers))
        return Response(status_code=204)


def _add_public_v2(router: GuardedRouter, store: StoreClient) -> None:
    shared = store.shared_runs

    @router.post("/api/v2/public/{share_token}/runs/query", responses=_NOT_FOUND_V2)
    async def list_shared_runs_v2(request: Request, share_token: UUID, body: _Selects) -> Response:
        """Lists all runs that the token covers."""
        selection = _PublicSelection(body.selects or [], str(request.base_url))
        message = pb.ListSharedRunsRequest(
            share_token=str(share_token), fields=selection.fields, page_size=1_000
        )
        items: list[dict[str, Any]] = []
        while True:
            answer = await store.ask(shared.ListSharedRuns, message, ())
            items.extend(map(selection.show, answer.runs))
            message.page_token = answer.next_page_token
            if not message.page_token:
                return runs_response({"items": items}, store)

    @router.get("/api/v2/public/{share_token}/run/{run_id}", responses=_NOT_FOUND_V2)
    async def read_shared_run_v2(
        request: Request,
        share_token: UUID,
        run_id: UUID,
        selects: Annotated[list[str], Query()],
        start_time: Annotated[TimeUs, Query(description="Exactly as the list has it.")],
    ) -> Response:
        """Reads one of the runs that the token covers."""
        selection = _PublicSelection(selects, str(request.base_url))
        message = pb.ListSharedRunsRequest(
            share_token=str(share_token),
            ids=[str(run_id)],
            start_time=to_timestamp(start_time),
            fields=selection.fields,
        )
        answer = await store.ask(shared.ListSharedRuns, message, ())
        if not answer.runs:
            raise RunstoreError(ErrorReason.NOT_FOUND, "the token covers no such run", field="run_id")
        return runs_response(selection.show(answer.runs[0]), store)


class _PublicSelection:
    """A selection of v2 without what is private, with the direct parent, which no other form has."""

    def __init__(self, selects: list[str], base_url: str) -> None:
        wanted = {text.lower() for text in selects}
        self._has_parent = _PARENT in wanted
        names = {name for text in wanted if (name := run_v2.select_name(text)) is not None}
        self._selection = run_v2.Selection(names - _PRIVATE, base_url)
        self.fields = list(self._selection.fields)
        if self._has_parent:
            self.fields.append(run_pb2.RUN_FIELD_PARENT_RUN_IDS)

    def show(self, run: run_pb2.Run) -> dict[str, Any]:
        shown = self._selection.show(run)
        if self._has_parent:
            shown[_PARENT] = run.parent_run_ids[-1] if run.parent_run_ids else None
        return shown
