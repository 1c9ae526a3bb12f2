"""What only graphs and checkpoints can tell, and the changes of checkpoints that no run makes."""

import json
import uuid
from typing import Any

import pytest

from runstore.agents.attempts import Outcome
from runstore.agents.json_values import from_json
from runstore.agents.questions import Questions
from runstore.v1 import agent_worker_service_pb2 as pb
from runstore.v1 import error_pb2
from runstore.v1 import thread_service_pb2 as threads

from .conftest import Bench


@pytest.fixture(params=["sqlite", "postgresql"])
def checkpoint_location(request: pytest.FixtureRequest) -> str:
    """Of either kind, always: questions are what most of their SQL is for."""
    location: str = request.getfixturevalue(f"{request.param}_location")
    return location


async def answer(bench: Bench, graph_id: str = "", **question: Any) -> pb.WorkerAnswer:
    """The worker's answer to one question."""
    questions = Questions(bench.graphs, bench.checkpoints, None)
    asked = pb.WorkerQuestion(question_id="q", graph_id=graph_id, config=b"{}", **question)
    given = await questions.answer(asked)
    assert given.question_id == "q"
    return given


async def value(bench: Bench, graph_id: str = "", **question: Any) -> Any:
    """The value of an answer."""
    given = await answer(bench, graph_id, **question)
    assert given.WhichOneof("answer") == "value", given.refusal.message
    return from_json(given.value)


async def state(bench: Bench, graph_id: str, **fields: Any) -> Any:
    """The thread's state."""
    return await value(
        bench, graph_id, state=threads.GetThreadStateRequest(thread_id=bench.thread_id, **fields)
    )


async def history(bench: Bench, graph_id: str, **fields: Any) -> Any:
    """The thread's states."""
    request = threads.ListThreadHistoryRequest(thread_id=bench.thread_id, **fields)
    return await value(bench, graph_id, history=request)


async def test_state_of_a_thread_that_never_ran(bench: Bench) -> None:
    """Empty, and at no checkpoint."""
    found = await state(bench, "steps")
    assert (found["values"], found["next"], found["checkpoint"]) == ({}, [], None)


async def test_state(bench: Bench) -> None:
    """Values, what is next, what is asked, and where it came from."""
    await bench.run("intr", input={"n": 1})
    found = await state(bench, "intr")
    assert (found["values"], found["next"]) == ({"log": ["pre"], "n": 1}, ["ask"])
    [task] = found["tasks"]
    assert (task["name"], task["error"], task["interrupts"][0]["value"]) == ("ask", None, {"q": "who?"})
    assert found["interrupts"][0]["id"] == task["interrupts"][0]["id"]
    assert found["checkpoint"] == {
        "thread_id": bench.thread_id,
        "checkpoint_ns": "",
        "checkpoint_id": found["checkpoint_id"],
    }
    assert found["parent_checkpoint"]["checkpoint_id"] == found["parent_checkpoint_id"]
    assert found["metadata"]["run_id"]
    assert found["created_at"]


async def test_state_of_a_failed_step(bench: Bench) -> None:
    """The task carries the error."""
    await bench.run("steps", input={"fail": True})
    found = await state(bench, "steps")
    assert (found["next"], found["tasks"][0]["error"]) == (["b"], "ValueError('boom')")


async def test_state_at_a_checkpoint(bench: Bench) -> None:
    """Of the past; an unknown one is empty."""
    await bench.run("steps", input={"n": 1})
    past = (await history(bench, "steps", limit=10))[2]
    at = json.dumps({"checkpoint_id": past["checkpoint_id"], "checkpoint_ns": ""}).encode()
    assert (await state(bench, "steps", checkpoint=at))["values"] == past["values"]
    at = json.dumps({"checkpoint_id": str(uuid.uuid4())}).encode()
    assert (await state(bench, "steps", checkpoint=at))["values"] == {}


async def test_history(bench: Bench) -> None:
    """The newest first, one unless asked for more, before a checkpoint, and by metadata."""
    await bench.run("steps", input={"n": 1})
    states = await history(bench, "steps", limit=10)
    assert [found["next"] for found in states] == [[], ["c"], ["b"], ["a"], ["__start__"]]
    assert await history(bench, "steps") == states[:1]
    before = json.dumps(states[2]["checkpoint"]).encode()
    assert await history(bench, "steps", limit=10, before=before) == states[3:]
    before = json.dumps(states[2]["checkpoint_id"]).encode()
    assert await history(bench, "steps", limit=1, before=before) == states[3:4]
    assert await history(bench, "steps", limit=10, metadata=b'{"source": "input"}') == states[4:]


async def test_update_of_the_state(bench: Bench) -> None:
    """As if the node had returned it; the snapshot is what the thread holds then."""
    await bench.run("steps", input={"n": 1}, interrupt_before=["b"])
    request = threads.UpdateThreadStateRequest(
        thread_id=bench.thread_id, values=b'{"log": ["mine"]}', as_node="b"
    )
    given = await answer(bench, "steps", update_state=request)
    updated = from_json(given.value)
    assert updated["checkpoint"]["checkpoint_id"] == updated["checkpoint_id"]
    assert from_json(given.snapshot.values)["log"] == ["a", "mine"]
    assert given.snapshot.has_next
    assert (await bench.result("steps", input=None))["log"] == ["a", "mine", "c"]


