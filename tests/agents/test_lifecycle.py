"""Disconnects, delays, durability, checkpoints and configuration (contract agents, section 6, E)."""

import asyncio
import time
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import NotFoundError
from tests.agents.steps import until, until_next, until_status, until_thread, values_of
from tests.contract.servers import Server


def at_b(gate: Path) -> Any:
    """The input of a run that stays at b until there is a file."""
    return {"slow": "b", "gate": str(gate)}


@pytest.mark.parametrize("path", ["wait", "stream"])
@pytest.mark.parametrize(("wish", "status"), [(None, "success"), ("cancel", "interrupted")])
async def test_client_that_leaves(
    client: LangGraphClient,
    server: Server,
    thread: str,
    tmp_path: Path,
    path: str,
    wish: str | None,
    status: str,
) -> None:
    """E1, E2: its run goes on, unless it wanted otherwise."""
    gate = tmp_path / "gate"
    body = {"assistant_id": "steps", "input": at_b(gate), "on_disconnect": wish}
    async with (
        httpx.AsyncClient(base_url=server.url, timeout=60) as http,
        http.stream("POST", f"/threads/{thread}/runs/{path}", json=body) as answer,
    ):
        run = answer.headers["content-location"].rsplit("/", 1)[1]
        await until_next(client, thread, "b")
    if wish is None:
        gate.touch()
    await until_status(client, thread, run, status)
    found = await until_thread(client, thread, "idle" if wish is None else "interrupted")
    assert found["values"]["log"] == (["a", "b", "c"] if wish is None else ["a"])


async def test_join_that_is_left(client: LangGraphClient, server: Server, thread: str) -> None:
    """E3: cancels when it said so."""
    run = (await client.runs.create(thread, "steps", input={"secs": 30, "slow": "b"}))["run_id"]
    async with (
        httpx.AsyncClient(base_url=server.url, timeout=60) as http,
        http.stream(
            "GET", f"/threads/{thread}/runs/{run}/join", params={"cancel_on_disconnect": "true"}
        ) as answer,
    ):
        assert answer.status_code == 200
        await until_next(client, thread, "b")
    await until_status(client, thread, run, "interrupted")


async def test_thread_is_created_with_the_run(client: LangGraphClient) -> None:
    """E4, E5: once, however many ask for it; they run one after the other."""
    thread = str(uuid.uuid4())
    results: list[Any] = await asyncio.gather(
        *(
            client.runs.wait(thread, "steps", input={}, if_not_exists="create", metadata={"mine": 1})
            for _ in range(3)
        )
    )
    assert sorted(len(result["log"]) for result in results) == [3, 6, 9]
    found: Any = await client.threads.get(thread)
    assert (found["metadata"]["graph_id"], found["metadata"]["mine"]) == ("steps", 1)
    assert "assistant_id" in found["metadata"]


async def test_delayed_run(client: LangGraphClient, thread: str) -> None:
    """E6 to E8: pending and its thread busy until it is due, and overtaken by one that is not delayed."""

    async def delayed(seconds: int) -> str:
        run = await client.runs.create(thread, "steps", input={"n": 1}, after_seconds=seconds)
        due, made = (datetime.fromisoformat(str(time_)) for time_ in (run["created_at"], run["updated_at"]))
        assert abs((due - made).total_seconds() - seconds) < 0.01
        assert run["status"] == "pending"
        return run["run_id"]

    late = await delayed(3600)
    assert (await client.threads.get(thread))["status"] == "busy"
    overtaking: Any = await client.runs.wait(thread, "steps", input={"n": 2})
    assert overtaking["log"] == ["a", "b", "c"]
    began = time.monotonic()
    await until_status(client, thread, await delayed(1), "success")
    assert time.monotonic() - began > 1
    assert (await client.runs.get(thread, late))["status"] == "pending"
    assert (await client.threads.get(thread))["status"] == "busy"
    assert (await values_of(client, thread))["log"] == list("abcabc")


@pytest.mark.parametrize(
    ("durability", "meanwhile", "after"), [("sync", 2, 5), ("async", 2, 5), ("exit", 0, 1)]
)
async def test_durability(
    client: LangGraphClient, thread: str, tmp_path: Path, durability: Any, meanwhile: int, after: int
) -> None:
    """E9, E10: checkpoints grow with the run, or there is one at its end."""
    gate = tmp_path / "gate"
    run = (await client.runs.create(thread, "steps", input=at_b(gate), durability=durability))["run_id"]

    async def has_told_a() -> bool:
        async for part in client.runs.join_stream(thread, run, last_event_id="0"):
            if part.event == "values" and part.data.get("log") == ["a"]:
                return True
        return False

    await until(has_told_a, "a is done")
    if meanwhile:

        async def are_written() -> bool:
            return len(await client.threads.get_history(thread)) > meanwhile

        await until(are_written, "its checkpoints are written")
    else:
        assert await client.threads.get_history(thread) == []
    gate.touch()
    await client.runs.join(thread, run)
    assert len(await client.threads.get_history(thread)) == after


