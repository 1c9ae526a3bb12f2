"""What a graph is called with: its config, its context and its input, from what was asked of the run."""

import dataclasses
import importlib.metadata
from collections.abc import Mapping
from functools import cache
from typing import Any, is_typeddict
from uuid import UUID, uuid5

from langchain_core.runnables import RunnableConfig
from langgraph.types import Command, Send
from pydantic import BaseModel, PydanticUserError, TypeAdapter, ValidationError

from runstore.agents.attempts import Attempt

# How langgraph itself talks to its loop through the config; nothing that a client may set.
_INTERNAL_PREFIX = "__pregel_"
_STRICT_RESUME = "__pregel_strict_resume"


def trace_id_of(run_id: str, attempt: int) -> UUID:
    """Root of an attempt's trace: the run's id for the first, one derived from it for later ones.

    The store derives the same, to show where the trace is.
    """
    return UUID(run_id) if attempt <= 1 else uuid5(UUID(run_id), str(attempt))


def graph_config(attempt: Attempt, *, continues: bool) -> RunnableConfig:
    """The config for `attempt`, as nodes see it.

    An attempt that `continues` an earlier one starts at the thread's latest checkpoint, whichever one the run
    was asked to start from.
    """
    given: Mapping[str, Any] = attempt.kwargs.get("config") or {}
    identity = {
        "run_id": attempt.run_id,
        "thread_id": attempt.thread_id,
        "graph_id": attempt.graph_id,
        "assistant_id": attempt.assistant_id,
    }
    configurable = {
        **_public(given.get("configurable")),
        **_public(attempt.kwargs.get("context")),
        **({} if continues else _checkpoint(attempt)),
        **identity,
        "user_id": attempt.user_id,
        "langgraph_auth_user_id": attempt.user_id,
        "langgraph_auth_permissions": [],
    }
    if continues:
        for name in ("checkpoint_id", "checkpoint_ns", "checkpoint_map"):
            configurable.pop(name, None)
    if attempt.kwargs.get("strict_resume"):
        configurable[_STRICT_RESUME] = True
    config: RunnableConfig = {
        "configurable": configurable,
        "metadata": {
            **(given.get("metadata") or {}),
            **attempt.metadata,
            **identity,
            "run_attempt": attempt.number,
            "langgraph_version": _langgraph_version(),
        },
        "run_id": trace_id_of(attempt.run_id, attempt.number),
        "run_name": given.get("run_name") or attempt.graph_id,
    }
    if tags := given.get("tags"):
        config["tags"] = list(tags)
    if (limit := given.get("recursion_limit")) is not None:
        config["recursion_limit"] = limit
    return config


def read_config(
    config: Mapping[str, Any], thread_id: str, checkpoint: Mapping[str, Any] | None
) -> RunnableConfig:
    """The config to read or update a thread's state with; the latest one when no `checkpoint` is given."""
    place = {
        name: value for name, value in (checkpoint or {}).items() if name in _PLACE and value is not None
    }
    return {
        **config,  # type: ignore[typeddict-item] # checked when the assistant was made
        "configurable": {**_public(config.get("configurable")), **place, "thread_id": thread_id},
    }


_PLACE = ("checkpoint_id", "checkpoint_ns", "checkpoint_map")


def _checkpoint(attempt: Attempt) -> dict[str, Any]:
    place = attempt.kwargs.get("checkpoint") or {}
    return {name: place[name] for name in _PLACE if place.get(name) is not None}


def _public(values: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (values or {}).items() if not name.startswith(_INTERNAL_PREFIX)}


@cache
def _langgraph_version() -> str:
    return importlib.metadata.version("langgraph")


def graph_input(kwargs: Mapping[str, Any]) -> Any:
    """The graph's input: the run's `command` when it says something, else its `input`."""
    command = kwargs.get("command") or {}
    if not any(command.get(name) is not None for name in ("goto", "update", "resume")):
        return kwargs.get("input")
    return Command(
        goto=_goto(command.get("goto")), update=_update(command.get("update")), resume=command.get("resume")
    )


def _goto(goto: Any) -> Any:
    if goto is None:
        return ()
    targets = goto if isinstance(goto, list) else [goto]
    return [
        Send(target["node"], target.get("input")) if isinstance(target, dict) else target
        for target in targets
    ]


def _update(update: Any) -> Any:
    is_pairs = isinstance(update, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in update)
    return [tuple(pair) for pair in update] if is_pairs else update


def graph_context(schema: Any, context: Mapping[str, Any] | None) -> Any:
    """`context` as the graph's context schema has it, without keys that the schema does not know.

    Without a schema it passes as it is. Without a context it is the schema's defaults, or None when some
    field has none. Raises pydantic.ValidationError when a context does not fit.
    """
    if schema is None:
        return context or None
    known = _fields(schema)
    values = {name: value for name, value in (context or {}).items() if known is None or name in known}
    try:
        adapter = TypeAdapter(schema)
    except PydanticUserError:  # No type that can be checked; on Python 3.11, `typing.TypedDict` is one.
        return values or None
    try:
        return adapter.validate_python(values)
    except ValidationError:
        if context:
            raise
        return None


def _fields(schema: Any) -> frozenset[str] | None:
    """Names of the fields of a context schema; None when it has no fixed ones."""
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        aliases = {field.alias for field in schema.model_fields.values() if field.alias}
        return (
            None
            if schema.model_config.get("extra") == "allow"
            else frozenset({*schema.model_fields, *aliases})
        )
    if dataclasses.is_dataclass(schema):
        return frozenset(field.name for field in dataclasses.fields(schema))
    return frozenset(schema.__annotations__) if is_typeddict(schema) else None
