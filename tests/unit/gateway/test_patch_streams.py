"""The streaming form of lists, against a scripted store: what it asks for, and how it ends."""

import json
from typing import Any

import httpx
import pytest

from runstore.domain.errors import ErrorReason
from runstore.v1 import run_pb2 as pb
from runstore.v1 import run_query_service_pb2 as queries

from .conftest import FakeStore, Refuse

PROJECT_ID = "11111111-1111-4111-8111-111111111111"
STREAM = {"accept": "application/json, Text/Event-Stream"}


def run(number: int) -> pb.Run:
    return pb.Run(id=f"22222222-2222-4222-8222-{number:012d}")


class Pages:
    """A store with so many runs, whose page tokens are numbers; from `fails_at` on it refuses."""

    def __init__(self, count: int, fails_at: int | None = None) -> None:
        self._count = count
        self._fails_at = fails_at

    def __call__(self, request: queries.ListRunsRequest) -> Any:
        start = int(request.page_token or 0)
        if self._fails_at is not None and start >= self._fails_at:
            return Refuse(ErrorReason.UNAVAILABLE, "the engine is away")
        end = min(start + request.page_size, self._count)
        return queries.ListRunsResponse(
            runs=[run(number) for number in range(start, end)],
            next_page_token=str(end) if end < self._count else "",
        )


def events_of(answer: httpx.Response) -> list[tuple[str, Any]]:
    events = []
    for block in answer.text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        events.append((fields.get("event", "data"), json.loads(fields.get("data", "null"))))
    return events


@pytest.mark.parametrize(
    ("count", "page_size", "parts", "has_cursor"),
    [
        (0, 100, [], False),
        (7, 100, [7], False),
        (60, 5, [5], True),
        (100, 100, [10, 40, 50], False),
        (1_000, 300, [10, 40, 160, 90], True),
    ],
)
def test_pages_are_asked_for_in_growing_parts(
    http: httpx.Client, store: FakeStore, count: int, page_size: int, parts: list[int], has_cursor: bool
) -> None:
    """A root document, an append for each part, the cursor if more follow, the end."""
    store.answers["ListRuns"] = Pages(count)
    body = {"project_ids": [PROJECT_ID], "page_size": page_size}
    answer = http.post("/api/v2/runs/query", json=body, headers=STREAM)
    assert answer.status_code == 200
    (_, [root]), *appends = events_of(answer)[:-1]
    assert root["value"] == {"items": [], "next_cursor": None}
    if has_cursor:
        *appends, (_, [cursor]) = appends
        assert (cursor["op"], cursor["path"]) == ("replace", "/next_cursor")
        assert cursor["value"].endswith(f".{page_size}")
    assert [len(patches) for _, patches in appends] == parts
    ids = [patch["value"]["id"] for _, patches in appends for patch in patches]
    assert ids == [run(number).id for number in range(sum(parts))]
    assert events_of(answer)[-1] == ("end", None)


def test_a_refusal_at_once_is_no_stream(http: httpx.Client, store: FakeStore) -> None:
    """What is refused before anything was sent has its status."""
    store.answers["ListRuns"] = Refuse(ErrorReason.INVALID_FILTER, "no such field", field="filter")
    answer = http.post("/api/v2/runs/query", json={"project_ids": [PROJECT_ID]}, headers=STREAM)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_failure_in_the_middle_is_an_event(http: httpx.Client, store: FakeStore) -> None:
    """What was read is sent, then the problem; there is no end that a client could take for the whole."""
    store.answers["ListRuns"] = Pages(100, fails_at=10)
    answer = http.post("/api/v2/runs/query", json={"project_ids": [PROJECT_ID]}, headers=STREAM)
    names = [name for name, _ in events_of(answer)]
    assert names == ["data", "data", "error"]
    _, problem = events_of(answer)[-1]
    assert (problem["status"], problem["instance"]) == (503, "/api/v2/runs/query")
    assert "engine" in problem["detail"]
