"""Threads and assistants, their states and searches (contract agents, sections 1.2, 1.3 and 6, H9 to H11)."""

import itertools
import uuid
from typing import Any

import pytest
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import BadRequestError, ConflictError, NotFoundError, UnprocessableEntityError
from tests.agents.steps import until_status

NAMESPACE = uuid.UUID("6ba7b821-9dad-11d1-80b4-00c04fd430c8")


async def test_thread_is_made_once(client: LangGraphClient) -> None:
    """With the caller's id and metadata; again it is a conflict, or the same thread."""
    thread_id = str(uuid.uuid4())
    made = await client.threads.create(thread_id=thread_id, metadata={"a": 1}, graph_id="steps")
    assert (made["thread_id"], made["status"], made["values"]) == (thread_id, "idle", None)
    assert made["metadata"] == {"a": 1, "graph_id": "steps"}
    with pytest.raises(ConflictError):
        await client.threads.create(thread_id=thread_id)
    again = await client.threads.create(thread_id=thread_id, if_exists="do_nothing", metadata={"b": 2})
    assert again["metadata"] == made["metadata"]
    with pytest.raises(UnprocessableEntityError):
        await client.threads.create(thread_id="mine")


async def test_metadata_is_merged(client: LangGraphClient, thread: str) -> None:
    """Keys that are not named stay."""
    await client.threads.update(thread, metadata={"a": 1, "b": 1})
    changed: Any = await client.threads.update(thread, metadata={"b": 2})
    assert changed["metadata"] == {"a": 1, "b": 2}
    update: Any = client.threads.update
    assert await update(thread, metadata={"c": 3}, return_minimal=True) is None


async def test_search_and_count(client: LangGraphClient) -> None:
    """By metadata, values, status and ids, in pages."""
    mark = uuid.uuid4().hex
    made = [await client.threads.create(metadata={"mark": mark, "n": n}) for n in range(4)]
    ids = [thread["thread_id"] for thread in made]
    await client.runs.wait(ids[0], "steps", input={"n": 5})
    await client.runs.wait(ids[1], "intr", input={})

    async def found(**conditions: Any) -> list[int]:
        threads: Any = await client.threads.search(metadata={"mark": mark}, **conditions)
        return [ids.index(thread["thread_id"]) for thread in threads]

    assert await found(sort_by="created_at", sort_order="asc") == [0, 1, 2, 3]
    assert await found(sort_by="created_at", sort_order="desc", limit=2, offset=1) == [2, 1]
    assert await found(status="interrupted") == [1]
    assert await found(values={"n": 5}) == [0]
    assert sorted(await found(ids=[ids[3], ids[2]])) == [2, 3]
    assert await client.threads.count(metadata={"mark": mark}) == 4
    assert await client.threads.count(metadata={"mark": mark}, status="idle") == 3


async def test_state_and_history(client: LangGraphClient, thread: str) -> None:
    """Empty before the first run; then every step, the newest first, each with its parent."""
    empty: Any = await client.threads.get_state(thread)
    assert (empty["values"] or {}, list(empty["next"])) == ({}, [])
    await client.runs.wait(thread, "steps", input={"n": 1})
    state: Any = await client.threads.get_state(thread)
    assert (state["values"]["log"], list(state["next"])) == (["a", "b", "c"], [])
    history: Any = await client.threads.get_history(thread, limit=10)
    assert [list(each["next"]) for each in history] == [[], ["c"], ["b"], ["a"], ["__start__"]]
    for newer, older in itertools.pairwise(history):
        assert newer["parent_checkpoint"] == older["checkpoint"]
    middle = history[2]["checkpoint"]
    by_id: Any = await client.threads.get_state(thread, checkpoint_id=middle["checkpoint_id"])
    by_checkpoint: Any = await client.threads.get_state(thread, checkpoint=middle)
    assert by_id["values"] == by_checkpoint["values"] == history[2]["values"]
    older = await client.threads.get_history(thread, limit=1, before=middle)
    assert older == history[3:4]
    unknown: Any = await client.threads.get_state(thread, checkpoint_id=str(uuid.uuid4()))
    assert not unknown["values"]


async def test_states_of_subgraphs(client: LangGraphClient, thread: str) -> None:
    """In the tasks of their nodes, when asked for."""
    await client.runs.wait(thread, "sub", input={}, interrupt_before=["sub"])
    state: Any = await client.threads.get_state(thread, subgraphs=True)
    assert [task["name"] for task in state["tasks"]] == ["sub"]


async def test_state_is_updated(client: LangGraphClient, thread: str) -> None:
    """As if a node had returned it; not while a run is in flight, nor for an unknown node or no graph."""
    with pytest.raises(BadRequestError):
        await client.threads.update_state(thread, {"n": 1})
    await client.runs.wait(thread, "steps", input={"n": 1}, interrupt_before=["b"])
    updated: Any = await client.threads.update_state(thread, {"log": ["x"]}, as_node="b")
    assert updated["checkpoint"]["thread_id"] == thread
    found: Any = await client.threads.get(thread)
    assert (found["values"]["log"], found["status"]) == (["a", "x"], "interrupted")
    result: Any = await client.runs.wait(thread, "steps")
    assert result["log"] == ["a", "x", "c"]
    with pytest.raises(BadRequestError):
        await client.threads.update_state(thread, {"n": 2}, as_node="nowhere")
    run = await client.runs.create(thread, "steps", input={"secs": 30})
    with pytest.raises(ConflictError):
        await client.threads.update_state(thread, {"n": 2})
    await client.runs.cancel(thread, run["run_id"], wait=True)


