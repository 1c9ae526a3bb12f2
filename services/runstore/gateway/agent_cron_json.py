"""Crons between the JSON of the contract (agents, section 1.5) and protobuf."""

from typing import Annotated, Any, Final, Literal

import msgspec

from runstore.domain.times import parse_time
from runstore.gateway.agent_bodies import JsonObject, absent_json, body_of, object_bytes
from runstore.gateway.agent_run_json import RunCreate, create_request
from runstore.gateway.dataset_json import raw, show_time
from runstore.gateway.run_json import canonical_uuid
from runstore.gateway.time_fields import to_timestamp
from runstore.v1 import agent_run_pb2 as runs
from runstore.v1 import agent_run_service_pb2
from runstore.v1 import cron_service_pb2 as pb

CronKey = Literal[
    "cron_id", "assistant_id", "thread_id", "end_time", "schedule", "timezone", "created_at", "updated_at",
    "user_id", "payload", "next_run_date", "metadata", "now", "on_run_completed", "enabled",
]  # fmt: skip
CronSortKey = Literal[
    "cron_id", "assistant_id", "thread_id", "created_at", "updated_at", "next_run_date", "end_time"
]
_ORDERS: Final[dict[str | None, "pb.CronOrder.ValueType"]] = {
    None: pb.CRON_ORDER_UNSPECIFIED,
    "cron_id": pb.CRON_ORDER_CRON_ID,
    "assistant_id": pb.CRON_ORDER_ASSISTANT_ID,
    "thread_id": pb.CRON_ORDER_THREAD_ID,
    "created_at": pb.CRON_ORDER_CREATE_TIME,
    "updated_at": pb.CRON_ORDER_UPDATE_TIME,
    "next_run_date": pb.CRON_ORDER_NEXT_RUN_TIME,
    "end_time": pb.CRON_ORDER_END_TIME,
}
_DURABILITIES: Final = {
    runs.DURABILITY_SYNC: "sync",
    runs.DURABILITY_ASYNC: "async",
    runs.DURABILITY_EXIT: "exit",
}
_STRATEGIES: Final = {
    runs.MULTITASK_STRATEGY_REJECT: "reject",
    runs.MULTITASK_STRATEGY_INTERRUPT: "interrupt",
    runs.MULTITASK_STRATEGY_ROLLBACK: "rollback",
    runs.MULTITASK_STRATEGY_ENQUEUE: "enqueue",
}
# Of a run's keys, those that are JSON on both sides.
_DOCUMENTS: Final = (
    *("input", "command", "config", "context", "checkpoint"),
    *("interrupt_before", "interrupt_after", "metadata"),
)


class CronCreate(RunCreate, kw_only=True):
    """What to run, and when."""

    schedule: Annotated[str, msgspec.Meta(description="Calendar in cron's notation.")]
    timezone: Annotated[str, msgspec.Meta(description="IANA name; UTC when absent.")] | None = None
    end_time: Annotated[str, msgspec.Meta(description="ISO 8601; no runs after it.")] | None = None
    enabled: bool | None = None
    on_run_completed: Literal["delete", "keep"] | None = None


class CronUpdate(RunCreate, kw_only=True):
    """What to change; what is absent stays. Only an `end_time` of null says something."""

    assistant_id: str = ""
    schedule: str | None = None
    timezone: str | None = None
    end_time: str | msgspec.UnsetType | None = msgspec.UNSET
    enabled: bool | None = None
    on_run_completed: Literal["delete", "keep"] | None = None


class CronSearch(msgspec.Struct):
    """Conditions, which all must hold, and what to show."""

    assistant_id: str | None = None
    thread_id: str | None = None
    enabled: bool | None = None
    metadata: JsonObject = absent_json()
    limit: Annotated[int, msgspec.Meta(ge=1, le=1_000)] | None = None
    offset: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] | None = None
    sort_by: CronSortKey | None = None
    sort_order: Literal["asc", "desc"] | None = None
    select: list[CronKey] | None = None


CRON_CREATE: Final = body_of(CronCreate)
CRON_UPDATE: Final = body_of(CronUpdate)
CRON_SEARCH: Final = body_of(CronSearch)


