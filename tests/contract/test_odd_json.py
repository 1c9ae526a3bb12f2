"""JSON that parsers read in different ways, in every field of every route: no answer is a defect."""

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from .servers import Server

pytestmark = pytest.mark.both_catalogs(slow=True)

UNKNOWN = "00000000-0000-4000-8000-00000000d800"
WELL_FORMED = {"uuid": UNKNOWN, "date-time": "2026-01-01T00:00:00Z", "date": "2026-01-01"}
DEEPEST = 8
LONE = r'"\ud800"'

# What stands for texts, for numbers, and where anything may stand; None: something ordinary.
ODD: dict[str, tuple[str | None, str | None, str]] = {
    "half a surrogate pair": (LONE, None, r'{"\udfff": ["\ud83d", {"a": "x\ud800\ud800y"}]}'),
    "no number": (None, "NaN", '{"a": [NaN, Infinity, -Infinity]}'),
    "numbers beyond all types": (None, "1" + "0" * 400, '{"a": [1e999, -1e999, 18446744073709551616]}'),
    "NUL": (r'"\u0000"', "1e308", r'{"\u0000": ["\u0000", 1e-400]}'),
    "deep": (None, None, "[" * 900 + "]" * 900),
}


def body_of(schema: dict[str, Any], schemas: dict[str, Any], odd: str) -> str:
    """A body of the schema, with something odd wherever it fits."""
    text, number, anything = ODD[odd]

    def filled(part: dict[str, Any], depth: int = 0) -> str:
        if "$ref" in part:
            part = schemas[part["$ref"].rpartition("/")[2]]
        for several in ("anyOf", "oneOf", "allOf"):
            if several in part:
                return filled(next(one for one in part[several] if one.get("type") != "null"), depth)
        if "const" in part or "enum" in part:
            return json.dumps(part["const"] if "const" in part else part["enum"][0])
        match part.get("type"):
            case "string" | "integer" | "number" | "boolean" as kind:
                known = WELL_FORMED.get(part.get("format", ""))
                plain = {"string": text or '"x"', "boolean": "true"}
                return json.dumps(known) if known else plain.get(kind, number or "1")
            case "array":
                return f"[{filled(part.get('items', {}), depth + 1)}]" if depth < DEEPEST else "[]"
            case "object" if part.get("properties") and depth < DEEPEST:
                fields = part["properties"].items()
                return "{" + ", ".join(f'"{name}": {filled(each, depth + 1)}' for name, each in fields) + "}"
            case "object":
                return anything if anything.startswith("{") else f'{{"a": {anything}}}'
        return anything

    return filled(schema)


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.mark.parametrize("odd", ODD)
def test_every_route_survives_odd_json(http: httpx.Client, odd: str) -> None:
    """Stored as something that JSON can hold, or refused; never a 5xx, and never without an answer."""
    document = http.get("/openapi.json").json()
    statuses = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if content is not None:
                body = body_of(content.get("schema", {}), document["components"]["schemas"], odd)
                answer = http.request(
                    method,
                    re.sub(r"\{\w+\}", UNKNOWN, path),
                    content=body.encode(),
                    headers={"content-type": "application/json"},
                )
                statuses.append((answer.status_code, method, path))
    assert len(statuses) > 80
    assert [each for each in statuses if each[0] >= 500 and each[0] != 501] == []
