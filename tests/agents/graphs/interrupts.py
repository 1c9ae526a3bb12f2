"""Graphs that ask: one question, and two at once."""

import operator
from typing import Annotated, Any

from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt
from typing_extensions import TypedDict


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    n: int
    ans: Any
    one: Any
    two: Any
    note: str


builder = StateGraph(State)
builder.add_node("pre", lambda _: {"log": ["pre"]})
builder.add_node("ask", lambda _: {"ans": interrupt({"q": "who?"})})
builder.add_node("post", lambda _: {"log": ["post"]})
builder.add_edge(START, "pre")
builder.add_edge("pre", "ask")
builder.add_edge("ask", "post")
builder.add_edge("post", END)
one = builder.compile()

pair = StateGraph(State)
pair.add_node("q1", lambda _: {"one": interrupt("q1")})
pair.add_node("q2", lambda _: {"two": interrupt("q2")})
pair.add_edge(START, "q1")
pair.add_edge(START, "q2")
two = pair.compile()
