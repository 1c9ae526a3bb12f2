"""Threads and assistants over HTTP, through the SDK: what the store is asked, and how it answers."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_sync_client
from langgraph_sdk.client import SyncLangGraphClient
from langgraph_sdk.errors import ConflictError

from runstore.domain.errors import ErrorReason
from runstore.v1 import agent_run_pb2 as runs
from runstore.v1 import assistant_service_pb2 as assistants
from runstore.v1 import thread_service_pb2 as threads

from .conftest import FakeStore, Refuse
from .fake_agents import ASSISTANT_ID, RUN_ID, THREAD_ID


@pytest.fixture
def client(url: str, store: FakeStore) -> Iterator[SyncLangGraphClient]:
    """The published SDK."""
    with get_sync_client(url=url, api_key=None) as client:
        yield client


def test_thread_is_created(client: SyncLangGraphClient, store: FakeStore) -> None:
    """With all that can be said of it."""
    steps: Any = [{"updates": [{"values": {"n": 1}, "as_node": "a"}]}]
    client.threads.create(
        thread_id=THREAD_ID,
        metadata={"m": 1},
        graph_id="steps",
        if_exists="do_nothing",
        supersteps=steps,
        ttl=5,
    )
    [request] = store.of("CreateAgentThread")
    assert request == threads.CreateAgentThreadRequest(
        thread_id=THREAD_ID,
        metadata=b'{"m":1,"graph_id":"steps"}',
        return_existing=True,
        ttl=threads.AgentThreadTtl(minutes=5, strategy="delete"),
        supersteps=b'[{"updates":[{"values":{"n":1},"command":null,"as_node":"a"}]}]',
    )
    store.answers["CreateAgentThread"] = Refuse(ErrorReason.ALREADY_EXISTS, "the id is taken")
    with pytest.raises(ConflictError):
        client.threads.create(thread_id=THREAD_ID)


def test_thread_has_the_keys_of_the_contract(client: SyncLangGraphClient, store: FakeStore) -> None:
    """`values` is null and `interrupts` and `error` are absent until a run has ended."""
    shown: Any = client.threads.get(THREAD_ID)
    assert shown == {
        "thread_id": THREAD_ID, "created_at": "2026-01-01T00:00:00.000000+00:00",
        "updated_at": "2026-01-01T00:00:01.000000+00:00", "state_updated_at": None,
        "metadata": {"graph_id": "steps"}, "config": {}, "status": "interrupted",
        "values": {"log": ["a", {"b": [1, 2]}], "n": 1}, "interrupts": {"t": [{"id": "i", "value": 1}]},
        "error": None,
    }  # fmt: skip
    fresh = threads.AgentThread(thread_id=THREAD_ID, status=threads.AGENT_THREAD_STATUS_IDLE)
    store.answers["GetAgentThread"] = threads.GetAgentThreadResponse(thread=fresh)
    shown = client.threads.get(THREAD_ID)
    assert (shown["values"], "interrupts" in shown, "error" in shown) == (None, False, False)
    failed = threads.AgentThread(
        error=runs.AgentRunError(error="E", message="m"),
        ttl=threads.AgentThreadTtl(minutes=1, strategy="delete"),
    )
    store.answers["GetAgentThread"] = threads.GetAgentThreadResponse(thread=failed)
    shown = client.threads.get(THREAD_ID, include=["ttl"])
    assert shown["error"] == {"error": "E", "message": "m"}
    assert shown["ttl"] == {"ttl": 1, "strategy": "delete", "expires_at": None}


def test_thread_is_changed_copied_and_deleted(client: SyncLangGraphClient, store: FakeStore) -> None:
    """`return_minimal` answers without content."""
    assert client.threads.update(THREAD_ID, metadata={"a": 1}) is not None
    assert client.threads.update(THREAD_ID, metadata={}, ttl=2, return_minimal=True) is None
    assert [request.metadata for request in store.of("UpdateAgentThread")] == [b'{"a":1}', b"{}"]
    client.threads.copy(THREAD_ID)
    assert store.of("CopyAgentThread") == [threads.CopyAgentThreadRequest(thread_id=THREAD_ID)]
    client.threads.delete(THREAD_ID)
    assert store.of("DeleteAgentThread") == [threads.DeleteAgentThreadRequest(thread_id=THREAD_ID)]
    assert client.threads.prune([THREAD_ID], strategy="keep_latest") == {"pruned_count": 2}
    assert store.of("PruneAgentThreads")[0].keep_latest


def test_search_of_threads(client: SyncLangGraphClient, http: httpx.Client, store: FakeStore) -> None:
    """All conditions go to the store; pages say how much there is, and where the next one begins."""
    client.threads.search(
        metadata={"a": 1}, values={"n": 1}, ids=[THREAD_ID], status="idle", limit=3, offset=4,
        sort_by="created_at", sort_order="asc",
    )  # fmt: skip
    [request] = store.of("SearchAgentThreads")
    assert request == threads.SearchAgentThreadsRequest(
        condition=threads.AgentThreadCondition(
            metadata=b'{"a":1}',
            values=b'{"n":1}',
            status=threads.AGENT_THREAD_STATUS_IDLE,
            thread_ids=[THREAD_ID],
        ),
        order=threads.AGENT_THREAD_ORDER_CREATE_TIME,
        ascending=True,
        offset=4,
        page_size=3,
    )
    answer = http.post("/threads/search", json={"offset": 4})
    assert (answer.headers["x-pagination-total"], answer.headers["x-pagination-next"]) == ("9", "5")
    assert "x-pagination-next" not in http.post("/threads/search", json={"offset": 8}).headers
    assert client.threads.count(status="busy") == 7
    for body in ({"limit": 0}, {"limit": 1001}, {"status": "x"}, {"ids": ["x"]}, {"select": ["x"]}):
        assert http.post("/threads/search", json=body).status_code == 422


def test_search_shows_what_is_asked_for(client: SyncLangGraphClient) -> None:
    """Keys, and values at paths; what is nowhere is null."""
    paths = {"b": "values.log[-1].b[0]", "none": "values.log[9].x", "odd": "values.n.x[z]"}
    found: Any
    [found] = client.threads.search(select=["status"], extract=paths)
    assert found == {"status": "interrupted", "extracted": {"b": 1, "none": None, "odd": None}}


def test_states(client: SyncLangGraphClient, http: httpx.Client, store: FakeStore) -> None:
    """By the latest checkpoint, by id and by checkpoint; keys of the values can be chosen."""
    assert client.threads.get_state(THREAD_ID)["next"] == ["b"]
    part: Any = client.threads.get_state(THREAD_ID, select=["values.n", "next"])
    assert part == {"values": {"n": 1}, "next": ["b"]}
    client.threads.get_state(THREAD_ID, checkpoint_id=RUN_ID, subgraphs=True)
    checkpoint: Any = {"checkpoint_ns": "x"}
    client.threads.get_state(THREAD_ID, checkpoint=checkpoint, subgraphs=True)
    asked = store.of("GetThreadState")
    assert [(each.checkpoint, each.subgraphs) for each in asked] == [
        (b"", False),
        (b"", False),
        (b'{"checkpoint_id":"%b"}' % RUN_ID.encode(), True),
        (b'{"checkpoint_ns":"x"}', True),
    ]
    assert http.get(f"/threads/{THREAD_ID}/state", params={"select": "nothing"}).status_code == 422


def test_history_and_update(client: SyncLangGraphClient, store: FakeStore) -> None:
    """JSON goes through as it is; a checkpoint's id goes before the checkpoint."""
    history: Any = client.threads.get_history(
        THREAD_ID, limit=5, before=RUN_ID, metadata={"step": 1}, select=["next"]
    )
    assert history == [{"next": ["b"]}] * 2
    [request] = store.of("ListThreadHistory")
    assert (request.limit, request.before, request.metadata) == (5, b'"%b"' % RUN_ID.encode(), b'{"step":1}')
    updated: Any = client.threads.update_state(THREAD_ID, {"n": 2}, as_node="a", checkpoint_id=RUN_ID)
    assert updated["checkpoint"] == {"checkpoint_id": "d"}
    [written] = store.of("UpdateThreadState")
    assert written == threads.UpdateThreadStateRequest(
        thread_id=THREAD_ID,
        values=b'{"n":2}',
        as_node="a",
        checkpoint=b'{"checkpoint_id":"%b"}' % RUN_ID.encode(),
    )


