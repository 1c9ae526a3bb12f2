"""One attempt of a run: what it says, how it ends, and what it leaves behind."""

import asyncio
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.agents.steps import until_marks

from runstore.agents.attempts import Ended, Outcome, Stop
from runstore.agents.execute import Execution
from runstore.agents.json_values import from_json

from .conftest import Bench


async def stopped(execution: Execution, marks: Path, letters: str, why: Stop) -> Ended | None:
    """Stops an execution once the nodes of `letters` have begun."""
    running = asyncio.create_task(execution.run())
    await until_marks(marks, letters)
    execution.stop(why, "because")
    return await running


def values(ended: Ended | None) -> Any:
    """What the thread holds."""
    assert ended is not None
    assert ended.snapshot is not None
    return from_json(ended.snapshot.values or b"null")


async def test_success(bench: Bench) -> None:
    """The last values are the result and what the thread holds; each step is said."""
    ended = await bench.run("steps", input={"n": 1})
    assert ended.outcome is Outcome.SUCCESS
    assert from_json(ended.result) == {"log": ["a", "b", "c"], "n": 1, "out": "done"}
    assert values(ended) == from_json(ended.result)
    assert ended.snapshot is not None
    assert not ended.snapshot.has_next
    said = [(event.mode, len(from_json(event.data)["log"])) for event in bench.said]
    assert said == [("values", 0), ("values", 1), ("values", 2), ("values", 3)]


async def test_state_accumulates_on_a_thread(bench: Bench) -> None:
    """A second run goes on from the first one's state."""
    await bench.run("steps", input={"n": 1})
    assert (await bench.result("steps", input={"n": 2}))["log"] == ["a", "b", "c"] * 2


@pytest.mark.parametrize(
    ("fail", "error", "message"),
    [
        (True, "ValueError", "boom"),
        ("timeout", "TimeoutError", "too slow"),
        ("masked", "PicklingError", "An internal error occurred"),
        ("refusal", "Refusal", "An internal error occurred"),
    ],
)
async def test_graph_raises(bench: Bench, fail: bool | str, error: str, message: str) -> None:
    """Class always, text only of classes that speak to users; completed steps stay."""
    ended = await bench.run("steps", input={"fail": fail})
    assert ended.outcome is Outcome.ERROR
    assert from_json(ended.result) == {"__error__": {"error": error, "message": message}}
    assert values(ended)["log"] == ["a"]
    assert ended.snapshot is not None
    assert ended.snapshot.has_next


async def test_failed_step_is_tried_again_without_input(bench: Bench, tmp_path: Path) -> None:
    """A run without input continues at the step that failed."""
    marks = tmp_path / "marks"
    failed = await bench.run("steps", input={"fail": True, "marks": str(marks)})
    assert failed.outcome is Outcome.ERROR
    assert (await bench.run("steps", input=None)).outcome is Outcome.ERROR
    assert marks.read_text() == "abb"


@pytest.mark.parametrize(
    ("graph_input", "error"), [(None, "EmptyInputError"), ([1, 2], "InvalidUpdateError")]
)
async def test_input_that_no_graph_takes(bench: Bench, graph_input: Any, error: str) -> None:
    """Nothing to do, and nothing that can be done."""
    assert (await bench.result("steps", input=graph_input))["__error__"]["error"] == error


async def test_recursion_limit(bench: Bench) -> None:
    """A graph without end is ended."""
    result = await bench.result("loop", input={}, config={"recursion_limit": 5})
    assert result["__error__"]["error"] == "GraphRecursionError"


async def test_one_interrupt(bench: Bench) -> None:
    """Values and the interrupt together; resumed with any value but null."""
    ended = await bench.run("intr", input={"n": 1})
    result = from_json(ended.result)
    [interrupt] = result.pop("__interrupt__")
    assert result == {"log": ["pre"], "n": 1}
    assert (interrupt["value"], interrupt["response_schema"]) == ({"q": "who?"}, None)
    assert ended.outcome is Outcome.SUCCESS
    assert ended.snapshot is not None
    assert ended.snapshot.has_next
    [[waiting]] = from_json(ended.snapshot.interrupts).values()
    assert waiting == {"id": interrupt["id"], "value": {"q": "who?"}}
    again = await bench.result("intr", input=None)
    assert again["__interrupt__"][0]["id"] == interrupt["id"]


