"""Runs of graphs between the JSON of the contract (agents, section 1.1) and protobuf."""

import math
from collections.abc import Collection, Iterable
from typing import Annotated, Any, Final, Literal, get_args

import msgspec

from runstore.domain.errors import invalid
from runstore.gateway.agent_bodies import (
    AnyJson,
    BodyOf,
    JsonObject,
    absent_json,
    body_of,
    json_bytes,
    object_bytes,
)
from runstore.gateway.dataset_json import show_time
from runstore.gateway.run_json import canonical_uuid
from runstore.v1 import agent_run_pb2 as runs
from runstore.v1 import agent_run_service_pb2 as pb

StreamMode = Literal[
    "values", "messages", "messages-tuple", "updates", "events", "tasks", "checkpoints", "debug", "custom"
]  # fmt: skip
StatusName = Literal["pending", "running", "error", "success", "timeout", "interrupted"]
ActionName = Literal["interrupt", "rollback"]
RunKey = Literal[
    "run_id", "thread_id", "assistant_id", "created_at", "updated_at", "status", "metadata", "kwargs",
    "multitask_strategy", "langsmith_session_name", "cancel_reason", "trace_id",
]  # fmt: skip

STREAM_MODES: Final[tuple[str, ...]] = get_args(StreamMode)

STATUSES: Final[dict[str, "runs.AgentRunStatus.ValueType"]] = {
    "pending": runs.AGENT_RUN_STATUS_PENDING,
    "running": runs.AGENT_RUN_STATUS_RUNNING,
    "error": runs.AGENT_RUN_STATUS_ERROR,
    "success": runs.AGENT_RUN_STATUS_SUCCESS,
    "timeout": runs.AGENT_RUN_STATUS_TIMEOUT,
    "interrupted": runs.AGENT_RUN_STATUS_INTERRUPTED,
}
"""The contract's names of statuses."""

_STATUS_NAMES: Final = {number: name for name, number in STATUSES.items()}
_STRATEGIES: Final[dict[str | None, "runs.MultitaskStrategy.ValueType"]] = {
    None: runs.MULTITASK_STRATEGY_UNSPECIFIED,
    "reject": runs.MULTITASK_STRATEGY_REJECT,
    "interrupt": runs.MULTITASK_STRATEGY_INTERRUPT,
    "rollback": runs.MULTITASK_STRATEGY_ROLLBACK,
    "enqueue": runs.MULTITASK_STRATEGY_ENQUEUE,
}
_STRATEGY_NAMES: Final = {number: name or "enqueue" for name, number in _STRATEGIES.items()}
_DURABILITIES: Final[dict[str | None, "runs.Durability.ValueType"]] = {
    None: runs.DURABILITY_UNSPECIFIED,
    "sync": runs.DURABILITY_SYNC,
    "async": runs.DURABILITY_ASYNC,
    "exit": runs.DURABILITY_EXIT,
}
# Headers that graphs may continue a trace by (contract agents, section 2.13).
_GRAPH_HEADERS: Final = ("langsmith-trace", "baggage")


class _Tracer(msgspec.Struct):
    """Where else a run is traced."""

    project_name: str | None = None
    example_id: str | None = None


class RunCreate(msgspec.Struct):
    """What to run. Null is the same as absent; unknown keys are ignored."""

    assistant_id: Annotated[str, msgspec.Meta(description="Id, or the name of a graph.")]
    input: AnyJson = absent_json()
    command: JsonObject = absent_json()
    metadata: JsonObject = absent_json()
    config: JsonObject = absent_json()
    context: JsonObject = absent_json()
    checkpoint: JsonObject = absent_json()
    checkpoint_id: str | None = None
    checkpoint_during: bool | None = None
    durability: Literal["sync", "async", "exit"] | None = None
    interrupt_before: Literal["*"] | list[str] | None = None
    interrupt_after: Literal["*"] | list[str] | None = None
    webhook: str | None = None
    multitask_strategy: Literal["reject", "interrupt", "rollback", "enqueue"] | None = None
    if_not_exists: Literal["reject", "create"] | None = None
    on_disconnect: Literal["cancel", "continue"] | None = None
    on_completion: Literal["delete", "keep"] | None = None
    after_seconds: float | None = None
    langsmith_tracer: _Tracer | None = None
    stream_mode: StreamMode | list[StreamMode] | None = None
    stream_subgraphs: bool | None = None
    stream_resumable: bool | None = None
    feedback_keys: list[str] | None = None
    strict_resume: bool | None = None
    thread_id: Annotated[
        str | None, msgspec.Meta(description="Read in a batch alone; else it stands in the path.")
    ] = None


class BulkCancel(msgspec.Struct):
    """Which runs to cancel: those of a status on the whole server, or some of one thread."""

    status: Literal["pending", "running", "all"] | None = None
    thread_id: str | None = None
    run_ids: list[str] | None = None


RUN_CREATE: Final = body_of(RunCreate)
RUN_BATCH: Final = BodyOf(list[RunCreate], RunCreate)
BULK_CANCEL: Final = body_of(BulkCancel)


