"""Graphs whose values are no plain JSON, or not all of whose values are shown."""

import datetime as dt
import operator
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from uuid import UUID

from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langgraph.func import entrypoint, task
from langgraph.graph import START, MessagesState, StateGraph
from typing_extensions import TypedDict


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    out: str
    kind: str
    value: Any


class Output(TypedDict):
    out: str


builder = StateGraph(State, output_schema=Output)
builder.add_node("a", lambda _: {"log": ["a"], "out": "done"})
builder.add_edge(START, "a")
output_only = builder.compile()


class Colour(Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    y: int


class Pair(NamedTuple):
    left: int
    right: int


KINDS: dict[str, Callable[[], Any]] = {
    "rich": lambda: {
        "time": dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC),
        "date": dt.date(2026, 1, 2),
        "duration": dt.timedelta(seconds=90, milliseconds=500),
        "uuid": UUID(int=1),
        "path": Path("/tmp/x"),
        "set": {1},
        "tuple": (1, 2),
        "bytes": b"hi",
        "enum": Colour.RED,
        "point": Point(1, 2),
        "pair": Pair(1, 2),
        "decimal": Decimal("1.5"),
        "nan": float("nan"),
        "nul": "a\0b",
        "__interrupt__": "only text",
    },
    "huge": lambda: 2**70,
    "closed": lambda: Path("/dev/null").open(),  # noqa: SIM115 - nothing can serialize it, which is the point
    "text": lambda: "__interrupt__",
}

odd = StateGraph(State)
odd.add_node("make", lambda state: {"value": KINDS[state["kind"]]()})
odd.add_edge(START, "make")
odd_values = odd.compile()


@task
def twice(number: int) -> int:
    return number * 2


@entrypoint()
def double(number: int) -> int:
    return twice(number).result()


model = GenericFakeChatModel(
    messages=iter(AIMessage(content="hello there", id=f"m{n}") for n in range(10_000))
)

talk = StateGraph(MessagesState)
talk.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
talk.add_edge(START, "model")
chat = talk.compile()
