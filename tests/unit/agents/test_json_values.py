"""State values as JSON, beyond what a graph of the tests holds."""

import json
from collections import deque
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from langchain_core.messages import AIMessage

from runstore.agents.json_values import from_json, to_json


@dataclass
class Note:
    text: Any


class Odd:
    """Nothing that JSON knows."""


@pytest.mark.parametrize(
    ("value", "rendered"),
    [
        ({1: "a", None: "b"}, {"1": "a", "null": "b"}),
        (deque([1, 2]), [1, 2]),
        (frozenset(), []),
        (Odd(), None),
        (Odd, None),
        (ValueError("boom"), {"error": "ValueError", "message": "boom"}),
        (Decimal(3), 3),
        (Decimal("NaN"), None),
        (float("inf"), None),
        (b"\xff", "/w=="),
        ("\\u0000", "\\u0000"),
        ("\\\0", "\\\ufffd"),
        (2**63, 2**63),
    ],
)
def test_rendering(value: Any, rendered: Any) -> None:
    """What clients read."""
    assert json.loads(to_json(value)) == rendered


@pytest.mark.parametrize(
    "value", ["x\ud800y", ["x\ud800y"], {"x\ud800y": ("x\ud800y",)}, Note({"a": "x\ud800y"})]
)
def test_halves_of_characters(value: Any) -> None:
    """As models and broken tools send them: no reason to lose the run."""
    assert b"x?y" in to_json(value)


def test_messages() -> None:
    """Objects with type, content and id."""
    rendered = from_json(to_json({"messages": [AIMessage(content="hi", id="1")]}))
    [message] = rendered["messages"]
    assert (message["type"], message["content"], message["id"]) == ("ai", "hi", "1")


@pytest.mark.parametrize("value", [2**64, {"a": [2**70]}])
def test_integers_beyond_64_bits(value: Any) -> None:
    """Are refused: clients would read another number."""
    with pytest.raises(TypeError):
        to_json(value)


def test_circular_values() -> None:
    """Are refused."""
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(TypeError):
        to_json(circle)


def test_no_text_is_nothing() -> None:
    """An absent field of a message."""
    assert from_json(b"") is None