@pytest.mark.filterwarnings("ignore:.*checkpoint_during:DeprecationWarning")
async def test_checkpoint_at_the_end_of_a_failure(client: LangGraphClient, thread: str) -> None:
    """E11, E12: with what was completed; `checkpoint_during=False` says the same."""
    await client.runs.wait(thread, "steps", input={"fail": True}, checkpoint_during=False, raise_error=False)
    [state] = await client.threads.get_history(thread)
    assert state["values"]["log"] == ["a"]  # type: ignore[call-overload]
    [run] = await client.runs.list(thread, select=["kwargs"])
    assert run["kwargs"]["durability"] == "exit"  # type: ignore[typeddict-item]


async def test_checkpoints_are_branched_from(client: LangGraphClient, thread: str) -> None:
    """E13 to E16: without input by a fork, with input on top of it; an unknown one is refused."""
    await client.runs.wait(thread, "steps", input={"n": 1})
    history: Any = await client.threads.get_history(thread, limit=100)
    [after_a] = [state for state in history if state["next"] == ["b"]]
    chosen = after_a["checkpoint"]["checkpoint_id"]
    again: Any = await client.runs.wait(thread, "steps", checkpoint_id=chosen)
    assert again["log"] == ["a", "b", "c"]
    history = await client.threads.get_history(thread, limit=100)
    [fork] = [state for state in history if state["metadata"]["source"] == "fork"]
    assert fork["parent_checkpoint"]["checkpoint_id"] == chosen
    other = (await client.threads.create())["thread_id"]
    checkpoint: Any = {**after_a["checkpoint"], "thread_id": other}
    on_top: Any = await client.runs.wait(thread, "steps", input={"n": 2}, checkpoint=checkpoint)
    assert (on_top["log"], on_top["n"]) == (list("aabc"), 2)
    with pytest.raises(httpx.HTTPStatusError) as caught:
        await client.runs.wait(thread, "steps", checkpoint_id=str(uuid.uuid4()))
    assert caught.value.response.status_code == 404


async def test_context_is_typed_and_merged(client: LangGraphClient) -> None:
    """E17, E18: what the schema does not know is dropped; a run goes before its assistant."""
    seen: Any = await client.runs.wait(None, "ctxg", input={}, context={"model": "M", "zork": 1})
    assert seen["seen"] == {"model": "M", "temp": 0.5}
    assistant = await client.assistants.create("ctxg", context={"model": "A", "temp": 0.1})
    seen = await client.runs.wait(None, assistant["assistant_id"], input={}, context={"temp": 0.9})
    assert seen["seen"] == {"model": "A", "temp": 0.9}


async def test_config_of_nodes(client: LangGraphClient, thread: str) -> None:
    """E19 to E21: what the caller gives is seen, what the server knows cannot be overridden."""
    told: list[Any] = []
    config: Any = {
        "tags": ["t"],
        "recursion_limit": 7,
        "configurable": {"color": "red", "thread_id": "evil", "run_id": "evil"},
        "metadata": {"also": 2},
    }
    metadata = {"mine": 1, "run_id": "evil", "assistant_id": "evil", "thread_id": "evil"}
    result: Any = await client.runs.wait(
        thread, "cfgg", input={}, metadata=metadata, config=config, on_run_created=told.append
    )
    seen = result["seen"]
    configurable, shown = seen["configurable"], seen["metadata"]
    run_id = told[0]["run_id"]
    assert (configurable["color"], configurable["thread_id"], configurable["run_id"]) == (
        "red",
        thread,
        run_id,
    )
    assert (shown["mine"], shown["also"], shown["run_id"]) == (1, 2, run_id)
    assert shown["thread_id"] == thread
    assert ("t" in seen["tags"], seen["recursion_limit"]) == (True, 7)
    run: Any = await client.runs.get(thread, run_id)
    assert (run["metadata"]["mine"], run["metadata"]["also"]) == (1, 2)
    assert "evil" not in run["metadata"].values()


async def test_factories_see_the_config(client: LangGraphClient) -> None:
    """E22: graphs that are made for each run."""
    result: Any = await client.runs.wait(None, "factory", input={}, config={"configurable": {"color": "red"}})
    assert result["seen"] == "red"


async def test_request_id_and_trace_headers_reach_the_graph(client: LangGraphClient) -> None:
    """`x-request-id` and `langsmith-trace` are in `configurable`; credentials never are."""
    headers = {"x-request-id": "req-1", "langsmith-trace": "20260101T000000000000Z", "authorization": "s"}
    result: Any = await client.runs.wait(None, "cfgg", input={}, headers=headers)
    configurable = result["seen"]["configurable"]
    assert configurable["langgraph_request_id"] == "req-1"
    assert configurable["langsmith-trace"] == headers["langsmith-trace"]
    assert "authorization" not in configurable


async def test_deleted_thread_is_gone(client: LangGraphClient, thread: str) -> None:
    """Also while a run of it is under way, which is stopped."""
    run = await client.runs.create(thread, "steps", input={"secs": 30})
    await until_status(client, thread, run["run_id"], "running")
    await client.threads.delete(thread)
    with pytest.raises(NotFoundError):
        await client.threads.get(thread)
    with pytest.raises(NotFoundError):
        await client.runs.get(thread, run["run_id"])
