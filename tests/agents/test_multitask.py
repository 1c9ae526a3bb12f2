"""Several runs of a thread, and cancelling (contract agents, section 6, D)."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import ConflictError, NotFoundError, UnprocessableEntityError
from tests.agents.steps import (
    log_of,
    until,
    until_gone,
    until_marks,
    until_next,
    until_status,
    until_thread,
    values_of,
)

LONG: Any = {"secs": 30}
"""The input of a run that is cancelled before it ends."""
SLOW_B: Any = {**LONG, "slow": "b"}


async def run_at_b(client: LangGraphClient, thread: str, stays: Any = LONG) -> str:
    """A run that has completed `a` and stays at `b`."""
    run = await client.runs.create(thread, "steps", input={**stays, "slow": "b"})
    await until_next(client, thread, "b")
    return run["run_id"]


async def checkpoints(client: LangGraphClient, thread: str) -> list[tuple[str, int]]:
    """Source and step of every checkpoint, the oldest first."""
    states = await client.threads.get_history(thread, limit=100)
    made: list[Any] = [state["metadata"] for state in states]
    return [(each["source"], each["step"]) for each in reversed(made)]


async def test_reject(client: LangGraphClient, thread: str) -> None:
    """D1, D2: while a run is in flight, also one that is not due yet, another one is refused."""
    run = await client.runs.create(thread, "steps", input=LONG)
    with pytest.raises(ConflictError):
        await client.runs.create(thread, "steps", input={}, multitask_strategy="reject")
    with pytest.raises(httpx.HTTPStatusError) as caught:
        await client.runs.wait(thread, "steps", input={}, multitask_strategy="reject")
    assert caught.value.response.status_code == 409
    with pytest.raises(ConflictError):
        _ = [part async for part in client.runs.stream(thread, "steps", multitask_strategy="reject")]
    await client.runs.cancel(thread, run["run_id"], wait=True)
    await client.runs.create(thread, "steps", input={}, after_seconds=3600)
    with pytest.raises(ConflictError):
        await client.runs.create(thread, "steps", input={}, multitask_strategy="reject")


async def test_one_of_five_is_not_rejected(client: LangGraphClient, thread: str) -> None:
    """D3: at the same instant."""
    made = await asyncio.gather(
        *(client.runs.create(thread, "steps", input=LONG, multitask_strategy="reject") for _ in range(5)),
        return_exceptions=True,
    )
    assert sorted(type(each).__name__ for each in made) == ["ConflictError"] * 4 + ["dict"]
    [run] = await client.runs.list(thread)
    await client.runs.cancel(thread, run["run_id"])


async def test_enqueue(client: LangGraphClient, thread: str, tmp_path: Path) -> None:
    """D4: in the order of their creation, each on the state of the one before."""
    gate = tmp_path / "gate"
    first = await client.runs.create(thread, "steps", input={"gate": str(gate), "n": 1})
    second = await client.runs.create(thread, "steps", input={"n": 2})
    assert (await client.runs.get(thread, second["run_id"]))["status"] == "pending"
    gate.touch()
    third: Any = await client.runs.wait(thread, "steps", input={"n": 3})
    assert (third["log"], third["n"]) == (list("abcabcabc"), 3)
    for run in (first, second):
        assert (await client.runs.get(thread, run["run_id"]))["status"] == "success"


async def test_interrupt(client: LangGraphClient, thread: str) -> None:
    """D5, D6: what the earlier run had completed stays, its waiter gets it, and the new run is on top."""
    told: list[Any] = []
    earlier = asyncio.create_task(client.runs.wait(thread, "steps", input=SLOW_B, on_run_created=told.append))
    await until_next(client, thread, "b")
    result: Any = await client.runs.wait(thread, "steps", input={"secs": 0}, multitask_strategy="interrupt")
    assert result["log"] == list("aabc")
    waited: Any = await earlier
    assert waited["log"] == ["a"]
    assert (await client.runs.get(thread, told[0]["run_id"]))["status"] == "interrupted"
    assert await checkpoints(client, thread) == [
        ("input", -1), *(("loop", step) for step in (0, 1)),
        ("input", 2), *(("loop", step) for step in (3, 4, 5, 6)),
    ]  # fmt: skip


async def test_interrupt_of_pending_runs(client: LangGraphClient, thread: str) -> None:
    """D7: those never run."""
    running = await run_at_b(client, thread)
    pending = [await client.runs.create(thread, "steps", input={"n": n}) for n in (1, 2)]
    result: Any = await client.runs.wait(thread, "steps", input={"secs": 0}, multitask_strategy="interrupt")
    assert (result["log"], "n" in result) == (list("aabc"), False)
    for run_id in (running, *(run["run_id"] for run in pending)):
        assert (await client.runs.get(thread, run_id))["status"] == "interrupted"


async def test_rollback(client: LangGraphClient, thread: str) -> None:
    """D8 to D10: earlier runs that are in flight have never been; what was before them is still there."""
    await client.runs.wait(thread, "steps", input={"n": 1})
    running = await run_at_b(client, thread)
    pending = await client.runs.create(thread, "steps", input={"n": 2})
    result: Any = await client.runs.wait(thread, "steps", input={"secs": 0}, multitask_strategy="rollback")
    assert (result["log"], result["n"]) == (list("abcabc"), 1)
    for run_id in (running, pending["run_id"]):
        with pytest.raises(NotFoundError):
            await client.runs.get(thread, run_id)
    assert len(await client.threads.get_history(thread, limit=100)) == 10
    assert (await client.threads.get(thread))["status"] == "idle"


@pytest.mark.parametrize(("rest", "begun"), [({}, 1), ({"input": {}}, 2)])
async def test_finished_siblings(
    client: LangGraphClient, thread: str, tmp_path: Path, rest: Any, begun: int
) -> None:
    """D11, D12: what a step had finished is kept for going on, and dropped for new input."""
    marks, gate = tmp_path / "marks", tmp_path / "gate"
    run = await client.runs.create(thread, "par", input={"gate": str(gate), "marks": str(marks)})

    async def is_fast_done() -> bool:
        state: Any = await client.threads.get_state(thread)
        return any(task["name"] == "fast" and task["result"] for task in state["tasks"])

    await until(is_fast_done, "fast is done")
    await client.runs.cancel(thread, run["run_id"], wait=True)
    gate.touch()
    result: Any = await client.runs.wait(thread, "par", **rest)
    assert sorted(result["log"]) == ["fast", "join", "slow"]
    assert marks.read_text().split().count("fast") == begun


async def test_cancel_of_a_running_run(client: LangGraphClient, thread: str, tmp_path: Path) -> None:
    """D13, D18, D19: it and its thread are interrupted, once and for all, and the thread goes on at b."""
    gate = tmp_path / "gate"
    run = await run_at_b(client, thread, {"gate": str(gate)})
    await client.runs.cancel(thread, run)
    await until_status(client, thread, run, "interrupted")
    found: Any = await until_thread(client, thread, "interrupted")
    assert found["error"]["error"] == "UserInterrupt"
    assert found["values"]["log"] == ["a"]
    for run_id in (run, "00000000-0000-4000-8000-000000000000"):
        with pytest.raises(NotFoundError):
            await client.runs.cancel(thread, run_id)
    gate.touch()
    result: Any = await client.runs.wait(thread, "steps")
    assert result["log"] == ["a", "b", "c"]


async def test_cancel_that_waits(client: LangGraphClient, thread: str) -> None:
    """D14, D15, D9: `{}` once it has stopped; rolled back, thread and state are those of before."""
    await client.runs.wait(thread, "steps", input={})
    run = await run_at_b(client, thread)
    cancel: Any = client.runs.cancel  # Its type says that nothing is returned.
    assert await cancel(thread, run, wait=True, action="rollback") == {}
    with pytest.raises(NotFoundError):
        await client.runs.get(thread, run)
    found: Any = await client.threads.get(thread)
    assert (found["status"], found["values"]["log"]) == ("idle", ["a", "b", "c"])
    assert len(await client.threads.get_history(thread, limit=100)) == 5
    run = await run_at_b(client, thread)
    assert await cancel(thread, run, wait=True) == {}
    assert (await client.runs.get(thread, run))["status"] == "interrupted"


@pytest.mark.parametrize("action", ["interrupt", "rollback"])
async def test_cancel_of_a_pending_run(client: LangGraphClient, thread: str, action: Any) -> None:
    """D16, D17, D22: it never runs, its waiter is told what the thread holds, and the thread is idle.

    Of a run that has never been, nothing is told.
    """
    await client.runs.wait(thread, "steps", input={})
    told: list[Any] = []
    waiting = asyncio.create_task(
        client.runs.wait(thread, "steps", input={}, after_seconds=3600, on_run_created=told.append)
    )

    async def is_created() -> bool:
        return bool(told)

    await until(is_created, "the run is created")
    await client.runs.cancel(thread, told[0]["run_id"], action=action)
    waited: Any = await waiting
    if action == "rollback":
        assert waited == {}
        await until_gone(client, thread, told[0]["run_id"])
    else:
        assert waited["log"] == ["a", "b", "c"]
        await until_status(client, thread, told[0]["run_id"], "interrupted")
    assert (await client.threads.get(thread))["status"] == "idle"
    assert await log_of(client, thread) == "abc"


async def test_cancel_many(client: LangGraphClient, thread: str) -> None:
    """D20: by ids; none in flight is 404, both or neither way 422."""
    made = [await client.runs.create(thread, "steps", input=LONG) for _ in range(2)]
    ids = [run["run_id"] for run in made]
    await client.runs.cancel_many(thread_id=thread, run_ids=ids)
    for run_id in ids:
        await until_status(client, thread, run_id, "interrupted")
    with pytest.raises(NotFoundError):
        await client.runs.cancel_many(thread_id=thread, run_ids=ids)
    with pytest.raises(UnprocessableEntityError):
        await client.runs.cancel_many()
    with pytest.raises(UnprocessableEntityError):
        await client.runs.cancel_many(thread_id=thread, run_ids=ids, status="all")


async def test_cancel_of_a_synchronous_node(client: LangGraphClient, thread: str, tmp_path: Path) -> None:
    """D21: answered before the node ends; the node's code runs on, and what it returns is dropped."""
    marks, gate = tmp_path / "marks", tmp_path / "gate"
    run = await client.runs.create(thread, "sblock", input={"gate": str(gate), "marks": str(marks)})
    await until_marks(marks, "a")
    await client.runs.cancel(thread, run["run_id"], wait=True)
    assert marks.read_text() == "a"
    gate.touch()
    await until_marks(marks, "aA")
    assert not (await values_of(client, thread) or {}).get("log")


async def test_join_of_an_older_run(client: LangGraphClient, thread: str) -> None:
    """D23: it answers with what the thread holds now."""
    first = await client.runs.create(thread, "steps", input={"n": 1})
    await client.runs.wait(thread, "steps", input={"n": 2})
    joined: Any = await client.runs.join(thread, first["run_id"])
    assert (joined["log"], joined["n"]) == (list("abcabc"), 2)


async def test_two_graphs_of_a_thread(client: LangGraphClient, thread: str) -> None:
    """D24: the thread names the latest."""
    for graph in ("steps", "outg"):
        await client.runs.wait(thread, graph, input={"log": []})
        found: Any = await client.threads.get(thread)
        assert found["metadata"]["graph_id"] == graph
