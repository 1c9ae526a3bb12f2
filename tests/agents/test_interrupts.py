"""Runs that pause: interrupts, breakpoints, and the commands that go on (contract agents, section 6, C)."""

from typing import Any

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient
from tests.agents.steps import values_of
from tests.contract.servers import Server


async def paused(client: LangGraphClient, thread: str, graph: str = "intr") -> Any:
    """A thread whose run has asked something; what `wait` returned."""
    return await client.runs.wait(thread, graph, input={"n": 1})


async def test_interrupt_is_returned_and_resumed(client: LangGraphClient, thread: str) -> None:
    """C1, C2: the run has succeeded, the thread is interrupted and knows what was asked."""
    result = await paused(client, thread)
    [asked] = result.pop("__interrupt__")
    assert result == {"log": ["pre"], "n": 1}
    assert asked["value"] == {"q": "who?"}
    [run] = await client.runs.list(thread)
    found = await client.threads.get(thread)
    assert (run["status"], found["status"]) == ("success", "interrupted")
    [[kept]] = found["interrupts"].values()
    assert (kept["id"], kept["value"]) == (asked["id"], asked["value"])
    result = await client.runs.wait(thread, "intr", command={"resume": "bob"})
    assert result == {"log": ["pre", "post"], "n": 1, "ans": "bob"}
    found = await client.threads.get(thread)
    assert (found["status"], found["interrupts"]) == ("idle", {})


@pytest.mark.parametrize("answer", [False, 0, "", [], ["x"], {"any": {"thing": 1}}])
async def test_any_answer_is_delivered(client: LangGraphClient, thread: str, answer: Any) -> None:
    """C3: falsy ones, too."""
    await paused(client, thread)
    result: Any = await client.runs.wait(thread, "intr", command={"resume": answer})
    assert result["ans"] == answer


async def test_no_answer_asks_again(client: LangGraphClient, thread: str) -> None:
    """C4, C5, C23: null and no command are the same question again; a later join has the question alone."""
    first = await paused(client, thread)
    told: list[Any] = []
    for command in (None, {"resume": None}):
        again: Any = await client.runs.wait(
            thread,
            "intr",
            command=command,  # type: ignore[arg-type]
            on_run_created=told.append,
        )
        assert again["__interrupt__"][0]["id"] == first["__interrupt__"][0]["id"]
    joined = await client.runs.join(thread, told[-1]["run_id"])
    assert list(joined) == ["__interrupt__"]
    assert joined["__interrupt__"][0]["value"] == {"q": "who?"}


async def test_answer_to_nothing(client: LangGraphClient, thread: str) -> None:
    """C6: changes nothing."""
    values = await client.runs.wait(thread, "steps", input={"n": 1})
    assert await client.runs.wait(thread, "steps", command={"resume": 1}) == values


async def test_two_questions_at_once(client: LangGraphClient, thread: str) -> None:
    """C7 to C9, C11: without values, answered one by one by id; unknown ids are ignored."""
    both = await paused(client, thread, "intr2")
    assert list(both) == ["__interrupt__"]
    ids = {asked["value"]: asked["id"] for asked in both["__interrupt__"]}
    assert set(ids) == {"q1", "q2"}
    unknown: Any = await client.runs.wait(thread, "intr2", command={"resume": {"f" * 32: 1}})
    assert len(unknown["__interrupt__"]) == 2
    one: Any = await client.runs.wait(thread, "intr2", command={"resume": {ids["q1"]: "A1"}})
    assert [asked["value"] for asked in one["__interrupt__"]] == ["q2"]
    done: Any = await client.runs.wait(thread, "intr2", command={"resume": {ids["q2"]: "A2"}})
    assert (done["one"], done["two"]) == ("A1", "A2")


async def test_one_answer_to_two_questions(client: LangGraphClient, thread: str) -> None:
    """C10: nobody knows which is meant; both stay."""
    await paused(client, thread, "intr2")
    with pytest.raises(Exception, match="RuntimeError"):
        await client.runs.wait(thread, "intr2", command={"resume": "x"})
    assert (await client.threads.get(thread))["status"] == "error"
    state = await client.threads.get_state(thread)
    assert len(state["interrupts"]) == 2