@pytest.mark.parametrize("answer", ["bob", False, 0, "", [1], {"a": 1}])
async def test_resume(bench: Bench, answer: Any) -> None:
    """What interrupt() returns is what was sent."""
    await bench.run("intr", input={"n": 1})
    ended = await bench.run("intr", command={"resume": answer})
    assert from_json(ended.result) == {"log": ["pre", "post"], "n": 1, "ans": answer}
    assert ended.snapshot is not None
    assert not ended.snapshot.has_next


async def test_resume_null_is_no_command(bench: Bench) -> None:
    """The paused node runs again, and asks the same."""
    await bench.run("intr", input={"n": 1})
    assert "__interrupt__" in await bench.result("intr", command={"resume": None})


async def test_resume_with_update(bench: Bench) -> None:
    """Both are applied."""
    await bench.run("intr", input={"n": 1})
    result = await bench.result("intr", command={"resume": "x", "update": {"note": "y"}})
    assert (result["ans"], result["note"]) == ("x", "y")


async def test_resume_with_nothing_pending(bench: Bench) -> None:
    """Nothing happens."""
    await bench.run("steps", input={"n": 1})
    assert (await bench.result("steps", command={"resume": 1}))["log"] == ["a", "b", "c"]


async def test_two_interrupts(bench: Bench) -> None:
    """Without values; then answered one by one, by their ids."""
    result = await bench.result("intr2", input={"n": 1})
    assert list(result) == ["__interrupt__"]
    first, second = result["__interrupt__"]
    assert {first["value"], second["value"]} == {"q1", "q2"}
    remaining = await bench.result("intr2", command={"resume": {first["id"]: "A1"}})
    assert [entry["id"] for entry in remaining["__interrupt__"]] == [second["id"]]
    result = await bench.result("intr2", command={"resume": {second["id"]: "A2"}})
    assert {result["one"], result["two"]} == {"A1", "A2"}


async def test_plain_resume_of_two_interrupts(bench: Bench) -> None:
    """Nobody knows which one is meant."""
    await bench.run("intr2", input={"n": 1})
    ended = await bench.run("intr2", command={"resume": "x"})
    assert from_json(ended.result)["__error__"]["error"] == "RuntimeError"
    assert ended.snapshot is not None
    assert len(from_json(ended.snapshot.interrupts)) == 2


async def test_strict_resume(bench: Bench) -> None:
    """An interrupt that nobody asked about fails the run; else it is ignored."""
    await bench.run("intr", input={"n": 1})
    unknown = {"0" * 32: "x"}
    assert "__interrupt__" in await bench.result("intr", command={"resume": unknown})
    result = await bench.result("intr", command={"resume": unknown}, strict_resume=True)
    assert result["__error__"]["error"] == "UnknownInterruptError"


async def test_breakpoints(bench: Bench) -> None:
    """No marker in the values; nodes remain; a run without input goes on."""
    ended = await bench.run("steps", input={"n": 1}, interrupt_before=["b"])
    assert from_json(ended.result) == {"log": ["a"], "n": 1}
    assert ended.snapshot is not None
    assert ended.snapshot.has_next
    assert (await bench.result("steps", input=None))["log"] == ["a", "b", "c"]
    assert (await bench.result("steps", input={"n": 1}, interrupt_after="*"))["log"] == ["a", "b", "c", "a"]


async def test_goto(bench: Bench) -> None:
    """Runs the node, on what the thread holds; an unknown one is nothing."""
    await bench.run("steps", input={"n": 1})
    assert (await bench.result("steps", command={"goto": "c"}))["log"] == ["a", "b", "c", "c"]
    assert (await bench.result("steps", command={"goto": "nowhere"}))["log"] == ["a", "b", "c", "c"]


