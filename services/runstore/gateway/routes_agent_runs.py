"""The routes of runs of graphs, as `langgraph-sdk` calls them (contract agents, section 1.1).

`POST /runs` and `POST /runs/batch`, which LangSmith has too, are in `routes_ingest`.
"""

from contextlib import aclosing
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from fastapi import Header, Query, Request
from starlette.responses import Response

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.gateway.agent_bodies import selected
from runstore.gateway.agent_following import frames_of, nothing_after, position_of, result_of
from runstore.gateway.agent_run_answers import (
    canceller,
    create_and_stream,
    create_and_wait,
    create_run,
    events_answer,
    result_answer,
)
from runstore.gateway.agent_run_json import (
    BULK_CANCEL,
    RUN_CREATE,
    STATUSES,
    STREAM_MODES,
    RunKey,
    StatusName,
    action_of,
    cancel_request,
    modes_in,
    show_run,
)
from runstore.gateway.dialects import json_response
from runstore.gateway.guarded_routes import GuardedRouter
from runstore.gateway.models import Detail
from runstore.gateway.store_client import Credentials, StoreClient, credentials_of
from runstore.v1 import agent_run_pb2 as runs_pb
from runstore.v1 import agent_run_service_pb2 as pb

_RUN: Final = "/threads/{thread_id}/runs/{run_id}"
_NOT_FOUND: Final[dict[int | str, dict[str, Any]]] = {404: {"model": Detail}}
_CREATE_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    400: {"model": Detail, "description": "Fields that do not go together."},
    404: {"model": Detail, "description": "No such thread, assistant or checkpoint."},
    409: {"model": Detail, "description": "A run of the thread is in flight, and the strategy is `reject`."},
}
_Wish = Annotated[bool, Query(description="Whether the run is cancelled when the client leaves first.")]


class _Kwargs(msgspec.Struct):
    resumable: bool | None = None


_KWARGS: Final = msgspec.json.Decoder(_Kwargs)


def agent_run_routes(store: StoreClient) -> GuardedRouter:
    """The routes, on the runs of `store`."""
    router = GuardedRouter(tags=["Agent runs"])
    _add_creating_routes(router, store)
    _add_following_routes(router, store)
    _add_reading_routes(router, store)
    _add_cancelling_routes(router, store)
    return router


def _add_creating_routes(router: GuardedRouter, store: StoreClient) -> None:
    created: dict[str, Any] = {"openapi_extra": RUN_CREATE.openapi, "responses": _CREATE_ERRORS}

    @router.post("/threads/{thread_id}/runs", **created)
    async def create(request: Request, thread_id: UUID) -> Response:
        """Creates a run on a thread."""
        return await create_run(request, store, await request.body(), str(thread_id))

    @router.post("/threads/{thread_id}/runs/wait", **created)
    async def wait(request: Request, thread_id: UUID) -> Response:
        """Creates a run on a thread and answers with its result: values, `__interrupt__` or `__error__`.

        Headers and a line break every five seconds are sent meanwhile.
        """
        return await create_and_wait(request, store, str(thread_id))

    @router.post("/runs/wait", **created)
    async def wait_stateless(request: Request) -> Response:
        """Creates a run on a thread of its own, which goes with it, and answers with its result."""
        return await create_and_wait(request, store)

    @router.post("/threads/{thread_id}/runs/stream", **created)
    async def stream(request: Request, thread_id: UUID) -> Response:
        """Creates a run on a thread and answers with its events."""
        return await create_and_stream(request, store, str(thread_id))

    @router.post("/runs/stream", **created)
    async def stream_stateless(request: Request) -> Response:
        """Creates a run on a thread of its own, which goes with it, and answers with its events."""
        return await create_and_stream(request, store)


def _add_following_routes(router: GuardedRouter, store: StoreClient) -> None:
    @router.get(_RUN + "/join", responses=_NOT_FOUND)
    async def join(
        request: Request,
        thread_id: UUID,
        run_id: UUID,
        cancel_on_disconnect: _Wish = False,  # noqa: FBT002 - a query parameter
    ) -> Response:
        """Answers with the result of a run; for one that has ended, with what its thread holds now."""
        credentials = credentials_of(request.headers)
        joining = pb.JoinAgentRunRequest(thread_id=str(thread_id), run_id=str(run_id), latest_of_thread=True)
        await _resumable(store, joining, credentials)
        on_disconnect = canceller(store, joining, credentials) if cancel_on_disconnect else None
        return result_answer(result_of(store, joining, credentials), {}, on_disconnect)

    @router.get(_RUN + "/stream", responses=_NOT_FOUND)
    async def join_stream(
        request: Request,
        thread_id: UUID,
        run_id: UUID,
        cancel_on_disconnect: _Wish = False,  # noqa: FBT002 - a query parameter
        stream_mode: Annotated[list[str], Query(description="Only these; a JSON array is read, too.")] = [],  # noqa: B006 - FastAPI copies it
        last_event_id: Annotated[str, Header(description="Only what came after this event.")] = "",
    ) -> Response:
        """Answers with the events of a run that are still to come, or that came after a known one."""
        credentials = credentials_of(request.headers)
        joining = pb.JoinAgentRunRequest(
            thread_id=str(thread_id),
            run_id=str(run_id),
            after_event_id=position_of(last_event_id),
            modes=modes_in(stream_mode, STREAM_MODES),
        )
        with_ids = await _resumable(store, joining, credentials) or bool(last_event_id)
        on_disconnect = canceller(store, joining, credentials) if cancel_on_disconnect else None
        frames = frames_of(store, joining, credentials, with_ids=with_ids)
        return events_answer(frames, {"Location": request.url.path}, on_disconnect)


