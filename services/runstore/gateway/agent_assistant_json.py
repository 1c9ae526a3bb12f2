"""Assistants between the JSON of the contract (agents, section 1.3) and protobuf."""

from typing import Annotated, Any, Final, Literal

import msgspec

from runstore.gateway.agent_bodies import JsonObject, absent_json, body_of, object_bytes
from runstore.gateway.dataset_json import show_time
from runstore.gateway.run_json import canonical_uuid
from runstore.v1 import assistant_service_pb2 as pb

_Limit = Annotated[int, msgspec.Meta(ge=1, le=1_000)]
_Offset = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
AssistantKey = Literal[
    "assistant_id", "graph_id", "name", "description", "config", "context", "created_at", "updated_at",
    "metadata", "version",
]  # fmt: skip
_ORDERS: Final[dict[str | None, "pb.AssistantOrder.ValueType"]] = {
    None: pb.ASSISTANT_ORDER_UNSPECIFIED,
    "created_at": pb.ASSISTANT_ORDER_CREATE_TIME,
    "updated_at": pb.ASSISTANT_ORDER_UPDATE_TIME,
    "name": pb.ASSISTANT_ORDER_NAME,
    "assistant_id": pb.ASSISTANT_ORDER_ASSISTANT_ID,
    "graph_id": pb.ASSISTANT_ORDER_GRAPH_ID,
}


class AssistantCreate(msgspec.Struct):
    """A new assistant."""

    graph_id: str
    assistant_id: str | None = None
    config: JsonObject = absent_json()
    context: JsonObject = absent_json()
    metadata: JsonObject = absent_json()
    name: str | None = None
    description: str | None = None
    if_exists: Literal["raise", "do_nothing"] | None = None


class AssistantUpdate(msgspec.Struct):
    """What the next version has otherwise; null is the same as absent."""

    graph_id: str | None = None
    config: JsonObject = absent_json()
    context: JsonObject = absent_json()
    metadata: JsonObject = absent_json()
    name: str | None = None
    description: str | None = None


class AssistantSearch(msgspec.Struct):
    """Conditions, which all must hold, and what to show."""

    metadata: JsonObject = absent_json()
    graph_id: str | None = None
    name: str | None = None
    limit: _Limit | None = None
    offset: _Offset | None = None
    sort_by: Literal["assistant_id", "graph_id", "name", "created_at", "updated_at"] | None = None
    sort_order: Literal["asc", "desc"] | None = None
    select: list[AssistantKey] | None = None


class VersionsAsked(msgspec.Struct):
    """Which versions."""

    metadata: JsonObject = absent_json()
    limit: _Limit | None = None
    offset: _Offset | None = None


class VersionChosen(msgspec.Struct):
    """The version to use."""

    version: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]


ASSISTANT_CREATE: Final = body_of(AssistantCreate)
ASSISTANT_UPDATE: Final = body_of(AssistantUpdate)
ASSISTANT_SEARCH: Final = body_of(AssistantSearch)
VERSIONS_ASKED: Final = body_of(VersionsAsked)
VERSION_CHOSEN: Final = body_of(VersionChosen)


def create_request(body: AssistantCreate) -> pb.CreateAssistantRequest:
    """The request for a new assistant. Raises `invalid` naming the key at fault, as all here."""
    return pb.CreateAssistantRequest(
        assistant_id=canonical_uuid("assistant_id", body.assistant_id) if body.assistant_id else "",
        graph_id=body.graph_id,
        config=object_bytes("config", body.config),
        context=object_bytes("context", body.context),
        metadata=object_bytes("metadata", body.metadata),
        name=body.name,
        description=body.description,
        return_existing=body.if_exists == "do_nothing",
    )


def update_request(assistant_id: str, body: AssistantUpdate) -> pb.UpdateAssistantRequest:
    """The request for a new version."""
    return pb.UpdateAssistantRequest(
        assistant_id=assistant_id,
        graph_id=body.graph_id,
        config=object_bytes("config", body.config),
        context=object_bytes("context", body.context),
        metadata=object_bytes("metadata", body.metadata),
        name=body.name,
        description=body.description,
    )


def condition_of(body: AssistantSearch) -> pb.AssistantCondition:
    """Which assistants are meant."""
    return pb.AssistantCondition(
        graph_id=body.graph_id,
        metadata=object_bytes("metadata", body.metadata),
        name_contains=body.name,
    )


def search_request(body: AssistantSearch) -> pb.SearchAssistantsRequest:
    """The request for a page of assistants."""
    return pb.SearchAssistantsRequest(
        condition=condition_of(body),
        order=_ORDERS[body.sort_by],
        ascending=body.sort_order == "asc",
        offset=body.offset or 0,
        page_size=body.limit or 0,
    )


def show_assistant(assistant: pb.Assistant) -> dict[str, Any]:
    """An assistant, or a version of one, as JSON content."""
    return {
        "assistant_id": assistant.assistant_id,
        "graph_id": assistant.graph_id,
        "config": msgspec.Raw(assistant.config or b"{}"),
        "context": msgspec.Raw(assistant.context or b"{}"),
        "metadata": msgspec.Raw(assistant.metadata or b"{}"),
        "name": assistant.name,
        "description": assistant.description if assistant.HasField("description") else None,
        "version": assistant.version,
        "created_at": show_time(assistant, "create_time"),
        "updated_at": show_time(assistant, "update_time"),
    }