async def test_stateless(bench: Bench) -> None:
    """No checkpoints, and interrupts are told all the same."""
    ended = await bench.run("intr", input={"n": 1}, stateless=True)
    assert "__interrupt__" in from_json(ended.result)
    assert ended.snapshot is None
    assert await bench.checkpoint_count() == 0


async def test_output_schema(bench: Bench) -> None:
    """The result is what the graph shows, the thread holds all."""
    ended = await bench.run("outg", input={"log": ["x"]})
    assert from_json(ended.result) == {"out": "done"}
    assert values(ended) == {"log": ["x", "a"], "out": "done"}


async def test_functional_graph(bench: Bench) -> None:
    """A result need not be an object."""
    assert await bench.result("double", input=21) == 42


async def test_values_that_are_no_json(bench: Bench) -> None:
    """Rendered as the contract says; what a state calls __interrupt__ is none."""
    rendered = (await bench.result("odd", input={"kind": "rich"}, stateless=True))["value"]
    assert rendered == {
        "time": "2026-01-02T03:04:05.000006+00:00",
        "date": "2026-01-02",
        "duration": 90.5,
        "uuid": "00000000-0000-0000-0000-000000000001",
        "path": "/tmp/x",
        "set": [1],
        "tuple": [1, 2],
        "bytes": "aGk=",
        "enum": "red",
        "point": {"x": 1, "y": 2},
        "pair": {"left": 1, "right": 2},
        "decimal": 1.5,
        "nan": None,
        "nul": "a\ufffdb",
        "__interrupt__": "only text",
    }


async def test_value_beyond_64_bits(bench: Bench) -> None:
    """JSON cannot hold it for every client."""
    assert (await bench.result("odd", input={"kind": "huge"}))["__error__"]["error"] == "TypeError"


async def test_value_that_no_checkpoint_holds(bench: Bench) -> None:
    """Fails a run on a thread; a stateless one shows null."""
    assert (await bench.run("odd", input={"kind": "closed"})).outcome is Outcome.ERROR
    assert (await bench.result("odd", input={"kind": "closed"}, stateless=True))["value"] is None


async def test_context(bench: Bench) -> None:
    """Defaults, what the run gives, and nothing that the schema does not know; wrong types fail the run."""
    assert (await bench.result("ctxg", input={}))["seen"] == {"model": "m0", "temp": 0.5}
    result = await bench.result("ctxg", input={}, context={"model": "M", "zork": 1})
    assert (result["seen"], result["greeting"]) == ({"model": "M", "temp": 0.5}, "hello")
    result = await bench.result("ctxg", input={}, context={"temp": "warm"})
    assert result["__error__"]["error"] == "ValidationError"


async def test_config_as_nodes_see_it(bench: Bench) -> None:
    """Identity cannot be forged, nor can langgraph's own keys be set."""
    config = {
        "configurable": {"thread_id": "evil", "color": "red", "__pregel_send": 1},
        "tags": ["t"],
        "recursion_limit": 7,
        "metadata": {"mine": 1, "run_id": "evil"},
    }
    execution = bench.execution("cfgg", input={}, config=config)
    ended = await execution.run()
    assert ended is not None
    seen = from_json(ended.result)["seen"]
    assert seen["configurable"]["thread_id"] == bench.thread_id
    assert seen["configurable"]["color"] == "red"
    assert seen["configurable"]["graph_id"] == "cfgg"
    assert seen["configurable"]["run_id"] == seen["metadata"]["run_id"] != "evil"
    assert (seen["metadata"]["mine"], seen["metadata"]["of"], seen["metadata"]["run_attempt"]) == (
        1,
        "the run",
        1,
    )
    assert seen["recursion_limit"] == 7
    assert "t" in seen["tags"]


async def test_factories(bench: Bench) -> None:
    """A factory sees the run's config, or its runtime."""
    result = await bench.result("factory", input={}, config={"configurable": {"color": "red"}})
    assert result["seen"] == "red"
    result = await bench.result("runtime", input={}, context={"a": 1})
    assert result["seen"] == {"access": "threads.create_run", "context": {"a": 1}}