def create_request(
    body: RunCreate, thread_id: str, *, request_id: str, headers: Iterable[tuple[str, str]]
) -> pb.CreateAgentRunRequest:
    """The request for a run on `thread_id`, "" for a stateless one. Raises `invalid`."""
    request = pb.CreateAgentRunRequest(
        thread_id=thread_id,
        assistant_id=body.assistant_id,
        input=json_bytes(body.input),
        command=object_bytes("command", body.command),
        metadata=object_bytes("metadata", body.metadata),
        config=object_bytes("config", body.config),
        context=object_bytes("context", body.context),
        checkpoint=object_bytes("checkpoint", body.checkpoint),
        checkpoint_id=_uuid_of("checkpoint_id", body.checkpoint_id),
        checkpoint_during=body.checkpoint_during,
        durability=_DURABILITIES[body.durability],
        interrupt_before=_node_names(body.interrupt_before),
        interrupt_after=_node_names(body.interrupt_after),
        webhook=body.webhook,
        multitask_strategy=_STRATEGIES[body.multitask_strategy],
        create_thread=body.if_not_exists == "create",
        keep_thread=body.on_completion == "keep",
        after_seconds=_delay(body.after_seconds),
        stream_modes=[body.stream_mode] if isinstance(body.stream_mode, str) else body.stream_mode,
        stream_subgraphs=bool(body.stream_subgraphs),
        stream_resumable=bool(body.stream_resumable),
        feedback_keys=body.feedback_keys,
        strict_resume=bool(body.strict_resume),
        request_id=request_id,
        headers={name: value for name, value in headers if name in _GRAPH_HEADERS},
    )
    if body.langsmith_tracer is not None:
        _fill_tracer(request, body.langsmith_tracer)
    return request


def modes_in(values: Iterable[str], known: Collection[str]) -> list[str]:
    """The modes in values of a query: names, and JSON arrays of names. Raises `invalid("stream_mode", …)`."""
    modes: list[str] = []
    for value in filter(None, values):
        if value.startswith("["):
            try:
                modes += msgspec.json.decode(value, type=list[str])
            except (msgspec.DecodeError, RecursionError) as error:
                raise invalid("stream_mode", "neither a name nor a JSON array of names") from error
        else:
            modes.append(value)
    if not set(modes) <= set(known):
        raise invalid("stream_mode", f"must be one of {', '.join(known)}")
    return modes


def status_name(status: "runs.AgentRunStatus.ValueType") -> str:
    """The contract's name of a status; for a run that was rolled back, that of webhooks."""
    return _STATUS_NAMES.get(status, "rollback")


def show_run(run: runs.AgentRun) -> dict[str, Any]:
    """A run as JSON content."""
    return {
        "run_id": run.run_id,
        "thread_id": run.thread_id,
        "assistant_id": run.assistant_id,
        "created_at": show_time(run, "due_time"),
        "updated_at": show_time(run, "update_time"),
        "status": _STATUS_NAMES.get(run.status),
        "metadata": msgspec.Raw(run.metadata or b"{}"),
        "kwargs": msgspec.Raw(run.kwargs or b"{}"),
        "multitask_strategy": _STRATEGY_NAMES.get(run.multitask_strategy),
        "langsmith_session_name": run.project_name if run.HasField("project_name") else None,
        "cancel_reason": run.cancel_reason if run.HasField("cancel_reason") else None,
        "trace_id": run.trace_id or None,
    }


def action_of(name: str) -> "runs.CancelAction.ValueType":
    """How to cancel; the reference takes unknown names for `interrupt`."""
    return runs.CANCEL_ACTION_ROLLBACK if name == "rollback" else runs.CANCEL_ACTION_INTERRUPT


def cancel_request(body: BulkCancel, action: str) -> pb.CancelAgentRunsRequest:
    """The request to cancel several runs. Raises `invalid` unless it says which in one of two ways."""
    if (body.status is None) == (body.thread_id is None and body.run_ids is None):
        raise invalid("status", "either a status, or thread_id and run_ids")
    if body.status is not None:
        return pb.CancelAgentRunsRequest(
            status=STATUSES.get(body.status, runs.AGENT_RUN_STATUS_UNSPECIFIED),
            all_in_flight=body.status == "all",
            action=action_of(action),
        )
    if body.thread_id is None or not body.run_ids:
        raise invalid("run_ids" if body.thread_id else "thread_id", "thread_id and run_ids go together")
    return pb.CancelAgentRunsRequest(
        thread_id=canonical_uuid("thread_id", body.thread_id),
        run_ids=[canonical_uuid(f"run_ids.{n}", run_id) for n, run_id in enumerate(body.run_ids)],
        action=action_of(action),
    )


def _node_names(names: str | list[str] | None) -> bytes | None:
    return None if names is None else msgspec.json.encode(names)


def _uuid_of(field: str, text: str | None) -> str | None:
    return None if text is None else canonical_uuid(field, text)


def _delay(seconds: float | None) -> float:
    if seconds is None or seconds <= 0:
        return 0.0
    if not math.isfinite(seconds):
        raise invalid("after_seconds", "not a finite number")
    return seconds


def _fill_tracer(request: pb.CreateAgentRunRequest, tracer: _Tracer) -> None:
    if tracer.project_name is not None:
        request.project_name = tracer.project_name
    example_id = _uuid_of("langsmith_tracer.example_id", tracer.example_id)
    if example_id is not None:
        request.example_id = example_id