def _add_reading_routes(router: GuardedRouter, store: StoreClient) -> None:
    runs = store.agent_runs

    @router.get("/threads/{thread_id}/runs", responses=_NOT_FOUND)
    async def list_runs(
        request: Request,
        thread_id: UUID,
        status: StatusName | None = None,
        select: Annotated[list[RunKey], Query(description="Only these keys; all when there is none.")] = [],  # noqa: B006 - FastAPI copies it
        limit: Annotated[int, Query(ge=1, le=1_000)] = 10,
        offset: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
    ) -> Response:
        """Lists the runs of a thread, the newest first."""
        message = pb.ListAgentRunsRequest(
            thread_id=str(thread_id),
            status=STATUSES[status] if status else runs_pb.AGENT_RUN_STATUS_UNSPECIFIED,
            offset=offset,
            page_size=limit,
        )
        answer = await store.ask(runs.ListAgentRuns, message, credentials_of(request.headers))
        return json_response([selected(show_run(run), select) for run in answer.runs])

    @router.get(_RUN, responses=_NOT_FOUND)
    async def read_run(request: Request, thread_id: UUID, run_id: UUID) -> Response:
        """Reads a run."""
        message = pb.GetAgentRunRequest(thread_id=str(thread_id), run_id=str(run_id))
        answer = await store.ask(runs.GetAgentRun, message, credentials_of(request.headers))
        return json_response(show_run(answer.run))

    @router.delete(_RUN, status_code=204, responses=_NOT_FOUND)
    async def delete_run(request: Request, thread_id: UUID, run_id: UUID) -> Response:
        """Deletes a run and its checkpoints; one that is in flight is stopped."""
        message = pb.DeleteAgentRunRequest(thread_id=str(thread_id), run_id=str(run_id))
        await store.ask(runs.DeleteAgentRun, message, credentials_of(request.headers))
        return Response(status_code=204)


def _add_cancelling_routes(router: GuardedRouter, store: StoreClient) -> None:
    action_of_query = Query(description="`interrupt` or `rollback`; others mean `interrupt`.")

    @router.post(
        _RUN + "/cancel",
        status_code=202,
        responses={**_NOT_FOUND, 200: {"description": "With `wait`: the run has stopped."}},
    )
    async def cancel(
        request: Request,
        thread_id: UUID,
        run_id: UUID,
        wait: Annotated[bool, Query(description="Answer when the run has stopped.")] = False,  # noqa: FBT002 - a query parameter
        action: Annotated[str, action_of_query] = "interrupt",
    ) -> Response:
        """Cancels a run that is in flight; it will not be continued when this is answered."""
        credentials = credentials_of(request.headers)
        message = pb.CancelAgentRunRequest(
            thread_id=str(thread_id), run_id=str(run_id), action=action_of(action)
        )
        await store.ask(store.agent_runs.CancelAgentRun, message, credentials)
        if not wait:
            return Response(status_code=202)
        joining = pb.JoinAgentRunRequest(thread_id=message.thread_id, run_id=message.run_id)
        location = request.url.path.removesuffix("/cancel") + "/join"
        return result_answer(nothing_after(store, joining, credentials), {"Location": location})

    @router.post("/runs/cancel", status_code=204, openapi_extra=BULK_CANCEL.openapi, responses=_NOT_FOUND)
    async def cancel_many(
        request: Request, action: Annotated[str, action_of_query] = "interrupt"
    ) -> Response:
        """Cancels runs of a thread, or all that are in flight."""
        message = cancel_request(await BULK_CANCEL.read(request), action)
        await store.ask(store.agent_runs.CancelAgentRuns, message, credentials_of(request.headers))
        return Response(status_code=204)


async def _resumable(store: StoreClient, joining: pb.JoinAgentRunRequest, credentials: Credentials) -> bool:
    """Whether a run was created with `stream_resumable`. Raises NOT_FOUND when nothing is known of it.

    Of a stateless run only the result is left, for some time.
    """
    reading = pb.GetAgentRunRequest(thread_id=joining.thread_id, run_id=joining.run_id)
    try:
        answer = await store.ask(store.agent_runs.GetAgentRun, reading, credentials)
    except RunstoreError as error:
        if error.reason is not ErrorReason.NOT_FOUND:
            raise
        end = pb.JoinAgentRunRequest(thread_id=joining.thread_id, run_id=joining.run_id, end_only=True)
        async with aclosing(store.stream(store.agent_runs.JoinAgentRun, end, credentials)) as steps:
            async for _ in steps:
                break
        return False
    return bool(_KWARGS.decode(answer.run.kwargs or b"{}").resumable)