async def test_factory_that_ends_the_process(bench: Bench) -> None:
    """Ends its run, even when the graph has ended already."""
    ended = await bench.run("leaves", input={})
    assert (ended.outcome, ended.failure and ended.failure.error) == (Outcome.ERROR, "SystemExit")


@pytest.mark.parametrize(("durability", "count"), [("sync", 5), ("async", 5), ("exit", 1)])
async def test_durability(bench: Bench, durability: str, count: int) -> None:
    """A checkpoint for each step, or one in the end."""
    await bench.run("steps", input={"n": 1}, durability=durability)
    assert await bench.checkpoint_count() == count


async def test_exit_durability_keeps_completed_steps_of_a_cancelled_run(bench: Bench, tmp_path: Path) -> None:
    """One checkpoint, with what was completed."""
    marks = tmp_path / "marks"
    execution = bench.execution(
        "steps", input={"secs": 30, "slow": "b", "marks": str(marks)}, durability="exit"
    )
    ended = await stopped(execution, marks, "ab", Stop.INTERRUPT)
    assert values(ended)["log"] == ["a"]
    assert await bench.checkpoint_count() == 1


async def test_cancel(bench: Bench, tmp_path: Path) -> None:
    """Completed steps stay, and a run without input goes on from there."""
    marks, gate = tmp_path / "marks", tmp_path / "gate"
    execution = bench.execution("steps", input={"gate": str(gate), "slow": "b", "marks": str(marks)})
    ended = await stopped(execution, marks, "ab", Stop.INTERRUPT)
    gate.touch()
    assert ended is not None
    assert ended.outcome is Outcome.INTERRUPTED
    assert from_json(ended.result)["log"] == ["a"]
    assert ended.failure is not None
    assert (ended.failure.error, ended.failure.message) == ("UserInterrupt", "because")
    assert ended.snapshot is not None
    assert ended.snapshot.has_next
    assert (await bench.result("steps", input=None))["log"] == ["a", "b", "c"]
    assert marks.read_text() == "abbc"


async def test_cancel_of_a_blocking_node(bench: Bench, tmp_path: Path) -> None:
    """The run stops at once; what the node returns later is nowhere."""
    marks, gate = tmp_path / "marks", tmp_path / "gate"
    execution = bench.execution("sblock", input={"gate": str(gate), "marks": str(marks)})
    ended = await stopped(execution, marks, "a", Stop.INTERRUPT)
    assert marks.read_text() == "a"
    assert values(ended)["log"] == []
    gate.touch()
    await until_marks(marks, "aA")
    assert (await bench.run("sblock", input=None)).outcome is Outcome.SUCCESS


async def test_rollback_after_an_earlier_run(bench: Bench, tmp_path: Path) -> None:
    """The thread is as it was before the run."""
    before = await bench.run("steps", input={"n": 1})
    marks = tmp_path / "marks"
    execution = bench.execution("steps", input={"secs": 30, "slow": "b", "n": 2, "marks": str(marks)})
    ended = await stopped(execution, marks, "ab", Stop.ROLLBACK)
    assert ended is not None
    assert ended.outcome is Outcome.ROLLED_BACK
    assert ended.snapshot == before.snapshot
    assert await bench.checkpoint_count() == 5


async def test_rollback_of_a_resumed_run(bench: Bench) -> None:
    """What it wrote beside the paused checkpoint goes too: the question is asked again."""
    paused = await bench.run("intr", input={"n": 1})
    run_id = str(uuid.uuid4())
    assert (await bench.run("intr", run_id=run_id, command={"resume": "x"})).outcome is Outcome.SUCCESS
    execution = bench.execution("intr", run_id=run_id)
    execution.stop(Stop.ROLLBACK, "gone")
    ended = await execution.run()
    assert ended is not None
    assert ended.snapshot == paused.snapshot
    assert "__interrupt__" in await bench.result("intr", input=None)
    assert (await bench.result("intr", command={"resume": "y"}))["ans"] == "y"


