"""`runs.wait` and the runs it makes, through the published SDK (contract agents, section 6, A and B)."""

import json
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import NotFoundError, UnprocessableEntityError
from tests.agents.steps import until_gone, until_status, until_thread, values_of
from tests.contract.servers import Server

STEPS = "01d10e59-d4b4-51ec-8e94-9b2716b34de8"
"""The default assistant of the graph `steps`: a version-5 UUID of its name."""
NOBODY = "00000000-0000-4000-8000-000000000000"
KEYS = {
    *("run_id", "thread_id", "assistant_id", "created_at", "updated_at", "status", "metadata"),
    "multitask_strategy",
}


async def test_wait_returns_the_final_values(client: LangGraphClient, thread: str) -> None:
    """A1, A2: and leaves a run that has succeeded, with every key of the contract."""
    assert await client.runs.wait(thread, "steps", input={"n": 1}) == {
        "log": ["a", "b", "c"],
        "n": 1,
        "out": "done",
    }
    [run] = await client.runs.list(thread)
    assert set(run) >= KEYS
    assert (run["status"], run["multitask_strategy"]) == ("success", "enqueue")
    assert (run["thread_id"], run["assistant_id"]) == (thread, STEPS)
    found: Any = await client.threads.get(thread)
    assert (found["status"], found["values"]["log"], found["error"]) == ("idle", ["a", "b", "c"], None)
    assert (found["metadata"]["graph_id"], found["metadata"]["assistant_id"]) == ("steps", STEPS)


async def test_headers_name_the_run(server: Server, thread: str) -> None:
    """A3: `Location` to join it, `Content-Location` to read it."""
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
        answer = await http.post(f"/threads/{thread}/runs/wait", json={"assistant_id": "steps", "input": {}})
        place = answer.headers["content-location"]
        assert answer.status_code == 200
        assert place.startswith(f"/threads/{thread}/runs/")
        assert answer.headers["location"] == f"{place}/join"
        assert (await http.get(place)).json()["status"] == "success"


async def test_on_run_created_is_called_once(client: LangGraphClient, thread: str) -> None:
    """A4, A5: with both ids, also for a stateless run, whose thread is gone afterwards."""
    told: list[Any] = []
    await client.runs.wait(thread, "steps", input={}, on_run_created=told.append)
    result: Any = await client.runs.wait(None, "steps", input={}, on_run_created=told.append)
    assert result["log"] == ["a", "b", "c"]
    [stateful, stateless] = told
    assert stateful["thread_id"] == thread
    assert uuid.UUID(stateless["run_id"]).version == 7
    with pytest.raises(NotFoundError):
        await client.threads.get(stateless["thread_id"])
    with pytest.raises(NotFoundError):
        await client.runs.get(stateless["thread_id"], stateless["run_id"])


@pytest.mark.slow
async def test_long_run_shows_that_it_lives(server: Server, thread: str, tmp_path: Path) -> None:
    """A6: a line break every five seconds, before the JSON."""
    gate = tmp_path / "gate"
    body = {"assistant_id": "steps", "input": {"gate": str(gate)}}
    said = b""
    async with (
        httpx.AsyncClient(base_url=server.url, timeout=60) as http,
        http.stream("POST", f"/threads/{thread}/runs/wait", json=body) as answer,
    ):
        async for part in answer.aiter_bytes():
            said += part
            if said.startswith(b"\n\n"):
                gate.touch()
    assert said.startswith(b"\n\n")
    assert json.loads(said)["out"] == "done"


async def test_state_accumulates(client: LangGraphClient, thread: str) -> None:
    """A7, A8: a second run goes on from the state of the first; an assistant is named by id, too."""
    await client.runs.wait(thread, "steps", input={})
    second: Any = await client.runs.wait(thread, STEPS, input={})
    assert second["log"] == list("abcabc")


