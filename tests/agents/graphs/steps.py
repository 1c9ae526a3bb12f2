"""a → b → c: each appends its letter; how long they take and whether b fails is in the input.

A run that a test stops, or looks at, must not have ended before: it waits for a file, the gate, to be there.
"""

import asyncio
import operator
import pickle
import time
from pathlib import Path
from typing import Annotated, Any

from langgraph.graph import END, START, StateGraph
from typing_extensions import TypedDict


class Refusal(Exception):
    """Of no class that users are meant to read."""


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    n: int
    secs: float
    slow: str
    fail: str | bool
    block: float
    marks: str
    gate: str
    out: str


ERRORS = {
    "value": ValueError("boom"),
    "timeout": TimeoutError("too slow"),
    "masked": pickle.PicklingError("secret"),
    "refusal": Refusal("secret"),
}


def mark(state: State, letter: str) -> None:
    """Leaves a line in a file, by which a test counts how often a node has begun."""
    if path := state.get("marks"):
        with Path(path).open("a") as file:
            file.write(letter)


def is_shut(state: State, began_s: float) -> bool:
    """Whether a node that began then still waits for the gate, which it does for a minute at most."""
    gate = state.get("gate")
    return gate is not None and not Path(gate).exists() and time.monotonic() - began_s < 60


def step(letter: str):
    async def node(state: State) -> State:
        mark(state, letter)
        if block := state.get("block"):
            time.sleep(block)  # noqa: ASYNC251 - holds the event loop up, as careless authors do
        if state.get("slow", letter) == letter:
            await asyncio.sleep(state.get("secs") or 0)
            began_s = time.monotonic()
            while is_shut(state, began_s):  # noqa: ASYNC110 - it is another process that opens it
                await asyncio.sleep(0.01)
        if letter == "b" and (fail := state.get("fail")):
            failure: Exception = ERRORS["value" if fail is True else str(fail)]
            raise failure
        return {"log": [letter], "out": "done"} if letter == "c" else {"log": [letter]}

    return node


def blocking_step(letter: str):
    def node(state: State) -> State:
        mark(state, letter)
        time.sleep(state.get("secs") or 0)
        began_s = time.monotonic()
        while is_shut(state, began_s):
            time.sleep(0.01)
        mark(state, letter.upper())
        return {"log": [letter]}

    return node


def chain(make) -> Any:
    builder = StateGraph(State)
    for letter, target in (("a", "b"), ("b", "c"), ("c", END)):
        builder.add_node(letter, make(letter))
        builder.add_edge(letter, target)
    builder.add_edge(START, "a")
    return builder


graph = chain(step).compile()
blocking = chain(blocking_step)

endless = StateGraph(State)
endless.add_node("again", step("x"))
endless.add_edge(START, "again")
endless.add_conditional_edges("again", lambda _: "again", ["again"])
loop = endless.compile()


def leave(state: State) -> State:
    """What careless authors do."""
    raise SystemExit(3)


leaving = StateGraph(State)
leaving.add_node("leave", leave)
leaving.add_edge(START, "leave")
exits = leaving.compile()
