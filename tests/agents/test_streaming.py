"""Events of runs as they come (contract agents, section 6, G)."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import UnprocessableEntityError
from tests.agents.steps import until_status
from tests.contract.servers import Server


async def collected(parts: AsyncIterator[Any]) -> list[tuple[str, Any]]:
    """Name and data of each part."""
    return [(part.event, part.data) async for part in parts]


async def test_values(client: LangGraphClient, thread: str) -> None:
    """G1: metadata, values once per step, and `end`."""
    parts = await collected(client.runs.stream(thread, "steps", input={"n": 1}))
    assert [name for name, _ in parts] == ["metadata", *["values"] * 4, "end"]
    assert (parts[0][1]["attempt"], "run_id" in parts[0][1]) == (1, True)
    assert parts[-2][1] == {"log": ["a", "b", "c"], "n": 1, "out": "done"}


async def test_values_and_updates(client: LangGraphClient, thread: str) -> None:
    """G2: updates before the values of their step."""
    parts = await collected(
        client.runs.stream(thread, "steps", input={"n": 1}, stream_mode=["values", "updates"])
    )
    names = [name for name, _ in parts]
    assert names == ["metadata", "values", *["updates", "values"] * 3, "end"]
    assert parts[2][1] == {"a": {"log": ["a"]}}


async def test_resumable_run_is_replayed(client: LangGraphClient, thread: str) -> None:
    """G3, G4: every event has an id, behind which a join goes on, also after the end."""
    stream = client.runs.stream(thread, "steps", input={"n": 1}, stream_resumable=True)
    parts = [part async for part in stream]
    ids = [part.id for part in parts if part.event != "end"]
    assert all(re.fullmatch(r"[0-9]+-[0-9]+", str(event_id)) for event_id in ids)
    assert len(set(ids)) == len(ids) == 5
    run_id = parts[0].data["run_id"]
    replayed = await collected(client.runs.join_stream(thread, run_id, last_event_id="0"))
    assert replayed == [(part.event, part.data) for part in parts]
    rest = await collected(client.runs.join_stream(thread, run_id, last_event_id=ids[2]))
    assert rest == replayed[3:]


async def test_modes_of_a_join(client: LangGraphClient, thread: str) -> None:
    """G5: one, or every one of a list."""
    run = await client.runs.create(
        thread, "steps", input={}, stream_mode=["values", "updates", "tasks"], stream_resumable=True
    )
    await client.runs.join(thread, run["run_id"])

    async def names(modes: Any) -> set[str]:
        joined = client.runs.join_stream(thread, run["run_id"], stream_mode=modes, last_event_id="0")
        return {name for name, _ in await collected(joined)}

    assert await names("updates") == {"updates", "end"}
    assert await names(["values", "updates"]) == {"values", "updates", "end"}
    assert await names(None) == {"metadata", "values", "updates", "tasks", "end"}


async def test_failure_is_an_error_event(client: LangGraphClient, thread: str) -> None:
    """G8: the last one."""
    parts = await collected(client.runs.stream(thread, "steps", input={"fail": True}))
    assert parts[-1] == ("error", {"error": "ValueError", "message": "boom"})
    assert "end" not in [name for name, _ in parts]


async def test_subgraphs(client: LangGraphClient, thread: str) -> None:
    """G9: by the path of their node."""
    parts = await collected(
        client.runs.stream(thread, "sub", input={}, stream_mode="updates", stream_subgraphs=True)
    )
    names = [name for name, _ in parts]
    assert any(re.fullmatch(r"updates\|sub:[0-9a-f-]{36}", name) for name in names), names
    whole = await collected(client.runs.stream(thread, "sub", input={}, stream_mode="updates"))
    assert not any("|" in name for name, _ in whole)


async def test_modes_of_no_run(client: LangGraphClient, thread: str) -> None:
    """G11: refused."""
    with pytest.raises(UnprocessableEntityError):
        await collected(client.runs.stream(thread, "steps", input={}, stream_mode="lifecycle"))


async def test_stateless_stream_can_be_joined(server: Server, client: LangGraphClient) -> None:
    """G12: `Location` leads to the events, although the thread is the run's own."""
    body = {"assistant_id": "steps", "input": {"secs": 0.1}, "stream_resumable": True}
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
        async with http.stream("POST", "/runs/stream", json=body) as answer:
            location = answer.headers["location"]
            assert answer.headers["content-type"].startswith("text/event-stream")
        joined = await http.get(location, headers={"Last-Event-ID": "0"})
        assert joined.text.count("event: values") == 4
        assert joined.text.endswith("event: end\r\ndata: null\r\n\r\n")


async def test_question_is_seen_in_a_stream(client: LangGraphClient, thread: str) -> None:
    """With any modes: in the updates, or else in values."""
    mode: Any
    for mode in ("values", "updates"):
        parts = await collected(client.runs.stream(thread, "intr", input={}, stream_mode=mode))
        assert parts[-2][0] == mode
        assert parts[-2][1]["__interrupt__"][0]["value"] == {"q": "who?"}


async def test_messages_of_a_model(client: LangGraphClient, thread: str) -> None:
    """Tokens as they come: whole so far, or chunk by chunk."""
    asked: Any = {"messages": [{"role": "user", "content": "hi"}]}
    parts = await collected(client.runs.stream(thread, "chat", input=asked, stream_mode="messages"))
    names = [name for name, _ in parts]
    assert "messages/metadata" in names
    partial = [data for name, data in parts if name == "messages/partial"]
    assert partial[-1][0]["content"] == "hello there"
    chunks = await collected(client.runs.stream(thread, "chat", input=asked, stream_mode="messages-tuple"))
    said = [data for name, data in chunks if name == "messages"]
    assert "".join(chunk["content"] for chunk, _ in said) == "hello there"


async def test_second_version_of_parts(client: LangGraphClient, thread: str) -> None:
    """Typed dictionaries without `end`, interrupts beside the values."""
    parts: list[Any] = [part async for part in client.runs.stream(thread, "intr", input={}, version="v2")]
    assert parts[-1]["type"] == "values"
    assert parts[-1]["interrupts"][0]["value"] == {"q": "who?"}


async def test_thread_is_followed(client: LangGraphClient, thread: str) -> None:
    """Over one run after the other."""

    async def two_ends() -> list[str]:
        names: list[str] = []
        async for part in await client.threads.join_stream(thread):
            names.append(part.event)
            if names.count("run_done") == 2:
                break
        return names[names.index("run_done") + 1 :]

    following = asyncio.create_task(two_ends())
    for _ in range(20):  # Nobody tells when the server has begun to follow.
        run = await client.runs.create(thread, "steps", input={"n": 1})
        await until_status(client, thread, run["run_id"], "success")
        if following.done():
            break
    assert await following == ["metadata", *["values"] * 4, "run_done"]
