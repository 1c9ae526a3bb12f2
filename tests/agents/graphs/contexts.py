"""Graphs that tell what they were called with, and graphs that factories make."""

import os
from dataclasses import dataclass
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime
from langgraph_sdk.runtime import ServerRuntime
from typing_extensions import TypedDict


@dataclass
class Context:
    model: str = "m0"
    temp: float = 0.5


class State(TypedDict, total=False):
    seen: Any
    greeting: str


def look(state: State, runtime: Runtime[Context]) -> State:
    return {"seen": vars(runtime.context), "greeting": os.environ["AGENT_GRAPHS_GREETING"]}


builder = StateGraph(State, context_schema=Context)
builder.add_node("look", look)
builder.add_edge(START, "look")
graph = builder.compile()


def look_at_config(state: State, config: RunnableConfig) -> State:
    shown = {name: value for name, value in config["configurable"].items() if not name.startswith("__")}
    return {
        "seen": {
            "configurable": shown,
            "metadata": dict(config["metadata"]),
            "tags": config.get("tags"),
            "recursion_limit": config.get("recursion_limit"),
        }
    }


config_builder = StateGraph(State)
config_builder.add_node("look", look_at_config)
config_builder.add_edge(START, "look")
config_graph = config_builder.compile()


def of(seen: Any) -> Any:
    made = StateGraph(State)
    made.add_node("look", lambda _: {"seen": seen})
    made.add_edge(START, "look")
    return made


async def make_graph(config: RunnableConfig) -> Any:
    return of(config["configurable"].get("color"))


def leave_when_read(runtime: ServerRuntime[Any]) -> Any:
    """A factory that works for runs only, and says so in the worst of ways."""
    if runtime.execution_runtime is None and runtime.access_context != "assistants.read":
        raise SystemExit(3)
    return of("run")


def make_graph_of_runtime(runtime: ServerRuntime[Any]) -> Any:
    execution = runtime.execution_runtime
    return of({"access": runtime.access_context, "context": execution.context if execution else None})