async def test_strict_answers_must_be_known(client: LangGraphClient, thread: str) -> None:
    """C12: `strict_resume` fails the run, and the thread is as it was."""
    before = await paused(client, thread, "intr2")
    with pytest.raises(Exception, match="UnknownInterruptError"):
        await client.runs.wait(thread, "intr2", command={"resume": {"f" * 32: 1}}, strict_resume=True)
    assert (await client.runs.list(thread))[0]["status"] == "error"
    state: Any = await client.threads.get_state(thread)
    assert {asked["id"] for asked in state["interrupts"]} == {
        asked["id"] for asked in before["__interrupt__"]
    }


async def test_commands_update_and_go_elsewhere(client: LangGraphClient, thread: str) -> None:
    """C13, C21, C22: resume with an update, goto on a finished thread, goto to nowhere."""
    await paused(client, thread)
    result: Any = await client.runs.wait(
        thread, "intr", command={"resume": "bob", "update": {"note": "seen"}}
    )
    assert (result["ans"], result["note"]) == ("bob", "seen")
    other = (await client.threads.create())["thread_id"]
    await client.runs.wait(other, "steps", input={})
    result = await client.runs.wait(other, "steps", command={"goto": "c"})
    assert result["log"] == list("abcc")
    result = await client.runs.wait(other, "steps", command={"goto": "nowhere"})
    assert result["log"] == list("abcc")


async def test_new_input_abandons_the_question(client: LangGraphClient, thread: str) -> None:
    """C14, C15: it starts over, and a paused thread is no thread in flight."""
    first = await paused(client, thread)
    again: Any = await client.runs.wait(thread, "intr", input={"n": 2}, multitask_strategy="reject")
    assert (again["log"], again["n"]) == (["pre", "pre"], 2)
    assert again["__interrupt__"][0]["id"] != first["__interrupt__"][0]["id"]


async def test_breakpoints(client: LangGraphClient, thread: str) -> None:
    """C16, C17: plain values without a mark; the thread alone tells that there is more to do."""
    stopped: Any = await client.runs.wait(thread, "steps", input={}, interrupt_before=["b"])
    assert stopped == {"log": ["a"]}
    assert (await client.threads.get(thread))["status"] == "interrupted"
    assert (await client.runs.list(thread))[0]["status"] == "success"
    rest: Any = await client.runs.wait(thread, "steps")
    assert rest["log"] == ["a", "b", "c"]
    assert await client.runs.wait(None, "steps", input={}, interrupt_after="*") == {"log": ["a"]}


async def test_stateless_question(client: LangGraphClient, server: Server) -> None:
    """C18 to C20: it is returned, and can only be answered when the thread was kept."""
    told: list[Any] = []
    result: Any = await client.runs.wait(None, "intr", input={}, on_run_created=told.append)
    assert result["__interrupt__"][0]["value"] == {"q": "who?"}
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
        assert (await http.get(f"/threads/{told[0]['thread_id']}")).status_code == 404
        resuming = {"assistant_id": "intr", "command": {"resume": 1}}
        assert (await http.post("/runs/wait", json=resuming)).status_code == 400
    await client.runs.wait(None, "intr", input={}, on_completion="keep", on_run_created=told.append)
    result = await client.runs.wait(told[1]["thread_id"], "intr", command={"resume": "bob"})
    assert result["ans"] == "bob"


async def test_text_that_looks_like_a_question_is_none(client: LangGraphClient, thread: str) -> None:
    """C24: values that hold `__interrupt__` as a text are values."""
    result: Any = await client.runs.wait(thread, "odd", input={"kind": "text"})
    assert result["value"] == "__interrupt__"
    assert "__interrupt__" not in result
    assert (await values_of(client, thread))["value"] == "__interrupt__"
