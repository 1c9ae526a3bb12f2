"""Follows runs of graphs to their end, through restarts of the store."""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

import msgspec

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.gateway.agent_run_json import status_name
from runstore.gateway.dialects import detail_of
from runstore.gateway.store_client import Credentials, StoreClient
from runstore.v1 import agent_run_pb2 as runs
from runstore.v1 import agent_run_service_pb2 as pb
from runstore.v1 import thread_service_pb2 as threads

FROM_THE_BEGINNING: Final = "0"
"""Stands before the first event of a run."""

_EVENT_ID: Final = re.compile(r"[0-9]{1,18}(-[0-9]{1,18})?", re.ASCII)
_REJOIN_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 2.0
_FAILED: Final = (runs.AGENT_RUN_STATUS_ERROR, runs.AGENT_RUN_STATUS_TIMEOUT)


def position_of(last_event_id: str) -> str | None:
    """From where events are sent again: that of `Last-Event-ID`, `0` or `-` being before the first.

    None, only what is still to come, for anything else.
    """
    if last_event_id == "-":
        return FROM_THE_BEGINNING
    return last_event_id if _EVENT_ID.fullmatch(last_event_id) else None


async def result_of(
    store: StoreClient, request: pb.JoinAgentRunRequest, credentials: Credentials
) -> AsyncGenerator[bytes, None]:
    """The one piece of the answer to `wait` or `join`: JSON.

    The status of the answer is sent already, so a refusal is told as a graph's error is.
    """
    request.end_only = True
    try:
        async with aclosing(_followed(store, store.agent_runs.JoinAgentRun, request, credentials)) as steps:
            async for step in steps:
                if step.HasField("end"):
                    yield step.end.result or b"{}"
                    return
    except RunstoreError as error:
        yield msgspec.json.encode({"__error__": _told(error)})


async def nothing_after(
    store: StoreClient, request: pb.JoinAgentRunRequest, credentials: Credentials
) -> AsyncGenerator[bytes, None]:
    """`{}` once a run has stopped: the answer to a cancel that waits."""
    async with aclosing(result_of(store, request, credentials)) as results:
        async for _ in results:
            yield b"{}"


async def frames_of(
    store: StoreClient, request: pb.JoinAgentRunRequest, credentials: Credentials, *, with_ids: bool
) -> AsyncGenerator[bytes, None]:
    """The events of a run as frames of server-sent events, and at last one named `end` or `error`."""
    has_failed = False
    try:
        async with aclosing(_followed(store, store.agent_runs.JoinAgentRun, request, credentials)) as steps:
            async for step in steps:
                if step.HasField("event"):
                    has_failed = has_failed or step.event.mode == "error"
                    yield _event_frame(step.event, with_id=with_ids)
                    continue
                if step.end.status in _FAILED and not has_failed:
                    yield _frame("error", msgspec.json.encode(_failure(step.end)))
                elif not has_failed:
                    yield _frame("end", b"null")
                return
    except RunstoreError as error:
        yield _frame("error", msgspec.json.encode(_told(error)))


async def thread_frames_of(
    store: StoreClient, request: threads.JoinAgentThreadRequest, credentials: Credentials
) -> AsyncGenerator[bytes, None]:
    """The events of all runs of a thread as frames, `run_done` for the end of each; goes on until closed."""
    method = store.agent_threads.JoinAgentThread
    try:
        async with aclosing(_followed(store, method, request, credentials)) as steps:
            async for step in steps:
                if step.HasField("event"):
                    yield _event_frame(step.event, with_id=True)
                else:
                    done = {"run_id": step.run_id, "status": status_name(step.end.status)}
                    yield _frame("run_done", msgspec.json.encode(done))
    except RunstoreError as error:
        yield _frame("error", msgspec.json.encode(_told(error)))


async def _followed(
    store: StoreClient, method: Any, request: Any, credentials: Credentials
) -> AsyncGenerator[Any, None]:
    """The steps of a run or thread, one after the other however often the store goes away meanwhile.

    Goes on until closed; raises what the store refuses.
    """
    pause_s = _REJOIN_PAUSE_S
    while True:
        try:
            async with aclosing(store.stream(method, request, credentials)) as steps:
                async for step in steps:
                    pause_s = _REJOIN_PAUSE_S
                    if step.HasField("event"):
                        request.after_event_id = step.event.event_id
                    yield step
        except RunstoreError as error:
            if error.reason is not ErrorReason.UNAVAILABLE:
                raise
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _event_frame(event: runs.AgentRunEvent, *, with_id: bool) -> bytes:
    name = "|".join((event.mode, *event.namespace))
    return _frame(name, event.data, event.event_id if with_id else "")


def _frame(name: str, data: bytes, event_id: str = "") -> bytes:
    """One frame; line breaks, which would end its fields, mean nothing in JSON and are none of a name."""
    if "\n" in name or "\r" in name:
        name = " ".join(name.splitlines())
    if b"\n" in data or b"\r" in data:
        data = b" ".join(data.splitlines())
    id_line = b"id: %b\r\n" % event_id.encode() if event_id else b""
    return b"event: %b\r\ndata: %b\r\n%b\r\n" % (name.encode(), data or b"null", id_line)


def _failure(end: runs.AgentRunEnd) -> dict[str, str]:
    return {"error": end.error.error or "Error", "message": end.error.message}


def _told(error: RunstoreError) -> dict[str, str]:
    """A refusal in the words of a graph's error."""
    name = "".join(word.capitalize() for word in error.reason.name.split("_"))
    return {"error": f"{name}Error", "message": detail_of(error)}