def test_thread_is_followed_over_its_runs(http: httpx.Client, store: FakeStore) -> None:
    """Events and `run_done`, with ids, until the client leaves."""
    said = runs.AgentRunEvent(event_id="5-1", mode="values", data=b"{}")

    async def steps(_: Any) -> AsyncIterator[Any]:
        yield threads.JoinAgentThreadResponse(run_id=RUN_ID, event=said)
        ended = runs.AgentRunEnd(status=runs.AGENT_RUN_STATUS_SUCCESS)
        yield threads.JoinAgentThreadResponse(run_id=RUN_ID, end=ended)
        yield Refuse(ErrorReason.NOT_FOUND, "deleted")

    store.answers["JoinAgentThread"] = steps
    query = {"stream_mode": "run_modes", "stream_modes": "lifecycle"}
    answer = http.get(f"/threads/{THREAD_ID}/stream", params=query, headers={"last-event-id": "5-0"})
    assert answer.content == (
        b"event: values\r\ndata: {}\r\nid: 5-1\r\n\r\n"
        b'event: run_done\r\ndata: {"run_id":"' + RUN_ID.encode() + b'","status":"success"}\r\n\r\n'
        b'event: error\r\ndata: {"error":"NotFoundError","message":"deleted"}\r\n\r\n'
    )
    [joining] = store.of("JoinAgentThread")
    assert (joining.after_event_id, list(joining.modes)) == ("5-0", ["run_modes", "lifecycle"])
    missing = Refuse(ErrorReason.NOT_FOUND, "no such thread")
    store.answers["GetAgentThread"] = missing
    assert http.get(f"/threads/{THREAD_ID}/stream").status_code == 404