async def test_inputs(client: LangGraphClient, thread: str, server: Server) -> None:
    """A9 to A12, A14: none, an empty one, a wrong one, and one of the functional API; unknown keys."""
    pair: Any = [1, 2]
    number: Any = 21
    with pytest.raises(Exception, match="EmptyInputError"):
        await client.runs.wait(thread, "steps")
    with pytest.raises(Exception, match="InvalidUpdateError"):
        await client.runs.wait(thread, "steps", input=pair)
    empty: Any = await client.runs.wait(thread, "steps", input={})
    assert empty["log"] == ["a", "b", "c"]
    assert await client.runs.wait(None, "double", input=number) == 42  # type: ignore[comparison-overlap]
    body = {"assistant_id": "steps", "input": {}, "unknown": [1]}
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
        assert (await http.post("/runs/wait", json=body)).json()["out"] == "done"


async def test_result_is_of_the_output_schema(client: LangGraphClient, thread: str) -> None:
    """A13: the thread has all values, the result those of the graph's output."""
    given: Any = {"log": ["in"]}
    assert await client.runs.wait(thread, "outg", input=given) == {"out": "done"}
    assert await values_of(client, thread) == {"log": ["in", "a"], "out": "done"}


async def test_stateless_result_survives_its_run(client: LangGraphClient) -> None:
    """A16: joined after the end, when run and thread are gone."""
    told: list[Any] = []
    result = await client.runs.wait(None, "steps", input={"n": 5}, on_run_created=told.append)
    assert await client.runs.join(told[0]["thread_id"], told[0]["run_id"]) == result


async def test_list_of_runs(client: LangGraphClient, thread: str) -> None:
    """A18, A19: the newest first, a page of it, chosen keys, one status."""
    for _ in range(3):
        await client.runs.wait(thread, "steps", input={})
    await client.runs.wait(thread, "steps", input={"fail": True}, raise_error=False)
    listed = await client.runs.list(thread)
    assert [run["created_at"] for run in listed] == sorted(
        (run["created_at"] for run in listed), reverse=True
    )
    assert [run["status"] for run in listed] == ["error", "success", "success", "success"]
    page: Any = await client.runs.list(thread, limit=2, offset=1, select=["run_id", "status"])
    assert page == [{"run_id": run["run_id"], "status": "success"} for run in listed[1:3]]
    assert len(await client.runs.list(thread, status="success")) == 3
    with pytest.raises(UnprocessableEntityError):
        await client.runs.list(thread, select=["nothing"])  # type: ignore[list-item]
    with pytest.raises(NotFoundError):
        await client.runs.list(NOBODY)


async def test_get_of_what_is_not_there(client: LangGraphClient, thread: str) -> None:
    """A20: 404 for an unknown run or thread, 422 for what is no UUID."""
    run = await client.runs.create(thread, "steps", input={})
    for thread_id, run_id in ((thread, NOBODY), (NOBODY, run["run_id"])):
        with pytest.raises(NotFoundError):
            await client.runs.get(thread_id, run_id)
    with pytest.raises(UnprocessableEntityError):
        await client.runs.get(thread, "run")
    await client.runs.join(thread, run["run_id"])


async def test_deleted_run_takes_its_checkpoints_along(client: LangGraphClient, thread: str) -> None:
    """R14, D25: a run that runs is stopped, and its thread is free again."""
    await client.runs.wait(thread, "steps", input={})
    run = await client.runs.create(thread, "steps", input={"secs": 30})
    await until_status(client, thread, run["run_id"], "running")
    await client.runs.delete(thread, run["run_id"])
    await until_gone(client, thread, run["run_id"])
    found = await until_thread(client, thread, "idle")
    assert found["values"]["log"] == ["a", "b", "c"]
    with pytest.raises(NotFoundError):
        await client.runs.delete(thread, run["run_id"])


# -- B: errors -----------------------------------------------------------------------------------------


async def test_error_of_a_node(client: LangGraphClient, thread: str) -> None:
    """B1 to B5: told in the result, kept in run, thread and state; what was done stays to go on from."""
    with pytest.raises(Exception, match=r"^ValueError: boom$"):
        await client.runs.wait(thread, "steps", input={"fail": True})
    again = await client.threads.create()
    result = await client.runs.wait(again["thread_id"], "steps", input={"fail": True}, raise_error=False)
    assert result == {"__error__": {"error": "ValueError", "message": "boom"}}
    [run] = await client.runs.list(thread)
    found: Any = await client.threads.get(thread)
    state: Any = await client.threads.get_state(thread)
    assert (run["status"], found["status"], found["values"]["log"]) == ("error", "error", ["a"])
    assert found["error"] == {"error": "ValueError", "message": "boom"}
    assert (list(state["next"]), "boom" in state["tasks"][0]["error"]) == (["b"], True)
    assert "boom" in str(await client.runs.wait(thread, "steps", raise_error=False))
    await client.threads.update_state(thread, {"fail": False}, as_node="a")
    result = await client.runs.wait(thread, "steps")
    assert isinstance(result, dict)
    assert result["log"] == ["a", "b", "c"]
    found = await client.threads.get(thread)
    assert (found["status"], found["error"]) == ("idle", None)


