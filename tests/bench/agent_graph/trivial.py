"""The smallest graph: what a run of it takes is what running graphs costs."""

from langgraph.graph import END, START, StateGraph
from typing_extensions import TypedDict


class State(TypedDict):
    n: int


async def add_one(state: State) -> State:
    return {"n": state["n"] + 1}


graph = (
    StateGraph(State)
    .add_node("add_one", add_one)
    .add_edge(START, "add_one")
    .add_edge("add_one", END)
    .compile()
)