def test_assistants(client: SyncLangGraphClient, http: httpx.Client, store: FakeStore) -> None:
    """Each call of the SDK, and what it asks of the store."""
    client.assistants.create(
        "steps", {"tags": ["t"]}, metadata={"m": 1}, assistant_id=ASSISTANT_ID, if_exists="do_nothing",
        name="n", description="d",
    )  # fmt: skip
    assert store.of("CreateAssistant") == [
        assistants.CreateAssistantRequest(
            assistant_id=ASSISTANT_ID, graph_id="steps", config=b'{"tags":["t"]}', metadata=b'{"m":1}',
            name="n", description="d", return_existing=True,
        )
    ]  # fmt: skip
    client.assistants.update(ASSISTANT_ID, context={"c": 1})
    [updated] = store.of("UpdateAssistant")
    assert (updated.context, updated.HasField("config"), updated.HasField("name")) == (
        b'{"c":1}',
        False,
        False,
    )
    assert client.assistants.get(ASSISTANT_ID)["version"] == 1
    page = client.assistants.search(graph_id="steps", name="n", sort_by="name", response_format="object")
    assert (page["assistants"][0]["graph_id"], page["next"]) == ("steps", None)
    names: Any = client.assistants.search(select=["name"])
    assert names == [{"name": "n"}]
    assert client.assistants.count(graph_id="steps") == 1
    assert client.assistants.get_versions(ASSISTANT_ID)[0]["name"] == "n"
    assert client.assistants.set_latest(ASSISTANT_ID, 1)["assistant_id"] == ASSISTANT_ID
    assert client.assistants.get_schemas(ASSISTANT_ID)["graph_id"] == "steps"
    assert client.assistants.get_graph("steps", xray=True) == {"nodes": [], "edges": []}
    client.assistants.get_graph("steps", xray=2)
    client.assistants.get_graph("steps")
    assert [request.xray for request in store.of("GetAssistantGraph")] == [-1, 2, 0]
    assert http.get("/assistants/steps/graph", params={"xray": "x"}).status_code == 422
    assert client.assistants.get_subgraphs(ASSISTANT_ID, namespace="sub", recurse=True) == {}
    assert client.assistants.get_subgraphs(ASSISTANT_ID) == {}
    [named, every] = store.of("GetAssistantSubgraphs")
    assert (named.namespace, named.recurse, every.HasField("namespace")) == ("sub", True, False)
    client.assistants.delete(ASSISTANT_ID, delete_threads=True)
    assert store.of("DeleteAssistant")[0].delete_threads


def test_server_tells_both_sdks_what_it_is(http: httpx.Client, store: FakeStore) -> None:
    """`/info` has the flags of agents beside LangSmith's; `/ok` looks at the store when asked to."""
    info = http.get("/info").json()
    assert (info["flags"]["assistants"], "batch_ingest_config" in info) == (True, True)
    assert http.get("/ok", params={"check_db": "1"}).json() == {"ok": True, "services": {}}
    store.serving = False
    assert http.get("/ok", params={"check_db": "1"}).status_code == 503
    assert http.get("/ok").status_code == 200