async def test_foreign_exceptions_are_masked(client: LangGraphClient) -> None:
    """B6 to B8: their class is told, their text is not; graph errors and Python's own are told whole."""

    async def error_of(graph: str, fail: str, **options: Any) -> Any:
        result: Any = await client.runs.wait(None, graph, input={"fail": fail}, raise_error=False, **options)
        return result["__error__"]

    for fail, name in (("masked", "PicklingError"), ("refusal", "Refusal")):
        masked = await error_of("steps", fail)
        assert (masked["error"], "secret" in masked["message"]) == (name, False)
    assert await error_of("steps", "timeout") == {"error": "TimeoutError", "message": "too slow"}
    looped = await error_of("loop", "", config={"recursion_limit": 5})
    assert looped["error"] == "GraphRecursionError"


async def test_timeout_of_a_node_is_an_error(client: LangGraphClient, thread: str) -> None:
    """B8: only the server's own limit makes a run `timeout`."""
    await client.runs.wait(thread, "steps", input={"fail": "timeout"}, raise_error=False)
    assert [run["status"] for run in await client.runs.list(thread)] == ["error"]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"assistant_id": NOBODY}, 404),
        ({"assistant_id": "nothing"}, 422),
        ({"assistant_id": None}, 422),
        ({"config": {"configurable": {"a": 1}}, "context": {"b": 1}}, 400),
        ({"multitask_strategy": "x"}, 422),
        ({"durability": "x"}, 422),
        ({"webhook": "http://169.254.169.254/"}, 422),
        ({"webhook": "relative"}, 422),
        ({"after_seconds": 1e12}, 422),
        ({"checkpoint_id": NOBODY}, 404),
    ],
)
async def test_refused_requests(server: Server, thread: str, change: dict[str, Any], status: int) -> None:
    """B12, B14, B15, E15, F9: by status, with a sentence; nothing is created."""
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
        body = {"assistant_id": "steps", "input": {}, **change}
        answer = await http.post(f"/threads/{thread}/runs/wait", json=body)
        assert (answer.status_code, isinstance(answer.json()["detail"], str)) == (status, True), answer.text
        assert (await http.get(f"/threads/{thread}/runs")).json() == []


async def test_unknown_thread(client: LangGraphClient) -> None:
    """B11: `wait` raises httpx's error with the answer as a note, `create` and `stream` the SDK's own."""
    with pytest.raises(httpx.HTTPStatusError) as caught:
        await client.runs.wait(NOBODY, "steps", input={})
    assert caught.value.response.status_code == 404
    assert "detail" in caught.value.__notes__[0]
    with pytest.raises(NotFoundError):
        await client.runs.create(NOBODY, "steps", input={})
    with pytest.raises(NotFoundError):
        _ = [part async for part in client.runs.stream(NOBODY, "steps", input={})]


async def test_values_that_cannot_be_told(client: LangGraphClient, thread: str) -> None:
    """B16 to B18: a context that is not the graph's, a state that no checkpoint holds, a number that no JSON
    library reads."""
    result: Any = await client.runs.wait(None, "ctxg", input={}, context={"temp": "hot"}, raise_error=False)
    assert result["__error__"]["error"] == "ValidationError"
    result = await client.runs.wait(thread, "odd", input={"kind": "closed"}, raise_error=False)
    assert "__error__" in result
    result = await client.runs.wait(None, "odd", input={"kind": "closed"})
    assert result["value"] is None
    result = await client.runs.wait(None, "odd", input={"kind": "huge"}, raise_error=False)
    assert result["__error__"]["error"] == "TypeError"
