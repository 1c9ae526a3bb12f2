"""A graph that remembers across threads."""

from typing import Any

from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime
from typing_extensions import TypedDict


class State(TypedDict, total=False):
    user: str
    fact: str
    facts: list[Any]
    namespaces: list[Any]
    first: Any


async def remember(state: State, runtime: Runtime[None]) -> State:
    store = runtime.store
    assert store is not None
    place = ("facts", state["user"])
    await store.aput(place, state["fact"], {"text": state["fact"]})
    found = await store.asearch(place, limit=100)
    first = await store.aget(place, state["fact"])
    return {
        "facts": sorted(item.value["text"] for item in found),
        "namespaces": [list(path) for path in await store.alist_namespaces(prefix=place)],
        "first": first.dict() if first else None,
    }


def forget(state: State, runtime: Runtime[None]) -> State:
    """Not async, from a thread of its own."""
    store = runtime.store
    assert store is not None
    if state["fact"] == "nothing":
        for item in store.search(("facts", state["user"])):
            store.delete(item.namespace, item.key)
    return {}


builder = StateGraph(State)
builder.add_node("remember", remember)
builder.add_node("forget", forget)
builder.add_edge(START, "remember")
builder.add_edge("remember", "forget")
graph = builder.compile()
