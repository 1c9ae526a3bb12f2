"""fast ‖ slow → join, and a graph inside a graph."""

import asyncio
import operator
import time
from pathlib import Path
from typing import Annotated

from langgraph.graph import END, START, StateGraph
from typing_extensions import TypedDict


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    marks: str
    gate: str


def mark(path: Path, name: str) -> None:
    """Leaves a line in a file, by which a test counts how often a node has begun."""
    with path.open("a") as file:
        file.write(name + "\n")


def is_shut(state: State, began_s: float) -> bool:
    """Whether the slow node still waits for a file to be there, which it does for a minute at most."""
    gate = state.get("gate")
    return gate is not None and not Path(gate).exists() and time.monotonic() - began_s < 60


def node(name: str, *, is_slow: bool = False):
    async def run(state: State) -> State:
        if path := state.get("marks"):
            mark(Path(path), name)
        if is_slow:
            began_s = time.monotonic()
            while is_shut(state, began_s):  # noqa: ASYNC110 - it is another process that opens it
                await asyncio.sleep(0.01)
        return {"log": [name]}

    return run


builder = StateGraph(State)
builder.add_node("fast", node("fast"))
builder.add_node("slow", node("slow", is_slow=True))
builder.add_node("join", node("join"))
builder.add_edge(START, "fast")
builder.add_edge(START, "slow")
builder.add_edge(["fast", "slow"], "join")
builder.add_edge("join", END)
graph = builder.compile()


class Inner(TypedDict, total=False):
    inner: Annotated[list[str], operator.add]


inside = StateGraph(Inner)
inside.add_node("deep", lambda _: {"inner": ["deep"]})
inside.add_edge(START, "deep")


class Outer(Inner, total=False):
    log: Annotated[list[str], operator.add]


outside = StateGraph(Outer)
outside.add_node("sub", inside.compile())
outside.add_node("after", lambda _: {"log": ["after"]})
outside.add_edge(START, "sub")
outside.add_edge("sub", "after")
nested = outside.compile()
