"""Creates runs of graphs and answers in the three ways there are: with the run, its result, its events."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Final

import structlog
from starlette.requests import Request
from starlette.responses import Response

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.gateway.agent_following import FROM_THE_BEGINNING, frames_of, result_of
from runstore.gateway.agent_run_json import RUN_BATCH, RUN_CREATE, RunCreate, create_request, show_run
from runstore.gateway.dialects import json_response
from runstore.gateway.live_answers import LiveAnswer
from runstore.gateway.request_ids import current_request_id
from runstore.gateway.run_json import canonical_uuid
from runstore.gateway.store_client import Credentials, StoreClient, credentials_of
from runstore.v1 import agent_run_pb2 as runs
from runstore.v1 import agent_run_service_pb2 as pb

_CLIENT_LEFT: Final = "the client that followed the run has left"

_log = structlog.get_logger(__name__)

OnDisconnect = Callable[[], Awaitable[None]]


async def create_run(request: Request, store: StoreClient, body: bytes, thread_id: str = "") -> Response:
    """Answers with the run, which is pending. `thread_id`: "" for a stateless run, here and below."""
    run = await _created(request, store, RUN_CREATE.parse(body), thread_id)
    return json_response(show_run(run), headers={"Content-Location": _path_of(run)})


async def create_runs(request: Request, store: StoreClient, body: bytes) -> Response:
    """Answers with the runs; none is created when one is refused."""
    message = pb.CreateAgentRunsRequest()
    for number, each in enumerate(RUN_BATCH.parse(body)):
        thread_id = canonical_uuid(f"{number}.thread_id", each.thread_id) if each.thread_id else ""
        message.requests.append(_message(request, each, thread_id))
    answer = await store.ask_once(store.agent_runs.CreateAgentRuns, message, credentials_of(request.headers))
    return json_response([show_run(run) for run in answer.runs])


async def create_and_wait(request: Request, store: StoreClient, thread_id: str = "") -> Response:
    """Answers with the run's result, once there is one."""
    body = await RUN_CREATE.read(request)
    run = await _created(request, store, body, thread_id)
    credentials = credentials_of(request.headers)
    joining = pb.JoinAgentRunRequest(thread_id=run.thread_id, run_id=run.run_id)
    return result_answer(
        result_of(store, joining, credentials),
        {"Location": f"{_path_of(run)}/join", "Content-Location": _path_of(run)},
        canceller(store, joining, credentials) if body.on_disconnect == "cancel" else None,
    )


async def create_and_stream(request: Request, store: StoreClient, thread_id: str = "") -> Response:
    """Answers with the run's events, as they come."""
    body = await RUN_CREATE.read(request)
    run = await _created(request, store, body, thread_id)
    credentials = credentials_of(request.headers)
    joining = pb.JoinAgentRunRequest(
        thread_id=run.thread_id, run_id=run.run_id, after_event_id=FROM_THE_BEGINNING
    )
    return events_answer(
        frames_of(store, joining, credentials, with_ids=bool(body.stream_resumable)),
        {"Location": f"{_path_of(run)}/stream", "Content-Location": _path_of(run)},
        canceller(store, joining, credentials) if body.on_disconnect == "cancel" else None,
    )


def result_answer(
    pieces: AsyncGenerator[bytes, None], headers: Mapping[str, str], on_disconnect: OnDisconnect | None = None
) -> Response:
    """JSON that is waited for."""
    return LiveAnswer(
        pieces, headers, media_type="application/json", heartbeat=b"\n", on_disconnect=on_disconnect
    )


def events_answer(
    frames: AsyncGenerator[bytes, None], headers: Mapping[str, str], on_disconnect: OnDisconnect | None = None
) -> Response:
    """Server-sent events."""
    return LiveAnswer(
        frames,
        # nginx would hold the events back.
        {**headers, "X-Accel-Buffering": "no"},
        media_type="text/event-stream",
        heartbeat=b": heartbeat\r\n\r\n",
        on_disconnect=on_disconnect,
    )


def canceller(store: StoreClient, joining: pb.JoinAgentRunRequest, credentials: Credentials) -> OnDisconnect:
    """What to do when a client leaves that does not want its run any more."""
    message = pb.CancelAgentRunRequest(
        thread_id=joining.thread_id,
        run_id=joining.run_id,
        action=runs.CANCEL_ACTION_INTERRUPT,
        reason=_CLIENT_LEFT,
    )

    async def cancel() -> None:
        try:
            await store.ask(store.agent_runs.CancelAgentRun, message, credentials)
        except RunstoreError as error:
            if error.reason is not ErrorReason.NOT_FOUND:  # It has ended meanwhile.
                _log.warning("run_not_cancelled", run_id=message.run_id, reason=error.reason.name)

    return cancel


async def _created(request: Request, store: StoreClient, body: RunCreate, thread_id: str) -> runs.AgentRun:
    answer = await store.ask_once(
        store.agent_runs.CreateAgentRun,
        _message(request, body, thread_id),
        credentials_of(request.headers),
    )
    return answer.run


def _message(request: Request, body: RunCreate, thread_id: str) -> pb.CreateAgentRunRequest:
    return create_request(
        body, thread_id, request_id=current_request_id.get(), headers=request.headers.items()
    )


def _path_of(run: runs.AgentRun) -> str:
    return f"/threads/{run.thread_id}/runs/{run.run_id}"