@pytest.mark.parametrize(("values", "node"), [(b"{}", "nowhere"), (b"[1]", "a"), (b"7", "a")])
async def test_update_that_the_graph_refuses(bench: Bench, values: bytes, node: str) -> None:
    """In words for the caller."""
    await bench.run("steps", input={"n": 1})
    request = threads.UpdateThreadStateRequest(thread_id=bench.thread_id, values=values, as_node=node)
    given = await answer(bench, "steps", update_state=request)
    assert given.refusal.reason == error_pb2.ERROR_REASON_INCONSISTENT
    assert given.refusal.message


async def test_supersteps(bench: Bench) -> None:
    """Make a thread's first checkpoints."""
    steps = [
        {"updates": [{"values": {"n": 1}, "as_node": "__input__"}]},
        {"updates": [{"values": {"n": 1}, "as_node": "__start__"}]},
        {"updates": [{"values": {"log": ["a"]}, "as_node": "a"}]},
    ]
    asked = pb.ApplySupersteps(thread_id=bench.thread_id, supersteps=json.dumps(steps).encode())
    given = await answer(bench, "steps", apply_supersteps=asked)
    assert from_json(given.snapshot.values) == {"log": ["a"], "n": 1}
    assert (await bench.result("steps", input=None))["log"] == ["a", "b", "c"]


async def test_copy(bench: Bench) -> None:
    """A thread of its own, with the same past."""
    await bench.run("intr", input={"n": 1})
    original = bench.thread_id
    bench.thread_id = str(uuid.uuid4())
    copy = pb.CopyCheckpoints(source_thread_id=original, target_thread_id=bench.thread_id)
    await value(bench, copy_checkpoints=copy)
    await value(bench, copy_checkpoints=copy)
    assert (await bench.result("intr", command={"resume": "x"}))["ans"] == "x"
    bench.thread_id = original
    assert (await state(bench, "intr"))["next"] == ["ask"]


async def test_deletions(bench: Bench) -> None:
    """Of a run, of all but the latest state, of everything; each twice is the same."""
    run_id = str(uuid.uuid4())
    await bench.run("steps", input={"n": 1})
    await bench.run("steps", run_id=run_id, input={"n": 2})
    asked = pb.DeleteCheckpoints(thread_id=bench.thread_id, run_id=run_id)
    for _ in range(2):
        given = await answer(bench, "steps", delete_checkpoints=asked)
        assert from_json(given.snapshot.values)["log"] == ["a", "b", "c"]
    assert await bench.checkpoint_count() == 5
    before = await state(bench, "steps")
    for _ in range(2):
        await value(
            bench, delete_checkpoints=pb.DeleteCheckpoints(thread_id=bench.thread_id, keep_latest=True)
        )
    assert await bench.checkpoint_count() == 1
    assert (await state(bench, "steps"))["values"] == before["values"]
    for _ in range(2):
        await value(bench, delete_checkpoints=pb.DeleteCheckpoints(thread_id=bench.thread_id))
    assert await bench.checkpoint_count() == 0


async def test_latest_state_of_a_paused_thread_is_kept_whole(bench: Bench) -> None:
    """What it asks can still be answered."""
    await bench.run("intr", input={"n": 1})
    await value(bench, delete_checkpoints=pb.DeleteCheckpoints(thread_id=bench.thread_id, keep_latest=True))
    ended = await bench.run("intr", command={"resume": "x"})
    assert ended.outcome is Outcome.SUCCESS
    assert from_json(ended.result)["ans"] == "x"


async def test_schemas(bench: Bench) -> None:
    """Six keys; of contexts only where there are any."""
    schemas = await value(bench, "steps", schemas=pb.SchemasQuestion())
    assert set(schemas) == {
        "graph_id",
        "input_schema",
        "output_schema",
        "state_schema",
        "config_schema",
        "context_schema",
    }
    assert (schemas["graph_id"], schemas["config_schema"], schemas["context_schema"]) == ("steps", {}, None)
    for name in ("input_schema", "output_schema", "state_schema"):
        assert "log" in schemas[name]["properties"]
    schemas = await value(bench, "ctxg", schemas=pb.SchemasQuestion())
    assert schemas["config_schema"] == schemas["context_schema"]
    assert set(schemas["context_schema"]["properties"]) == {"model", "temp"}


async def test_drawing(bench: Bench) -> None:
    """Nodes and edges; those of subgraphs on request."""
    drawing = await value(bench, "steps", drawing=pb.DrawingQuestion())
    assert [node["id"] for node in drawing["nodes"]] == ["__start__", "a", "b", "c", "__end__"]
    assert {"source": "a", "target": "b"} in drawing["edges"]
    deep = await value(bench, "sub", drawing=pb.DrawingQuestion(xray=-1))
    assert any("deep" in node["id"] for node in deep["nodes"])


async def test_subgraphs(bench: Bench) -> None:
    """By name."""
    found = await value(bench, "sub", subgraphs=pb.SubgraphsQuestion(recurse=True))
    assert list(found) == ["sub"]
    assert "inner" in found["sub"]["input_schema"]["properties"]
    assert await value(bench, "sub", subgraphs=pb.SubgraphsQuestion(namespace="other")) == {}


async def test_factory_that_ends_the_process(bench: Bench) -> None:
    """Is an answer, too."""
    given = await answer(bench, "leaves", state=threads.GetThreadStateRequest(thread_id=bench.thread_id))
    assert given.refusal.reason == error_pb2.ERROR_REASON_INTERNAL


async def test_unknown_graph(bench: Bench) -> None:
    """Another worker may have it."""
    given = await answer(bench, "nowhere", schemas=pb.SchemasQuestion())
    assert given.refusal.reason == error_pb2.ERROR_REASON_NOT_FOUND
