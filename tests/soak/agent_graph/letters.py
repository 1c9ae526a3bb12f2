"""a → b → c → d: each leaves its letter behind the tag of its run, so that the log tells what was done."""

import asyncio
import operator
from typing import Annotated, Any

from langgraph.graph import END, START, StateGraph
from typing_extensions import TypedDict


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    tag: str
    secs: float
    fails: bool


def node(letter: str) -> Any:
    async def leave(state: State) -> State:
        await asyncio.sleep(state["secs"])
        if state["fails"] and letter == "b":
            raise ValueError("as told")
        return {"log": [f"{state['tag']}:{letter}"]}

    return leave


builder = StateGraph(State)
for letter, following in (("a", "b"), ("b", "c"), ("c", "d"), ("d", END)):
    builder.add_node(letter, node(letter))
    builder.add_edge(letter, following)
builder.add_edge(START, "a")
graph = builder.compile()