async def test_rollback_of_a_first_run(bench: Bench) -> None:
    """An empty thread."""
    run_id = str(uuid.uuid4())
    await bench.run("steps", run_id=run_id, input={"n": 1})
    execution = bench.execution("steps", run_id=run_id)
    execution.stop(Stop.ROLLBACK, "gone")
    ended = await execution.run()
    assert ended is not None
    assert ended.snapshot is not None
    assert ended.snapshot.values is None
    assert await bench.checkpoint_count() == 0


async def test_another_attempt_continues(bench: Bench, tmp_path: Path) -> None:
    """After a worker was lost: finished nodes are not run again, the input is not applied twice."""
    marks, gate, run_id = tmp_path / "marks", tmp_path / "gate", str(uuid.uuid4())
    given = {"gate": str(gate), "slow": "b", "n": 1, "log": ["in"], "marks": str(marks)}
    # Else `b` begins while the checkpoint of `a` is still being written.
    first = bench.execution("steps", run_id, input=given, durability="sync")
    assert await stopped(first, marks, "ab", Stop.LOST) is None
    gate.touch()
    result = await bench.result("steps", run_id=run_id, number=2, input=given)
    assert result["log"] == ["in", "a", "b", "c"]
    assert marks.read_text() == "abbc"


async def test_another_attempt_does_not_apply_a_command_twice(bench: Bench) -> None:
    """A resumed run whose worker was lost at its very end."""
    await bench.run("intr", input={"n": 1})
    run_id = str(uuid.uuid4())
    command = {"resume": "x", "update": {"log": ["update"]}}
    first = await bench.result("intr", run_id=run_id, command=command)
    assert await bench.result("intr", run_id=run_id, number=2, command=command) == first


@pytest.mark.parametrize(
    ("breakpoints", "log"),
    [
        ({"interrupt_before": ["b"]}, ["a"]),
        ({"interrupt_after": ["b"]}, ["a", "b"]),
        ({"interrupt_after": "*"}, ["a"]),
    ],
)
async def test_another_attempt_does_not_pass_a_breakpoint(
    bench: Bench, breakpoints: dict[str, Any], log: list[str]
) -> None:
    """The worker was lost at its very end: the run is over all the same; the next one goes on."""
    run_id = str(uuid.uuid4())
    first = await bench.run("steps", run_id=run_id, input={"n": 1}, **breakpoints)
    assert from_json(first.result)["log"] == log
    again = await bench.run("steps", run_id=run_id, number=2, input={"n": 1}, **breakpoints)
    assert (again.outcome, again.result, again.snapshot) == (first.outcome, first.result, first.snapshot)
    assert (await bench.result("steps", input=None))["log"] == ["a", "b", "c"]


async def test_another_attempt_without_checkpoints_starts_over(bench: Bench) -> None:
    """There is nothing to continue from."""
    result = await bench.result("steps", number=2, input={"n": 1}, stateless=True)
    assert result["log"] == ["a", "b", "c"]


async def test_lost_lease_writes_nothing(bench: Bench, tmp_path: Path) -> None:
    """Another worker may have the run: not one checkpoint more."""
    marks, gate = tmp_path / "marks", tmp_path / "gate"
    given = {"gate": str(gate), "slow": "b", "marks": str(marks)}
    execution = bench.execution("steps", input=given, durability="sync")
    running = asyncio.create_task(execution.run())
    await until_marks(marks, "ab")
    count = await bench.checkpoint_count()
    execution._lease.lose()
    gate.touch()
    assert await running is None
    assert await bench.checkpoint_count() == count


async def test_drain_pauses_between_steps(bench: Bench, tmp_path: Path) -> None:
    """The step under way is finished, and another attempt goes on after it."""
    marks, gate, run_id = tmp_path / "marks", tmp_path / "gate", str(uuid.uuid4())
    given = {"gate": str(gate), "slow": "b", "marks": str(marks)}
    execution = bench.execution("steps", run_id, input=given)
    running = asyncio.create_task(execution.run())
    await until_marks(marks, "ab")
    execution.drain()
    gate.touch()
    ended = await running
    assert ended is not None
    assert (ended.outcome, ended.is_failure) == (Outcome.REQUEUE, False)
    assert (await bench.result("steps", run_id=run_id, number=2, input=given))["log"] == ["a", "b", "c"]
    assert marks.read_text() == "abc"


