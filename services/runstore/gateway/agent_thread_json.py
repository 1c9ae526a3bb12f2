"""Threads of graphs between the JSON of the contract (agents, section 1.2) and protobuf."""

from typing import Annotated, Any, Final, Literal

import msgspec

from runstore.domain.errors import invalid
from runstore.gateway.agent_bodies import (
    AnyJson,
    JsonObject,
    absent_json,
    body_of,
    json_bytes,
    object_bytes,
    selected,
)
from runstore.gateway.dataset_json import raw, show_time
from runstore.gateway.run_json import canonical_uuid
from runstore.v1 import thread_service_pb2 as pb

StatusName = Literal["idle", "busy", "interrupted", "error"]
ThreadKey = Literal[
    "thread_id", "created_at", "updated_at", "state_updated_at", "metadata", "config", "context", "status",
    "values", "interrupts", "error",
]  # fmt: skip
_Limit = Annotated[int, msgspec.Meta(ge=1, le=1_000)]
_Offset = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
_MAX_EXTRACTED: Final = 10

STREAM_MODES: Final = ("run_modes", "lifecycle", "state_update")
"""What a thread can be followed for."""

_STATUSES: Final[dict[str | None, "pb.AgentThreadStatus.ValueType"]] = {
    None: pb.AGENT_THREAD_STATUS_UNSPECIFIED,
    "idle": pb.AGENT_THREAD_STATUS_IDLE,
    "busy": pb.AGENT_THREAD_STATUS_BUSY,
    "interrupted": pb.AGENT_THREAD_STATUS_INTERRUPTED,
    "error": pb.AGENT_THREAD_STATUS_ERROR,
}
_STATUS_NAMES: Final = {number: name for name, number in _STATUSES.items()}
_ORDERS: Final[dict[str | None, "pb.AgentThreadOrder.ValueType"]] = {
    None: pb.AGENT_THREAD_ORDER_UNSPECIFIED,
    "updated_at": pb.AGENT_THREAD_ORDER_UPDATE_TIME,
    "created_at": pb.AGENT_THREAD_ORDER_CREATE_TIME,
    "thread_id": pb.AGENT_THREAD_ORDER_THREAD_ID,
    "status": pb.AGENT_THREAD_ORDER_STATUS,
    "state_updated_at": pb.AGENT_THREAD_ORDER_STATE_UPDATE_TIME,
}


class _Ttl(msgspec.Struct):
    """How long a thread stays."""

    ttl: Annotated[float, msgspec.Meta(gt=0, le=1e9, description="Minutes.")]
    strategy: Literal["delete", "keep_latest"] = "delete"


class ThreadCreate(msgspec.Struct):
    """A new thread."""

    thread_id: str | None = None
    metadata: JsonObject = absent_json()
    if_exists: Literal["raise", "do_nothing"] | None = None
    ttl: _Ttl | None = None
    supersteps: AnyJson = absent_json()


class ThreadUpdate(msgspec.Struct):
    """What to change; keys of the metadata replace those of the same name."""

    metadata: JsonObject = absent_json()
    ttl: _Ttl | None = None


class ThreadSearch(msgspec.Struct):
    """Conditions, which all must hold, and what to show."""

    metadata: JsonObject = absent_json()
    values: JsonObject = absent_json()
    ids: list[str] | None = None
    status: StatusName | None = None
    limit: _Limit | None = None
    offset: _Offset | None = None
    sort_by: Literal["thread_id", "status", "created_at", "updated_at", "state_updated_at"] | None = None
    sort_order: Literal["asc", "desc"] | None = None
    select: list[ThreadKey] | None = None
    extract: dict[str, str] | None = None


class ThreadPrune(msgspec.Struct):
    """Threads to delete, or to thin out."""

    thread_ids: list[str]
    strategy: Literal["delete", "keep_latest"] | None = None


class StateAsked(msgspec.Struct):
    """Which state."""

    checkpoint: JsonObject = absent_json()
    subgraphs: bool | None = None
    select: list[str] | None = None


class StateUpdate(msgspec.Struct):
    """Values to write as if a node had returned them."""

    values: AnyJson = absent_json()
    as_node: str | None = None
    checkpoint: JsonObject = absent_json()
    checkpoint_id: str | None = None


class HistoryAsked(msgspec.Struct):
    """Which past states."""

    limit: _Limit | None = None
    before: AnyJson = absent_json()
    metadata: JsonObject = absent_json()
    checkpoint: JsonObject = absent_json()
    select: list[str] | None = None


THREAD_CREATE: Final = body_of(ThreadCreate)
THREAD_UPDATE: Final = body_of(ThreadUpdate)
THREAD_SEARCH: Final = body_of(ThreadSearch)
THREAD_PRUNE: Final = body_of(ThreadPrune)
STATE_ASKED: Final = body_of(StateAsked)
STATE_UPDATE: Final = body_of(StateUpdate)
HISTORY_ASKED: Final = body_of(HistoryAsked)


def create_request(body: ThreadCreate) -> pb.CreateAgentThreadRequest:
    """The request for a new thread. Raises `invalid` naming the key at fault."""
    return pb.CreateAgentThreadRequest(
        thread_id=canonical_uuid("thread_id", body.thread_id) if body.thread_id else "",
        metadata=object_bytes("metadata", body.metadata),
        return_existing=body.if_exists == "do_nothing",
        ttl=_ttl(body.ttl),
        supersteps=_array_bytes("supersteps", body.supersteps),
    )


