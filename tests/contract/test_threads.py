"""Threads: their id from the metadata, `read_thread` and `list_threads` of the newest SDK."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from langsmith import Client

from .wire import dotted_order, run_json

NOW = datetime.now(UTC)


@pytest.mark.parametrize(
    ("metadata", "thread_id"),
    [
        ({"thread_id": "t"}, "t"),
        ({"session_id": "s"}, "s"),
        ({"conversation_id": "c"}, "c"),
        ({"thread_id": "t", "conversation_id": "c", "session_id": "s"}, "s"),
        ({"thread_id": "t", "conversation_id": "c"}, "c"),
        ({"session_id": None, "conversation_id": None, "thread_id": "t"}, "t"),
        ({"other": "x"}, None),
    ],
    ids=str,
)
def test_thread_id_comes_from_the_metadata(
    client: Client, project: str, metadata: dict[str, Any], thread_id: str | None
) -> None:
    """The first text among `session_id`, `conversation_id` and `thread_id`; nulls do not count."""
    run_id = uuid.uuid4()
    body = run_json(run_id, project, extra={"metadata": metadata})
    assert httpx.post(f"{client.api_url}/runs", json=body).status_code == 202
    assert httpx.get(f"{client.api_url}/runs/{run_id}").json()["thread_id"] == thread_id


def turns(client: Client, project: str, thread_id: str, count: int, **fields: Any) -> list[uuid.UUID]:
    """Root runs of a thread, a second apart."""
    ids = [uuid.uuid4() for _ in range(count)]
    for number, run_id in enumerate(ids):
        at = NOW - timedelta(seconds=60 - number)
        client.create_run(
            f"turn {number}",
            {"n": number},
            "chain",
            id=run_id,
            trace_id=run_id,
            dotted_order=dotted_order(run_id, at=at),
            start_time=at,
            project_name=project,
            extra={"metadata": {"thread_id": thread_id}},
            **fields,
        )
    client.flush()
    return ids


@pytest.mark.parametrize("thread_id", ["simple", 'a "quoted"\\ ünï\nid'])
def test_thread_is_read_in_order(client: Client, project: str, thread_id: str) -> None:
    """`read_thread` lists the roots of one thread, oldest first or newest first, filtered and limited."""
    ids = turns(client, project, thread_id, 3)
    turns(client, project, "another", 2)

    def read(**conditions: Any) -> list[uuid.UUID]:
        found = client.read_thread(thread_id=thread_id, project_name=project, **conditions)
        return [run.id for run in found]

    assert read() == ids
    assert read(order="desc") == ids[::-1]
    assert read(limit=2) == ids[:2]
    assert read(filter='eq(name, "turn 1")') == [ids[1]]
    assert read(is_root=False) == []


def test_threads_are_listed_with_their_runs(client: Client, project: str) -> None:
    """`list_threads` groups the roots of a project by thread."""
    first, second = turns(client, project, "first", 2), turns(client, project, "second", 3)
    threads = {thread["thread_id"]: thread for thread in client.list_threads(project_name=project)}
    assert {name: thread["count"] for name, thread in threads.items()} == {"first": 2, "second": 3}
    assert [run.id for run in threads["first"]["runs"]] == first
    assert [run.id for run in threads["second"]["runs"]] == second
    filtered = client.list_threads(project_name=project, filter='eq(thread_id, "first")')
    assert [thread["thread_id"] for thread in filtered] == ["first"]
    later = client.list_threads(project_name=project, start_time=NOW + timedelta(hours=1))
    assert later == []