def create_cron_request(body: CronCreate, thread_id: str) -> pb.CreateCronRequest:
    """The request for a cron on `thread_id`, "" for one whose runs are stateless. Raises `invalid`."""
    run = create_request(body, thread_id, request_id="", headers=())
    run.keep_thread = run.keep_thread or body.on_run_completed == "keep"
    return pb.CreateCronRequest(
        schedule=body.schedule,
        timezone=body.timezone or "",
        end_time=_end_time(body.end_time) if body.end_time else None,
        disabled=body.enabled is False,
        run=run,
    )


def update_cron_request(cron_id: str, body: CronUpdate) -> pb.UpdateCronRequest:
    """The request for a change. Raises `invalid`."""
    run = create_request(body, "", request_id="", headers=())
    run.keep_thread = body.on_run_completed == "keep"
    return pb.UpdateCronRequest(
        cron_id=cron_id,
        schedule=body.schedule,
        timezone=body.timezone,
        end_time=_end_time(body.end_time) if isinstance(body.end_time, str) else None,
        clear_end_time=body.end_time is None,
        enabled=body.enabled,
        run=run,
        sets_keep_thread=body.on_run_completed is not None,
        sets_stream_subgraphs=body.stream_subgraphs is not None,
        sets_stream_resumable=body.stream_resumable is not None,
    )


def _end_time(text: str) -> Any:
    return to_timestamp(parse_time("end_time", text))


def cron_condition(body: CronSearch) -> pb.CronCondition:
    """Which crons are meant. Raises `invalid`."""
    return pb.CronCondition(
        assistant_id=body.assistant_id,
        thread_id=body.thread_id and canonical_uuid("thread_id", body.thread_id),
        enabled=body.enabled,
        metadata=object_bytes("metadata", body.metadata),
    )


def search_crons_request(body: CronSearch) -> pb.SearchCronsRequest:
    """The request for a page of crons. Raises `invalid`."""
    return pb.SearchCronsRequest(
        condition=cron_condition(body),
        order=_ORDERS[body.sort_by],
        ascending=body.sort_order == "asc",
        offset=body.offset or 0,
        page_size=body.limit or 0,
    )


def show_cron(cron: pb.Cron) -> dict[str, Any]:
    """A cron as JSON content."""
    return {
        "cron_id": cron.cron_id,
        "assistant_id": cron.run.assistant_id,
        "thread_id": cron.run.thread_id or None,
        "user_id": cron.user_id or None,
        "end_time": show_time(cron, "end_time"),
        "schedule": cron.schedule,
        "timezone": cron.timezone or None,
        "payload": _payload(cron.run),
        "next_run_date": show_time(cron, "next_run_time"),
        "metadata": msgspec.Raw(cron.run.metadata or b"{}"),
        "on_run_completed": _on_completion(cron.run),
        "enabled": cron.enabled,
        "created_at": show_time(cron, "create_time"),
        "updated_at": show_time(cron, "update_time"),
    }


def _on_completion(run: agent_run_service_pb2.CreateAgentRunRequest) -> str | None:
    if run.thread_id:
        return None
    return "keep" if run.keep_thread else "delete"


def _payload(run: agent_run_service_pb2.CreateAgentRunRequest) -> dict[str, Any]:
    """What runs are created with, in the words of a request to create one; what was not given is left out."""
    given = {
        "assistant_id": run.assistant_id,
        **{key: raw(run, key) for key in _DOCUMENTS},
        "checkpoint_id": run.checkpoint_id or None,
        "checkpoint_during": run.checkpoint_during if run.HasField("checkpoint_during") else None,
        "webhook": run.webhook or None,
        "multitask_strategy": _STRATEGIES.get(run.multitask_strategy),
        "durability": _DURABILITIES.get(run.durability),
        "stream_mode": list(run.stream_modes) or None,
        "stream_subgraphs": run.stream_subgraphs or None,
        "stream_resumable": run.stream_resumable or None,
        "feedback_keys": list(run.feedback_keys) or None,
        "langsmith_tracer": _tracer(run),
    }
    return {key: value for key, value in given.items() if value is not None}


def _tracer(run: agent_run_service_pb2.CreateAgentRunRequest) -> dict[str, str] | None:
    if not run.HasField("project_name"):
        return None
    return {"project_name": run.project_name, **({"example_id": run.example_id} if run.example_id else {})}