def update_request(thread_id: str, body: ThreadUpdate) -> pb.UpdateAgentThreadRequest:
    """The request to change a thread. Raises `invalid`."""
    return pb.UpdateAgentThreadRequest(
        thread_id=thread_id, metadata=object_bytes("metadata", body.metadata), ttl=_ttl(body.ttl)
    )


def condition_of(body: ThreadSearch) -> pb.AgentThreadCondition:
    """Which threads are meant. Raises `invalid`."""
    return pb.AgentThreadCondition(
        metadata=object_bytes("metadata", body.metadata),
        values=object_bytes("values", body.values),
        status=_STATUSES[body.status],
        thread_ids=[canonical_uuid(f"ids.{n}", id_) for n, id_ in enumerate(body.ids or ())],
    )


def search_request(body: ThreadSearch) -> pb.SearchAgentThreadsRequest:
    """The request for a page of threads. Raises `invalid`."""
    return pb.SearchAgentThreadsRequest(
        condition=condition_of(body),
        order=_ORDERS[body.sort_by],
        ascending=body.sort_order == "asc",
        offset=body.offset or 0,
        page_size=body.limit or 0,
    )


def prune_request(body: ThreadPrune) -> pb.PruneAgentThreadsRequest:
    """The request to prune threads. Raises `invalid`."""
    return pb.PruneAgentThreadsRequest(
        thread_ids=[canonical_uuid(f"thread_ids.{n}", id_) for n, id_ in enumerate(body.thread_ids)],
        keep_latest=body.strategy == "keep_latest",
    )


def checkpoint_of(checkpoint: msgspec.Raw, checkpoint_id: str | None) -> bytes | None:
    """The checkpoint that is meant, as the store wants it; the id goes before. Raises `invalid`."""
    if checkpoint_id is not None:
        return msgspec.json.encode({"checkpoint_id": canonical_uuid("checkpoint_id", checkpoint_id)})
    return object_bytes("checkpoint", checkpoint)


def show_thread(thread: pb.AgentThread, *, with_ttl: bool = False) -> dict[str, Any]:
    """A thread as JSON content. `interrupts` and `error` are there once a run has ended, or failed."""
    shown: dict[str, Any] = {
        "thread_id": thread.thread_id,
        "created_at": show_time(thread, "create_time"),
        "updated_at": show_time(thread, "update_time"),
        "state_updated_at": show_time(thread, "state_update_time"),
        "metadata": msgspec.Raw(thread.metadata or b"{}"),
        "config": msgspec.Raw(thread.config or b"{}"),
        "status": _STATUS_NAMES.get(thread.status),
        "values": raw(thread, "values"),
    }
    if thread.HasField("interrupts"):
        shown["interrupts"] = msgspec.Raw(thread.interrupts)
        shown["error"] = None
    if thread.HasField("error"):
        shown["error"] = {"error": thread.error.error, "message": thread.error.message}
    if with_ttl and thread.HasField("ttl"):
        ttl = thread.ttl
        expires_at = show_time(ttl, "expire_time")
        shown["ttl"] = {"ttl": ttl.minutes, "strategy": ttl.strategy, "expires_at": expires_at}
    return shown


def show_found(thread: pb.AgentThread, body: ThreadSearch) -> dict[str, Any]:
    """A thread that was searched for, with what is to be extracted of it. Raises `invalid`."""
    shown = show_thread(thread)
    found = selected(shown, body.select or ())
    if body.extract:
        if len(body.extract) > _MAX_EXTRACTED:
            raise invalid("extract", f"at most {_MAX_EXTRACTED} paths")
        tree = msgspec.json.decode(msgspec.json.encode(shown))
        found["extracted"] = {name: _at(path, tree) for name, path in body.extract.items()}
    return found


def show_state(state: bytes, keys: list[str] | None) -> msgspec.Raw | dict[str, Any]:
    """A state, or the given keys of it: `values.messages` is one key of the values."""
    if not keys:
        return msgspec.Raw(state)
    parts = msgspec.json.decode(state, type=dict[str, msgspec.Raw])
    shown: dict[str, Any] = {}
    for key in keys:
        outer, _, inner = key.partition(".")
        if outer not in parts:
            raise invalid("select", f"a state has no {outer!r}")
        if not inner:
            shown[outer] = parts[outer]
        elif outer == "values" and isinstance(within := shown.setdefault(outer, {}), dict):
            within.update(_key_of(inner, parts[outer]))
    return shown


def _ttl(ttl: _Ttl | None) -> pb.AgentThreadTtl | None:
    return None if ttl is None else pb.AgentThreadTtl(minutes=ttl.ttl, strategy=ttl.strategy)


def _array_bytes(field: str, raw_json: msgspec.Raw) -> bytes | None:
    content = json_bytes(raw_json)
    if content is not None and content.lstrip()[:1] != b"[":
        raise invalid(field, "must be an array")
    return content


def _key_of(key: str, values: msgspec.Raw) -> dict[str, msgspec.Raw]:
    try:
        found = msgspec.json.decode(values, type=dict[str, msgspec.Raw])
    except msgspec.ValidationError:  # Values of a graph may be no object.
        return {}
    return {key: found[key]} if key in found else {}


def _at(path: str, tree: Any) -> Any:
    """What is at `values.messages[-1].content`; None for nothing."""
    steps = path.replace("[", ".[").split(".")
    for step in filter(None, steps):
        try:
            if step.startswith("["):
                tree = tree[int(step[1:].removesuffix("]"))] if isinstance(tree, list) else None
            else:
                tree = tree.get(step) if isinstance(tree, dict) else None
        except (ValueError, IndexError):
            return None
    return tree
