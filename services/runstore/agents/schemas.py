"""What a graph takes, keeps and gives, as JSON schemas, and its drawing."""

from collections.abc import Callable
from typing import Any

import structlog
from pydantic import create_model

from runstore.agents.graphs import AnyGraph

_log = structlog.get_logger(__name__)


def graph_schemas(graph: AnyGraph, graph_id: str) -> dict[str, Any]:
    """The contract's six keys; null for a schema that the graph's types do not allow to be made."""
    context = _schema(graph.get_context_jsonschema) if graph.context_schema is not None else None
    return {
        "graph_id": graph_id,
        "input_schema": _schema(graph.get_input_jsonschema),
        "output_schema": _schema(graph.get_output_jsonschema),
        "state_schema": _schema(lambda: _state_schema(graph)),
        "config_schema": context or {},
        "context_schema": context,
    }


def _schema(make: Callable[[], dict[str, Any] | None]) -> dict[str, Any] | None:
    try:
        return make()
    except Exception as error:  # noqa: BLE001 - any type may stand in a graph's state, and its methods raise anything
        _log.info("no schema", error=type(error).__name__)
        return None


def _state_schema(graph: AnyGraph) -> dict[str, Any]:
    channels = {name: graph.channels[name] for name in graph.stream_channels_list}
    fields: dict[str, Any] = {
        name: (channel.ValueType, None)  # type: ignore[union-attr] # managed values are in no stream
        for name, channel in channels.items()
    }
    schema: dict[str, Any] = create_model("State", **fields).model_json_schema()
    return schema


async def drawing(graph: AnyGraph, xray: int) -> dict[str, Any]:
    """Nodes and edges; those of subgraphs to a depth of `xray`, or all of them for -1."""
    drawn: dict[str, Any] = (await graph.aget_graph(xray=True if xray < 0 else xray)).to_json()
    return drawn


async def subgraph_schemas(graph: AnyGraph, namespace: str | None, *, recurse: bool) -> dict[str, Any]:
    """The schemas of subgraphs, by name."""
    return {
        name: graph_schemas(subgraph, name)  # type: ignore[arg-type] # remote graphs are no subgraphs
        async for name, subgraph in graph.aget_subgraphs(namespace=namespace, recurse=recurse)
    }
