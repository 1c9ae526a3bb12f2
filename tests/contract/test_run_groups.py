"""Conversations over v1: groups of runs, their statistics, previews."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from langsmith import Client

from .servers import Server

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
NAME = 'a "b" / c?&#'


@pytest.fixture
def session(client: Client, project: str) -> str:
    """A project with five conversations, `NAME` with two traces the last of them, and a run of none."""
    threads = ["t1", "t2", "t3", "t4", NAME, NAME]
    for number, thread in enumerate([*threads, None]):
        client.create_run(
            "n", {"q": f"in {number}"}, "chain", id=uuid.uuid4(), project_name=project,
            start_time=START + timedelta(seconds=number), end_time=START + timedelta(seconds=number + 2),
            outputs={"a": f"out {number}"}, error="e" if number == 1 else None,
            extra={"metadata": {} if thread is None else {"thread_id": thread}},
        )  # fmt: skip
    return str(client.read_project(project_name=project).id)


def post(server: Server, path: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{server.url}{path}", json=body, timeout=60)


def test_groups_of_runs(server: Server, client: Client, project: str, session: str) -> None:
    """The latest first; offset and limit page through them; the filter of a group finds its runs."""
    answer = post(server, "/runs/group", session_id=session, group_by="conversation").json()
    assert answer["total"] == 5
    groups = answer["groups"]
    assert [group["group_key"] for group in groups] == [NAME, "t4", "t3", "t2", "t1"]
    assert (groups[0]["count"], groups[0]["latency_p50"]) == (2, 2.0)
    assert groups[0]["min_start_time"] == "2026-03-01T12:00:04.000000"
    assert groups[0]["max_start_time"] == "2026-03-01T12:00:05.000000"
    assert "in 4" in groups[0]["first_inputs"]
    assert "out 5" in groups[0]["last_outputs"]
    assert (groups[3]["last_error"], groups[0]["last_error"]) == ("e", None)
    found = client.list_runs(project_name=project, filter=groups[0]["filter"])
    assert {run.outputs["a"] for run in found if run.outputs} == {"out 4", "out 5"}
    page = post(server, "/runs/group", session_id=session, offset=1, limit=2).json()
    assert [group["group_key"] for group in page["groups"]] == ["t4", "t3"]
    assert post(server, "/runs/group", session_id=session, offset=9).json() == {"groups": [], "total": 5}
    failed = post(server, "/runs/group", session_id=session, filter='eq(status, "error")').json()
    assert ([group["group_key"] for group in failed["groups"]], failed["total"]) == (["t2"], 1)
    window = {"start_time": "2026-03-01T12:00:01Z", "end_time": "2026-03-01T12:00:03Z"}
    inside = post(server, "/runs/group", session_id=session, **window).json()
    assert [group["group_key"] for group in inside["groups"]] == ["t3", "t2"]


def test_statistics_of_groups(server: Server, session: str) -> None:
    """Traces of conversations only, and how many conversations there are."""
    stats = post(server, "/runs/group/stats", session_id=session).json()
    assert (stats["group_count"], stats["run_count"]) == (5, 6)
    assert stats["error_rate"] == pytest.approx(1 / 6)
    assert (stats["latency_p50"], stats["last_run_start_time"]) == (2.0, "2026-03-01T12:00:05.000000")


def test_preview(server: Server, session: str) -> None:
    """By the thread's id, whatever characters it has; 404 without it."""
    path = f"{server.url}/runs/threads/{quote(NAME, safe='')}"
    group = httpx.get(path, params={"session_id": session}).json()
    assert (group["group_key"], group["count"]) == (NAME, 2)
    missing = httpx.get(f"{server.url}/api/v1/runs/threads/nobody", params={"session_id": session})
    assert (missing.status_code, list(missing.json())) == (404, ["detail"])
    assert httpx.get(path).status_code == 422


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"session_id": "x"}, 422),
        ({"session_id": str(uuid.uuid4()), "group_by": "colour"}, 422),
        ({"session_id": str(uuid.uuid4()), "limit": 101}, 422),
        ({"session_id": str(uuid.uuid4()), "offset": -1}, 422),
        ({"session_id": str(uuid.uuid4())}, 404),
        ({"session_id": None}, 422),
    ],
)
def test_bad_questions(server: Server, body: dict[str, Any], status: int) -> None:
    """In the dialect of v1."""
    for path in ("/runs/group", "/runs/group/stats"):
        answer = post(server, path, **body)
        assert (answer.status_code, list(answer.json())) == (status, ["detail"])


def test_bad_filter(server: Server, session: str) -> None:
    """Is 400."""
    for path in ("/runs/group", "/runs/group/stats"):
        assert post(server, path, session_id=session, filter="eq(").status_code == 400
