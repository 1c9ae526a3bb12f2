"""Assistants through the published SDK (contract agents, section 1.3)."""

import uuid
from typing import Any

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import BadRequestError, ConflictError, NotFoundError, UnprocessableEntityError
from tests.contract.servers import Server

STEPS = "01d10e59-d4b4-51ec-8e94-9b2716b34de8"


async def test_default_assistants(client: LangGraphClient) -> None:
    """H9: every graph has one, under the contract's id."""
    found = await client.assistants.search(graph_id="steps", metadata={"created_by": "system"})
    assert [(each["assistant_id"], each["name"], each["version"]) for each in found] == [(STEPS, "steps", 1)]
    assert (await client.assistants.get(STEPS))["graph_id"] == "steps"
    runtime = await client.assistants.search(graph_id="runtime")
    assert runtime[0]["description"] == "Made by a factory that asks for the runtime."


async def test_life_of_an_assistant(client: LangGraphClient) -> None:
    """Created, changed in versions, set back, run, deleted."""
    made = await client.assistants.create(
        "ctxg",
        context={"model": "M1"},
        metadata={"owner": "me", "n": 1},
        name="Mine",
        description="For tests.",
    )
    assistant_id = made["assistant_id"]
    assert made["version"] == 1
    assert made["config"] == {"configurable": {"model": "M1"}}
    assert made["context"] == {"model": "M1"}
    changed = await client.assistants.update(assistant_id, context={"model": "M2"}, metadata={"n": 2})
    assert (changed["version"], changed["metadata"]) == (2, {"owner": "me", "n": 2})
    assert await client.assistants.get(assistant_id) == changed
    versions = await client.assistants.get_versions(assistant_id)
    assert [version["version"] for version in versions] == [2, 1]
    assert [v["version"] for v in await client.assistants.get_versions(assistant_id, metadata={"n": 1})] == [
        1
    ]
    assert "updated_at" in changed
    second = await client.runs.wait(None, assistant_id, input={})
    first = await client.assistants.set_latest(assistant_id, 1)
    assert (first["version"], first["context"]) == (1, {"model": "M1"})
    assert "M2" in str(second)
    assert "M1" in str(await client.runs.wait(None, assistant_id, input={}))
    await client.assistants.delete(assistant_id)
    with pytest.raises(NotFoundError):
        await client.assistants.get(assistant_id)


async def test_search_pages(client: LangGraphClient) -> None:
    """H11: pages hold each assistant once; `next` is there while there are more."""
    mark = str(uuid.uuid4())
    for number in range(3):
        await client.assistants.create("steps", metadata={"mark": mark}, name=f"Bot {number}")
    assert await client.assistants.count(metadata={"mark": mark}) == 3
    seen: list[Any] = []
    offset = 0
    while True:
        page = await client.assistants.search(
            metadata={"mark": mark},
            limit=2,
            offset=offset,
            sort_by="name",
            sort_order="asc",
            select=["name"],
            response_format="object",
        )
        seen += page["assistants"]
        if page["next"] is None:
            break
        offset = int(page["next"])
    assert seen == [{"name": "Bot 0"}, {"name": "Bot 1"}, {"name": "Bot 2"}]
    assert len(await client.assistants.search(metadata={"mark": mark}, name="BOT 1")) == 1


async def test_refusals(client: LangGraphClient, server: Server) -> None:
    """Unknown graphs, taken ids, both configurations, malformed ids and bodies: the contract's statuses."""
    with pytest.raises(NotFoundError):
        await client.assistants.create("nothing")
    with pytest.raises(ConflictError):
        await client.assistants.create("steps", assistant_id=STEPS)
    existing = await client.assistants.create(
        "steps", assistant_id=STEPS, if_exists="do_nothing", name="other"
    )
    assert existing["name"] == "steps"
    with pytest.raises(BadRequestError):
        await client.assistants.create("steps", config={"configurable": {"a": 1}}, context={"b": 1})
    with pytest.raises(UnprocessableEntityError):
        await client.assistants.get("steps")
    with pytest.raises(NotFoundError):
        await client.assistants.update(str(uuid.uuid4()), name="x")
    with pytest.raises(NotFoundError):
        await client.assistants.set_latest(STEPS, 99)
    async with httpx.AsyncClient(base_url=server.url) as http:
        for body in ("{}", "[]", "{", '{"graph_id":1}', '{"graph_id":"steps","metadata":[]}'):
            answer = await http.post("/assistants", content=body)
            assert (answer.status_code, list(answer.json())) == (422, ["detail"])


async def test_schemas_and_drawings(client: LangGraphClient) -> None:
    """H10: six keys; a drawing by the graph's name, too; subgraphs by their names."""
    schemas: Any = await client.assistants.get_schemas(STEPS)
    assert set(schemas) == {
        *("graph_id", "input_schema", "output_schema"),
        *("state_schema", "config_schema", "context_schema"),
    }
    assert "log" in schemas["state_schema"]["properties"]
    drawing = await client.assistants.get_graph("steps")
    assert {node["id"] for node in drawing["nodes"]} >= {"a", "b", "c"}
    nested = (await client.assistants.search(graph_id="sub"))[0]["assistant_id"]
    assert await client.assistants.get_subgraphs(nested)
    assert await client.assistants.get_graph(nested, xray=True) != await client.assistants.get_graph(nested)


async def test_deleting_with_threads(client: LangGraphClient) -> None:
    """The threads whose latest run was the assistant's go with it; those of others stay."""
    made = await client.assistants.create("steps")
    thread = (await client.threads.create())["thread_id"]
    other = (await client.threads.create())["thread_id"]
    await client.runs.wait(thread, made["assistant_id"], input={"n": 1})
    await client.runs.wait(other, "steps", input={"n": 1})
    await client.assistants.delete(made["assistant_id"], delete_threads=True)
    with pytest.raises(NotFoundError):
        await client.threads.get(thread)
    assert (await client.threads.get(other))["status"] == "idle"