async def test_copy_goes_its_own_way(client: LangGraphClient, thread: str) -> None:
    """With all checkpoints; what happens to one does not happen to the other."""
    await client.runs.wait(thread, "steps", input={"n": 1})
    copy: Any = client.threads.copy
    copied = (await copy(thread))["thread_id"]
    assert copied != thread
    assert len(await client.threads.get_history(copied, limit=100)) == 5
    await client.runs.wait(copied, "steps", input={"n": 2})
    one, other = [(await client.threads.get_state(each))["values"] for each in (thread, copied)]
    assert (one["log"], other["log"]) == (list("abc"), list("abcabc"))  # type: ignore[call-overload]
    with pytest.raises(ConflictError):
        await client.threads.copy(str(uuid.uuid4()))


async def test_prune(client: LangGraphClient) -> None:
    """All checkpoints but the latest, or whole threads."""
    ids = [(await client.threads.create())["thread_id"] for _ in range(2)]
    for thread_id in ids:
        await client.runs.wait(thread_id, "steps", input={"n": 1})
    assert await client.threads.prune(ids[:1], strategy="keep_latest") == {"pruned_count": 1}
    [kept] = await client.threads.get_history(ids[0], limit=100)
    assert kept["values"]["log"] == ["a", "b", "c"]  # type: ignore[call-overload]
    assert await client.threads.prune(ids) == {"pruned_count": 2}
    with pytest.raises(NotFoundError):
        await client.threads.get(ids[0])


async def test_first_checkpoints_of_a_thread(client: LangGraphClient) -> None:
    """Given as supersteps."""
    steps: Any = [{"updates": [{"values": {"n": 7, "log": ["z"]}, "as_node": "a"}]}]
    made = await client.threads.create(graph_id="steps", supersteps=steps)
    result: Any = await client.runs.wait(made["thread_id"], "steps")
    assert (result["log"], result["n"]) == (["z", "b", "c"], 7)


# -- assistants ----------------------------------------------------------------------------------------


async def test_default_assistants(client: LangGraphClient) -> None:
    """H9: one for each graph, by a name-based id."""
    listed = await client.assistants.search(limit=100, metadata={"created_by": "system"})
    ids = {each["graph_id"]: each["assistant_id"] for each in listed}
    assert ids["steps"] == "01d10e59-d4b4-51ec-8e94-9b2716b34de8"
    assert ids["intr"] == "df4c18b6-4f92-57a5-94c9-1b1a06f2588b"
    assert {graph: str(uuid.uuid5(NAMESPACE, graph)) for graph in ids} == ids
    steps = await client.assistants.get(ids["steps"])
    assert (steps["name"], steps["version"]) == ("steps", 1)
    with pytest.raises(UnprocessableEntityError):
        await client.assistants.get("steps")


async def test_schemas_and_drawing(client: LangGraphClient) -> None:
    """H10: six schemas; a graph is drawn by its own name, too."""
    [contexts] = await client.assistants.search(graph_id="ctxg", metadata={"created_by": "system"})
    schemas = await client.assistants.get_schemas(contexts["assistant_id"])
    assert set(schemas) == {
        *("graph_id", "input_schema", "output_schema", "state_schema", "config_schema", "context_schema")
    }
    assert schemas["context_schema"] is not None
    assert set(schemas["context_schema"]["properties"]) == {"model", "temp"}
    drawn = await client.assistants.get_graph("steps")
    assert {"a", "b", "c"} <= {node["id"] for node in drawn["nodes"]}
    [nested] = await client.assistants.search(graph_id="sub", metadata={"created_by": "system"})
    assert list(await client.assistants.get_subgraphs(nested["assistant_id"])) == ["sub"]


async def test_assistant_and_its_versions(client: LangGraphClient) -> None:
    """H11: made, found by page, changed, set back, run, deleted."""
    mark = uuid.uuid4().hex
    made = [await client.assistants.create("ctxg", metadata={"mark": mark}, name=f"n{n}") for n in range(3)]
    page = await client.assistants.search(metadata={"mark": mark}, limit=2, response_format="object")
    assert (len(page["assistants"]), page["next"]) == (2, "2")
    assert await client.assistants.count(metadata={"mark": mark}) == 3
    assistant_id = made[0]["assistant_id"]
    changed = await client.assistants.update(assistant_id, context={"model": "B"}, metadata={"more": 1})
    assert (changed["version"], changed["metadata"]) == (2, {"mark": mark, "more": 1})
    result: Any = await client.runs.wait(None, assistant_id, input={})
    assert result["seen"]["model"] == "B"
    versions = await client.assistants.get_versions(assistant_id)
    assert [version["version"] for version in versions] == [2, 1]
    await client.assistants.set_latest(assistant_id, 1)
    result = await client.runs.wait(None, assistant_id, input={})
    assert result["seen"]["model"] == "m0"
    with pytest.raises(ConflictError):
        await client.assistants.create("ctxg", assistant_id=assistant_id)
    with pytest.raises(NotFoundError):
        await client.assistants.create("nothing")
    await client.assistants.delete(assistant_id)
    with pytest.raises(NotFoundError):
        await client.assistants.get(assistant_id)


async def test_deleted_assistant_ends_its_runs(client: LangGraphClient, thread: str) -> None:
    """Those in flight are cancelled."""
    assistant = await client.assistants.create("steps")
    run = await client.runs.create(thread, assistant["assistant_id"], input={"secs": 30})
    await until_status(client, thread, run["run_id"], "running")
    await client.assistants.delete(assistant["assistant_id"])
    await until_status(client, thread, run["run_id"], "interrupted")