async def test_timeout(bench: Bench) -> None:
    """Told as an error, so that nobody takes part of the values for all of them."""
    await bench.run("steps", input={"secs": 30, "slow": "b"}, interrupt_before=["b"])
    bench.surroundings = replace(bench.surroundings, run_timeout_s=0.2)
    ended = await bench.run("steps", input=None)
    assert ended.outcome is Outcome.TIMEOUT
    assert from_json(ended.result)["__error__"]["error"] == "TimeoutError"
    assert values(ended)["log"] == ["a"]


async def test_finished_tasks_of_a_cancelled_step_are_kept(bench: Bench, tmp_path: Path) -> None:
    """A run without input runs the unfinished one only; one with input runs both."""
    marks, gate = tmp_path / "marks", tmp_path / "gate"
    given = {"gate": str(gate), "marks": str(marks)}
    ended = await stopped(bench.execution("par", input=given), marks, "fast\nslow\n", Stop.INTERRUPT)
    gate.touch()
    assert values(ended)["log"] == []
    assert (await bench.result("par", input=None))["log"] == ["fast", "slow", "join"]
    assert marks.read_text().split() == ["fast", "slow", "slow", "join"]


async def test_stream_modes(bench: Bench) -> None:
    """Each mode that was asked for, in order; updates before the values of their step."""
    await bench.run("steps", input={"n": 1}, stream_mode=["updates", "values"])
    assert [event.mode for event in bench.said] == ["values"] + ["updates", "values"] * 3
    await bench.run("steps", input={"n": 1}, stream_mode=["tasks"])
    assert {event.mode for event in bench.said} == {"tasks"}


async def test_subgraph_events_carry_their_place(bench: Bench) -> None:
    """Only when asked for."""
    await bench.run("sub", input={}, stream_mode=["updates"])
    assert {event.namespace for event in bench.said} == {()}
    await bench.run("sub", input={}, stream_mode=["updates"], subgraphs=True)
    [inner] = [event for event in bench.said if event.namespace]
    assert inner.namespace[0].startswith("sub:")
    assert from_json(inner.data) == {"deep": {"inner": ["deep"]}}


async def test_messages(bench: Bench) -> None:
    """Chunks as they come, or put together; each message's metadata once."""
    said = {"messages": [{"role": "user", "content": "hi"}]}
    await bench.run("chat", input=said, stream_mode=["messages-tuple"])
    chunks = [from_json(event.data)[0]["content"] for event in bench.said if event.mode == "messages"]
    assert "".join(chunks) == "hello there"
    await bench.run("chat", input=said, stream_mode=["messages"])
    modes = [event.mode for event in bench.said]
    assert modes[:2] == ["messages/metadata", "messages/partial"]
    partial = [from_json(event.data)[0] for event in bench.said if event.mode == "messages/partial"]
    assert (partial[-1]["content"], partial[-1]["type"]) == ("hello there", "ai")


async def test_events_mode(bench: Bench) -> None:
    """Everything that happens inside, and the result is known as well."""
    result = await bench.result("steps", input={"n": 1}, stream_mode=["events"])
    assert result["log"] == ["a", "b", "c"]
    assert "on_chain_end" in {from_json(event.data)["event"] for event in bench.said}


async def test_checkpoint_of_the_past(bench: Bench) -> None:
    """Without input a new branch, which runs what came after the checkpoint."""
    await bench.run("steps", input={"n": 1})
    config: Any = {"configurable": {"thread_id": bench.thread_id}}
    history = [found async for found in bench.checkpoints.saver.alist(config)]
    after_a = next(found for found in history if found.metadata["step"] == 1)
    checkpoint = {"checkpoint_id": after_a.checkpoint["id"], "checkpoint_ns": ""}
    assert (await bench.result("steps", input=None, checkpoint=checkpoint))["log"] == ["a", "b", "c"]
    assert await bench.checkpoint_count() == 8
    assert (await bench.result("steps", input={"n": 2}, checkpoint=checkpoint))["log"] == ["a", "a", "b", "c"]
